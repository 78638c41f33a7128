"""Which arms there are, and what runs at each shape in them."""

from dataclasses import replace

import pytest
from kernel_examples import scale_rows_variant
from replay_examples import BASELINE, answer, rows

from tuner.records import SpecializationSet, Variant
from tuner.replay import Arm, make_arms
from tuner.replay.arms import most_used_variant

SMALL, LARGE = scale_rows_variant(1, marks=("num_rows",)), scale_rows_variant(4, marks=("num_rows",))
STEPS = (rows(7), rows(1), rows(1), rows(1), rows(7))
MARKED = replace(BASELINE, specialization=SpecializationSet.of(["num_rows"]))


def arms(baseline: Variant, small_us: float | None = 1.0, large_us: float | None = 2.0) -> dict[str, Arm]:
    answers = {
        rows(1): answer(rows(1), SMALL if small_us else BASELINE, small_us),
        rows(7): answer(rows(7), LARGE if large_us else BASELINE, large_us),
    }
    return {arm.name: arm for arm in make_arms(STEPS, baseline, answers)}


def test_the_baseline_is_played_without_and_with_its_set() -> None:
    found = arms(MARKED)
    assert set(found["none"].variants.values()) == {BASELINE}
    assert set(found["baseline"].variants.values()) == {MARKED}
    assert list(found["none"].variants) == [rows(7), rows(1)]  # as the steps reach them


def test_a_baseline_without_a_set_is_played_once() -> None:
    assert list(arms(BASELINE)) == [
        "none",
        "ours",
        "ours, warmed up",
        "ours, one variant",
        "ours, one variant, warmed up",
    ]


def test_ours_takes_the_answer_for_each_shape() -> None:
    found = arms(MARKED)
    assert found["ours"].variants == {rows(7): LARGE, rows(1): SMALL}
    assert found["ours"].distinct == (LARGE, SMALL)
    assert not found["ours"].warm_up
    assert found["ours, warmed up"].variants == found["ours"].variants
    assert found["ours, warmed up"].warm_up


def test_where_no_winner_answers_the_baseline_runs_in_ours_too() -> None:
    found = arms(MARKED, small_us=None)
    assert found["ours"].variants == {rows(7): LARGE, rows(1): BASELINE}
    assert found["ours, one variant"].distinct == (LARGE,)


def test_without_a_winner_there_is_no_ours() -> None:
    assert list(arms(MARKED, None, None)) == ["none", "baseline"]


def test_one_winner_for_all_shapes_is_one_arm() -> None:
    answers = {shape: answer(shape, SMALL, 1.0) for shape in STEPS}
    assert [arm.name for arm in make_arms(STEPS, BASELINE, answers)] == ["none", "ours", "ours, warmed up"]


@pytest.mark.parametrize(("more", "used"), [(1, SMALL), (7, LARGE)])
def test_the_one_variant_is_the_one_that_most_steps_run(more: int, used: Variant) -> None:
    """However long it takes in each."""
    answers = {rows(1): answer(rows(1), SMALL, 1.0), rows(7): answer(rows(7), LARGE, 1.0)}
    found = {arm.name: arm for arm in make_arms([rows(7), rows(1), rows(more)], MARKED, answers)}
    assert found["ours, one variant"].distinct == (used,)


def test_there_is_no_most_used_variant_without_a_winner() -> None:
    with pytest.raises(ValueError, match="no answer is a winner"):
        most_used_variant(STEPS, {shape: answer(shape, BASELINE, None) for shape in STEPS})
