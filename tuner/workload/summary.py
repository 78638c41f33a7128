"""What a workload looks like in a few numbers."""

from dataclasses import asdict
from typing import Any

from tuner.workload.workload import Workload

_QUANTILES = (1, 10, 50, 90, 99)


def workload_summary(workload: Workload) -> dict[str, Any]:
    """Plain data: counts, seconds, quantiles of the size over the steps, shares between 0 and 1, where it comes from.

    `p10` is the smallest size that at least a tenth of the steps do not exceed.
    """
    weights = workload.weights()
    return {
        "name": workload.name,
        "dimension": workload.dimension,
        "steps": len(workload.steps),
        "duration_s": workload.duration_s,
        "requests": len(workload.requests),
        "quantiles": {
            **{f"p{percent}": workload.quantile(percent / 100) for percent in _QUANTILES},
            "max": workload.quantile(1),
        },
        "distinct": len(weights),
        "share_of_1": weights.get(1, 0.0),
        "share_divisible_by_16": sum(share for size, share in weights.items() if size % 16 == 0),
        "settings": asdict(workload.settings),
        "assumptions": list(workload.assumptions),
        "source": asdict(workload.source),
        "command": workload.command,
    }
