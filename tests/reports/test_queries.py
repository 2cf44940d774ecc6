"""Every report of random histories equals a plain recount in Python, on both databases."""

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import CommandState, Outcome
from app.places.rules import Kind
from app.places.tables import Station, Unit
from app.reports import queries
from app.reports.frame import Bucket, By, PeriodInvalid, Scope
from app.reports.rules import Period
from app.runtime import Runtime
from app.visits import presence
from app.visits.tables import EndSource, Visit
from tests.reports.histories import AT, FIRST, Author, History

pytestmark = pytest.mark.anyio

PERIOD = Period(FIRST.date(), FIRST.date() + timedelta(days=4))
CUTS = [
    (By.STATION, None),
    (By.STATION, Bucket.DAY),
    (By.STATION, Bucket.HOUR),
    (By.UNIT, None),
    (By.UNIT, Bucket.DAY),
    (By.DAY, None),
    (By.DAY, Bucket.HOUR),
]
SEEDS = range(6)


@dataclass(frozen=True)
class Piece:
    """A place and a time, and what lies in it by plain comparison."""

    stations: Sequence[Station]
    unit: Unit | None
    day: date | None
    hour: int | None
    t0: datetime
    t1: datetime

    def holds(self, row: Any, day: date, hour: int | None) -> bool:
        return (
            any(row.station_id == station.id for station in self.stations)
            and PERIOD.from_day <= day < PERIOD.to_day
            and (self.day is None or day == self.day)
            and (self.hour is None or hour == self.hour)
        )

    def of(self, rows: Sequence[Any]) -> list[Any]:
        return [
            row for row in rows if self.holds(row, row.local_day, getattr(row, "local_hour", None))
        ]

    @property
    def name(self) -> tuple[Any, ...]:
        code = self.stations[0].code if self.unit is None and len(self.stations) == 1 else None
        return code, str(self.unit.id) if self.unit else None, self.day, self.hour

    def known_seconds(self, station: Station) -> float:
        until = min(self.t1, station.retired_at or AT, AT)
        return max(0.0, (until - max(self.t0, station.created_at)).total_seconds())

    @property
    def known_share(self) -> float:
        whole = len(self.stations) * (self.t1 - self.t0).total_seconds()
        share = sum(self.known_seconds(station) for station in self.stations) / whole
        return share if share in (0, 1) else min(max(round(share, 4), 0.0001), 0.9999)


def pieces(story: History, units: dict[Any, Unit], by: By, bucket: Bucket | None) -> list[Piece]:
    places: list[tuple[list[Station], Unit | None]] = []
    match by:
        case By.STATION:
            places = [([station], None) for station in story.stations]
        case By.UNIT:
            for unit_id in dict.fromkeys(station.unit_id for station in story.stations):
                mine = [station for station in story.stations if station.unit_id == unit_id]
                places.append((mine, units[unit_id]))
        case By.DAY:
            places = [(story.stations, None)]
    found = []
    for stations, unit in places:
        zone = ZoneInfo(stations[0].timezone)
        days: list[date | None] = list(PERIOD.days)
        hours: list[int | None] = [None]
        if bucket is None and by is not By.DAY:
            days = [None]
        if bucket is Bucket.HOUR:
            hours = list(range(24))
        for day in days:
            for hour in hours:
                start = datetime.combine(day or PERIOD.from_day, time(hour or 0), zone)
                length = timedelta(hours=1) if hour is not None else timedelta(days=1)
                end = start + (length if day else timedelta(days=len(PERIOD.days)))
                t0, t1 = start.astimezone(UTC), end.astimezone(UTC)
                found.append(Piece(stations, unit, day, hour, t0, t1))
    return found


@asynccontextmanager
async def told(
    runtime: Runtime, seed: int
) -> AsyncIterator[tuple[AsyncSession, History, dict[Any, Unit]]]:
    """Write a history, and take it back afterwards."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        story = await Author(tx, runtime, random.Random(seed)).write()
        yield tx, story, {unit.id: unit for unit in await tx.scalars(sa.select(Unit))}


def scope_of(story: History, by: By, bucket: Bucket | None) -> Scope:
    ids = [station.id for station in story.stations]
    return Scope(
        stations=sa.select(Station.id).where(Station.id.in_(ids)),
        period=PERIOD,
        by=by,
        at=AT,
        retained_since=PERIOD.from_day,
        bucket=bucket,
    )


def named(row: Any) -> tuple[Any, ...]:
    return row.station, row.unit, row.day, row.hour


def share_of(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Give the smallest value that at least so many percent do not exceed."""
    for value in sorted(values):
        if 100 * sum(1 for each in values if each <= value) >= percent * len(values):
            return value
    return None


