"""Who was inside is told only where whoever came had to be counted: else nothing is no nought."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.audit import Actor
from app.doors.tables import Controller, ListeningSpell
from app.people.admins import Roots
from app.places import held
from app.places.rules import Kind
from app.places.tables import Station
from app.reports import comparing, queries
from app.reports.ranking import Ranked, ranking
from app.reports.rollup import Terms, roll_up
from app.reports.rules import Bucket, By, Period
from app.reports.scope import Scope
from app.runtime import Runtime
from app.visits import headcounts
from app.visits.headcounts import HeadCount
from tests.reports.test_heads import DAY, at
from tests.reports.test_rollup import a_visit
from tests.support.worlds import DAY_AND_NIGHT, a_controller, a_station, always, an_admin

pytestmark = pytest.mark.anyio

INSIDE = (
    "avg_occupancy",
    "avg_when_used",
    "seat_utilization",
    "time_utilization",
    "peak_occupancy",
    "peak_at",
    "max_observed",
    "crowded_minutes",
)
"""What is said of who was inside."""
NOTHING = dict.fromkeys(INSIDE)
EMPTY = NOTHING | {
    "avg_occupancy": 0,
    "seat_utilization": 0,
    "time_utilization": 0,
    "peak_occupancy": 0,
    "max_observed": 0,
    "crowded_minutes": 0,
}
"""Nobody was there, and that is known."""


async def a_place(runtime: Runtime, *, heard: bool, **station: Any) -> Station:
    """Ten seats, staffed from 8 to 18; where it has a controller, that is heard all the time."""
    async with runtime.database.write() as tx:
        found = await a_station(tx, at=at(-30), capacity=10, **station)
        if heard:
            await a_controller(tx, found, at=at(-30))
            await tx.execute(sa.update(Controller).values(seen_at=at(60)))
            tx.add(ListeningSpell(from_at=at(-30), until_at=at(60)))
    for hours in (0, 24, 48):
        await held.record_all(runtime.database, now=always(at(hours)))
    return found


async def count(
    runtime: Runtime, station: Station, since: float, until: float, heads: int = 30
) -> None:
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=at(-30))
        counted = HeadCount(heads, at(since), at(until))
        await headcounts.add(tx, station, counted, actor=Actor(admin.id), at=at(until))


async def walk_in(runtime: Runtime, station: Station, *hours: float, **values: Any) -> None:
    async with runtime.database.write() as tx:
        for hour in hours:
            free = {"mode": Kind.FREE} | values
            tx.add(a_visit(station, at(hour), **{"written": at(hour)} | free))


def scope_of(
    station: Station, by: By = By.STATION, bucket: Bucket | None = None, days: int = 1
) -> Scope:
    return Scope(
        stations=sa.select(Station.id),
        roots=Roots(stations=[station.id]),
        period=Period(DAY, DAY + timedelta(days=days)),
        by=by,
        at=at(50),
        retained_since=DAY - timedelta(days=180),
        bucket=bucket,
    )


async def rolled(runtime: Runtime, hours: float = 50) -> None:
    terms = Terms(at=at(hours), retention=timedelta(days=180), silence=timedelta(seconds=75))
    await roll_up(runtime.database, terms)


async def told(
    runtime: Runtime, station: Station, by: By = By.STATION, bucket: Bucket | None = None
) -> Sequence[Any]:
    await rolled(runtime)
    async with runtime.database.read() as tx:
        return await queries.occupancy(tx, scope_of(station, by, bucket))


def inside(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in INSIDE}


@pytest.mark.parametrize("heard", [False, True])
async def test_heads_that_staff_counted_are_nobody_inside_and_no_empty_room_either(
    runtime: Runtime, heard: bool
) -> None:
    """Thirty sat on ten seats from 10 to 12, and nobody scanned."""
    station = await a_place(runtime, heard=heard)
    await count(runtime, station, 10, 12)
    (row,) = await told(runtime, station)
    assert inside(row) == NOTHING
    # What staff saw covers hours of theirs, and tells of nobody's seat.
    assert (row.staffed_hours, row.covered_hours, row.heads_only_hours) == (10, 2, 2)
    assert row.free_mode_coverage == 0.2
    assert row.reporting_hours == (24 if heard else 0)
    # Staff that counted held the door all the same.
    async with runtime.database.read() as tx:
        (kept,) = await queries.promise(tx, scope_of(station))
    assert kept.usable_hours == (24 if heard else 2)


async def test_counting_heads_all_day_makes_no_empty_room_of_a_full_one(runtime: Runtime) -> None:
    station = await a_place(runtime, heard=True, access_hours=None)
    await count(runtime, station, 8, 18)
    (row,) = await told(runtime, station)
    assert (row.free_mode_coverage, row.heads_only_hours) == (1, 10)
    assert inside(row) == NOTHING


async def test_an_open_door_that_nobody_scans_at_is_not_an_empty_room(runtime: Runtime) -> None:
    station = await a_place(runtime, heard=True, staffed_hours=DAY_AND_NIGHT)
    (row,) = await told(runtime, station)
    assert (row.reporting_hours, row.free_mode_coverage) == (24, 0)
    assert inside(row) == NOTHING


async def test_without_anything_that_tells_nobody_knows_how_full_it_was(runtime: Runtime) -> None:
    """Not even of hours in which only a scan opens: no controller is there to tell of one."""
    station = await a_place(runtime, heard=False, staffed_hours=None)
    (row,) = await told(runtime, station)
    assert (row.reporting_hours, row.free_mode_coverage) == (0, None)
    assert inside(row) == NOTHING


async def test_nights_in_which_only_a_scan_opens_are_known_also_to_be_empty(
    runtime: Runtime,
) -> None:
    """Cut by hour, each says what it can; a day of both says nothing of half of it."""
    station = await a_place(runtime, heard=True)
    rows = await told(runtime, station, By.HOUR)
    for row in rows:
        assert inside(row) == (NOTHING if 8 <= row.hour < 18 else EMPTY), row.hour


async def test_who_was_seen_is_told_of_where_enough_scan(runtime: Runtime) -> None:
    station = await a_place(runtime, heard=True)
    await walk_in(runtime, station, 8, 9, 10, 11)
    await count(runtime, station, 12, 18)
    (row,) = await told(runtime, station)
    assert (row.free_mode_coverage, row.heads_only_hours) == (1, 6)
    assert inside(row) == NOTHING
    await walk_in(runtime, station, 13, party_size=5, written=at(51))
    await rolled(runtime, 52)
    (row,) = await told(runtime, station)
    assert (row.covered_hours, row.heads_only_hours, row.reporting_hours) == (10, 5, 24)
    assert (row.avg_occupancy, row.avg_when_used) == (round(4.5 / 24, 4), 1.8)
    assert (row.seat_utilization, row.time_utilization) == (0.0188, 0.1042)
    assert (row.peak_occupancy, row.peak_at) == (5, at(13))
    assert (row.max_observed, row.crowded_minutes) == (5, 0)


async def test_who_was_seen_without_a_controller_is_the_most_that_was_seen(
    runtime: Runtime,
) -> None:
    """No controller is needed to scan at an open door; the means are over no time that is told."""
    station = await a_place(runtime, heard=False)
    await walk_in(runtime, station, 8, 9, 10, 11, 12)
    (row,) = await told(runtime, station)
    seen = {"peak_occupancy": 1, "peak_at": at(8), "max_observed": 1, "crowded_minutes": 0}
    assert inside(row) == NOTHING | seen


async def test_a_station_is_ranked_and_compared_only_where_it_is_known_how_full_it_was(
    runtime: Runtime,
) -> None:
    """The first day is hardly scanned at; the next, which is also a workday, is."""
    station = await a_place(runtime, heard=True)
    await walk_in(runtime, station, *range(32, 42))
    await rolled(runtime)
    second = Period(DAY + timedelta(days=1), DAY + timedelta(days=2))
    async with runtime.database.read() as tx:
        scope = scope_of(station)
        for period, value in ((scope.period, None), (second, 0.2083)):
            mine = replace(scope, period=period)
            columns = await ranking(tx, mine, Ranked.AVG_OCCUPANCY)
            assert columns[8] == [value]
        mine = replace(scope, period=second)
        rows = await queries.occupancy(tx, mine)
        beside = await comparing.compared(tx, mine, "occupancy", rows)
    found = dict(zip(beside.columns, beside.rows[0], strict=True))
    for name, value in (("avg_occupancy", 0.2083), ("crowded_minutes", 0)):
        assert (found[f"{name}_over"], found[f"{name}_before"]) == (value, None), name
    assert (found["covered_hours_over"], found["covered_hours_before"]) == (10, 0)
