"""From a table of winners to its portfolio: joins ranking with what Triton compiles and what a workload asks for."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.catalog import Kernel
from tuner.errors import UserError
from tuner.records import Evaluation, Portfolio, Shape, SpecializationSet, Target, Variant
from tuner.records.portfolio import REGRET_BOUND
from tuner.runtime import WinnerTable

if TYPE_CHECKING:
    from tuner.compile.classes import ClassTable
    from tuner.ranking import Assignment, Cell, Keys
    from tuner.workload import Workload

# Over so many sizes of a bucket compile keys are counted; of a longer one about so many, spread evenly, are taken.
_COUNTED_SIZES = 2048


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

    Each combination of a class table and a specialization set is worked out once.
    """
    from tuner.compile.class_tables import ClassTables
    from tuner.compile.classes import class_table

    of_cells: dict[Shape, ClassTables] = {}
    distinct: dict[int, ClassTable] = {}
    reached: dict[tuple[int, SpecializationSet], frozenset[Hashable]] = {}

    def keys(variant: Variant, cell: "Cell") -> frozenset[Hashable]:
        config, marks = variant.config, variant.specialization
        if cell.shape not in of_cells:
            shapes = [Shape({**cell.shape, dynamic: size}) for size in _counted(cell.first, cell.last)]
            of_cells[cell.shape] = ClassTables(kernel, shapes, target)
        table = of_cells[cell.shape].of(config)
        place = id(table)
        if place not in distinct:
            # Shapes that are one to the unmarked kernel are one under every set.
            distinct[place] = class_table(kernel, config, table.keys(SpecializationSet()).values(), target)
        if (place, marks) not in reached:
            reached[place, marks] = frozenset(distinct[place].keys(marks))
        return reached[place, marks]

    return keys


def _counted(first: int, last: int) -> list[int]:
    """Sizes from first to last, both of them; the step is odd, so that every remainder by a power of two occurs."""
    step = (last - first) // _COUNTED_SIZES | 1
    return [*range(first, last, step), last]
