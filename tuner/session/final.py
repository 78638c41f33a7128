"""The final of a measured run: chooses at each shape, checks the choice wherever it may serve, then confirms it.

Samples that choose are not those that confirm, so a lucky finalist gains nothing by its luck. The confirmed pair is
timed alone, in fresh processes, under the conditions in which anyone would time it again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from tuner.measure.benchmark import Samples
from tuner.measure.device import PLACEMENTS, Faulty
from tuner.measure.statistics import paired_ratio, settled, speedup_over_processes, summarize
from tuner.processes import Failure
from tuner.ranking import Contender, confirmed_winner, finalists, median_us, prefer_few_compiles
from tuner.records import Agreement, Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.session.evaluator import Contest, Decision, Rules, Undecided
from tuner.session.events import FinalStep

# The fastest binaries that are compared to choose one, the processes that compare them, and those that then confirm.
_FINALISTS = 4
_CHOOSING_PROCESSES = 3
_CONFIRMING_PROCESSES = 5
# Sets of buffers in each process that chooses; three processes have three times as many.
_CHOOSING_PLACEMENTS = 2
# Further processes for shapes at which one was lost or did not settle.
_SUBSTITUTES = 2
_FEWEST_CONFIRMING = 3
# What a final takes on an H100, in seconds.
_PROCESS_S = 2.0
_SHAPE_S = 0.4


class FinalBench(ABC):
    """How a final obtains what it needs; `number` makes the inputs fresh."""

    @abstractmethod
    def alternate(
        self, variants: Sequence[Variant], shape: Shape, number: int, placements: int
    ) -> Samples | Faulty | Failure:
        """Samples of each variant, rounds interleaved, by the process started last, or the variant that failed.

        They are taken over so many sets of buffers; each variant is checked on random inputs first.
        """

    @abstractmethod
    def check(self, variant: Variant, shape: Shape) -> Agreement | Failure:
        """Whether a variant is right at a shape, on random inputs and every edge."""

    @abstractmethod
    def restart(self) -> None:
        """Go on in a fresh process."""

    @abstractmethod
    def out_of_time(self) -> bool:
        """Whether the run's deadline has passed."""


def expected_s(shapes: int) -> float:
    """Seconds that a final of so many shapes takes."""
    return (_CHOOSING_PROCESSES + 1 + _CONFIRMING_PROCESSES) * (_PROCESS_S + _SHAPE_S * shapes)


@dataclass
class _Final:
    """One shape's final: what its candidates' speedups were while choosing, and the samples that confirm the choice.

    `failure` ends it; `lost` is how the last process ended that gave no samples.
    """

    contest: Contest
    candidates: list[Variant]
    ratios: dict[Variant, list[float]] = field(default_factory=dict)
    settled: list[Samples] = field(default_factory=list)
    restless: list[Samples] = field(default_factory=list)
    lost: Failure | None = None
    failure: Failure | None = None

    @property
    def shape(self) -> Shape:
        return self.contest.baseline.shape

    @property
    def baseline(self) -> Variant:
        return self.contest.baseline.variant

    @property
    def is_sure(self) -> bool:
        return len(self.settled) == _CONFIRMING_PROCESSES


def hold_finals(
    contests: Sequence[Contest], rules: Rules, environment: Environment, bench: FinalBench
) -> Iterator[Decision]:
    """The winner of each shape: three processes choose at all shapes, one checks the choices, five more confirm.

    Also yields the evaluations of finalists that failed at a shape they may serve; they win nowhere. A shape stays
    undecided when choosing fails there, when a confirming process finds it wrong, or when fewer than three confirm it.
    """
    if not contests:
        return
    finals = [_final(contest, rules) for contest in contests]
    steps = _Steps((_CHOOSING_PROCESSES + _CONFIRMING_PROCESSES) * len(finals))
    for number in range(_CHOOSING_PROCESSES):
        for final in _restarted([final for final in finals if final.failure is None], bench):
            yield from _compare(final, number, bench)
            yield steps.next()
    for final in finals:
        if not final.ratios and final.failure is None:
            final.failure = final.lost or Failure(Status.TIMED_OUT, "the time ran out before the final")
    for checked in _disqualified([final for final in finals if final.failure is None], rules, bench):
        yield checked or steps.same()
    yield from _confirmed(finals, rules, environment, bench, steps)


def _confirmed(
    finals: Sequence[_Final], rules: Rules, environment: Environment, bench: FinalBench, steps: "_Steps"
) -> Iterator[Decision]:
    """Confirm the choices; each decision comes as soon as it is sure, so that a run that is killed keeps it."""
    for number in range(_CHOOSING_PROCESSES, _CHOOSING_PROCESSES + _CONFIRMING_PROCESSES + _SUBSTITUTES):
        for final in _restarted([each for each in finals if each.failure is None and not each.is_sure], bench):
            yield from _confirm(final, _choice(final, rules), number, bench)
            yield steps.next()
            if final.is_sure:
                yield _decision(final, rules, environment)
    for final in finals:
        if not final.is_sure:
            yield _decision(final, rules, environment)


class _Steps:
    """How far a final is; substitutes come on top of what was planned."""

    def __init__(self, planned: int) -> None:
        self._planned = planned
        self._done = 0

    def next(self) -> FinalStep:
        self._done += 1
        return self.same()

    def same(self) -> FinalStep:
        return FinalStep(self._done, max(self._done, self._planned))


def _restarted(finals: Sequence[_Final], bench: FinalBench) -> Iterator[_Final]:
    """The finals one after another in one fresh process, while there is time."""
    for index, final in enumerate(finals):
        if bench.out_of_time():
            return
        if index == 0:
            bench.restart()
        yield final


