"""Which arguments of a kernel to mark: what each mark saves, what it costs, and the set to take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tuner.catalog import Kernel
from tuner.compile.classes import ClassTable, Mark, class_table
from tuner.errors import UserError
from tuner.measure.environment import device_environment, estimated_environment
from tuner.processes import Failure, WorkerPool
from tuner.records import Config, Environment, SpecializationSet, Speedup, Target
from tuner.space import load_space
from tuner.specialize.advice import ArgumentReport, argument_reports
from tuner.specialize.choice import first_free, one_mark, single_marks, useful_sets
from tuner.specialize.effect import Effect
from tuner.specialize.patch import Patch, declared_marks, decorator_patch
from tuner.specialize.scope import Scope
from tuner.specialize.timing import measure_pairs
from tuner.specialize.workbench import Pair, Workbench

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to look at.

    `target` None means this machine's GPU, timed. `source` is the file that a patch is for. `sized` is false for a
    kernel whose spec says nothing of its tensors' sizes: nothing is timed or estimated.
    """

    kernel: Kernel
    config: Config
    scope: Scope
    target: Target | None
    jobs: int
    source: Path
    sized: bool = True

    @property
    def function(self) -> str:
        return self.kernel.spec.implementation(self.config.implementation).function


def config_of(kernel: Kernel, implementation: str | None, scope: Scope, target: Target | None) -> Config:
    """The baseline's config; for another implementation the first one that the search space allows at most steps.

    `target` None means this machine's GPU. UnknownNameError for an implementation that does not exist; UserError where
    the space has no config for it.
    """
    if implementation in (None, kernel.spec.baseline.implementation):
        return kernel.spec.baseline
    name = kernel.spec.implementation(str(implementation)).name
    space = load_space(kernel.space_path, [dimension.name for dimension in kernel.spec.dimensions])
    space = space.on(target or device_environment().target)
    usual = max(scope.shares, key=lambda shape: scope.shares[shape])
    config = next(space.implementation(name).configs(usual), None)
    if config is None:
        raise UserError(f"The search space of {kernel.name} allows no config of {name!r} at {usual.label}.")
    return config


@dataclass(frozen=True)
class MarkedSet:
    """A set of marks, its compiles over the steps, and what it does against none."""

    marks: SpecializationSet
    compiles: int
    effect: Effect


@dataclass(frozen=True)
class Recommendation:
    """What was found.

    `declared` are the marks in the source as it is, with their compiles. `fewest` is the smallest set of fewest
    compiles where that has fewer than the recommended one: it costs time. `environment` says what times come from,
    None where there are none.
    """

    kernel: Kernel
    config: Config
    scope: Scope
    target: Target
    environment: Environment | None
    unmarked_compiles: int
    declared: SpecializationSet
    declared_compiles: int
    arguments: tuple[ArgumentReport, ...]
    recommended: MarkedSet
    fewest: MarkedSet | None
    patch: Patch


def recommend(request: Request, tell: Tell = lambda _: None) -> Recommendation:
    """Look at every argument and every set of marks that can save a compile; choose the set that saves most for free.

    Free is a set of which no mark, nor all together, costs time (see `Effect.cost`). UserError when the kernel cannot
    be bound or compiled.
    """
    measured = request.target is None and request.sized
    target = request.target or device_environment().target
    tell("binding every shape")
    table = _table(request, target)
    scope = request.scope.among(table.shapes)
    measure = partial(_measure, request.kernel.folder, tell) if measured else None
    declared = declared_marks(request.source, request.function)
    with WorkerPool(request.jobs) as pool:
        bench = Workbench(request.kernel, request.config, table, scope, target, pool, measure, request.sized)
        singles, sets = list(dict.fromkeys([*_singles(table), *single_marks(declared)])), useful_sets(table)
        tell(f"compiling for {target}")
        bench.compile(singles)
        likely = first_free(sets, lambda marks: bool(bench.of(marks).cost))
        bench.time([*singles, likely, sets[0]])
        best = first_free(sets, lambda marks: bool(bench.timed(marks).cost))
        best = _kept(best, declared, lambda marks: bool(bench.timed(marks).cost))
        effects = {marks: bench.timed(marks) for marks in {*singles, best, sets[0]}}
    chosen, least = (MarkedSet(marks, table.count(marks), effects[marks]) for marks in (best, sets[0]))
    return Recommendation(
        kernel=request.kernel,
        config=request.config,
        scope=scope,
        target=target,
        environment=_environment(request, target),
        unmarked_compiles=table.count(SpecializationSet()),
        declared=declared,
        declared_compiles=table.count(declared),
        arguments=tuple(argument_reports(table, scope, best, effects)),
        recommended=chosen,
        fewest=least if least.compiles < chosen.compiles else None,
        patch=decorator_patch(request.source, request.function, best),
    )


def _kept(
    best: SpecializationSet, declared: SpecializationSet, costs: Callable[[SpecializationSet], bool]
) -> SpecializationSet:
    """`best` with the source's own marks that cost nothing: what was not looked at may need them."""
    free = [marks for marks in single_marks(declared) if not costs(marks)]
    full = {name for marks in free for name in marks.do_not_specialize} | {*best.do_not_specialize}
    aligned = {name for marks in free for name in marks.do_not_specialize_on_alignment}
    union = SpecializationSet.of(full, ({*best.do_not_specialize_on_alignment} | aligned) - full)
    return best if costs(union) else union


def _table(request: Request, target: Target) -> ClassTable:
    name = request.kernel.name
    try:
        table = class_table(request.kernel, request.config, request.scope.shares, target)
    except UserError:
        raise
    except Exception as error:  # the kernel's own code, or Triton's binder, may raise anything
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(f"{request.source} cannot be loaded and bound: {found}") from error
    if not table.shapes:
        raise UserError(f"No shape of {name} that is looked at launches anything.", hint="Give others with --shapes.")
    return table


def _singles(table: ClassTable) -> list[SpecializationSet]:
    """Every mark by itself, but for pointers that are aligned at every step or at none: no mark of these saves."""
    names = [
        name for name in table.runtime if len(set(table.of(name))) > 1 or not table.of(name)[0].type.startswith("*")
    ]
    return [one_mark(name, mark) for name in names for mark in (Mark.SPECIALIZATION, Mark.ALIGNMENT)]


def _measure(folder: Path, tell: Tell, pairs: Sequence[Pair]) -> dict[Pair, Speedup | Failure]:
    tell(f"timing {len(pairs)} pairs of binaries in fresh processes")
    return measure_pairs(folder, pairs)


def _environment(request: Request, target: Target) -> Environment | None:
    if not request.sized:
        return None
    return device_environment() if request.target is None else estimated_environment(target)
