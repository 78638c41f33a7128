"""What an objective changes in a session, which marks it searches, and what of a binary it shares."""

import dataclasses
from types import ModuleType
from typing import Any

import pytest
from session_fakes import (
    BASELINE,
    SHAPES,
    SPACE,
    SPACE_SIZE,
    Bench,
    FakeCompilers,
    FakeEvaluator,
    FakeTable,
    code_by_config,
    config,
    time_us,
)

from tuner.compile.builder import CompileJob
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.ranking import Point
from tuner.records import Binary, FrozenMapping, Shape, SpecializationSet, Status, Variant
from tuner.search import Cost, GridSearch, Method
from tuner.session.events import CandidateDropped, RunStarted
from tuner.session.machine_code import Dropped
from tuner.space import ImplementationSpace, Objective

ALL_MARKED = SpecializationSet.of(["num_rows", "row_stride"])
# The baseline's code under the set that compiles least.
TWIN = dataclasses.replace(BASELINE, specialization=ALL_MARKED)
SERVING, PARETO = (dataclasses.replace(SPACE, objective=each) for each in (Objective.SERVING, Objective.PARETO))


def alike(variant: Variant, shape: Shape) -> float:
    return 10.0


def baseline_first(variant: Variant, shape: Shape) -> float:
    return 1.0 if variant.config == BASELINE.config else time_us(variant, shape)


# Objectives. A compile takes 0.1 s, which over 100,000 steps is 1 us.


def test_under_serving_an_equal_time_with_fewer_compiles_wins(bench: Bench) -> None:
    done = bench.run(space=SERVING, evaluator=FakeEvaluator(time_us=alike), trials=SPACE_SIZE + 1)
    for winner in done.summary.winners:
        assert (winner.variant.specialization, winner.compiles) == (ALL_MARKED, 1)
        assert winner.reason == "best estimate; 1 compile instead of 4"
    steady = Bench(bench.path.with_name("steady.db"))
    done = steady.run(evaluator=FakeEvaluator(time_us=alike), trials=SPACE_SIZE + 1)
    assert {winner.variant for winner in done.summary.winners} == {BASELINE}


def test_compiles_that_spread_over_fewer_steps_outweigh_a_faster_variant(bench: Bench) -> None:
    """The faster of two has no mark; over 1,000 steps three compiles more are 300 us."""

    def marks_cost(variant: Variant, shape: Shape) -> float:
        return 100.0 + 20.0 * len(variant.specialization.do_not_specialize)

    found = {}
    for steps in (1_000, 10_000_000):
        at = Bench(bench.path.with_name(f"{steps}.db"))
        space = dataclasses.replace(SERVING, steps=steps, baseline=Variant("scale_rows", config(1, 1), ALL_MARKED))
        done = at.run(space=space, evaluator=FakeEvaluator(time_us=marks_cost), trials=SPACE_SIZE)
        found[steps] = {winner.variant.specialization for winner in done.summary.winners}
    assert found == {1_000: {ALL_MARKED}, 10_000_000: {SpecializationSet()}}


def test_another_objective_decides_anew_from_what_is_stored(bench: Bench) -> None:
    bench.run(evaluator=FakeEvaluator(time_us=alike), trials=SPACE_SIZE + 1)
    for space, marks in ((SERVING, ALL_MARKED), (SPACE, SpecializationSet()), (SERVING, ALL_MARKED)):
        done = bench.run(space=space, trials=SPACE_SIZE + 1)
        assert done.submitted == []
        assert {winner.variant.specialization for winner in done.summary.winners} == {marks}
        again = bench.run(space=space, trials=SPACE_SIZE + 1)
        assert again.evaluator.contests == []  # its finals were held
    other_steps = dataclasses.replace(SERVING, steps=7)
    assert len(bench.run(space=other_steps, trials=SPACE_SIZE + 1).evaluator.contests) == len(SHAPES)


