"""Checks whether a run could work here."""

import importlib.metadata
import os
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from tuner import __version__, settings
from tuner.catalog import content_root, kernel_names
from tuner.errors import StoreError
from tuner.records import DEFAULT_TARGET


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is well, what was found, and what to do about it."""

    name: str
    ok: bool
    found: str
    todo: str = ""


def diagnose(url: str) -> list[Finding]:
    """Every finding, in the order in which a run needs them."""
    checks: list[Callable[[], Finding]] = [_tuner, _python, _triton, _torch, _device, _kernels, _cache]
    return [check() for check in checks] + [_store(url)]


def _tuner() -> Finding:
    return Finding("tuner", True, f"{__version__}, content in {content_root()}")


def _python() -> Finding:
    return Finding("python", True, f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")


def _version(package: str) -> tuple[str, tuple[int, int]] | None:
    try:
        text = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    numbers = re.match(r"(\d+)\.(\d+)", text)
    return (text, (int(numbers[1]), int(numbers[2]))) if numbers else None


def _triton() -> Finding:
    found = _version("triton")
    if found is None:
        return Finding("triton", False, "not installed", "pip install 'triton>=3.6,<4'")
    text, version = found
    if (3, 6) <= version < (4, 0):
        return Finding("triton", True, text)
    return Finding("triton", False, f"{text}; supported are 3.6 to 3.9", "pip install 'triton>=3.6,<4'")


def _torch() -> Finding:
    found = _version("torch")
    if found is None:
        return Finding("torch", False, "not installed", "pip install 'torch>=2.11'")
    return Finding("torch", found[1] >= (2, 11), found[0], "" if found[1] >= (2, 11) else "pip install 'torch>=2.11'")


def _device() -> Finding:
    if _version("torch") is None:
        return Finding("device", True, f"none; runs compile for {DEFAULT_TARGET} and estimate")
    import torch

    if torch.cuda.is_available():
        from tuner.measure.environment import device_environment

        environment = device_environment()
        return Finding("device", True, f"{environment.device}, target {environment.target}: runs measure")
    return Finding(
        "device",
        True,
        f"none; runs compile for {DEFAULT_TARGET} (see --target) and estimate",
        "to measure, install a torch build for your GPU",
    )


def _kernels() -> Finding:
    names = kernel_names()
    return Finding("kernels", bool(names), ", ".join(names) or "none", "" if names else "reinstall tuner")


def _cache() -> Finding:
    folder = settings.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Finding("cache", True, str(folder))
    except OSError as error:
        return Finding("cache", False, f"{folder}: {error.strerror}", "set TUNER_CACHE to a folder you can write")


def _store(url: str) -> Finding:
    from tuner.store import Store

    try:
        if Store.is_missing(url):
            return Finding("store", True, f"{url}: not there yet; the first run creates it")
        with Store.open(url, read_only=True) as store:
            runs, winners = len(store.runs()), len(store.winners())
            return Finding("store", True, f"{store.place}: {runs} runs, {winners} winners")
    except StoreError as error:
        return Finding("store", False, error.message, error.hint)
