"""Every evaluation ends in the store with its status, and nothing that went wrong can win or end the run."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from kernel_examples import copy_kernel
from pebble import ProcessExpired
from session_fakes import (
    BASELINE,
    ENVIRONMENT,
    EXAMPLE,
    KERNEL,
    SHAPES,
    SPACE,
    SPACE_SIZE,
    Bench,
    FakeCompilers,
    FakeEvaluator,
    Fault,
    code_by_config,
    config,
    settled,
    time_us,
)

from tuner.catalog import load_folder
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import Conditions, Evaluation, FrozenMapping, Shape, SpecializationSet, Status, Target, Variant
from tuner.session.evaluator import Contest, Decision, Rules, Undecided
from tuner.session.events import Evaluated, Event, FinalStarted, RunStarted, ShapeSkipped, WinnerChosen
from tuner.session.ledger import Ledger

ALL_MARKED = SpecializationSet.of(["num_rows", "row_stride"])
FAILURES = [status for status in Status if status is not Status.PASSED]


def failing(status: Status, chosen: Any) -> Fault:
    """A fault of the variants that `chosen` says yes to."""
    return lambda variant, shape: Failure(status, f"log of {status}") if chosen(variant, shape) else None


def is_best(variant: Variant, shape: Shape) -> bool:
    return variant.config == config(4, 2)


def test_each_outcome_is_stored_before_the_next_one(bench: Bench) -> None:
    """Whoever is told of an evaluation finds it in the store, as it was told."""
    seen: list[Evaluation] = []

    def watch(event: Event) -> None:
        if isinstance(event, Evaluated):
            seen.append(event.evaluation)
            assert bench.evaluations() == seen

    done = bench.run(watch=watch, evaluator=FakeEvaluator(failing(Status.WRONG_OUTPUT, is_best)), trials=SPACE_SIZE)
    assert len(seen) == done.summary.evaluated == len(bench.evaluations())
    assert {each.status for each in seen} == {Status.PASSED, Status.WRONG_OUTPUT}


def test_events_tell_the_lowest_time_at_their_shape(bench: Bench) -> None:
    lowest: dict[Shape, float] = {}
    for event in bench.run(trials=SPACE_SIZE).of(Evaluated):
        shape, timing = event.evaluation.shape, event.evaluation.timing
        lowest[shape] = min(lowest.get(shape, timing.median_us), timing.median_us)
        assert event.best_us == lowest[shape]


def test_the_baseline_comes_first_at_each_shape(bench: Bench) -> None:
    done = bench.run(jobs=4)
    assert done.submitted[: len(SHAPES)] == [(BASELINE, shape) for shape in SHAPES]
    assert done.submitted.count((BASELINE, SHAPES[0])) == 1


def test_the_kernels_own_baseline_stands_where_the_space_names_none(bench: Bench) -> None:
    done = bench.run(space=dataclasses.replace(SPACE, baseline=None))
    assert done.submitted[0] == (KERNEL.spec.baseline_variant, SHAPES[0])
    assert {winner.baseline for winner in done.summary.winners} == {KERNEL.spec.baseline_variant}


@pytest.mark.parametrize(("target", "tried"), [("cuda:90", {0, 1}), ("cuda:80", {None}), ("hip:gfx942", {None})])
def test_options_that_the_target_lacks_are_not_tried(bench: Bench, target: str, tried: set[int | None]) -> None:
    (rows,) = SPACE.implementations
    options = FrozenMapping({**rows.options, "launch_pdl": (0, 1)})
    space = dataclasses.replace(SPACE, implementations=(dataclasses.replace(rows, options=options),))
    environment = dataclasses.replace(ENVIRONMENT, target=Target.parse(target))
    done = bench.run(space=space, trials=SPACE_SIZE, evaluator=FakeEvaluator(environment=environment))
    variants = {variant for variant, _ in done.submitted} - {BASELINE}
    assert {variant.config.options.get("launch_pdl") for variant in variants} == tried


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("stage", ["compile", "evaluate"])
def test_a_variant_that_fails_never_wins_and_never_ends_the_run(bench: Bench, status: Status, stage: str) -> None:
    fault = failing(status, is_best)
    workers: dict[str, Any] = (
        {"compilers": FakeCompilers(fault=fault)} if stage == "compile" else {"evaluator": FakeEvaluator(fault)}
    )
    done = bench.run(trials=SPACE_SIZE + 1, **workers)
    stored = Counter(each.status for each in bench.evaluations())
    assert stored == {status: 4 * len(SHAPES), Status.PASSED: (SPACE_SIZE + 1 - 4) * len(SHAPES)}
    failed = [each for each in bench.evaluations() if each.status is status]
    assert {each.log for each in failed} == {f"log of {status}"}
    assert all((each.binary is None) == (stage == "compile") for each in failed)
    assert {winner.variant.config for winner in done.summary.winners} == {config(4, 1)}


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (ProcessExpired("died", code=-11), Status.CRASHED, "-11"),
        (TimeoutError("Task Timeout", 120), Status.TIMED_OUT, "120 s"),
        (CancelledError(), Status.CRASHED, "stopped"),
        (ZeroDivisionError("by zero"), Status.CRASHED, "ZeroDivisionError: by zero"),
        (MemoryError("no room"), Status.CRASHED, "MemoryError: no room"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("stage", ["compile", "evaluate"])
def test_a_worker_that_is_lost_ends_its_own_variant_alone(
    bench: Bench, raised: BaseException, status: Status, told: str, stage: str
) -> None:
    def fault(variant: Variant, shape: Shape) -> BaseException | None:
        return raised if is_best(variant, shape) else None

    workers: dict[str, Any] = (
        {"compilers": FakeCompilers(fault=fault)} if stage == "compile" else {"evaluator": FakeEvaluator(fault)}
    )
    bench.run(trials=SPACE_SIZE + 1, **workers)
    lost = [each for each in bench.evaluations() if each.variant.config == config(4, 2)]
    assert {each.status for each in lost} == {status}
    assert all(told in each.log for each in lost)
    assert sum(each.status is Status.PASSED for each in bench.evaluations()) == (SPACE_SIZE + 1 - 4) * len(SHAPES)


def test_the_fastest_variant_with_the_fewest_compiles_wins_and_is_stored(bench: Bench) -> None:
    done = bench.run(trials=SPACE_SIZE + 1)
    assert {event.winner.shape: event.winner for event in done.of(WinnerChosen)} == bench.winners()
    assert [event.winner for event in done.of(WinnerChosen)] == list(done.summary.winners)
    for shape in SHAPES:
        winner = bench.winners()[shape]
        assert winner.variant == Variant("scale_rows", config(4, 2), ALL_MARKED)
        assert (winner.baseline, winner.compiles) == (BASELINE, 1)
        assert winner.source_digest == KERNEL.source_digest
        assert winner.timing.median_us == time_us(winner.variant, shape)
        assert winner.baseline_timing.median_us == time_us(BASELINE, shape)


@pytest.mark.parametrize("status", FAILURES)
def test_a_shape_whose_baseline_fails_has_no_winner_and_says_why(bench: Bench, status: Status) -> None:
    def at_first_shape(variant: Variant, shape: Shape) -> bool:
        return variant == BASELINE and shape == SHAPES[0]

    done = bench.run(evaluator=FakeEvaluator(failing(status, at_first_shape)))
    (skipped,) = done.of(ShapeSkipped)
    assert skipped.shape == SHAPES[0]
    assert str(status) in skipped.reason
    assert f"log of {status}" in skipped.reason
    assert set(bench.winners()) == {SHAPES[1]}
    assert [event.shapes for event in done.of(FinalStarted)] == [1]


def test_a_final_that_is_lost_leaves_the_shape_without_a_winner(bench: Bench) -> None:
    class LosesTheFirst(FakeEvaluator):
        def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
            yield Undecided(SHAPES[0], Failure(Status.TIMED_OUT, "took too long"))
            yield from super().decide(contests[1:], rules)

    done = bench.run(evaluator=LosesTheFirst())
    (skipped,) = done.of(ShapeSkipped)
    assert (skipped.shape, set(bench.winners())) == (SHAPES[0], {SHAPES[1]})
    assert "took too long" in skipped.reason


def test_variants_that_share_a_binary_share_one_check(bench: Bench) -> None:
    done = bench.run(compilers=FakeCompilers(code_by_config), trials=SPACE_SIZE + 1)
    configs_per_shape = 6 + 1
    assert len(done.evaluator.submitted) == configs_per_shape * len(SHAPES)
    assert len(bench.evaluations()) == (SPACE_SIZE + 1) * len(SHAPES)
    assert len({(each.variant, each.shape) for each in bench.evaluations()}) == (SPACE_SIZE + 1) * len(SHAPES)
    for each in bench.evaluations():
        assert each.timing and each.timing.median_us == time_us(each.variant, each.shape)


def test_a_lost_worker_is_replaced_once_and_not_under_the_next_variant(bench: Bench) -> None:
    """Variants that share the binary that crashed share its end; they must not stop the worker that follows it."""
    crash = failing(Status.CRASHED, lambda variant, _: variant.config == config(1, 1))
    evaluator = FakeEvaluator(crash, delay_s=0.02)
    bench.run(evaluator=evaluator, compilers=FakeCompilers(code_by_config), shapes=SHAPES[:1], jobs=4, trials=13)
    found = {(each.status, each.variant.config) for each in bench.evaluations()}
    passed = {(Status.PASSED, each) for each in (BASELINE.config, config(1, 2), config(2, 1))}
    assert found == {(Status.CRASHED, config(1, 1)), *passed}
    assert len(evaluator.recovered) == 1


@dataclasses.dataclass
class NotesOrder(FakeEvaluator):
    """Knows in which order it was given work and told to recover."""

    order: list[Variant | Failure] = dataclasses.field(default_factory=list)

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> Any:
        self.order.append(variant)
        return super().submit(variant, shape, leader)

    def recover(self, failure: Failure) -> None:
        self.order.append(failure)
        super().recover(failure)


def test_a_crash_while_the_run_looks_at_others_does_not_spoil_the_next_variant(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the evaluator does ends during a beat, while more wait for it: it must recover first."""
    bad = Variant("scale_rows", config(1, 1))
    evaluator = NotesOrder(failing(Status.CRASHED, lambda variant, _: variant == bad), delay_s=0.05)

    def slow_beat(ledger: Ledger) -> None:
        while not all(each.done() for each in evaluator.pending):
            time.sleep(0.001)

    monkeypatch.setattr("tuner.session.pipeline._POLL_S", 0.001)  # so that it is still under way when the beat begins
    monkeypatch.setattr(Ledger, "beat", slow_beat)
    bench.run(evaluator=evaluator, shapes=SHAPES[:1], jobs=4, trials=8)
    at = evaluator.order.index(bad)
    assert evaluator.order[at + 1 : at + 2] == evaluator.recovered
    assert len(evaluator.recovered) == 1
    assert len(evaluator.order) == 8 + 1
    assert [each.variant for each in bench.evaluations() if each.status is not Status.PASSED] == [bad]


