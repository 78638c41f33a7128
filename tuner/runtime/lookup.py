"""Answers which variant to run at a shape, from tables in memory. Pure: the same tables give the same answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tuner.records import Config, Evidence, Shape, SpecializationSet, Target, Variant, Winner
from tuner.runtime.table import WinnerTable

# Beyond the first and last tuned size, a neighbour's winner is trusted up to this factor.
_REACH = 2.0


class Origin(StrEnum):
    """Where an answer came from."""

    EXACT = "exact"
    BUCKET = "bucket"
    FAMILY = "family"
    BASELINE = "baseline"


@dataclass(frozen=True)
class Lookup:
    """The variant to run at a shape, where it came from and what stands behind it.

    `winner` is None for the baseline. `stale` says in what the winner's versions differ from those here, as far as
    these are known without loading torch or Triton; empty when they do not. Another device shows in `origin`.
    """

    variant: Variant
    shape: Shape
    origin: Origin
    winner: Winner | None
    explanation: str
    stale: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """Implementation, parameters and compile options."""
        return self.variant.config

    @property
    def specialization(self) -> SpecializationSet:
        """The arguments that must not be specialized."""
        return self.variant.specialization

    @property
    def evidence(self) -> Evidence | None:
        """Measured or estimated; None for the baseline."""
        return self.winner.environment.evidence if self.winner else None


def find(
    tables: Iterable[WinnerTable], shape: Shape, dynamic: Sequence[str], device: str, target: Target
) -> tuple[Winner, Origin] | None:
    """The winner to use at a shape; None when only the baseline is left.

    A measurement comes before any estimate. Among equals: the same device before others of its architecture, the exact
    shape before a bucket, the first table before later ones.
    """
    rows = [(table.environment, row) for table in tables for row in table.rows]
    for evidence in Evidence:
        known = [(where, row) for where, row in rows if where.evidence is evidence and where.target == target]
        here = [row for where, row in known if where.device == (device if evidence is Evidence.MEASURED else "")]
        for candidates, exact, bucket in (
            (here, Origin.EXACT, Origin.BUCKET),
            ([row for _, row in known], Origin.FAMILY, Origin.FAMILY),
        ):
            for row in candidates:
                if row.shape == shape:
                    return row, exact
            near = _nearest(candidates, shape, dynamic)
            if near is not None:
                return near, bucket
    return None


def _nearest(rows: Iterable[Winner], shape: Shape, dynamic: Sequence[str]) -> Winner | None:
    """The row whose dynamic dimension is nearest by ratio, all other dimensions being equal.

    Between two tuned sizes either neighbour may be nearest; outside them only one within the trusted reach.
    """
    same = [row for row in rows if _fixed(row.shape, dynamic) == _fixed(shape, dynamic)]
    if not same or len(dynamic) != 1:
        return None
    name = dynamic[0]
    wanted = shape.size(name)
    sizes = [row.shape.size(name) for row in same]
    if wanted < 1 or wanted > max(sizes) * _REACH or wanted * _REACH < min(sizes):
        return None
    return min(same, key=lambda row: (_ratio(row.shape.size(name), wanted), row.shape.size(name)))


def _fixed(shape: Shape, dynamic: Sequence[str]) -> dict[str, int | str]:
    return {name: value for name, value in shape.items() if name not in dynamic}


def _ratio(first: int, second: int) -> float:
    low, high = sorted((first, second))
    return high / low if low else float("inf")
