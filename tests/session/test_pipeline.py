"""In which order what is compiled is checked."""

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from session_fakes import KERNEL, SHAPES, SPACE, FakeCompilers, FakeEvaluator, config

from tuner.compile.builder import Built
from tuner.records import Binary, Evaluation, Shape, Variant
from tuner.session import RunRequest
from tuner.session.pipeline import Pipeline

A, B = SHAPES[:2]
VARIANTS = [Variant(KERNEL.name, config(rows, warps)) for rows in (1, 2) for warps in (1, 2)]


class Ledger:
    """Lets a run have every trial."""

    def __init__(self) -> None:
        self.done: dict[Shape, dict[Variant, Evaluation]] = {shape: {} for shape in SHAPES}

    def beat(self) -> None:
        pass

    def claim(self, trial: object) -> bool:
        return True

    def passed(self, shape: Shape) -> Sequence[Evaluation]:
        return []


@dataclasses.dataclass
class Together(FakeCompilers):
    """Ends all compiles at once, when it is told."""

    futures: list[Future[Any]] = dataclasses.field(default_factory=list)

    def submit(self, function: object, job: Any, *, timeout_s: float) -> "Future[Any]":
        self.jobs.append(job)
        self.futures.append(Future())
        return self.futures[-1]

    def end(self) -> None:
        for future, job in zip(self.futures, self.jobs, strict=True):
            if not future.done():
                future.set_result(Built(self.binary(job), 8))


def test_of_those_that_wait_one_at_the_shape_checked_last_comes_first() -> None:
    """The device has its inputs; those of another shape may have to be made anew."""
    compilers, evaluator, finished = Together(), FakeEvaluator(delay_s=0.02), list[Evaluation]()
    trials = iter([(VARIANTS[0], A), (VARIANTS[0], B), (VARIANTS[1], A), (VARIANTS[1], B), (VARIANTS[2], A)])

    def next_trial() -> tuple[Variant, Shape] | None:
        trial = next(trials, None)
        if trial is None:
            compilers.end()
        return trial

    request = RunRequest(KERNEL, SPACE, SHAPES, None, 8, jobs=4)
    Pipeline(request, Ledger(), evaluator, compilers, finished.append).run(next_trial, math.inf)  # type: ignore[arg-type]
    assert [shape for _, shape in evaluator.submitted] == [A, A, A, B, B]
    assert len(finished) == 5


@dataclasses.dataclass
class FromTheCache(FakeCompilers):
    """Triton's disk cache holds every binary; notes how long each compile may take."""

    limits_s: list[float] = dataclasses.field(default_factory=list)

    def submit(self, function: object, job: Any, *, timeout_s: float) -> "Future[Any]":
        self.limits_s.append(timeout_s)
        return super().submit(function, job, timeout_s=timeout_s)

    def binary(self, job: Any) -> Binary:
        return dataclasses.replace(super().binary(job), compile_s=0.004)


def test_binaries_from_the_cache_say_nothing_of_how_long_a_compile_takes() -> None:
    compilers = FromTheCache()
    trials = iter([(Variant(KERNEL.name, config(rows, 1)), A) for rows in range(1, 12)])
    request = RunRequest(KERNEL, SPACE, SHAPES, None, 8, jobs=1)
    evaluator = FakeEvaluator(time_us=lambda *_: 1.0)
    pipeline = Pipeline(request, Ledger(), evaluator, compilers, list[Evaluation]().append)  # type: ignore[arg-type]
    pipeline.run(lambda: next(trials, None), math.inf)
    assert compilers.limits_s == [60.0] * 11
