"""`tuner show`: winners against the baseline."""

from typing import Annotated

import typer

from tuner.cli.options import DatabaseOption, JsonOption, database, find_kernel, print_json, terminal


def show(
    kernel: Annotated[str | None, typer.Argument(metavar="KERNEL", help="Only this kernel.")] = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the stored winners beside the baseline, one table per kernel, source and environment.

    Times carry half their quartile range, speedups their 95% interval; estimates are marked as such.

    Example:

        tuner show fused_inv_rope_fp8_quant
    """
    from tuner.api import tables_of
    from tuner.report import winner_table
    from tuner.store import Store

    name = find_kernel(kernel).name if kernel else None
    with Store.open(database(db), read_only=True) as store:
        tables = tables_of(store.winners(name))
    if as_json:
        print_json([table.to_json() for table in tables])
        return
    console = terminal()
    if not tables:
        console.print("No winners are stored yet. `tuner run KERNEL` finds some.")
    for table in tables:
        console.print(winner_table(table.rows))
