"""Trials that could make the portfolio smaller."""

import dataclasses

import pytest
from session_fakes import SPACE, Bench, FakeEvaluator

from tuner.processes import Failure
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Status, Variant
from tuner.search import Method
from tuner.space import ImplementationSpace

ROWS = (1, 2, 4, 8, 16, 32, 64)
SHAPES = tuple(Shape(num_rows=rows, columns=128) for rows in (3, 16, 64, 512))
WIDE = dataclasses.replace(
    SPACE,
    implementations=(
        ImplementationSpace("rows", FrozenMapping(BLOCK_ROWS=ROWS), FrozenMapping(num_warps=(1, 2, 4, 8))),
    ),
)
# The config that is best at no shape and nearly best at all.
ALL_ROUND = Config("rows", FrozenMapping(BLOCK_ROWS=64), FrozenMapping(num_warps=8))


def specialists(variant: Variant, shape: Shape) -> float:
    """Each shape has a best config of its own, slow elsewhere; one is 0.5% slower everywhere; the others are slow."""
    best = Config("rows", FrozenMapping(BLOCK_ROWS=1), FrozenMapping(num_warps=(1, 2, 4, 8)[SHAPES.index(shape)]))
    if variant.config == ALL_ROUND:
        return 10.05
    return 10.0 if variant.config == best else 20.0


def tried(bench: Bench, config: Config) -> set[Shape]:
    return {each.shape for each in bench.evaluations() if each.variant.config == config}


@pytest.fixture
def seen_once(bench: Bench) -> Bench:
    """A store in which the first shape knows all configs, and so the one that is good everywhere."""
    bench.run(space=WIDE, shapes=SHAPES[:1], evaluator=FakeEvaluator(time_us=specialists), trials=28 * 4 + 1)
    assert tried(bench, ALL_ROUND) == {SHAPES[0]}
    return bench


def test_a_config_that_could_stand_for_all_shapes_is_tried_at_all(seen_once: Bench) -> None:
    """No search comes across it at the others, and it is the best of none."""
    trials, evaluator = 40, FakeEvaluator(time_us=specialists)
    seen_once.run(space=WIDE, shapes=SHAPES, evaluator=evaluator, trials=trials, method=Method.GRID)
    assert tried(seen_once, ALL_ROUND) == set(SHAPES)
    counts = [sum(each.shape == shape for each in seen_once.evaluations()) for shape in SHAPES[1:]]
    assert counts == [trials] * 3


def test_shapes_that_differ_in_more_than_the_dynamic_dimension_share_no_config(seen_once: Bench) -> None:
    other = tuple(Shape({**shape, "columns": 256}) for shape in SHAPES[1:])

    def times(variant: Variant, shape: Shape) -> float:
        return specialists(variant, Shape({**shape, "columns": 128}))

    seen_once.run(space=WIDE, shapes=(SHAPES[0], *other), evaluator=FakeEvaluator(time_us=times), trials=40)
    assert tried(seen_once, ALL_ROUND) == {SHAPES[0]}


def test_what_fails_where_it_was_hoped_for_is_given_up(seen_once: Bench) -> None:
    def fault(variant: Variant, shape: Shape) -> Failure | None:
        failing = variant.config == ALL_ROUND and shape == SHAPES[2]
        return Failure(Status.OUT_OF_RESOURCES, "too much") if failing else None

    done = seen_once.run(space=WIDE, shapes=SHAPES, evaluator=FakeEvaluator(fault, time_us=specialists), trials=40)
    failed = [variant for variant, shape in done.submitted if variant.config == ALL_ROUND and shape == SHAPES[2]]
    assert len(failed) == 1
    assert len(done.summary.winners) == len(SHAPES)


def test_a_shape_at_which_nothing_passes_holds_nobody_up(seen_once: Bench) -> None:
    """As where the largest size does not fit into the memory."""

    def fault(variant: Variant, shape: Shape) -> Failure | None:
        return Failure(Status.OUT_OF_RESOURCES, "too much") if shape == SHAPES[3] else None

    seen_once.run(space=WIDE, shapes=SHAPES, evaluator=FakeEvaluator(fault, time_us=specialists), trials=40)
    passed = {each.shape for each in seen_once.evaluations() if each.variant.config == ALL_ROUND and each.timing}
    assert passed == set(SHAPES[:3])


def test_what_was_wrong_at_one_shape_is_hoped_for_at_none(seen_once: Bench) -> None:
    marks = SpecializationSet.of(["num_rows", "row_stride"])  # that compile least
    wrong = Variant("scale_rows", ALL_ROUND, marks)

    def fault(variant: Variant, shape: Shape) -> Failure | None:
        return Failure(Status.WRONG_OUTPUT, "no") if variant == wrong and shape == SHAPES[1] else None

    done = seen_once.run(space=WIDE, shapes=SHAPES, evaluator=FakeEvaluator(fault, time_us=specialists), trials=40)
    after = [at for variant, at in done.submitted if variant == wrong]
    assert SHAPES[1] in after
    assert wrong not in {winner.variant for winner in done.summary.winners}
