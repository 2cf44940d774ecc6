"""One function per report, from the raw rows: visits, access, occupancy, facilities, controllers.

Every function takes the stations it may speak of as a subquery, so no report can forget the scope,
and a `by`: one row per station, unit or day. A key without any row has zeros; what cannot be known
(a day to come, a station that did not exist) is None.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import CommandState, Outcome, Reason
from app.doors.tables import Command, Controller, Scan
from app.places.rules import Kind
from app.places.tables import Facility, FacilityKind, Station, Unit
from app.reports.rules import Period, Profile, Stay, mean, nearest_rank, profile, rate
from app.visits.tables import EndSource, FacilityUse, Visit, WalkInCount

STREAM = 5_000
"""Rows fetched at once where every row is looked at."""


class By(StrEnum):
    """What a report has one row for."""

    STATION = "station"
    UNIT = "unit"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which stations, which days, as of when."""

    stations: sa.Select[uuid.UUID]
    period: Period
    by: By
    at: datetime
    today: date
    retained_since: date
    """Before this day visits have lost their workers."""


@dataclass(frozen=True, slots=True)
class _Key:
    """One row's name."""

    station: str | None
    unit: str | None
    day: date | None
    name: str
    known: bool
    """False where nothing can be known yet, or could be."""
    capacity: int


def _key_of(by: By, table: Any) -> Any:
    match by:
        case By.STATION:
            return table.station_id
        case By.UNIT:
            return Station.unit_id
        case By.DAY:
            return table.local_day


async def _keys(tx: AsyncSession, scope: Scope) -> dict[Hashable, _Key]:
    """Give every row a report must have, found or not."""
    rows = (
        await tx.execute(
            sa.select(Station, Unit.id.label("unit_id"), Unit.name.label("unit_name"))
            .join(Unit, Unit.id == Station.unit_id)
            .where(Station.id.in_(scope.stations))
            .order_by(Station.code)
        )
    ).all()
    begun = scope.period.from_day <= scope.today
    keys: dict[Hashable, _Key] = {}
    if scope.by is By.DAY:
        capacity = sum(row.Station.capacity for row in rows)
        for day in scope.period.days:
            known = day <= scope.today
            keys[day] = _Key(None, None, day, day.isoformat(), known, capacity)
        return keys
    for row in rows:
        station: Station = row.Station
        if scope.by is By.STATION:
            # A day of margin: the station's zone may be ahead of UTC.
            existed = station.created_at.date() - timedelta(days=1) < scope.period.to_day
            keys[station.id] = _Key(
                station.code, None, None, station.name, begun and existed, station.capacity
            )
        else:
            before = keys.get(row.unit_id)
            capacity = station.capacity + (before.capacity if before else 0)
            keys[row.unit_id] = _Key(None, str(row.unit_id), None, row.unit_name, begun, capacity)
    return keys


def _grouped(scope: Scope, table: Any, *columns: Any) -> sa.Select[*tuple[Any, ...]]:
    """Select aggregates of one table per key, within scope and period."""
    key = _key_of(scope.by, table)
    return (
        sa.select(key.label("key"), *columns)
        .select_from(table)
        .join(Station, Station.id == table.station_id)
        .where(
            table.station_id.in_(scope.stations),
            table.local_day >= scope.period.from_day,
            table.local_day < scope.period.to_day,
        )
        .group_by(key)
    )


async def _by_key(tx: AsyncSession, query: Any) -> Mapping[Hashable, Any]:
    return {row.key: row for row in (await tx.execute(query)).all()}


