"""Counting anew what is due: stations' days from raw rows, everything above as sums of these.

Raw rows stay the truth. A pass finds what changed (`changes.py`) and settles it, lowest first:

1. A station's day is counted from its raw rows (`raw.py`, `rules/day.py`).
2. A unit's day is the sum of the units directly below it and of its own stations.
3. A month is the sum of its days, a quarter of its months, a year of its quarters.

What is read and summed is read first; then one short write settles it: a span is written only by
whoever still finds its due row with the token he read. So a pass may be cut off at any place, run
twice, or meet another one, and what is counted from older rows never replaces newer. Of two
versions that count by different rules only the newer one writes (`versions.py`).
"""

import asyncio
import logging
import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.clock import monotonic
from app.db.engine import Database
from app.db.types import table_of
from app.db.upsert import upsert
from app.places.rules import CITY_ZONE, is_within, local_day
from app.places.tables import Station, Unit
from app.reports import crowds, health, spreads, vectors, versions
from app.reports.changes import (
    CLOSED,
    SPANS,
    STATION_DAYS,
    Due,
    in_order,
    look,
    move,
    note,
    put_due,
    put_found,
    read_tree,
    spans_above,
)
from app.reports.crowds import Crowd
from app.reports.raw import Cell, StationDay, read_days
from app.reports.rules import Grain, span_end, span_of
from app.reports.rules.day import count, quarter_edges
from app.reports.tables import CITY, Renumbering, Rollup, RollupDue, RollupMember

log = logging.getLogger(__name__)

_DUE, _ROLLUP = table_of(RollupDue), table_of(Rollup)

AT_ONCE = 250
"""Spans settled in one write."""
STATIONS_AT_ONCE = 60
"""Stations of which days are settled in one write: between two of them doors have their turn."""
DAYS_AT_ONCE = 31
"""Days of the same station, if so many are due: they share what lasts longer than a day."""
UNITS_AT_ONCE = 20
"""Units' days settled in one write: each may be the sum of hundreds."""

NOTED_AT_ONCE = 5_000
"""Spans that are written down as due in one write."""

BELOW = {Grain.MONTH: Grain.DAY, Grain.QUARTER: Grain.MONTH, Grain.YEAR: Grain.QUARTER}
"""What a span is the sum of."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a pass counts."""

    at: datetime
    retention: timedelta
    """After so long visits have lost their workers."""
    silence: timedelta
    """A controller that was not heard for so long is offline."""


SAYS_EVERY_S = 600.0
"""A pass over every day of a country takes hours; so often it says that it goes on."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass did."""

    found: int
    """Spans that were due."""
    settled: int
    """Spans that were counted, those above included."""


async def roll_up(database: Database, terms: Terms) -> Pass:
    """Find what changed and count it anew, everything above it included.

    Only when nothing is due any more, whoever found it, is the time until then known and counted.
    Where a newer version counts, this one leaves it to that.
    """
    begun = said = monotonic()
    async with database.write() as tx:
        is_ours = await versions.announce(tx, at=terms.at)
    if not is_ours:
        log.warning("not rolled up: a version with newer rules counts here")
        return Pass(0, 0)
    noted = await find(database, at=terms.at)
    settled = 0
    while number := await settle_some(database, terms):
        settled += number
        if monotonic() >= said + SAYS_EVERY_S:
            said = monotonic()
            async with database.write() as tx:
                await versions.announce(tx, at=terms.at + timedelta(seconds=said - begun))
    async with database.write() as tx:
        if await versions.is_superseded(tx, at=terms.at):
            return Pass(noted, settled)
        await move(tx, CLOSED, terms.at)
        await renumber(tx, at=terms.at, retention=terms.retention)
        await forget(tx, at=terms.at, retention=terms.retention)
    return Pass(noted, settled)


async def find(database: Database, *, at: datetime) -> int:
    """Find what changed and write it down as due; gives how many spans.

    In short writes, with the last of which the watermark moves.
    """
    async with database.read() as tx:
        found = await look(tx, at=at)
    dues = in_order(found.dues)
    for start in range(0, len(dues), NOTED_AT_ONCE):
        async with database.write() as tx:
            await put_found(tx, found, dues[start : start + NOTED_AT_ONCE])
    async with database.write() as tx:
        await note(tx, replace(found, dues=(), disowned=()))
    return len(dues)


