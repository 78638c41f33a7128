"""The contract of an export format: a kernel's winner table in, named texts out."""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.catalog import Kernel
from tuner.runtime import WinnerTable


@dataclass(frozen=True)
class ExportedFile:
    """A file's name, with folders where its reader expects them, and its text."""

    name: str
    text: str


Exporter = Callable[[WinnerTable, Kernel], list[ExportedFile]]
