"""Times pairs of variants alternately in fresh processes."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuner.catalog import Kernel
from tuner.measure.benchmark import Samples
from tuner.measure.device import Faulty, time_alternately
from tuner.measure.statistics import paired_ratio, settled
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Evidence, L2State, Shape, Variant, Winner
from tuner.store import Store

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Pair:
    """Two variants to hold against each other at a shape."""

    first: Variant
    second: Variant
    shape: Shape
    l2: L2State


def measured_winners(store: str, kernel: Kernel) -> dict[Shape, Winner]:
    """The newest measured winner of this source of the kernel at each shape; ends the program without any."""
    with Store.open(store, read_only=True) as opened:
        found = [
            winner
            for winner in reversed(opened.winners(kernel.name))
            if winner.source_digest == kernel.source_digest and winner.environment.evidence is Evidence.MEASURED
        ]
    return {winner.shape: winner for winner in found} or sys.exit(f"{store} has no measured winners of {kernel.name}")


def ratios(kernel: Kernel, pairs: Iterable[Pair], seed: int) -> Iterator[float]:
    """First time over second time of each pair, all in one fresh process; ends the program when that fails.

    As in a final, a pair whose rounds disagree is timed again in another process, twice at most.
    """
    with WorkerPool(1, spare=time_alternately.__module__) as pool:
        for number, pair in enumerate(pairs):
            samples = _alternated(kernel, pair, seed + number, pool)
            for again in range(1, 3):
                if settled(*samples.times_us):
                    break
                pool.replace_workers()
                samples = _alternated(kernel, pair, seed + number + 100 * again, pool)
            yield paired_ratio(*samples.times_us)


def _alternated(kernel: Kernel, pair: Pair, seed: int, pool: WorkerPool) -> Samples:
    job = (kernel.folder, [pair.first, pair.second], pair.shape, pair.l2, seed)
    samples = result(pool.submit(time_alternately, *job, timeout_s=TIMEOUT_S))
    if isinstance(samples, Faulty):
        samples = samples.failure
    if isinstance(samples, Failure):
        sys.exit(f"{pair.shape.label}: {samples.status}: {samples.log}")
    return samples
