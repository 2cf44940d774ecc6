"""The sums that a report is made of, read from rollups: for each row of a part, every counter.

A row is the sum of the spans that cover its slot, at the places that make it up. What does not add
up is found where it is kept: distinct workers by putting their sets together, peaks by looking at
each day, percentiles by adding histograms up.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from pyroaring import BitMap
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.reports import crowds, spreads, vectors
from app.reports.columns import Ints, shown
from app.reports.frame import Part
from app.reports.rules import By, Run, Slot, Span, runs
from app.reports.rules.counters import ALL_DAY, HISTOGRAMS, HOURS, QUARTERS, C
from app.reports.rules.day import DAY_QUARTERS, QUARTER_MS, quarter_edges
from app.reports.rules.slots import ranges_of
from app.reports.tables import Rollup
from app.reports.vectors import Table

_ROLLUP = table_of(Rollup)
NAMED = 500
"""Places are looked up by their names up to so many."""

Ranges = Sequence[tuple[int, int]]
Peak = tuple[float, datetime | None]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a report needs to know of a row."""

    ranges: Ranges
    """Counters `[low, high)`, but those of histograms."""
    people: bool = False
    peaks: bool = False
    spreads: Sequence[int] = ()
    """Histograms of which the percentiles are asked for."""
    has_lengths: bool = False
    """Whether the histograms themselves are asked for."""


