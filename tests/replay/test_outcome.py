"""From what was played to compiles, stalls and times to first token."""

import pytest
from replay_examples import rows, workload

from tuner.records import Shape
from tuner.replay import Outcome, Spread
from tuner.replay.causes import Change
from tuner.replay.outcome import judged
from tuner.replay.player import Build, Played

CHANGE = Change("num_rows", "i32", "= 1")
SIZES = (5, 1, 5, 7)


def outcome(host_s: tuple[float, ...], *builds: Build, warm_up_s: float = 0.0) -> Outcome:
    """Requests that arrive first and after 250 us get their tokens at 100 and 400 us."""
    served = workload([*SIZES, 9], [(0, 0), (250, 3), (300, 4)])
    shapes = tuple(map(rows, SIZES))
    kernel_us = {rows(5): 10.0, rows(1): 1.0, rows(7): 100.0}
    causes: dict[Shape, tuple[Change, ...]] = {rows(5): (), rows(1): (CHANGE,)}
    return judged(served, shapes, Played(host_s, builds, warm_up_s, kernel_us), causes)


def build(step: int | None, size: int, *, cached: bool = False) -> Build:
    return Build(step, rows(size), 0.04, cached)


def test_a_stall_is_what_a_call_that_builds_takes_beyond_the_others() -> None:
    """The others take 1 and 2 ms, of which the median is the smaller."""
    found = outcome((0.05, 0.04, 0.001, 0.002), build(0, 5), build(1, 1))
    assert found.steady_ms == 1.0
    assert found.stalls_ms == {0: 49.0, 1: 39.0}
    assert found.stall_ms == 88.0
    assert (found.call_ms.p50, found.call_ms.max) == (2.0, 50.0)


def test_a_binary_from_the_disk_cache_stalls_but_is_no_compile() -> None:
    found = outcome((0.05, 0.02, 0.001, 0.001), build(0, 5), build(1, 1, cached=True))
    assert found.stalls_ms == {0: 49.0, 1: 19.0}
    assert [each.build.step for each in found.compiles] == [0]


def test_a_call_that_builds_faster_than_the_others_is_no_stall() -> None:
    assert outcome((0.001, 0.002, 0.002, 0.002), build(0, 5)).stalls_ms == {0: 0.0}


def test_the_compiles_of_the_warm_up_are_kept_apart() -> None:
    found = outcome((0.001,) * 4, build(None, 5), build(None, 1), warm_up_s=0.3)
    assert found.step_compiles == ()
    assert len(found.compiles) == 2
    assert (found.warm_up_s, found.stall_ms, found.delayed) == (0.3, 0.0, 0)


def test_compiles_say_why_or_that_they_were_not_foreseen() -> None:
    found = outcome((0.05, 0.05, 0.05, 0.05), build(0, 5), build(1, 1), build(3, 7))
    assert [each.changes for each in found.compiles] == [(), (CHANGE,), None]


def test_kernel_time_is_that_of_every_step() -> None:
    assert outcome((0.001,) * 4).kernel_ms == pytest.approx(0.121)


def test_requests_are_delayed_by_the_stalls_they_wait_through() -> None:
    """The first by 49 ms, the second by what is left of it when it could join a step; the third is beyond the steps."""
    found = outcome((0.05, 0.001, 0.001, 0.001), build(0, 5))
    assert (found.first_token_ms.max, found.first_token_ms.p50) == (49.1, pytest.approx(48.95))
    assert found.delayed == 2


def test_a_delay_of_less_than_ten_milliseconds_is_not_counted() -> None:
    assert outcome((0.0109, 0.001, 0.001, 0.001), build(0, 5)).delayed == 0
    assert outcome((0.0111, 0.001, 0.001, 0.001), build(0, 5)).delayed == 1


def test_quantiles_are_values_that_occur() -> None:
    assert Spread.of([4.0, 1.0, 2.0, 3.0]) == Spread(2.0, 4.0, 4.0, 4.0, 2.5)
    assert Spread.of([float(each) for each in range(1, 201)]) == Spread(100, 180, 198, 200, 100.5)
    assert Spread.of([]) == Spread(0, 0, 0, 0, 0)
