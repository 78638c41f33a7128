"""The repository: typed records in, typed records out."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Select, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, joinedload

from tuner.errors import StoreError
from tuner.records import Binary, Environment, Evaluation, Shape, Status, Target, Variant, Winner
from tuner.store import rows
from tuner.store.connection import WRITING, locate, make_engine
from tuner.store.failures import translated
from tuner.store.migrate import bring_up_to_date
from tuner.store.run_record import RunRecord
from tuner.store.schema import Base, BinaryRow, EnvironmentRow, EvaluationRow, RunRow, VariantRow, WinnerRow

# SQLite allows 32,766 values in a statement.
_SHAPES_PER_QUERY = 1000


class Store:
    """Runs, evaluations and winners in one database; use it as a context manager.

    Each call is one transaction, committed when it returns. Whatever goes wrong is a StoreError; nothing that is
    stored is ever removed. Several processes may share a store; each opens its own, also after a fork.
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
        """Note that a run begins; returns its id.

        `arguments` are what the command was given; a value that JSON cannot hold (a path) is stored as its text.
        """
        values = {
            "kernel": kernel,
            "source_digest": source_digest,
            "seed": seed,
            "arguments": json.loads(json.dumps(dict(arguments), default=str)),
            "started_at": datetime.now(UTC),
        }
        with self._writing() as connection:
            statement = _insert(connection, RunRow).values(
                **values, environment_id=_environment_id(connection, environment)
            )
            return int(connection.execute(statement.returning(RunRow.id)).scalar_one())

    def finish_run(self, run_id: int) -> None:
        """Note that a run ended by itself; StoreError for an unknown id."""
        statement = update(RunRow).where(RunRow.id == run_id).values(finished_at=datetime.now(UTC))
        with self._writing() as connection:
            if connection.execute(statement).rowcount == 0:
                raise StoreError(f"The store {self.place} has no run {run_id}.", hint="Start one with start_run.")

    def save(self, run_id: int, source_digest: str, environment: Environment, evaluation: Evaluation) -> None:
        """Store an evaluation.

        One of the same variant, source, shape and environment that is there already stays, unless it failed and the new
        one passed: what failed may have been the machine.
        """
        values = rows.evaluation_values(evaluation)
        with self._writing() as connection:
            values |= {
                "run_id": run_id,
                "source_digest": source_digest,
                "environment_id": _environment_id(connection, environment),
                "variant_id": _variant_id(connection, evaluation.variant),
                "created_at": datetime.now(UTC),
            }
            if evaluation.binary is not None:
                values["binary_id"] = _binary_id(connection, evaluation.binary, environment.target)
            _save_evaluation(connection, values)

    def evaluations(
        self,
        kernel: str,
        source_digest: str,
        environment: Environment,
        shapes: Iterable[Shape] | None = None,
    ) -> list[Evaluation]:
        """What is stored of a kernel's source in an environment, at all shapes or the given ones; oldest first."""
        asked = _evaluations_query(kernel, source_digest, environment)
        parts = [asked] if shapes is None else _at_shapes(asked, shapes)
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

    def save_winners(self, winners: Iterable[Winner]) -> None:
        """Store winners, all or none; each replaces the one of its kernel, source, shape and environment."""
        chosen = {_winner_key(winner): winner for winner in winners}
        ordered = [chosen[key] for key in sorted(chosen)]
        values = [rows.winner_values(winner) for winner in ordered]
        now = datetime.now(UTC)
        with self._writing() as connection:
            environments = sorted({winner.environment for winner in ordered}, key=lambda each: each.digest)
            named = {each for winner in ordered for each in (winner.variant, winner.baseline)}
            variants = sorted(named, key=lambda each: each.digest)
            environment_ids = {each: _environment_id(connection, each) for each in environments}
            variant_ids = {each: _variant_id(connection, each) for each in variants}
            for winner, row in zip(ordered, values, strict=True):
                row |= {
                    "environment_id": environment_ids[winner.environment],
                    "variant_id": variant_ids[winner.variant],
                    "baseline_id": variant_ids[winner.baseline],
                    "updated_at": now,
                }
                key = ["kernel", "source_digest", "environment_id", "shape_key"]
                changed = {name: value for name, value in row.items() if name not in key}
                statement = _insert(connection, WinnerRow).values(**row)
                connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))

    def winners(self, kernel: str | None = None) -> list[Winner]:
        """The winners of a kernel, or of all: one per kernel, source, shape and environment; newest first."""
        query = _winners_query()
        if kernel is not None:
            query = query.where(WinnerRow.kernel == kernel)
        with self._reading() as session:
            return [rows.winner_of(row) for row in session.scalars(query)]

    def standing_winners(self, kernel: str, source_digest: str, environment: Environment) -> list[Winner]:
        """The winners that were chosen after every evaluation stored at their shape; newest first."""
        later = (
            exists()
            .where(EvaluationRow.source_digest == WinnerRow.source_digest)
            .where(EvaluationRow.environment_id == WinnerRow.environment_id)
            .where(EvaluationRow.shape_key == WinnerRow.shape_key)
            .where(EvaluationRow.created_at > WinnerRow.updated_at)
        )
        query = (
            _winners_query()
            .where(WinnerRow.kernel == kernel, WinnerRow.source_digest == source_digest, ~later)
            .where(WinnerRow.environment.has(EnvironmentRow.digest == environment.digest))
        )
        with self._reading() as session:
            return [rows.winner_of(row) for row in session.scalars(query)]

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

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with translated(self.place, "read"), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._read_only:
            raise StoreError(f"The store {self.place} was opened for reading only.", hint="Open it for writing.")
        with translated(self.place, "write"), self._writer.begin() as connection:
            yield connection


