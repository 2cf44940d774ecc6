"""The database: one way to read, one way to write, on SQLite and on PostgreSQL.

SQLite: exactly one writer connection, which alone checkpoints (releases before 3.51.3 can corrupt
the write-ahead log when several connections write), `synchronous=FULL`, `BEGIN IMMEDIATE`; readers
have their own pool and cannot write. PostgreSQL: one pool; a read runs in a READ ONLY transaction.
"""

import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

log = logging.getLogger(__name__)

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=5000",
    "trusted_schema=OFF",
    "mmap_size=0",
)
"""What every SQLite connection is told."""


class NotDurable(RuntimeError):
    """The database would acknowledge what it has not synced."""


class Database:
    """Opens short transactions; `read()` cannot write, `write()` commits when it ends well."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url)
        self.is_embedded = self.url.get_backend_name() == "sqlite"
        self.on_disk_trouble: Callable[[Exception], None] = _give_up
        if self.is_embedded:
            self._writer = _sqlite_engine(self.url, pool_size=1, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite_engine(
                self.url, pool_size=pool_size, begin="BEGIN", read_only=True
            )
        else:
            self._writer = create_async_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=False,
                pool_recycle=1800,
                hide_parameters=True,  # They name people; a log must not.
            )
            self._reader = self._writer.execution_options(postgresql_readonly=True)

    @property
    def engine(self) -> AsyncEngine:
        """The engine that may write; for migrations and for tests that count statements."""
        return self._writer

    @property
    def reading_engine(self) -> AsyncEngine:
        """The engine that reads."""
        return self._reader

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that only reads."""
        async with AsyncSession(self._reader, expire_on_commit=False, autoflush=False) as tx:
            yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that commits when the block ends and rolls back when it raises."""
        try:
            async with AsyncSession(self._writer, expire_on_commit=False) as tx, tx.begin():
                yield tx
        except OperationalError as error:
            if _is_disk_trouble(error):
                self.on_disk_trouble(error)
            raise

    async def check_durable(self) -> None:
        """Raise NotDurable unless a commit means that the data was synced."""
        async with self._writer.connect() as connection:
            if self.is_embedded:
                mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
                level = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
                if mode != "wal" or level < 2:
                    raise NotDurable(f"SQLite runs with journal_mode={mode}, synchronous={level}")
                return
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                value = (await connection.execute(sa.text(f"SHOW {name}"))).scalar_one()
                if value in ("off", "local"):
                    raise NotDurable(f"PostgreSQL runs with {name}={value}")

    async def dispose(self) -> None:
        """Close every connection."""
        if self.is_embedded:
            await self._reader.dispose()
        await self._writer.dispose()


EX_IOERR = 74
"""What the process ends with when its disk fails (sysexits.h)."""


def _is_disk_trouble(error: OperationalError) -> bool:
    name = getattr(error.orig, "sqlite_errorname", "")
    return isinstance(name, str) and name.startswith("SQLITE_IOERR")


def _give_up(error: Exception) -> None:
    """End the process at once: after a failed sync nobody knows what is on the disk (R14).

    A second sync may report success without having written. Whoever restarts us reads the log
    again, and what was not acknowledged was never promised.
    """
    log.critical("disk trouble, ending: %s", error)
    logging.shutdown()
    os._exit(EX_IOERR)


def embedded_url(path: Path) -> str:
    """Give the URL of an embedded database in this file."""
    return f"sqlite+aiosqlite:///{path}"


def _sqlite_engine(
    url: sa.URL, *, pool_size: int, begin: str, read_only: bool = False
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,  # They name people; a log must not.
    )

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # The driver would begin transactions by itself, deferred; ours begin as we say.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
            # Only the writer checkpoints.
            cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def log_versions(database: Database) -> None:
    """Say at start which SQLite this is; before 3.51.3 only one writer is safe."""
    if database.is_embedded:
        log.info("sqlite version=%s writers=1", sqlite3.sqlite_version)
