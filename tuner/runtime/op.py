"""A kernel as an op: called directly in eager mode, as an operator of `torch.ops.tuner` where PyTorch traces."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import Kernel
from tuner.records import DimensionValue
from tuner.runtime.bundle import Bundle, Refused
from tuner.runtime.dispatch import Choose, Plans
from tuner.runtime.launcher import active_driver, interpreting, on_device
from tuner.runtime.warmup import WarmupReport, warm_up

_registered: Counter[str] = Counter()


class Op:
    """A kernel that is called like a function; its signature is that of the kernel's host function.

    Safe under several threads, streams and devices, and under graph capture after `warmup`. It runs on the device of
    its first argument, on that device's current stream. Gradients do not flow through it. `plans` are its launchers.
    """

    def __init__(self, kernel: Kernel, choose: Choose, bundle: Bundle | Refused | None = None) -> None:
        host = kernel.host_function
        self.plans = Plans(kernel, choose, bundle)
        self._host: Callable[..., Any] = partial(host.call, self.plans)
        self._current_device: Callable[[], int] = self._first_current_device
        self.__name__ = kernel.name
        self.__doc__ = host.call.__doc__
        self.__signature__ = inspect.signature(host.fake)
        untyped: Any = torch.library.Library
        self._library = untyped("tuner", "FRAGMENT")  # the operator lives as long as this does
        self._traced = self._register(host.fake)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not args or type(args[0]) is not Tensor:
            return self._traced(*args, **kwargs)
        return self._eager(*args, **kwargs)

    def warmup(
        self,
        *,
        max_num_tokens: int,
        device: torch.device | str | None = None,
        strides: Mapping[str, int] | None = None,
        **dimensions: DimensionValue,
    ) -> WarmupReport:
        """Load every binary that calls with up to `max_num_tokens` reach, and the one for all others.

        They come from the bundle, where it has them, and are compiled otherwise.

        `dimensions` are the kernel's fixed ones by name (`num_heads=64, n_groups=8`); those with a default may be left
        out. `strides` are kernel arguments that differ from those of contiguous inputs (`o_stride_token=33280`). The
        device is the current one unless it is given. UserError for dimensions that the kernel does not have.
        """
        return warm_up(
            self.plans, None if device is None else torch.device(device), dimensions, max_num_tokens, strides or {}
        )

    @property
    def counts(self) -> dict[str, int]:
        """So far: binaries compiled (or from Triton's cache), those from the bundle, calls of a general binary."""
        made = self.plans.launchers()
        return {name: sum(getattr(each, name) for each in made) for name in ("compiles", "prebuilt", "fallbacks")}

    @property
    def bundle(self) -> Bundle | Refused | None:
        """Where binaries come from, or why the bundle is not used; None where none was named."""
        return self.plans.bundle

    def _eager(self, *args: Any, **kwargs: Any) -> Any:
        device = args[0].get_device()
        if device != self._current_device() and device >= 0:
            with on_device(device):
                return self._host(*args, **kwargs)
        return self._host(*args, **kwargs)

    def _first_current_device(self) -> int:
        """The first call finds the driver: an engine may load an op before it forks, when no driver may start."""
        self._current_device = _no_device if interpreting() else active_driver().get_current_device
        return self._current_device()

    def _register(self, fake: Callable[..., Any]) -> Any:
        """Define the operator; a second op of the same kernel gets a name of its own."""
        _registered[self.__name__] += 1
        count = _registered[self.__name__]
        name = self.__name__ if count == 1 else f"{self.__name__}_{count}"
        self._library.define(name + torch.library.infer_schema(fake, mutates_args=()))
        self._library.impl(name, self._eager, "CompositeExplicitAutograd")
        torch.library.register_fake(f"tuner::{name}", fake, lib=self._library)
        return getattr(torch.ops.tuner, name)


def _no_device() -> int:
    return -1
