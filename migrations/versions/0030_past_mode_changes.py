"""What dated exceptions said before they were amended or withdrawn.

Of amendments before this nobody kept it: such an exception counts as written when it was last
amended, so on the day of that amendment the hours alone were promised. The same goes for what an
older process amends beside a newer one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "past_mode_changes",
        sa.Column("change_id", sa.Uuid(), nullable=False),
        sa.Column("written_at", INSTANT, nullable=False),
        sa.Column("replaced_at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["change_id"], ["mode_changes.id"], name=op.f("fk_past_mode_changes_change_id")
        ),
        sa.PrimaryKeyConstraint("change_id", "written_at", name=op.f("pk_past_mode_changes")),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("past_mode_changes")
