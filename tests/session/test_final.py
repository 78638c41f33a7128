"""The final: samples that choose a variant are not those that confirm it, and failures cost their own shape alone."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from session_fakes import BASELINE, ENVIRONMENT, SHAPES, config

from tuner.measure.statistics import speedup_over_processes
from tuner.processes import Failure
from tuner.records import Evaluation, Shape, SpecializationSet, Speedup, Status, Timing, Variant, Winner
from tuner.session.evaluator import Contest, Rules
from tuner.session.final import FinalTimer, hold_finals

CONFIRMING = range(1, 6)
QUICK, SLOW = (Variant("scale_rows", config(block_rows, 1)) for block_rows in (4, 2))
# Another binary of QUICK's config, that compiles less.
CHEAP = dataclasses.replace(QUICK, specialization=SpecializationSet.of(["num_rows"]))
EVALUATED_US = {BASELINE: 20.0, QUICK: 10.0, SLOW: 11.0}
CRASH = Failure(Status.CRASHED, "an illegal access")


def compiles(variant: Variant) -> int:
    return 4 >> len(variant.specialization.do_not_specialize)


RULES = Rules(compiles, "source")


def passed(variant: Variant, shape: Shape, time_us: float) -> Evaluation:
    return Evaluation(variant, shape, Status.PASSED, timing=Timing(time_us, time_us, time_us, 1))


def contest(shape: Shape, times_us: dict[Variant, float]) -> Contest:
    """As the session asks for it: the baseline is among the evaluations too, and so are failures."""
    evaluations = [passed(variant, shape, time_us) for variant, time_us in times_us.items()]
    lost = Evaluation(Variant("scale_rows", config(1, 1)), shape, Status.WRONG_OUTPUT)
    return Contest(evaluations[0], [lost, *evaluations])


@dataclass(frozen=True)
class Call:
    """One request for samples, and how many processes were started before it."""

    process: int
    variants: tuple[Variant, ...]
    shape: Shape
    number: int


@dataclass
class FakeTimer:
    """Answers with three samples around `time_us(variant, number)`, or with a failure."""

    time_us: Callable[[Variant, int], float]
    fault: Callable[[Shape, int], Failure | None] = lambda shape, number: None
    processes: int = 0
    calls: list[Call] = field(default_factory=list)

    def alternate(self, variants: Sequence[Variant], shape: Shape, number: int) -> list[list[float]] | Failure:
        self.calls.append(Call(self.processes, tuple(variants), shape, number))
        failure = self.fault(shape, number)
        if failure is not None:
            return failure
        times_us = [self.time_us(variant, number) for variant in variants]
        return [[time_us * factor for factor in (0.99, 1.0, 1.02)] for time_us in times_us]

    def restart(self) -> None:
        self.processes += 1

    def hold(self, *contests: Contest) -> dict[Shape, Winner | Failure]:
        found = list(hold_finals(contests, RULES, ENVIRONMENT, FinalTimer(self.alternate, self.restart)))
        assert [shape for shape, _ in found] == [each.baseline.shape for each in contests]
        return dict(found)

    def winner(self, times_us: dict[Variant, float] = EVALUATED_US) -> Winner:
        """The winner of a final at one shape."""
        found = self.hold(contest(SHAPES[0], times_us))[SHAPES[0]]
        assert isinstance(found, Winner), found
        return found


def steady(variant: Variant, number: int) -> float:
    return {BASELINE: 20.0, QUICK: 10.0, CHEAP: 10.05, SLOW: 11.0}[variant]


def quick_changes(*after_us: float) -> Callable[[Variant, int], float]:
    """QUICK takes 10 us in the process that chooses and these times in those that confirm."""
    return lambda variant, number: after_us[number - 1] if variant == QUICK and number else steady(variant, number)


def test_one_process_chooses_and_five_confirm() -> None:
    timer = FakeTimer(steady)
    found = timer.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    assert timer.processes == 1 + len(CONFIRMING)
    wanted = [Call(1, (BASELINE, QUICK, SLOW), shape, 0) for shape in SHAPES]
    wanted += [Call(1 + number, (BASELINE, QUICK), shape, number) for number in CONFIRMING for shape in SHAPES]
    assert timer.calls == wanted  # the confirmed pair runs alone
    for shape, winner in found.items():
        assert isinstance(winner, Winner)
        assert (winner.variant, winner.baseline, winner.shape) == (QUICK, BASELINE, shape)
        assert (winner.environment, winner.source_digest, winner.compiles) == (ENVIRONMENT, "source", 4)


def test_samples_that_chose_do_not_confirm() -> None:
    """Luck while choosing is worth nothing: neither in the times, nor in the speedup, nor in the decision."""
    winner = FakeTimer(quick_changes(12.0, 12.0, 12.0, 12.0, 12.0)).winner()
    assert winner.variant == QUICK
    assert winner.timing.samples_us == pytest.approx([12.0 * 0.99, 12.0, 12.0 * 1.02] * len(CONFIRMING))
    assert winner.baseline_timing.samples_us == pytest.approx([20.0 * 0.99, 20.0, 20.0 * 1.02] * len(CONFIRMING))
    assert winner.speedup.median == pytest.approx(20 / 12)
    assert FakeTimer(quick_changes(20.0, 20.0, 20.0, 20.0, 20.0)).winner().variant == BASELINE


def test_the_speedup_is_that_over_the_processes() -> None:
    times_us = [10.0, 10.1, 9.9, 10.3, 9.8]
    winner = FakeTimer(quick_changes(*times_us)).winner()
    wanted = speedup_over_processes([20.0 / time_us for time_us in times_us])
    found = winner.speedup
    assert (found.low, found.median, found.high) == pytest.approx((wanted.low, wanted.median, wanted.high))


def test_processes_that_disagree_decide_nothing() -> None:
    winner = FakeTimer(quick_changes(10.0, 30.0, 10.0, 30.0, 10.0)).winner()
    assert (winner.variant, winner.speedup) == (BASELINE, Speedup(1.0, 1.0, 1.0))
    assert winner.timing == winner.baseline_timing
    assert "not decidedly faster" in winner.reason


def test_a_finalist_as_fast_that_compiles_less_is_confirmed() -> None:
    timer = FakeTimer(steady)
    winner = timer.winner({**EVALUATED_US, CHEAP: 15.0})  # it was not as fast when it was evaluated
    assert set(timer.calls[0].variants) == {BASELINE, QUICK, CHEAP, SLOW}
    assert {each.variants for each in timer.calls[1:]} == {(BASELINE, CHEAP)}
    assert (winner.variant, winner.compiles) == (CHEAP, 2)

    def two_percent(variant: Variant, number: int) -> float:
        return 10.2 if variant == CHEAP else steady(variant, number)

    assert FakeTimer(two_percent).winner({**EVALUATED_US, CHEAP: 15.0}).variant == QUICK


def test_the_process_that_chooses_decides_between_finalists_not_their_evaluation() -> None:
    assert FakeTimer(steady).winner({BASELINE: 20.0, SLOW: 5.0, QUICK: 6.0}).variant == QUICK


def test_where_nothing_else_passed_the_baseline_is_held_against_itself() -> None:
    timer = FakeTimer(steady)
    winner = timer.winner({BASELINE: 20.0})
    assert {each.variants for each in timer.calls} == {(BASELINE, BASELINE)}
    assert (winner.variant, winner.speedup) == (BASELINE, Speedup(1.0, 1.0, 1.0))


def held_with_failures(failing: Shape, *numbers: int) -> tuple[FakeTimer, Winner | Failure]:
    """A final over both shapes that fails at one in these processes; what came of that shape.

    The other shape's winner and samples are as if nothing had failed.
    """
    timer = FakeTimer(steady, lambda shape, at: CRASH if shape == failing and at in numbers else None)
    found = timer.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    (other,) = set(SHAPES) - {failing}
    assert found[other] == FakeTimer(steady).hold(contest(other, EVALUATED_US))[other]
    assert [each.number for each in timer.calls if each.shape == other] == [0, *CONFIRMING]
    lost = [each for each in timer.calls if each.shape == failing and each.number in numbers]
    assert timer.processes == 1 + len(CONFIRMING) + len(lost)
    for each in lost:  # whatever comes next has another process
        following = timer.calls[timer.calls.index(each) + 1 :][:1]
        assert all(later.process > each.process for later in following)
    return timer, found[failing]


AT_EITHER_SHAPE = pytest.mark.parametrize("failing", SHAPES, ids=lambda shape: shape.label)


@AT_EITHER_SHAPE
def test_a_choice_that_fails_costs_its_own_shape_alone(failing: Shape) -> None:
    timer, found = held_with_failures(failing, 0)
    assert found == CRASH
    assert [each.number for each in timer.calls if each.shape == failing] == [0]


@pytest.mark.parametrize("number", CONFIRMING)
@AT_EITHER_SHAPE
def test_one_confirming_process_may_fail(failing: Shape, number: int) -> None:
    timer, found = held_with_failures(failing, number)
    assert isinstance(found, Winner)
    assert (found.variant, found.timing.count) == (QUICK, 3 * (len(CONFIRMING) - 1))
    assert [each.number for each in timer.calls if each.shape == failing] == [0, *CONFIRMING]


@pytest.mark.parametrize("numbers", list(itertools.combinations(CONFIRMING, 2)), ids=str)
@AT_EITHER_SHAPE
def test_two_confirming_processes_that_fail_cost_their_own_shape_alone(
    failing: Shape, numbers: tuple[int, int]
) -> None:
    timer, found = held_with_failures(failing, *numbers)
    assert found == CRASH
    assert [each.number for each in timer.calls if each.shape == failing] == list(range(numbers[1] + 1))


def test_without_shapes_nothing_is_started() -> None:
    timer = FakeTimer(steady)
    assert timer.hold() == {}
    assert timer.processes == 0
