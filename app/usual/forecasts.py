"""Forecasts for the next 24 hours of a station or a unit, with how good they were lately."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import Calendar
from app.reports.rules import Grain
from app.reports.tables import Rollup
from app.usual.profiles import means_of
from app.usual.rules import (
    Expected,
    Means,
    Skill,
    UsualClass,
    backtest,
    class_of,
    expected,
    forecast_days,
    hour_means,
    known_at,
    like_days,
)

AHEAD = 24
"""Hours that are forecast; the first of them has begun."""


@dataclass(frozen=True, slots=True)
class HourAhead:
    """What is to be expected in an hour."""

    from_at: datetime
    until_at: datetime
    day_class: UsualClass
    expected: Expected | None
    values: int
    """So many days stand behind it."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected at a place, and how far such forecasts were off."""

    hours: Sequence[HourAhead]
    skill: Skill


async def outlook(
    tx: AsyncSession, place: uuid.UUID, calendar: Calendar, *, timezone: str, at: datetime
) -> Outlook:
    """Forecast the persons inside a station or unit, from its rollups: one statement."""
    starts = list(_starts(timezone, at))
    today = starts[0].date()
    needed = forecast_days(calendar, today, {start.date() for start in starts})
    series = await _series(tx, place, needed)
    hours = [_hour(start, today, series, calendar) for start in starts]
    return Outlook(hours, backtest(series, calendar, today))


def _starts(timezone: str, at: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(timezone)
    local = at.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    for number in range(AHEAD):
        # Hours of time, not of the wall clock.
        yield (local.astimezone(UTC) + timedelta(hours=number)).astimezone(zone)


def _hour(
    start: datetime, today: date, series: Mapping[date, Means], calendar: Calendar
) -> HourAhead:
    day_class = class_of(start.date(), calendar)
    like = [series.get(day) for day in like_days(day_class, today, calendar)]
    values = known_at(like, start.hour)
    begins = start.astimezone(UTC)
    return HourAhead(begins, begins + timedelta(hours=1), day_class, expected(values), len(values))


async def _series(tx: AsyncSession, place: uuid.UUID, days: set[date]) -> Mapping[date, Means]:
    rows = (
        await tx.execute(
            sa.select(Rollup.from_day, Rollup.hours).where(
                Rollup.place_id == place, Rollup.grain == Grain.DAY, Rollup.from_day.in_(days)
            )
        )
    ).all()
    means = means_of([row.hours for row in rows])
    return {row.from_day: hour_means(one) for row, one in zip(rows, means, strict=True)}
