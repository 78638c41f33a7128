"""Times to first token with stalls: by hand, and against the scheduler run again with the stalls in its steps."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_examples import STEP_US, steps

from tuner.replay.timeline import first_token_us
from tuner.workload import Request, ServedRequest, Settings, schedule

FOUR = steps([1, 1, 1, 1])  # 0 to 400 us


def waits(requests: list[tuple[int, int]], stalls_us: dict[int, float], number: int = 4) -> tuple[float, ...]:
    return first_token_us(FOUR[:number], [ServedRequest(*each) for each in requests], stalls_us)


def test_without_stalls_requests_wait_as_simulated() -> None:
    assert waits([(0, 0), (50, 1), (120, 3)], {}) == (100, 150, 280)


def test_requests_whose_first_token_lies_beyond_the_steps_are_not_counted() -> None:
    assert waits([(0, 0), (50, 1), (120, 3)], {}, number=3) == (100, 150)


def test_a_stall_delays_all_that_wait_while_it_lasts() -> None:
    """Those of the stalled step, those that arrived in it, and a long prompt that began before it and goes on."""
    assert waits([(0, 1), (50, 1), (150, 2), (0, 3)], {1: 1000}) == (1200, 1150, 1150, 1400)


def test_a_stall_delays_none_that_have_their_token() -> None:
    assert waits([(0, 0), (0, 1)], {2: 1000}) == (100, 200)


def test_a_request_that_arrives_during_a_stall_waits_for_the_rest_of_it() -> None:
    """The stall lasts from 100 to 250 us; as simulated the request would have joined the step at 200 us."""
    assert waits([(150, 2)], {0: 150}) == (200,)


def test_a_request_that_arrives_after_a_stall_is_not_delayed() -> None:
    assert waits([(250, 3)], {0: 150}) == waits([(250, 3)], {})


def test_stalls_in_a_row_follow_each_other() -> None:
    """The second lasts from 1200 us, when its own step could end, to 2200 us."""
    assert waits([(0, 0), (0, 1)], {0: 1000, 1: 1000}) == (1100, 2200)
    late = first_token_us(steps([1, 1, 1], [0, 100, 2000]), [ServedRequest(1900, 2)], {0: 1000, 1: 1000})
    assert late == (200 + 200,)


def test_after_a_pause_a_stall_is_over() -> None:
    late = first_token_us(steps([1, 1, 1], [0, 100, 5000]), [ServedRequest(4990, 2)], {0: 1000, 2: 1000})
    assert late == (110 + 1000,)


@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 9)), max_size=20),
    st.dictionaries(st.integers(0, 9), st.floats(0, 5000), max_size=4),
)
def test_a_delay_is_at_most_all_stalls_up_to_the_first_token(
    requests: list[tuple[int, int]], stalls_us: dict[int, float]
) -> None:
    served = [ServedRequest(at, max(first, -(-at // STEP_US))) for at, first in requests]
    ten = steps([1] * 10)
    undelayed = first_token_us(ten, served, {})
    for request, before, after in zip(served, undelayed, first_token_us(ten, served, stalls_us), strict=True):
        known = sum(stall for step, stall in stalls_us.items() if step <= request.first_step)
        assert -1e-6 <= after - before <= known + 1e-6


@dataclass(frozen=True, slots=True)
class Stalling(Settings):
    """An engine whose steps take longer where `stall_us` of their number of tokens says so."""

    stall_us: Callable[[int], int] = lambda num_tokens: 0

    def step_us(self, num_tokens: int) -> int:
        return Settings.step_us(self, num_tokens) + self.stall_us(num_tokens)


def stall_once(number: int) -> Callable[[int], int]:
    """0.4 s in the step of that number; a step asks once for its time, and making the settings once before."""
    asked = [-1]

    def stall_us(num_tokens: int) -> int:
        asked[0] += 1
        return 400_000 if asked[0] == number + 1 else 0

    return stall_us


def test_stalls_cost_about_what_they_cost_in_the_scheduler() -> None:
    """Five requests a second, as in the conversation trace; keeping the steps' composition would delay most of them."""
    draw = random.Random(7)
    arrivals = sorted(draw.randrange(60_000_000) for _ in range(300))
    requests = [Request(at - arrivals[0], draw.randrange(100, 2000), draw.randrange(50, 300)) for at in arrivals]
    plan = schedule(requests, Settings())
    served = [ServedRequest(each.arrival_us, step) for each, step in zip(requests, plan.first_steps, strict=True)]
    undelayed = first_token_us(plan.steps, served, {})
    found_us = true_us = 0.0
    for number in range(0, 1000, 50):
        again = schedule(requests, Stalling(stall_us=stall_once(number)))
        firsts = zip(requests, again.first_steps, strict=True)
        true_us += sum(again.steps[step].end_us - each.arrival_us for each, step in firsts) - sum(undelayed)
        found_us += sum(first_token_us(plan.steps, served, {number: 400_000.0})) - sum(undelayed)
    assert found_us == pytest.approx(true_us, rel=0.25)
