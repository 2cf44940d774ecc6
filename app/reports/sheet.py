"""The monthly sheet of one station: what it gathers, as plain figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.people.admins import Roots
from app.places.rules import local_day
from app.places.tables import Station, Unit
from app.reports import queries
from app.reports.frame import PeriodInvalid, Scope
from app.reports.rows import VisitsRow
from app.reports.rules import Bucket, By, Completeness, Period, completeness, rate


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the month beside the month before; None: it cannot be known."""

    name: str
    now: float | None
    before: float | None
    is_share: bool = False


@dataclass(frozen=True, slots=True)
class DayBar:
    """The visits of one day; None where the day is still to come or was not recorded."""

    day: int
    staffed: int | None
    """While staff were there."""
    unstaffed: int | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything on one sheet."""

    code: str
    name: str
    unit: str
    address: str
    capacity: int
    year: int
    month: int
    figures: Sequence[Figure]
    days: Sequence[DayBar]
    hours: Sequence[float | None]
    """Visits by hour of the day, the mean of a day, 24 of them."""
    inside: Sequence[float | None]
    """Persons inside by hour of the day, the mean, 24 of them."""
    reasons: Sequence[tuple[str, int]]
    """Refusals by reason, most first."""
    uses: Sequence[tuple[str, int]]
    """Facility uses by kind, most first."""
    completeness: Completeness
    generated_at: datetime
    """In the station's zone."""


def month_of(text: str) -> Period:
    """Read `2026-10` as the days of a month; raises PeriodInvalid."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise PeriodInvalid("a month is written as 2026-10") from error
    return Period(first, _next_month(first))


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


async def gather(
    tx: AsyncSession, station: Station, month: Period, *, at: datetime, retention: timedelta
) -> Sheet:
    """Gather a station's month and, for comparison, the month before."""
    scope = Scope(
        stations=sa.select(Station.id).where(Station.id == station.id),
        roots=Roots(stations=[station.id]),
        period=month,
        by=By.STATION,
        at=at,
        retained_since=local_day(at - retention, station.timezone) + timedelta(days=1),
    )
    first = month.from_day
    earlier = replace(scope, period=Period((first - timedelta(days=1)).replace(day=1), first))
    hourly = replace(scope, bucket=Bucket.HOUR)
    visits = await queries.visits(tx, hourly)
    access = (await queries.access(tx, scope))[0]
    facilities = await queries.facilities(tx, scope)
    by_reason: dict[str, int] = access.by_reason or {}
    uses = {row.kind.value: row.uses for row in facilities if row.uses}
    inside = await queries.occupancy(tx, hourly)
    return Sheet(
        code=station.code,
        name=station.name,
        unit=await tx.scalar(sa.select(Unit.name).where(Unit.id == station.unit_id)) or "",
        address=station.address,
        capacity=station.capacity,
        year=first.year,
        month=first.month,
        figures=_figures(await _totals(tx, scope), await _totals(tx, earlier)),
        days=_days(month, visits),
        hours=_by_hour((row.hour, row.visits) for row in visits),
        inside=_by_hour((row.hour, row.avg_occupancy) for row in inside),
        reasons=Counter(by_reason).most_common(),
        uses=Counter(uses).most_common(),
        completeness=completeness(month.days, local_day(at, station.timezone)),
        generated_at=at,
    )


async def _totals(tx: AsyncSession, scope: Scope) -> dict[str, Any]:
    """Give the month's own figures, each by the name its report gives it."""
    found: dict[str, Any] = {}
    for rows in (
        await queries.visits(tx, scope),
        await queries.access(tx, scope),
        await queries.occupancy(tx, scope),
    ):
        found |= rows[0]._asdict()
    return found


SHOWN = (
    "visits",
    "unique_workers",
    "offhours_share",
    "unmet_demand",
    "grant_rate",
    "open_success_rate",
    "peak_occupancy",
    "dwell_median_s",
)
"""The figures at the head of the sheet, by their names in the reports."""


def _figures(now: dict[str, Any], before: dict[str, Any]) -> list[Figure]:
    return [
        Figure(name, now[name], before[name], name.endswith(("_share", "_rate"))) for name in SHOWN
    ]


def _days(month: Period, rows: Sequence[VisitsRow]) -> list[DayBar]:
    found: dict[date, tuple[int, int]] = {}
    for row in rows:
        if row.visits is None or row.day is None:
            continue
        whole, unstaffed = found.get(row.day, (0, 0))
        found[row.day] = (whole + row.visits, unstaffed + (row.out_of_hours_visits or 0))
    return [
        DayBar(day.day, found[day][0] - found[day][1], found[day][1])
        if day in found
        else DayBar(day.day, None, None)
        for day in month.days
    ]


def _by_hour(values: Any) -> list[float | None]:
    """Average what is known of each hour of the day over the days."""
    known: dict[int, list[float]] = {hour: [] for hour in range(24)}
    for hour, value in values:
        if hour is not None and value is not None:
            known[hour].append(float(value))
    return [rate(sum(found), len(found)) for found in known.values()]
