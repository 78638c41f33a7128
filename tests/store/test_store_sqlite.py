"""The contract over SQLite, and what only a file can do."""

import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import store_process
from claims_contract import ClaimsContract
from sqlalchemy.exc import OperationalError
from store_contract import StoreContract, begin, execute
from store_examples import ENVIRONMENT, SOURCE, evaluation, shape

from tuner.store import Store, statements
from tuner.store.connection import _use_wal


class TestSqlite(StoreContract, ClaimsContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/store.db"


@pytest.mark.parametrize("prefix", ["", "sqlite:///"])
def test_a_path_and_a_url_name_the_same_file(tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a folder?#%41" / "store.db"
    with Store.open(path) as store:
        begin(store)
        assert store.place == str(path)
    monkeypatch.chdir(path.parent)
    with Store.open(f"{prefix}store.db", read_only=True) as store:
        assert len(store.runs()) == 1


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store.open("~/.cache/store.db").close()
    assert (tmp_path / ".cache" / "store.db").exists()


def test_the_settings_that_keep_the_file_whole(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store, store._engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_killed_writers_file_passes_the_integrity_check(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    writer = store_process.start(str(path), 0, 10**6)
    store_process.go(writer)
    for _ in range(20):
        store_process.read_line(writer)
    writer.kill()
    writer.communicate()
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_store_that_is_up_to_date_opens_without_alembic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    Store.open(path).close()
    monkeypatch.setattr("tuner.store.migrate._upgrade", lambda *_: pytest.fail("loaded alembic"))
    start = time.perf_counter()
    Store.open(path).close()
    assert time.perf_counter() - start < 0.25


def test_a_reader_is_not_held_up_by_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store, Store.open(path, read_only=True) as reader:
        store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
        with store._writer.begin():
            assert reader.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(1)]


def test_a_file_of_another_program_is_shared_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('v3.0.0')")
    with Store.open(path) as store:
        begin(store)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("v3.0.0",)]


def test_connections_that_switch_to_wal_at_once_wait_for_each_other(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def switch(path: Path) -> str:
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        barrier.wait()
        _use_wal(connection)
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        connection.close()
        return str(mode)

    with ThreadPoolExecutor(4) as threads:
        for number in range(150):
            assert set(threads.map(switch, [tmp_path / f"{number}.db"] * 4)) == {"wal"}


def test_not_even_a_statement_can_write_to_a_read_only_store(tmp_path: Path) -> None:
    Store.open(tmp_path / "store.db").close()
    with Store.open(tmp_path / "store.db", read_only=True) as store, pytest.raises(OperationalError, match="readonly"):
        execute(store, "DELETE FROM tuner_run")


def test_threads_that_open_fresh_stores_at_once_do_not_mix_them_up(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        for store, path in zip(threads.map(Store.open, paths), paths, strict=True):
            assert store.place == str(path)
            begin(store)
            assert len(store.runs()) == 1
            store.close()


def test_more_shapes_than_a_statement_takes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
        with store._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1500)
        many = [shape(tokens) for tokens in range(2500)]
        assert store.evaluations("scale", SOURCE, ENVIRONMENT, many) == [evaluation(1)]


def test_ctrl_c_in_a_transaction_acts_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half way through it would leave the file locked, for this process too."""
    save_evaluation = statements.save_evaluation

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save_evaluation(*arguments)

    with Store.open(tmp_path / "store.db") as store:
        run = begin(store)
        monkeypatch.setattr(statements, "save_evaluation", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
        assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(1)]
        store.release(run)
    with pytest.raises(KeyboardInterrupt):  # and later ones act at once
        signal.raise_signal(signal.SIGINT)
