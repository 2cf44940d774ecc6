"""Which boots spoke last, when a claim was granted again, which raw data is old enough to go."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
BY_TIME = (("journal_entries", "received_at"), ("people_counts", "counted_at"))


def upgrade() -> None:
    """Go forward."""
    op.add_column("controllers", sa.Column("boots", JSON, nullable=True))
    op.add_column("commands", sa.Column("granted_again_at", INSTANT, nullable=True))
    for table, column in BY_TIME:
        op.create_index(
            f"ix_{table}_{column}",
            table,
            [column],
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        )


def downgrade() -> None:
    """Go back."""
    for table, column in BY_TIME:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_column("commands", "granted_again_at")
    op.drop_column("controllers", "boots")
