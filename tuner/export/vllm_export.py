"""The pattern of vLLM's tuned-config files: one file per fixed dimensions and device, keyed by the dynamic size.

Source: vllm/model_executor/layers/fused_moe, `get_config_file_name` and `get_moe_configs`: the name lists
`key=value` pairs and ends in `device_name=<name>`; every key of the body but `triton_version` is an integer.
"""

import json
import re
from typing import Any

from tuner.errors import UserError
from tuner.export.export import ExportedFile
from tuner.records import Winner
from tuner.runtime import WinnerTable


def export_vllm(table: WinnerTable) -> list[ExportedFile]:
    """One file for each combination of fixed dimensions; UserError for a kernel without num_tokens."""
    dynamic = _key_dimension(table)
    files: dict[str, dict[int, Winner]] = {}
    for row in table.rows:
        fixed = ",".join(f"{name}={value}" for name, value in row.shape.items() if name != dynamic)
        files.setdefault(fixed, {})[row.shape.size(dynamic)] = row
    device = f"device_name={_device_name(table)}"
    return [
        ExportedFile(",".join(filter(None, [table.kernel, fixed, device])) + ".json", _body(table, rows))
        for fixed, rows in files.items()
    ]


def _key_dimension(table: WinnerTable) -> str:
    if all("num_tokens" in row.shape for row in table.rows):
        return "num_tokens"
    raise UserError(
        f"{table.kernel} has no dimension num_tokens, by which vLLM's files are keyed.", hint="Export as json or yaml."
    )


def _device_name(table: WinnerTable) -> str:
    where = table.environment
    return re.sub(r"[^A-Za-z0-9-]+", "_", where.device or f"{where.target} {where.evidence}")


def _body(table: WinnerTable, rows: dict[int, Winner]) -> str:
    body: dict[str, Any] = {"triton_version": table.environment.triton}
    body.update({str(size): _config(row) for size, row in sorted(rows.items())})
    return json.dumps(body, indent=4) + "\n"


def _config(row: Winner) -> dict[str, Any]:
    config, marks = row.variant.config, row.variant.specialization
    return {
        "implementation": config.implementation,
        **config.parameters,
        **config.options,
        "evidence": str(row.environment.evidence),
        "do_not_specialize": list(marks.do_not_specialize),
        "do_not_specialize_on_alignment": list(marks.do_not_specialize_on_alignment),
    }