Expected = Callable[[History, Piece], dict[str, Any]]


async def compare(runtime: Runtime, seed: int, report: Any, expected: Expected) -> None:
    async with told(runtime, seed) as (tx, story, units):
        for by, bucket in CUTS:
            rows = await report(tx, scope_of(story, by, bucket))
            wanted = pieces(story, units, by, bucket)
            assert [named(row) for row in rows] == [piece.name for piece in wanted]
            for row, piece in zip(rows, wanted, strict=True):
                values = expected(story, piece) | {"known_share": piece.known_share}
                found = {name: getattr(row, name) for name in values}
                assert found == values, piece.name


def visits_of(story: History, piece: Piece) -> dict[str, Any]:
    rows: list[Visit] = piece.of(story.visits)
    first = [row for row in rows if not row.re_entry]
    out = [row for row in first if row.mode is not Kind.FREE]
    over = [row for row in rows if row.ended_at or row.stay_until <= AT]
    imputed = [row for row in over if row.end_source in (None, EndSource.IMPUTED)]
    stays = [
        (row.ended_at - row.started_at).total_seconds()
        for row in rows
        if row.ended_at and row.end_source is not EndSource.IMPUTED
    ]
    scans = piece.of(story.scans)
    refused = [scan for scan in scans if scan.outcome is Outcome.REFUSED]
    met = {scan.demand_key for scan in scans if scan.outcome is not Outcome.REFUSED}
    heads = sum(row.count for row in piece.of(story.heads)) if piece.hour is None else None
    counts = {
        "visits": len(first),
        "persons": sum(row.party_size for row in first),
        "unique_workers": len({row.worker_id for row in first} - {None}),
        "anonymous_visits": sum(row.worker_id is None for row in first),
        "out_of_hours_visits": len(out),
        "walk_in_heads": heads,
        "refused": len(refused),
        "unmet_demand": len({scan.demand_key for scan in refused} - met),
    }
    if not piece.known_share:
        counts = dict.fromkeys(counts)
    return counts | {
        "beyond_retention": False,
        "offhours_share": share_of(len(out), len(first)),
        "dwell_mean_s": round(math.fsum(stays) / len(stays), 2) if stays else None,
        "dwell_median_s": percentile(stays, 50),
        "dwell_p90_s": percentile(stays, 90),
        "imputed_exit_share": share_of(len(imputed), len(over)),
    }


def access_of(story: History, piece: Piece) -> dict[str, Any]:
    scans = piece.of(story.scans)
    outcomes = Counter(scan.outcome for scan in scans)
    ids = {scan.id for scan in scans}
    commands = [command for command in story.commands if command.scan_id in ids]
    executed = sum(command.state is CommandState.EXECUTED for command in commands)
    waits = [
        round((command.claimed_at - command.created_at).total_seconds() * 1000, 1)
        for command in commands
        if command.claimed_at
    ]
    reasons = Counter(s.reason.value for s in scans if s.outcome is Outcome.REFUSED)
    let_in = outcomes[Outcome.GRANTED] + outcomes[Outcome.WALK_IN]
    counts: dict[str, Any] = {
        "decided": len(scans),
        "granted": outcomes[Outcome.GRANTED],
        "walk_in": outcomes[Outcome.WALK_IN],
        "refused": outcomes[Outcome.REFUSED],
        "by_reason": dict(reasons),
        "executed": executed,
    }
    if not piece.known_share:
        counts = dict.fromkeys(counts)
    return counts | {
        "grant_rate": share_of(let_in, len(scans)),
        "open_success_rate": share_of(executed, outcomes[Outcome.GRANTED]),
        "pickup_p50_ms": percentile(waits, 50),
        "pickup_p95_ms": percentile(waits, 95),
        "pickup_p99_ms": percentile(waits, 99),
    }


