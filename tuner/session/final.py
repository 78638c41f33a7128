"""The final of a measured run: chooses at each shape, then confirms the choice against the baseline.

Samples that choose are not those that confirm, so a lucky finalist gains nothing by its luck. The confirmed pair is
timed alone, in fresh processes, under the conditions in which anyone would time it again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tuner.measure.statistics import paired_ratio, speedup_over_processes, summarize
from tuner.processes import Failure
from tuner.ranking import Contender, confirmed_winner, finalists, prefer_few_compiles
from tuner.records import Environment, Shape, Variant, Winner
from tuner.session.evaluator import Contest, Rules

# The fastest binaries that are compared to choose one, and the processes that then confirm it.
_FINALISTS = 4
_CONFIRMING_PROCESSES = 5

Samples = list[list[float]]


@dataclass(frozen=True)
class FinalTimer:
    """How a final obtains samples.

    `alternate(variants, shape, number)`: samples in microseconds of each variant, rounds interleaved, by the process
    started last. `restart()`: go on in a fresh process.
    """

    alternate: Callable[[Sequence[Variant], Shape, int], Samples | Failure]
    restart: Callable[[], None]


@dataclass
class _Final:
    contest: Contest
    chosen: Variant | None = None
    runs: list[Samples] = field(default_factory=list)
    failure: Failure | None = None


def hold_finals(
    contests: Sequence[Contest], rules: Rules, environment: Environment, timer: FinalTimer
) -> Iterator[tuple[Shape, Winner | Failure]]:
    """The winner of each shape: one process chooses at all shapes, five more confirm.

    A shape loses its winner when choosing fails there, or when more than one confirming process does.
    """
    if not contests:
        return
    finals = [_Final(contest) for contest in contests]
    timer.restart()
    for final in finals:
        _choose(final, rules, timer)
    for number in range(1, _CONFIRMING_PROCESSES + 1):
        timer.restart()
        for final in finals:
            if final.chosen is not None:
                _add_run(final, [final.contest.baseline.variant, final.chosen], number, timer)
    for final in finals:
        yield final.contest.baseline.shape, final.failure or _winner(final, rules, environment)


def _choose(final: _Final, rules: Rules, timer: FinalTimer) -> None:
    """The fastest finalist, or one as fast that compiles less."""
    contest = final.contest
    others = [each for each in contest.evaluations if each.variant != contest.baseline.variant]
    candidates = finalists(others, rules.compiles, _FINALISTS) or [contest.baseline.variant]
    samples = timer.alternate([contest.baseline.variant, *candidates], contest.baseline.shape, 0)
    if isinstance(samples, Failure):
        final.failure = samples
        timer.restart()
    else:
        times_us = {each: summarize(taken).median_us for each, taken in zip(candidates, samples[1:], strict=True)}
        final.chosen = prefer_few_compiles(times_us, rules.compiles)


def _add_run(final: _Final, pair: Sequence[Variant], number: int, timer: FinalTimer) -> None:
    samples = timer.alternate(pair, final.contest.baseline.shape, number)
    if isinstance(samples, Failure):
        timer.restart()
        if len(final.runs) + 1 < number:
            final.failure, final.chosen = samples, None
    else:
        final.runs.append(samples)


def _winner(final: _Final, rules: Rules, environment: Environment) -> Winner:
    assert final.chosen is not None
    baseline_us, chosen_us = ([each for run in final.runs for each in run[index]] for index in (0, 1))
    return confirmed_winner(
        Contender(final.contest.baseline.variant, summarize(baseline_us)),
        Contender(final.chosen, summarize(chosen_us)),
        speedup_over_processes([paired_ratio(*run) for run in final.runs]),
        final.contest.baseline.shape,
        environment,
        rules.source_digest,
        rules.compiles,
    )
