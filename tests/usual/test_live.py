"""Live figures say "empty" only where whoever came had to be counted; else they say why not."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.places.held import record_all
from app.places.rules import ChangeKind, Kind, Tier
from app.places.stations import Wanted, add_change, amend, amend_change, get_change, retire_change
from app.places.tables import ModeChange, Station
from app.reports.rules.counters import C
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import Clock
from tests.support.worlds import a_controller, a_station, a_worker, always, an_admin
from tests.usual.test_profiles import TODAY, counted, make

pytestmark = pytest.mark.anyio

EARLY = datetime(2026, 8, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
STAFFED = range(8, 18)


def at_local(hour: int, minute: int = 0) -> datetime:
    """Give an instant of the Tuesday after the tests' night."""
    return datetime(2026, 11, 24, hour, minute, tzinfo=UTC) - timedelta(hours=8)


async def free_weeks(tx: AsyncSession, station: Station, scanned: Collection[int]) -> None:
    """Write down four weeks in which every day somebody scanned in these of the free hours."""
    hours = {
        hour: {C.STAFFED_MS: HOUR_MS, C.VISITS_FREE: 2 if hour in scanned else 0}
        for hour in STAFFED
    }
    for number in range(1, 29):
        await counted(tx, station, TODAY - timedelta(days=number), hours)


async def put_inside(runtime: Runtime, station: Station, persons: int, mode: Kind) -> None:
    async with runtime.database.write() as tx:
        for _ in range(persons):
            worker = await a_worker(tx, runtime, at=runtime.now())
            arrival = Arrival(
                station_id=station.id,
                timezone=station.timezone,
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=None,
                mode=mode,
                party_size=1,
                max_stay=timedelta(hours=1),
            )
            await presence.open_visit(tx, arrival, started_at=runtime.now())


async def hear(runtime: Runtime, controller: uuid.UUID) -> None:
    """Let a controller ask, and write that down as the process does every few seconds."""
    runtime.controllers.heard(controller, runtime.now())
    await runtime.controllers.write_heard(at=runtime.now())


async def at_times(runtime: Runtime, clock: Clock, controller: uuid.UUID, at: datetime) -> None:
    """Go on to an instant at which the controller has long been heard again."""
    for before in (150, 75, 0):
        clock.set(at - timedelta(seconds=before))
        await hear(runtime, controller)


async def public(client: httpx.AsyncClient, station: Station) -> tuple[str | None, str | None]:
    """Give the level that the public sees and why there is none: a list says what the page says."""
    one = (await client.get(f"/v1/stations/{station.code}")).json()["occupancy"]
    (line,) = (await client.get("/v1/stations", params={"q": station.code})).json()
    assert line["occupancy"] == one
    near = {"near": f"{station.latitude},{station.longitude}", "q": station.code}
    (line,) = (await client.get("/v1/stations", params=near)).json()
    assert line["occupancy"] == one
    return one["level"], one["unknown_because"]


async def in_feed(client: httpx.AsyncClient, station: Station) -> tuple[str | None, str | None]:
    """Give what the feed says of it."""
    found = (await client.get("/v1/feed/station_status.json")).json()["data"]["stations"]
    (one,) = [each for each in found if each["station_id"] == station.code]
    return one["level"], one["level_unknown_because"]


async def staff(client: httpx.AsyncClient, runtime: Runtime, station: Station) -> dict[str, Any]:
    """Give what an administrator sees; the list says what the page says."""
    async with runtime.database.write() as tx:  # An idle session ends before these stories.
        admin = await an_admin(tx, at=runtime.now())
    path = f"/v1/admin/stations/{station.id}/occupancy"
    one: dict[str, Any] = (await client.get(path, headers=admin.headers)).json()
    listed = (await client.get("/v1/admin/occupancy", headers=admin.headers)).json()
    (line,) = [each for each in listed if each["code"] == station.code]
    assert one.items() <= line.items()
    return one


def busy(found: dict[str, Any]) -> tuple[Any, Any, Any]:
    return found["level"], found["busy_vs_capacity"], found["busy_vs_usual"]


async def test_at_night_a_silent_controller_makes_nobody_empty(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY, capacity=10)
        await free_weeks(tx, station, STAFFED)
        controller, _ = await a_controller(tx, station, at=runtime.now())
    await make(runtime)
    await put_inside(runtime, station, 3, Kind.SCAN)
    assert await public(client, station) == await in_feed(client, station) == ("较少", None)
    found = await staff(client, runtime, station)
    assert (found["inside"], busy(found)) == (3, ("较少", 0.3, 3.0))
    assert (found["is_known"], found["unknown_because"]) == (True, None)

    clock.advance(100)  # Longer than silence, and than a process listens before it doubts.
    silent = (None, "controller_silent")
    assert await public(client, station) == await in_feed(client, station) == silent
    found = await staff(client, runtime, station)
    assert (found["inside"], busy(found)) == (3, (None, None, None))
    assert (found["is_known"], found["unknown_because"]) == (False, "controller_silent")

    # Back, it has not told yet who came in meanwhile by passes.
    clock.advance(61)
    for _ in range(2):
        await hear(runtime, controller)
        assert await public(client, station) == await in_feed(client, station) == silent
        clock.advance(61)
    await hear(runtime, controller)
    assert await public(client, station) == await in_feed(client, station) == ("较少", None)


async def test_at_night_nobody_tells_of_a_station_without_a_controller(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY)
    nobody = (None, "no_controller")
    assert await public(client, station) == await in_feed(client, station) == nobody
    assert not (await staff(client, runtime, station))["is_known"]


