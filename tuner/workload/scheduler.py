"""Simulates continuous batching with chunked prefill, as vLLM v1 schedules it, at the level of token counts. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import UserError
from tuner.workload.requests import Request

LONGEST_TIME = 1e9
ASSUMPTIONS = (
    "A step takes step_base_ms + step_token_us * num_tokens: a simple model of a large model on one node of 8 GPUs, "
    "not a measurement.",
    "The KV cache always has room: no request is preempted or waits for memory.",
    "There is no prefix cache and no speculative decoding: each prompt token and each output token but a request's "
    "last is computed once.",
    "Requests are served first come, first served, and keep the arrival times of the trace.",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's limits and how long a step takes: `step_base_ms` and `step_token_us` for each of its tokens.

    The limits default to those of vLLM's API server on a GPU with 70 GiB or more. UserError for values out of range.
    """

    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    step_base_ms: float = 20.0
    step_token_us: float = 15.0

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1:
            raise UserError(f"max_num_seqs is {self.max_num_seqs}; expected at least 1.")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise UserError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; expected at least max_num_seqs, "
                f"{self.max_num_seqs}.",
                hint="A step must have room for one token of each running request.",
            )
        for name in ("step_base_ms", "step_token_us"):
            if not 0 <= getattr(self, name) <= LONGEST_TIME:
                raise UserError(f"{name} is {getattr(self, name)}; expected a time from 0 to {LONGEST_TIME:g}.")
        if self.step_us(1) < 1:
            raise UserError("A step of one token takes no time; expected a microsecond at least.")

    def step_us(self, num_tokens: int) -> int:
        """How long a step takes, in whole microseconds."""
        return round(self.step_base_ms * 1000 + self.step_token_us * num_tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step: when it starts, in microseconds after the first arrival, and what it computes."""

    start_us: int
    duration_us: int
    num_tokens: int

    @property
    def end_us(self) -> int:
        """When its tokens are there."""
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps, and for each request the index of the step that gives its first token."""

    steps: tuple[Step, ...]
    first_steps: tuple[int, ...]


def schedule(requests: Sequence[Request], settings: Settings) -> Schedule:
    """Serve the requests, which are in order of arrival, until the last one ends.

    In each step every decoding request takes one token. What is left of `max_num_batched_tokens` goes to prompts in
    order of arrival, up to `max_num_seqs` running requests, and the last one may get a part only. At most one prompt is
    therefore unfinished, that of the first request without a first token, and decoding requests need only be counted.
    """
    steps: list[Step] = []
    first_steps: list[int] = []
    ending: Counter[int] = Counter()  # how many requests decode no more from a step on
    prompt_left = [each.prompt_tokens for each in requests]
    decoding = now_us = 0
    while True:
        decoding -= ending.pop(len(steps), 0)
        if not decoding:
            if len(first_steps) == len(requests):
                return Schedule(tuple(steps), tuple(first_steps))
            now_us = max(now_us, requests[len(first_steps)].arrival_us)
        budget = settings.max_num_batched_tokens - decoding
        while (
            budget
            and decoding < settings.max_num_seqs
            and (head := len(first_steps)) < len(requests)
            and requests[head].arrival_us <= now_us
        ):
            chunk = min(budget, prompt_left[head])
            budget -= chunk
            prompt_left[head] -= chunk
            if not prompt_left[head]:
                first_steps.append(len(steps))
                ending[len(steps) + requests[head].output_tokens] += 1
                decoding += 1
        num_tokens = settings.max_num_batched_tokens - budget
        step = Step(now_us, settings.step_us(num_tokens), num_tokens)
        steps.append(step)
        now_us = step.end_us
