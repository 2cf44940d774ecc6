"""One function per report, from the raw rows: visits, access, occupancy, facilities, controllers.

Every function takes the stations it may speak of as a subquery, so no report can forget the scope.
A row without any event has zeros; what cannot be known (a day to come, a station that was not yet
registered, workers beyond retention) is None, and so is a rate with nothing to divide by. What time
has brought but no sweep has written yet is read as it will be written, so a sweep changes no
figure. Counts are grouped by the database; where single values matter (durations), they stream
through, one row of the report at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import LIVE, CommandState, Outcome, Reason, state_now
from app.doors.tables import Command, Controller, Scan
from app.places.rules import Kind
from app.places.tables import Facility, FacilityKind, Station
from app.reports.frame import (
    Bucket,
    By,
    Cell,
    Key,
    Scope,
    cells,
    grouped,
    grouping,
    key_of,
    selected,
)
from app.reports.rules import Inside, Meter, Period, Profile, Slot, Spread, rate, spread
from app.visits.rules import LONGEST_STAY
from app.visits.tables import EndSource, FacilityUse, Visit, WalkInCount

STREAM = 5_000
"""Rows fetched at once where every row is looked at."""


async def _by_key(tx: AsyncSession, query: Any) -> Mapping[Key, Any]:
    return {key_of(row): row for row in await tx.execute(query)}


def _count_if(condition: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


async def _spreads(
    tx: AsyncSession, scope: Scope, table: Any, query: sa.Select[Any]
) -> Mapping[Key, Spread]:
    """Summarise a query's times between `since` and `until`, in seconds, one key at a time."""
    columns = [column.element for column in grouping(scope, table)]
    streamed = query.order_by(*columns).execution_options(yield_per=STREAM)
    found: dict[Key, Spread] = {}
    current, values = None, list[float]()
    async for row in await tx.stream(streamed):
        key = key_of(row)
        if key != current:
            if current is not None:
                found[current] = spread(values)
            current, values = key, []
        values.append((row.until - row.since).total_seconds())
    if current is not None:
        found[current] = spread(values)
    return found


class VisitsRow(NamedTuple):
    """What came (metrics 1, 3, 12, 22; law 8)."""

    station: str | None
    unit: str | None
    name: str
    day: date | None
    hour: int | None
    known_share: float
    visits: int | None
    """A return within ten minutes after leaving counts with the visit before; known of workers
    who consented."""
    persons: int | None
    """The visits' parties summed up."""
    unique_workers: int | None
    """Distinct workers of the visits who consented; None when retention took a part of them."""
    anonymous_visits: int | None
    beyond_retention: bool
    """Whether visits of the period have lost their workers, so that they cannot be told apart."""
    out_of_hours_visits: int | None
    offhours_share: float | None
    walk_in_heads: int | None
    """What staff counted in free hours, beside the visits; a count belongs to the day it begins on
    and to no hour."""
    refused: int | None
    unmet_demand: int | None
    """Distinct worker, station and half hour with a refusal and no grant; None beyond retention."""
    dwell_mean_s: float | None
    """Of stays whose end was observed, returns included."""
    dwell_median_s: float | None
    dwell_p90_s: float | None
    imputed_exit_share: float | None
    """Of the stays that are over, those that nobody saw end."""


async def visits(tx: AsyncSession, scope: Scope) -> Sequence[VisitsRow]:
    """Count visits, persons, workers, refusals and stays."""
    counted = await _by_key(tx, grouped(scope, Visit, *_visit_counts(scope.at)))
    heads: Mapping[Key, Any] = {}
    by_hour = scope.grain is Bucket.HOUR
    if not by_hour:
        total = sa.func.sum(WalkInCount.count).label("heads")
        heads = await _by_key(tx, grouped(scope, WalkInCount, total))
    refused = await _by_key(
        tx,
        grouped(scope, Scan, sa.func.count().label("refused")).where(
            Scan.outcome == Outcome.REFUSED
        ),
    )
    unmet = await _unmet(tx, scope)
    dwells = await _spreads(tx, scope, Visit, _dwells(scope))
    beyond = scope.beyond_retention
    rows = []
    for key, cell in (await cells(tx, scope)).items():
        row, stays, known = counted.get(key), dwells.get(key, Spread()), cell.is_known
        named = known and not beyond
        rows.append(
            VisitsRow(
                station=cell.station,
                unit=cell.unit,
                name=cell.name,
                day=cell.day,
                hour=cell.hour,
                known_share=cell.known_share,
                visits=_int(row, "visits") if known else None,
                persons=_int(row, "persons") if known else None,
                unique_workers=_int(row, "workers") if named else None,
                anonymous_visits=_int(row, "anonymous") if named else None,
                beyond_retention=beyond,
                out_of_hours_visits=_int(row, "out_of_hours") if known else None,
                offhours_share=rate(_int(row, "out_of_hours"), _int(row, "visits")),
                walk_in_heads=_int(heads.get(key), "heads") if known and not by_hour else None,
                refused=_int(refused.get(key), "refused") if known else None,
                unmet_demand=_int(unmet.get(key), "unmet") if named else None,
                dwell_mean_s=stays.mean,
                dwell_median_s=stays.p50,
                dwell_p90_s=stays.p90,
                imputed_exit_share=rate(_int(row, "imputed"), _int(row, "over")),
            )
        )
    return rows


