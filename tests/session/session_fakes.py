"""A kernel, a space, and an evaluator and compilers that answer in this process."""

import dataclasses
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tuner.catalog import Kernel, load_folder
from tuner.compile.builder import Built, CompileJob, build
from tuner.processes import Failure
from tuner.ranking import estimated_winner
from tuner.records import (
    Agreement,
    Binary,
    Conditions,
    Config,
    Environment,
    Evaluation,
    Evidence,
    FrozenMapping,
    Shape,
    SpecializationSet,
    Status,
    Target,
    Timing,
    Variant,
    Winner,
)
from tuner.search import Method
from tuner.session import RunRequest, RunSummary
from tuner.session.evaluator import Contest, Decision, Evaluator, Rules
from tuner.session.events import Event
from tuner.session.run import LOOK_TIMEOUT_S, TuningSession
from tuner.space import ImplementationSpace, SearchSpace
from tuner.store import Store

EXAMPLE = Path(__file__).parents[1] / "examples" / "scale_rows"
KERNEL: Kernel = load_folder(EXAMPLE)
SHAPES = (Shape(num_rows=3, columns=128), Shape(num_rows=64, columns=128))
ENVIRONMENT = Environment(Target("cuda", "90"), Evidence.MEASURED, "Some GPU", "2.13.0", "3.9.0", "580.65", "13.4")


def config(block_rows: int, num_warps: int) -> Config:
    return Config("rows", FrozenMapping(BLOCK_ROWS=block_rows), FrozenMapping(num_warps=num_warps))


# The space does not hold it.
BASELINE = Variant("scale_rows", config(1, 4))
SPACE = SearchSpace(
    kernel="scale_rows",
    implementations=(
        ImplementationSpace("rows", FrozenMapping(BLOCK_ROWS=(1, 2, 4)), FrozenMapping(num_warps=(1, 2))),
    ),
    shapes=SHAPES,
    candidates=("num_rows", "row_stride"),
    baseline=BASELINE,
)
SPACE_SIZE = 3 * 2 * 4


def time_us(variant: Variant, shape: Shape) -> float:
    """The best config is (4, 2), then (4, 1), (2, 2); the baseline is slowest; a set changes nothing."""
    values = {**variant.config.parameters, **variant.config.options}
    cost = {1: 9.0, 2: 6.0, 4: 3.0}[values["BLOCK_ROWS"]] + {1: 2.0, 2: 1.0, 4: 8.0}[values["num_warps"]]
    return cost + shape.size("num_rows")


@dataclass
class FakeTable:
    """Stands for the table of classes: four compiles with no mark, half of it with each; a shape has its own key."""

    kernel: Kernel
    config: Config
    shapes: Sequence[Shape]
    target: Target
    runtime: ClassVar[tuple[str, ...]] = ("x_ptr", "y_ptr", "num_rows", "row_stride")

    def count(self, marks: SpecializationSet) -> int:
        return 4 >> len({*marks.do_not_specialize, *marks.do_not_specialize_on_alignment})

    def key(self, marks: SpecializationSet, shape: Shape) -> tuple[SpecializationSet, Shape]:
        return marks, shape


def own_code(variant: Variant) -> str:
    return variant.digest


def code_by_config(variant: Variant) -> str:
    return variant.config.label


