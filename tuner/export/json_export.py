"""The winner table itself, as JSON: what `tuner.lookup` reads back."""

import json

from tuner.catalog import Kernel
from tuner.export.export import ExportedFile
from tuner.runtime import WinnerTable


def export_json(table: WinnerTable, _kernel: Kernel) -> list[ExportedFile]:
    """One file for all shapes."""
    return [ExportedFile(f"{table.kernel}.json", json.dumps(table.to_json(), indent=2) + "\n")]