def test_an_answer_that_comes_while_the_loop_looks_is_not_lost(bench: Bench) -> None:
    class Late(type(settled(None))):  # type: ignore[misc]
        asked = 0

        def done(self) -> bool:
            self.asked += 1
            return self.asked > 1

    class LateCompilers(FakeCompilers):
        def submit(self, *arguments: Any, **named: Any) -> Any:
            future = super().submit(*arguments, **named)
            future.__class__ = Late
            return future

    bench.run(compilers=LateCompilers(), trials=8)
    assert len([each for each in bench.evaluations() if each.shape == SHAPES[0]]) >= 8


def test_a_failure_that_says_passed_is_a_programming_error(bench: Bench) -> None:
    with pytest.raises(ValueError, match="cannot have passed"):
        bench.run(evaluator=FakeEvaluator(failing(Status.PASSED, lambda *_: True)))


def test_the_opening_tells_plan_and_place(bench: Bench) -> None:
    done = bench.run(trials=5)
    (started,) = done.of(RunStarted)
    assert done.events[0] is started
    assert (started.planned, started.stored, started.environment) == (10, 0, done.evaluator.environment)


# The leader, against which a candidate is raced.


@dataclasses.dataclass
class NotesLeaders(FakeEvaluator):
    """Knows what the run was told, and so who should lead."""

    known: list[Evaluation] = dataclasses.field(default_factory=list)
    expected: list[Evaluation | None] = dataclasses.field(default_factory=list)

    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> Any:
        passed = [each for each in self.known if each.timing and each.shape == shape]
        self.expected.append(min(passed, key=lambda each: each.timing.median_us if each.timing else 0.0, default=None))
        return super().submit(variant, shape, leader)

    def watch(self, event: Event) -> None:
        if isinstance(event, Evaluated):
            self.known.append(event.evaluation)


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_leader_is_the_fastest_that_passed_at_that_shape_so_far(bench: Bench, jobs: int) -> None:
    evaluator = NotesLeaders(failing(Status.WRONG_OUTPUT, is_best))
    bench.run(evaluator=evaluator, watch=evaluator.watch, jobs=jobs, trials=SPACE_SIZE + 1)
    assert evaluator.leaders == evaluator.expected
    leaders = [each for each in evaluator.leaders if each]
    assert {each.shape for each in leaders} == set(SHAPES)
    assert len({each.variant for each in leaders}) >= 4
    assert not any(is_best(each.variant, each.shape) for each in leaders)


