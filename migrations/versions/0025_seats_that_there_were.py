"""How many seats there were, beside what held."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Go forward."""
    op.add_column("station_modes", sa.Column("seats", JSON, nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("station_modes", "seats")
