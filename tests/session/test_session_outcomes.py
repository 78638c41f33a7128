"""Every evaluation ends in the store with its status, and nothing that went wrong can win or end the run."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest
from pebble import ProcessExpired
from session_fakes import (
    BASELINE,
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

from tuner.processes import Failure
from tuner.records import Evaluation, Shape, SpecializationSet, Status, Variant
from tuner.session.evaluator import Contest, Rules
from tuner.session.events import Evaluated, Event, FinalStarted, RunStarted, ShapeSkipped, WinnerChosen

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
        assert winner.variant == Variant("scale_rows", config(4, 2), SpecializationSet.of(["num_rows", "row_stride"]))
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
        def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[tuple[Shape, Any]]:
            yield SHAPES[0], Failure(Status.TIMED_OUT, "took too long")
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
