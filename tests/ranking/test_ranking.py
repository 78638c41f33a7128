"""Which variants go to the final, and which one wins with what claim."""

import dataclasses
from collections.abc import Mapping
from random import Random

import pytest
import store_examples
from hypothesis import given
from hypothesis import strategies as st

from tuner.ranking import (
    Contender,
    confirmed_winner,
    estimated_winner,
    fastest,
    finalists,
    marked,
    prefer_few_compiles,
)
from tuner.records import Evaluation, SpecializationSet, Speedup, Status, Variant, Winner

BASELINE = store_examples.variant(0)
SHAPE = store_examples.shape(64)


def with_marks(number: int, *marks: str) -> Variant:
    return dataclasses.replace(store_examples.variant(number), specialization=SpecializationSet.of(marks))


def timed(variant: Variant, median_us: float, digest: str | None = None) -> Evaluation:
    example = store_examples.evaluation(0)
    assert example.binary is not None
    binary = dataclasses.replace(example.binary, digest=digest or variant.digest)
    timing = store_examples.timing(median_us)
    return dataclasses.replace(example, variant=variant, shape=SHAPE, binary=binary, timing=timing)


def failed(variant: Variant) -> Evaluation:
    return Evaluation(variant, SHAPE, Status.WRONG_OUTPUT)


def one_compile(_: Variant) -> int:
    return 1


# --- finalists


def test_the_fastest_come_first_and_failures_never() -> None:
    found = [timed(with_marks(number), 20.0 - number) for number in range(4)]
    assert fastest([failed(with_marks(8)), *found], 3) == [[found[3]], [found[2]], [found[1]]]
    assert fastest([failed(with_marks(8))], 3) == []


def test_a_group_shares_binary_and_config() -> None:
    slow, quick = timed(with_marks(1, "num_tokens"), 10.2, "same"), timed(with_marks(1), 10.1, "same")
    other_config = timed(with_marks(2), 10.3, "same")
    other_binary = timed(with_marks(1, "stride"), 10.4, "another")
    found = fastest([other_binary, slow, other_config, quick], 9)
    assert found == [[quick, slow], [other_config], [other_binary]]


def test_a_group_goes_to_the_final_under_its_cheapest_set() -> None:
    bare, cheap = timed(with_marks(1), 10.1, "same"), timed(with_marks(1, "num_tokens"), 10.2, "same")
    other = timed(with_marks(2), 10.3)
    counts = {bare.variant: 4, cheap.variant: 2, other.variant: 4}
    assert finalists([other, bare, cheap], counts.__getitem__, 2) == [cheap.variant, other.variant]
    assert finalists([other, bare, cheap], counts.__getitem__, 1) == [cheap.variant]


def test_a_cheaper_set_with_another_binary_goes_to_the_final_too() -> None:
    wide, narrow = timed(with_marks(1), 10.0, "wide"), timed(with_marks(1, "stride"), 14.0, "narrow")
    between = timed(with_marks(2), 11.0)
    counts = {wide.variant: 4, narrow.variant: 1, between.variant: 4}
    found = finalists([between, narrow, wide, failed(with_marks(1, "num_tokens"))], counts.__getitem__, 1)
    assert found == [wide.variant, narrow.variant]


def test_without_passed_variants_there_is_no_final() -> None:
    assert finalists([failed(with_marks(1))], one_compile, 4) == []


# --- fewer compiles among equals


@pytest.mark.parametrize(("rival_us", "chosen"), [(10.05, "rival"), (10.1, "rival"), (10.11, "leader")])
def test_fewer_compiles_win_within_one_percent(rival_us: float, chosen: str) -> None:
    leader, rival = with_marks(1), with_marks(2, "num_tokens")
    compiles = {leader: 4, rival: 2}
    found = prefer_few_compiles({leader: 10.0, rival: rival_us}, compiles.__getitem__)
    assert found == {"leader": leader, "rival": rival}[chosen]


def test_among_equal_compiles_fewer_marks_then_the_faster_one() -> None:
    bare, marked_once, slower = with_marks(1), with_marks(1, "num_tokens"), with_marks(2)
    assert marked(bare) == 0
    assert marked(marked_once) == 1
    assert marked(store_examples.variant(1)) == 2  # one of them on alignment only
    assert prefer_few_compiles({marked_once: 10.0, bare: 10.05}, one_compile) == bare
    assert prefer_few_compiles({slower: 10.05, bare: 10.0}, one_compile) == bare


def test_no_candidates_are_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        prefer_few_compiles({}, one_compile)


