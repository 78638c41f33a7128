"""Why `tuner.lookup` answers what it answers: what was considered, in order."""

from dataclasses import dataclass

from tuner import api
from tuner.catalog import load_kernel
from tuner.measure.installed import installed_environment
from tuner.records import DimensionValue, Shape, Target
from tuner.runtime import Lookup, WinnerTable


@dataclass(frozen=True)
class Considered:
    """A table, and the sizes of the dynamic dimension at which it has winners for the shape's other dimensions.

    `differences` are those of its versions from the ones here, as far as these are known.
    """

    table: WinnerTable
    sizes: tuple[int, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        rows = f"winners at {', '.join(map(str, self.sizes))}" if self.sizes else "no winner with these dimensions"
        return "; ".join([f"{self.table.environment.label}: {rows}", *self.differences])


@dataclass(frozen=True)
class Explanation:
    """An answer with what it was chosen from: the tables in the order in which they count, for the GPU here."""

    answer: Lookup
    device: str
    target: Target
    considered: tuple[Considered, ...]

    def __str__(self) -> str:
        """A few lines for people."""
        answer, variant = self.answer, self.answer.variant
        lines = [
            f"{variant.kernel} at {answer.shape.label}",
            f"runs        {variant.config.label}; do_not_specialize: {variant.specialization.label}",
            f"because     {answer.origin}: {answer.explanation}",
            f"here        {self.device or 'no GPU, or torch is not loaded'}, {self.target}",
            *(f"considered  {each}" for each in self.considered),
        ]
        return "\n".join(lines if self.considered else [*lines, "considered  no table: there are no winners"])


def explain(kernel: str, /, **shape: DimensionValue) -> Explanation:
    """What `tuner.lookup` answers for a shape, and why; printed it is text for people. The same errors."""
    found = load_kernel(kernel)
    device, target = api.this_device()
    tables = api.winner_tables(found)
    answer = api.look_up(found, tables, shape, device, target)
    dynamic = found.spec.dynamic_dimensions
    return Explanation(answer, device, target, tuple(_considered(table, answer.shape, dynamic) for table in tables))


def _considered(table: WinnerTable, shape: Shape, dynamic: tuple[str, ...]) -> Considered:
    sizes = [
        row.shape.size(dynamic[0])
        for row in table.rows
        if len(dynamic) == 1 and all(row.shape[name] == value for name, value in shape.items() if name not in dynamic)
    ]
    here = installed_environment(table.environment)
    return Considered(table, tuple(sorted(sizes)), table.environment.differences(here))
