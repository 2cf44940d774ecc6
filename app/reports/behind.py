"""The raw rows behind a figure of a station, page by page.

They name no worker and no occupation, and are shown of one station and of at most 31 days, from
the first of them to the last (law 15).
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.db.types import Instant, table_of
from app.doors.rules import Outcome
from app.doors.tables import Command, Controller, ControllerOutage, OfflineEntry, Scan
from app.places.held import promised_of
from app.places.rules import Because, Kind, local_day
from app.places.spells import FINE, out_since
from app.places.tables import Facility, FacilityKind, FacilitySpell, Station, StationModes
from app.reports import health, vectors
from app.reports.cells import Cell
from app.reports.made import WITH_CONTACT, Made, Rows
from app.reports.queries import long_out
from app.reports.rules import Grain
from app.reports.rules.counters import ALL_DAY, QUARTERS, C
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.rules.health import Counts, Heard, Piece, pieces
from app.reports.tables import Rollup
from app.visits.headcounts import LONGEST as LONGEST_COUNT
from app.visits.rules import LONGEST_STAY
from app.visits.tables import FacilityUse, Visit, WalkInCount

MOST_DAYS = 31
"""Of so many days rows are shown."""


class Window(NamedTuple):
    """A mode that held at a station."""

    id: uuid.UUID
    """The station's."""
    from_at: datetime
    until_at: datetime
    mode: Kind
    because: Because
    promised_ms: int
    """Of that time, how long it was promised to be open, whatever held."""


class Hour(NamedTuple):
    """An hour of a station as it was counted: milliseconds, and visits that began in free mode."""

    id: uuid.UUID
    """The station's."""
    from_at: datetime
    until_at: datetime
    open_ms: int
    staffed_ms: int
    covered_ms: int
    heads_only_ms: int
    visits_free: int
    reporting_ms: int
    seats_ms: int
    commissioned_ms: int
    online_ms: int
    deaf_ms: int


_OF_AN_HOUR = tuple(C[name.upper()] for name in Hour._fields[3:])

_TABLES: Mapping[Rows, tuple[Any, Any, Any]] = {
    Rows.VISITS: (Visit, Visit.started_at, Visit.id),
    Rows.SCANS: (Scan, Scan.scanned_at, Scan.id),
    Rows.COMMANDS: (Command, Command.created_at, Command.id),
    Rows.USES: (FacilityUse, FacilityUse.begun_at, FacilityUse.id),
    Rows.HEADS: (WalkInCount, WalkInCount.from_at, WalkInCount.id),
    Rows.ALONE: (OfflineEntry, OfflineEntry.happened_at, OfflineEntry.entry_id),
    Rows.MODES: (StationModes, StationModes.midnight_at, StationModes.station_id),
    Rows.DEMANDS: (Scan, Scan.scanned_at, Scan.id),
    Rows.SPELLS: (FacilitySpell, FacilitySpell.from_at, FacilitySpell.facility_id),
}
"""Where they stand, when each began, and what tells those of one instant apart."""
_OF_DAYS = frozenset({Rows.HEADS, Rows.MODES})
"""Rows that belong to a day, and to no hour of it."""


def may_list(cell: Cell) -> bool:
    """Say whether a cell's days are near enough together for its rows to be shown."""
    ranges = cell.slot.ranges
    return ranges[-1][1] - ranges[0][0] <= timedelta(days=MOST_DAYS)


