"""What workers do who came: visits split by occupation, with small cells hidden (metrics 7, 50).

An occupation is a personal attribute, so this report is narrower than the others: whole months that
are over, at the places of the tree (stations, units, all of the scope). Which cells are hidden is
said for each month, from the root of the city down, whoever asks and about whatever part of it: so
no two questions together tell more than all of them. Over several months a figure is shown where it
is shown in each of them.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station, Unit
from app.reports import crowds, tables, vectors
from app.reports.columns import Bools, Column, Ints, rates, shown
from app.reports.crowds import Crowd
from app.reports.frame import MOST_ROWS, MOST_STREAMED, Frame, Part, frame
from app.reports.grouped import Place
from app.reports.progress import progress
from app.reports.rows import OccupationsRow
from app.reports.rules import Bucket, By, Grain, Slot, span_end
from app.reports.rules.counters import OCCUPATION, OCCUPATIONS
from app.reports.rules.suppression import K, hidden_below
from app.reports.scope import PeriodInvalid, Scope
from app.reports.sums import NAMED
from app.reports.tables import Rollup

NOT_SAID = "not_said"
GROUPS: Sequence[str] = (NOT_SAID, *OCCUPATIONS)
"""By their places in the counters."""
_EVERY = range(len(GROUPS))
CUTS = frozenset({By.STATION, By.UNIT, By.BRANCH, By.ALL, By.MONTH})
BUCKETS = frozenset({None, Bucket.MONTH})

_ROLLUP = table_of(Rollup)


class Node(NamedTuple):
    """A place of the tree: a unit's branch, what a unit keeps itself, or a station."""

    id: uuid.UUID | None
    """None: the city, above every root."""
    is_own: bool = False


CITY = Node(None)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The whole city, whoever asks; of stations, those of which somebody asks, and those beside."""

    above: Mapping[Node, Node]
    below: Mapping[Node, Sequence[Node]]
    own: Mapping[uuid.UUID, Sequence[uuid.UUID]]
    """The stations that a unit keeps itself."""
    zones: Sequence[str]

    def kept(self, node: Node) -> Sequence[uuid.UUID]:
        """Give the places whose sums a node is; none for the city, which is that of its roots."""
        if node.id is None:
            return ()
        return self.own[node.id] if node.is_own else [node.id]

    def path(self, node: Node) -> Sequence[Node]:
        """Give a node and those above it, from the city down."""
        found = [node]
        while found[-1] in self.above:
            found.append(self.above[found[-1]])
        return found[::-1]

    def at(self, place: Place) -> Node | None:
        """Find the node that a row is about; None: there is none."""
        if len(place.sources) == 1 and Node(place.sources[0]) in self.above:
            return Node(place.sources[0])
        if place.id is not None:
            # Of several stations, and perhaps not of those that were gone: nothing is of these.
            own = Node(place.id, is_own=True)
            return own if own in self.above else None
        roots = {node.id for node in self.below[CITY]}
        return CITY if set(place.sources) in ({tables.CITY}, roots) else None


@dataclass(frozen=True, slots=True)
class _Month:
    """What was counted in a month at some nodes of the tree, and what of it is hidden."""

    line: Mapping[Node, int]
    """Where each node stands in what follows; the first line is of nodes at which nothing was."""
    cells: Ints
    """Visits, persons and distinct workers, by line and group."""
    people: Mapping[int, Crowd]
    """The workers themselves, of lines that are put together with others."""
    hides: Bools
    """Where nobody came nothing is hidden: that all visits are nought is published, and so what
    each is."""

    def lines(self, nodes: Sequence[Node | None]) -> Sequence[int]:
        """Give where so many nodes stand."""
        return [0 if node is None else self.line.get(node, 0) for node in nodes]


async def rows_of(tx: AsyncSession, scope: Scope, *, is_at_once: bool) -> "ByMonth":
    """Say which rows the report has; raises PeriodInvalid.

    Where they are too many for one answer they are refused before any is computed.
    """
    _check(scope)
    made = ByMonth(await frame(tx, scope, most=MOST_STREAMED))
    if is_at_once and made.rows > MOST_ROWS:
        raise PeriodInvalid(
            f"by occupation, JSON has at most {MOST_ROWS:,} rows, and this would be "
            f"{made.rows:,}: ask for CSV or a workbook, or for fewer places or months"
        )
    return made


@dataclass(frozen=True)
class ByMonth:
    """The report before anything is counted, to be computed a month at a time.

    What is hidden is said of each month by itself, so no month must wait for another; where a row
    is of several, they are one piece.
    """

    made: Frame

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.made.rows * len(GROUPS)

    @property
    def pieces(self) -> Sequence[Frame]:
        """Cut it into the pieces of time that its rows are about."""
        slots = self.made.slots
        return [replace(self.made, slots=replace(slots, bases=[base])) for base in slots.bases]

    def parts(self) -> Sequence[Part]:
        """Cut the rows into portions that are computed together, in order."""
        return [part for piece in self.pieces for part in piece.parts()]


async def streamed(
    read_tx: Callable[[], AbstractAsyncContextManager[AsyncSession]], rows: ByMonth
) -> AsyncIterator[Sequence[Column]]:
    """Count a long report month by month, each in a short read; by columns."""
    for piece in rows.pieces:
        async with read_tx() as tx:
            told = await _read(tx, piece)
        for part in piece.parts():
            yield await asyncio.to_thread(_columns, part, told)


async def columns(tx: AsyncSession, rows: ByMonth) -> Sequence[Column]:
    """Count all of it together, by columns."""
    return await asyncio.to_thread(_all_columns, rows.made, await _read(tx, rows.made))


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told at the places of a report, by place, span of months and group."""

    cells: Ints
    """Visits, persons and distinct workers."""
    hides: Bools
    is_told: Bools
    """By place and span: whether anything is."""
    are_lost: Sequence[bool]
    """Of the spans, those that retention has reached."""


