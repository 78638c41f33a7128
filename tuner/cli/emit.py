"""`tuner emit`: a variant as a module that stands alone."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import KernelArgument, find_kernel, parse_pairs
from tuner.errors import UnknownNameError, UserError
from tuner.records import OPTION_NAMES, Config, FrozenMapping, SpecializationSet, Variant


def emit(
    kernel: KernelArgument,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter or compile option; may be given several times."),
    ] = None,
    implementation: Annotated[
        str | None, typer.Option("--implementation", metavar="NAME", help="Default: the kernel's first one.")
    ] = None,
    marks: Annotated[
        str, typer.Option("--do-not-specialize", metavar="ARGS", help="Arguments to mark, separated by commas.")
    ] = "",
    alignment_marks: Annotated[
        str, typer.Option("--do-not-specialize-on-alignment", metavar="ARGS", help="The same, for alignment only.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of printing.")
    ] = None,
) -> None:
    """Print a variant of KERNEL as a module that needs nothing but Triton.

    Its decorator carries the specialization set, its tuned parameters are frozen. The same variant gives the same
    bytes, whenever and wherever it is emitted.

    Example:

        tuner emit fused_inv_rope_fp8_quant --set BLOCK_TOKENS=4 --set BLOCK_HEADS=2 --set TOKEN_TILES=1 \\
            --set LOAD_STAGES=1 --set HEADS_FIRST=1 --set LAST_FIRST=0 --set num_warps=4 --do-not-specialize num_tokens
    """
    from tuner.compile.module import emit_variant

    found = find_kernel(kernel)
    chosen = found.spec.implementation(implementation or found.spec.implementations[0].name)
    numbers = {name: _number(name, text) for name, text in parse_pairs(values or [], what="setting").items()}
    for name in numbers:
        if name not in (*chosen.parameters, *OPTION_NAMES):
            raise UnknownNameError("parameter or option", name, (*chosen.parameters, *OPTION_NAMES))
    missing = [name for name in chosen.parameters if name not in numbers]
    if missing:
        raise UserError(
            f"The implementation {chosen.name!r} needs a value for {', '.join(missing)}.",
            hint=f"Add {' '.join(f'--set {name}=<value>' for name in missing)}.",
        )
    config = Config(
        chosen.name,
        FrozenMapping({name: value for name, value in numbers.items() if name in chosen.parameters}),
        FrozenMapping({name: value for name, value in numbers.items() if name in OPTION_NAMES}),
    )
    marked = SpecializationSet.of(_names(marks), _names(alignment_marks))
    text = emit_variant(found, Variant(found.name, config, marked))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}.") from error


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}={text!r} is not an integer.") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
