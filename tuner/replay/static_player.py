"""Without a GPU: every compile key is compiled for a target when a step first needs it; times are estimates.

What a bundle holds is compiled after the steps, for the estimate alone.
"""

import math
from collections.abc import Mapping
from typing import Any

from tuner.catalog import Kernel
from tuner.compile.builder import Built, CompileJob, build
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, meta_launch
from tuner.measure.static import estimate_launch
from tuner.processes import Failure
from tuner.records import Shape, Target, Variant
from tuner.replay.player import ArmFailedError, Player
from tuner.runtime.binaries import Arguments, Calls
from tuner.runtime.bundle import Bundle


class StaticPlayer(Player):
    """Compiles where a launch would, and takes no time where it would not."""

    def __init__(
        self, kernel: Kernel, variants: Mapping[Shape, Variant], target: Target, bundle: Bundle | None = None
    ) -> None:
        self._kernel = kernel
        self._variants = variants
        self._target = target
        self._bundle = bundle
        # None where a bundle holds it and it has not been compiled here.
        self._built: dict[tuple[Variant, str], Built | None] = {}
        # The binary's place and the number of programs of each shape; None where nothing is launched.
        self._launches: dict[Shape, tuple[tuple[Variant, str], int] | None] = {}

    def launch(self, shape: Shape) -> float:
        if shape in self._launches:
            return 0.0
        variant = self._variants[shape]
        launch = meta_launch(self._kernel, variant, shape)
        if 0 in launch.grid:
            self._launches[shape] = None
            return 0.0
        key = (variant, bind(load_variant(self._kernel, variant), launch.arguments, self._target).key)
        is_new = key not in self._built
        if is_new:
            is_bundled = self._is_bundled(variant, shape, launch.arguments)
            self._built[key] = None if is_bundled else self._compile(variant, shape)
        built = self._built[key]
        self._launches[shape] = key, math.prod(launch.grid)
        return built.binary.compile_s if built and is_new else 0.0

    def kernel_us(self, shape: Shape) -> float:
        launched = self._launches[shape]
        if launched is None:
            return 0.0
        key, programs = launched
        variant = self._variants[shape]
        built = self._built[key] or self._compile(variant, shape)
        self._built[key] = built
        timing = estimate_launch(self._kernel.spec, variant.config, shape, built, programs, self._target)
        if isinstance(timing, Failure):
            label = self._kernel.spec.short_label(shape)
            raise ArmFailedError(Failure(timing.status, f"{label}: {timing.log}"))
        return timing.median_us

    def _is_bundled(self, variant: Variant, shape: Shape, arguments: Mapping[str, Any]) -> bool:
        if self._bundle is None:
            return False
        calls = Calls(variant, Arguments.of(self._kernel, variant, shape), self._target.backend)
        values = [arguments[name] for name in calls.arguments.names]
        return calls.identity(calls.key(*values)) in self._bundle.binaries

    def _compile(self, variant: Variant, shape: Shape) -> Built:
        built = build(CompileJob(self._kernel.folder, variant, shape, self._target))
        if isinstance(built, Failure):
            raise ArmFailedError(built)
        return built