def settled(value: object) -> "Future[Any]":
    """A future that is done: with the value, or with the exception."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


Fault = Callable[[Variant, Shape], Failure | BaseException | None]


def no_fault(variant: Variant, shape: Shape) -> None:
    return None


def unknown(variant: Variant, shape: Shape) -> None:
    return None


@dataclass
class FakeCompilers:
    """Stands for the pool of compiling processes; `code` names the binary of a variant.

    `jobs` are those of trials; `looks` those that only look at machine code, which have a limit of their own.
    """

    code: Callable[[Variant], str] = own_code
    fault: Fault = no_fault
    jobs: list[CompileJob] = field(default_factory=list)
    looks: list[CompileJob] = field(default_factory=list)

    def submit(self, function: object, job: CompileJob, *, timeout_s: float) -> "Future[Any]":
        assert function is build
        assert timeout_s > 0
        (self.looks if timeout_s == LOOK_TIMEOUT_S else self.jobs).append(job)
        return settled(self.fault(job.variant, job.shape) or Built(self.binary(job), 8))

    def binary(self, job: CompileJob) -> Binary:
        digest = self.code(job.variant)
        return Binary(digest, "*bf16", 32, 0, 0, 100, FrozenMapping({"16": 1}), FrozenMapping({"16": 1}), 0.1)


@dataclass
class FakeEvaluator(Evaluator):
    """Answers with `time_us`, or with a fault; with `delay_s` only after a while, and one at a time."""

    fault: Fault = no_fault
    delay_s: float = 0.0
    time_us: Callable[[Variant, Shape], float] = time_us
    conditions: Callable[[Variant, Shape], Conditions | None] = unknown
    submitted: list[tuple[Variant, Shape]] = field(default_factory=list)
    leaders: list[Evaluation | None] = field(default_factory=list)
    recovered: list[Failure] = field(default_factory=list)
    environment: Environment = ENVIRONMENT
    capacity: int = 1
    final_s: float = 0.0
    pending: "list[Future[Any]]" = field(default_factory=list)
    contests: list[Contest] = field(default_factory=list)
    rules: list[Rules] = field(default_factory=list)

    def sharing_key(self, variant: Variant, shape: Shape, binary: Binary) -> Hashable:
        return binary.digest, shape

    def stored_result(self, evaluation: Evaluation) -> float | None:
        return evaluation.timing.median_us if evaluation.timing else None

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> "Future[Any]":
        self.submitted.append((variant, shape))
        self.leaders.append(leader)
        answer = self.fault(variant, shape) or self.time_us(variant, shape)
        if not self.delay_s:
            return settled(answer)
        assert all(each.done() for each in self.pending), "more at once than the capacity"
        future: Future[Any] = Future()
        self.pending.append(future)
        threading.Timer(self.delay_s, lambda: future.cancelled() or future.set_result(answer)).start()
        return future

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: float) -> Evaluation:
        timing, conditions = Timing(result, result, result, 1), self.conditions(variant, shape)
        return Evaluation(variant, shape, Status.PASSED, "", built.binary, Agreement(8, 0, 0), timing, conditions)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        self.contests += contests
        self.rules.append(rules)
        for contest in contests:
            held = (self.environment, rules.source_digest, rules.compiles, rules.stall_us, rules.kept)
            yield estimated_winner(contest.baseline, contest.evaluations, *held)

    def decide_s(self, shapes: int) -> float:
        return self.final_s

    def recover(self, failure: Failure) -> None:
        """Like a pool whose workers are replaced: what is in flight is lost."""
        self.recovered.append(failure)
        for future in self.pending:
            future.cancel()

    def close(self) -> None:
        pass


@dataclass
class Done:
    """What a session did."""

    summary: RunSummary
    events: list[Event]
    evaluator: FakeEvaluator
    compilers: FakeCompilers

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def submitted(self) -> list[tuple[Variant, Shape]]:
        return [(job.variant, job.shape) for job in self.compilers.jobs]


@dataclass
class Bench:
    """Runs sessions over one store. Method and order are the grid's unless a test asks for others."""

    path: Path
    start: ClassVar[Callable[[], float]] = staticmethod(time.monotonic)

    def run(
        self,
        *,
        evaluator: FakeEvaluator | None = None,
        compilers: FakeCompilers | None = None,
        space: SearchSpace = SPACE,
        watch: Callable[[Event], object] | None = None,
        **changes: Any,
    ) -> Done:
        request = RunRequest(KERNEL, space, SHAPES, None, 8, method=Method.GRID)
        request = dataclasses.replace(request, **changes)
        evaluator, compilers = evaluator or FakeEvaluator(), compilers or FakeCompilers()
        events: list[Event] = []

        def listen(event: Event) -> None:
            events.append(event)
            if watch:
                watch(event)

        deadline = math.inf if request.timeout_s is None else type(self).start() + request.timeout_s
        with Store.open(self.path) as store:
            session = TuningSession(request, store, listen, evaluator, compilers, deadline)  # type: ignore[arg-type]
            return Done(session.run(), events, evaluator, compilers)

    def evaluations(self) -> list[Evaluation]:
        """What the store holds, oldest first."""
        with Store.open(self.path, read_only=True) as store:
            return store.evaluations(KERNEL.name, KERNEL.source_digest, ENVIRONMENT)

    def winners(self) -> dict[Shape, Winner]:
        with Store.open(self.path, read_only=True) as store:
            return {winner.shape: winner for winner in store.winners(KERNEL.name)}

    def rows(self) -> list[tuple[Any, ...]]:
        """Ids and times of the stored evaluations."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute("SELECT id, run_id, created_at FROM tuner_evaluation ORDER BY id").fetchall()
        finally:
            connection.close()
