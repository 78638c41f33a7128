"""Which launcher serves a call: by its fixed dimensions a plan, in the plan by the size of the dynamic dimension."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor

from tuner import settings
from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.records import DimensionValue, Shape, Variant
from tuner.runtime.binaries import Arguments
from tuner.runtime.bundle import Bundle, Refused
from tuner.runtime.launcher import InterpretedLauncher, Launcher, active_driver, interpreting, launcher, on_device
from tuner.runtime.lookup import no_winner, plain
from tuner.runtime.steps import Step

# The size at which a plan looks at a kernel's arguments; any other would do.
_EXAMPLE_SIZE = 16
_log = logging.getLogger("tuner")
Empty = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor]


Choose = Callable[[Shape], tuple[Step, ...]]


class NoLauncher:
    """Stands where only the baseline is left and `$TUNER_STRICT` is set: UserError in each call."""

    compiles = prebuilt = fallbacks = 0
    instead = None

    def __init__(self, kernel: Kernel, shape: Shape, device: torch.device) -> None:
        self._kernel = kernel
        self._shape = shape
        self._device = device

    def launch(self, size: int, *_: Any) -> NoReturn:
        """UserError."""
        (dynamic,) = self._kernel.spec.dynamic_dimensions
        raise no_winner(self._kernel.name, Shape({**self._shape, dynamic: size}), self._device)


AnyLauncher = Launcher | InterpretedLauncher | NoLauncher


class Plan:
    """What serves every call with the same fixed dimensions on one device.

    `empty(size, strides, dtype)` allocates an output there; the device must be the current one. Where a variant cannot
    be compiled or loaded, the baseline runs; under `$TUNER_STRICT` nothing but winners does.
    """

    __slots__ = ("_firsts", "_launchers", "empty", "shape")

    def __init__(
        self,
        kernel: Kernel,
        shape: Shape,
        variants: tuple[Step, ...],
        device: torch.device,
        bundle: Bundle | None = None,
    ) -> None:
        self.shape = shape
        self.empty = _empty(device)
        strict = settings.is_strict()
        baseline = cache(lambda: _launcher(kernel, shape, kernel.spec.baseline_variant, device, bundle))

        @cache
        def made(variant: Variant, tuned: bool) -> AnyLauncher:
            if strict and not tuned:
                return NoLauncher(kernel, shape, device)
            if variant == kernel.spec.baseline_variant:
                return baseline()
            return _launcher(kernel, shape, variant, device, bundle, None if strict else baseline)

        self._launchers = [made(step.variant, step.tuned) for step in variants]
        self._firsts = [step.first for step in variants[1:]]

    def at(self, size: int) -> Callable[..., None]:
        """The function that launches at a size of the dynamic dimension; see `Launcher.launch`."""
        return self._launchers[bisect_right(self._firsts, size)].launch

    def launcher(self, size: int) -> Launcher | InterpretedLauncher:
        """The launcher at a size of the dynamic dimension; UserError where there is to be none."""
        found = self._launchers[bisect_right(self._firsts, size)]
        if isinstance(found, NoLauncher):
            found.launch(size)
        return found.instead or found

    @property
    def launchers(self) -> tuple[AnyLauncher, ...]:
        """Each launcher once, also those that run instead of others."""
        return tuple(dict.fromkeys(one for each in self._launchers for one in (each, each.instead) if one))


class Plans(dict[Hashable, Plan]):
    """The plans of one kernel, by whatever its host function takes as key: all that must be checked only once.

    `latest` is key and plan of the latest call: calls are mostly like the one before, and to compare their keys costs
    less than to look for one. `bundle`: where binaries come from, or why they are all compiled; None where no bundle
    was named. For the fixed dimensions that it has it also says which variants run, and `choose` for all others.
    """

    def __init__(self, kernel: Kernel, choose: Choose, bundle: Bundle | Refused | None = None) -> None:
        super().__init__()
        self.latest: tuple[Hashable, Plan | None] = (None, None)  # one value, so that no thread sees half a change
        self.kernel = kernel
        self._choose = choose
        self.bundle = (bundle.refused_for(kernel.spec) or bundle) if isinstance(bundle, Bundle) else bundle
        if isinstance(self.bundle, Refused):
            _tell(self.bundle)
        self._by_dimensions: dict[tuple[Shape, torch.device], Plan] = {}

    def add(self, key: Hashable, device: torch.device, dimensions: Mapping[str, DimensionValue]) -> Plan:
        """Make the plan of a key; UserError for dimensions that the kernel does not take, or another device.

        Two threads that come at once make one plan each, of which one is kept.
        """
        found = self.setdefault(key, self.of(device, dimensions))
        self.latest = (key, found)
        return found

    def known(self, key: Hashable) -> Plan | None:
        """The plan of a key that was added, which is then the latest; None for another key."""
        found = self.get(key)
        if found is not None:
            self.latest = (key, found)
        return found

    def of(self, device: torch.device | None, dimensions: Mapping[str, DimensionValue]) -> Plan:
        """The plan for fixed dimensions on a device, by default the current one."""
        spec = self.kernel.spec
        if len(spec.dynamic_dimensions) != 1:
            raise UserError(f"{spec.name} cannot be called as an op: expected exactly one dynamic dimension.")
        shape = spec.shape({**plain(dimensions), spec.dynamic_dimensions[0]: _EXAMPLE_SIZE})
        device = _whole(device)
        where = (shape, device)
        if where not in self._by_dimensions:
            with nullcontext() if interpreting() else on_device(_index(device)):
                bundle = self._usable_bundle()
                variants = bundle.steps_of(shape, spec.dynamic_dimensions[0]) if bundle else None
                plan = Plan(self.kernel, shape, variants or self._choose(shape), device, bundle)
            self._by_dimensions.setdefault(where, plan)
        return self._by_dimensions[where]

    def _usable_bundle(self) -> Bundle | None:
        """The bundle, unless it is refused; only here its target is held against the GPU, as no driver ran before."""
        if isinstance(self.bundle, Bundle) and not interpreting():
            here = active_driver().get_current_target()
            refused = self.bundle.refused_on(f"{here.backend}:{here.arch}")
            if refused:
                _tell(refused)
                self.bundle = refused
        return self.bundle if isinstance(self.bundle, Bundle) else None

    def launchers(self) -> list[AnyLauncher]:
        """Every launcher of every plan so far; another thread may add one meanwhile."""
        return [each for plan in list(self._by_dimensions.values()) for each in plan.launchers]


def _launcher(
    kernel: Kernel,
    shape: Shape,
    variant: Variant,
    device: torch.device,
    bundle: Bundle | None,
    baseline: Callable[[], AnyLauncher] | None = None,
) -> AnyLauncher:
    grid = kernel.host_function.grid(shape, variant.config)
    return launcher(kernel, variant, Arguments.of(kernel, variant, shape), grid, _index(device), bundle, baseline)


def _tell(refused: Refused) -> None:
    """Once; under `$TUNER_STRICT` by a UserError."""
    if settings.is_strict():
        raise UserError(str(refused), hint="Build it again (`tuner prebuild`), or unset TUNER_STRICT to compile.")
    _log.warning("%s Its binaries are compiled at warm-up.", refused)


def _index(device: torch.device) -> int:
    return -1 if device.index is None else device.index


def _whole(device: torch.device | None) -> torch.device:
    """A device with its number, by default the current one; UserError for one that Triton does not run on."""
    here = torch.device("cpu") if interpreting() else active_driver().get_active_torch_device()
    if device is None:
        return here
    if device.type != here.type:
        raise UserError(f"The inputs are on {device}; expected a device of type {here.type!r}.")
    return here if device.index is None else device


def _empty(device: torch.device) -> Empty:
    """What allocates on a device. For GPUs Inductor's own allocation, which skips argument parsing and dispatch."""
    guards: Any = torch._C._dynamo.guards
    if device.type == "cuda" and hasattr(guards, "_empty_strided_cuda"):
        found: Empty = guards._empty_strided_cuda
        return found
    return lambda size, strides, dtype: torch.empty_strided(size, strides, dtype=dtype, device=device)
