"""Find the controllers that a station had before: a box enrolled anew goes on with its journal."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index(
        "ix_controllers_retired_station_id",
        "controllers",
        ["station_id"],
        sqlite_where=sa.text("retired_at IS NOT NULL"),
        postgresql_where=sa.text("retired_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_controllers_retired_station_id", "controllers")
