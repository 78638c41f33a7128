"""What the store asks of a database, spelled once for SQLite and PostgreSQL."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import joinedload

from tuner.records import Binary, Environment, Shape, Status, Target, Variant
from tuner.store import rows
from tuner.store.schema import Base, BinaryRow, EnvironmentRow, EvaluationRow, VariantRow, WinnerRow

# SQLite allows 32,766 values in a statement.
_SHAPES_PER_QUERY = 1000


def evaluations_query(kernel: str, source_digest: str, environment: Environment) -> Select[Any]:
    """Plain columns, without variant and binary: many rows share one of each, and objects take twice as long."""
    return (
        select(EvaluationRow.__table__)
        .where(EvaluationRow.source_digest == source_digest)
        .where(EvaluationRow.environment_id == _id_query(EnvironmentRow, digest=environment.digest).scalar_subquery())
        .where(EvaluationRow.variant_id.in_(select(VariantRow.id).where(VariantRow.kernel == kernel)))
    )


def winners_query() -> Select[Any]:
    """All but the winners whose variant was found wrong since, at whichever shape; a baseline stays."""
    wrong = (
        exists()
        .where(EvaluationRow.source_digest == WinnerRow.source_digest)
        .where(EvaluationRow.environment_id == WinnerRow.environment_id)
        .where(EvaluationRow.variant_id == WinnerRow.variant_id)
        .where(EvaluationRow.status == Status.WRONG_OUTPUT.value)
    )
    return (
        select(WinnerRow)
        .where((WinnerRow.variant_id == WinnerRow.baseline_id) | ~wrong)
        .options(joinedload(WinnerRow.variant), joinedload(WinnerRow.baseline), joinedload(WinnerRow.environment))
        .order_by(WinnerRow.updated_at.desc(), WinnerRow.id)
    )


def at_shapes(query: Select[Any], shapes: Iterable[Shape]) -> list[Select[Any]]:
    """The query for every thousand shapes."""
    keys = sorted({shape.canonical for shape in shapes})
    parts = [keys[start : start + _SHAPES_PER_QUERY] for start in range(0, len(keys), _SHAPES_PER_QUERY)]
    return [query.where(EvaluationRow.shape_key.in_(part)) for part in parts]


def insert(connection: Connection, model: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, which each dialect spells for itself and in the same way."""
    return postgresql.insert(model) if connection.dialect.name == "postgresql" else sqlite.insert(model)


def save_evaluation(connection: Connection, values: rows.Values) -> None:
    statement = insert(connection, EvaluationRow).values(**values)
    key = {"source_digest", "environment_id", "variant_id", "shape_key"}
    kept = key | {"id"}
    old, new = EvaluationRow.status, statement.excluded.status
    passed, wrong = Status.PASSED.value, Status.WRONG_OUTPUT.value
    statement = statement.on_conflict_do_update(
        index_elements=sorted(key),
        set_={column.name: column for column in statement.excluded if column.name not in kept},
        where=(old != wrong) & ((new == wrong) | ((old != passed) & (new == passed))),
    )
    connection.execute(statement)


def environment_id(connection: Connection, environment: Environment) -> int:
    values = rows.environment_values(environment)
    return _obtain(connection, EnvironmentRow, values, digest=environment.digest)


def variant_id(connection: Connection, variant: Variant) -> int:
    return _obtain(connection, VariantRow, rows.variant_values(variant), digest=variant.digest)


def binary_id(connection: Connection, binary: Binary, target: Target) -> int:
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
        connection.execute(insert(connection, model).values(**values).on_conflict_do_nothing())
        found = connection.execute(query).scalar_one()
    return int(found)


def _id_query(model: type[EnvironmentRow | VariantRow | BinaryRow], **unique: str) -> Select[Any]:
    return select(model.id).filter_by(**unique)