async def _read(tx: AsyncSession, made: Frame) -> _Told:
    """Read the months that a report is about, and say what of them is hidden."""
    scope = made.scope
    tree = await _read_tree(tx, scope)
    nodes = [tree.at(place) for place in made.places]
    wanted = {node for node in nodes if node is not None}
    spans = [_months(base) for base in made.slots.bases]
    counted_at = (await progress(tx)).counted_at or datetime.fromtimestamp(0, UTC)
    today = min(local_day(min(counted_at, scope.at), zone) for zone in tree.zones)
    # A span is told where every month of it is.
    told = [
        span
        for span in spans
        if span[0] >= scope.retained_since and span_end(Grain.MONTH, span[-1]) <= today
    ]
    together = wanted if any(len(span) > 1 for span in told) else ()
    some = [month for span in told for month in span]
    months = await _read_months(tx, some, tree, wanted, together=together) if some else {}
    are_lost = [span[0] < scope.retained_since for span in spans]
    return await asyncio.to_thread(_at_nodes, nodes, spans, months, are_lost)


def _at_nodes(
    nodes: Sequence[Node | None],
    spans: Sequence[Sequence[date]],
    months: Mapping[date, _Month],
    are_lost: Sequence[bool],
) -> _Told:
    """Give what was counted at the places of a report, over each of its spans."""
    shape = len(nodes), len(spans), len(GROUPS)
    cells, hides = np.zeros((3, *shape), np.int64), np.zeros(shape, bool)
    is_told = np.zeros(shape[:2], bool)
    for slot, span in enumerate(spans):
        if all(month in months for month in span):
            cells[:, :, slot], hides[:, slot] = _over([months[month] for month in span], nodes)
            is_told[:, slot] = [node is not None for node in nodes]
    return _Told(cells, hides, is_told, are_lost)


def _all_columns(made: Frame, told: _Told) -> Sequence[Column]:
    found: list[list[Any]] = [[] for _ in OccupationsRow._fields]
    for part in made.parts():
        for column, values in zip(found, _columns(part, told), strict=True):
            column += values
    return found


def _over(months: Sequence[_Month], nodes: Sequence[Node | None]) -> tuple[Ints, Bools]:
    """Give what was counted at each node over some months, and what is hidden in any of them."""
    lines = [month.lines(nodes) for month in months]
    each = list(zip(months, lines, strict=True))
    cells = np.sum([month.cells[:, of] for month, of in each], axis=0)
    hides = np.any([month.hides[of] for month, of in each], axis=0)
    if len(months) > 1:
        workers = [
            _sizes([month.people.get(line, {}) for month, line in zip(months, of, strict=True)])
            for of in zip(*lines, strict=True)
        ]
        cells[2] = np.array(workers, np.int64).reshape(-1, len(GROUPS))
    return cells, hides


def _sizes(people: Sequence[Crowd]) -> Sequence[int]:
    """Count the distinct workers of each group."""
    found: Sequence[int] = crowds.sizes_of([crowds.sizes(crowds.union(people))])[0].tolist()
    return found


def _check(scope: Scope) -> None:
    """Refuse periods and cuts that would let single workers be told apart."""
    period = scope.period
    if scope.by not in CUTS or scope.bucket not in BUCKETS:
        raise PeriodInvalid(
            "visits by occupation are given by station, unit, branch, all or month, "
            "and cut by month only"
        )
    if period.from_day.day != 1 or period.to_day.day != 1:
        raise PeriodInvalid(
            "visits by occupation are given for whole months: from and to are firsts of months"
        )