def test_a_variant_that_is_wrong_at_one_shape_leads_at_none(bench: Bench) -> None:
    """It passes at the second shape, faster than all others."""
    bad = Variant("scale_rows", config(1, 1))
    fault = failing(Status.WRONG_OUTPUT, lambda variant, shape: variant == bad and shape == SHAPES[0])
    evaluator = FakeEvaluator(fault, time_us=lambda variant, at: 0.5 if variant == bad else time_us(variant, at))
    bench.run(evaluator=evaluator, trials=8)
    assert evaluator.submitted.index((bad, SHAPES[0])) < evaluator.submitted.index((bad, SHAPES[1])) < 8
    (passed,) = [each for each in bench.evaluations() if each.variant == bad and each.shape == SHAPES[1]]
    assert passed.timing
    leaders = [each.variant for each in evaluator.leaders if each]
    assert len(leaders) >= 8
    assert bad not in leaders


def test_a_stored_evaluation_leads_from_the_start(bench: Bench) -> None:
    first = NotesLeaders()
    bench.run(evaluator=first, watch=first.watch, trials=10)
    second = NotesLeaders()
    second.known += first.known
    bench.run(evaluator=second, watch=second.watch, trials=14)
    assert second.leaders == second.expected
    assert None not in second.leaders


# Wrong once is wrong.


