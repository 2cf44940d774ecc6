"""How many days stand behind each median of what is usual.

Of profiles that were made before, nobody knows; those of the next night say so, or those of
`yizhan job run usual-profiles`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Go forward."""
    op.add_column("usual_profiles", sa.Column("median_days", JSON, nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("usual_profiles", "median_days")
