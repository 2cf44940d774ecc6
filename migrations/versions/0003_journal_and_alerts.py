"""Journal and alerts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""

    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=True),
        sa.Column("opened_at", INSTANT, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("acknowledged_at", INSTANT, nullable=True),
        sa.Column("acknowledged_by", sa.Uuid(), nullable=True),
        sa.Column("closed_at", INSTANT, nullable=True),
        sa.Column("closed_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["acknowledged_by"], ["admins.id"], name=op.f("fk_alerts_acknowledged_by")
        ),
        sa.ForeignKeyConstraint(["closed_by"], ["admins.id"], name=op.f("fk_alerts_closed_by")),
        sa.ForeignKeyConstraint(["station_id"], ["stations.id"], name=op.f("fk_alerts_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_alerts_station_id_opened_at", ["station_id", "opened_at"], unique=False
        )
        batch_op.create_index(
            "uq_alerts_open_kind_subject",
            ["kind", "subject"],
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )

    op.create_table(
        "journal_cursors",
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("acked_through", sa.BigInteger(), nullable=False),
        sa.Column("highest", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_journal_cursors_controller_id")
        ),
        sa.PrimaryKeyConstraint("controller_id", "epoch", name=op.f("pk_journal_cursors")),
    )
    op.create_table(
        "journal_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("type", WORD, nullable=False),
        sa.Column("door_id", sa.Uuid(), nullable=True),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("corrected_at", INSTANT, nullable=False),
        sa.Column("error_ms", sa.BigInteger(), nullable=True),
        sa.Column("quality", WORD, nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("applied_at", INSTANT, nullable=True),
        sa.Column("effect", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_journal_entries_controller_id")
        ),
        sa.ForeignKeyConstraint(["door_id"], ["doors.id"], name=op.f("fk_journal_entries_door_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_entries")),
        sa.UniqueConstraint(
            "controller_id", "epoch", "seq", name=op.f("uq_journal_entries_controller_id_epoch_seq")
        ),
        sa.UniqueConstraint(
            "controller_id", "event_id", name=op.f("uq_journal_entries_controller_id_event_id")
        ),
    )
    with op.batch_alter_table("journal_entries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_journal_entries_door_id_corrected_at", ["door_id", "corrected_at"], unique=False
        )
        batch_op.create_index(
            "ix_journal_entries_due_corrected_at",
            ["corrected_at"],
            unique=False,
            sqlite_where=sa.text("applied_at IS NULL"),
            postgresql_where=sa.text("applied_at IS NULL"),
        )

    op.create_table(
        "journal_losses",
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_journal_losses_controller_id")
        ),
        sa.PrimaryKeyConstraint(
            "controller_id", "epoch", "first_seq", name=op.f("pk_journal_losses")
        ),
    )
    op.create_table(
        "quarantined_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_quarantined_events_controller_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantined_events")),
        sa.UniqueConstraint(
            "controller_id",
            "epoch",
            "content_hash",
            name=op.f("uq_quarantined_events_controller_id_epoch_content_hash"),
        ),
    )
    with op.batch_alter_table("quarantined_events", schema=None) as batch_op:
        batch_op.create_index(
            "ix_quarantined_events_controller_id_epoch_seq",
            ["controller_id", "epoch", "seq"],
            unique=False,
        )

    op.create_table(
        "people_counts",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("counted_at", INSTANT, nullable=False),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.Column("reset_to", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["journal_entries.id"], name=op.f("fk_people_counts_entry_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_people_counts_station_id")
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_people_counts")),
    )
    with op.batch_alter_table("people_counts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_people_counts_station_id_counted_at", ["station_id", "counted_at"], unique=False
        )

    with op.batch_alter_table("commands", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pulsed_at", INSTANT, nullable=True))
        batch_op.add_column(sa.Column("opened_at", INSTANT, nullable=True))
        batch_op.create_index(
            "ix_commands_pulsed_door_id_pulsed_at",
            ["door_id", "pulsed_at"],
            unique=False,
            sqlite_where=sa.text("pulsed_at IS NOT NULL"),
            postgresql_where=sa.text("pulsed_at IS NOT NULL"),
        )

    with op.batch_alter_table("controllers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("frozen_at", INSTANT, nullable=True))


def downgrade() -> None:
    """Go back."""

    with op.batch_alter_table("controllers", schema=None) as batch_op:
        batch_op.drop_column("frozen_at")

    with op.batch_alter_table("commands", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_commands_pulsed_door_id_pulsed_at",
            sqlite_where=sa.text("pulsed_at IS NOT NULL"),
            postgresql_where=sa.text("pulsed_at IS NOT NULL"),
        )
        batch_op.drop_column("opened_at")
        batch_op.drop_column("pulsed_at")

    with op.batch_alter_table("people_counts", schema=None) as batch_op:
        batch_op.drop_index("ix_people_counts_station_id_counted_at")

    op.drop_table("people_counts")
    with op.batch_alter_table("quarantined_events", schema=None) as batch_op:
        batch_op.drop_index("ix_quarantined_events_controller_id_epoch_seq")

    op.drop_table("quarantined_events")
    op.drop_table("journal_losses")
    with op.batch_alter_table("journal_entries", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_journal_entries_due_corrected_at",
            sqlite_where=sa.text("applied_at IS NULL"),
            postgresql_where=sa.text("applied_at IS NULL"),
        )
        batch_op.drop_index("ix_journal_entries_door_id_corrected_at")

    op.drop_table("journal_entries")
    op.drop_table("journal_cursors")
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_alerts_open_kind_subject",
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )
        batch_op.drop_index("ix_alerts_station_id_opened_at")

    op.drop_table("alerts")
