"""From samples to a time, and from paired samples of several processes to a speedup with its interval."""

import math
from collections.abc import Sequence

import numpy as np

from tuner.records import Speedup, Timing

# Two-sided 95% quantiles of Student's t by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

# Processes minutes apart differ by up to half a percent however well those in a row agree: clocks, temperature (seen on
# an H100). No interval is narrower than this on either side.
_DRIFT = 0.0075


def summarize(samples_us: Sequence[float]) -> Timing:
    """Median and quartiles in microseconds; ValueError without samples."""
    if not samples_us:
        raise ValueError("no samples")
    low, median, high = np.percentile(np.asarray(samples_us), [25, 50, 75])
    samples = tuple(float(sample) for sample in samples_us)
    return Timing(float(median), float(low), float(high), len(samples), samples)


def paired_ratio(baseline_us: Sequence[float], candidate_us: Sequence[float]) -> float:
    """The median of baseline/candidate over rounds taken next to each other; ValueError when they do not pair."""
    if len(baseline_us) != len(candidate_us) or not baseline_us:
        raise ValueError(f"{len(baseline_us)} baseline samples do not pair with {len(candidate_us)}")
    return float(np.median(np.asarray(baseline_us) / np.asarray(candidate_us)))


def speedup_over_processes(ratios: Sequence[float]) -> Speedup:
    """The speedup from one paired ratio per process, with the interval in which another process would find it.

    Within a process, rounds agree far better than processes agree with each other (memory placement, clocks). So the
    spread that counts is the one between processes: a 95% prediction interval (Student's t) for the next one, on
    logarithms. ValueError for fewer than 2 or more than 10 processes.
    """
    if len(ratios) - 1 not in _T95:
        raise ValueError(f"{len(ratios)} processes; expected 2 to 10")
    logs = np.log(np.asarray(ratios))
    center, spread = float(np.mean(logs)), float(np.std(logs, ddof=1))
    reach = math.hypot(_T95[len(ratios) - 1] * spread * math.sqrt(1 + 1 / len(ratios)), math.log1p(_DRIFT))
    return Speedup(math.exp(center), math.exp(center - reach), math.exp(center + reach))
