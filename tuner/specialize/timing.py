"""Times marked against unmarked code on this machine's GPU."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.measure.benchmark import Samples
from tuner.measure.device import Faulty, time_alternately
from tuner.measure.statistics import paired_ratio, settled, speedup_over_processes
from tuner.processes import Failure, WorkerPool, result
from tuner.records import L2State, Speedup
from tuner.specialize.workbench import Pair

PROCESSES = 3
_TIMEOUT_S = 120.0


def measure_pairs(folder: Path, pairs: Sequence[Pair], seed: int = 0) -> dict[Pair, Speedup | Failure]:
    """For each pair, time with the marks over time without, in three fresh processes that time all pairs.

    The two of a pair are timed alternately, L2 warm. A pair whose rounds do not agree in a process is timed once more
    in a fourth one. The interval is where another process would find the ratio.
    """
    ordered = sorted(pairs, key=lambda pair: pair.shape.canonical)  # inputs of a shape are made once per process
    found: dict[Pair, list[tuple[bool, float]]] = defaultdict(list)
    failed: dict[Pair, Failure] = {}
    with WorkerPool(1, spare=time_alternately.__module__) as pool:
        for number in range(PROCESSES + 1):
            due = [pair for pair in ordered if pair not in failed]
            if number == PROCESSES:
                due = [pair for pair in due if not all(is_settled for is_settled, _ in found[pair])]
            if number and due:
                pool.replace_workers()
            for pair, samples in _timed(pool, folder, due, seed + number):
                if isinstance(samples, Failure):
                    failed[pair] = samples
                else:
                    unmarked_us, marked_us = samples.times_us
                    found[pair].append((settled(unmarked_us, marked_us), paired_ratio(marked_us, unmarked_us)))
    ratios: dict[Pair, Speedup | Failure] = {pair: _over_processes(found[pair]) for pair in pairs if pair not in failed}
    return ratios | failed


def _timed(
    pool: WorkerPool, folder: Path, pairs: Sequence[Pair], seed: int
) -> Iterator[tuple[Pair, Samples | Failure]]:
    for pair in pairs:
        job = (folder, [pair.unmarked, pair.marked], pair.shape, L2State.WARM, seed)
        samples = result(pool.submit(time_alternately, *job, timeout_s=_TIMEOUT_S))
        if isinstance(samples, Faulty):
            samples = samples.failure
        if isinstance(samples, Failure):
            pool.replace_workers()  # an error on the device may spoil whatever its process does next
        yield pair, samples


def _over_processes(taken: Sequence[tuple[bool, float]]) -> Speedup:
    """The ratio over processes, of those whose rounds agree if there are two at least."""
    agreeing = [ratio for is_settled, ratio in taken if is_settled]
    return speedup_over_processes(agreeing if len(agreeing) > 1 else [ratio for _, ratio in taken])
