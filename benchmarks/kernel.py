"""How fast is `fused_inv_rope_fp8_quant` beside what others run, and beside a copy of as many bytes?

    python benchmarks/kernel.py [--tokens T ...] [--heads HEADS/GROUPS ...] [--layouts 0 1] [--l2 warm cold]
                                [--table WINNERS.json] [--json FILE]

In one process, rounds interleaved, at each point: the variant that `tuner.lookup` gives (from `--table` where it is
given), the baseline (one program per token and head), loops over 8, 16 and 32 tokens of one head in two stages and two
warps (the structure of TensorRT-LLM's kernel, which chooses the length by T; here the fastest of the three counts), and
a device-to-device copy that moves as many bytes. Times are medians with quartiles, ratios have a 95% interval over the
rounds of this process.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

import tuner
from tuner.catalog import Kernel, Tensors, load_kernel
from tuner.compile.module import load_variant
from tuner.measure.environment import device_environment
from tuner.measure.race import alternate
from tuner.measure.statistics import paired_ratio, ratio_uncertainty, summarize
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant

KERNEL = "fused_inv_rope_fp8_quant"
TOKENS = [1 << power for power in range(16)]
HEADS = ["8/1", "16/2", "32/4", "64/8", "128/8"]
LOOP_LENGTHS = (8, 16, 32)
SEED = 7000
COLD_FACTOR = 3
# A shape so small that more buffers than this are needed to exceed the L2 cache is not timed cold.
MOST_BUFFERS = 64
# Elements that may differ from the baseline's: those that fp32 may round to either side.
MOST_DIFFERENT = 1e-5

Launches = list[Callable[[], None]]


@dataclass(frozen=True)
class Point:
    """What is timed: a shape, with its buffers in the L2 cache or not."""

    shape: Shape
    cold_l2: bool

    @property
    def label(self) -> str:
        sizes = "T={num_tokens} H={num_heads} G={n_groups} packed={tma_aligned_scales}".format(**self.shape)
        return f"{sizes} {'cold' if self.cold_l2 else 'warm'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, metavar="T")
    parser.add_argument("--heads", nargs="+", default=HEADS, metavar="HEADS/GROUPS")
    parser.add_argument("--layouts", type=int, nargs="+", choices=(0, 1), default=[0, 1], help="packed scales: 1")
    parser.add_argument("--l2", nargs="+", choices=("warm", "cold"), default=["warm", "cold"])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.table:
        os.environ["TUNER_TABLE"] = str(options.table)
    kernel = load_kernel(KERNEL)
    points = [
        Point(_shape(kernel, tokens, heads, packed), l2 == "cold")
        for l2, packed, heads, tokens in product(options.l2, options.layouts, options.heads, options.tokens)
    ]
    rows = []
    for point in points:
        row = time_point(kernel, point)
        if row is not None:
            rows.append(row)
            print(_line(point, row), flush=True)
    if options.json:
        environment = device_environment()
        report = {"environment": {**asdict(environment), "target": str(environment.target)}, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def time_point(kernel: Kernel, point: Point) -> dict[str, Any] | None:
    """The times of all at one point; None where it is too small to be timed cold. Ends the program on wrong output."""
    bytes_moved = kernel.spec.bytes_moved(point.shape)
    buffers = 1
    if point.cold_l2:
        buffers += COLD_FACTOR * torch.cuda.get_device_properties(0).L2_cache_size // bytes_moved
        if buffers > MOST_BUFFERS:
            return None
    made = [
        (kernel.spec.make_inputs(point.shape, "cuda", SEED + number), kernel.spec.make_outputs(point.shape, "cuda"))
        for number in range(buffers)
    ]
    winner = tuner.lookup(KERNEL, **point.shape)
    variants = {"ours": winner.variant, "baseline": kernel.spec.baseline_variant}
    variants |= {f"loop {length}": _token_loop(kernel, length) for length in LOOP_LENGTHS}
    _require_same(kernel, list(variants.values()), point.shape, made[0])
    launches = {name: _launches(kernel, variant, point.shape, made) for name, variant in variants.items()}
    launches["copy"] = list(_copies(bytes_moved, buffers))
    samples = dict(zip(launches, alternate(list(launches.values())).times_us, strict=True))
    loop = min(
        (name for name in samples if name.startswith("loop")), key=lambda name: summarize(samples[name]).median_us
    )
    times = {name: _time(samples[name]) for name in ("ours", "baseline", loop, "copy")}
    times["loop"] = times.pop(loop)
    torch.cuda.empty_cache()
    return {
        **{name: point.shape[name] for name in ("num_tokens", "num_heads", "n_groups", "tma_aligned_scales")},
        "l2": "cold" if point.cold_l2 else "warm",
        "origin": str(winner.origin),
        "variant": winner.variant.config.label,
        "loop_length": int(loop.split()[1]),
        "bytes": bytes_moved,
        "times_us": times,
        "over_baseline": _ratio(samples["baseline"], samples["ours"]),
        "over_loop": _ratio(samples[loop], samples["ours"]),
        "share_of_copy": _ratio(samples["copy"], samples["ours"]),
    }


def _shape(kernel: Kernel, tokens: int, heads: str, packed: int) -> Shape:
    num_heads, n_groups = map(int, heads.split("/"))
    return kernel.spec.shape(
        {"num_tokens": tokens, "num_heads": num_heads, "n_groups": n_groups, "tma_aligned_scales": packed}
    )


def _token_loop(kernel: Kernel, length: int) -> Variant:
    """One program walks so many tokens of one head, in two stages and two warps."""
    parameters = FrozenMapping(BLOCK_TOKENS=1, BLOCK_HEADS=1, TOKEN_TILES=length, LOAD_STAGES=2, HEADS_FIRST=1)
    config = Config("tile", parameters, FrozenMapping(num_warps=2, num_stages=1))
    return Variant(kernel.name, config, SpecializationSet.of(["num_tokens"]))


def _launches(kernel: Kernel, variant: Variant, shape: Shape, buffers: Sequence[tuple[Tensors, Tensors]]) -> Launches:
    loaded = load_variant(kernel, variant)
    launches: Launches = [
        partial(loaded.run, kernel.spec.launch(inputs, outputs, shape, variant.config)) for inputs, outputs in buffers
    ]
    launches[0]()  # compiles and loads, which a graph capture must not do
    return launches


def _copies(bytes_moved: int, buffers: int) -> Iterator[Callable[[], None]]:
    """Copies that read half of the bytes and write as many."""
    for _ in range(buffers):
        source = torch.empty(bytes_moved // 2, dtype=torch.uint8, device="cuda")
        copy: Callable[..., Any] = torch.empty_like(source).copy_
        yield partial(copy, source)


def _require_same(kernel: Kernel, variants: Sequence[Variant], shape: Shape, buffers: tuple[Tensors, Tensors]) -> None:
    inputs, outputs = buffers
    found = []
    for variant in variants:
        for each in outputs.values():
            each.view(torch.uint8).fill_(0x7F)
        load_variant(kernel, variant).run(kernel.spec.launch(inputs, outputs, shape, variant.config))
        found.append({name: each.view(torch.uint8).clone() for name, each in outputs.items()})
    for variant, mine in zip(variants, found, strict=True):
        for name, each in mine.items():
            different = int((each != found[0][name]).sum())
            if different > MOST_DIFFERENT * each.numel() + 1:
                raise SystemExit(f"{shape.label}: {variant.config.label}: {different} bytes of {name} differ")


def _time(samples_us: Sequence[float]) -> dict[str, float]:
    timing = summarize(samples_us)
    return {"median": timing.median_us, "low": timing.low_us, "high": timing.high_us, "samples": timing.count}


def _ratio(one_us: Sequence[float], other_us: Sequence[float]) -> dict[str, float]:
    median = paired_ratio(one_us, other_us)
    reach = ratio_uncertainty(one_us, other_us) * median
    return {"median": median, "low": median - reach, "high": median + reach}


def _line(point: Point, row: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {time['median']:.2f} us" for name, time in row["times_us"].items())
    ratios = ", ".join(f"{name} {row[name]['median']:.3f}" for name in ("over_baseline", "over_loop", "share_of_copy"))
    return f"{point.label} ({row['origin']}): {times}; {ratios}"


if __name__ == "__main__":
    main()