def _int(row: Any, name: str) -> int:
    """Give a count of a grouped row; without a row nothing happened."""
    return 0 if row is None else int(getattr(row, name))


def _visit_counts(at: datetime) -> tuple[Any, ...]:
    first = Visit.re_entry.is_(False)
    overdue = sa.and_(Visit.ended_at.is_(None), Visit.stay_until <= at)
    parties = sa.func.sum(sa.case((first, Visit.party_size), else_=0))
    return (
        _count_if(first).label("visits"),
        sa.func.coalesce(parties, 0).label("persons"),
        sa.func.count(sa.case((first, Visit.worker_id), else_=None).distinct()).label("workers"),
        _count_if(sa.and_(first, Visit.worker_id.is_(None))).label("anonymous"),
        _count_if(sa.and_(first, Visit.mode != Kind.FREE)).label("out_of_hours"),
        _count_if(sa.or_(Visit.ended_at.is_not(None), overdue)).label("over"),
        _count_if(sa.or_(Visit.end_source == EndSource.IMPUTED, overdue)).label("imputed"),
    )


async def _unmet(tx: AsyncSession, scope: Scope) -> Mapping[Key, Any]:
    """Count (worker, station, half hour) with a refusal and without a grant (law 8).

    A demand key names all three, so a half hour with both has one group; half hours do not cross
    the hour of any zone with whole or half hours of offset.
    """
    columns = grouping(scope, Scan)
    demands = (
        grouped(scope, Scan, Scan.demand_key)
        .where(Scan.demand_key.is_not(None))
        .group_by(Scan.demand_key)
        .having(_count_if(Scan.outcome != Outcome.REFUSED) == 0)
        .subquery()
    )
    keys = [demands.c[column.name] for column in columns]
    query = sa.select(*keys, sa.func.count().label("unmet")).select_from(demands).group_by(*keys)
    return await _by_key(tx, query)


def _dwells(scope: Scope) -> sa.Select[Any]:
    """Select the stays whose end was observed; imputed ends never count (law 10)."""
    return selected(
        scope, Visit, Visit.started_at.label("since"), Visit.ended_at.label("until")
    ).where(Visit.ended_at.is_not(None), Visit.end_source != EndSource.IMPUTED)


class AccessRow(NamedTuple):
    """Who got in (metrics 8-11)."""

    station: str | None
    unit: str | None
    name: str
    day: date | None
    hour: int | None
    known_share: float
    decided: int | None
    granted: int | None
    walk_in: int | None
    refused: int | None
    by_reason: dict[str, int] | None
    grant_rate: float | None
    """Granted and walked in, of all decided."""
    executed: int | None
    """Grants whose relay pulsed."""
    open_success_rate: float | None
    """executed / granted."""
    pickup_p50_ms: float | None
    """From the decision to the controller's claim."""
    pickup_p95_ms: float | None
    pickup_p99_ms: float | None


