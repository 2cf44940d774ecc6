"""Turns for the budgets of sign-in, messages that are tried again, workers of a branch."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "login_turns",
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_login_turns")),
    )
    op.add_column("login_challenges", sa.Column("sms_taken_at", INSTANT, nullable=True))
    op.add_column("login_challenges", sa.Column("failed_at", INSTANT, nullable=True))
    op.add_column("workers", sa.Column("unit_id", sa.Uuid(), nullable=True))
    op.create_index(op.f("ix_workers_unit_id"), "workers", ["unit_id"], unique=False)
    with op.batch_alter_table("consents", schema=None) as batch_op:
        batch_op.alter_column("worker_id", existing_type=sa.Uuid(), nullable=True)


def downgrade() -> None:
    """Go back; consents of workers who were erased go, for they had no place before."""
    op.execute("DELETE FROM consents WHERE worker_id IS NULL")
    with op.batch_alter_table("consents", schema=None) as batch_op:
        batch_op.alter_column("worker_id", existing_type=sa.Uuid(), nullable=False)
    op.drop_index(op.f("ix_workers_unit_id"), table_name="workers")
    op.drop_column("workers", "unit_id")
    op.drop_column("login_challenges", "failed_at")
    op.drop_column("login_challenges", "sms_taken_at")
    op.drop_table("login_turns")
