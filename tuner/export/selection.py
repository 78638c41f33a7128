"""Which of the stored winners a table takes: of one device, the newest of each shape."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tuner.api import tables_of
from tuner.catalog import Kernel
from tuner.errors import UnknownNameError, UserError
from tuner.records import Environment, Evaluation, Status, Winner
from tuner.runtime import WinnerTable
from tuner.store import Store

_VERSIONS = ("torch", "triton", "driver", "ptxas", "l2")


def export_table(kernel: Kernel, winners: Sequence[Winner], device: str | None = None) -> WinnerTable:
    """The newest winner of each shape on a device, of the winners of a kernel, newest first.

    Measured ones where there are any, else estimates; `device` is the name of a GPU, or the target of estimates. The
    table's environment is true of every row: where they are of several versions it names all (`3.6.0 or 3.9.0`), and
    the oldest timing protocol. UserError when there is no winner, and for several devices of which none is named.
    """
    ours = [each for each in winners if each.source_digest == kernel.source_digest]
    if not ours:
        stale = f" ({len(winners)} belong to other sources of it)" if winners else ""
        raise UserError(f"No winners are stored for {kernel.name}{stale}.", hint=f"Run `tuner run {kernel.name}`.")
    known = ours if device else [each for each in ours if each.environment.device] or ours
    places = sorted({_place(each.environment) for each in known})
    if device and device not in places:
        raise UnknownNameError("device", device, places)
    if not device and len(places) > 1:
        raise UserError(
            f"The winners of {kernel.name} are of several devices: {', '.join(places)}.",
            hint="Name one of them with --device; each has a table of its own.",
        )
    newest = {each.shape: each for each in reversed(known) if _place(each.environment) == (device or places[0])}
    where = _common([each.environment for each in newest.values()])
    (table,) = tables_of([replace(each, environment=where) for each in newest.values()])
    return replace(table, rows=tuple(newest[row.shape] for row in table.rows))


def left_out(table: WinnerTable, winners: Iterable[Winner]) -> str:
    """How many of the winners are not in their table, and why; empty when all are."""
    held = set(table.rows)
    counts = Counter(_why(each, table) for each in winners if each not in held)
    return ", ".join(f"{count} {why}" for why, count in counts.items())


def evaluations_behind(table: WinnerTable, store: Store) -> list[Evaluation]:
    """What the rows were chosen from, each in its own environment, and all that was wrong in one of these."""
    found = []
    for where in dict.fromkeys(row.environment for row in table.rows):
        shapes = {row.shape for row in table.rows if row.environment == where}
        stored = store.evaluations(table.kernel, table.source_digest, where)
        found += [each for each in stored if each.shape in shapes or each.status is Status.WRONG_OUTPUT]
    return found


def _place(environment: Environment) -> str:
    return environment.device or str(environment.target)


def _common(environments: Sequence[Environment]) -> Environment:
    named: dict[str, Any] = {
        name: " or ".join(sorted({getattr(each, name) for each in environments})) for name in _VERSIONS
    }
    return replace(environments[0], **named, protocol=min(each.protocol for each in environments))


def _why(winner: Winner, table: WinnerTable) -> str:
    if winner.source_digest != table.source_digest:
        return "of another source of the kernel"
    if winner.environment.evidence is not table.environment.evidence:
        return str(winner.environment.evidence)
    if _place(winner.environment) != _place(table.environment):
        return f"of {_place(winner.environment)}"
    return "older at its shapes"
