"""The public feed: all stations in one file, from memory, never a head count."""

import asyncio
import gzip
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app import jobs
from app.audit import COMMAND_LINE
from app.doors.tables import Controller
from app.feed import files
from app.feed.rules import FeedFile
from app.places import districts
from app.places.rules import ChangeKind, Kind, Tier
from app.places.stations import Wanted, add_change
from app.places.tables import FacilityStatus, Station
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import Clock
from tests.support.statements import statements_of
from tests.support.worlds import a_controller, a_facility, a_scene, a_station, a_unit, a_worker

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)

NOBODY_MAY_SEE = {
    "inside",
    "reserved",
    "persons",
    "people",
    "visits",
    "visitors",
    "workers",
    "unique_workers",
    "count",
    "heads",
    "party_size",
    "capacity",
    "occupancy",
    "medians",
    "busy_vs_usual",
    "busy_vs_capacity",
    "days",
    "note",
}
"""Names under which a number of persons, or what only staff should read, could leak."""

PLACES_OF_NUMBERS = {"lat", "lon", "latitude", "longitude", "ttl", "weekday", "k", "like_days"}
PLACES_OF_NUMBERS |= {"quantity", "distance_m", "walking_minutes"}
"""The only names under which the public sees numbers; none of them is of persons."""


async def file(client: httpx.AsyncClient, name: FeedFile) -> Any:
    answer = await client.get(f"/v1/feed/{name.value}.json")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found.keys() == {"last_updated", "ttl", "version", "data"}
    assert 0 <= max_age(answer) <= found["ttl"]
    return found


def max_age(answer: httpx.Response) -> int:
    kind, _, seconds = answer.headers["Cache-Control"].partition(", max-age=")
    assert kind == "public"
    return int(seconds)


async def status(client: httpx.AsyncClient) -> dict[str, Any]:
    found = await file(client, FeedFile.STATION_STATUS)
    return {one["station_id"]: one for one in found["data"]["stations"]}


async def alerts(client: httpx.AsyncClient) -> Any:
    return (await file(client, FeedFile.SYSTEM_ALERTS))["data"]["alerts"]


async def change(
    runtime: Runtime, station: Station, tier: Tier, kind: ChangeKind, begins: int, ends: int
) -> None:
    """Change the mode from so many hours on, until so many."""
    at = runtime.now()
    wanted = Wanted(kind, at + begins * HOUR, at + ends * HOUR, "内部备注")
    async with runtime.database.write() as tx:
        await add_change(tx, runtime.wakeups, station, tier, wanted, actor=COMMAND_LINE, at=at)


async def put_inside(runtime: Runtime, station: Station, persons: int) -> None:
    async with runtime.database.write() as tx:
        for _ in range(persons):
            worker = await a_worker(tx, runtime, at=runtime.now())
            arrival = Arrival(
                station_id=station.id,
                timezone=station.timezone,
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=None,
                mode=Kind.SCAN,
                party_size=1,
                max_stay=HOUR,
            )
            await presence.open_visit(tx, arrival, started_at=runtime.now())


async def test_the_discovery_file_leads_to_every_other(client: httpx.AsyncClient) -> None:
    found = await file(client, FeedFile.GBFS)
    assert found["version"] == "3.0"
    feeds = {one["name"]: one["url"] for one in found["data"]["feeds"]}
    assert feeds.keys() == {name.value for name in FeedFile} - {"gbfs"}
    for url in feeds.values():
        answer = await client.get(url)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert (await client.get("/v1/feed/vehicle_status.json")).status_code == 422


