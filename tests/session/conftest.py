"""A bench for sessions without workers, and what the tests with real ones share."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("session_fakes")

if TYPE_CHECKING:
    from session_fakes import Bench


@pytest.fixture(scope="session")
def loop() -> ModuleType:
    """The module of the tuning loop, whose name `tuner.session.run` stands for its function too."""
    return importlib.import_module("tuner.session.run")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Bench":
    """Runs sessions over one store in this process, without Triton or workers."""
    from session_fakes import Bench, FakeTable

    monkeypatch.setattr("tuner.compile.class_tables.class_table", FakeTable)
    return Bench(tmp_path / "store.db")
