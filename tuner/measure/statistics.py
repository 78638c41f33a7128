"""From samples to a time, and from paired samples of several processes to a speedup with its interval."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from tuner.records import Speedup, Timing

# Processes minutes apart differ by up to half a percent however well those in a row agree: clocks, temperature (seen on
# an H100). No interval is narrower than this on either side.
_DRIFT = 0.0075
# A candidate is looked at several times while samples come in, so one look needs more than the usual 5%.
_SLOWER_AT_P = 0.005
_SETTLED = 0.01


def summarize(samples_us: Sequence[float]) -> Timing:
    """Median and quartiles in microseconds; ValueError without samples."""
    if not samples_us:
        raise ValueError("no samples")
    low, median, high = np.percentile(np.asarray(samples_us), [25, 50, 75])
    samples = tuple(float(sample) for sample in samples_us)
    return Timing(float(median), float(low), float(high), len(samples), samples)


def uncertainty(samples: Sequence[float]) -> float:
    """Half the width of the median's 95% interval, relative to the median; no distribution is assumed.

    The interval's ends are samples (binomial order statistics), as in scipy's `quantile_test`. Infinite while there are
    too few: below 6.
    """
    if len(samples) < 6:
        return math.inf
    low, high = _around_median(len(samples))
    ordered = np.sort(samples)
    return float(ordered[high] - ordered[low]) / 2 / float(np.median(ordered))


@lru_cache(maxsize=1024)
def _around_median(count: int) -> tuple[int, int]:
    """Which of so many samples in order are the ends of the median's 95% interval.

    It takes scipy a millisecond to say so, for which a device would wait at every look.
    """
    binomial = stats.binom(count, 0.5)
    return int(binomial.ppf(0.025)) - 1, int(binomial.isf(0.025))


def significantly_slower(candidate_us: Sequence[float], leader_us: Sequence[float]) -> bool:
    """Whether samples taken in pairs show that the candidate is slower (Wilcoxon's signed-rank test, one-sided).

    ValueError when they do not pair.
    """
    _require_pairs(candidate_us, leader_us)
    distances = np.asarray(candidate_us) - np.asarray(leader_us)
    if not distances.any():
        return False
    return bool(stats.wilcoxon(distances, alternative="greater").pvalue < _SLOWER_AT_P)


def paired_ratio(baseline_us: Sequence[float], candidate_us: Sequence[float]) -> float:
    """The median of baseline/candidate over rounds taken next to each other; ValueError when they do not pair."""
    _require_pairs(baseline_us, candidate_us)
    return float(np.median(np.asarray(baseline_us) / np.asarray(candidate_us)))


def ratio_uncertainty(baseline_us: Sequence[float], candidate_us: Sequence[float]) -> float:
    """The `uncertainty` of the ratio of paired samples; ValueError when they do not pair."""
    _require_pairs(baseline_us, candidate_us)
    return uncertainty([one / other for one, other in zip(baseline_us, candidate_us, strict=True)])


def settled(baseline_us: Sequence[float], candidate_us: Sequence[float]) -> bool:
    """Whether paired rounds of one process agree: their median ratio is known to 1%. Others are best taken again."""
    return ratio_uncertainty(baseline_us, candidate_us) <= _SETTLED


def speedup_over_processes(ratios: Sequence[float]) -> Speedup:
    """The speedup from one paired ratio per process, with the interval in which another process would find it.

    Within a process, rounds agree far better than processes agree with each other (memory placement, clocks). So the
    spread that counts is the one between processes: a 95% prediction interval (Student's t) for the next one, on
    logarithms. ValueError for fewer than 2 processes.
    """
    count = len(ratios)
    if count < 2:
        raise ValueError(f"{count} processes; expected at least 2")
    logs = np.log(np.asarray(ratios))
    center, spread = float(np.mean(logs)), float(np.std(logs, ddof=1))
    student = float(stats.t.ppf(0.975, count - 1))
    reach = math.hypot(student * spread * math.sqrt(1 + 1 / count), math.log1p(_DRIFT))
    return Speedup(math.exp(center), math.exp(center - reach), math.exp(center + reach))


def _require_pairs(first: Sequence[float], second: Sequence[float]) -> None:
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} samples do not pair with {len(second)}")
