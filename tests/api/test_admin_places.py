"""Administrators keep units, stations, hours and facilities: in scope, audited, never deleted."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.audit import Action, AuditEntry
from app.people.tables import Role
from app.places import districts
from app.places.tables import Station
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.worlds import DAY_AND_NIGHT, OFFICE_HOURS, SomeAdmin, a_scene, a_unit, an_admin

pytestmark = pytest.mark.anyio


async def the_chief(runtime: Runtime, **kind: Any) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now(), **kind)


async def acts(runtime: Runtime) -> list[Action]:
    async with runtime.database.read() as tx:
        return list(await tx.scalars(sa.select(AuditEntry.action).order_by(AuditEntry.at)))


def a_description(unit: str, **changes: Any) -> dict[str, Any]:
    return {
        "code": "YZ-1",
        "name": "解放碑驿站",
        "unit": unit,
        "address": "渝中区民族路 1 号",
        "latitude": 29.5583,
        "longitude": 106.5772,
        "capacity": 20,
        "operating_model": "union_built",
        "staffed_hours": OFFICE_HOURS,
        "access_hours": DAY_AND_NIGHT,
    } | changes


async def add_unit(
    client: httpx.AsyncClient, chief: SomeAdmin, name: str, parent: str | None = None
) -> dict[str, Any]:
    body = {"name": name, "kind": "district" if parent else "city", "parent": parent}
    answer = await client.post("/v1/admin/units", json=body, headers=chief.headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_branch_moves_with_everything_below_and_never_below_itself(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    city = await add_unit(client, chief, "市总工会")
    north = await add_unit(client, chief, "北区", city["id"])
    south = await add_unit(client, chief, "南区", city["id"])
    street = await add_unit(client, chief, "街道", north["id"])
    moved = await client.patch(
        f"/v1/admin/units/{north['id']}", json={"parent": south["id"]}, headers=chief.headers
    )
    assert moved.status_code == 200
    below = await client.get(f"/v1/admin/units/{street['id']}", headers=chief.headers)
    assert below.json()["path"].startswith(moved.json()["path"] + ".")
    assert moved.json()["path"].startswith(south["path"] + ".")
    for parent in (street["id"], north["id"]):
        circle = await client.patch(
            f"/v1/admin/units/{north['id']}", json={"parent": parent}, headers=chief.headers
        )
        assert (circle.status_code, circle.json()["code"]) == (422, "unit_invalid")
    used = await client.post(f"/v1/admin/units/{south['id']}/retire", headers=chief.headers)
    assert (used.status_code, used.json()["code"]) == (409, "unit_in_use")
    free = await client.post(f"/v1/admin/units/{street['id']}/retire", headers=chief.headers)
    assert free.json()["retired_at"]


async def test_abolished_districts_name_their_successors(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        assert await districts.load(tx, districts.shipped()) == 39
    found = (await client.get("/v1/admin/districts", headers=chief.headers)).json()
    abolished = [row for row in found if row["valid_to"] is not None]
    assert {row["name"] for row in abolished} == {"江北区", "渝北区"}
    current = {row["adcode"] for row in found if row["valid_to"] is None}
    assert all(set(row["successors"]) <= current and row["successors"] for row in abolished)


async def test_a_station_is_registered_amended_and_retired_but_never_deleted(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    city = await add_unit(client, chief, "市总工会")
    body = a_description(
        city["id"],
        facilities=[{"kind": "microwave", "quantity": 2}],
        doors=[{"name": "正门"}, {"name": "侧门", "has_contact": True}],
    )
    added = await client.post("/v1/admin/stations", json=body, headers=chief.headers)
    assert added.status_code == 201, added.text
    assert [door["name"] for door in added.json()["doors"]] == ["正门", "侧门"]
    path = f"/v1/admin/stations/{added.json()['id']}"
    twice = await client.post("/v1/admin/stations", json=body, headers=chief.headers)
    assert (twice.status_code, twice.json()["code"]) == (409, "code_taken")
    amended = await client.patch(path, json={"capacity": 5}, headers=chief.headers)
    assert (amended.json()["capacity"], amended.json()["name"]) == (5, "解放碑驿站")
    for fixed in ({"code": "YZ-2"}, {"id": added.json()["id"]}):
        assert (await client.patch(path, json=fixed, headers=chief.headers)).status_code == 422
    retired = await client.post(f"{path}/retire", headers=chief.headers)
    assert retired.status_code == 200
    assert (await client.delete(path, headers=chief.headers)).status_code == 405
    assert (await client.get(path, headers=chief.headers)).json()["retired_at"]
    assert (await client.get("/v1/stations/YZ-1")).status_code == 404
    assert await acts(runtime) == [
        Action.UNIT_ADDED,
        Action.STATION_ADDED,
        Action.FACILITY_ADDED,
        Action.STATION_AMENDED,
        Action.STATION_RETIRED,
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"staffed_hours": {"regular": [{"weekday": 8, "opens": "08:00", "closes": "9:00"}]}},
        {"staffed_hours": {}},
        {
            "access_hours": {
                "regular": [
                    {"weekday": 1, "opens": "08:00", "closes": "12:00"},
                    {"weekday": 1, "opens": "11:00", "closes": "13:00"},
                ],
                "public_holiday": None,
                "makeup_workday": None,
            }
        },
        {"timezone": "Asia/Nowhere"},
        {"latitude": 91},
        {"latitude": "29"},
        {"capacity": -1},
        {"capacity": True},
        {"max_stay_min": 0},
        {"operating_model": "shop"},
        {"district": "500105"},
        {"code": "no spaces"},
        {"name": "two\nlines"},
        {"config_version": 9},
    ],
)
async def test_a_bad_description_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, changes: dict[str, Any]
) -> None:
    chief = await the_chief(runtime)
    city = await add_unit(client, chief, "市总工会")
    body = a_description(city["id"], **changes)
    refused = await client.post("/v1/admin/stations", json=body, headers=chief.headers)
    assert refused.status_code == 422, refused.text
    named = next(iter(changes))
    assert named in str(refused.json())
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Station)) == 0


async def test_an_exception_and_an_override_hold_exactly_their_time(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path, at = f"/v1/admin/stations/{scene.station.id}", runtime.now()

    async def mode_at(minutes: int) -> str:
        asked = (at + timedelta(minutes=minutes)).isoformat()
        answer = await client.get(f"/v1/stations/{scene.station.code}/mode", params={"at": asked})
        return str(answer.json()["kind"])

    def change(kind: str, begin: int, end: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "from": (at + timedelta(minutes=begin)).isoformat(),
            "until": (at + timedelta(minutes=end)).isoformat(),
            "note": "检修",
        }

    closed = await client.post(
        f"{path}/exceptions", json=change("closed", 10, 40), headers=chief.headers
    )
    assert closed.status_code == 201, closed.text
    held = await client.post(
        f"{path}/overrides", json=change("held_open", 20, 30), headers=chief.headers
    )
    assert held.status_code == 201, held.text
    assert [await mode_at(m) for m in (9, 10, 19, 20, 29, 30, 39, 40)] == [
        "scan", "closed", "closed", "free", "free", "closed", "closed", "scan",
    ]  # fmt: skip
    await client.post(f"{path}/overrides/{held.json()['id']}/retire", headers=chief.headers)
    assert await mode_at(25) == "closed"
    for bad in (
        change("closed", 40, 10),
        change("sauna", 1, 2),
        change("held_open", 0, 8 * 24 * 60),
        {"kind": "closed", "from": "2026-11-24T08:00:00", "until": "2026-11-24T09:00:00"},
    ):
        refused = await client.post(f"{path}/overrides", json=bad, headers=chief.headers)
        assert refused.status_code == 422, bad


async def test_hours_of_the_phone_page_and_the_controller_change_together(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    before = await client.get("/v1/controller/config", headers=scene.controller_headers)
    await client.patch(
        f"/v1/admin/stations/{scene.station.id}",
        json={"access_hours": None},
        headers=chief.headers,
    )
    after = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert after.headers["ETag"] != before.headers["ETag"]
    mode = await client.get(f"/v1/stations/{scene.station.code}/mode")
    assert mode.json()["kind"] == "closed"
    assert mode.json()["because"] == "no_access_hours"


async def test_a_facility_is_added_reported_broken_and_retired(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    added = await client.post(
        "/v1/admin/facilities",
        json={"station": str(scene.station.id), "kind": "microwave", "name": "左"},
        headers=chief.headers,
    )
    path = f"/v1/admin/facilities/{added.json()['id']}"
    clock.advance(60)
    broken = await client.patch(path, json={"status": "out_of_order"}, headers=chief.headers)
    assert broken.json()["status_at"] > added.json()["status_at"]
    clock.advance(60)
    renamed = await client.patch(path, json={"name": "右"}, headers=chief.headers)
    assert renamed.json()["status_at"] == broken.json()["status_at"]
    assert (await client.post(f"{path}/retire", headers=chief.headers)).json()["retired_at"]
    public = await client.get(f"/v1/stations/{scene.station.code}")
    assert public.json()["facilities"] == []


async def test_what_a_unit_administrator_registers_lies_in_his_branch(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        city = await a_unit(tx, at=at)
        own = await a_unit(tx, at=at, parent=city)
        other = await a_unit(tx, at=at, parent=city)
        admin = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=own)
    outside = a_description(str(other.id))
    refused = await client.post("/v1/admin/stations", json=outside, headers=admin.headers)
    assert refused.status_code == 404
    added = await client.post(
        "/v1/admin/stations", json=a_description(str(own.id)), headers=admin.headers
    )
    assert added.status_code == 201
    away = await client.patch(
        f"/v1/admin/stations/{added.json()['id']}",
        json={"unit": str(other.id)},
        headers=admin.headers,
    )
    assert away.status_code == 404


async def test_the_calendar_is_replaced_by_years_and_read_at_once(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    content = (
        "date,day_class,name,state_council_notice\n"
        "2031-10-01,public_holiday,国庆节,x\n"
        "2031-10-11,makeup_workday,国庆节调休,x\n"
    )
    headers = chief.headers | {"Content-Type": "text/csv"}
    done = await client.post("/v1/admin/calendar", content=content, headers=headers)
    assert done.status_code == 200, done.text
    listed = await client.get("/v1/admin/calendar", params={"year": 2031}, headers=chief.headers)
    assert "2031-10-11" in listed.text
    bad = await client.post(
        "/v1/admin/calendar", content=content + "2031-13-01,x,,\n", headers=headers
    )
    assert bad.status_code == 422
    assert (await acts(runtime)).count(Action.CALENDAR_CHANGED) == 1
