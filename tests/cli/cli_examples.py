"""What the tests of the commands run on: a kernel's folder, a bundled kernel, winners."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuner.catalog import Kernel
from tuner.records import (
    DEFAULT_TARGET,
    Config,
    Environment,
    Evidence,
    FrozenMapping,
    Shape,
    SpecializationSet,
    Speedup,
    Timing,
    Variant,
    Winner,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "examples" / "scale_rows"
SAMPLE = ROOT / "tests" / "workload" / "sample.json"  # steps of 16, 9, 5, 2, 3, 2, 16, 1 and 1 tokens
BUNDLED = "fused_inv_rope_fp8_quant"
ESTIMATED = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "13.4")


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Tuner = Callable[..., Result]


def chosen(kernel: Kernel, shape: Shape, time_us: float, environment: Environment) -> Winner:
    """A winner whose config is told from its parameters, twice as fast as the baseline."""
    parameters = dict.fromkeys(kernel.spec.implementations[0].parameters, 2)
    config = Config(kernel.spec.implementations[0].name, FrozenMapping(parameters), FrozenMapping(num_warps=2))
    marks = SpecializationSet.of(kernel.spec.dynamic_dimensions)
    return Winner(
        Variant(kernel.name, config, marks),
        kernel.spec.baseline_variant,
        shape,
        environment,
        kernel.source_digest,
        Timing(time_us, time_us, time_us, 1),
        Timing(2 * time_us, 2 * time_us, 2 * time_us, 1),
        Speedup(2.0, 2.0, 2.0),
        1,
        "best estimate",
    )
