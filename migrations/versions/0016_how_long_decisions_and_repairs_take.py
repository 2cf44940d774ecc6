"""How long a decision took, of scans to come; days to be counted again for how long repairs took.

Days are counted again whose sets of workers still live: of older ones a recount would lose what
retention took. There the median of repairs stays unknown.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TOKENS = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}

DUE = """
    INSERT INTO rollup_dues (place_id, grain, from_day, depth, token)
    SELECT place_id, grain, from_day, 0, {token} FROM rollups
    WHERE grain = 'day' AND crowd IS NOT NULL AND place_id IN (SELECT id FROM stations)
    ON CONFLICT (place_id, grain, from_day) DO UPDATE SET token = excluded.token
"""


def upgrade() -> None:
    """Go forward."""
    op.add_column("scans", sa.Column("decide_ms", sa.Integer(), nullable=True))
    op.execute(DUE.format(token=TOKENS[op.get_bind().dialect.name]))


def downgrade() -> None:
    """Go back."""
    op.drop_column("scans", "decide_ms")
