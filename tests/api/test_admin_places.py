"""Administrators keep units, stations, hours and facilities: in scope, audited, never deleted."""

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.audit import Action, AuditEntry
from app.people.rules import Role
from app.places import districts, facilities, stations, units
from app.places.tables import Facility, ModeChange, Station, Unit
from app.runtime import Runtime
from tests.conftest import NIGHT, Clock
from tests.support.worlds import (
    DAY_AND_NIGHT,
    OFFICE_HOURS,
    SomeAdmin,
    a_facility,
    a_scene,
    a_station,
    a_unit,
    an_admin,
)

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


async def test_units_and_stations_are_found_by_a_part_of_their_names_in_scope_only(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        root = await a_unit(tx, at=NIGHT, name="重庆市总工会")
        near = await a_unit(tx, parent=root, at=NIGHT, name="渝中区总工会")
        far = await a_unit(tx, parent=root, at=NIGHT, name="江津区总工会")
        await a_station(tx, unit=near, at=NIGHT, code="YZ0007", name="解放碑驿站")
        await a_station(tx, unit=near, at=NIGHT, code="YZ0008", name="100%驿站")
        await a_station(tx, unit=far, at=NIGHT, code="JJ0007", name="几江驿站")
        city = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        local = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=near)

    async def found(who: SomeAdmin, what: str, q: str) -> list[str]:
        answer = await client.get(f"/v1/admin/{what}", params={"q": q}, headers=who.headers)
        assert answer.status_code == 200, answer.text
        return [row["name"] for row in answer.json()]

    assert await found(city, "units", "区总") == ["渝中区总工会", "江津区总工会"]
    assert await found(local, "units", "总工会") == ["渝中区总工会"]
    assert await found(city, "stations", "0007") == ["几江驿站", "解放碑驿站"]
    assert await found(city, "stations", "yz0007") == ["解放碑驿站"]
    assert await found(local, "stations", "驿站") == ["解放碑驿站", "100%驿站"]
    assert await found(city, "stations", "%") == ["100%驿站"]


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


async def trail(runtime: Runtime) -> list[AuditEntry]:
    async with runtime.database.read() as tx:
        return list(await tx.scalars(sa.select(AuditEntry).order_by(AuditEntry.id)))


def period(at: datetime, begin: int, end: int, kind: str = "closed") -> dict[str, Any]:
    """An exception or override, in minutes from an instant."""
    return {
        "kind": kind,
        "from": (at + timedelta(minutes=begin)).isoformat(),
        "until": (at + timedelta(minutes=end)).isoformat(),
        "note": "检修",
    }


async def test_a_branch_that_moves_takes_its_stations_and_loses_its_old_administrator(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    at = runtime.now()
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=at)
        north = await a_unit(tx, at=at, parent=city, name="北区")
        south = await a_unit(tx, at=at, parent=city, name="南区")
        street = await a_unit(tx, at=at, parent=north, name="街道")
        station = await a_station(tx, unit=street, at=at)
        chief = await an_admin(tx, at=at)
        old, new = [
            await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=unit) for unit in (north, south)
        ]
    path = f"/v1/admin/stations/{station.id}"

    async def sees(admin: SomeAdmin) -> int:
        return (await client.get(path, headers=admin.headers)).status_code

    assert [await sees(admin) for admin in (chief, old, new)] == [200, 200, 404]
    body = {"parent": str(south.id)}
    moved = await client.patch(f"/v1/admin/units/{street.id}", json=body, headers=chief.headers)
    assert moved.status_code == 200, moved.text
    assert [await sees(admin) for admin in (chief, old, new)] == [200, 404, 200]
    (entry,) = await trail(runtime)
    assert (entry.action, entry.admin_id) == (Action.UNIT_AMENDED, chief.id)
    assert entry.subject == f"unit:{street.id}"
    assert (entry.before, entry.after) == ({"path": street.path}, {"path": moved.json()["path"]})


