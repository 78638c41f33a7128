"""Kernels as ops for serving engines: joins the op with the winner tables that `tuner.lookup` reads."""

import threading
from collections.abc import Callable, Iterable
from functools import lru_cache, update_wrapper
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
from tuner.runtime.table import Group


class _OnePerProcess:
    """Keeps the op of each kernel and folder of bundles, however they are named."""

    __wrapped__: Callable[..., Op]

    def __init__(self, load: Callable[[str, Path | None], Op]) -> None:
        self._kept = lru_cache(maxsize=64)(load)
        self._loading = threading.Lock()
        self.cache_clear = self._kept.cache_clear
        update_wrapper(self, load)

    def __call__(self, name: str, bundle: str | Path | None = None) -> Op:
        folder = _folder(bundle)
        with self._loading:
            return self._kept(name, folder.absolute() if folder else None)


def _folder(bundle: str | Path | None) -> Path | None:
    return Path(bundle) if bundle is not None else settings.bundle_path()


@_OnePerProcess
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

    folder = _folder(bundle)
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

    return steps(variant_at, _turning_points([table.group(shape, (dynamic,)) for table in tables], dynamic))


def _turning_points(groups: Iterable[Group], dynamic: str) -> set[int]:
    """Sizes between whose neighbours an answer changes once at most: tuned ones, their reach, ends of buckets."""
    points: set[int] = set()
    for group in groups:
        sizes = [row.shape.size(dynamic) for row in group.rows]
        for size in sizes:
            reach = int(size * REACH)
            points |= {size - 1, size, size + 1, reach, reach + 1, int(size / REACH), int(size / REACH) + 1}
        for bucket in group.buckets:
            points |= {bucket.first, *([bucket.last + 1] if bucket.last is not None else [])}
    return points