def _count_if(condition: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


class VisitsRow(NamedTuple):
    """What came (metrics 1, 3, 12, 22; law 8)."""

    station: str | None
    unit: str | None
    day: date | None
    name: str
    visits: int | None
    persons: int | None
    unique_workers: int | None
    anonymous_visits: int | None
    beyond_retention: bool
    """Whether visits of the period have lost their workers, so that they cannot be told apart."""
    out_of_hours_visits: int | None
    offhours_share: float | None
    walk_in_heads: int | None
    refused: int | None
    unmet_demand: int | None
    dwell_mean_s: float | None
    dwell_median_s: float | None
    dwell_p90_s: float | None
    imputed_exit_share: float | None


async def visits(tx: AsyncSession, scope: Scope) -> Sequence[VisitsRow]:
    """Count visits, persons, workers, refusals and stays."""
    first = Visit.re_entry.is_(False)
    counted = await _by_key(
        tx,
        _grouped(
            scope,
            Visit,
            _count_if(first).label("visits"),
            sa.func.coalesce(sa.func.sum(sa.case((first, Visit.party_size), else_=0)), 0).label(
                "persons"
            ),
            sa.func.count(Visit.worker_id.distinct()).label("workers"),
            _count_if(sa.and_(first, Visit.worker_id.is_(None))).label("anonymous"),
            _count_if(sa.and_(first, Visit.mode != Kind.FREE)).label("out_of_hours"),
            _count_if(Visit.ended_at.is_not(None)).label("ended"),
            _count_if(Visit.end_source == EndSource.IMPUTED).label("imputed"),
        ),
    )
    heads = await _by_key(
        tx, _grouped(scope, WalkInCount, sa.func.sum(WalkInCount.count).label("heads"))
    )
    refused = await _by_key(
        tx,
        _grouped(scope, Scan, sa.func.count().label("refused")).where(
            Scan.outcome == Outcome.REFUSED
        ),
    )
    unmet = await _unmet(tx, scope)
    dwells = await _dwells(tx, scope)
    beyond = scope.period.from_day < scope.retained_since
    rows = []
    for key, name in (await _keys(tx, scope)).items():
        row, stays = counted.get(key), dwells.get(key, [])
        n = row.visits if row else 0
        known = name.known
        rows.append(
            VisitsRow(
                station=name.station,
                unit=name.unit,
                day=name.day,
                name=name.name,
                visits=n if known else None,
                persons=(row.persons if row else 0) if known else None,
                unique_workers=(row.workers if row else 0) if known and not beyond else None,
                anonymous_visits=(row.anonymous if row else 0) if known and not beyond else None,
                beyond_retention=beyond,
                out_of_hours_visits=(row.out_of_hours if row else 0) if known else None,
                offhours_share=rate(row.out_of_hours, n) if row else None,
                walk_in_heads=(heads[key].heads if key in heads else 0) if known else None,
                refused=(refused[key].refused if key in refused else 0) if known else None,
                unmet_demand=unmet.get(key, 0) if known else None,
                dwell_mean_s=mean(stays),
                dwell_median_s=nearest_rank(stays, 50),
                dwell_p90_s=nearest_rank(stays, 90),
                imputed_exit_share=rate(row.imputed, row.ended) if row else None,
            )
        )
    return rows


async def _unmet(tx: AsyncSession, scope: Scope) -> Mapping[Hashable, int]:
    """Count (worker, station, half hour) with a refusal and without a grant (law 8)."""
    met = sa.select(Scan.demand_key).where(
        Scan.outcome != Outcome.REFUSED,
        Scan.demand_key.is_not(None),
        Scan.station_id.in_(scope.stations),
        # A half hour may begin before midnight.
        Scan.local_day >= scope.period.from_day - timedelta(days=1),
        Scan.local_day <= scope.period.to_day,
    )
    query = _grouped(scope, Scan, sa.func.count(Scan.demand_key.distinct()).label("unmet")).where(
        Scan.outcome == Outcome.REFUSED, Scan.demand_key.not_in(met)
    )
    return {key: row.unmet for key, row in (await _by_key(tx, query)).items()}


async def _dwells(tx: AsyncSession, scope: Scope) -> Mapping[Hashable, list[float]]:
    """Give the lengths of stays whose end was observed, in seconds; imputed ends never count."""
    query = (
        sa.select(_key_of(scope.by, Visit).label("key"), Visit.started_at, Visit.ended_at)
        .join(Station, Station.id == Visit.station_id)
        .where(
            Visit.station_id.in_(scope.stations),
            Visit.local_day >= scope.period.from_day,
            Visit.local_day < scope.period.to_day,
            Visit.ended_at.is_not(None),
            Visit.end_source != EndSource.IMPUTED,
        )
        .execution_options(yield_per=STREAM)
    )
    found: defaultdict[Hashable, list[float]] = defaultdict(list)
    async for row in await tx.stream(query):
        found[row.key].append((row.ended_at - row.started_at).total_seconds())
    return found


class AccessRow(NamedTuple):
    """Who got in (metrics 8-11)."""

    station: str | None
    unit: str | None
    day: date | None
    name: str
    decided: int | None
    granted: int | None
    walk_in: int | None
    refused: int | None
    by_reason: dict[str, int] | None
    grant_rate: float | None
    executed: int | None
    open_success_rate: float | None
    pickup_p50_ms: float | None
    pickup_p95_ms: float | None
    pickup_p99_ms: float | None


async def access(tx: AsyncSession, scope: Scope) -> Sequence[AccessRow]:
    """Count decisions, refusals by reason, and how fast commands were picked up."""
    key = _key_of(scope.by, Scan)
    query = (
        _grouped(scope, Scan, Scan.outcome, Scan.reason, sa.func.count().label("n"))
        .group_by(None)
        .group_by(key, Scan.outcome, Scan.reason)
    )
    outcomes: defaultdict[Hashable, Counter[Outcome]] = defaultdict(Counter)
    reasons: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for row in await tx.execute(query):
        outcomes[row.key][row.outcome] += row.n
        if row.outcome is Outcome.REFUSED:
            reasons[row.key][Reason(row.reason).value] += row.n
    executed, pickups = await _executed(tx, scope)
    rows = []
    for found, name in (await _keys(tx, scope)).items():
        counted, known = outcomes[found], name.known
        granted, decided = counted[Outcome.GRANTED], sum(counted.values())
        waits = pickups.get(found, [])
        rows.append(
            AccessRow(
                station=name.station,
                unit=name.unit,
                day=name.day,
                name=name.name,
                decided=decided if known else None,
                granted=granted if known else None,
                walk_in=counted[Outcome.WALK_IN] if known else None,
                refused=counted[Outcome.REFUSED] if known else None,
                by_reason=dict(sorted(reasons[found].items())) if known else None,
                grant_rate=rate(granted + counted[Outcome.WALK_IN], decided),
                executed=executed.get(found, 0) if known else None,
                open_success_rate=rate(executed.get(found, 0), granted),
                pickup_p50_ms=nearest_rank(waits, 50),
                pickup_p95_ms=nearest_rank(waits, 95),
                pickup_p99_ms=nearest_rank(waits, 99),
            )
        )
    return rows


async def _executed(
    tx: AsyncSession, scope: Scope
) -> tuple[Mapping[Hashable, int], Mapping[Hashable, list[float]]]:
    query = (
        sa.select(
            _key_of(scope.by, Scan).label("key"),
            Command.state,
            Command.created_at,
            Command.claimed_at,
        )
        .join(Scan, Scan.id == Command.scan_id)
        .join(Station, Station.id == Scan.station_id)
        .where(
            Scan.station_id.in_(scope.stations),
            Scan.local_day >= scope.period.from_day,
            Scan.local_day < scope.period.to_day,
        )
        .execution_options(yield_per=STREAM)
    )
    executed: Counter[Hashable] = Counter()
    waits: defaultdict[Hashable, list[float]] = defaultdict(list)
    async for row in await tx.stream(query):
        executed[row.key] += row.state is CommandState.EXECUTED
        if row.claimed_at is not None:
            wait = (row.claimed_at - row.created_at) / timedelta(milliseconds=1)
            waits[row.key].append(round(wait, 1))
    return executed, waits


class OccupancyRow(NamedTuple):
    """Who was inside (metrics 16-20), over the time that has passed."""

    station: str | None
    unit: str | None
    day: date | None
    name: str
    capacity: int
    measured_hours: float | None
    """The denominator: hours of the period that have passed, day and night."""
    avg_occupancy: float | None
    avg_when_used: float | None
    peak_occupancy: float | None
    """Greatest mean of a 15-minute bin."""
    peak_at: datetime | None
    max_observed: int | None
    seat_utilization: float | None
    time_utilization: float | None


async def occupancy(tx: AsyncSession, scope: Scope) -> Sequence[OccupancyRow]:
    """Integrate who was inside over every station's own local days."""
    zones = await _zones(tx, scope)
    stays = await _stays(tx, scope, zones)
    rows = []
    for key, name in (await _keys(tx, scope)).items():
        timezone = zones[key] if scope.by is not By.DAY else next(iter(zones.values()), "UTC")
        period = scope.period
        if name.day is not None:
            period = Period(name.day, name.day + timedelta(days=1))
        t0, t1 = period.instants(timezone)
        t1 = min(t1, scope.at)
        if not name.known or t1 <= t0:
            rows.append(
                OccupancyRow(
                    name.station, name.unit, name.day, name.name, name.capacity, *([None] * 8)
                )
            )
            continue
        rows.append(_occupancy_row(name, profile(stays.get(key, ()), t0, t1), t1 - t0))
    return rows


def _occupancy_row(name: _Key, found: Profile, measured: timedelta) -> OccupancyRow:
    seconds = measured.total_seconds()
    return OccupancyRow(
        station=name.station,
        unit=name.unit,
        day=name.day,
        name=name.name,
        capacity=name.capacity,
        measured_hours=round(seconds / 3600, 2),
        avg_occupancy=rate(found.person_seconds, seconds),
        avg_when_used=rate(found.person_seconds, found.used_seconds),
        peak_occupancy=found.peak,
        peak_at=found.peak_at,
        max_observed=found.max_observed,
        seat_utilization=rate(found.person_seconds, seconds * name.capacity),
        time_utilization=rate(found.used_seconds, seconds),
    )


async def _zones(tx: AsyncSession, scope: Scope) -> Mapping[Hashable, str]:
    rows = await tx.execute(
        sa.select(Station.id, Station.unit_id, Station.timezone).where(
            Station.id.in_(scope.stations)
        )
    )
    return {(row.unit_id if scope.by is By.UNIT else row.id): row.timezone for row in rows}


async def _stays(
    tx: AsyncSession, scope: Scope, zones: Mapping[Hashable, str]
) -> Mapping[Hashable, list[Stay]]:
    """Give the stays that touch the period, by key; a stay over midnight belongs to both days."""
    timezone = next(iter(zones.values()), "UTC")
    t0, t1 = scope.period.instants(timezone)
    margin = timedelta(hours=26)  # Stations may lie in other zones.
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until)
    query = (
        sa.select(
            Visit.station_id,
            Station.unit_id,
            Visit.started_at,
            until.label("until"),
            Visit.party_size,
        )
        .join(Station, Station.id == Visit.station_id)
        .where(
            Visit.station_id.in_(scope.stations),
            Visit.started_at < min(t1 + margin, scope.at),
            Visit.started_at >= t0 - margin - timedelta(days=1),
            until > t0 - margin,
        )
        .execution_options(yield_per=STREAM)
    )
    found: defaultdict[Hashable, list[Stay]] = defaultdict(list)
    async for row in await tx.stream(query):
        stay = Stay(row.started_at, min(row.until, scope.at), row.party_size)
        match scope.by:
            case By.STATION:
                found[row.station_id].append(stay)
            case By.UNIT:
                found[row.unit_id].append(stay)
            case By.DAY:
                for day in scope.period.days:
                    start, end = Period(day, day + timedelta(days=1)).instants(timezone)
                    if stay.from_at < end and stay.until_at > start:
                        found[day].append(stay)
    return found


