"""What must be counted anew: found by when rows were changed, kept as rows until it is done.

Visits never call reports. Every table that a day is counted from says when a row was changed; a
watermark says up to when that was looked at. Late journals need no way of their own.
"""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.settled import settled_until
from app.db.types import new_id, table_of
from app.db.upsert import upsert
from app.doors.tables import Command, ControllerOutage, OfflineEntry, Scan
from app.places.rules import local_day
from app.places.tables import FacilitySpell, Station, StationModes, Unit
from app.reports.rules import Grain, span_of
from app.reports.tables import CITY, Rollup, RollupDue, RollupMark, RollupMember
from app.visits.tables import FacilityUse, Visit, WalkInCount

RULES = 7
"""By which rules days are counted. Another number has every day counted anew: so that what was
counted by an earlier version, and by this one, can be compared."""


def changed(rules: int) -> str:
    """Name the watermark of rows that were looked at by such rules."""
    return f"changed by rules {rules}"


CHANGED, CLOSED = changed(RULES), "closed"
"""The watermarks: rows looked at; and days over of which every station has a row, which is written
when all that was found is counted."""

STATION_DAYS, UNIT_DAYS, SPANS = 0, 1_000, 2_000
"""Depths: what is counted first. Units from the lowest up, then months, quarters, years."""

NOON = 12
"""A visit that begins after this hour was not moved there from the day before."""

Due = tuple[uuid.UUID, Grain, date, int]
"""A place, a span, its depth."""

SPAN_DEPTH = {Grain.MONTH: SPANS, Grain.QUARTER: SPANS + 1, Grain.YEAR: SPANS + 2}


def spans_above(place: uuid.UUID, day: date) -> Iterator[Due]:
    """Give the spans of days that a place's day is part of."""
    for grain, depth in SPAN_DEPTH.items():
        yield place, grain, span_of(grain, day), depth


@dataclass(frozen=True)
class Tree:
    """The units, as far as sums must know them."""

    ids: Mapping[str, uuid.UUID]
    """By path."""

    @cached_property
    def depths(self) -> Mapping[uuid.UUID, int]:
        """In which order places are summed: those below first."""
        levels = {unit: UNIT_DAYS - path.count(".") - 1 for path, unit in self.ids.items()}
        return levels | {CITY: UNIT_DAYS}

    def above(self, path: str) -> Sequence[uuid.UUID]:
        """Give the units of a branch, from its end to the root."""
        steps = path.split(".")
        names = (".".join(steps[:level]) for level in range(len(steps), 0, -1))
        return [self.ids[name] for name in names if name in self.ids]

    def counted(self, above: Sequence[str] | None, path: str) -> frozenset[uuid.UUID]:
        """Give the places that a station is counted under, by its member row: with the city."""
        units = self.above(path) if above is None else map(uuid.UUID, above)
        return frozenset((*units, CITY))

    def days(self, places: Iterable[uuid.UUID], day: date) -> Iterator[Due]:
        """Give a day of units, or of the city."""
        for place in places:
            yield place, Grain.DAY, day, self.depths[place]


async def read_tree(tx: AsyncSession) -> Tree:
    """Read the units."""
    return Tree({row.path: row.id for row in await tx.execute(sa.select(Unit.path, Unit.id))})


def in_order(dues: Iterable[Due]) -> Sequence[Due]:
    """Give dues once each, in the one order in which rows are written: writers never cross."""
    return sorted(set(dues), key=lambda due: (due[0].bytes, *due[1:3]))


async def put_due(tx: AsyncSession, dues: Iterable[Due]) -> int:
    """Write down what must be counted anew; gives how many spans."""
    rows = [
        {"place_id": place, "grain": grain, "from_day": day, "depth": depth, "token": new_id()}
        for place, grain, day, depth in in_order(dues)
    ]
    if rows:
        insert = upsert(tx, table_of(RollupDue))
        new = {name: insert.excluded[name] for name in ("token", "depth")}
        keys = ["place_id", "grain", "from_day"]
        await tx.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)
    return len(rows)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    dues: Collection[Due]
    until: datetime
    """Where the watermark may move."""
    members: Sequence[Mapping[str, Any]]
    """Stations that are counted under another branch from now on."""
    disowned: Collection[Due] = frozenset()
    """Of the dues, those of units that other stations make up from now on."""