def _months(base: Slot) -> Sequence[date]:
    return [day for day in base.days if day.day == 1]


async def _read_tree(tx: AsyncSession, scope: Scope) -> _Tree:
    units = (await tx.execute(sa.select(Unit.id, Unit.parent_id).order_by(Unit.path))).all()
    zones = await tx.scalars(sa.select(Station.timezone).distinct())
    c = table_of(Station).c
    # Where a unit has units too, its own stations are a node beside these.
    is_there: sa.ColumnElement[bool] = c.unit_id.in_(
        sa.select(Unit.parent_id).where(Unit.parent_id.is_not(None))
    )
    if scope.by is By.STATION or scope.roots.stations:
        asked = sa.select(c.unit_id).where(c.id.in_(scope.stations))
        is_there = sa.or_(is_there, c.unit_id.in_(asked))
    # Thousands of rows as the driver gives them, not the session's; and column by column.
    query = sa.select(c.id, c.unit_id).where(is_there).order_by(c.code)
    stations = (await (await tx.connection()).execute(query)).all()
    ids, of = zip(*stations, strict=True) if stations else ((), ())
    above = {Node(unit.id): Node(unit.parent_id) for unit in units}
    has_units = {unit.parent_id for unit in units}
    own: defaultdict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    for station, unit in zip(ids, of, strict=True):
        own[unit].append(station)
    keeps = {unit: Node(unit, is_own=unit in has_units) for unit in own}
    above.update(zip(map(Node, ids), map(keeps.__getitem__, of), strict=True))
    above |= {node: Node(unit) for unit, node in keeps.items() if node.is_own}
    below: defaultdict[Node, list[Node]] = defaultdict(list)
    for node, parent in above.items():
        below[parent].append(node)
    return _Tree(above, below, own, sorted({CITY_ZONE, *zones}))


async def _read_months(
    tx: AsyncSession,
    months: Sequence[date],
    tree: _Tree,
    wanted: Iterable[Node],
    *,
    together: Collection[Node],
) -> Mapping[date, _Month]:
    """Read the nodes on the ways to those that are asked for, and all beside them; hide cells.

    Of most only the numbers of workers are read, and sets where they are put together: those of
    some nodes over months, of what a unit keeps itself, of several roots.
    """
    on_the_way = {node: None for one in wanted for node in tree.path(one)[:-1]}
    below = {node: tree.below[node] for node in {CITY: None} | on_the_way}
    nodes = [node for each in below.values() for node in each]
    roots = tree.below[CITY] if len(tree.below[CITY]) > 1 or CITY in together else ()
    united = {*together, *roots, *(node for node in nodes if node.is_own)}
    sets = {id for node in united for id in tree.kept(node)}
    places = [id for node in nodes for id in tree.kept(node)]
    above = {node.id for node in below if node.id is not None}
    ways: Sequence[Any] = (
        sa.select(Unit.id).where(sa.or_(Unit.parent_id.in_(above), Unit.parent_id.is_(None))),
        sa.select(Station.id).where(Station.unit_id.in_(above)),
    )
    c, connection = _ROLLUP.c, await tx.connection()

    async def rows(*columns: Any) -> Sequence[Any]:
        """Read columns of these places: thousands of rows as the driver gives them."""
        query = sa.select(c.from_day, c.place_id, *columns)
        query = query.where(c.grain == Grain.MONTH, c.from_day.in_(months))
        found: list[Any] = []
        for way in [places] if len(places) <= NAMED else ways:
            found += (await connection.execute(query.where(c.place_id.in_(way)))).all()
        return found

    read: dict[date, list[Any]] = {month: [] for month in months}
    people: dict[date, dict[uuid.UUID, Crowd]] = {month: {} for month in months}
    for month, *row in await rows(c.counts, c.occupations):
        read[month].append(row)
    # A row of an older version has no numbers: they are taken from its set.
    old = {row[0] for each in read.values() for row in each if row[2] is None}
    if wanted_sets := sets | old:
        is_one = c.place_id.in_(wanted_sets) if len(wanted_sets) <= NAMED else sa.true()
        for month, place, crowd in await rows(sa.case((is_one, c.crowd))):
            if place in wanted_sets:
                people[month][place] = crowds.unpacked(crowd or b"")
    return {
        month: await asyncio.to_thread(_month, some, people[month], tree, below)
        for month, some in read.items()
    }


