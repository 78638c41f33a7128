"""Replays a workload's steps, each arm in a new process with an empty Triton cache."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tuner import api
from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.processes import Failure, WorkerPool, result
from tuner.records import DimensionValue, Environment, Evidence, Shape, Variant
from tuner.replay.arms import Arm
from tuner.replay.causes import Change, compile_causes
from tuner.replay.outcome import ArmReplay, first_tokens_ms, judged
from tuner.replay.player import ArmJob, play
from tuner.runtime import Lookup
from tuner.workload import Workload

# An arm starts a process and compiles a few times, and a step takes a launch and now and then new inputs.
_START_S = 300.0
_STEP_S = 0.1


@dataclass(frozen=True)
class Replay:
    """What to replay: the first `steps` steps of a workload, at the fixed dimensions of a kernel.

    An environment with a device means launches on this machine's GPU, one without means compiles for its target and
    estimated times. `url` names a store to take winners from instead of the default one.
    """

    kernel: Kernel
    workload: Workload
    steps: int
    fixed: Mapping[str, DimensionValue]
    baseline: Variant
    environment: Environment
    url: str | None = None
    seed: int = 0

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of each step; UserError where the workload or `fixed` do not fit the kernel."""
        name, spec = self.workload.dimension, self.kernel.spec
        if spec.dynamic_dimensions != (name,):
            found = ", ".join(spec.dynamic_dimensions) or "none"
            raise UserError(f"The workload has sizes of {name}; the dynamic dimensions of {spec.name} are: {found}.")
        if name in self.fixed:
            raise UserError(f"{name}={self.fixed[name]} is given; the workload says it.", hint=f"Leave {name} out.")
        sizes = [step.num_tokens for step in self.workload.steps[: self.steps]]
        known = {size: spec.shape({**self.fixed, name: size}) for size in dict.fromkeys(sizes)}
        return tuple(known[size] for size in sizes)

    @cached_property
    def first_tokens_ms(self) -> tuple[float, ...]:
        """Milliseconds to first token of each request that has its own within the steps, without any stall."""
        return first_tokens_ms(self.workload, len(self.shapes), {})

    def answers(self) -> dict[Shape, Lookup]:
        """What `tuner.lookup` answers for each shape of the steps."""
        tables, where = api.winner_tables(self.kernel, self.url), self.environment
        return {
            shape: api.look_up(self.kernel, tables, dict(shape), where.device, where.target)
            for shape in dict.fromkeys(self.shapes)
        }


def play_arm(replay: Replay, arm: Arm) -> ArmReplay:
    """Play one arm; the result says how it failed, if it did or took too long."""
    shapes, causes = replay.shapes, _causes(replay, arm)
    warm_up = tuple(causes) if arm.warm_up else ()
    target = None if replay.environment.evidence is Evidence.MEASURED else replay.environment.target
    job = ArmJob(replay.kernel.folder, shapes, arm.variants, warm_up, target, replay.seed, arm.bundles)
    with (
        tempfile.TemporaryDirectory(prefix="tuner-replay-") as cache,
        WorkerPool(1, {"TRITON_CACHE_DIR": cache}) as pool,
    ):
        played = result(pool.submit(play, job, timeout_s=_START_S + _STEP_S * len(shapes)))
    if isinstance(played, Failure):
        return ArmReplay(arm, played)
    return ArmReplay(arm, judged(replay.workload, shapes, played, causes))


def _causes(replay: Replay, arm: Arm) -> dict[Shape, tuple[Change, ...]]:
    """The shapes at which an arm is to compile, with what changed there."""
    target = replay.environment.target
    causes: dict[Shape, tuple[Change, ...]] = {}
    for variant in arm.distinct:
        shapes = [shape for shape, each in arm.variants.items() if each == variant]
        causes |= compile_causes(replay.kernel, variant, shapes, target)
    return causes
