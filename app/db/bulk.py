"""Whole tables at once: millions of rows into empty tables, in one transaction.

Secondary indexes, unique constraints and foreign keys are read from the database's own catalogue,
dropped, and made again over the finished rows, which checks them all. Both databases do this
within a transaction, so a crash leaves everything as it was, indexes included.

Rows come as columns (`Column`, numpy arrays). PostgreSQL gets them as binary COPY, put together
without a step per row; SQLite as parameters of one INSERT.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.engine import Database
from app.db.schema import NotEmpty
from app.db.types import Instant

AT_ONCE = 8192
"""Rows that are put together at once: what they take stays in the processor's cache."""

SQLITE_AT_ONCE = 20_000

SQLITE_MEMORY_KIB = 256 * 1024
"""What SQLite may keep in memory during a load; a server's connection gets by with 2 MB."""

MEMORY = "512MB"
"""What PostgreSQL may use to sort an index."""

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one column of many rows.

    By the column's type: identifiers and bytes as `V16` and the like, instants as microseconds of
    Unix time, days as days of Unix time, numerics of three places as thousandths, numbers and
    truth values as they are; text, JSON text and enumerations as numbers of `words`, or text as
    `S32` and the like.
    """

    values: NDArray[Any]
    null: Flags | None = None
    """Where there is no value."""
    words: Sequence[str] | None = None


Rows = Mapping[str, Column]
"""Columns by their name, all of one length; a column that is missing is NULL."""

Note = Callable[[str, int, int], None]
"""Hears the name of a step, how much of it is done, and how much there is."""


class BulkLoad(Protocol):
    """The open transaction of a load."""

    tx: AsyncSession
    """For the small tables, whose rows are written one by one."""

    async def add(self, table: sa.Table, rows: Rows) -> int:
        """Write rows; gives how many."""


@asynccontextmanager
async def bulk_load(
    database: Database, tables: Sequence[sa.Table], note: Note
) -> AsyncIterator[BulkLoad]:
    """Open the one transaction; at its end every index and key of `tables` is there again.

    Raises NotEmpty. Nobody else can read or write these tables meanwhile.
    """
    names = [table.name for table in tables]
    async with database.engine.connect() as connection:
        if database.is_embedded:
            async with _sqlite(connection, names, note) as load:
                yield load
        else:
            async with _postgres(connection, names, note) as load:
                yield load


async def tidy(database: Database, tables: Sequence[sa.Table]) -> None:
    """After a load: let the planner know what is there, and bring the log's pages home."""
    async with database.engine.connect() as connection:
        if database.is_embedded:
            driver = await _driver_of(connection)
            await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        async with connection.begin():
            for table in tables:
                await connection.exec_driver_sql(f"ANALYZE {table.name}")


async def require_empty(connection: AsyncConnection | AsyncSession, names: Sequence[str]) -> None:
    """Raise NotEmpty if one of these tables has a row."""
    for name in names:
        if (await connection.execute(sa.text(f"SELECT 1 FROM {name} LIMIT 1"))).first():
            raise NotEmpty(f"there are {name} in the database; only an empty one can be filled")


async def _driver_of(connection: AsyncConnection) -> Any:
    raw = await connection.get_raw_connection()
    return raw.driver_connection