@pytest.mark.parametrize(
    ("scanned", "found"),
    [
        (range(8, 13), ("较少", None)),  # In half of the free hours.
        (range(8, 12), (None, "hardly_counted")),
        ((), (None, "hardly_counted")),
    ],
)
async def test_in_free_hours_a_level_is_told_where_people_scan(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    scanned: Collection[int],
    found: tuple[str | None, str | None],
) -> None:
    async with runtime.database.write() as tx:
        # Not smart: no door that opens by scan, and no controller.
        station = await a_station(tx, at=EARLY, capacity=10, access_hours=None)
        await free_weeks(tx, station, scanned)
    await make(runtime)
    clock.set(at_local(15))
    await put_inside(runtime, station, 3, Kind.FREE)
    assert await public(client, station) == await in_feed(client, station) == found
    seen = await staff(client, runtime, station)
    assert (seen["inside"], seen["level"], seen["unknown_because"]) == (3, *found)
    assert (seen["busy_vs_usual"] is None) == (found[1] is not None)


async def test_a_new_station_with_an_open_door_is_not_empty(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now(), access_hours=None)
    await make(runtime)
    clock.set(at_local(15))
    unknown = (None, "not_counted_yet")
    assert await public(client, station) == await in_feed(client, station) == unknown
    clock.set(at_local(18, 1))
    closed = (None, "closed")
    assert await public(client, station) == await in_feed(client, station) == closed


async def test_who_came_in_uncounted_may_stay_as_long_as_anybody_after_the_door_is_locked(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY, max_stay_min=60)
        await free_weeks(tx, station, ())
        controller, _ = await a_controller(tx, station, at=runtime.now())
    await make(runtime)
    for minute, found in ((59, (None, "hardly_counted")), (60, ("空闲", None))):
        await at_times(runtime, clock, controller, at_local(18) + timedelta(minutes=minute))
        assert await public(client, station) == await in_feed(client, station) == found


async def test_who_came_in_through_a_door_held_open_may_still_be_there(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY, max_stay_min=60)
        controller, _ = await a_controller(tx, station, at=runtime.now())
        wanted = Wanted(ChangeKind.HELD_OPEN, at_local(1), at_local(2), "通风")
        await add_change(
            tx,
            runtime.wakeups,
            station,
            Tier.OVERRIDE,
            wanted,
            actor=COMMAND_LINE,
            at=runtime.now(),
        )
    for at, found in (
        (at_local(0, 59), ("空闲", None)),
        (at_local(1, 30), (None, "not_counted_yet")),
        (at_local(2, 59), (None, "not_counted_yet")),
        (at_local(3, 1), ("空闲", None)),
    ):
        await at_times(runtime, clock, controller, at)
        assert await public(client, station) == await in_feed(client, station) == found, at


async def an_override(runtime: Runtime, station: Station, until: datetime) -> ModeChange:
    """Let staff throw the doors open from now on."""
    async with runtime.database.write() as tx:
        wanted = Wanted(ChangeKind.HELD_OPEN, runtime.now(), until, "义诊")
        return await add_change(
            tx,
            runtime.wakeups,
            await tx.get_one(Station, station.id),
            Tier.OVERRIDE,
            wanted,
            actor=COMMAND_LINE,
            at=runtime.now(),
        )


@pytest.mark.parametrize("undone", ["withdrawn", "moved"])
async def test_who_walked_in_under_an_override_that_is_undone_may_still_be_there(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, undone: str
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY, max_stay_min=60)
        controller, _ = await a_controller(tx, station, at=runtime.now())
    await at_times(runtime, clock, controller, at_local(0, 30))
    change = await an_override(runtime, station, at_local(4))
    await at_times(runtime, clock, controller, at_local(2, 30))
    unknown = (None, "not_counted_yet")
    assert await public(client, station) == await in_feed(client, station) == unknown

    async with runtime.database.write() as tx:
        site = await tx.get_one(Station, station.id)
        row = await get_change(tx, site, Tier.OVERRIDE, change.id)
        if undone == "withdrawn":
            await retire_change(
                tx, runtime.wakeups, site, row, actor=COMMAND_LINE, at=runtime.now()
            )
        else:
            later = Wanted(ChangeKind.HELD_OPEN, at_local(22), at_local(23), "")
            await amend_change(
                tx, runtime.wakeups, site, row, later, actor=COMMAND_LINE, at=runtime.now()
            )
    for at, found in (
        (at_local(2, 40), unknown),
        (at_local(3, 29), unknown),
        (at_local(3, 31), ("空闲", None)),
    ):
        await at_times(runtime, clock, controller, at)
        assert await public(client, station) == await in_feed(client, station) == found, at
        assert (await staff(client, runtime, station))["unknown_because"] == found[1]


async def test_who_walked_in_in_hours_that_are_staffed_no_more_may_still_be_there(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=EARLY, max_stay_min=60)
        await free_weeks(tx, station, ())
        controller, _ = await a_controller(tx, station, at=runtime.now())
    await make(runtime)
    await at_times(runtime, clock, controller, at_local(15))
    async with runtime.database.write() as tx:
        site = await tx.get_one(Station, station.id)
        await amend(
            tx,
            runtime.wakeups,
            site,
            changes={"staffed_hours": None},
            actor=COMMAND_LINE,
            at=runtime.now(),
        )
    await record_all(
        runtime.database, now=always(at_local(15, 30))
    )  # The record goes on with the new.
    for at, found in (
        (at_local(15, 59), (None, "hardly_counted")),
        (at_local(16, 1), ("空闲", None)),
    ):
        await at_times(runtime, clock, controller, at)
        assert await public(client, station) == await in_feed(client, station) == found, at
