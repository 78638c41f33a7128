"""What a set of marks costs, from the machine code and the times with and without it."""

from collections.abc import Mapping

import pytest
from specialize_examples import binary

from tuner.compile.inspect import narrower
from tuner.records import Binary, Evidence, Shape, SpecializationSet, Speedup
from tuner.specialize import Comparison, Effect, TimeRatio

MARKS = SpecializationSet.of(["n"])
PLAIN = binary("plain")


def compared(
    marked: Binary,
    ratio: tuple[float, float, float] | None = None,
    evidence: Evidence = Evidence.MEASURED,
    near: float = 1.0,
    changed: float = 1.0,
    estimated_us: float | None = 10.0,
) -> Comparison:
    time = TimeRatio(Speedup(*ratio), evidence) if ratio else None
    return Comparison(Shape(num_tokens=1), near, changed, PLAIN, marked, estimated_us, time)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"16": 4}, {"16": 4}, None),
        ({"16": 4}, {"1": 64}, (16, 1)),
        ({"16": 1, "4": 2}, {"1": 16, "4": 2}, (16, 1)),
        ({"16": 4, "4": 1}, {"16": 3, "8": 1, "2": 1}, (16, 2)),
        ({"8": 1, "2": 16, "4": 32}, {"8": 1, "2": 8, "4": 16}, None),  # fewer accesses, none narrower
        ({"4": 1}, {"4": 2}, None),
        ({"2": 8}, {"16": 1}, None),
    ],
)
def test_an_access_is_narrower_when_a_wide_one_gives_way(
    before: Mapping[str, int], after: Mapping[str, int], found: tuple[int, int] | None
) -> None:
    assert narrower(before, after) == found


def test_the_same_machine_code_costs_nothing_whatever_was_timed() -> None:
    effect = Effect(MARKS, (compared(PLAIN, (2.0, 1.9, 2.1)),))
    assert (effect.same_code, effect.slowdown, effect.cost, effect.evidence) == (True, 0.0, "", None)
    assert Effect(MARKS).same_code


def test_a_narrower_access_costs_whatever_the_time_says() -> None:
    narrow = binary("narrow", loads={"2": 32}, stores={"1": 32})
    effect = Effect(MARKS, (compared(narrow, (1.0, 0.99, 1.01), changed=0.25),))
    assert effect.narrowed == ("loads 16 -> 2 bytes", "stores 16 -> 1 bytes")
    assert effect.cost == "narrows loads 16 -> 2 bytes and stores 16 -> 1 bytes at 25.0% of the steps"
    everywhere = Effect(MARKS, (compared(narrow), compared(binary("narrower", stores={"2": 32}), changed=0.0)))
    assert everywhere.cost == ("narrows loads 16 -> 2 bytes and stores 16 -> 1 bytes and stores 16 -> 2 bytes")


@pytest.mark.parametrize(
    ("ratio", "evidence", "slowdown", "cost"),
    [
        ((1.02, 1.012, 1.03), Evidence.MEASURED, 0.02, "makes the steps 2.0% slower (measured)"),
        ((1.009, 1.001, 1.02), Evidence.MEASURED, 0.009, ""),
        ((1.02, 0.99, 1.05), Evidence.MEASURED, 0.0, ""),  # not shown to be slower
        ((0.9, 0.89, 0.91), Evidence.MEASURED, -0.1, ""),
        ((1.04, 1.04, 1.04), Evidence.ESTIMATED, 0.04, ""),
        ((1.06, 1.06, 1.06), Evidence.ESTIMATED, 0.06, "makes the steps 6.0% slower (estimated)"),
    ],
)
def test_a_time_costs_beyond_one_percent_and_an_estimate_beyond_five(
    ratio: tuple[float, float, float], evidence: Evidence, slowdown: float, cost: str
) -> None:
    effect = Effect(MARKS, (compared(binary("other"), ratio, evidence),))
    assert effect.slowdown == pytest.approx(slowdown)
    assert (effect.cost, effect.evidence) == (cost, evidence)


def test_steps_count_by_their_time_and_only_where_the_key_changes() -> None:
    """Half the steps take 1 us and get 50% slower at every fifth; the others take 9 us and stay as they are."""
    small = compared(binary("other"), (1.5, 1.4, 1.6), near=0.5, changed=0.1, estimated_us=1.0)
    large = compared(PLAIN, near=0.5, changed=0.5, estimated_us=9.0)
    effect = Effect(MARKS, (small, large))
    assert effect.slowdown == pytest.approx(0.1 * 0.5 / (0.5 * 1 + 0.5 * 9))
    assert effect.cost == ""


def test_without_times_the_widths_alone_decide() -> None:
    unsized = Effect(MARKS, (compared(binary("other"), estimated_us=None),))
    assert (unsized.slowdown, unsized.evidence, unsized.cost) == (None, None, "")


def test_what_could_not_be_found_out_is_no_effect_to_recommend() -> None:
    failed = Effect(MARKS, (), "does not compile at num_tokens=1")
    assert not failed.same_code
    assert failed.cost == "does not compile at num_tokens=1"
