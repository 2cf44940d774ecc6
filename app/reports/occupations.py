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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station, Unit
from app.reports import crowds, vectors
from app.reports.columns import Column, rates, shown
from app.reports.crowds import Crowd
from app.reports.frame import Frame, Part, PeriodInvalid, Place, Scope, frame, progress
from app.reports.rows import OccupationsRow
from app.reports.rules import Bucket, By, Grain, Slot, span_end
from app.reports.rules.counters import OCCUPATION, OCCUPATIONS
from app.reports.rules.suppression import K, hidden_below
from app.reports.sums import NAMED
from app.reports.tables import Rollup

NOT_SAID = "not_said"
GROUPS: Sequence[str] = (NOT_SAID, *OCCUPATIONS)
"""By their places in the counters."""
_EVERY = range(len(GROUPS))
CUTS = frozenset({By.STATION, By.UNIT, By.BRANCH, By.ALL, By.MONTH})
BUCKETS = frozenset({None, Bucket.MONTH})
MOST_PLACES = 20_000

_ROLLUP = table_of(Rollup)


class Node(NamedTuple):
    """A place of the tree: a unit's branch, what a unit keeps itself, or a station."""

    id: uuid.UUID | None
    """None: the city, above every root."""
    is_own: bool = False


CITY = Node(None)


class _Cells(NamedTuple):
    """What was counted at a node in a month, group by group."""

    visits: Sequence[int]
    persons: Sequence[int]
    workers: Sequence[int]
    """Distinct."""
    crowd: Crowd | None
    """Them themselves, where they are put together with others."""

    @property
    def people(self) -> Crowd:
        """Give them themselves; only where they were read."""
        assert self.crowd is not None
        return self.crowd


NOTHING = _Cells([0] * len(GROUPS), [0] * len(GROUPS), [0] * len(GROUPS), {})


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
        return CITY if roots == set(place.sources) else None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A month of which figures are shown."""

    cells: Mapping[Node, _Cells]
    hidden: Mapping[Node, frozenset[int]]

    def hidden_at(self, node: Node) -> Collection[int]:
        """Say which groups are hidden at a node.

        Where nobody came none is: that all visits are nought is published, and so what each is.
        """
        if not sum(self.cells.get(node, NOTHING).visits):
            return ()
        return self.hidden.get(node, _EVERY)


async def occupations(tx: AsyncSession, scope: Scope) -> Sequence[OccupationsRow]:
    """Count visits, persons and workers by occupation; raises PeriodInvalid."""
    return list(map(OccupationsRow._make, zip(*await columns(tx, scope), strict=True)))


async def columns(tx: AsyncSession, scope: Scope) -> Sequence[Column]:
    """Count the same by columns; raises PeriodInvalid."""
    _check(scope)
    made = await frame(tx, scope, most=MOST_PLACES)
    tree = await _read_tree(tx, scope)
    nodes = [tree.at(place) for place in made.places]
    wanted = {node for node in nodes if node is not None}
    counted_at = (await progress(tx)).counted_at
    spans = [_months(base) for base in made.slots.bases]
    together = wanted if any(len(span) > 1 for span in spans) else ()
    told = []
    if counted_at is not None:
        today = min(local_day(min(counted_at, scope.at), zone) for zone in tree.zones)
        kept = (month for span in spans for month in span if month >= scope.retained_since)
        told = [month for month in kept if span_end(Grain.MONTH, month) <= today]
    months = await _read_months(tx, told, tree, wanted, together=together) if told else {}
    return await asyncio.to_thread(_all_columns, made, nodes, spans, months)


def _all_columns(
    made: Frame,
    nodes: Sequence[Node | None],
    spans: Sequence[Sequence[date]],
    months: Mapping[date, _Shown],
) -> Sequence[Column]:
    found: list[list[Any]] = [[] for _ in OccupationsRow._fields]
    known = [[months.get(month) for month in span] for span in spans]
    are_lost = [span[0] < made.scope.retained_since for span in spans]
    for part in made.parts():
        mine = nodes[part.first : part.end]
        told = [_told(node, shown) for node in mine for shown in known]
        for column, values in zip(found, _columns(part, told, are_lost), strict=True):
            column += values
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
) -> Mapping[date, _Shown]:
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
    c = _ROLLUP.c
    needs_set = sa.or_(c.place_id.in_(sets), c.occupations.is_(None))
    crowd = c.crowd if len(sets) > NAMED else sa.case((needs_set, c.crowd))
    above = {node.id for node in below if node.id is not None}
    ways = (
        sa.select(Unit.id).where(sa.or_(Unit.parent_id.in_(above), Unit.parent_id.is_(None))),
        sa.select(Station.id).where(Station.unit_id.in_(above)),
    )
    # Thousands of rows as the driver gives them, not the session's.
    connection = await tx.connection()
    read: dict[date, list[Any]] = {month: [] for month in months}
    for way in ways:
        query = sa.select(c.place_id, c.from_day, c.counts, c.occupations, crowd.label("crowd"))
        mine = c.grain == Grain.MONTH, c.from_day.in_(months), c.place_id.in_(way)
        for row in await connection.execute(query.where(*mine)):
            read[row.from_day].append(row)
    return {
        month: await asyncio.to_thread(_shown, rows, sets, tree, below)
        for month, rows in read.items()
    }


def _shown(
    read: Sequence[Any],
    sets: Collection[uuid.UUID],
    tree: _Tree,
    below: Mapping[Node, Sequence[Node]],
) -> _Shown:
    """Sum up the nodes, and hide cells: of a whole city a second's work, beside the loop."""
    of = dict(zip((row.place_id for row in read), _cells(read, sets), strict=True))
    cells: dict[Node, _Cells] = {}
    for node in (node for each in below.values() for node in each):
        if node.id is not None and node.is_own:
            cells[node] = _together([of[id] for id in tree.own[node.id] if id in of])
        elif node.id is not None:
            cells[node] = of.get(node.id, NOTHING)
    cells[CITY] = _together([cells[node] for node in below[CITY]])
    came = {node for node in cells if sum(cells[node].visits)}
    if CITY not in came:
        return _Shown(cells, {})
    crowds_of = {node: cells[node].workers for node in came}
    some = {node: [one for one in each if one in came] for node, each in below.items()}
    return _Shown(cells, hidden_below(CITY, some, crowds_of, k=K))


