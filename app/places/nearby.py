"""Stations near a point: an integer grid with a B-tree, then the exact distance."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import (
    Calendar,
    Kind,
    Mode,
    cells_around,
    distance_m,
    mode_at,
    walking_minutes,
)
from app.places.stations import list_changes, station_rules
from app.places.tables import Station

MAX_RADIUS_M = 20_000
CANDIDATES = 200
"""How many of the nearest are looked at more closely."""

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


async def _nearest(
    tx: AsyncSession,
    *,
    latitude: float,
    longitude: float,
    radius_m: float,
    among: sa.ColumnElement[bool] | None = None,
) -> Sequence[tuple[float, uuid.UUID]]:
    """Give the nearest candidates as (metres, id); reads coordinates only, by index ranges."""
    ranges = [
        Station.cell.between(low, high) for low, high in cells_around(latitude, longitude, radius_m)
    ]
    if not ranges:
        return []
    query = sa.select(Station.id, Station.latitude, Station.longitude).where(
        sa.or_(*ranges), Station.retired_at.is_(None)
    )
    if among is not None:
        query = query.where(among)
    found = []
    for row in await tx.execute(query):
        metres = distance_m(latitude, longitude, row.latitude, row.longitude)
        if metres <= radius_m:
            found.append((metres, row.id))
    found.sort()
    return found[:CANDIDATES]


async def near(
    tx: AsyncSession,
    calendar: Calendar,
    *,
    latitude: float,
    longitude: float,
    radius_m: float,
    at: datetime,
    among: sa.ColumnElement[bool] | None = None,
) -> Sequence[NearStation]:
    """Give stations in use within a radius, nearest first, with their modes: three statements."""
    distances = {
        station_id: metres
        for metres, station_id in await _nearest(
            tx, latitude=latitude, longitude=longitude, radius_m=radius_m, among=among
        )
    }
    if not distances:
        return []
    rows = (await tx.scalars(sa.select(Station).where(Station.id.in_(list(distances))))).all()
    modes = await modes_of(tx, calendar, rows, at=at)
    return [
        near_station(station, modes[station.id], distances[station.id])
        for station in sorted(rows, key=lambda row: (distances[row.id], row.id))
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
    ranges = [
        Station.cell.between(low, high) for low, high in cells_around(latitude, longitude, radius_m)
    ]
    if not ranges:
        return []
    query: sa.Select[Any] = sa.select(Station).where(sa.or_(*ranges), Station.retired_at.is_(None))
    if excluding is not None:
        query = query.where(Station.id != excluding)
    measured = []
    for station in await tx.scalars(query.limit(CANDIDATES * 20)):
        metres = distance_m(latitude, longitude, station.latitude, station.longitude)
        if metres <= radius_m:
            measured.append((metres, station))
    measured.sort(key=lambda pair: (pair[0], pair[1].id))
    candidates = measured[:CANDIDATES]
    modes = await modes_of(tx, calendar, [station for _, station in candidates], at=at)
    usable = (
        near_station(station, modes[station.id], metres)
        for metres, station in candidates
        if modes[station.id].kind in USABLE
    )
    return [found for _, found in zip(range(limit), usable, strict=False)]
