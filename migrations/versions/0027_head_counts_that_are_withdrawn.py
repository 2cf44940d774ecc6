"""Head counts that were wrong can be withdrawn: the row stays, marked.

An older process beside a newer one counts heads as ever; but it counts what was withdrawn too, and
may look past a withdrawal, so older ones are stopped as soon as newer ones answer.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
WITHDRAWN = sa.text("withdrawn_at IS NOT NULL")


def upgrade() -> None:
    """Go forward."""
    with op.batch_alter_table("walk_in_counts") as batch_op:
        batch_op.add_column(sa.Column("withdrawn_at", INSTANT, nullable=True))
        batch_op.add_column(sa.Column("withdrawn_by", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            op.f("fk_walk_in_counts_withdrawn_by"), "admins", ["withdrawn_by"], ["id"]
        )
    op.create_index(
        "ix_walk_in_counts_withdrawn_at",
        "walk_in_counts",
        ["withdrawn_at"],
        sqlite_where=WITHDRAWN,
        postgresql_where=WITHDRAWN,
    )


def downgrade() -> None:
    """Go back: what was withdrawn would stand again, beside what was counted in its place."""
    op.execute("DELETE FROM walk_in_counts WHERE withdrawn_at IS NOT NULL")
    op.drop_index("ix_walk_in_counts_withdrawn_at", table_name="walk_in_counts")
    with op.batch_alter_table("walk_in_counts") as batch_op:
        batch_op.drop_constraint(op.f("fk_walk_in_counts_withdrawn_by"), type_="foreignkey")
        batch_op.drop_column("withdrawn_by")
        batch_op.drop_column("withdrawn_at")
