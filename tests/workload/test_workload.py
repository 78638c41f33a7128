"""What a workload says of its steps."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_examples import REQUESTS, SETTINGS, built, some_requests, some_settings

from tuner.catalog import content_root
from tuner.errors import UserError
from tuner.records import Shape
from tuner.runtime import read_table
from tuner.runtime.lookup import find
from tuner.workload import Request, Settings, workload_summary


def sized(*sizes: int) -> tuple[Request, ...]:
    """Requests that are each a step of that size."""
    return tuple(Request(index * 1_000_000, size, 1) for index, size in enumerate(sizes))


def test_the_steps_of_a_small_one() -> None:
    workload = built()
    assert workload.histogram == {1: 1, 2: 1, 5: 2, 8: 1}
    assert list(workload.histogram) == [1, 2, 5, 8]
    assert workload.weights() == {1: 0.2, 2: 0.2, 5: 0.4, 8: 0.2}
    assert workload.duration_s == 0.010
    assert [workload.quantile(share) for share in (0, 0.2, 0.21, 0.4, 0.5, 0.8, 0.81, 1)] == [1, 1, 2, 2, 5, 5, 8, 8]


@settings(deadline=None)
@given(some_requests.filter(bool), some_settings())
def test_the_histogram_and_the_weights_cover_all_steps(requests: tuple[Request, ...], limits: Settings) -> None:
    workload = built(requests, limits)
    assert sum(workload.histogram.values()) == len(workload.steps)
    assert sum(workload.weights().values()) == pytest.approx(1)
    assert workload.quantile(1) == max(step.num_tokens for step in workload.steps)


def test_the_first_step_gives_each_request_its_time_to_first_token() -> None:
    """10 tokens need two steps; the third request comes amid the first step and waits for a place until the third."""
    workload = built()
    times = [workload.steps[each.first_step].end_us - each.arrival_us for each in workload.requests]
    assert times == [2000, 2000, 2500, 1000]


def test_no_requests_are_no_workload() -> None:
    with pytest.raises(UserError, match="No requests are left"):
        built(())


def test_nearest_weights_go_to_the_nearest_tuned_size_by_ratio() -> None:
    workload = built(sized(1, 4, 5, 8, 100, 128, 129), Settings(1000, 1))
    # 4 is as far from 1 as from 16; 128 and 129 are at and beyond the reach of 64.
    sevenths = {size: round(share * 7) for size, share in workload.nearest_weights([64, 16, 1, 16]).items()}
    assert sevenths == {1: 2, 16: 2, 64: 2}


def test_nearest_weights_reach_below_the_smallest_size() -> None:
    assert built(sized(7, 8, 9, 16), Settings(1000, 1)).nearest_weights([16]) == {16: 0.75}


@pytest.mark.parametrize("sizes", [[], [0, 16]])
def test_nearest_weights_need_sizes(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="tuned sizes"):
        built().nearest_weights(sizes)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, 300), min_size=1, max_size=5), st.integers(1, 700))
def test_nearest_weights_follow_the_rule_of_lookup(tuned: set[int], size: int) -> None:
    table = read_table(next((content_root() / "db" / "winners").glob("*/*.json")))
    row = table.rows[0]
    rows = [replace(row, shape=Shape({**row.shape, "num_tokens": each})) for each in tuned]
    where = table.environment
    wanted = Shape({**row.shape, "num_tokens": size})
    found = find(
        [replace(table, rows=tuple(rows), portfolio=None)], wanted, ("num_tokens",), where.device, where.target
    )
    expected = dict.fromkeys(sorted(tuned), 0.0)
    if found:
        expected[found.winner.shape.size("num_tokens")] = 1.0
    assert built(sized(size), Settings(1000, 1)).nearest_weights(tuned) == expected


def test_a_summary_counts_ones_and_multiples_of_16() -> None:
    summary = workload_summary(built(sized(1, 1, 16, 32, 17), Settings(1000, 1, 1, 0)))
    assert summary["quantiles"] == {"p1": 1, "p10": 1, "p50": 16, "p90": 32, "p99": 32, "max": 32}
    assert (summary["steps"], summary["requests"], summary["distinct"]) == (5, 5, 4)
    assert (summary["share_of_1"], summary["share_divisible_by_16"]) == (0.4, 0.4)
    assert summary["duration_s"] == 4.001


def test_a_summary_without_a_step_of_one() -> None:
    assert workload_summary(built(REQUESTS[:1], SETTINGS))["share_divisible_by_16"] == 0
    assert workload_summary(built(sized(3), SETTINGS))["share_of_1"] == 0
