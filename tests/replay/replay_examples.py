"""What the tests of replays run on: a small kernel, workloads with given sizes, answers of lookups."""

from collections.abc import Sequence

from kernel_examples import SCALE_ROWS

from tuner.catalog import load_folder
from tuner.records import DEFAULT_TARGET, Environment, Evidence, Shape, Speedup, Timing, Variant, Winner
from tuner.runtime import Lookup, Origin
from tuner.workload import ServedRequest, Settings, Source, Step, Workload

ESTIMATED = Environment(DEFAULT_TARGET, Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "13.4")
KERNEL = load_folder(SCALE_ROWS)
BASELINE = KERNEL.spec.baseline_variant
STEP_US = 100


def steps(sizes: Sequence[int], starts_us: Sequence[int] | None = None) -> tuple[Step, ...]:
    """Steps of 100 us, one after another where they are not said to start later."""
    starts = starts_us or range(0, STEP_US * len(sizes), STEP_US)
    return tuple(Step(start, STEP_US, size) for start, size in zip(starts, sizes, strict=True))


def workload(sizes: Sequence[int], requests: Sequence[tuple[int, int]] = ((0, 0),)) -> Workload:
    """Steps of 100 us with these numbers of rows, and requests as arrival and first step."""
    served = tuple(ServedRequest(*each) for each in requests)
    settings = Settings(step_base_ms=0.1, step_token_us=0)
    return Workload("small", "num_rows", steps(sizes), served, settings, Source("", "", ""), "", ())


def rows(count: int) -> Shape:
    return KERNEL.spec.shape({"num_rows": count})


def answer(shape: Shape, variant: Variant, time_us: float | None) -> Lookup:
    """What a lookup says: a winner of that time, or the baseline where there is none."""
    if time_us is None:
        return Lookup(variant, shape, Origin.BASELINE, None, "")
    timing = Timing(time_us, time_us, time_us, 1)
    digest = KERNEL.source_digest
    winner = Winner(variant, BASELINE, shape, ESTIMATED, digest, timing, timing, Speedup(1.0, 1.0, 1.0), 1, "")
    return Lookup(variant, shape, Origin.EXACT, winner, "")