def wrong_at_second_shape(variant: Variant, shape: Shape) -> Failure | None:
    return Failure(Status.WRONG_OUTPUT, "3 elements differ") if is_best(variant, shape) and shape == SHAPES[1] else None


def test_a_variant_that_is_wrong_at_one_shape_wins_at_none(bench: Bench) -> None:
    done = bench.run(evaluator=FakeEvaluator(wrong_at_second_shape), trials=SPACE_SIZE + 1)
    right_at_first = [each for each in bench.evaluations() if is_best(each.variant, SHAPES[0]) and each.timing]
    assert {each.shape for each in right_at_first} == {SHAPES[0]}
    assert [winner.shape for winner in done.summary.winners] == list(SHAPES)
    assert {winner.variant.config for winner in done.summary.winners} == {config(4, 1)}


def test_a_variant_that_was_wrong_in_an_earlier_run_does_not_win_later(bench: Bench) -> None:
    """The later run does not even look at the shape where it was wrong."""
    bench.run(evaluator=FakeEvaluator(wrong_at_second_shape), shapes=SHAPES[1:], trials=SPACE_SIZE + 1)
    later = bench.run(shapes=SHAPES[:1], trials=SPACE_SIZE + 1)
    assert any(is_best(*each) for each in later.submitted)
    assert {winner.variant.config for winner in later.summary.winners} == {config(4, 1)}


