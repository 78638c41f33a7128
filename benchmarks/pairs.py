"""Times pairs of variants alternately, each pair in a fresh process."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuner.catalog import Kernel
from tuner.measure.device import time_alternately
from tuner.measure.statistics import paired_ratio
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Evidence, Shape, Variant, Winner
from tuner.store import Store

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Pair:
    """Two variants to hold against each other at a shape."""

    first: Variant
    second: Variant
    shape: Shape
    cold_l2: bool


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
    """First time over second time of each pair; ends the program when a worker fails."""
    with WorkerPool(1) as pool:
        for number, pair in enumerate(pairs):
            pool.replace_workers()
            job = (kernel.folder, [pair.first, pair.second], pair.shape, pair.cold_l2, seed + number)
            samples = result(pool.submit(time_alternately, *job, timeout_s=TIMEOUT_S))
            if isinstance(samples, Failure):
                sys.exit(f"{pair.shape.label}: {samples.status}: {samples.log}")
            yield paired_ratio(*samples)
