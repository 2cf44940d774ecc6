"""What a search near a point asks the database, held against measuring every station."""

import asyncio
import random
from datetime import date, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import Database
from app.db.types import new_id
from app.places import nearby
from app.places.nearby import USABLE
from app.places.rules import (
    Calendar,
    ChangeKind,
    DayClass,
    StationRules,
    Tier,
    distance_m,
    grid_cell,
    mode_at,
    parse_hours,
)
from app.places.rules.mode import Change
from app.places.tables import Facility, ModeChange, Station
from app.runtime import Runtime
from tests.support.statements import statements_of
from tests.support.worlds import DAY_AND_NIGHT, OFFICE_HOURS, a_facility, a_station, a_unit

pytestmark = pytest.mark.anyio

CENTRE = (29.5583, 106.5772)
PLACES = {
    "city": CENTRE,
    "date line, west of it": (0.02, 179.999),
    "date line, east of it": (51.0, -179.999),
    "north pole": (90.0, 0.0),
    "near the north pole": (89.97, -135.0),
    "south pole": (-90.0, 77.0),
    "Greenwich": (51.48, 0.001),
}
CALENDAR = Calendar({date(2026, 11, 24): DayClass.PUBLIC_HOLIDAY}, frozenset({2026}))
NIGHT_SHIFT: dict[str, Any] = {
    "regular": [{"weekday": day, "opens": "20:00", "closes": "08:00"} for day in range(1, 6)],
    "public_holiday": [],
    "makeup_workday": None,
}
HOURS = [None, DAY_AND_NIGHT, OFFICE_HOURS, NIGHT_SHIFT]


async def random_stations(
    tx: AsyncSession, rng: random.Random, at: datetime
) -> list[tuple[Station, list[ModeChange]]]:
    """Stations thick around every place, of all kinds of hours, some with changes or retired."""
    unit = await a_unit(tx, at=at)
    found = []
    for number in range(280):
        latitude, longitude = list(PLACES.values())[number % len(PLACES)]
        spread = rng.choice((0.001, 0.02, 0.2))
        latitude = min(90.0, max(-90.0, rng.gauss(latitude, spread)))
        longitude = rng.uniform(-180, 180) if abs(latitude) > 89.9 else rng.gauss(longitude, spread)
        station = await a_station(
            tx,
            unit=unit,
            at=at,
            latitude=latitude,
            longitude=(longitude + 180) % 360 - 180,
            staffed_hours=rng.choice(HOURS),
            access_hours=rng.choice(HOURS),
            timezone=rng.choice(("Asia/Shanghai", "UTC", "Pacific/Auckland")),
            retired_at=at if rng.random() < 0.1 else None,
        )
        changes = [
            ModeChange(
                id=new_id(),
                station_id=station.id,
                tier=rng.choice(list(Tier)),
                kind=rng.choice(list(ChangeKind)),
                from_at=at + timedelta(hours=rng.uniform(-30, 30)),
                until_at=at + timedelta(hours=rng.uniform(30, 60)),
                note="",
                created_at=at - timedelta(hours=rng.uniform(0, 90)),
                changed_at=at,
                retired_at=rng.choice((None, None, at)),
            )
            for _ in range(rng.choice((0, 0, 1, 3)))
        ]
        tx.add_all(changes)
        found.append((station, changes))
    await tx.flush()
    return found


def is_usable(station: Station, changes: list[ModeChange], at: datetime) -> bool:
    """Ask the mode function itself about one station."""
    rules = StationRules(
        timezone=station.timezone,
        staffed=parse_hours(station.staffed_hours) if station.staffed_hours else None,
        access=parse_hours(station.access_hours) if station.access_hours else None,
        changes=tuple(
            Change(each.kind, each.tier, each.from_at, each.until_at, each.created_at)
            for each in changes
            if each.retired_at is None
        ),
    )
    return mode_at(rules, CALENDAR, at).kind in USABLE


@pytest.mark.parametrize("seed", range(3))
async def test_usable_now_is_what_looking_at_every_station_gives(
    runtime: Runtime, seed: int
) -> None:
    rng, at = random.Random(seed), runtime.now()
    seen = 0
    async with runtime.database.write() as tx:
        stations = await random_stations(tx, rng, at)
        for latitude, longitude in PLACES.values():
            for radius_m in (150, 5_000, 20_000):
                then = at + timedelta(hours=rng.uniform(0, 40))
                excluded = rng.choice(stations)[0].id
                measured = sorted(
                    (distance_m(latitude, longitude, each.latitude, each.longitude), each.id)
                    for each, changes in stations
                    if each.retired_at is None
                    and each.id != excluded
                    and is_usable(each, changes, then)
                )
                found = await nearby.usable_near(
                    tx,
                    CALENDAR,
                    latitude=latitude,
                    longitude=longitude,
                    radius_m=radius_m,
                    at=then,
                    limit=7,
                    excluding=excluded,
                )
                expected = [key for metres, key in measured if metres <= radius_m][:7]
                assert [each.id for each in found] == expected
                assert all(each.mode.kind in USABLE for each in found)
                seen += len(found)
    assert seen > 50


