"""Which mode held: written down before anything can change it, and never worked out again (law 1).

The rules of a station may be amended later, and what held must stay what it was; so must the number
of its seats, by which reports count. So whoever changes them first has the time until then
recorded, under the rules that stood, in the same transaction; a job does the same for the time that
simply passes. What is recorded is only ever added to, under a lock on the station's row, so that of
a job and a change at the same moment one sees what the other did.
"""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.engine import Database
from app.db.types import table_of
from app.db.upsert import upsert
from app.places.rules import (
    Because,
    Calendar,
    Kind,
    Published,
    StationRules,
    Window,
    local_day,
    mode_at,
    mode_windows,
    promised_windows,
)
from app.places.rules.local_time import day_of, instant, zone
from app.places.standing import change_of, list_changes, read_calendar, station_rules
from app.places.tables import ModeChange, PastChange, Station, StationModes

AT_ONCE = 50
"""So many stations are recorded before others have their turn."""

ROWS = 500
"""So many days are fetched at once where there may be very many."""

REACH = timedelta(days=14)
"""The job catches up by so much of each station before others have their turn."""

UNSEEN = timedelta(days=1)
"""The first record of a station that was registered before modes were recorded reaches so far."""

_DAY = timedelta(days=1)
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_STATIONS = table_of(Station)
_CHANGES = table_of(ModeChange)
_PAST = table_of(PastChange)
_MODES = table_of(StationModes)


class Held(NamedTuple):
    """What held during `[from_ms, until_ms)`, in milliseconds since 1970."""

    from_ms: int
    until_ms: int
    kind: Kind
    because: Because


class Recorded(NamedTuple):
    """What is recorded of a station's days."""

    held: list[Held]
    """In order; between the first and the last there is no gap."""
    promised: list[tuple[int, int]]
    """When it was promised to be open, whatever then held; in order, milliseconds since 1970."""
    seats: list[tuple[int, int, int]]
    """From when until when it had how many, in order; what is missing was never recorded."""


class Then(NamedTuple):
    """What is recorded of an instant."""

    kind: Kind
    because: Because
    seats: int | None
    """None: nobody recorded it."""


OPEN = frozenset({Kind.FREE, Kind.SCAN})
"""In these a station is open to workers."""
UNFORESEEN = frozenset({Because.OVERRIDE, Because.EMERGENCY})
"""What holds for these reasons was not what was promised."""


async def record(tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, at: datetime) -> None:
    """Write down what held at stations until now; for whoever is about to change their rules.

    The stations stay locked until the transaction ends. What was recorded already stays.
    """
    ordered = sorted(set(station_ids))
    for first in range(0, len(ordered), AT_ONCE):
        await _record(tx, ordered[first : first + AT_ONCE], at=at)


async def record_all(database: Database, *, now: Now) -> None:
    """Write down what held at every station until now, each by its own clock's reading.

    Of many thousands the last is written minutes after the first, and whoever looks for what is new
    by the instant of the change must not have looked past it before it was written.
    """
    async with database.read() as tx:
        ids = (await tx.scalars(sa.select(_STATIONS.c.id).order_by(_STATIONS.c.id))).all()
    for first in range(0, len(ids), AT_ONCE):
        behind = True
        while behind:
            async with database.write() as tx:
                behind = await _record(tx, ids[first : first + AT_ONCE], at=now(), reach=REACH)


