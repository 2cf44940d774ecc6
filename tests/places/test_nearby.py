"""Search near a point finds what measuring every station finds, by the index."""

import random
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.cursors import PageRequest
from app.db.engine import Database
from app.db.types import new_id
from app.places import nearby
from app.places.rules import Calendar, ChangeKind, Tier, distance_m, walking_minutes
from app.places.tables import ModeChange, Station
from app.runtime import Runtime
from tests.support.statements import statements_of
from tests.support.worlds import OFFICE_HOURS, a_station, a_unit

pytestmark = pytest.mark.anyio

CALENDAR = Calendar({}, frozenset())
CENTRE = (29.5583, 106.5772)
CORNERS = [CENTRE, (0.0, 179.9995), (0.0, -179.9995), (89.99, 10.0), (-89.99, -170.0)]
"""A city, both sides of the date line, both poles."""


async def scattered(tx: AsyncSession, held: Runtime, number: int) -> list[Station]:
    rng, at = random.Random(7), held.now()
    unit = await a_unit(tx, at=at)
    found = []
    for count in range(number):
        latitude, longitude = CORNERS[count % len(CORNERS)]
        latitude = min(90.0, max(-90.0, rng.gauss(latitude, 0.02)))
        longitude = (rng.gauss(longitude, 0.02) + 180) % 360 - 180
        found.append(await a_station(tx, unit=unit, at=at, latitude=latitude, longitude=longitude))
    return found


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("radius_m", [300, 3_000, 20_000])
async def test_it_finds_what_measuring_every_station_finds(
    runtime: Runtime, corner: tuple[float, float], radius_m: int
) -> None:
    async with runtime.database.write() as tx:
        stations = await scattered(tx, runtime, 60)
        measured = {
            station.id: distance_m(*corner, station.latitude, station.longitude)
            for station in stations
        }
        expected = sorted((metres, key) for key, metres in measured.items() if metres <= radius_m)
        found = await nearby.near(
            tx,
            CALENDAR,
            latitude=corner[0],
            longitude=corner[1],
            radius_m=radius_m,
            at=runtime.now(),
            request=PageRequest(200),
        )
    assert [station.id for station in found.rows] == [key for _, key in expected]
    assert found.next is None
    for station in found.rows:
        assert station.distance_m == round(measured[station.id])
        assert station.walking_minutes == walking_minutes(measured[station.id])


async def test_only_stations_a_worker_gets_into_are_usable(runtime: Runtime) -> None:
    at = runtime.now()  # 23:40 in Chongqing.
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=at)
        scan = await a_station(tx, unit=unit, at=at)
        await a_station(tx, unit=unit, at=at, access_hours=OFFICE_HOURS)  # Closed at night.
        await a_station(tx, unit=unit, at=at, access_hours=None)
        await a_station(tx, unit=unit, at=at, retired_at=at)
        locked = await a_station(tx, unit=unit, at=at)
        tx.add(
            ModeChange(
                id=new_id(),
                station_id=locked.id,
                tier=Tier.OVERRIDE,
                kind=ChangeKind.LOCKDOWN,
                from_at=at - timedelta(hours=1),
                until_at=at + timedelta(hours=1),
                note="",
                created_at=at,
                changed_at=at,
            )
        )
        await tx.flush()
        with statements_of(runtime.database) as sent:
            found = await nearby.usable_near(
                tx, CALENDAR, latitude=CENTRE[0], longitude=CENTRE[1], radius_m=5000, at=at, limit=9
            )
    assert [station.id for station in found] == [scan.id]
    assert len(sent) == 2, sent


async def test_the_search_reads_an_index_and_never_every_station(
    database: Database, runtime: Runtime
) -> None:
    async with database.write() as tx:
        unit, at = await a_unit(tx, at=runtime.now()), runtime.now()
        one = await a_station(tx, unit=unit, at=at)
        copy = {column.name: getattr(one, column.name) for column in Station.__table__.columns}
        rows = [
            copy | {"id": new_id(), "code": f"N{number}", "cell": number * 7}
            for number in range(20_000)
        ]
        await tx.execute(sa.insert(Station), rows)
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
        await connection.commit()
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        sent.append((statement, parameters))

    event.listen(database.reading_engine.sync_engine, "before_cursor_execute", note)
    async with database.read() as tx:
        await nearby.usable_near(
            tx,
            CALENDAR,
            latitude=CENTRE[0],
            longitude=CENTRE[1],
            radius_m=5_000,
            at=runtime.now(),
            limit=3,
        )
        event.remove(database.reading_engine.sync_engine, "before_cursor_execute", note)
        statement, parameters = next(found for found in sent if "stations.cell" in found[0])
        explain = "EXPLAIN QUERY PLAN " if database.is_embedded else "EXPLAIN "
        connection = await tx.connection()
        rows = await connection.exec_driver_sql(explain + statement, parameters)
        plan = "\n".join(str(row) for row in rows)
    assert "ix_stations_cell" in plan, plan
    assert "SCAN stations" not in plan
    assert "Seq Scan on stations" not in plan


async def test_an_open_station_is_not_lost_behind_hundreds_of_closed_ones(
    runtime: Runtime,
) -> None:
    at = runtime.now()
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=at)
        closed = await a_station(tx, unit=unit, at=at, access_hours=OFFICE_HOURS)
        copy = {column.name: getattr(closed, column.name) for column in Station.__table__.columns}
        rows = [copy | {"id": new_id(), "code": f"D{number}"} for number in range(400)]
        await tx.execute(sa.insert(Station), rows)
        far = await a_station(tx, unit=unit, at=at, latitude=CENTRE[0] + 0.03)
        place = {"latitude": CENTRE[0], "longitude": CENTRE[1], "radius_m": 5_000}
        found = await nearby.usable_near(tx, CALENDAR, **place, at=at, limit=3)
        listed = await nearby.near(
            tx, CALENDAR, **place, at=at, usable=True, request=PageRequest(10)
        )
    assert [station.id for station in found] == [far.id]
    assert [station.id for station in listed.rows] == [far.id]


async def test_pages_around_a_point_follow_one_another(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        await scattered(tx, runtime, 50)
        seen, cursor = [], None
        while True:
            found = await nearby.near(
                tx,
                CALENDAR,
                latitude=CENTRE[0],
                longitude=CENTRE[1],
                radius_m=20_000,
                at=runtime.now(),
                request=PageRequest(3, cursor),
            )
            seen += [station.distance_m for station in found.rows]
            if found.next is None:
                break
            cursor = found.next
    assert len(seen) == 10
    assert seen == sorted(seen)
