"""What happened at a station after it was retired is told by every cut, and nothing is missing."""

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.people.admins import Roots
from app.places.tables import Station
from app.reports import queries
from app.reports.rollup import Terms, roll_up
from app.reports.rules import Bucket, By, Period
from app.reports.scope import Scope
from app.runtime import Runtime
from tests.reports.test_rollup import a_visit
from tests.support.worlds import a_station, a_unit

pytestmark = pytest.mark.anyio

DAY = date(2026, 11, 18)
MIDNIGHT = datetime(2026, 11, 17, 16, tzinfo=UTC)
"""Of the 18th, in Chongqing."""


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


async def a_district(runtime: Runtime) -> tuple[list[uuid.UUID], list[Any]]:
    """A district of three stations above a street of one; two of the three are retired at 22:00.

    At one of these somebody stays until 9 in the morning.
    """
    async with runtime.database.write() as tx:
        district = await a_unit(tx, at=at(-900))
        street = await a_unit(tx, parent=district, at=at(-900), name="街道")
        places = [
            await a_station(tx, unit=unit, at=at(-900), code=f"CQ{number:04d}", capacity=4)
            for number, unit in enumerate((district, district, district, street))
        ]
        for station in places[:2]:
            station.retired_at = at(-2)
        stay = a_visit(places[0], at(-3), 12 * 60, written=at(-3), party_size=2)
        tx.add_all([stay, a_visit(places[3], at(10), 60, written=at(10))])
    await roll_up(runtime.database, Terms(at(24.1), timedelta(days=180), timedelta(seconds=75)))
    return [district.id, street.id], places


def a_scope(root: uuid.UUID, by: By, bucket: Bucket | None = None, day: date = DAY) -> Scope:
    return Scope(
        stations=sa.select(Station.id),
        roots=Roots(units=[root]),
        period=Period(day, day + timedelta(days=1)),
        by=by,
        at=at(24.1),
        retained_since=DAY - timedelta(days=180),
        bucket=bucket,
    )


@pytest.mark.parametrize("bucket", [None, Bucket.DAY, Bucket.HOUR])
@pytest.mark.parametrize("by", [one for one in By if one.is_place])
async def test_who_stays_on_after_a_station_was_retired_is_told_by_every_cut(
    runtime: Runtime, by: By, bucket: Bucket | None
) -> None:
    (district, _), _ = await a_district(runtime)
    async with runtime.database.read() as tx:
        rows = await queries.occupancy(tx, a_scope(district, by, bucket))
    assert sum(row.person_hours or 0 for row in rows) == 2 * 9 + 1


async def test_a_retired_station_is_a_row_where_something_happened_and_nothing_is_missing(
    runtime: Runtime,
) -> None:
    (district, street), _ = await a_district(runtime)
    async with runtime.database.read() as tx:

        async def rows(by: By, bucket: Bucket | None = None, day: date = DAY) -> Any:
            return await queries.occupancy(tx, a_scope(district, by, bucket, day))

        stations = [
            (row.station, row.person_hours, row.known_share, row.max_observed, row.capacity)
            for row in await rows(By.STATION)
        ]
        units = {
            row.unit: (row.person_hours, row.known_share, row.capacity, row.station_hours)
            for row in await rows(By.UNIT)
        }
        hourly = [row.person_hours for row in (await rows(By.STATION, Bucket.HOUR))[:24]]
        next_day = [row.station for row in await rows(By.STATION, day=DAY + timedelta(days=1))]
        (the_day_before, *_) = await rows(By.STATION, Bucket.HOUR, DAY - timedelta(days=1))
    assert stations == [
        ("CQ0000", 18, 0, 2, 4),
        ("CQ0002", 0, 1, None, 4),
        ("CQ0003", 1, 1, 1, 4),
    ]
    assert units == {str(district): (18, 1, 4, 24), str(street): (1, 1, 4, 24)}
    assert hourly == [2] * 9 + [None] * 15
    assert next_day == ["CQ0002", "CQ0003"]
    assert the_day_before.person_hours == 0


async def test_who_was_let_in_by_a_controller_that_did_not_know_yet_is_told(
    runtime: Runtime,
) -> None:
    (district, _), places = await a_district(runtime)
    async with runtime.database.write() as tx:
        tx.add(a_visit(places[1], at(3), 0, written=at(25)))
    await roll_up(runtime.database, Terms(at(26), timedelta(days=180), timedelta(seconds=75)))
    async with runtime.database.read() as tx:
        rows = await queries.visits(tx, a_scope(district, By.STATION))
        (total,) = await queries.visits(tx, a_scope(district, By.ALL))
    assert [(row.station, row.visits) for row in rows][:2] == [("CQ0000", 0), ("CQ0001", 1)]
    assert total.visits == sum(row.visits or 0 for row in rows) == 2
    assert total.known_share == 1


async def test_a_station_that_was_retired_after_the_period_is_told_whatever_its_zone(
    runtime: Runtime,
) -> None:
    """One in Chongqing was gone before; elsewhere one is retired on that day, others since."""
    zones = ("Asia/Shanghai", "Asia/Urumqi", "Pacific/Apia", "Asia/Tokyo", "America/Lima")
    retired = (at(-200), at(100), at(200), None, at(20))
    async with runtime.database.write() as tx:
        district = await a_unit(tx, at=at(-900))
        for number, (timezone, retired_at) in enumerate(zip(zones, retired, strict=True)):
            code = f"CQ{number:04d}"
            station = await a_station(tx, unit=district, at=at(-900), code=code, timezone=timezone)
            station.retired_at = retired_at
            if number:
                tx.add(a_visit(station, at(12), written=at(13)))
    await roll_up(runtime.database, Terms(at(300), timedelta(days=180), timedelta(seconds=75)))
    async with runtime.database.read() as tx:
        asked = replace(a_scope(district.id, By.STATION), at=at(300))
        rows = await queries.visits(tx, asked)
        (total,) = await queries.visits(tx, replace(asked, by=By.ALL))
        (unit,) = await queries.visits(tx, replace(asked, by=By.UNIT))
    expected = [(f"CQ{number:04d}", 1) for number in range(1, len(zones))]
    assert [(row.station, row.visits) for row in rows] == expected
    assert total.visits == unit.visits == len(expected)
