"""The contract of the stage after compiling: from a binary to a checked, timed outcome."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tuner.compile.builder import Built
from tuner.processes import Failure
from tuner.ranking import Compiles
from tuner.records import Binary, Environment, Evaluation, Shape, Status, Variant, Winner


@dataclass(frozen=True)
class Contest:
    """A shape to decide: the baseline's evaluation there, which passed, and all others."""

    baseline: Evaluation
    evaluations: Sequence[Evaluation]


@dataclass(frozen=True)
class Rules:
    """What a decision needs beside times: how often a variant compiles, and which source the winners belong to."""

    compiles: Compiles
    source_digest: str


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
    def submit(self, variant: Variant, shape: Shape) -> "Future[Any]":
        """Begin to check (and time) a variant; the result goes to `conclude`."""

    @abstractmethod
    def conclude(self, variant: Variant, shape: Shape, built: Built, result: Any) -> Evaluation:
        """The evaluation that a result stands for; `result` is no Failure."""

    @abstractmethod
    def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[tuple[Shape, Winner | Failure]]:
        """The winner of each shape."""

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
