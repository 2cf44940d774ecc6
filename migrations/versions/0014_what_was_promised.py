"""What was promised, beside what held; and days to be counted again by what metrics say.

Days are counted again whose sets of workers still live: of older ones a recount would lose what
retention took. There the figures that are new stay unknown, and what was counted stays.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

TOKENS = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}

DUE = """
    INSERT INTO rollup_dues (place_id, grain, from_day, depth, token)
    SELECT place_id, grain, from_day, 0, {token} FROM rollups
    WHERE grain = 'day' AND crowd IS NOT NULL AND place_id IN (SELECT id FROM stations)
    ON CONFLICT (place_id, grain, from_day) DO UPDATE SET token = excluded.token
"""


def upgrade() -> None:
    """Go forward."""
    op.add_column("station_modes", sa.Column("promised", JSON, nullable=True))
    op.execute(DUE.format(token=TOKENS[op.get_bind().dialect.name]))


def downgrade() -> None:
    """Go back."""
    op.drop_column("station_modes", "promised")
