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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.places.rules import local_day
from app.places.tables import Station, Unit
from app.reports import crowds, vectors
from app.reports.crowds import Crowd
from app.reports.frame import Frame, PeriodInvalid, Scope, frame, progress
from app.reports.rollup import CITY_ZONE
from app.reports.rows import OccupationsRow
from app.reports.rules import Bucket, By, Grain, Slot, rate, span_end
from app.reports.rules.counters import OCCUPATION, OCCUPATIONS
from app.reports.rules.suppression import K, hidden_below
from app.reports.sums import NAMED
from app.reports.tables import Rollup

NOT_SAID = "not_said"
GROUPS: Sequence[str] = (NOT_SAID, *OCCUPATIONS)
"""By their places in the counters."""
_EVERY = range(len(GROUPS))
_SAID = ("", *OCCUPATIONS)
"""The same, as sets of workers name them."""
CUTS = frozenset({By.STATION, By.UNIT, By.ALL, By.MONTH})
BUCKETS = frozenset({None, Bucket.MONTH})
MOST_PLACES = 20_000

_ROLLUP = table_of(Rollup)


class Node(NamedTuple):
    """A place of the tree: a unit's branch, what a unit keeps itself, or a station."""

    id: uuid.UUID | None
    """None: the city, above every root."""
    is_own: bool = False


CITY = Node(None)


@dataclass(slots=True)
class _Cells:
    """What was counted at a node in a month."""

    visits: list[int]
    persons: list[int]
    crowd: Crowd
    workers: list[int] = field(init=False)
    """Distinct workers, group by group."""

    def __post_init__(self) -> None:
        self.workers = [len(self.crowd.get(name, ())) for name in _SAID]


NOTHING = _Cells([0] * len(GROUPS), [0] * len(GROUPS), {})


@dataclass(frozen=True, slots=True)
class _Tree:
    """The whole city, whoever asks."""

    above: Mapping[Node, Node]
    below: Mapping[Node, Sequence[Node]]
    own: Mapping[uuid.UUID, Sequence[uuid.UUID]]
    """The stations that a unit keeps itself, besides the units below it."""
    zones: Sequence[str]

    def path(self, node: Node) -> Sequence[Node]:
        """Give a node and those above it, from the city down."""
        found = [node]
        while found[-1] in self.above:
            found.append(self.above[found[-1]])
        return found[::-1]

    def at(self, sources: Sequence[uuid.UUID], by: By) -> Node | None:
        """Find the node that is the sum of these places; None: there is none."""
        if len(sources) == 1 and Node(sources[0]) in self.above:
            return Node(sources[0])
        if by is By.UNIT:
            mine = (unit for unit, own in self.own.items() if set(own) == set(sources))
            unit = next(mine, None)
            return None if unit is None else Node(unit, is_own=True)
        roots = {node.id for node in self.below[CITY]}
        return CITY if roots == set(sources) else None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A month of which figures are shown."""

    cells: Mapping[Node, _Cells]
    hidden: Mapping[Node, frozenset[int]]


async def occupations(tx: AsyncSession, scope: Scope) -> Sequence[OccupationsRow]:
    """Count visits, persons and workers by occupation; raises PeriodInvalid."""
    _check(scope)
    made = await frame(tx, scope, most=MOST_PLACES)
    tree = await _read_tree(tx)
    nodes = [tree.at(place.sources, scope.by) for place in made.places]
    wanted = {node for node in nodes if node is not None}
    counted_at = (await progress(tx)).counted_at
    months: dict[date, _Shown] = {}
    for month in (month for base in made.slots.bases for month in _months(base)):
        is_over = counted_at is not None and all(
            span_end(Grain.MONTH, month) <= local_day(min(counted_at, scope.at), zone)
            for zone in tree.zones
        )
        if is_over and month >= scope.retained_since:
            months[month] = await _read_month(tx, month, tree, wanted)
    return await asyncio.to_thread(_all_rows, made, nodes, months)


def _all_rows(
    made: Frame, nodes: Sequence[Node | None], months: Mapping[date, _Shown]
) -> Sequence[OccupationsRow]:
    rows: list[OccupationsRow] = []
    count, bases = made.slots.count, made.slots.bases
    spans = [_months(base) for base in bases]
    known = [[months.get(month) for month in span] for span in spans]
    are_lost = [span[0] < made.scope.retained_since for span in spans]
    for part in made.parts():
        shares = part.known.shares.tolist()
        for row in range(part.rows):
            number, slot = divmod(row, count)
            place, node = part.places[number], nodes[part.first + number]
            names = (place.station, place.unit, place.name, bases[slot].day, shares[row])
            rows += _rows(names, node, known[slot], are_lost[slot])
    return rows


def _check(scope: Scope) -> None:
    """Refuse periods and cuts that would let single workers be told apart."""
    period = scope.period
    if scope.by not in CUTS or scope.bucket not in BUCKETS:
        raise PeriodInvalid(
            "visits by occupation are given by station, unit, all or month, and cut by month only"
        )
    if period.from_day.day != 1 or period.to_day.day != 1:
        raise PeriodInvalid(
            "visits by occupation are given for whole months: from and to are firsts of months"
        )


def _months(base: Slot) -> Sequence[date]:
    return [day for day in base.days if day.day == 1]


async def _read_tree(tx: AsyncSession) -> _Tree:
    units = (await tx.execute(sa.select(Unit.id, Unit.parent_id).order_by(Unit.path))).all()
    c = table_of(Station).c
    stations = (await tx.execute(sa.select(c.id, c.unit_id, c.timezone).order_by(c.code))).all()
    above = {Node(unit.id): Node(unit.parent_id) for unit in units}
    has_units = {unit.parent_id for unit in units}
    own: defaultdict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    zones = {CITY_ZONE}
    for station in stations:
        zones.add(station.timezone)
        above[Node(station.id)] = Node(station.unit_id, is_own=station.unit_id in has_units)
        own[station.unit_id].append(station.id)
    above |= {Node(unit, is_own=True): Node(unit) for unit in own if unit in has_units}
    below: defaultdict[Node, list[Node]] = defaultdict(list)
    for node, parent in above.items():
        below[parent].append(node)
    return _Tree(above, below, own, sorted(zones))


async def _read_month(tx: AsyncSession, month: date, tree: _Tree, wanted: Iterable[Node]) -> _Shown:
    """Read the nodes on the ways to those that are asked for, and all beside them; hide cells."""
    on_the_way = {node: None for one in wanted for node in tree.path(one)[:-1]}
    below = {node: tree.below[node] for node in {CITY: None} | on_the_way}
    nodes = [node for each in below.values() for node in each]
    ids = {
        id
        for node in nodes
        if node.id is not None
        for id in (tree.own[node.id] if node.is_own else [node.id])
    }
    query = sa.select(_ROLLUP.c.place_id, _ROLLUP.c.counts, _ROLLUP.c.crowd).where(
        _ROLLUP.c.grain == Grain.MONTH, _ROLLUP.c.from_day == month
    )
    if len(ids) <= NAMED:
        query = query.where(_ROLLUP.c.place_id.in_(ids))
    read = [row for row in await tx.execute(query) if row.place_id in ids]
    return await asyncio.to_thread(_shown, read, tree, below)


def _shown(read: Sequence[Any], tree: _Tree, below: Mapping[Node, Sequence[Node]]) -> _Shown:
    """Sum up the nodes, and hide cells: of a whole city a second's work, beside the loop."""
    of = dict(zip((row.place_id for row in read), _cells(read), strict=True))
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


