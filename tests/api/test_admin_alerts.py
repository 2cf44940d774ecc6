"""Administrators see the alerts of their stations, take them on and close them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app import jobs
from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.audit import Action, AuditEntry
from app.people.tables import Role
from app.places.tables import Station
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.worlds import SomeAdmin, a_station, a_unit, an_admin

pytestmark = pytest.mark.anyio


async def an_alert(
    runtime: Runtime, station: Station | None, kind: AlertKind = AlertKind.DOOR_FORCED
) -> str:
    evidence = Evidence(kind, "door:1", station.id if station else None, runtime.now(), {"n": 1})
    async with runtime.database.write() as tx:
        return str(await book.note(tx, evidence, at=runtime.now()))


async def a_city(runtime: Runtime) -> tuple[Station, SomeAdmin, SomeAdmin, SomeAdmin]:
    """Give a station, its keeper, the chief of the city, and the keeper of another station."""
    async with runtime.database.write() as tx:
        at = runtime.now()
        unit = await a_unit(tx, at=at)
        station, other = [await a_station(tx, unit=unit, at=at) for _ in range(2)]
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=station)
        stranger = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=other)
        chief = await an_admin(tx, at=at)
    return station, keeper, chief, stranger


async def listed(client: httpx.AsyncClient, admin: SomeAdmin, **params: Any) -> list[str]:
    answer = await client.get("/v1/admin/alerts", params=params, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()]


async def test_an_alert_is_seen_in_its_scope_taken_on_and_closed(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    station, keeper, chief, stranger = await a_city(runtime)
    own, citys = await an_alert(runtime, station), await an_alert(runtime, None)
    # One open alert per kind and subject: the second evidence counted on the first.
    assert own == citys
    calendar = await an_alert(runtime, None, AlertKind.CALENDAR_MISSING)
    assert await listed(client, keeper) == [own]
    assert set(await listed(client, chief)) == {own, calendar}
    assert await listed(client, stranger) == []
    path = f"/v1/admin/alerts/{own}"
    assert (await client.get(path, headers=stranger.headers)).status_code == 404
    assert (await client.get(path, headers=keeper.headers)).json()["count"] == 2
    taken = await client.post(f"{path}/acknowledge", headers=keeper.headers)
    assert taken.json()["acknowledged_by"] == str(keeper.id)
    clock.advance(5)
    closed = await client.post(f"{path}/close", headers=keeper.headers)
    assert closed.json()["closed_by"] == str(keeper.id)
    again = await client.post(f"{path}/close", headers=chief.headers)
    assert again.json()["closed_by"] == str(keeper.id)
    assert await listed(client, keeper, state="open") == []
    assert await listed(client, keeper, state="closed") == [own]
    assert await an_alert(runtime, station) != own
    async with runtime.database.read() as tx:
        acts = list(await tx.scalars(sa.select(AuditEntry.action).order_by(AuditEntry.at)))
    assert acts == [Action.ALERT_ACKNOWLEDGED, Action.ALERT_CLOSED]


async def test_an_auditor_looks_and_does_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, *_ = await a_city(runtime)
    found = await an_alert(runtime, station)
    async with runtime.database.write() as tx:
        auditor = await an_admin(tx, at=runtime.now(), role=Role.AUDITOR)
    assert await listed(client, auditor) == [found]
    answer = await client.post(f"/v1/admin/alerts/{found}/close", headers=auditor.headers)
    assert answer.status_code == 403


async def test_a_kind_that_passes_closes_when_it_has_been_quiet(
    runtime: Runtime, clock: Clock
) -> None:
    station, *_ = await a_city(runtime)
    await an_alert(runtime, station, AlertKind.NOT_OPENED)
    await an_alert(runtime, station, AlertKind.DOOR_FORCED)
    clock.advance(3_599)
    await an_alert(runtime, station, AlertKind.NOT_OPENED)  # New evidence: the hour begins anew.
    for seconds, still_open in ((3_599, 2), (1, 1)):
        clock.advance(seconds)
        async with runtime.database.write() as tx:
            await book.close_quiet(tx, at=runtime.now())
            count = sa.select(sa.func.count()).where(Alert.closed_at.is_(None))
            assert await tx.scalar(count) == still_open


async def test_a_missing_calendar_is_an_alert_until_it_is_there(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    *_, chief, _ = await a_city(runtime)
    await jobs.warn_calendar(runtime)
    await jobs.warn_calendar(runtime)
    (found,) = await listed(client, chief, kind="calendar_missing", state="open")
    content = "date,day_class,name,state_council_notice\n2027-01-01,public_holiday,元旦,x\n"
    headers = chief.headers | {"Content-Type": "text/csv"}
    assert (
        await client.post("/v1/admin/calendar", content=content, headers=headers)
    ).status_code == 200
    await jobs.warn_calendar(runtime)
    assert await listed(client, chief, state="open") == []
    alert = (await client.get(f"/v1/admin/alerts/{found}", headers=chief.headers)).json()
    assert (alert["detail"], alert["closed_by"]) == ({"year": 2027}, None)
    assert clock.now() - runtime.now() == timedelta(0)


async def test_a_calendar_that_comes_after_the_new_year_ends_the_alert_too(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    *_, chief, _ = await a_city(runtime)
    await jobs.warn_calendar(runtime)
    clock.set(datetime(2027, 1, 2, tzinfo=UTC))
    await jobs.warn_calendar(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    assert len(await listed(client, chief, state="open")) == 1
    content = "date,day_class,name,state_council_notice\n2027-01-01,public_holiday,元旦,x\n"
    headers = chief.headers | {"Content-Type": "text/csv"}
    await client.post("/v1/admin/calendar", content=content, headers=headers)
    await jobs.warn_calendar(runtime)
    assert await listed(client, chief, state="open") == []
