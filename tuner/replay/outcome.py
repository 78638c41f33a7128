"""What an arm's steps amount to: compiles, stalls, kernel time and times to first token. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.processes import Failure
from tuner.records import Shape
from tuner.replay.arms import Arm
from tuner.replay.causes import Change
from tuner.replay.player import Build, Played
from tuner.replay.timeline import first_token_us
from tuner.workload import Workload

# A request is delayed where its first token comes so much later than without a stall.
DELAYED_MS = 10.0


@dataclass(frozen=True)
class Spread:
    """Quantiles of some values: each the smallest value that at least this part of them does not exceed; 0 for none."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if not values:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0)
        p50, p90, p99, most = np.percentile(values, [50, 90, 99, 100], method="inverted_cdf")
        return cls(float(p50), float(p90), float(p99), float(most), float(np.mean(values)))


@dataclass(frozen=True)
class Compile:
    """A compile, and the arguments whose class was new: none for a variant's first, None where it was not foreseen."""

    build: Build
    changes: tuple[Change, ...] | None


@dataclass(frozen=True)
class Outcome:
    """What came of an arm.

    `call_ms`: each step's launch call until it returned. `steady_ms`: the median of those in which nothing was built.
    `stalls_ms`: by step, what a call in which a binary was built took beyond that. `first_token_ms`: from a request's
    arrival, as the simulated server would have given it with these stalls; `delayed`: how many requests came more than
    `DELAYED_MS` later than without a stall.
    """

    compiles: tuple[Compile, ...]
    call_ms: Spread
    steady_ms: float
    stalls_ms: Mapping[int, float]
    warm_up_s: float
    kernel_ms: float
    first_token_ms: Spread
    delayed: int

    @property
    def step_compiles(self) -> tuple[Compile, ...]:
        """The compiles of the steps, without those of the warm-up."""
        return tuple(each for each in self.compiles if each.build.step is not None)

    @property
    def stall_ms(self) -> float:
        """All stalls together."""
        return sum(self.stalls_ms.values())


@dataclass(frozen=True)
class ArmReplay:
    """An arm with what came of it, or how it failed."""

    arm: Arm
    result: Outcome | Failure


def judged(
    workload: Workload, shapes: Sequence[Shape], played: Played, causes: Mapping[Shape, tuple[Change, ...]]
) -> Outcome:
    """The outcome of the workload's first steps, which had these shapes; `causes`: those of the foreseen compiles."""
    call_ms = [seconds * 1000 for seconds in played.host_s]
    built = {build.step for build in played.builds if build.step is not None}
    steady_ms = Spread.of([each for step, each in enumerate(call_ms) if step not in built]).p50
    stalls_ms = {step: max(0.0, call_ms[step] - steady_ms) for step in sorted(built)}
    simulated = first_tokens_ms(workload, len(shapes), {})
    served = first_tokens_ms(workload, len(shapes), stalls_ms)
    return Outcome(
        tuple(Compile(build, causes.get(build.shape)) for build in played.builds if not build.cached),
        Spread.of(call_ms),
        steady_ms,
        stalls_ms,
        played.warm_up_s,
        sum(played.kernel_us[shape] for shape in shapes) / 1000,
        Spread.of(served),
        sum(after - before > DELAYED_MS for before, after in zip(simulated, served, strict=True)),
    )


def first_tokens_ms(workload: Workload, steps: int, stalls_ms: Mapping[int, float]) -> tuple[float, ...]:
    """Milliseconds to first token of the requests that have theirs within the first steps, if these stall so."""
    stalls_us = {step: stall * 1000 for step, stall in stalls_ms.items()}
    waits_us = first_token_us(workload.steps[:steps], workload.requests, stalls_us)
    return tuple(wait / 1000 for wait in waits_us)