async def test_no_station_is_too_many_to_find_the_nearest(runtime: Runtime) -> None:
    at = runtime.now()
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=at)
        one = await a_station(tx, unit=unit, at=at, latitude=29.53)
        copy = {column.name: getattr(one, column.name) for column in Station.__table__.columns}
        rows = [copy | {"id": new_id(), "code": f"N{number}"} for number in range(5_523)]
        await tx.execute(sa.insert(Station), rows)
        nearest = await a_station(tx, unit=unit, at=at, latitude=29.5584)
        found = await nearby.usable_near(
            tx, CALENDAR, latitude=CENTRE[0], longitude=CENTRE[1], radius_m=5_000, at=at, limit=1
        )
    assert [each.id for each in found] == [nearest.id]


async def a_whole_city(database: Database, at: datetime) -> None:
    """20,000 stations with a facility each, thicker in the city, some of them retired."""
    rng = random.Random(5)
    async with database.write() as tx:
        unit = await a_unit(tx, at=at)
        one = await a_station(tx, unit=unit, at=at)
        copy = {column.name: getattr(one, column.name) for column in Station.__table__.columns}
        rows = []
        for number in range(20_000):
            spread = rng.choice((0.05, 2.0))
            latitude, longitude = (rng.gauss(middle, spread) for middle in CENTRE)
            rows.append(
                copy
                | {
                    "id": new_id(),
                    "code": f"N{number}",
                    "latitude": latitude,
                    "longitude": longitude,
                    "cell": grid_cell(latitude, longitude),
                    "retired_at": at if rng.random() < 0.05 else None,
                }
            )
        await tx.execute(sa.insert(Station), rows)
        thing = await a_facility(tx, one, at=at)
        copy = {column.name: getattr(thing, column.name) for column in Facility.__table__.columns}
        things = [copy | {"id": new_id(), "station_id": row["id"]} for row in rows]
        await tx.execute(sa.insert(Facility), things)
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
        await connection.commit()


async def plans_of(database: Database, sent: list[tuple[str, Any]]) -> list[str]:
    """Ask the database how it runs these statements."""
    explain = "EXPLAIN QUERY PLAN " if database.is_embedded else "EXPLAIN "
    found = []
    async with database.read() as tx:
        connection = await tx.connection()
        for statement, parameters in sent:
            rows = await connection.exec_driver_sql(explain + statement, parameters)
            found.append("\n".join(str(row) for row in rows))
    return found


QUESTIONS: list[dict[str, Any]] = [
    {"radius_m": 300},
    {"radius_m": 20_000, "near": "31.2,108.9"},
    {"radius_m": 1_000, "usable": "now"},
    {"radius_m": 1_000, "facility": "microwave"},
    {"radius_m": 1_000, "q": "解放碑"},
    {"near": "0.001,179.9999"},
    {"near": "89.99,0"},
]


async def test_over_http_a_search_reads_the_cells_around_it_and_no_table_from_end_to_end(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    database = runtime.database
    await a_whole_city(database, runtime.now())
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        if "FROM stations" in statement:
            sent.append((statement, parameters))

    await asyncio.sleep(0.5)  # The bells' connection stands: nothing is forgotten any more.
    await client.get("/v1/stations")
    engine = database.reading_engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    for question in QUESTIONS:
        sent.clear()
        asked: dict[str, Any] = {"near": f"{CENTRE[0]},{CENTRE[1]}", "limit": 50} | question
        with statements_of(database) as all_sent:
            answer = await client.get("/v1/stations", params=asked)
        assert answer.status_code == 200, answer.text
        # Two of the search, one of its modes, one of its heads, and two of whether anybody knows
        # how full it is, however many were found.
        assert len(all_sent) <= 6, all_sent
        plans = await plans_of(database, list(sent))
        assert "ix_stations_cell" in plans[0], plans[0]
        for plan in plans:
            assert "SCAN stations" not in plan
            assert "Seq Scan on stations" not in plan
    event.remove(engine, "before_cursor_execute", note)
