"""Second taps and blocked numbers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""

    op.create_table(
        "blocked_numbers",
        sa.Column("phone_index", sa.LargeBinary(), nullable=False),
        sa.Column("because", TEXT, nullable=True),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("phone_index", name=op.f("pk_blocked_numbers")),
    )
    op.create_table(
        "scan_aliases",
        sa.Column("owner_key", sa.LargeBinary(), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scan_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("fk_scan_aliases_scan_id")),
        sa.PrimaryKeyConstraint("owner_key", "key", name=op.f("pk_scan_aliases")),
    )
    with op.batch_alter_table("scan_aliases", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_scan_aliases_created_at"), ["created_at"], unique=False
        )

    with op.batch_alter_table("login_challenges", schema=None) as batch_op:
        batch_op.alter_column("phone_sealed", existing_type=sa.LargeBinary(), nullable=True)


def downgrade() -> None:
    """Go back."""

    with op.batch_alter_table("login_challenges", schema=None) as batch_op:
        batch_op.alter_column("phone_sealed", existing_type=sa.LargeBinary(), nullable=False)

    with op.batch_alter_table("scan_aliases", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_scan_aliases_created_at"))

    op.drop_table("scan_aliases")
    op.drop_table("blocked_numbers")
