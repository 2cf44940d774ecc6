"""Visits that never were are marked, a worker's word that he left is kept, his key for a day."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
WORD = sa.String(32)
KEYED = sa.text("owner_key IS NOT NULL")


def upgrade() -> None:
    """Go forward."""
    op.add_column("visits", sa.Column("left_at", INSTANT, nullable=True))
    op.add_column("visits", sa.Column("voided_at", INSTANT, nullable=True))
    op.add_column("visits", sa.Column("void_because", WORD, nullable=True))
    op.create_index(
        "ix_visits_owner_key",
        "visits",
        ["owner_key"],
        sqlite_where=KEYED,
        postgresql_where=KEYED,
    )
    op.execute("UPDATE visits SET left_at = ended_at WHERE end_source = 'worker'")


def downgrade() -> None:
    """Go back."""
    # The keys of visits that are over were not kept before, and void visits were deleted by nobody.
    op.execute("UPDATE visits SET owner_key = NULL WHERE ended_at IS NOT NULL")
    op.drop_index("ix_visits_owner_key", table_name="visits")
    op.drop_column("visits", "void_because")
    op.drop_column("visits", "voided_at")
    op.drop_column("visits", "left_at")