async def behind(
    tx: AsyncSession,
    cell: Cell,
    station: Station,
    made: Made,
    request: PageRequest,
    *,
    silence: timedelta,
) -> PageOf[Any]:
    """Give a page of the raw rows that a figure counts at a station; raises CursorInvalid.

    `silence` is how long a controller may be silent.
    """
    if made.rows is None:
        return PageOf([], None)
    if made.rows is Rows.PROMISED:
        return await _promised(tx, cell, station, request, silence=silence)
    if made.rows is Rows.OUTAGES:
        return await _silent(tx, cell, station, made, request, silence=silence)
    if made.rows is Rows.HOURS:
        return await _hours(tx, cell, station, request)
    if made.is_now:
        return await _long_out(tx, cell, station, request)
    table, begun, id = _TABLES[made.rows]
    query = sa.select(table).where(table.station_id == station.id)
    times = cell.times(station.timezone)
    if made.is_inside:
        query = query.where(_lasted(cell, station.timezone))
    elif made.rows is Rows.SPELLS:
        query = query.where(_touching(table, times, _fine_again() if made.is_ended else None))
    elif made.rows is Rows.COMMANDS:
        query = query.where(sa.or_(*(sa.and_(begun >= t0, begun < t1) for t0, t1 in times)))
    else:
        day, ranges = table.local_day, cell.slot.ranges
        query = query.where(sa.or_(*(sa.and_(day >= d0, day < d1) for d0, d1 in ranges)))
        if cell.hour is not None and made.rows not in _OF_DAYS:
            query = query.where(table.local_hour == cell.hour)
    if made.rows is Rows.VISITS:
        query = query.where(Visit.voided_at.is_(None))
    if made.rows is Rows.HEADS:
        query = query.where(WalkInCount.withdrawn_at.is_(None))
    if made.rows is Rows.USES and cell.kind is not None:
        query = query.where(FacilityUse.facility_id.in_(_of_kind(cell.kind)))
    if made.rows is Rows.SPELLS and cell.kind is not None:
        query = query.where(FacilitySpell.kind == cell.kind)
    if made.where is not None:
        query = query.where(made.where).params(at=cell.scope.at)
    found = await cursors.page(tx, query, by=[begun, id], request=request)
    if made.rows is Rows.MODES:
        return PageOf([one for day in found.rows for one in _windows(day, times)], found.next)
    if made.rows is Rows.DEMANDS:
        return PageOf(await _demands(tx, cell, found.rows), found.next)
    if made.rows is Rows.COMMANDS:
        return PageOf(await _proven(tx, found.rows), found.next)
    return found


@dataclass(frozen=True, slots=True)
class Proven:
    """An unlock command, and whether a contact was there to prove that the door opened."""

    command: Command
    with_contact: bool

    def __getattr__(self, name: str) -> Any:
        """Give what the command has."""
        return getattr(self.command, name)


async def _proven(tx: AsyncSession, commands: Sequence[Command]) -> Sequence[Proven]:
    """Say of commands whether they count as of a door with a contact."""
    ids = [one.id for one in commands]
    query = sa.select(Command.id).where(Command.id.in_(ids), WITH_CONTACT)
    found = set((await tx.scalars(query)).all())
    return [Proven(one, one.id in found) for one in commands]


async def _hours(
    tx: AsyncSession, cell: Cell, station: Station, request: PageRequest
) -> PageOf[Hour]:
    """Give a page of the hours in which anything of an Hour was counted."""
    c, zone = table_of(Rollup).c, station.timezone
    query = (
        sa.select(c.from_day, c.hours)
        .where(
            c.place_id == station.id,
            c.grain == Grain.DAY,
            c.from_day.in_(list(cell.slot.days)),
        )
        .order_by(c.from_day)
    )
    found: list[Hour] = []
    for day, data in await tx.execute(query):
        edges, counts = quarter_edges(zone, day)[::QUARTERS], vectors.unpacked(data)
        for hour in range(ALL_DAY) if cell.hour is None else [cell.hour]:
            told = [counts.get(hour * vectors.HOUR + key, 0) for key in _OF_AN_HOUR]
            if any(told):
                span = _instant(edges[hour]), _instant(edges[hour + 1])
                found.append(Hour(station.id, *span, *told))
    return cursors.page_of(found, request, key=lambda one: (one.from_at.timestamp(), ""))


class Kept(NamedTuple):
    """A promised time, and what became of it."""

    id: uuid.UUID
    """The station's."""
    from_at: datetime
    until_at: datetime
    mode: Kind | None
    because: Because | None
    heard: Heard
    counts: Counts


