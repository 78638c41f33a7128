"""The pattern of SGLang's tuned-config files: vLLM's, in a folder for each Triton version and without a key for it."""

from dataclasses import replace

from tuner.catalog import Kernel
from tuner.export.export import ExportedFile
from tuner.export.vllm_export import config_files
from tuner.runtime import WinnerTable


def export_sglang(table: WinnerTable, kernel: Kernel) -> list[ExportedFile]:
    """The files of each Triton version in its folder; UserError for a kernel without num_tokens."""
    found = []
    for version in sorted({row.environment.triton for row in table.rows}):
        rows = tuple(row for row in table.rows if row.environment.triton == version)
        folder = f"configs/triton_{version.replace('.', '_')}"
        found += [
            replace(file, name=f"{folder}/{file.name}") for file in config_files(replace(table, rows=rows), kernel, {})
        ]
    return found
