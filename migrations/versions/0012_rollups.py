"""Rollups: what was counted by place and span, and what is due."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
WORD = sa.String(32)

CHANGED = ("visits", "scans", "commands", "facility_uses", "offline_entries")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "rollups",
        sa.Column("place_id", sa.Uuid(), nullable=False),
        sa.Column("grain", WORD, nullable=False),
        sa.Column("from_day", sa.Date(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("hours", sa.LargeBinary(), nullable=False),
        sa.Column("peak", sa.Float(), nullable=False),
        sa.Column("peak_at", INSTANT, nullable=True),
        sa.Column("most_inside", sa.Integer(), nullable=True),
        sa.Column("uniques", sa.Integer(), nullable=True),
        sa.Column("crowd", sa.LargeBinary(), nullable=True),
        sa.Column("reaches_at", INSTANT, nullable=True),
        sa.Column("rolled_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("place_id", "grain", "from_day", name=op.f("pk_rollups")),
    )
    op.create_index("ix_rollups_grain_from_day", "rollups", ["grain", "from_day", "place_id"])
    op.create_index(
        "ix_rollups_crowded_grain_from_day",
        "rollups",
        ["grain", "from_day"],
        sqlite_where=sa.text("crowd IS NOT NULL"),
        postgresql_where=sa.text("crowd IS NOT NULL"),
    )
    op.create_table(
        "rollup_dues",
        sa.Column("place_id", sa.Uuid(), nullable=False),
        sa.Column("grain", WORD, nullable=False),
        sa.Column("from_day", sa.Date(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("place_id", "grain", "from_day", name=op.f("pk_rollup_dues")),
    )
    op.create_index("ix_rollup_dues_depth", "rollup_dues", ["depth", "from_day"])
    op.create_table(
        "rollup_marks",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rollup_marks")),
    )
    op.create_table(
        "rollup_members",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("unit_id", sa.Uuid(), nullable=False),
        sa.Column("unit_path", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_rollup_members_station_id")
        ),
        sa.ForeignKeyConstraint(["unit_id"], ["units.id"], name=op.f("fk_rollup_members_unit_id")),
        sa.PrimaryKeyConstraint("station_id", name=op.f("pk_rollup_members")),
    )
    op.create_table(
        "renumberings",
        sa.Column("old_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("new_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("old_number", name=op.f("pk_renumberings")),
    )
    op.add_column("visits", sa.Column("erased_number", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_visits_erased_started_at",
        "visits",
        ["started_at"],
        sqlite_where=sa.text("erased_number IS NOT NULL"),
        postgresql_where=sa.text("erased_number IS NOT NULL"),
    )
    op.create_index("ix_commands_station_id_created_at", "commands", ["station_id", "created_at"])
    for table in CHANGED:
        op.create_index(
            f"ix_{table}_changed_at",
            table,
            ["changed_at"],
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        )


def downgrade() -> None:
    """Go back."""
    for table in CHANGED:
        op.drop_index(f"ix_{table}_changed_at", table)
    op.drop_index("ix_commands_station_id_created_at", "commands")
    op.drop_index("ix_visits_erased_started_at", "visits")
    with op.batch_alter_table("visits", schema=None) as batch_op:
        batch_op.drop_column("erased_number")
    for table in ("renumberings", "rollup_members", "rollup_marks", "rollup_dues", "rollups"):
        op.drop_table(table)
