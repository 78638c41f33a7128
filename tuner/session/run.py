"""The tuning loop: the only place that joins space, search, compile, verify, measure, store and ranking."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from tuner.processes import WorkerPool
from tuner.ranking import fastest
from tuner.records import Config, Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.search import Search, create_search
from tuner.session.compile_counts import CompileCounts
from tuner.session.device_evaluator import DeviceEvaluator
from tuner.session.evaluator import Contest, Evaluator, Rules, Undecided
from tuner.session.events import (
    Evaluated,
    FinalStarted,
    FinalStep,
    Listener,
    RunStarted,
    ShapeSkipped,
    SpaceExhausted,
    WaitingForDevice,
    WinnerChosen,
)
from tuner.session.ledger import Ledger, Trial
from tuner.session.pipeline import Pipeline
from tuner.session.request import RunRequest
from tuner.session.static_evaluator import StaticEvaluator
from tuner.space import L2State
from tuner.store import Store

# A stage of the search gives each shape so many trials; then shapes try what was best at those beside them.
_STAGE = 12
# Trials that are kept for after the last stage, when each shape's own best are tried with other sets too.
_KEPT, _KEPT_SHARE = 12, 0.2
_OWN_BEST, _BEST_BESIDE = 4, 2
_POLL_S = 0.5


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Evaluations it added, whether time ended it, the winners it stored, and how many of its timings each throttle reason
    fell on.
    """

    environment: Environment
    evaluated: int
    timed_out: bool
    winners: tuple[Winner, ...]
    throttled: Mapping[str, int]


