"""A day's raw rows, read for many stations at once and given to the pure count."""

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
from app.places.tables import Facility, Station
from app.reports import health
from app.reports.rules import Grain
from app.reports.rules.day import Alone, Attempt, Facts, Order, Stay, Use, ms_of, quarter_edges
from app.reports.rules.health import Day
from app.reports.tables import Rollup
from app.visits.rules import LONGEST_STAY
from app.visits.tables import EndSource, FacilityUse, Visit, WalkInCount


@dataclass(frozen=True, slots=True)
class StationDay:
    """A station's raw day, and until when the longest stay that began on it lasts."""

    facts: Facts
    stood: Day
    """What held, what was heard, and how the facilities were."""
    reaches_at: datetime | None


_VISIT, _WORKER, _ALONE = table_of(Visit), table_of(Worker), table_of(OfflineEntry)
_SCAN, _COMMAND, _DOOR = table_of(Scan), table_of(Command), table_of(Door)


async def read_days(
    tx: AsyncSession,
    stations: Sequence[uuid.UUID],
    day: date,
    *,
    silence: timedelta,
    at: datetime,
) -> Mapping[uuid.UUID, StationDay]:
    """Read what is known of a local day of some stations, as of an instant."""
    query = sa.select(Station.id, Station.timezone, Station.capacity)
    places = {row.id: row for row in await tx.execute(query.where(Station.id.in_(stations)))}
    stays, reaches = await _stays(tx, places, day, at)
    attempts = await _attempts(tx, stations, day)
    orders = await _orders(tx, places, day, at)
    alone = await _alone(tx, stations, day)
    uses = await _uses(tx, stations, day)
    heads = await _heads(tx, places, day)
    stood = await health.read_days(tx, stations, day, silence=silence, at=at)
    return {
        id: StationDay(
            Facts(
                timezone=place.timezone,
                day=day,
                capacity=place.capacity,
                stays=stays[id],
                attempts=attempts[id],
                orders=orders[id],
                alone=alone[id],
                uses=uses[id],
                heads=heads[id],
            ),
            stood[id],
            reaches.get(id),
        )
        for id, place in places.items()
    }


async def _stays(
    tx: AsyncSession, places: Mapping[uuid.UUID, Any], day: date, at: datetime
) -> tuple[Mapping[uuid.UUID, list[Stay]], Mapping[uuid.UUID, datetime]]:
    """Read the visits that began on the day, and those of days before that reach into it."""
    found: defaultdict[uuid.UUID, list[Stay]] = defaultdict(list)
    reaches: dict[uuid.UUID, datetime] = {}
    at_ms = ms_of(at)
    for row in await tx.execute(_visits(_VISIT.c.station_id.in_(list(places)), day)):
        found[row.station_id].append(_stay(row, at_ms, hour=row.local_hour))
        until = row.stay_until if row.ended_at is None else max(row.ended_at, row.stay_until)
        reaches[row.station_id] = max(reaches.get(row.station_id, until), until)
    for earlier, stations in (await _reaching(tx, places, day)).items():
        for row in await tx.execute(_visits(_VISIT.c.station_id.in_(stations), earlier)):
            stay = _stay(row, at_ms, hour=None)
            if stay.until_ms > quarter_edges(places[row.station_id].timezone, day)[0]:
                found[row.station_id].append(stay)
    return found, reaches


async def _reaching(
    tx: AsyncSession, places: Mapping[uuid.UUID, Any], day: date
) -> Mapping[date, list[uuid.UUID]]:
    """Say which earlier days of which stations have a stay that lasts into the day."""
    rows = await tx.execute(
        sa.select(Rollup.place_id, Rollup.from_day, Rollup.reaches_at).where(
            Rollup.place_id.in_(list(places)),
            Rollup.grain == Grain.DAY,
            Rollup.from_day < day,
            Rollup.from_day >= day - LONGEST_STAY,
            Rollup.reaches_at.is_not(None),
        )
    )
    found: defaultdict[date, list[uuid.UUID]] = defaultdict(list)
    for row in rows:
        if ms_of(row.reaches_at) > quarter_edges(places[row.place_id].timezone, day)[0]:
            found[row.from_day].append(row.place_id)
    return found