async def settle_some(database: Database, terms: Terms) -> int:
    """Settle the lowest of what is due; gives how many spans, 0 when none is for this version."""
    async with database.read() as tx:
        dues = await _lowest(tx)
        if not dues:
            return 0
        first = dues[0]
        places = [due.place_id for due in dues]
        if first.depth == STATION_DAYS:
            rows = await _station_days(tx, dues, terms)
        elif first.depth < SPANS:
            rows = await _unit_days(tx, places, first.from_day, terms.at)
        else:
            rows = await _spans(tx, places, first.grain, first.from_day, terms.at)
    async with database.write() as tx:
        if await versions.is_superseded(tx, at=terms.at):
            return 0
        held = await _take(tx, dues)
        written = [row for row in rows if (row["place_id"], row["from_day"]) in held]
        if written:
            await _write(tx, written)
        if first.depth < SPANS:
            await put_due(tx, await _above(tx, first.depth, held))
    return len(dues)


async def _lowest(tx: AsyncSession) -> Sequence[Any]:
    """Give some spans of the lowest depth that are due, all of one kind.

    Of stations the oldest days, and days that follow them; else any of one day. Which they are is
    left to chance, so that passes at the same time rarely take the same.
    """
    # Of what the first statement finds, another pass may have settled all by the second.
    while (found := await _bounds(tx)) is not None:
        depth, oldest, newest = found
        if dues := await _some_due(tx, depth, oldest, newest):
            return dues
    return []


async def _bounds(tx: AsyncSession) -> tuple[int, date, date] | None:
    """Give the lowest depth that is due, its oldest day and its newest."""
    c = _DUE.c
    lowest = sa.select(sa.func.min(c.depth)).scalar_subquery()
    days = sa.select(c.depth, sa.func.min(c.from_day), sa.func.max(c.from_day))
    row = (await tx.execute(days.where(c.depth == lowest).group_by(c.depth))).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


async def _some_due(tx: AsyncSession, depth: int, oldest: date, newest: date) -> Sequence[Any]:
    c = _DUE.c
    from_day = oldest
    if depth != STATION_DAYS:
        chosen = oldest + timedelta(days=secrets.randbelow((newest - oldest).days + 1))
        later = sa.select(sa.func.min(c.from_day)).where(c.depth == depth, c.from_day >= chosen)
        from_day = await tx.scalar(later) or oldest
    most = AT_ONCE if depth >= SPANS else UNITS_AT_ONCE
    if depth == STATION_DAYS:
        most = STATIONS_AT_ONCE
    query = (
        sa.select(c.place_id, c.grain, c.from_day, c.depth, c.token)
        .where(c.depth == depth, c.from_day == from_day)
        .order_by(sa.func.random())
        .limit(most)
    )
    dues = (await tx.execute(query)).all()
    if depth != STATION_DAYS or newest == oldest or not dues:
        return dues
    return await _days_of(tx, [due.place_id for due in dues], oldest)


async def _days_of(tx: AsyncSession, stations: Sequence[uuid.UUID], oldest: date) -> Sequence[Any]:
    """Give days of stations that are due, beginning with the oldest: few stations, many days."""
    c = _DUE.c
    query = (
        sa.select(c.place_id, c.grain, c.from_day, c.depth, c.token)
        .where(
            c.place_id.in_(stations),
            c.grain == Grain.DAY,
            c.from_day >= oldest,
            c.from_day < oldest + timedelta(days=DAYS_AT_ONCE),
        )
        .order_by(c.place_id, c.from_day)
        .limit(AT_ONCE)
    )
    dues = (await tx.execute(query)).all()
    # All days between are read: no more of them than twice what is due.
    number = len({due.place_id for due in dues})
    found, last = 0, oldest
    for day, due in sorted(Counter(due.from_day for due in dues).items()):
        found += due
        if 2 * found >= number * ((day - oldest).days + 1):
            last = day
    return [due for due in dues if due.from_day <= last]


async def _take(tx: AsyncSession, dues: Sequence[Any]) -> set[Cell]:
    """Settle the dues that nobody made anew or settled since they were read; gives which.

    What somebody else is about to settle or to make anew is left to him.
    """
    c = _DUE.c
    mine = (
        c.place_id.in_({due.place_id for due in dues}),
        c.grain == dues[0].grain,
        c.from_day.in_({due.from_day for due in dues}),
        c.token.in_([due.token for due in dues]),
    )
    free = sa.select(c.token).where(*mine).with_for_update(skip_locked=True)
    gone = await tx.execute(
        sa.delete(_DUE)
        .where(*mine[:3], c.token.in_(free.scalar_subquery()))
        .returning(c.place_id, c.from_day)
    )
    return {(place, day) for place, day in gone}


