"""Brings a database to the schema of this version; runs when a store is opened."""

import threading
import zlib

from sqlalchemy import Connection, Engine, inspect, text

from tuner.errors import StoreError
from tuner.store.connection import WRITING
from tuner.store.schema import VERSION_TABLE

# Every released schema, oldest first; kept equal to `db/migrations/versions` by a test, so that opening a store that is
# up to date need not load Alembic.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]

_ADVISORY_LOCK = zlib.crc32(b"tuner migrations")
_ALEMBIC_LOCK = threading.Lock()  # it keeps the migration that runs in module globals


def bring_up_to_date(engine: Engine, place: str, *, read_only: bool) -> None:
    """Create or migrate the tables, in one transaction and in one process at a time.

    StoreError when the schema is newer than this version, or when `read_only` and it is not the current one.
    """
    with engine.connect() as connection:
        found = _revision(connection, place)
    if found == HEAD:
        return
    if read_only:
        _refuse_to_migrate(found, place)
    with engine.execution_options(**WRITING).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if _revision(connection, place) != HEAD:
            _upgrade(connection)


def _revision(connection: Connection, place: str) -> str | None:
    """The schema's revision, None for a database without tuner's tables; StoreError for an unknown one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"The store {place} has schema {found!r}, and this version of tuner knows schemas up to {HEAD!r}.",
            hint="It was written by a newer tuner: upgrade tuner, or name another store. Nothing was changed.",
        )
    return found


def _refuse_to_migrate(found: str | None, place: str) -> None:
    if found is None:
        raise StoreError(
            f"The database {place} holds no tuner store.", hint="Run `tuner run` first, or name another store."
        )
    raise StoreError(
        f"The store {place} has schema {found!r}, and this version of tuner reads schema {HEAD!r}.",
        hint="Make it writable and run `tuner run` once: it brings the schema up to date.",
    )


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    from tuner.catalog.content import content_root

    config = Config(attributes={"connection": connection})
    folder = str(content_root() / "db" / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    with _ALEMBIC_LOCK:
        command.upgrade(config, "head")
