"""The pattern of vLLM's tuned-config files: one file per fixed dimensions and device, keyed by the dynamic size.

Source: vllm/model_executor/layers/fused_moe, `get_config_file_name` and `get_moe_configs`: the name lists `key=value`
pairs, those at their default left out, and ends in `device_name=<name>`; every key of the body but `triton_version` is
an integer, and its value the keywords of a launch. What they cannot hold stands in a file beside it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.export.export import ExportedFile
from tuner.records import Shape, Winner
from tuner.runtime import WinnerTable


def export_vllm(table: WinnerTable, kernel: Kernel) -> list[ExportedFile]:
    """Two files for each combination of fixed dimensions; UserError for a kernel without num_tokens."""
    return config_files(table, kernel, {"triton_version": table.environment.triton})


def config_files(table: WinnerTable, kernel: Kernel, head: Mapping[str, str]) -> list[ExportedFile]:
    """Launch keywords by size, after `head`; and by size, in a file that ends in `.variants.json`, the rest."""
    dynamic = _key_dimension(table)
    groups: dict[str, dict[int, Winner]] = {}
    for row in table.rows:
        fixed = kernel.spec.short_label(Shape({name: value for name, value in row.shape.items() if name != dynamic}))
        groups.setdefault(fixed, {})[row.shape.size(dynamic)] = row
    files = []
    for fixed, by_size in groups.items():
        name = ",".join(filter(None, [table.kernel, fixed, f"device_name={_device_name(table)}"]))
        rows = {str(size): row for size, row in sorted(by_size.items())}
        keywords = {size: _keywords(row) for size, row in rows.items()}
        files.append(ExportedFile(f"{name}.json", _text({**head, **keywords})))
        files.append(ExportedFile(f"{name}.variants.json", _text({size: _rest(row) for size, row in rows.items()})))
    return files


def _key_dimension(table: WinnerTable) -> str:
    if all("num_tokens" in row.shape for row in table.rows):
        return "num_tokens"
    raise UserError(
        f"{table.kernel} has no dimension num_tokens, by which such files are keyed.", hint="Export as json or yaml."
    )


def _device_name(table: WinnerTable) -> str:
    where = table.environment
    return re.sub(r"[^A-Za-z0-9-]+", "_", where.device or f"{where.target} {where.evidence}")


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=4) + "\n"


def _keywords(row: Winner) -> dict[str, Any]:
    """What can be passed to the launch of the row's implementation, for the machine code that was measured."""
    return {**row.variant.config.parameters, **row.variant.config.options, "enable_fp_fusion": True}


def _rest(row: Winner) -> dict[str, Any]:
    """Which function the keywords are for, how it is decorated, and what stands behind the choice."""
    marks = row.variant.specialization
    return {
        "implementation": row.variant.config.implementation,
        "do_not_specialize": list(marks.do_not_specialize),
        "do_not_specialize_on_alignment": list(marks.do_not_specialize_on_alignment),
        "evidence": str(row.environment.evidence),
        "environment": row.environment.label,
        "median_us": row.timing.median_us,
        "speedup": asdict(row.speedup),
        "reason": row.reason,
    }
