"""The config that a controller works by until its version changes: everything for 14 days."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.engine import Database
from app.db.gathered import Gathered, padded
from app.doors.registry import doors_of
from app.doors.rules.config import ServerTerms, config_version
from app.doors.tables import Door
from app.places.calendar import CalendarCache
from app.places.facilities import facilities_of
from app.places.rules import Calendar, Window, local_day, mode_windows
from app.places.standing import list_changes, station_rules
from app.places.tables import Facility, ModeChange, Station

HORIZON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a controller needs to know until the version changes."""

    version: str
    station: Station
    doors: Sequence[Door]
    facilities: Sequence[Facility]
    windows: Sequence[Window]
    """Resolved modes, contiguous and half-open, from the last local midnight for 14 days."""
    terms: ServerTerms


def config_desk(
    database: Database, calendar: CalendarCache, now: Now, terms: ServerTerms
) -> Gathered[uuid.UUID, Config]:
    """Make what reads the configs of many stations: after a power cut all ask at once."""

    async def read(stations: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Config]:
        days = (await calendar.fresh(database)).current
        async with database.read() as tx:
            return await configs(tx, stations, days, terms=terms, at=now())

    return Gathered(read, apart_s=0.01)  # Few are in line at a time.


async def configs(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    calendar: Calendar,
    *,
    terms: ServerTerms,
    at: datetime,
) -> Mapping[uuid.UUID, Config]:
    """Give what the controllers of some stations work by.

    The stations are read first: a version that is too old for what it names is asked for again, one
    that is too new would stay.
    """
    keys = padded(station_ids)
    stations = await tx.scalars(sa.select(Station).where(Station.id.in_(keys)))
    found = stations.all()
    changes = await list_changes(tx, keys, at=at, horizon=HORIZON)
    facilities = await facilities_of(tx, keys)
    doors = await doors_of(tx, keys)
    return {
        station.id: _config(
            station,
            changes.get(station.id, ()),
            doors[station.id],
            facilities[station.id],
            calendar,
            terms=terms,
            at=at,
        )
        for station in found
    }


def _config(
    station: Station,
    changes: Sequence[ModeChange],
    doors: Sequence[Door],
    facilities: Sequence[Facility],
    calendar: Calendar,
    *,
    terms: ServerTerms,
    at: datetime,
) -> Config:
    # From midnight, so that one version has one content all day.
    start = datetime.combine(
        local_day(at, station.timezone), time.min, ZoneInfo(station.timezone)
    ).astimezone(UTC)
    return Config(
        version=config_version(station.id, station.config_version, station.timezone, terms, at),
        station=station,
        doors=doors,
        facilities=facilities,
        windows=mode_windows(station_rules(station, changes), calendar, start, start + HORIZON),
        terms=terms,
    )
