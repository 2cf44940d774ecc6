"""Who sees what: a generated matrix of routes and administrators, and the scope predicate (T14)."""

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.alerts.webhooks.tables import Webhook
from app.db.types import new_id
from app.people import admins
from app.people.admins import SignedInAdmin
from app.people.rules import ALLOWED, Permission, Role
from app.people.tables import Worker
from app.places.rules import ChangeKind, Tier
from app.places.tables import ModeChange, Station, Unit
from app.runtime import Runtime
from app.visits.tables import WalkInCount
from tests.api.test_policies import policies_of, routes_of
from tests.support.worlds import (
    SomeAdmin,
    a_controller,
    a_door,
    a_facility,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio

RIGHT = "administrator who may "
OPEN = ("public", "anybody", "enrolment")
ABSENT = "00000000-0000-0000-0000-000000000000"


def right_of(route: APIRoute) -> Permission | None:
    """Give the right that a route asks of administrators."""
    for policy in policies_of(route.dependant):
        if policy.startswith(RIGHT):
            return Permission(policy.removeprefix(RIGHT))
    return None


def with_ids(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: ids.get(found[1], ABSENT), path)


@dataclass(frozen=True)
class City:
    """Two districts, each with a street below, and one of everything in the second."""

    first: Unit
    second: Unit
    street: Unit
    station: Station
    ids: dict[str, str]
    """What stands in the second district, by path parameter."""


async def a_city(runtime: Runtime) -> City:
    at = runtime.now()
    async with runtime.database.write() as tx:
        root = await a_unit(tx, at=at)
        first = await a_unit(tx, parent=root, at=at, name="渝中区总工会")
        second = await a_unit(tx, parent=root, at=at, name="江津区总工会")
        street = await a_unit(tx, parent=second, at=at, name="几江街道工会")
        station = await a_station(tx, unit=street, at=at)
        door = await a_door(tx, station, at=at)
        controller_id, _ = await a_controller(tx, station, at=at)
        facility = await a_facility(tx, station, at=at)
        worker = Worker(
            id=new_id(),
            number=secrets.randbits(32),
            listed=True,
            unit_id=second.id,
            created_at=at,
            changed_at=at,
        )
        change = ModeChange(
            id=new_id(),
            station_id=station.id,
            tier=Tier.EXCEPTION,
            kind=ChangeKind.CLOSED,
            from_at=at,
            until_at=at + timedelta(hours=1),
            note="",
            created_at=at,
            changed_at=at,
        )
        webhook = Webhook(
            id=new_id(),
            unit_id=street.id,
            name="值班室",
            url="https://hooks.example.org/",
            secret_sealed=b"",
            failures=0,
            created_at=at,
            changed_at=at,
        )
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=station)
        counted = WalkInCount(
            id=new_id(),
            station_id=station.id,
            count=3,
            from_at=at - timedelta(hours=1),
            until_at=at,
            local_day=at.date(),
            admin_id=keeper.id,
            created_at=at,
        )
        tx.add_all([worker, change, webhook, counted])
        await tx.flush()
    ids = {
        "station_id": station.id,
        "door_id": door.id,
        "controller_id": controller_id,
        "facility_id": facility.id,
        "unit_id": street.id,
        "worker_id": worker.id,
        "change_id": change.id,
        "count_id": counted.id,
        "webhook_id": webhook.id,
    }
    named = {name: str(value) for name, value in ids.items()}
    return City(first, second, street, station, {**named, "form": "svg", "kid": "none"})


def body_for(city: City, path: str) -> dict[str, Any] | None:
    """Give a body that this route would accept."""
    at = "2026-11-24T00:00:00+08:00"
    until = "2026-11-24T06:00:00+08:00"
    bodies: dict[str, dict[str, Any]] = {
        "/exceptions": {"kind": "closed", "from": at, "until": until},
        "/overrides": {"kind": "lockdown", "from": at, "until": until},
        "/unlock": {"reason": "钥匙丢了"},
        "/walk-ins": {"count": 3, "from": at, "until": until},
        "/v1/admin/facilities": {
            "station": city.ids["station_id"],
            "kind": "water",
            "name": "饮水机",
            "quantity": 1,
        },
        "/v1/admin/doors": {"station": city.ids["station_id"], "name": "后门"},
        "/v1/admin/controllers/enrolment": {"station": city.ids["station_id"]},
        "/v1/admin/units": {"name": "某街道", "kind": "street", "parent": city.ids["unit_id"]},
        "/v1/admin/stations": {
            "code": "CQ1",
            "name": "某驿站",
            "unit": city.ids["unit_id"],
            "address": "某路 1 号",
            "latitude": 29.5,
            "longitude": 106.5,
            "capacity": 5,
            "operating_model": "union_built",
            "staffed_hours": None,
            "access_hours": None,
        },
        "/v1/admin/workers": {"phone": "13812341234"},
        "/v1/admin/admins": {
            "username": "somebody",
            "password": "correct horse battery",
            "role": "auditor",
        },
        "/v1/admin/keys/rotate": {"kind": "poster"},
    }
    return next((body for end, body in bodies.items() if path.endswith(end)), {})


