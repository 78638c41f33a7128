"""On a GPU: every step is launched through Triton's own JIT path, or with a bundle as the op launches it."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from triton.runtime import driver

from tuner.catalog import Kernel, Launch, Tensors
from tuner.compile.module import load_variant
from tuner.measure.benchmark import prepare, probe, sample, warm_up
from tuner.records import Shape, Variant
from tuner.replay.player import Player
from tuner.runtime.binaries import Arguments
from tuner.runtime.bundle import Bundle
from tuner.runtime.launcher import Launcher

# Inputs are kept for the steps that come back to a shape, in at most this part of the memory that is free at first.
_KEPT_PART = 0.25
_ROUNDS = 8


class ReadyLaunches:
    """Launches with their tensors, made on first use; those not used for longest go when all hold too much memory."""

    def __init__(self, make: Callable[[Shape], tuple[Callable[[], None], int]], limit_bytes: int) -> None:
        self._make = make
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Shape, tuple[Callable[[], None], int]] = OrderedDict()

    def get(self, shape: Shape) -> Callable[[], None]:
        """The launch of a shape; `make` gives it with the bytes that it holds."""
        if shape not in self._kept:
            self._kept[shape] = self._make(shape)
        self._kept.move_to_end(shape)
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._limit_bytes:
            self._kept.popitem(last=False)
        return self._kept[shape][0]


class DevicePlayer(Player):
    """Launches one step after the other, each with the device idle before and after."""

    def __init__(
        self, kernel: Kernel, variants: Mapping[Shape, Variant], seed: int, bundle: Bundle | None = None
    ) -> None:
        self._kernel = kernel
        self._variants = variants
        self._seed = seed
        self._bundle = bundle
        self._launchers: dict[Variant, Launcher] = {}
        driver.active.get_current_device()  # builds what Triton itself needs of the driver: no kernel's stall
        free_bytes, _ = torch.cuda.mem_get_info()
        self._launches = ReadyLaunches(self._ready, int(_KEPT_PART * free_bytes))

    def launch(self, shape: Shape) -> float:
        run = self._launches.get(shape)
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        host_s = time.perf_counter() - start
        torch.cuda.synchronize()
        return host_s

    def kernel_us(self, shape: Shape) -> float:
        launches = [self._launches.get(shape)]
        warm_up([probe(launches)])  # making the inputs has let the clocks fall
        return float(np.median(sample([prepare(launches)], _ROUNDS).times_us[0]))

    def _ready(self, shape: Shape) -> tuple[Callable[[], None], int]:
        spec, variant = self._kernel.spec, self._variants[shape]
        inputs, outputs = spec.make_inputs(shape, "cuda", self._seed), spec.make_outputs(shape, "cuda")
        launch = spec.launch(inputs, outputs, shape, variant.config)
        run = (
            partial(load_variant(self._kernel, variant).run, launch)
            if self._bundle is None
            else self._as_op(launch, shape)
        )
        return run, _size_bytes(inputs) + _size_bytes(outputs)

    def _as_op(self, launch: Launch, shape: Shape) -> Callable[[], None]:
        """The launch as the op makes it; binaries that the bundle does not hold are compiled."""
        if 0 in launch.grid:
            return _nothing
        kernel, variant = self._kernel, self._variants[shape]
        if variant not in self._launchers:
            grid = kernel.host_function.grid(shape, variant.config)
            arguments, device = Arguments.of(kernel, variant, shape), driver.active.get_current_device()
            self._launchers[variant] = Launcher(kernel, variant, arguments, grid, device, self._bundle)
        (dynamic,) = kernel.spec.dynamic_dimensions
        values = [launch.arguments[name] for name in kernel.host_function.arguments]
        return lambda: self._launchers[variant].launch(shape.size(dynamic), *values)


def _nothing() -> None:
    """No launch: there are no programs."""


def _size_bytes(tensors: Tensors) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
