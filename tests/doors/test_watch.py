"""A whole city that falls silent or comes back is written down in a few statements."""

import secrets
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.alerts.webhooks.outbox import AT_ONCE
from app.alerts.webhooks.rules import EventKind
from app.alerts.webhooks.tables import Delivery, Webhook
from app.db.types import new_id, table_of
from app.doors import watch
from app.doors.tables import Controller, ControllerOutage
from app.places.tables import Station
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.statements import statements_of
from tests.support.worlds import Scene, a_scene

pytestmark = pytest.mark.anyio

CITY = 2 * AT_ONCE + 101
"""Controllers: no multiple of what a statement takes."""

PART = -(-CITY // AT_ONCE)


async def a_city(runtime: Runtime) -> Scene:
    """Give many stations as the one of a scene, each with a controller, and one webhook of all."""
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        for table, one in ((Station, scene.station.id), (Controller, scene.controller_id)):
            columns = table_of(table)
            row = (await tx.execute(sa.select(columns).where(columns.c.id == one))).one()
            values = [dict(row._mapping) | {"id": new_id()} for _ in range(CITY - 1)]
            if table is Station:
                stations = [one["id"] for one in values]
            for number, each in enumerate(values):
                if table is Station:
                    each["code"] = f"CITY{number}"
                else:
                    each["station_id"] = stations[number]
                    each["credential_hash"] = secrets.token_bytes(32)
            await tx.execute(sa.insert(columns), values)
        tx.add(a_webhook(scene, runtime))
    return scene


def a_webhook(scene: Scene, runtime: Runtime) -> Webhook:
    values: dict[str, Any] = dict.fromkeys(table_of(Webhook).c.keys())
    return Webhook(
        **values
        | {
            "id": new_id(),
            "unit_id": scene.station.unit_id,
            "name": "值班室",
            "url": "https://duty.example.org/",
            "secret_sealed": b"",
            "failures": 0,
            "created_at": runtime.now(),
            "changed_at": runtime.now(),
        }
    )


async def looks(runtime: Runtime) -> list[str]:
    """Look for silent controllers as the job does; gives the statements it took."""
    with statements_of(runtime.database) as statements:
        async with runtime.database.write() as tx:
            await watch.silence(tx, after=timedelta(seconds=75), at=runtime.now())
    return statements


async def told(runtime: Runtime) -> dict[EventKind, int]:
    async with runtime.database.read() as tx:
        rows = await tx.execute(
            sa.select(Delivery.event, sa.func.count(Delivery.alert_id.distinct())).group_by(
                Delivery.event
            )
        )
        return {row[0]: row[1] for row in rows}


async def heard(runtime: Runtime, *which: sa.ColumnElement[bool]) -> None:
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Controller).where(*which).values(seen_at=runtime.now()))


async def counted(runtime: Runtime, *which: sa.ColumnElement[bool]) -> int:
    async with runtime.database.read() as tx:
        query = sa.select(sa.func.count()).select_from(Alert).where(*which)
        return await tx.scalar(query) or 0


async def test_a_city_that_falls_silent_and_comes_back_takes_a_few_statements(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_city(runtime)
    last = runtime.now()
    clock.advance(76)
    fell = await looks(runtime)
    assert 0 < len(fell) <= 3 + 3 * PART
    opened = Alert.closed_at.is_(None), Alert.kind == AlertKind.CONTROLLER_SILENT
    assert await counted(runtime, *opened, Alert.opened_at == last + timedelta(seconds=75)) == CITY
    assert await told(runtime) == {EventKind.OPENED: CITY}

    assert len(await looks(runtime)) == 2  # Nothing new is written.
    assert await counted(runtime, *opened, Alert.count == 1) == CITY

    # All are heard; one of them came back less than five minutes ago.
    await heard(runtime)
    async with runtime.database.write() as tx:
        tx.add(
            ControllerOutage(
                controller_id=scene.controller_id,
                station_id=scene.station.id,
                from_at=last,
                until_at=runtime.now(),
                changed_at=runtime.now(),
            )
        )
    back = await looks(runtime)
    assert 0 < len(back) <= 4 + 3 * PART
    wavers = Alert.subject == f"controller:{scene.controller_id}"
    assert await counted(runtime, *opened) == await counted(runtime, *opened, wavers) == 1
    assert await told(runtime) == {EventKind.OPENED: CITY, EventKind.CLOSED: CITY - 1}

    # Again: the one that wavered adds to its alert, the others open anew.
    clock.advance(76)
    await looks(runtime)
    assert await counted(runtime, *opened) == CITY
    assert await counted(runtime, *opened, Alert.count == 2) == 1
    assert await counted(runtime, *opened, Alert.count == 2, wavers) == 1
    assert await told(runtime) == {EventKind.OPENED: 2 * CITY - 1, EventKind.CLOSED: CITY - 1}
