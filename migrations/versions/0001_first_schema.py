"""First schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""

    op.create_table(
        "admin_login_failures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("network", TEXT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_login_failures")),
    )
    with op.batch_alter_table("admin_login_failures", schema=None) as batch_op:
        batch_op.create_index(
            "ix_admin_login_failures_username_at", ["username", "at"], unique=False
        )

    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("admin_id", sa.Uuid(), nullable=True),
        sa.Column("action", WORD, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("unit_path", TEXT, nullable=True),
        sa.Column("station_id", sa.Uuid(), nullable=True),
        sa.Column("before", JSON, nullable=True),
        sa.Column("after", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    with op.batch_alter_table("audit_entries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_entries_at"), ["at"], unique=False)

    op.create_table(
        "calendar_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("day_class", WORD, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_calendar_days")),
    )
    op.create_table(
        "districts",
        sa.Column("adcode", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column("successors", JSON, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("adcode", name=op.f("pk_districts")),
    )
    op.create_table(
        "job_runs",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("succeeded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_runs")),
    )
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "login_challenges",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("phone_index", sa.LargeBinary(), nullable=False),
        sa.Column("phone_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("code_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("code_mac", sa.LargeBinary(), nullable=False),
        sa.Column("door_id", sa.Uuid(), nullable=True),
        sa.Column("network", TEXT, nullable=False),
        sa.Column("sms_state", WORD, nullable=False),
        sa.Column("sms_taken_at", INSTANT, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", INSTANT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_challenges")),
    )
    with op.batch_alter_table("login_challenges", schema=None) as batch_op:
        batch_op.create_index("ix_login_challenges_created_at", ["created_at"], unique=False)
        batch_op.create_index(
            "ix_login_challenges_door_id_created_at", ["door_id", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_login_challenges_network_created_at", ["network", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_login_challenges_phone_index_created_at",
            ["phone_index", "created_at"],
            unique=False,
        )

    op.create_table(
        "login_turns",
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_login_turns")),
    )
    op.create_table(
        "purpose_keys",
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("purpose", "version", name=op.f("pk_purpose_keys")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", TEXT, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("private_wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )
    with op.batch_alter_table("signing_keys", schema=None) as batch_op:
        batch_op.create_index(
            "uq_signing_keys_active_kind",
            ["kind"],
            unique=True,
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )

    op.create_table(
        "units",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["parent_id"], ["units.id"], name=op.f("fk_units_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_units")),
        sa.UniqueConstraint("path", name=op.f("uq_units_path")),
    )
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_units_parent_id"), ["parent_id"], unique=False)

    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("phone_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("phone_index", sa.LargeBinary(), nullable=True),
        sa.Column("occupation", WORD, nullable=True),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("unit_id", sa.Uuid(), nullable=True),
        sa.Column("consent_id", sa.Uuid(), nullable=True),
        sa.Column("blocked_at", INSTANT, nullable=True),
        sa.Column("blocked_because", TEXT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("erased_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("number", name=op.f("uq_workers_number")),
        sa.UniqueConstraint("phone_index", name=op.f("uq_workers_phone_index")),
    )
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workers_unit_id"), ["unit_id"], unique=False)

    op.create_table(
        "consents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("given_at", INSTANT, nullable=False),
        sa.Column("withdrawn_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_consents_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
    )
    with op.batch_alter_table("consents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_consents_worker_id"), ["worker_id"], unique=False)

    op.create_table(
        "stations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("unit_id", sa.Uuid(), nullable=False),
        sa.Column("district", TEXT, nullable=True),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("latitude", sa.Double(), nullable=False),
        sa.Column("longitude", sa.Double(), nullable=False),
        sa.Column("cell", sa.Integer(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("operating_model", WORD, nullable=False),
        sa.Column("timezone", TEXT, nullable=False),
        sa.Column("staffed_hours", JSON, nullable=True),
        sa.Column("access_hours", JSON, nullable=True),
        sa.Column("max_stay_min", sa.Integer(), nullable=False),
        sa.Column("confirm_tap", sa.Boolean(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["district"], ["districts.adcode"], name=op.f("fk_stations_district")
        ),
        sa.ForeignKeyConstraint(["unit_id"], ["units.id"], name=op.f("fk_stations_unit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stations")),
        sa.UniqueConstraint("code", name=op.f("uq_stations_code")),
    )
    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.create_index("ix_stations_cell", ["cell"], unique=False)
        batch_op.create_index(batch_op.f("ix_stations_unit_id"), ["unit_id"], unique=False)

    op.create_table(
        "worker_sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["workers.id"], name=op.f("fk_worker_sessions_worker_id")
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_worker_sessions")),
    )
    with op.batch_alter_table("worker_sessions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_worker_sessions_worker_id"), ["worker_id"], unique=False
        )

    op.create_table(
        "admins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.Column("role", WORD, nullable=False),
        sa.Column("unit_id", sa.Uuid(), nullable=True),
        sa.Column("station_id", sa.Uuid(), nullable=True),
        sa.Column("totp_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("totp_last_step", sa.Integer(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["station_id"], ["stations.id"], name=op.f("fk_admins_station_id")),
        sa.ForeignKeyConstraint(["unit_id"], ["units.id"], name=op.f("fk_admins_unit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admins")),
        sa.UniqueConstraint("username", name=op.f("uq_admins_username")),
    )
    op.create_table(
        "controllers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("serial", TEXT, nullable=False),
        sa.Column("firmware", TEXT, nullable=False),
        sa.Column("credential_hash", sa.LargeBinary(), nullable=False),
        sa.Column("credential_at", INSTANT, nullable=False),
        sa.Column("credential_used", sa.Boolean(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", INSTANT, nullable=True),
        sa.Column("enrolled_at", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=True),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_controllers_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_controllers")),
        sa.UniqueConstraint("credential_hash", name=op.f("uq_controllers_credential_hash")),
        sa.UniqueConstraint("previous_hash", name=op.f("uq_controllers_previous_hash")),
    )
    with op.batch_alter_table("controllers", schema=None) as batch_op:
        batch_op.create_index(
            "uq_controllers_live_station_id",
            ["station_id"],
            unique=True,
            sqlite_where=sa.text("retired_at IS NULL"),
            postgresql_where=sa.text("retired_at IS NULL"),
        )

    op.create_table(
        "doors",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", TEXT, nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("has_display", sa.Boolean(), nullable=False),
        sa.Column("has_contact", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("grace_until", INSTANT, nullable=True),
        sa.Column("pulse_ms", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["station_id"], ["stations.id"], name=op.f("fk_doors_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_doors")),
        sa.UniqueConstraint("number", name=op.f("uq_doors_number")),
    )
    with op.batch_alter_table("doors", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_doors_station_id"), ["station_id"], unique=False)

    op.create_table(
        "facilities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("status_at", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_facilities_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_facilities")),
    )
    with op.batch_alter_table("facilities", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_facilities_station_id"), ["station_id"], unique=False)

    op.create_table(
        "mode_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("tier", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_mode_changes_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mode_changes")),
    )
    with op.batch_alter_table("mode_changes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_mode_changes_station_id_until_at", ["station_id", "until_at"], unique=False
        )

    op.create_table(
        "station_presences",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_station_presences_station_id")
        ),
        sa.PrimaryKeyConstraint("station_id", name=op.f("pk_station_presences")),
    )
    op.create_table(
        "visits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("owner_key", sa.LargeBinary(), nullable=True),
        sa.Column("occupation", WORD, nullable=True),
        sa.Column("mode", WORD, nullable=False),
        sa.Column("party_size", sa.Integer(), nullable=False),
        sa.Column("re_entry", sa.Boolean(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("stay_until", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("end_source", WORD, nullable=True),
        sa.Column("local_day", sa.Date(), nullable=False),
        sa.Column("local_hour", sa.Integer(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "ended_at IS NULL OR ended_at >= started_at", name=op.f("ck_visits_interval")
        ),
        sa.CheckConstraint("party_size BETWEEN 1 AND 5", name=op.f("ck_visits_party_size")),
        sa.ForeignKeyConstraint(["station_id"], ["stations.id"], name=op.f("fk_visits_station_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_visits_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_visits")),
    )
    with op.batch_alter_table("visits", schema=None) as batch_op:
        batch_op.create_index(
            "ix_visits_identified_started_at",
            ["started_at"],
            unique=False,
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_visits_open_station_id",
            ["station_id"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index(
            "ix_visits_open_stay_until",
            ["stay_until"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index(
            "ix_visits_station_id_local_day", ["station_id", "local_day"], unique=False
        )
        batch_op.create_index(
            "ix_visits_station_id_started_at", ["station_id", "started_at"], unique=False
        )
        batch_op.create_index(
            "ix_visits_worker_id_started_at", ["worker_id", "started_at"], unique=False
        )
        batch_op.create_index(
            "uq_visits_open_owner_key",
            ["owner_key"],
            unique=True,
            sqlite_where=sa.text("ended_at IS NULL AND owner_key IS NOT NULL"),
            postgresql_where=sa.text("ended_at IS NULL AND owner_key IS NOT NULL"),
        )

    op.create_table(
        "admin_sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("admin_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["admin_id"], ["admins.id"], name=op.f("fk_admin_sessions_admin_id")
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_admin_sessions")),
    )
    with op.batch_alter_table("admin_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_admin_sessions_admin_id"), ["admin_id"], unique=False)

    op.create_table(
        "enrolments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT, nullable=True),
        sa.Column("controller_id", sa.Uuid(), nullable=True),
        sa.Column("serial", TEXT, nullable=True),
        sa.Column("nonce", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_enrolments_controller_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_enrolments_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_enrolments_code_hash")),
    )
    op.create_table(
        "facility_uses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("facility_id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("visit_id", sa.Uuid(), nullable=True),
        sa.Column("admin_id", sa.Uuid(), nullable=True),
        sa.Column("actor", TEXT, nullable=True),
        sa.Column("idempotency_key", TEXT, nullable=True),
        sa.Column("body_hash", sa.LargeBinary(), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("begun_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("local_day", sa.Date(), nullable=False),
        sa.Column("local_hour", sa.Integer(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["admin_id"], ["admins.id"], name=op.f("fk_facility_uses_admin_id")
        ),
        sa.ForeignKeyConstraint(
            ["facility_id"], ["facilities.id"], name=op.f("fk_facility_uses_facility_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_facility_uses_station_id")
        ),
        sa.ForeignKeyConstraint(
            ["visit_id"], ["visits.id"], name=op.f("fk_facility_uses_visit_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_facility_uses")),
        sa.UniqueConstraint(
            "actor", "idempotency_key", name=op.f("uq_facility_uses_actor_idempotency_key")
        ),
    )
    with op.batch_alter_table("facility_uses", schema=None) as batch_op:
        batch_op.create_index(
            "ix_facility_uses_facility_id_begun_at", ["facility_id", "begun_at"], unique=False
        )
        batch_op.create_index(
            "ix_facility_uses_station_id_local_day", ["station_id", "local_day"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_facility_uses_visit_id"), ["visit_id"], unique=False)

    op.create_table(
        "scans",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("owner_key", sa.LargeBinary(), nullable=True),
        sa.Column("demand_key", sa.LargeBinary(), nullable=True),
        sa.Column("idempotency_key", TEXT, nullable=True),
        sa.Column("body_hash", sa.LargeBinary(), nullable=True),
        sa.Column("station_id", sa.Uuid(), nullable=True),
        sa.Column("door_id", sa.Uuid(), nullable=True),
        sa.Column("outcome", WORD, nullable=False),
        sa.Column("reason", WORD, nullable=False),
        sa.Column("occupation", WORD, nullable=True),
        sa.Column("mode", WORD, nullable=True),
        sa.Column("because", WORD, nullable=True),
        sa.Column("mode_until", INSTANT, nullable=True),
        sa.Column("calendar_known", sa.Boolean(), nullable=True),
        sa.Column("party_size", sa.Integer(), nullable=False),
        sa.Column("scanned_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("reserved_until", INSTANT, nullable=True),
        sa.Column("visit_id", sa.Uuid(), nullable=True),
        sa.Column("local_day", sa.Date(), nullable=True),
        sa.Column("local_hour", sa.Integer(), nullable=True),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["door_id"], ["doors.id"], name=op.f("fk_scans_door_id")),
        sa.ForeignKeyConstraint(["station_id"], ["stations.id"], name=op.f("fk_scans_station_id")),
        sa.ForeignKeyConstraint(["visit_id"], ["visits.id"], name=op.f("fk_scans_visit_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_scans_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scans")),
        sa.UniqueConstraint(
            "owner_key", "idempotency_key", name=op.f("uq_scans_owner_key_idempotency_key")
        ),
    )
    with op.batch_alter_table("scans", schema=None) as batch_op:
        batch_op.create_index(
            "ix_scans_identified_scanned_at",
            ["scanned_at"],
            unique=False,
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_scans_owner_key_scanned_at", ["owner_key", "scanned_at"], unique=False
        )
        batch_op.create_index(
            "ix_scans_reserved_station_id",
            ["station_id"],
            unique=False,
            sqlite_where=sa.text("reserved_until IS NOT NULL"),
            postgresql_where=sa.text("reserved_until IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_scans_station_id_local_day", ["station_id", "local_day"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_scans_visit_id"), ["visit_id"], unique=False)
        batch_op.create_index(
            "ix_scans_worker_id_scanned_at", ["worker_id", "scanned_at"], unique=False
        )

    op.create_table(
        "walk_in_counts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.Column("local_day", sa.Date(), nullable=False),
        sa.Column("admin_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["admin_id"], ["admins.id"], name=op.f("fk_walk_in_counts_admin_id")
        ),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_walk_in_counts_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_walk_in_counts")),
    )
    with op.batch_alter_table("walk_in_counts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_walk_in_counts_station_id_local_day", ["station_id", "local_day"], unique=False
        )

    op.create_table(
        "commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("door_id", sa.Uuid(), nullable=False),
        sa.Column("controller_id", sa.Uuid(), nullable=False),
        sa.Column("scan_id", sa.Uuid(), nullable=True),
        sa.Column("owner_key", sa.LargeBinary(), nullable=True),
        sa.Column("admin_id", sa.Uuid(), nullable=True),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("expires_mono", sa.Double(), nullable=True),
        sa.Column("claimed_at", INSTANT, nullable=True),
        sa.Column("boot_id", TEXT, nullable=True),
        sa.Column("nonce", TEXT, nullable=True),
        sa.Column("settled_at", INSTANT, nullable=True),
        sa.Column("pulse_after_claim_ms", sa.Integer(), nullable=True),
        sa.Column("detail", TEXT, nullable=True),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], name=op.f("fk_commands_admin_id")),
        sa.ForeignKeyConstraint(
            ["controller_id"], ["controllers.id"], name=op.f("fk_commands_controller_id")
        ),
        sa.ForeignKeyConstraint(["door_id"], ["doors.id"], name=op.f("fk_commands_door_id")),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("fk_commands_scan_id")),
        sa.ForeignKeyConstraint(
            ["station_id"], ["stations.id"], name=op.f("fk_commands_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
        sa.UniqueConstraint("scan_id", name=op.f("uq_commands_scan_id")),
    )
    with op.batch_alter_table("commands", schema=None) as batch_op:
        batch_op.create_index(
            "ix_commands_controller_id_created_at", ["controller_id", "created_at"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_commands_door_id"), ["door_id"], unique=False)
        batch_op.create_index(
            "ix_commands_live_expires_at",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("state IN ('pending', 'claimed')"),
            postgresql_where=sa.text("state IN ('pending', 'claimed')"),
        )
        batch_op.create_index(
            "ix_commands_pending_controller_id",
            ["controller_id"],
            unique=False,
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )
        batch_op.create_index(
            "uq_commands_live_owner_key_door_id",
            ["owner_key", "door_id"],
            unique=True,
            sqlite_where=sa.text("state IN ('pending', 'claimed')"),
            postgresql_where=sa.text("state IN ('pending', 'claimed')"),
        )

    op.create_table(
        "ack_evidence",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("command_id", sa.Uuid(), nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("result", WORD, nullable=False),
        sa.Column("pulse_after_claim_ms", sa.Integer(), nullable=True),
        sa.Column("detail", TEXT, nullable=True),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["command_id"], ["commands.id"], name=op.f("fk_ack_evidence_command_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ack_evidence")),
    )
    with op.batch_alter_table("ack_evidence", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_ack_evidence_command_id"), ["command_id"], unique=False
        )


def downgrade() -> None:
    """Go back."""

    with op.batch_alter_table("ack_evidence", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ack_evidence_command_id"))

    op.drop_table("ack_evidence")
    with op.batch_alter_table("commands", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_commands_live_owner_key_door_id",
            sqlite_where=sa.text("state IN ('pending', 'claimed')"),
            postgresql_where=sa.text("state IN ('pending', 'claimed')"),
        )
        batch_op.drop_index(
            "ix_commands_pending_controller_id",
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )
        batch_op.drop_index(
            "ix_commands_live_expires_at",
            sqlite_where=sa.text("state IN ('pending', 'claimed')"),
            postgresql_where=sa.text("state IN ('pending', 'claimed')"),
        )
        batch_op.drop_index(batch_op.f("ix_commands_door_id"))
        batch_op.drop_index("ix_commands_controller_id_created_at")

    op.drop_table("commands")
    with op.batch_alter_table("walk_in_counts", schema=None) as batch_op:
        batch_op.drop_index("ix_walk_in_counts_station_id_local_day")

    op.drop_table("walk_in_counts")
    with op.batch_alter_table("scans", schema=None) as batch_op:
        batch_op.drop_index("ix_scans_worker_id_scanned_at")
        batch_op.drop_index(batch_op.f("ix_scans_visit_id"))
        batch_op.drop_index("ix_scans_station_id_local_day")
        batch_op.drop_index(
            "ix_scans_reserved_station_id",
            sqlite_where=sa.text("reserved_until IS NOT NULL"),
            postgresql_where=sa.text("reserved_until IS NOT NULL"),
        )
        batch_op.drop_index("ix_scans_owner_key_scanned_at")
        batch_op.drop_index(
            "ix_scans_identified_scanned_at",
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )

    op.drop_table("scans")
    with op.batch_alter_table("facility_uses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_facility_uses_visit_id"))
        batch_op.drop_index("ix_facility_uses_station_id_local_day")
        batch_op.drop_index("ix_facility_uses_facility_id_begun_at")

    op.drop_table("facility_uses")
    op.drop_table("enrolments")
    with op.batch_alter_table("admin_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_admin_sessions_admin_id"))

    op.drop_table("admin_sessions")
    with op.batch_alter_table("visits", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_visits_open_owner_key",
            sqlite_where=sa.text("ended_at IS NULL AND owner_key IS NOT NULL"),
            postgresql_where=sa.text("ended_at IS NULL AND owner_key IS NOT NULL"),
        )
        batch_op.drop_index("ix_visits_worker_id_started_at")
        batch_op.drop_index("ix_visits_station_id_started_at")
        batch_op.drop_index("ix_visits_station_id_local_day")
        batch_op.drop_index(
            "ix_visits_open_stay_until",
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.drop_index(
            "ix_visits_open_station_id",
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.drop_index(
            "ix_visits_identified_started_at",
            sqlite_where=sa.text("worker_id IS NOT NULL"),
            postgresql_where=sa.text("worker_id IS NOT NULL"),
        )

    op.drop_table("visits")
    op.drop_table("station_presences")
    with op.batch_alter_table("mode_changes", schema=None) as batch_op:
        batch_op.drop_index("ix_mode_changes_station_id_until_at")

    op.drop_table("mode_changes")
    with op.batch_alter_table("facilities", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_facilities_station_id"))

    op.drop_table("facilities")
    with op.batch_alter_table("doors", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_doors_station_id"))

    op.drop_table("doors")
    with op.batch_alter_table("controllers", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_controllers_live_station_id",
            sqlite_where=sa.text("retired_at IS NULL"),
            postgresql_where=sa.text("retired_at IS NULL"),
        )

    op.drop_table("controllers")
    op.drop_table("admins")
    with op.batch_alter_table("worker_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_worker_sessions_worker_id"))

    op.drop_table("worker_sessions")
    with op.batch_alter_table("stations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_stations_unit_id"))
        batch_op.drop_index("ix_stations_cell")

    op.drop_table("stations")
    with op.batch_alter_table("consents", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_consents_worker_id"))

    op.drop_table("consents")
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_workers_unit_id"))

    op.drop_table("workers")
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_units_parent_id"))

    op.drop_table("units")
    with op.batch_alter_table("signing_keys", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_signing_keys_active_kind",
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )

    op.drop_table("signing_keys")
    op.drop_table("purpose_keys")
    op.drop_table("login_turns")
    with op.batch_alter_table("login_challenges", schema=None) as batch_op:
        batch_op.drop_index("ix_login_challenges_phone_index_created_at")
        batch_op.drop_index("ix_login_challenges_network_created_at")
        batch_op.drop_index("ix_login_challenges_door_id_created_at")
        batch_op.drop_index("ix_login_challenges_created_at")

    op.drop_table("login_challenges")
    op.drop_table("leases")
    op.drop_table("job_runs")
    op.drop_table("districts")
    op.drop_table("calendar_days")
    with op.batch_alter_table("audit_entries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_entries_at"))

    op.drop_table("audit_entries")
    with op.batch_alter_table("admin_login_failures", schema=None) as batch_op:
        batch_op.drop_index("ix_admin_login_failures_username_at")

    op.drop_table("admin_login_failures")
