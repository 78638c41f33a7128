"""The simulated engine: a case worked by hand, a scheduler that follows each request, and what must always hold."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from workload_examples import REQUESTS, SETTINGS, some_requests, some_settings

from tuner.errors import UserError
from tuner.workload import Request, Settings, schedule

Test = Callable[[tuple[Request, ...], Settings], None]


def cases(test: Test) -> Callable[[], None]:
    return settings(deadline=None)(given(some_requests, some_settings())(test))


@dataclass
class Followed:
    """A request in the scheduler below: `computed` counts the tokens that it was given."""

    request: Request
    computed: int = 0
    first_step: int | None = None

    @property
    def wanted(self) -> int:
        """What it can take: the rest of its prompt, or the token it decoded last."""
        return max(self.request.prompt_tokens - self.computed, 1)

    @property
    def ended(self) -> bool:
        return self.computed == self.request.prompt_tokens + self.request.output_tokens - 1


def follow_each(requests: tuple[Request, ...], limits: Settings) -> tuple[list[list[int]], list[int], list[Followed]]:
    """The tokens that each running request gets in each step, when the steps start, and the requests, as vLLM's loop
    over its two queues has it."""
    everyone = [Followed(each) for each in requests]
    waiting, running = list(everyone), list[Followed]()
    given_tokens: list[list[int]] = []
    starts: list[int] = []
    now = 0
    while waiting or running:
        if not running:
            now = max(now, waiting[0].request.arrival_us)
        budget, given_now = limits.max_num_batched_tokens, list[int]()
        for each in running:
            given_now.append(min(each.wanted, budget))
            budget -= given_now[-1]
        while budget and waiting and waiting[0].request.arrival_us <= now and len(running) < limits.max_num_seqs:
            running.append(waiting.pop(0))
            given_now.append(min(running[-1].wanted, budget))
            budget -= given_now[-1]
        for each, count in zip(running, given_now, strict=True):
            each.computed += count
            if each.first_step is None and each.computed >= each.request.prompt_tokens:
                each.first_step = len(starts)
        starts.append(now)
        given_tokens.append(given_now)
        now += limits.step_us(sum(given_now))
        running = [each for each in running if not each.ended]
    return given_tokens, starts, everyone


def test_a_case_worked_by_hand() -> None:
    """The first prompt takes a step and a part of the next; the third waits for a place; the last finds no one."""
    plan = schedule(REQUESTS, SETTINGS)
    assert [step.num_tokens for step in plan.steps] == [8, 5, 5, 2, 1]
    assert [step.start_us for step in plan.steps] == [0, 1000, 2000, 3000, 9000]
    assert plan.first_steps == (1, 1, 2, 4)


def test_no_requests_need_no_steps() -> None:
    assert schedule((), SETTINGS).steps == ()


@cases
def test_it_agrees_with_a_scheduler_that_follows_each_request(requests: tuple[Request, ...], limits: Settings) -> None:
    tokens, starts, followed = follow_each(requests, limits)
    plan = schedule(requests, limits)
    assert [step.num_tokens for step in plan.steps] == [sum(each) for each in tokens]
    assert [step.start_us for step in plan.steps] == starts
    assert list(plan.first_steps) == [each.first_step for each in followed]


@cases
def test_each_prompt_and_output_token_is_scheduled_once(requests: tuple[Request, ...], limits: Settings) -> None:
    """But a request's last output token, which ends it."""
    computed = sum(step.num_tokens for step in schedule(requests, limits).steps)
    assert computed == sum(each.prompt_tokens + each.output_tokens - 1 for each in requests)


@cases
def test_the_limits_hold(requests: tuple[Request, ...], limits: Settings) -> None:
    plan = schedule(requests, limits)
    assert all(1 <= step.num_tokens <= limits.max_num_batched_tokens for step in plan.steps)
    lives = [
        range(first_step, first_step + each.output_tokens)
        for each, first_step in zip(requests, plan.first_steps, strict=True)
    ]
    for index in range(len(plan.steps)):
        assert sum(index in life for life in lives) <= limits.max_num_seqs


@cases
def test_nothing_is_served_before_it_arrives(requests: tuple[Request, ...], limits: Settings) -> None:
    """By the end of a step no more prompt tokens are computed than had arrived when it started."""
    plan = schedule(requests, limits)
    computed = 0
    for index, step in enumerate(plan.steps):
        decoded = sum(
            first_step < index < first_step + each.output_tokens
            for each, first_step in zip(requests, plan.first_steps, strict=True)
        )
        computed += step.num_tokens - decoded
        assert computed <= sum(each.prompt_tokens for each in requests if each.arrival_us <= step.start_us)
    assert all(
        plan.steps[first_step].start_us >= each.arrival_us
        for each, first_step in zip(requests, plan.first_steps, strict=True)
    )


@cases
def test_first_tokens_come_in_order_of_arrival(requests: tuple[Request, ...], limits: Settings) -> None:
    first_steps = schedule(requests, limits).first_steps
    assert list(first_steps) == sorted(first_steps)


@cases
def test_the_clock_only_jumps_to_an_arrival(requests: tuple[Request, ...], limits: Settings) -> None:
    steps = schedule(requests, limits).steps
    arrivals = {each.arrival_us for each in requests}
    assert all(step.duration_us == limits.step_us(step.num_tokens) for step in steps)
    assert all(
        after.start_us == before.end_us or (after.start_us > before.end_us and after.start_us in arrivals)
        for before, after in pairwise(steps)
    )


@cases
def test_the_same_requests_give_the_same_steps(requests: tuple[Request, ...], limits: Settings) -> None:
    assert schedule(requests, limits) == schedule(list(requests), limits)


def test_a_step_takes_a_base_and_a_time_per_token() -> None:
    assert Settings(step_base_ms=20, step_token_us=15.5).step_us(1001) == 20_000 + 15_516


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0; expected at least 1"),
        ({"max_num_batched_tokens": 7, "max_num_seqs": 8}, "expected at least max_num_seqs, 8"),
        ({"step_base_ms": -1.0}, "step_base_ms is -1.0; expected a time from 0"),
        ({"step_token_us": float("nan")}, "step_token_us is nan"),
        ({"step_base_ms": 1e308}, "step_base_ms is 1e+308"),
        ({"step_base_ms": 0.0, "step_token_us": 0.0}, "takes no time"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings(**wrong)
    assert told in str(caught.value)
