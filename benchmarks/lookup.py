"""What `tuner.lookup` takes with few and with many winners, and what `import tuner` takes. Needs no GPU, but minutes.

    python benchmarks/lookup.py [-o FILE]

Each number of winners is looked up in, from a table and from a store, in a fresh process that has loaded torch, as a
server has. Most rows belong to other fixed dimensions than those that are asked for, as the sizes of one model are few;
the last layout has all of them at the same ones.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tuner
from tuner.catalog import Kernel, load_kernel
from tuner.measure.installed import installed_environment
from tuner.processes import Failure, WorkerPool, result
from tuner.records import DEFAULT_TARGET, Environment, Evidence, Speedup, Timing, Winner
from tuner.runtime import WinnerTable

KERNEL = "fused_inv_rope_fp8_quant"
HEADS, GROUPS = 48, 6  # no published winner has these
HEAVY = ("torch", "triton", "optuna", "sqlalchemy")
PROCESSES = 11
ROUNDS, CALLS = 500, 1000  # short rounds: few of them meet another process
FIRST_CALLS, FIRST_CALLS_S = 2000, 10.0
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Layout:
    """So many winners, so many of them at each combination of fixed dimensions."""

    rows: int
    of_a_kind: int

    @property
    def label(self) -> str:
        return f"{self.rows} rows, {self.of_a_kind} of a kind"


FEW, MANY, ALIKE = LAYOUTS = (Layout(10, 10), Layout(100_000, 10), Layout(100_000, 100_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    lookups: dict[str, dict[str, Any]] = {"table": {}, "store": {}}
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            for source, variables in written(layout, Path(folder)).items():
                lookups[source][layout.label] = in_fresh_process(layout, variables)
                print(f"{source}, {layout.label}: {lookups[source][layout.label]}", file=sys.stderr)
    found = {
        "environment": {"python": platform.python_version(), "torch": version("torch"), "cpus": os.cpu_count()},
        "command": " ".join(["python benchmarks/lookup.py", *sys.argv[1:]]),
        "import": import_times(),
        "lookup": lookups,
        "ratios": {source: ratios(each) for source, each in lookups.items()},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def import_times() -> dict[str, Any]:
    """Milliseconds of `import tuner` in a fresh process beside one that does nothing, by turns, and what it loads."""
    arms = {"bare": "pass", "import_tuner": "import tuner"}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(PROCESSES + 1):
        for name, code in arms.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            if number:  # the first one reads the files from disk
                times[name].append((time.perf_counter() - start) * 1e3)
    code = f"import sys, tuner; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    differences = [after - before for before, after in zip(times["bare"], times["import_tuner"], strict=True)]
    return {
        "ms": {**{name: spread(each) for name, each in times.items()}, "difference": spread(differences)},
        "loaded": loaded,
    }


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def ratios(lookups: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Median time with many rows over that with few."""
    few = lookups[FEW.label]["us"]
    return {
        layout.label: {
            name: round(lookups[layout.label]["us"][name]["median"] / few[name]["median"], 3) for name in few
        }
        for layout in (MANY, ALIKE)
    }


def written(layout: Layout, folder: Path) -> dict[str, dict[str, str]]:
    """A table and a store of the same winners, each as the variables that make `lookup` read it."""
    from tuner.store import Store  # not in the processes that are measured

    kernel = load_kernel(KERNEL)
    rows = winners(kernel, layout)
    table = WinnerTable(kernel.name, kernel.source_digest, rows[0].environment, tuple(rows))
    name = layout.label.replace(" ", "-")
    path, url = folder / f"{name}.json", f"sqlite:///{folder / name}.db"
    path.write_text(json.dumps(table.to_json()))
    with Store.open(url) as store:
        store.save_winners(rows)
    none = f"sqlite:///{folder / 'none.db'}"
    return {"table": {"TUNER_TABLE": str(path), "TUNER_DB": none}, "store": {"TUNER_TABLE": "", "TUNER_DB": url}}


def winners(kernel: Kernel, layout: Layout) -> list[Winner]:
    """Measured ones with the versions here, those at the fixed dimensions that are asked for in the middle."""
    measured = Environment(DEFAULT_TARGET, Evidence.MEASURED, "made up", "", "", "", "")
    environment, time_us = installed_environment(measured), Timing(3.0, 3.0, 3.0, 1)
    variant, kinds = kernel.spec.baseline_variant, layout.rows // layout.of_a_kind
    found = []
    for kind in range(kinds):
        heads = HEADS + (kind - kinds // 2) % kinds * GROUPS
        for tokens in range(1, layout.of_a_kind + 1):
            shape = kernel.spec.shape({"num_tokens": tokens, "num_heads": heads, "n_groups": GROUPS})
            about = (kernel.source_digest, time_us, time_us, Speedup(1.0, 1.0, 1.0), 1, "made up")
            found.append(Winner(variant, variant, shape, environment, *about))
    return found


def in_fresh_process(layout: Layout, variables: dict[str, str]) -> dict[str, Any]:
    with WorkerPool(1, variables) as pool:
        found = result(pool.submit(lookup_times, layout.of_a_kind, timeout_s=TIMEOUT_S))
    return sys.exit(f"{layout.label}: {found.status}: {found.log}") if isinstance(found, Failure) else found


def lookup_times(of_a_kind: int) -> dict[str, Any]:
    """Milliseconds of the very first lookup; microseconds of later ones, by whether a shape was asked for before."""
    import torch  # noqa: F401 - a server has it

    start = time.perf_counter()
    answer = tuner.lookup(KERNEL, num_tokens=1, num_heads=HEADS, n_groups=GROUPS)
    first_ms = (time.perf_counter() - start) * 1e3
    if answer.winner is None or answer.winner.reason != "made up":
        sys.exit(f"answered from elsewhere: {answer}")
    us = {"asked_before": spread(times_asked_before()), "asked_first": spread(times_asked_first(of_a_kind))}
    return {"reads_winners_ms": round(first_ms, 1), "us": us}


def times_asked_before() -> list[float]:
    """By round."""
    sizes = [1, 2, 3, 8, 10, 11, 17, 64, 130, 511]
    rounds = []
    for number in range(ROUNDS + 1):
        calls = CALLS if number else len(sizes)
        start = time.perf_counter()
        for _ in range(calls // len(sizes)):
            for size in sizes:
                tuner.lookup(KERNEL, num_tokens=size, num_heads=HEADS, n_groups=GROUPS)
        if number:
            rounds.append((time.perf_counter() - start) / calls * 1e6)
    return rounds


def times_asked_first(of_a_kind: int) -> list[float]:
    """By call, at sizes in any order up to twice the largest tuned one, and at least up to 8192."""
    sizes = random.Random(0).sample(range(1000, max(8192, 2 * of_a_kind)), FIRST_CALLS)
    end = time.perf_counter() + FIRST_CALLS_S
    calls: list[float] = []
    for size in sizes:
        start = time.perf_counter()
        tuner.lookup(KERNEL, num_tokens=size, num_heads=HEADS, n_groups=GROUPS)
        calls.append((time.perf_counter() - start) * 1e6)
        if time.perf_counter() > end and len(calls) > 10:
            break
    return calls


if __name__ == "__main__":
    main()
