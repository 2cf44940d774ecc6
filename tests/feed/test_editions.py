"""All processes send the same feed, and it never goes back in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.db.engine import Database
from app.feed import editions, files
from app.feed.documents import read_live
from app.feed.rules import FeedFile, Part
from app.feed.tables import FeedEdition, FeedText
from app.main import build_runtime, create_app
from app.places.rules import ChangeKind, Tier
from app.places.stations import Wanted, add_change
from app.places.tables import Station
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import NIGHT, Clock
from tests.support.statements import statements_of
from tests.support.worlds import a_station

pytestmark = pytest.mark.anyio

STATUS = "/v1/feed/station_status.json"
ALERTS = "/v1/feed/system_alerts.json"


@dataclass(frozen=True, slots=True)
class Process:
    client: httpx.AsyncClient
    database: Database


@asynccontextmanager
async def another_process(settings: Settings, clock: Clock) -> AsyncIterator[Process]:
    """Start another server on the same database.

    Without its lifespan, since on SQLite one serves after the other, and not beside it.
    """
    held = build_runtime(settings, now=clock.now, monotonic=clock.monotonic)
    app = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    app.state.runtime = held
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            yield Process(client, held.database)
    finally:
        await held.database.dispose()


async def a_quiet_station(runtime: Runtime) -> Station:
    """Add a station without a controller, of which nothing changes by itself."""
    async with runtime.database.write() as tx:
        return await a_station(tx, at=runtime.now())


async def lock_down(runtime: Runtime, station: Station) -> None:
    at = runtime.now()
    wanted = Wanted(ChangeKind.LOCKDOWN, at, at + timedelta(hours=1), "")
    async with runtime.database.write() as tx:
        tier = Tier.OVERRIDE
        await add_change(tx, runtime.wakeups, station, tier, wanted, actor=COMMAND_LINE, at=at)


async def is_open(client: httpx.AsyncClient) -> Any:
    (told,) = (await client.get(STATUS)).json()["data"]["stations"]
    return told["is_open"]


async def test_behind_a_balancer_nobody_sees_a_lockdown_come_and_go(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    station = await a_quiet_station(runtime)
    seen = []
    async with another_process(settings, clock) as other:
        clock.advance(10)
        await client.get(STATUS)
        clock.advance(40)  # Each is asked first at another second of the minute.
        await other.client.get(STATUS)
        await lock_down(runtime, station)
        for turn in range(30):
            asked = (client, other.client)[turn % 2]
            answer = (await asked.get(STATUS)).json()
            (told,) = answer["data"]["stations"]
            seen.append((answer["last_updated"], not told["is_open"]))
            clock.advance(5)
    assert seen == sorted(seen)
    assert [is_closed for _, is_closed in seen] == [False] * 2 + [True] * 28
    assert len(set(seen)) == 2


async def test_what_one_process_built_costs_another_one_look(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    await a_quiet_station(runtime)
    async with another_process(settings, clock) as other:
        for name in FeedFile:
            here = await client.get(f"/v1/feed/{name.value}.json")
            there = await other.client.get(f"/v1/feed/{name.value}.json")
            assert there.content == here.content
            assert there.headers["ETag"] == here.headers["ETag"]
        clock.advance(60)
        await client.get(STATUS)
        with statements_of(other.database) as sent:
            await other.client.get(STATUS)
            await other.client.get(ALERTS)
        assert len(sent) == 1


async def test_of_two_that_build_at_once_both_send_what_the_first_wrote_down(
    client: httpx.AsyncClient,
    runtime: Runtime,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    station = await a_quiet_station(runtime)
    both = asyncio.Barrier(2)

    async def at_once(*rows: Any, **terms: Any) -> Any:
        await both.wait()
        return await read_live(*rows, **terms)

    monkeypatch.setattr(files, "read_live", at_once)
    ahead = Clock(clock.now() + timedelta(seconds=2))  # So that each would date it otherwise.
    async with another_process(settings, ahead) as other:
        for _ in range(2):  # Over nothing, and over what stands.
            here, there = await asyncio.gather(client.get(STATUS), other.client.get(STATUS))
            assert here.status_code == 200
            assert here.content == there.content
            await lock_down(runtime, station)
            clock.advance(60)
            ahead.advance(60)


async def test_after_a_restart_nothing_has_changed_that_did_not(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    await a_quiet_station(runtime)
    before = {name: await client.get(f"/v1/feed/{name.value}.json") for name in FeedFile}
    clock.advance(61)
    async with another_process(settings, clock) as restarted:
        for name, told in before.items():
            path, held = f"/v1/feed/{name.value}.json", {"If-None-Match": told.headers["ETag"]}
            assert (await restarted.client.get(path, headers=held)).status_code == 304
            assert (await restarted.client.get(path)).content == told.content


async def test_what_cannot_be_written_down_is_sent_all_the_same(
    client: httpx.AsyncClient,
    runtime: Runtime,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    station = await a_quiet_station(runtime)
    assert await is_open(client)
    async with another_process(settings, clock) as other:
        with monkeypatch.context() as broken:
            broken.setattr(editions, "replace", refuses)
            await lock_down(runtime, station)
            clock.advance(60)
            first = await client.get(STATUS)
            assert not await is_open(client)
            clock.advance(60)  # Built again, and compared with what it sent itself.
            assert (await client.get(STATUS)).content == first.content
        clock.advance(60)
        assert (await client.get(STATUS)).content == first.content
        assert (await other.client.get(STATUS)).content == first.content


async def refuses(*_: Any, **__: Any) -> bool:
    raise ConnectionError


async def test_nobody_waits_long_for_a_database_that_is_busy(
    client: httpx.AsyncClient,
    runtime: Runtime,
    settings: Settings,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    station = await a_quiet_station(runtime)
    assert await is_open(client)
    before = await editions.read(runtime.database, Part.LIVE)
    assert before is not None
    await lock_down(runtime, station)
    monkeypatch.setattr(files, "PATIENCE_S", 0.05)
    async with another_process(settings, clock) as other, asyncio.timeout(20):
        with statements_of(runtime.database) as sent:
            async with other.database.write() as tx:
                await tx.execute(sa.update(FeedEdition).values(from_at=FeedEdition.from_at))
                for _ in range(3):
                    clock.advance(60)
                    assert not await is_open(client)
            # The first of the three still waits, and nothing has changed for it.
            stands = before
            while stands.from_at == before.from_at:
                await asyncio.sleep(0.02)
                found = await editions.read(other.database, Part.LIVE)
                assert found is not None
                stands = found
    assert stands.from_at == before.from_at + timedelta(seconds=60)
    assert sum(one.startswith("UPDATE feed_editions") for one in sent) == 1  # Nobody beside it.


async def test_an_edition_of_a_clock_that_was_wrong_is_built_over(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    station = await a_quiet_station(runtime)
    clock.advance(3600)
    assert await is_open(client)
    clock.set(NIGHT)
    await lock_down(runtime, station)
    async with another_process(settings, clock) as other:
        assert not await is_open(other.client)
    assert not await is_open(client)


async def test_a_file_that_an_older_version_did_not_build_is_added(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    await a_quiet_station(runtime)
    status = await client.get(STATUS)
    async with runtime.database.write() as tx:
        await tx.execute(sa.delete(FeedText).where(FeedText.name == FeedFile.SYSTEM_ALERTS))
    async with another_process(settings, clock) as newer:
        assert (await newer.client.get(ALERTS)).status_code == 200
        assert (await newer.client.get(STATUS)).content == status.content
