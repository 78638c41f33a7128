"""Which trials a run makes: each shape's own search, and what was best at other shapes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tuner.ranking import fastest
from tuner.records import Config, Shape, Status, Variant
from tuner.search import Search
from tuner.session.compile_counts import CompileCounts
from tuner.session.consolidation import consolidating_trials
from tuner.session.events import Listener, SpaceExhausted
from tuner.session.ledger import Ledger, Trial
from tuner.session.request import RunRequest

# A stage of the search gives each shape so many trials; then shapes try what was best at those beside them.
_STAGE = 12
# So many of them in a row: the device may have to make a shape's inputs and the right outputs anew at each return.
_IN_A_ROW = 4
# Of the trials at most this share is kept for after the last stage. Then each shape's own best configs are tried under
# the set that compiles least; with half of the rest the best config of every shape at every other one; and then
# whatever could make the portfolio smaller. What all that leaves is searched.
_KEPT_SHARE = 0.25
_OWN_BEST = 4

# Evaluates the trials that a function gives until it gives None; False when time ran out first.
Evaluate = Callable[[Callable[[], Trial | None]], bool]


class Exploration:
    """One run's way through the space, within its trials per shape."""

    def __init__(
        self,
        request: RunRequest,
        ledger: Ledger,
        searches: Mapping[Shape, Search],
        counts: CompileCounts,
        first: Sequence[Trial],
        evaluate: Evaluate,
        listener: Listener,
    ) -> None:
        """`first` is tried before anything else but the baseline."""
        self._request = request
        self._ledger = ledger
        self._searches = searches
        self._counts = counts
        self._first = first
        self._evaluate = evaluate
        self._listener = listener
        self._exhausted: set[Shape] = set()

    def run(self) -> bool:
        """Search in stages; after each, let shapes try what was best at others. False when time ran out first."""
        if self._first and not (self._search(1) and self._start()):
            return False
        trials, count = self._request.trials, len(self._request.shapes)
        kept = int(trials * _KEPT_SHARE)
        for limit in range(_STAGE, trials - kept, _STAGE):
            if not (self._search(limit) and self._spread(0, 1, trials)):
                return False
        for_portfolio = max(0, kept - _OWN_BEST) // 2
        return (
            self._search(trials - kept)
            and self._spread(_OWN_BEST, 1, trials - for_portfolio)
            and self._spread(1, count, trials - for_portfolio)
            and self._consolidate()
            and self._search(trials)
        )

    def _start(self) -> bool:
        """Try what is to be tried first; False when time ran out."""
        done, wrong = self._ledger.done, self._ledger.wrong
        trials: dict[Shape, list[Trial]] = {shape: [] for shape in self._request.shapes}
        for variant, shape in self._first:
            planned = len(done[shape]) + len(trials[shape])
            is_new = variant not in done[shape] and variant not in wrong
            if is_new and planned < self._request.trials and self._can_win(shape):
                trials[shape].append((variant, shape))
        turns = range(0, max(map(len, trials.values())), _IN_A_ROW)
        return self._evaluate_all(
            [trial for start in turns for each in trials.values() for trial in each[start : start + _IN_A_ROW]]
        )

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
            for shape in sorted(shapes, key=lambda each: planned(each) // _IN_A_ROW):
                if planned(shape) < trials and shape not in self._exhausted and self._can_win(shape):
                    variant = self._searches[shape].suggest()
                    if variant == baseline:  # already under way
                        variant = self._searches[shape].suggest()
                    if variant is not None:
                        started[shape].add(variant)
                        return variant, shape
                    self._exhausted.add(shape)
                    self._listener(SpaceExhausted(shape, self._request.trials - planned(shape)))
            return None

        return self._evaluate(next_trial)

    def _can_win(self, shape: Shape) -> bool:
        """Whether a shape may have a winner: not without a baseline to hold it against."""
        baseline = self._ledger.done[shape].get(self._request.baseline)
        return baseline is None or baseline.status is Status.PASSED

    def _spread(self, own: int, reach: int, limit: int) -> bool:
        """Try the best configs of each shape, and the best one of those near it, with the set that compiles least.

        `own` is how many of its own, `reach` how far a shape is near in the order of the request. Goes on while that
        finds something untried and a shape has fewer than `limit` trials, so that a good config reaches every shape;
        False when time ran out.
        """
        while trials := self._promising(own, reach, limit):
            if not self._evaluate_all(trials):
                return False
        return True

    def _consolidate(self) -> bool:
        """Try what could make the portfolio smaller, until nothing can; False when time ran out."""
        while trials := consolidating_trials(self._request, self._ledger, self._counts):
            if not self._evaluate_all(trials):
                return False
        return True

    def _evaluate_all(self, trials: Sequence[Trial]) -> bool:
        return self._evaluate(partial(next, iter(trials), None))

    def _promising(self, own: int, reach: int, limit: int) -> list[Trial]:
        request, trials = self._request, list[Trial]()
        best = [self._best_configs(shape, max(own, 1)) for shape in request.shapes]
        for index, shape in enumerate(request.shapes):
            configs = best[index][:own]
            for other in _near(index, len(best), reach):
                configs += best[other][:1]
            done = self._ledger.done[shape]
            allowed = [config for config in dict.fromkeys(configs) if request.space.allows(config, shape)]
            variants = [self._counts.least(config) for config in allowed]
            known = {*done, *self._ledger.wrong}
            untried = [(variant, shape) for variant in variants if variant not in known and self._can_win(shape)]
            trials += untried[: max(0, limit - len(done))]
        return trials

    def _best_configs(self, shape: Shape, count: int) -> list[Config]:
        return [group[0].variant.config for group in fastest(self._ledger.passed(shape), count)]


def _near(index: int, count: int, reach: int) -> list[int]:
    """The places beside one, the nearest first."""
    places = [other for other in range(count) if 0 < abs(other - index) <= reach]
    return sorted(places, key=lambda other: abs(other - index))