async def _promised(
    tx: AsyncSession, cell: Cell, station: Station, request: PageRequest, *, silence: timedelta
) -> PageOf[Kept]:
    """Give a page of the pieces of the promised time, cut as they are counted."""
    at, zone = cell.scope.at, station.timezone
    days = [day for day in cell.slot.days if day <= local_day(at, zone)]
    if not days:
        return PageOf([], None)
    stood = await health.read_days(tx, {station.id: days}, silence=silence, at=at)
    counted = await tx.execute(
        sa.select(WalkInCount.from_at, WalkInCount.until_at).where(
            WalkInCount.station_id == station.id,
            WalkInCount.local_day.between(days[0] - LONGEST_COUNT, days[-1]),
            WalkInCount.withdrawn_at.is_(None),
        )
    )
    heads = [(ms_of(since), ms_of(until)) for since, until in counted]
    times = [(ms_of(since), ms_of(until)) for since, until in cell.times(zone)]

    def told() -> Sequence[Kept]:
        each = [
            one for day in days for one in pieces(stood[station.id, day]._replace(counted=heads))
        ]
        return list(_clipped(station.id, each, times))

    found = await asyncio.to_thread(told)
    return cursors.page_of(found, request, key=lambda one: (one.from_at.timestamp(), ""))


def _clipped(
    station: uuid.UUID, found: Sequence[Piece], times: Sequence[tuple[int, int]]
) -> Iterator[Kept]:
    """Keep of some pieces, in order, what lies in some of the times."""
    for piece in found:
        for begins, ends in times:
            since, until = max(piece.from_ms, begins), min(piece.until_ms, ends)
            if since < until:
                yield Kept(station, _instant(since), _instant(until), *piece[2:])


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def _silent(
    tx: AsyncSession,
    cell: Cell,
    station: Station,
    made: Made,
    request: PageRequest,
    *,
    silence: timedelta,
) -> PageOf[Any]:
    """Give a page of silences: those that are over, and as they are counted, those that are not."""
    over, box = table_of(ControllerOutage).c, table_of(Controller).c
    query = sa.select(over.controller_id, over.from_at, over.until_at).where(
        over.station_id == station.id,
        # Empty ones only say that a day was counted anew.
        over.from_at < over.until_at,
    )
    at, left = cell.scope.at, list[uuid.UUID]()
    boxes = await tx.execute(
        sa.select(box.id, box.enrolled_at, box.seen_at, box.retired_at).where(
            box.station_id == station.id
        )
    )
    for id, enrolled_at, seen_at, retired_at in boxes:
        if min(at, retired_at or at) - (seen_at or enrolled_at) > silence:
            left.append(id)
    since = sa.func.coalesce(box.seen_at, box.enrolled_at, type_=Instant())
    open_ = sa.select(
        box.id.label("controller_id"), since.label("from_at"), box.retired_at.label("until_at")
    ).where(box.id.in_(left))
    each = (query if made.is_ended else query.union_all(open_)).subquery()
    times = [time for time in cell.times(station.timezone) if time[0] < at]
    ended = each.c.until_at if made.is_ended else None
    lines = sa.select(each).where(sa.or_(sa.false(), _touching(each.c, times, ended)))
    by = [each.c.from_at, each.c.controller_id]
    return await cursors.page_of_lines(tx, lines, by=by, request=request)


@dataclass(frozen=True, slots=True)
class Demand:
    """A refused scan, and the demand of its worker there in its half hour."""

    scan: Scan
    demand: uuid.UUID
    """The first of its refused scans: the same for all of them, and it names nobody."""
    met: bool
    """Whether he was let in all the same in that half hour, by a scan or a controller alone."""

    def __getattr__(self, name: str) -> Any:
        """Give what the scan has."""
        return getattr(self.scan, name)


