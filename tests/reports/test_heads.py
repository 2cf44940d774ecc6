"""Heads that staff counted: a count tells of all of its time, on either side of midnight."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Actor
from app.db.settled import SLACK
from app.people.admins import Roots
from app.places import held
from app.places.tables import Station
from app.reports import changes, comparing, queries
from app.reports.rollup import Terms, roll_up
from app.reports.rules import Bucket, By, Period
from app.reports.scope import Scope
from app.runtime import Runtime
from app.visits import headcounts
from app.visits.headcounts import HeadCount
from app.visits.tables import WalkInCount
from tests.support.worlds import DAY_AND_NIGHT, a_station, always, an_admin

pytestmark = pytest.mark.anyio

DAY = date(2026, 11, 24)
MIDNIGHT = datetime(2026, 11, 23, 16, tzinfo=UTC)
A_DAY = timedelta(days=1)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


async def a_place(runtime: Runtime, **station: Any) -> Station:
    """It has no controller: only staff can tell of it."""
    async with runtime.database.write() as tx:
        found = await a_station(tx, at=at(-30), **station)
    for hours in (0, 24, 48):
        await held.record_all(runtime.database, now=always(at(hours)))
    return found


async def count(
    runtime: Runtime,
    station: Station,
    since: float,
    until: float,
    *,
    written: float,
    heads: int = 7,
) -> WalkInCount:
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=at(-30))
        counted = HeadCount(heads, at(since), at(until))
        return await headcounts.add(tx, station, counted, actor=Actor(admin.id), at=at(written))


async def withdraw(
    tx: AsyncSession, station: Station, counted: WalkInCount, *, written: datetime
) -> None:
    actor = Actor(counted.admin_id)
    await headcounts.withdraw(tx, station, counted.id, actor=actor, at=written)


async def rolled(runtime: Runtime, hours: float) -> None:
    terms = Terms(at=at(hours), retention=timedelta(days=180), silence=timedelta(seconds=75))
    await roll_up(runtime.database, terms)


def scope_of(station: Station, hours: float) -> Scope:
    """Ask about two days."""
    return Scope(
        stations=sa.select(Station.id),
        roots=Roots(stations=[station.id]),
        period=Period(DAY, DAY + 2 * A_DAY),
        by=By.STATION,
        at=at(hours),
        retained_since=DAY - timedelta(days=180),
    )


async def told(runtime: Runtime, station: Station, report: Any, hours: float) -> Sequence[Any]:
    """Count what changed, and ask about two days by the day."""
    await rolled(runtime, hours)
    scope = replace(scope_of(station, hours), bucket=Bucket.DAY)
    async with runtime.database.read() as tx:
        rows: Sequence[Any] = await report(tx, scope)
    return rows


async def test_one_count_over_all_staffed_hours_covers_them_all(runtime: Runtime) -> None:
    station = await a_place(runtime)
    await count(runtime, station, 8, 18, written=19)
    first, second = await told(runtime, station, queries.visits, 48)
    assert (first.staffed_hours, first.covered_hours, first.free_mode_coverage) == (10, 10, 1)
    assert (second.staffed_hours, second.covered_hours, second.free_mode_coverage) == (10, 0, 0)
    assert (first.walk_in_heads, second.walk_in_heads) == (7, None)
    assert (first.head_counts, second.head_counts) == (1, 0)


async def test_nobody_who_was_counted_is_zero_and_nobody_who_counts_is_no_data(
    runtime: Runtime,
) -> None:
    station = await a_place(runtime)
    await count(runtime, station, 8, 9, written=10, heads=0)
    await count(runtime, station, 9, 10, written=10, heads=0)
    first, second = await told(runtime, station, queries.visits, 48)
    assert (first.walk_in_heads, first.head_counts) == (0, 2)
    assert (second.walk_in_heads, second.head_counts) == (None, 0)
    async with runtime.database.read() as tx:
        hours = await queries.visits(tx, replace(scope_of(station, 48), bucket=Bucket.HOUR))
    assert {(row.walk_in_heads, row.head_counts) for row in hours} == {(None, None)}


@pytest.mark.parametrize(
    ("counted", "heads", "head_counts"),
    [
        ((7, None), (None, None, None), (0, 1.0, -1.0)),
        ((7, 0), (0, 7.0, -1.0), (1, 1.0, 0.0)),
        ((7, 21), (21, 7.0, 2.0), (1, 1.0, 0.0)),
        ((None, 7), (None, None, None), (1, 0.0, None)),
    ],
)
async def test_a_keeper_who_was_away_makes_nobody_come_less(
    runtime: Runtime,
    counted: tuple[int | None, int | None],
    heads: tuple[float | None, ...],
    head_counts: tuple[float | None, ...],
) -> None:
    """A day beside the one before it, each with a count or without."""
    station = await a_place(runtime)
    for day, number in enumerate(counted):
        if number is not None:
            begins = 24 * day + 9
            await count(runtime, station, begins, begins + 1, written=begins + 1, heads=number)
    await rolled(runtime, 50)
    scope = replace(scope_of(station, 50), period=Period(DAY + A_DAY, DAY + 2 * A_DAY))
    async with runtime.database.read() as tx:
        rows = await queries.visits(tx, scope)
        beside = await comparing.compared(tx, scope, "visits", rows)
    found = dict(zip(beside.columns, beside.rows[0], strict=True))
    for name, wanted in (("walk_in_heads", heads), ("head_counts", head_counts)):
        ends = ("over", "before", "change")
        assert tuple(found[f"{name}_{end}"] for end in ends) == wanted, name


async def test_a_count_over_midnight_tells_of_both_days_and_adds_its_heads_to_the_first(
    runtime: Runtime,
) -> None:
    """It is written down when both days were counted already, and is found all the same."""
    station = await a_place(runtime, staffed_hours=DAY_AND_NIGHT)
    before = await told(runtime, station, queries.occupancy, 50)
    assert [row.covered_hours for row in before] == [0, 0]
    await count(runtime, station, 22, 30, written=51)
    after = await told(runtime, station, queries.occupancy, 52)
    assert [row.heads_only_hours for row in after] == [2, 6]
    # Whom they counted is nobody inside: no mean is over that time.
    assert [row.reporting_hours for row in after] == [0, 0]
    rows = await told(runtime, station, queries.visits, 52)
    assert [(row.covered_hours, row.walk_in_heads) for row in rows] == [(2, 7), (6, None)]
    promised = await told(runtime, station, queries.promise, 52)
    assert [row.unknown_hours for row in promised] == [22, 18]
    # Counted again alone, the second day still knows of what began on the first.
    await count(runtime, station, 36, 37, written=53)
    rows = await told(runtime, station, queries.visits, 54)
    assert [row.covered_hours for row in rows] == [2, 7]
    assert [(row.walk_in_heads, row.head_counts) for row in rows] == [(7, 1), (7, 1)]


async def test_a_count_that_ends_at_midnight_tells_nothing_of_the_next_day(
    runtime: Runtime,
) -> None:
    station = await a_place(runtime, staffed_hours=DAY_AND_NIGHT)
    await count(runtime, station, 20, 24, written=25)
    rows = await told(runtime, station, queries.visits, 52)
    assert [row.covered_hours for row in rows] == [4, 0]


async def test_a_count_that_is_withdrawn_leaves_every_day_that_it_told_of(
    runtime: Runtime,
) -> None:
    """Both days were counted with it, and nothing else of them changes."""
    station = await a_place(runtime, staffed_hours=DAY_AND_NIGHT)
    counted = await count(runtime, station, 22, 30, written=31)
    rows = await told(runtime, station, queries.visits, 50)
    assert [(row.covered_hours, row.walk_in_heads) for row in rows] == [(2, 7), (6, None)]
    async with runtime.database.write() as tx:
        await withdraw(tx, station, counted, written=at(51))
    rows = await told(runtime, station, queries.visits, 52)
    assert [(row.covered_hours, row.walk_in_heads) for row in rows] == [(0, None), (0, None)]
    rows = await told(runtime, station, queries.occupancy, 52)
    assert [row.reporting_hours for row in rows] == [0, 0]
    rows = await told(runtime, station, queries.promise, 52)
    assert [row.usable_hours for row in rows] == [0, 0]
    again = await count(runtime, station, 23, 25, written=53)
    assert again.id != counted.id
    rows = await told(runtime, station, queries.visits, 54)
    assert [(row.covered_hours, row.walk_in_heads) for row in rows] == [(1, 7), (1, None)]


async def test_a_withdrawal_that_commits_after_a_search_is_found_by_the_next(
    runtime: Runtime,
) -> None:
    """The watermark stops before who is still at work."""
    station = await a_place(runtime, staffed_hours=DAY_AND_NIGHT)
    counted = await count(runtime, station, 8, 9, written=10)
    first, _ = await told(runtime, station, queries.visits, 11)
    assert first.walk_in_heads == 7
    if runtime.database.is_embedded:
        # One writer, who may have read the clock long before his turn came.
        async with runtime.database.write() as tx:
            await withdraw(tx, station, counted, written=at(11) - timedelta(seconds=30))
    else:
        async with runtime.database.write() as slow:
            written = at(11) + timedelta(seconds=1)
            await withdraw(slow, station, counted, written=written)
            async with runtime.database.read() as tx:
                await tx.execute(sa.text("SELECT pg_sleep(0.2)"))
                found = await changes.look(tx, at=written + SLACK + timedelta(seconds=0.1))
            async with runtime.database.write() as tx:
                await changes.note(tx, found)
    first, _ = await told(runtime, station, queries.visits, 11.1)
    assert (first.walk_in_heads, first.head_counts) == (None, 0)