def _length(rows: Rows) -> int:
    lengths = {len(column.values) for column in rows.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths: {sorted(lengths)}")
    return lengths.pop()


def _require_known(table: sa.Table, rows: Rows) -> None:
    if unknown := rows.keys() - table.c.keys():
        raise ValueError(f"{table.name} has no column {', '.join(sorted(unknown))}")


# --- PostgreSQL ---------------------------------------------------------------------------------

_CONSTRAINTS = """
SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid), contype = 'f'
FROM pg_constraint
WHERE contype = 'f' AND confrelid = ANY($1::text[]::regclass[])
   OR contype IN ('f', 'u', 'p') AND conrelid = ANY($1::text[]::regclass[])
ORDER BY contype = 'f' DESC, contype, conrelid, conname
"""

_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
FROM pg_index
WHERE indrelid = ANY($1::text[]::regclass[])
  AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
ORDER BY indrelid, indexrelid
"""

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)

_EPOCH_US = 946_684_800 * 1_000_000
_EPOCH_DAYS = 10_957
"""PostgreSQL counts from 2000 on."""


@dataclass
class _PostgresLoad:
    tx: AsyncSession
    driver: Any

    async def add(self, table: sa.Table, rows: Rows) -> int:
        _require_known(table, rows)
        if (count := _length(rows)) == 0:
            return 0
        await self.driver.copy_to_table(
            table.name,
            source=_stream(table, rows, count),
            columns=[column.name for column in table.columns],
            format="binary",
            freeze=True,
        )
        return count


@asynccontextmanager
async def _postgres(
    connection: AsyncConnection, names: list[str], note: Note
) -> AsyncIterator[_PostgresLoad]:
    async with connection.begin():
        # The first statement begins the transaction, which the driver's own calls then share.
        await connection.exec_driver_sql(f"SET LOCAL maintenance_work_mem = '{MEMORY}'")
        await connection.exec_driver_sql(f"LOCK TABLE {', '.join(names)}")
        await require_empty(connection, names)
        driver = await _driver_of(connection)
        constraints = await driver.fetch(_CONSTRAINTS, names)
        for table, name, _, _ in constraints:
            await driver.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        indexes = await driver.fetch(_INDEXES, names)
        for name, _ in indexes:
            await driver.execute(f"DROP INDEX {name}")
        # What a table's own transaction writes into it needs no second look: it is frozen at once.
        await driver.execute(f"TRUNCATE {', '.join(names)}")
        tx = AsyncSession(connection, expire_on_commit=False)
        yield _PostgresLoad(tx, driver)
        await tx.flush()
        add = "ALTER TABLE {} ADD CONSTRAINT {} {}"
        work = [add.format(*row) for row in constraints if not row[3]]
        work += [definition for _, definition in indexes]
        keys = [add.format(*row) for row in constraints if row[3]]
        for name, statements in (("indexes", work), ("keys", keys)):
            for number, statement in enumerate(statements, 1):
                await driver.execute(statement)
                note(name, number, len(statements))


async def _stream(table: sa.Table, rows: Rows, count: int) -> AsyncIterator[bytes]:
    yield _HEADER
    for piece in encoded(table, rows, count):
        yield piece
        await asyncio.sleep(0)
    yield _TRAILER


def encoded(table: sa.Table, rows: Rows, count: int) -> Iterator[bytes]:
    """Give rows as PostgreSQL's binary COPY takes them, some thousand at a time.

    Every field gets the room that the longest value of its column takes; what a row does not use
    of it (a shorter word, a NULL) is then left out of the bytes, for all rows in one step.
    """
    fields = [_field(column, rows.get(column.name)) for column in table.columns]
    width = 2 + sum(4 + field.width for field in fields)
    head = np.frombuffer(struct.pack("!h", len(fields)), np.uint8)
    for start in range(0, count, AT_ONCE):
        part = slice(start, min(start + AT_ONCE, count))
        room = np.empty((part.stop - start, width), np.uint8)
        used = np.ones(room.shape, np.bool_)
        room[:, :2] = head
        at = 2
        for field in fields:
            field.write(part, room[:, at : at + 4 + field.width], used[:, at + 4 :])
            at += 4 + field.width
        yield room[used].tobytes()


class _Field(Protocol):
    width: int

    def write(self, part: slice, room: Bytes, used: Flags) -> None:
        """Write the length and the value of some rows; say what of the value's room is used."""


@dataclass
class _Nothing:
    width: int = 0

    def write(self, part: slice, room: Bytes, used: Flags) -> None:
        room[:, :4] = 255


@dataclass
class _Fixed:
    values: Bytes
    null: Flags | None
    width: int

    def write(self, part: slice, room: Bytes, used: Flags) -> None:
        room[:, :4] = np.frombuffer(struct.pack("!i", self.width), np.uint8)
        room[:, 4:] = self.values[part]
        if self.null is not None:
            null = self.null[part]
            room[null, :4] = 255
            used[:, : self.width][null] = False


@dataclass
class _Words:
    numbers: NDArray[Any]
    null: Flags | None
    fields: Bytes
    """For every word its length and its bytes, with room for the longest."""
    lengths: Flags
    """For every word which bytes of that room it uses."""
    width: int

    def write(self, part: slice, room: Bytes, used: Flags) -> None:
        numbers = self.numbers[part]
        room[:] = self.fields[numbers]
        used[:, : self.width] = self.lengths[numbers]
        if self.null is not None:
            null = self.null[part]
            room[null, :4] = 255
            used[:, : self.width][null] = False


def _field(column: sa.Column[Any], given: Column | None) -> _Field:
    if given is None:
        if not column.nullable:
            raise ValueError(f"{column} has no value")
        return _Nothing()
    if given.words is not None:
        # JSONB is sent as its version and its text.
        before = b"\1" if isinstance(column.type, sa.JSON) else b""
        texts = [before + word.encode() for word in given.words]
        width = max(map(len, texts))
        fields = [struct.pack("!i", len(text)) + text.ljust(width, b"\0") for text in texts]
        room = np.frombuffer(b"".join(fields), np.uint8).reshape(len(texts), 4 + width)
        lengths = np.arange(width) < np.array([len(text) for text in texts])[:, None]
        return _Words(given.values, given.null, room, lengths, width)
    values = _binary(column.type, given.values)
    return _Fixed(values, given.null, values.shape[1])


def _binary(kind: Any, values: NDArray[Any]) -> Bytes:
    """Give values as PostgreSQL sends them, one row of bytes each."""
    match kind:
        case Instant():
            return _bytes_of((values.astype(np.int64) - _EPOCH_US).astype(">i8"))
        case sa.Date():
            return _bytes_of((values.astype(np.int64) - _EPOCH_DAYS).astype(">i4"))
        case sa.Boolean():
            return _bytes_of(values.astype(np.uint8))
        case sa.BigInteger():
            return _bytes_of(values.astype(">i8"))
        case sa.Integer():
            return _bytes_of(values.astype(">i4"))
        case sa.Numeric():
            # Digits of base 10,000: the whole part, and three places with a zero behind them.
            digits = np.empty((len(values), 6), ">i2")
            digits[:, :4] = (2, 0, 0, 3)
            digits[:, 4], digits[:, 5] = values // 1000, values % 1000 * 10
            return _bytes_of(digits)
        case _:
            return _bytes_of(values)


def _bytes_of(values: NDArray[Any]) -> Bytes:
    whole = np.ascontiguousarray(values)
    return whole.view(np.uint8).reshape(len(values), -1)


# --- SQLite -------------------------------------------------------------------------------------


@dataclass
class _SqliteLoad:
    tx: AsyncSession
    driver: Any

    async def add(self, table: sa.Table, rows: Rows) -> int:
        _require_known(table, rows)
        count = _length(rows)
        names = [column.name for column in table.columns if column.name in rows]
        marks = ", ".join("?" * len(names))
        insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
        for start in range(0, count, SQLITE_AT_ONCE):
            part = slice(start, start + SQLITE_AT_ONCE)
            columns = [_plain(table.c[name].type, rows[name], part) for name in names]
            await self.driver.executemany(insert, zip(*columns, strict=True))
        return count


@asynccontextmanager
async def _sqlite(
    connection: AsyncConnection, names: list[str], note: Note
) -> AsyncIterator[_SqliteLoad]:
    driver = await _driver_of(connection)
    # Within a transaction it would do nothing.
    await driver.execute("PRAGMA foreign_keys=OFF")
    (before,) = await (await driver.execute("PRAGMA cache_size")).fetchone()
    await driver.execute(f"PRAGMA cache_size=-{SQLITE_MEMORY_KIB}")
    try:
        async with connection.begin():
            await require_empty(connection, names)
            marks = ", ".join("?" * len(names))
            found = await connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
                f"AND tbl_name IN ({marks}) ORDER BY rowid",
                tuple(names),
            )
            indexes = [(row.name, row.sql) for row in found]
            for name, _ in indexes:
                await connection.exec_driver_sql(f'DROP INDEX "{name}"')
            tx = AsyncSession(connection, expire_on_commit=False)
            yield _SqliteLoad(tx, driver)
            await tx.flush()
            for number, (_, definition) in enumerate(indexes, 1):
                await connection.exec_driver_sql(definition)
                note("indexes", number, len(indexes))
            for number, name in enumerate(names, 1):
                broken = await connection.exec_driver_sql(f"PRAGMA foreign_key_check({name})")
                if row := broken.mappings().first():
                    raise ValueError(f"a row of {name} points at no row of {row['parent']}")
                note("keys", number, len(names))
    finally:
        await driver.execute(f"PRAGMA cache_size={before}")
        await driver.execute("PRAGMA foreign_keys=ON")


def _plain(kind: Any, column: Column, part: slice) -> list[Any]:
    """Give values as SQLAlchemy would bind them, None where there is none."""
    values = column.values[part]
    found: list[Any]
    if column.words is not None:
        found = np.array(column.words, object)[values].tolist()
    else:
        found = _texts(kind, values)
    if column.null is not None:
        for index in np.flatnonzero(column.null[part]).tolist():
            found[index] = None
    return found


def _texts(kind: Any, values: NDArray[Any]) -> list[Any]:
    found: NDArray[Any] = values
    match kind:
        case sa.Uuid():
            digits = np.frombuffer(values.tobytes().hex().encode(), "S32")
            found = digits.astype("U32")
        case Instant():
            found = np.datetime_as_string(values.astype("datetime64[us]"), unit="us")
            # A space where NumPy writes a T.
            found.view(np.uint32).reshape(len(found), -1)[:, 10] = ord(" ")
        case sa.Date():
            found = np.datetime_as_string(values.astype("datetime64[D]"), unit="D")
        case sa.Numeric():
            found = values / 1000
        case sa.String():
            found = values.astype("U")
        case _:
            pass
    return list(found.tolist())
