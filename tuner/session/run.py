"""The tuning loop: the only place that joins space, search, compile, verify, measure, store and ranking."""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from tuner.compile.builder import Built, CompileJob, build
from tuner.processes import Failure, WorkerPool, result
from tuner.ranking import fastest
from tuner.records import Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.search import Search, create_search
from tuner.session.compile_counts import CompileCounts
from tuner.session.device_evaluator import DeviceEvaluator
from tuner.session.evaluator import Contest, Evaluator, Rules
from tuner.session.events import (
    Evaluated,
    FinalStarted,
    Listener,
    MorePlanned,
    RunStarted,
    ShapeSkipped,
    SpaceExhausted,
    WinnerChosen,
)
from tuner.session.request import RunRequest
from tuner.session.static_evaluator import StaticEvaluator
from tuner.space import L2State
from tuner.store import Store

# A compile may take this many times the median of the run's compiles, and never less than the floor; until enough are
# known, the floor is what a cold worker needs.
_COMPILE_FACTOR = 20.0
_COMPILE_FLOOR_S = 60.0
# Binaries per shape whose configs are tried once more with the specialization set that compiles least.
_REFINED = 4
_POLL_S = 0.2


@dataclass(frozen=True)
class RunSummary:
    """What a run did: evaluations it added, whether time ended it, and the winners it stored."""

    environment: Environment
    evaluated: int
    timed_out: bool
    winners: tuple[Winner, ...]


@dataclass
class _Job:
    variant: Variant
    shape: Shape
    future: "Future[Any]"
    built: Built | None = None


def run(request: RunRequest, store: Store, listener: Listener) -> RunSummary:
    """Search every shape, store each outcome as it comes, choose and store the winners.

    Each failure of a variant ends in its evaluation's status. UserError when the device cannot be used or the space
    does not fit the kernel; StoreError when a result cannot be stored.
    """
    evaluator: Evaluator
    if request.target is None:
        evaluator = DeviceEvaluator(request.kernel, request.space.l2 is L2State.COLD, request.seed)
    else:
        evaluator = StaticEvaluator(request.kernel, request.target, request.jobs)
    try:
        with WorkerPool(request.jobs) as compilers:
            session = TuningSession(request, store, listener, evaluator, compilers)
            return session.run()
    finally:
        evaluator.close()


