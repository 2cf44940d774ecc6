"""What is usual at a station, by day class."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "usual_profiles",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("day_class", sa.String(32), nullable=False),
        sa.Column("levels", JSON, nullable=False),
        sa.Column("suppressed", sa.Boolean(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("medians", JSON, nullable=False),
        sa.Column("made_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_usual_profiles_station_id")
        ),
        sa.PrimaryKeyConstraint("station_id", "day_class", name=op.f("pk_usual_profiles")),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("usual_profiles")