@pytest.mark.parametrize(
    ("objective", "values"), [(Objective.LATENCY, 1), (Objective.SERVING, 1), (Objective.PARETO, 2)]
)
def test_searches_learn_costs(
    bench: Bench, loop: ModuleType, monkeypatch: pytest.MonkeyPatch, objective: Objective, values: int
) -> None:
    learnt: list[tuple[Variant, Shape, Cost | None]] = []

    class Noting(GridSearch):
        def __init__(self, space: Any, shape: Shape) -> None:
            super().__init__(space, shape)
            self.shape = shape

        def update(self, variant: Variant, cost: Cost | None) -> None:
            learnt.append((variant, self.shape, cost))
            super().update(variant, cost)

    def create(method: object, space: Any, shape: Shape, seed: int, objectives: int) -> Noting:
        assert objectives == values
        return Noting(space, shape)

    monkeypatch.setattr(loop, "create_search", create)
    bench.run(space=dataclasses.replace(SPACE, objective=objective), trials=4)
    assert len(learnt) == 4 * len(SHAPES)
    for variant, shape, cost in learnt:
        stall_us = float(4 >> len(variant.specialization.do_not_specialize))
        time = time_us(variant, shape)
        expected = {
            Objective.LATENCY: (time,),
            Objective.SERVING: (time + stall_us,),
            Objective.PARETO: (time, stall_us),
        }
        assert cost == pytest.approx(expected[objective])


def test_pareto_tells_the_front_and_chooses_winners_by_time(bench: Bench) -> None:
    """Each mark costs 1 us, so that every count of marks is on the front."""

    def marks_cost(variant: Variant, shape: Shape) -> float:
        return time_us(variant, shape) + len(variant.specialization.do_not_specialize)

    done = bench.run(space=PARETO, evaluator=FakeEvaluator(time_us=marks_cost), trials=SPACE_SIZE + 1)
    found = done.summary.tradeoff
    assert found is not None
    best = 4.0 + (3 + 64) / 2
    assert [(each.kernel_us, each.compiles) for each in found.front] == [(best, 4), (best + 1, 2), (best + 2, 1)]
    assert {each.variant.config for each in found.front} == {config(4, 2)}
    assert found.baseline_point == Point(BASELINE, 17.0 + (3 + 64) / 2, 4)
    assert len(found.points) == SPACE_SIZE + 1
    assert (found.compile_s, found.steps, found.workload) == (0.1, 100_000, None)
    assert {winner.variant for winner in done.summary.winners} == {Variant("scale_rows", config(4, 2))}
    assert bench.run(trials=2).summary.tradeoff is None


def test_other_sizes_of_a_workload_decide_anew(bench: Bench) -> None:
    """By these compiles count, and of variants as fast those that compile least are taken."""
    from test_weights import workload

    bench.run(workload=workload(4, 60))
    assert bench.run(workload=workload(4, 4, 60)).evaluator.contests == []
    again = bench.run(workload=workload(5, 60))
    assert (again.summary.evaluated, len(again.evaluator.contests)) == (0, len(SHAPES))


def test_a_workload_that_is_nowhere_near_is_refused_before_anything_is_spent(bench: Bench) -> None:
    from test_weights import workload

    far = workload(400)
    with pytest.raises(UserError, match="is near the shapes"):
        bench.run(space=SERVING, workload=far)
    assert bench.run(workload=far, trials=2).summary.counted == len(SHAPES) + 1


# The baseline's machine code.


def test_where_the_baseline_stays_its_code_is_kept_under_the_set_that_compiles_least(bench: Bench) -> None:
    compilers = FakeCompilers(code_by_config)
    done = bench.run(compilers=compilers, evaluator=FakeEvaluator(time_us=baseline_first), trials=8)
    assert {(each.variant, each.shape) for each in compilers.looks[1:]} == {
        (variant, shape) for variant in (BASELINE, TWIN) for shape in SHAPES
    }
    assert TWIN not in {variant for variant, _ in done.submitted}  # it is no trial
    for winner in done.summary.winners:
        assert (winner.variant, winner.baseline, winner.compiles) == (TWIN, BASELINE, 1)
        assert winner.timing == winner.baseline_timing
        assert winner.reason.startswith("same machine code as the baseline at every shape of the run, 1 instead of 4")
    front = bench.run(space=PARETO, compilers=compilers, trials=8).summary.tradeoff
    assert front is not None
    assert Point(TWIN, 1.0, 1) in front.points