def _month(
    read: Sequence[Any],
    crowd_of: Mapping[uuid.UUID, Crowd],
    tree: _Tree,
    below: Mapping[Node, Sequence[Node]],
) -> _Month:
    """Sum up the nodes, and hide cells: of a whole city a second's work, beside the loop."""
    line: dict[Node, int] = {}
    places, counts, sizes = zip(*read, strict=True) if read else ((), (), ())
    line_of = {place: number for number, place in enumerate(places, 1)}
    cells = _cells(places, counts, sizes, crowd_of)
    # A set that came to be since the numbers were read is of no line.
    people = {line_of[place]: crowd for place, crowd in crowd_of.items() if place in line_of}
    more: list[Ints] = []

    def together(node: Node, lines: Sequence[int]) -> None:
        """Put lines together to one more."""
        if len(lines) == 1:
            line[node] = lines[0]
            return
        line[node] = cells.shape[1] + len(more)
        some = [people.get(one, {}) for one in lines]
        people[line[node]] = crowds.union(some)
        more.append(np.stack([*cells[:2, lines].sum(axis=1), _sizes(some)]))

    nodes = [node for each in below.values() for node in each]
    for node in nodes:
        if node.is_own:
            together(node, [line_of[id] for id in tree.kept(node) if id in line_of])
        elif node.id in line_of:
            line[node] = line_of[node.id]
    together(CITY, [line[node] for node in below[CITY] if node in line])
    if more:
        cells = np.concatenate([cells, np.stack(more, axis=1)], axis=1)
    return _Month(line, cells, people, _hidden(line, cells, below))


def _hidden(line: Mapping[Node, int], cells: Ints, below: Mapping[Node, Sequence[Node]]) -> Bools:
    """Say what is hidden where; where nobody was asked about, all of it."""
    came = cells[0].any(axis=1)
    hides = np.repeat(came[:, None], len(GROUPS), axis=1)
    workers = cells[2].tolist()
    crowds_of = {node: workers[number] for node, number in line.items() if came[number]}
    if CITY not in crowds_of:
        return hides
    some = {node: [one for one in each if one in crowds_of] for node, each in below.items()}
    hidden = hidden_below(CITY, some, crowds_of, k=K)
    kinds = {groups: number for number, groups in enumerate(set(hidden.values()))}
    table = np.array([[group in groups for group in _EVERY] for groups in kinds], bool)
    hides[[line[node] for node in hidden]] = table[[kinds[groups] for groups in hidden.values()]]
    return hides


def _cells(
    places: Sequence[uuid.UUID],
    counts: Sequence[bytes],
    sizes: Sequence[bytes | None],
    crowd_of: Mapping[uuid.UUID, Crowd],
) -> Ints:
    """Give visits, persons and distinct workers of what was read, from line 1 on."""
    low, high = OCCUPATION, OCCUPATION + 2 * len(GROUPS)
    lines = len(places) + 1
    table = vectors.summed(counts, range(1, lines), lines, [(low, high)])
    keys, found = table.between(low, high)
    came = np.zeros((2 * len(GROUPS), lines), np.int64)
    came[np.array(keys, np.int64) - low] = found
    each = (
        crowds.sizes(crowd_of[place]) if size is None else size
        for place, size in zip(places, sizes, strict=True)
    )
    workers = crowds.sizes_of([crowds.sizes({}), *each])
    return np.stack([came[0::2].T, came[1::2].T, workers])


def _columns(part: Part, told: _Told) -> Sequence[Column]:
    """Give the columns of a part: a row for each place, slot and group."""
    groups, slots, of = len(GROUPS), part.frame.slots.bases, slice(part.first, part.end)
    visits, persons, workers = told.cells[:, of].reshape(3, -1, groups)
    hidden = told.hides[of].reshape(-1, groups)
    is_told = told.is_told[of].ravel() & part.known.is_told
    is_known = np.repeat(is_told, groups)
    said_known = np.repeat(is_told & ~hidden[:, 0], groups)
    came = np.repeat(visits.sum(axis=1), groups)
    said = came - np.repeat(visits[:, 0], groups)
    is_group = np.tile(np.arange(groups) > 0, len(visits))
    here, is_shown = visits.ravel(), is_known & ~hidden.ravel()

    def by_place(values: Iterable[Any]) -> Column:
        return [value for value in values for _ in range(groups * len(slots))]

    def by_slot(values: Iterable[Any]) -> Column:
        return [value for value in values for _ in range(groups)] * len(part.places)

    return [
        by_place(place.station for place in part.places),
        by_place(place.unit for place in part.places),
        by_place(place.name for place in part.places),
        by_place(place.is_own for place in part.places),
        by_slot(slot.day for slot in slots),
        np.repeat(part.known.shares, groups).tolist(),
        list(GROUPS) * len(visits),
        shown(here, is_shown),
        shown(persons.ravel(), is_shown),
        shown(workers.ravel(), is_shown),
        shown(came, is_known),
        rates(here, came, is_shown),
        shown(said, said_known),
        rates(here, said, is_shown & said_known & is_group),
        hidden.ravel().tolist(),
        [K] * len(is_known),
        by_slot(told.are_lost),
    ]
