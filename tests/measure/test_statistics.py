"""From samples to a time, from paired rounds in several processes to a speedup whose interval means what it says."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuner.measure.statistics import (
    paired_ratio,
    significantly_slower,
    speedup_over_processes,
    summarize,
    uncertainty,
)

ROUNDS = 60


def noisy_rounds(seed: int, factor: float = 1.0) -> tuple[list[float], list[float]]:
    """Times of two kernels in paired rounds: a clock that drifts for both, noise for each, now and then a hiccup."""
    draw = np.random.default_rng(seed)
    drift = 10 * (1 + 0.3 * np.sin(np.linspace(0, 3, ROUNDS) + seed))
    first, second = (drift * draw.lognormal(0, 0.02, ROUNDS) * (1 + (draw.random(ROUNDS) < 0.03)) for _ in range(2))
    return list(first * factor), list(second)


def ratios_of_processes(seed: int, count: int, factor: float = 1.0) -> list[float]:
    """Ratios that differ from process to process by 2%."""
    return list(factor * np.random.default_rng(seed).lognormal(0, 0.02, count))


def test_a_summary_is_median_and_quartiles() -> None:
    timing = summarize([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (timing.low_us, timing.median_us, timing.high_us, timing.count) == (2.0, 3.0, 4.0, 5)
    assert timing.samples_us == (5.0, 1.0, 3.0, 2.0, 4.0)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50))
def test_a_summary_lies_within_its_samples(samples: list[float]) -> None:
    timing = summarize(samples)
    assert min(samples) <= timing.low_us <= timing.median_us <= timing.high_us <= max(samples)
    assert sum(sample <= timing.median_us for sample in samples) * 2 >= len(samples)


def test_wrong_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([])
    with pytest.raises(ValueError, match="0 samples do not pair"):
        paired_ratio([], [])
    with pytest.raises(ValueError, match="2 samples do not pair with 1"):
        paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="0 samples do not pair"):
        significantly_slower([], [])
    with pytest.raises(ValueError, match="2 samples do not pair with 1"):
        significantly_slower([1.0, 2.0], [1.0])
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"{count} processes; expected at least 2"):
            speedup_over_processes([1.0] * count)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.05, 4.0])
def test_a_faster_kernel_is_found_by_its_factor(factor: float) -> None:
    assert all(abs(paired_ratio(*noisy_rounds(seed, factor)) / factor - 1) < 0.02 for seed in range(30))


def test_pairing_takes_drift_out() -> None:
    """The clock falls by half while both run; unpaired, the medians would say nothing of 3%."""
    clock = np.linspace(1, 2, ROUNDS)
    assert paired_ratio(list(10.3 * clock), list(10 * clock)) == pytest.approx(1.03)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_the_interval_holds_the_next_process(count: int) -> None:
    """A 95% prediction interval holds it in 475 of 500 draws, give or take four times the square root of 500/20."""
    held = 0
    for seed in range(500):
        *seen, following = ratios_of_processes(seed, count + 1)
        speedup = speedup_over_processes(seen)
        assert speedup.low <= speedup.median <= speedup.high
        held += speedup.low <= following <= speedup.high
    assert 455 <= held <= 495


def test_equal_kernels_are_rarely_told_apart() -> None:
    intervals = [speedup_over_processes(ratios_of_processes(seed, 5)) for seed in range(100)]
    assert sum(each.low <= 1.0 <= each.high for each in intervals) >= 90


@pytest.mark.parametrize("factor", [0.5, 1.3, 4.0])
def test_the_speedup_is_the_factor_and_is_decided(factor: float) -> None:
    speedups = [speedup_over_processes(ratios_of_processes(seed, 5, factor)) for seed in range(30)]
    assert all(abs(each.median / factor - 1) < 0.04 for each in speedups)
    assert all((each.low > 1.0) == (factor > 1.0) for each in speedups)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_processes_that_agree_leave_the_drift_between_processes_far_apart(factor: float) -> None:
    speedup = speedup_over_processes([factor] * 5)
    assert speedup.median == pytest.approx(factor)
    assert speedup.high == pytest.approx(factor * 1.0075)
    assert speedup.low == pytest.approx(factor / 1.0075)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=10))
def test_no_interval_is_narrower_than_the_drift(ratios: list[float]) -> None:
    speedup = speedup_over_processes(ratios)
    assert speedup.high / speedup.median >= 1.0075 * (1 - 1e-9)
    assert speedup.median / speedup.low >= 1.0075 * (1 - 1e-9)


def test_more_processes_narrow_the_interval() -> None:
    few, many = (
        np.median(
            [each.high - each.low for each in (speedup_over_processes(ratios_of_processes(s, n)) for s in range(30))]
        )
        for n in (2, 10)
    )
    assert many < few / 3


def test_slowdown_and_speedup_are_mirror_images() -> None:
    ratios = ratios_of_processes(1, 5, 1.2)
    up, down = speedup_over_processes(ratios), speedup_over_processes([1 / ratio for ratio in ratios])
    assert (down.low, down.median, down.high) == pytest.approx((1 / up.high, 1 / up.median, 1 / up.low))


# How well a median is known.


@given(st.lists(st.floats(0.5, 100), min_size=6, max_size=60), st.floats(1e-3, 1e6))
@example([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1e6)
def test_uncertainty_is_relative(samples: list[float], factor: float) -> None:
    scaled = uncertainty([factor * sample for sample in samples])
    assert scaled == pytest.approx(uncertainty(samples), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("count", range(6))
def test_a_handful_of_samples_says_nothing_of_its_spread(count: int) -> None:
    assert uncertainty([10.0] * count) == math.inf
    assert math.isfinite(uncertainty([10.0] * 6))


@given(st.floats(1e-3, 1e6), st.integers(6, 40))
def test_samples_that_agree_leave_nothing_uncertain(time_us: float, count: int) -> None:
    assert uncertainty([time_us] * count) == 0.0


@pytest.mark.parametrize("count", [8, 31, 32, 64])
def test_the_medians_interval_holds_the_true_median(count: int) -> None:
    """At least 95 of 100 times, whatever the shape; its half width is what counts as uncertainty."""
    held, draws = 0, 400
    for seed in range(draws):
        samples = list(np.random.default_rng(seed).lognormal(0, 0.05, count))
        ordered, reach = sorted(samples), uncertainty(samples) * 2 * float(np.median(samples))
        below = _rank_below(count)
        low, high = ordered[below], ordered[-1 - below]
        assert reach == pytest.approx(high - low)
        held += low <= 1.0 <= high
    assert held / draws >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / draws)
    assert held / draws <= 0.998


def _rank_below(count: int) -> int:
    """The largest rank so that the true median lies below that sample in at most 2.5% of all draws."""
    chances = np.cumsum([math.comb(count, heads) / 2**count for heads in range(count)])
    return int(np.searchsorted(chances, 0.025, side="right")) - 1


def test_more_samples_and_less_noise_narrow_it() -> None:
    def typical(count: int, noise: float) -> float:
        draws = (np.random.default_rng(seed).lognormal(0, noise, count) for seed in range(50))
        return float(np.median([uncertainty(list(each)) for each in draws]))

    assert typical(128, 0.01) < typical(32, 0.01) / 1.5
    assert typical(32, 0.001) == pytest.approx(typical(32, 0.01) / 10, rel=0.1)


def test_a_hiccup_does_not_widen_it() -> None:
    samples = [*np.random.default_rng(0).normal(10, 0.01, 63), 500.0]
    assert uncertainty(samples) < 0.001


# Whether a candidate has lost.


@pytest.mark.parametrize("count", [8, 32, 128])
def test_pairing_finds_a_slower_candidate_under_drift(count: int) -> None:
    """The clock falls by half while both run, and the candidate takes 1% more in each round."""
    drift = np.linspace(1, 2, count)
    noise = np.random.default_rng(count).lognormal(0, 0.001, count)
    candidate_us, leader_us = list(10.1 * drift * noise), list(10.0 * drift)
    assert significantly_slower(candidate_us, leader_us)
    assert not significantly_slower(leader_us, candidate_us)


def test_drift_that_both_share_makes_nobody_slower() -> None:
    """Of 200 equal pairs of kernels on a clock that drifts by 30%, hardly one loses."""
    assert sum(significantly_slower(*noisy_rounds(seed)) for seed in range(200)) <= 4


@pytest.mark.parametrize("count", [8, 16, 64])
def test_equal_candidates_hardly_ever_lose(count: int) -> None:
    """At most 0.5% of looks; in 800 of them at most 4, give or take three times the root of 4."""
    draw = np.random.default_rng(count)
    first, second = draw.lognormal(0, 0.02, (2, 800, count))
    lost = sum(significantly_slower(list(one), list(two)) for one, two in zip(first, second, strict=True))
    assert lost <= 10


@pytest.mark.parametrize("count", [1, 8, 128])
def test_samples_that_are_all_equal_decide_nothing(count: int) -> None:
    assert not significantly_slower([10.0] * count, [10.0] * count)


@pytest.mark.parametrize("count", range(1, 8))
def test_a_few_pairs_never_decide(count: int) -> None:
    assert not significantly_slower([20.0 + each for each in range(count)], [10.0] * count)


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 100), min_size=16, max_size=40), st.floats(1.0, 3.0))
def test_who_is_nowhere_slower_never_loses(leader_us: list[float], factor: float) -> None:
    assert not significantly_slower([time_us / factor for time_us in leader_us], leader_us)