async def look(tx: AsyncSession, *, at: datetime) -> Found:
    """Find what must be counted anew.

    1. Where no writer can still be at work is read first: so far may the watermark move.
    2. Days of which a row was changed since the watermark, and days into which its stays last.
    3. Days of visits that go on, and days that have passed: every station has a row of each.
    4. Stations that were hung up elsewhere: every day of every unit that they left or joined.
    """
    settled = await settled_until(tx, at=at)
    marks = {row.name: row.at for row in await tx.scalars(sa.select(RollupMark))}
    since = marks.get(CHANGED)
    members, dues, disowned = await _moved(tx)
    for search in (_changed(tx, since, at), _passed(tx, marks.get(CLOSED, since), at)):
        async for station, day in search:
            dues.add((station, Grain.DAY, day, STATION_DAYS))
    return Found(dues, settled, members, disowned)


async def note(tx: AsyncSession, found: Found) -> int:
    """Write down what was found; gives how many spans are due."""
    if found.members:
        insert = upsert(tx, RollupMember)
        await tx.execute(
            insert.on_conflict_do_update(
                index_elements=["station_id"],
                set_={name: insert.excluded[name] for name in ("unit_id", "unit_path", "above")},
            ),
            found.members,
        )
    await move(tx, CHANGED, found.until)
    return await put_found(tx, found, found.dues)


async def move(tx: AsyncSession, name: str, at: datetime) -> None:
    """Move a watermark; also back, which makes a search look again, and no more than that."""
    await tx.execute(
        upsert(tx, RollupMark)
        .values(name=name, at=at)
        .on_conflict_do_update(index_elements=["name"], set_={"at": at})
    )


async def put_found(tx: AsyncSession, found: Found, dues: Collection[Due]) -> int:
    """Write some of what was found down as due; gives how many spans.

    A number of workers outlives their sets, so that a unit which a station left or joined would
    keep those of its stations before. It goes as the span becomes due: who counted before that
    does not settle it any more, and who counts after it finds nothing to keep.
    """
    number = await put_due(tx, dues)
    c, disowned = table_of(Rollup).c, in_order(set(dues) & set(found.disowned))
    if disowned:
        names = {"place_id": "place", "grain": "of_grain", "from_day": "first"}
        await tx.execute(
            sa.update(table_of(Rollup))
            .where(*(c[name] == sa.bindparam(value) for name, value in names.items()))
            .values(uniques=None, crowd=None, base=None, occupations=None),
            [dict(zip(names.values(), due[:3], strict=True)) for due in disowned],
        )
    return number


Pair = tuple[uuid.UUID, date]
"""A station and a local day."""


async def _changed(tx: AsyncSession, since: datetime | None, at: datetime) -> AsyncIterator[Pair]:
    """Give the days of which a row was changed, or that a visit still lasts into."""

    def new(column: Any) -> sa.ColumnElement[bool]:
        return sa.true() if since is None else column > since

    queries: tuple[Any, ...] = (
        sa.select(Scan.station_id, Scan.local_day).where(
            Scan.station_id.is_not(None), new(Scan.changed_at)
        ),
        sa.select(FacilityUse.station_id, FacilityUse.local_day).where(new(FacilityUse.changed_at)),
        sa.select(OfflineEntry.station_id, OfflineEntry.local_day).where(
            new(OfflineEntry.changed_at)
        ),
        sa.select(StationModes.station_id, StationModes.local_day).where(
            new(StationModes.changed_at)
        ),
    )
    for query in queries:
        async for station, day in await tx.stream(query.distinct()):
            yield station, day
    commands = (
        sa.select(Command.station_id, Station.timezone, Command.created_at)
        .join(Station, Station.id == Command.station_id)
        .where(new(Command.changed_at))
    )
    async for station, zone, created_at in await tx.stream(commands):
        yield station, local_day(created_at, zone)
    async for row in await tx.stream(_stays(new(Visit.changed_at))):
        station, zone, first, hour, until, counted_until = row
        yield station, first
        if hour < NOON:
            yield station, first - timedelta(days=1)
        last = min(max(until, counted_until or until), at)
        for day in _days(first + timedelta(days=1), local_day(last, zone)):
            yield station, day
    heads = WalkInCount.created_at, WalkInCount.withdrawn_at
    spans = [_spans(WalkInCount, new(column)) for column in heads]
    if since is not None:  # Of a time in which nobody recorded what held, nothing is promised.
        spans.append(_spans(FacilitySpell, FacilitySpell.changed_at > since))
        spans.append(_spans(ControllerOutage, ControllerOutage.changed_at > since))
    for spells in spans:
        async for station, zone, from_at, until_at in await tx.stream(spells):
            for day in _days(local_day(from_at, zone), local_day(until_at or at, zone)):
                yield station, day


def _days(first: date, last: date) -> Iterator[date]:
    """Give the days from the first to the last, both included."""
    while first <= last:
        yield first
        first += timedelta(days=1)


