"""The tables. `db/migrations` creates them; a test holds the two against each other.

    run ── environment      evaluation ── run, environment, variant, binary      winner ── environment, variant
    claim ── run

Columns named `_us` are microseconds, `_s` seconds. Numbers are 64 bits wide, keys 32.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Double, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

VERSION_TABLE = "tuner_alembic_version"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite stores it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prose(TypeDecorator[str]):
    """Text that a compiler or a crashed process wrote: what no database takes (NUL, lone surrogates) becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        int: BigInteger(),
        float: Double(),
        str: String(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        list[float]: JSON(none_as_null=True),
    }


class EnvironmentRow(Base):
    __tablename__ = "tuner_environment"
    __table_args__ = (Unique("digest"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str]
    target: Mapped[str]
    evidence: Mapped[str]
    device: Mapped[str]
    torch: Mapped[str]
    triton: Mapped[str]
    driver: Mapped[str]
    ptxas: Mapped[str]
    l2: Mapped[str]
    protocol: Mapped[int]


class RunRow(Base):
    __tablename__ = "tuner_run"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kernel: Mapped[str] = mapped_column(index=True)
    source_digest: Mapped[str]
    environment_id: Mapped[int] = mapped_column(ForeignKey(EnvironmentRow.id))
    seed: Mapped[int]
    arguments: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    host: Mapped[str | None]
    pid: Mapped[int | None]
    beat_at: Mapped[datetime | None]

    environment: Mapped[EnvironmentRow] = relationship()


class ClaimRow(Base):
    """`key` names a piece of work that the run has begun or is about to begin."""

    __tablename__ = "tuner_claim"

    key: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey(RunRow.id))


class VariantRow(Base):
    __tablename__ = "tuner_variant"
    __table_args__ = (Unique("digest"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str]
    kernel: Mapped[str] = mapped_column(index=True)
    implementation: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]]
    do_not_specialize: Mapped[list[str]]
    do_not_specialize_on_alignment: Mapped[list[str]]


class BinaryRow(Base):
    """What follows from the machine code alone; how a variant came to it stands with the evaluation."""

    __tablename__ = "tuner_binary"
    __table_args__ = (Unique("digest", "target"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str]
    target: Mapped[str]
    registers: Mapped[int]
    spills: Mapped[int]
    shared_bytes: Mapped[int]
    instructions: Mapped[int]
    load_bytes: Mapped[dict[str, Any]]
    store_bytes: Mapped[dict[str, Any]]


class EvaluationRow(Base):
    """`shape_key` is the canonical text that rows are found by; `shape` keeps the order for people."""

    __tablename__ = "tuner_evaluation"
    __table_args__ = (
        Unique("source_digest", "environment_id", "variant_id", "shape_key"),
        Index(None, "run_id"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey(RunRow.id))
    variant_id: Mapped[int] = mapped_column(ForeignKey(VariantRow.id))
    source_digest: Mapped[str]
    shape_key: Mapped[str]
    shape: Mapped[dict[str, Any]]
    environment_id: Mapped[int] = mapped_column(ForeignKey(EnvironmentRow.id))
    status: Mapped[str]
    log: Mapped[str] = mapped_column(Prose)
    binary_id: Mapped[int | None] = mapped_column(ForeignKey(BinaryRow.id))
    specialization_key: Mapped[str | None] = mapped_column(Prose)
    compile_s: Mapped[float | None]
    elements: Mapped[int | None]
    mismatched: Mapped[int | None]
    undecided: Mapped[int | None]
    agreement_detail: Mapped[str | None] = mapped_column(Prose)
    median_us: Mapped[float | None]
    low_us: Mapped[float | None]
    high_us: Mapped[float | None]
    sample_count: Mapped[int | None]
    samples_us: Mapped[list[float] | None]
    sm_clock_mhz: Mapped[int | None]
    temperature_c: Mapped[int | None]
    throttle: Mapped[list[str] | None]
    created_at: Mapped[datetime]


class WinnerRow(Base):
    __tablename__ = "tuner_winner"
    __table_args__ = (Unique("kernel", "source_digest", "environment_id", "shape_key"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kernel: Mapped[str]
    source_digest: Mapped[str]
    shape_key: Mapped[str]
    shape: Mapped[dict[str, Any]]
    environment_id: Mapped[int] = mapped_column(ForeignKey(EnvironmentRow.id))
    variant_id: Mapped[int] = mapped_column(ForeignKey(VariantRow.id))
    baseline_id: Mapped[int] = mapped_column(ForeignKey(VariantRow.id))
    median_us: Mapped[float]
    low_us: Mapped[float]
    high_us: Mapped[float]
    sample_count: Mapped[int]
    samples_us: Mapped[list[float]]
    baseline_median_us: Mapped[float]
    baseline_low_us: Mapped[float]
    baseline_high_us: Mapped[float]
    baseline_sample_count: Mapped[int]
    baseline_samples_us: Mapped[list[float]]
    speedup: Mapped[float]
    speedup_low: Mapped[float]
    speedup_high: Mapped[float]
    compiles: Mapped[int]
    reason: Mapped[str] = mapped_column(Prose)
    updated_at: Mapped[datetime]
    served: Mapped[str | None]

    environment: Mapped[EnvironmentRow] = relationship()
    variant: Mapped[VariantRow] = relationship(foreign_keys=variant_id)
    baseline: Mapped[VariantRow] = relationship(foreign_keys=baseline_id)
