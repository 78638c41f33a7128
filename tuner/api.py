"""The public face: joins the runtime with tables from a file, the store and the published winners."""

import sys
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import settings
from tuner.catalog import Kernel, content_root, load_folder, load_kernel
from tuner.errors import TableError, UserError
from tuner.measure.installed import installed_environment
from tuner.records import (
    DEFAULT_TARGET,
    DimensionValue,
    Environment,
    Evaluation,
    Portfolio,
    Shape,
    SpecializationSet,
    Target,
    Variant,
    Winner,
)
from tuner.records.portfolio import REGRET_BOUND
from tuner.runtime import Found, Lookup, Origin, WinnerTable, find, read_table
from tuner.runtime.table import check_table

if TYPE_CHECKING:
    from tuner.compile.classes import ClassTable
    from tuner.ranking import Assignment, Cell, Keys
    from tuner.workload import Workload

# Over so many sizes of a bucket compile keys are counted; of a longer one about so many, spread evenly, are taken.
_COUNTED_SIZES = 2048


def lookup(kernel: str, /, **shape: DimensionValue) -> Lookup:
    """The variant to run at a shape.

    `shape` holds the kernel's dimensions by name; those with a default may be left out. Winners come from the file in
    `$TUNER_TABLE`, or else from the store and the published winners; they are read once per process. Never fails for a
    shape that was not tuned: the answer's `origin` then says bucket, family or baseline. Winners of other versions
    than those here still answer, after those of the versions here; the answer's `stale` then says what differs.
    Answers are kept: the first one for a shape takes longer. `tuner.explain` says what was considered.
    UnknownNameError for an unknown kernel or dimension, TableError or StoreError when the winners cannot be read. Under
    `$TUNER_STRICT` a shape for which only the baseline is left is a UserError.
    """
    try:
        return _answer(kernel, "torch" in sys.modules, **shape)
    except TypeError:  # a value that cannot be kept; the shape says what is wrong with it
        return _answer.__wrapped__(kernel, False, **shape)


@lru_cache(maxsize=1 << 16)
def _answer(kernel: str, with_torch: bool, /, **shape: DimensionValue) -> Lookup:
    """What `lookup` keeps; no GPU is known before torch is loaded, so that an answer may be another one then."""
    found, tables = _known(kernel)
    device, target = this_device()
    answer = look_up(found, tables, shape, device, target)
    if answer.origin is Origin.BASELINE and settings.is_strict():
        raise UserError(
            f"{kernel} has no winner at {answer.shape.label} for {target}.",
            hint=f"Run `tuner run {kernel}`, or unset TUNER_STRICT to get the baseline.",
        )
    return answer


@lru_cache(maxsize=256)
def _known(name: str) -> tuple[Kernel, tuple[WinnerTable, ...]]:
    """A kernel and its tables, kept: to find them reads files, and no new shape is to wait for that."""
    found = load_kernel(name)
    return found, winner_tables(found)


def look_up(
    kernel: Kernel,
    tables: tuple[WinnerTable, ...],
    values: dict[str, DimensionValue],
    device: str,
    target: Target,
) -> Lookup:
    """The answer from given tables for a given device; see `lookup`."""
    shape = kernel.spec.shape(values)
    dynamic = kernel.spec.dynamic_dimensions
    found = find(tables, shape, dynamic, device, target)
    if found is None:
        why = f"no winner of this source for {target} covers {shape.label}; this is the variant that upstream ships"
        return Lookup(kernel.spec.baseline_variant, shape, Origin.BASELINE, None, why)
    stale = _differences(found.winner.environment)
    explanation = _explain(found, dynamic) + (", with other versions than here" if stale else "")
    return Lookup(found.variant, shape, found.origin, found.winner, explanation, stale)


def _differences(environment: Environment) -> tuple[str, ...]:
    """In what an environment's versions differ from those here; what cannot be known without torch is left out."""
    return environment.differences(installed_environment(environment))


def _explain(found: Found, dynamic: tuple[str, ...]) -> str:
    return _where_from(found.winner, found.origin, dynamic) + _instead(found)


