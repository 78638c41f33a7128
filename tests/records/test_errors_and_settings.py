"""Messages for people, and the environment variables."""

from pathlib import Path

import pytest

from tuner import settings
from tuner.errors import UnknownNameError, UserError


def test_a_hint_follows_the_message() -> None:
    assert str(UserError("No store.", hint="Run first.")) == "No store.\nRun first."
    assert str(UserError("No store.")) == "No store."


def test_unknown_names_list_what_is_known() -> None:
    assert str(UnknownNameError("kernel", "zzz", ["b", "a"])) == "Unknown kernel 'zzz'. Expected one of: a, b."
    assert "did you mean 'scale'?" in str(UnknownNameError("kernel", "scales", ["scale", "sum"]))
    assert "none exist" in str(UnknownNameError("kernel", "x", []))


def test_variables_come_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNER_DB", "TUNER_TABLE", "TUNER_CACHE", "TUNER_KERNEL_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("HOME", "/home/someone")
    assert settings.database_url() == "sqlite:////data/tuner/tuner.db"
    assert settings.table_path() is None
    assert settings.kernel_folders() == ()
    assert settings.cache_folder() == Path("/home/someone/.cache/tuner")
    monkeypatch.setenv("TUNER_DB", "postgresql://db/tuner")
    monkeypatch.setenv("TUNER_TABLE", "/t.json")
    monkeypatch.setenv("TUNER_CACHE", "/c")
    monkeypatch.setenv("TUNER_KERNEL_PATH", "/a::/b")
    assert settings.database_url() == "postgresql://db/tuner"
    assert settings.table_path() == Path("/t.json")
    assert settings.kernel_folders() == (Path("/a"), Path("/b"))
    assert settings.cache_folder() == Path("/c")
