"""The contract of the stage after compiling: from a binary to a checked, timed outcome."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tuner.compile.builder import Built
from tuner.processes import Failure
from tuner.ranking import Compiles, Stalls, no_stall
from tuner.records import Binary, Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.session.events import FinalStep


@dataclass(frozen=True)
class Contest:
    """A shape to decide: the baseline's evaluation there, which passed, and all others that may win."""

    baseline: Evaluation
    evaluations: Sequence[Evaluation]


@dataclass(frozen=True)
class Rules:
    """What a decision needs beside times.

    How often a variant compiles, the source that winners belong to, the shapes that the winner of a shape may serve
    and must be right at, when to stop (monotonic seconds), the stalls that count, and what stays where nothing
    displaces the baseline: None for the baseline itself, else the same machine code under another set.
    """

    compiles: Compiles
    source_digest: str
    served: Callable[[Shape], Sequence[Shape]]
    deadline: float = math.inf
    stall_us: Stalls = no_stall
    kept: Variant | None = None


@dataclass(frozen=True)
class Undecided:
    """A shape without a winner, and why."""

    shape: Shape
    failure: Failure


# What deciding yields: winners, shapes without one, finalists that failed at a shape that they may serve, and how far
# it is.
Decision = Winner | Undecided | Evaluation | FinalStep


class Evaluator(ABC):
    """Checks and times built variants in worker processes of its own."""

    environment: Environment
    # Jobs that may be under way at once.
    capacity: int

    @abstractmethod
    def sharing_key(self, variant: Variant, shape: Shape, binary: Binary) -> Hashable:
        """Variants with the same key share one result."""

    @abstractmethod
    def stored_result(self, evaluation: Evaluation) -> Any | None:
        """The result that a stored evaluation came from, for others to share; None when it cannot serve them."""

    @abstractmethod
    def submit(self, variant: Variant, shape: Shape, leader: Evaluation | None) -> "Future[Any]":
        """Begin to check (and time) a variant; the result goes to `conclude`. `leader`: the fastest there so far."""

    @abstractmethod
    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Any) -> Evaluation:
        """The evaluation that a result stands for; `result` is no Failure."""

    @abstractmethod
    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
        """A winner of each shape, or why there is none, and whatever else turned out on the way."""

    @abstractmethod
    def decide_s(self, shapes: int) -> float:
        """Seconds that deciding so many shapes is expected to take."""

    @abstractmethod
    def recover(self, failure: Failure) -> None:
        """Make the workers usable again after a failure."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""

    @staticmethod
    def failed(variant: Variant, shape: Shape, failure: Failure, built: Built | None = None) -> Evaluation:
        """The evaluation of a variant that ended before it had a time."""
        if failure.status is Status.PASSED:
            raise ValueError("a failure cannot have passed")
        return Evaluation(variant, shape, failure.status, failure.log, built.binary if built else None)
