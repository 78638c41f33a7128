"""Why stored winners do not hold any more: their kernel, its source, the machine, the versions."""

import dataclasses
from pathlib import Path

import pytest
import store_examples
from kernel_examples import DOUBLED, SCALE_ROWS, copy_kernel

from tuner.catalog import load_folder
from tuner.measure import environment
from tuner.report import stale_reasons
from tuner.runtime import WinnerTable

HERE = store_examples.ENVIRONMENT


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernels of the user's own, and HERE as the environment."""
    monkeypatch.delenv("TUNER_KERNEL_PATH", raising=False)
    monkeypatch.setattr(environment, "environment_here", lambda like: HERE)


@pytest.fixture
def table() -> WinnerTable:
    return WinnerTable("scale_rows", load_folder(SCALE_ROWS).source_digest, HERE, ())


def test_a_kernel_is_given_or_found_by_name(table: WinnerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale_reasons(table, load_folder(SCALE_ROWS)) == ()
    assert stale_reasons(table) == ("no kernel of this name is found",)
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(SCALE_ROWS.parent))
    assert stale_reasons(table) == ()


def test_source_and_environment_are_both_told(table: WinnerTable, tmp_path: Path) -> None:
    edited = load_folder(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": (DOUBLED, "x * 3")}))
    older = dataclasses.replace(table, environment=dataclasses.replace(HERE, driver="570.1", l2="warm"))
    assert stale_reasons(table, edited) == ("the kernel's source changed",)
    assert stale_reasons(older, load_folder(SCALE_ROWS)) == (f"driver 570.1, here {HERE.driver}",)
    assert stale_reasons(older, edited) == ("the kernel's source changed", f"driver 570.1, here {HERE.driver}")


def test_a_kernel_that_does_not_load_is_a_reason_and_no_error(
    table: WinnerTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = copy_kernel(SCALE_ROWS, tmp_path)
    (broken / "spec.py").write_text("raise RuntimeError('no [luck] today')\n")
    monkeypatch.setenv("TUNER_KERNEL_PATH", str(tmp_path))
    (reason,) = stale_reasons(table)
    assert reason == f"the kernel cannot be loaded: {broken}/spec.py cannot be loaded: RuntimeError: no [luck] today"
