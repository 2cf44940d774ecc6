"""Sums of the city itself, above every root unit.

Under one root they are its own, and are written down at once. Of several roots the days become due:
until the roll-up has summed them, reports say that they are being counted anew. Of such a city the
workers of the quarter and the year in which this happens stay unknown where days have lost theirs.

Versions of before know nothing of the city, nor that a newer one counts: theirs must have stopped.
So that nothing that they counted stays, after a way back too, rules 6 begin anew.
"""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

CITY = uuid.UUID(int=0)
DEPTH = 1_000

UNITS = sa.table("units", sa.column("id", sa.Uuid()), sa.column("parent_id", sa.Uuid()))
SUMS = (
    "grain",
    "from_day",
    "counts",
    "histograms",
    "percentiles",
    "hours",
    "peak",
    "peak_at",
    "most_inside",
    "uniques",
    "crowd",
    "occupations",
    "base",
    "reaches_at",
    "rolled_at",
)
ROLLUPS = sa.table("rollups", sa.column("place_id", sa.Uuid()), *map(sa.column, SUMS))
DUES = sa.table(
    "rollup_dues",
    sa.column("place_id", sa.Uuid()),
    sa.column("grain"),
    sa.column("from_day", sa.Date()),
    sa.column("depth"),
    sa.column("token", sa.Uuid()),
)


MARKS = sa.table("rollup_marks", sa.column("name"))
OF_RULES_6 = ("changed by rules 6", "counts by rules 6")


def upgrade() -> None:
    """Go forward."""
    op.execute(MARKS.delete().where(MARKS.c.name.in_(OF_RULES_6)))
    connection = op.get_bind()
    roots = connection.scalars(sa.select(UNITS.c.id).where(UNITS.c.parent_id.is_(None))).all()
    if len(roots) == 1:
        sums = [ROLLUPS.c[name] for name in SUMS]
        of_root = sa.select(sa.literal(CITY, sa.Uuid()), *sums).where(
            ROLLUPS.c.place_id == roots[0]
        )
        op.execute(ROLLUPS.insert().from_select(["place_id", *SUMS], of_root))
        return
    days = sa.select(sa.type_coerce(ROLLUPS.c.from_day, sa.Date())).where(
        ROLLUPS.c.grain == "day", ROLLUPS.c.place_id.in_(roots)
    )
    rows = [
        {"place_id": CITY, "grain": "day", "from_day": day, "depth": DEPTH, "token": uuid.uuid4()}
        for day in connection.scalars(days.distinct()).all()
    ]
    if rows:
        op.bulk_insert(DUES, rows)


def downgrade() -> None:
    """Go back."""
    op.execute(ROLLUPS.delete().where(ROLLUPS.c.place_id == CITY))
    op.execute(DUES.delete().where(DUES.c.place_id == CITY))
    op.execute(MARKS.delete().where(MARKS.c.name.in_(OF_RULES_6)))
