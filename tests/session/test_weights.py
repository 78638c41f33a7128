"""How often shapes occur, and the sizes over which compiles are counted."""

from dataclasses import replace

import pytest
from session_fakes import KERNEL, SHAPES

from tuner.errors import UserError
from tuner.records import Shape
from tuner.session.weights import counted_shapes, shape_weights
from tuner.workload import Request, Settings, Source, Workload, build_workload


def workload(*sizes: int) -> Workload:
    """One prompt of each size after the other, and so one step of each."""
    requests = tuple(Request(number * 10_000, size, 1) for number, size in enumerate(sizes))
    built = build_workload("chat", requests, Settings(512, 1, 1.0, 0.0), Source("t.csv", "00", ""), "tuner")
    return replace(built, dimension="num_rows")


def test_without_a_workload_shapes_weigh_the_same() -> None:
    assert shape_weights(SHAPES, None) == dict.fromkeys(SHAPES, 0.5)


def test_a_shape_weighs_the_steps_near_it() -> None:
    found = shape_weights(SHAPES, workload(2, 3, 4, 60, 500))
    assert found == pytest.approx({SHAPES[0]: 0.6, SHAPES[1]: 0.2})  # 500 is beyond the reach of 64
    assert list(found) == list(SHAPES)


def test_groups_of_fixed_dimensions_weigh_the_same() -> None:
    shapes = (*SHAPES, Shape(num_rows=64, columns=256))
    found = shape_weights(shapes, workload(3, 3, 3, 64))
    assert found == pytest.approx({shapes[0]: 0.375, shapes[1]: 0.125, shapes[2]: 0.125})


def test_a_workload_that_is_nowhere_near_is_refused() -> None:
    with pytest.raises(UserError, match="No step of the workload chat is near") as caught:
        shape_weights(SHAPES, workload(400, 500))
    assert "tuner workload show chat" in caught.value.hint


def test_compiles_are_counted_over_the_sizes_beside_each_group_of_shapes() -> None:
    shapes = (*SHAPES, Shape(num_rows=5, columns=256))
    assert counted_shapes(KERNEL, shapes, None) == shapes
    found = counted_shapes(KERNEL, shapes, workload(7, 3, 7))
    more = [Shape(num_rows=7, columns=128), Shape(num_rows=3, columns=256), Shape(num_rows=7, columns=256)]
    assert found == (*shapes, *more)
