"""How fast is `fused_inv_rope_fp8_quant` beside what others run, and beside a copy of as many bytes?

    python benchmarks/kernel.py [--tokens T ...] [--heads HEADS/GROUPS ...] [--layouts 0 1]
                                [--l2 written warm cold]
                                [--table WINNERS.json] [--json FILE]

In one process, rounds interleaved, at each point: the variant that `tuner.lookup` gives (from `--table` where it is
given), the baseline (one program per token and head), loops over 8, 16 and 32 tokens of one head in two stages and two
warps (the structure of TensorRT-LLM's kernel, which chooses the length by T; here the fastest of the three counts), and
two that only move as many bytes: `copy`, from device to device (half read, half written), and `stream`, the "add" of
the STREAM benchmark (two thirds read, one third written, as this kernel does). Times are medians with quartiles, ratios
have a 95% interval over the rounds of this process.

The L2 cache is `written`, as behind the kernel that has just written `o` front to back: before each launch its inputs
are written again, and the time is what the launch adds to that (the copy and the add have their own); `warm`: launches
follow each other over the same buffers; or `cold`.

`bound_over_baseline` is the baseline's time over that of the faster of the two: no kernel that gets its data at the
memory's speed is faster than the baseline by more. It bounds nothing where a part of the buffers lies in the L2 cache
(written, and warm up to about twice its size): there a kernel may well beat both.

FILE is written anew after every point, with a summary, so that a run that is cut off loses only the point at which it
was. `benchmarks/kernel_plot.py` draws it.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

import tuner
from tuner.catalog import Kernel, Tensors, load_kernel
from tuner.compile.module import load_variant
from tuner.measure.benchmark import Samples
from tuner.measure.environment import device_environment
from tuner.measure.race import alternate
from tuner.measure.statistics import paired_ratio, ratio_uncertainty, summarize
from tuner.measure.written import behind, own, writing
from tuner.records import Config, FrozenMapping, L2State, Shape, SpecializationSet, Variant

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
# The summary's mean is over sizes from here on, and its worst points are told for each span of sizes.
MEAN_FROM = 256
SPANS = {"1..255": (1, 256), "256..1023": (256, 1024), "1024..8191": (1024, 8192), "8192..": (8192, sys.maxsize)}
RATIOS = ("over_baseline", "bound_over_baseline", "over_loop", "share_of_copy", "share_of_stream")

Launches = list[Callable[[], None]]
Times = dict[Any, list[float]]
Moving = tuple[list[torch.Tensor], Callable[[], None]]  # what it reads, and its launch
Written = tuple[list[torch.Tensor], list[str]]  # what is written, and the names of those that read it
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, metavar="T")
    parser.add_argument("--heads", nargs="+", default=HEADS, metavar="HEADS/GROUPS")
    parser.add_argument("--layouts", type=int, nargs="+", choices=(0, 1), default=[0, 1], help="packed scales: 1")
    parser.add_argument("--l2", nargs="+", choices=tuple(L2State), default=tuple(L2State))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/kernel.py needs a GPU")
    if options.table:
        os.environ["TUNER_TABLE"] = str(options.table)
    kernel = load_kernel(KERNEL)
    environment = device_environment()
    about = {**asdict(environment), "target": str(environment.target)}
    del about["l2"]  # each row has its own
    rows: list[Row] = []
    for packed, heads, tokens in product(options.layouts, options.heads, options.tokens):
        for row in time_shape(kernel, _shape(kernel, tokens, heads, packed), options.l2):
            rows.append(row)
            print(_line(row), flush=True)
            if options.json:
                _write(options.json, {"environment": about, "summary": summary(rows), "rows": rows})
        torch.cuda.empty_cache()  # the next shape's buffers have other sizes
    for label, figures in summary(rows).items():
        print(_summary_line(label, figures))


def time_shape(kernel: Kernel, shape: Shape, states: Sequence[str]) -> Iterator[Row]:
    """The times of all at one shape, a row for each state of the L2 cache. Ends the program on wrong output.

    No row for "cold" where the shape is too small for it. A shape far larger than the cache finds it cold at every
    launch, so that it is timed once for warm and cold.
    """
    bytes_moved = kernel.spec.bytes_moved(shape)
    cold = 1 + COLD_FACTOR * torch.cuda.get_device_properties(0).L2_cache_size // bytes_moved
    counts = {state: cold if state == L2State.COLD else 1 for state in states}
    counts = {state: count for state, count in counts.items() if count <= MOST_BUFFERS}
    if not counts:
        return
    most = max(counts.values())
    made = [
        (kernel.spec.make_inputs(shape, "cuda", SEED + number), kernel.spec.make_outputs(shape, "cuda"))
        for number in range(most)
    ]
    winner = tuner.lookup(KERNEL, **shape)
    variants = {"ours": winner.variant, "baseline": kernel.spec.baseline_variant}
    variants |= {f"loop {length}": _token_loop(kernel, length) for length in LOOP_LENGTHS}
    _require_same(kernel, list(variants.values()), shape, made[0])
    launches = {name: _launches(kernel, variant, shape, made) for name, variant in variants.items()}
    copies, adds = list(_copies(bytes_moved, most)), list(_adds(bytes_moved, most))
    launches["copy"], launches["stream"] = [launch for _, launch in copies], [launch for _, launch in adds]
    for each in launches.values():
        each[0]()  # compiles and loads, which a graph capture must not do
    inputs, _ = made[0]
    written: list[Written] = [([inputs[name] for name in kernel.spec.written_inputs], [*variants])]
    written += [(copies[0][0], ["copy"]), (adds[0][0], ["stream"])]
    samples_by_count: dict[int, Times] = {}
    for state, count in counts.items():
        if state == L2State.WRITTEN:
            samples = _behind_writing(launches, written)
        else:
            if count not in samples_by_count:
                samples_by_count[count] = _alternated({name: each[:count] for name, each in launches.items()})
            samples = samples_by_count[count]
        yield {
            **{name: shape[name] for name in ("num_tokens", "num_heads", "n_groups", "tma_aligned_scales")},
            "l2": state,
            "origin": str(winner.origin),
            "variant": winner.variant.config.label,
            "bytes": bytes_moved,
            **compared(samples),
        }


def _alternated(launches: Mapping[Any, Launches]) -> Times:
    return dict(zip(launches, alternate(list(launches.values())).times_us, strict=True))


def _behind_writing(launches: Mapping[str, Launches], written: Sequence[Written]) -> Times:
    """What each one's first launch adds to the time of writing its inputs."""
    arms, writes = dict[Any, Launches](), dict[Any, Launches]()
    for number, (tensors, names) in enumerate(written):
        write = writing(tensors)
        arms |= {name: [behind(write, launches[name][0])] for name in names}
        writes[number] = [write]
    times, found = _alternated(arms | writes), Times()
    for number, (_, names) in enumerate(written):
        found |= zip(names, own(Samples([times[each] for each in (*names, number)], None)).times_us, strict=True)
    return found


