"""Administrators keep webhooks: in their branch, to listed hosts, with a secret shown once."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import ValidationError

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.webhooks.tables import Delivery
from app.audit import Action, AuditEntry
from app.main import create_app
from app.people.rules import Role
from app.places.tables import Station, Unit
from app.runtime import Runtime
from app.settings import Environment, Settings, SmsSender
from app.tables import every_table
from tests.conftest import Clock, make_settings
from tests.support.worlds import SomeAdmin, a_station, a_unit, an_admin

pytestmark = pytest.mark.anyio

URL = "https://hooks.example.org/alerts?key=URL-KEY"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return make_settings(tmp_path, database_url, webhook_hosts="hooks.example.org, b.example.org")


class City:
    """A city with two districts, a station in each, and its chief."""

    def __init__(self, held: Runtime, client: httpx.AsyncClient) -> None:
        self.held = held
        self.client = client
        self.root: Unit
        self.districts: list[Unit]
        self.stations: list[Station]
        self.chief: SomeAdmin

    async def build(self) -> "City":
        """Build it."""
        at = self.held.now()
        async with self.held.database.write() as tx:
            self.root = await a_unit(tx, at=at)
            self.districts = [
                await a_unit(tx, parent=self.root, at=at, name=name) for name in ("渝中", "江津")
            ]
            streets = [
                await a_unit(tx, parent=each, at=at, name="某街道") for each in self.districts
            ]
            self.stations = [await a_station(tx, unit=each, at=at) for each in streets]
            self.chief = await an_admin(tx, at=at)
        return self

    async def ask(
        self, method: str, path: str, status: int = 200, *, admin: SomeAdmin | None = None, **m: Any
    ) -> Any:
        """Ask below /v1/admin/webhooks, as the chief."""
        headers = (admin or self.chief).headers
        answer = await self.client.request(
            method, f"/v1/admin/webhooks{path}", headers=headers, **m
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    async def add(self, unit: Unit, **more: Any) -> dict[str, Any]:
        """Add a webhook."""
        body = {"unit": str(unit.id), "name": "值班室", "url": URL, **more}
        found: dict[str, Any] = await self.ask("POST", "", 201, json=body)
        return found

    async def alert(self, kind: AlertKind, station: Station | None) -> uuid.UUID:
        """Open an alert."""
        at = self.held.now()
        evidence = Evidence(kind, f"x:{uuid.uuid4()}", station.id if station else None, at)
        async with self.held.database.write() as tx:
            return await book.note(tx, evidence, at=at)

    async def heard(self, webhook: dict[str, Any]) -> set[uuid.UUID]:
        """Give the alerts that are queued for a webhook."""
        async with self.held.database.read() as tx:
            rows = await tx.scalars(
                sa.select(Delivery.alert_id).where(Delivery.webhook_id == uuid.UUID(webhook["id"]))
            )
            return {each for each in rows if each is not None}


@pytest.fixture
async def city(runtime: Runtime, client: httpx.AsyncClient) -> City:
    return await City(runtime, client).build()


async def test_a_webhook_lives_from_adding_to_retiring(city: City, runtime: Runtime) -> None:
    made = await city.add(city.districts[0], kinds=["tamper", "door_forced", "tamper"])
    path = f"/{made['id']}"
    assert (made["kinds"], made["severities"]) == (["door_forced", "tamper"], None)
    assert made["secret"].startswith("whsec_")
    assert len(made["secret"]) > 40
    shown = await city.ask("GET", path)
    assert "secret" not in shown
    assert [row["id"] for row in await city.ask("GET", "")] == [made["id"]]
    changed = await city.ask("PATCH", path, json={"kinds": None, "name": "新名", "enabled": False})
    assert (changed["kinds"], changed["name"]) == (None, "新名")
    assert changed["off_because"] == "administrator"
    await city.ask("POST", f"{path}/test", 409)
    assert await city.ask("PATCH", path, json={}) == changed
    await city.ask("PATCH", path, json={"enabled": True, "url": "https://b.example.org/"})
    test = await city.ask("POST", f"{path}/test", 202)
    assert (test["event"], test["alert_id"], test["state"]) == ("test", None, "due")
    assert await city.ask("POST", f"{path}/test", 202) == test  # One at a time.
    await city.alert(AlertKind.TAMPER, city.stations[0])
    assert len(await city.ask("GET", f"{path}/deliveries?state=due")) == 2
    rotated = await city.ask("POST", f"{path}/rotate-secret", json={"overlap_hours": 0})
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_until"] is None
    retired = await city.ask("POST", f"{path}/retire")
    assert retired["retired_at"] is not None
    assert await city.ask("POST", f"{path}/retire") == retired
    for method, below, body in (
        ("POST", "/test", None),
        ("POST", "/rotate-secret", {}),
        ("PATCH", "", {"enabled": True}),
    ):
        assert (await city.ask(method, path + below, 409, json=body))["code"] == "webhook_off"
    states = {row["state"] for row in await city.ask("GET", f"{path}/deliveries")}
    assert states == {"failed"}
    await city.alert(AlertKind.TAMPER, city.stations[0])
    assert len(await city.ask("GET", f"{path}/deliveries")) == 2
    async with runtime.database.read() as tx:
        entries = (await tx.scalars(sa.select(AuditEntry).order_by(AuditEntry.id))).all()
    assert [entry.action for entry in entries] == [
        Action.WEBHOOK_ADDED,
        Action.WEBHOOK_AMENDED,
        Action.WEBHOOK_AMENDED,
        Action.WEBHOOK_TESTED,
        Action.WEBHOOK_SECRET_ROTATED,
        Action.WEBHOOK_RETIRED,
    ]
    assert {entry.unit_path for entry in entries} == {city.districts[0].path}
    trail = str([(entry.before, entry.after) for entry in entries])
    assert "hooks.example.org" in trail
    for secret in ("URL-KEY", "whsec_"):
        assert secret not in trail


async def test_the_secret_lies_sealed(city: City, runtime: Runtime) -> None:
    made = await city.add(city.root)
    rotated = await city.ask("POST", f"/{made['id']}/rotate-secret", json={})
    await city.ask("POST", f"/{made['id']}/test", 202)
    async with runtime.database.read() as tx:
        for table in every_table().sorted_tables:
            for row in (await tx.execute(sa.select(table))).all():
                text = repr([bytes(v) if isinstance(v, memoryview) else v for v in row])
                for secret in (made["secret"], rotated["secret"]):
                    assert secret not in text, table.name


async def test_a_webhook_hears_its_branch_and_the_citys_hears_all(city: City) -> None:
    citys, first, second = [
        await city.add(unit) for unit in (city.root, city.districts[0], city.districts[1])
    ]
    urgent = await city.add(city.root, severities=["urgent"])
    held = await city.add(city.districts[0], kinds=["door_held"])
    forced = await city.alert(AlertKind.DOOR_FORCED, city.stations[0])
    holding = await city.alert(AlertKind.DOOR_HELD, city.stations[0])
    other = await city.alert(AlertKind.DOOR_HELD, city.stations[1])
    calendar = await city.alert(AlertKind.CALENDAR_MISSING, None)
    assert await city.heard(citys) == {forced, holding, other, calendar}
    assert await city.heard(first) == {forced, holding}
    assert await city.heard(second) == {other}
    assert await city.heard(urgent) == {forced}
    assert await city.heard(held) == {holding}


async def test_who_has_a_branch_sees_its_webhooks_only(city: City, runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        bound = await an_admin(tx, at=at, role=Role.CITY_ADMIN, unit=city.districts[0])
        unit_admin = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=city.districts[0])
    own, foreign = [await city.add(unit) for unit in city.districts]
    above = await city.add(city.root)
    assert [row["id"] for row in await city.ask("GET", "", admin=bound)] == [own["id"]]
    await city.ask("GET", f"/{own['id']}", admin=bound)
    for hidden in (foreign, above):
        for method, below in (
            ("GET", ""),
            ("PATCH", ""),
            ("GET", "/deliveries"),
            ("POST", "/test"),
            ("POST", "/rotate-secret"),
            ("POST", "/retire"),
        ):
            path = f"/{hidden['id']}{below}"
            problem = await city.ask(method, path, 404, admin=bound, json={})
            assert problem["code"] == "webhook_not_found"
    for unit in (city.root, city.districts[1]):
        body = {"unit": str(unit.id), "name": "x", "url": URL}
        problem = await city.ask("POST", "", 404, admin=bound, json=body)
        assert problem["code"] == "unit_not_found"
    await city.ask("GET", "", 403, admin=unit_admin)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.org/",
        "https://hooks.example.org:8443/",
        "http://hooks.example.org/",
        "https://127.0.0.1/",
        "https://hooks.example.org@127.0.0.1/",
        "https://sub.hooks.example.org/",
    ],
)
async def test_only_listed_hosts(city: City, url: str) -> None:
    body = {"unit": str(city.root.id), "name": "x", "url": url}
    assert (await city.ask("POST", "", 422, json=body))["code"] == "webhook_invalid"
    made = await city.add(city.root)
    problem = await city.ask("PATCH", f"/{made['id']}", 422, json={"url": url})
    assert problem["code"] == "webhook_invalid"
    assert (await city.ask("GET", f"/{made['id']}"))["url"] == URL


@pytest.mark.parametrize(
    "body",
    [
        {"name": None},
        {"url": None},
        {"enabled": None},
        {"enabled": "yes"},
        {"kinds": []},
        {"kinds": ["no_such_kind"]},
        {"severities": ["loud"]},
        {"secret": "mine"},
        {"unit": "00000000-0000-0000-0000-000000000000"},
    ],
)
async def test_what_a_webhook_cannot_be_changed_to(city: City, body: dict[str, Any]) -> None:
    made = await city.add(city.root)
    problem = await city.ask("PATCH", f"/{made['id']}", 422, json=body)
    assert problem["code"] == "request_invalid"


@pytest.fixture
async def closed(tmp_path: Path, database_url: str, clock: Clock) -> AsyncIterator[FastAPI]:
    """The service as it comes: no host is listed."""
    settings = make_settings(tmp_path, database_url)
    assert settings.webhook_hosts == ()
    app = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    async with app.router.lifespan_context(app):
        yield app


async def test_webhooks_are_off_until_somebody_lists_a_host(closed: FastAPI) -> None:
    transport = httpx.ASGITransport(closed)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        city = await City(closed.state.runtime, client).build()
        body = {"unit": str(city.root.id), "name": "x", "url": URL}
        assert (await city.ask("POST", "", 422, json=body))["code"] == "webhook_invalid"


def test_the_setting_takes_names_and_no_other_port_in_production(tmp_path: Path) -> None:
    found = make_settings(tmp_path, "", webhook_hosts="A.example.org:443, b.example.org:8443,")
    assert found.webhook_hosts == ("a.example.org", "b.example.org:8443")
    for wrong in ("127.0.0.1", "*.example.org", "https://a.example.org", "localhost", "::1", "a b"):
        with pytest.raises(ValidationError, match="WEBHOOK_HOSTS"):
            make_settings(tmp_path, "", webhook_hosts=wrong)
    production: dict[str, Any] = {
        "environment": Environment.PRODUCTION,
        "secret_kek": "q83vEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJo=",
        "public_url": "https://yizhan.example.org",
        "sms_sender": SmsSender.HTTP,
        "sms_url": "https://sms.example.org",
    }
    assert make_settings(tmp_path, "", webhook_hosts="a.example.org", **production).is_production
    with pytest.raises(ValidationError, match="no other port"):
        make_settings(tmp_path, "", webhook_hosts="a.example.org:8443", **production)