async def windows(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, from_day: date, to_day: date
) -> Mapping[uuid.UUID, Recorded]:
    """Give what held and what was promised in the local days `[from_day, to_day)` and around.

    Where a station's zone changed, a day's row may reach into the next: whoever reads cuts by
    instants, not by rows.
    """
    found: dict[uuid.UUID, Recorded] = {}
    rows = await tx.execute(
        sa.select(
            _MODES.c.station_id,
            _MODES.c.midnight_at,
            _MODES.c.windows,
            _MODES.c.promised,
            _MODES.c.seats,
        )
        .where(
            _MODES.c.station_id.in_(station_ids),
            _MODES.c.local_day >= from_day - _DAY,
            _MODES.c.local_day <= to_day,
        )
        .order_by(_MODES.c.station_id, _MODES.c.local_day)
    )
    for row in rows:
        zero = round(row.midnight_at.timestamp() * 1000)
        recorded = found.setdefault(row.station_id, Recorded([], [], []))
        recorded.held.extend(
            Held(zero + since, zero + until, Kind(kind), Because(because))
            for since, until, kind, because in row.windows
        )
        recorded.promised.extend((zero + since, zero + until) for since, until in promised_of(row))
        recorded.seats.extend(
            (zero + since, zero + until, seats) for since, until, seats in row.seats or ()
        )
    return found


async def seats(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, from_day: date, to_day: date
) -> Mapping[uuid.UUID, Sequence[tuple[datetime, datetime, int]]]:
    """Give from when until when there were how many seats, as far as it is recorded, in order.

    In the local days `[from_day, to_day)` and around.
    """
    found: dict[uuid.UUID, list[tuple[datetime, datetime, int]]] = {}
    query = (
        sa.select(_MODES.c.station_id, _MODES.c.midnight_at, _MODES.c.seats)
        .where(
            _MODES.c.station_id.in_(station_ids),
            _MODES.c.local_day >= from_day - _DAY,
            _MODES.c.local_day <= to_day,
        )
        .order_by(_MODES.c.station_id, _MODES.c.local_day)
        .execution_options(yield_per=ROWS)
    )
    async for rows in (await tx.stream(query)).partitions():
        for row in rows:
            mine = found.setdefault(row.station_id, [])
            for from_ms, until_ms, number in row.seats or ():
                since, until = row.midnight_at + from_ms * _MS, row.midnight_at + until_ms * _MS
                if mine and mine[-1][1:] == (since, number):
                    since = mine.pop()[0]
                mine.append((since, until, number))
    return found


def recorded_since(since: datetime) -> sa.ColumnElement[bool]:
    """Join to stations the rows that tell of the time since an instant: a day or two of each."""
    return sa.and_(
        StationModes.station_id == Station.id,
        # Whatever the zone: by the key only a few days of a station are looked at.
        StationModes.local_day >= since.astimezone(UTC).date() - _DAY,
        StationModes.recorded_until > since,
        # So it was changed since, and of all stations it is found by that among years of days.
        StationModes.changed_at > since,
    )


def windows_of(midnight_at: datetime, written: Sequence[Any]) -> Iterator[Window]:
    """Give the windows that a row has of its day."""
    for from_ms, until_ms, kind, because in written:
        since, until = midnight_at + from_ms * _MS, midnight_at + until_ms * _MS
        yield Window(since, until, Kind(kind), Because(because))


async def recorded_at(
    tx: AsyncSession, station_id: uuid.UUID, timezone: str, *, at: datetime
) -> Then | None:
    """Give what is recorded of an instant at a station; None: it is not, or not yet.

    Whoever changes the rules has the time until then recorded first. So where there is nothing they
    tell, those that were read before this was asked.
    """
    day, at_ms = local_day(at, timezone), (at - _EPOCH) // _MS
    found = await windows(tx, [station_id], from_day=day, to_day=day)
    recorded = found.get(station_id, Recorded([], [], []))
    for one in recorded.held:
        if one.from_ms <= at_ms < one.until_ms:
            seated = (n for since, until, n in recorded.seats if since <= at_ms < until)
            return Then(one.kind, one.because, next(seated, None))
    return None


async def kind_at(
    tx: AsyncSession, station_id: uuid.UUID, calendar: Calendar, *, at: datetime
) -> Kind:
    """Say what held at a station at an instant: as it is recorded, and by the rules since then."""
    station = await tx.get_one(Station, station_id)
    then = await recorded_at(tx, station_id, station.timezone, at=at)
    if then is not None:
        return then.kind
    changes = await list_changes(tx, [station_id], at=at, horizon=_MS)
    return mode_at(station_rules(station, changes.get(station_id, ())), calendar, at).kind


