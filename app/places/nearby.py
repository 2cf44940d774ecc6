"""Stations near a point: an integer grid with a B-tree, then the exact distance."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.places.rules import (
    Calendar,
    Kind,
    Mode,
    cells_around,
    distance_m,
    mode_at,
    walking_minutes,
)
from app.places.standing import list_changes, station_rules
from app.places.tables import ModeChange, Station

MAX_RADIUS_M = 20_000
MOMENT = timedelta(seconds=1)
"""How far a mode is looked ahead when only what holds now is asked."""

CHANGE = ("kind", "tier", "from_at", "until_at", "created_at")
"""What a mode needs of a change of mode."""

USABLE = (Kind.FREE, Kind.SCAN)
"""Modes in which a worker gets in."""


@dataclass(frozen=True, slots=True)
class NearStation:
    """A station near a point, as of an instant."""

    id: uuid.UUID
    code: str
    name: str
    address: str
    latitude: float
    longitude: float
    distance_m: int
    walking_minutes: int
    mode: Mode
    station: Station


@dataclass(frozen=True, slots=True)
class Hit:
    """A station within the radius, nearest first by what stands here."""

    metres: float
    id: uuid.UUID


async def _within(
    tx: AsyncSession,
    calendar: Calendar,
    *,
    latitude: float,
    longitude: float,
    radius_m: float,
    at: datetime,
    usable: bool,
    among: sa.ColumnElement[bool] | None = None,
) -> list[Hit]:
    """Give every station within a radius, nearest first, by index ranges, in one statement.

    `usable` looks at the hours of each before any is left out: at night most of the nearest are
    closed, and the one that is open must not be lost behind them.
    """
    ranges = [
        Station.cell.between(low, high) for low, high in cells_around(latitude, longitude, radius_m)
    ]
    if not ranges:
        return []
    columns: list[Any] = [Station.id, Station.latitude, Station.longitude]
    if usable:
        columns += [Station.timezone, Station.staffed_hours, Station.access_hours]
        columns += [getattr(ModeChange, name) for name in CHANGE]
    query = sa.select(*columns).where(sa.or_(*ranges), Station.retired_at.is_(None))
    if usable:
        query = query.outerjoin(
            ModeChange,
            sa.and_(
                ModeChange.station_id == Station.id,
                ModeChange.retired_at.is_(None),
                ModeChange.from_at <= at,
                ModeChange.until_at > at,
            ),
        )
    if among is not None:
        query = query.where(among)
    rows: dict[uuid.UUID, list[Any]] = {}
    for row in await tx.execute(query):
        rows.setdefault(row.id, []).append(row)
    found = []
    for station_id, same in rows.items():
        metres = distance_m(latitude, longitude, same[0].latitude, same[0].longitude)
        if metres <= radius_m and (not usable or _is_usable(same, calendar, at)):
            found.append(Hit(metres, station_id))
    found.sort(key=lambda hit: (hit.metres, hit.id))
    return found


def _is_usable(rows: Sequence[Any], calendar: Calendar, at: datetime) -> bool:
    rules = station_rules(rows[0], [row for row in rows if row.kind is not None])
    return mode_at(rules, calendar, at, horizon=MOMENT).kind in USABLE


async def near(
    tx: AsyncSession,
    calendar: Calendar,
    *,
    latitude: float,
    longitude: float,
    radius_m: float,
    at: datetime,
    request: PageRequest,
    usable: bool = False,
    among: sa.ColumnElement[bool] | None = None,
) -> PageOf[NearStation]:
    """Give stations in use within a radius, nearest first, with their modes: three statements.

    Raises CursorInvalid.
    """
    hits = await _within(
        tx,
        calendar,
        latitude=latitude,
        longitude=longitude,
        radius_m=radius_m,
        at=at,
        usable=usable,
        among=among,
    )
    page = cursors.page_of(hits, request, key=lambda hit: (hit.metres, str(hit.id)))
    return PageOf(await _described(tx, calendar, page.rows, at=at), page.next)


async def _described(
    tx: AsyncSession, calendar: Calendar, hits: Sequence[Hit], *, at: datetime
) -> list[NearStation]:
    if not hits:
        return []
    metres = {hit.id: hit.metres for hit in hits}
    rows = (await tx.scalars(sa.select(Station).where(Station.id.in_(list(metres))))).all()
    modes = await modes_of(tx, calendar, rows, at=at)
    return [
        near_station(station, modes[station.id], metres[station.id])
        for station in sorted(rows, key=lambda row: (metres[row.id], row.id))
    ]


def near_station(station: Station, mode: Mode, metres: float) -> NearStation:
    """Put a station, its mode and its distance together."""
    return NearStation(
        id=station.id,
        code=station.code,
        name=station.name,
        address=station.address,
        latitude=station.latitude,
        longitude=station.longitude,
        distance_m=round(metres),
        walking_minutes=walking_minutes(metres),
        mode=mode,
        station=station,
    )


async def modes_of(
    tx: AsyncSession, calendar: Calendar, stations: Sequence[Station], *, at: datetime
) -> dict[uuid.UUID, Mode]:
    """Say what holds at each of these stations: one statement for all."""
    changes = await list_changes(tx, [station.id for station in stations], at=at)
    return {
        station.id: mode_at(station_rules(station, changes.get(station.id, ())), calendar, at)
        for station in stations
    }


async def usable_near(
    tx: AsyncSession,
    calendar: Calendar,
    *,
    latitude: float,
    longitude: float,
    radius_m: float,
    at: datetime,
    limit: int,
    excluding: uuid.UUID | None = None,
) -> Sequence[NearStation]:
    """Give the nearest stations that a worker can get into now: two statements (law 7)."""
    hits = await _within(
        tx,
        calendar,
        latitude=latitude,
        longitude=longitude,
        radius_m=radius_m,
        at=at,
        usable=True,
        among=Station.id != excluding if excluding is not None else None,
    )
    chosen = {hit.id: hit.metres for hit in hits[:limit]}
    if not chosen:
        return []
    rows = await tx.execute(
        sa.select(Station, *(getattr(ModeChange, name) for name in CHANGE))
        .outerjoin(
            ModeChange,
            sa.and_(
                ModeChange.station_id == Station.id,
                ModeChange.retired_at.is_(None),
                ModeChange.until_at > at,
            ),
        )
        .where(Station.id.in_(list(chosen)))
    )
    together: dict[uuid.UUID, list[Any]] = {}
    for row in rows:
        together.setdefault(row.Station.id, []).append(row)
    found = []
    for station_id, metres in chosen.items():
        same = together[station_id]
        rules = station_rules(same[0].Station, [row for row in same if row.kind is not None])
        found.append(near_station(same[0].Station, mode_at(rules, calendar, at), metres))
    return found
