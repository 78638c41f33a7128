"""Counts the compiles that a specialization set causes over a run's shapes and the sizes of its workload."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

from tuner.catalog import Kernel, Tensors
from tuner.compile.classes import ClassTable, class_table, have_same_keys
from tuner.records import Config, Shape, SpecializationSet, Target, Variant
from tuner.space import SearchSpace

# So many shapes, spread over all, tell whether two configs are launched with the same arguments: a workload has
# thousands, and a search hundreds of configs. They lie an odd number apart, so that every remainder by 16 occurs.
_COMPARED = 512
# The arguments of a config's launch at each of these; None where it has none.
Launches = Sequence[Mapping[str, Any] | None]


class CompileCounts:
    """Exact counts of reachable compile keys over the given shapes, each worked out once.

    Keys depend on the arguments of a launch. Configs of an implementation that are launched with the same ones reach
    equally many, and are looked at once. A shape at which the spec refuses a config reaches no key.
    """

    def __init__(self, kernel: Kernel, space: SearchSpace, shapes: Sequence[Shape], target: Target) -> None:
        self._kernel = kernel
        self._space = space
        self.shapes = tuple(shapes)
        self._target = target
        self._tables: dict[Config, ClassTable] = {}
        self._shared: defaultdict[str, list[tuple[Launches, ClassTable]]] = defaultdict(list)
        self._counts: dict[tuple[int, SpecializationSet], int] = {}
        self._smallest: dict[int, SpecializationSet] = {}

    def of(self, variant: Variant) -> int:
        """How many compile keys a variant reaches over the shapes."""
        return self.of_set(variant.config, variant.specialization)

    def of_set(self, config: Config, marks: SpecializationSet) -> int:
        """How many compile keys a config reaches under a set."""
        table = self._table(config)
        key = (id(table), marks)
        if key not in self._counts:
            self._counts[key] = table.count(marks)
        return self._counts[key]

    def key(self, variant: Variant, shape: Shape) -> Hashable:
        """What names the compile of a variant at one of the shapes: the key, or the shape where it has none."""
        try:
            return self._table(variant.config).key(variant.specialization, shape)
        except KeyError:
            return shape

    def smallest_set(self, config: Config) -> SpecializationSet:
        """A set of candidates that compiles least, from which no argument can be dropped without compiling more.

        Marking more arguments never adds a compile, so the full set is the least; what it does not need is dropped.
        """
        table = id(self._table(config))
        if table not in self._smallest:
            names, aligned = self.candidates(config)
            aligned = [each for each in aligned if each not in names]
            least = self.of_set(config, SpecializationSet.of(names, aligned))
            for listed in (aligned, names):
                for name in tuple(listed):
                    listed.remove(name)
                    if self.of_set(config, SpecializationSet.of(names, aligned)) > least:
                        listed.append(name)
            self._smallest[table] = SpecializationSet.of(names, aligned)
        return self._smallest[table]

    def least(self, config: Config) -> Variant:
        """The config under the set that compiles least."""
        return Variant(self._kernel.name, config, self.smallest_set(config))

    def saves(self, config: Config, name: str, on_alignment: bool) -> bool:
        """Whether a candidate's mark, in full or on alignment, saves a compile beside any set of the others.

        A mark joins classes of its argument and never divides one. So what it saves beside some set it saves beside
        every larger set too, and it is enough to look where all others are marked.
        """
        names, aligned = ([each for each in listed if each != name] for listed in self.candidates(config))
        without = SpecializationSet.of(names, [each for each in aligned if each not in names])
        marked = with_mark(without, name, on_alignment)
        return self.of_set(config, marked) < self.of_set(config, without)

    def table(self, baseline: Variant) -> dict[SpecializationSet, int]:
        """Compiles of the baseline's config for: no set, the baseline's, each candidate alone, the smallest set.

        Candidates that the baseline's function does not take are left out.
        """
        names, aligned = self.candidates(baseline.config)
        sets = [
            SpecializationSet(),
            baseline.specialization,
            *(SpecializationSet.of([name]) for name in names),
            *(SpecializationSet.of([], [name]) for name in aligned),
            self.smallest_set(baseline.config),
        ]
        return {each: self.of_set(baseline.config, each) for each in sets}

    def candidates(self, config: Config) -> tuple[list[str], list[str]]:
        """The space's candidates, in full and on alignment, that the config's function takes at run time."""
        runtime = self._table(config).runtime
        names, aligned = self._space.candidates, self._space.alignment_candidates
        return [each for each in names if each in runtime], [each for each in aligned if each in runtime]

    def _table(self, config: Config) -> ClassTable:
        if config not in self._tables:
            compared = self.shapes[:: len(self.shapes) // _COMPARED | 1]
            launches = [self._arguments(config, shape) for shape in compared]
            shared = self._shared[config.implementation]
            same = (table for known, table in shared if all(map(have_same_keys, known, launches)))
            table = next(same, None)
            if table is None:
                launched = [shape for shape in self.shapes if self._arguments(config, shape) is not None]
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
        for shape in self.shapes:
            try:
                made[shape] = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
            except Exception:  # noqa: BLE001 - as above: sizes of a workload may be none that a kernel takes
                made[shape] = None
        return made


def with_mark(marks: SpecializationSet, name: str, on_alignment: bool) -> SpecializationSet:
    """The set with one argument more, marked in full or on alignment."""
    full, aligned = marks.do_not_specialize, marks.do_not_specialize_on_alignment
    return (
        SpecializationSet.of(full, [*aligned, name]) if on_alignment else SpecializationSet.of([*full, name], aligned)
    )
