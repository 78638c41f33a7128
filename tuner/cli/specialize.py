"""`tuner specialize`: which arguments to mark, what it saves and what it costs."""

import os
from typing import Annotated

import typer

from tuner.cli.options import (
    JsonOption,
    TargetOption,
    find_kernel,
    parse_pairs,
    parse_shapes,
    print_json,
    target_or_gpu,
    terminal,
)
from tuner.errors import UnknownNameError, UserError
from tuner.records import OPTION_NAMES


def specialize(
    kernel: Annotated[
        str,
        typer.Argument(
            metavar="KERNEL",
            help="A kernel's name (see `tuner kernels`), the path of its folder, or path.py:function for a bare "
            "@triton.jit function.",
        ),
    ],
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", metavar="W", help="Whose sizes to look at: a name (see `tuner workload list`) or a file."
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes",
            metavar="DIMS",
            help='Dimensions, as in "num_heads=64 n_groups=4,8" or "num_tokens=1..512": the product of the listed '
            "values. Default: the first of the kernel's search space; num_tokens from the workload, else 1..4096.",
        ),
    ] = None,
    implementation: Annotated[
        str | None,
        typer.Option(
            "--implementation",
            metavar="NAME",
            help="Default: the baseline's, with its config. Another one takes the first config of the search space.",
        ),
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(
            "--arg",
            metavar="NAME=EXPR",
            help="A sample argument of a bare function: *bf16 (an aligned pointer), *bf16:unaligned, a number, None, "
            "or an expression over num_tokens. May be given several times.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A compile option of a bare function: num_warps=8."),
    ] = None,
    target: TargetOption = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Compiling processes. Default: one per core.", show_default=False)
    ] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Say which arguments of KERNEL to put in do_not_specialize: what each saves, what it costs, what to change.

    Classes and compile counts are exact, over every size looked at. Access widths are read from the machine code with
    and without each mark. Times are measured on a GPU, else estimated. The recommended set saves most compiles of those
    that narrow no access and cost no time.

    Examples:

        tuner specialize fused_inv_rope_fp8_quant --workload azure_conversation

        tuner specialize rms_norm --shapes "row_padding=0,64,3"

        tuner specialize my_kernels.py:add_kernel --arg x_ptr=*bf16 --arg n=num_tokens*4096 --arg BLOCK=1024
    """
    from tuner.report.specialize_report import specialize_report, specialize_text
    from tuner.specialize import Request, bare_function, config_of, is_bare_function, looked_at, recommend
    from tuner.workload import load_workload

    bare = is_bare_function(kernel)
    if not bare and (arg or option):
        found = f"--arg and --option are for a bare function, but {kernel!r} is none."
        raise UserError(found, hint="Name one as path.py:function.")
    if bare and implementation:
        raise UserError("--implementation names one of a kernel's; a bare function has none.")
    if bare:
        samples = parse_pairs(arg or [], what="sample argument")
        loaded, source = bare_function(kernel, samples, _compile_options(option or []))
    else:
        loaded = find_kernel(kernel)
    scope = looked_at(loaded, parse_shapes(shapes or []), load_workload(workload) if workload else None)
    where = target_or_gpu(target)
    config = config_of(loaded, implementation, scope, where)
    if not bare:
        source = loaded.folder / loaded.spec.implementation(config.implementation).file
    request = Request(loaded, config, scope, where, jobs, source, sized=not bare)
    with terminal(stderr=True).status("starting") as status:
        result = recommend(request, status.update)
    if as_json:
        print_json(specialize_report(result, kernel))
        return
    console = terminal()
    for part in specialize_text(result, kernel):
        console.print(part, markup=False)


def _compile_options(words: list[str]) -> dict[str, int]:
    options: dict[str, int] = {}
    for name, text in parse_pairs(words, what="compile option").items():
        if name not in OPTION_NAMES:
            raise UnknownNameError("compile option", name, OPTION_NAMES)
        try:
            options[name] = int(text)
        except ValueError:
            raise UserError(f"{name}={text!r} is not an integer.") from None
    return options
