"""Counts the compiles that a specialization set causes over a run's shapes and the sizes of its workload."""

from collections.abc import Hashable, Sequence

from tuner.catalog import Kernel
from tuner.compile.class_tables import ClassTables
from tuner.records import Config, Shape, SpecializationSet, Target, Variant
from tuner.space import SearchSpace


class CompileCounts:
    """Exact counts of reachable compile keys over the given shapes, each worked out once.

    Configs that share a class table (see `ClassTables`) reach equally many.
    """

    def __init__(self, kernel: Kernel, space: SearchSpace, shapes: Sequence[Shape], target: Target) -> None:
        self._kernel = kernel
        self._space = space
        self.shapes = tuple(shapes)
        self._tables = ClassTables(kernel, self.shapes, target)
        self._counts: dict[tuple[int, SpecializationSet], int] = {}
        self._smallest: dict[int, SpecializationSet] = {}

    def of(self, variant: Variant) -> int:
        """How many compile keys a variant reaches over the shapes."""
        return self.of_set(variant.config, variant.specialization)

    def of_set(self, config: Config, marks: SpecializationSet) -> int:
        """How many compile keys a config reaches under a set."""
        table = self._tables.of(config)
        key = (id(table), marks)
        if key not in self._counts:
            self._counts[key] = table.count(marks)
        return self._counts[key]

    def key(self, variant: Variant, shape: Shape) -> Hashable:
        """What names the compile of a variant at one of the shapes: the key, or the shape where it has none."""
        try:
            return self._tables.of(variant.config).key(variant.specialization, shape)
        except KeyError:
            return shape

    def smallest_set(self, config: Config) -> SpecializationSet:
        """A set of candidates that compiles least, from which no argument can be dropped without compiling more.

        Marking more arguments never adds a compile, so the full set is the least; what it does not need is dropped.
        """
        table = id(self._tables.of(config))
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
        runtime = self._tables.of(config).runtime
        names, aligned = self._space.candidates, self._space.alignment_candidates
        return [each for each in names if each in runtime], [each for each in aligned if each in runtime]


def with_mark(marks: SpecializationSet, name: str, on_alignment: bool) -> SpecializationSet:
    """The set with one argument more, marked in full or on alignment."""
    full, aligned = marks.do_not_specialize, marks.do_not_specialize_on_alignment
    return (
        SpecializationSet.of(full, [*aligned, name]) if on_alignment else SpecializationSet.of([*full, name], aligned)
    )
