"""Results for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.ranking import Point, Tradeoff
from tuner.records import Environment, SpecializationSet, Winner
from tuner.records.sharing import Sharing
from tuner.runtime import Lookup, WinnerTable


def run_report(
    environment: Environment,
    winners: Sequence[Winner],
    evaluated: int,
    timed_out: bool,
    counts: Mapping[SpecializationSet, int],
    throttled: Mapping[str, int],
) -> dict[str, Any]:
    """What `tuner run --json` prints: the winner table, what was done, and compiles by specialization set.

    `throttled`: how many timings each throttle reason fell on.
    """
    table = None
    if winners:
        first = winners[0]
        table = WinnerTable(first.variant.kernel, first.source_digest, environment, tuple(winners)).to_json()
    return {
        "evaluated": evaluated,
        "timed_out": timed_out,
        "throttled": dict(throttled),
        "evidence": str(environment.evidence),
        "winners": table,
        "compiles": [
            {
                "do_not_specialize": list(marks.do_not_specialize),
                "do_not_specialize_on_alignment": list(marks.do_not_specialize_on_alignment),
                "compiles": count,
            }
            for marks, count in counts.items()
        ],
    }


def search_report(dropped: Mapping[str, str], sharing: Sharing, tradeoff: Tradeoff | None) -> dict[str, Any]:
    """What `tuner run --json` says of the search: candidates left out and why, what was shared, what serving costs."""
    return {
        "not_searched": dict(dropped),
        "sharing": asdict(sharing),
        "serving": None if tradeoff is None else _tradeoff_report(tradeoff),
    }


def _tradeoff_report(tradeoff: Tradeoff) -> dict[str, Any]:
    baseline = tradeoff.baseline_point
    return {
        "workload": tradeoff.workload,
        "steps": tradeoff.steps,
        "compile_s": tradeoff.compile_s,
        "host_launch_us": tradeoff.host_us,
        "baseline": baseline and _point_report(tradeoff, baseline),
        "front": [_point_report(tradeoff, point) for point in tradeoff.front],
    }


def _point_report(tradeoff: Tradeoff, point: Point) -> dict[str, Any]:
    return {
        **point.variant.to_json(),
        "kernel_us": point.kernel_us,
        "compiles": point.compiles,
        "stall_s": tradeoff.stall_s(point),
        "step_us": tradeoff.step_us(point),
    }


def lookup_report(answer: Lookup) -> dict[str, Any]:
    """What `tuner lookup --json` prints."""
    winner = answer.winner
    return {
        "shape": dict(answer.shape),
        **answer.variant.to_json(),
        "origin": str(answer.origin),
        "explanation": answer.explanation,
        "stale": list(answer.stale),
        "evidence": str(answer.evidence) if answer.evidence else None,
        "tuned_shape": dict(winner.shape) if winner else None,
        "median_us": winner.timing.median_us if winner else None,
        "baseline_median_us": winner.baseline_timing.median_us if winner else None,
        "speedup": [winner.speedup.low, winner.speedup.median, winner.speedup.high] if winner else None,
    }
