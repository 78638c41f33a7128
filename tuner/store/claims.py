"""Which run works on what, so that runs that share a database share the work and do not repeat it.

A claim counts as long as its run is alive; what a dead run has claimed may be taken at once. A run is alive while its
process is, where that can be seen from here; one of another host or container while it beats.
"""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select
from sqlalchemy.orm import aliased

from tuner.store.rows import Values
from tuner.store.schema import ClaimRow, RunRow
from tuner.store.statements import insert

# Beats stop while a run waits for a job of its final, a minute or a few; and clocks differ.
LEASE_S = 300.0
UNKNOWN = "unknown"


def signs_of_life() -> Values:
    """The columns of a run by which others see that it is alive."""
    pid = os.getpid()
    return {"host": f"{_place()} {process_start(pid)}", "pid": pid, "beat_at": datetime.now(UTC)}


def claim(connection: Connection, run_id: int, key: str) -> bool:
    """Take the key if it is this run's, nobody's or a dead run's; whether it is this run's now.

    Of several that see the same dead run one wins: the key is taken from that run only, not from whoever was faster.
    """
    query = select(RunRow.__table__).join(ClaimRow).where(ClaimRow.key == key)
    holder = connection.execute(query).one_or_none()
    if holder is not None and holder.id != run_id and _is_alive(holder):
        return False
    seen = run_id if holder is None else holder.id
    statement = insert(connection, ClaimRow).values(key=key, run_id=run_id)
    statement = statement.on_conflict_do_update(
        index_elements=["key"], set_={"run_id": run_id}, where=ClaimRow.run_id.in_([run_id, seen])
    )
    return connection.execute(statement.returning(ClaimRow.key)).scalar() is not None


def release(connection: Connection, run_id: int, *keys: str) -> None:
    """Give up those of the keys that are this run's; without keys, all that are."""
    statement = delete(ClaimRow).where(ClaimRow.run_id == run_id)
    if keys:
        connection.execute(statement.where(ClaimRow.key == bindparam("given")), [{"given": key} for key in keys])
    else:
        connection.execute(statement)


def count_others(connection: Connection, run_id: int) -> int:
    """How many other runs of the same kernel, source and environment are alive."""
    this = aliased(RunRow)
    query = select(RunRow.__table__).join(
        this,
        (RunRow.kernel == this.kernel)
        & (RunRow.source_digest == this.source_digest)
        & (RunRow.environment_id == this.environment_id),
    )
    query = query.where(this.id == run_id, RunRow.id != run_id, RunRow.finished_at.is_(None))
    return sum(map(_is_alive, connection.execute(query)))


def _is_alive(run: Row[Any]) -> bool:
    """A run that a store of the first schema knows never beat, and counts as dead."""
    if run.finished_at is not None or run.beat_at is None:
        return False
    place, _, start = run.host.rpartition(" ")
    if place == _place():
        return process_start(run.pid) in (start, UNKNOWN)
    return bool(datetime.now(UTC) - run.beat_at <= timedelta(seconds=LEASE_S))


def _place() -> str:
    """Where process ids mean the same: containers may share the name of a host, and ids begin again with each boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """When the process with that id began, of whichever user, in clock ticks since boot; an id is given out again.

    `UNKNOWN` where the system does not say. None when there is none, or one that ended and was not waited for.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is there, and another user's
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return UNKNOWN
    return None if state in "ZX" else fields[18]