async def _record(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    *,
    at: datetime,
    reach: timedelta | None = None,
) -> bool:
    """Record some stations; tells whether any of them is still behind.

    1. Lock them, and only then read the rules: whoever changes them has ended or waits.
    2. Go on where the last record ends; a station without any begins with its registration, or
       where nobody can have changed its rules unseen: what held before is not known any more.
    """
    stations = (
        await tx.execute(
            sa.select(
                _STATIONS.c.id,
                _STATIONS.c.timezone,
                _STATIONS.c.staffed_hours,
                _STATIONS.c.access_hours,
                _STATIONS.c.capacity,
                _STATIONS.c.created_at,
                _STATIONS.c.retired_at,
            )
            .where(_STATIONS.c.id.in_(station_ids))
            .order_by(_STATIONS.c.id)
            .with_for_update(key_share=True)
        )
    ).all()
    last = {row.station_id: row for row in await tx.execute(_last(station_ids))}
    spans: dict[uuid.UUID, tuple[datetime, datetime]] = {}
    behind = False
    for station in stations:
        row = last.get(station.id)
        begins = max(station.created_at, at - UNSEEN)
        since = row.recorded_until if row is not None else _whole(begins)
        until = _whole(min(at, station.retired_at or at))
        if reach is not None and until > since + reach:
            until, behind = since + reach, True
        if since < until:
            spans[station.id] = since, until
    if not spans:
        return False
    calendar = await read_calendar(tx)
    changes = await _changes(tx, spans)
    rows: list[dict[str, Any]] = []
    for station in stations:
        if station.id in spans:
            mine = changes.get(station.id, ())
            rules = station_rules(station, [one for one in mine if one.replaced_at is None])
            published = [Published(change_of(one), one.written_at, one.replaced_at) for one in mine]
            since, until = spans[station.id]
            rows += [
                written | {"station_id": station.id, "changed_at": at}
                for written in days_of(
                    rules, calendar, since, until, station.capacity, published, last.get(station.id)
                )
            ]
    statement = upsert(tx, _MODES)
    grows = {
        name: statement.excluded[name]
        for name in ("windows", "promised", "seats", "recorded_until", "changed_at")
    }
    await tx.execute(
        statement.on_conflict_do_update(index_elements=["station_id", "local_day"], set_=grows),
        rows,
    )
    await asyncio.sleep(0)
    return behind


def _last(station_ids: Sequence[uuid.UUID]) -> sa.Select[Any]:
    """Select the newest record of each station, by one look into the key for each."""
    days = _MODES.alias("days")
    newest = (
        sa.select(sa.func.max(days.c.local_day))
        .where(days.c.station_id == _STATIONS.c.id)
        .correlate(_STATIONS)
        .scalar_subquery()
    )
    return (
        sa.select(_MODES)
        .select_from(_STATIONS)
        .join(_MODES, sa.and_(_MODES.c.station_id == _STATIONS.c.id, _MODES.c.local_day == newest))
        .where(_STATIONS.c.id.in_(station_ids))
    )


