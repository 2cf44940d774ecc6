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


async def outlook(
    tx: AsyncSession,
    place: uuid.UUID,
    calendar: Calendar,
    *,
    timezone: str,
    at: datetime,
    unit_path: str | None = None,
) -> Outlook:
    """Forecast the persons inside a station or unit, from its rollups: a statement, or two."""
    starts = list(_starts(timezone, at))
    today = starts[0].date()
    needed = forecast_days(calendar, today, {start.date() for start in starts})
    shares = None if unit_path is None else await known_shares(tx, unit_path)
    past = Past(await _days(tx, place, needed), shares)
    hours = [_hour(start, today, past, calendar) for start in starts]
    return Outlook(hours, backtest(past, calendar, today))


def _starts(timezone: str, at: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(timezone)
    local = at.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    for number in range(AHEAD):
        # Hours of time, not of the wall clock.
        yield (local.astimezone(UTC) + timedelta(hours=number)).astimezone(zone)


def _hour(start: datetime, today: date, past: Past, calendar: Calendar) -> HourAhead:
    day_class, hour = class_of(start.date(), calendar), start.hour
    like = like_days(day_class, today, calendar)
    series = past.means(like)
    values = known_at([series.get(day) for day in like], hour)
    found = expected(values) if past.is_of_enough(day_class, hour) else None
    share = past.share(day_class, hour)
    begins = start.astimezone(UTC)
    return HourAhead(
        begins,
        begins + timedelta(hours=1),
        day_class,
        found,
        past.why_not(day_class, hour, like) if found is None else None,
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
