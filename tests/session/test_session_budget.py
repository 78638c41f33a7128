"""Trials, time, resume and the end of a space."""

import dataclasses
import importlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from session_fakes import (
    BASELINE,
    ENVIRONMENT,
    SHAPES,
    SPACE,
    SPACE_SIZE,
    Bench,
    FakeCompilers,
    FakeEvaluator,
    code_by_config,
    config,
    time_us,
)

from tuner.processes import Failure
from tuner.records import (
    Environment,
    Evaluation,
    FrozenMapping,
    Shape,
    SpecializationSet,
    Status,
    Target,
    Variant,
)
from tuner.search import Method
from tuner.session.evaluator import Contest, Decision, Rules
from tuner.session.events import (
    Evaluated,
    FinalStarted,
    RunStarted,
    ShapeSkipped,
    SpaceExhausted,
    WinnerChosen,
)
from tuner.space import Constraint, ImplementationSpace
from tuner.store import Store

ALL_MARKED = SpecializationSet.of(["num_rows", "row_stride"])


def at(shape: Shape, evaluations: list[Evaluation]) -> list[Evaluation]:
    return [each for each in evaluations if each.shape == shape]


@pytest.fixture
def no_refinement(loop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.session.explore._KEPT_SHARE", 0)
    monkeypatch.setattr("tuner.session.explore._STAGE", 1000)


# Trials.


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.usefixtures("no_refinement")
def test_each_shape_gets_its_trials_the_baseline_included(bench: Bench, method: Method, jobs: int) -> None:
    done = bench.run(trials=7, jobs=jobs, method=method)
    assert done.summary.evaluated == 7 * len(SHAPES)
    for shape in SHAPES:
        found = at(shape, bench.evaluations())
        assert len(found) == len({each.variant for each in found}) == 7


@pytest.mark.parametrize("method", Method)
@pytest.mark.usefixtures("no_refinement")
def test_a_baseline_that_the_space_holds_does_not_cut_the_search_short(bench: Bench, method: Method) -> None:
    """The search may propose the baseline while that is still being evaluated; then another variant takes its place."""
    inside = Variant("scale_rows", config(1, 1))
    done = bench.run(
        space=dataclasses.replace(SPACE, baseline=inside), shapes=SHAPES[:1], trials=SPACE_SIZE, method=method
    )
    assert len(bench.evaluations()) == SPACE_SIZE
    assert [variant for variant, _ in done.submitted].count(inside) == 1
    assert done.of(SpaceExhausted) == []


@pytest.mark.usefixtures("no_refinement")
def test_shapes_advance_in_turns_of_four(bench: Bench) -> None:
    """So a run that is stopped early knows something of each, and the device seldom goes from one to another."""
    done = bench.run(trials=16)
    counts = dict.fromkeys(SHAPES, 0)
    for _, shape in done.submitted:
        counts[shape] += 1
        assert max(counts.values()) - min(counts.values()) <= 2 * 4  # one's turn may be checked before the other's
    shapes = [shape for _, shape in done.submitted]
    moves = sum(one != other for one, other in pairwise(shapes))
    assert moves <= len(SHAPES) + len(shapes) / 4


@pytest.mark.usefixtures("no_refinement")
def test_the_end_of_the_space_is_told_with_what_will_be_missing(bench: Bench) -> None:
    done = bench.run(trials=100)
    assert [(event.shape, event.missing) for event in done.of(SpaceExhausted)] == [
        (shape, 100 - SPACE_SIZE - 1) for shape in SHAPES
    ]
    assert len(bench.evaluations()) == (SPACE_SIZE + 1) * len(SHAPES)
    assert not done.summary.timed_out
    assert len(bench.winners()) == len(SHAPES)


def test_one_shape_may_end_before_another(bench: Bench) -> None:
    rows, warps = FrozenMapping(BLOCK_ROWS=(1, 2, 4)), FrozenMapping(num_warps=(1,))
    narrow = ImplementationSpace("rows", rows, warps, (Constraint("BLOCK_ROWS < num_rows"),))
    done = bench.run(space=dataclasses.replace(SPACE, implementations=(narrow,)), trials=11)
    assert [(event.shape, event.missing) for event in done.of(SpaceExhausted)] == [(SHAPES[0], 11 - 1 - 2 * 4)]
    assert all(each.variant.config != config(4, 1) for each in at(SHAPES[0], bench.evaluations()))
    assert len(at(SHAPES[1], bench.evaluations())) >= 11


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("trials", [1, 2, 5, 8, 20])
def test_each_shape_gets_exactly_its_trials_refinement_included(
    bench: Bench, trials: int, jobs: int, method: Method
) -> None:
    done = bench.run(trials=trials, jobs=jobs, method=method)
    assert [len(at(shape, bench.evaluations())) for shape in SHAPES] == [trials] * len(SHAPES)
    assert len(done.submitted) == len(set(done.submitted)) == trials * len(SHAPES)


@pytest.mark.parametrize("more", [1, 3, 12])
def test_more_trials_later_add_exactly_as_many(bench: Bench, more: int) -> None:
    bench.run(trials=8)
    assert bench.run(trials=8 + more).summary.evaluated == more * len(SHAPES)


# Refinement.


def test_the_best_configs_are_tried_with_the_set_that_compiles_least(bench: Bench) -> None:
    """A fifth of the trials, at most four, is kept for them; what they do not need is searched after all."""
    space = dataclasses.replace(SPACE, candidates=("num_rows",), alignment_candidates=("row_stride",))
    least = SpecializationSet.of(["num_rows"], ["row_stride"])
    compilers = FakeCompilers(code_by_config)
    done = bench.run(compilers=compilers, space=space, method=Method.RANDOM, trials=15, shapes=SHAPES[:1])
    searched, later = done.submitted[:12], done.submitted[12:]
    configs = {variant.config for variant, _ in searched} - {BASELINE.config}
    best = sorted(configs, key=lambda each: time_us(Variant("scale_rows", each), SHAPES[0]))[:3]
    wanted = [(Variant("scale_rows", each, least), SHAPES[0]) for each in best]
    refined = [each for each in wanted if each not in searched]
    assert len(refined) >= 2
    assert later[: len(refined)] == refined
    assert len(done.submitted) == 15


def test_what_is_best_at_one_shape_is_tried_at_the_next(bench: Bench) -> None:
    """The first shape is known well; the second one's own search does not come across its best config."""
    bench.run(shapes=SHAPES[:1], trials=SPACE_SIZE + 1)
    done = bench.run(trials=10)
    best = Variant("scale_rows", config(4, 2), ALL_MARKED)
    searched = [variant.config for variant, shape in done.submitted[:8] if shape == SHAPES[1]]
    assert config(4, 2) not in searched
    assert (best, SHAPES[1]) in done.submitted[8:]
    assert {winner.variant for winner in done.summary.winners} == {best}


def test_refinement_keeps_to_the_space(bench: Bench) -> None:
    """The baseline's config is not in the space, however fast it is."""

    def fastest_is_the_baseline(variant: Variant, shape: Shape) -> float:
        return 1.0 if variant == BASELINE else time_us(variant, shape)

    done = bench.run(evaluator=FakeEvaluator(time_us=fastest_is_the_baseline), trials=3)
    assert all(SPACE.contains(variant, shape) for variant, shape in done.submitted if variant != BASELINE)
    assert {winner.variant for winner in done.summary.winners} == {BASELINE}


def test_a_refined_variant_wins_over_one_that_compiles_more(bench: Bench) -> None:
    done = bench.run(trials=5, shapes=SHAPES[:1])
    *searched, last = [variant.specialization for variant, _ in done.submitted]
    assert (len(searched), last, ALL_MARKED in searched) == (4, ALL_MARKED, False)
    (winner,) = done.summary.winners
    assert (winner.variant, winner.compiles) == (Variant("scale_rows", config(1, 1), ALL_MARKED), 1)


# Resume.


@pytest.mark.parametrize("method", Method)
def test_a_second_session_evaluates_nothing_anew_and_chooses_the_same(bench: Bench, method: Method) -> None:
    first = bench.run(trials=9, method=method)
    rows = bench.rows()
    second = bench.run(trials=9, method=method)
    assert second.submitted == []
    assert second.summary.evaluated == 0
    assert bench.rows() == rows
    assert first.summary.evaluated == len(rows) == 9 * len(SHAPES)
    assert second.of(RunStarted)[0].stored == 9 * len(SHAPES)
    assert second.summary.winners == first.summary.winners
    assert second.of(WinnerChosen) == []  # its finals were held


@pytest.mark.parametrize("method", Method)
@pytest.mark.usefixtures("no_refinement")
def test_stored_evaluations_count_as_trials(bench: Bench, method: Method) -> None:
    bench.run(trials=4, method=method)
    second = bench.run(trials=10, method=method)
    assert second.summary.evaluated == (10 - 4) * len(SHAPES)
    stored = [(each.variant, each.shape) for each in bench.evaluations()]
    assert len(stored) == len(set(stored)) == 10 * len(SHAPES)
    assert (BASELINE, SHAPES[0]) not in second.submitted


def test_a_run_that_was_cut_off_goes_on_where_it_was(bench: Bench) -> None:
    """The second session ends with what one session alone would have found."""

    seen = 0

    def cut(event: object) -> None:
        nonlocal seen
        seen += isinstance(event, Evaluated)
        if seen == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(watch=cut, trials=SPACE_SIZE + 1)
    kept = bench.rows()
    assert len(kept) == 6
    second = bench.run(trials=SPACE_SIZE + 1)
    assert bench.rows()[:6] == kept
    assert len(bench.evaluations()) == (SPACE_SIZE + 1) * len(SHAPES)
    alone = Bench(bench.path.with_name("alone.db"))
    assert alone.run(trials=SPACE_SIZE + 1).summary.winners == second.summary.winners
    with Store.open(bench.path, read_only=True) as store:
        interrupted, ended = reversed(store.runs())
    assert interrupted.finished_at is None
    assert ended.finished_at is not None
    assert (interrupted.evaluations, ended.evaluations) == (6, len(bench.rows()) - 6)


def test_stored_failures_are_not_tried_again(bench: Bench) -> None:
    fails = FakeCompilers(fault=lambda *_: Failure(Status.COMPILE_ERROR, "no"))
    bench.run(compilers=fails, trials=5)
    stored = bench.rows()
    second = bench.run(compilers=fails, trials=5)
    assert [each for each in second.compilers.jobs[len(stored) :] if each.variant != BASELINE] == []
    assert bench.rows() == stored
    assert len(second.of(ShapeSkipped)) == len(SHAPES)


def test_a_baseline_that_failed_is_tried_again_for_without_it_there_is_no_winner(bench: Bench) -> None:
    def of_the_baseline(variant: Variant, shape: Shape) -> Failure | None:
        return Failure(Status.CRASHED, "another process had the memory") if variant == BASELINE else None

    first = bench.run(compilers=FakeCompilers(fault=of_the_baseline), trials=5)
    assert (len(first.of(ShapeSkipped)), bench.winners()) == (len(SHAPES), {})
    assert {variant for variant, _ in first.submitted} == {BASELINE}  # without it no other trial is of any use
    second = bench.run(trials=5)
    assert second.submitted[: len(SHAPES)] == [(BASELINE, shape) for shape in SHAPES]
    assert set(bench.winners()) == set(SHAPES)
    assert len(bench.rows()) == 5 * len(SHAPES)
    assert {each.status for each in bench.evaluations()} == {Status.PASSED}


@pytest.mark.usefixtures("no_refinement")
def test_a_binary_that_an_earlier_run_timed_is_not_timed_again(bench: Bench) -> None:
    """The grid goes through the sets of a config before the next config; the first run ends among them."""
    bench.run(compilers=FakeCompilers(code_by_config), trials=3)
    second = bench.run(compilers=FakeCompilers(code_by_config), trials=5)
    assert {variant.config for variant, _ in second.submitted} == {config(1, 1)}
    assert second.evaluator.submitted == []
    assert all(each.timing for each in bench.evaluations())


def test_finals_are_held_where_something_was_learnt_and_only_there(bench: Bench) -> None:
    first = bench.run(trials=3)
    assert [event.shapes for event in first.of(FinalStarted)] == [len(SHAPES)]
    second = bench.run(trials=3)
    assert [event.shapes for event in second.of(FinalStarted)] == [0]
    assert second.summary.winners == first.summary.winners
    third = bench.run(trials=SPACE_SIZE)
    assert [event.winner.shape for event in third.of(WinnerChosen)] == list(SHAPES)
    assert {winner.variant.config for winner in third.summary.winners} == {config(4, 2)}


def test_a_winner_does_not_stand_where_it_may_serve_more_than_it_was_checked_for(bench: Bench) -> None:
    bench.run(trials=3, shapes=SHAPES[:1])
    second = bench.run(trials=3)
    assert [event.winner.shape for event in second.of(WinnerChosen)] == list(SHAPES)


def test_a_winner_from_before_a_run_that_was_cut_off_does_not_stand(bench: Bench) -> None:
    """The run that was cut off stored evaluations that no final has seen."""
    bench.run(trials=3)
    searched = 0

    def cut(event: object) -> None:
        nonlocal searched
        searched += isinstance(event, Evaluated)
        if isinstance(event, FinalStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(trials=SPACE_SIZE, watch=cut)
    assert searched
    last = bench.run(trials=SPACE_SIZE)
    assert last.submitted == []
    assert {winner.variant.config for winner in last.summary.winners} == {config(4, 2)}


def test_another_environment_shares_nothing(bench: Bench) -> None:
    bench.run(trials=4)
    elsewhere = FakeEvaluator()
    elsewhere.environment = dataclasses.replace(elsewhere.environment, driver="581.00")
    assert bench.run(trials=4, evaluator=elsewhere).of(RunStarted)[0].stored == 0


# Time.


class Clock:
    """Ten seconds pass with each evaluation."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def evaluate(self, variant: Variant, shape: Shape) -> float:
        self.now_s += 10.0
        return time_us(variant, shape)


@pytest.fixture
def clock(loop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (loop, importlib.import_module("tuner.session.pipeline")):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    monkeypatch.setattr(Bench, "start", staticmethod(clock.monotonic))
    return clock


def test_the_search_ends_at_its_deadline_and_winners_are_chosen_from_what_is_there(bench: Bench, clock: Clock) -> None:
    done = bench.run(evaluator=FakeEvaluator(time_us=clock.evaluate), trials=20, timeout_s=95.0)
    assert done.summary.timed_out
    assert 2 * len(SHAPES) <= len(bench.evaluations()) <= 12
    assert len(done.evaluator.submitted) <= 12
    assert set(bench.winners()) == set(SHAPES)
    again = bench.run(trials=20)
    assert not again.summary.timed_out
    assert all(len(at(shape, bench.evaluations())) >= 20 for shape in SHAPES)


@pytest.mark.parametrize(("final_s", "search_s"), [(0.0, 300.0), (50.0, 250.0), (150.0, 150.0), (1000.0, 150.0)])
def test_the_time_covers_the_final_but_half_is_for_searching(
    bench: Bench, clock: Clock, final_s: float, search_s: float
) -> None:
    """An evaluation that is under way when searching ends, and takes ten seconds, is the last."""
    begun, ended = clock.now_s, list[float]()

    def watch(event: object) -> None:
        if isinstance(event, FinalStarted):
            ended.append(clock.now_s - begun)

    evaluator = FakeEvaluator(time_us=clock.evaluate, final_s=final_s)
    done = bench.run(evaluator=evaluator, trials=SPACE_SIZE, timeout_s=300.0, watch=watch)
    assert done.summary.timed_out
    assert len(ended) == 1
    assert search_s < ended[0] <= search_s + 20.0
    assert set(bench.winners()) == set(SHAPES)


def test_a_search_that_leaves_enough_for_the_final_is_not_cut(bench: Bench, clock: Clock) -> None:
    evaluator = FakeEvaluator(time_us=clock.evaluate, final_s=50.0)
    done = bench.run(evaluator=evaluator, trials=4, timeout_s=300.0)
    assert not done.summary.timed_out
    assert len(bench.evaluations()) == 4 * len(SHAPES)


@pytest.mark.parametrize("timeout_s", [None, 300.0])
def test_the_final_is_told_when_the_time_is_up(bench: Bench, clock: Clock, timeout_s: float | None) -> None:
    """Its deadline is that of the whole run."""
    begun = clock.now_s
    done = bench.run(evaluator=FakeEvaluator(final_s=50.0), trials=4, timeout_s=timeout_s)
    assert [rules.deadline for rules in done.evaluator.rules] == [begun + (timeout_s or math.inf)]


def test_without_a_deadline_the_clock_ends_nothing(bench: Bench, clock: Clock) -> None:
    assert not bench.run(evaluator=FakeEvaluator(time_us=clock.evaluate), trials=20).summary.timed_out


def test_a_deadline_of_zero_starts_nothing(bench: Bench, clock: Clock) -> None:
    done = bench.run(evaluator=FakeEvaluator(time_us=clock.evaluate), trials=20, timeout_s=0.0)
    assert done.summary.timed_out
    assert len(bench.evaluations()) <= 2 * len(SHAPES)


def test_a_shape_that_time_did_not_reach_says_so(bench: Bench, clock: Clock) -> None:
    done = bench.run(evaluator=FakeEvaluator(time_us=clock.evaluate), timeout_s=5.0, jobs=1)
    skipped = {event.shape: event.reason for event in done.of(ShapeSkipped)}
    missing = [shape for shape in SHAPES if not at(shape, bench.evaluations())]
    assert set(skipped) == set(missing)
    assert all("not evaluated" in reason for reason in skipped.values())


@dataclasses.dataclass
class SlowFinals(FakeEvaluator):
    """Expects `final_s` for each shape, and takes ten seconds more."""

    clock: Clock = dataclasses.field(default_factory=Clock)
    held: list[list[Shape]] = dataclasses.field(default_factory=list)

    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        self.held.append([contest.baseline.shape for contest in contests])
        for contest in contests:
            self.clock.now_s += self.final_s + 10.0
            yield from super().decide([contest], rules)

    def decide_s(self, shapes: int) -> float:
        return self.final_s * shapes


def test_as_many_finals_are_held_as_fit_and_the_next_run_holds_the_others(bench: Bench, clock: Clock) -> None:
    """Searching takes 160 seconds, which leaves time for two."""
    shapes = tuple(Shape(num_rows=rows, columns=128) for rows in (3, 16, 32, 64))
    evaluator = SlowFinals(time_us=clock.evaluate, final_s=115.0, clock=clock)
    done = bench.run(evaluator=evaluator, shapes=shapes, trials=4, timeout_s=400.0)
    assert evaluator.held == [list(shapes[:2])]
    skipped = {event.shape: event.reason for event in done.of(ShapeSkipped)}
    assert skipped == dict.fromkeys(shapes[2:], "the time ran out before it was decided")
    assert [winner.shape for winner in done.summary.winners] == list(shapes[:2])
    assert done.summary.timed_out
    again = bench.run(shapes=shapes, trials=4)
    assert again.submitted == []
    assert [each.baseline.shape for each in again.evaluator.contests] == list(shapes[2:])
    assert [winner.shape for winner in again.summary.winners] == list(shapes)


def test_compiles_that_are_under_way_when_searching_ends_are_cancelled(bench: Bench) -> None:
    """They would disturb the timing of the final."""
    futures, cancelled = list[Future[Any]](), list[bool]()

    class Endless(FakeCompilers):
        def submit(self, function: object, job: Any, *, timeout_s: float) -> "Future[Any]":
            found = super().submit(function, job, timeout_s=timeout_s)
            if job.variant == BASELINE:
                return found
            futures.append(Future())
            return futures[-1]

    def watch(event: object) -> None:
        if isinstance(event, FinalStarted):
            cancelled.extend(future.cancelled() for future in futures)

    done = bench.run(compilers=Endless(), timeout_s=2.0, jobs=2, watch=watch)
    assert 2 <= len(cancelled) <= 1 + 2 * 2  # one that only looks, and what time allowed to begin
    assert all(cancelled)
    assert done.summary.timed_out
    assert {variant for variant, _ in done.evaluator.submitted} == {BASELINE}


def test_a_run_on_another_device_first_tries_what_won_on_one_of_its_architecture(bench: Bench) -> None:
    winners = {each.shape: each.variant for each in bench.run(trials=SPACE_SIZE + 1).summary.winners}
    assert {variant.config for variant in winners.values()} == {config(4, 2)}

    def first_trials(environment: Environment) -> dict[Shape, list[Variant]]:
        done = bench.run(evaluator=FakeEvaluator(environment=environment), method=Method.TPE, trials=2)
        return {shape: [variant for variant, at in done.submitted if at == shape] for shape in SHAPES}

    other_device = dataclasses.replace(ENVIRONMENT, device="Another GPU")
    assert first_trials(other_device) == {shape: [BASELINE, winners[shape]] for shape in SHAPES}
    other_target = dataclasses.replace(ENVIRONMENT, target=Target("cuda", "100"), device="A third GPU")
    assert first_trials(other_target) != {shape: [BASELINE, winners[shape]] for shape in SHAPES}


def test_a_winner_that_the_space_lacks_is_not_tried(bench: Bench) -> None:
    bench.run(trials=SPACE_SIZE + 1)
    rows = dataclasses.replace(SPACE.implementations[0], parameters=FrozenMapping(BLOCK_ROWS=(1, 2)))
    narrow = dataclasses.replace(SPACE, implementations=(rows,))
    evaluator = FakeEvaluator(environment=dataclasses.replace(ENVIRONMENT, device="Another GPU"))
    done = bench.run(evaluator=evaluator, space=narrow, method=Method.TPE, trials=4)
    assert {variant.config.parameters["BLOCK_ROWS"] for variant, _ in done.submitted} <= {1, 2}


def test_winners_of_other_dimensions_are_no_proposals(bench: Bench) -> None:
    """The kernel's dimensions were others in an older source."""
    bench.run(trials=SPACE_SIZE + 1)
    with Store.open(bench.path) as store:
        (winner, *_) = store.winners()
        old = dataclasses.replace(winner, shape=Shape(tokens=3), source_digest="of an older source")
        store.save_winners(
            [dataclasses.replace(old, environment=dataclasses.replace(ENVIRONMENT, device="Another GPU"))]
        )
    evaluator = FakeEvaluator(environment=dataclasses.replace(ENVIRONMENT, device="A third GPU"))
    done = bench.run(evaluator=evaluator, method=Method.TPE, trials=2)
    assert {variant.config for variant, _ in done.submitted} >= {BASELINE.config, config(4, 2)}
