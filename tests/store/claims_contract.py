"""How runs share work, over every database behind `Store`."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import store_process
from sqlalchemy import select, update
from store_contract import begin
from store_examples import ENVIRONMENT, SOURCE

from tuner.errors import StoreError
from tuner.store import Store
from tuner.store.claims import LEASE_S
from tuner.store.schema import ClaimRow, RunRow


def held(store: Store) -> dict[str, int]:
    with store._reading() as session:
        return {claim.key: claim.run_id for claim in session.scalars(select(ClaimRow))}


def change(store: Store, run: int, **values: object) -> None:
    with store._writing() as connection:
        connection.execute(update(RunRow).where(RunRow.id == run).values(**values))


def silent_for(seconds: float) -> datetime:
    """The beat of a run that was last heard of that long ago."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def host_of(store: Store, run: int) -> str:
    with store._reading() as session:
        return session.scalars(select(RunRow.host).where(RunRow.id == run)).one() or ""


def pid_of_nobody() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class ClaimsContract:
    def test_a_key_is_one_runs_at_a_time(self, url: str) -> None:
        with Store.open(url) as one, Store.open(url) as two:
            first, second = begin(one), begin(two)
            assert one.claim(first, "a")
            assert one.claim(first, "a")
            assert not two.claim(second, "a")
            assert two.claim(second, "b")
            assert not one.claim(first, "b")
            assert held(one) == {"a": first, "b": second}

    def test_the_claims_of_a_finished_run_are_free(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            assert store.claim(second, "b")
            store.finish_run(first)
            assert held(store) == {"b": second}
            assert store.claim(second, "a")

    def test_what_a_run_claimed_after_it_finished_is_free(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            store.finish_run(first)
            assert store.claim(first, "late")
            assert store.claim(second, "late")

    def test_the_claims_of_a_killed_process_are_free_at_once(self, url: str) -> None:
        with Store.open(url) as store:
            run = begin(store)
            other = store_process.start(url, 0, 2, "claim")
            store_process.go(other)
            assert store_process.wins(other) == [0, 1]
            assert not store.claim(run, "key 0")
            assert store.others(run) == 1
            other.kill()
            assert other.wait() == -9
            assert store.claim(run, "key 0")
            assert store.others(run) == 0

    @pytest.mark.parametrize(("silent_s", "free"), [(LEASE_S - 20, False), (LEASE_S + 1, True)])
    def test_a_run_elsewhere_is_dead_when_its_lease_is_over(self, url: str, silent_s: float, free: bool) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            change(store, first, host="elsewhere", beat_at=silent_for(silent_s))
            assert store.others(second) == (0 if free else 1)
            assert store.claim(second, "a") is free
            assert store.claim(first, "a") is not free

    def test_a_run_whose_process_is_here_keeps_its_claims_however_silent_it_is(self, url: str) -> None:
        """It may wait for a job; ended, it is dead at once, also when another process has its id."""
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            change(store, first, beat_at=silent_for(100 * LEASE_S))
            assert not store.claim(second, "a")
            assert store.others(second) == 1
            place, _, start = host_of(store, first).rpartition(" ")
            change(store, first, host=f"{place} {int(start) - 1}")
            assert store.claim(second, "a")

    @pytest.mark.parametrize("part", [1, 2])
    def test_a_process_of_another_container_is_not_looked_for_here(self, url: str, part: int) -> None:
        """With this host's name, but of another boot, or where process ids are others."""
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            words = host_of(store, first).split()
            assert len(words) == 4
            change(store, first, host=" ".join([*words[:part], "other", *words[part + 1 :]]), pid=pid_of_nobody())
            assert not store.claim(second, "a")
            change(store, first, beat_at=silent_for(LEASE_S + 1))
            assert store.claim(second, "a")

    def test_a_beat_renews_the_lease(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            change(store, first, host="elsewhere", beat_at=silent_for(LEASE_S + 1))
            store.beat(first)
            assert not store.claim(second, "a")

    def test_processes_of_another_host_are_not_looked_for_here(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            assert store.claim(first, "a")
            change(store, first, host="elsewhere", pid=pid_of_nobody())
            assert not store.claim(second, "a")
            change(store, first, beat_at=silent_for(LEASE_S + 1))
            assert store.claim(second, "a")

    def test_a_run_records_where_it_runs(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "here")
        with Store.open(url) as store:
            begin(store)
            with store._reading() as session:
                run = session.scalars(select(RunRow)).one()
                assert run.host is not None and run.host.startswith("here ")
                assert run.pid == os.getpid()
                assert run.beat_at is not None and run.started_at <= run.beat_at <= datetime.now(UTC)

    def test_each_key_is_won_once_by_processes_that_claim_at_once(self, url: str) -> None:
        with Store.open(url) as store:
            dead = begin(store)
            for number in range(0, 60, 2):  # half of the keys are taken from a dead run, half from nobody
                assert store.claim(dead, f"key {number}")
            change(store, dead, host="elsewhere", beat_at=silent_for(LEASE_S + 1))
            claimers = [store_process.start(url, 0, 60, "claim") for _ in range(4)]
            store_process.go(*claimers)
            won = [store_process.wins(claimer) for claimer in claimers]
            assert sorted(number for numbers in won for number in numbers) == list(range(60))
            assert dead not in held(store).values()
            for claimer in claimers:
                store_process.finish(claimer)

    def test_release_gives_up_only_what_is_the_runs_own(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            for run, key in [(first, "a"), (first, "b"), (first, "c"), (second, "d")]:
                assert store.claim(run, key)
            store.release(first, "a", "d", "none such")
            assert held(store) == {"b": first, "c": first, "d": second}
            assert store.claim(second, "a")
            store.release(first)
            assert held(store) == {"a": second, "d": second}

    def test_others_are_the_live_runs_of_the_same_work(self, url: str) -> None:
        elsewhere = replace(ENVIRONMENT, driver="999")
        with Store.open(url) as store:
            run = begin(store)
            begin(store, "other")
            store.start_run("scale", "other source", ENVIRONMENT, 0, {})
            store.start_run("scale", SOURCE, elsewhere, 0, {})
            assert store.others(run) == 0
            others = [begin(store) for _ in range(3)]
            assert store.others(run) == 3
            store.finish_run(others[0])
            change(store, others[1], pid=pid_of_nobody())
            assert store.others(run) == 1

    def test_an_unknown_run_neither_beats_nor_claims(self, url: str) -> None:
        with Store.open(url) as store:
            with pytest.raises(StoreError, match="no run 99"):
                store.beat(99)
            with pytest.raises(StoreError, match="Cannot write the store"):
                store.claim(99, "a")

    def test_a_claim_of_a_reader_is_refused(self, url: str) -> None:
        with Store.open(url) as store:
            run = begin(store)
        with Store.open(url, read_only=True) as store:
            assert store.others(run) == 0
            with pytest.raises(StoreError, match="opened for reading only"):
                store.claim(run, "a")