def compared(samples: Mapping[str, Sequence[float]]) -> Row:
    """Times and ratios from the paired samples of all, in microseconds; of the loops the fastest counts."""
    medians = {name: summarize(each).median_us for name, each in samples.items()}
    loop = min((name for name in samples if name.startswith("loop")), key=medians.__getitem__)
    floor = min(("copy", "stream"), key=medians.__getitem__)
    return {
        "loop_length": int(loop.split()[1]),
        "times_us": {name.split()[0]: _time(samples[name]) for name in ("ours", "baseline", loop, "copy", "stream")},
        "over_baseline": _ratio(samples["baseline"], samples["ours"]),
        "bound_over_baseline": _ratio(samples["baseline"], samples[floor]),
        "over_loop": _ratio(samples[loop], samples["ours"]),
        "share_of_copy": _ratio(samples["copy"], samples["ours"]),
        "share_of_stream": _ratio(samples["stream"], samples["ours"]),
    }


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """By label the figures of each layout and head count, and those of all together, for each state of the cache."""
    groups: dict[str, list[Row]] = {}
    together: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
        together.setdefault(f"all {row['l2']}", []).append(row)
    return {label: _figures(each) for label, each in (groups | together).items()}


def _figures(rows: Sequence[Row]) -> Row:
    over_loop = [row["over_loop"]["median"] for row in rows]
    larger = [row["over_baseline"]["median"] for row in rows if row["num_tokens"] >= MEAN_FROM]
    spans = {}
    for span, (low, past) in SPANS.items():
        if inside := [row for row in rows if low <= row["num_tokens"] < past]:
            spans[span] = {name: _worst(inside, name) for name in ("over_baseline", "share_of_copy", "share_of_stream")}
    return {
        "points": len(rows),
        "mean_over_baseline": statistics.geometric_mean(larger) if larger else None,
        "worst_over_baseline": _worst(rows, "over_baseline"),
        "worst_over_loop": _worst(rows, "over_loop"),
        "faster_than_loop": sum(ratio > 1 for ratio in over_loop),
        "worst_by_tokens": spans,
    }


def _worst(rows: Sequence[Row], name: str) -> Row:
    """Where a ratio is lowest; with one over the baseline its bound at the same point."""
    row = min(rows, key=lambda row: float(row[name]["median"]))
    bound = {"bound": row["bound_over_baseline"]["median"]} if name == "over_baseline" else {}
    return {"median": row[name]["median"], **bound, "at": _label(row)}


