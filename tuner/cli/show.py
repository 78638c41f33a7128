"""`tuner show`: winners against the baseline, and those that do not hold any more."""

from typing import Annotated

import typer

from tuner.cli.options import DatabaseOption, JsonOption, database, find_kernel, print_json, terminal


def show(
    kernel: Annotated[str | None, typer.Argument(metavar="KERNEL", help="Only this kernel.")] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only winners that do not hold for this machine or this source, and why.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the stored winners beside the baseline, one table per kernel, source and environment.

    Times carry half their quartile range, speedups their 95% interval; estimates are marked as such. Winners are stale
    when they come from another source of the kernel, device or version than is here; the table, and `stale` in the
    JSON, then says which.

    Example:

        tuner show fused_inv_rope_fp8_quant

        tuner show --stale
    """
    from tuner.api import tables_of
    from tuner.report import stale_reasons, stale_table, winner_table
    from tuner.store import Store

    found = find_kernel(kernel) if kernel else None
    with Store.open(database(db), read_only=True) as store:
        tables = tables_of(store.winners(found.name if found else None))
    judged = [(table, stale_reasons(table, found)) for table in tables]
    shown = [(table, reasons) for table, reasons in judged if reasons or not stale]
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