def _where_from(winner: Winner, origin: Origin, dynamic: tuple[str, ...]) -> str:
    sizes = ", ".join(f"{name}={winner.shape[name]}" for name in dynamic)
    where = winner.environment.device or f"{winner.environment.target}"
    how = f"{winner.environment.evidence} on {where}" if winner.environment.device else f"estimated for {where}"
    if origin is Origin.EXACT:
        return f"tuned at this very shape, {how}"
    if origin is Origin.BUCKET:
        return f"the nearest tuned shape is {sizes}, {how}"
    return f"from the same architecture, tuned at {sizes}, {how}"


def _instead(found: Found) -> str:
    """What is to be said where the portfolio has another variant than the winner."""
    if found.portfolio is None or found.variant == found.winner.variant:
        return ""
    count, regret = len(found.portfolio.variants), found.portfolio.regret
    return f"; instead of its winner runs one of {count} variants that are at most {regret:.1%} slower at tuned shapes"


def this_device() -> tuple[str, Target]:
    """Name and target of the first GPU; an empty name and the default target without one.

    Does not import torch: where nothing has, no device is looked for.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "", DEFAULT_TARGET
    from tuner.measure.environment import device_target

    return str(torch.cuda.get_device_name(0)), device_target()


def winner_tables(kernel: Kernel, url: str | None = None) -> tuple[WinnerTable, ...]:
    """Every table that `lookup` may use for a kernel, read once; rows of other sources of the kernel are left out.

    Tables of the versions here come first; among these, and among the others, stored ones before published ones.
    `url` names a store to use instead of the default one.
    """
    return _read_tables(kernel.folder, kernel.source_digest, url)


@lru_cache(maxsize=256)
def _read_tables(folder: Path, source_digest: str, url: str | None) -> tuple[WinnerTable, ...]:
    found = load_folder(folder)
    kernel = found.name
    path = settings.table_path() if url is None else None
    url = url or settings.database_url()
    tables = [read_table(path)] if path else [*_stored_tables(kernel, url), *_published_tables(kernel)]
    ours = [each for each in tables if each.kernel == kernel]
    if path and ours and ours[0].source_digest != source_digest:
        raise TableError(
            f"{path} is for another source of {kernel}: {ours[0].source_digest}, not {source_digest}.",
            hint="Export the table again from this version, or unset TUNER_TABLE.",
        )
    usable = [each for each in ours if each.source_digest == source_digest]
    if path:
        for each in usable:
            check_table(each, found, path)
    return tuple(sorted(usable, key=lambda each: bool(_differences(each.environment))))


def _stored_tables(kernel: str, url: str) -> list[WinnerTable]:
    from tuner.store import Store

    if Store.is_missing(url):
        return []
    with Store.open(url, read_only=True) as store:
        return tables_of(store.winners(kernel))


def tables_of(winners: list[Winner]) -> list[WinnerTable]:
    """Winners grouped into tables of one kernel, source and environment, in the order in which these first occur.

    Rows are sorted by shape.
    """
    groups: dict[tuple[str, str, str], list[Winner]] = {}
    for winner in winners:
        key = (winner.variant.kernel, winner.source_digest, winner.environment.digest)
        groups.setdefault(key, []).append(winner)
    return [
        WinnerTable(kernel, digest, rows[0].environment, _sorted(rows)) for (kernel, digest, _), rows in groups.items()
    ]


def _sorted(rows: list[Winner]) -> tuple[Winner, ...]:
    return tuple(sorted(rows, key=lambda row: [(isinstance(size, str), size) for size in [*row.shape.values()][::-1]]))


def _published_tables(kernel: str) -> list[WinnerTable]:
    folder = content_root() / "db" / "winners"
    return [read_table(path) for path in sorted(folder.glob(f"*/{kernel}.json"))]


def export_table(kernel: Kernel, winners: list[Winner]) -> WinnerTable:
    """The table to export: the newest measured one, or the newest estimated; UserError when there is none."""
    tables = [each for each in tables_of(winners) if each.source_digest == kernel.source_digest]
    if not tables:
        stale = f" ({len(winners)} belong to other sources of it)" if winners else ""
        raise UserError(f"No winners are stored for {kernel.name}{stale}.", hint=f"Run `tuner run {kernel.name}`.")
    return next((each for each in tables if each.environment.device), tables[0])


@dataclass(frozen=True)
class Consolidation:
    """A table's portfolio, and what it was chosen from: an assignment for each combination of the fixed dimensions.

    `workload` names what weighs the shapes; None where they weigh the same.
    """

    portfolio: Portfolio
    assignments: tuple["Assignment", ...]
    keys: "Keys"
    workload: str | None

    def curve(self, assignment: "Assignment") -> list["Assignment"]:
        """The best assignments of every number of variants; see `ranking.regret_curve`."""
        from tuner.ranking import regret_curve

        return regret_curve(assignment.cells, self.keys, assignment)


def consolidate(
    kernel: Kernel,
    table: WinnerTable,
    evaluations: Iterable[Evaluation],
    bound: float = REGRET_BOUND,
    workload: "Workload | None" = None,
) -> Consolidation:
    """The portfolio of a table of winners of this source of the kernel; see `ranking.consolidate`.

    `evaluations` are those of the table's environment. A workload weighs the tuned sizes; without one they weigh the
    same. Loads Triton, to count compile keys. UserError for a bound that is none, a kernel without exactly one dynamic
    dimension, or a workload that has nothing to do with the table.
    """
    from tuner.ranking import cells_of, consolidate, portfolio_of

    if len(kernel.spec.dynamic_dimensions) != 1:
        raise UserError(f"{kernel.name} has no portfolio: buckets need exactly one dynamic dimension.")
    if not 0 <= bound < float("inf"):
        raise UserError(f"The bound is {bound}; expected a share of at least 0, as 0.01 for 1%.")
    (dynamic,) = kernel.spec.dynamic_dimensions
    keys = _reached_keys(kernel, dynamic, table.environment.target)
    groups = [_weighted(cells, dynamic, workload) for cells in cells_of(table.rows, evaluations, dynamic)]
    assignments = tuple(consolidate(cells, keys, bound) for cells in groups)
    portfolio = portfolio_of(assignments, keys, dynamic, bound)
    return Consolidation(portfolio, assignments, keys, workload.name if workload else None)


def _weighted(cells: tuple["Cell", ...], dynamic: str, workload: "Workload | None") -> tuple["Cell", ...]:
    from tuner.ranking import weighted

    if workload is None:
        return cells
    if workload.dimension != dynamic:
        raise UserError(f"The workload {workload.name} is of {workload.dimension}; this kernel's sizes are {dynamic}.")
    weights = workload.nearest_weights(cell.shape.size(dynamic) for cell in cells)
    if not any(weights.values()):
        raise UserError(f"No step of the workload {workload.name} is near one of the tuned sizes.")
    return weighted(cells, weights, dynamic)


def _reached_keys(kernel: Kernel, dynamic: str, target: Target) -> "Keys":
    """The compile keys that a variant reaches over the sizes of a cell, from Triton's own binder.

    They depend on shape, implementation and specialization set alone; each combination is worked out once.
    """
    from tuner.compile.classes import class_table

    tables: dict[tuple[str, Shape], ClassTable] = {}
    reached: dict[tuple[str, Shape, SpecializationSet], frozenset[Hashable]] = {}

    def keys(variant: Variant, cell: "Cell") -> frozenset[Hashable]:
        config, marks = variant.config, variant.specialization
        place = (config.implementation, cell.shape)
        if place not in tables:
            shapes = [Shape({**cell.shape, dynamic: size}) for size in _counted(cell.first, cell.last)]
            every = class_table(kernel, config, [each for each in shapes if _takes(kernel, each)], target)
            # Shapes that are one to the unmarked kernel are one under every set.
            tables[place] = class_table(kernel, config, every.keys(SpecializationSet()).values(), target)
        if (*place, marks) not in reached:
            reached[*place, marks] = frozenset(tables[place].keys(marks))
        return reached[*place, marks]

    return keys


def _counted(first: int, last: int) -> list[int]:
    """Sizes from first to last, both of them; the step is odd, so that every remainder by a power of two occurs."""
    step = (last - first) // _COUNTED_SIZES | 1
    return [*range(first, last, step), last]


def _takes(kernel: Kernel, shape: Shape) -> bool:
    """Whether the kernel has inputs of a shape."""
    try:
        kernel.spec.make_inputs(kernel.spec.shape(shape), "meta", 0)
    except UserError:
        return False
    return True