class FacilitiesRow(NamedTuple):
    """What was used (metrics 32, 33)."""

    station: str | None
    unit: str | None
    day: date | None
    name: str
    kind: FacilityKind
    units: int | None
    """How many of them stand there now."""
    uses: int | None
    """Sessions that ended, and quantities."""
    open_uses: int | None
    quantity: float | None
    in_use_hours: float | None
    uses_per_visit: float | None


async def facilities(tx: AsyncSession, scope: Scope) -> Sequence[FacilitiesRow]:
    """Count the uses of facilities by kind."""
    found: defaultdict[tuple[Hashable, FacilityKind], list[Any]] = defaultdict(list)
    query = (
        sa.select(
            _key_of(scope.by, FacilityUse).label("key"),
            Facility.kind,
            FacilityUse.begun_at,
            FacilityUse.ended_at,
            FacilityUse.quantity,
        )
        .join(Facility, Facility.id == FacilityUse.facility_id)
        .join(Station, Station.id == FacilityUse.station_id)
        .where(
            FacilityUse.station_id.in_(scope.stations),
            FacilityUse.local_day >= scope.period.from_day,
            FacilityUse.local_day < scope.period.to_day,
        )
        .execution_options(yield_per=STREAM)
    )
    async for row in await tx.stream(query):
        found[row.key, row.kind].append(row)
    standing = await _standing(tx, scope)
    counted = await _by_key(
        tx, _grouped(scope, Visit, _count_if(Visit.re_entry.is_(False)).label("visits"))
    )
    rows = []
    for key, name in (await _keys(tx, scope)).items():
        kinds = sorted(
            {kind for where, kind in found if where == key}
            | {kind for where, kind in standing if where in (key, None)}
        )
        n = counted[key].visits if key in counted else 0
        for kind in kinds:
            units = standing.get((key, kind), standing.get((None, kind), 0))
            rows.append(_facilities_row(name, kind, units, found[key, kind], n))
    return rows


