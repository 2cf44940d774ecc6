"""Whether a door had a contact when its relay pulsed: doors are fitted with one later."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("commands", sa.Column("has_contact", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Go back."""
    op.drop_column("commands", "has_contact")