async def _write(tx: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    insert = upsert(tx, _ROLLUP)
    keys = ("place_id", "grain", "from_day")
    changes = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    # What was known of the workers stays known when a day is counted again after they were lost:
    # their number for good, the set until `forget` hands it on.
    for name in ("uniques", "crowd", "occupations"):
        if name in changes:
            changes[name] = sa.func.coalesce(insert.excluded[name], _ROLLUP.c[name])
    await tx.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes), rows)


async def _above(tx: AsyncSession, depth: int, settled: Collection[Cell]) -> set[Due]:
    """Give what must be summed anew once these days were counted."""
    above = {due for place, day in settled for due in spans_above(place, day)}
    if depth == STATION_DAYS:
        tree = await read_tree(tx)
        c = table_of(RollupMember).c
        rows = await tx.execute(
            sa.select(c.station_id, c.above, c.unit_path).where(
                c.station_id.in_({station for station, _ in settled})
            )
        )
        places = {id: tree.counted(units, path) for id, units, path in rows}
        for units, day in {(places[id], day) for id, day in settled if id in places}:
            above.update(tree.days(units, day))
    return above


async def _station_days(
    tx: AsyncSession, dues: Sequence[Any], terms: Terms
) -> list[Mapping[str, Any]]:
    due: defaultdict[uuid.UUID, list[date]] = defaultdict(list)
    for one in dues:
        due[one.place_id].append(one.from_day)
    raw = await read_days(tx, due, silence=terms.silence, at=terms.at)
    lost = retained_since(terms.at, terms.retention)
    # Counting is plain Python: beside the loop that doors wait on.
    return await asyncio.to_thread(_counted, raw, terms.at, lost)


def _counted(raw: Mapping[Cell, StationDay], at: datetime, lost: date) -> list[Mapping[str, Any]]:
    stood = [health.stood(one.stood) for one in raw.values()]
    counted = [
        count(one.facts, its.staffed_ms, its.reporting)
        for one, its in zip(raw.values(), stood, strict=True)
    ]
    own = vectors.Lines.by_hour([one.hours for one in counted])
    sums = spreads.written(own.whole().added([one.whole for one in stood]))
    hours = own.added([one.hours for one in stood])
    return [
        {
            "place_id": station,
            "grain": Grain.DAY,
            "from_day": day,
            **sums[number],
            "hours": hours[number],
            "peak": counted[number].peak,
            "peak_at": _instant(counted[number].peak_ms),
            "most_inside": counted[number].most_inside,
            **_told(None if day < lost else crowds.crowd_of(counted[number].crowd)),
            "reaches_at": one.reaches_at,
            "rolled_at": at,
        }
        for number, ((station, day), one) in enumerate(raw.items())
    ]


