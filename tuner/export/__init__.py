"""Writes a winner table in the format that a reader expects; one file per format."""

from enum import StrEnum

from tuner.catalog import Kernel
from tuner.export.export import ExportedFile, Exporter
from tuner.export.json_export import export_json
from tuner.export.sglang_export import export_sglang
from tuner.export.vllm_export import export_vllm
from tuner.export.yaml_export import export_yaml
from tuner.runtime import WinnerTable

__all__ = ["ExportedFile", "Format", "export"]


class Format(StrEnum):
    """The formats that winners can be exported in."""

    JSON = "json"
    YAML = "yaml"
    VLLM = "vllm"
    SGLANG = "sglang"
    PYTHON = "python"


def _export_python(table: WinnerTable, kernel: Kernel) -> list[ExportedFile]:
    from tuner.export.python_export import export_python

    return export_python(table, kernel)


_EXPORTERS: dict[Format, Exporter] = {
    Format.JSON: export_json,
    Format.YAML: export_yaml,
    Format.VLLM: export_vllm,
    Format.SGLANG: export_sglang,
    Format.PYTHON: _export_python,
}


def export(table: WinnerTable, chosen: Format, kernel: Kernel) -> list[ExportedFile]:
    """The files of a format, of the table of a kernel; UserError when the format cannot hold it."""
    return _EXPORTERS[chosen](table, kernel)
