"""`tuner run`: search, check, measure or estimate, store."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import (
    DatabaseOption,
    JsonOption,
    KernelArgument,
    TargetOption,
    database,
    find_kernel,
    parse_shapes,
    print_json,
    target_or_gpu,
    terminal,
)
from tuner.errors import UserError
from tuner.records import Evidence
from tuner.search.search import Method
from tuner.space.space import Objective

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.session import RunRequest, RunSummary

EXIT_NO_WINNER = 1


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
    target: TargetOption = None,
    db: DatabaseOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Fixes what the search proposes.")] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Compiling processes. Default: one per core.", show_default=False)
    ] = os.cpu_count() or 1,
    search: Annotated[Method, typer.Option("--search", help="How variants are proposed.")] = Method.TPE,
    objective: Annotated[
        Objective | None,
        typer.Option(
            "--objective",
            help="What winners are best at: the time at each shape, or that with compile stalls spread over the steps "
            "of a server; pareto also shows time against stalls. Default: the space's.",
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            metavar="NAME|FILE",
            help="How often sizes occur and which ones compile (see `tuner workload list`). Default: the space's.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw kernel time against compile stalls as a page (HTML)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the best variant of KERNEL at each shape and store every result.

    A run that was stopped goes on where it was when the same command is given again: stored results are not evaluated
    twice. Winners are printed at the end; `tuner show` prints them again. Exits with 1 where no shape
    has one, unless the time ran out.

    Examples:

        tuner run fused_inv_rope_fp8_quant --trials 40

        tuner run fused_inv_rope_fp8_quant --target hip:gfx942 --shapes "num_tokens=1,512 num_heads=64 n_groups=8"

        tuner run fused_inv_rope_fp8_quant --objective pareto --workload azure_conversation --plot front.html
    """
    from tuner.session import RunRequest, find_workload, load_fitting_space, whole_shapes

    found = find_kernel(kernel)
    loaded = load_fitting_space(found, space)
    loaded = replace(loaded, objective=objective or loaded.objective)
    if plot:
        _check_plot(plot, loaded.objective)
    request = RunRequest(
        kernel=found,
        space=loaded,
        shapes=whole_shapes(found, loaded, parse_shapes(shapes or [])),
        target=target_or_gpu(target),
        trials=trials or loaded.trials,
        workload=find_workload(found, loaded, workload),
        timeout_s=timeout if timeout is not None else loaded.timeout_s,
        method=search,
        seed=seed,
        jobs=jobs,
    )
    summary = _run(request, database(db), as_json)
    if plot and summary.tradeoff:
        from tuner.report.front_plot import write_plot

        unit = "us" if summary.environment.evidence is Evidence.MEASURED else "estimated us"
        write_plot(summary.tradeoff, found.name, unit, plot)
    if not summary.winners and not summary.timed_out:
        raise typer.Exit(EXIT_NO_WINNER)


def _check_plot(path: Path, objective: Objective) -> None:
    from tuner.report.front_plot import require_plot

    if objective is Objective.LATENCY:
        raise UserError(
            "--plot draws what the latency objective does not weigh.", hint="Add --objective pareto or serving."
        )
    require_plot(path)


def _run(request: "RunRequest", url: str, as_json: bool) -> "RunSummary":
    from tuner.cli.progress import watch
    from tuner.session import run as run_session
    from tuner.store import Store

    console = terminal(stderr=as_json)
    with Store.open(url) as store:
        place = store.place
        try:
            with watch(console, request.kernel.spec.short_label) as listener:
                summary = run_session(request, store, listener)
        except KeyboardInterrupt:
            console.print(f"Every finished result is stored in {place}; the same command goes on from there.")
            raise
    if as_json:
        _print_json(summary)
    else:
        _print_text(summary, request, console, place)
    return summary


def _print_json(summary: "RunSummary") -> None:
    from tuner.report import run_report
    from tuner.report.json_report import search_report

    done = (summary.evaluated, summary.timed_out, summary.compiles, summary.throttled)
    dropped = {each.label: each.reason for each in summary.dropped}
    found = run_report(summary.environment, summary.winners, *done)
    print_json({**found, **search_report(dropped, summary.sharing, summary.tradeoff)})


def _print_text(summary: "RunSummary", request: "RunRequest", console: "Console", place: str) -> None:
    from tuner.report import compile_table, winner_table
    from tuner.report.run_tables import sharing_text, tradeoff_table

    evidence = summary.environment.evidence
    if summary.timed_out:
        console.print("Time ran out; the same command goes on from here.")
    for reason, count in summary.throttled.items():
        console.print(f"The GPU throttled ({reason}) in {count} of {summary.evaluated} timings; cool it, and repeat.")
    if summary.winners:
        console.print(winner_table(summary.winners))
        console.print(compile_table(summary.compiles, request.baseline.specialization, summary.counted))
    if summary.tradeoff:
        console.print(tradeoff_table(summary.tradeoff, evidence))
    if summary.evaluated:
        console.print(sharing_text(summary.sharing, evidence))
    console.print(f"{summary.evaluated} evaluations added to {place}.")