def _winner_key(winner: Winner) -> tuple[str, str, str, str]:
    return winner.variant.kernel, winner.source_digest, winner.environment.digest, winner.shape.canonical


def _evaluations_query(kernel: str, source_digest: str, environment: Environment) -> Select[Any]:
    """Plain columns, without variant and binary: many rows share one of each, and objects take twice as long."""
    return (
        select(EvaluationRow.__table__)
        .where(EvaluationRow.source_digest == source_digest)
        .where(EvaluationRow.environment_id == _id_query(EnvironmentRow, digest=environment.digest).scalar_subquery())
        .where(EvaluationRow.variant_id.in_(select(VariantRow.id).where(VariantRow.kernel == kernel)))
    )


def _winners_query() -> Select[Any]:
    return (
        select(WinnerRow)
        .options(joinedload(WinnerRow.variant), joinedload(WinnerRow.baseline), joinedload(WinnerRow.environment))
        .order_by(WinnerRow.updated_at.desc(), WinnerRow.id)
    )


def _at_shapes(query: Select[Any], shapes: Iterable[Shape]) -> list[Select[Any]]:
    """The query for every thousand shapes."""
    keys = sorted({shape.canonical for shape in shapes})
    parts = [keys[start : start + _SHAPES_PER_QUERY] for start in range(0, len(keys), _SHAPES_PER_QUERY)]
    return [query.where(EvaluationRow.shape_key.in_(part)) for part in parts]


def _insert(connection: Connection, model: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, which each dialect spells for itself and in the same way."""
    return postgresql.insert(model) if connection.dialect.name == "postgresql" else sqlite.insert(model)


def _save_evaluation(connection: Connection, values: rows.Values) -> None:
    insert = _insert(connection, EvaluationRow).values(**values)
    key = {"source_digest", "environment_id", "variant_id", "shape_key"}
    kept = key | {"id"}
    insert = insert.on_conflict_do_update(
        index_elements=sorted(key),
        set_={column.name: column for column in insert.excluded if column.name not in kept},
        where=(EvaluationRow.status != Status.PASSED.value) & (insert.excluded.status == Status.PASSED.value),
    )
    connection.execute(insert)


def _environment_id(connection: Connection, environment: Environment) -> int:
    values = rows.environment_values(environment)
    return _obtain(connection, EnvironmentRow, values, digest=environment.digest)


def _variant_id(connection: Connection, variant: Variant) -> int:
    return _obtain(connection, VariantRow, rows.variant_values(variant), digest=variant.digest)


def _binary_id(connection: Connection, binary: Binary, target: Target) -> int:
    values = rows.binary_values(binary, target)
    return _obtain(connection, BinaryRow, values, digest=binary.digest, target=str(target))


def _obtain(
    connection: Connection,
    model: type[EnvironmentRow | VariantRow | BinaryRow],
    values: rows.Values,
    **unique: str,
) -> int:
    """The id of the row with this unique key, inserted when it is missing."""
    query = _id_query(model, **unique)
    found = connection.execute(query).scalar()
    if found is None:
        connection.execute(_insert(connection, model).values(**values).on_conflict_do_nothing())
        found = connection.execute(query).scalar_one()
    return int(found)


def _id_query(model: type[EnvironmentRow | VariantRow | BinaryRow], **unique: str) -> Select[Any]:
    return select(model.id).filter_by(**unique)