def run(request: RunRequest, store: Store, listener: Listener) -> RunSummary:
    """Search every shape, store each outcome as it comes, choose and store the winners.

    Each failure of a variant ends in its evaluation's status. UserError when the device cannot be used or the space
    does not fit the kernel; StoreError when a result cannot be stored.
    """
    deadline = math.inf if request.timeout_s is None else time.monotonic() + request.timeout_s
    evaluator: Evaluator
    if request.target is None:
        cold_l2 = request.space.l2 is L2State.COLD
        on_wait = partial(listener, WaitingForDevice())
        evaluator = DeviceEvaluator(request.kernel, cold_l2, request.seed, on_wait, deadline)
    else:
        evaluator = StaticEvaluator(request.kernel, request.target, request.jobs)
    try:
        with WorkerPool(request.jobs) as compilers:
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
        self._request = request
        self._listener = listener
        self._evaluator = evaluator
        self._counts = CompileCounts(request.kernel, request.space, request.shapes, evaluator.environment.target)
        self._searches: dict[Shape, Search] = {
            shape: create_search(request.method, request.space, shape, request.seed) for shape in request.shapes
        }
        self._ledger = Ledger(request, store, evaluator.environment, self._learn)
        self._pipeline = Pipeline(request, self._ledger, evaluator, compilers, self._finish)
        self._deadline = deadline
        self._exhausted: set[Shape] = set()
        self._throttled: Counter[str] = Counter()

    def run(self) -> RunSummary:
        request, environment = self._request, self._evaluator.environment
        try:
            self._ledger.catch_up()
            stored = sum(min(len(done), request.trials) for done in self._ledger.done.values())
            self._listener(RunStarted(environment, request.trials * len(request.shapes), stored))
            finished = self._explore()
            decided = self._decide()
        except BaseException:
            self._ledger.give_up()
            raise
        self._ledger.finish()
        winners = tuple(decided[shape] for shape in request.shapes if shape in decided)
        late = time.monotonic() > self._deadline and len(winners) < len(request.shapes)
        return RunSummary(environment, self._ledger.saved, late or not finished, winners, dict(self._throttled))

    @property
    def _search_deadline(self) -> float:
        """When searching must end so that the final still fits; at least half of the time is for searching."""
        if self._request.timeout_s is None:
            return math.inf
        final_s = self._evaluator.decide_s(len(self._request.shapes))
        return self._deadline - min(final_s, self._request.timeout_s / 2)

    def _learn(self, evaluation: Evaluation) -> None:
        timing = evaluation.timing
        self._searches[evaluation.shape].update(evaluation.variant, timing.median_us if timing else None)
        self._pipeline.share(evaluation)

    def _finish(self, evaluation: Evaluation) -> None:
        self._ledger.save(evaluation)
        if evaluation.conditions is not None:
            self._throttled.update(evaluation.conditions.throttle)
        done = self._ledger.done.get(evaluation.shape, {})
        times = [each.timing.median_us for each in done.values() if each.timing]
        self._listener(Evaluated(evaluation, min(times, default=None)))

    def _explore(self) -> bool:
        """Search in stages; after each, let shapes try what was best at others. False when time ran out first."""
        trials = self._request.trials
        last = trials - min(_KEPT, int(trials * _KEPT_SHARE))
        stages = [(limit, 0, 1) for limit in range(_STAGE, last, _STAGE)] + [(last, _OWN_BEST, _BEST_BESIDE)]
        for limit, own, beside in stages:
            if not (self._search(limit) and self._spread(own, beside)):
                return False
        return self._search(trials)

    def _search(self, trials: int) -> bool:
        """Evaluate until every shape has so many trials; False when time ran out first."""
        done, baseline, shapes = self._ledger.done, self._request.baseline, self._request.shapes
        first = [(baseline, shape) for shape in shapes if baseline not in done[shape]]
        started: dict[Shape, set[Variant]] = {shape: {baseline} for shape in shapes}

        def planned(shape: Shape) -> int:
            return len(done[shape]) + len(started[shape] - done[shape].keys())

        def next_trial() -> Trial | None:
            if first:
                return first.pop(0)
            for shape in sorted(shapes, key=planned):
                if planned(shape) < trials and shape not in self._exhausted:
                    variant = self._searches[shape].suggest()
                    if variant == baseline:  # already under way
                        variant = self._searches[shape].suggest()
                    if variant is not None:
                        started[shape].add(variant)
                        return variant, shape
                    self._exhausted.add(shape)
                    self._listener(SpaceExhausted(shape, self._request.trials - planned(shape)))
            return None

        return self._pipeline.run(next_trial, self._search_deadline)

    def _spread(self, own: int, beside: int) -> bool:
        """Try the best configs of each shape and of those listed beside it, with the set that compiles least.

        So many of each. Goes on while that finds something untried, so that a good config reaches every shape; False
        when time ran out.
        """
        while trials := self._promising(own, beside):
            if not self._pipeline.run(partial(next, iter(trials), None), self._search_deadline):
                return False
        return True

    def _promising(self, own: int, beside: int) -> list[Trial]:
        request, trials = self._request, list[Trial]()
        for index, shape in enumerate(request.shapes):
            neighbours = request.shapes[max(index - 1, 0) : index] + request.shapes[index + 1 : index + 2]
            configs = [config for other in neighbours for config in self._best_configs(other, beside)]
            configs += self._best_configs(shape, own)
            done = self._ledger.done[shape]
            variants = [
                Variant(request.kernel.name, config, self._counts.smallest_set(config))
                for config in dict.fromkeys(configs)
                if request.space.allows(config, shape)
            ]
            known = {*done, *self._ledger.wrong}
            untried = [(variant, shape) for variant in variants if variant not in known]
            trials += untried[: max(0, request.trials - len(done))]
        return trials

    def _best_configs(self, shape: Shape, count: int) -> list[Config]:
        return [group[0].variant.config for group in fastest(self._ledger.passed(shape), count)]

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
                time.sleep(_POLL_S)
                self._ledger.beat()
            if time.monotonic() > self._deadline:
                break
        for shape in open_shapes:
            self._listener(ShapeSkipped(shape, "the time ran out before it was decided"))
        return winners

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
        rules = Rules(self._counts.of, self._request.kernel.source_digest, served, self._deadline)
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
