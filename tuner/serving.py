"""Kernels as ops for serving engines: joins the op with the winner tables that `tuner.lookup` reads."""

from functools import lru_cache
from pathlib import Path

import triton

from tuner import settings
from tuner.api import this_device, winner_tables
from tuner.catalog import Kernel, load_kernel
from tuner.records import Shape, Target, Variant
from tuner.records.portfolio import REACH
from tuner.runtime import WinnerTable, find
from tuner.runtime.bundle import read_bundle
from tuner.runtime.op import Op
from tuner.runtime.steps import Step, steps


@lru_cache(maxsize=64)
def load_op(name: str, bundle: str | Path | None = None) -> Op:
    """The op of a kernel, with the variants that `tuner.lookup` answers; one per process.

    `bundle` is the folder that `tuner prebuild` wrote, by default `$TUNER_BUNDLE`: its binaries are loaded instead of
    compiled, and at its shapes its variants run. One for another Triton version, GPU or source, or a damaged one, is
    refused: the op then compiles at warm-up, `op.bundle` says why, and a warning is logged once.

    Winners are read and the GPU is looked for at the first call or warm-up. UnknownNameError for an unknown kernel,
    UserError for one without `op.py`.
    """
    kernel = load_kernel(name)

    def choose(shape: Shape) -> tuple[Step, ...]:
        return chosen(kernel, winner_tables(kernel), shape, *this_device())

    folder = Path(bundle) if bundle is not None else settings.bundle_path()
    held = read_bundle(folder, kernel.name, kernel.source_digest, triton.__version__) if folder else None
    return Op(kernel, choose, held)


def chosen(
    kernel: Kernel, tables: tuple[WinnerTable, ...], shape: Shape, device: str, target: Target
) -> tuple[Step, ...]:
    """The variant at every size of the dynamic dimension, as `tuner.lookup` finds it; `shape` has the fixed ones."""
    (dynamic,) = kernel.spec.dynamic_dimensions

    def variant_at(size: int) -> Variant:
        found = find(tables, Shape({**shape, dynamic: size}), (dynamic,), device, target)
        return found.variant if found else kernel.spec.baseline_variant

    return steps(variant_at, _turning_points(tables, dynamic))


def _turning_points(tables: tuple[WinnerTable, ...], dynamic: str) -> set[int]:
    """Sizes between whose neighbours an answer changes once at most: tuned ones, their reach, ends of buckets."""
    points: set[int] = set()
    for table in tables:
        sizes = [row.shape.size(dynamic) for row in table.rows]
        for size in sizes:
            reach = int(size * REACH)
            points |= {size - 1, size, size + 1, reach, reach + 1, int(size / REACH), int(size / REACH) + 1}
        for bucket in table.portfolio.buckets if table.portfolio else ():
            points |= {bucket.first, *([bucket.last + 1] if bucket.last is not None else [])}
    return points
