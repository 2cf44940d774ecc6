"""What the public feed says, for all processes to send; each built its own before."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXT = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
WORD = sa.String(32)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "feed_editions",
        sa.Column("part", WORD, nullable=False),
        sa.Column("from_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("part", name=op.f("pk_feed_editions")),
    )
    op.create_table(
        "feed_texts",
        sa.Column("name", WORD, nullable=False),
        sa.Column("part", WORD, nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("zipped", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["part"], ["feed_editions.part"], name=op.f("fk_feed_texts_part")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_feed_texts")),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("feed_texts")
    op.drop_table("feed_editions")
