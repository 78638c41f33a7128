"""What is known of the environment here without loading torch or triton."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_examples

from tuner.measure import installed
from tuner.measure.installed import installed_environment, nvidia_driver
from tuner.records import PROTOCOL_VERSION, Environment, Target

STATED = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Mar  3 18:46:04 UTC 2026
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.12  Release Build  (dvs-builder)\n"
STORED = dataclasses.replace(store_examples.ENVIRONMENT, protocol=PROTOCOL_VERSION + 1)


@pytest.fixture(autouse=True)
def driver_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the driver states its version; not there at first."""
    path = tmp_path / "version"
    monkeypatch.setattr(installed, "_DRIVER", path)
    installed._versions.cache_clear()
    yield path
    installed._versions.cache_clear()


def set_packages(monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(installed, "version", version)


@pytest.mark.triton
def test_versions_are_those_of_the_packages() -> None:
    here = installed_environment(STORED)
    assert importlib.metadata.version("torch").startswith(here.torch.partition("+")[0])
    assert here.triton == importlib.metadata.version("triton")
    assert here.protocol == PROTOCOL_VERSION
    assert (here.driver, here.ptxas) == ("", "")
    same = ("target", "evidence", "device", "l2")
    assert [getattr(here, name) for name in same] == [getattr(STORED, name) for name in same]


@pytest.mark.parametrize(
    ("stored", "package", "differs"),
    [
        ("2.11.0+cu130", "2.11.0", False),
        ("2.11.0", "2.11.0+cpu", False),
        ("2.11.0+cu130", "2.11.1", True),
        ("2.11.0", "2.11.0rc1", True),
    ],
)
def test_only_the_public_part_of_torchs_version_counts(
    monkeypatch: pytest.MonkeyPatch, stored: str, package: str, differs: bool
) -> None:
    set_packages(monkeypatch, torch=package, triton=STORED.triton)
    like = dataclasses.replace(STORED, torch=stored, protocol=PROTOCOL_VERSION)
    expected = (f"torch {stored}, here {package}",) if differs else ()
    assert like.differences(installed_environment(like)) == expected


def test_what_is_not_installed_is_unknown_and_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    set_packages(monkeypatch)
    here = installed_environment(STORED)
    assert here.torch == here.triton == here.driver == here.ptxas == ""
    assert STORED.differences(here) == (f"timing protocol {PROTOCOL_VERSION + 1}, here {PROTOCOL_VERSION}",)


def test_the_driver_is_read_from_its_kernel_module(driver_file: Path) -> None:
    assert nvidia_driver() == ""
    for text, version in ((STATED, "580.159.04"), (OPEN, "570.12"), ("nothing of use\n", "")):
        driver_file.write_text(text)
        assert nvidia_driver() == version


@pytest.mark.parametrize(("target", "driver"), [(Target("cuda", "90"), "580.159.04"), (Target("hip", "gfx942"), "")])
def test_the_driver_is_that_of_the_targets_vendor(driver_file: Path, target: Target, driver: str) -> None:
    driver_file.write_text(STATED)
    like: Environment = dataclasses.replace(STORED, target=target)
    assert installed_environment(like).driver == driver
