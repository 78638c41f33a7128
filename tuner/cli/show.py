"""`tuner show`: winners against the baseline, and those that do not hold any more."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import DatabaseOption, JsonOption, database, find_kernel, print_json, terminal
from tuner.errors import UserError
from tuner.records.portfolio import REGRET_BOUND

if TYPE_CHECKING:
    from tuner.catalog import Kernel
    from tuner.runtime import WinnerTable
    from tuner.store import Store
    from tuner.workload import Workload

BoundOption = Annotated[
    float,
    typer.Option(metavar="SHARE", help="How much slower than the winner the portfolio may be at a tuned shape."),
]
WorkloadOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A workload that weighs the shapes (see `tuner workload list`), or its path."),
]


def show(
    kernel: Annotated[str | None, typer.Argument(metavar="KERNEL", help="Only this kernel.")] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only winners that do not hold for this machine or this source, and why.")
    ] = False,
    portfolio: Annotated[
        bool, typer.Option("--portfolio", help="How few variants stay close to all winners, and which to take.")
    ] = False,
    bound: BoundOption = REGRET_BOUND,
    workload: WorkloadOption = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the stored winners beside the baseline, one table per kernel, source and environment.

    Times carry half their quartile range, speedups their 95% interval; estimates are marked as such. Winners are stale
    when they come from another source of the kernel, device or version than is here; the table, and `stale` in the
    JSON, then says which.

    `--portfolio` shows what fewer variants than winners would cost: for each number of variants the least possible
    regret (the share by which the slowest shape is slower than its own winner), what they compile, and their mean time
    over the shapes, which weigh the same or as in the workload. The fewest within `--bound` are chosen, as
    `tuner export-config` does.

    Example:

        tuner show fused_inv_rope_fp8_quant

        tuner show --portfolio --workload azure_conversation

        tuner show --stale
    """
    from tuner.api import tables_of
    from tuner.report import stale_reasons, stale_table, winner_table
    from tuner.store import Store
    from tuner.workload import load_workload

    if not portfolio and (workload is not None or bound != REGRET_BOUND):
        raise UserError("--workload and --bound are about the portfolio.", hint="Add --portfolio.")

    found = find_kernel(kernel) if kernel else None
    weights = load_workload(workload) if workload else None
    with Store.open(database(db), read_only=True) as store:
        tables = tables_of(store.winners(found.name if found else None))
        judged = [(table, stale_reasons(table, found)) for table in tables]
        shown = [(table, reasons) for table, reasons in judged if reasons or not stale]
        if portfolio and shown:
            _show_portfolios(store, shown, found, bound, weights, as_json)
            return
    if as_json:
        print_json([{**table.to_json(), "stale": list(reasons)} for table, reasons in shown])
        return
    console = terminal()
    if not tables:
        console.print("No winners are stored yet. `tuner run KERNEL` finds some.")
    elif not shown:
        console.print("No stored winner is stale: each is of this machine, these versions and its kernel's source.")
    for table, reasons in shown:
        console.print((stale_table if stale else winner_table)(table.rows, reasons))


def _show_portfolios(
    store: "Store",
    shown: Sequence[tuple["WinnerTable", tuple[str, ...]]],
    found: "Kernel | None",
    bound: float,
    workload: "Workload | None",
    as_json: bool,
) -> None:
    from tuner.consolidation import consolidate
    from tuner.report import portfolio_report, portfolio_tables

    console, reports = terminal(), []
    for table, reasons in shown:
        kernel, consolidation = _kernel_of(table, found), None
        if kernel is not None:
            evaluations = store.evaluations(kernel.name, kernel.source_digest, table.environment)
            consolidation = consolidate(kernel, table, evaluations, bound, workload)
        if as_json:
            reports.append({**portfolio_report(table, consolidation), "stale": list(reasons)})
        elif consolidation:
            for each in portfolio_tables(table, consolidation):
                console.print(each)
        else:
            where = f"{table.kernel} on {table.environment.label}"
            console.print(f"{where} has no portfolio: {'; '.join(reasons)}.", markup=False)
    if as_json:
        print_json(reports)


def _kernel_of(table: "WinnerTable", found: "Kernel | None") -> "Kernel | None":
    """The kernel whose winners a table holds; None where it is not found, or its source is another one now."""
    from tuner.catalog import load_kernel

    try:
        kernel = found or load_kernel(table.kernel)
    except UserError:
        return None
    return kernel if kernel.source_digest == table.source_digest else None
