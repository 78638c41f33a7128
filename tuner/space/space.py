"""The search space as a record: what may be tried, and in which order it is enumerated."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain, product

from tuner.errors import SpaceError, UnknownNameError
from tuner.records import (
    LAUNCH_PDL,
    Config,
    DimensionValue,
    FrozenMapping,
    L2State,
    Shape,
    SpecializationSet,
    Target,
    Variant,
)
from tuner.space.check import find_problems
from tuner.space.constraint import Constraint
from tuner.space.source import Source

# A refusal says how many configs each constraint rejects by itself; beyond this many evaluations it does not count.
MAX_COUNTED = 100_000


# Over so many steps compile stalls are spread where a space does not say otherwise.
DEFAULT_STEPS = 100_000


class Objective(StrEnum):
    """What a search makes small: times, times with compile stalls, or both apart; see docs/objectives.md."""

    LATENCY = "latency"
    SERVING = "serving"
    PARETO = "pareto"


@dataclass(frozen=True)
class ImplementationSpace:
    """The values to try for one implementation, and the conditions on their combinations.

    `constraints` are tried in order; the first that fails rejects the config, so an earlier one can guard a later one.
    """

    name: str
    parameters: FrozenMapping[tuple[int, ...]] = field(default_factory=FrozenMapping)
    options: FrozenMapping[tuple[int, ...]] = field(default_factory=FrozenMapping)
    constraints: tuple[Constraint, ...] = ()

    @property
    def values(self) -> dict[str, tuple[int, ...]]:
        """The values of every parameter and option, in file order."""
        return {**self.parameters, **self.options}

    @property
    def size(self) -> int:
        """How many configs there are before constraints."""
        return math.prod(map(len, self.values.values()))

    def configs(self, shape: Shape) -> Iterator[Config]:
        """Every config whose constraints hold at the shape, the last option changing fastest."""
        axes = list(self.values.items())
        for chosen in self._complete(axes, self._schedule(), shape, {}):
            yield Config(
                self.name,
                FrozenMapping({name: chosen[name] for name in self.parameters}),
                FrozenMapping({name: chosen[name] for name in self.options}),
            )

    def allows(self, config: Config, shape: Shape) -> bool:
        """Whether `configs(shape)` yields the config."""
        given = ((config.parameters, self.parameters), (config.options, self.options))
        for chosen, allowed in given:
            if chosen.keys() != allowed.keys() or any(chosen[name] not in allowed[name] for name in allowed):
                return False
        names = {**shape, **config.parameters, **config.options}
        return all(constraint.holds(names) for constraint in self.constraints)

    def without(self, option: str) -> "ImplementationSpace":
        """The same without a compile option."""
        return replace(
            self, options=FrozenMapping({name: self.options[name] for name in self.options if name != option})
        )

    def rejected_alone(self, constraint: Constraint, shape: Shape) -> int | None:
        """How many configs the constraint by itself rejects at the shape; None when there are too many to count."""
        values = self.values
        used = [name for name in values if name in constraint.names]
        combinations = math.prod(len(values[name]) for name in used)
        if combinations > MAX_COUNTED:
            return None
        rejected = sum(
            not _holds(constraint, {**shape, **dict(zip(used, chosen, strict=True))})
            for chosen in product(*(values[name] for name in used))
        )
        return rejected * (self.size // combinations)

    def _schedule(self) -> list[list[Constraint]]:
        """The constraints to try once the first n names have values: as early as can be, in their order."""
        names = list(self.values)
        schedule: list[list[Constraint]] = [[] for _ in range(len(names) + 1)]
        depth = 0
        for constraint in self.constraints:
            depth = max([depth, *(index + 1 for index, name in enumerate(names) if name in constraint.names)])
            schedule[depth].append(constraint)
        return schedule

    def _complete(
        self,
        axes: Sequence[tuple[str, tuple[int, ...]]],
        schedule: Sequence[Sequence[Constraint]],
        shape: Shape,
        chosen: dict[str, int],
    ) -> Iterator[dict[str, int]]:
        """Every completion of the choices on the first axes that meets the constraints."""
        due = schedule[len(chosen)]
        if due:
            known = {**shape, **chosen}
            if not all(constraint.holds(known) for constraint in due):
                return
        if len(chosen) == len(axes):
            yield chosen
            return
        name, values = axes[len(chosen)]
        for value in values:
            yield from self._complete(axes, schedule, shape, {**chosen, name: value})


def _holds(constraint: Constraint, names: Mapping[str, DimensionValue]) -> bool:
    """Whether it holds; False where it cannot be evaluated, because an earlier constraint excludes that case."""
    try:
        return constraint.holds(names)
    except SpaceError:
        return False


@dataclass(frozen=True)
class SearchSpace:
    """What `tuner run` searches for one kernel.

    `candidates` and `alignment_candidates` may each be marked `do_not_specialize` and `do_not_specialize_on_alignment`,
    or not. `shapes` hold the given dimensions only; the kernel's spec adds its defaults. `workload` is a name or a
    path, None where shapes weigh the same; `steps` is the number of engine steps over which compile stalls are spread.
    `trials` counts evaluations per shape. `baseline` is None where the kernel's own baseline stands. `source` is for
    errors only.
    """

    kernel: str
    implementations: tuple[ImplementationSpace, ...]
    shapes: tuple[FrozenMapping[DimensionValue], ...]
    candidates: tuple[str, ...] = ()
    alignment_candidates: tuple[str, ...] = ()
    workload: str | None = None
    objective: Objective = Objective.LATENCY
    steps: int = DEFAULT_STEPS
    l2: L2State = L2State.WARM
    trials: int = 100
    timeout_s: float | None = None
    baseline: Variant | None = None
    source: Source = field(default_factory=Source, repr=False, compare=False)

    def implementation(self, name: str) -> ImplementationSpace:
        """The space of that implementation; UnknownNameError when there is none."""
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        raise UnknownNameError("implementation", name, [each.name for each in self.implementations])

    def configs(self, shape: Shape) -> Iterator[Config]:
        """Every config of every implementation whose constraints hold at the shape, lazily and always in one order.

        SpaceError when a constraint cannot be evaluated.
        """
        for implementation in self.implementations:
            yield from implementation.configs(shape)

    def allows(self, config: Config, shape: Shape) -> bool:
        """Whether `configs(shape)` yields the config; SpaceError when a constraint cannot be evaluated."""
        return any(each.name == config.implementation and each.allows(config, shape) for each in self.implementations)

    def specialization_sets(self) -> Iterator[SpecializationSet]:
        """Every subset of the candidates, the empty one first; no argument is ever in both lists of a set."""
        marks: list[list[tuple[list[str], list[str]]]] = []
        for name in dict.fromkeys([*self.candidates, *self.alignment_candidates]):
            marks.append([([], [])])
            if name in self.candidates:
                marks[-1].append(([name], []))
            if name in self.alignment_candidates:
                marks[-1].append(([], [name]))
        for chosen in product(*marks):
            yield SpecializationSet.of(chain(*(names for names, _ in chosen)), chain(*(names for _, names in chosen)))

    def without(self, candidates: Collection[str], alignment_candidates: Collection[str]) -> "SearchSpace":
        """The space with fewer candidates."""
        return replace(
            self,
            candidates=tuple(each for each in self.candidates if each not in candidates),
            alignment_candidates=tuple(each for each in self.alignment_candidates if each not in alignment_candidates),
        )

    def on(self, target: Target) -> "SearchSpace":
        """The space without the compile options that a target lacks."""
        if target.has_launch_pdl:
            return self
        return replace(self, implementations=tuple(each.without(LAUNCH_PDL) for each in self.implementations))

    @property
    def size(self) -> int:
        """How many variants there are before constraints: configs times specialization sets."""
        in_both = len(set(self.candidates) & set(self.alignment_candidates))
        in_one = len(set(self.candidates) ^ set(self.alignment_candidates))
        return sum(each.size for each in self.implementations) * int(2**in_one * 3**in_both)

    def contains(self, variant: Variant, shape: Shape) -> bool:
        """Whether the search could try the variant at the shape."""
        marked = set(variant.specialization.do_not_specialize)
        marked_on_alignment = set(variant.specialization.do_not_specialize_on_alignment)
        return (
            variant.kernel == self.kernel
            and marked <= set(self.candidates)
            and marked_on_alignment <= set(self.alignment_candidates)
            and not marked & marked_on_alignment
            and self.allows(variant.config, shape)
        )

    def require_feasible(self, shape: Shape) -> None:
        """SpaceError, with what each constraint rejects, when no config meets the constraints at the shape."""
        for _ in self.configs(shape):
            return
        lines = [f"{self.source.place(('implementations',))}No config meets the constraints at {shape.label}."]
        for implementation in self.implementations:
            lines.append(f"{implementation.name}: {implementation.size} configs")
            for constraint in implementation.constraints:
                count = implementation.rejected_alone(constraint, shape)
                share = f"rejects {count} of them alone" if count is not None else "has too many values to count"
                place = f"line {constraint.line}: " if constraint.line else ""
                lines.append(f"  {place}{constraint.text!r} {share}")
        raise SpaceError("\n".join(lines), hint="Add values, loosen a constraint or drop the shape.")

    def check(
        self,
        parameters_by_implementation: Mapping[str, Sequence[str]],
        arguments: Mapping[str, Sequence[str]],
        dimensions: Sequence[str],
    ) -> None:
        """Hold the names against the kernel; SpaceError lists every wrong one with its line and the nearest right one.

        `parameters_by_implementation` and `arguments` give the tuned parameters and the runtime arguments of each of
        the kernel's implementations by its name; `dimensions` are all the kernel's shape dimensions.
        """
        problems = list(find_problems(self, parameters_by_implementation, arguments, dimensions))
        if problems:
            raise self.source.error(problems)
