"""Proposes variants for one shape: suggests what to evaluate next and learns what came of it."""

from abc import ABC, abstractmethod
from enum import StrEnum

from tuner.records import Variant

# One value for each objective, each to be made small.
Cost = tuple[float, ...]


class Method(StrEnum):
    """How variants are proposed."""

    TPE = "tpe"
    RANDOM = "random"
    GRID = "grid"


class Search(ABC):
    """Suggests each variant of a space at most once, and only those that meet the constraints.

    A search knows no GPU, no store and no clock: results reach it through `update`, whoever obtained them.
    """

    @abstractmethod
    def suggest(self) -> Variant | None:
        """A variant that was neither suggested nor told before; None when the space is exhausted."""

    @abstractmethod
    def update(self, variant: Variant, cost: Cost | None) -> None:
        """Learn what a variant costs, or None when it did not pass.

        Variants that were never suggested are learnt too: that is how a resumed run begins.
        """