async def access(tx: AsyncSession, scope: Scope) -> Sequence[AccessRow]:
    """Count decisions, refusals by reason, and how fast commands were picked up."""
    query = grouped(scope, Scan, Scan.outcome, Scan.reason, sa.func.count().label("n"))
    outcomes: defaultdict[Key, Counter[Outcome]] = defaultdict(Counter)
    reasons: defaultdict[Key, Counter[str]] = defaultdict(Counter)
    for row in await tx.execute(query.group_by(Scan.outcome, Scan.reason)):
        outcomes[key_of(row)][row.outcome] += row.n
        if row.outcome is Outcome.REFUSED:
            reasons[key_of(row)][Reason(row.reason).value] += row.n
    executed = await _by_key(
        tx,
        grouped(scope, Scan, sa.func.count().label("executed"))
        .join(Command, Command.scan_id == Scan.id)
        .where(Command.state == CommandState.EXECUTED),
    )
    pickups = await _spreads(tx, scope, Scan, _pickups(scope))
    rows = []
    for key, cell in (await cells(tx, scope)).items():
        counted, known = outcomes.get(key, Counter[Outcome]()), cell.is_known
        granted, decided = counted[Outcome.GRANTED], counted.total()
        opened, waits = _int(executed.get(key), "executed"), pickups.get(key, Spread())
        rows.append(
            AccessRow(
                station=cell.station,
                unit=cell.unit,
                name=cell.name,
                day=cell.day,
                hour=cell.hour,
                known_share=cell.known_share,
                decided=decided if known else None,
                granted=granted if known else None,
                walk_in=counted[Outcome.WALK_IN] if known else None,
                refused=counted[Outcome.REFUSED] if known else None,
                by_reason=dict(sorted(reasons.get(key, {}).items())) if known else None,
                grant_rate=rate(granted + counted[Outcome.WALK_IN], decided),
                executed=opened if known else None,
                open_success_rate=rate(opened, granted),
                pickup_p50_ms=_ms(waits.p50),
                pickup_p95_ms=_ms(waits.p95),
                pickup_p99_ms=_ms(waits.p99),
            )
        )
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _pickups(scope: Scope) -> sa.Select[Any]:
    since, until = Command.created_at.label("since"), Command.claimed_at.label("until")
    return (
        selected(scope, Scan, since, until)
        .join(Command, Command.scan_id == Scan.id)
        .where(Command.claimed_at.is_not(None))
    )


class OccupancyRow(NamedTuple):
    """Who was inside (metrics 16-20)."""

    station: str | None
    unit: str | None
    name: str
    day: date | None
    hour: int | None
    known_share: float
    capacity: int
    measured_hours: float | None
    """The denominator of the averages: what can be known of the time, day and night alike."""
    avg_occupancy: float | None
    avg_when_used: float | None
    peak_occupancy: float | None
    """Greatest mean of a 15-minute bin."""
    peak_at: datetime | None
    max_observed: int | None
    seat_utilization: float | None
    """Person-hours over the seats' hours; may exceed 1."""
    time_utilization: float | None
    """The share of the measured time with somebody inside."""


async def refused_nowhere(tx: AsyncSession, period: Period, timezone: str) -> dict[str, int]:
    """Count the refusals that name no station, such as of forged codes, by reason (law 8)."""
    begins, ends = period.instants(timezone)
    rows = await tx.execute(
        sa.select(Scan.reason, sa.func.count().label("n"))
        .where(Scan.station_id.is_(None), Scan.scanned_at >= begins, Scan.scanned_at < ends)
        .group_by(Scan.reason)
    )
    return {Reason(row.reason).value: row.n for row in sorted(rows, key=lambda row: row.reason)}


async def occupancy(tx: AsyncSession, scope: Scope) -> Sequence[OccupancyRow]:
    """Integrate who was inside over the places' own local days.

    Stays stream by place in order of their beginning; a stay counts in every piece of time that it
    touches, unlike a visit, which belongs to where it began.
    """
    found = await cells(tx, scope)
    slots: defaultdict[Any, list[tuple[Key, Slot]]] = defaultdict(list)
    for key, cell in found.items():
        if cell.is_known:
            slots[key.place].append((key, Slot(cell.known_from, cell.known_until)))
    meters = {place: Meter([slot for _, slot in each]) for place, each in slots.items()}
    profiles: dict[Key, Profile] = {}
    if found:
        t0 = min(cell.t0 for cell in found.values())
        t1 = min(max(cell.t1 for cell in found.values()), scope.at)
        async for row in await tx.stream(_stays(scope, t0, t1)):
            meter = meters.get(row._mapping.get("place"))
            if meter is not None:
                meter.add(Inside(row.started_at, row.until, row.party_size))
    for place, meter in meters.items():
        for (key, _), profile in zip(slots[place], meter.finish(), strict=True):
            profiles[key] = profile
    return [_occupancy_row(cell, profiles.get(key)) for key, cell in found.items()]


