"""After how long without staff a station turns to scanning."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go forward."""
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.add_column(sa.Column("staff_absent_min", sa.Integer(), nullable=True))

    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("staff_absent_min", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("staff_seen_at", INSTANT, nullable=True))


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.drop_column("staff_seen_at")
        batch_op.drop_column("staff_absent_min")

    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.drop_column("staff_absent_min")
