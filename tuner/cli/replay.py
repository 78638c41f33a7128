"""`tuner replay`: what a kernel's compiles cost the requests of a workload."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import (
    DatabaseOption,
    JsonOption,
    KernelArgument,
    TargetOption,
    find_kernel,
    parse_shapes,
    print_json,
    target_or_gpu,
    terminal,
)
from tuner.errors import UserError
from tuner.records import Environment

if TYPE_CHECKING:
    from tuner.replay import Replay


def replay(
    kernel: KernelArgument,
    workload: Annotated[
        str, typer.Option("--workload", metavar="NAME", help="A workload (see `tuner workload list`), or its file.")
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="How many of its steps, from the first on.")] = 2000,
    shapes: Annotated[
        str | None,
        typer.Option(
            "--shapes",
            metavar="DIMS",
            help='The dimensions that the workload does not say, as in "num_heads=64 n_groups=8". '
            "Default: those of the first shape of the kernel's search space.",
        ),
    ] = None,
    target: TargetOption = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="DIR", help="Also play what `tuner prebuild` wrote there, without a compile."),
    ] = None,
    db: DatabaseOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Fixes the inputs.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Play the steps of a workload through KERNEL and show what its compiles cost.

    Each arm is played in a new process with an empty Triton cache: the baseline without a specialization set, the
    baseline as it ships, and what `tuner.lookup` answers, the latter also with one variant for all sizes, and with a
    warm-up that launches each compile key once; and, with --bundle, as a server runs it that loads its binaries from
    there. Shown are the compiles and what caused them, how long launch calls
    took, kernel time, and the times to first token that the simulated server would have given.

    Without a GPU, compiles and their seconds are real and kernel times are estimates.

    Example:

        tuner replay fused_inv_rope_fp8_quant --workload azure_conversation
    """
    from tuner.replay import Replay
    from tuner.session.request import load_fitting_space
    from tuner.store import Store
    from tuner.workload import load_workload

    if db is not None and Store.is_missing(db):
        raise UserError(f"There is no store at {db}.", hint="Run `tuner run` first, or leave --db out.")
    found = find_kernel(kernel)
    space = load_fitting_space(found, None)
    loaded = load_workload(workload)
    given = parse_shapes([shapes]) if shapes else [dict(each) for each in space.shapes[:1]]
    if len(given) != 1:
        raise UserError(
            f"{len(given)} shapes are named; expected one value for each dimension that the workload does not say.",
            hint='Name them with --shapes, as in --shapes "num_heads=64 n_groups=8".',
        )
    if not shapes:
        given[0].pop(loaded.dimension, None)
    baseline = space.baseline or found.spec.baseline_variant
    _play(Replay(found, loaded, steps, given[0], baseline, _environment(target), db, seed), bundle, as_json)


def _environment(text: str | None) -> Environment:
    from tuner.measure.environment import device_environment, estimated_environment

    target = target_or_gpu(text)
    return device_environment() if target is None else estimated_environment(target)


def _play(request: "Replay", bundle: Path | None, as_json: bool) -> None:
    from tuner.replay import make_arms, play_arm, prebuilt_arm
    from tuner.replay.player import open_bundle
    from tuner.report import replay_lines, replay_report, replay_tables

    console = terminal(stderr=as_json)
    answers = request.answers()
    arms = make_arms(request.shapes, request.baseline, answers)
    if bundle is not None:
        held = open_bundle(request.kernel, bundle)
        refused = held.refused_on(str(request.environment.target))
        if refused:
            raise UserError(str(refused))
        arms += (prebuilt_arm(request.shapes, request.workload.dimension, answers, held),)
    results = []
    with console.status("") as status:
        for number, arm in enumerate(arms, start=1):
            status.update(f"arm {number} of {len(arms)}: {arm.name}")
            results.append(play_arm(request, arm))
    if as_json:
        print_json(replay_report(request, answers, results))
        return
    for table in replay_tables(request, results):
        console.print(table)
    for line in replay_lines(request, answers, results):
        console.print(line, markup=False)
