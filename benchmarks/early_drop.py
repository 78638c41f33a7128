"""Does dropping slow candidates early save time, and does the same winner come out?

    python benchmarks/early_drop.py KERNEL STORE [--candidates N] [--json FILE]

Times every distinct binary of a store's evaluations once more, at each shape in the order in which they were stored:
once dropping candidates that are significantly slower than the leader, once timing every candidate to the end, in one
process and over the same buffers. Then the two winners are timed side by side.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairs import Pair, ratios

from tuner.catalog import Kernel, load_kernel
from tuner.measure.device import ShapeBench, shape_bench
from tuner.measure.race import Leader, race
from tuner.measure.statistics import significantly_slower, summarize
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Evaluation, Evidence, L2State, Shape, Variant
from tuner.store import Store

SEED = 3000
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Timings:
    """Seconds that the GPU was taken by timing all candidates, rounds taken in all, and the fastest candidate."""

    seconds: float
    rounds: int
    winner: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("store")
    parser.add_argument("--candidates", type=int, metavar="N", help="only the first N at each shape")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kernel = load_kernel(options.kernel)
    with Store.open(options.store, read_only=True) as store:
        runs = [
            run
            for run in store.runs(kernel.name)
            if run.source_digest == kernel.source_digest and run.environment.evidence is Evidence.MEASURED
        ]
        if not runs:
            sys.exit(f"{options.store} has no measured runs of {kernel.name}")
        l2 = L2State(runs[0].environment.l2)
        stored = store.evaluations(kernel.name, kernel.source_digest, runs[0].environment)
    shapes = {
        shape: distinct([each for each in stored if each.shape == shape])[: options.candidates]
        for shape in find_shapes(stored)
    }
    found = time_shapes(kernel, shapes, l2)
    pairs = [
        Pair(variants[full.winner], variants[dropping.winner], shape, l2)
        for (shape, variants), (dropping, full) in zip(shapes.items(), found, strict=True)
    ]
    rows = []
    for pair, (dropping, full), ratio in zip(pairs, found, ratios(kernel, pairs, SEED), strict=True):
        label = kernel.spec.short_label(pair.shape)
        rows.append(
            {
                "shape": label,
                "candidates": len(shapes[pair.shape]),
                "dropping_s": dropping.seconds,
                "full_s": full.seconds,
                "dropping_rounds": dropping.rounds,
                "full_rounds": full.rounds,
                "same_winner": pair.first == pair.second,
                "winner_slower_by": 1 / ratio - 1,
            }
        )
        print(
            f"{label}: {len(shapes[pair.shape])} candidates, {full.seconds:.2f} s in full, {dropping.seconds:.2f} s"
            f" dropping ({full.seconds / dropping.seconds:.1f} times less), winner slower by {1 / ratio - 1:+.2%}",
            flush=True,
        )
    dropping_s, full_s = (sum(float(row[name]) for row in rows) for name in ("dropping_s", "full_s"))
    print(f"{full_s:.1f} s in full, {dropping_s:.1f} s dropping: {full_s / dropping_s:.2f} times less")
    if options.json:
        report = {"full_s": full_s, "dropping_s": dropping_s, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def find_shapes(evaluations: Sequence[Evaluation]) -> list[Shape]:
    return list(dict.fromkeys(each.shape for each in evaluations))


def time_shapes(
    kernel: Kernel, shapes: Mapping[Shape, Sequence[Variant]], l2: L2State
) -> list[tuple[Timings, Timings]]:
    """What each shape's candidates take, dropping and in full, in a fresh process; ends the program when it fails."""
    found = []
    with WorkerPool(1) as pool:
        for number, (shape, variants) in enumerate(shapes.items()):
            job = (kernel.folder, shape, variants, l2, number % 2 == 0)
            timings = result(pool.submit(time_both_ways, *job, timeout_s=TIMEOUT_S))
            if isinstance(timings, Failure):
                sys.exit(f"{shape.label}: {timings.status}: {timings.log}")
            found.append(timings)
    return found


def distinct(evaluations: Sequence[Evaluation]) -> list[Variant]:
    """The first variant of each binary and config that passed."""
    first: dict[object, Variant] = {}
    for each in evaluations:
        if each.timing is not None and each.binary is not None:
            first.setdefault((each.binary.digest, each.variant.config), each.variant)
    return list(first.values())


def time_both_ways(
    folder: Path, shape: Shape, variants: Sequence[Variant], l2: L2State, dropping_first: bool
) -> tuple[Timings, Timings]:
    """Time all candidates dropping losers and in full, in either order."""
    bench = shape_bench(folder, shape, SEED)
    for variant in variants:
        if bench.check(variant).mismatched:
            raise RuntimeError(f"{variant.config.label} is wrong")
    found = {drop: time_all(bench, variants, l2, drop) for drop in (dropping_first, not dropping_first)}
    return found[True], found[False]


def time_all(bench: ShapeBench, variants: Sequence[Variant], l2: L2State, drop: bool) -> Timings:
    """Time the variants one after another, each beside the fastest before it."""
    leader: tuple[int, Leader] | None = None
    best_us = math.inf
    seconds, rounds = 0.0, 0
    for number, variant in enumerate(variants):
        launches = bench.launches(variant, l2)
        start = time.perf_counter()
        raced = race(launches, leader and leader[1], significantly_slower if drop else never, bench.writer(l2))
        seconds += time.perf_counter() - start
        rounds += len(raced.samples_us)
        median_us = summarize(raced.samples_us).median_us
        if median_us < best_us:
            best_us, leader = median_us, (number, bench.timed_leader(variant, l2, median_us))
    assert leader is not None
    return Timings(seconds, rounds, leader[0])


def never(candidate_us: Sequence[float], leader_us: Sequence[float]) -> bool:
    return False


if __name__ == "__main__":
    main()
