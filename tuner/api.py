"""The public face: joins the runtime with tables from a file, the store and the published winners."""

import logging
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tuner import settings
from tuner.catalog import Kernel, content_root, load_folder, load_kernel
from tuner.errors import StoreError, TableError
from tuner.measure.installed import installed_environment
from tuner.records import DEFAULT_TARGET, DimensionValue, Environment, Target, Winner
from tuner.runtime import Found, Lookup, Origin, WinnerTable, find, read_table
from tuner.runtime.lookup import no_winner, plain
from tuner.runtime.table import check_table

_log = logging.getLogger("tuner")


def lookup(kernel: str, /, **shape: DimensionValue) -> Lookup:
    """The variant to run at a shape.

    `shape` holds the kernel's dimensions by name; those with a default may be left out. Winners come from the file in
    `$TUNER_TABLE`, or else from the store and the published winners; they are read once per process. Never fails for a
    shape that was not tuned: the answer's `origin` then says bucket, family or baseline. Winners of other versions
    than those here still answer for the same device, after those of the versions here; the answer's `stale` then says
    what differs. Answers are kept: the first one for a shape takes longer. `tuner.explain` says what was considered.

    The answer is for the first GPU. Where torch is loaded and sees one, it is asked for its name, which initializes
    CUDA in this process: a process that forks must look up after that.

    UserError for a value that a dimension cannot have (TypeError for one without a hash, as a list), UnknownNameError
    for an unknown kernel or dimension, TableError or StoreError when the winners cannot be read. A store of another
    schema is left out, with a warning. Under `$TUNER_STRICT` that is a StoreError, and a shape for which only the
    baseline is left is a UserError.
    """
    return _answer(kernel, "torch" in sys.modules, **shape)


@lru_cache(maxsize=1 << 16, typed=True)  # 512.0 is no 512
def _answer(kernel: str, with_torch: bool, /, **shape: DimensionValue) -> Lookup:
    """What `lookup` keeps; no GPU is known before torch is loaded, so that an answer may be another one then."""
    found, tables = _known(kernel)
    device, target = this_device()
    answer = look_up(found, tables, shape, device, target)
    if answer.origin is Origin.BASELINE and settings.is_strict():
        raise no_winner(kernel, answer.shape, target)
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
    shape = kernel.spec.shape(plain(values))
    dynamic = kernel.spec.dynamic_dimensions
    found = find(tables, shape, dynamic, device, target, stale_environments(tables))
    if found is None:
        why = f"no winner of this source for {target} covers {shape.label}; this is the variant that upstream ships"
        return Lookup(kernel.spec.baseline_variant, shape, Origin.BASELINE, None, why)
    stale = _differences(found.winner.environment)
    explanation = _explain(found, dynamic) + (", with other versions than here" if stale else "")
    return Lookup(found.variant, shape, found.origin, found.winner, explanation, stale)


def stale_environments(tables: Iterable[WinnerTable]) -> tuple[Environment, ...]:
    """Those of the tables whose versions are not the ones here."""
    return tuple(each.environment for each in tables if _differences(each.environment))


@lru_cache(maxsize=256)
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

    Does not import torch: where nothing has, no device is looked for. Initializes CUDA where there is a GPU: NVML would
    not, but does not tell which of its GPUs torch's first one is.
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
    tables = [read_table(path)] if path else [*_stored_tables(kernel, url), *published_tables(kernel)]
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


def _stored_tables(kernel: str, url: str | None) -> list[WinnerTable]:
    """Those of the store. The default one is left out, with a warning, where it is not of this version's schema.

    Not where it could not be read (an error with a cause): another rank may have read it and answer otherwise.
    """
    from tuner.store import Store

    place = url or settings.database_url()
    if Store.is_missing(place):
        return []
    try:
        store = Store.open(place, read_only=True)
    except StoreError as error:
        if url or error.__cause__ or settings.is_strict():
            raise
        _log.warning("%s Until then %s has the published winners alone. %s", error.message, kernel, error.hint)
        return []
    with store:
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


def published_tables(kernel: str) -> list[WinnerTable]:
    """The winners that are shipped with tuner, a table for each device."""
    folder = content_root() / "db" / "winners"
    return [read_table(path) for path in sorted(folder.glob(f"*/{kernel}.json"))]