@given(
    st.dictionaries(st.integers(0, 9), st.tuples(st.floats(1, 1.05), st.integers(1, 8)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_close_to_the_best_and_has_no_order(
    drawn: Mapping[int, tuple[float, int]], random: Random
) -> None:
    times = {with_marks(number): time_us for number, (time_us, _) in drawn.items()}
    counts = {with_marks(number): count for number, (_, count) in drawn.items()}
    chosen = prefer_few_compiles(times, counts.__getitem__)
    best_us = min(times.values())
    assert times[chosen] <= best_us * 1.01
    assert counts[chosen] == min(counts[each] for each, time_us in times.items() if time_us <= best_us * 1.01)
    order = list(times)
    random.shuffle(order)
    assert prefer_few_compiles({each: times[each] for each in order}, counts.__getitem__) == chosen


# --- winners


def test_an_estimate_wins_without_spread() -> None:
    baseline, quick = timed(BASELINE, 12.0), timed(with_marks(1), 10.0)
    others = [quick, timed(with_marks(2), 11.0), failed(with_marks(3))]
    won = estimated_winner(baseline, others, store_examples.ENVIRONMENT, "source", one_compile)
    assert (won.variant, won.baseline, won.shape) == (quick.variant, BASELINE, SHAPE)
    assert won.speedup == Speedup(1.2, 1.2, 1.2)
    assert (won.timing, won.baseline_timing) == (quick.timing, baseline.timing)
    assert (won.source_digest, won.environment, won.compiles) == ("source", store_examples.ENVIRONMENT, 1)
    assert won.reason == "best estimate"


def test_the_baseline_stays_where_no_estimate_is_better() -> None:
    baseline = timed(BASELINE, 10.0)
    others_of = [[], [baseline], [failed(with_marks(1))], *([timed(with_marks(1), time)] for time in (11.0, 9.95))]
    for others in others_of:
        won = estimated_winner(baseline, others, store_examples.ENVIRONMENT, "source", one_compile)
        assert (won.variant, won.timing) == (BASELINE, baseline.timing)
        assert won.speedup == Speedup(1.0, 1.0, 1.0)
        assert won.reason == "nothing is estimated to be faster than the baseline by 1%"


def test_a_baseline_without_a_time_cannot_be_held_against() -> None:
    with pytest.raises(ValueError, match="wrong output"):
        estimated_winner(failed(BASELINE), [timed(with_marks(1), 9.0)], store_examples.ENVIRONMENT, "s", one_compile)


def confirmed(speedup: Speedup) -> Winner:
    rivals = [Contender(BASELINE, store_examples.timing(12.0)), Contender(with_marks(1), store_examples.timing(10.0))]
    counts = {BASELINE: 4, with_marks(1): 2}
    return confirmed_winner(*rivals, speedup, SHAPE, store_examples.ENVIRONMENT, "source", counts.__getitem__)


def test_a_decided_variant_wins_with_its_interval() -> None:
    speedup = Speedup(1.2, 1.0101, 1.25)
    won = confirmed(speedup)
    assert (won.variant, won.baseline, won.shape) == (with_marks(1), BASELINE, SHAPE)
    assert won.speedup == speedup
    assert (won.timing, won.baseline_timing) == (store_examples.timing(10.0), store_examples.timing(12.0))
    assert (won.source_digest, won.environment, won.compiles) == ("source", store_examples.ENVIRONMENT, 2)
    assert won.reason == "confirmed against the baseline: 1.200 [1.010, 1.250]"


@pytest.mark.parametrize("low", [1.01, 1.0, 0.98])
def test_the_baseline_stays_while_undecided_and_says_why(low: float) -> None:
    won = confirmed(Speedup(1.05, low, 1.12))
    assert won.variant == won.baseline == BASELINE
    assert won.timing == won.baseline_timing == store_examples.timing(12.0)
    assert won.speedup == Speedup(1.0, 1.0, 1.0)
    assert (won.shape, won.compiles) == (SHAPE, 4)
    assert won.reason == f"the best variant is not decidedly faster than the baseline by 1%: 1.050 [{low:.3f}, 1.120]"


def test_a_baseline_held_against_itself_stays() -> None:
    alone = Contender(BASELINE, store_examples.timing(12.0))
    point = Speedup(1.0, 0.99, 1.01)
    won = confirmed_winner(alone, alone, point, SHAPE, store_examples.ENVIRONMENT, "source", one_compile)
    assert (won.variant, won.speedup) == (BASELINE, Speedup(1.0, 1.0, 1.0))


# --- winners where compile stalls count


def stall_us(variant: Variant) -> float:
    """Two microseconds for each compile."""
    return 2.0 * COUNTS[variant]


COUNTS = {BASELINE: 3, with_marks(1): 1, with_marks(1, "stride"): 3, with_marks(0, "num_tokens"): 1}


def serving(speedup: Speedup, chosen: Variant, kept: Variant | None = None) -> Winner:
    """The baseline takes 12 us; a variant with one compile saves 4 us of stalls."""
    rivals = Contender(BASELINE, store_examples.timing(12.0)), Contender(chosen, store_examples.timing(11.9))
    where = (SHAPE, store_examples.ENVIRONMENT, "source")
    return confirmed_winner(*rivals, speedup, *where, COUNTS.__getitem__, (), stall_us, kept)


@pytest.mark.parametrize("low", [0.99, 1.0, 1.01])
def test_an_equal_time_under_fewer_compiles_displaces_the_baseline_and_says_so(low: float) -> None:
    won = serving(Speedup(1.002, low, 1.011), with_marks(1))
    assert (won.variant, won.compiles, won.speedup) == (with_marks(1), 1, Speedup(1.002, low, 1.011))
    assert won.reason == f"equal in time to the baseline: 1.002 [{low:.3f}, 1.011]; 1 compile instead of 3"


def test_an_equal_time_under_as_many_compiles_does_not() -> None:
    won = serving(Speedup(1.002, 1.0, 1.011), with_marks(1, "stride"))
    assert won.variant == BASELINE
    assert won.reason == "the best variant is not decidedly cheaper than the baseline by 1%: 1.002 [1.000, 1.011]"


def test_without_stalls_fewer_compiles_displace_nothing() -> None:
    assert confirmed(Speedup(1.002, 1.0, 1.011)).variant == BASELINE


@pytest.mark.parametrize(("low", "wins"), [(0.76, True), (0.74, False)])
def test_a_slower_variant_wins_where_its_stalls_outweigh_even_the_slow_end(low: float, wins: bool) -> None:
    """12 / 0.75 us is as much as 12 us and two compiles more."""
    won = serving(Speedup(0.9, low, 0.95), with_marks(1))
    assert (won.variant == with_marks(1)) == wins
    assert not wins or won.reason.startswith("cheaper than the baseline by stalls: 0.900")


def test_a_faster_variant_is_confirmed_and_its_compiles_are_told() -> None:
    won = serving(Speedup(1.2, 1.1, 1.25), with_marks(1))
    assert won.reason == "confirmed against the baseline: 1.200 [1.100, 1.250]; 1 compile instead of 3"


@pytest.mark.parametrize("speedup", [Speedup(1.0, 0.995, 1.005), Speedup(1.05, 0.9, 1.2)])
def test_what_stays_is_the_baselines_code_under_the_set_that_compiles_least(speedup: Speedup) -> None:
    """Its stalls are the ones to beat, and it has the baseline's time."""
    kept = with_marks(0, "num_tokens")
    won = serving(speedup, with_marks(1), kept)
    assert (won.variant, won.baseline, won.compiles) == (kept, BASELINE, 1)
    assert won.timing == won.baseline_timing == store_examples.timing(12.0)
    assert won.speedup == Speedup(1.0, 1.0, 1.0)
    told = "same machine code as the baseline at every shape of the run, 1 instead of 3 compiles; the best variant"
    assert won.reason.startswith(told)


def test_the_baselines_code_is_kept_without_stalls_too_and_gives_way_to_what_is_faster() -> None:
    kept = with_marks(0, "num_tokens")
    rivals = Contender(BASELINE, store_examples.timing(12.0)), Contender(with_marks(1), store_examples.timing(10.0))
    where = (SHAPE, store_examples.ENVIRONMENT, "source")
    found = [
        confirmed_winner(*rivals, Speedup(1.2, low, 1.3), *where, COUNTS.__getitem__, kept=kept).variant
        for low in (1.005, 1.1)
    ]
    assert found == [kept, with_marks(1)]


def test_an_estimate_of_less_cost_wins() -> None:
    baseline, slower = timed(BASELINE, 12.0), timed(with_marks(1), 13.0)
    where = (store_examples.ENVIRONMENT, "source", COUNTS.__getitem__)
    won = estimated_winner(baseline, [slower], *where, stall_us)
    assert (won.variant, won.reason) == (with_marks(1), "best estimate; 1 compile instead of 3")
    assert estimated_winner(baseline, [slower], *where).variant == BASELINE
    too_slow = estimated_winner(baseline, [timed(with_marks(1), 17.0)], *where, stall_us)
    assert (too_slow.variant, "cost less" in too_slow.reason) == (BASELINE, True)


def test_finalists_are_those_of_the_least_cost() -> None:
    quick, cheap = timed(with_marks(1, "stride"), 10.0), timed(with_marks(1), 13.0)
    slow = timed(with_marks(0, "num_tokens"), 20.0)
    found = [quick, slow, cheap]
    assert finalists(found, COUNTS.__getitem__, 1)[0] == quick.variant
    assert finalists(found, COUNTS.__getitem__, 1, stall_us) == [cheap.variant]
