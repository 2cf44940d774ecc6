"""What held: modes of stations, spells of facilities, outages of controllers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "station_modes",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("local_day", sa.Date(), nullable=False),
        sa.Column("midnight_at", INSTANT, nullable=False),
        sa.Column("windows", JSON, nullable=False),
        sa.Column("recorded_until", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_station_modes_station_id")
        ),
        sa.PrimaryKeyConstraint("station_id", "local_day", name=op.f("pk_station_modes")),
    )
    _found_by_time("station_modes")

    op.create_table(
        "facility_spells",
        sa.Column("facility_id", sa.Uuid(), nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=True),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("said", sa.Boolean(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["facility_id"], ["facilities.id"], name=op.f("fk_facility_spells_facility_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_facility_spells_station_id")
        ),
        sa.PrimaryKeyConstraint("facility_id", "from_at", name=op.f("pk_facility_spells")),
    )
    _found_by_time("facility_spells")
    op.create_index(
        "ix_facility_spells_station_id_until_at", "facility_spells", ["station_id", "until_at"]
    )
    _first_spells()

    op.create_table(
        "controller_outages",
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_controller_outages_controller_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_controller_outages_station_id")
        ),
        sa.PrimaryKeyConstraint("controller_id", "from_at", name=op.f("pk_controller_outages")),
    )
    _found_by_time("controller_outages")
    op.create_index(
        "ix_controller_outages_station_id_until_at",
        "controller_outages",
        ["station_id", "until_at"],
    )

    op.create_table(
        "listening_spells",
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("from_at", name=op.f("pk_listening_spells")),
    )


def _found_by_time(table: str) -> None:
    op.create_index(
        f"ix_{table}_changed_at",
        table,
        ["changed_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )


def _first_spells() -> None:
    """Give the facilities that stand there their spells, as far as is known.

    Since when a status holds is known; what was before, unless that was the beginning, is not.
    """
    columns = "facility_id, from_at, until_at, station_id, kind, quantity, status, said, changed_at"
    op.execute(
        sa.text(
            f"INSERT INTO facility_spells ({columns}) "
            "SELECT id, created_at, status_at, station_id, kind, quantity, 'unknown', true, "
            "changed_at FROM facilities WHERE status_at > created_at"
        )
    )
    op.execute(
        sa.text(
            f"INSERT INTO facility_spells ({columns}) "
            "SELECT id, CASE WHEN status_at > created_at THEN status_at ELSE created_at END, "
            "retired_at, station_id, kind, quantity, status, true, changed_at FROM facilities"
        )
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("listening_spells")
    op.drop_table("controller_outages")
    op.drop_table("facility_spells")
    op.drop_table("station_modes")
