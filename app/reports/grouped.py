"""Which places a report has rows for: stations, units, models, or all of them; and when they lived.

Stations are grouped in the database, where they lie: a report by unit reads no station.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import Instant, table_of
from app.places.rules import CITY_ZONE
from app.places.tables import OperatingModel, Station, Unit
from app.reports.columns import Ints
from app.reports.rules import Branch, By, branches, roots_of
from app.reports.rules.day import ms_of
from app.reports.scope import Scope
from app.reports.tables import CITY

ALL = "全部"
"""The name of a row about all stations of the scope."""
OWN = "（本级）"
"""What is added to the name of a unit where its row is of what it keeps itself, beside branches."""


class Place(NamedTuple):
    """What a row is about, besides its time."""

    id: uuid.UUID | None
    """A station's or a unit's; None for any other."""
    station: str | None
    unit: str | None
    name: str
    is_own: bool | None
    """Of a unit: whether it is only of what hangs on it directly. None: it is not about one."""
    operating_model: str | None
    timezone: str
    """The first of its stations' zones, by name."""
    capacity: int
    sources: Sequence[uuid.UUID]
    """The stations and units whose rollups are summed: as few as there are."""

    @property
    def key(self) -> tuple[str | None, str | None, str | None]:
        """Which place it is, in whatever period."""
        return self.station, self.unit, self.operating_model


@dataclass(frozen=True, slots=True)
class Lives:
    """During which time so many stations can have data; milliseconds, one line each."""

    place: Ints
    zone: Ints
    since: Ints
    until: Ints
    stations: Ints


@dataclass(slots=True)
class Groups:
    """The places of a report, while they are found."""

    places: list[Place] = field(default_factory=list)
    lives: Lives = field(default_factory=lambda: Lives(*np.empty((5, 0), np.int64)))
    zones: dict[str, int] = field(default_factory=dict)
    branches: Mapping[uuid.UUID, Branch] = field(default_factory=dict)
    roots: Sequence[uuid.UUID] = ()
    """Where rows are branches, the roots of these."""

    def zone(self, timezone: str) -> int:
        return self.zones.setdefault(timezone, len(self.zones))


async def grouped(
    tx: AsyncSession, scope: Scope, until: datetime, gone: Sequence[uuid.UUID] = ()
) -> Groups:
    """Find the places, and when they lived; time after `until` is not known yet.

    Of stations that are gone nothing is counted, neither their time nor their seats.
    """
    if scope.by is By.STATION:
        return await _stations(tx, scope, until)
    return await _groups(tx, scope, until, gone)


async def _stations(tx: AsyncSession, scope: Scope, until: datetime) -> Groups:
    found = Groups()
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
    places = zip(ids, codes, none, names, none, none, timezones, capacities, zip(ids), strict=False)
    found.places = list(map(Place._make, places))
    return found


async def _groups(
    tx: AsyncSession, scope: Scope, until: datetime, gone: Sequence[uuid.UUID]
) -> Groups:
    """Group the stations where they lie: most of them have lived through all of the period."""
    rows = (await tx.execute(_lived(scope, until, gone))).all()
    tree = await read_tree(tx, scope, {row.key for row in rows})
    found = Groups(branches=tree.branches, roots=tree.roots)
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
    is_beside = any(isinstance(group, Branch) and not group.is_own for group in groups)
    for group, of in groups.items():
        unit = group.unit if isinstance(group, Branch) else None
        found.places.append(
            Place(
                unit,
                None,
                None if unit is None else str(unit),
                _name(group, tree, is_beside=is_beside),
                group.is_own if isinstance(group, Branch) else None,
                group.value if isinstance(group, OperatingModel) else None,
                min((row.timezone for row in of), default=CITY_ZONE),
                sum(row.seats for row in of),
                sources.get(group, ()),
            )
        )
    return found


def _lived(scope: Scope, until: datetime, gone: Sequence[uuid.UUID]) -> sa.Select[Any]:
    """Select how many stations of each group lived how long, in the order of their codes."""
    start = datetime.combine(scope.period.from_day, time(), UTC) - timedelta(days=1)
    since = sa.case(
        (Station.created_at < start, sa.literal(start, Instant())), else_=Station.created_at
    )
    ended = sa.case(
        (Station.retired_at < until, Station.retired_at), else_=sa.literal(until, Instant())
    )
    counts: Any = sa.case((Station.id.in_(gone), 0), else_=1) if gone else sa.literal(1)
    each = (
        sa.select(
            key_of(scope.by).label("key"),
            Station.timezone,
            since.label("since"),
            ended.label("ended"),
            counts.label("counts"),
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
            sa.func.sum(each.c.counts).label("stations"),
            sa.func.sum(each.c.counts * each.c.capacity).label("seats"),
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
    roots: Sequence[uuid.UUID] = ()
    """Below which the rows are, where they are branches."""

    def group_of(self, key: Any) -> Any:
        """Say to which row a station belongs, by its key."""
        return self.branches.get(key, key)

    def of_row(self, unit: uuid.UUID | None) -> Sequence[uuid.UUID]:
        """Give the units whose stations belong to a unit's row."""
        return [id for id, branch in self.branches.items() if branch.unit == unit]


async def read_tree(tx: AsyncSession, scope: Scope, homes: Collection[Any] = ()) -> Tree:
    """Read the units, if rows are units; `homes` are those of the stations that are told of."""
    if not scope.by.is_unit:
        return Tree()
    # Thousands of rows as the driver gives them, not the session's.
    query = sa.select(Unit.id, Unit.parent_id, Unit.name)
    rows = (await (await tx.connection()).execute(query)).all()
    above = {row.id: row.parent_id for row in rows}
    roots: Sequence[uuid.UUID] = ()
    if scope.by is By.BRANCH:
        roots = scope.told_roots or roots_of(above, scope.roots.units, homes)
    return Tree(
        names={row.id: row.name for row in rows},
        branches=branches(above, roots),
        parents=frozenset(above.values()),
        roots=roots,
    )


def _name(group: Any, tree: Tree, *, is_beside: bool) -> str:
    if isinstance(group, OperatingModel):
        return group.value
    if not isinstance(group, Branch):
        return ALL
    # Beside rows of whole branches, that of what the unit above them keeps itself must say so.
    return tree.names[group.unit] + (OWN if group.is_own and is_beside else "")


async def _sources(
    tx: AsyncSession, scope: Scope, groups: Collection[Any], tree: Tree
) -> Mapping[Any, Sequence[uuid.UUID]]:
    """Say what must be summed for each group: a unit itself, if nothing else is counted in it."""
    if scope.by not in _KEYS:
        roots = scope.roots
        return {None: [CITY] if roots.is_city else [*roots.units, *roots.stations]}
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
