"""Forecasts for the next 24 hours of a station or a unit, with how good they were lately."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.nearby import USABLE
from app.places.rules import CITY_ZONE, Calendar, mode_windows
from app.places.standing import list_changes, station_rules
from app.places.tables import Station, Unit
from app.reports.rules import Grain
from app.reports.tables import Rollup
from app.usual.profiles import hours_of, known_shares
from app.usual.rules import (
    Expected,
    HourOf,
    Past,
    Skill,
    Unexpected,
    UsualClass,
    backtest,
    class_of,
    expected,
    forecast_days,
    known_at,
    like_days,
)

AHEAD = 24
"""Hours that are forecast; the first of them has begun."""
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HourAhead:
    """What is to be expected in an hour."""

    from_at: datetime
    until_at: datetime
    day_class: UsualClass
    expected: Expected | None
    unexpected_because: Unexpected | None
    """Why nothing is; None where something is."""
    values: int
    """So many days stand behind it."""
    stations_share: float | None
    """Of a unit: the share of its stations of which it is known what is usual then."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected at a place, and how far such forecasts were off."""

    hours: Sequence[HourAhead]
    skill: Skill


async def of_station(
    tx: AsyncSession, station: Station, calendar: Calendar, *, at: datetime
) -> Outlook:
    """Forecast the persons inside a station, from its rollups and hours: two statements."""
    starts = list(_starts(station.timezone, at))
    changes = await list_changes(tx, [station.id], at=starts[0], horizon=AHEAD * _HOUR)
    rules = station_rules(station, changes.get(station.id, ()))
    since, until = starts[0].astimezone(UTC), starts[-1].astimezone(UTC) + _HOUR
    is_open = [
        (one.from_at, one.until_at)
        for one in mode_windows(rules, calendar, since, until)
        if one.kind in USABLE and station.retired_at is None
    ]
    closed = {
        start
        for start in starts
        if not any(begins < start + _HOUR and start < ends for begins, ends in is_open)
    }
    return await _outlook(tx, station.id, calendar, starts, None, closed)


async def of_unit(tx: AsyncSession, unit: Unit, calendar: Calendar, *, at: datetime) -> Outlook:
    """Forecast the persons inside all stations of a unit's branch: two statements."""
    shares = await known_shares(tx, unit.path)
    return await _outlook(tx, unit.id, calendar, list(_starts(CITY_ZONE, at)), shares, set())


async def _outlook(
    tx: AsyncSession,
    place: uuid.UUID,
    calendar: Calendar,
    starts: Sequence[datetime],
    shares: Mapping[UsualClass, Sequence[float]] | None,
    closed: Collection[datetime],
) -> Outlook:
    today = starts[0].date()
    needed = forecast_days(calendar, today, {start.date() for start in starts})
    past = Past(await _days(tx, place, needed), shares)
    hours = [_hour(start, today, past, calendar, start in closed) for start in starts]
    return Outlook(hours, backtest(past, calendar, today))


def _starts(timezone: str, at: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(timezone)
    local = at.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    for number in range(AHEAD):
        # Hours of time, not of the wall clock.
        yield (local.astimezone(UTC) + number * _HOUR).astimezone(zone)


def _hour(
    start: datetime, today: date, past: Past, calendar: Calendar, is_closed: bool
) -> HourAhead:
    day_class, hour = class_of(start.date(), calendar), start.hour
    like = like_days(day_class, today, calendar)
    series = past.means(like)
    values = known_at([series.get(day) for day in like], hour)
    is_told = past.is_of_enough(day_class, hour) and not is_closed
    found = expected(values) if is_told else None
    why_not = Unexpected.CLOSED if is_closed else past.why_not(day_class, hour, like)
    share = past.share(day_class, hour)
    begins = start.astimezone(UTC)
    return HourAhead(
        begins,
        begins + _HOUR,
        day_class,
        found,
        why_not if found is None else None,
        len(values),
        None if share is None else round(share, 4),
    )


async def _days(
    tx: AsyncSession, place: uuid.UUID, days: set[date]
) -> Mapping[date, Sequence[HourOf]]:
    rows = (
        await tx.execute(
            sa.select(Rollup.from_day, Rollup.hours).where(
                Rollup.place_id == place, Rollup.grain == Grain.DAY, Rollup.from_day.in_(days)
            )
        )
    ).all()
    hours = hours_of([row.hours for row in rows])
    return {row.from_day: one for row, one in zip(rows, hours, strict=True)}
