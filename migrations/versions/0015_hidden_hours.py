"""Levels of an hour hidden by the workers behind that hour; profiles are made anew every night."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Go forward."""
    op.execute("DELETE FROM usual_profiles")
    with op.batch_alter_table("usual_profiles") as table:
        table.drop_column("suppressed")
        table.add_column(sa.Column("hidden_hours", JSON, nullable=False))


def downgrade() -> None:
    """Go back."""
    op.execute("DELETE FROM usual_profiles")
    with op.batch_alter_table("usual_profiles") as table:
        table.drop_column("hidden_hours")
        table.add_column(sa.Column("suppressed", sa.Boolean(), nullable=False))
