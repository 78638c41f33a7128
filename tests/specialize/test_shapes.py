"""The shapes that stand for the steps."""

import pytest
from specialize_examples import FUSED, NORM

from tuner.compile.classes import class_table
from tuner.records import DEFAULT_TARGET, SpecializationSet
from tuner.specialize import looked_at
from tuner.specialize.shapes import Representatives
from tuner.workload import Workload

pytestmark = pytest.mark.triton
BOTH = SpecializationSet.of(["num_tokens", "scale_stride_block"])


@pytest.fixture(scope="module")
def fused(conversation: Workload) -> Representatives:
    scope = looked_at(FUSED, [], conversation)
    return Representatives(class_table(FUSED, FUSED.spec.baseline, scope.shares, DEFAULT_TARGET), scope)


def sizes(found: Representatives, marks: SpecializationSet) -> list[int]:
    return [shape.size("num_tokens") for shape in found.changed_by(marks)]


def test_three_are_shared_where_marks_change_most_and_each_lost_class_has_one(fused: Representatives) -> None:
    """p50, p90 and the largest are 27, 259 and 8192; only at multiples of 16 do both sizes lose a class."""
    assert sizes(fused, SpecializationSet.of(["fp8_stride_group"])) == [32, 272, 8192]
    assert sizes(fused, SpecializationSet.of(["num_tokens"])) == [1, 32, 272, 8192]
    assert sizes(fused, SpecializationSet.of([], ["num_tokens"])) == [32, 272, 8192]
    assert sizes(fused, SpecializationSet.of(["scale_stride_block"])) == [32, 272, 8192]
    assert fused.changed_by(SpecializationSet.of(["NOPE_DIM"])) == {}


def test_a_set_has_one_more_for_each_combination_of_lost_classes(fused: Representatives) -> None:
    alone, *others = [size for size in sizes(fused, BOTH) if size not in (1, 32, 272, 8192)]
    assert (others, alone % 16 in (13, 14, 15)) == ([], True)


def test_shares_say_for_how_many_steps_each_stands(fused: Representatives, conversation: Workload) -> None:
    weights = conversation.weights()
    found = {shape.size("num_tokens"): shares for shape, shares in fused.changed_by(BOTH).items()}
    assert sum(near for near, _ in found.values()) == pytest.approx(1)
    assert sum(changed for _, changed in found.values()) == pytest.approx(
        sum(share for size, share in weights.items() if size == 1 or -size % 16 < 4)
    )
    assert found[1][1] == pytest.approx(weights[1])
    alone = next(size for size in found if -size % 16 in (1, 2, 3))
    assert found[alone][1] == pytest.approx(sum(share for size, share in weights.items() if -size % 16 in (1, 2, 3)))


def test_steps_fall_to_a_shape_with_the_same_fixed_dimensions_that_loses_the_same() -> None:
    """Rows 3 apart have no class to lose, so that no shape with them stands for a step, whatever is marked."""
    scope = looked_at(NORM, [{"row_padding": padding, "num_tokens": n} for padding in (64, 3) for n in range(1, 129)])
    found = Representatives(class_table(NORM, NORM.spec.baseline, scope.shares, DEFAULT_TARGET), scope)
    stride = found.changed_by(SpecializationSet.of(["x_row_stride"]))
    assert {shape["row_padding"] for shape in stride} == {64}
    assert sum(changed for _, changed in stride.values()) == pytest.approx(0.5)
    both = found.changed_by(SpecializationSet.of(["num_tokens", "x_row_stride"]))
    odd = sum(changed for shape, (_, changed) in both.items() if shape["row_padding"] == 3)
    assert odd == pytest.approx((1 + 8) / 128 / 2)
    assert sum(changed for _, changed in both.values()) == pytest.approx(0.5 + (1 + 8) / 128 / 2)
