"""The tuning loop: the only place that joins space, search, compile, verify, measure, store and ranking."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial

from tuner.compile.builder import Built, CompileJob, build
from tuner.interrupts import pause
from tuner.processes import Failure, WorkerPool
from tuner.ranking import Tradeoff, pareto_points
from tuner.records import Environment, Evaluation, Shape, SpecializationSet, Status, Variant, Winner
from tuner.records.sharing import Sharing
from tuner.search import Method, Search, create_search
from tuner.session.compile_counts import CompileCounts
from tuner.session.costs import HOST_LAUNCH_US, Costs
from tuner.session.device_evaluator import DeviceEvaluator
from tuner.session.evaluator import Contest, Evaluator, Rules, Undecided
from tuner.session.events import (
    CandidateDropped,
    Evaluated,
    FinalStarted,
    FinalStep,
    Listener,
    RunStarted,
    ShapeSkipped,
    WaitingForDevice,
    WarmStarting,
    WinnerChosen,
)
from tuner.session.explore import Exploration
from tuner.session.ledger import Ledger, Trial
from tuner.session.machine_code import Dropped, MachineCode
from tuner.session.pipeline import Pipeline
from tuner.session.request import RunRequest
from tuner.session.static_evaluator import StaticEvaluator
from tuner.session.warm_start import warm_start, won_elsewhere
from tuner.session.weights import counted_shapes, shape_weights
from tuner.space import Objective
from tuner.store import Store

# The longest that one of the compiles may take which are no trials, but tell of the machine code.
LOOK_TIMEOUT_S = 120.0
# Of a run's time at most this share is for these, before the search.
_LOOK_SHARE = 0.25
_POLL_S = 0.5


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Evaluations it added, whether time ended it, the winners it stored, how many of its timings each throttle reason
    fell on, compiles by specialization set of the baseline's config over so many sizes, the candidates that it did not
    search, what sharing binaries saved, and what serving costs where stalls are part of the objective.
    """

    environment: Environment
    evaluated: int
    timed_out: bool
    winners: tuple[Winner, ...]
    throttled: Mapping[str, int]
    compiles: Mapping[SpecializationSet, int]
    counted: int
    dropped: tuple[Dropped, ...]
    sharing: Sharing
    tradeoff: Tradeoff | None


def run(request: RunRequest, store: Store, listener: Listener) -> RunSummary:
    """Search every shape, store each outcome as it comes, choose and store the winners.

    Each failure of a variant ends in its evaluation's status. UserError when the device cannot be used or the space
    does not fit the kernel; StoreError when a result cannot be stored.
    """
    deadline = math.inf if request.timeout_s is None else time.monotonic() + request.timeout_s
    evaluator: Evaluator
    with WorkerPool(request.jobs) as compilers:
        compilers.load(build.__module__)  # while the device starts
        if request.target is None:
            on_wait = partial(listener, WaitingForDevice())
            evaluator = DeviceEvaluator(request.kernel, request.space.l2, request.seed, on_wait, deadline)
        else:
            evaluator = StaticEvaluator(request.kernel, request.target, request.jobs)
        try:
            return TuningSession(request, store, listener, evaluator, compilers, deadline).run()
        finally:
            evaluator.close()


