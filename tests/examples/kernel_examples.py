"""Kernels to try things on: `scale_rows`, and edited copies of any kernel's folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tuner.records import Config, FrozenMapping, SpecializationSet, Variant

# What the kernel of `scale_rows` computes, once in its source: for copies that compute something else.
DOUBLED = "x.to(tl.float32) * 2"
SCALE_ROWS = Path(__file__).parent / "scale_rows"


def scale_rows_variant(
    block_rows: int = 1, num_warps: int = 1, marks: tuple[str, ...] = (), on_alignment: tuple[str, ...] = ()
) -> Variant:
    config = Config("rows", FrozenMapping(BLOCK_ROWS=block_rows), FrozenMapping(num_warps=num_warps))
    return Variant("scale_rows", config, SpecializationSet.of(marks, on_alignment))


def copy_kernel(folder: Path, parent: Path, edits: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """A copy of a kernel's folder in `parent` with one piece of text replaced in each of the named files."""
    copy = parent / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in (edits or {}).items():
        text = (copy / name).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        (copy / name).write_text(text.replace(old, new))
    return copy
