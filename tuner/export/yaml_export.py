"""The winner table as YAML, for people and for configuration that lives in YAML."""

import yaml

from tuner.catalog import Kernel
from tuner.export.export import ExportedFile
from tuner.runtime import WinnerTable


def export_yaml(table: WinnerTable, _kernel: Kernel) -> list[ExportedFile]:
    """One file for all shapes."""
    return [ExportedFile(f"{table.kernel}.yaml", yaml.safe_dump(table.to_json(), sort_keys=False, width=120))]