class TuningSession:
    """One run over given workers: proposes, compiles, checks, stores, and chooses winners at the end.

    `deadline` is the monotonic time at which the request's time is over.
    """

    def __init__(
        self,
        request: RunRequest,
        store: Store,
        listener: Listener,
        evaluator: Evaluator,
        compilers: WorkerPool,
        deadline: float,
    ) -> None:
        request = replace(request, space=request.space.on(evaluator.environment.target))
        self._request = request
        self._store = store
        self._listener = listener
        self._evaluator = evaluator
        self._compilers = compilers
        self._stalls_count = request.space.objective is not Objective.LATENCY
        self._weights = shape_weights(request.shapes, request.workload if self._stalls_count else None)
        sizes = counted_shapes(request.kernel, request.shapes, request.workload)
        self._counts = CompileCounts(request.kernel, request.space, sizes, evaluator.environment.target)
        self._costs = Costs(request.space.objective, request.space.steps, self._counts.of)
        self._code = MachineCode(request.shapes, self._counts, self._compile, request.jobs)
        self._searches: dict[Shape, Search] = {}
        self._ledger = Ledger(request, store, evaluator.environment, self._learn)
        self._pipeline = Pipeline(request, self._ledger, evaluator, compilers, self._finish)
        self._deadline = deadline
        self._throttled: Counter[str] = Counter()

    def run(self) -> RunSummary:
        request, environment = self._request, self._evaluator.environment
        try:
            dropped = self._begin()
            stored = sum(min(len(done), request.trials) for done in self._ledger.done.values())
            self._listener(RunStarted(environment, request.trials * len(request.shapes), stored))
            for each in dropped:
                self._listener(CandidateDropped(each))
            finished = self._explore()
            self._code.stop()  # what goes on would disturb the final's timing
            decided = self._decide()
        except BaseException:
            self._ledger.give_up()
            raise
        self._ledger.finish()
        winners = tuple(decided[shape] for shape in request.shapes if shape in decided)
        late = time.monotonic() > self._deadline and len(winners) < len(request.shapes)
        return RunSummary(
            environment=environment,
            evaluated=self._ledger.saved,
            timed_out=late or not finished,
            winners=winners,
            throttled=dict(self._throttled),
            compiles=self._counts.table(request.baseline) if winners else {},
            counted=len(self._counts.shapes),
            dropped=tuple(dropped),
            sharing=self._pipeline.sharing.total,
            tradeoff=self._tradeoff(),
        )

    def _begin(self) -> list[Dropped]:
        """Leave out what is not worth searching, and learn what is stored."""
        request, dropped = self._request, list[Dropped]()
        until = self._look_deadline
        if time.monotonic() < until:
            dropped = self._code.dropped_candidates(request.space, until)
        names, aligned = ([each.name for each in dropped if each.on_alignment is kind] for kind in (False, True))
        space = request.space.without(names, aligned)
        for shape in request.shapes:
            self._searches[shape] = create_search(request.method, space, shape, request.seed, self._costs.count)
        self._ledger.catch_up()
        return dropped

    def _compile(self, variant: Variant, shape: Shape) -> "Future[Built | Failure]":
        """Begin a compile that is no trial."""
        job = CompileJob(self._request.kernel.folder, variant, shape, self._evaluator.environment.target)
        return self._compilers.submit(build, job, timeout_s=LOOK_TIMEOUT_S)

    def _explore(self) -> bool:
        def evaluate(next_trial: Callable[[], Trial | None]) -> bool:
            return self._pipeline.run(next_trial, self._search_deadline)

        first = self._warm_start()
        for binary in self._code.binaries:
            self._pipeline.sharing.looked_at(binary)
            self._costs.learn(binary)
        way = (self._request, self._ledger, self._searches, self._counts, first, evaluate, self._listener)
        return Exploration(*way).run()

    def _warm_start(self) -> list[Trial]:
        """What to try first: nothing where estimates are the outcome, or where the method says what is tried."""
        request = self._request
        shapes = [shape for shape in request.shapes if len(self._ledger.done[shape]) < request.trials]
        until = self._look_deadline
        if request.target is not None or request.method is not Method.TPE or not shapes or time.monotonic() > until:
            return []
        self._listener(WarmStarting())
        target = self._evaluator.environment.target
        estimated = warm_start(request, shapes, self._counts, self._code, target, until)
        return [*won_elsewhere(request, shapes, target, self._store), *estimated]

    def _tradeoff(self) -> Tradeoff | None:
        """What serving costs by what is known now; None under the latency objective."""
        if not self._stalls_count:
            return None
        request, kept = self._request, self._kept
        passed = [each for shape in request.shapes for each in self._ledger.passed(shape)]
        if kept:  # the baseline's times are its times too
            passed += [replace(each, variant=kept) for each in passed if each.variant == request.baseline]
        return Tradeoff(
            points=tuple(pareto_points(passed, self._weights, self._counts.of)),
            baseline=request.baseline,
            compile_s=self._costs.compile_s,
            steps=request.space.steps,
            host_us=HOST_LAUNCH_US,
            workload=request.workload.name if request.workload else None,
        )

    @property
    def _search_deadline(self) -> float:
        """When searching must end so that the final still fits; at least half of the time is for searching."""
        if self._request.timeout_s is None:
            return math.inf
        final_s = self._evaluator.decide_s(len(self._request.shapes))
        return self._deadline - min(final_s, self._request.timeout_s / 2)

    @cached_property
    def _look_deadline(self) -> float:
        """When looking at machine code before the search must end; worked out when that begins."""
        timeout_s = self._request.timeout_s
        look_s = math.inf if timeout_s is None else timeout_s * _LOOK_SHARE
        return min(time.monotonic() + look_s, self._search_deadline)

    def _learn(self, evaluation: Evaluation) -> None:
        if evaluation.binary is not None:
            self._costs.learn(evaluation.binary)
        self._searches[evaluation.shape].update(evaluation.variant, self._costs.of(evaluation))
        self._pipeline.share(evaluation)

    def _finish(self, evaluation: Evaluation) -> None:
        self._ledger.save(evaluation)
        if evaluation.conditions is not None:
            self._throttled.update(evaluation.conditions.throttle)
        done = self._ledger.done.get(evaluation.shape, {})
        times = [each.timing.median_us for each in done.values() if each.timing]
        self._listener(Evaluated(evaluation, min(times, default=None)))

    def _decide(self) -> dict[Shape, Winner]:
        """Hold the finals that this run can claim, and wait for those that other runs hold, until time is up."""
        winners: dict[Shape, Winner] = {}
        open_shapes = [shape for shape in self._request.shapes if self._can_win(shape)]
        self._take_standing(open_shapes, winners)
        self._listener(FinalStarted(len(open_shapes)))
        while open_shapes:
            ours = self._claimed(open_shapes)
            self._take_standing(open_shapes, winners)  # another run may have decided some in between
            ours = [shape for shape in ours if shape in open_shapes]
            winners |= self._hold(ours)
            open_shapes = [shape for shape in open_shapes if shape not in ours]
            fallen = [shape for shape, winner in winners.items() if self._has_fallen(winner)]
            open_shapes += fallen
            winners = {shape: winner for shape, winner in winners.items() if shape not in fallen}
            if open_shapes:
                pause(_POLL_S)
                self._ledger.beat()
            if time.monotonic() > self._deadline:
                break
        for shape in open_shapes:
            self._listener(ShapeSkipped(shape, "the time ran out before it was decided"))
        return winners

    @cached_property
    def _kept(self) -> Variant | None:
        """The baseline's machine code under a set that compiles less, where the baseline has one."""
        baseline = self._request.baseline
        if time.monotonic() > self._deadline:
            return None
        twin = self._code.twin(baseline, self._deadline)
        return None if twin in self._ledger.wrong else twin

    def _claimed(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Those that this run may decide: as many as the time left is expected to allow, and one at least."""
        left_s = max(0.0, self._deadline - time.monotonic())
        room = max(
            (count for count in range(1, len(shapes) + 1) if self._evaluator.decide_s(count) <= left_s), default=1
        )
        claimed: list[Shape] = []
        for shape in shapes:
            if len(claimed) < room and self._ledger.claim_final(shape):
                claimed.append(shape)
        return claimed

    def _has_fallen(self, winner: Winner) -> bool:
        """Whether a final at another shape found the winner wrong."""
        return winner.variant in self._ledger.wrong and winner.variant != winner.baseline

    def _can_win(self, shape: Shape) -> bool:
        baseline = self._ledger.done[shape].get(self._request.baseline)
        if baseline is not None and baseline.status is Status.PASSED:
            return True
        why = f"{baseline.status}: {baseline.reason}" if baseline else "it was not evaluated"
        self._listener(ShapeSkipped(shape, f"the baseline has no time: {why}"))
        return False

    def _take_standing(self, open_shapes: list[Shape], winners: dict[Shape, Winner]) -> None:
        """Move the shapes whose winner stands already."""
        for winner in self._ledger.standing_winners():
            if winner.shape in open_shapes:
                open_shapes.remove(winner.shape)
                winners[winner.shape] = replace(winner, compiles=self._counts.of(winner.variant))

    def _hold(self, shapes: Sequence[Shape]) -> dict[Shape, Winner]:
        """Let the evaluator decide these shapes; stores the winners."""
        winners: dict[Shape, Winner] = {}
        drawn_at = datetime.now(UTC)
        self._ledger.catch_up()
        served = self._ledger.served.__getitem__
        rules = Rules(
            compiles=self._counts.of,
            source_digest=self._request.kernel.source_digest,
            served=served,
            deadline=self._deadline,
            stall_us=self._costs.ranked_stall_us,
            kept=self._kept if shapes else None,
        )
        for decision in self._evaluator.decide([self._contest(shape) for shape in shapes], rules):
            self._ledger.beat()
            match decision:
                case Winner():
                    self._ledger.save_winner(decision, drawn_at)
                    self._listener(WinnerChosen(decision))
                    winners[decision.shape] = decision
                case Undecided(shape, failure):
                    self._ledger.release_final(shape)
                    self._listener(ShapeSkipped(shape, f"the final was lost: {failure.status}: {failure.log}"))
                case Evaluation():
                    self._finish(decision)
                case FinalStep():
                    self._listener(decision)
        return winners

    def _contest(self, shape: Shape) -> Contest:
        done = self._ledger.done[shape]
        may_win = [each for each in done.values() if each.variant not in self._ledger.wrong]
        return Contest(done[self._request.baseline], may_win)