def _shape(kernel: Kernel, tokens: int, heads: str, packed: int) -> Shape:
    num_heads, n_groups = map(int, heads.split("/"))
    return kernel.spec.shape(
        {"num_tokens": tokens, "num_heads": num_heads, "n_groups": n_groups, "tma_aligned_scales": packed}
    )


def _token_loop(kernel: Kernel, length: int) -> Variant:
    """One program walks so many tokens of one head, in two stages and two warps."""
    tile = {"BLOCK_TOKENS": 1, "BLOCK_HEADS": 1, "TOKEN_TILES": length, "LOAD_STAGES": 2}
    parameters = FrozenMapping({**tile, "HEADS_FIRST": 1, "LAST_FIRST": 0})
    config = Config("tile", parameters, FrozenMapping(num_warps=2, num_stages=1))
    return Variant(kernel.name, config, SpecializationSet.of(["num_tokens"]))


def _launches(kernel: Kernel, variant: Variant, shape: Shape, buffers: Sequence[tuple[Tensors, Tensors]]) -> Launches:
    loaded = load_variant(kernel, variant)
    return [
        partial(loaded.run, kernel.spec.launch(inputs, outputs, shape, variant.config)) for inputs, outputs in buffers
    ]


def _copies(bytes_moved: int, buffers: int) -> Iterator[Moving]:
    """Copies that read half of the bytes and write as many."""
    for _ in range(buffers):
        source = torch.empty(bytes_moved // 2, dtype=torch.uint8, device="cuda")
        copy: Callable[..., Any] = torch.empty_like(source).copy_
        yield [source], partial(copy, source)


def _adds(bytes_moved: int, buffers: int) -> Iterator[Moving]:
    """Sums of two bf16 vectors that read two thirds of the bytes and write one third."""
    for _ in range(buffers):
        one, other, total = (torch.empty(bytes_moved // 6, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        add: Callable[..., Any] = torch.add
        yield [one, other], partial(add, one, other, out=total)


def _require_same(kernel: Kernel, variants: Sequence[Variant], shape: Shape, buffers: tuple[Tensors, Tensors]) -> None:
    inputs, outputs = buffers
    first: dict[str, torch.Tensor] = {}
    for variant in variants:
        for each in outputs.values():
            each.view(torch.uint8).fill_(0x7F)
        load_variant(kernel, variant).run(kernel.spec.launch(inputs, outputs, shape, variant.config))
        if not first:
            first = {name: each.view(torch.uint8).clone() for name, each in outputs.items()}
        for name, each in outputs.items():
            different = int((each.view(torch.uint8) != first[name]).sum())
            if different > MOST_DIFFERENT * first[name].numel() + 1:
                raise SystemExit(f"{shape.label}: {variant.config.label}: {different} bytes of {name} differ")


def _time(samples_us: Sequence[float]) -> dict[str, float]:
    timing = summarize(samples_us)
    return {"median": timing.median_us, "low": timing.low_us, "high": timing.high_us, "samples": timing.count}


def _ratio(one_us: Sequence[float], other_us: Sequence[float]) -> dict[str, float]:
    median = paired_ratio(one_us, other_us)
    reach = ratio_uncertainty(one_us, other_us) * median
    return {"median": median, "low": median - reach, "high": median + reach}


def _label(row: Row) -> str:
    return f"T={row['num_tokens']} {_group(row)}"


def _group(row: Row) -> str:
    return "H={num_heads} G={n_groups} packed={tma_aligned_scales} {l2}".format(**row)


def _line(row: Row) -> str:
    times = ", ".join(f"{name} {time['median']:.2f} us" for name, time in row["times_us"].items())
    ratios = ", ".join(f"{name} {row[name]['median']:.3f}" for name in RATIOS)
    return f"{_label(row)} ({row['origin']}): {times}; {ratios}"


def _summary_line(label: str, figures: Row) -> str:
    def shown(worst: Row) -> str:
        return f"{worst['median']:.3f} ({worst['at'].removesuffix(f' {label}')})"

    mean = figures["mean_over_baseline"]
    lines = [label + ("" if mean is None else f": over_baseline {mean:.3f} in the geometric mean from T={MEAN_FROM}")]
    lines.append(
        f"  over_loop at worst {shown(figures['worst_over_loop'])}, "
        f"faster at {figures['faster_than_loop']} of {figures['points']} points"
    )
    for tokens, worst in figures["worst_by_tokens"].items():
        bound = worst["over_baseline"]["bound"]
        lines.append(
            f"  T={tokens} at worst: over_baseline {shown(worst['over_baseline'])}, where the bound is {bound:.3f}; "
            f"share_of_copy {shown(worst['share_of_copy'])}; share_of_stream {shown(worst['share_of_stream'])}"
        )
    return "\n".join(lines)


def _write(path: Path, report: Row) -> None:
    """Write through a rename, so that the file is whole at every moment."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