def _spans(table: Any, changed: sa.ColumnElement[bool]) -> Any:
    return (
        sa.select(table.station_id, Station.timezone, table.from_at, table.until_at)
        .join(Station, Station.id == table.station_id)
        .where(changed)
    )


def _stays(changed: sa.ColumnElement[bool]) -> Any:
    """Select visits' days, until when the longest of each lasts, and lasted when it was counted.

    What was moved to an earlier day leaves its trace in the sum alone. A beginning that late word
    moved over midnight leaves nothing on the day before: that day is counted again too.
    """
    ended = sa.func.coalesce(Visit.ended_at, Visit.stay_until)
    lasts = sa.case((ended > Visit.stay_until, ended), else_=Visit.stay_until)
    return (
        sa.select(
            Visit.station_id,
            Station.timezone,
            Visit.local_day,
            sa.func.min(Visit.local_hour),
            sa.func.max(lasts),
            sa.func.max(Rollup.reaches_at),
        )
        .join(Station, Station.id == Visit.station_id)
        .outerjoin(
            Rollup,
            sa.and_(
                Rollup.place_id == Visit.station_id,
                Rollup.grain == Grain.DAY,
                Rollup.from_day == Visit.local_day,
            ),
        )
        .where(sa.or_(changed, Visit.ended_at.is_(None)))
        .group_by(Visit.station_id, Station.timezone, Visit.local_day)
    )


async def _passed(tx: AsyncSession, since: datetime | None, at: datetime) -> AsyncIterator[Pair]:
    """Give the days that have passed since the last search, at every station."""
    since = since or at - timedelta(days=1)
    for zone in (await tx.scalars(sa.select(Station.timezone).distinct())).all():
        days = list(_days(local_day(since, zone), local_day(at, zone) - timedelta(days=1)))
        if not days:
            continue  # So it is at nearly every look, of which there is one a minute.
        stations = sa.select(Station.id).where(
            Station.timezone == zone,
            sa.or_(Station.retired_at.is_(None), Station.retired_at > since),
        )
        for station in await tx.scalars(stations):
            for day in days:
                yield station, day


async def _moved(
    tx: AsyncSession,
) -> tuple[list[Mapping[str, Any]], set[Due], set[Due]]:
    """Give the stations whose branch is another now, what that makes due, and what of it is of
    units that they left or joined.

    What holds them before and after has the same stations as ever: also a unit that was hung up
    elsewhere with them, whatever its path was.
    """
    rows = (
        await tx.execute(
            sa.select(
                Station.id,
                Station.unit_id,
                Unit.path,
                RollupMember.unit_path.label("before"),
                RollupMember.above,
            )
            .join(Unit, Unit.id == Station.unit_id)
            .outerjoin(RollupMember, RollupMember.station_id == Station.id)
            .where(sa.or_(RollupMember.unit_path.is_(None), RollupMember.unit_path != Unit.path))
        )
    ).all()
    if not rows:
        return [], set(), set()
    tree = await read_tree(tx)
    above = {path: tree.above(path) for path in {row.path for row in rows}}
    members: list[Mapping[str, Any]] = [
        {
            "station_id": row.id,
            "unit_id": row.unit_id,
            "unit_path": row.path,
            "above": [unit.hex for unit in above[row.path]],
        }
        for row in rows
    ]
    # Thousands of stations go few ways: of each, days are looked at once.
    ways: defaultdict[tuple[frozenset[uuid.UUID], str], list[uuid.UUID]] = defaultdict(list)
    for row in rows:
        if row.before is not None:
            ways[tree.counted(row.above, row.before), row.path].append(row.id)
    dues: set[Due] = set()
    disowned: set[Due] = set()
    for (left, path), stations in ways.items():
        joined = {*above[path], CITY}
        for day in await _days_counted(tx, stations):
            dues.update(tree.days(left | joined, day))
            for unit in left ^ joined:
                disowned |= {*tree.days([unit], day), *spans_above(unit, day)}
    return members, dues | disowned, disowned


NAMED_AT_ONCE = 1_000
"""Stations that one statement names."""


async def _days_counted(tx: AsyncSession, stations: Sequence[uuid.UUID]) -> set[date]:
    """Give the days of which any of some stations was counted."""
    found: set[date] = set()
    for start in range(0, len(stations), NAMED_AT_ONCE):
        some = stations[start : start + NAMED_AT_ONCE]
        query = sa.select(Rollup.from_day).where(
            Rollup.place_id.in_(some), Rollup.grain == Grain.DAY
        )
        found |= set(await tx.scalars(query.distinct()))
    return found
