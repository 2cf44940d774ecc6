"""Keep histograms apart from the other counters, and the percentiles that come of them.

A row that was counted before has both among its counters, and no percentiles: it is read as it is,
until it is counted anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("rollups", sa.Column("histograms", sa.LargeBinary(), nullable=True))
    op.add_column("rollups", sa.Column("percentiles", sa.LargeBinary(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # Of a city's stations at once: whatever else must be packed or put aside to fit a row.
        op.execute("ALTER TABLE rollups ALTER COLUMN counts SET STORAGE MAIN")


def downgrade() -> None:
    """Go back: what is apart by then must be counted anew."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE rollups ALTER COLUMN counts SET STORAGE EXTENDED")
    op.execute("DELETE FROM rollup_marks")
    op.drop_column("rollups", "percentiles")
    op.drop_column("rollups", "histograms")
