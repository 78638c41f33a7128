"""Files in the cache folder."""

import stat
from pathlib import Path

import pytest

from tuner.catalog.cache import keep
from tuner.errors import UserError


def test_a_file_holds_the_text_whatever_it_held_before(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.py"
    keep(path, "first")
    written = path.stat().st_mtime_ns
    keep(path, "first")
    assert path.stat().st_mtime_ns == written
    path.write_text("what somebody else put there")
    keep(path, "first")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_other_users_may_read_what_they_may_read_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "plain.py").touch()
    keep(tmp_path / "kept.py", "text")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain.py", "kept.py")}
    assert len(modes) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written") as caught:
        keep(tmp_path / "file" / "b.py", "text")
    assert "TUNER_CACHE" in (caught.value.hint or "")
