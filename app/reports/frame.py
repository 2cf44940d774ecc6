"""Which rows a report has: one for every place and time, whether anything happened there or not.

A figure is about a place (a station, a unit, or all that the administrator sees) and a time (the
period, or each day or hour of it). A row knows how much of its time can be known at all: not what
is to come, not what was before a station was registered or after it was retired (law 16).
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.tables import Station, Unit
from app.reports.rules import Life, Period, known_of
from app.visits.tables import Visit

MOST_ROWS = 200_000
"""How many rows a report may have: every station of the country once."""


class PeriodInvalid(Invalid):
    """The period is not acceptable."""


class By(StrEnum):
    """What a report has one row for."""

    STATION = "station"
    UNIT = "unit"
    DAY = "day"


class Bucket(StrEnum):
    """Into what pieces of time each row is cut."""

    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which stations, which days, as of when."""

    stations: sa.Select[uuid.UUID]
    period: Period
    by: By
    at: datetime
    retained_since: date
    """Before this day visits and scans have lost their workers."""
    bucket: Bucket | None = None

    @property
    def grain(self) -> Bucket | None:
        """The pieces of time; `by=day` is the whole scope by day, or by hour if asked so."""
        return Bucket.DAY if self.by is By.DAY and self.bucket is None else self.bucket

    @property
    def beyond_retention(self) -> bool:
        """Whether a part of the period has lost its workers."""
        return self.period.from_day < self.retained_since


class Key(NamedTuple):
    """What a row is about."""

    place: uuid.UUID | None
    """A station or a unit; None for all of the scope."""
    day: date | None
    hour: int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A row's name, its time, and how much of that time can be known."""

    station: str | None
    unit: str | None
    name: str
    day: date | None
    hour: int | None
    t0: datetime
    t1: datetime
    capacity: int
    known_share: float
    """Of the time of all its stations, the share that has passed while they were registered."""
    known_from: datetime
    known_until: datetime
    seat_seconds: float
    """Seats times the seconds for which they can be known."""

    @property
    def is_known(self) -> bool:
        """Whether there can be any data."""
        return self.known_share > 0


def grouping(scope: Scope, table: Any) -> list[Any]:
    """Give the columns by which rows of a table fall to the rows of the report."""
    columns: list[Any] = []
    if scope.by is By.STATION:
        columns.append(table.station_id.label("place"))
    elif scope.by is By.UNIT:
        columns.append(Station.unit_id.label("place"))
    if scope.grain is not None:
        columns.append(table.local_day.label("day"))
    if scope.grain is Bucket.HOUR:
        columns.append(table.local_hour.label("hour"))
    return columns


def key_of(row: Any) -> Key:
    """Say to which row of the report a grouped row belongs."""
    found = row._mapping
    return Key(found.get("place"), found.get("day"), found.get("hour"))


def within(scope: Scope, table: Any) -> tuple[sa.ColumnElement[bool], ...]:
    """Say which rows of a table lie in scope and period; visits that never were do not."""
    that_were = (table.voided_at.is_(None),) if table is Visit else ()
    return (
        table.station_id.in_(scope.stations),
        table.local_day >= scope.period.from_day,
        table.local_day < scope.period.to_day,
        *that_were,
    )


def selected(scope: Scope, table: Any, *columns: Any) -> sa.Select[*tuple[Any, ...]]:
    """Select columns of a table's rows within scope and period, each with its key."""
    return (
        sa.select(*grouping(scope, table), *columns)
        .select_from(table)
        .join(Station, Station.id == table.station_id)
        .where(*within(scope, table))
    )


def grouped(scope: Scope, table: Any, *aggregates: Any) -> sa.Select[*tuple[Any, ...]]:
    """Select aggregates of a table's rows within scope and period, per key."""
    return selected(scope, table, *aggregates).group_by(
        *(column.element for column in grouping(scope, table))
    )