@dataclass(slots=True)
class Sums:
    """What was counted, row by row."""

    rows: int
    by_hour: bool
    table: Table
    uniques: Sequence[int | None]
    """Distinct workers; None where they cannot be told apart any more, or nobody asked."""
    peaks: Sequence[Peak | None]
    """Greatest mean of a quarter hour, and when it began; None where rows keep no such thing."""
    most_inside: Sequence[int | None]
    histograms: Table | None = None
    """Where they are not among the others."""
    kept: npt.NDArray[np.int16] | None = None
    """Percentiles of rows that are one sum each (`spreads.py`)."""

    def __getitem__(self, key: int) -> Ints:
        """Give a counter of every row."""
        found = self.table[key]
        return found.reshape(-1, HOURS)[:, :ALL_DAY].ravel() if self.by_hour else found

    def between(self, low: int, high: int) -> tuple[list[int], Ints]:
        """Give the counters `[low, high)` that occur, and for each its sums, row by row."""
        apart = self.histograms if low >= HISTOGRAMS else None
        keys, found = (self.table if apart is None else apart).between(low, high)
        if self.by_hour:
            each = found.reshape(len(keys), self.rows // ALL_DAY, HOURS)[:, :, :ALL_DAY]
            found = each.reshape(len(keys), self.rows)
        return keys, found

    def buckets(self, begins: int) -> npt.NDArray[np.signedinteger]:
        """Give where the percentiles of a histogram lie, row by row (`spreads.py`)."""
        return spreads.buckets(self, begins) if self.kept is None else spreads.of(self.kept, begins)


@dataclass(frozen=True, slots=True)
class _Read:
    """Rows of rollups, column by column."""

    place: Sequence[uuid.UUID]
    span: Sequence[Span]
    group: Sequence[int]
    """Of its part: the place's number, times how many base slots there are, and the slot's."""
    columns: list[Any]


async def read(tx: AsyncSession, part: Part, ask: Ask) -> Sums:
    """Sum what is asked for, for every row of a part."""
    frame = part.frame
    by_hour = frame.slots.by_hour
    spans = frame.days if by_hour and ask.peaks else frame.spans
    ranges = [*ask.ranges, *spreads.beside(ask.spreads)]
    columns: list[Any] = [_ROLLUP.c.hours if by_hour else _ROLLUP.c.counts]
    if ask.people and not by_hour:
        columns += [_ROLLUP.c.uniques, _ROLLUP.c.crowd.is_(None)]
    if ask.peaks and not by_hour:
        columns += [_ROLLUP.c.peak, _ROLLUP.c.peak_at, _ROLLUP.c.most_inside]
    has_spreads = bool(ask.spreads) and not by_hour
    is_kept = has_spreads and not ask.has_lengths and _is_single(part)
    if has_spreads:
        columns.insert(1, _ROLLUP.c.percentiles if is_kept else _ROLLUP.c.histograms)
    found = await _select(tx, part, spans, columns)
    apart = found.columns.pop(1) if has_spreads else ()
    count = len(part.places) * len(frame.slots.bases)
    summed = vectors.summed_hours if by_hour else vectors.summed
    table = summed(found.columns[0], found.group, count, ranges)
    none: Sequence[None] = [None] * part.rows
    sums = Sums(part.rows, by_hour, table, uniques=none, peaks=none, most_inside=none)
    if is_kept and not spreads.are_all_kept(apart, table):
        # An older version wrote some of them: the histograms are read, with what they are of.
        return await read(tx, part, replace(ask, has_lengths=True))
    if is_kept:
        sums.kept = spreads.read(apart, found.group, count)
    elif has_spreads:
        histograms = list(map(spreads.histograms_of, found.columns[0], apart))
        lengths = spreads.lengths(ask.spreads)
        sums.histograms = vectors.summed(histograms, found.group, count, lengths)
    if ask.people and not by_hour:
        sums.uniques = await _uniques(tx, part, found)
    if ask.peaks:
        await _peaks(tx, part, found, sums)
    return sums


async def read_apart(tx: AsyncSession, part: Part, ask: Ask) -> Sums:
    """Sum what adds up, where no day is in two slots.

    Of the slot with the most days little is read: it is all of them less those of the others. A
    month of workdays is one sum and ten days, and not twenty-one.
    """
    bases = part.frame.slots.bases
    lengths = [len(list(base.days)) for base in bases]
    if len(bases) < 2:
        return await read(tx, part, ask)
    most = lengths.index(max(lengths))
    days = sorted(day for base in bases for day in base.days)
    whole = _of_slots(part, [Slot(ranges_of(days))])
    others = _of_slots(part, [base for number, base in enumerate(bases) if number != most])
    if len(whole.frame.spans) >= lengths[most]:
        return await read(tx, part, ask)
    by_hour = part.frame.slots.by_hour
    of_all, of_some = [(await read(tx, each, ask)).table for each in (whole, others)]
    table = of_all.apart(of_some, len(bases) - 1, most, size=HOURS if by_hour else 1)
    none: Sequence[None] = [None] * part.rows
    return Sums(part.rows, by_hour, table, uniques=none, peaks=none, most_inside=none)


def _of_slots(part: Part, bases: Sequence[Slot]) -> Part:
    """Give the same places with other slots."""
    frame = part.frame
    slots = replace(frame.slots, bases=bases)
    return replace(part, frame=replace(frame, slots=slots))


def _is_single(part: Part) -> bool:
    """Say whether every row is one rollup."""
    frame = part.frame
    spans, bases = list(frame.spans.values()), len(frame.slots.bases)
    return len(set(spans)) == len(spans) <= bases and all(
        len(place.sources) <= 1 for place in part.places
    )


async def used(
    tx: AsyncSession, part: Part, ask: Ask
) -> tuple[int, datetime | None, datetime | None]:
    """Say how many rollups a part is the sum of, and when the first and the last was counted."""
    frame = part.frame
    spans = frame.days if frame.slots.by_hour and ask.peaks else frame.spans
    found = await _select(tx, part, spans, [_ROLLUP.c.rolled_at])
    at = found.columns[0]
    return len(at), min(at, default=None), max(at, default=None)


async def _select(
    tx: AsyncSession,
    part: Part,
    spans: Mapping[Span, int],
    columns: Sequence[Any],
    places: Sequence[uuid.UUID] | None = None,
) -> _Read:
    """Read rollups of a part's sources, or of some of them: a range of an index for each run."""
    found: list[list[Any]] = [[] for _ in range(3 + len(columns))]
    selectors = part.selectors if places is None or len(places) > NAMED else [places]
    bases = len(part.frame.slots.bases)
    first = {place: number * bases for place, number in part.sources.items()}
    connection = await tx.connection()  # Rows as the driver gives them, not the session's.
    for run in runs(list(spans)):
        mine = {one.from_day: one for one in spans if one.grain is run.grain}
        slot = {day: spans[one] for day, one in mine.items()}
        for selector in selectors:
            rows: Sequence[Any] = (await connection.execute(_query(run, selector, columns))).all()
            if not rows:
                continue
            place, day, *more = zip(*rows, strict=True)
            at, of = list(map(first.get, place)), list(map(slot.get, day))
            if None in at or None in of:
                rows = [row for row in rows if row[0] in first and row[1] in mine]
                place, day, *more = zip(*rows, strict=True) if rows else [()] * (2 + len(more))
                at, of = list(map(first.get, place)), list(map(slot.get, day))
            group = map(add, at, of)
            read = (place, map(mine.__getitem__, day), group, *more)
            for column, values in zip(found, read, strict=True):
                column += values
    return _Read(found[0], found[1], found[2], found[3:])


def _query(run: Run, selector: Any, columns: Sequence[Any]) -> sa.Select[Any]:
    c = _ROLLUP.c
    return sa.select(c.place_id, c.from_day, *columns).where(
        c.grain == run.grain,
        c.from_day >= run.from_day,
        c.from_day < run.to_day,
        c.place_id.in_(selector),
    )


async def _uniques(tx: AsyncSession, part: Part, found: _Read) -> Sequence[int | None]:
    """Count distinct workers: one stored number where one span says it all, else sets together."""
    groups = found.group
    _, numbers, are_gone = found.columns[:3]
    uncounted = [number for number, uniques in enumerate(numbers) if uniques is None]
    of = [found.columns[0][number] for number in uncounted]
    visits = vectors.summed(of, range(len(of)), len(of), [(C.VISITS_FREE, C.VISITS_OFFLINE + 1)])
    came = sum(visits[key] for key in (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE))
    empty = {number for number, n in zip(uncounted, np.atleast_1d(came), strict=True) if n == 0}
    result: list[int | None] = [0] * part.rows
    if len(set(groups)) == len(groups):
        for number, (group, uniques) in enumerate(zip(groups, numbers, strict=True)):
            result[group] = 0 if number in empty else uniques
        return result
    parts: defaultdict[int, list[int]] = defaultdict(list)
    for number, (group, uniques) in enumerate(zip(groups, numbers, strict=True)):
        if uniques != 0 and number not in empty:
            parts[group].append(number)
    wanted: dict[tuple[uuid.UUID, Span], int] = {}
    for group, rows in parts.items():
        if len(rows) == 1:
            result[group] = numbers[rows[0]]
        elif any(are_gone[row] for row in rows):
            result[group] = None
        else:
            wanted |= {(found.place[row], found.span[row]): group for row in rows}
    for group, together in (await _united(tx, part, wanted)).items():
        result[group] = together
    return result


async def _united(
    tx: AsyncSession, part: Part, wanted: Mapping[tuple[uuid.UUID, Span], int]
) -> Mapping[int, int | None]:
    """Put the sets of each row together and count them; None where one is gone."""
    if not wanted:
        return {}
    spans = {span: 0 for _, span in wanted}
    places = list({place for place, _ in wanted})
    found = await _select(tx, part, spans, [_ROLLUP.c.crowd], places)
    sets: defaultdict[int, list[BitMap]] = defaultdict(list)
    gone: set[int] = set()
    for place, span, data in zip(found.place, found.span, found.columns[0], strict=True):
        group = wanted.get((place, span))
        if group is None:
            continue
        if data is None:
            gone.add(group)  # Retention took it since the row was read.
        else:
            sets[group] += crowds.unpacked(data).values()
    told = {group: len(BitMap.union(*each)) if each else 0 for group, each in sets.items()}
    return told | dict.fromkeys(gone)


async def _peaks(tx: AsyncSession, part: Part, found: _Read, sums: Sums) -> None:
    frame, groups = part.frame, found.group
    bases = len(frame.slots.bases)
    single = [len(place.sources) == 1 for place in part.places]
    are_stations = frame.scope.by is By.STATION or not frame.scope.roots.units
    if frame.slots.by_hour:
        sums.peaks = _by_quarters(part, found.place, found.span, found.columns[0])
        if frame.scope.by is By.OPERATING_MODEL:
            rows = part.rows // max(1, len(single))
            sums.peaks = [
                peak if single[row // rows] else None for row, peak in enumerate(sums.peaks)
            ]
        if are_stations:
            count = len(part.places) * bases
            most = vectors.greatest(found.columns[0], groups, count, C.MOST)
            most = most.reshape(-1, HOURS)[:, :ALL_DAY].ravel()
            # Where persons were and no greatest number is, an older version counted.
            is_told = np.repeat(single, part.rows // max(1, len(single)))
            is_told &= (most > 0) | (sums[C.PERSON_MS] == 0)
            sums.most_inside = shown(most, is_told)
        return
    peaks: list[Peak | None] = [(0.0, None)] * part.rows
    inside: list[int | None] = [
        0 if one and are_stations else None for one in single for _ in range(bases)
    ]
    order = sorted(range(len(groups)), key=lambda row: found.span[row].from_day)
    values, instants, most = found.columns[-3:]
    for row in order:
        group = groups[row]
        if not single[group // bases]:
            continue
        best = peaks[group]
        if best is None or values[row] > best[0]:
            peaks[group] = (values[row], instants[row])
        held = inside[group]
        inside[group] = None if held is None or most[row] is None else max(held, most[row])
    sums.peaks, sums.most_inside = peaks, inside
    several = [place for place in part.places if len(place.sources) > 1]
    if frame.scope.by is By.OPERATING_MODEL:
        sums.peaks = [peak if single[row // bases] else None for row, peak in enumerate(peaks)]
    elif several:
        ids = [id for place in several for id in place.sources]
        days = await _select(tx, part, frame.days, [_ROLLUP.c.hours], ids)
        united = _by_quarters(part, days.place, days.span, days.columns[0])
        sums.peaks = [
            peak if single[row // bases] else united[row] for row, peak in enumerate(peaks)
        ]


def _by_quarters(
    part: Part, places: Sequence[uuid.UUID], spans: Sequence[Span], hours: Sequence[bytes]
) -> list[Peak | None]:
    """Find the greatest quarter hour of each row, day by day, of all its places together.

    Quarters are those of the places' own clocks; of equals, the first counts.
    """
    frame = part.frame
    days = sorted(span.from_day for span in frame.days)
    number = {day: place for place, day in enumerate(days)}
    count = len(part.places) * len(days)
    lines = [
        part.sources[place] * len(days) + number[span.from_day]
        for place, span in zip(places, spans, strict=True)
    ]
    table = vectors.summed_hours(hours, lines, count, [(C.QUARTER, C.QUARTER + QUARTERS)])
    quarters = np.stack([table[C.QUARTER + q] for q in range(QUARTERS)], axis=-1)
    quarters = quarters.reshape(len(part.places), len(days), HOURS, QUARTERS)[:, :, :ALL_DAY]
    pieces = 24 if frame.slots.by_hour else 1
    each = quarters.reshape(len(part.places), len(days), pieces, DAY_QUARTERS // pieces)
    result: list[Peak | None] = [(0.0, None)] * part.rows
    for base, slot in enumerate(frame.slots.bases):
        mine = [day for day in slot.days if day in number]
        if not mine:
            continue
        some = each[:, [number[day] for day in mine]].swapaxes(1, 2)
        flat = some.reshape(len(part.places), pieces, -1)
        best = flat.argmax(axis=-1)
        for place, piece in np.argwhere(flat.max(axis=-1) > 0).tolist():
            day, quarter = divmod(int(best[place, piece]), DAY_QUARTERS // pieces)
            row = (place * len(frame.slots.bases) + base) * pieces + piece
            value = round(int(flat[place, piece, best[place, piece]]) / QUARTER_MS, 4)
            zone = part.places[place].timezone
            edges = quarter_edges(zone, mine[day])
            at = edges[piece * (DAY_QUARTERS // pieces) + quarter]
            result[row] = (value, _instant(at))
    return result


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
