"""Which rows a report has: one for every place and time, whether anything happened there or not.

A figure is about a place (a station, a unit, or all that the administrator sees) and a slot of
time. A row knows how much of its time can be known at all: not what is to come or not yet counted,
not what was before a station was registered or after it was retired (law 16). Thousands of stations
are rows of arrays here, and a sum of them is asked of the unit that has it, never added up again.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station
from app.reports.afterwards import After, afterwards
from app.reports.columns import Bools, Ints, share
from app.reports.grouped import Lives, Place, grouped
from app.reports.progress import progress
from app.reports.rules import Branch, By, Grain, Slot, Slots, Span, cover, slots
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.scope import PeriodInvalid, Scope

MOST_ROWS = 200_000
"""How many rows a report may have at once: every station of the country, several times."""
MOST_STREAMED = 3_000_000
"""How many it may have where they are written one by one: a city's stations, by day, for a year."""
AT_ONCE = 20_000
"""How many rows are computed together."""
MOST_NAMED = 200
"""How many sources are found by their names."""


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
    is_told: Bools
    """Whether anything of it is: also where all that happened came after a station was retired."""


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
    after: Sequence[After] = ()
    """What happened at stations after they were retired."""

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

    def at_places(self, places: Sequence[Place]) -> "Frame":
        """Give the same of places of another frame, in their order; one that is not here has no
        time."""
        mine = {place.key: number for number, place in enumerate(self.places)}
        moved = np.full(len(self.places), -1)
        found = []
        for number, place in enumerate(places):
            old = mine.get(place.key)
            if old is not None:
                moved[old] = number
            found.append(place._replace(sources=()) if old is None else self.places[old])
        of = moved[self.lives.place]
        lives = [getattr(self.lives, each.name)[of >= 0] for each in fields(Lives)]
        return replace(self, places=found, lives=replace(Lives(*lives), place=of[of >= 0]))

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
            # Units on which perhaps no station hangs itself, and what one of them keeps itself.
            own = {branch.unit for branch in self.frame.branches.values() if branch.is_own}
            return [stations.where(Station.unit_id.in_(own)), [place.id for place in self.places]]
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
        is_told = known > 0
        is_told[self._told_after()] = True
        return Known(known, whole, measured, share(known, whole), is_told)

    def _told_after(self) -> Sequence[int]:
        """Give the rows of time in which something happened at a station that was retired."""
        frame, slots = self.frame, self.frame.slots
        by, number = frame.scope.by, {}
        for row, place in enumerate(self.places):
            key = place.operating_model if by is By.OPERATING_MODEL else place.id
            number[key] = row * slots.count
        found: list[int] = []
        for after in frame.after:
            key = after.key(by)
            branch = frame.branches.get(key)
            first = number.get(key if branch is None else branch.unit)
            base = frame.days.get(Span(Grain.DAY, after.day))
            if first is None or base is None:
                continue
            if slots.by_hour:
                found += [first + base * 24 + hour for hour in after.hours if hour < 24]
            else:
                found.append(first + base)
        return found

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
    """Give the time of each life within each slot: by lives that are alike, or by pieces."""
    begins, begin_of = np.unique(since, return_inverse=True)
    ends, end_of = np.unique(until, return_inverse=True)
    lives, which = np.unique(begin_of * len(ends) + end_of, return_inverse=True)
    begins, ends = begins[lives // len(ends)], ends[lives % len(ends)]
    each = np.zeros((len(lives), count), np.int64)
    if len(lives) < len(pieces.slot):
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            overlap = np.minimum(end, pieces.ends) - np.maximum(begin, pieces.begins)
            np.add.at(each[number], pieces.slot, np.maximum(overlap, 0))
    else:
        for begin, end, slot in zip(*pieces, strict=True):
            overlap = np.minimum(ends, end) - np.maximum(begins, begin)
            each[:, slot] += np.maximum(overlap, 0)
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
    counted_at = scope.at if is_raw else (await progress(tx)).counted_at
    until = min(scope.at, counted_at) if counted_at else datetime.fromtimestamp(0, UTC)
    scope, after, gone = await afterwards(tx, scope, until)
    found = await grouped(tx, scope, until, gone)
    zones = list(found.zones)
    scope = replace(scope, told_roots=found.roots or None)
    made = Frame(scope, pieces, found.places, found.lives, zones, found.branches, after)
    if made.rows > most:
        raise PeriodInvalid(
            f"the report would have more than {most} rows; "
            "ask for fewer days, fewer stations or a coarser bucket"
        )
    return made


def base_of(part: Part, row: int) -> Slot:
    """Give the base slot of a row."""
    number = row % part.frame.slots.count
    return part.frame.slots.bases[number // 24 if part.frame.slots.by_hour else number]
