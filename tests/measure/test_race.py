"""How long a candidate is sampled: until its time is known, or it has clearly lost."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tuner.measure.benchmark import Samples, Timed
from tuner.measure.race import Leader, Raced, alternate, alternate_over, race
from tuner.measure.statistics import uncertainty
from tuner.measure.written import HiddenTimeError
from tuner.records import Conditions

Launch = Callable[[], None]

QUIET, NOISY = 0.0005, 0.1


@dataclass
class FakeGpu:
    """Samples around a mean per candidate, with noise of its own and a clock that drifts for all alike.

    In the `hidden` rounds what is sampled last takes ten times as long.
    """

    seed: int = 0
    drift: float = 0.05
    hidden: range = range(0)
    conditions: Iterator[Conditions | None] | None = None
    batches: list[int] = field(default_factory=list)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    laws: dict[Launch, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)

    def launches(self, mean_us: float, noise: float) -> list[Launch]:
        launch: Launch = lambda: None  # noqa: E731 - each one is another
        self.laws[launch] = (mean_us, noise)
        return [launch]

    def leader(self, mean_us: float, noise: float) -> Leader:
        return Leader(Timed(self.launches(mean_us, noise)[0], 20), mean_us)

    def probe(self, launches: Sequence[Launch]) -> Timed:
        return Timed(launches[0], 4)

    def prepare(self, launches: Sequence[Launch], like: Timed | None = None) -> Timed:
        self.done.append(("prepare", launches[0], like))
        return Timed(launches[0], 20)

    def warm_up(self, timed: Sequence[Timed], known_us: float | None = None) -> None:
        self.done.append(("warm up", *[each.run for each in timed], known_us))

    def sample(self, timed: Sequence[Timed], rounds: int) -> Samples:
        assert all(each.launches == 20 for each in timed), "sampled what is not prepared"
        before = sum(self.batches)
        self.batches.append(rounds)
        clock = 1 + self.drift * np.sin(np.arange(before, before + rounds) / 20)
        laws = [self.laws[each.run] for each in timed]
        times_us = [mean_us * clock * self._draw.lognormal(0, noise, rounds) for mean_us, noise in laws]
        times_us[-1] = times_us[-1] * np.where(np.isin(np.arange(before, before + rounds), self.hidden), 10.0, 1.0)
        return Samples(
            [list(map(float, each)) for each in times_us], next(self.conditions) if self.conditions else None
        )


NewGpu = Callable[..., FakeGpu]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> NewGpu:
    """Makes a GPU and lets the race run on it."""

    def make(seed: int = 0, **values: object) -> FakeGpu:
        made = FakeGpu(seed, **values)  # type: ignore[arg-type]
        for name in ("probe", "prepare", "warm_up", "sample"):
            monkeypatch.setattr(f"tuner.measure.race.{name}", getattr(made, name))
        return made

    return make


def run(gpu: FakeGpu, factor: float, noise: float) -> Raced:
    """A candidate that takes `factor` times as long as the leader, raced against it."""
    return race(gpu.launches(10 * factor, noise), gpu.leader(10.0, noise))


@pytest.mark.parametrize("noise", [QUIET, 0.01])
@pytest.mark.parametrize("factor", [1.2, 3.0])
def test_a_clearly_slower_candidate_is_dropped_at_the_first_look(gpu: NewGpu, factor: float, noise: float) -> None:
    for seed in range(20):
        made = gpu(seed)
        raced = run(made, factor, noise)
        assert raced.dropped
        assert len(raced.samples_us) == sum(made.batches) == 8
        assert float(np.median(raced.samples_us)) == pytest.approx(10 * factor, rel=0.1)


def test_a_slightly_slower_candidate_is_dropped_later(gpu: NewGpu) -> None:
    """2% under 2% of noise: a few looks are needed, and nearly always enough."""
    counts = [len(raced.samples_us) for seed in range(20) if (raced := run(gpu(seed), 1.02, 0.02)).dropped]
    assert len(counts) >= 18
    assert max(counts) > 8
    assert float(np.median(counts)) <= 64


@pytest.mark.parametrize("noise", [QUIET, NOISY])
def test_an_equal_candidate_is_hardly_ever_dropped(gpu: NewGpu, noise: float) -> None:
    """Each of up to 16 looks at the same growing samples has a chance of at most 0.5%; they overlap."""
    dropped = sum(run(gpu(seed), 1.0, noise).dropped for seed in range(50))
    assert dropped <= 4


@pytest.mark.parametrize("noise", [QUIET, 0.005, 0.02])
@pytest.mark.parametrize("factor", [0.5, 0.95])
def test_a_faster_candidate_is_sampled_until_it_is_known(gpu: NewGpu, factor: float, noise: float) -> None:
    for seed in range(10):
        raced = run(gpu(seed), factor, noise)
        assert not raced.dropped
        assert 32 <= len(raced.samples_us) <= 128
        assert len(raced.samples_us) == 128 or uncertainty(raced.samples_us) <= 0.002


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("noise", "rounds"), [(QUIET, 32), (NOISY, 128)])
def test_noise_decides_how_long_it_takes(gpu: NewGpu, noise: float, rounds: int, alone: bool) -> None:
    for seed in range(10):
        made = gpu(seed, drift=0.0)
        raced = race(made.launches(5.0, noise), None if alone else made.leader(10.0, noise))
        assert len(raced.samples_us) == rounds
        assert made.batches == [8] * (rounds // 8)


def test_something_between_quiet_and_noisy_takes_something_between(gpu: NewGpu) -> None:
    counts = {
        len(race(made.launches(5.0, 0.006), None).samples_us) for seed in range(20) if (made := gpu(seed, drift=0.0))
    }
    assert counts & set(range(40, 128, 8))
    assert counts <= set(range(32, 129, 8))


def test_the_leaders_noise_does_not_hold_up_the_candidate(gpu: NewGpu) -> None:
    made = gpu(drift=0.0)
    assert len(race(made.launches(5.0, QUIET), made.leader(10.0, NOISY)).samples_us) == 32


def test_a_candidate_that_may_not_lose_is_sampled_in_full(gpu: NewGpu) -> None:
    made = gpu(drift=0.0)
    raced = race(made.launches(30.0, QUIET), made.leader(10.0, QUIET), has_lost=lambda candidate, leader: False)
    assert not raced.dropped
    assert len(raced.samples_us) == 32


def test_what_decides_a_loss_sees_all_pairs_so_far(gpu: NewGpu) -> None:
    made, seen = gpu(drift=0.0), list[tuple[int, int]]()

    def after_three_looks(candidate_us: Sequence[float], leader_us: Sequence[float]) -> bool:
        seen.append((len(candidate_us), len(leader_us)))
        assert float(np.median(candidate_us)) == pytest.approx(30.0, rel=0.01)
        assert float(np.median(leader_us)) == pytest.approx(10.0, rel=0.01)
        return len(seen) == 3

    raced = race(made.launches(30.0, QUIET), made.leader(10.0, QUIET), after_three_looks)
    assert raced.dropped
    assert seen == [(8, 8), (16, 16), (24, 24)]
    assert len(raced.samples_us) == 24


def test_without_a_leader_nothing_is_compared(gpu: NewGpu) -> None:
    def never(candidate_us: Sequence[float], leader_us: Sequence[float]) -> bool:
        raise AssertionError("there is nothing to lose against")

    made = gpu()
    (launch,) = launches = made.launches(10.0, QUIET)
    assert not race(launches, None, never).dropped
    assert made.done == [("warm up", launch, None), ("prepare", launch, None)]


def test_the_leaders_known_time_is_the_gauge_of_the_clocks(gpu: NewGpu) -> None:
    """It is ready; the candidate, which is not, is made so once the clocks are up."""
    made = gpu()
    (launch,) = launches = made.launches(20.0, QUIET)
    leader = made.leader(10.0, QUIET)
    race(launches, leader)
    assert made.done == [("warm up", leader.timed.run, 10.0), ("prepare", launch, leader.timed)]


@pytest.mark.parametrize("alone", [True, False])
def test_the_own_time_of_a_candidate_behind_its_writer_must_be_known(gpu: NewGpu, alone: bool) -> None:
    """The whole is known to 0.2% long before that is."""
    for noise, rounds in ((0.0, 32), (0.002, 128)):
        made = gpu(drift=0.0)
        writing = Timed(made.launches(90.0, 0.0)[0], 20)
        leader = None if alone else made.leader(100.5, noise)
        raced = race(made.launches(100.0, noise), leader, writing=writing)
        assert len(raced.samples_us) == rounds
        assert float(np.median(raced.samples_us)) == pytest.approx(10.0, rel=0.05)
        assert uncertainty([90.0 + each for each in raced.samples_us]) <= 0.002


def test_what_decides_a_loss_sees_own_times(gpu: NewGpu) -> None:
    def lost(candidate_us: Sequence[float], leader_us: Sequence[float]) -> bool:
        assert (candidate_us[0], leader_us[0]) == pytest.approx((30.0, 10.0))
        return True

    made = gpu(drift=0.0)
    writing = Timed(made.launches(90.0, 0.0)[0], 20)
    assert race(made.launches(120.0, 0.0), made.leader(100.0, 0.0), lost, writing).dropped


def test_ratios_of_own_times_end_the_alternation_and_each_set_has_its_own_writing(gpu: NewGpu) -> None:
    for noise, rounds in ((0.0, 32), (0.002, 128)):
        made = gpu(drift=0.0)
        sets = [[made.launches(us + writing_us, noise) for us in (20.0, 10.0, 0.0)] for writing_us in (90.0, 70.0)]
        samples = alternate_over(sets, writing=True)
        assert [len(each) for each in samples.times_us] == [rounds, rounds]  # the two sets share them
        for each, expected in zip(samples.times_us, (20.0, 10.0), strict=True):
            assert float(np.median(each)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("alone", [True, False])
def test_a_candidate_whose_own_time_does_not_show_at_once_is_sampled_on(gpu: NewGpu, alone: bool) -> None:
    """Nothing is lost or known before it does, when more than half of the rounds show it."""
    for hidden, rounds in ((8, 32), (24, 56), (63, 128)):
        made = gpu(drift=0.0, hidden=range(hidden))
        writing = Timed(made.launches(90.0, 0.0)[0], 20)
        raced = race(made.launches(120.0, 0.0), None if alone else made.leader(130.0, 0.0), writing=writing)
        assert (len(raced.samples_us), sum(made.batches)) == (rounds, rounds)
        assert float(np.median(raced.samples_us)) == pytest.approx(30.0)


def test_an_own_time_that_never_shows_ends_with_the_most_rounds(gpu: NewGpu) -> None:
    made = gpu(drift=0.0)
    writing = Timed(made.launches(90.0, 0.0)[0], 20)
    with pytest.raises(HiddenTimeError, match=r"in 128 rounds writing the inputs takes 90.00 us"):
        race(made.launches(90.0, 0.0), None, writing=writing)
    assert sum(made.batches) == 128


def test_own_times_that_do_not_show_at_once_keep_a_set_alternating(gpu: NewGpu) -> None:
    for hidden, batches in ((range(10), [16, 16, 32]), (range(16), [16, 16, 16, 48]), (range(16, 26), [16, 16, 16])):
        made = gpu(drift=0.0, hidden=hidden)
        sets = [[made.launches(us + 90.0, 0.0) for us in (20.0, 10.0, 0.0)] for _ in range(2)]
        samples = alternate_over(sets, writing=True)
        assert made.batches == batches
        assert [float(np.median(each)) for each in samples.times_us] == pytest.approx([20.0, 10.0])


def test_own_times_that_never_show_end_the_alternation(gpu: NewGpu) -> None:
    for which in range(2):
        made = gpu(drift=0.0)
        own_us = [[20.0, 10.0, 0.0], [20.0, 10.0, 0.0]]
        own_us[which][1] = 0.0
        sets = [[made.launches(us + 90.0, 0.0) for us in each] for each in own_us]
        with pytest.raises(HiddenTimeError, match="in 64 rounds"):
            alternate_over(sets, writing=True)
        assert sum(made.batches) == 64 + which * 16


BATCHES = [
    Conditions(1980, 50),
    Conditions(1700, 52, ("power cap",)),
    None,
    Conditions(1900, 61, ("thermal slowdown", "power cap")),
]
WORST = Conditions(1700, 61, ("power cap", "thermal slowdown"))


def test_the_conditions_are_the_worst_of_all_batches(gpu: NewGpu) -> None:
    made = gpu(drift=0.0, conditions=iter(BATCHES))
    assert race(made.launches(10.0, QUIET), None).conditions == WORST
    made = gpu(drift=0.0, conditions=iter(BATCHES))
    assert alternate([made.launches(10.0, NOISY), made.launches(10.0, NOISY)]).conditions == WORST


def test_unknown_conditions_stay_unknown(gpu: NewGpu) -> None:
    made = gpu()
    assert race(made.launches(10.0, QUIET), None).conditions is None


@pytest.mark.parametrize("noise", [0.0, 0.0003])
def test_ratios_that_are_known_end_the_alternation(gpu: NewGpu, noise: float) -> None:
    """The clock drifts by 10%, for all alike."""
    made = gpu(drift=0.1)
    samples = alternate([made.launches(mean_us, noise) for mean_us in (20.0, 10.0, 15.0)])
    assert [len(each) for each in samples.times_us] == [32, 32, 32]
    assert [float(np.median(each)) for each in samples.times_us] == pytest.approx([20.0, 10.0, 15.0], rel=0.1)
    assert uncertainty(samples.times_us[0]) > 0.002


def test_what_alternates_is_prepared_on_warm_clocks(gpu: NewGpu) -> None:
    """Preparing lets them fall again."""
    made = gpu()
    (one,), (two,) = candidates = [made.launches(10.0, QUIET) for _ in range(2)]
    alternate(candidates)
    warm = ("warm up", one, two, None)
    assert made.done == [warm, ("prepare", one, None), ("prepare", two, Timed(one, 20)), warm]


def test_further_buffers_take_over_the_clocks_and_the_size_of_a_sample(gpu: NewGpu) -> None:
    """One gauge of the clocks there, by the time of the first candidate, and nothing to warm up with before it."""
    made = gpu(drift=0.0)
    sets = [[made.launches(mean_us, 0.0) for mean_us in (10.0, 20.0)] for _ in range(3)]
    alternate_over(sets)
    first, *others = [[launch for (launch,) in candidates] for candidates in sets]
    warm = ("warm up", *first, None)
    done = [warm, ("prepare", first[0], None), ("prepare", first[1], Timed(first[0], 20)), warm]
    before = first
    for launches in others:
        done += [("prepare", each, Timed(like, 20)) for each, like in zip(launches, before, strict=True)]
        done.append(("warm up", *launches, 10.0))
        before = launches
    assert made.done == done


@pytest.mark.parametrize(("noise", "rounds"), [(0.0, 8), (NOISY, 32)])
def test_every_set_of_buffers_takes_as_many_rounds_as_the_first(gpu: NewGpu, noise: float, rounds: int) -> None:
    """So that a noisy one does not speak for all. The last has other times, which do not count as noise."""
    made = gpu(drift=0.0)
    first, noisy, quiet, other = (noise, 10.0, 20.0), (NOISY, 10.0, 20.0), (0.0, 10.0, 20.0), (0.0, 12.0, 18.0)
    sets = [[made.launches(us, law) for us in times_us] for law, *times_us in (first, noisy, quiet, other)]
    samples = alternate_over(sets)
    assert made.batches == [8] * (rounds // 8) + [rounds] * 3  # they share 32 to 128 rounds
    first_us, second_us = samples.times_us
    assert len(first_us) == len(second_us) == 4 * rounds
    assert (first_us[-rounds:], second_us[-rounds:]) == ([12.0] * rounds, [18.0] * rounds)


def test_more_sets_do_not_take_more_rounds(gpu: NewGpu) -> None:
    """Of each one less is to be known."""

    def rounds(sets: int, seed: int) -> int:
        made = gpu(seed, drift=0.0)
        samples = alternate_over([[made.launches(us, 0.004) for us in (20.0, 10.0)] for _ in range(sets)])
        return len(samples.times_us[0])

    one, four = (float(np.mean([rounds(sets, seed) for seed in range(20)])) for sets in (1, 4))
    assert 40 < one < 120
    assert four < 1.1 * one


@pytest.mark.parametrize("noises", [(NOISY, 0.0, 0.0), (0.0, NOISY, 0.0), (0.0, 0.0, NOISY)])
def test_one_noisy_ratio_keeps_all_alternating_up_to_the_cap(gpu: NewGpu, noises: tuple[float, float, float]) -> None:
    made = gpu()
    samples = alternate([made.launches(10.0, noise) for noise in noises])
    assert [len(each) for each in samples.times_us] == [128, 128, 128]


def test_the_count_of_alternations_follows_the_noise(gpu: NewGpu) -> None:
    counts = [
        len(alternate([made.launches(10.0, 0.002), made.launches(5.0, 0.002)]).times_us[0])
        for made in map(gpu, range(20))
    ]
    assert set(counts) <= {32, 64, 96, 128}
    assert len(set(counts)) > 1
    assert math.isfinite(float(np.mean(counts)))
