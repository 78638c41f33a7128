"""The variant chosen for a shape, and the claim behind it."""

from dataclasses import dataclass

from tuner.records.environment import Environment
from tuner.records.outcome import Timing
from tuner.records.shape import Shape
from tuner.records.variant import Variant


@dataclass(frozen=True)
class Speedup:
    """Baseline time over variant time, with the 95% interval in which another process would find it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Winner:
    """The variant to run at a shape.

    `baseline` is the variant it is held against. `source_digest` names the kernel's source; `compiles` counts the
    compile keys that the variant reaches over all shapes of the run and the sizes of its workload. When nothing beat
    the baseline the variant is the baseline and `reason` says why.
    """

    variant: Variant
    baseline: Variant
    shape: Shape
    environment: Environment
    source_digest: str
    timing: Timing
    baseline_timing: Timing
    speedup: Speedup
    compiles: int
    reason: str
