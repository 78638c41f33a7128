"""The conditions of an evaluation, what a winner was checked for, and the claims by which runs share work."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tuner_evaluation", sa.Column("sm_clock_mhz", sa.BigInteger))
    op.add_column("tuner_evaluation", sa.Column("temperature_c", sa.BigInteger))
    op.add_column("tuner_evaluation", sa.Column("throttle", sa.JSON))
    op.add_column("tuner_run", sa.Column("host", sa.String))
    op.add_column("tuner_run", sa.Column("pid", sa.BigInteger))
    op.add_column("tuner_run", sa.Column("beat_at", sa.DateTime(timezone=True)))
    op.add_column("tuner_winner", sa.Column("served", sa.String))
    op.create_table(
        "tuner_claim",
        sa.Column("key", sa.String, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_tuner_claim"),
        sa.ForeignKeyConstraint(["run_id"], ["tuner_run.id"], name="fk_tuner_claim_run_id"),
    )
