"""The repository: typed records in, typed records out."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, exists, func, select, update
from sqlalchemy.orm import Session, joinedload

from tuner.errors import StoreError
from tuner.interrupts import uninterrupted
from tuner.records import Environment, Evaluation, Shape, Status, Variant, Winner
from tuner.store import claims, rows, statements
from tuner.store.connection import WRITING, locate, make_engine
from tuner.store.failures import translated
from tuner.store.migrate import bring_up_to_date
from tuner.store.run_record import RunRecord
from tuner.store.schema import BinaryRow, EnvironmentRow, EvaluationRow, RunRow, VariantRow, WinnerRow


class Store:
    """Runs, evaluations, winners and claims in one database; use it as a context manager.

    Each call is one transaction, committed when it returns. Whatever goes wrong is a StoreError; no result is ever
    removed, and `save` says which one makes way. Several processes may share a store; each opens its own, also after
    a fork.
    """

    def __init__(self, engine: Engine, place: str, *, read_only: bool) -> None:
        self.place = place
        self._engine = engine
        self._writer = engine.execution_options(**WRITING)
        self._read_only = read_only

    @classmethod
    def open(cls, url: str | Path, *, read_only: bool = False) -> "Store":
        """Open the store at a path, `sqlite:///path` or `postgresql://...`.

        Creates the file, its folder and the tables, and migrates an older schema. With `read_only` nothing is created
        or changed, and a missing store is an error. StoreError for whatever cannot be opened.
        """
        location = locate(str(url))
        with translated(location.place, "open"):
            engine = make_engine(location, read_only=read_only)
            try:
                bring_up_to_date(engine, location.place, read_only=read_only)
            except BaseException:
                engine.dispose()
                raise
        return cls(engine, location.place, read_only=read_only)

    @staticmethod
    def is_missing(url: str | Path) -> bool:
        """Whether the address names a SQLite file that is not there yet; StoreError for one that names nothing."""
        path = locate(str(url)).path
        return path is not None and not path.exists()

    def close(self) -> None:
        """Close every connection; the last one to an SQLite file folds its log back into it."""
        self._engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_run(
        self, kernel: str, source_digest: str, environment: Environment, seed: int, arguments: Mapping[str, Any]
    ) -> int:
        """Note that a run begins, in this process on this host; returns its id.

        `arguments` are what the command was given; a value that JSON cannot hold (a path) is stored as its text.
        """
        values = {
            "kernel": kernel,
            "source_digest": source_digest,
            "seed": seed,
            "arguments": json.loads(json.dumps(dict(arguments), default=str)),
            "started_at": datetime.now(UTC),
            **claims.signs_of_life(),
        }
        with self._writing() as connection:
            statement = statements.insert(connection, RunRow).values(
                **values, environment_id=statements.environment_id(connection, environment)
            )
            return int(connection.execute(statement.returning(RunRow.id)).scalar_one())

    def finish_run(self, run_id: int) -> None:
        """Note that a run ended by itself and give up its claims; StoreError for an unknown id."""
        with self._writing() as connection:
            self._update_run(connection, run_id, finished_at=datetime.now(UTC))
            claims.release(connection, run_id)

    def beat(self, run_id: int) -> None:
        """Note that a run is alive; due well within `claims.LEASE_S` seconds. StoreError for an unknown id."""
        with self._writing() as connection:
            self._update_run(connection, run_id, beat_at=datetime.now(UTC))

    def claim(self, run_id: int, key: str) -> bool:
        """Whether the piece of work that `key` names is now this run's, or was so before.

        It is another's while the run that claimed it is alive: not finished and, if it runs on this host, its process
        there, else its last beat within `claims.LEASE_S` seconds. A claim that is won says nothing of what the run
        before it stored: look for that after the claim. StoreError for an unknown run.
        """
        with self._writing() as connection:
            return claims.claim(connection, run_id, key)

    def release(self, run_id: int, *keys: str) -> None:
        """Give up those of the keys that are this run's; without keys, all that are."""
        with self._writing() as connection:
            claims.release(connection, run_id, *keys)

    def others(self, run_id: int) -> int:
        """How many other runs of the same kernel, source and environment are alive, as `claim` understands it."""
        with self._reading() as session:
            return claims.count_others(session.connection(), run_id)

    def save(self, run_id: int, source_digest: str, environment: Environment, evaluation: Evaluation) -> None:
        """Store an evaluation.

        One of the same variant, source, shape and environment that is there already stays, with two exceptions. One
        that failed makes way for one that passed, as what failed may have been the machine. And any makes way for wrong
        output, which stays: once wrong is wrong, and what was measured of it is void.
        """
        values = rows.evaluation_values(evaluation)
        with self._writing() as connection:
            values |= {
                "run_id": run_id,
                "source_digest": source_digest,
                "environment_id": statements.environment_id(connection, environment),
                "variant_id": statements.variant_id(connection, evaluation.variant),
                "created_at": datetime.now(UTC),
            }
            if evaluation.binary is not None:
                values["binary_id"] = statements.binary_id(connection, evaluation.binary, environment.target)
            statements.save_evaluation(connection, values)

    def evaluations(
        self,
        kernel: str,
        source_digest: str,
        environment: Environment,
        shapes: Iterable[Shape] | None = None,
    ) -> list[Evaluation]:
        """What is stored of a kernel's source in an environment, at all shapes or the given ones; oldest first."""
        asked = statements.evaluations_query(kernel, source_digest, environment)
        parts = [asked] if shapes is None else statements.at_shapes(asked, shapes)
        with self._reading() as session:
            found = [row for part in parts for row in session.execute(part)]  # first: what they name is stored by then
            variants: dict[int, Variant] = {}
            binaries: dict[int, BinaryRow] = {}
            for part in parts:
                used = part.subquery()
                of_variant = session.scalars(select(VariantRow).where(VariantRow.id.in_(select(used.c.variant_id))))
                variants |= {row.id: rows.variant_of(row) for row in of_variant}
                of_binary = session.scalars(select(BinaryRow).where(BinaryRow.id.in_(select(used.c.binary_id))))
                binaries |= {row.id: row for row in of_binary}
            return [rows.evaluation_of(row, variants, binaries) for row in sorted(found, key=attrgetter("id"))]

    def variants_ended(self, kernel: str, source_digest: str, environment: Environment, status: Status) -> set[Variant]:
        """The variants of a kernel's source that ended in a status in an environment, at any shape."""
        asked = statements.evaluations_query(kernel, source_digest, environment)
        ended = asked.where(EvaluationRow.status == status.value).subquery()
        with self._reading() as session:
            found = session.scalars(select(VariantRow).where(VariantRow.id.in_(select(ended.c.variant_id))))
            return {rows.variant_of(row) for row in found}

    def save_winners(
        self, winners: Iterable[Winner], *, drawn_at: datetime | None = None, served: str | None = None
    ) -> None:
        """Store winners, all or none; each replaces the one of its kernel, source, shape and environment.

        `drawn_at`: when the evaluations were read that they were chosen from, by default now. `served` names the shapes
        at which they were checked.
        """
        self._put_winners(winners, {"updated_at": drawn_at or datetime.now(UTC), "served": served})

    def adopt_winners(self, winners: Iterable[Winner]) -> int:
        """Store winners of another store, of which a table tells all but the samples; returns how many were stored.

        One that is there already is left, also where the table holds it under the versions of several rows. Another one
        of its kernel, source, shape and environment makes way only if it was adopted too, and of no more samples.
        """
        new = list(winners)
        known = {_told(each) for kernel in {each.variant.kernel for each in new} for each in self.winners(kernel)}
        no_samples = func.json_array_length(WinnerRow.samples_us) == 0
        return self._put_winners(
            [each for each in new if _told(each) not in known],
            {"updated_at": datetime.now(UTC), "served": None},
            lambda offered: no_samples & (WinnerRow.sample_count <= offered.sample_count),
        )

    def _put_winners(
        self,
        winners: Iterable[Winner],
        noted: rows.Values,
        makes_way: Callable[[Any], ColumnElement[bool]] | None = None,
    ) -> int:
        """Store winners, all or none; returns how many were. `makes_way` says where one that is there is replaced."""
        stored = 0
        chosen = {_winner_key(winner): winner for winner in winners}
        ordered = [chosen[key] for key in sorted(chosen)]
        values = [rows.winner_values(winner) for winner in ordered]
        with self._writing() as connection:
            environments = sorted({winner.environment for winner in ordered}, key=lambda each: each.digest)
            named = {each for winner in ordered for each in (winner.variant, winner.baseline)}
            variants = sorted(named, key=lambda each: each.digest)
            environment_ids = {each: statements.environment_id(connection, each) for each in environments}
            variant_ids = {each: statements.variant_id(connection, each) for each in variants}
            for winner, row in zip(ordered, values, strict=True):
                row |= {
                    "environment_id": environment_ids[winner.environment],
                    "variant_id": variant_ids[winner.variant],
                    "baseline_id": variant_ids[winner.baseline],
                    **noted,
                }
                key = ["kernel", "source_digest", "environment_id", "shape_key"]
                changed = {name: value for name, value in row.items() if name not in key}
                statement = statements.insert(connection, WinnerRow).values(**row)
                where = makes_way(statement.excluded) if makes_way else None
                statement = statement.on_conflict_do_update(index_elements=key, set_=changed, where=where)
                stored += len(connection.execute(statement.returning(WinnerRow.id)).all())
        return stored

    def winners(self, kernel: str | None = None) -> list[Winner]:
        """The winners of a kernel, or of all: one per kernel, source, shape and environment; newest first.

        One whose variant was found wrong since, at whichever shape, is none any more.
        """
        query = statements.winners_query()
        if kernel is not None:
            query = query.where(WinnerRow.kernel == kernel)
        with self._reading() as session:
            return [rows.winner_of(row) for row in session.scalars(query)]

    def standing_winners(
        self, kernel: str, source_digest: str, environment: Environment, served: Mapping[Shape, str] | None = None
    ) -> list[Winner]:
        """The winners chosen from all evaluations that passed at their shape; newest first.

        With `served`, only at its shapes, and only those that were checked at the shapes that it names.
        """
        later = (
            exists()
            .where(EvaluationRow.source_digest == WinnerRow.source_digest)
            .where(EvaluationRow.environment_id == WinnerRow.environment_id)
            .where(EvaluationRow.shape_key == WinnerRow.shape_key)
            .where(EvaluationRow.created_at > WinnerRow.updated_at)
            .where(EvaluationRow.status == Status.PASSED.value)
        )
        query = (
            statements.winners_query()
            .where(WinnerRow.kernel == kernel, WinnerRow.source_digest == source_digest, ~later)
            .where(WinnerRow.environment.has(EnvironmentRow.digest == environment.digest))
        )
        with self._reading() as session:
            found = [(rows.winner_of(row), row.served) for row in session.scalars(query)]
        return [winner for winner, named in found if served is None or served.get(winner.shape) == named]

    def runs(self, kernel: str | None = None) -> list[RunRecord]:
        """The runs of a kernel, or of all; newest first."""
        added = select(EvaluationRow.run_id, func.count().label("rows")).group_by(EvaluationRow.run_id).subquery()
        query = (
            select(RunRow, func.coalesce(added.c.rows, 0))
            .outerjoin(added, added.c.run_id == RunRow.id)
            .options(joinedload(RunRow.environment))
            .order_by(RunRow.id.desc())
        )
        if kernel is not None:
            query = query.where(RunRow.kernel == kernel)
        with self._reading() as session:
            return [rows.run_of(row, count) for row, count in session.execute(query)]

    def _update_run(self, connection: Connection, run_id: int, **values: datetime) -> None:
        if connection.execute(update(RunRow).where(RunRow.id == run_id).values(**values)).rowcount == 0:
            raise StoreError(f"The store {self.place} has no run {run_id}.", hint="Start one with start_run.")

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with translated(self.place, "read"), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._read_only:
            raise StoreError(f"The store {self.place} was opened for reading only.", hint="Open it for writing.")
        with uninterrupted(), translated(self.place, "write"), self._writer.begin() as connection:
            yield connection


def _winner_key(winner: Winner) -> tuple[str, str, str, str]:
    return winner.variant.kernel, winner.source_digest, winner.environment.digest, winner.shape.canonical


def _told(winner: Winner) -> Winner:
    """What two winners share that are one and the same measurement, stored here and read from a table."""
    return replace(
        winner,
        environment=replace(winner.environment, torch="", triton="", driver="", ptxas="", l2="", protocol=0),
        timing=replace(winner.timing, samples_us=()),
        baseline_timing=replace(winner.baseline_timing, samples_us=()),
    )