@pytest.mark.parametrize("differs", ["in code", "at one shape", "it does not compile", "it was wrong"])
def test_what_is_not_the_baselines_code_at_every_shape_is_not_kept(bench: Bench, differs: str) -> None:
    class Differing(FakeCompilers):
        def binary(self, job: CompileJob) -> Binary:
            other = differs == "in code" or (differs == "at one shape" and job.shape == SHAPES[1])
            digest = "other" if job.variant == TWIN and other else job.variant.config.label
            return dataclasses.replace(super().binary(job), digest=digest)

    lost = Failure(Status.COMPILE_ERROR, "no")
    compilers = Differing(
        fault=lambda variant, _: lost if differs == "it does not compile" and variant == TWIN else None
    )
    if differs == "it was wrong":
        wrong = Failure(Status.WRONG_OUTPUT, "differs")
        bench.run(space=dataclasses.replace(SPACE, baseline=TWIN), evaluator=FakeEvaluator(lambda *_: wrong), trials=1)
    done = bench.run(compilers=compilers, evaluator=FakeEvaluator(time_us=baseline_first), trials=8)
    assert {winner.variant for winner in done.summary.winners} == {BASELINE}


# Which marks are searched.


class StrideSavesNothing(FakeTable):
    def count(self, marks: SpecializationSet) -> int:
        return 4 >> len({*marks.do_not_specialize, *marks.do_not_specialize_on_alignment} - {"row_stride"})


NO_CODE = Failure(Status.COMPILE_ERROR, "no")


@dataclasses.dataclass
class StrideMatters(FakeCompilers):
    """Under the mark on `row_stride` the code of a config differs, with these stores."""

    stores: dict[str, int] = dataclasses.field(default_factory=dict)

    def binary(self, job: CompileJob) -> Binary:
        found = dataclasses.replace(super().binary(job), digest=job.variant.config.label)
        marks = job.variant.specialization
        if "row_stride" not in (*marks.do_not_specialize, *marks.do_not_specialize_on_alignment):
            return found
        return dataclasses.replace(found, digest=found.digest + " marked", store_bytes=FrozenMapping(self.stores))


@pytest.mark.parametrize("aligned", [False, True], ids=["in full", "on alignment"])
@pytest.mark.parametrize(
    ("compilers", "why"),
    [
        (FakeCompilers(code_by_config), "it saves no compile, and marking it changes no machine code"),
        (StrideMatters(stores={"1": 16}), "it saves no compile, and marking it narrows stores from 16 bytes to 1"),
        (StrideMatters(stores={"16": 1, "4": 1}), None),
        (StrideMatters(stores={"32": 1}), None),
        (StrideMatters(fault=lambda variant, _: None if variant == BASELINE else NO_CODE), None),
    ],
    ids=["same code", "narrower", "one store more", "wider", "no code"],
)
def test_a_mark_that_saves_nothing_is_searched_only_where_a_timing_may_favour_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, compilers: FakeCompilers, why: str | None, aligned: bool
) -> None:
    monkeypatch.setattr("tuner.compile.class_tables.class_table", StrideSavesNothing)
    lists = {"alignment_candidates": ("row_stride",), "candidates": ("num_rows",)} if aligned else {}
    done = bench.run(space=dataclasses.replace(SPACE, **lists), compilers=compilers, trials=SPACE_SIZE + 1)
    marked = {
        name
        for variant, _ in done.submitted
        for name in (
            *variant.specialization.do_not_specialize,
            *variant.specialization.do_not_specialize_on_alignment,
        )
    }
    wanted = [Dropped("row_stride", aligned, why)] if why else []
    assert marked == ({"num_rows"} if why else {"num_rows", "row_stride"})
    assert [event.dropped for event in done.of(CandidateDropped)] == list(done.summary.dropped) == wanted
    assert isinstance(done.events[0], RunStarted)


