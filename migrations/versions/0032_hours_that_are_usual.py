"""Of which hours of the day a profile says what is usual.

A forecast of a unit tells by it of how many of its stations it is. Of profiles that were made
before, nobody knows; those of the next night say so, or those of `yizhan job run usual-profiles`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("usual_profiles", sa.Column("known_hours", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("usual_profiles", "known_hours")
