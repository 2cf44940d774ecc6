"""Staffed hours have begun and nobody came: the station turns to scanning until somebody does."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.db.types import new_id
from app.doors import attendance
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import JournalEntry
from app.places.rules import Because, Kind, Mode, Tier, mode_at
from app.places.standing import list_changes, station_rules
from app.places.tables import ModeChange, Station, Unit
from app.runtime import Runtime
from tests.conftest import NIGHT, Clock
from tests.support.worlds import Scene, SomeAdmin, a_scene, an_admin

pytestmark = pytest.mark.anyio

EIGHT = NIGHT + timedelta(hours=8, minutes=20)
"""When staff should be there the next morning."""


async def watches(runtime: Runtime) -> None:
    """Run what the job runs."""
    calendar = runtime.calendar.current
    await attendance.watch(runtime.database, runtime.wakeups, calendar, now=runtime.now)


async def mode_of(runtime: Runtime, scene: Scene, at: datetime | None = None) -> Mode:
    at = at or runtime.now()
    async with runtime.database.read() as tx:
        station = await tx.get_one(Station, scene.station.id)
        changes = await list_changes(tx, [station.id], at=at)
        rules = station_rules(station, changes.get(station.id, ()))
        return mode_at(rules, runtime.calendar.current, at)


async def alerts(runtime: Runtime, *, open_only: bool = True) -> list[Alert]:
    async with runtime.database.read() as tx:
        query = sa.select(Alert).where(Alert.kind == AlertKind.STAFF_ABSENT)
        if open_only:
            query = query.where(Alert.closed_at.is_(None))
        return list(await tx.scalars(query))


async def a_keeper(runtime: Runtime) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now())


async def scans(client: httpx.AsyncClient, scene: Scene, key: str) -> dict[str, Any]:
    headers = scene.worker.headers | {"Idempotency-Key": key}
    answer = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def polls(client: httpx.AsyncClient, scene: Scene) -> httpx.Response:
    return await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )


async def test_nobody_came_so_a_worker_still_gets_in(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=29))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE
    assert not await alerts(runtime)

    clock.set(EIGHT + timedelta(minutes=30))
    config = "/v1/controller/config"
    before = (await client.get(config, headers=scene.controller_headers)).json()
    await watches(runtime)
    await watches(runtime)
    mode = await mode_of(runtime, scene)
    assert (mode.kind, mode.because) == (Kind.SCAN, Because.STAFF_ABSENT)
    (alert,) = await alerts(runtime)
    assert (alert.station_id, alert.count) == (scene.station.id, 1)
    after = (await client.get(config, headers=scene.controller_headers)).json()
    assert after["version"] > before["version"]
    assert "staff_absent" in str(after)

    # In the locked station's door the code opens, as at night.
    await polls(client, scene)
    assert (await scans(client, scene, "a"))["outcome"] == "granted"

    clock.advance(600)
    keeper = await a_keeper(runtime)
    path = f"/v1/admin/stations/{scene.station.id}/staff-present"
    said = await client.post(path, headers=keeper.headers)
    assert (said.status_code, said.json()["was_absent"]) == (200, True)
    mode = await mode_of(runtime, scene)
    assert (mode.kind, mode.because) == (Kind.FREE, Because.WEEKLY)
    # What held before is not rewritten.
    was = await mode_of(runtime, scene, EIGHT + timedelta(minutes=30))
    assert was.because is Because.STAFF_ABSENT
    assert not await alerts(runtime)
    again = await client.post(path, headers=keeper.headers)
    assert again.json()["was_absent"] is False

    clock.set(EIGHT + timedelta(hours=5))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE


async def test_off_by_default(runtime: Runtime, clock: Clock) -> None:
    scene = await a_scene(runtime)
    clock.set(EIGHT + timedelta(hours=5))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE


@pytest.mark.parametrize("own", [None, 0, 90])
async def test_a_station_follows_its_branch_unless_it_says_otherwise(
    runtime: Runtime, clock: Clock, own: int | None
) -> None:
    scene = await a_scene(runtime, staff_absent_min=own)
    async with runtime.database.write() as tx:
        unit = await tx.get_one(Unit, scene.station.unit_id)
        unit.staff_absent_min = 30
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime)
    expected = Kind.SCAN if own is None else Kind.FREE
    assert (await mode_of(runtime, scene)).kind is expected
    clock.set(EIGHT + timedelta(minutes=91))
    await watches(runtime)
    expected = Kind.FREE if own == 0 else Kind.SCAN
    assert (await mode_of(runtime, scene)).kind is expected


@pytest.mark.parametrize("sign", ["word", "early word", "contact", "left open", "walk-in"])
async def test_any_sign_of_staff_keeps_the_door_open(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, sign: str
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    is_early = sign in ("early word", "left open")
    clock.set(EIGHT + timedelta(minutes=-50 if is_early else 10))
    match sign:
        case "word" | "early word":
            keeper = await a_keeper(runtime)
            path = f"/v1/admin/stations/{scene.station.id}/staff-present"
            assert (await client.post(path, headers=keeper.headers)).status_code == 200
        case "walk-in":
            assert (await scans(client, scene, "a"))["outcome"] == "walk_in"
        case "contact" | "left open":
            await an_opening(runtime, scene)
    clock.set(EIGHT + timedelta(hours=1))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE
    # The next morning they are awaited anew.
    clock.set(EIGHT + timedelta(days=1, minutes=30))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


async def test_a_door_that_a_box_found_open_is_no_sign_of_staff(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=10))
    await an_opening(runtime, scene, at_start=True)
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


@pytest.mark.parametrize("because", ["shut again", "too early", "found open"])
async def test_a_door_that_opened_before_the_hours_is_no_sign_unless_it_was_left_open(
    runtime: Runtime, clock: Clock, because: str
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT - timedelta(minutes=61 if because == "too early" else 50))
    said = {"at_start": True} if because == "found open" else {}
    await an_opening(runtime, scene, **said)
    if because == "shut again":
        clock.advance(20)
        await an_opening(runtime, scene, seq=2, type=EventType.DOOR_CLOSED)
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


async def an_opening(
    runtime: Runtime,
    scene: Scene,
    *,
    seq: int = 1,
    type: EventType = EventType.DOOR_OPENED,
    **said: Any,
) -> None:
    """Let the door's contact say that it opened, or as `type` says."""
    at = runtime.now()
    async with runtime.database.write() as tx:
        tx.add(
            JournalEntry(
                id=new_id(),
                controller_id=scene.controller_id,
                epoch=1,
                seq=seq,
                event_id=f"e{seq}",
                boot_id="b",
                type=type,
                door_id=scene.door.id,
                occurred_at=at,
                corrected_at=at,
                quality=next(iter(Quality)),
                late=False,
                received_at=at,
                content_hash=b"",
                body=said,
                applied_at=at,
            )
        )


async def test_it_ends_with_the_hours_and_its_alert_too(runtime: Runtime, clock: Clock) -> None:
    scene = await a_scene(runtime, staff_absent_min=30, access_hours=None)
    clock.set(EIGHT + timedelta(minutes=30))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.SCAN
    clock.set(EIGHT + timedelta(hours=10))
    assert (await mode_of(runtime, scene)).kind is Kind.CLOSED
    await watches(runtime)
    assert not await alerts(runtime)
    assert len(await alerts(runtime, open_only=False)) == 1


async def test_who_holds_the_door_open_on_purpose_is_not_overruled(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=5))
    keeper = await a_keeper(runtime)
    at = runtime.now()
    body = {
        "kind": "held_open",
        "from": at.isoformat(),
        "until": (at + timedelta(hours=2)).isoformat(),
    }
    path = f"/v1/admin/stations/{scene.station.id}/overrides"
    assert (await client.post(path, json=body, headers=keeper.headers)).status_code == 201
    clock.set(EIGHT + timedelta(minutes=60))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.OVERRIDE
    async with runtime.database.read() as tx:
        query = sa.select(ModeChange).where(ModeChange.tier == Tier.STAFF_ABSENT)
        assert not (await tx.scalars(query)).all()
