"""What is known of the environment here without loading torch or triton. Light to import."""

import re
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tuner.records import PROTOCOL_VERSION, Environment

_DRIVER = Path("/proc/driver/nvidia/version")


def installed_environment(like: Environment) -> Environment:
    """The environment of a result that is obtained with what is installed here, else as one of `like` was.

    Versions that cannot be known are empty. Packages may leave the local part of torch's version (`+cu130`) out, so
    torch is that of `like` where all but this part is the same.
    """
    torch, triton, driver = _versions()
    return replace(
        like,
        torch=like.torch if _public(like.torch) == _public(torch) else torch,
        triton=triton,
        driver=driver if like.target.backend == "cuda" else "",
        ptxas="",
        protocol=PROTOCOL_VERSION,
    )


def nvidia_driver() -> str:
    """The version that the NVIDIA driver's kernel module states; empty without one."""
    if not _DRIVER.is_file():
        return ""
    found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", _DRIVER.read_text())
    return found[1] if found else ""


@lru_cache(maxsize=1)
def _versions() -> tuple[str, str, str]:
    """Of torch, Triton and the NVIDIA driver."""
    return _package("torch"), _package("triton"), nvidia_driver()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _public(text: str) -> str:
    return text.partition("+")[0]
