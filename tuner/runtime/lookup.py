"""Answers which variant to run at a shape, from tables in memory. Pure: the same tables give the same answer."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral

from tuner.errors import UserError
from tuner.records import (
    Config,
    DimensionValue,
    Environment,
    Evidence,
    Portfolio,
    Shape,
    SpecializationSet,
    Target,
    Variant,
    Winner,
)
from tuner.records.portfolio import spans
from tuner.runtime.table import WinnerTable


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


@dataclass(frozen=True)
class Found:
    """The tuned row that answers a shape and where it came from.

    `portfolio` is the one of the row's table that has a variant for the shape; None where there is none.
    """

    winner: Winner
    origin: Origin
    variant: Variant
    portfolio: Portfolio | None


def plain(values: Mapping[str, DimensionValue]) -> dict[str, DimensionValue]:
    """The values as a spec takes them: whole numbers of any type, also True and NumPy's, as an int."""
    return {name: int(value) if isinstance(value, Integral) else value for name, value in values.items()}


def no_winner(kernel: str, shape: Shape, where: object) -> UserError:
    """What is told under `$TUNER_STRICT` where only the baseline is left."""
    return UserError(
        f"{kernel} has no winner at {shape.label} for {where}.",
        hint=f"Run `tuner run {kernel}`, or unset TUNER_STRICT to get the baseline.",
    )


def find(
    tables: Iterable[WinnerTable],
    shape: Shape,
    dynamic: Sequence[str],
    device: str,
    target: Target,
    stale: Collection[Environment] = (),
) -> Found | None:
    """The variant to use at a shape and the row behind it; None when only the baseline is left.

    A measurement comes before any estimate. Among equals: the same device before others of its architecture, whatever
    is not `stale` before what is, the exact shape before a bucket, the first table before later ones. The variant is
    that of the table's portfolio, also at a tuned shape, so that a server compiles no more than the portfolio; without
    a portfolio it is the row's own.
    """
    rows = [(table, row) for table in tables for row in table.neighbours(shape, dynamic)]
    for evidence in Evidence:
        known = [each for each in rows if _is_of(each[0], evidence, target)]
        wanted = device if evidence is Evidence.MEASURED else ""
        here = [each for each in known if each[0].environment.device == wanted]
        for candidates, exact, bucket in (
            (here, Origin.EXACT, Origin.BUCKET),
            (known, Origin.FAMILY, Origin.FAMILY),
        ):
            current = [each for each in candidates if each[0].environment not in stale]
            for among in (current, candidates) if len(current) < len(candidates) else (candidates,):
                for table, row in among:
                    if row.shape == shape:
                        return _found(table, row, exact, shape)
                near = _nearest(among, shape, dynamic)
                if near is not None:
                    return _found(*near, bucket, shape)
    return None


def _is_of(table: WinnerTable, evidence: Evidence, target: Target) -> bool:
    return table.environment.evidence is evidence and table.environment.target == target


def _found(table: WinnerTable, row: Winner, origin: Origin, shape: Shape) -> Found:
    variant = table.bucket_variant(shape)
    return Found(row, origin, variant or row.variant, table.portfolio if variant else None)


def _nearest(
    rows: Sequence[tuple[WinnerTable, Winner]], shape: Shape, dynamic: Sequence[str]
) -> tuple[WinnerTable, Winner] | None:
    """The table and row that stand for a shape's size, of the neighbours of the shape in each table; see `spans`."""
    if not rows or len(dynamic) != 1:
        return None
    name = dynamic[0]
    wanted = shape.size(name)
    by_size = {row.shape.size(name): (table, row) for table, row in reversed(rows)}  # the first one of a size is kept
    sizes = sorted(by_size)
    return next((by_size[size] for size, span in zip(sizes, spans(sizes), strict=True) if wanted in span), None)
