"""Column types and names that both databases share."""

import enum
import uuid
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import uuid_utils.compat
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase
from typing_extensions import override

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a migration can drop it on either database."""


def new_id() -> uuid.UUID:
    """Make a time-ordered id (UUID version 7, RFC 9562)."""
    return uuid_utils.compat.uuid7()


class Instant(sa.types.TypeDecorator[datetime]):
    """A point in time: refuses naive datetimes, always answers in UTC.

    SQLite keeps text without an offset, in UTC, so that text order is time order.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    @property
    @override
    def python_type(self) -> type[datetime]:
        """What a value is, for whoever parses one from text."""
        return datetime

    @override
    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"an instant needs an offset: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    @override
    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        # asyncpg answers in UTC by itself: millions of instants need no second look.
        return None if dialect.driver == "asyncpg" else super().result_processor(dialect, coltype)

    @override
    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        instant: datetime = value
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""A JSON value; JSONB on PostgreSQL."""

Text = sa.String().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text compared byte by byte on both databases, so that prefix ranges use the index."""


def closed_enum(kind: type[enum.StrEnum]) -> sa.Enum:
    """Store the values of a StrEnum as text; the API, not the database, keeps the list closed."""
    return sa.Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def only_where(condition: str) -> dict[str, Any]:
    """Make an index partial on both databases: `sa.Index(..., **only_where("x IS NULL"))`."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def found_by_time(name: str, column: str) -> sa.Index:
    """Make an index for searches of what is newest in a large table.

    On PostgreSQL a block range index: a few kilobytes, and no update of a row has to touch it.
    """
    return sa.Index(name, column, postgresql_using="brin", postgresql_with={"autosummarize": "on"})


def table_of(kind: type["Base"]) -> sa.Table:
    """Give a row's table: statements on tables are several times cheaper than on classes."""
    found = kind.__table__
    assert isinstance(found, sa.Table)
    return found


class Base(DeclarativeBase):
    """The registry of all tables."""

    metadata = sa.MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads a plain class attribute
        uuid.UUID: sa.Uuid(),
        datetime: Instant(),
        str: Text,
        bytes: sa.LargeBinary(),
    }
