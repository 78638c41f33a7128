"""The contract over PostgreSQL, and what only a server can do."""

import pytest
import sqlalchemy as sa
from claims_contract import ClaimsContract
from store_contract import StoreContract, begin
from store_examples import ENVIRONMENT, SOURCE, evaluation

from tuner.errors import StoreError
from tuner.store import Store

psycopg = pytest.importorskip("psycopg", reason="needs psycopg, the PostgreSQL driver")


class TestPostgresql(StoreContract, ClaimsContract):
    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url.replace("+psycopg", "")


def test_a_read_only_store_without_tables_is_refused(postgresql_url: str) -> None:
    with pytest.raises(StoreError, match="holds no tuner store"):
        Store.open(postgresql_url, read_only=True)


def test_a_missing_database_is_a_store_error(postgresql_server: str) -> None:
    with pytest.raises(StoreError, match=r"none_such.*refused.*does not exist.*\n.*createdb"):
        Store.open(postgresql_server + "none_such")


def test_a_table_locked_for_too_long_is_a_store_error(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.store.connection.BUSY_TIMEOUT_S", 0.2)
    with Store.open(postgresql_url) as store, psycopg.connect(postgresql_url.replace("+psycopg", "")) as other:
        run = begin(store)
        other.execute("LOCK TABLE tuner_evaluation")
        with pytest.raises(StoreError, match="locked"):
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
        other.rollback()
        store.save(run, SOURCE, ENVIRONMENT, evaluation(1))


def test_a_connection_that_the_server_dropped_is_opened_again(postgresql_url: str) -> None:
    with Store.open(postgresql_url) as store:
        run = begin(store)
        engine = sa.create_engine(postgresql_url)
        with engine.connect() as other:
            drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            other.execute(sa.text(drop + "AND pid <> pg_backend_pid()"))
        engine.dispose()
        store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
        assert len(store.evaluations("scale", SOURCE, ENVIRONMENT)) == 1
