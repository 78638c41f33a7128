"""A wrong file, address or disk ends in a StoreError that says what to do, and nothing that was saved is lost."""

import os
import sqlite3
import sys
from pathlib import Path

import pytest
from ordinary_user import as_ordinary_user, open_folder
from store_contract import begin
from store_examples import ENVIRONMENT, SOURCE, evaluation
from store_process import finish, go, read_line, start

from tuner.errors import StoreError
from tuner.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with 50 evaluations, closed."""
    file = tmp_path / "store.db"
    fill(file)
    return file


def fill(file: Path) -> None:
    with Store.open(file) as store:
        run = begin(store)
        for number in range(50):
            store.save(run, SOURCE, ENVIRONMENT, evaluation(number))


def count(file: Path) -> int:
    with Store.open(file, read_only=True) as store:
        return len(store.evaluations("scale", SOURCE, ENVIRONMENT))


def refused(url: str | Path, *, read_only: bool = False) -> StoreError:
    """The error of opening; asserts that it is one line with a hint."""
    with pytest.raises(StoreError) as caught:
        Store.open(url, read_only=read_only).close()
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    return error


# Addresses.


@pytest.mark.parametrize("url", ["", "sqlite://", ":memory:", "sqlite:///:memory:", "sqlite:///file:x?mode=ro", "a\0b"])
def test_an_address_without_a_file_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "sqlite:///path" in refused(url).hint
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_database_names_the_nearest() -> None:
    assert "Unknown database 'postgres'" in refused("postgres://host/name").message
    assert "did you mean 'postgresql'?" in refused("postgres://host/name").message
    assert "Unknown database 'mysql'" in refused("mysql://host/name").message


@pytest.mark.parametrize("url", ["postgresql://u:secret@h:port/d", "://", "postgresql://["])
def test_an_address_that_is_no_url_is_refused_without_its_password(url: str) -> None:
    assert "secret" not in str(refused(url))


def test_a_server_that_is_down_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg")
    error = refused("postgresql://tuner:secret@127.0.0.1:1/tuner")
    assert "the server cannot be reached" in error.message
    assert "tuner:***@127.0.0.1:1/tuner" in error.message
    assert "secret" not in str(error)
    assert error.__cause__ is not None


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'psycopg[binary]'" in refused("postgresql://host/name").hint


# Files.


def test_a_missing_store_is_not_made_by_a_reader(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.db", read_only=True)
    assert str(tmp_path / "none.db") in error.message
    assert "tuner run" in error.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_a_folder_is_refused(tmp_path: Path, read_only: bool) -> None:
    assert "is a folder" in refused(tmp_path, read_only=read_only).message


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert isinstance(refused(tmp_path / "file" / "store.db").__cause__, OSError)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, read_only: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\n" * 1000)
    error = refused(file, read_only=read_only)
    assert "the file is not a database" in error.message
    assert error.__cause__ is not None
    assert file.read_text() == "my notes\n" * 1000


def test_an_empty_database_is_refused_by_a_reader(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)").connection.close()
    assert "holds no tuner store" in refused(tmp_path / "other.db", read_only=True).message


@pytest.mark.parametrize("read_only", [False, True])
def test_a_truncated_file_is_refused_and_left_as_it_is(path: Path, read_only: bool) -> None:
    os.truncate(path, path.stat().st_size // 2)
    before = path.read_bytes()
    assert "the file is damaged" in refused(path, read_only=read_only).message
    assert path.read_bytes() == before


def test_a_page_overwritten_in_the_middle_is_a_store_error_when_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged.*\n.*recover"):
        count(path)


def test_a_file_that_may_only_be_read_is_refused_to_a_writer() -> None:
    with open_folder() as folder:
        fill(folder / "store.db")
        (folder / "store.db").chmod(0o444)
        result = as_ordinary_user(lambda: Store.open(folder / "store.db"))
        assert result.startswith("StoreError: Cannot open")
        assert "may only be read" in result


def test_a_folder_that_may_only_be_read_is_refused_to_a_writer() -> None:
    with open_folder() as folder:
        folder.chmod(0o555)
        assert "may only be read" in as_ordinary_user(lambda: Store.open(folder / "store.db"))
        assert "StoreError: Cannot open" in as_ordinary_user(lambda: Store.open(folder / "new" / "store.db"))


def test_a_closed_store_in_a_read_only_folder_can_be_read() -> None:
    with open_folder() as folder:
        fill(folder / "store.db")
        (folder / "store.db").chmod(0o444)
        folder.chmod(0o555)
        assert as_ordinary_user(lambda: count(folder / "store.db")) == "50"


def test_a_store_in_use_in_a_read_only_folder_can_be_read() -> None:
    with open_folder() as folder:
        writer = start(str(folder / "store.db"), 0, 10**6)
        go(writer)
        for _ in range(50):
            read_line(writer)
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        assert int(as_ordinary_user(lambda: count(folder / "store.db"))) >= 50
        writer.kill()
        writer.communicate()
        assert int(as_ordinary_user(lambda: count(folder / "store.db"))) >= 50


# While writing.


def test_a_full_disk_is_a_store_error_and_what_was_saved_stays(path: Path) -> None:
    with Store.open(path) as store:
        run = begin(store)
        with store._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"Cannot write .*the disk is full\n") as caught:
            for number in range(50, 1000):
                store.save(run, SOURCE, ENVIRONMENT, evaluation(number))
        assert caught.value.__cause__ is not None
        kept = count(path)
        assert kept >= 50
        with store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        store.save(run, SOURCE, ENVIRONMENT, evaluation(5000))
    assert count(path) == kept + 1


def test_a_store_locked_for_too_long_is_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.store.connection.BUSY_TIMEOUT_S", 0.2)
    with Store.open(path) as store:
        run = begin(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked.*\n.*Wait"):
            store.save(run, SOURCE, ENVIRONMENT, evaluation(99))
        other.execute("ROLLBACK")
        other.close()
        store.save(run, SOURCE, ENVIRONMENT, evaluation(99))
    assert count(path) == 51


def test_a_writer_waits_for_a_lock_that_is_held_shortly(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = start(str(path), 50, 51)
    go(writer)
    other.execute("ROLLBACK")
    other.close()
    finish(writer)
    assert count(path) == 51
