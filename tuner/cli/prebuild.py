"""`tuner prebuild`: binaries for servers, compiled on a machine without a GPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tuner.catalog import Kernel
from tuner.cli.options import DatabaseOption, KernelArgument, find_kernel, parse_pairs, parse_shapes, terminal
from tuner.errors import UserError
from tuner.records import DEFAULT_TARGET, KNOWN_TARGETS, DimensionValue, Target
from tuner.runtime import WinnerTable, read_table
from tuner.runtime.table import check_table


def prebuild(
    kernel: KernelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of bundles; this one goes to DIR/<kernel>.")
    ],
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help=f"Compile for: {', '.join(KNOWN_TARGETS)}.")
    ] = str(DEFAULT_TARGET),
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes",
            metavar="DIMS",
            help='The dimensions that a server fixes, as in "num_heads=64,128 n_groups=8"; may be given again. '
            "Default: those of the kernel's search space.",
        ),
    ] = None,
    max_num_tokens: Annotated[
        int, typer.Option("--max-num-tokens", min=1, help="The largest size that a step may have.")
    ] = 8192,
    strides: Annotated[
        str,
        typer.Option(
            "--strides",
            metavar="ARGS",
            help='Arguments that differ from those of contiguous inputs, as in "o_stride_token=33280".',
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option("--device", help="Name of the GPU whose winners count. Default: any of the architecture."),
    ] = "",
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="A winner table, instead of those of the store.")
    ] = None,
    db: DatabaseOption = None,
) -> None:
    """Compile every binary that the winners of KERNEL can reach into a bundle; needs no GPU.

    These are the binaries that `op.warmup(max_num_tokens=...)` would compile: of each variant that runs at a size, one
    for each class that the sizes reach, and one that serves all other calls. A server loads them at its start, with
    `tuner.load_op(KERNEL, bundle=DIR)` or TUNER_BUNDLE=DIR. It must run the same Triton and the same source; otherwise
    the bundle is refused, with the reason, and the op compiles at warm-up.

    Example:

        tuner prebuild fused_inv_rope_fp8_quant --target cuda:90 --shapes "num_heads=64 n_groups=8" -o bundles/
    """
    from tuner.api import winner_tables
    from tuner.prebuild import Prebuild, build_bundle, write_bundle

    found = find_kernel(kernel)
    tables = (_read(table, found),) if table else winner_tables(found, db)
    known = {each.environment.device for each in tables if each.environment.device}
    if device and device not in known:
        others = ", ".join(sorted(known)) or "none"
        terminal(stderr=True).print(f"No winners of {device}; there are some of: {others}.", markup=False)
    fixed = tuple(parse_shapes(shapes)) if shapes else _fixed_of_space(found)
    request = Prebuild(found, Target.parse(target), fixed, max_num_tokens, tables, device, _strides(strides))
    bundle, report = build_bundle(request, output)
    write_bundle(bundle)
    size_mib = sum(map(len, bundle.files.values())) / 2**20
    terminal().print(str(report), markup=False)
    terminal().print(f"{bundle.folder}: {len(bundle.binaries)} binaries, {size_mib:.2f} MiB", markup=False)


def _read(path: Path, kernel: Kernel) -> WinnerTable:
    """A table that a lookup can use with this source of the kernel; UserError for any other."""
    table = read_table(path)
    if (table.kernel, table.source_digest) != (kernel.name, kernel.source_digest):
        raise UserError(
            f"{path} is for {table.kernel}, source {table.source_digest}; expected {kernel.name}, "
            f"source {kernel.source_digest}.",
            hint="Export the table again from this version.",
        )
    check_table(table, kernel, path)
    return table


def _fixed_of_space(kernel: Kernel) -> tuple[Mapping[str, DimensionValue], ...]:
    """The combinations of fixed dimensions in a kernel's search space, each once."""
    from tuner.session.request import load_fitting_space

    dynamic = kernel.spec.dynamic_dimensions
    found: list[Mapping[str, DimensionValue]] = []
    for shape in load_fitting_space(kernel, None).shapes:
        fixed = {name: value for name, value in shape.items() if name not in dynamic}
        if fixed not in found:
            found.append(fixed)
    return tuple(found)


def _strides(text: str) -> dict[str, int]:
    pairs = parse_pairs(text.split(), what="stride")
    for name, value in pairs.items():
        if not value.isdecimal():
            raise UserError(f"{name} is {value!r}; expected a number of elements.")
    return {name: int(value) for name, value in pairs.items()}
