"""The monthly sheet of one station: what it gathers, as plain figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.people.admins import Roots
from app.places.rules import EARLIEST, LATEST, Calendar, local_day
from app.places.tables import Station, Unit
from app.reports import comparing, queries
from app.reports.catalogue import is_share
from app.reports.frame import PeriodInvalid, Scope, progress
from app.reports.rows import OccupancyRow, VisitsRow
from app.reports.rules import By, Completeness, Period, rate
from app.reports.rules.comparison import period_before


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the month beside the month before; None: it cannot be known."""

    name: str
    now: float | None
    before: float | None
    is_share: bool = False
    is_mixed: bool = False
    """Whether the month before is told by this month's workdays, weekends and holidays, as far as
    they are over; else it is told whole and as it was."""
    change: float | None = None
    """By what part of the month before this one differs; of counts alone."""


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
    """Visits by hour of the day, in as much of it as is known, for one day; 24 of them."""
    inside: Sequence[float | None]
    """Persons inside by hour of the day, as the report of occupancy has them; 24 of them."""
    reasons: Sequence[tuple[str, int]]
    """Refusals by reason, most first."""
    uses: Sequence[tuple[str, int]]
    """Facility uses by kind, most first."""
    completeness: Completeness
    rolled_up_to: datetime | None
    """What was changed before this instant is counted; in the station's zone."""
    recounting: bool
    """Whether something is being counted anew just now."""
    generated_at: datetime
    """In the station's zone."""


def month_of(text: str) -> Period:
    """Read `2026-10` as the days of a month; raises PeriodInvalid."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise PeriodInvalid("a month is written as 2026-10") from error
    if not EARLIEST.date() <= first < LATEST.date():
        raise PeriodInvalid("the month must lie between 2000 and 2100")
    return Period(first, _next_month(first))


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


class Terms(NamedTuple):
    """On what terms a sheet is gathered."""

    at: datetime
    """Now, in the station's zone."""
    calendar: Calendar
    retention: timedelta
    """After so long visits have lost their workers."""


async def gather(tx: AsyncSession, station: Station, month: Period, terms: Terms) -> Sheet:
    """Gather a station's month and, for comparison, the month before."""
    at = terms.at
    scope = Scope(
        stations=sa.select(Station.id).where(Station.id == station.id),
        roots=Roots(stations=[station.id]),
        period=month,
        by=By.STATION,
        at=at,
        retained_since=local_day(at - terms.retention, station.timezone) + timedelta(days=1),
        calendar=terms.calendar,
    )
    first = month.from_day
    by_day = await queries.visits(tx, replace(scope, by=By.DAY))
    by_hour = replace(scope, by=By.HOUR)
    visits, inside = await queries.visits(tx, by_hour), await queries.occupancy(tx, by_hour)
    counted = await progress(tx)
    access = (await queries.access(tx, scope))[0]
    facilities = await queries.facilities(tx, scope)
    by_reason: dict[str, int] = access.by_reason or {}
    uses = {row.kind.value: row.uses for row in facilities if row.uses}
    return Sheet(
        code=station.code,
        name=station.name,
        unit=await tx.scalar(sa.select(Unit.name).where(Unit.id == station.unit_id)) or "",
        address=station.address,
        capacity=station.capacity,
        year=first.year,
        month=first.month,
        figures=await _figures(tx, scope),
        days=_days(month, by_day),
        hours=[_of_one_day(*both) for both in zip(visits, inside, strict=True)],
        inside=[row.avg_occupancy for row in inside],
        reasons=Counter(by_reason).most_common(),
        uses=Counter(uses).most_common(),
        completeness=counted.completeness(month.days, at, station.timezone),
        rolled_up_to=counted.rolled_up_to and counted.rolled_up_to.astimezone(at.tzinfo),
        recounting=counted.recounting,
        generated_at=at,
    )


SHOWN = (
    "visits",
    "unique_workers",
    "offhours_share",
    "unmet_demand",
    "grant_rate",
    "open_success_rate",
    "peak_occupancy",
    "dwell_median_s",
    "promise_rate",
    "unknown_share",
    "controller_uptime",
    "known_share",
)
"""The figures at the head of the sheet, by their names in the reports."""

SHARES: Mapping[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "offhours_share": (["out_of_hours_visits"], ["visits"], []),
    "grant_rate": (["granted", "walk_in"], ["decided"], []),
    "open_success_rate": (["executed"], ["granted"], []),
    "promise_rate": (["usable_hours"], ["promised_hours"], ["unknown_hours"]),
    "unknown_share": (["unknown_hours"], ["promised_hours"], []),
    "controller_uptime": (["online_hours"], ["commissioned_hours"], ["unheard_hours"]),
}
"""Of which sums, by which, and less which, a share is: these can be told by other days."""


async def _figures(tx: AsyncSession, scope: Scope) -> list[Figure]:
    now = await _totals(tx, scope)
    for report in ("visits", "access", "promise"):
        beside = await comparing.compared(tx, scope, report, now.rows[report])
        now.values.update(zip(beside.columns, beside.rows[0], strict=True))
    then = await _totals(tx, replace(scope, period=period_before(scope.period)))
    return [_figure(name, now.values, then.values) for name in SHOWN]


def _figure(name: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> Figure:
    if name in SHARES:
        of, by, less = ([now[f"{each}_before"] for each in names] for names in SHARES[name])
        was = None if None in (*of, *by, *less) else rate(sum(of), sum(by) - sum(less))
        return Figure(name, now[name], was, is_share=True, is_mixed=True)
    if f"{name}_before" in now:
        was, change = now[f"{name}_before"], now[f"{name}_change"]
        return Figure(name, now[name], was, is_mixed=True, change=change)
    return Figure(name, now[name], then[name], is_share=is_share(name))


async def _totals(tx: AsyncSession, scope: Scope) -> "_Totals":
    found = _Totals({}, {})
    for report in ("visits", "access", "occupancy", "promise"):
        rows: Sequence[Any] = await getattr(queries, report)(tx, scope)
        found.rows[report] = rows
        found.values.update(rows[0]._asdict())
    return found


class _Totals(NamedTuple):
    """A month's own figures."""

    values: dict[str, Any]
    """By the names that their reports give them."""
    rows: dict[str, Sequence[Any]]
    """The reports' own rows."""


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


def _of_one_day(visits: VisitsRow, inside: OccupancyRow) -> float | None:
    """Give the visits that an hour of the day has in one day, of all that is known of it."""
    if visits.visits is None or inside.station_hours is None:
        return None
    return rate(visits.visits, inside.station_hours)
