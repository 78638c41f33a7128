"""Does the estimate put variants in the order of their measured times? Needs no GPU.

    python benchmarks/estimate.py KERNEL STORE... [--json FILE]

For each shape in the stores: the rank correlation (Spearman) between estimated and measured times, and the fastest of
the ten binaries with the lowest estimates over the fastest of all. A binary counts once, with the median of its times,
however many variants and stores share it. What binaries need is read from the stores, loops from the installed Triton's
IR of their variants, which takes about a minute for a thousand.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from scipy.stats import spearmanr
from triton._C.libtriton import ir
from triton.compiler import ASTSource, make_backend

from tuner.catalog import Kernel, load_kernel
from tuner.compile.module import load_variant
from tuner.compile.repeats import code_repeats
from tuner.compile.specialization import bind, gpu_target, meta_launch
from tuner.measure.static import estimate
from tuner.records import Binary, Environment, Evaluation, Evidence, Shape, Target, Variant
from tuner.store import Store

TOP = 10
DEFAULT_WARPS = 4


@dataclass
class Measured:
    """A binary launched at a shape by so many programs: all variants that come to it, and their times."""

    shape: Shape
    binary: Binary
    programs: int
    variants: set[Variant] = field(default_factory=set)
    times_us: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kernel = load_kernel(options.kernel)
    environments, evaluations = set[Environment](), list[Evaluation]()
    for store in options.stores:
        for environment, stored in measured(store, kernel):
            environments.add(environment)
            evaluations += stored
    devices = {(each.device, each.target, each.l2) for each in environments}
    if len(devices) != 1:
        parser.error(
            f"expected measurements of {kernel.name}, as its source is now, on one device; found {len(devices)}"
        )
    (device, target, _), *_ = devices
    rows = list(compare(kernel, target, evaluations))
    worst = max(row["best_of_ten"] for row in rows)
    print(f"{device}: mean {mean(row['spearman'] for row in rows):.2f}, best of {TOP} at most {worst - 1:.1%} slower")
    if options.json:
        options.json.write_text(json.dumps({"device": device, "rows": rows}, indent=2) + "\n")


def measured(store: str, kernel: Kernel) -> Iterable[tuple[Environment, list[Evaluation]]]:
    """What was measured of this source of the kernel, by environment."""
    with Store.open(store, read_only=True) as opened:
        runs = [run for run in opened.runs(kernel.name) if run.source_digest == kernel.source_digest]
        for environment in {run.environment for run in runs if run.environment.evidence is Evidence.MEASURED}:
            yield environment, opened.evaluations(kernel.name, kernel.source_digest, environment)


def compare(kernel: Kernel, target: Target, evaluations: Iterable[Evaluation]) -> Iterable[dict[str, Any]]:
    """Prints and gives one row for each shape, smallest first."""
    by_shape: dict[Shape, dict[tuple[str, int], Measured]] = defaultdict(dict)
    for each in evaluations:
        if each.binary is None or each.timing is None:
            continue
        programs = math.prod(meta_launch(kernel, each.variant, each.shape).grid)
        key = each.binary.digest, programs
        one = by_shape[each.shape].setdefault(key, Measured(each.shape, each.binary, programs))
        one.variants.add(each.variant)
        one.times_us.append(each.timing.median_us)
    repeats: dict[str, float | None] = {}
    print("shape: variants, binaries, Spearman, best of the ten best estimates over the measured best")
    for shape in sorted(by_shape, key=kernel.spec.bytes_moved):
        binaries = list(by_shape[shape].values())
        times_us = [median(each.times_us) for each in binaries]
        estimates_us = [estimated_us(kernel, each, target, repeats) for each in binaries]
        best = sorted(zip(estimates_us, times_us, strict=True))[:TOP]
        row: dict[str, Any] = {
            "shape": kernel.spec.short_label(shape),
            "variants": len(set[Variant]().union(*(each.variants for each in binaries))),
            "binaries": len(binaries),
            "spearman": float(spearmanr(estimates_us, times_us).statistic),
            "best_of_ten": min(time_us for _, time_us in best) / min(times_us),
        }
        print("{shape}: {variants}, {binaries}, {spearman:.2f}, {best_of_ten:.3f}".format(**row), flush=True)
        yield row


def estimated_us(kernel: Kernel, of: Measured, target: Target, repeats: dict[str, float | None]) -> float:
    """The estimate for one binary, infinite where it would not fit; `repeats` remembers those of each binary."""
    variant, spec = min(of.variants, key=lambda each: each.digest), kernel.spec
    warps = variant.config.options.get("num_warps", DEFAULT_WARPS)
    if of.binary.digest not in repeats:
        text = triton_ir(kernel, variant, of.shape, target)
        repeats[of.binary.digest] = code_repeats(text, of.binary, warps * target.warp_size)
    launch = of.programs, warps, spec.bytes_moved(of.shape), spec.flops(of.shape), target
    timing = estimate(of.binary, *launch, repeats[of.binary.digest])
    return math.inf if timing is None else timing.median_us


def triton_ir(kernel: Kernel, variant: Variant, shape: Shape, target: Target) -> str:
    """Triton's IR of a variant at a shape, as its compiler prints it before anything of the target is in it."""
    loaded = load_variant(kernel, variant)
    call = bind(loaded, meta_launch(kernel, variant, shape).arguments, target)
    source = ASTSource(loaded.function, dict(call.signature), dict(call.constexprs), dict(call.attributes))
    backend, stages, context = make_backend(gpu_target(target)), dict[str, Any](), ir.context()
    backend.add_stages(stages, call.options, source.language)
    ir.load_dialects(context)
    backend.load_dialects(context)
    made_for = backend.get_codegen_implementation(call.options), backend.get_module_map()
    module = source.make_ir(gpu_target(target), call.options, *made_for, context)
    return str(stages["ttir"](module, {}))


if __name__ == "__main__":
    main()
