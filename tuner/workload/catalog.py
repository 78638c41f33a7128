"""Finds workloads: the shipped ones by name, others by path."""

from pathlib import Path

from tuner.catalog import content_root
from tuner.errors import UnknownNameError
from tuner.workload.document import read_workload
from tuner.workload.workload import Workload


def workload_paths() -> dict[str, Path]:
    """The shipped workloads' files by name."""
    return {path.stem: path for path in sorted((content_root() / "db" / "workloads").glob("*.json"))}


def load_workload(name_or_path: str) -> Workload:
    """The shipped workload of that name; the one in a file for a text with a slash or that ends in `.json`.

    UnknownNameError, with the nearest name, when there is none; UserError for a file that holds none.
    """
    if "/" in name_or_path or name_or_path.endswith(".json"):
        return read_workload(Path(name_or_path))
    known = workload_paths()
    if name_or_path not in known:
        hint = "`tuner workload list` describes them; a path needs a slash or ends in .json."
        raise UnknownNameError("workload", name_or_path, known, hint=hint)
    return read_workload(known[name_or_path])
