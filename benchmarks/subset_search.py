"""An exhaustive search over configs and specialization sets, and sessions that run over what it measured."""

import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuner.compile.builder import Built, CompileJob, build
from tuner.processes import Failure, WorkerPool, result
from tuner.ranking import estimated_winner, median_us
from tuner.records import Environment, Evaluation, Shape, Variant
from tuner.search.grid_search import all_variants
from tuner.session import CompileCounts, RunRequest
from tuner.session.device_evaluator import DeviceEvaluator
from tuner.session.evaluator import Contest, Decision, Evaluator, Rules
from tuner.session.run import TuningSession
from tuner.session.static_evaluator import StaticEvaluator
from tuner.session.weights import counted_shapes
from tuner.store import Store

TIMEOUT_S = 120.0
Key = Callable[[Variant, Shape], Hashable]
Code = tuple[Hashable, ...]


@dataclass(frozen=True)
class Exhausted:
    """All that can be tried: what each compile key of a config builds, an evaluation of each distinct code of it."""

    built: Mapping[Hashable, Built]
    evaluations: Mapping[Code, Evaluation]
    key: Key
    environment: Environment

    def best(self, shape: Shape) -> Evaluation:
        """The fastest of the space at a shape."""
        return min((each for each in self.evaluations.values() if each.shape == shape and each.timing), key=median_us)


def code_of(variant: Variant, shape: Shape, built: Built) -> Code:
    """What shares one measurement."""
    return built.binary.digest, variant.config, shape


def exhaust(request: RunRequest) -> Exhausted:
    """Compile every config under every subset of the candidates, check and time each distinct code of a config once."""
    evaluator = make_evaluator(request)
    target = evaluator.environment.target
    shapes = counted_shapes(request.kernel, request.shapes, request.workload)
    counts = CompileCounts(request.kernel, request.space, shapes, target)

    def key(variant: Variant, shape: Shape) -> Hashable:
        return variant.config, counts.key(variant, shape)

    trials = [(request.baseline, shape) for shape in request.shapes]
    trials += [(each, shape) for shape in request.shapes for each in all_variants(request.space, shape)]
    jobs = {key(*trial): CompileJob(request.kernel.folder, *trial, target) for trial in reversed(trials)}
    print(f"{len(trials)} variants, {len(jobs)} compile keys", flush=True)
    try:
        with WorkerPool(request.jobs) as compilers:
            futures = {name: compilers.submit(build, job, timeout_s=TIMEOUT_S) for name, job in jobs.items()}
            found = {name: result(future) for name, future in futures.items()}
        built = {name: each for name, each in found.items() if isinstance(each, Built)}
        distinct = {code_of(*trial, built[key(*trial)]): trial for trial in reversed(trials) if key(*trial) in built}
        print(f"{len(built)} of them compile, to {len(distinct)} distinct codes of a config", flush=True)
        evaluations = dict(
            evaluate(evaluator, {code: (*trial, built[key(*trial)]) for code, trial in distinct.items()})
        )
    finally:
        evaluator.close()
    return Exhausted(built, evaluations, key, evaluator.environment)


def make_evaluator(request: RunRequest) -> Evaluator:
    if request.target is not None:
        return StaticEvaluator(request.kernel, request.target, request.jobs)
    return DeviceEvaluator(
        request.kernel, request.space.l2, request.seed, partial(print, "waiting for the GPU"), float("inf")
    )


def evaluate(
    evaluator: Evaluator, work: Mapping[Code, tuple[Variant, Shape, Built]]
) -> Iterator[tuple[Code, Evaluation]]:
    """Check and time each code beside the fastest before it, as a run does."""
    leaders: dict[Shape, Evaluation] = {}
    results: dict[Hashable, Any] = {}
    for code, (variant, shape, built) in work.items():
        name = evaluator.sharing_key(variant, shape, built.binary)
        if name not in results:
            results[name] = result(evaluator.submit(variant, shape, leaders.get(shape)))
        found = results[name]
        if isinstance(found, Failure):
            evaluator.recover(found)
            yield code, evaluator.failed(variant, shape, found, built)
            continue
        evaluation = evaluator.conclude(variant, shape, built, found)
        if evaluation.timing and (shape not in leaders or median_us(evaluation) < median_us(leaders[shape])):
            leaders[shape] = evaluation
        yield code, evaluation


@dataclass
class KnownCompilers:
    """Answers compiles from what the exhaustive search built; what it did not try is compiled here."""

    exhausted: Exhausted

    def submit(self, function: object, job: CompileJob, *, timeout_s: float) -> "Future[Built | Failure]":
        future: Future[Built | Failure] = Future()
        future.set_result(self.exhausted.built.get(self.exhausted.key(job.variant, job.shape)) or build(job))
        return future


@dataclass
class KnownTimes(Evaluator):
    """Answers measurements from the exhaustive search, and notes which were asked for, in order."""

    exhausted: Exhausted
    capacity: int = 1
    asked: list[Evaluation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = self.exhausted.environment

    def sharing_key(self, variant: Variant, shape: Shape, binary: Any) -> Code:
        return binary.digest, variant.config, shape

    def stored_result(self, evaluation: Evaluation) -> None:
        return None

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> "Future[Any]":
        built = self.exhausted.built[self.exhausted.key(variant, shape)]
        found = self.exhausted.evaluations[code_of(variant, shape, built)]
        self.asked.append(replace(found, variant=variant))
        future: Future[Any] = Future()
        future.set_result(found if found.timing else Failure(found.status, found.log))
        return future

    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Evaluation) -> Evaluation:
        return replace(result, variant=variant, binary=built.binary)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        held = (self.environment, rules.source_digest, rules.compiles, rules.stall_us, rules.kept)
        for contest in contests:
            yield estimated_winner(contest.baseline, contest.evaluations, *held)

    def decide_s(self, shapes: int) -> float:
        return 0.0

    def recover(self, failure: Failure) -> None:
        """Nothing broke."""

    def close(self) -> None:
        """Nothing runs."""


def measured(request: RunRequest, exhausted: Exhausted) -> list[Evaluation]:
    """The measurements that a session asks for, in order, when all times are known."""
    evaluator = KnownTimes(exhausted)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.db") as store:
        compilers: Any = KnownCompilers(exhausted)
        summary = TuningSession(request, store, lambda event: None, evaluator, compilers, float("inf")).run()
    if len(summary.winners) < len(request.shapes):
        sys.exit("the baseline failed at a shape")
    return evaluator.asked