async def _changes(
    tx: AsyncSession, spans: Mapping[uuid.UUID, tuple[datetime, datetime]]
) -> Mapping[uuid.UUID, Sequence[Any]]:
    """Give the exceptions and overrides that touch what is to be recorded, by station.

    Beside those in force, what exceptions said before they were amended or withdrawn.
    """
    found: dict[uuid.UUID, list[Any]] = {}
    begins = min(since for since, _ in spans.values())
    ends = max(until for _, until in spans.values())
    c, past = _CHANGES.c, _PAST.c
    made = c.station_id, c.tier, c.created_at
    standing = sa.select(
        *made,
        c.kind,
        c.from_at,
        c.until_at,
        c.changed_at.label("written_at"),
        sa.type_coerce(sa.null(), past.replaced_at.type).label("replaced_at"),
    ).where(
        c.station_id.in_(spans),
        c.retired_at.is_(None),
        c.until_at > begins,
        c.from_at < ends,
    )
    replaced = (
        sa.select(*made, past.kind, past.from_at, past.until_at, past.written_at, past.replaced_at)
        .join_from(_CHANGES, _PAST, past.change_id == c.id)
        .where(
            c.station_id.in_(spans),
            past.until_at > begins,
            past.from_at < ends,
            # When the first day began, which may be a while before what is recorded of it.
            past.replaced_at > begins - 2 * _DAY,
        )
    )
    for row in await tx.execute(standing.union_all(replaced)):
        found.setdefault(row.station_id, []).append(row)
    return found


def days_of(
    rules: StationRules,
    calendar: Calendar,
    since: datetime,
    until: datetime,
    seats: int,
    published: Sequence[Published] | None = None,
    last: Any | None = None,
) -> Iterator[dict[str, Any]]:
    """Write out `[since, until)` by local days; the first continues the last record's row.

    A station whose zone moved west does not go back to a day that has its row: that row goes on.
    Without what was `published`, the changes of the rules stood as they are since they were made.
    """
    if published is None:
        published = [Published(change, change.created_at) for change in rules.changes]
    place = zone(rules.timezone)
    day = day_of(place, since)
    if last is not None:
        day = max(day, last.local_day)
    found = mode_windows(rules, calendar, since, until)
    promises: Sequence[Window] = found
    if published:
        promises = promised_windows(rules, calendar, since, until, published)
    while since < until:
        ends = min(instant(place, day + _DAY, 0), until)
        midnight_at, written, promised = instant(place, day, 0), list[Any](), list[Any]()
        seated = list[Any]()
        if last is not None and last.local_day == day:
            midnight_at, written, promised = last.midnight_at, [*last.windows], [*promised_of(last)]
            seated = [*(last.seats or ())]
        for window in found:
            if window.from_at < ends and since < window.until_at:
                _append(written, _cut(window, since, ends, midnight_at))
        for window in promises:
            if window.kind in OPEN and window.from_at < ends and since < window.until_at:
                _append(promised, _cut(window, since, ends, midnight_at)[:2])
        _append(seated, [(since - midnight_at) // _MS, (ends - midnight_at) // _MS, seats])
        yield {
            "local_day": day,
            "midnight_at": midnight_at,
            "windows": written,
            "promised": promised,
            "seats": seated,
            "recorded_until": ends,
        }
        since, day = ends, day + _DAY


def promised_of(row: Any) -> Sequence[Any]:
    """Give what a row says was promised.

    Of one that was written before that was recorded, what held, where it was not unforeseen: what
    would have held instead is not known any more.
    """
    if row.promised is not None:
        return row.promised  # type: ignore[no-any-return]  # A column of JSON.
    found: list[Any] = []
    for since, until, kind, because in row.windows:
        if Kind(kind) in OPEN and Because(because) not in UNFORESEEN:
            _append(found, [since, until])
    return found


def _cut(window: Window, since: datetime, until: datetime, midnight_at: datetime) -> list[Any]:
    from_ms = (max(window.from_at, since) - midnight_at) // _MS
    until_ms = (min(window.until_at, until) - midnight_at) // _MS
    return [from_ms, until_ms, window.kind.value, window.because.value]


def _append(written: list[Any], piece: list[Any]) -> None:
    """Add a window; one that goes on with the same is one with it."""
    from_ms, until_ms, *held = piece
    if from_ms >= until_ms:
        return
    if written and written[-1][1] == from_ms and written[-1][2:] == held:
        written[-1] = [written[-1][0], until_ms, *held]
    else:
        written.append(piece)


def _whole(at: datetime) -> datetime:
    """Cut to the millisecond, in which a record counts."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
