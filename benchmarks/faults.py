"""Does every planted fault end in its own status, and do the winners stay the same?

    python benchmarks/faults.py [--target TARGET] [--without NAME ...] [--shapes "num_rows=1000,100000"] [--json FILE]

Tunes `tests/examples/planted_faults`, a right kernel among faulty ones, twice into fresh stores: with its whole space,
and with the right kernel alone. Each variant is tried at each shape. Exit code 1 unless each implementation has its
expected status and both runs choose the same variants.

With `--target` nothing is launched, and the interpreter does not see a device assertion. `--without` leaves faults out;
the endless ones each take the minutes that their timeouts allow.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.catalog import Kernel, load_folder
from tuner.cli.options import parse_shapes
from tuner.records import Evaluation, Shape, Status, Target, Variant
from tuner.search.search import Method
from tuner.space import SearchSpace
from tuner.store import Store

if TYPE_CHECKING:
    from tuner.session.events import Event

FOLDER = Path(__file__).parents[1] / "tests" / "examples" / "planted_faults"
RIGHT = "right"
# How each implementation ends on a GPU, at shapes with an even number of rows.
EXPECTED = {
    RIGHT: Status.PASSED,
    "wrong_element": Status.WRONG_OUTPUT,
    "wrong_last_tile": Status.WRONG_OUTPUT,
    "wrong_scale": Status.WRONG_OUTPUT,
    "not_a_number": Status.WRONG_OUTPUT,
    "partial_write": Status.WRONG_OUTPUT,
    "wrong_when_huge": Status.WRONG_OUTPUT,
    "out_of_bounds": Status.CRASHED,
    "infinite_loop": Status.TIMED_OUT,
    "device_assert": Status.CRASHED,
    "compile_error": Status.COMPILE_ERROR,
    "endless_compile": Status.TIMED_OUT,
    "too_much_shared": Status.OUT_OF_RESOURCES,
    "crash_at_import": Status.CRASHED,
    "wrong_elsewhere": Status.PASSED,  # right at the tuned shapes; it must not win all the same
}
# What the interpreter sees otherwise: it checks odd numbers of rows for every shape.
EXPECTED_ESTIMATED = {**EXPECTED, "wrong_elsewhere": Status.WRONG_OUTPUT}


@dataclass(frozen=True)
class Outcome:
    """What a run left in its store: all evaluations, also at shapes that it added, and the winner of each shape."""

    evaluations: Sequence[Evaluation]
    winners: dict[Shape, Variant]


def tune(kernel: Kernel, space: SearchSpace, shapes: Sequence[Shape], options: argparse.Namespace) -> Outcome:
    """Try every variant of the space at every shape, in a fresh store."""
    from tuner.session import RunRequest, run  # here: workers import this file before they choose the interpreter

    def show(event: "Event") -> None:
        evaluation = getattr(event, "evaluation", None)
        if evaluation is not None:
            where = f"{evaluation.variant.config.label} at {kernel.spec.short_label(evaluation.shape)}"
            print(f"  {evaluation.status}: {where}", file=sys.stderr, flush=True)

    target = Target.parse(options.target) if options.target else None
    request = RunRequest(
        kernel, space, tuple(shapes), target, space.size, method=Method.GRID, seed=options.seed, jobs=options.jobs
    )
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.db") as store:
        summary = run(request, store, show)
        found = store.evaluations(kernel.name, kernel.source_digest, summary.environment)
    return Outcome(found, {winner.shape: winner.variant for winner in summary.winners})


def fault_rows(expected: Mapping[str, Status], found: Outcome, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
    """Print and return what was expected of each implementation, and how it ended."""
    print(f"{'implementation':16} {'expected':16} {'found':16} {'at other shapes':16} wins  ok")
    rows = []
    for name, status in expected.items():
        tried = [each for each in found.evaluations if each.variant.config.implementation == name]
        ended = sorted({each.status for each in tried if each.shape in shapes})
        elsewhere = sorted({each.status for each in tried if each.shape not in shapes})
        wins = sum(variant.config.implementation == name for variant in found.winners.values())
        right = ended == [status] and (not wins or name == RIGHT)
        row = {"implementation": name, "expected": status, "found": ended, "elsewhere": elsewhere}
        rows.append({**row, "wins": wins, "ok": right})
        texts = [name, status, ", ".join(ended) or "not tried", ", ".join(elsewhere) or "-"]
        print(" ".join(f"{text:16}" for text in texts), f"{wins:4}  {'yes' if right else 'NO'}")
    return rows


def winner_rows(kernel: Kernel, shapes: Sequence[Shape], found: Outcome, alone: Outcome) -> list[dict[str, Any]]:
    """Print and return the winner of each shape with the faults and without them."""
    print(f"{'shape':20} {'with faults':32} {'without':32} equal")
    rows = []
    for shape in shapes:
        pair = [each.winners.get(shape) for each in (found, alone)]
        labels = [variant.config.label if variant else "no winner" for variant in pair]
        equal = pair[0] is not None and pair[0] == pair[1]
        rows.append({"shape": kernel.spec.short_label(shape), "with": labels[0], "without": labels[1], "equal": equal})
        print(f"{rows[-1]['shape']:20} {labels[0]:32} {labels[1]:32} {'yes' if equal else 'NO'}")
    return rows


def only(space: SearchSpace, names: Collection[str]) -> SearchSpace:
    """The space with the implementations of these names alone."""
    return replace(space, implementations=tuple(each for each in space.implementations if each.name in names))


def options_given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="estimate for this target instead of measuring on the GPU")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", choices=EXPECTED, help="leave these out")
    parser.add_argument("--shapes", default="num_rows=1000,100000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    from tuner.session import load_fitting_space, whole_shapes

    options = options_given()
    kernel = load_folder(FOLDER)
    names = [each.name for each in kernel.spec.implementations]
    if set(names) != set(EXPECTED):
        sys.exit(f"EXPECTED and {FOLDER}/spec.py differ in {', '.join(sorted(set(names) ^ set(EXPECTED)))}")
    expected = EXPECTED_ESTIMATED if options.target else EXPECTED
    expected = {name: expected[name] for name in names if name not in options.without}
    space = load_fitting_space(kernel, None)
    shapes = whole_shapes(kernel, space, parse_shapes([options.shapes]))
    found, alone = (tune(kernel, only(space, each), shapes, options) for each in (expected, [RIGHT]))
    faults = fault_rows(expected, found, shapes)
    winners = winner_rows(kernel, shapes, found, alone)
    right, equal = sum(row["ok"] for row in faults), sum(row["equal"] for row in winners)
    print(f"{right} of {len(faults)} implementations ended as expected; {equal} of {len(winners)} winners are equal")
    if options.json:
        options.json.write_text(json.dumps({"faults": faults, "winners": winners}, indent=2) + "\n")
    sys.exit(0 if right == len(faults) and equal == len(winners) else 1)


if __name__ == "__main__":
    main()
