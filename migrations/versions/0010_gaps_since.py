"""Since when the first missing number of a journal is missing."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go forward."""
    with op.batch_alter_table("journal_cursors", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gap_at", INSTANT, nullable=True))
        batch_op.create_index(
            "ix_journal_cursors_gap_at",
            ["gap_at"],
            sqlite_where=sa.text("gap_at IS NOT NULL"),
            postgresql_where=sa.text("gap_at IS NOT NULL"),
        )


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("journal_cursors", schema=None) as batch_op:
        batch_op.drop_index("ix_journal_cursors_gap_at")
        batch_op.drop_column("gap_at")
