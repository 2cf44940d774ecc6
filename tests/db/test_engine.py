"""What the database promises: one writer, readers that cannot write, commits that are synced."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db.engine import Database, NotDurable, embedded_url
from app.db.lock import DataDirLocked, WriterLock
from tests.support.postgres import running_postgres

pytestmark = pytest.mark.anyio


async def test_a_read_cannot_write(database: Database) -> None:
    async with database.read() as tx:
        with pytest.raises(DBAPIError, match=r"read.?only"):
            await tx.execute(sa.text("DELETE FROM leases"))


async def test_a_write_commits_and_an_exception_rolls_back(database: Database) -> None:
    insert = sa.text("INSERT INTO leases VALUES (:name, 'me', '2026-01-01 00:00:00.000000')")
    if not database.is_embedded:
        insert = sa.text("INSERT INTO leases VALUES (:name, 'me', '2026-01-01T00:00:00Z')")
    async with database.write() as tx:
        await tx.execute(insert, {"name": "kept"})
    with suppress(ZeroDivisionError):
        async with database.write() as tx:
            await tx.execute(insert, {"name": "dropped"})
            raise ZeroDivisionError
    async with database.read() as tx:
        names = (await tx.scalars(sa.text("SELECT name FROM leases WHERE holder='me'"))).all()
    assert names == ["kept"]


async def test_what_is_committed_is_synced(database: Database) -> None:
    await database.check_durable()


async def test_writers_on_sqlite_wait_for_each_other(tmp_path: Path) -> None:
    database = Database(embedded_url(tmp_path / "one.sqlite3"))
    async with database.write() as tx:
        await tx.execute(sa.text("CREATE TABLE counted (n INTEGER)"))
        await tx.execute(sa.text("INSERT INTO counted VALUES (0)"))

    async def add() -> None:
        async with database.write() as tx:
            n = await tx.scalar(sa.text("SELECT n FROM counted"))
            await asyncio.sleep(0.001)
            await tx.execute(sa.text("UPDATE counted SET n = :n"), {"n": n + 1})

    await asyncio.gather(*(add() for _ in range(30)))
    async with database.read() as tx:
        assert await tx.scalar(sa.text("SELECT n FROM counted")) == 30
    await database.dispose()


@pytest.mark.postgres
async def test_a_postgres_that_does_not_sync_is_found_out() -> None:
    with running_postgres(durable=False) as server:
        database = Database(server.url("postgres"), pool_size=2)
        with pytest.raises(NotDurable, match="fsync=off"):
            await database.check_durable()
        await database.dispose()


def test_one_process_writes_per_data_folder(tmp_path: Path) -> None:
    with (
        WriterLock(tmp_path),
        pytest.raises(DataDirLocked, match="already writes"),
        WriterLock(tmp_path),
    ):
        pass
    with WriterLock(tmp_path):
        pass


async def test_a_failing_disk_ends_the_process_instead_of_trying_again(tmp_path: Path) -> None:
    database = Database(embedded_url(tmp_path / "one.sqlite3"))
    given_up: list[Exception] = []
    database.on_disk_trouble = given_up.append

    trouble = sqlite3.OperationalError("disk I/O error")
    trouble.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    with pytest.raises(OperationalError):
        async with database.write():
            raise OperationalError("COMMIT", None, trouble)
    assert len(given_up) == 1

    with pytest.raises(OperationalError):
        async with database.write() as tx:
            await tx.execute(sa.text("SELECT no_such_column"))
    assert len(given_up) == 1
    await database.dispose()