@pytest.mark.parametrize("status", FAILURES)
def test_only_wrong_output_speaks_for_other_shapes(bench: Bench, status: Status) -> None:
    """A variant that needs too much at one shape may win at another."""
    fault = failing(status, lambda variant, shape: is_best(variant, shape) and shape == SHAPES[1])
    done = bench.run(evaluator=FakeEvaluator(fault), trials=SPACE_SIZE + 1)
    first, second = (winner.variant.config for winner in done.summary.winners)
    assert first == config(4, 1 if status is Status.WRONG_OUTPUT else 2)
    assert second == config(4, 1)


BEYOND = Shape(num_rows=65, columns=128)


@dataclasses.dataclass
class FindsWrong(FakeEvaluator):
    """Finds in the final that the best variants are wrong one row beyond a shape of the run; then it may be lost."""

    lost: bool = False

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        for contest in contests:
            wrong = [each.variant for each in contest.evaluations if is_best(each.variant, each.shape)]
            for variant in wrong:
                yield Evaluation(variant, BEYOND, Status.WRONG_OUTPUT, "wrong beyond")
            if self.lost:
                yield Undecided(contest.baseline.shape, Failure(Status.CRASHED, "the machine went away"))
            else:
                others = [each for each in contest.evaluations if each.variant not in wrong]
                yield from super().decide([Contest(contest.baseline, others)], rules)


def test_what_the_final_finds_wrong_elsewhere_is_stored_and_told(bench: Bench) -> None:
    done = bench.run(evaluator=FindsWrong(), trials=SPACE_SIZE + 1, shapes=SHAPES[1:])
    found = [each for each in bench.evaluations() if each.shape == BEYOND]
    assert [each.log for each in found] == ["wrong beyond"] * 4
    assert [event.evaluation for event in done.of(Evaluated)][-4:] == found
    assert [event.best_us for event in done.of(Evaluated)][-4:] == [None] * 4
    assert {winner.variant.config for winner in done.summary.winners} == {config(4, 1)}


def test_what_a_final_found_wrong_elsewhere_never_wins_later(bench: Bench) -> None:
    """Neither at the same shape, whose final is held again, nor at another."""
    bench.run(evaluator=FindsWrong(lost=True), trials=SPACE_SIZE + 1, shapes=SHAPES[1:])
    assert bench.winners() == {}
    later = bench.run(trials=SPACE_SIZE + 1)
    assert {contest.baseline.shape for contest in later.evaluator.contests} == set(SHAPES)
    for contest in later.evaluator.contests:
        assert not any(is_best(each.variant, each.shape) for each in contest.evaluations)
    assert {winner.variant.config for winner in later.summary.winners} == {config(4, 1)}


def test_what_a_final_found_wrong_elsewhere_is_not_tried_at_the_next_shape(bench: Bench) -> None:
    """What is best without it is; the second shape's own search comes across neither."""
    bench.run(evaluator=FindsWrong(), trials=SPACE_SIZE + 1, shapes=SHAPES[:1])
    done = bench.run(trials=10)
    variants = [variant for variant, shape in done.submitted if shape == SHAPES[1]]
    assert len(variants) == 10
    assert not any(is_best(variant, SHAPES[1]) for variant in variants)
    assert config(4, 1) not in {each.config for each in variants[:8]}
    assert Variant("scale_rows", config(4, 1), ALL_MARKED) in variants[8:]


