"""Anybody sees the stations, where they are and what holds there; nobody sees who is inside."""

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.audit import COMMAND_LINE
from app.places import calendar
from app.places.rules import ChangeKind, Kind, Tier
from app.places.stations import Wanted, add_change
from app.places.tables import FacilityKind, FacilityStatus
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import Clock
from tests.support.statements import statements_of
from tests.support.worlds import (
    DAY_AND_NIGHT,
    OFFICE_HOURS,
    a_facility,
    a_scene,
    a_station,
    a_unit,
    a_worker,
    an_admin,
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


LINE = {
    "id": str,
    "code": str,
    "name": str,
    "address": str,
    "latitude": float,
    "longitude": float,
    "operating_model": str,
    "mode": {"kind": str, "because": str, "until": str, "calendar_known": bool},
    "occupancy": {"level": str, "unknown_because": str, "as_of": str},
    "distance_m": int,
    "walking_minutes": int,
}
WINDOW = {"opens": str, "closes": str}
HOURS = {
    "regular": [WINDOW | {"weekday": int}],
    "public_holiday": [WINDOW],
    "makeup_workday": [WINDOW],
}
FACILITY = {
    "id": str,
    "kind": str,
    "name": str,
    "quantity": int,
    "status": str,
    "status_at": str,
}
STATION = LINE | {
    "timezone": str,
    "staffed_hours": HOURS,
    "access_hours": HOURS,
    "facilities": [FACILITY],
    "usual": {
        "day_class": str,
        "levels": [str],
        "hidden_hours": [int],
        "suppressed": bool,
        "k": int,
        "like_days": int,
        "says": str,
        "made_at": str,
    },
}
"""All that the public may see; whoever adds a field adds it here."""


def shape_of(value: Any, wanted: Any) -> Any:
    """Give the shape of an answer, what is absent taken as it should be."""
    if value is None:
        return wanted
    if isinstance(value, dict):
        known = wanted if isinstance(wanted, dict) else {}
        return {name: shape_of(each, known.get(name)) for name, each in value.items()}
    if isinstance(value, list):
        assert isinstance(wanted, list)
        return [shape_of(value[0], wanted[0])] if value else wanted
    return type(value)


async def test_the_public_sees_these_fields_and_no_others_whoever_asks(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    special = DAY_AND_NIGHT | {
        "public_holiday": [{"opens": "10:00", "closes": "16:00"}],
        "makeup_workday": [{"opens": "08:00", "closes": "18:00"}],
    }
    scene = await a_scene(runtime, staffed_hours=OFFICE_HOURS, access_hours=special)
    async with runtime.database.write() as tx:
        await a_facility(tx, scene.station, at=runtime.now())
        admin = await an_admin(tx, at=runtime.now())
        note = Wanted(ChangeKind.ACCESS, runtime.now(), runtime.now() + timedelta(hours=1), "内部")
        await add_change(
            tx,
            runtime.wakeups,
            scene.station,
            Tier.OVERRIDE,
            note,
            actor=COMMAND_LINE,
            at=runtime.now(),
        )
    for headers in ({}, scene.worker.headers, admin.headers):
        one = await client.get(f"/v1/stations/{scene.station.code}", headers=headers)
        assert shape_of(one.json(), STATION) == STATION
        for params in ({}, HERE):
            answer = await client.get("/v1/stations", params=params, headers=headers)
            assert shape_of(answer.json(), [LINE]) == [LINE]
        mode = await client.get(f"/v1/stations/{scene.station.code}/mode", headers=headers)
        assert shape_of(mode.json(), LINE["mode"]) == LINE["mode"]
        for secret in (scene.door.number, str(scene.door.id), scene.poster, "内部"):
            assert secret not in one.text + mode.text


async def test_nobody_learns_from_the_number_of_seats_how_many_sit_there(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Of four seats, `较多` is three persons: the level alone is for everybody (law 15)."""
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now(), capacity=4)
        await a_facility(tx, station, at=runtime.now(), kind=FacilityKind.REST, quantity=4)
        await a_facility(tx, station, at=runtime.now(), kind=FacilityKind.MICROWAVE, quantity=2)
    answer = await client.get(f"/v1/stations/{station.code}")
    told = {one["kind"]: one["quantity"] for one in answer.json()["facilities"]}
    assert told == {"rest": None, "microwave": 2}


async def test_pages_around_a_point_follow_one_another_over_http(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for number in range(7):
            place = {"latitude": 29.5583 + (number // 2) / 1000}  # Pairs at one point.
            await a_station(tx, unit=unit, at=at, code=f"C{number}", **place)
        await a_station(tx, unit=unit, at=at, code="SHUT", access_hours=None)
    seen: list[dict[str, Any]] = []
    url = f"/v1/stations?near={HERE['near']}&usable=now&q=驿站&limit=2"
    while url:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        seen += answer.json()
        url = answer.links.get("next", {}).get("url", "")
        assert not url or "usable=now" in url
    assert [row["distance_m"] for row in seen] == [0, 0, 111, 111, 222, 222, 334]
    assert Counter(row["code"] for row in seen) == Counter(f"C{number}" for number in range(7))


async def test_what_is_added_between_two_pages_moves_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for code in ("B", "D", "F"):
            await a_station(tx, unit=unit, at=at, code=code)
    first = await client.get("/v1/stations?limit=2")
    async with runtime.database.write() as tx:
        for code in ("A", "C", "E"):
            await a_station(tx, unit=unit, at=at, code=code)
    second = await client.get(first.links["next"]["url"])
    assert [row["code"] for row in first.json()] == ["B", "D"]
    assert [row["code"] for row in second.json()] == ["E", "F"]
    assert "next" not in second.links


async def test_a_cursor_of_one_list_is_refused_by_another(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for number in range(2):
            await a_station(tx, unit=unit, at=at, code=f"C{number}")
    by_code = await client.get("/v1/stations?limit=1")
    around = await client.get("/v1/stations?limit=1", params=HERE | {"limit": "1"})
    cursors = [
        httpx.URL(answer.links["next"]["url"]).params["cursor"] for answer in (by_code, around)
    ]
    for params in (HERE | {"cursor": cursors[0]}, {"cursor": cursors[1]}):
        answer = await client.get("/v1/stations", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


@pytest.mark.parametrize(
    ("near", "code"),
    [
        ("", "near_invalid"),
        (",", "near_invalid"),
        ("29.5,106.5,3", "near_invalid"),
        ("29.5;106.5", "near_invalid"),
        ("-90.01,0", "near_invalid"),
        ("0,180.01", "near_invalid"),
        ("0,inf", "near_invalid"),
        ("1e400,0", "near_invalid"),
        ("0" * 61, "request_invalid"),
    ],
)
async def test_a_point_that_is_none_is_named(
    client: httpx.AsyncClient, near: str, code: str
) -> None:
    answer = await client.get("/v1/stations", params={"near": near})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ({"radius_m": "-1"}, "radius_m"),
        ({"radius_m": "1.5"}, "radius_m"),
        ({"radius_m": "far"}, "radius_m"),
        ({"usable": ""}, "usable"),
        ({"q": ""}, "q"),
        ({"q": "x" * 51}, "q"),
        ({"q": "a\x00"}, "q"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "x" * 401}, "cursor"),
    ],
)
async def test_a_bad_parameter_is_named(
    client: httpx.AsyncClient, query: dict[str, str], location: str
) -> None:
    answer = await client.get("/v1/stations", params=HERE | query)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert [error["loc"] for error in answer.json()["errors"]] == [["query", location]]


async def test_words_are_found_in_any_case_of_latin_letters(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        station: dict[str, Any] = {
            "code": "Yz-1",
            "name": "Starbucks 驿站",
            "address": "100_ Main St",
        }
        await a_station(tx, at=runtime.now(), **station)
    for text, found in (
        ("starbucks", 1),
        ("BUCKS 驿", 1),
        ("main ST", 1),
        ("yZ-1", 1),
        ("0_ m", 1),
        ("00__", 0),
        ("yz", 0),
    ):
        assert len(await listed(client, q=text)) == found, text


async def test_usable_follows_the_clock_and_what_staff_order(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        *_, locked = [
            await a_station(
                tx, unit=unit, at=at, code=code, staffed_hours=staffed, access_hours=access
            )
            for code, staffed, access in (
                ("NIGHT", None, DAY_AND_NIGHT),
                ("DAY", OFFICE_HOURS, None),
                ("LOCKED", OFFICE_HOURS, DAY_AND_NIGHT),
            )
        ]
        lockdown = Wanted(ChangeKind.LOCKDOWN, at, at + timedelta(hours=1), "")
        await add_change(
            tx, runtime.wakeups, locked, Tier.OVERRIDE, lockdown, actor=COMMAND_LINE, at=at
        )

    async def usable() -> dict[str, str]:
        around = await listed(client, **HERE, usable="now")
        found = {row["code"]: row["mode"]["kind"] for row in around}
        by_code = await listed(client, usable="now")
        assert {row["code"]: row["mode"]["kind"] for row in by_code} == found
        return found

    assert await usable() == {"NIGHT": "scan"}
    clock.advance(3600)
    assert await usable() == {"NIGHT": "scan", "LOCKED": "scan"}
    clock.advance(8 * 3600)  # 08:40.
    assert await usable() == {"NIGHT": "scan", "LOCKED": "free", "DAY": "free"}


async def test_the_calendar_decides_and_says_when_it_is_not_known(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    windows = {
        "regular": [{"weekday": day, "opens": "08:00", "closes": "18:00"} for day in range(1, 6)],
        "public_holiday": [],
        "makeup_workday": None,
    }
    scene = await a_scene(runtime, staffed_hours=windows, access_hours=windows)
    async with runtime.database.write() as tx:
        content = (
            b"date,day_class,name,state_council_notice\n"
            b"2031-10-01,public_holiday,x,y\n2031-10-11,makeup_workday,x,y\n"
        )
        await calendar.import_days(
            tx, runtime.wakeups, content, actor=COMMAND_LINE, at=runtime.now()
        )
    told = {}
    for day in ("2031-09-30", "2031-10-01", "2031-10-11", "2031-10-12", "2032-10-01"):
        path = f"/v1/stations/{scene.station.code}/mode"
        mode = (await client.get(path, params={"at": f"{day}T12:00:00+08:00"})).json()
        told[day] = (mode["kind"], mode["because"], mode["calendar_known"])
    assert told == {
        "2031-09-30": ("free", "weekly", True),
        "2031-10-01": ("closed", "public_holiday", True),  # A Wednesday.
        "2031-10-11": ("free", "makeup_workday", True),  # A Saturday.
        "2031-10-12": ("closed", "weekly", True),
        "2032-10-01": ("free", "weekly", False),
    }


@pytest.mark.parametrize(
    "at", ["", "noon", "2026-11-24", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z"]
)
async def test_an_instant_that_is_none_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, at: str
) -> None:
    scene = await a_scene(runtime)
    answer = await client.get(f"/v1/stations/{scene.station.code}/mode", params={"at": at})
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")


async def test_a_facility_counts_while_it_can_be_used(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        for status in FacilityStatus:
            station = await a_station(tx, unit=unit, at=at, code=status.value)
            await a_facility(tx, station, at=at, status=status)
        station = await a_station(tx, unit=unit, at=at, code="gone")
        await a_facility(tx, station, at=at, retired_at=at)
    for params in ({}, HERE):
        found = await listed(client, facility="microwave", **params)
        assert {row["code"] for row in found} == {"working", "degraded"}
        assert await listed(client, facility="water", **params) == []


async def test_a_public_list_costs_the_same_however_long_it_is(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    costs = []
    for number in (1, 30):
        async with runtime.database.write() as tx:
            unit = await a_unit(tx, at=runtime.now())
            for _ in range(number):
                await a_station(tx, unit=unit, at=runtime.now())
        await listed(client)
        with statements_of(runtime.database) as sent:
            await listed(client)
        # The calendar is read anew whenever its bell rings, as it does at the start.
        costs.append(len([each for each in sent if "calendar_days" not in each]))
    assert costs[0] == costs[1] <= 5