async def asked(
    client: httpx.AsyncClient, route: APIRoute, city: City, admin: SomeAdmin
) -> dict[str, int]:
    """Ask a route about what stands in the second district."""
    answers = {}
    for method in sorted(route.methods - {"HEAD"}):
        body = body_for(city, route.path) if method in ("POST", "PATCH") else None
        answer = await client.request(
            method,
            with_ids(route.path, city.ids),
            json=body,
            params=QUERY,
            headers={**admin.headers, "Idempotency-Key": "key"},
        )
        answers[f"{method} {route.path}"] = answer.status_code
    return answers


QUERY = {"month": "2026-10", "from": "2026-10-01", "to": "2026-10-02"}
"""What reports ask for; other routes leave it alone."""

NO_SCOPE = {"admin_id", "kid"}
"""Path parameters of what belongs to the whole city."""


def about_places(route: APIRoute) -> bool:
    names = {parameter.name for parameter in route.dependant.path_params}
    return bool(names - NO_SCOPE - {"form", "report", "day"})


@pytest.mark.parametrize("role", [Role.UNIT_ADMIN, Role.STATION_KEEPER, Role.AUDITOR])
async def test_what_lies_outside_the_scope_is_not_there_and_what_the_role_forbids_is_forbidden(
    app: FastAPI, client: httpx.AsyncClient, runtime: Runtime, role: Role
) -> None:
    city = await a_city(runtime)
    async with runtime.database.write() as tx:
        foreign = await an_admin(tx, at=runtime.now(), role=role, unit=city.first)
    wrong: dict[str, int] = {}
    seen = 0
    for route in routes_of(app):
        right = right_of(route)
        if right is None or not about_places(route):
            continue
        expected = 404 if right in ALLOWED[role] else 403
        answers = await asked(client, route, city, foreign)
        seen += len(answers)
        wrong |= {name: status for name, status in answers.items() if status != expected}
    assert seen > 25
    assert wrong == {}


@pytest.mark.parametrize("role", list(Role))
async def test_inside_the_scope_the_role_alone_decides(
    app: FastAPI, client: httpx.AsyncClient, runtime: Runtime, role: Role
) -> None:
    city = await a_city(runtime)
    wrong: dict[str, int] = {}
    for route in routes_of(app):
        right = right_of(route)
        if right is None:
            continue
        async with runtime.database.write() as tx:
            unit = None if role is Role.CITY_ADMIN else city.second
            admin = await an_admin(tx, at=runtime.now(), role=role, unit=unit)
        answers = await asked(client, route, city, admin)
        may = right in ALLOWED[role]
        wrong |= {name: status for name, status in answers.items() if (status == 403) is may}
        wrong |= {name: status for name, status in answers.items() if status >= 500}
    assert wrong == {}


@pytest.mark.parametrize(
    "token", [None, "x" * 43, "é", "x" * 300], ids=["none", "unknown", "odd", "long"]
)
async def test_no_guarded_route_answers_without_a_session(
    app: FastAPI, client: httpx.AsyncClient, token: str | None
) -> None:
    headers: dict[str, Any] = {"Idempotency-Key": "key"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}".encode()
    wrong: dict[str, int] = {}
    seen = 0
    for route in routes_of(app):
        found = list(policies_of(route.dependant))
        if not found or any(policy.startswith(OPEN) for policy in found):
            continue
        for method in sorted(route.methods - {"HEAD"}):
            body = {} if method in ("POST", "PATCH") else None
            answer = await client.request(
                method, with_ids(route.path, {"form": "svg"}), headers=headers, json=body
            )
            seen += 1
            # What cannot even be read (422) may be refused before the guard looks.
            if answer.status_code not in (401, 422):
                wrong[f"{method} {route.path}"] = answer.status_code
    assert seen > 60
    assert wrong == {}


