"""The public face: joins the runtime with tables from a file, the store and the published winners."""

import sys
from functools import lru_cache

from tuner import settings
from tuner.catalog import Kernel, content_root, load_kernel
from tuner.errors import TableError, UserError
from tuner.measure.installed import installed_environment
from tuner.records import DEFAULT_TARGET, DimensionValue, Environment, Target, Winner
from tuner.runtime import Lookup, Origin, WinnerTable, find, read_table


def lookup(kernel: str, /, **shape: DimensionValue) -> Lookup:
    """The variant to run at a shape.

    `shape` holds the kernel's dimensions by name; those with a default may be left out. Winners come from the file in
    `$TUNER_TABLE`, or else from the store and the published winners; they are read once per process. Never fails for a
    shape that was not tuned: the answer's `origin` then says bucket, family or baseline. Winners of other versions
    than those here still answer, after those of the versions here; the answer's `stale` then says what differs.
    UnknownNameError for an unknown kernel or dimension, TableError or StoreError when the winners cannot be read.
    """
    found = load_kernel(kernel)
    device, target = this_device()
    return look_up(found, winner_tables(found), shape, device, target)


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
    winner, origin = found
    stale = _differences(winner.environment)
    explanation = _explain(winner, origin, dynamic) + (", with other versions than here" if stale else "")
    return Lookup(winner.variant, shape, origin, winner, explanation, stale)


def _differences(environment: Environment) -> tuple[str, ...]:
    """In what an environment's versions differ from those here; what cannot be known without torch is left out."""
    return environment.differences(installed_environment(environment))


def _explain(winner: Winner, origin: Origin, dynamic: tuple[str, ...]) -> str:
    sizes = ", ".join(f"{name}={winner.shape[name]}" for name in dynamic)
    where = winner.environment.device or f"{winner.environment.target}"
    how = f"{winner.environment.evidence} on {where}" if winner.environment.device else f"estimated for {where}"
    if origin is Origin.EXACT:
        return f"tuned at this very shape, {how}"
    if origin is Origin.BUCKET:
        return f"the nearest tuned shape is {sizes}, {how}"
    return f"from the same architecture, tuned at {sizes}, {how}"


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
    return _read_tables(kernel.name, kernel.source_digest, url)


@lru_cache(maxsize=256)
def _read_tables(kernel: str, source_digest: str, url: str | None) -> tuple[WinnerTable, ...]:
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
