"""Compiles ahead what calls up to a size can reach, in threads: Triton lets go of the interpreter lock meanwhile."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.records import DimensionValue, Variant
from tuner.runtime.binaries import Need, reached
from tuner.runtime.dispatch import Plan, Plans
from tuner.runtime.launcher import Launcher, interpreting, whole_parses

T = TypeVar("T")
R = TypeVar("R")
_MAX_THREADS = 8


@dataclass(frozen=True)
class Warmed:
    """One binary that was compiled, or taken from Triton's cache or a bundle (`prebuilt`), and loaded.

    `general`: it assumes nothing of alignment, so that it serves every call for which there is no other.
    `first_size` is the smallest size that reaches it, `seconds` what it took.
    """

    variant: Variant
    first_size: int
    general: bool
    prebuilt: bool
    seconds: float


@dataclass(frozen=True)
class WarmupReport:
    """What a warm-up compiled; empty when everything was there."""

    binaries: tuple[Warmed, ...]
    seconds: float

    def __str__(self) -> str:
        """A line for each binary, and one for all."""
        lines = [
            f"{each.seconds:6.2f} s  {'any call' if each.general else f'from {each.first_size} on'}: "
            f"{each.variant.config.label}; do_not_specialize: {each.variant.specialization.label}"
            f"{'; prebuilt' if each.prebuilt else ''}"
            for each in self.binaries
        ]
        return "\n".join([*lines, f"{self.seconds:6.2f} s  {len(self.binaries)} binaries"])


def warm_up(
    plans: Plans,
    device: torch.device | None,
    dimensions: Mapping[str, DimensionValue],
    largest: int,
    strides: Mapping[str, int],
) -> WarmupReport:
    """Load what sizes 1 to `largest` reach and is not loaded yet; see `Op.warmup`."""
    (dynamic,) = plans.kernel.spec.dynamic_dimensions
    if dynamic in dimensions:
        raise UserError(f"{dynamic} is the dimension that changes.", hint="Give its bound as max_num_tokens.")
    start = time.perf_counter()
    plan = plans.of(device, dimensions)
    binaries = _load_all(plans.kernel, plan, largest, strides)
    return WarmupReport(tuple(binaries), time.perf_counter() - start)


def _load_all(kernel: Kernel, plan: Plan, largest: int, strides: Mapping[str, int]) -> list[Warmed]:
    launchers = {each.calls: each for each in plan.launchers if isinstance(each, Launcher)}
    calls_at = {id(launcher): calls for calls, launcher in launchers.items()}
    needs = (
        reached(kernel, plan.shape, lambda size: calls_at[id(plan.launcher(size))], largest, strides)
        if not interpreting()  # there are no binaries then
        else []
    )
    missing = [(launchers[need.calls], need) for need in needs if not launchers[need.calls].has(need.key)]
    binaries = [each for each in in_threads(lambda each: _load(*each), missing) if each]
    for need in needs:
        launchers[need.calls].warm = True
    if any(launchers[need.calls].instead for need in needs):  # the baseline now runs where these did
        binaries += _load_all(kernel, plan, largest, strides)
    return binaries


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What a function that compiles returns for each item, in order."""
    with whole_parses, ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        return list(threads.map(work, items))


def _load(launcher: Launcher, need: Need) -> Warmed | None:
    """None where the binary cannot be loaded."""
    start = time.perf_counter()
    prebuilt = launcher.load(need.key, *need.values)
    if not launcher.has(need.key):
        return None
    return Warmed(launcher.variant, need.size, need.general, prebuilt, time.perf_counter() - start)