async def test_a_unit_administrator_changes_the_tree_below_his_own_root_only(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    at = runtime.now()
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=at)
        own = await a_unit(tx, at=at, parent=city, name="北区")
        street = await a_unit(tx, at=at, parent=own, name="街道")
        other = await a_unit(tx, at=at, parent=city, name="南区")
        admin = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=own)
    before = {row.id: row.path for row in (city, own, street, other)}

    async def asks(method: str, path: str, **body: Any) -> tuple[int, str | None]:
        answer = await client.request(
            method, f"/v1/admin/units{path}", json=body, headers=admin.headers
        )
        return answer.status_code, answer.json().get("code")

    kind = {"name": "某处", "kind": "street"}
    assert await asks("POST", "", **kind) == (422, "unit_invalid")
    assert await asks("POST", "", **kind, parent=str(other.id)) == (422, "unit_invalid")
    for unit in (city, other):
        assert await asks("PATCH", f"/{unit.id}", name="x") == (404, "unit_not_found")
        assert await asks("POST", f"/{unit.id}/retire") == (404, "unit_not_found")
        moved = await asks("PATCH", f"/{street.id}", parent=str(unit.id))
        assert moved == (422, "unit_invalid")
    assert await asks("PATCH", f"/{own.id}", parent=str(street.id)) == (422, "unit_invalid")
    assert await asks("PATCH", f"/{street.id}", colour="red") == (422, "request_invalid")
    listed = await client.get("/v1/admin/units", headers=admin.headers)
    assert [row["path"] for row in listed.json()] == [own.path, street.path]
    assert await trail(runtime) == []
    async with runtime.database.read() as tx:
        assert {row.id: row.path for row in await tx.scalars(sa.select(Unit))} == before
    assert (await asks("POST", "", **kind, parent=str(street.id)))[0] == 201


