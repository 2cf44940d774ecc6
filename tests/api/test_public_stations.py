"""Anybody sees the stations, where they are and what holds there; nobody sees who is inside."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.places.rules import Kind
from app.places.tables import FacilityKind, FacilityStatus
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.support.worlds import (
    OFFICE_HOURS,
    a_facility,
    a_scene,
    a_station,
    a_unit,
    a_worker,
)

pytestmark = pytest.mark.anyio

HERE = {"near": "29.5583,106.5772"}


async def listed(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get("/v1/stations", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def test_near_a_point_the_nearest_comes_first_with_minutes_on_foot(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for code, latitude in (("FAR", 29.5783), ("NEAR", 29.5593), ("AWAY", 30.9)):
            await a_station(tx, unit=unit, at=at, code=code, latitude=latitude)
    found = await listed(client, **HERE)
    assert [(row["code"], row["distance_m"], row["walking_minutes"]) for row in found] == [
        ("NEAR", 111, 2),
        ("FAR", 2224, 37),
    ]
    assert await listed(client, **HERE, radius_m=50) == []


@pytest.mark.parametrize(
    "params",
    [
        {"near": "29.5"},
        {"near": "a,b"},
        {"near": "91,0"},
        {"near": "nan,0"},
        {"near": "29.5,106.5", "radius_m": 20_001},
        {"near": "29.5,106.5", "radius_m": 0},
        {"usable": "tomorrow"},
        {"facility": "sauna"},
        {"unit": "root"},
        {"limit": 201},
        {"cursor": "zzz"},
        {"coordinate_system": "mars"},
    ],
)
async def test_a_question_nobody_can_answer_is_refused(
    client: httpx.AsyncClient, params: dict[str, Any]
) -> None:
    answer = await client.get("/v1/stations", params=params)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_pages_follow_one_another_without_gap_or_repeat(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for number in range(5):
            await a_station(tx, unit=unit, at=at, code=f"C{number}")
        await a_station(tx, unit=unit, at=at, code="C9", retired_at=at)
    seen, url = [], "/v1/stations?limit=2"
    while url:
        answer = await client.get(url)
        seen += [row["code"] for row in answer.json()]
        link = answer.headers.get("Link", "")
        url = link.split(">")[0].lstrip("<") if link else ""
    assert seen == [f"C{number}" for number in range(5)]


async def test_filters_by_use_facility_branch_and_words(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        city = await a_unit(tx, at=at)
        district = await a_unit(tx, at=at, parent=city, name="渝中区总工会")
        street = await a_unit(tx, at=at, parent=district, name="解放碑街道")
        warm = await a_station(tx, unit=street, at=at, code="WARM", name="磁器口驿站")
        await a_station(tx, unit=city, at=at, code="DAY", access_hours=OFFICE_HOURS)
        broken = await a_station(tx, unit=city, at=at, code="COLD", address="100%路")
        await a_facility(tx, warm, at=at)
        await a_facility(tx, broken, at=at, status=FacilityStatus.OUT_OF_ORDER)
    codes = [
        ({"usable": "now"}, {"WARM", "COLD"}),
        ({"facility": FacilityKind.MICROWAVE.value}, {"WARM"}),
        ({"unit": str(district.id)}, {"WARM"}),
        ({"unit": str(city.id)}, {"WARM", "DAY", "COLD"}),
        ({"q": "磁器口"}, {"WARM"}),
        ({"q": "day"}, {"DAY"}),
        ({"q": "0%"}, {"COLD"}),
        ({"q": "%"}, {"COLD"}),
    ]
    for params, expected in codes:
        assert {row["code"] for row in await listed(client, **params)} == expected, params
        assert {row["code"] for row in await listed(client, **HERE, **params)} == expected, params


async def test_a_station_tells_hours_mode_and_facilities(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        await a_facility(tx, scene.station, at=runtime.now())
    found = (await client.get(f"/v1/stations/{scene.station.code}")).json()
    assert (found["mode"]["kind"], found["mode"]["because"]) == ("scan", "weekly")
    assert found["mode"]["until"] == "2026-11-24T00:00:00Z"
    assert found["staffed_hours"]["regular"][0]["opens"] == "08:00"
    assert [thing["kind"] for thing in found["facilities"]] == ["microwave"]
    missing = await client.get("/v1/stations/NOBODY")
    assert (missing.status_code, missing.json()["code"]) == (404, "station_not_found")


async def test_the_mode_is_told_for_any_instant(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    path = f"/v1/stations/{scene.station.code}/mode"
    noon = await client.get(path, params={"at": "2026-11-24T12:00:00+08:00"})
    assert (noon.json()["kind"], noon.json()["until"]) == ("free", "2026-11-24T10:00:00Z")
    assert (await client.get(path, params={"at": "2026-11-24T12:00:00"})).status_code == 422


async def test_coordinates_are_given_as_asked(client: httpx.AsyncClient, runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    plain = (await client.get(f"/v1/stations/{scene.station.code}")).json()
    shifted = (
        await client.get(
            f"/v1/stations/{scene.station.code}", params={"coordinate_system": "gcj02"}
        )
    ).json()
    assert abs(shifted["latitude"] - plain["latitude"]) > 0.001
    near = f"{shifted['latitude']},{shifted['longitude']}"
    (found,) = await listed(client, near=near, coordinate_system="gcj02", radius_m=100)
    assert found["distance_m"] <= 1


async def test_one_person_alone_at_night_cannot_be_seen(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime, capacity=2)
    path = f"/v1/stations/{scene.station.code}"
    empty = (await client.get(path)).json()
    for inside, level in ((1, "空闲"), (2, "已满")):
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=runtime.now())
            arrival = Arrival(
                station_id=scene.station.id,
                timezone="Asia/Shanghai",
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=None,
                mode=Kind.SCAN,
                party_size=1,
                max_stay=timedelta(hours=1),
            )
            await presence.open_visit(tx, arrival, started_at=runtime.now())
        found = (await client.get(path)).json()
        assert found["occupancy"]["level"] == level
        if inside == 1:
            assert found == empty
