"""A replay as tables for a terminal and as plain data for programs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from tuner.processes import Failure
from tuner.records import Evidence, Shape, Status
from tuner.replay import DELAYED_MS, Arm, ArmReplay, Compile, Outcome, Replay, Spread
from tuner.runtime import Lookup

_ASSUMPTIONS = (
    "A step launches the kernel once: a model launches it once per layer, but compiles it once.",
    "A request waits as long as simulated, and through each stall that lasts while it waits.",
)
_NO_GPU = (
    "No GPU: a launch call takes what its compile takes here, and nothing without one; kernel times are estimates."
)
_FIRST = "the variant's first call"
_UNFORESEEN = "not foreseen from the classes of the arguments"


def replay_tables(replay: Replay, results: Sequence[ArmReplay]) -> list[Table]:
    """What the arms that were played came to; which compiles there were in the steps; when first tokens came."""
    return [_arm_table(replay, results), _compile_table(replay, results), _first_token_table(results)]


def replay_lines(replay: Replay, answers: Mapping[Shape, Lookup], results: Sequence[ArmReplay]) -> list[str]:
    """What is to be said beside the tables: arms that failed, where winners come from, what is assumed."""
    name = replay.kernel.name
    lines = [
        f"failed      {_failure_text(each.arm, each.result)}" for each in results if isinstance(each.result, Failure)
    ]
    if any(each.winner for each in answers.values()):
        lines += [f"ours        {line}" for line in _origins(answers)]
    else:
        lines.append(f"ours        not played: {name} has no winner here; `tuner run {name}` finds some")
    return lines + [f"assumed     {line}" for line in _assumptions(replay)]


def _assumptions(replay: Replay) -> list[str]:
    return [*_ASSUMPTIONS, *([_NO_GPU] if _is_estimated(replay) else [])]


def _is_estimated(replay: Replay) -> bool:
    return replay.environment.evidence is Evidence.ESTIMATED


def _title(replay: Replay) -> str:
    """What is replayed, where, and how the requests fare without a stall."""
    shapes, waits_ms = replay.shapes, replay.first_tokens_ms
    waits = Spread.of(waits_ms)
    steps = replay.workload.steps[: len(shapes)]
    return (
        f"{replay.kernel.name} on {replay.environment.label}\n"
        f"{replay.workload.name}: {len(steps)} of {len(replay.workload.steps)} steps, {steps[-1].end_us / 1e6:.1f} s, "
        f"{len(set(shapes))} values of {replay.workload.dimension}; {Shape(replay.fixed).label}\n"
        f"{len(waits_ms)} requests get their first token; without a stall "
        f"after p50 {waits.p50:.1f}, p90 {waits.p90:.1f}, p99 {waits.p99:.1f}, max {waits.max:.1f} ms"
    )


def _arm_table(replay: Replay, results: Sequence[ArmReplay]) -> Table:
    """One row per arm that was played: compiles, stalls and kernel time."""
    estimated = "estimated " if _is_estimated(replay) else ""
    table = Table(title=escape(_title(replay)), title_justify="left")
    table.add_column("arm", no_wrap=True)
    for name in ("variants", "compiles in steps", "warm-up s", "launch call ms p50 / p99 / max", "stall ms"):
        table.add_column(name, justify="right")
    table.add_column(f"kernel {estimated}ms", justify="right")
    for arm, done in _played(results):
        table.add_row(
            arm.name,
            str(len(arm.distinct)),
            str(len(done.step_compiles)),
            f"{done.warm_up_s:.2f}" if arm.warm_up else "-",
            f"{done.call_ms.p50:.3f} / {done.call_ms.p99:.3f} / {done.call_ms.max:.1f}",
            f"{done.stall_ms:.1f}",
            f"{done.kernel_ms:.2f}",
        )
    return table


def _first_token_table(results: Sequence[ArmReplay]) -> Table:
    """One row per arm that was played: the times to first token with its stalls."""
    table = Table(title="Time to first token", title_justify="left")
    table.add_column("arm", no_wrap=True)
    for name in ("p50 ms", "p90 ms", "p99 ms", "max ms", "mean ms", f"delayed by more than {DELAYED_MS:.0f} ms"):
        table.add_column(name, justify="right")
    for arm, done in _played(results):
        waits = done.first_token_ms
        values = (waits.p50, waits.p90, waits.p99, waits.max, waits.mean)
        table.add_row(arm.name, *(f"{value:.1f}" for value in values), str(done.delayed))
    return table


def _compile_table(replay: Replay, results: Sequence[ArmReplay]) -> Table:
    """One row per compile of the steps: where, for how long, and which argument had a class not seen before."""
    table = Table(title="Compiles in the steps", title_justify="left")
    table.add_column("arm", no_wrap=True)
    for name in ("step", replay.workload.dimension, "compile ms", "stall ms"):
        table.add_column(name, justify="right")
    table.add_column("because", overflow="fold")
    for arm, done in _played(results):
        for each in done.step_compiles:
            build = each.build
            table.add_row(
                arm.name,
                str(build.step),
                str(build.shape[replay.workload.dimension]),
                f"{build.seconds * 1000:.1f}",
                f"{done.stalls_ms[build.step or 0]:.1f}",
                escape(_because(each)),
            )
    return table


def _origins(answers: Mapping[Shape, Lookup]) -> list[str]:
    """Where the variants of `ours` come from: environment, origin and number of sizes, most sizes first."""
    counts = Counter((each.winner.environment.label if each.winner else "", each.origin) for each in answers.values())
    return [
        f"{origin} at {count} sizes: winners of {where}"
        if where
        else f"{origin} at {count} sizes: no winner covers them"
        for (where, origin), count in counts.most_common()
    ]


def replay_report(replay: Replay, answers: Mapping[Shape, Lookup], results: Sequence[ArmReplay]) -> dict[str, Any]:
    """What `tuner replay --json` prints. Times in milliseconds, those of compiles in seconds."""
    shapes, waits_ms, where = replay.shapes, replay.first_tokens_ms, replay.environment
    return {
        "kernel": replay.kernel.name,
        "source_digest": replay.kernel.source_digest,
        "workload": replay.workload.name,
        "steps": len(shapes),
        "sizes": len(set(shapes)),
        "fixed": dict(replay.fixed),
        "seed": replay.seed,
        "evidence": str(where.evidence),
        "environment": {**asdict(where), "target": str(where.target), "evidence": str(where.evidence)},
        "requests": len(waits_ms),
        "first_token_ms_without_stall": asdict(Spread.of(waits_ms)),
        "winners": _origins(answers),
        "assumptions": _assumptions(replay),
        "arms": [_arm_json(each, shapes) for each in results],
    }


def _arm_json(each: ArmReplay, shapes: Sequence[Shape]) -> dict[str, Any]:
    steps = Counter(each.arm.variants[shape] for shape in shapes)
    arm = {
        "arm": each.arm.name,
        "warm_up": each.arm.warm_up,
        "variants": [{**variant.to_json(), "steps": count} for variant, count in steps.most_common()],
    }
    if isinstance(each.result, Failure):
        return {**arm, "status": str(each.result.status), "log": each.result.log}
    done = each.result
    return {
        **arm,
        "status": str(Status.PASSED),
        "compiles": len(done.step_compiles),
        "warm_up_s": done.warm_up_s if each.arm.warm_up else None,
        "launch_call_ms": asdict(done.call_ms),
        "steady_ms": done.steady_ms,
        "stall_ms": done.stall_ms,
        "kernel_ms": done.kernel_ms,
        "first_token_ms": asdict(done.first_token_ms),
        "delayed": done.delayed,
        "compiled": [_compile_json(compiled, done) for compiled in done.compiles],
    }


def _compile_json(each: Compile, done: Outcome) -> dict[str, Any]:
    build = each.build
    return {
        "step": build.step,
        "shape": dict(build.shape),
        "compile_s": build.seconds,
        "stall_ms": None if build.step is None else done.stalls_ms[build.step],
        "foreseen": each.changes is not None,
        "changes": [asdict(change) for change in each.changes or ()],
    }


def _played(results: Sequence[ArmReplay]) -> list[tuple[Arm, Outcome]]:
    return [(each.arm, each.result) for each in results if isinstance(each.result, Outcome)]


def _because(each: Compile) -> str:
    if each.changes is None:
        return _UNFORESEEN
    return "; ".join(change.label for change in each.changes) or _FIRST


def _failure_text(arm: Arm, failure: Failure) -> str:
    """The last line of the log names the error."""
    last = failure.log.strip().splitlines()[-1:]
    return ": ".join([arm.name, str(failure.status), *(line.strip() for line in last)])
