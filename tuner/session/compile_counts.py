"""Counts the compiles that a specialization set causes over a run's shapes."""

from collections.abc import Sequence

from tuner.catalog import Kernel
from tuner.compile.source import arguments
from tuner.compile.specialization import reachable_keys
from tuner.records import Config, Shape, SpecializationSet, Target, Variant
from tuner.space import SearchSpace


class CompileCounts:
    """Exact counts of reachable compile keys, each worked out once.

    Keys depend on the arguments of a launch, which a kernel derives from shape and implementation: variants that
    differ in parameters or options alone reach equally many.
    """

    def __init__(self, kernel: Kernel, space: SearchSpace, shapes: Sequence[Shape], target: Target) -> None:
        self._kernel = kernel
        self._space = space
        self._shapes = shapes
        self._target = target
        self._counts: dict[tuple[str, SpecializationSet], int] = {}
        self._smallest: dict[str, SpecializationSet] = {}

    def of(self, variant: Variant) -> int:
        """How many compile keys a variant reaches over the shapes."""
        key = (variant.config.implementation, variant.specialization)
        if key not in self._counts:
            self._counts[key] = len(reachable_keys(self._kernel, variant, self._shapes, self._target))
        return self._counts[key]

    def smallest_set(self, config: Config) -> SpecializationSet:
        """A set of candidates that compiles least, from which no argument can be dropped without compiling more.

        Marking more arguments never adds a compile, so the full set is the least; what it does not need is dropped.
        """
        if config.implementation not in self._smallest:
            names = self._taken(config, self._space.candidates)
            aligned = [each for each in self._taken(config, self._space.alignment_candidates) if each not in names]
            least = self._count(config, names, aligned)
            for listed in (aligned, names):
                for name in tuple(listed):
                    listed.remove(name)
                    if self._count(config, names, aligned) > least:
                        listed.append(name)
            self._smallest[config.implementation] = SpecializationSet.of(names, aligned)
        return self._smallest[config.implementation]

    def table(self, baseline: Variant) -> dict[SpecializationSet, int]:
        """Compiles of the baseline's config for: no set, the baseline's, each candidate alone, the smallest set.

        Candidates that the baseline's function does not take are left out.
        """
        names = self._taken(baseline.config, self._space.candidates)
        aligned = self._taken(baseline.config, self._space.alignment_candidates)
        sets = [
            SpecializationSet(),
            baseline.specialization,
            *(SpecializationSet.of([name]) for name in names),
            *(SpecializationSet.of([], [name]) for name in aligned),
            self.smallest_set(baseline.config),
        ]
        return {each: self.of(Variant(self._kernel.name, baseline.config, each)) for each in sets}

    def _taken(self, config: Config, names: Sequence[str]) -> list[str]:
        """Those of the names that the config's function takes at run time."""
        implementation = self._kernel.spec.implementation(config.implementation)
        runtime = arguments(self._kernel.source(implementation), implementation.function).runtime
        return [name for name in names if name in runtime]

    def _count(self, config: Config, names: Sequence[str], aligned: Sequence[str]) -> int:
        return self.of(Variant(self._kernel.name, config, SpecializationSet.of(names, aligned)))
