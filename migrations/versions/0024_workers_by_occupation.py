"""Keep how many workers of each occupation came: to say it, no set of them is read any more.

Spans that were counted before have none, and are told from their sets until they are counted anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("rollups", sa.Column("occupations", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("rollups", "occupations")
