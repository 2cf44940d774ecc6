"""Find the effects that are due by their controller: in a city's backlog each looks for its own."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

DUE = sa.text("applied_at IS NULL")
OLD, NEW = (
    "ix_journal_entries_due_corrected_at",
    "ix_journal_entries_due_controller_id_corrected_at",
)


def upgrade() -> None:
    """Go forward."""
    columns = ["controller_id", "corrected_at"]
    op.create_index(NEW, "journal_entries", columns, sqlite_where=DUE, postgresql_where=DUE)
    op.drop_index(OLD, "journal_entries")


def downgrade() -> None:
    """Go back."""
    op.create_index(
        OLD, "journal_entries", ["corrected_at"], sqlite_where=DUE, postgresql_where=DUE
    )
    op.drop_index(NEW, "journal_entries")
