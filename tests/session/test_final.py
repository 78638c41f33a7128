"""The final: samples that choose a variant are not those that confirm it, and failures cost their own shape alone."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from session_fakes import BASELINE, ENVIRONMENT, SHAPES, config

from tuner.measure.benchmark import Samples
from tuner.measure.device import Faulty
from tuner.measure.statistics import speedup_over_processes
from tuner.processes import Failure
from tuner.records import (
    Agreement,
    Conditions,
    Evaluation,
    Shape,
    SpecializationSet,
    Speedup,
    Status,
    Timing,
    Variant,
    Winner,
)
from tuner.session.evaluator import Contest, Rules, Undecided
from tuner.session.events import FinalStep
from tuner.session.final import FinalBench, hold_finals

CHOOSING, CONFIRMING, SUBSTITUTES = range(3), range(3, 8), range(8, 10)
# What a round's times are of the usual; both variants of a round alike, so that their ratio is steady.
ROUNDS = (0.99, 1.0, 1.02, 1.0, 0.98, 1.01)
QUICK, SLOW = (Variant("scale_rows", config(block_rows, 1)) for block_rows in (4, 2))
# Another binary of QUICK's config, that compiles less.
CHEAP = dataclasses.replace(QUICK, specialization=SpecializationSet.of(["num_rows"]))
EVALUATED_US = {BASELINE: 20.0, QUICK: 10.0, SLOW: 11.0}
CRASH = Failure(Status.CRASHED, "an illegal access")


def compiles(variant: Variant) -> int:
    return 4 >> len(variant.specialization.do_not_specialize)


def neighbours(shape: Shape) -> list[Shape]:
    """The shapes that a winner may serve: this one and one row more."""
    return [shape, Shape({**shape, "num_rows": shape.size("num_rows") + 1})]


RULES = Rules(compiles, "source", neighbours)


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
    placements: int


@dataclass
class FakeBench(FinalBench):
    """Answers with six samples around `time_us(variant, number)`, or a failure; time is up after `lasts` calls.

    In `restless` processes the rounds of all but the baseline scatter by a tenth.
    """

    time_us: Callable[[Variant, int], float]
    fault: Callable[[Shape, int], Failure | Faulty | None] = lambda shape, number: None
    wrong: Callable[[Variant, Shape], Failure | None] = lambda variant, shape: None
    lasts: float = math.inf
    restless: Sequence[int] = ()
    conditions: Conditions | None = None
    processes: int = 0
    calls: list[Call] = field(default_factory=list)
    checks: list[tuple[Variant, Shape]] = field(default_factory=list)
    steps: list[FinalStep] = field(default_factory=list)
    disqualified: list[Evaluation] = field(default_factory=list)

    def alternate(
        self, variants: Sequence[Variant], shape: Shape, number: int, placements: int
    ) -> Samples | Faulty | Failure:
        self.calls.append(Call(self.processes, tuple(variants), shape, number, placements))
        failure = self.fault(shape, number)
        if isinstance(failure, Failure) or (failure is not None and failure.variant in variants):
            return failure
        return Samples([self._rounds_us(variant, number) for variant in variants], self.conditions)

    def _rounds_us(self, variant: Variant, number: int) -> list[float]:
        wild = number in self.restless and variant != BASELINE
        scatter = (1.1, 0.9) * 3 if wild else (1.0,) * len(ROUNDS)
        return [self.time_us(variant, number) * one * other for one, other in zip(ROUNDS, scatter, strict=True)]

    def check(self, variant: Variant, shape: Shape) -> Agreement | Failure:
        self.checks.append((variant, shape))
        return self.wrong(variant, shape) or Agreement(8, 0, 0)

    def restart(self) -> None:
        self.processes += 1

    def out_of_time(self) -> bool:
        return len(self.calls) + len(self.checks) >= self.lasts

    def hold(self, *contests: Contest, rules: Rules = RULES) -> dict[Shape, Winner | Failure]:
        found: dict[Shape, Winner | Failure] = {}
        for decision in hold_finals(contests, rules, ENVIRONMENT, self):
            assert not isinstance(decision, Winner | Undecided) or decision.shape not in found, "decided twice"
            match decision:
                case Winner():
                    found[decision.shape] = decision
                case Undecided(shape, failure):
                    found[shape] = failure
                case Evaluation():
                    self.disqualified.append(decision)
                case FinalStep():
                    self.steps.append(decision)
        assert sorted(found, key=str) == sorted((each.baseline.shape for each in contests), key=str)
        return found

    def winner(self, times_us: dict[Variant, float] = EVALUATED_US, rules: Rules = RULES) -> Winner:
        """The winner of a final at one shape."""
        found = self.hold(contest(SHAPES[0], times_us), rules=rules)[SHAPES[0]]
        assert isinstance(found, Winner), found
        return found


def steady(variant: Variant, number: int) -> float:
    return {BASELINE: 20.0, QUICK: 10.0, CHEAP: 10.05, SLOW: 11.0}[variant]


def quick_changes(*after_us: float) -> Callable[[Variant, int], float]:
    """QUICK takes 10 us in the processes that choose and these times in those that confirm."""
    return lambda variant, number: (
        after_us[number - 3] if variant == QUICK and number in CONFIRMING else steady(variant, number)
    )


def test_three_processes_choose_one_checks_and_five_confirm() -> None:
    bench = FakeBench(steady)
    found = bench.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    assert bench.processes == len(CHOOSING) + 1 + len(CONFIRMING)
    wanted = [Call(1 + number, (BASELINE, QUICK, SLOW), shape, number, 2) for number in CHOOSING for shape in SHAPES]
    wanted += [Call(2 + number, (BASELINE, QUICK), shape, number, 4) for number in CONFIRMING for shape in SHAPES]
    assert bench.calls == wanted  # the confirmed pair runs alone
    assert list(dict.fromkeys(bench.steps)) == [FinalStep(done + 1, len(wanted)) for done in range(len(wanted))]
    assert len(bench.steps) == len(wanted) + len(bench.checks)  # a sign of life with each
    for shape, winner in found.items():
        assert isinstance(winner, Winner)
        assert (winner.variant, winner.baseline, winner.shape) == (QUICK, BASELINE, shape)
        assert (winner.environment, winner.source_digest, winner.compiles) == (ENVIRONMENT, "source", 4)


def test_where_every_finalist_fails_its_check_the_baseline_stays() -> None:
    def fault(shape: Shape, number: int) -> Faulty | None:
        return Faulty(QUICK, CRASH) if number == 0 else None

    bench = FakeBench(steady, fault=fault)
    winner = bench.winner({BASELINE: 20.0, QUICK: 10.0})
    assert winner.variant == BASELINE
    assert [(each.variant, each.status) for each in bench.disqualified] == [(QUICK, Status.CRASHED)]


def test_a_decision_is_told_before_the_next_shape_is_confirmed() -> None:
    """A run that is killed in a final keeps what was decided until then."""
    told = list[Shape]()

    def until_the_last(shape: Shape, number: int) -> None:
        if (number, shape) == (CONFIRMING[-1], SHAPES[-1]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for decision in hold_finals(
            [contest(shape, EVALUATED_US) for shape in SHAPES], RULES, ENVIRONMENT, FakeBench(steady, until_the_last)
        ):
            if isinstance(decision, Winner):
                told.append(decision.shape)
    assert told == list(SHAPES[:-1])


def test_samples_that_chose_do_not_confirm() -> None:
    """Luck while choosing is worth nothing: neither in the times, nor in the speedup, nor in the decision."""
    winner = FakeBench(quick_changes(12.0, 12.0, 12.0, 12.0, 12.0)).winner()
    assert winner.variant == QUICK
    assert winner.timing.samples_us == pytest.approx([12.0 * one for one in ROUNDS] * len(CONFIRMING))
    assert winner.baseline_timing.samples_us == pytest.approx([20.0 * one for one in ROUNDS] * len(CONFIRMING))
    assert winner.speedup.median == pytest.approx(20 / 12)
    assert FakeBench(quick_changes(20.0, 20.0, 20.0, 20.0, 20.0)).winner().variant == BASELINE


def test_the_speedup_is_that_over_the_processes() -> None:
    times_us = [10.0, 10.1, 9.9, 10.3, 9.8]
    winner = FakeBench(quick_changes(*times_us)).winner()
    wanted = speedup_over_processes([20.0 / time_us for time_us in times_us])
    found = winner.speedup
    assert (found.low, found.median, found.high) == pytest.approx((wanted.low, wanted.median, wanted.high))


def test_processes_that_disagree_decide_nothing() -> None:
    winner = FakeBench(quick_changes(10.0, 30.0, 10.0, 30.0, 10.0)).winner()
    assert (winner.variant, winner.speedup) == (BASELINE, Speedup(1.0, 1.0, 1.0))
    assert winner.timing == winner.baseline_timing
    assert "not decidedly faster" in winner.reason


def test_a_finalist_as_fast_that_compiles_less_is_confirmed() -> None:
    bench = FakeBench(steady)
    winner = bench.winner({**EVALUATED_US, CHEAP: 15.0})  # it was not as fast when it was evaluated
    assert set(bench.calls[0].variants) == {BASELINE, QUICK, CHEAP, SLOW}
    assert {each.variants for each in bench.calls if each.number in CONFIRMING} == {(BASELINE, CHEAP)}
    assert (winner.variant, winner.compiles) == (CHEAP, 2)

    def two_percent(variant: Variant, number: int) -> float:
        return 10.2 if variant == CHEAP else steady(variant, number)

    assert FakeBench(two_percent).winner({**EVALUATED_US, CHEAP: 15.0}).variant == QUICK


def test_the_process_that_chooses_decides_between_finalists_not_their_evaluation() -> None:
    assert FakeBench(steady).winner({BASELINE: 20.0, SLOW: 5.0, QUICK: 6.0}).variant == QUICK


def test_where_nothing_else_passed_the_baseline_is_held_against_itself() -> None:
    bench = FakeBench(steady)
    winner = bench.winner({BASELINE: 20.0})
    assert {each.variants for each in bench.calls} == {(BASELINE, BASELINE)}
    assert (winner.variant, winner.speedup) == (BASELINE, Speedup(1.0, 1.0, 1.0))


def test_the_choice_is_what_most_processes_find() -> None:
    """What is 30% faster in one process alone is luck."""

    def lucky(variant: Variant, number: int) -> float:
        return {QUICK: 10.0, SLOW: 7.0 if number == 0 else 15.0}.get(variant, 20.0)

    assert FakeBench(lucky).winner().variant == QUICK


# Where compile stalls count: two microseconds for each compile.

SERVING = dataclasses.replace(RULES, stall_us=lambda variant: 2.0 * compiles(variant))


def three_percent(variant: Variant, number: int) -> float:
    return 10.3 if variant == CHEAP else steady(variant, number)


def test_a_finalist_whose_stalls_make_up_for_its_time_is_chosen() -> None:
    assert FakeBench(three_percent).winner({**EVALUATED_US, CHEAP: 10.4}).variant == QUICK
    winner = FakeBench(three_percent).winner({**EVALUATED_US, CHEAP: 10.4}, SERVING)
    assert (winner.variant, winner.compiles) == (CHEAP, 2)
    assert winner.reason.endswith("; 2 compiles instead of 4")


def test_what_costs_least_comes_into_the_final_however_many_are_faster() -> None:
    """Six are faster than a variant of another config that compiles half as often."""
    faster = {Variant("scale_rows", config(block_rows, 8)): 10.0 + block_rows / 100 for block_rows in range(8, 14)}
    marked = dataclasses.replace(SLOW, specialization=SpecializationSet.of(["num_rows"]))
    evaluated = {BASELINE: 20.0, **faster, marked: 11.0}
    for rules, there in ((RULES, False), (SERVING, True)):
        bench = FakeBench(lambda variant, number: evaluated[variant])
        assert (bench.winner(evaluated, rules).variant == marked) == there
        assert (marked in bench.calls[0].variants) == there


def test_an_equal_time_is_confirmed_where_stalls_are_fewer_and_only_there() -> None:
    def equal(variant: Variant, number: int) -> float:
        return 20.0

    evaluated = {BASELINE: 20.0, CHEAP: 20.0}
    assert FakeBench(equal).winner(evaluated).variant == BASELINE
    winner = FakeBench(equal).winner(evaluated, SERVING)
    assert (winner.variant, winner.reason.partition(":")[0]) == (CHEAP, "equal in time to the baseline")


def test_what_stays_may_be_the_baselines_code_under_another_set() -> None:
    twin = dataclasses.replace(BASELINE, specialization=SpecializationSet.of(["num_rows"]))
    winner = FakeBench(steady).winner({BASELINE: 20.0}, dataclasses.replace(RULES, kept=twin))
    assert (winner.variant, winner.baseline, winner.compiles) == (twin, BASELINE, 2)


# Right wherever it may serve.


def wrong_at(variant: Variant, shape: Shape) -> Callable[[Variant, Shape], Failure | None]:
    failure = Failure(Status.WRONG_OUTPUT, "one element differs")
    return lambda found, at: failure if (found, at) == (variant, shape) else None


def test_the_choice_is_checked_at_every_shape_that_it_may_serve() -> None:
    bench = FakeBench(steady)
    bench.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    assert sorted(bench.checks, key=repr) == sorted(
        ((QUICK, served) for shape in SHAPES for served in neighbours(shape)), key=repr
    )
    assert bench.disqualified == []


def test_what_is_wrong_at_one_shape_wins_at_none_and_the_next_best_is_checked_too() -> None:
    elsewhere = neighbours(SHAPES[1])[1]
    bench = FakeBench(steady, wrong=wrong_at(QUICK, elsewhere))
    found = bench.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    assert {winner.variant for winner in found.values() if isinstance(winner, Winner)} == {SLOW}
    assert bench.disqualified == [Evaluation(QUICK, elsewhere, Status.WRONG_OUTPUT, "one element differs")]
    assert {shape for variant, shape in bench.checks if variant == SLOW} == {
        served for shape in SHAPES for served in neighbours(shape)
    }


def test_where_every_choice_is_wrong_the_baseline_stays() -> None:
    wrong = Failure(Status.CRASHED, "an illegal access")
    bench = FakeBench(steady, wrong=lambda variant, shape: wrong)
    winner = bench.winner()
    assert winner.variant == BASELINE
    assert {each.variant for each in bench.disqualified} == {QUICK, SLOW}
    assert {each.variants for each in bench.calls if each.number in CONFIRMING} == {(BASELINE, BASELINE)}


# Conditions and time.


def test_a_final_under_throttling_says_so() -> None:
    assert "throttled" not in FakeBench(steady, conditions=Conditions(1980, 45)).winner().reason
    held = FakeBench(steady, conditions=Conditions(1200, 85, ("thermal slowdown", "power cap"))).winner()
    assert held.reason.endswith("the GPU throttled meanwhile (power cap, thermal slowdown)")


@pytest.mark.parametrize(("lasts", "told"), [(0, "before the final"), (4, "checked"), (6, "confirmed")])
def test_a_final_that_time_cuts_off_decides_nothing_and_says_where_it_was(lasts: int, told: str) -> None:
    """Three calls choose, two checks follow, five calls confirm."""
    bench = FakeBench(steady, lasts=lasts)
    found = bench.hold(contest(SHAPES[0], EVALUATED_US))[SHAPES[0]]
    assert isinstance(found, Failure)
    assert told in found.log
    assert len(bench.calls) + len(bench.checks) <= lasts + 1


def test_three_confirming_processes_are_enough_when_time_is_up() -> None:
    winner = FakeBench(steady, lasts=3 + 2 + 3).winner()
    assert (winner.variant, winner.timing.count) == (QUICK, 3 * len(ROUNDS))


# Failures.


def held_with_failures(failing: Shape, *numbers: int) -> tuple[FakeBench, Winner | Failure]:
    """A final over both shapes that fails at one in these processes; what came of that shape.

    The other shape's winner and samples are as if nothing had failed.
    """
    bench = FakeBench(steady, lambda shape, at: CRASH if shape == failing and at in numbers else None)
    found = bench.hold(*(contest(shape, EVALUATED_US) for shape in SHAPES))
    (other,) = set(SHAPES) - {failing}
    assert found[other] == FakeBench(steady).hold(contest(other, EVALUATED_US))[other]
    assert [each.number for each in bench.calls if each.shape == other] == [*CHOOSING, *CONFIRMING]
    lost = [each for each in bench.calls if each.shape == failing and each.number in numbers]
    for each in lost:  # whatever comes next has another process
        following = bench.calls[bench.calls.index(each) + 1 :][:1]
        assert all(later.process > each.process for later in following)
    return bench, found[failing]


AT_EITHER_SHAPE = pytest.mark.parametrize("failing", SHAPES, ids=lambda shape: shape.label)


@AT_EITHER_SHAPE
def test_choosing_that_fails_in_every_process_costs_its_own_shape_alone(failing: Shape) -> None:
    bench, found = held_with_failures(failing, *CHOOSING)
    assert found == CRASH
    assert [each.number for each in bench.calls if each.shape == failing] == [*CHOOSING]


@pytest.mark.parametrize("numbers", list(itertools.combinations(CHOOSING, 2)), ids=str)
@AT_EITHER_SHAPE
def test_one_choosing_process_is_enough(failing: Shape, numbers: tuple[int, int]) -> None:
    _, found = held_with_failures(failing, *numbers)
    assert isinstance(found, Winner)
    assert (found.variant, found.timing.count) == (QUICK, len(ROUNDS) * len(CONFIRMING))


@pytest.mark.parametrize("numbers", [*itertools.combinations(CONFIRMING, 1), *itertools.combinations(CONFIRMING, 2)])
@AT_EITHER_SHAPE
def test_lost_confirming_processes_have_substitutes(failing: Shape, numbers: tuple[int, ...]) -> None:
    bench, found = held_with_failures(failing, *numbers)
    assert isinstance(found, Winner)
    assert (found.variant, found.timing.count) == (QUICK, len(ROUNDS) * len(CONFIRMING))
    used = [each.number for each in bench.calls if each.shape == failing]
    assert used == [*CHOOSING, *CONFIRMING, *SUBSTITUTES[: len(numbers)]]


@AT_EITHER_SHAPE
def test_fewer_than_three_confirming_processes_decide_nothing(failing: Shape) -> None:
    _, found = held_with_failures(failing, *CONFIRMING[:4])
    assert isinstance(found, Winner)
    assert found.timing.count == len(ROUNDS) * 3
    assert held_with_failures(failing, *CONFIRMING)[1] == CRASH


def faulty_in(*numbers: int, variant: Variant = QUICK) -> Callable[[Shape, int], Faulty | None]:
    wrong = Faulty(variant, Failure(Status.WRONG_OUTPUT, "it was right before"))
    return lambda shape, number: wrong if number in numbers else None


@pytest.mark.parametrize("number", CHOOSING)
def test_a_candidate_that_is_found_wrong_while_choosing_is_dropped_and_told(number: int) -> None:
    """On the inputs of any one process; the others are timed without it, in another process."""
    bench = FakeBench(steady, faulty_in(number))
    winner = bench.winner()
    assert winner.variant == SLOW
    assert bench.disqualified == [Evaluation(QUICK, SHAPES[0], Status.WRONG_OUTPUT, "it was right before")]
    first, second = [each for each in bench.calls if each.number == number]
    assert (first.variants, second.variants) == ((BASELINE, QUICK, SLOW), (BASELINE, SLOW))
    assert second.process > first.process


def test_a_baseline_that_is_found_wrong_while_choosing_leaves_its_shape_undecided() -> None:
    bench = FakeBench(steady, faulty_in(CHOOSING[1], variant=BASELINE))
    found = bench.hold(contest(SHAPES[0], EVALUATED_US))[SHAPES[0]]
    assert found == Failure(Status.WRONG_OUTPUT, "it was right before")
    assert bench.disqualified == []


def test_a_baseline_that_fails_against_itself_leaves_the_next_shape_another_process() -> None:
    """A launch that crashed leaves the process broken, also where nothing but the baseline passed."""
    crash = Faulty(BASELINE, CRASH)
    at_first = CONFIRMING[0]
    bench = FakeBench(steady, lambda shape, number: crash if (shape, number) == (SHAPES[0], at_first) else None)
    found = bench.hold(contest(SHAPES[0], {BASELINE: 20.0}), contest(SHAPES[1], EVALUATED_US))
    assert found[SHAPES[0]] == CRASH
    first, second = [each for each in bench.calls if each.number == at_first]
    assert second.process > first.process


def test_a_choice_that_is_found_wrong_while_confirming_is_told_and_decides_nothing() -> None:
    bench = FakeBench(steady, faulty_in(CONFIRMING[4]))
    found = bench.hold(contest(SHAPES[0], EVALUATED_US))[SHAPES[0]]
    assert found == Failure(Status.WRONG_OUTPUT, "it was right before")
    assert [each.variant for each in bench.disqualified] == [QUICK]


# Processes whose rounds disagree.


def test_a_process_that_does_not_settle_has_a_substitute() -> None:
    bench = FakeBench(steady, restless=CONFIRMING[1:3])
    winner = bench.winner()
    assert [each.number for each in bench.calls] == [*CHOOSING, *CONFIRMING, *SUBSTITUTES]
    assert winner.timing.count == len(ROUNDS) * len(CONFIRMING)
    assert winner.timing.high_us < 10.0 * 1.05


def test_where_hardly_any_process_settles_all_of_them_count() -> None:
    winner = FakeBench(steady, restless=[*CONFIRMING, *SUBSTITUTES]).winner()
    assert winner.timing.count == len(ROUNDS) * (len(CONFIRMING) + len(SUBSTITUTES))


def test_without_shapes_nothing_is_started() -> None:
    bench = FakeBench(steady)
    assert bench.hold() == {}
    assert bench.processes == 0
