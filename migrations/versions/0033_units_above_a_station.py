"""Who is above a station where it is counted, and an index by which new head counts are found.

A path says no more who was above once a unit is hung up elsewhere: so the units themselves are
written down, as the paths of now tell them. Of a station that was moved just before, its next look
still goes by the path.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
MEMBERS = sa.table(
    "rollup_members",
    sa.column("station_id", sa.Uuid()),
    sa.column("unit_path", sa.String()),
    sa.column("above", JSON),
)
UNITS = sa.table("units", sa.column("id", sa.Uuid()), sa.column("path", sa.String()))


def upgrade() -> None:
    """Go forward."""
    op.add_column("rollup_members", sa.Column("above", JSON, nullable=True))
    connection = op.get_bind()
    ids = {row.path: row.id for row in connection.execute(sa.select(UNITS))}
    paths = connection.execute(sa.select(MEMBERS.c.unit_path).distinct()).scalars().all()
    for path in paths:
        steps = path.split(".")
        above = [ids.get(".".join(steps[:level])) for level in range(len(steps), 0, -1)]
        if None not in above:
            told = [unit.hex for unit in above if unit is not None]
            mine = MEMBERS.c.unit_path == path
            connection.execute(MEMBERS.update().where(mine).values(above=told))
    op.create_index(
        "ix_walk_in_counts_created_at",
        "walk_in_counts",
        ["created_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_walk_in_counts_created_at", "walk_in_counts")
    op.drop_column("rollup_members", "above")
