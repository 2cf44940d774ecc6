"""Every report of every cut of random histories equals a plain recount, on both databases.

A history is written, counted, written on late and out of order, corrected, repeated and moved
between units, and counted again, several times; then everything is asked in every way.
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import Reason
from app.generate.history import generate
from app.generate.plan import Plan
from app.people.admins import Roots
from app.places.rules import Calendar, DayClass, Kind
from app.places.tables import Station, Unit
from app.reports import queries, spreads, vectors
from app.reports.changes import STATION_DAYS, put_due
from app.reports.frame import AT_ONCE, frame
from app.reports.health import Stood, stood
from app.reports.rollup import Terms, find, roll_up
from app.reports.rules import Bucket, By, Grain, Period
from app.reports.rules.counters import DWELL, REPAIR, C
from app.reports.rules.health import Day
from app.reports.scope import PeriodInvalid, Scope
from app.reports.tables import Rollup
from app.runtime import Runtime
from app.visits import presence
from tests.reports import oracle
from tests.reports.histories import AT, FIRST, Author, History
from tests.reports.oracle import Raw, Row

pytestmark = pytest.mark.anyio

RETENTION, SILENCE = timedelta(days=180), timedelta(seconds=75)
START = FIRST.date()
SHORT = Period(START, START + timedelta(days=4))
"""Four days, of which one is to come and one goes on."""
LONG = (
    Period(date(2026, 8, 15), date(2026, 12, 1)),
    Period(date(2026, 1, 1), date(2027, 1, 1)),
    Period(date(2026, 9, 1), START + timedelta(days=2)),
)
"""Periods that larger spans than days cover, a part of them still to come."""
CALENDAR = {START: DayClass.PUBLIC_HOLIDAY, START + timedelta(days=1): DayClass.MAKEUP_WORKDAY}

CUTS: list[tuple[By, Bucket | None]] = [
    *((by, bucket) for by in By if by.is_place for bucket in (None, *Bucket)),
    *((by, None) for by in By if not by.is_place),
    *((by, Bucket.HOUR) for by in By if not by.is_place and by is not By.HOUR),
]
LONG_CUTS = [
    *((LONG[0], by, bucket) for by, bucket in CUTS if bucket in (None, Bucket.MONTH)),
    *((period, by, None) for period in LONG[1:] for by in (By.STATION, By.UNIT, By.BRANCH, By.ALL)),
]
ALL_CUTS = [*((SHORT, by, bucket) for by, bucket in CUTS), *LONG_CUTS]
THIRDS = 3
"""Each history is cut in a third of all ways."""
SEEDS = range(int(os.environ.get("YIZHAN_HISTORIES", THIRDS)))
"""Others than these: YIZHAN_HISTORIES=60 tries every cut with twenty histories."""
ROUNDS = 3


@dataclass
class Told:
    """A history that was counted, and what it is made of."""

    tx: AsyncSession
    story: History
    raw: Raw
    at: datetime
    tables: dict[Any, list[Row]] = field(default_factory=dict)

    def scope(
        self, by: By = By.STATION, bucket: Bucket | None = None, period: Period = SHORT
    ) -> Scope:
        near, far, street = self.story.units
        units = [unit.id for unit in (near, far, street)]
        return Scope(
            stations=sa.select(Station.id).where(Station.unit_id.in_(units)),
            roots=Roots(units=[near.id, far.id]),
            period=period,
            by=by,
            at=self.at,
            retained_since=date(2026, 1, 1),
            bucket=bucket,
            calendar=Calendar(CALENDAR, frozenset({2026})),
        )

    def rows(self, scope: Scope) -> list[Row]:
        bucket = scope.bucket.value if scope.bucket else None
        period = scope.period.from_day, scope.period.to_day
        roots = tuple(scope.roots.units)
        asked = (id(self.raw), scope.by.value, bucket, period, roots)
        if asked not in self.tables:
            self.tables[asked] = oracle.table_of(self.raw, *asked[1:4], CALENDAR, roots)
        return self.tables[asked]


OLD = START - timedelta(days=12)
"""A day that an older version counted, which knew less."""


def by_an_older_version(day: Day) -> Stood:
    """Count a day's health; of an old one leave out what is counted only since."""
    found = stood(day)
    # At noon it is the same day in UTC, of all zones here.
    if datetime.fromtimestamp(day.edges[12] / 1000, UTC).date() != OLD:
        return found

    def cut(counts: bytes) -> bytes:
        kept = vectors.unpacked(counts).items()
        older = {key: n for key, n in kept if not TOLD <= key % vectors.HOUR < TOLD_UNTIL}
        return vectors.packed({key: n for key, n in older.items() if key % vectors.HOUR < REPAIR})

    return replace(found, whole=cut(found.whole), hours=cut(found.hours), reporting=())


