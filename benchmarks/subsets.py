"""What does searching every subset of the specialization candidates cost, beside a search under one fixed set?

    python benchmarks/subsets.py [--space FILE] [--target cuda:90] [--trials N] [--seeds N] [--jobs N] [--json FILE]

Compiles every config under every subset, and checks and times each distinct machine code of a config once: that is the
exhaustive search. Then the tuner's own sessions run over these times, with all candidates and with none, under several
seeds, and the binaries that they measure are counted. At last the exhaustive best and the worst of the bests that the
sessions with all candidates found are timed alternately; without a GPU the estimates are compared.

Nothing here imports Triton at the top: workers import this file again before they set what Triton reads at import.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subset_search import Exhausted

    from tuner.records import Evaluation, Shape
    from tuner.session import RunRequest

WITHIN = 0.01
SPACE = Path(__file__).with_name("spaces") / "subsets.yaml"
SEED = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--target", help="estimate for this target instead of measuring")
    parser.add_argument("--trials", type=int, metavar="N")
    parser.add_argument("--seeds", type=int, default=9, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from subset_search import exhaust, measured

    request, start = load_request(options), time.monotonic()
    exhausted = exhaust(request)
    print(f"{time.monotonic() - start:.1f} s for the exhaustive search", flush=True)
    space = request.space
    under_one_set = replace(request, space=space.without(space.candidates, space.alignment_candidates))
    every, fixed = (
        [measured(replace(each, seed=seed), exhausted) for seed in range(options.seeds)]
        for each in (request, under_one_set)
    )
    rows = [row_of(request, shape, exhausted, every, fixed) for shape in request.shapes]
    print(f"{time.monotonic() - start:.1f} s in all")
    if options.json:
        report = {"trials": request.trials, "seeds": options.seeds, "codes": len(exhausted.evaluations), "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def load_request(options: argparse.Namespace) -> "RunRequest":
    from tuner.catalog import load_kernel
    from tuner.records import Target
    from tuner.session import RunRequest, find_workload, load_fitting_space, whole_shapes
    from tuner.space import load_space

    kernel = load_kernel(load_space(options.space).kernel)
    space = load_fitting_space(kernel, options.space)
    return RunRequest(
        kernel=kernel,
        space=space,
        shapes=whole_shapes(kernel, space, []),
        target=Target.parse(options.target) if options.target else None,
        trials=options.trials or space.trials,
        workload=find_workload(kernel, space, None),
        jobs=options.jobs,
    )


def row_of(
    request: "RunRequest",
    shape: "Shape",
    exhausted: "Exhausted",
    every: "Sequence[Sequence[Evaluation]]",
    fixed: "Sequence[Sequence[Evaluation]]",
) -> dict[str, Any]:
    """One shape's numbers, printed too."""
    from tuner.ranking import median_us

    best = exhausted.best(shape)
    searches = {
        "every": [timed_at(shape, asked) for asked in every],
        "fixed": [timed_at(shape, asked) for asked in fixed],
    }
    worst = max((min(found, key=median_us) for found in searches["every"]), key=median_us)
    row: dict[str, Any] = {
        "shape": request.kernel.spec.short_label(shape),
        "best_us": median_us(best),
        "slower_by": [min(map(median_us, found)) / median_us(best) - 1 for found in searches["every"]],
        "measured": {name: [len(found) for found in each] for name, each in searches.items()},
        "needed": {name: [needed(found, median_us(best)) for found in each] for name, each in searches.items()},
        "worst_timed_slower_by": timed_slower_by(request, best, worst),
    }
    row["measured_ratio"], row["needed_ratio"] = ratio(row["measured"]), ratio(row["needed"])
    print(f"{row['shape']}: best of all {row['best_us']:.2f} us; {request.trials} trials, {len(every)} seeds")
    for name in ("every", "fixed"):
        print(f"  {name:<6} measured {row['measured'][name]}, within {WITHIN:.0%} after {row['needed'][name]}")
    print(
        f"  ratio of the medians: measured {row['measured_ratio']:.2f}, within {WITHIN:.0%} {row['needed_ratio']:.2f}"
    )
    print(f"  every: best slower by {', '.join(f'{each:.2%}' for each in row['slower_by'])}")
    print(
        f"  the worst of these timed beside the best of all: slower by {row['worst_timed_slower_by']:+.2%}", flush=True
    )
    return row


def timed_at(shape: "Shape", asked: "Sequence[Evaluation]") -> "list[Evaluation]":
    return [each for each in asked if each.shape == shape and each.timing]


def needed(found: "Sequence[Evaluation]", best_us: float) -> int:
    """How many binaries were measured until one was within 1% of the best; all and one where none is."""
    close = [
        number
        for number, each in enumerate(found, 1)
        if each.timing and each.timing.median_us <= best_us * (1 + WITHIN)
    ]
    return close[0] if close else len(found) + 1


def ratio(counts: dict[str, list[int]]) -> float:
    return median(counts["every"]) / median(counts["fixed"])


def timed_slower_by(request: "RunRequest", best: "Evaluation", other: "Evaluation") -> float:
    """By how much another variant is slower than the best, in a fresh process that times both alternately."""
    assert best.timing and other.timing
    if request.target is not None:
        return other.timing.median_us / best.timing.median_us - 1
    from pairs import Pair, ratios

    return next(ratios(request.kernel, [Pair(other.variant, best.variant, best.shape, False)], SEED)) - 1


if __name__ == "__main__":
    sys.exit(main())
