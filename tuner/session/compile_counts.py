"""Counts the compiles that a specialization set causes over a run's shapes and the sizes of its workload."""

from collections.abc import Sequence

from tuner.catalog import Kernel
from tuner.compile.classes import ClassTable, Key, class_table
from tuner.records import Config, Shape, SpecializationSet, Target, Variant
from tuner.space import SearchSpace


class CompileCounts:
    """Exact counts of reachable compile keys over the given shapes, each worked out once.

    Keys depend on the arguments of a launch, which a kernel derives from shape and implementation: variants that
    differ in parameters or options alone reach equally many.
    """

    def __init__(self, kernel: Kernel, space: SearchSpace, shapes: Sequence[Shape], target: Target) -> None:
        self._kernel = kernel
        self._space = space
        self.shapes = tuple(shapes)
        self._target = target
        self._tables: dict[str, ClassTable] = {}
        self._counts: dict[tuple[str, SpecializationSet], int] = {}
        self._smallest: dict[str, SpecializationSet] = {}

    def of(self, variant: Variant) -> int:
        """How many compile keys a variant reaches over the shapes."""
        return self.of_set(variant.config, variant.specialization)

    def of_set(self, config: Config, marks: SpecializationSet) -> int:
        """How many compile keys a config reaches under a set."""
        key = (config.implementation, marks)
        if key not in self._counts:
            self._counts[key] = self._table(config).count(marks)
        return self._counts[key]

    def key(self, variant: Variant, shape: Shape) -> Key:
        """The compile key that a variant has at one of the shapes."""
        return self._table(variant.config).key(variant.specialization, shape)

    def smallest_set(self, config: Config) -> SpecializationSet:
        """A set of candidates that compiles least, from which no argument can be dropped without compiling more.

        Marking more arguments never adds a compile, so the full set is the least; what it does not need is dropped.
        """
        if config.implementation not in self._smallest:
            names, aligned = self.candidates(config)
            aligned = [each for each in aligned if each not in names]
            least = self.of_set(config, SpecializationSet.of(names, aligned))
            for listed in (aligned, names):
                for name in tuple(listed):
                    listed.remove(name)
                    if self.of_set(config, SpecializationSet.of(names, aligned)) > least:
                        listed.append(name)
            self._smallest[config.implementation] = SpecializationSet.of(names, aligned)
        return self._smallest[config.implementation]

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
        if config.implementation not in self._tables:
            table = class_table(self._kernel, config, self.shapes, self._target)
            self._tables[config.implementation] = table
        return self._tables[config.implementation]


def with_mark(marks: SpecializationSet, name: str, on_alignment: bool) -> SpecializationSet:
    """The set with one argument more, marked in full or on alignment."""
    full, aligned = marks.do_not_specialize, marks.do_not_specialize_on_alignment
    return (
        SpecializationSet.of(full, [*aligned, name]) if on_alignment else SpecializationSet.of([*full, name], aligned)
    )
