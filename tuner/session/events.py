"""What a run tells whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.records import Environment, Evaluation, Shape, Winner
from tuner.session.machine_code import Dropped


@dataclass(frozen=True)
class WaitingForDevice:
    """Another run has the GPU; this one begins when it is free."""


@dataclass(frozen=True)
class RunStarted:
    """`planned` evaluations are wanted in all; `stored` of them were finished by earlier runs."""

    environment: Environment
    planned: int
    stored: int


@dataclass(frozen=True)
class CandidateDropped:
    """A specialization candidate is not searched: no set needs it."""

    dropped: Dropped


@dataclass(frozen=True)
class WarmStarting:
    """Configs are compiled, so that those of the best estimates are tried first."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation was stored; `best_us` is the lowest median at its shape so far, None while nothing passed."""

    evaluation: Evaluation
    best_us: float | None


@dataclass(frozen=True)
class SpaceExhausted:
    """Nothing is left to try at a shape; `missing` planned evaluations will not happen."""

    shape: Shape
    missing: int


@dataclass(frozen=True)
class FinalStarted:
    """Nothing more is searched; winners are decided at so many shapes."""

    shapes: int


@dataclass(frozen=True)
class FinalStep:
    """So many of the final's timings are done."""

    done: int
    total: int


@dataclass(frozen=True)
class WinnerChosen:
    """The winner of a shape was stored."""

    winner: Winner


@dataclass(frozen=True)
class ShapeSkipped:
    """A shape has no winner, and why."""

    shape: Shape
    reason: str


Event = (
    WaitingForDevice
    | RunStarted
    | CandidateDropped
    | WarmStarting
    | Evaluated
    | SpaceExhausted
    | FinalStarted
    | FinalStep
    | WinnerChosen
    | ShapeSkipped
)
Listener = Callable[[Event], None]