def _cells(read: Sequence[Any]) -> Sequence[_Cells]:
    low, high = OCCUPATION, OCCUPATION + 2 * len(GROUPS)
    table = vectors.summed([row.counts for row in read], range(len(read)), len(read), [(low, high)])
    counts = np.stack([table[key] for key in range(low, high)], axis=-1)
    return [
        _Cells(mine[0::2], mine[1::2], {} if row.crowd is None else crowds.unpacked(row.crowd))
        for mine, row in zip(counts.tolist(), read, strict=True)
    ]


def _together(cells: Sequence[_Cells]) -> _Cells:
    if len(cells) == 1:
        return cells[0]
    return _Cells(
        [sum(each) for each in zip(NOTHING.visits, *(one.visits for one in cells), strict=True)],
        [sum(each) for each in zip(NOTHING.persons, *(one.persons for one in cells), strict=True)],
        crowds.union([one.crowd for one in cells]),
    )


def _rows(
    names: tuple[Any, ...], node: Node | None, months: Sequence[_Shown | None], is_lost: bool
) -> Sequence[OccupationsRow]:
    """Give a row for each group: figures where every month is known and shows them."""
    known = [month for month in months if month is not None]
    if len(known) < len(months) or node is None:
        nothing = (None,) * 7
        return [
            OccupationsRow._make((*names, name, *nothing, False, K, is_lost)) for name in GROUPS
        ]
    total = _together([month.cells.get(node, NOTHING) for month in known])
    hidden = {group for month in known for group in month.hidden.get(node, _EVERY)}
    came = sum(total.visits)
    told = None if 0 in hidden else came - total.visits[0]
    found = []
    for group, name in enumerate(GROUPS):
        if group in hidden:
            figures: tuple[Any, ...] = (None, None, None, came, None, told, None)
        else:
            visits = total.visits[group]
            figures = (
                visits,
                total.persons[group],
                total.workers[group],
                came,
                rate(visits, came) if came else None,
                told,
                rate(visits, told) if told and group else None,
            )
        row = (*names, name, *figures, group in hidden, K, is_lost)
        found.append(OccupationsRow._make(row))
    return found