@dataclass(slots=True)
class _Place:
    station: str | None
    unit: str | None
    name: str
    timezone: str
    """That of its first station; a unit's days are not cut in two zones."""
    capacity: int
    lives: Counter[Life]
    """How many seats lived when; clipped to the period, so that most stations share one."""
    count: Counter[Life]


async def cells(tx: AsyncSession, scope: Scope) -> Mapping[Key, Cell]:
    """Give every row the report must have; raises PeriodInvalid."""
    places = await _places(tx, scope)
    slots = len(scope.period.days) * {None: 0, Bucket.DAY: 1, Bucket.HOUR: 24}[scope.grain] or 1
    if len(places) * slots > MOST_ROWS:
        raise PeriodInvalid(
            f"the report would have more than {MOST_ROWS} rows; "
            "ask for fewer days, fewer stations or a coarser bucket"
        )
    return {
        Key(place_id, day, hour): _cell(place, day, hour, t0, t1)
        for place_id, place in places.items()
        for day, hour, t0, t1 in _slots(scope, place.timezone)
    }


async def _places(tx: AsyncSession, scope: Scope) -> Mapping[uuid.UUID | None, _Place]:
    rows = await tx.execute(
        sa.select(
            Station.id,
            Station.code,
            Station.name,
            Station.timezone,
            Station.capacity,
            Station.created_at,
            Station.retired_at,
            Station.unit_id,
            Unit.name.label("unit_name"),
        )
        .join(Unit, Unit.id == Station.unit_id)
        .where(Station.id.in_(scope.stations))
        .order_by(Station.code)
    )
    places: dict[uuid.UUID | None, _Place] = {}
    for row in rows:
        place_id, names = _named(scope.by, row)
        place = places.get(place_id)
        if place is None:
            place = _Place(*names, row.timezone, 0, Counter(), Counter())
            places[place_id] = place
        start, end = scope.period.instants(place.timezone)
        life = Life(max(row.created_at, start), min(row.retired_at or scope.at, scope.at, end))
        place.capacity += row.capacity
        place.lives[life] += row.capacity
        place.count[life] += 1
    if scope.by is By.DAY and not places:
        places[None] = _Place(None, None, ALL, "Asia/Shanghai", 0, Counter(), Counter())
    return places


ALL = "全部"
"""The name of a row about all stations of the scope."""


def _named(by: By, row: Any) -> tuple[uuid.UUID | None, tuple[str | None, str | None, str]]:
    match by:
        case By.STATION:
            return row.id, (row.code, None, row.name)
        case By.UNIT:
            return row.unit_id, (None, str(row.unit_id), row.unit_name)
        case By.DAY:
            return None, (None, None, ALL)


def _slots(scope: Scope, timezone: str) -> list[tuple[date | None, int | None, datetime, datetime]]:
    """Cut the period into the pieces of time that rows are for."""
    if scope.grain is None:
        return [(None, None, *scope.period.instants(timezone))]
    if scope.grain is Bucket.DAY:
        return [
            (day, None, *Period(day, day + timedelta(days=1)).instants(timezone))
            for day in scope.period.days
        ]
    zone = ZoneInfo(timezone)
    return [
        (day, hour, _hour(day, hour, zone), _hour(day, hour + 1, zone))
        for day in scope.period.days
        for hour in range(24)
    ]


def _hour(day: date, hour: int, zone: ZoneInfo) -> datetime:
    days, hour = divmod(hour, 24)
    return datetime.combine(day + timedelta(days=days), time(hour), zone).astimezone(UTC)


def _cell(place: _Place, day: date | None, hour: int | None, t0: datetime, t1: datetime) -> Cell:
    share, known_from, known_until = known_of(place.count, t0, t1)
    seats = sum(life.seconds_in(t0, t1) * seats for life, seats in place.lives.items())
    return Cell(
        station=place.station,
        unit=place.unit,
        name=place.name,
        day=day,
        hour=hour,
        t0=t0,
        t1=t1,
        capacity=place.capacity,
        known_share=share,
        known_from=known_from,
        known_until=known_until,
        seat_seconds=seats,
    )
