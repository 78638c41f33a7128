"""Kernels as ops for serving engines: joins the op with the winner tables that `tuner.lookup` reads."""

import threading
from collections.abc import Callable, Iterable
from functools import lru_cache, update_wrapper
from pathlib import Path

import torch
import triton

from tuner import settings
from tuner.api import stale_environments, this_device, winner_tables
from tuner.catalog import Kernel, load_kernel
from tuner.records import Shape, Target, Variant
from tuner.records.portfolio import spans
from tuner.runtime import WinnerTable, find
from tuner.runtime.bundle import read_bundle
from tuner.runtime.launcher import active_driver
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
    refused: the op then compiles at warm-up, `op.bundle` says why, and a warning is logged once. Under `$TUNER_STRICT`
    that is a UserError, and so is a call, or a warm-up for one, for which only the baseline is left.

    Winners are read and the GPU is looked for at the first call or warm-up. UnknownNameError for an unknown kernel,
    UserError for one without `op.py`.
    """
    kernel = load_kernel(name)

    def choose(shape: Shape) -> tuple[Step, ...]:
        return chosen(kernel, winner_tables(kernel), shape, *_current_device())

    folder = _folder(bundle)
    held = read_bundle(folder, kernel.name, kernel.source_digest, triton.__version__) if folder else None
    return Op(kernel, choose, held)


def _current_device() -> tuple[str, Target]:
    """Name and target of the GPU that is the current one; as `this_device` without one."""
    if not torch.cuda.is_available():
        return this_device()
    here = active_driver().get_current_target()
    return torch.cuda.get_device_name(), Target(here.backend, str(here.arch))


def chosen(
    kernel: Kernel, tables: tuple[WinnerTable, ...], shape: Shape, device: str, target: Target
) -> tuple[Step, ...]:
    """The variant at every size of the dynamic dimension, as `tuner.lookup` finds it; `shape` has the fixed ones."""
    (dynamic,) = kernel.spec.dynamic_dimensions
    stale = stale_environments(tables)

    def choice_at(size: int) -> tuple[Variant, bool]:
        found = find(tables, Shape({**shape, dynamic: size}), (dynamic,), device, target, stale)
        return (found.variant if found else kernel.spec.baseline_variant), found is not None

    return steps(choice_at, _turning_points([table.group(shape, (dynamic,)) for table in tables], dynamic))


def _turning_points(groups: Iterable[Group], dynamic: str) -> set[int]:
    """Sizes between whose neighbours an answer changes once at most.

    Both sides of wherever a tuned size, its span or a bucket begins or ends; where rows of two tables meet, only one
    change lies between these.
    """
    firsts: set[int] = set()
    for group in groups:
        sizes = [row.shape.size(dynamic) for row in group.rows]
        for each in (*spans(sizes), *(range(size, size + 1) for size in sizes)):
            firsts |= {each.start, each.stop}
        for bucket in group.buckets:
            firsts |= {bucket.first, *([bucket.last + 1] if bucket.last is not None else [])}
    return firsts | {first - 1 for first in firsts}