def _visits(where: sa.ColumnElement[bool], day: date) -> sa.Select[Any]:
    c = _VISIT.c
    return (
        sa.select(
            c.station_id,
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
            sa.exists().where(_ALONE.c.visit_id == c.id).label("is_offline"),
        )
        .outerjoin(_WORKER, _WORKER.c.id == c.worker_id)
        .where(where, c.local_day == day, c.voided_at.is_(None))
    )


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
        occupation=None if row.occupation is None else row.occupation.value,
        number=row.number,
    )


async def _attempts(
    tx: AsyncSession, stations: Sequence[uuid.UUID], day: date
) -> Mapping[uuid.UUID, list[Attempt]]:
    found: defaultdict[uuid.UUID, list[Attempt]] = defaultdict(list)
    c = _SCAN.c
    rows = await tx.execute(
        sa.select(c.station_id, c.local_hour, c.outcome, c.reason, c.demand_key).where(
            c.station_id.in_(stations), c.local_day == day
        )
    )
    for station_id, hour, outcome, reason, demand_key in rows:
        found[station_id].append(Attempt(hour, outcome, reason, demand_key))
    return found


async def _orders(
    tx: AsyncSession, places: Mapping[uuid.UUID, Any], day: date, at: datetime
) -> Mapping[uuid.UUID, list[Order]]:
    """Read the commands that were decided on the day, by scans and from afar."""
    found: defaultdict[uuid.UUID, list[Order]] = defaultdict(list)
    c = _COMMAND.c
    by_zone: defaultdict[str, list[uuid.UUID]] = defaultdict(list)
    for id, place in places.items():
        by_zone[place.timezone].append(id)
    for timezone, stations in by_zone.items():
        edges = quarter_edges(timezone, day)
        begins, ends = (datetime.fromtimestamp(edge / 1000, UTC) for edge in (edges[0], edges[-1]))
        zone = ZoneInfo(timezone)
        rows = await tx.execute(
            sa.select(
                c.station_id,
                c.state,
                c.scan_id,
                c.created_at,
                c.expires_at,
                c.claimed_at,
                c.pulsed_at,
                c.opened_at,
                _DOOR.c.has_contact,
            )
            .join(_DOOR, _DOOR.c.id == c.door_id)
            .where(c.station_id.in_(stations), c.created_at >= begins, c.created_at < ends)
        )
        for row in rows:
            found[row.station_id].append(
                Order(
                    hour=row.created_at.astimezone(zone).hour,
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


async def _alone(
    tx: AsyncSession, stations: Sequence[uuid.UUID], day: date
) -> Mapping[uuid.UUID, list[Alone]]:
    found: defaultdict[uuid.UUID, list[Alone]] = defaultdict(list)
    c = _ALONE.c
    rows = await tx.execute(
        sa.select(c.station_id, c.local_hour, c.opened, c.would_have_been_refused).where(
            c.station_id.in_(stations), c.local_day == day
        )
    )
    for row in rows:
        flagged = row.would_have_been_refused is not None
        found[row.station_id].append(Alone(row.local_hour, row.opened, flagged))
    return found


async def _uses(
    tx: AsyncSession, stations: Sequence[uuid.UUID], day: date
) -> Mapping[uuid.UUID, list[Use]]:
    found: defaultdict[uuid.UUID, list[Use]] = defaultdict(list)
    c, f = table_of(FacilityUse).c, table_of(Facility).c
    rows = await tx.execute(
        sa.select(c.station_id, c.local_hour, f.kind, c.begun_at, c.ended_at, c.quantity)
        .join(table_of(Facility), f.id == c.facility_id)
        .where(c.station_id.in_(stations), c.local_day == day)
    )
    for row in rows:
        is_over = row.ended_at is not None
        in_use_ms = ms_of(row.ended_at) - ms_of(row.begun_at) if is_over else 0
        milli = int((row.quantity or 0) * 1000)
        found[row.station_id].append(Use(row.local_hour, row.kind.value, is_over, in_use_ms, milli))
    return found


async def _heads(
    tx: AsyncSession, places: Mapping[uuid.UUID, Any], day: date
) -> Mapping[uuid.UUID, list[tuple[int, int]]]:
    found: defaultdict[uuid.UUID, list[tuple[int, int]]] = defaultdict(list)
    rows = await tx.execute(
        sa.select(
            WalkInCount.station_id, WalkInCount.from_at, WalkInCount.count.label("heads")
        ).where(WalkInCount.station_id.in_(list(places)), WalkInCount.local_day == day)
    )
    for row in rows:
        zone = ZoneInfo(places[row.station_id].timezone)
        found[row.station_id].append((row.from_at.astimezone(zone).hour, row.heads))
    return found