def _instant(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


_PARTS = tuple(
    _ROLLUP.c[name]
    for name in (
        "place_id",
        "counts",
        "histograms",
        "hours",
        "peak",
        "peak_at",
        "most_inside",
        "uniques",
        "crowd",
    )
)


async def _unit_days(
    tx: AsyncSession, units: Sequence[uuid.UUID], day: date, at: datetime
) -> list[Mapping[str, Any]]:
    """Sum the units directly below and the own stations; of the city, the roots."""
    under: dict[uuid.UUID, uuid.UUID] = {}
    parent = sa.func.coalesce(Unit.parent_id, CITY) if CITY in units else Unit.parent_id
    ways: tuple[tuple[Any, Any], ...] = ((Unit, parent), (Station, Station.unit_id))
    for kind, above in ways:
        rows = await tx.execute(sa.select(kind.id, above).where(above.in_(units)))
        under.update((child, unit) for child, unit in rows)
    parts: defaultdict[uuid.UUID, list[Any]] = defaultdict(list)
    # A unit may have thousands: whoever is below is found by a join, not by a list of names.
    for kind, above in ways:
        query = (
            sa.select(*_PARTS)
            .join(kind, kind.id == Rollup.place_id)
            .where(above.in_(units), Rollup.grain == Grain.DAY, Rollup.from_day == day)
        )
        for part in await tx.execute(query):
            parts[under[part.place_id]].append(part)
    zones = await _zones(tx, units)

    def summed() -> list[Mapping[str, Any]]:
        sums = _summed([parts[unit] for unit in units])
        return [
            _unit_day(unit, day, parts[unit], mine, zones[unit], at)
            for unit, mine in zip(units, sums, strict=True)
        ]

    return await asyncio.to_thread(summed)


async def _zones(tx: AsyncSession, units: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    """Give the zone by which a place's peak is told: the first of the stations below it."""
    paths = {
        row.path: row.id
        for row in await tx.execute(sa.select(Unit.path, Unit.id).where(Unit.id.in_(units)))
    }
    rows = await tx.execute(
        sa.select(Unit.path, Station.timezone)
        .join(Station, Station.unit_id == Unit.id)
        .distinct()
        .order_by(Station.timezone.desc())
    )
    found: defaultdict[uuid.UUID, str] = defaultdict(lambda: CITY_ZONE)
    for path, timezone in rows:
        found[CITY] = timezone
        for own, unit in paths.items():
            if is_within(path, own):
                found[unit] = timezone
    return found


def _unit_day(
    unit: uuid.UUID,
    day: date,
    parts: Sequence[Any],
    sums: Mapping[str, bytes],
    timezone: str,
    at: datetime,
) -> Mapping[str, Any]:
    hours = vectors.merged_hours([part.hours for part in parts])
    peak, quarter = vectors.peak_quarter(hours)
    peak_ms = None if quarter is None else quarter_edges(timezone, day)[quarter]
    return {
        "place_id": unit,
        "grain": Grain.DAY,
        "from_day": day,
        **sums,
        "hours": hours,
        "peak": peak,
        "peak_at": _instant(peak_ms),
        "most_inside": None,
        **_told(_people([part.crowd for part in parts], [part.uniques for part in parts], None)),
        "reaches_at": None,
        "rolled_at": at,
    }


async def _spans(
    tx: AsyncSession, places: Sequence[uuid.UUID], grain: Grain, first: date, at: datetime
) -> list[Mapping[str, Any]]:
    """Sum the spans below."""
    parts: defaultdict[uuid.UUID, list[Any]] = defaultdict(list)
    query = (
        sa.select(*_PARTS)
        .where(
            Rollup.place_id.in_(places),
            Rollup.grain == BELOW[grain],
            Rollup.from_day >= first,
            Rollup.from_day < span_end(grain, first),
        )
        .order_by(Rollup.from_day)
    )
    for row in await tx.execute(query):
        parts[row.place_id].append(row)
    # After the parts: of one that loses its set meanwhile, the set is found here.
    own = sa.select(Rollup.place_id, Rollup.base).where(
        Rollup.place_id.in_(places),
        Rollup.grain == grain,
        Rollup.from_day == first,
        Rollup.crowd.is_not(None),
    )
    bases = {row.place_id: row.base or b"" for row in await tx.execute(own)}

    def summed() -> list[Mapping[str, Any]]:
        sums = _summed([parts[place] for place in places])
        return [
            _span(place, grain, first, parts[place], mine, bases.get(place), at)
            for place, mine in zip(places, sums, strict=True)
        ]

    return await asyncio.to_thread(summed)


def _span(
    place: uuid.UUID,
    grain: Grain,
    first: date,
    parts: Sequence[Any],
    sums: Mapping[str, bytes],
    base: bytes | None,
    at: datetime,
) -> Mapping[str, Any]:
    people = _people([part.crowd for part in parts], [part.uniques for part in parts], base)
    highest = max(parts, key=lambda part: part.peak, default=None)
    inside = [part.most_inside for part in parts]
    return {
        "place_id": place,
        "grain": grain,
        "from_day": first,
        **sums,
        "hours": vectors.merged_hours([part.hours for part in parts]),
        "peak": 0.0 if highest is None else highest.peak,
        "peak_at": None if highest is None else highest.peak_at,
        "most_inside": None if None in inside else max(inside, default=None),
        **_told(people),
        "occupations": None if people is None else crowds.sizes(people),
        "reaches_at": None,
        "rolled_at": at,
    }


def _summed(parts: Sequence[Sequence[Any]]) -> Sequence[Mapping[str, bytes]]:
    """Sum counters and histograms of each whole."""
    return spreads.written([spreads.merged(some) for some in parts])


def _people(
    sets: Sequence[bytes | None], uniques: Sequence[int | None], base: bytes | None
) -> Crowd | None:
    """Put the workers together; None where nobody can tell them apart any more.

    Where retention took the sets of parts already, the base is what these were when they went.
    Without a base the whole has lost its own set.
    """
    living: list[Crowd] = [crowds.unpacked(data) for data in sets if data is not None]
    if any(data is None and number != 0 for data, number in zip(sets, uniques, strict=True)):
        if base is None:
            return None
        living.append(crowds.unpacked(base))
    return crowds.union(living)


def _told(people: Crowd | None) -> Mapping[str, Any]:
    if people is None:
        return {"uniques": None, "crowd": None}
    return {"uniques": len(crowds.everybody(people)), "crowd": crowds.packed(people)}


async def renumber(tx: AsyncSession, *, at: datetime, retention: timedelta) -> None:
    """Put another number in the place of each erased worker's.

    Days of his living visits were counted anew, and what is summed from them; only spans that have
    outlived a part of them hold numbers that no living visit brings any more.
    """
    pairs = (await tx.scalars(sa.select(Renumbering).with_for_update())).all()
    if not pairs:
        return
    outlived = sa.select(Rollup).where(
        Rollup.crowd.is_not(None), Rollup.from_day < retained_since(at, retention)
    )
    async for row in await tx.stream_scalars(outlived.with_for_update()):
        numbers = {pair.old_number: pair.new_number for pair in pairs}
        crowd, base = crowds.unpacked(row.crowd or b""), crowds.unpacked(row.base or b"")
        if crowds.renumber(crowd, numbers):
            row.crowd = crowds.packed(crowd)
            row.uniques = len(crowds.everybody(crowd))
            row.occupations = row.occupations and crowds.sizes(crowd)
        if crowds.renumber(base, numbers):
            row.base = crowds.packed(base)
    await tx.flush()
    for pair in pairs:
        await tx.delete(pair)


LATE = timedelta(days=15)
"""How long after its end a span may still change: longer than a controller works alone."""


def retained_since(at: datetime, retention: timedelta) -> date:
    """Give the first day whose visits still have all their workers."""
    return local_day(at - retention, CITY_ZONE) + timedelta(days=1)


async def forget(tx: AsyncSession, *, at: datetime, retention: timedelta) -> None:
    """Let the sets of workers go with the visits they came from; their exact numbers stay.

    A day's set goes when the day has lost its workers. That of a month, quarter or year goes when
    its first day has, but lives until the span is closed, without which nobody could count it
    exactly: it says that somebody came to a place in that span, and not when. What goes before
    the span that it is a part of is handed on to that.
    """
    lost, closed = retained_since(at, retention), local_day(at - LATE, CITY_ZONE)
    until = {grain: min(lost, span_of(grain, closed)) for grain in BELOW} | {Grain.DAY: lost}
    is_due = sa.or_(
        *(
            sa.and_(_ROLLUP.c.grain == grain, _ROLLUP.c.from_day < day)
            for grain, day in until.items()
        )
    )
    going = sa.and_(_ROLLUP.c.crowd.is_not(None), is_due)
    spans = sa.select(_ROLLUP.c.grain, _ROLLUP.c.from_day).where(going).distinct()
    above = {part: grain for grain, part in BELOW.items()}
    for part, first in (await tx.execute(spans)).all():
        grain = above.get(part)
        if grain is not None and span_of(grain, first) >= until[grain]:
            await _hand_on(tx, part, first, grain)
    await tx.execute(sa.update(_ROLLUP).where(going).values(crowd=None, base=None))


async def _hand_on(tx: AsyncSession, part: Grain, first: date, grain: Grain) -> None:
    """Add the sets of a part to what the spans it belongs to, and that live on, know of such."""
    below = aliased(Rollup)
    query = (
        sa.select(Rollup, below.crowd)
        .join(below, below.place_id == Rollup.place_id)
        .where(
            below.grain == part,
            below.from_day == first,
            below.crowd.is_not(None),
            Rollup.grain == grain,
            Rollup.from_day == span_of(grain, first),
            Rollup.crowd.is_not(None),
        )
        .with_for_update(of=Rollup)
        .execution_options(populate_existing=True)
    )
    for whole, crowd in (await tx.execute(query)).all():
        both = [crowds.unpacked(data or b"") for data in (whole.base, crowd)]
        whole.base = crowds.packed(crowds.union(both))
    await tx.flush()
