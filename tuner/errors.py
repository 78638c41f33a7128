"""Every error that tuner raises on purpose.

    UserError                 something the caller can mend; the command line prints it and exits with 2
    ├── UnknownNameError      a kernel, parameter, dimension, target or key that does not exist; names the nearest
    ├── SpaceError            a search space that cannot be used; carries file and line
    ├── StoreError            the database cannot be opened, read or written
    └── TableError            a winner table that cannot be read

Failures of a variant are not errors: they end in a `Status` (see `tuner.records.outcome`).
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A problem that the caller can mend.

    The message says what was found, what was expected and, as `hint`, what to try.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., "UserError"], tuple[type["UserError"], str, str]]:
        return _restore, (type(self), self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def _restore(kind: type[UserError], message: str, hint: str) -> UserError:
    """An error that comes from another process; its class may take other arguments than its message."""
    error = kind.__new__(kind)
    UserError.__init__(error, message, hint=hint)
    return error


class UnknownNameError(UserError):
    """A name that is not in a closed list; the message ends with the nearest valid one."""

    def __init__(self, kind: str, found: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        nearest = get_close_matches(found, names, n=1, cutoff=0.5)
        expected = ", ".join(names) if names else "none exist"
        guess = f"; did you mean {nearest[0]!r}?" if nearest else "."
        super().__init__(f"Unknown {kind} {found!r}. Expected one of: {expected}{guess}", hint=hint)


class SpaceError(UserError):
    """A search space file that cannot be used."""


class StoreError(UserError):
    """The database cannot be opened, read or written."""


class TableError(UserError):
    """A winner table that cannot be read."""