class TuningSession:
    """One run over given workers: proposes, compiles, checks, stores, and chooses winners at the end."""

    def __init__(
        self, request: RunRequest, store: Store, listener: Listener, evaluator: Evaluator, compilers: WorkerPool
    ) -> None:
        self._request = request
        self._store = store
        self._listener = listener
        self._evaluator = evaluator
        self._compilers = compilers
        self._kernel = request.kernel
        self._target = evaluator.environment.target
        self._source_digest = request.kernel.source_digest
        self._counts = CompileCounts(request.kernel, request.space, request.shapes, self._target)
        self._baseline = request.baseline
        self._searches: dict[Shape, Search] = {}
        self._done: dict[Shape, dict[Variant, Evaluation]] = {shape: {} for shape in request.shapes}
        self._results: dict[Hashable, Future[Any]] = {}
        self._recovered: set[Future[Any]] = set()
        self._deadline = None if request.timeout_s is None else time.monotonic() + request.timeout_s
        self._compile_s: list[float] = []
        self._run_id = 0
        self._evaluated = 0

    def run(self) -> RunSummary:
        request = self._request
        arguments = {"trials": request.trials, "timeout_s": request.timeout_s, "method": str(request.method)}
        environment = self._evaluator.environment
        self._run_id = self._store.start_run(
            self._kernel.name, self._source_digest, environment, request.seed, arguments
        )
        stored = self._resume()
        self._listener(RunStarted(environment, request.trials * len(request.shapes), stored))
        finished = self._search() and self._refine()
        winners = self._decide()
        self._store.finish_run(self._run_id)
        return RunSummary(environment, self._evaluated, not finished, tuple(winners))

    def _resume(self) -> int:
        """Teach the searches what earlier runs stored; returns how many evaluations that were."""
        request = self._request
        for shape in request.shapes:
            self._searches[shape] = create_search(request.method, request.space, shape, request.seed)
        stored = self._store.evaluations(
            self._kernel.name, self._source_digest, self._evaluator.environment, request.shapes
        )
        for evaluation in stored:
            failed = evaluation.status is not Status.PASSED
            if not (failed and evaluation.variant == self._baseline):  # a shape without a baseline has no winner
                self._learn(evaluation)
            self._share(evaluation)
        return sum(min(len(done), request.trials) for done in self._done.values())

    def _share(self, evaluation: Evaluation) -> None:
        """Let variants to come share what an earlier run found for a binary."""
        found = self._evaluator.stored_result(evaluation)
        if evaluation.binary is not None and found is not None:
            future: Future[Any] = Future()
            future.set_result(found)
            key = self._evaluator.sharing_key(evaluation.variant, evaluation.shape, evaluation.binary)
            self._results.setdefault(key, future)

    def _learn(self, evaluation: Evaluation) -> None:
        self._done[evaluation.shape][evaluation.variant] = evaluation
        timing = evaluation.timing
        self._searches[evaluation.shape].update(evaluation.variant, timing.median_us if timing else None)

    def _search(self) -> bool:
        """Evaluate until every shape has its trials; False when time ran out first."""
        planned = {shape: len(self._done[shape]) for shape in self._request.shapes}
        first = [(self._baseline, shape) for shape in planned if self._baseline not in self._done[shape]]
        for _, shape in first:
            planned[shape] += 1

        def next_trial() -> tuple[Variant, Shape] | None:
            if first:
                return first.pop(0)
            for shape in sorted(planned, key=lambda each: planned[each]):
                if planned[shape] < self._request.trials:
                    variant = self._searches[shape].suggest()
                    if variant == self._baseline:  # already under way
                        variant = self._searches[shape].suggest()
                    if variant is not None:
                        planned[shape] += 1
                        return variant, shape
                    self._listener(SpaceExhausted(shape, self._request.trials - planned[shape]))
                    planned[shape] = self._request.trials
            return None

        return self._evaluate_all(next_trial)

    def _refine(self) -> bool:
        """Give each shape's best configs the specialization set that compiles least, where that was not tried."""
        pending: list[tuple[Variant, Shape]] = []
        for shape, done in self._done.items():
            for group in fastest(done.values(), _REFINED):
                config = group[0].variant.config
                if self._request.space.allows(config, shape):
                    variant = Variant(self._kernel.name, config, self._counts.smallest_set(config))
                    if variant not in done and (variant, shape) not in pending:
                        pending.append((variant, shape))
        self._listener(MorePlanned(len(pending)))
        return self._evaluate_all(lambda: pending.pop(0) if pending else None)

    def _evaluate_all(self, next_trial: Callable[[], tuple[Variant, Shape] | None]) -> bool:
        """Keep the compilers and the evaluator busy until trials run out; False when the deadline passed."""
        compiling: list[_Job] = []
        waiting: list[_Job] = []
        checking: list[_Job] = []
        exhausted = False
        while True:
            for job in _take_done(compiling):
                self._compiled(job, waiting)
            for job in _take_done(checking):
                self._checked(job)
            if self._deadline is not None and time.monotonic() > self._deadline:
                return False
            while waiting and _under_way(checking) < self._evaluator.capacity:
                checking.append(self._check(waiting.pop(0)))
            while not exhausted and len(compiling) + len(waiting) < 2 * self._request.jobs:
                trial = next_trial()
                if trial is None:
                    exhausted = True
                else:
                    compiling.append(self._start(*trial))
            if not (compiling or waiting or checking):
                return True
            wait([job.future for job in compiling + checking], timeout=_POLL_S, return_when=FIRST_COMPLETED)

    def _start(self, variant: Variant, shape: Shape) -> _Job:
        job = CompileJob(self._kernel.folder, variant, shape, self._target)
        return _Job(variant, shape, self._compilers.submit(build, job, timeout_s=self._compile_timeout_s()))

    def _compile_timeout_s(self) -> float:
        """What is normal in this run decides when a compile has run away."""
        normal_s = median(self._compile_s) if self._compile_s else 0.0
        return max(_COMPILE_FLOOR_S, _COMPILE_FACTOR * normal_s)

    def _compiled(self, job: _Job, waiting: list[_Job]) -> None:
        built = result(job.future)
        if isinstance(built, Failure):
            self._finish(self._evaluator.failed(job.variant, job.shape, built))
        else:
            self._compile_s.append(built.binary.compile_s)
            job.built = built
            waiting.append(job)

    def _check(self, job: _Job) -> _Job:
        """Begin the check of a built variant, or join the one that speaks for it too."""
        assert job.built is not None
        key = self._evaluator.sharing_key(job.variant, job.shape, job.built.binary)
        if key not in self._results:
            self._results[key] = self._evaluator.submit(job.variant, job.shape)
        job.future = self._results[key]
        return job

    def _checked(self, job: _Job) -> None:
        assert job.built is not None
        found = result(job.future)
        if isinstance(found, Failure):
            if job.future not in self._recovered:  # those that share it come later, while others are in flight
                self._recovered.add(job.future)
                self._evaluator.recover(found)
            self._finish(self._evaluator.failed(job.variant, job.shape, found, job.built))
        else:
            self._finish(self._evaluator.conclude(job.variant, job.shape, job.built, found))

    def _finish(self, evaluation: Evaluation) -> None:
        self._store.save(self._run_id, self._source_digest, self._evaluator.environment, evaluation)
        self._learn(evaluation)
        self._evaluated += 1
        times = [each.timing.median_us for each in self._done[evaluation.shape].values() if each.timing]
        self._listener(Evaluated(evaluation, min(times, default=None)))

    def _standing_winners(self) -> list[Winner]:
        """Winners of earlier runs at shapes where nothing was learned since; their finals need no repeat."""
        return [
            replace(winner, compiles=self._counts.of(winner.variant))
            for winner in self._store.standing_winners(
                self._kernel.name, self._source_digest, self._evaluator.environment
            )
            if winner.shape in self._done and winner.baseline == self._baseline
        ]

    def _decide(self) -> list[Winner]:
        contests = []
        winners = self._standing_winners()
        decided = {winner.shape for winner in winners}
        for shape, done in self._done.items():
            baseline = done.get(self._baseline)
            if shape in decided:
                continue
            if baseline is not None and baseline.status is Status.PASSED:
                contests.append(Contest(baseline, list(done.values())))
            else:
                why = f"{baseline.status}: {baseline.reason}" if baseline else "it was not evaluated"
                self._listener(ShapeSkipped(shape, f"the baseline has no time: {why}"))
        self._listener(FinalStarted(len(contests)))
        for shape, winner in self._evaluator.decide(contests, Rules(self._counts.of, self._source_digest)):
            if isinstance(winner, Failure):
                self._listener(ShapeSkipped(shape, f"the final was lost: {winner.status}: {winner.log}"))
            else:
                self._store.save_winners([winner])
                self._listener(WinnerChosen(winner))
                winners.append(winner)
        return sorted(winners, key=lambda winner: self._request.shapes.index(winner.shape))


def _under_way(jobs: Sequence[_Job]) -> int:
    """How many futures the jobs still wait for; several may share one."""
    return len({job.future for job in jobs if not job.future.done()})


def _take_done(jobs: list[_Job]) -> Sequence[_Job]:
    """Remove the finished jobs from a list and return them."""
    done: list[_Job] = []
    rest: list[_Job] = []
    for job in jobs:
        (done if job.future.done() else rest).append(job)
    jobs[:] = rest
    return done
