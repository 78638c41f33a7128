"""What serving costs under single variants, and which of them no other one beats."""

import pytest
import store_examples
from hypothesis import given
from hypothesis import strategies as st

from tuner.ranking import Point, Tradeoff, pareto_front, pareto_points
from tuner.records import Evaluation, Shape, Status, Variant

FIRST, SECOND = store_examples.shape(64), store_examples.shape(512)


def timed(number: int, shape: Shape, median_us: float) -> Evaluation:
    variant = store_examples.variant(number)
    return Evaluation(variant, shape, Status.PASSED, timing=store_examples.timing(median_us))


def point(number: int, kernel_us: float, compiles: int) -> Point:
    return Point(store_examples.variant(number), kernel_us, compiles)


def test_times_are_weighted_and_only_variants_with_a_time_everywhere_count() -> None:
    failed = Evaluation(store_examples.variant(2), SECOND, Status.WRONG_OUTPUT)
    elsewhere = timed(1, store_examples.shape(7), 1.0)
    found = [timed(1, FIRST, 10.0), timed(2, FIRST, 1.0), timed(1, SECOND, 40.0), timed(3, SECOND, 1.0), failed]
    assert pareto_points([*found, elsewhere], {FIRST: 0.6, SECOND: 0.2}, lambda variant: 4) == [point(1, 17.5, 4)]


def test_weights_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        pareto_points([], {FIRST: 0.0}, lambda variant: 1)


def test_the_front_trades_time_for_compiles() -> None:
    quick, cheap, between, beaten = point(1, 10.0, 4), point(2, 13.0, 1), point(3, 11.0, 2), point(4, 11.5, 2)
    assert pareto_front([cheap, beaten, quick, between]) == [quick, between, cheap]
    assert pareto_front([point(5, 10.0, 4), quick]) == [point(5, 10.0, 4)]  # equal: the one that comes first
    assert pareto_front([]) == []


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12))
def test_no_point_of_the_front_is_beaten_and_every_other_one_is(drawn: list[tuple[int, int]]) -> None:
    candidates = [point(number, float(time), compiles) for number, (time, compiles) in enumerate(drawn)]
    front = pareto_front(candidates)

    def beats(one: Point, other: Point) -> bool:
        return one.kernel_us <= other.kernel_us and one.compiles <= other.compiles

    assert not any(beats(one, other) for one in front for other in front if one is not other)
    assert all(any(beats(one, other) for one in front) for other in candidates)


def test_a_step_is_kernel_stall_and_launch() -> None:
    baseline = store_examples.variant(1)
    found = (point(1, 10.0, 4), point(2, 12.0, 1), point(3, 13.0, 2))
    tradeoff = Tradeoff(found, baseline, compile_s=0.5, steps=100_000, host_us=27.5, workload=None)
    assert tradeoff.front == list(found[:2])
    assert tradeoff.baseline_point == found[0]
    assert [tradeoff.stall_s(each) for each in found] == [2.0, 0.5, 1.0]
    assert [tradeoff.stall_us(each) for each in found] == [20.0, 5.0, 10.0]
    assert [tradeoff.step_us(each) for each in found] == [57.5, 44.5, 50.5]
    other = Variant("other", baseline.config)
    assert Tradeoff(found, other, 0.5, 100_000, 27.5, None).baseline_point is None