def _final(contest: Contest, rules: Rules) -> _Final:
    baseline = contest.baseline.variant
    others = [each for each in contest.evaluations if each.variant != baseline]
    return _Final(contest, finalists(others, rules.compiles, _FINALISTS, rules.stall_us) or [baseline])


def _compare(final: _Final, number: int, bench: FinalBench) -> Iterator[Evaluation]:
    """Add one process's speedup of each candidate; a shape needs one process that succeeds.

    A candidate that fails its check is one no more, and the others are timed without it.
    """
    how = (final.shape, number, _CHOOSING_PLACEMENTS)
    samples = bench.alternate([final.baseline, *final.candidates], *how)
    while isinstance(samples, Faulty):
        yield from _drop(final, samples, bench)
        if final.failure is not None:
            return
        samples = bench.alternate([final.baseline, *final.candidates], *how)
    if isinstance(samples, Failure):
        final.lost = samples
        bench.restart()
        return
    baseline_us, *others_us = samples.times_us
    for candidate, taken_us in zip(final.candidates, others_us, strict=True):
        final.ratios.setdefault(candidate, []).append(paired_ratio(baseline_us, taken_us))


def _drop(final: _Final, faulty: Faulty, bench: FinalBench) -> Iterator[Evaluation]:
    """Take a variant out that failed; with the baseline the whole final fails, and without others it stays."""
    bench.restart()
    if faulty.variant == final.baseline:
        final.failure = faulty.failure
        return
    final.candidates.remove(faulty.variant)
    final.candidates = final.candidates or [final.baseline]
    final.ratios.pop(faulty.variant, None)
    yield Evaluation(faulty.variant, final.shape, faulty.failure.status, faulty.failure.log)


def _choice(final: _Final, rules: Rules) -> Variant:
    """The candidate of the least cost, or one that costs as much and compiles less; the baseline when none is left."""
    if not final.ratios:
        return final.baseline
    baseline_us = median_us(final.contest.baseline)
    costs_us = {each: baseline_us / median(ratios) + rules.stall_us(each) for each, ratios in final.ratios.items()}
    return prefer_few_compiles(costs_us, rules.compiles)


def _disqualified(finals: Sequence[_Final], rules: Rules, bench: FinalBench) -> Iterator[Evaluation | None]:
    """Check every choice at every shape that it may serve, until all choices are right.

    Yields the evaluation of each that is not, and None for each check that succeeds.
    """
    right: set[tuple[Variant, Shape]] = set()
    wrong: set[Variant] = set()
    if finals and not bench.out_of_time():
        bench.restart()
    while todo := _unchecked(finals, rules, right):
        for variant, shape in todo:
            if variant in wrong:
                continue
            found = None if bench.out_of_time() else bench.check(variant, shape)
            if found is None or (isinstance(found, Failure) and bench.out_of_time()):
                _stop(finals)
                return
            if isinstance(found, Failure):
                wrong.add(variant)
                bench.restart()
                yield Evaluation(variant, shape, found.status, found.log)
            else:
                right.add((variant, shape))
                yield None
        for final in finals:
            final.ratios = {each: ratios for each, ratios in final.ratios.items() if each not in wrong}


def _unchecked(
    finals: Sequence[_Final], rules: Rules, right: set[tuple[Variant, Shape]]
) -> list[tuple[Variant, Shape]]:
    """What is still to check, one shape after another, so that the device keeps each shape's tensors once."""
    todo = {
        (shape, choice)
        for final in finals
        if (choice := _choice(final, rules)) != final.baseline
        for shape in rules.served(final.shape)
        if (choice, shape) not in right
    }
    return [(choice, shape) for shape, choice in sorted(todo, key=lambda each: (each[0].canonical, each[1].digest))]


def _stop(finals: Sequence[_Final]) -> None:
    for final in finals:
        final.failure = Failure(Status.TIMED_OUT, "the time ran out before the choice was checked at all shapes")


def _confirm(final: _Final, choice: Variant, number: int, bench: FinalBench) -> Iterator[Evaluation]:
    """Add one process's samples of baseline and choice; a choice that fails its check now ends the final."""
    samples = bench.alternate([final.baseline, choice], final.shape, number, PLACEMENTS)
    if isinstance(samples, Faulty):
        yield from _drop(final, samples, bench)
        final.failure = samples.failure
    elif isinstance(samples, Failure):
        final.lost = samples
        bench.restart()
    else:
        (final.settled if settled(*samples.times_us) else final.restless).append(samples)


def _decision(final: _Final, rules: Rules, environment: Environment) -> Winner | Undecided:
    runs = final.settled
    if len(runs) < _FEWEST_CONFIRMING:
        runs = final.settled + final.restless
    if len(runs) < _FEWEST_CONFIRMING and final.failure is None:
        final.failure = final.lost or Failure(Status.TIMED_OUT, "the time ran out before the choice was confirmed")
    if final.failure is not None:
        return Undecided(final.shape, final.failure)
    baseline_us, choice_us = ([each for run in runs for each in run.times_us[index]] for index in (0, 1))
    return confirmed_winner(
        Contender(final.baseline, summarize(baseline_us)),
        Contender(_choice(final, rules), summarize(choice_us)),
        speedup_over_processes([paired_ratio(*run.times_us) for run in runs]),
        final.shape,
        environment,
        rules.source_digest,
        rules.compiles,
        {reason for run in runs if run.conditions for reason in run.conditions.throttle},
        rules.stall_us,
        rules.kept,
    )