def _stays(scope: Scope, t0: datetime, t1: datetime) -> sa.Select[Any]:
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until)
    place = [column for column in grouping(scope, Visit) if column.name == "place"]
    return (
        sa.select(*place, Visit.started_at, until.label("until"), Visit.party_size)
        .join(Station, Station.id == Visit.station_id)
        .where(
            Visit.station_id.in_(scope.stations),
            Visit.voided_at.is_(None),
            Visit.started_at < t1,
            Visit.started_at > t0 - LONGEST_STAY,
            until > t0,
        )
        .order_by(*(column.element for column in place), Visit.started_at)
        .execution_options(yield_per=STREAM)
    )


def _occupancy_row(cell: Cell, profile: Profile | None) -> OccupancyRow:
    names = (cell.station, cell.unit, cell.name, cell.day, cell.hour, cell.known_share)
    if profile is None:
        return OccupancyRow(*names, cell.capacity, *([None] * 8))
    seconds = (cell.known_until - cell.known_from).total_seconds()
    return OccupancyRow(
        *names,
        capacity=cell.capacity,
        measured_hours=round(seconds / 3600, 2),
        avg_occupancy=rate(profile.person_seconds, seconds),
        avg_when_used=rate(profile.person_seconds, profile.used_seconds),
        peak_occupancy=profile.peak,
        peak_at=profile.peak_at,
        max_observed=profile.max_observed,
        seat_utilization=rate(profile.person_seconds, cell.seat_seconds),
        time_utilization=rate(profile.used_seconds, seconds),
    )


class FacilitiesRow(NamedTuple):
    """What was used (metrics 32, 33)."""

    station: str | None
    unit: str | None
    name: str
    day: date | None
    hour: int | None
    known_share: float
    kind: FacilityKind
    units: int | None
    """How many of them stand there now."""
    uses: int | None
    """Sessions that ended, and quantities; a use belongs to where it began."""
    open_uses: int | None
    quantity: float | None
    in_use_hours: float | None
    uses_per_visit: float | None


@dataclass(slots=True)
class _Used:
    uses: int = 0
    open_uses: int = 0
    quantity: float = 0.0
    seconds: float = 0.0


async def facilities(tx: AsyncSession, scope: Scope) -> Sequence[FacilitiesRow]:
    """Count the uses of facilities by kind: kinds that stand there, and kinds that were used."""
    used = await _used(tx, scope)
    standing = await _standing(tx, scope)
    first = _count_if(Visit.re_entry.is_(False)).label("visits")
    counted = await _by_key(tx, grouped(scope, Visit, first))
    rows = []
    for key, cell in (await cells(tx, scope)).items():
        here, units = used.get(key, {}), standing[key.place]
        visited, known = _int(counted.get(key), "visits"), cell.is_known
        for kind in sorted({*here, *units}):
            each = here.get(kind, _Used())
            rows.append(
                FacilitiesRow(
                    station=cell.station,
                    unit=cell.unit,
                    name=cell.name,
                    day=cell.day,
                    hour=cell.hour,
                    known_share=cell.known_share,
                    kind=kind,
                    units=units[kind],
                    uses=each.uses if known else None,
                    open_uses=each.open_uses if known else None,
                    quantity=round(each.quantity, 3) if known else None,
                    in_use_hours=round(each.seconds / 3600, 3) if known else None,
                    uses_per_visit=rate(each.uses, visited),
                )
            )
    return rows


async def _used(tx: AsyncSession, scope: Scope) -> Mapping[Key, dict[FacilityKind, _Used]]:
    found: defaultdict[Key, defaultdict[FacilityKind, _Used]] = defaultdict(
        lambda: defaultdict(_Used)
    )
    columns = (Facility.kind, FacilityUse.begun_at, FacilityUse.ended_at, FacilityUse.quantity)
    query = (
        selected(scope, FacilityUse, *columns)
        .join(Facility, Facility.id == FacilityUse.facility_id)
        .execution_options(yield_per=STREAM)
    )
    async for row in await tx.stream(query):
        used = found[key_of(row)][row.kind]
        used.quantity += float(row.quantity or 0)
        if row.ended_at is None:
            used.open_uses += 1
        else:
            used.uses += 1
            used.seconds += (row.ended_at - row.begun_at).total_seconds()
    return found