def _facilities_row(
    name: _Key, kind: FacilityKind, units: int, uses: Sequence[Any], visits_n: int
) -> FacilitiesRow:
    ended = [use for use in uses if use.ended_at is not None]
    seconds = sum((use.ended_at - use.begun_at).total_seconds() for use in ended)
    amount = sum(float(use.quantity) for use in uses if use.quantity is not None)
    known = name.known
    return FacilitiesRow(
        station=name.station,
        unit=name.unit,
        day=name.day,
        name=name.name,
        kind=kind,
        units=units if known else None,
        uses=len(ended) if known else None,
        open_uses=len(uses) - len(ended) if known else None,
        quantity=round(amount, 3) if known else None,
        in_use_hours=round(seconds / 3600, 3) if known else None,
        uses_per_visit=rate(len(ended), visits_n),
    )


async def _standing(
    tx: AsyncSession, scope: Scope
) -> Mapping[tuple[Hashable | None, FacilityKind], int]:
    """Count what stands there now; by day the whole scope's, under the key None."""
    found: Counter[tuple[Hashable | None, FacilityKind]] = Counter()
    rows = await tx.execute(
        sa.select(Facility.station_id, Station.unit_id, Facility.kind, Facility.quantity)
        .join(Station, Station.id == Facility.station_id)
        .where(Facility.station_id.in_(scope.stations), Facility.retired_at.is_(None))
    )
    for row in rows:
        key = {By.STATION: row.station_id, By.UNIT: row.unit_id, By.DAY: None}[scope.by]
        found[key, row.kind] += row.quantity
    return found