async def _demands(tx: AsyncSession, cell: Cell, scans: Sequence[Scan]) -> Sequence[Demand]:
    """Say to which demand each scan belongs, as `rules/day.py` counts them: day by day.

    A demand belongs to the hour in which it began; where clocks are not by the half hour, its later
    scans are in another, and are left out there.
    """
    if not scans:
        return []
    station, keys = scans[0].station_id, {scan.demand_key for scan in scans}
    days = {scan.local_day for scan in scans}
    c = table_of(Scan).c
    alike = await tx.execute(
        sa.select(c.local_day, c.demand_key, c.outcome, c.local_hour, c.scanned_at, c.id).where(
            c.station_id == station, c.local_day.in_(days), c.demand_key.in_(keys)
        )
    )
    alone = table_of(OfflineEntry).c
    let_in = await tx.execute(
        sa.select(alone.local_day, alone.demand_key).where(
            alone.station_id == station,
            alone.local_day.in_(days),
            alone.demand_key.in_(keys),
            alone.opened.is_(True),
        )
    )
    met = {tuple(row) for row in let_in}
    first: dict[Any, tuple[datetime, uuid.UUID]] = {}
    hours: dict[Any, int] = {}
    for day, key, outcome, hour, scanned_at, id in alike:
        which = day, key
        hours[which] = min(hours.get(which, hour), hour)
        if outcome is not Outcome.REFUSED:
            met.add(which)
        else:
            first[which] = min(first.get(which, (scanned_at, id)), (scanned_at, id))
    return [
        Demand(scan, first[which][1], which in met)
        for scan in scans
        for which in [(scan.local_day, scan.demand_key)]
        if cell.hour in (None, hours[which])
    ]


def _fine_again() -> sa.ColumnElement[datetime]:
    """Say when somebody first said after a spell that the facility works."""
    later = aliased(FacilitySpell)
    return (
        sa.select(sa.func.min(later.from_at))
        .where(
            later.facility_id == FacilitySpell.facility_id,
            later.from_at > FacilitySpell.from_at,
            later.status.in_(FINE),
        )
        .correlate(FacilitySpell)
        .scalar_subquery()
    )


def _touching(
    table: Any, times: Sequence[tuple[datetime, datetime]], ended: Any | None
) -> sa.ColumnElement[bool]:
    """Select the spells that reach into some times, or that ended in them."""
    if ended is not None:
        return sa.or_(*(sa.and_(ended >= t0, ended < t1) for t0, t1 in times))
    until = table.until_at
    lasts = until.is_(None)
    return sa.or_(*(sa.and_(table.from_at < t1, lasts | (until > t0)) for t0, t1 in times))


def _windows(day: StationModes, times: Sequence[tuple[datetime, datetime]]) -> Iterator[Window]:
    """Give the modes of a day that held in some of the times."""
    promised = promised_of(day)
    for since, until, kind, because in day.windows:
        from_at, until_at = (day.midnight_at + timedelta(milliseconds=ms) for ms in (since, until))
        if any(from_at < t1 and until_at > t0 for t0, t1 in times):
            within = (min(until, end) - max(since, begin) for begin, end in promised)
            kept = sum(max(0, length) for length in within)
            yield Window(day.station_id, from_at, until_at, Kind(kind), Because(because), kept)


def _lasted(cell: Cell, timezone: str) -> sa.ColumnElement[bool]:
    """Select the visits that lasted into the time of a cell, as far as it is over."""
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until, type_=Instant())
    times = [each for each in cell.times(timezone) if each[0] < cell.scope.at]
    pieces = [
        sa.and_(
            Visit.started_at >= begins - LONGEST_STAY - timedelta(days=1),
            Visit.started_at < min(ends, cell.scope.at),
            until > begins,
        )
        for begins, ends in times
    ]
    return sa.and_(until > Visit.started_at, sa.or_(sa.false(), *pieces))


async def _long_out(
    tx: AsyncSession, cell: Cell, station: Station, request: PageRequest
) -> PageOf[Any]:
    """Give a page of the faults that last too long: each from its beginning on, as one."""
    if station.retired_at is not None:
        return PageOf([], None)
    c = table_of(Facility).c
    of_kind = [] if cell.kind is None else [c.kind == cell.kind]
    out = long_out(cell.scope.at, c.station_id == station.id, *of_kind).c
    each = sa.select(
        out.id.label("facility_id"),
        out.kind,
        out.quantity,
        out.status,
        out_since(out.id).label("from_at"),
        sa.null().label("until_at"),
    ).subquery()
    by = [each.c.from_at, each.c.facility_id]
    return await cursors.page_of_lines(tx, sa.select(each), by=by, request=request)


def _of_kind(kind: FacilityKind) -> sa.Select[Any]:
    return sa.select(Facility.id).where(Facility.kind == kind)
