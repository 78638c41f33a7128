"""A table's portfolio and what it was chosen from, for people and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.markup import escape
from rich.table import Table

from tuner.consolidation import Consolidation
from tuner.ranking import Assignment
from tuner.records import Evidence
from tuner.runtime import WinnerTable


def portfolio_tables(table: WinnerTable, found: Consolidation) -> Iterator[Table]:
    """For each combination of fixed dimensions the curve of regret by variants, and the buckets of the chosen ones."""
    portfolio = found.portfolio
    for chosen in found.assignments:
        weighed = f"weighed by {found.workload}" if found.workload else "of equal weight"
        title = [
            f"{table.kernel} on {table.environment.label}",
            chosen.buckets(portfolio.dynamic)[0].fixed.label,
            f"regret of at most {portfolio.bound:.2%}, shapes {weighed}",
        ]
        estimated = table.environment.evidence is Evidence.ESTIMATED
        yield _curve_table("\n".join(filter(None, title)), found.curve(chosen), chosen, estimated=estimated)
        yield _bucket_table(table, chosen, portfolio.dynamic)


def portfolio_report(table: WinnerTable, found: Consolidation | None) -> dict[str, Any]:
    """The table with its portfolio as plain data, and the points of its curves; regrets are shares.

    None for a table that can have none: there are no curves then.
    """
    if found is None:
        return {**table.to_json(), "workload": None, "curves": []}
    dynamic = found.portfolio.dynamic
    curves = [
        {
            "fixed": dict(chosen.buckets(dynamic)[0].fixed),
            "points": [_point_report(point, chosen) for point in found.curve(chosen)],
        }
        for chosen in found.assignments
    ]
    return {**replace(table, portfolio=found.portfolio).to_json(), "workload": found.workload, "curves": curves}


def _point_report(point: Assignment, chosen: Assignment) -> dict[str, Any]:
    return {
        "variants": point.count,
        "regret": point.regret,
        "compiles": point.compiles,
        "expected_us": point.expected_us,
        "chosen": point is chosen,
    }


def _curve_table(title: str, points: Sequence[Assignment], chosen: Assignment, *, estimated: bool) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for name in ("variants", "largest regret", "compiles", "mean, estimated us" if estimated else "mean, us"):
        table.add_column(name, justify="right")
    table.add_column("")
    for point in points:
        numbers = (str(point.count), f"{point.regret:.2%}", str(point.compiles), f"{point.expected_us:.2f}")
        table.add_row(*numbers, "chosen" if point is chosen else "")
    return table


def _bucket_table(table: WinnerTable, chosen: Assignment, dynamic: str) -> Table:
    """One row for each bucket: its sizes, the tuned ones among them, the largest regret at these, its variant."""
    shown = Table(title="Buckets of the chosen variants", title_justify="left")
    for name in (dynamic, "tuned at", "regret"):
        shown.add_column(name, justify="right")
    shown.add_column("variant", overflow="fold")
    shown.add_column("do_not_specialize", overflow="fold")
    for bucket in chosen.buckets(dynamic):
        cells = [cell for cell in chosen.cells if bucket.holds(cell.shape, dynamic)]
        shown.add_row(
            f"{bucket.first} to {bucket.last}",
            ", ".join(str(cell.shape[dynamic]) for cell in cells),
            f"{max(cell.regret(bucket.variant) for cell in cells):.2%}",
            "baseline" if bucket.variant == table.rows[0].baseline else bucket.variant.config.label,
            bucket.variant.specialization.label,
        )
    return shown