class ControllersRow(NamedTuple):
    """How a station's controller does."""

    station: str
    name: str
    serial: str | None
    firmware: str | None
    seen_at: datetime | None
    online: bool | None
    """None where no controller is enrolled."""
    commands: int
    executed: int
    refused: int
    failed: int
    expired: int
    unknown: int


async def controllers(
    tx: AsyncSession, scope: Scope, *, silent_since: datetime
) -> Sequence[ControllersRow]:
    """Give every station's controller and what became of its commands."""
    t0, t1 = scope.period.instants("Asia/Shanghai")
    states: defaultdict[uuid.UUID, Counter[CommandState]] = defaultdict(Counter)
    counted = await tx.execute(
        sa.select(Command.station_id, Command.state, sa.func.count().label("n"))
        .where(
            Command.station_id.in_(scope.stations),
            Command.created_at >= t0,
            Command.created_at < t1,
        )
        .group_by(Command.station_id, Command.state)
    )
    for row in counted:
        states[row.station_id][row.state] += row.n
    rows = (
        await tx.execute(
            sa.select(Station, Controller)
            .outerjoin(
                Controller,
                sa.and_(Controller.station_id == Station.id, Controller.retired_at.is_(None)),
            )
            .where(Station.id.in_(scope.stations))
            .order_by(Station.code)
        )
    ).all()
    return [
        ControllersRow(
            station=row.Station.code,
            name=row.Station.name,
            serial=row.Controller.serial if row.Controller else None,
            firmware=row.Controller.firmware if row.Controller else None,
            seen_at=row.Controller.seen_at if row.Controller else None,
            online=_online(row.Controller, silent_since),
            commands=sum(states[row.Station.id].values()),
            executed=states[row.Station.id][CommandState.EXECUTED],
            refused=states[row.Station.id][CommandState.REFUSED],
            failed=states[row.Station.id][CommandState.FAILED],
            expired=states[row.Station.id][CommandState.EXPIRED],
            unknown=states[row.Station.id][CommandState.UNKNOWN],
        )
        for row in rows
    ]


def _online(controller: Controller | None, silent_since: datetime) -> bool | None:
    if controller is None:
        return None
    return controller.seen_at is not None and controller.seen_at > silent_since
