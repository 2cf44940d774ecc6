"""Which rows a report has: one for every place and time, whether anything happened there or not.

A figure is about a place (a station, a unit, or all that the administrator sees) and a slot of
time. A row knows how much of its time can be known at all: not what is to come or not yet counted,
not what was before a station was registered or after it was retired (law 16). Thousands of stations
are rows of arrays here, and a sum of them is asked of the unit that has it, never added up again.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import Instant, table_of
from app.errors import Invalid
from app.people.admins import Roots
from app.places.rules import CITY_ZONE, Calendar, local_day
from app.places.tables import OperatingModel, Station, Unit
from app.reports.changes import CHANGED, CLOSED
from app.reports.columns import Ints, share
from app.reports.rules import (
    Branch,
    Bucket,
    By,
    Completeness,
    Grain,
    Period,
    Slot,
    Slots,
    Span,
    branches,
    completeness,
    cover,
    slots,
)
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.tables import RollupDue, RollupMark

MOST_ROWS = 200_000
"""How many rows a report may have at once: every station of the country, several times."""
MOST_STREAMED = 3_000_000
"""How many it may have where they are written one by one: a city's stations, by day, for a year."""
AT_ONCE = 20_000
"""How many rows are computed together."""
MOST_NAMED = 200
"""How many sources are found by their names."""

ALL = "全部"
"""The name of a row about all stations of the scope."""
OWN = "（本级）"
"""What is added to the name of a unit where its row is of what it keeps itself, beside branches."""


class PeriodInvalid(Invalid):
    """The period is not acceptable."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which stations, which days, as of when, cut how."""

    stations: sa.Select[uuid.UUID]
    """The one predicate of what may be spoken of."""
    roots: Roots
    """The places whose branches are the same stations."""
    period: Period
    by: By
    at: datetime
    retained_since: date
    """Before this day visits have lost their workers."""
    bucket: Bucket | None = None
    calendar: Calendar = field(default_factory=lambda: Calendar({}, frozenset()))

    @property
    def is_whole(self) -> bool:
        """Whether every row is of the whole period."""
        return self.by.is_place and self.bucket is None


class Place(NamedTuple):
    """What a row is about, besides its time."""

    id: uuid.UUID | None
    """A station's or a unit's; None for any other."""
    station: str | None
    unit: str | None
    name: str
    operating_model: str | None
    timezone: str
    """The first of its stations' zones, by name."""
    capacity: int
    sources: Sequence[uuid.UUID]
    """The stations and units whose rollups are summed: as few as there are."""


@dataclass(frozen=True, slots=True)
class Lives:
    """During which time so many stations can have data; milliseconds, one line each."""

    place: Ints
    zone: Ints
    since: Ints
    until: Ints
    stations: Ints


