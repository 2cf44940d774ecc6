"""Raw rows of days, read for many stations at once and given to the pure count."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.doors.rules import CommandState, state_now
from app.doors.tables import Command, Door, OfflineEntry, Scan
from app.people.tables import Worker
from app.places.rules import Kind
from app.places.tables import Facility, Station, StationModes
from app.reports import health
from app.reports.rules import Grain
from app.reports.rules.day import Alone, Attempt, Facts, Order, Stay, Use, ms_of, quarter_edges
from app.reports.rules.health import Day, Span
from app.reports.tables import Rollup
from app.visits.headcounts import LONGEST as LONGEST_COUNT
from app.visits.rules import LONGEST_STAY
from app.visits.tables import OBSERVED, EndSource, FacilityUse, Visit, WalkInCount

Cell = tuple[uuid.UUID, date]
"""A station's local day."""


@dataclass(frozen=True, slots=True)
class StationDay:
    """A station's raw day, and until when the longest stay that began on it lasts."""

    facts: Facts
    stood: Day
    """What held, what was heard, and how the facilities were."""
    reaches_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which days of which stations are read: those that are due, and no gap between."""

    due: Mapping[uuid.UUID, Sequence[date]]
    places: Mapping[uuid.UUID, Any]
    first: date
    last: date

    def midnight(self, station: uuid.UUID, day: date) -> int:
        """Say when a day begins at a station."""
        return quarter_edges(self.places[station].timezone, day)[0]

    def of(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        """Select these days from a table of facts."""
        c = table.c
        return c.station_id.in_(list(self.due)), c.local_day.between(self.first, self.last)


_DAY = timedelta(days=1)

_VISIT, _WORKER, _ALONE = table_of(Visit), table_of(Worker), table_of(OfflineEntry)
_SCAN, _COMMAND, _DOOR = table_of(Scan), table_of(Command), table_of(Door)
_USE, _FACILITY, _HEADS = table_of(FacilityUse), table_of(Facility), table_of(WalkInCount)
_STATION, _ROLLUP = table_of(Station), table_of(Rollup)
_MODES = table_of(StationModes)


async def read_days(
    tx: AsyncSession,
    due: Mapping[uuid.UUID, Sequence[date]],
    *,
    silence: timedelta,
    at: datetime,
) -> Mapping[Cell, StationDay]:
    """Read what is known of some local days of some stations, as of an instant.

    A station's days must be its oldest that are due: stays reach from one into the next.
    """
    places = {row.id: row for row in await tx.execute(_places(list(due)))}
    days = [day for each in due.values() for day in each]
    if not places:
        return {}
    wanted = _Wanted(due, places, min(days), max(days))
    visits = (await tx.execute(_visits(*wanted.of(_VISIT)))).all()
    earlier = await _earlier(tx, wanted)
    scans = await _scans(tx, wanted)
    commands = await _commands(tx, wanted)
    alone = await _alone(tx, wanted)
    uses = await _uses(tx, wanted)
    heads = await _heads(tx, wanted)
    stood = await health.read_days(tx, due, silence=silence, at=at)

    def told() -> Mapping[Cell, StationDay]:
        stays, reaches = _stays([*earlier, *visits], wanted, at)
        attempts, orders, other = _attempts(scans), _orders(commands, places, at), _others(alone)
        used, counted, counting = _used(uses), _counted(heads), _counting(heads, wanted)
        found = {}
        for id, place in places.items():
            for day in due[id]:
                cell = id, day
                facts = Facts(
                    timezone=place.timezone,
                    day=day,
                    capacity=_capacity(place, day),
                    seats=stood[cell].seats,
                    stays=stays.get(cell, ()),
                    attempts=attempts.get(cell, ()),
                    orders=orders.get(cell, ()),
                    alone=other.get(cell, ()),
                    uses=used.get(cell, ()),
                    heads=sum(counted.get(cell, ())),
                    head_counts=len(counted.get(cell, ())),
                    counted=counting.get(cell, ()),
                )
                stood_then = stood[cell]._replace(counted=facts.counted)
                found[cell] = StationDay(facts, stood_then, reaches.get(cell))
        return found

    # Thousands of rows: beside the loop that doors wait on.
    return await asyncio.to_thread(told)


def _places(stations: Sequence[uuid.UUID]) -> sa.Select[Any]:
    """Select stations, and the first record of how many seats each had."""
    any_day = _MODES.alias("any_day").c
    first = (
        sa.select(sa.func.min(any_day.local_day))
        .where(any_day.station_id == _STATION.c.id, any_day.seats.is_not(None))
        .correlate(_STATION)
        .scalar_subquery()
    )
    c = _STATION.c
    return (
        sa.select(c.id, c.timezone, c.capacity, _MODES.c.local_day, _MODES.c.seats)
        .outerjoin_from(
            _STATION,
            _MODES,
            sa.and_(_MODES.c.station_id == c.id, _MODES.c.local_day == first),
        )
        .where(c.id.in_(stations))
    )


def _capacity(place: Any, day: date) -> int:
    """Say how many seats there were on a day of which that is not recorded.

    As many as when it was recorded first, whenever they are counted; after the record, as now.
    """
    if place.local_day is None or day >= place.local_day:
        return place.capacity  # type: ignore[no-any-return]  # Of a row.
    return place.seats[0][2]  # type: ignore[no-any-return]  # Of JSON.


def _stays(
    visits: Sequence[Any], wanted: _Wanted, at: datetime
) -> tuple[Mapping[Cell, list[Stay]], Mapping[Cell, datetime]]:
    """Give the visits that began on each day, and those of days before that reach into it."""
    found: defaultdict[Cell, list[Stay]] = defaultdict(list)
    reaches: dict[Cell, datetime] = {}
    cells = {(id, day) for id, days in wanted.due.items() for day in days}
    at_ms = ms_of(at)
    for row in visits:
        station, day = row.station_id, row.local_day
        stay = _stay(row, at_ms, hour=row.local_hour)
        if (station, day) in cells:
            found[station, day].append(stay)
            until = row.stay_until if row.ended_at is None else max(row.ended_at, row.stay_until)
            reaches[station, day] = max(reaches.get((station, day), until), until)
        for later in range(1, LONGEST_STAY.days + 1):
            cell = station, day + later * _DAY
            if stay.until_ms <= wanted.midnight(*cell):
                break
            if cell in cells:
                found[cell].append(stay._replace(hour=None))
    return found, reaches


async def _earlier(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    """Read the visits of days before the first that may last into it or beyond."""
    c = _ROLLUP.c
    begins = min(wanted.midnight(id, wanted.first) for id in wanted.places)
    rows = (
        await tx.execute(
            sa.select(c.place_id, c.from_day).where(
                c.place_id.in_(list(wanted.places)),
                c.grain == Grain.DAY,
                c.from_day < wanted.first,
                c.from_day >= wanted.first - LONGEST_STAY,
                c.reaches_at > datetime.fromtimestamp(begins / 1000, UTC),
            )
        )
    ).all()
    if not rows:
        return []
    v = _VISIT.c
    stations, days = {row.place_id for row in rows}, {row.from_day for row in rows}
    query = _visits(v.station_id.in_(stations), v.local_day.in_(days))
    visits: Sequence[Any] = (await tx.execute(query)).all()
    return visits


def _visits(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    c = _VISIT.c
    return (
        sa.select(
            c.station_id,
            c.local_day,
            c.started_at,
            c.stay_until,
            c.ended_at,
            c.end_source,
            c.party_size,
            c.local_hour,
            c.re_entry,
            c.mode,
            c.occupation,
            sa.func.coalesce(_WORKER.c.number, c.erased_number).label("number"),
            _began_alone().label("is_offline"),
        )
        .outerjoin(_WORKER, _WORKER.c.id == c.worker_id)
        .where(*where, c.voided_at.is_(None))
    )


def _began_alone() -> sa.ColumnElement[bool]:
    """Say whether a visit began with an opening by a controller that worked alone."""
    opened = sa.func.coalesce(_ALONE.c.opened_at, _ALONE.c.happened_at)
    return sa.exists().where(_ALONE.c.visit_id == _VISIT.c.id, opened <= _VISIT.c.started_at)


def _stay(row: Any, at_ms: int, *, hour: int | None) -> Stay:
    """Read what time has brought as the sweep will write it."""
    stay_until = ms_of(row.stay_until)
    if row.ended_at is not None:
        until, is_over, imputed = ms_of(row.ended_at), True, row.end_source is EndSource.IMPUTED
    else:
        is_over = imputed = stay_until <= at_ms
        until = min(stay_until, at_ms)
    return Stay(
        from_ms=ms_of(row.started_at),
        until_ms=until,
        persons=row.party_size,
        hour=hour,
        is_return=row.re_entry,
        is_free=row.mode is Kind.FREE,
        is_offline=row.is_offline,
        is_over=is_over,
        is_imputed=imputed,
        is_seen=row.end_source in OBSERVED,
        occupation=None if row.occupation is None else row.occupation.value,
        number=row.number,
    )


async def _scans(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    c = _SCAN.c
    query = sa.select(
        c.station_id, c.local_day, c.local_hour, c.outcome, c.reason, c.demand_key, c.decide_ms
    )
    return (await tx.execute(query.where(*wanted.of(_SCAN)))).all()


def _attempts(rows: Sequence[Any]) -> Mapping[Cell, list[Attempt]]:
    found: defaultdict[Cell, list[Attempt]] = defaultdict(list)
    for station, day, *attempt in rows:
        found[station, day].append(Attempt(*attempt))
    return found


async def _commands(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    """Read the commands that were decided on these days, by scans and from afar."""
    c = _COMMAND.c
    edges = [
        (wanted.midnight(id, wanted.first), wanted.midnight(id, wanted.last + timedelta(days=1)))
        for id in wanted.places
    ]
    begins = datetime.fromtimestamp(min(begins for begins, _ in edges) / 1000, UTC)
    ends = datetime.fromtimestamp(max(ends for _, ends in edges) / 1000, UTC)
    query = (
        sa.select(
            c.station_id,
            c.state,
            c.scan_id,
            c.created_at,
            c.expires_at,
            c.claimed_at,
            c.pulsed_at,
            c.opened_at,
            sa.func.coalesce(c.has_contact, _DOOR.c.has_contact).label("has_contact"),
        )
        .join(_DOOR, _DOOR.c.id == c.door_id)
        .where(c.station_id.in_(list(wanted.due)), c.created_at >= begins, c.created_at < ends)
    )
    return (await tx.execute(query)).all()


def _orders(
    rows: Sequence[Any], places: Mapping[uuid.UUID, Any], at: datetime
) -> Mapping[Cell, list[Order]]:
    found: defaultdict[Cell, list[Order]] = defaultdict(list)
    for row in rows:
        local = row.created_at.astimezone(ZoneInfo(places[row.station_id].timezone))
        found[row.station_id, local.date()].append(
            Order(
                hour=local.hour,
                state=state_now(row.state, live=row.expires_at > at),
                by_scan=row.scan_id is not None,
                has_contact=row.has_contact,
                claimed_ms=_after(row.created_at, row.claimed_at),
                pulsed_ms=_after(row.created_at, row.pulsed_at)
                if row.state is CommandState.EXECUTED
                else None,
                opened_ms=_after(row.created_at, row.opened_at),
            )
        )
    return found


def _after(since: datetime, until: datetime | None) -> int | None:
    return None if until is None else ms_of(until) - ms_of(since)


async def _alone(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    c = _ALONE.c
    query = sa.select(
        c.station_id,
        c.local_day,
        c.local_hour,
        c.opened,
        c.would_have_been_refused,
        c.demand_key,
    )
    return (await tx.execute(query.where(*wanted.of(_ALONE)))).all()


def _others(rows: Sequence[Any]) -> Mapping[Cell, list[Alone]]:
    found: defaultdict[Cell, list[Alone]] = defaultdict(list)
    for row in rows:
        flagged = row.would_have_been_refused is not None
        alone = Alone(row.local_hour, row.opened, flagged, row.demand_key)
        found[row.station_id, row.local_day].append(alone)
    return found


async def _uses(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    c, f = _USE.c, _FACILITY.c
    query = (
        sa.select(
            c.station_id, c.local_day, c.local_hour, f.kind, c.begun_at, c.ended_at, c.quantity
        )
        .join(_FACILITY, f.id == c.facility_id)
        .where(*wanted.of(_USE))
    )
    return (await tx.execute(query)).all()


def _used(rows: Sequence[Any]) -> Mapping[Cell, list[Use]]:
    found: defaultdict[Cell, list[Use]] = defaultdict(list)
    for row in rows:
        is_over = row.ended_at is not None
        in_use_ms = ms_of(row.ended_at) - ms_of(row.begun_at) if is_over else 0
        milli = int((row.quantity or 0) * 1000)
        use = Use(row.local_hour, row.kind.value, is_over, in_use_ms, milli)
        found[row.station_id, row.local_day].append(use)
    return found


async def _heads(tx: AsyncSession, wanted: _Wanted) -> Sequence[Any]:
    """Read the head counts that began on these days, or before them and may last into them."""
    c = _HEADS.c
    query = sa.select(c.station_id, c.local_day, c.from_at, c.until_at, c["count"].label("heads"))
    where = (
        c.station_id.in_(list(wanted.due)),
        c.local_day.between(wanted.first - LONGEST_COUNT, wanted.last),
        c.withdrawn_at.is_(None),
    )
    return (await tx.execute(query.where(*where))).all()


def _counted(rows: Sequence[Any]) -> Mapping[Cell, list[int]]:
    """Give the heads of every count; they belong to the day on which it begins."""
    found: defaultdict[Cell, list[int]] = defaultdict(list)
    for row in rows:
        found[row.station_id, row.local_day].append(row.heads)
    return found


def _counting(rows: Sequence[Any], wanted: _Wanted) -> Mapping[Cell, list[Span]]:
    """Give when staff counted heads, on every day into which a count lasts."""
    found: defaultdict[Cell, list[Span]] = defaultdict(list)
    for row in rows:
        day, span = row.local_day, (ms_of(row.from_at), ms_of(row.until_at))
        while wanted.midnight(row.station_id, day) < span[1]:
            found[row.station_id, day].append(span)
            day += _DAY
    return found