def occupancy_of(story: History, piece: Piece) -> dict[str, Any]:
    """Count minute by minute; every instant of a history is a whole minute."""
    capacity = sum(station.capacity for station in piece.stations)
    values: dict[str, Any] = dict.fromkeys(
        (
            "measured_hours",
            "avg_occupancy",
            "avg_when_used",
            "peak_occupancy",
            "peak_at",
            "max_observed",
            "seat_utilization",
            "time_utilization",
        )
    )
    values["capacity"] = capacity
    living = [station for station in piece.stations if piece.known_seconds(station)]
    if not living:
        return values
    start = max(piece.t0, min(station.created_at for station in living))
    end = min(piece.t1, AT, max(station.retired_at or AT for station in living))
    ids = {station.id for station in piece.stations}
    mine = [row for row in story.visits if row.station_id in ids]
    length = int((end - start) / timedelta(minutes=1))
    change = [0] * (length + 1)
    for row in mine:
        first = max(0, int((row.started_at - start) / timedelta(minutes=1)))
        last = min(length, int(((row.ended_at or row.stay_until) - start) / timedelta(minutes=1)))
        if first < last:
            change[first] += row.party_size
            change[last] -= row.party_size
    inside = [sum(change[: number + 1]) for number in range(length)]
    bins = [inside[number : number + 15] for number in range(0, length, 15)]
    means = [round(sum(each) / len(each), 4) for each in bins]
    used = sum(1 for persons in inside if persons)
    seats = sum(station.capacity * piece.known_seconds(station) for station in living)
    return values | {
        "measured_hours": round(length / 60, 2),
        "avg_occupancy": share_of(sum(inside), length),
        "avg_when_used": share_of(sum(inside), used),
        "peak_occupancy": max(means),
        "peak_at": start + timedelta(minutes=15 * means.index(max(means))) if used else None,
        "max_observed": max(inside),
        "seat_utilization": share_of(sum(inside) * 60, seats),
        "time_utilization": share_of(used, length),
    }


@pytest.mark.parametrize("seed", SEEDS)
async def test_visits_equal_a_plain_recount(runtime: Runtime, seed: int) -> None:
    await compare(runtime, seed, queries.visits, visits_of)


@pytest.mark.parametrize("seed", SEEDS)
async def test_access_equals_a_plain_recount(runtime: Runtime, seed: int) -> None:
    await compare(runtime, seed, queries.access, access_of)


@pytest.mark.parametrize("seed", SEEDS)
async def test_occupancy_equals_a_count_by_minutes(runtime: Runtime, seed: int) -> None:
    await compare(runtime, seed, queries.occupancy, occupancy_of)


@pytest.mark.parametrize("seed", SEEDS)
async def test_facilities_equal_a_plain_recount(runtime: Runtime, seed: int) -> None:
    async with told(runtime, seed) as (tx, story, units):
        for by, bucket in CUTS:
            rows = await queries.facilities(tx, scope_of(story, by, bucket))
            recount_facilities(rows, story, pieces(story, units, by, bucket))