def test_a_winner_that_is_found_wrong_elsewhere_does_not_stand(bench: Bench) -> None:
    """Its shape learnt nothing new, and is decided again all the same."""
    first = bench.run(shapes=SHAPES[:1], trials=SPACE_SIZE + 1)
    assert {winner.variant.config for winner in first.summary.winners} == {config(4, 2)}
    second = bench.run(evaluator=FakeEvaluator(wrong_at_second_shape), trials=SPACE_SIZE + 1)
    assert {winner.variant.config for winner in second.summary.winners} == {config(4, 1)}
    assert {winner.variant.config for winner in bench.winners().values()} == {config(4, 1)}


def test_a_winner_that_stood_falls_when_a_final_at_another_shape_finds_it_wrong(bench: Bench) -> None:
    bench.run(shapes=SHAPES[:1], trials=SPACE_SIZE + 1)
    assert {winner.variant.config for winner in bench.winners().values()} == {config(4, 2)}
    second = bench.run(evaluator=FindsWrong(), trials=SPACE_SIZE + 1)
    assert {winner.shape: winner.variant.config for winner in second.summary.winners} == {
        shape: config(4, 1) for shape in SHAPES
    }
    assert bench.winners() == {winner.shape: winner for winner in second.summary.winners}


class FindsOneSetWrong(FakeEvaluator):
    """Finds in the final that one set of the best config is wrong; the others are right."""

    best = Variant("scale_rows", config(4, 2), ALL_MARKED)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        yield Evaluation(self.best, BEYOND, Status.WRONG_OUTPUT, "wrong beyond")
        for contest in contests:
            others = [each for each in contest.evaluations if each.variant != self.best]
            yield from super().decide([Contest(contest.baseline, others)], rules)


def test_a_set_that_is_wrong_is_not_tried_elsewhere_though_its_config_is_the_best(bench: Bench) -> None:
    """It is the set that compiles least, which is what the next shape would get."""
    bench.run(evaluator=FindsOneSetWrong(), trials=SPACE_SIZE + 1, shapes=SHAPES[:1])
    done = bench.run(trials=10)
    assert (FindsOneSetWrong.best, SHAPES[1]) not in done.submitted


# Conditions.


def test_the_summary_counts_the_timings_that_each_reason_fell_on(bench: Bench) -> None:
    """A failure has no timing; a cool GPU has no reason."""

    def hot(variant: Variant, shape: Shape) -> Conditions | None:
        if variant == BASELINE:
            return None
        marks = len(variant.specialization.do_not_specialize)
        return Conditions(1500, 80, ("power cap", "thermal slowdown", "power brake")[:marks])

    evaluator = FakeEvaluator(failing(Status.CRASHED, is_best), conditions=hot)
    done = bench.run(evaluator=evaluator, trials=SPACE_SIZE + 1)
    configs = 6 - 1
    assert done.summary.throttled == {
        "power cap": configs * 3 * len(SHAPES),
        "thermal slowdown": configs * 1 * len(SHAPES),
    }
    stored = {each.conditions for each in bench.evaluations() if each.timing}
    assert Conditions(1500, 80, ("power cap", "thermal slowdown")) in stored
    assert None in stored


def test_what_earlier_runs_timed_is_not_counted_again(bench: Bench) -> None:
    hot = FakeEvaluator(conditions=lambda variant, shape: Conditions(1500, 80, ("power cap",)))
    assert bench.run(evaluator=hot, trials=5).summary.throttled == {"power cap": 10}
    assert bench.run(evaluator=hot, trials=7).summary.throttled == {"power cap": 4}
    assert bench.run(trials=7).summary.throttled == {}


def test_a_kernel_that_is_edited_during_a_run_ends_it(bench: Bench, tmp_path: Path) -> None:
    """Workers that start from then on would time other code under the old source's name."""
    kernel = load_folder(copy_kernel(EXAMPLE, tmp_path))
    path = kernel.folder / "kernel.py"

    def edit(event: Event) -> None:
        if isinstance(event, Evaluated):
            path.write_text(path.read_text() + "# another one\n")

    with pytest.raises(UserError, match="changed during the run"):
        bench.run(kernel=kernel, watch=edit)
    assert len(bench.rows()) == 1
