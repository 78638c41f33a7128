"""What the GPU's counters say of `fused_inv_rope_fp8_quant`: the memory's share of its peak, bytes, L2 hits, occupancy.

    python benchmarks/counters.py [--tokens T] [--heads HEADS/GROUPS] [--layout 0] [--l2 warm] [-o FILE.json]

Runs itself under Nsight Compute (`ncu`, on the PATH, allowed to read counters) and reports the variant that
`tuner.lookup` gives, the baseline, and the STREAM "add" of as many bytes. Counters are medians over launches. `ncu`
repeats each launch until it has read all; with `--l2 cold` it empties the cache before each. The times are those under
`ncu`, clocks as they are; `benchmarks/kernel.py` times better.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

import tuner
from tuner.catalog import load_kernel
from tuner.compile.module import load_variant
from tuner.measure.environment import device_environment
from tuner.records import Shape

KERNEL = "fused_inv_rope_fp8_quant"
SEED = 7000
ARMS = ("ours", "baseline", "stream")
LAUNCHES = 3
# Past 2 GiB a vector torch adds in several launches.
MOST_ADDED = 2**30 - 1
METRICS = {
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "read_bytes": "dram__bytes_read.sum",
    "written_bytes": "dram__bytes_write.sum",
    "l2_hit_percent": "lts__t_sector_hit_rate.pct",
    "active_warps_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "time_ns": "gpu__time_duration.sum",
}
CACHE_CONTROL = {"warm": "none", "cold": "all"}

Counters = dict[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, metavar="T")
    parser.add_argument("--heads", default="64/8", metavar="HEADS/GROUPS")
    parser.add_argument("--layout", type=int, choices=(0, 1), default=0, help="packed scales: 1")
    parser.add_argument("--l2", choices=tuple(CACHE_CONTROL), default="warm")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--profiled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    num_heads, n_groups = map(int, options.heads.split("/"))
    sizes = {"num_tokens": options.tokens, "num_heads": num_heads, "n_groups": n_groups}
    spec = load_kernel(KERNEL).spec
    shape = spec.shape({**sizes, "tma_aligned_scales": options.layout})
    if options.profiled:
        launch_all(shape)
        return
    counters = by_arm(parse(profile(sys.argv[1:], options.l2)))
    environment = device_environment(options.l2)
    needed = spec.bytes_moved(shape)
    report = {
        "environment": {**asdict(environment), "target": str(environment.target)},
        "shape": dict(shape),
        "needed_bytes": needed,
        "variant": tuner.lookup(KERNEL, **shape).variant.config.label,
        "counters": counters,
    }
    for arm, each in counters.items():
        print(line(arm, each))
    print(f"needed: {needed / 1e6:.1f} MB read and written")
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def launch_all(shape: Shape) -> None:
    """Launch each arm a few times, one after the other; only these launches are profiled."""
    kernel = load_kernel(KERNEL)
    spec = kernel.spec
    inputs, outputs = spec.make_inputs(shape, "cuda", SEED), spec.make_outputs(shape, "cuda")
    arms: dict[str, Callable[[], object]] = {
        name: partial(load_variant(kernel, variant).run, spec.launch(inputs, outputs, shape, variant.config))
        for name, variant in (("ours", tuner.lookup(KERNEL, **shape).variant), ("baseline", spec.baseline_variant))
    }
    added = min(spec.bytes_moved(shape) // 6, MOST_ADDED)
    one, other, total = (torch.empty(added, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    arms["stream"] = partial(torch.add, one, other, out=total)
    for launch in arms.values():
        launch()  # compiles and loads
    torch.cuda.synchronize()
    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
    for name in ARMS:
        for _ in range(LAUNCHES):
            arms[name]()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


def profile(arguments: Sequence[str], l2: str) -> str:
    """What `ncu` writes about this script run with these arguments; ends the program when that fails."""
    if shutil.which("ncu") is None:
        sys.exit("benchmarks/counters.py needs ncu (Nsight Compute) on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        command = ["ncu", "--csv", "--print-units", "base", "--log-file", str(log), "--profile-from-start", "off"]
        command += ["--metrics", ",".join(METRICS.values())]
        command += ["--clock-control", "none", "--cache-control", CACHE_CONTROL[l2]]
        command += [sys.executable, __file__, *arguments, "--profiled"]
        # Numbers are grouped by commas in this locale.
        done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, check=False)
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
    if done.returncode:
        sys.exit(f"ncu exits with {done.returncode}\n{text}")
    return text


def parse(text: str) -> list[Counters]:
    """The counters of each launch, in order, from a CSV of one metric a row; None for what `ncu` could not read.

    Lines that begin with == are messages of `ncu`. Ends the program unless every arm's launches are there.
    """
    names = {metric: name for name, metric in METRICS.items()}
    launches: dict[int, Counters] = {}
    for row in csv.DictReader(each for each in text.splitlines() if each.startswith('"')):
        if row["Metric Name"] in names:
            value = row["Metric Value"].replace(",", "")
            counters = launches.setdefault(int(row["ID"]), dict.fromkeys(METRICS))
            counters[names[row["Metric Name"]]] = None if "n/a" in value else float(value)
    if len(launches) != len(ARMS) * LAUNCHES:
        sys.exit(f"ncu reports {len(launches)} launches; expected {len(ARMS) * LAUNCHES}\n{text}")
    return [launches[number] for number in sorted(launches)]


def by_arm(launches: Sequence[Counters]) -> dict[str, Counters]:
    """The median of each arm's launches."""
    found = {}
    for number, arm in enumerate(ARMS):
        mine = launches[number * LAUNCHES : (number + 1) * LAUNCHES]
        found[arm] = {name: _median([counters[name] for counters in mine]) for name in METRICS}
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def line(arm: str, counters: Counters) -> str:
    def shown(name: str, unit: float = 1.0) -> str:
        value = counters[name]
        return "n/a" if value is None else f"{value / unit:.1f}"

    return (
        f"{arm}: {shown('time_ns', 1e3)} us, DRAM at {shown('dram_percent')}% of its peak, "
        f"{shown('read_bytes', 1e6)} MB read, {shown('written_bytes', 1e6)} MB written, "
        f"L2 hits {shown('l2_hit_percent')}%, active warps {shown('active_warps_percent')}%"
    )


if __name__ == "__main__":
    main()
