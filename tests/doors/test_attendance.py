"""Staffed hours have begun and nobody came: the station turns to scanning until somebody does."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.audit import COMMAND_LINE
from app.db.types import new_id
from app.doors import attendance
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import Controller, ControllerOutage, JournalEntry
from app.places import stations
from app.places.rules import Because, ChangeKind, Kind, Mode, Tier, mode_at
from app.places.standing import list_changes, station_rules
from app.places.stations import Wanted
from app.places.tables import ModeChange, Station, Unit
from app.runtime import Runtime
from app.visits import presence
from tests.conftest import NIGHT, Clock
from tests.support.worlds import OFFICE_HOURS, Scene, SomeAdmin, a_scene, an_admin

pytestmark = pytest.mark.anyio

EIGHT = NIGHT + timedelta(hours=8, minutes=20)
"""When staff should be there the next morning."""


SILENCE = timedelta(seconds=75)


async def watches(runtime: Runtime, *, hears: bool = True) -> None:
    """Run what the job runs, where every controller `hears` us, or none does."""
    calendar = runtime.calendar.current
    if hears:
        async with runtime.database.write() as tx:
            await tx.execute(sa.update(Controller).values(seen_at=runtime.now()))
    await attendance.watch(
        runtime.database, runtime.wakeups, calendar, silence=SILENCE, now=runtime.now
    )


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


@pytest.mark.parametrize("change", ["hours", "closing"])
async def test_staff_of_hours_that_are_new_have_as_long_to_come_as_of_any(
    runtime: Runtime, clock: Clock, change: str
) -> None:
    """At noon the morning is theirs too, or a closing until the evening is withdrawn."""
    afternoon: dict[str, Any] = {
        "regular": [{"weekday": day, "opens": "14:00", "closes": "22:00"} for day in range(1, 8)],
        "public_holiday": None,
        "makeup_workday": None,
    }
    hours = afternoon if change == "hours" else OFFICE_HOURS
    scene = await a_scene(runtime, staff_absent_min=30, staffed_hours=hours)
    terms: dict[str, Any] = {"actor": COMMAND_LINE, "at": runtime.now()}
    async with runtime.database.write() as tx:
        station = await stations.get_station(tx, scene.station.id)
        if change == "closing":
            closed = Wanted(ChangeKind.CLOSED, runtime.now(), EIGHT + timedelta(hours=10), "")
            closing = await stations.add_change(
                tx, runtime.wakeups, station, Tier.OVERRIDE, closed, **terms
            )
    noon = EIGHT + timedelta(hours=4)
    clock.set(noon)
    terms |= {"at": noon}
    async with runtime.database.write() as tx:
        station = await stations.get_station(tx, scene.station.id)
        if change == "hours":
            new = {"staffed_hours": OFFICE_HOURS}
            await stations.amend(tx, runtime.wakeups, station, changes=new, **terms)
        else:
            row = await stations.get_change(tx, station, Tier.OVERRIDE, closing.id)
            await stations.retire_change(tx, runtime.wakeups, station, row, **terms)
    for minutes, kind in ((0, Kind.FREE), (29, Kind.FREE), (30, Kind.SCAN), (45, Kind.SCAN)):
        clock.set(noon + timedelta(minutes=minutes))
        await watches(runtime)
        assert (await mode_of(runtime, scene)).kind is kind, minutes
    (alert,) = await alerts(runtime)
    assert alert.detail["since"] == noon.isoformat()


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


@pytest.mark.parametrize("sign", ["word", "early word", "contact", "left open", "walk-in", "heads"])
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
        case "heads":
            await counts_heads(client, runtime, scene)
    clock.set(EIGHT + timedelta(hours=1))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE
    # The next morning they are awaited anew.
    clock.set(EIGHT + timedelta(days=1, minutes=30))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


async def counts_heads(client: httpx.AsyncClient, runtime: Runtime, scene: Scene) -> str:
    """Write down whom staff counted in the last minutes; gives where that stands."""
    keeper = await a_keeper(runtime)
    path = f"/v1/admin/stations/{scene.station.id}/walk-ins"
    begin, end = (runtime.now() - timedelta(minutes=ago) for ago in (5, 0))
    body = {"count": 3, "from": begin.isoformat(), "until": end.isoformat()}
    made = await client.post(path, json=body, headers=keeper.headers)
    assert made.status_code == 201, made.text
    return f"{path}/{made.json()['id']}"


@pytest.mark.parametrize("was_taken_for_one", [False, True])
async def test_a_count_that_was_withdrawn_is_no_sign_of_staff(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, was_taken_for_one: bool
) -> None:
    """Heads were counted, but at another station, as it turned out."""
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=10))
    counted = await counts_heads(client, runtime, scene)
    if was_taken_for_one:
        clock.set(EIGHT + timedelta(minutes=30))
        await watches(runtime)
        assert (await mode_of(runtime, scene)).kind is Kind.FREE
    keeper = await a_keeper(runtime)
    assert (await client.delete(counted, headers=keeper.headers)).status_code == 204
    clock.set(EIGHT + timedelta(minutes=30))
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
    at: datetime | None = None,
    error_ms: int | None = 500,
    **said: Any,
) -> None:
    """Let the door's contact say that it opened, or as `type` says; just now, or at `at`."""
    at = at or runtime.now()
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
                error_ms=error_ms,
                quality=next(iter(Quality)),
                late=False,
                received_at=runtime.now(),
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