async def test_a_unit_tells_of_a_change_and_of_nothing_else(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    unit = await add_unit(client, chief, "市总工会")
    path = f"/v1/admin/units/{unit['id']}"
    for body in ({}, {"name": "市总工会"}, {"kind": "city"}):
        same = await client.patch(path, json=body, headers=chief.headers)
        assert same.json() == unit
    await client.patch(path, json={"name": "总工会"}, headers=chief.headers)
    for _ in range(2):
        await client.post(f"{path}/retire", headers=chief.headers)
    _, renamed, retired = await trail(runtime)
    assert (renamed.before, renamed.after) == (
        {"name": "市总工会", "kind": "city", "staff_absent_min": None},
        {"name": "总工会", "kind": "city", "staff_absent_min": None},
    )
    assert retired.action is Action.UNIT_RETIRED


async def test_a_station_is_not_registered_in_a_district_of_yesterday(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        await districts.load(tx, districts.shipped())
        unit = await a_unit(tx, at=runtime.now())
        old = await a_station(tx, unit=unit, at=runtime.now(), district="500112")
    for district, words in (
        ("500112", ("渝北区", "2025-11-06", "两江新区 500157", "北碚区 500109")),
        ("500105", ("江北区", "2025-11-06", "两江新区 500157")),
        ("999999", ("999999",)),
    ):
        body = a_description(str(unit.id), district=district)
        refused = await client.post("/v1/admin/stations", json=body, headers=chief.headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "district_invalid")
        assert all(word in refused.json()["detail"] for word in words), refused.json()
    path = f"/v1/admin/stations/{old.id}"
    kept = await client.patch(path, json={"name": "新名"}, headers=chief.headers)
    assert (kept.status_code, kept.json()["district"]) == (200, "500112")
    for wanted, status in (("500105", 422), ("500157", 200), ("500112", 422), (None, 200)):
        answer = await client.patch(path, json={"district": wanted}, headers=chief.headers)
        assert answer.status_code == status, wanted


async def test_the_trail_of_a_station_says_what_was_and_what_is(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path = f"/v1/admin/stations/{scene.station.id}"
    for _ in range(2):  # The second time there is nothing to tell.
        body = {"capacity": 5, "name": "解放碑驿站", "confirm_tap": True}
        await client.patch(path, json=body, headers=chief.headers)
    for _ in range(2):
        await client.post(f"{path}/retire", headers=chief.headers)
    amended, retired = await trail(runtime)
    assert amended.action is Action.STATION_AMENDED
    assert (amended.before, amended.after) == (
        {"capacity": 20, "confirm_tap": False},
        {"capacity": 5, "confirm_tap": True},
    )
    assert retired.action is Action.STATION_RETIRED
    for entry in (amended, retired):
        assert entry.admin_id == chief.id
        assert entry.station_id == scene.station.id
        assert entry.subject == f"station:{scene.station.id}"
        assert entry.unit_path == "1"
    late = await client.patch(path, json={"capacity": 6}, headers=chief.headers)
    assert (late.status_code, late.json()["code"]) == (409, "station_retired")
    body = a_description(str(scene.station.unit_id), code=scene.station.code)
    again = await client.post("/v1/admin/stations", json=body, headers=chief.headers)
    assert (again.status_code, again.json()["code"]) == (409, "code_taken")


class Lost(Exception):
    """The trail could not be written."""


async def lost(*_: Any, **__: Any) -> None:
    raise Lost


async def test_no_act_without_its_trail(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    async with runtime.database.write() as tx:
        thing = await a_facility(tx, scene.station, at=runtime.now())
        free = await a_unit(tx, at=runtime.now(), name="空")
    station = f"/v1/admin/stations/{scene.station.id}"
    at = runtime.now()
    acts: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/admin/units", {"name": "某", "kind": "city"}),
        ("PATCH", f"/v1/admin/units/{free.id}", {"name": "无"}),
        ("PATCH", f"/v1/admin/units/{free.id}", {"parent": str(scene.station.unit_id)}),
        ("POST", f"/v1/admin/units/{free.id}/retire", {}),
        ("POST", "/v1/admin/stations", a_description(str(scene.station.unit_id))),
        ("PATCH", station, {"capacity": 3}),
        ("POST", f"{station}/retire", {}),
        ("POST", f"{station}/exceptions", period(at, 10, 20)),
        ("POST", f"{station}/overrides", period(at, 0, 20, "lockdown")),
        ("POST", "/v1/admin/facilities", {"station": str(scene.station.id), "kind": "water"}),
        ("PATCH", f"/v1/admin/facilities/{thing.id}", {"status": "out_of_order"}),
        ("POST", f"/v1/admin/facilities/{thing.id}/retire", {}),
    ]

    async def stands() -> list[list[str]]:
        async with runtime.database.read() as tx:
            return [
                sorted(map(str, await tx.execute(sa.select(*kind.__table__.columns))))
                for kind in (Unit, Station, ModeChange, Facility)
            ]

    before = await stands()
    with monkeypatch.context() as patch:
        for module in (units, stations, facilities):
            patch.setattr(module, "record", lost)
        for method, path, body in acts:
            with pytest.raises(Lost):
                await client.request(method, path, json=body, headers=chief.headers)
            assert await stands() == before, path
    for method, path, body in acts[:2]:
        answer = await client.request(method, path, json=body, headers=chief.headers)
        assert answer.status_code < 300
    assert await stands() != before


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ([], "dictionary"),
        ({"regular": None}, "regular must be a list"),
        ({"regular": [], "holiday": []}, "unknown field 'holiday'"),
        ({"regular": [{"weekday": 0, "opens": "08:00", "closes": "09:00"}]}, "weekday is 0"),
        ({"regular": [{"weekday": True, "opens": "08:00", "closes": "09:00"}]}, "weekday is True"),
        ({"regular": [{"weekday": 1, "opens": "24:00", "closes": "09:00"}]}, "opens is '24:00'"),
        ({"regular": [{"weekday": 1, "opens": "8:00", "closes": "09:00"}]}, "opens is '8:00'"),
        ({"regular": [{"weekday": 1, "opens": "08:00", "closes": "24:01"}]}, "closes is '24:01'"),
        ({"regular": [{"weekday": 1, "opens": "08:00"}]}, "has no closes"),
        ({"regular": [], "public_holiday": [{"opens": "x", "closes": "y"}]}, "public_holiday"),
        ({"regular": [{"weekday": 9, "opens": "\ud800", "closes": "x"}]}, "weekday is 9"),
    ],
)
async def test_hours_that_are_none_are_explained(
    client: httpx.AsyncClient, runtime: Runtime, hours: Any, said: str
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    for name in ("staffed_hours", "access_hours"):
        refused = await client.patch(
            f"/v1/admin/stations/{scene.station.id}",
            content=json.dumps({name: hours}),
            headers=chief.headers | {"Content-Type": "application/json"},
        )
        assert refused.status_code == 422, refused.text
        assert said in refused.json()["detail"]
        assert name in str(refused.json()["errors"])
    assert await trail(runtime) == []


async def test_hours_come_back_in_one_form(client: httpx.AsyncClient, runtime: Runtime) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    given = {
        "regular": [
            {"weekday": 2, "opens": "14:00", "closes": "18:00"},
            {"weekday": 2, "opens": "08:00", "closes": "12:00"},
            {"weekday": 1, "opens": "20:00", "closes": "00:00"},
        ]
    }
    answer = await client.patch(
        f"/v1/admin/stations/{scene.station.id}",
        json={"staffed_hours": given},
        headers=chief.headers,
    )
    assert answer.json()["staffed_hours"] == {
        "regular": [
            {"weekday": 1, "opens": "20:00", "closes": "24:00"},
            {"weekday": 2, "opens": "08:00", "closes": "12:00"},
            {"weekday": 2, "opens": "14:00", "closes": "18:00"},
        ],
        "public_holiday": None,
        "makeup_workday": None,
    }
    public = await client.get(f"/v1/stations/{scene.station.code}")
    assert public.json()["staffed_hours"] == answer.json()["staffed_hours"]


@pytest.mark.parametrize("plural", ["exceptions", "overrides"])
async def test_a_change_is_listed_amended_and_withdrawn_but_stays(
    client: httpx.AsyncClient, runtime: Runtime, plural: str
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path, at = f"/v1/admin/stations/{scene.station.id}/{plural}", runtime.now()
    ids = []
    for number in range(3):
        body = period(at, 10 * number, 10 * number + 5)
        added = await client.post(path, json=body, headers=chief.headers)
        assert added.status_code == 201, added.text
        ids.append(added.json()["id"])
    assert set(added.json()) == {
        "id", "station_id", "kind", "from", "until", "note", "created_at", "retired_at",
    }  # fmt: skip
    one = f"{path}/{ids[0]}"
    amended = await client.patch(one, json={"kind": "staff_only"}, headers=chief.headers)
    assert (amended.json()["kind"], amended.json()["note"]) == ("staff_only", "检修")
    assert datetime.fromisoformat(amended.json()["from"]) == at
    upside_down = {"until": (at - timedelta(hours=1)).isoformat()}
    refused = await client.patch(one, json=upside_down, headers=chief.headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "mode_change_invalid")
    withdrawn = [await client.post(f"{one}/retire", headers=chief.headers) for _ in range(2)]
    assert withdrawn[0].json() == withdrawn[1].json()
    gone = await client.patch(one, json={"note": "x"}, headers=chief.headers)
    assert (gone.status_code, gone.json()["code"]) == (404, "mode_change_not_found")
    seen, url = [], f"{path}?limit=2"
    while url:
        page = await client.get(url, headers=chief.headers)
        seen += [row["id"] for row in page.json()]
        url = page.links.get("next", {}).get("url", "")
    assert seen == ids[::-1]
    assert (await client.delete(one, headers=chief.headers)).status_code == 405
    other = "overrides" if plural == "exceptions" else "exceptions"
    wrong = one.replace(plural, other)
    assert (await client.get(wrong, headers=chief.headers)).status_code == 404
    told = await trail(runtime)
    assert [entry.action for entry in told] == [
        *[Action.MODE_CHANGE_ADDED] * 3,
        Action.MODE_CHANGE_AMENDED,
        Action.MODE_CHANGE_RETIRED,
    ]
    tier = plural.removesuffix("s")
    for entry in told:
        assert entry.station_id == scene.station.id
        assert entry.after is not None
        assert entry.after["tier"] == tier


async def test_an_emergency_is_ordered_on_the_spot_and_ends_within_a_week(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path, at = f"/v1/admin/stations/{scene.station.id}", runtime.now()
    week = 7 * 24 * 60

    async def asks(plural: str, body: dict[str, Any]) -> int:
        answer = await client.post(f"{path}/{plural}", json=body, headers=chief.headers)
        return answer.status_code

    for kind in ("lockdown", "evacuation"):
        assert await asks("exceptions", period(at, 0, 10, kind)) == 422
        assert await asks("overrides", period(at, 0, 10, kind)) == 201
        mode = (await client.get(f"/v1/stations/{scene.station.code}/mode")).json()
        assert mode["because"] == "emergency"
    assert mode["kind"] == "evacuation"
    assert await asks("overrides", period(at, 0, week, "closed")) == 201
    assert await asks("overrides", period(at, 0, week + 1, "closed")) == 422
    assert await asks("exceptions", period(at, 0, 20 * week, "closed")) == 201
    assert await asks("exceptions", period(at, 5, 5)) == 422
    await client.post(f"{path}/retire", headers=chief.headers)
    assert await asks("exceptions", period(at, 0, 10)) == 409
    assert await asks("overrides", period(at, 0, 10)) == 409


async def test_a_keeper_sets_dates_and_facilities_of_his_own_station_and_no_more(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    own, other = await a_scene(runtime), await a_scene(runtime)
    async with runtime.database.write() as tx:
        at = runtime.now()
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=own.station)
        auditor = await an_admin(tx, at=at, role=Role.AUDITOR)
        things = [await a_facility(tx, scene.station, at=at) for scene in (own, other)]

    async def asks(admin: SomeAdmin, method: str, path: str, body: Any = None) -> int:
        answer = await client.request(method, f"/v1/admin/{path}", json=body, headers=admin.headers)
        return answer.status_code

    for scene, thing, may in ((own, things[0], True), (other, things[1], False)):
        station = f"stations/{scene.station.id}"
        water = {"station": str(scene.station.id), "kind": "water"}
        for admin, statuses in (
            (keeper, (201, 201, 200, 200) if may else (404,) * 4),
            (auditor, (403, 403, 403, 200)),
        ):
            broken = {"status": "degraded"}
            assert (
                await asks(admin, "POST", f"{station}/exceptions", period(at, 1, 2)),
                await asks(admin, "POST", "facilities", water),
                await asks(admin, "PATCH", f"facilities/{thing.id}", broken),
                await asks(admin, "GET", station),
            ) == statuses
            assert await asks(admin, "POST", f"{station}/overrides", period(at, 1, 2)) == 403
            assert await asks(admin, "PATCH", station, {"capacity": 3}) == 403
            assert await asks(admin, "POST", f"{station}/retire") == 403
            body = a_description(str(scene.station.unit_id))
            assert await asks(admin, "POST", "stations", body) == 403
    listed = await client.get("/v1/admin/stations", headers=keeper.headers)
    assert [row["id"] for row in listed.json()] == [str(own.station.id)]
    shown = await client.get("/v1/admin/facilities", headers=keeper.headers)
    assert {row["station_id"] for row in shown.json()} == {str(own.station.id)}
    assert {entry.admin_id for entry in await trail(runtime)} == {keeper.id}


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "sauna"},
        {"kind": None},
        {"quantity": 0},
        {"quantity": 10_001},
        {"quantity": 1.0},
        {"quantity": True},
        {"name": "x" * 201},
        {"name": "a\u0000b"},
        {"status": "working"},
        {"station": "CQ1"},
    ],
)
async def test_a_bad_facility_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, body: dict[str, Any]
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    sent = {"station": str(scene.station.id), "kind": "water", "quantity": 1} | body
    answer = await client.post("/v1/admin/facilities", json=sent, headers=chief.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert next(iter(body)) in str(answer.json()["errors"])
    assert await trail(runtime) == []


@pytest.mark.parametrize(
    "rows",
    [
        b"2031-10-01,public_holiday,x,y\r2031-10-02,public",
        b'2031-10-01,public_holiday,"x,y\n',
        b"2031-10-01,public_holiday," + b"x" * 140_000 + b",y\n",
        b"2031-10-01,public_holiday,\xff,y\n",
        b"2031-10-01\n",
        b"2031-10-01,holiday,x,y\n",
        b"1999-10-01,public_holiday,x,y\n",
        b"2031-10-01,public_holiday,x,y\n2031-10-01,makeup_workday,x,y\n",
        b"",
    ],
    ids=["cut", "quote", "long", "encoding", "short", "class", "year", "twice", "empty"],
)
async def test_a_bad_calendar_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, rows: bytes
) -> None:
    chief = await the_chief(runtime)
    answer = await client.post(
        "/v1/admin/calendar",
        content=b"date,day_class,name,state_council_notice\n" + rows,
        headers=chief.headers | {"Content-Type": "text/csv"},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "calendar_invalid")
    listed = await client.get("/v1/admin/calendar?year=2031", headers=chief.headers)
    assert listed.json()["days"] == []
    assert await trail(runtime) == []
