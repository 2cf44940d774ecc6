"""Working alone and display codes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "door_tickets",
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("jti", TEXT, nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_door_tickets")),
    )
    with op.batch_alter_table("door_tickets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_door_tickets_issued_at"), ["issued_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_door_tickets_jti"), ["jti"], unique=False)

    op.create_table(
        "pass_denials",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_pass_denials_station_id")
        ),
        sa.PrimaryKeyConstraint("station_id", "subject", name=op.f("pk_pass_denials")),
    )
    with op.batch_alter_table("pass_denials", schema=None) as batch_op:
        batch_op.create_index(
            "ix_pass_denials_station_id_version", ["station_id", "version"], unique=False
        )

    op.create_table(
        "offline_entries",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("door_id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("owner_key", sa.LargeBinary(), nullable=True),
        sa.Column("jti", TEXT, nullable=True),
        sa.Column("opened", sa.Boolean(), nullable=False),
        sa.Column("reason", WORD, nullable=False),
        sa.Column("would_have_been_refused", WORD, nullable=True),
        sa.Column("occupation", WORD, nullable=True),
        sa.Column("mode", WORD, nullable=False),
        sa.Column("because", WORD, nullable=False),
        sa.Column("happened_at", INSTANT, nullable=False),
        sa.Column("opened_at", INSTANT, nullable=True),
        sa.Column("visit_id", sa.Uuid(), nullable=True),
        sa.Column("local_day", sa.Date(), nullable=False),
        sa.Column("local_hour", sa.Integer(), nullable=False),
        sa.Column("reviewed_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["door_id"], ["doors.id"], name=op.f("fk_offline_entries_door_id")),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["journal_entries.id"], name=op.f("fk_offline_entries_entry_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_offline_entries_station_id")
        ),
        sa.ForeignKeyConstraint(
            ["visit_id"], ["visits.id"], name=op.f("fk_offline_entries_visit_id")
        ),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["workers.id"], name=op.f("fk_offline_entries_worker_id")
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_offline_entries")),
    )
    with op.batch_alter_table("offline_entries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_offline_entries_door_id_happened_at", ["door_id", "happened_at"], unique=False
        )
        batch_op.create_index(
            "ix_offline_entries_identified_happened_at",
            ["happened_at"],
            unique=False,
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )
        batch_op.create_index("ix_offline_entries_jti", ["jti"], unique=False)
        batch_op.create_index(
            "ix_offline_entries_station_id_local_day", ["station_id", "local_day"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_offline_entries_visit_id"), ["visit_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_offline_entries_worker_id"), ["worker_id"], unique=False
        )

    with op.batch_alter_table("doors", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("poster_fallback", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
        batch_op.add_column(sa.Column("codes_at", INSTANT, nullable=True))

    with op.batch_alter_table("scans", schema=None) as batch_op:
        batch_op.add_column(sa.Column("code_jti", TEXT, nullable=True))

    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("offline_hours", sa.Integer(), nullable=True))
        batch_op.add_column(
            sa.Column("denial_version", sa.Integer(), server_default="0", nullable=False)
        )


def downgrade() -> None:
    """Go back."""
    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.drop_column("denial_version")
        batch_op.drop_column("offline_hours")

    with op.batch_alter_table("scans", schema=None) as batch_op:
        batch_op.drop_column("code_jti")

    with op.batch_alter_table("doors", schema=None) as batch_op:
        batch_op.drop_column("codes_at")
        batch_op.drop_column("poster_fallback")

    with op.batch_alter_table("offline_entries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_offline_entries_worker_id"))
        batch_op.drop_index(batch_op.f("ix_offline_entries_visit_id"))
        batch_op.drop_index("ix_offline_entries_station_id_local_day")
        batch_op.drop_index("ix_offline_entries_jti")
        batch_op.drop_index(
            "ix_offline_entries_identified_happened_at",
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )
        batch_op.drop_index("ix_offline_entries_door_id_happened_at")

    op.drop_table("offline_entries")
    with op.batch_alter_table("pass_denials", schema=None) as batch_op:
        batch_op.drop_index("ix_pass_denials_station_id_version")

    op.drop_table("pass_denials")
    with op.batch_alter_table("door_tickets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_door_tickets_jti"))
        batch_op.drop_index(batch_op.f("ix_door_tickets_issued_at"))

    op.drop_table("door_tickets")