def _cells(read: Sequence[Any], sets: Collection[uuid.UUID]) -> Sequence[_Cells]:
    low, high = OCCUPATION, OCCUPATION + 2 * len(GROUPS)
    table = vectors.summed([row.counts for row in read], range(len(read)), len(read), [(low, high)])
    visits, persons = (
        np.stack([table[key] for key in range(first, high, 2)], axis=-1).tolist()
        for first in (low, low + 1)
    )
    people = [
        crowds.unpacked(row.crowd or b"")
        if row.place_id in sets or row.occupations is None
        else None
        for row in read
    ]
    sizes = [
        crowds.sizes(crowd or {}) if row.occupations is None else row.occupations
        for row, crowd in zip(read, people, strict=True)
    ]
    return list(map(_Cells, visits, persons, crowds.sizes_of(sizes), people))


def _together(cells: Sequence[_Cells]) -> _Cells:
    if len(cells) == 1:
        return cells[0]
    crowd = crowds.union([one.people for one in cells])
    return _Cells(
        [sum(each) for each in zip(NOTHING.visits, *(one.visits for one in cells), strict=True)],
        [sum(each) for each in zip(NOTHING.persons, *(one.persons for one in cells), strict=True)],
        crowds.sizes_of([crowds.sizes(crowd)])[0],
        crowd,
    )


def _told(
    node: Node | None, months: Sequence[_Shown | None]
) -> tuple[_Cells, frozenset[int]] | None:
    """Give what was counted, and which groups are hidden; None unless every month is known."""
    known = [month for month in months if month is not None]
    if len(known) < len(months) or node is None:
        return None
    hidden = [month.hidden_at(node) for month in known]
    return _together([month.cells.get(node, NOTHING) for month in known]), frozenset().union(
        *hidden
    )


def _columns(
    part: Part, told: Sequence[tuple[_Cells, frozenset[int]] | None], are_lost: Sequence[bool]
) -> Sequence[Column]:
    """Give the columns of a part: a row for each place, slot and group."""
    groups, slots = len(GROUPS), part.frame.slots.bases
    cells = [NOTHING if one is None else one[0] for one in told]
    visits = np.array([one.visits for one in cells], np.int64).reshape(-1, groups)
    persons = np.array([one.persons for one in cells], np.int64).ravel()
    workers = np.array([one.workers for one in cells], np.int64).ravel()
    hides = np.zeros((len(told), groups), np.bool_)
    for row, one in enumerate(told):
        if one is not None and one[1]:
            hides[row, list(one[1])] = True
    row_known = np.array([one is not None for one in told], np.bool_)
    is_known, said_known = np.repeat(row_known, groups), np.repeat(row_known & ~hides[:, 0], groups)
    came = np.repeat(visits.sum(axis=1), groups)
    said = came - np.repeat(visits[:, 0], groups)
    is_group = np.tile(np.arange(groups) > 0, len(told))
    here, is_shown = visits.ravel(), is_known & ~hides.ravel()

    def by_place(values: Iterable[Any]) -> Column:
        return [value for value in values for _ in range(groups * len(slots))]

    def by_slot(values: Iterable[Any]) -> Column:
        return [value for value in values for _ in range(groups)] * len(part.places)

    return [
        by_place(place.station for place in part.places),
        by_place(place.unit for place in part.places),
        by_place(place.name for place in part.places),
        by_slot(slot.day for slot in slots),
        np.repeat(part.known.shares, groups).tolist(),
        list(GROUPS) * len(told),
        shown(here, is_shown),
        shown(persons, is_shown),
        shown(workers, is_shown),
        shown(came, is_known),
        rates(here, came, is_shown),
        shown(said, said_known),
        rates(here, said, is_shown & said_known & is_group),
        hides.ravel().tolist(),
        [K] * len(is_known),
        by_slot(are_lost),
    ]
