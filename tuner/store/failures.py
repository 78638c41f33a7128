"""The one place where what the database, its driver or the file system raises becomes a StoreError."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tuner.errors import StoreError

_RECOVER = "Nothing was changed. Move it aside; `sqlite3 OLD .recover | sqlite3 NEW` saves what can still be read."
_LOCKED = (
    "another process kept it locked for longer than the timeout",
    "Wait for the other process, or end it, and run again; what was saved before is kept.",
)
_FULL = ("the disk is full", "Free some space and run again; what was saved before is kept.")
_READ_ONLY = ("it may only be read", "Make the file and its folder writable, or name another store.")

# By SQLite's primary result code.
_SQLITE = {
    "SQLITE_NOTADB": ("the file is not a database", "Name another file; this one was left as it is."),
    "SQLITE_CORRUPT": ("the file is damaged", _RECOVER),
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_PERM": _READ_ONLY,
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_CANTOPEN": (
        "the file cannot be opened",
        "Check that the folder exists, that the file is one, and that both may be read and written.",
    ),
    "SQLITE_IOERR": ("reading or writing the file failed", "Check the disk; what was saved before is kept."),
}

# By the start of PostgreSQL's SQLSTATE.
_POSTGRESQL = {
    "08": ("the server cannot be reached", "Check that PostgreSQL runs at that address."),
    "25006": _READ_ONLY,
    "42501": ("the user lacks a privilege", "Grant it, or name another user in the address."),
    "53": ("the server is out of disk space, memory or connections", "Mend that and run again; saved rows are kept."),
    "55P03": _LOCKED,
    "57P": ("the server is starting or shutting down", "Run again once it is up; what was saved before is kept."),
}


@contextmanager
def translated(place: str, action: str) -> Iterator[None]:
    """Raise StoreError in place of anything that goes wrong while doing `action` (open, read, write) to the store."""
    start = f"Cannot {action} the store {place}: "
    try:
        yield
    except DBAPIError as error:
        found, hint = _explain(error)
        raise StoreError(start + found, hint=hint) from error
    except SQLAlchemyError as error:
        raise StoreError(start + _one_line(error), hint="") from error
    except OSError as error:
        hint = "Check that the path is right and that you may write there."
        raise StoreError(start + _one_line(error.strerror or error), hint=hint) from error
    except OverflowError as error:
        raise StoreError(start + f"a number is wider than 64 bits ({error})", hint="Use a smaller number.") from error
    except (ValueError, TypeError, KeyError) as error:
        if action != "read":
            raise
        hint = "It was edited by hand or written by another version of tuner; export what you need with that version."
        raise StoreError(start + f"a row is not a valid record ({_one_line(error)})", hint=hint) from error


def _explain(error: DBAPIError) -> tuple[str, str]:
    """What was found and what to try, from the driver's error code."""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        code = "_".join(name.split("_")[:2])
        return _SQLITE.get(code, (_one_line(error.orig), ""))
    state = getattr(error.orig, "sqlstate", None)
    if state is None and type(error.orig).__name__ == "OperationalError" and "FATAL" not in str(error.orig):
        state = "08"
    for start, answer in _POSTGRESQL.items():
        if state is not None and state.startswith(start):
            return f"{answer[0]} ({_one_line(error.orig)})", answer[1]
    if "FATAL" in str(error.orig):  # psycopg gives no code when connecting fails
        hint = "Check database, user and password in the address; `createdb` makes a database."
        return f"the server refused the connection ({_one_line(error.orig)})", hint
    return _one_line(error.orig), ""


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
