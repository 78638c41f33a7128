"""Class tables of many configs over the same shapes: one for all that are launched with the same arguments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tuner.catalog import Kernel, Tensors
from tuner.compile.classes import ClassTable, class_table, have_same_keys
from tuner.records import Config, Shape, Target

# So many shapes, spread over all, tell whether two configs are launched with the same arguments: a workload has
# thousands, and a search hundreds of configs. They lie an odd number apart, so that every remainder by 16 occurs.
_COMPARED = 128
# The arguments of a config's launch at each of these; None where it has none.
Launches = Sequence[Mapping[str, Any] | None]


class ClassTables:
    """The class table of each config over given shapes, without those at which the spec refuses it.

    Keys depend on the arguments of a launch: configs of an implementation that are launched with the same ones share a
    table, which is the same object then.
    """

    def __init__(self, kernel: Kernel, shapes: Sequence[Shape], target: Target) -> None:
        self._kernel = kernel
        self._shapes = tuple(shapes)
        self._target = target
        self._tables: dict[Config, ClassTable] = {}
        self._shared: defaultdict[str, list[tuple[Launches, ClassTable]]] = defaultdict(list)

    def of(self, config: Config) -> ClassTable:
        """The table of a config."""
        if config not in self._tables:
            compared = self._shapes[:: len(self._shapes) // _COMPARED | 1]
            launches = [self._arguments(config, shape) for shape in compared]
            shared = self._shared[config.implementation]
            same = (table for known, table in shared if all(map(have_same_keys, known, launches)))
            table = next(same, None)
            if table is None:
                launched = [shape for shape in self._shapes if self._arguments(config, shape) is not None]
                table = class_table(self._kernel, config, launched, self._target)
                shared.append((launches, table))
            self._tables[config] = table
        return self._tables[config]

    def _arguments(self, config: Config, shape: Shape) -> Mapping[str, Any] | None:
        tensors = self._tensors[shape]
        if tensors is None:
            return None
        try:
            launch = self._kernel.spec.launch(*tensors, shape, config)
        except Exception:  # noqa: BLE001 - a trial there ends with the reason in its own status
            return None
        return None if 0 in launch.grid else launch.arguments

    @cached_property
    def _tensors(self) -> dict[Shape, tuple[Tensors, Tensors] | None]:
        """Inputs and outputs at each shape, without memory; None where the spec makes none."""
        spec, made = self._kernel.spec, dict[Shape, tuple[Tensors, Tensors] | None]()
        for shape in self._shapes:
            try:
                spec.shape(shape)
                made[shape] = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
            except Exception:  # noqa: BLE001 - as above: sizes of a workload may be none that a kernel takes
                made[shape] = None
        return made
