"""How often each size of a dynamic dimension occurs in serving, step by step."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from tuner.errors import UserError
from tuner.records.portfolio import spans
from tuner.workload.requests import Request
from tuner.workload.scheduler import ASSUMPTIONS, Settings, Step, schedule


@dataclass(frozen=True)
class Source:
    """The trace: its file's name and SHA-256, and who made it, under which licence."""

    file: str
    sha256: str
    attribution: str

    @classmethod
    def of(cls, path: Path, attribution: str) -> "Source":
        """The source that is the file at this path."""
        return cls(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), attribution)


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """When a request arrives, in microseconds after the first one, and the step at whose end its first token is there.

    It waits or is being prefilled in each step up to that one that ends after its arrival: a stall in any of these adds
    to its time to first token.
    """

    arrival_us: int
    first_step: int


@dataclass(frozen=True)
class Workload:
    """The engine steps of a simulated service, each with its size of `dimension`; its requests in order of arrival.

    `command` builds it again from the source, `settings` and `assumptions` say how the steps were simulated.
    """

    name: str
    dimension: str
    steps: tuple[Step, ...]
    requests: tuple[ServedRequest, ...]
    settings: Settings
    source: Source
    command: str
    assumptions: tuple[str, ...]

    @cached_property
    def histogram(self) -> Mapping[int, int]:
        """How many steps have each size, smallest size first."""
        return dict(sorted(Counter(step.num_tokens for step in self.steps).items()))

    def weights(self) -> dict[int, float]:
        """The share of the steps that have each size, smallest size first; they add up to 1."""
        return {size: count / len(self.steps) for size, count in self.histogram.items()}

    def nearest_weights(self, tuned: Iterable[int]) -> dict[int, float]:
        """The share of the steps for which each of the tuned sizes is the nearest by ratio, the smaller one on a tie.

        That is the size whose winner `tuner.lookup` gives. Steps at more than twice the largest or less than half the
        smallest size are beyond its reach and count for none, so that the shares may add up to less than 1. ValueError
        for no sizes or one below 1.
        """
        sizes = sorted(set(tuned))
        if not sizes or sizes[0] < 1:
            raise ValueError("expected tuned sizes of at least 1")
        return {
            size: sum(count for each, count in self.histogram.items() if each in span) / len(self.steps)
            for size, span in zip(sizes, spans(sizes), strict=True)
        }

    def quantile(self, share: float) -> int:
        """The smallest size that at least this share of the steps, between 0 and 1, does not exceed."""
        totals = zip(self.histogram, accumulate(self.histogram.values()), strict=True)
        return next(size for size, total in totals if total >= share * len(self.steps))

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the end of the last step."""
        return self.steps[-1].end_us / 1e6


def build_workload(
    name: str, requests: Sequence[Request], settings: Settings, source: Source, command: str
) -> Workload:
    """The steps in which an engine serves the requests, which are in order of arrival. UserError for no requests."""
    if not requests:
        raise UserError("No requests are left to serve.", hint="Raise the limits on requests and duration.")
    plan = schedule(requests, settings)
    served = tuple(
        ServedRequest(each.arrival_us, first_step) for each, first_step in zip(requests, plan.first_steps, strict=True)
    )
    return Workload(name, "num_tokens", plan.steps, served, settings, source, command, ASSUMPTIONS)
