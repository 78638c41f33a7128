"""The first schema: environments, runs, variants, binaries, evaluations, winners."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tuner_environment",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("evidence", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("torch", sa.String, nullable=False),
        sa.Column("triton", sa.String, nullable=False),
        sa.Column("driver", sa.String, nullable=False),
        sa.Column("ptxas", sa.String, nullable=False),
        sa.Column("l2", sa.String, nullable=False),
        sa.Column("protocol", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_environment"),
        sa.UniqueConstraint("digest", name="uq_tuner_environment"),
    )
    op.create_table(
        "tuner_variant",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("kernel", sa.String, nullable=False),
        sa.Column("implementation", sa.String, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("do_not_specialize", sa.JSON, nullable=False),
        sa.Column("do_not_specialize_on_alignment", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_variant"),
        sa.UniqueConstraint("digest", name="uq_tuner_variant"),
    )
    op.create_index("ix_tuner_variant_kernel", "tuner_variant", ["kernel"])
    op.create_table(
        "tuner_binary",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("registers", sa.BigInteger, nullable=False),
        sa.Column("spills", sa.BigInteger, nullable=False),
        sa.Column("shared_bytes", sa.BigInteger, nullable=False),
        sa.Column("instructions", sa.BigInteger, nullable=False),
        sa.Column("load_bytes", sa.JSON, nullable=False),
        sa.Column("store_bytes", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_binary"),
        sa.UniqueConstraint("digest", "target", name="uq_tuner_binary"),
    )
    _create_run()
    _create_evaluation()
    _create_winner()


def _create_run() -> None:
    op.create_table(
        "tuner_run",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kernel", sa.String, nullable=False),
        sa.Column("source_digest", sa.String, nullable=False),
        sa.Column("environment_id", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_run"),
        sa.ForeignKeyConstraint(["environment_id"], ["tuner_environment.id"], name="fk_tuner_run_environment_id"),
    )
    op.create_index("ix_tuner_run_kernel", "tuner_run", ["kernel"])


def _create_evaluation() -> None:
    op.create_table(
        "tuner_evaluation",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("variant_id", sa.Integer, nullable=False),
        sa.Column("source_digest", sa.String, nullable=False),
        sa.Column("shape_key", sa.String, nullable=False),
        sa.Column("shape", sa.JSON, nullable=False),
        sa.Column("environment_id", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("binary_id", sa.Integer),
        sa.Column("specialization_key", sa.Text),
        sa.Column("compile_s", sa.Double),
        sa.Column("elements", sa.BigInteger),
        sa.Column("mismatched", sa.BigInteger),
        sa.Column("undecided", sa.BigInteger),
        sa.Column("agreement_detail", sa.Text),
        sa.Column("median_us", sa.Double),
        sa.Column("low_us", sa.Double),
        sa.Column("high_us", sa.Double),
        sa.Column("sample_count", sa.BigInteger),
        sa.Column("samples_us", sa.JSON),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_evaluation"),
        sa.UniqueConstraint("source_digest", "environment_id", "variant_id", "shape_key", name="uq_tuner_evaluation"),
        sa.ForeignKeyConstraint(["run_id"], ["tuner_run.id"], name="fk_tuner_evaluation_run_id"),
        sa.ForeignKeyConstraint(["variant_id"], ["tuner_variant.id"], name="fk_tuner_evaluation_variant_id"),
        sa.ForeignKeyConstraint(
            ["environment_id"], ["tuner_environment.id"], name="fk_tuner_evaluation_environment_id"
        ),
        sa.ForeignKeyConstraint(["binary_id"], ["tuner_binary.id"], name="fk_tuner_evaluation_binary_id"),
    )
    op.create_index("ix_tuner_evaluation_run_id", "tuner_evaluation", ["run_id"])


def _create_winner() -> None:
    op.create_table(
        "tuner_winner",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kernel", sa.String, nullable=False),
        sa.Column("source_digest", sa.String, nullable=False),
        sa.Column("shape_key", sa.String, nullable=False),
        sa.Column("shape", sa.JSON, nullable=False),
        sa.Column("environment_id", sa.Integer, nullable=False),
        sa.Column("variant_id", sa.Integer, nullable=False),
        sa.Column("baseline_id", sa.Integer, nullable=False),
        sa.Column("median_us", sa.Double, nullable=False),
        sa.Column("low_us", sa.Double, nullable=False),
        sa.Column("high_us", sa.Double, nullable=False),
        sa.Column("sample_count", sa.BigInteger, nullable=False),
        sa.Column("samples_us", sa.JSON, nullable=False),
        sa.Column("baseline_median_us", sa.Double, nullable=False),
        sa.Column("baseline_low_us", sa.Double, nullable=False),
        sa.Column("baseline_high_us", sa.Double, nullable=False),
        sa.Column("baseline_sample_count", sa.BigInteger, nullable=False),
        sa.Column("baseline_samples_us", sa.JSON, nullable=False),
        sa.Column("speedup", sa.Double, nullable=False),
        sa.Column("speedup_low", sa.Double, nullable=False),
        sa.Column("speedup_high", sa.Double, nullable=False),
        sa.Column("compiles", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tuner_winner"),
        sa.UniqueConstraint("kernel", "source_digest", "environment_id", "shape_key", name="uq_tuner_winner"),
        sa.ForeignKeyConstraint(["environment_id"], ["tuner_environment.id"], name="fk_tuner_winner_environment_id"),
        sa.ForeignKeyConstraint(["variant_id"], ["tuner_variant.id"], name="fk_tuner_winner_variant_id"),
        sa.ForeignKeyConstraint(["baseline_id"], ["tuner_variant.id"], name="fk_tuner_winner_baseline_id"),
    )
