"""From an address to an engine: which database, with which settings.

SQLite runs in WAL mode with synchronous=NORMAL: a killed process loses at most the transaction in flight, a power cut
at most the last few, and the file stays whole. A transaction that writes takes the write lock when it begins, so that
it waits its turn instead of failing half way.
"""

import os
import sqlite3
import time
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from tuner.errors import StoreError

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
WRITING = {"tuner_begin": "BEGIN IMMEDIATE"}

_EXPECTED = "Expected a path, sqlite:///path or postgresql://user@host/database."


@dataclass(frozen=True)
class Location:
    """A checked address; `path` is set for SQLite, `place` is what messages call it (without a password)."""

    url: URL
    path: Path | None
    place: str


def locate(address: str) -> Location:
    """Read a path or URL; StoreError when it is neither or names a database that tuner does not know."""
    if "://" not in address:
        return _file(address)
    try:
        url = make_url(address)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise StoreError("The store's address is not a URL that can be read.", hint=_EXPECTED) from error
    if backend == "sqlite":
        if url.query or url.host:
            raise StoreError(f"The store's address {address!r} has more than a path.", hint=_EXPECTED)
        return _file(url.database or "")
    if backend == "postgresql":
        if "+" not in url.drivername:
            url = url.set(drivername="postgresql+psycopg")
        return Location(url, None, url.render_as_string(hide_password=True))
    nearest = get_close_matches(backend, ["postgresql", "sqlite"], n=1, cutoff=0.5)
    guess = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise StoreError(f"Unknown database {backend!r} in the store's address{guess}", hint=_EXPECTED)


def _file(text: str) -> Location:
    if text in ("", ":memory:") or text.startswith("file:") or "\0" in text:
        raise StoreError(f"The store needs a file, and {text!r} names none.", hint=_EXPECTED)
    path = Path(text).expanduser().absolute()
    return Location(URL.create("sqlite", database=str(path)), path, str(path))


def make_engine(location: Location, *, read_only: bool) -> Engine:
    """An engine whose connections are set up; nothing is opened yet except the checks on a file and its folder."""
    if location.path is None:
        return _postgresql_engine(location.url)
    if read_only:
        _check_readable(location.path)
    else:
        _check_writable(location.path)
    return _sqlite_engine(location.url, location.path, read_only=read_only)


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"The store {path} is a folder.", hint="Name a file in it.")
    if not path.exists():
        raise StoreError(f"There is no store at {path}.", hint="Run `tuner run` first, or name another store.")


def _check_writable(path: Path) -> None:
    """SQLite opens a file that it may not write all the same and fails later, so ask first."""
    if path.is_dir():
        raise StoreError(f"The store {path} is a folder.", hint="Name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    for needed in (path.parent, path):
        if needed.exists() and not os.access(needed, os.W_OK):
            raise StoreError(
                f"Cannot open the store {path}: {needed} may only be read.",
                hint="Make the file and its folder writable, or name another store.",
            )


def _sqlite_engine(url: URL, path: Path, *, read_only: bool) -> Engine:
    mode = "mode=ro" if read_only else "mode=rwc"
    if read_only and not os.access(path.parent, os.W_OK) and not _beside(path, "-wal").exists():
        mode = "mode=ro&immutable=1"  # nobody has it open, and SQLite could not put its shared memory file there
    uri = f"file:{quote(str(path))}?{mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)

    engine = create_engine(url, creator=connect)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            _use_wal(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("tuner_begin", "BEGIN"))

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; while another process does the same SQLite answers `locked` at once, so ask again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    if mode == "wal":  # a file system without shared memory keeps its rollback journal and full synchronization
        connection.execute("PRAGMA synchronous = NORMAL")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _postgresql_engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    except ImportError as error:
        raise StoreError(
            f"A PostgreSQL store needs a driver that is not installed ({error.name}).",
            hint="Install it: pip install 'psycopg[binary]'.",
        ) from error

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
        connection.commit()

    return engine