async def test_a_worker_is_no_administrator_and_an_administrator_no_worker(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=runtime.now())
        admin = await an_admin(tx, at=runtime.now())
    assert (await client.get("/v1/admin/workers", headers=worker.headers)).status_code == 401
    assert (await client.get("/v1/me", headers=admin.headers)).status_code == 401
    assert (await client.get("/v1/admin/workers", headers=admin.headers)).status_code == 200


def signed_in(role: Role, unit: Unit | None = None, station: Station | None = None) -> Any:
    return SignedInAdmin(
        new_id(),
        role,
        unit.path if unit else None,
        station.id if station else None,
        unit.id if unit else None,
    )


async def test_the_scope_is_a_branch_a_station_or_the_city_and_nothing_by_default(
    runtime: Runtime,
) -> None:
    city = await a_city(runtime)
    async with runtime.database.write() as tx:
        near = await a_station(tx, unit=city.first, at=runtime.now())
        # 1.10 is no part of the branch 1.1, though its path begins like it.
        for _ in range(8):
            root = await tx.get_one(Unit, city.first.parent_id)
            last = await a_unit(tx, parent=root, at=runtime.now(), name="某区总工会")
        assert last.path == f"{city.first.path}0"
        far = await a_station(tx, unit=last, at=runtime.now())

    async def seen(admin: SignedInAdmin) -> set[Any]:
        async with runtime.database.read() as tx:
            return set(await tx.scalars(admins.visible_stations(admin)))

    everything = {near.id, far.id, city.station.id}
    assert await seen(signed_in(Role.CITY_ADMIN)) == everything
    assert await seen(signed_in(Role.AUDITOR)) == everything
    assert await seen(signed_in(Role.UNIT_ADMIN, city.first)) == {near.id}
    assert await seen(signed_in(Role.UNIT_ADMIN, city.second)) == {city.station.id}
    assert await seen(signed_in(Role.STATION_KEEPER, None, near)) == {near.id}
    assert await seen(signed_in(Role.UNIT_ADMIN)) == set()
    assert await seen(signed_in(Role.STATION_KEEPER)) == set()


async def test_a_changed_role_counts_from_the_next_request(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
        other = await an_admin(tx, at=runtime.now())
    assert (await client.get("/v1/admin/admins", headers=other.headers)).status_code == 200
    changed = await client.patch(
        f"/v1/admin/admins/{other.id}", json={"role": "auditor"}, headers=chief.headers
    )
    assert changed.status_code == 200, changed.text
    assert (await client.get("/v1/admin/admins", headers=other.headers)).status_code == 403
    assert (await client.get("/v1/admin/workers", headers=other.headers)).status_code == 200
    await client.post(f"/v1/admin/admins/{other.id}/retire", headers=chief.headers)
    assert (await client.get("/v1/admin/workers", headers=other.headers)).status_code == 401


async def test_the_audit_trail_is_scoped_like_everything_else(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    city = await a_city(runtime)
    async with runtime.database.write() as tx:
        at = runtime.now()
        chief = await an_admin(tx, at=at)
        first, second = [
            await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=unit)
            for unit in (city.first, city.second)
        ]
    for phone, admin in (("13812341234", first), ("13912341234", second)):
        added = await client.post("/v1/admin/workers", json={"phone": phone}, headers=admin.headers)
        assert added.status_code == 201, added.text
    trails = {}
    for name, admin in (("chief", chief), ("first", first), ("second", second)):
        answer = await client.get("/v1/admin/audit", headers=admin.headers)
        trails[name] = [entry["admin_id"] for entry in answer.json()]
    assert trails == {
        "chief": [str(second.id), str(first.id)],
        "first": [str(first.id)],
        "second": [str(second.id)],
    }
    page = await client.get("/v1/admin/audit?limit=1", headers=chief.headers)
    following = page.headers["link"].split(">")[0].lstrip("<")
    rest = await client.get(following, headers=chief.headers)
    assert [entry["admin_id"] for entry in rest.json()] == [str(first.id)]
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Worker)) == 3
