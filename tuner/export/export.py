"""The contract of an export format: a winner table in, named texts out."""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.runtime import WinnerTable


@dataclass(frozen=True)
class ExportedFile:
    """A file's name, as its reader expects it, and its text."""

    name: str
    text: str


Exporter = Callable[[WinnerTable], list[ExportedFile]]