async def _standing(tx: AsyncSession, scope: Scope) -> Mapping[Any, Counter[FacilityKind]]:
    """Count what stands there now, by place."""
    found: defaultdict[Any, Counter[FacilityKind]] = defaultdict(Counter)
    rows = await tx.execute(
        sa.select(Facility.station_id, Station.unit_id, Facility.kind, Facility.quantity)
        .join(Station, Station.id == Facility.station_id)
        .where(Facility.station_id.in_(scope.stations), Facility.retired_at.is_(None))
    )
    for row in rows:
        place = {By.STATION: row.station_id, By.UNIT: row.unit_id, By.DAY: None}[scope.by]
        found[place][row.kind] += row.quantity
    return found


class ControllersRow(NamedTuple):
    """How a station's controller does, and what became of the station's commands."""

    station: str | None
    name: str
    known_share: float
    serial: str | None
    firmware: str | None
    seen_at: datetime | None
    online: bool | None
    """Now; None where no controller is enrolled."""
    commands: int | None
    """By scans and from afar."""
    live: int | None
    """Not settled yet."""
    executed: int | None
    refused: int | None
    failed: int | None
    expired: int | None
    unknown: int | None
    pickup_p50_ms: float | None
    """From the decision to the claim."""
    pickup_p95_ms: float | None


async def controllers(
    tx: AsyncSession, scope: Scope, *, silent_since: datetime
) -> Sequence[ControllersRow]:
    """Give every station's controller and what became of its commands; by station only."""
    found = await cells(tx, scope)
    enrolled: dict[Any, Controller] = {
        row.station_id: row
        for row in await tx.scalars(
            sa.select(Controller).where(
                Controller.station_id.in_(scope.stations), Controller.retired_at.is_(None)
            )
        )
    }
    states, waits = await _commands(tx, scope, found)
    rows = []
    for key, cell in found.items():
        controller, known = enrolled.get(key.place), cell.is_known
        counted, waited = states[key.place], spread(waits[key.place])
        rows.append(
            ControllersRow(
                station=cell.station,
                name=cell.name,
                known_share=cell.known_share,
                serial=controller.serial if controller else None,
                firmware=controller.firmware if controller else None,
                seen_at=controller.seen_at if controller else None,
                online=_online(controller, silent_since),
                commands=counted.total() if known else None,
                live=sum(counted[state] for state in LIVE) if known else None,
                executed=counted[CommandState.EXECUTED] if known else None,
                refused=counted[CommandState.REFUSED] if known else None,
                failed=counted[CommandState.FAILED] if known else None,
                expired=counted[CommandState.EXPIRED] if known else None,
                unknown=counted[CommandState.UNKNOWN] if known else None,
                pickup_p50_ms=_ms(waited.p50),
                pickup_p95_ms=_ms(waited.p95),
            )
        )
    return rows


async def _commands(
    tx: AsyncSession, scope: Scope, found: Mapping[Key, Cell]
) -> tuple[Mapping[Any, Counter[CommandState]], Mapping[Any, list[float]]]:
    """Give the states of each station's commands as they read now, and how long pick-up took."""
    states: defaultdict[Any, Counter[CommandState]] = defaultdict(Counter)
    waits: defaultdict[Any, list[float]] = defaultdict(list)
    if not found:
        return states, waits
    query = (
        sa.select(
            Command.station_id,
            Command.state,
            Command.created_at,
            Command.claimed_at,
            Command.expires_at,
        )
        .where(
            Command.station_id.in_(scope.stations),
            Command.created_at >= min(cell.t0 for cell in found.values()),
            Command.created_at < max(cell.t1 for cell in found.values()),
        )
        .execution_options(yield_per=STREAM)
    )
    async for row in await tx.stream(query):
        cell = found.get(Key(row.station_id, None, None))
        if cell is None or not cell.t0 <= row.created_at < cell.t1:
            continue
        states[row.station_id][state_now(row.state, live=row.expires_at > scope.at)] += 1
        if row.claimed_at is not None:
            waits[row.station_id].append((row.claimed_at - row.created_at).total_seconds())
    return states, waits


def _online(controller: Controller | None, silent_since: datetime) -> bool | None:
    if controller is None:
        return None
    return controller.seen_at is not None and controller.seen_at > silent_since