async def test_stations_in_use_stand_in_the_feed_with_what_holds_there(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        await districts.load(tx, districts.shipped())
        unit = await a_unit(tx, at=at)
        night = await a_station(tx, unit=unit, at=at, code="NIGHT", district="500103", capacity=10)
        day = await a_station(tx, unit=unit, at=at, code="DAY", access_hours=None)
        await a_station(tx, unit=unit, at=at, code="GONE", retired_at=at)
        await a_facility(tx, night, at=at, status=FacilityStatus.OUT_OF_ORDER)
        await a_controller(tx, night, at=at)
        silent, _ = await a_controller(tx, day, at=at)
        row = await tx.get_one(Controller, silent)
        row.seen_at = at - HOUR
    await put_inside(runtime, night, 5)
    clock.advance(100)  # The process has listened for long enough to doubt.
    async with runtime.database.write() as tx:
        await a_station(tx, unit=unit, at=runtime.now(), code="BARE")
        heard = await tx.get_one(Controller, await controller_of(runtime, night))
        heard.seen_at = runtime.now()
    found = await status(client)
    assert list(found) == ["BARE", "DAY", "NIGHT"]
    assert found["NIGHT"] == {
        "station_id": "NIGHT",
        "is_installed": True,
        "is_open": True,
        "is_reporting": True,
        "level": "较少",
        "level_unknown_because": None,
        "mode": {
            "kind": "scan",
            "because": "weekly",
            "until": "2026-11-24T00:00:00Z",
            "calendar_known": False,
        },
        "facilities": [{"kind": "microwave", "name": "微波炉", "status": "out_of_order"}],
    }
    assert (found["DAY"]["is_open"], found["DAY"]["mode"]["kind"]) == (False, "closed")
    assert found["DAY"]["is_reporting"] is False
    assert found["BARE"]["is_reporting"] is None
    why = {code: (one["level"], one["level_unknown_because"]) for code, one in found.items()}
    assert (why["DAY"], why["BARE"]) == ((None, "closed"), (None, "no_controller"))
    listed = (await file(client, FeedFile.STATION_INFORMATION))["data"]["stations"]
    assert [one["station_id"] for one in listed] == ["BARE", "DAY", "NIGHT"]
    assert listed[2]["region_id"] == "500103"
    assert listed[2]["name"] == [{"text": "解放碑驿站", "language": "zh"}]


async def controller_of(runtime: Runtime, station: Station) -> Any:
    async with runtime.database.read() as tx:
        return await tx.scalar(sa.select(Controller.id).where(Controller.station_id == station.id))


async def test_regions_say_from_when_to_when_they_are_and_what_came_after(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        await districts.load(tx, districts.shipped())
    regions = (await file(client, FeedFile.SYSTEM_REGIONS))["data"]["regions"]
    known = {one["region_id"] for one in regions}
    ended = [one for one in regions if one["valid_to"]]
    assert ended
    for one in ended:
        assert one["successors"]
        assert set(one["successors"]) <= known


async def test_closings_of_today_and_the_next_week_are_announced_without_staffs_notes(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = {}
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=runtime.now())
        for code in ("DATED", "LOCKED", "EVACUATED", "LATER", "LIFTED", "OPEN"):
            made[code] = await a_station(tx, unit=unit, at=runtime.now(), code=code)
    await change(runtime, made["DATED"], Tier.EXCEPTION, ChangeKind.CLOSED, 48, 72)
    await change(runtime, made["LOCKED"], Tier.OVERRIDE, ChangeKind.LOCKDOWN, 0, 5)
    await change(runtime, made["EVACUATED"], Tier.OVERRIDE, ChangeKind.EVACUATION, 0, 1)
    await change(runtime, made["LATER"], Tier.EXCEPTION, ChangeKind.CLOSED, 24 * 8, 24 * 9)
    await change(runtime, made["LIFTED"], Tier.EXCEPTION, ChangeKind.CLOSED, 0, 5)
    await change(runtime, made["LIFTED"], Tier.OVERRIDE, ChangeKind.HELD_OPEN, 0, 5)
    await change(runtime, made["OPEN"], Tier.OVERRIDE, ChangeKind.STAFF_ONLY, 0, 5)
    found = {one["station_ids"][0]: one for one in await alerts(client)}
    assert found.keys() == {"DATED", "LOCKED", "EVACUATED"}
    assert found["DATED"]["times"] == [
        {"start": "2026-11-25T15:40:00Z", "end": "2026-11-26T15:40:00Z"}
    ]
    assert found["LOCKED"]["type"] == "station_closure"
    words = {one["language"]: one["text"] for one in found["EVACUATED"]["summary"]}
    assert words["zh"] == "驿站正在疏散，请不要进入。"
    assert "evacuated" in words["en"]
    assert "内部备注" not in json.dumps(found, ensure_ascii=False)


async def test_who_holds_what_did_not_change_is_told_just_that(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    path = "/v1/feed/station_status.json"
    first = await client.get(path)
    held = {"If-None-Match": first.headers["ETag"]}
    same = await client.get(path, headers=held)
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == first.headers["ETag"]
    clock.advance(60)  # Built again, and it says the same.
    assert (await client.get(path, headers=held)).status_code == 304
    assert (await client.get(path)).json()["last_updated"] == first.json()["last_updated"]
    await change(runtime, scene.station, Tier.OVERRIDE, ChangeKind.LOCKDOWN, 0, 1)
    assert (await client.get(path, headers=held)).status_code == 304  # Not within the ttl.
    clock.advance(60)
    changed = await client.get(path, headers=held)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]
    assert changed.json()["last_updated"] > first.json()["last_updated"]


async def test_a_cache_keeps_a_file_until_the_next_is_built_and_no_longer(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    status, regions = "/v1/feed/station_status.json", "/v1/feed/system_regions.json"
    held = {"If-None-Match": (await client.get(status)).headers["ETag"]}
    told = []
    for seconds in (0, 10, 49, 0.5, 0.5):
        clock.advance(seconds)
        same = await client.get(status, headers=held)
        assert same.status_code == 304
        found = await client.get(status), same, await client.get(regions)
        told.append(tuple(map(max_age, found)))
    assert told == [(60, 60, 300), (50, 50, 290), (1, 1, 241), (0, 0, 240), (60, 60, 240)]


async def test_the_file_is_sent_compressed_to_whoever_takes_it_so(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await a_scene(runtime)
    path = "/v1/feed/station_status.json"
    plain = await client.get(path, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    async with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as zipped:
        raw = b"".join([part async for part in zipped.aiter_raw()])
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert zipped.headers["ETag"] == plain.headers["ETag"]


async def test_fifty_who_ask_at_once_cost_what_one_costs_and_the_next_cost_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    await a_scene(runtime)
    path = "/v1/feed/station_status.json"
    await client.get("/v1/stations")  # A connection's first statements are its own.
    with statements_of(runtime.database) as alone:
        await client.get(path)
    # A look at what stands, the five of a build, and two that write it down.
    assert len(alone) == 1 + 5 + 2
    with statements_of(runtime.database) as again:
        await client.get(path)
        await client.get("/v1/feed/system_alerts.json")  # Built at the same time.
    assert again == []
    clock.advance(60)
    with statements_of(runtime.database) as together:
        answers = await asyncio.gather(*(client.get(path) for _ in range(50)))
    # Nothing changed, so no text is written again.
    assert len(together) == len(alone) - 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


async def test_a_build_that_failed_is_tried_again_by_the_next(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(files, "read_live", fails)
        with pytest.raises(ConnectionError):
            await runtime.feed.file(FeedFile.STATION_STATUS)
    assert (await client.get("/v1/feed/station_status.json")).status_code == 200


async def fails(*_: Any, **__: Any) -> None:
    raise ConnectionError


def names_and_numbers(value: Any, name: str = "") -> Any:
    """Walk through an answer: every name in it, and the names under which numbers stand."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield inner, None
            yield from names_and_numbers(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from names_and_numbers(each, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


async def test_no_public_answer_tells_a_number_of_persons(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime, capacity=77)
    async with runtime.database.write() as tx:
        await districts.load(tx, districts.shipped())
        await a_facility(tx, scene.station, at=runtime.now())
    await put_inside(runtime, scene.station, 43)
    await jobs.run_once(runtime, jobs.find("usual-profiles"))
    paths = ["/v1/stations", f"/v1/stations/{scene.station.code}"]
    paths += [f"/v1/stations/{scene.station.code}/usual"]
    paths += [f"/v1/feed/{name.value}.json" for name in FeedFile]
    for path in paths:
        body = (await client.get(path)).json()
        found = list(names_and_numbers(body))
        allowed = NOBODY_MAY_SEE - ({"occupancy"} if path.startswith("/v1/stations") else set())
        assert not {name for name, _ in found} & allowed, path
        numbers = {name for name, number in found if number is not None}
        assert numbers <= PLACES_OF_NUMBERS, path
        assert not {43, 77} & {number for _, number in found}, path


async def test_one_person_alone_leaves_no_trace_in_the_feed(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, capacity=2)
    path = "/v1/feed/station_status.json"
    empty = await client.get(path)
    await put_inside(runtime, scene.station, 1)
    clock.advance(60)
    assert (await client.get(path)).content == empty.content
