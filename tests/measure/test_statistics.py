"""From samples to a time, from paired rounds in several processes to a speedup whose interval means what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.statistics import paired_ratio, speedup_over_processes, summarize

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
    with pytest.raises(ValueError, match="0 baseline samples"):
        paired_ratio([], [])
    with pytest.raises(ValueError, match="2 baseline samples do not pair with 1"):
        paired_ratio([1.0, 2.0], [1.0])
    for count in (0, 1, 11):
        with pytest.raises(ValueError, match=f"{count} processes; expected 2 to 10"):
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
