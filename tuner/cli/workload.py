"""`tuner workload`: how often each size occurs in serving."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.cli.options import JsonOption, print_json, terminal
from tuner.errors import UserError
from tuner.workload import (
    Settings,
    Source,
    build_workload,
    first_requests,
    load_workload,
    read_requests,
    workload_paths,
    workload_summary,
    workload_text,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Workloads: how many tokens the steps of an LLM server have, from a trace of requests.",
)
_DEFAULT = Settings()


@app.command("build")
def build(
    requests: Annotated[
        Path, typer.Option(metavar="CSV", help="The trace: TIMESTAMP, ContextTokens, GeneratedTokens of each request.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the workload goes (JSON).")],
    name: Annotated[str | None, typer.Option(help="Its name. Default: the file's.")] = None,
    attribution: Annotated[str, typer.Option(help="Who made the trace, where it is, under which licence.")] = "",
    max_num_batched_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens in a step at most.")
    ] = _DEFAULT.max_num_batched_tokens,
    max_num_seqs: Annotated[
        int, typer.Option(metavar="N", help="Requests that run at the same time at most.")
    ] = _DEFAULT.max_num_seqs,
    step_base_ms: Annotated[
        float, typer.Option(metavar="MS", help="Assumed time of a step, whatever its tokens.")
    ] = _DEFAULT.step_base_ms,
    step_token_us: Annotated[
        float, typer.Option(metavar="US", help="Assumed time of a step for each of its tokens.")
    ] = _DEFAULT.step_token_us,
    limit_requests: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N requests. Default: all.")
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(metavar="S", help="Only requests of the first S seconds. Default: all.")
    ] = None,
) -> None:
    """Serve the requests of a trace by a simulated engine and write its steps.

    The engine batches continuously with chunked prefill, as vLLM v1 does: running requests first, then waiting ones in
    order of arrival, within the limits on tokens and requests. How long a step takes is an assumption, for which the
    defaults stand for a large model on one node of 8 GPUs; the file records it. Memory is not simulated: no request is
    preempted. Files in the format of the Azure LLM inference trace can be read.

    Example:

        tuner workload build --requests trace.csv --out my_service.json --max-num-batched-tokens 2048
    """
    settings = Settings(max_num_batched_tokens, max_num_seqs, step_base_ms, step_token_us)
    chosen = first_requests(read_requests(requests), limit=limit_requests, duration_s=duration_s)
    name = out.stem if name is None else name
    extra = {"limit_requests": limit_requests, "duration_s": duration_s, "name": name, "attribution": attribution}
    command = _command(requests, out, {**asdict(settings), **extra})
    built = build_workload(name, chosen, settings, Source.of(requests, attribution), command)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(workload_text(built), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.") from error
    _print_summary(workload_summary(built))


@app.command("list")
def list_workloads(as_json: JsonOption = False) -> None:
    """List the workloads that can be named."""
    found = [workload_summary(load_workload(name)) for name in workload_paths()]
    if as_json:
        print_json(found)
        return
    console = terminal()
    for each in found:
        console.print(each["name"], style="bold", markup=False)
        console.print(f"  steps     {each['steps']} of {each['requests']} requests in {each['duration_s']:.0f} s")
        console.print(f"  source    {each['source']['attribution']}", markup=False)


@app.command("show")
def show(
    workload: Annotated[
        str, typer.Argument(metavar="NAME", help="A workload's name (see `tuner workload list`), or its file's path.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show the sizes of a workload's steps, and what stands behind it.

    Examples:

        tuner workload show azure_conversation

        tuner workload show ./my_service.json --json
    """
    summary = workload_summary(load_workload(workload))
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


def _command(requests: Path, out: Path, options: dict[str, Any]) -> str:
    """The command that builds the workload in the folder of the trace, with what the defaults stand for."""
    words = ["tuner", "workload", "build", "--requests", requests.name, "--out", out.name]
    for name, value in options.items():
        if value is not None and value != "":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _print_summary(summary: dict[str, Any]) -> None:
    quantiles = ", ".join(f"{name} {value}" for name, value in summary["quantiles"].items())
    rows = [
        ("workload", summary["name"]),
        ("steps", f"{summary['steps']} in {summary['duration_s']:.1f} s"),
        ("requests", summary["requests"]),
        (summary["dimension"], f"{quantiles}; {summary['distinct']} distinct values"),
        ("shares", f"{summary['share_of_1']:.1%} are 1, {summary['share_divisible_by_16']:.1%} divisible by 16"),
        ("settings", ", ".join(f"{name}={value}" for name, value in summary["settings"].items())),
        *(("assumed", text) for text in summary["assumptions"]),
        ("source", f"{summary['source']['file']}: {summary['source']['attribution'] or 'no attribution'}"),
        ("command", summary["command"]),
    ]
    console = terminal()
    for name, value in rows:
        console.print(f"{name:<12}{value}", markup=False)
