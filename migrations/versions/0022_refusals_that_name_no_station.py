"""Find the refusals that name no station by their time: a report counts them, however many."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index(
        "ix_scans_nowhere_scanned_at",
        "scans",
        ["scanned_at", "reason"],
        sqlite_where=sa.text("station_id IS NULL"),
        postgresql_where=sa.text("station_id IS NULL"),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_scans_nowhere_scanned_at", "scans")
