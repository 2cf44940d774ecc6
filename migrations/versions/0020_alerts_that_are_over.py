"""Alerts are found by their kind and newest evidence, and go when they have been over for long."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEXES = (("alerts", ["kind", "last_at"]), ("webhook_deliveries", ["alert_id"]))


def upgrade() -> None:
    """Go forward."""
    for table, columns in INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def downgrade() -> None:
    """Go back."""
    for table, columns in INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