TOLD, TOLD_UNTIL = C.TOLD_MS, C.REPORTING_USED_MS + 1


@asynccontextmanager
async def told(runtime: Runtime, seed: int, rounds: int = ROUNDS) -> AsyncIterator[Told]:
    """Write a history, count it, and write it on."""
    is_old = seed == 2
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        with pytest.MonkeyPatch.context() as patch:
            if is_old:
                patch.setattr("app.reports.health.stood", by_an_older_version)
            back = timedelta(days=100)
            author = Author(tx, runtime, random.Random(seed), back=back, days=dict(CALENDAR))
            story = await author.write()
            await tx.commit()
            at = AT
            await roll_up(runtime.database, Terms(at, RETENTION, SILENCE))
            for _ in range(rounds):
                at += timedelta(minutes=11)
                await author.go_on(written=at)
                await tx.commit()
                await roll_up(runtime.database, Terms(at, RETENTION, SILENCE))
        lives = story.lives
        known = oracle.Told(lives.of, lives.listened, lives.calendar, OLD if is_old else None)
        raw = await oracle.read_raw(tx, story.units, at, known)
        yield Told(tx, story, raw, at)


def differences(found: Any, wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    said = {name: getattr(found, name) for name in wanted}
    return {
        name: (said[name], value)
        for name, value in wanted.items()
        if said[name] not in (value if isinstance(value, frozenset) else (value,))
    }


Cuts = Sequence[tuple[Period, By, Bucket | None]]


async def compare(
    one: Told, report: Any, expected: Callable[[Row], dict[str, Any]], cuts: Cuts
) -> None:
    for period, by, bucket in cuts:
        scope = one.scope(by, bucket, period)
        rows: Sequence[Any] = await report(one.tx, scope)
        wanted = one.rows(scope)
        assert len(rows) == len(wanted), (by, bucket)
        for row, piece in zip(rows, wanted, strict=True):
            values = oracle.said(piece, expected(piece)) | {
                name: value for name, value in piece.name.items() if name in row._fields
            }
            assert differences(row, values) == {}, (by, bucket, period, piece.name)


async def compare_facilities(one: Told, cuts: Cuts) -> None:
    for period, by, bucket in cuts:
        scope = one.scope(by, bucket, period)
        rows = iter(await queries.facilities(one.tx, scope))
        for piece in one.rows(scope):
            wanted = oracle.facilities_of(piece)
            for kind in sorted(wanted):
                values = oracle.said(piece, wanted[kind]) | piece.name | {"kind": kind}
                assert differences(next(rows), values) == {}, (by, bucket, piece.name)
        assert list(rows) == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_report_of_every_cut_equals_a_plain_recount(
    runtime: Runtime, seed: int
) -> None:
    """The cuts are dealt out to the histories: together they try all of them."""
    cuts = ALL_CUTS[seed % THIRDS :: THIRDS]
    async with told(runtime, seed) as one:
        await compare(one, queries.visits, oracle.visits_of, cuts)
        await compare(one, queries.access, oracle.access_of, cuts)
        await compare(one, queries.occupancy, oracle.occupancy_of, cuts)
        await compare(one, queries.promise, oracle.promise_of, cuts)
        await compare_facilities(one, cuts)

        async def controllers(tx: AsyncSession, scope: Scope) -> Any:
            silent_since = AT - SILENCE
            return await queries.controllers(tx, scope, silent_since=silent_since)

        periods = [(period, By.STATION, None) for period in (SHORT, *LONG)]
        await compare(one, controllers, oracle.controllers_of, periods)


@dataclass
class Units:
    """Of a history, where it happened."""

    units: Sequence[Unit]


@dataclass
class Generated(Told):
    """A city that the generator made."""

    root: Any = None

    def scope(
        self, by: By = By.STATION, bucket: Bucket | None = None, period: Period = SHORT
    ) -> Scope:
        told = super().scope(by, bucket, period)
        return replace(told, stations=sa.select(Station.id), roots=Roots(units=[self.root]))


@dataclass
class Beneath(Told):
    """A history of which one unit's branch is asked."""

    root: Any = None
    stations: Any = None

    def scope(
        self, by: By = By.STATION, bucket: Bucket | None = None, period: Period = SHORT
    ) -> Scope:
        told = super().scope(by, bucket, period)
        return replace(told, stations=self.stations, roots=Roots(units=[self.root]))


async def test_every_report_of_a_generated_city_equals_a_plain_recount(runtime: Runtime) -> None:
    """Hundreds of visits of a believable week, cut in every way that a place can be.

    Who was inside is left to histories of whole minutes, as the recount sees them.
    """
    until = date(2026, 11, 20)
    plan = Plan(stations=8, days=7, until=until, smart_share=0.5, seed=7)
    made = await generate(runtime.database, plan)
    at = datetime(until.year, until.month, until.day, 4, tzinfo=UTC)
    week, year = Period(plan.from_day, until), LONG[1]
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        await roll_up(runtime.database, Terms(at, RETENTION, SILENCE))
        units = (await tx.scalars(sa.select(Unit))).all()
        (root,) = [unit.id for unit in units if unit.parent_id is None]
        raw = await oracle.read_raw(tx, units, at, await oracle.read_told(tx))
        one = Generated(tx, cast("Any", None), raw, at, root=root)
        one.story = cast("Any", Units(list(units[:3])))
        cuts = [
            *((week, by, bucket) for by, bucket in CUTS if bucket is not Bucket.HOUR),
            *((year, by, None) for by in (By.STATION, By.UNIT, By.BRANCH, By.ALL, By.MONTH)),
        ]
        await compare(one, queries.visits, oracle.visits_of, cuts)
        await compare(one, queries.access, oracle.access_of, cuts)
        await compare(one, queries.promise, oracle.promise_of, cuts[::3])
        await compare_facilities(one, cuts[::3])
    assert made.visits > 500
    assert {visit.mode for visit in raw.visits} >= {Kind.FREE, Kind.SCAN}
    assert any(scan.reason != Reason.OK for scan in raw.scans)


async def test_sums_of_before_histograms_stood_apart_say_the_same_also_beside_newer_ones(
    runtime: Runtime,
) -> None:
    cuts = [(LONG[1], By.STATION, None), *ALL_CUTS[::5]]
    async with told(runtime, 2, rounds=0) as one:

        async def answers() -> list[Any]:
            reports = (queries.visits, queries.access, queries.facilities)
            return [
                await report(one.tx, one.scope(by, bucket, period))
                for report in reports
                for period, by, bucket in cuts
            ]

        before = await answers()
        stale = spreads.written([vectors.packed({DWELL + 7: 9, C.DWELLS: 9})])[0]
        for number, row in enumerate(await one.tx.scalars(sa.select(Rollup))):
            # An older version knows nothing of what stands apart, and leaves it as it was.
            is_alone = number % 3 == 0 or not row.histograms
            row.counts += row.histograms or b""
            row.histograms = None if is_alone else stale["histograms"]
            row.percentiles = None if is_alone else stale["percentiles"]
        await one.tx.commit()
        assert await answers() == before
        station = one.story.stations[0].id
        await put_due(one.tx, {(station, Grain.DAY, START, STATION_DAYS)})
        await one.tx.commit()
        await roll_up(runtime.database, Terms(one.at, RETENTION, SILENCE))
        rows = (await one.tx.scalars(sa.select(Rollup))).all()
        assert {spreads.histograms_of(row.counts, b"") == b"" for row in rows} == {False, True}
        assert await answers() == before
    assert any(row.dwell_median_s for rows in before[: len(cuts)] for row in rows)


async def test_hours_that_an_older_version_counted_have_no_greatest_number_inside(
    runtime: Runtime,
) -> None:
    async with told(runtime, 0, rounds=0) as one:
        for row in await one.tx.scalars(sa.select(Rollup).where(Rollup.grain == Grain.DAY)):
            hours = vectors.unpacked(row.hours).items()
            row.hours = vectors.packed({key: n for key, n in hours if key % vectors.HOUR != C.MOST})
        await one.tx.commit()
        rows = await queries.occupancy(one.tx, one.scope(By.STATION, Bucket.HOUR))
    assert {row.max_observed for row in rows if row.person_hours} == {None}
    assert 0 in {row.max_observed for row in rows if row.person_hours == 0}


async def test_every_granted_scan_was_executed_or_something_else_became_of_it(
    runtime: Runtime,
) -> None:
    """In every hour the sum holds, and an hour that an older version counted says nothing of it."""
    ends = ["refused_after_grant", "failed", "expired", "unknown", "live"]
    async with told(runtime, 0, rounds=1) as one:

        async def hours() -> Sequence[Any]:
            return await queries.access(one.tx, one.scope(By.STATION, Bucket.HOUR))

        rows = [row for row in await hours() if row.known_share]
        for row in rows:
            assert row.granted == row.executed + sum(getattr(row, end) for end in ends)
        # Which of them a history deals is left to chance; `test_day.py` has each.
        assert len([end for end in ends if any(getattr(row, end) for row in rows)]) >= 2
        for row in await one.tx.scalars(sa.select(Rollup).where(Rollup.grain == Grain.DAY)):
            counts = vectors.unpacked(row.hours).items()
            kept = {key: n for key, n in counts if key % vectors.HOUR not in queries.NOT_EXECUTED}
            row.hours = vectors.packed(kept)
        await one.tx.commit()
        older = [row for row in await hours() if row.known_share]
    for row in older:
        said = {getattr(row, end) for end in ends}
        assert said == ({0} if row.granted == row.executed else {None})
    assert {row.failed for row in older} == {0, None}


async def test_heads_that_an_older_version_counted_are_told_and_how_often_is_not(
    runtime: Runtime,
) -> None:
    """It kept no number of counts: heads are no less known, and no heads are none that it knows."""
    async with told(runtime, 1, rounds=1) as one:

        async def days() -> Sequence[Any]:
            rows = await queries.visits(one.tx, one.scope(By.STATION, Bucket.DAY))
            return [row for row in rows if row.known_share]

        before = await days()
        for row in await one.tx.scalars(sa.select(Rollup)):
            kept = {k: n for k, n in vectors.unpacked(row.counts).items() if k != C.HEAD_COUNTS}
            row.counts = vectors.packed(kept)
        await one.tx.commit()
        older = await days()
    assert [row.walk_in_heads for row in older] == [row.walk_in_heads or None for row in before]
    for row, was in zip(older, before, strict=True):
        assert row.head_counts == (None if was.walk_in_heads else 0)
    assert any(row.walk_in_heads for row in older)
    assert None in {row.walk_in_heads for row in before}


async def test_the_mean_while_in_use_times_the_share_of_time_in_use_is_the_mean(
    runtime: Runtime,
) -> None:
    async with told(runtime, 0, rounds=0) as one:
        rows = await queries.occupancy(one.tx, one.scope(By.STATION, Bucket.DAY))
    compared = [row for row in rows if row.avg_when_used is not None]
    assert any(row.reporting_used_hours != row.used_hours for row in compared)
    for row in compared:
        product = row.avg_when_used * row.time_utilization
        assert product == pytest.approx(row.avg_occupancy, abs=0.001)


async def test_a_sweep_changes_no_figure(runtime: Runtime) -> None:
    async with told(runtime, 1, rounds=0) as one:
        scope = one.scope(By.STATION, Bucket.DAY)
        reports = (queries.visits, queries.occupancy)
        before = [await each(one.tx, scope) for each in reports]
        assert await presence.sweep(one.tx, at=one.at) > 0
        await one.tx.commit()
        await roll_up(runtime.database, Terms(one.at, RETENTION, SILENCE))
        assert [await each(one.tx, scope) for each in reports] == before


async def test_beyond_retention_only_what_was_counted_before_is_known(runtime: Runtime) -> None:
    async with told(runtime, 1, rounds=0) as one:
        day, many = one.scope(By.ALL, Bucket.DAY), one.scope(By.ALL)
        kept = [await queries.visits(one.tx, scope) for scope in (day, many)]
        late = AT + RETENTION + timedelta(days=10)
        await one.tx.commit()
        await roll_up(runtime.database, Terms(late, RETENTION, SILENCE))
        gone = replace(many, retained_since=SHORT.to_day)
        (over,) = await queries.visits(one.tx, gone)
        near, _, street = one.story.units
        mine = await oracle.read_raw(one.tx, [near, street], one.at, one.raw.told)
        year = replace(
            one.scope(By.ALL, None, Period(date(2026, 1, 1), date(2027, 1, 1))),
            stations=sa.select(Station.id).where(Station.unit_id.in_([near.id, street.id])),
            roots=Roots(units=[near.id]),
        )
        (closed,) = await queries.visits(one.tx, year)
    assert kept[1][0].unique_workers
    assert (over.visits, over.unmet_demand) == (kept[1][0].visits, kept[1][0].unmet_demand)
    assert (over.unique_workers, over.anonymous_visits) == (None, None)
    assert over.beyond_retention
    assert (closed.unique_workers, closed.beyond_retention) == (len(mine.workers), False)


async def test_of_a_single_root_the_peak_is_the_one_that_it_keeps(runtime: Runtime) -> None:
    """Of several roots days are put together; of one they were: both say the same."""
    async with told(runtime, 2) as one:
        near, _, street = one.story.units
        ids = [near.id, street.id]
        scope = replace(
            one.scope(By.ALL),
            stations=sa.select(Station.id).where(Station.unit_id.in_(ids)),
            roots=Roots(units=[near.id]),
        )
        one.raw = await oracle.read_raw(one.tx, [near, street], one.at, one.raw.told)
        for by, bucket in ((By.ALL, None), (By.UNIT, Bucket.DAY), (By.WEEKDAY, Bucket.HOUR)):
            asked = replace(scope, by=by, bucket=bucket)
            for row, piece in zip(
                await queries.occupancy(one.tx, asked), one.rows(asked), strict=True
            ):
                assert differences(row, oracle.said(piece, oracle.occupancy_of(piece))) == {}


async def test_a_model_of_one_station_has_its_peaks_also_by_the_hour(runtime: Runtime) -> None:
    async with told(runtime, 0, rounds=0) as one:
        station = one.story.stations[0].id

        async def peaks(by: By) -> list[Any]:
            scope = replace(
                one.scope(by, Bucket.HOUR),
                stations=sa.select(Station.id).where(Station.id == station),
                roots=Roots(stations=[station]),
            )
            return [
                (row.peak_occupancy, row.peak_at) for row in await queries.occupancy(one.tx, scope)
            ]

        assert await peaks(By.OPERATING_MODEL) == await peaks(By.STATION)
        assert any(peak for peak, _ in await peaks(By.STATION))


@pytest.mark.parametrize("seed", SEEDS)
async def test_branches_of_one_place_equal_a_plain_recount_and_sum_up_to_all(
    runtime: Runtime, seed: int
) -> None:
    """Of the city, three levels deep; of a district, beside what it keeps itself."""
    async with told(runtime, seed, rounds=1) as one:
        near, _, street = one.story.units
        everything = list(await one.tx.scalars(sa.select(Unit)))
        places = {one.story.above[0].id: everything, near.id: [near, street]}
        cuts = [cut for cut in ALL_CUTS if cut[1] is By.BRANCH][seed % THIRDS :: THIRDS]
        for root, units in places.items():
            one.raw = await oracle.read_raw(one.tx, units, one.at, one.raw.told)
            stations = sa.select(Station.id).where(Station.unit_id.in_([unit.id for unit in units]))
            beneath = Beneath(**vars(one), root=root, stations=stations)
            beneath.tables = {}
            await compare(beneath, queries.visits, oracle.visits_of, cuts)
            await compare(beneath, queries.access, oracle.access_of, cuts)
            await compare(beneath, queries.occupancy, oracle.occupancy_of, cuts)
            await compare(beneath, queries.promise, oracle.promise_of, cuts)
            await compare_facilities(beneath, cuts)
            each = await queries.visits(one.tx, beneath.scope(By.BRANCH))
            (total,) = await queries.visits(one.tx, beneath.scope(By.ALL))
            for figure in (
                "visits",
                "persons",
                "returns",
                "refused",
                "walk_in_heads",
                "head_counts",
            ):
                parts = [getattr(row, figure) or 0 for row in each]
                assert sum(parts) == (getattr(total, figure) or 0), figure


async def test_no_station_no_row_but_days_stay_days(runtime: Runtime) -> None:
    async with AsyncSession(runtime.database.engine) as tx:
        scope = Scope(
            stations=sa.select(Station.id).where(sa.false()),
            roots=Roots(),
            period=SHORT,
            by=By.STATION,
            at=AT,
            retained_since=START,
        )
        counts = {By.STATION: 0, By.UNIT: 0, By.BRANCH: 0, By.DAY: 4, By.HOUR: 24, By.ALL: 1}
        for by, count in counts.items():
            asked = replace(scope, by=by)
            for each in (queries.visits, queries.access, queries.occupancy, queries.promise):
                rows: Any = await each(tx, asked)
                assert len(rows) == count
                assert all(row.known_share == 0 for row in rows)
            assert await queries.facilities(tx, asked) == []
        assert await queries.controllers(tx, scope, silent_since=AT) == []


async def test_what_was_never_counted_is_not_known(runtime: Runtime) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        story = await Author(tx, runtime, random.Random(1)).write()
        one = Told(
            tx, story, await oracle.read_raw(tx, story.units, AT, await oracle.read_told(tx)), AT
        )
        for row in await queries.visits(tx, one.scope()):
            assert (row.known_share, row.visits) == (0.0, None)


async def test_what_was_found_and_not_yet_counted_is_not_known(runtime: Runtime) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        story = await Author(tx, runtime, random.Random(1)).write()
        await tx.commit()
        await find(runtime.database, at=AT)
        one = Told(
            tx, story, await oracle.read_raw(tx, story.units, AT, await oracle.read_told(tx)), AT
        )
        for row in await queries.visits(tx, one.scope()):
            assert (row.known_share, row.visits) == (0.0, None)


async def test_a_report_has_a_bound(runtime: Runtime) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        story = await Author(tx, runtime, random.Random(0)).write()
        one = Told(
            tx, story, await oracle.read_raw(tx, story.units, AT, await oracle.read_told(tx)), AT
        )
        most = len(one.raw.stations) * 4
        assert (await frame(tx, one.scope(By.STATION, Bucket.DAY), most=most)).rows == most
        with pytest.raises(PeriodInvalid, match="coarser bucket"):
            await frame(tx, one.scope(By.STATION, Bucket.HOUR), most=most)
        for by, bucket in ((By.HOUR, Bucket.HOUR), (By.DAY, Bucket.WEEK), (By.MONTH, Bucket.DAY)):
            with pytest.raises(PeriodInvalid, match=f"rows by {by.value} cannot be cut by"):
                await frame(tx, one.scope(by, bucket))


async def test_a_report_of_more_places_than_are_named_is_the_same_report(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a branch is of units alone, and beside it are a district's own stations."""
    async with told(runtime, 0, rounds=0) as one:
        near, _, street = one.story.units
        mine = sa.select(Station.id).where(Station.unit_id.in_([near.id, street.id]))
        stations = sa.select(Station.id)
        scopes = [one.scope(by) for by in (By.STATION, By.UNIT, By.BRANCH, By.OPERATING_MODEL)]
        for root, of in ((near.parent_id, stations), (near.id, mine)):
            assert root is not None
            scopes.append(replace(scopes[2], stations=of, roots=Roots(units=[root])))
        few = [await queries.visits(one.tx, scope) for scope in scopes]
        monkeypatch.setattr("app.reports.frame.MOST_NAMED", 0)
        assert [await queries.visits(one.tx, scope) for scope in scopes] == few
        assert all(any(row.visits for row in rows) for rows in few)


async def test_a_report_in_parts_is_the_same_report(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with told(runtime, 0, rounds=0) as one:
        scopes = [one.scope(By.STATION, bucket) for bucket in (None, Bucket.HOUR)]
        scopes += [one.scope(By.UNIT, Bucket.DAY), one.scope(By.OPERATING_MODEL)]
        scopes.append(one.scope(By.BRANCH, Bucket.DAY))
        for scope in scopes:
            for name, report in queries.REPORTS.items():
                monkeypatch.setattr("app.reports.frame.AT_ONCE", AT_ONCE)
                whole = await queries.rows_of(
                    one.tx, (await frame(one.tx, scope)).parts()[0], report
                )
                monkeypatch.setattr("app.reports.frame.AT_ONCE", 1)
                made = await frame(one.tx, scope)
                assert len(made.parts()) == len(made.places)
                found = [
                    row
                    async for columns in queries.streamed(runtime.database.read, made, report)
                    for row in zip(*columns, strict=True)
                ]
                assert found == whole, name
