"""Without a GPU: every compile key is compiled for a target when a step first needs it; times are estimates."""

import math
from collections.abc import Mapping

from tuner.catalog import Kernel
from tuner.compile.builder import CompileJob, build
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, meta_launch
from tuner.measure.static import estimate
from tuner.processes import Failure
from tuner.records import Binary, Shape, Status, Target, Variant
from tuner.replay.player import ArmFailedError, Player

_DEFAULT_WARPS = 4


class StaticPlayer(Player):
    """Compiles where a launch would, and takes no time where it would not."""

    def __init__(self, kernel: Kernel, variants: Mapping[Shape, Variant], target: Target) -> None:
        self._kernel = kernel
        self._variants = variants
        self._target = target
        self._binaries: dict[tuple[Variant, str], Binary] = {}
        # The binary and the number of programs of each shape; None where nothing is launched.
        self._launches: dict[Shape, tuple[Binary, int] | None] = {}

    def launch(self, shape: Shape) -> float:
        if shape in self._launches:
            return 0.0
        variant = self._variants[shape]
        launch = meta_launch(self._kernel, variant, shape)
        if 0 in launch.grid:
            self._launches[shape] = None
            return 0.0
        key = (variant, bind(load_variant(self._kernel, variant), launch.arguments, self._target).key)
        is_new = key not in self._binaries
        if is_new:
            self._binaries[key] = self._compile(variant, shape)
        binary = self._binaries[key]
        self._launches[shape] = binary, math.prod(launch.grid)
        return binary.compile_s if is_new else 0.0

    def kernel_us(self, shape: Shape) -> float:
        launched = self._launches[shape]
        if launched is None:
            return 0.0
        binary, programs = launched
        warps = self._variants[shape].config.options.get("num_warps", _DEFAULT_WARPS)
        spec = self._kernel.spec
        timing = estimate(binary, programs, warps, spec.bytes_moved(shape), spec.flops(shape), self._target)
        if timing is None:
            needs = f"{binary.registers} registers, {binary.shared_bytes} bytes shared, {warps} warps: too much"
            raise ArmFailedError(Failure(Status.OUT_OF_RESOURCES, f"{spec.short_label(shape)}: {needs}"))
        return timing.median_us

    def _compile(self, variant: Variant, shape: Shape) -> Binary:
        built = build(CompileJob(self._kernel.folder, variant, shape, self._target))
        if isinstance(built, Failure):
            raise ArmFailedError(built)
        return built.binary
