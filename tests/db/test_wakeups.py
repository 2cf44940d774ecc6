"""One behaviour of bells, whatever carries them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from app.db.engine import Database, embedded_url
from app.db.wakeups import LocalWakeups, PostgresWakeups, wakeups_for
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = embedded_url(tmp_path / "bells.sqlite3")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url("postgres")
    opened = Database(url, pool_size=2)
    yield opened
    await opened.dispose()


@asynccontextmanager
async def running(wakeups: LocalWakeups) -> AsyncIterator[LocalWakeups]:
    task = asyncio.create_task(wakeups.run())
    try:
        if isinstance(wakeups, PostgresWakeups):
            # The first connection rings everything: afterwards we hear what others tell.
            with wakeups.listen("any") as bell:
                assert await bell.wait(10)
        yield wakeups
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_bell_rings_after_the_commit(database: Database) -> None:
    wakeups = wakeups_for(database)
    with wakeups.listen("a") as bell:
        async with database.write() as tx:
            await wakeups.wake(tx, "a")
            assert not await bell.wait(0.05)
        assert await bell.wait(1)


async def test_a_bell_is_silent_after_a_rollback(database: Database) -> None:
    wakeups = wakeups_for(database)
    with wakeups.listen("a") as bell:
        with suppress(ZeroDivisionError):
            async with database.write() as tx:
                await wakeups.wake(tx, "a")
                raise ZeroDivisionError
        assert not await bell.wait(0.1)


async def test_a_savepoint_that_is_released_rings_nothing_before_the_commit(
    database: Database,
) -> None:
    """What it wrote is seen by nobody until then: whoever looks sees what was before."""
    wakeups = wakeups_for(database)
    with wakeups.listen("outside") as outside, wakeups.listen("within") as within:
        async with database.write() as tx:
            await wakeups.wake(tx, "outside")
            async with tx.begin_nested():
                await wakeups.wake(tx, "within")
            async with tx.begin_nested(), tx.begin_nested():
                await wakeups.wake(tx, "within")
            assert not await outside.wait(0.05)
            assert not await within.wait(0.05)
        assert await outside.wait(1)
        assert await within.wait(1)


async def test_a_savepoint_that_is_rolled_back_takes_no_bell_from_what_was_before_it(
    database: Database,
) -> None:
    wakeups = wakeups_for(database)
    with wakeups.listen("a") as bell:
        async with database.write() as tx:
            await wakeups.wake(tx, "a")
            with suppress(ZeroDivisionError):
                async with tx.begin_nested():
                    raise ZeroDivisionError
            assert not await bell.wait(0.05)
        assert await bell.wait(1)


async def test_a_rollback_is_silent_whatever_became_of_its_savepoints(database: Database) -> None:
    wakeups = wakeups_for(database)
    with wakeups.listen("a") as bell:
        for is_released in (True, False):
            with suppress(ZeroDivisionError):
                async with database.write() as tx:
                    await wakeups.wake(tx, "a")
                    async with tx.begin_nested():
                        await wakeups.wake(tx, "a")
                        if not is_released:
                            raise ZeroDivisionError
                    raise ZeroDivisionError
            assert not await bell.wait(0.05)


async def test_all_listeners_of_a_topic_hear_it_and_no_other(database: Database) -> None:
    wakeups = wakeups_for(database)
    with (
        wakeups.listen("a") as one,
        wakeups.listen("a", "c") as two,
        wakeups.listen("b") as other,
    ):
        async with database.write() as tx:
            await wakeups.wake(tx, "a")
        assert await one.wait(1)
        assert await two.wait(1)
        assert not await other.wait(0.05)


async def test_a_ring_during_the_look_is_not_lost(database: Database) -> None:
    wakeups = wakeups_for(database)
    with wakeups.listen("a") as bell:
        wakeups.ring("a")
        assert await bell.wait(1)
        wakeups.ring("a")  # While the listener looks.
        assert await bell.wait(0.05)


async def test_nothing_is_left_behind_after_cancellation(database: Database) -> None:
    wakeups = wakeups_for(database)

    async def listens() -> None:
        with wakeups.listen("a") as bell:
            await bell.wait(60)

    task = asyncio.create_task(listens())
    await asyncio.sleep(0)
    assert wakeups.listened() == {"a"}
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert wakeups.listened() == set()


async def test_watchers_hear_their_prefix(database: Database) -> None:
    wakeups = wakeups_for(database)
    heard: list[str | None] = []
    wakeups.watch("keys", heard.append)
    wakeups.ring("keys")
    wakeups.ring("calendar")
    wakeups.ring_all()
    assert heard == ["keys", None]


@pytest.mark.postgres
async def test_another_process_hears_it_but_we_hear_it_once(postgres: PostgresServer) -> None:
    url = postgres.url("postgres")
    here, there = Database(url, pool_size=2), Database(url, pool_size=2)
    async with running(wakeups_for(here)) as ours, running(wakeups_for(there)) as theirs:
        with ours.listen("a") as near, theirs.listen("a") as far, theirs.listen("b") as other:
            async with here.write() as tx:
                await ours.wake(tx, "a")
            assert await far.wait(5)
            assert await near.wait(1)
            assert not await near.wait(0.3)
            assert not await other.wait(0.05)
    await here.dispose()
    await there.dispose()


@pytest.mark.postgres
async def test_a_lost_connection_is_made_again_and_every_bell_rings(
    postgres: PostgresServer,
) -> None:
    database = Database(postgres.url("postgres"), pool_size=2)
    async with running(wakeups_for(database)) as wakeups:
        with wakeups.listen("a") as bell:
            async with database.engine.connect() as connection:
                await connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE '%LISTEN%' AND pid <> pg_backend_pid()"
                )
            assert await bell.wait(10)
    await database.dispose()