def recount_facilities(
    rows: Sequence[queries.FacilitiesRow], story: History, wanted: Sequence[Piece]
) -> None:
    found = {(named(row), row.kind): row for row in rows}
    assert len(found) == len(rows)
    kind_of = {facility.id: facility.kind for facility in story.facilities}
    expected = 0
    for piece in wanted:
        ids = {station.id for station in piece.stations}
        standing = Counter[Any]()
        for facility in story.facilities:
            if facility.station_id in ids and facility.retired_at is None:
                standing[facility.kind] += facility.quantity
        uses = piece.of(story.uses)
        visits = sum(not row.re_entry for row in piece.of(story.visits))
        for kind in {*standing, *(kind_of[use.facility_id] for use in uses)}:
            mine = [use for use in uses if kind_of[use.facility_id] is kind]
            ended = [use for use in mine if use.ended_at]
            seconds = sum((use.ended_at - use.begun_at).total_seconds() for use in ended)
            row = found[piece.name, kind]
            counts = (
                len(ended),
                len(mine) - len(ended),
                round(float(sum(use.quantity or 0 for use in mine)), 3),
                round(seconds / 3600, 3),
            )
            assert row.units == standing[kind]
            assert (row.uses, row.open_uses, row.quantity, row.in_use_hours) == (
                counts if piece.known_share else (None,) * 4
            )
            assert row.uses_per_visit == share_of(len(ended), visits)
            expected += 1
    assert len(found) == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_controllers_equal_a_plain_recount(runtime: Runtime, seed: int) -> None:
    async with told(runtime, seed) as (tx, story, units):
        rows = await queries.controllers(
            tx, scope_of(story, By.STATION, None), silent_since=AT - timedelta(seconds=75)
        )
    wanted = pieces(story, units, By.STATION, None)
    assert [row.station for row in rows] == [piece.name[0] for piece in wanted]
    read_as = {CommandState.PENDING: "expired", CommandState.CLAIMED: "unknown"}
    for row, piece in zip(rows, wanted, strict=True):
        (station,) = piece.stations
        (controller,) = [each for each in story.controllers if each.station_id == station.id]
        mine = [
            command
            for command in story.commands
            if command.station_id == station.id and piece.t0 <= command.created_at < piece.t1
        ]
        states = Counter(
            (read_as.get(each.state) if each.expires_at <= AT else None) or each.state.value
            for each in mine
        )
        assert row.online is (controller.seen_at == AT)
        assert row.seen_at == controller.seen_at
        if piece.known_share:
            assert row.commands == len(mine)
            assert row.live == states["pending"] + states["claimed"]
            for name in ("executed", "refused", "failed", "expired", "unknown"):
                assert getattr(row, name) == states[name]
        else:
            assert row.commands is None
        waits = [
            round((command.claimed_at - command.created_at).total_seconds() * 1000, 1)
            for command in mine
            if command.claimed_at
        ]
        assert row.pickup_p50_ms == percentile(waits, 50)
        assert row.pickup_p95_ms == percentile(waits, 95)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_sweep_changes_no_figure(runtime: Runtime, seed: int) -> None:
    async with told(runtime, seed) as (tx, story, _):
        scope = scope_of(story, By.STATION, Bucket.DAY)
        before = [await each(tx, scope) for each in (queries.visits, queries.occupancy)]
        assert await presence.sweep(tx, at=AT) > 0
        assert [await each(tx, scope) for each in (queries.visits, queries.occupancy)] == before


async def test_beyond_retention_nobody_is_counted_apart(runtime: Runtime) -> None:
    async with told(runtime, 1) as (tx, story, _):
        scope = scope_of(story, By.DAY, None)
        kept = await queries.visits(tx, scope)
        over = await queries.visits(
            tx, replace(scope, retained_since=PERIOD.from_day + timedelta(days=1))
        )
    assert any(row.unique_workers for row in kept)
    for before, after in zip(kept, over, strict=True):
        assert (before.beyond_retention, after.beyond_retention) == (False, True)
        assert after.visits == before.visits
        assert after.unique_workers is None
        assert after.anonymous_visits is None
        assert after.unmet_demand is None


async def test_no_station_no_row_but_days_stay_days(runtime: Runtime) -> None:
    async with AsyncSession(runtime.database.engine) as tx:
        for by, count in ((By.STATION, 0), (By.UNIT, 0), (By.DAY, 4)):
            scope = scope_of(History(), by, None)
            for each in (queries.visits, queries.access, queries.occupancy):
                rows: Any = await each(tx, scope)
                assert len(rows) == count
                assert all(row.known_share == 0 for row in rows)
            assert await queries.facilities(tx, scope) == []
        scope = scope_of(History(), By.STATION, None)
        assert await queries.controllers(tx, scope, silent_since=AT) == []


async def test_a_report_has_a_bound(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    async with told(runtime, 0) as (tx, story, _):
        monkeypatch.setattr("app.reports.frame.MOST_ROWS", len(story.stations) * 4)
        assert await queries.visits(tx, scope_of(story, By.STATION, Bucket.DAY))
        with pytest.raises(PeriodInvalid, match="coarser bucket"):
            await queries.visits(tx, scope_of(story, By.STATION, Bucket.HOUR))
