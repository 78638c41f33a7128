"""Every environment variable and default path, in one place.

TUNER_DB             URL of the store (default: SQLite in the user's data folder)
TUNER_TABLE          winner table that `lookup` reads instead of the store and the published winners
TUNER_STRICT         anything but empty or 0: lookups and ops raise where only the baseline, or no bundle, is left
TUNER_BUNDLE         folder with bundles of binaries that `load_op` takes (see `tuner prebuild`)
TUNER_CACHE          folder for emitted variants (default: the user's cache folder)
TUNER_KERNEL_PATH    folders with further kernels, separated by ':'
"""

import os
from pathlib import Path


def data_folder() -> Path:
    """`$XDG_DATA_HOME/tuner`, by default `~/.local/share/tuner`."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "tuner"


def cache_folder() -> Path:
    """`$TUNER_CACHE`, or `$XDG_CACHE_HOME/tuner`, by default `~/.cache/tuner`."""
    if own := os.environ.get("TUNER_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tuner"


def database_url() -> str:
    """`$TUNER_DB`, or the SQLite file in the data folder."""
    return os.environ.get("TUNER_DB") or f"sqlite:///{data_folder() / 'tuner.db'}"


def table_path() -> Path | None:
    """`$TUNER_TABLE`, when set."""
    path = os.environ.get("TUNER_TABLE")
    return Path(path).expanduser() if path else None


def is_strict() -> bool:
    """Whether `$TUNER_STRICT` is set."""
    return os.environ.get("TUNER_STRICT", "") not in ("", "0")


def bundle_path() -> Path | None:
    """`$TUNER_BUNDLE`, when set."""
    path = os.environ.get("TUNER_BUNDLE")
    return Path(path).expanduser() if path else None


def kernel_folders() -> tuple[Path, ...]:
    """The folders of `$TUNER_KERNEL_PATH`."""
    return tuple(Path(folder) for folder in os.environ.get("TUNER_KERNEL_PATH", "").split(os.pathsep) if folder)
