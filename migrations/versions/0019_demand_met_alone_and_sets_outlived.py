"""Which demand a controller met alone; what of a span's set of workers has outlived its parts."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ROLLUP = sa.table(
    "rollups",
    sa.column("place_id", sa.Uuid()),
    sa.column("grain", sa.String()),
    sa.column("from_day", sa.Date()),
    sa.column("crowd", sa.LargeBinary()),
    sa.column("base", sa.LargeBinary()),
)


def upgrade() -> None:
    """Go forward; of what was reviewed before, nobody can tell any more which demand it met."""
    op.add_column("offline_entries", sa.Column("demand_key", sa.LargeBinary(), nullable=True))
    op.add_column("rollups", sa.Column("base", sa.LargeBinary(), nullable=True))
    year, quarter = ROLLUP.c, ROLLUP.alias("quarter").c
    # Until now years alone outlived a part; who of their sets is of that part is not known.
    lost = sa.exists().where(
        quarter.place_id == year.place_id,
        quarter.grain == "quarter",
        sa.extract("year", quarter.from_day) == sa.extract("year", year.from_day),
        quarter.crowd.is_(None),
    )
    op.execute(
        sa.update(ROLLUP)
        .where(year.grain == "year", year.crowd.is_not(None), lost)
        .values(base=year.crowd)
    )


def downgrade() -> None:
    """Go back."""
    op.drop_column("rollups", "base")
    op.drop_column("offline_entries", "demand_key")
