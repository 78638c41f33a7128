"""From samples to a time and from paired samples to a speedup with its interval."""

from collections.abc import Sequence

import numpy as np

from tuner.records import Speedup, Timing

_RESAMPLES = 2000
_CONFIDENCE = 0.95


def summarize(samples_us: Sequence[float]) -> Timing:
    """Median and quartiles in microseconds; ValueError without samples."""
    if not samples_us:
        raise ValueError("no samples")
    low, median, high = np.percentile(np.asarray(samples_us), [25, 50, 75])
    return Timing(
        float(median), float(low), float(high), len(samples_us), tuple(float(sample) for sample in samples_us)
    )


def paired_speedup(baseline_us: Sequence[float], candidate_us: Sequence[float], seed: int = 0) -> Speedup:
    """The median of baseline/candidate over rounds, with a 95% bootstrap interval of that median.

    Both sequences hold one sample per round, taken next to each other; ValueError when their lengths differ.
    """
    if len(baseline_us) != len(candidate_us) or not baseline_us:
        raise ValueError(f"{len(baseline_us)} baseline samples do not pair with {len(candidate_us)}")
    ratios = np.asarray(baseline_us) / np.asarray(candidate_us)
    drawn = np.random.default_rng(seed).choice(ratios, size=(_RESAMPLES, len(ratios)))
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(np.median(drawn, axis=1), [tail, 100 - tail])
    return Speedup(float(np.median(ratios)), float(low), float(high))
