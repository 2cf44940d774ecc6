"""Which demand a controller met while it was alone, as scans say which they made."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward; nobody can tell any more of entries that were reviewed before."""
    op.add_column("offline_entries", sa.Column("demand_key", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("offline_entries", "demand_key")
