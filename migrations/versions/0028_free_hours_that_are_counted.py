"""How far free hours are counted, beside what is usual.

Until the profiles are made anew in the next night, nothing is known of free hours, and no level of
them is shown: `yizhan job run usual-profiles` makes them at once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("usual_profiles", sa.Column("free_coverage", sa.Float(), nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("usual_profiles", "free_coverage")
