"""Passes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""

    op.create_table(
        "passes",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("door_id", sa.Uuid(), nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["door_id"], ["doors.id"], name=op.f("fk_passes_door_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_passes_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes")),
    )
    with op.batch_alter_table("passes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_passes_issued_at"), ["issued_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_passes_worker_id"), ["worker_id"], unique=False)


def downgrade() -> None:
    """Go back."""

    with op.batch_alter_table("passes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_passes_worker_id"))
        batch_op.drop_index(batch_op.f("ix_passes_issued_at"))

    op.drop_table("passes")