def test_a_mark_that_saves_a_compile_is_not_even_looked_at(bench: Bench) -> None:
    compilers = FakeCompilers(code_by_config)
    done = bench.run(compilers=compilers, trials=4)
    assert done.summary.dropped == ()
    assert [(each.variant, each.shape) for each in compilers.looks[:1]] == [
        (Variant("scale_rows", config(1, 1)), SHAPES[0])
    ]
    assert {each.variant.config for each in compilers.looks[1:]} == {BASELINE.config}  # for the final


# What was best at one shape, at every other.


def test_the_best_config_of_every_shape_is_tried_at_every_other_one(bench: Bench) -> None:
    """Each shape has another best config, which none of the others would find good."""
    shapes = tuple(Shape(num_rows=rows, columns=128) for rows in (3, 16, 64, 512))
    rows, warps = FrozenMapping(BLOCK_ROWS=(1, 2, 4, 8, 16, 32, 64)), FrozenMapping(num_warps=(1, 2, 4, 8, 16, 32))
    space = dataclasses.replace(SPACE, implementations=(ImplementationSpace("rows", rows, warps),))

    def far_apart(variant: Variant, shape: Shape) -> float:
        values = variant.config.parameters["BLOCK_ROWS"], variant.config.options["num_warps"]
        place = (values[0].bit_length() - 1) * 6 + values[1].bit_length() - 1
        return 10.0 + abs(place - 12 * shapes.index(shape))

    trials = 40
    evaluator = FakeEvaluator(time_us=far_apart)
    done = bench.run(space=space, shapes=shapes, evaluator=evaluator, trials=trials, method=Method.RANDOM)
    stored = bench.evaluations()
    at = {shape: [each.variant for each in stored if each.shape == shape] for shape in shapes}
    assert [len(each) for each in at.values()] == [trials] * len(shapes)
    for shape in shapes:
        searched = at[shape][: trials - len(shapes)]  # the last trials are kept for what was best at others
        best = min(searched, key=lambda each, shape=shape: far_apart(each, shape)).config  # type: ignore[misc]
        assert all(Variant("scale_rows", best, ALL_MARKED) in tried for tried in at.values())
    assert len(done.summary.winners) == len(shapes)


# Sharing.


def test_the_summary_counts_what_binaries_shared(bench: Bench) -> None:
    done = bench.run(
        compilers=FakeCompilers(code_by_config), evaluator=FakeEvaluator(delay_s=0.01), trials=SPACE_SIZE + 1
    )
    found, configs, variants = done.summary.sharing, 6 + 1, SPACE_SIZE + 1
    assert (found.variants, found.keys, found.binaries) == (variants, variants, configs)
    assert found.compiles == 1 + variants * len(SHAPES)  # the first only looks
    assert (found.measurements, found.shared) == (configs * len(SHAPES), (variants - configs) * len(SHAPES))
    assert 0.01 * found.shared <= found.saved_s < 0.1 * found.shared
    later = bench.run(compilers=FakeCompilers(code_by_config), trials=SPACE_SIZE + 1).summary.sharing
    assert (later.variants, later.measurements, later.shared, later.saved_s) == (0, 0, 0, 0.0)


def test_binaries_from_tritons_cache_are_no_compiles(bench: Bench) -> None:
    class Cached(FakeCompilers):
        def binary(self, job: CompileJob) -> Binary:
            return dataclasses.replace(super().binary(job), compile_s=0.007)

    found = bench.run(compilers=Cached(), trials=4).summary.sharing
    assert (found.compiles, found.binaries) == (0, found.variants)
