"""At which shapes a variant compiles, and why."""

import pytest
from kernel_examples import scale_rows_variant
from replay_examples import KERNEL, rows

from tuner.records import DEFAULT_TARGET
from tuner.replay.causes import Change, compile_causes

pytestmark = pytest.mark.triton

SIZES = (17, 5, 1, 32, 0, 16, 3)


def causes(marks: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> dict[int, list[str]]:
    found = compile_causes(KERNEL, scale_rows_variant(marks=marks), map(rows, sizes), DEFAULT_TARGET)
    return {shape.size("num_rows"): [change.label for change in changes] for shape, changes in found.items()}


def test_each_class_compiles_where_it_comes_first() -> None:
    assert causes(()) == {
        17: [],
        1: ["num_rows: i32 -> = 1"],
        32: ["num_rows: i32 -> i32, divisible by 16"],
    }


def test_a_marked_argument_compiles_once() -> None:
    assert causes(("num_rows",)) == {17: []}


def test_a_change_is_told_against_the_nearest_compile_before() -> None:
    """Columns are a constant of the kernel, and a stride."""
    shapes = [KERNEL.spec.shape({"num_rows": size, "columns": columns}) for size, columns in ((5, 8), (1, 16), (5, 16))]
    found = compile_causes(KERNEL, scale_rows_variant(), shapes, DEFAULT_TARGET)
    stride = Change("row_stride", "i32", "i32, divisible by 16")
    columns = Change("COLUMNS", "= 8", "= 16")
    assert found[shapes[1]] == (Change("num_rows", "i32", "= 1"), stride, columns)
    assert found[shapes[2]] == (Change("num_rows", "= 1", "i32"),)