async def test_silence_is_not_taken_for_absent_staff(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime, hears=False)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE
    assert not await alerts(runtime)
    assert (await scans(client, scene, "a"))["outcome"] == "walk_in"


@pytest.mark.parametrize("there", ["none", "frozen", "retired"])
async def test_a_door_that_opens_to_no_scan_stays_free(
    runtime: Runtime, clock: Clock, there: str
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    async with runtime.database.write() as tx:
        one = sa.update(Controller).where(Controller.id == scene.controller_id)
        match there:
            case "none":
                await tx.execute(sa.delete(Controller))
            case "frozen":
                await tx.execute(one.values(frozen_at=runtime.now()))
            case "retired":
                await tx.execute(one.values(retired_at=runtime.now()))
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE


async def test_a_controller_that_is_back_has_the_time_to_tell_what_it_kept(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=60))
    async with runtime.database.write() as tx:
        tx.add(
            ControllerOutage(
                controller_id=scene.controller_id,
                station_id=scene.station.id,
                from_at=NIGHT,
                until_at=runtime.now(),
                changed_at=runtime.now(),
            )
        )
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE
    clock.advance(SILENCE.total_seconds())
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


@pytest.mark.parametrize("sign", ["contact", "left open", "walk-in"])
async def test_a_sign_of_the_time_before_turns_the_station_back_however_late_it_is_told(
    runtime: Runtime, clock: Clock, sign: str
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    turned_at = EIGHT + timedelta(minutes=30)
    clock.set(turned_at)
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT

    clock.advance(2 * 3600)
    match sign:
        case "contact":
            await an_opening(runtime, scene, at=EIGHT + timedelta(minutes=2))
        case "left open":
            await an_opening(runtime, scene, at=EIGHT - timedelta(minutes=40))
        case "walk-in":
            await a_walk_in(runtime, scene, at=EIGHT + timedelta(minutes=2))
    # It is not asked whether the controller is heard: it has spoken.
    await watches(runtime, hears=False)
    mode = await mode_of(runtime, scene)
    assert (mode.kind, mode.because) == (Kind.FREE, Because.WEEKLY)
    assert not await alerts(runtime)
    # What held meanwhile is not rewritten, and nothing turns it again.
    assert (await mode_of(runtime, scene, turned_at)).because is Because.STAFF_ABSENT
    clock.set(EIGHT + timedelta(hours=5))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).kind is Kind.FREE


@pytest.mark.parametrize("because", ["after it", "perhaps after it", "of unknown time"])
async def test_what_may_have_been_a_worker_does_not_turn_a_station_back(
    runtime: Runtime, clock: Clock, because: str
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    turned_at = EIGHT + timedelta(minutes=30)
    clock.set(turned_at)
    await watches(runtime)
    clock.advance(1800)
    match because:
        case "after it":
            await an_opening(runtime, scene, at=turned_at + timedelta(minutes=5))
            await a_walk_in(runtime, scene, at=turned_at + timedelta(minutes=5))
        case "perhaps after it":
            before = turned_at - timedelta(seconds=3)
            await an_opening(runtime, scene, at=before, error_ms=4000)
        case "of unknown time":
            before = turned_at - timedelta(minutes=5)
            await an_opening(runtime, scene, at=before, error_ms=None)
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT
    assert len(await alerts(runtime)) == 1
    async with runtime.database.read() as tx:
        assert (await tx.get_one(Station, scene.station.id)).staff_seen_at is None


async def test_an_opening_of_unknown_time_is_no_sign_of_staff(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staff_absent_min=30)
    clock.set(EIGHT + timedelta(minutes=10))
    await an_opening(runtime, scene, error_ms=None)
    clock.set(EIGHT + timedelta(minutes=31))
    await watches(runtime)
    assert (await mode_of(runtime, scene)).because is Because.STAFF_ABSENT


async def a_walk_in(runtime: Runtime, scene: Scene, *, at: datetime) -> None:
    """Let somebody have come in through the free door."""
    arrival = presence.Arrival(
        station_id=scene.station.id,
        timezone=scene.station.timezone,
        owner_key=scene.worker.owner_key,
        worker_id=scene.worker.id,
        occupation=None,
        mode=Kind.FREE,
        party_size=1,
        max_stay=timedelta(minutes=60),
    )
    async with runtime.database.write() as tx:
        await presence.open_visit(tx, arrival, started_at=at, at=runtime.now())
