"""`tuner import`: a winner table back into a store."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from tuner.catalog import kernel_names, load_kernel
from tuner.cli.options import DatabaseOption, database, terminal
from tuner.errors import TableError
from tuner.runtime import WinnerTable, read_table
from tuner.runtime.table import check_table


def import_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A winner table, JSON or YAML.")],
    db: DatabaseOption = None,
) -> None:
    """Read the winners of a table that `tuner export-config` wrote into a store.

    A winner that a run into this store found for the same kernel, source, environment and shape stays, with its
    samples; one that was imported makes way, unless it has more of them. What was measured on the way to the winners is
    in no table: an export from the store then makes its portfolio of these alone.

    Example:

        tuner import winners.json
    """
    from tuner.store import Store

    table = _read(file)
    kernel = load_kernel(table.kernel) if table.kernel in kernel_names() else None
    if kernel and kernel.source_digest == table.source_digest:
        check_table(table, kernel, file)
    with Store.open(database(db)) as store:
        stored = store.adopt_winners(table.rows)
    console = terminal()
    console.print(f"{stored} winners of {table.kernel}, {table.environment.label}", markup=False)
    if left := len(table.rows) - stored:
        console.print(f"{left} others in the table were left: the store has them, or has better founded ones.")
    if kernel and kernel.source_digest != table.source_digest:
        console.print(f"They are of source {table.source_digest}, not of the one here: no lookup will use them.")


def _read(path: Path) -> WinnerTable:
    if path.suffix not in (".yaml", ".yml"):
        return read_table(path)
    try:
        return WinnerTable.from_json(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TableError(f"{path} cannot be read: {error}.") from error
    except TableError as error:
        raise TableError(f"{path}: {error.message}", hint=error.hint) from error
