"""Where the content folders `kernels`, `search_spaces` and `db` are."""

from importlib.resources import files
from pathlib import Path


def content_root() -> Path:
    """The folder that holds them: data inside the installed package, else the root of the source tree."""
    package = Path(str(files("tuner")))
    installed = package / "_content"
    return installed if installed.is_dir() else package.parent
