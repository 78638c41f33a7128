"""`tuner run`: search, check, measure or estimate, store."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import (
    DatabaseOption,
    JsonOption,
    KernelArgument,
    database,
    find_kernel,
    parse_shapes,
    print_json,
    terminal,
)
from tuner.records import DEFAULT_TARGET, KNOWN_TARGETS, Target
from tuner.search.search import Method

if TYPE_CHECKING:
    from tuner.session import RunRequest


def run(
    kernel: KernelArgument,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="Search space (YAML). Default: the kernel's own.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes",
            metavar="DIMS",
            help='Shapes instead of those of the space, as in "num_tokens=1,16,64 num_heads=64 n_groups=8": '
            "the product of the listed values. May be given several times.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Evaluations per shape, stored ones included.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="End the run with its final by then.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help=f"Compile for this target and estimate, without a GPU: {', '.join(KNOWN_TARGETS)}. "
            f"Default: measure on this machine's GPU; {DEFAULT_TARGET} where there is none.",
        ),
    ] = None,
    db: DatabaseOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Fixes what the search proposes.")] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Compiling processes. Default: one per core.", show_default=False)
    ] = os.cpu_count() or 1,
    search: Annotated[Method, typer.Option("--search", help="How variants are proposed.")] = Method.TPE,
    as_json: JsonOption = False,
) -> None:
    """Search for the fastest variant of KERNEL at each shape and store every result.

    A run that was stopped goes on where it was when the same command is given again: stored results are not evaluated
    twice. Winners are printed at the end; `tuner show` prints them again.

    Examples:

        tuner run fused_inv_rope_fp8_quant --trials 40

        tuner run fused_inv_rope_fp8_quant --target hip:gfx942 --shapes "num_tokens=1,512 num_heads=64 n_groups=8"
    """
    from tuner.session import RunRequest, load_fitting_space, whole_shapes

    found = find_kernel(kernel)
    loaded = load_fitting_space(found, space)
    request = RunRequest(
        kernel=found,
        space=loaded,
        shapes=whole_shapes(found, loaded, parse_shapes(shapes or [])),
        target=_target(target),
        trials=trials or loaded.trials,
        timeout_s=timeout if timeout is not None else loaded.timeout_s,
        method=search,
        seed=seed,
        jobs=jobs,
    )
    _run_and_report(request, database(db), as_json)


def _run_and_report(request: "RunRequest", url: str, as_json: bool) -> None:
    from tuner.cli.progress import watch
    from tuner.report import compile_table, run_report, winner_table
    from tuner.session import CompileCounts
    from tuner.session import run as run_session
    from tuner.store import Store

    console = terminal(stderr=as_json)
    with Store.open(url) as store:
        try:
            with watch(console, request.kernel.spec.short_label) as listener:
                summary = run_session(request, store, listener)
        except KeyboardInterrupt:
            console.print(f"Every finished result is stored in {store.place}; the same command goes on from there.")
            raise
    counter = CompileCounts(request.kernel, request.space, request.shapes, summary.environment.target)
    counts = counter.table(request.baseline) if summary.winners else {}
    if as_json:
        done = (summary.evaluated, summary.timed_out, counts, summary.throttled)
        print_json(run_report(summary.environment, summary.winners, *done))
        return
    if summary.timed_out:
        console.print("Time ran out; the same command goes on from here.")
    for reason, count in summary.throttled.items():
        console.print(f"The GPU throttled ({reason}) in {count} of {summary.evaluated} timings; cool it, and repeat.")
    if summary.winners:
        console.print(winner_table(summary.winners))
        console.print(compile_table(counts, request.baseline.specialization, len(request.shapes)))
    console.print(f"{summary.evaluated} evaluations added to {store.place}.")


def _target(text: str | None) -> Target | None:
    if text is not None:
        return Target.parse(text)
    import torch

    return None if torch.cuda.is_available() else DEFAULT_TARGET
