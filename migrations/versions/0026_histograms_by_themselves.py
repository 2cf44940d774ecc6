"""Keep histograms apart from the other counters, and the percentiles that come of them.

A row that was counted before has both among its counters and no percentiles; it says the same, more
slowly. A process of an older version that still counts beside a newer one puts histograms back
among the counters of a row: that is seen when it is read. But what it sums from newer rows lacks
their histograms, so older processes are stopped as soon as newer ones answer.
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
    """Go back: the numbers of histograms come after all others."""
    both = "counts || histograms"
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE rollups ALTER COLUMN counts SET STORAGE EXTENDED")
    else:
        both = f"CAST({both} AS BLOB)"
    op.execute(f"UPDATE rollups SET counts = {both} WHERE histograms IS NOT NULL")
    op.drop_column("rollups", "percentiles")
    op.drop_column("rollups", "histograms")