@dataclass(frozen=True, slots=True)
class Known:
    """Of each row's time, what can be known; station-time in milliseconds."""

    known_ms: Ints
    """Of all its stations together."""
    whole_ms: Ints
    """All of it, known or not."""
    measured_ms: Ints
    """From the first of its stations to the last, once for all of them."""
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """All rows of a report, before anything is counted."""

    scope: Scope
    slots: Slots
    places: Sequence[Place]
    lives: Lives
    zones: Sequence[str]
    branches: Mapping[uuid.UUID, Branch] = field(default_factory=dict)
    """Where rows are units: to which the stations of each unit belong."""

    @property
    def rows(self) -> int:
        """How many rows there are, for each kind of thing."""
        return len(self.places) * self.slots.count

    @cached_property
    def empty_from(self) -> date:
        """The first day of which nowhere anything can have happened yet."""
        zones = self.zones or [CITY_ZONE]
        return max(local_day(self.scope.at, zone) for zone in zones) + timedelta(days=1)

    @cached_property
    def spans(self) -> Mapping[Span, int]:
        """The fewest spans that hold the period, and to which base slot each belongs."""
        return {
            span: number
            for number, base in enumerate(self.slots.bases)
            for first, end in base.ranges
            for span in cover(first, end, empty_from=self.empty_from)
        }

    @cached_property
    def days(self) -> Mapping[Span, int]:
        """The same by days alone, for what does not add up from day to day."""
        return {
            Span(Grain.DAY, day): number
            for number, base in enumerate(self.slots.bases)
            for day in base.days
            if day < self.empty_from
        }

    def parts(self) -> Sequence["Part"]:
        """Cut the rows into portions that are computed together, in order."""
        step = max(1, AT_ONCE // max(1, self.slots.count))
        return [
            Part(self, start, min(start + step, len(self.places)))
            for start in range(0, len(self.places), step)
        ]


@dataclass(frozen=True)
class Part:
    """Some places of a frame, with all their slots: row `place * slots + slot`."""

    frame: Frame
    first: int
    end: int

    @cached_property
    def places(self) -> Sequence[Place]:
        """Its places."""
        return self.frame.places[self.first : self.end]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return (self.end - self.first) * self.frame.slots.count

    @cached_property
    def sources(self) -> Mapping[uuid.UUID, int]:
        """What is summed, and for which of its places."""
        return {id: number for number, place in enumerate(self.places) for id in place.sources}

    @property
    def selectors(self) -> Sequence[Any]:
        """Say where the sources are found: by their names if few, else by the scope itself."""
        ids = list(self.sources)
        if len(ids) <= MOST_NAMED or len(self.places) < len(self.frame.places):
            return [ids] if ids else []
        stations = self.frame.scope.stations
        if self.frame.scope.by is By.BRANCH:
            # Units on which perhaps no station hangs itself, and few.
            return [stations, [place.id for place in self.places]]
        units = sa.select(Station.unit_id).where(Station.id.in_(stations))
        return [stations, units] if self.frame.scope.by is By.UNIT else [stations]

    @cached_property
    def known(self) -> Known:
        """Say how much of each row's time can be known."""
        lives, bases = self.frame.lives, self.frame.slots
        mine = (lives.place >= self.first) & (lives.place < self.end)
        count = bases.count
        whole, known, measured = (np.zeros(self.rows, np.int64) for _ in range(3))
        for number, timezone in enumerate(self.frame.zones):
            rows = np.flatnonzero(mine & (lives.zone == number))
            if not len(rows):
                continue
            place = lives.place[rows] - self.first
            since, until = lives.since[rows], np.maximum(lives.until[rows], lives.since[rows])
            pieces = _pieces(bases, timezone)
            weight = lives.stations[rows]
            stations = np.bincount(place, weight, self.end - self.first).astype(np.int64)
            length = np.bincount(pieces.slot, pieces.ends - pieces.begins, count).astype(np.int64)
            whole += (stations[:, None] * length[None, :]).ravel()
            if len(rows) > 10 * (self.end - self.first):
                # Of places of many lives: integrals at the edges of the pieces.
                for one in range(self.end - self.first):
                    of = place == one
                    part = _integral(since[of], until[of], weight[of], pieces)
                    np.add.at(known, one * count + pieces.slot, part)
            else:
                each = _within(since, until, pieces, count) * weight[:, None]
                np.add.at(known.reshape(-1, count), place, each)
            low, high = self._span(place, since, until)
            measured = np.maximum(measured, _within(low, high, pieces, count).ravel())
        return Known(known, whole, measured, share(known, whole))

    def _span(self, place: Ints, since: Ints, until: Ints) -> tuple[Ints, Ints]:
        """Give when the first life of each place begins, and when the last ends."""
        places = self.end - self.first
        low = np.full(places, np.iinfo(np.int64).max // 2)
        high = np.zeros(places, np.int64)
        lived = until > since
        np.minimum.at(low, place[lived], since[lived])
        np.maximum.at(high, place[lived], until[lived])
        return low, high


def _within(since: Ints, until: Ints, pieces: "_Pieces", count: int) -> Ints:
    """Give the time of each life within each slot; most are alike, and computed once."""
    begins, begin_of = np.unique(since, return_inverse=True)
    ends, end_of = np.unique(until, return_inverse=True)
    lives, which = np.unique(begin_of * len(ends) + end_of, return_inverse=True)
    each = np.zeros((len(lives), count), np.int64)
    for number, life in enumerate(lives.tolist()):
        begin, end = begins[life // len(ends)], ends[life % len(ends)]
        overlap = np.minimum(end, pieces.ends) - np.maximum(begin, pieces.begins)
        np.add.at(each[number], pieces.slot, np.maximum(overlap, 0))
    return each[which]


def _integral(since: Ints, until: Ints, weight: Ints, pieces: "_Pieces") -> Ints:
    """Give the time of so many lives within each of the pieces."""
    origin = pieces.begins.min() if len(pieces.begins) else 0

    def until_then(edges: Ints) -> Ints:
        found = np.zeros(len(edges), np.int64)
        for begins, sign in ((since - origin, 1), (until - origin, -1)):
            order = np.argsort(begins)
            weights = np.concatenate(([0], np.cumsum(weight[order])))
            moments = np.concatenate(([0], np.cumsum(weight[order] * begins[order])))
            place = np.searchsorted(begins[order], edges, "right")
            found += sign * (edges * weights[place] - moments[place])
        return found

    return until_then(pieces.ends - origin) - until_then(pieces.begins - origin)


class _Pieces(NamedTuple):
    """The pieces of time of a report in a zone; milliseconds."""

    begins: Ints
    ends: Ints
    slot: Ints
    """Of which slot each is."""


def _pieces(bases: Slots, timezone: str) -> _Pieces:
    """Cut time in a zone."""
    pieces: list[tuple[int, int, int]] = []
    for number, base in enumerate(bases.bases):
        if bases.by_hour:
            for day in base.days:
                edges = quarter_edges(timezone, day)[::4]
                pieces += [(edges[h], edges[h + 1], number * 24 + h) for h in range(24)]
        else:
            pieces += [
                (_midnight(first, timezone), _midnight(end, timezone), number)
                for first, end in base.ranges
            ]
    found = np.array(pieces, np.int64).reshape(-1, 3)
    return _Pieces(found[:, 0], found[:, 1], found[:, 2])


def _midnight(day: date, timezone: str) -> int:
    return ms_of(datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC))


class Progress(NamedTuple):
    """How far the counting has come."""

    rolled_up_to: datetime | None
    """What was changed before this instant is counted for sure, unless it is being counted."""
    counted_at: datetime | None
    """As of when everything was last looked at and all of it counted; later is not known yet."""
    recounting: bool
    """Whether something is due to be counted anew just now."""

    def completeness(self, days: Sequence[date], at: datetime, zone: str) -> Completeness:
        """Say how complete days of a zone are."""
        counted_at = self.counted_at or datetime.fromtimestamp(0, UTC)
        return completeness(days, local_day(at, zone), local_day(counted_at, zone))


async def progress(tx: AsyncSession) -> Progress:
    """Say how far the counting has come."""
    marks = {
        row.name: row.at for row in await tx.execute(sa.select(RollupMark.name, RollupMark.at))
    }
    due = await tx.scalar(sa.select(RollupDue.depth).limit(1))
    return Progress(marks.get(CHANGED), marks.get(CLOSED), due is not None)


async def frame(
    tx: AsyncSession, scope: Scope, *, most: int = MOST_ROWS, is_raw: bool = False
) -> Frame:
    """Say which rows a report has; raises PeriodInvalid.

    Of raw rows time is known until now, of rollups as far as was counted.
    """
    try:
        pieces = slots(scope.period, scope.by, scope.bucket, scope.calendar)
    except ValueError as error:
        raise PeriodInvalid(str(error)) from error
    scope = await _without_gone(tx, scope)
    counted_at = scope.at if is_raw else (await progress(tx)).counted_at
    until = min(scope.at, counted_at) if counted_at else datetime.fromtimestamp(0, UTC)
    found = await (_stations if scope.by is By.STATION else _groups)(tx, scope, until)
    made = Frame(scope, pieces, found.places, found.lives, list(found.zones), found.branches)
    if made.rows > most:
        raise PeriodInvalid(
            f"the report would have more than {most} rows; "
            "ask for fewer days, fewer stations or a coarser bucket"
        )
    return made


async def _without_gone(tx: AsyncSession, scope: Scope) -> Scope:
    """Leave out stations that were retired before the period began, unless asked for by name.

    Nothing is missing where there was nothing any more: with them no month would ever be complete.
    """
    if scope.roots.stations:
        return scope
    retired = sa.select(Station.timezone).where(Station.retired_at.is_not(None))
    zones = (await tx.scalars(retired.distinct())).all()
    if not zones:
        return scope
    first = scope.period.from_day
    begins = {
        zone: sa.literal(datetime.combine(first, time(), ZoneInfo(zone)), Instant())
        for zone in zones
    }
    is_there = sa.or_(
        Station.retired_at.is_(None),
        Station.retired_at > sa.case(begins, value=Station.timezone),
    )
    return replace(scope, stations=scope.stations.where(is_there))


@dataclass(slots=True)
class _Found:
    places: list[Place] = field(default_factory=list)
    lives: Lives = field(default_factory=lambda: Lives(*np.empty((5, 0), np.int64)))
    zones: dict[str, int] = field(default_factory=dict)
    branches: Mapping[uuid.UUID, Branch] = field(default_factory=dict)

    def zone(self, timezone: str) -> int:
        return self.zones.setdefault(timezone, len(self.zones))


async def _stations(tx: AsyncSession, scope: Scope, until: datetime) -> _Found:
    found = _Found()
    c = table_of(Station).c
    start = datetime.combine(scope.period.from_day, time(), UTC) - timedelta(days=1)
    # Most have lived through all of the period: their instants need not be read.
    since = sa.case((c.created_at > start, c.created_at))
    query = (
        sa.select(c.id, c.code, c.name, c.timezone, c.capacity, since, c.retired_at)
        .where(c.id.in_(scope.stations))
        .order_by(c.code)
    )
    # Thousands of rows as the driver gives them, not the session's; and column by column.
    rows = (await (await tx.connection()).execute(query)).all()
    if not rows:
        return found
    ids, codes, names, timezones, capacities, created, retired = zip(*rows, strict=True)
    start_ms, until_ms = ms_of(start), ms_of(until)
    found.zones = {timezone: number for number, timezone in enumerate(dict.fromkeys(timezones))}
    found.lives = Lives(
        np.arange(len(rows)),
        np.fromiter(map(found.zones.__getitem__, timezones), np.int64, len(rows)),
        np.array([start_ms if at is None else ms_of(at) for at in created], np.int64),
        np.array([until_ms if at is None or at > until else ms_of(at) for at in retired], np.int64),
        np.ones(len(rows), np.int64),
    )
    none = repeat(None)
    places = zip(ids, codes, none, names, none, timezones, capacities, zip(ids), strict=False)
    found.places = list(map(Place._make, places))
    return found


async def _groups(tx: AsyncSession, scope: Scope, until: datetime) -> _Found:
    """Group the stations where they lie: most of them have lived through all of the period."""
    rows = (await tx.execute(_lived(scope, until))).all()
    tree = await read_tree(tx, scope)
    found = _Found(branches=tree.branches)
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        # A unit that was moved out of the scope just now is in no row.
        if row.key in tree.branches or not scope.by.is_unit:
            groups.setdefault(tree.group_of(row.key), []).append(row)
    if not groups and scope.by not in _KEYS:
        groups[None] = []
    lives = [
        (number, found.zone(row.timezone), ms_of(row.since), ms_of(row.ended), row.stations)
        for number, of in enumerate(groups.values())
        for row in of
    ]
    found.lives = Lives(*np.array(lives, np.int64).reshape(-1, 5).T)
    sources = await _sources(tx, scope, groups, tree)
    for group, of in groups.items():
        unit = group.unit if isinstance(group, Branch) else None
        found.places.append(
            Place(
                unit,
                None,
                None if unit is None else str(unit),
                _name(scope, group, tree),
                group.value if isinstance(group, OperatingModel) else None,
                min((row.timezone for row in of), default=CITY_ZONE),
                sum(row.seats for row in of),
                sources.get(group, ()),
            )
        )
    return found


def _lived(scope: Scope, until: datetime) -> sa.Select[Any]:
    """Select how many stations of each group lived how long, in the order of their codes."""
    start = datetime.combine(scope.period.from_day, time(), UTC) - timedelta(days=1)
    since = sa.case(
        (Station.created_at < start, sa.literal(start, Instant())), else_=Station.created_at
    )
    ended = sa.case(
        (Station.retired_at < until, Station.retired_at), else_=sa.literal(until, Instant())
    )
    each = (
        sa.select(
            key_of(scope.by).label("key"),
            Station.timezone,
            since.label("since"),
            ended.label("ended"),
            Station.capacity,
            Station.code,
        )
        .where(Station.id.in_(scope.stations))
        .subquery()
    )
    columns = (each.c.key, each.c.timezone, each.c.since, each.c.ended)
    return (
        sa.select(
            *columns,
            sa.func.count().label("stations"),
            sa.func.sum(each.c.capacity).label("seats"),
            sa.func.min(each.c.code).label("code"),
        )
        .group_by(*columns)
        .order_by(sa.text("code"))
    )


_KEYS: Mapping[By, Any] = {
    By.UNIT: table_of(Station).c.unit_id,
    By.BRANCH: table_of(Station).c.unit_id,
    By.OPERATING_MODEL: table_of(Station).c.operating_model,
}


def key_of(by: By) -> Any:
    """Give what of a station says to which row it belongs, where rows are of several."""
    return _KEYS.get(by, sa.literal(None, sa.Uuid()))


@dataclass(frozen=True, slots=True)
class Tree:
    """The units, where rows are units."""

    names: Mapping[uuid.UUID, str] = field(default_factory=dict)
    branches: Mapping[uuid.UUID, Branch] = field(default_factory=dict)
    """To which row the stations of each belong."""
    parents: Collection[uuid.UUID] = ()
    """Those that have others below them."""

    def group_of(self, key: Any) -> Any:
        """Say to which row a station belongs, by its key."""
        return self.branches.get(key, key)

    def of_row(self, unit: uuid.UUID | None) -> Sequence[uuid.UUID]:
        """Give the units whose stations belong to a unit's row."""
        return [id for id, branch in self.branches.items() if branch.unit == unit]


async def read_tree(tx: AsyncSession, scope: Scope) -> Tree:
    """Read the units, if rows are units."""
    if not scope.by.is_unit:
        return Tree()
    # Thousands of rows as the driver gives them, not the session's.
    query = sa.select(Unit.id, Unit.parent_id, Unit.name)
    rows = (await (await tx.connection()).execute(query)).all()
    above = {row.id: row.parent_id for row in rows}
    return Tree(
        names={row.id: row.name for row in rows},
        branches=branches(above, scope.roots.units if scope.by is By.BRANCH else ()),
        parents=frozenset(above.values()),
    )


def _name(scope: Scope, group: Any, tree: Tree) -> str:
    if isinstance(group, OperatingModel):
        return group.value
    if not isinstance(group, Branch):
        return ALL
    # Beside rows of whole branches, that of what the unit above them keeps itself must say so.
    is_beside = group.is_own and scope.by is By.BRANCH
    return tree.names[group.unit] + (OWN if is_beside else "")


async def _sources(
    tx: AsyncSession, scope: Scope, groups: Collection[Any], tree: Tree
) -> Mapping[Any, Sequence[uuid.UUID]]:
    """Say what must be summed for each group: a unit itself, if nothing else is counted in it."""
    if scope.by not in _KEYS:
        return {None: [*scope.roots.units, *scope.roots.stations]}
    found: dict[Any, list[uuid.UUID]] = {}
    if scope.by.is_unit and not scope.roots.stations:
        found = {
            group: [group.unit]
            for group in groups
            if not group.is_own or group.unit not in tree.parents
        }
    if len(found) == len(groups):
        return found
    key = key_of(scope.by)
    query = sa.select(Station.id, key.label("key")).where(Station.id.in_(scope.stations))
    if scope.by.is_unit:
        query = query.where(key.in_([group.unit for group in groups if group not in found]))
    for row in await tx.execute(query):
        found.setdefault(tree.group_of(row.key), []).append(row.id)
    return found


def base_of(part: Part, row: int) -> Slot:
    """Give the base slot of a row."""
    number = row % part.frame.slots.count
    return part.frame.slots.bases[number // 24 if part.frame.slots.by_hour else number]
