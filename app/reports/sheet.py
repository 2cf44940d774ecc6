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
from app.reports.frame import frame
from app.reports.progress import progress
from app.reports.rows import OccupancyRow, VisitsRow
from app.reports.rules import By, Completeness, Period, class_of, rate
from app.reports.rules.comparison import MIX, is_known, period_before
from app.reports.rules.rates import MS_PER_HOUR, SCANNED, rate_of
from app.reports.scope import PeriodInvalid, Scope


@dataclass(frozen=True, slots=True)
class Parts:
    """What a figure was divided of and by, or what else says how much it is worth."""

    of: float | None
    by: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the month beside the month before; None: it cannot be known."""

    name: str
    now: float | None
    before: float | None
    parts: Parts
    is_share: bool = False
    is_mixed: bool = False
    """Whether the month before is told by this month's workdays, weekends and holidays, as far as
    they are over and that month has such; else it is told whole and as it was."""
    change: float | None = None
    """By what part of the month before this one differs; of counts alone."""
    over: float | None = None
    """What came on the days that are compared: over, and of a class that both months have."""


@dataclass(frozen=True, slots=True)
class Comparable:
    """Which days of the month are compared with the month before."""

    days: int
    over: int
    """So many are over."""
    left_out: Mapping[str, Sequence[int]]
    """Of these, days of the month that are not compared, by their class."""


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
    hours_parts: Parts
    """The visits of them all, and the days that are known."""
    inside: Sequence[float | None]
    """Persons inside by hour of the day, as the report of occupancy has them; 24 of them."""
    inside_parts: Parts
    """The hours that persons were inside, and those that the station was open and told of."""
    scanned: Figure
    """The share of the staffed hours in which somebody scanned: of less than half of them nobody
    knows who was inside."""
    reasons: Sequence[tuple[str, int]]
    """Refusals by reason, most first."""
    uses: Sequence[tuple[str, int]]
    """Facility uses by kind, most first."""
    comparable: Comparable
    heard: Figure
    """Of the time with a controller, what it was heard."""
    completeness: Completeness
    rolled_up_to: datetime | None
    """What was changed before this instant is counted; in the station's zone."""
    recounting: bool
    """Whether something is being counted anew just now."""
    calendar_known: bool
    """Whether it is known which days of both months are holidays."""
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
    now = await _compared(tx, scope)
    then = await _month(tx, replace(scope, period=period_before(month)))
    facilities = await queries.facilities(tx, scope)
    by_reason: dict[str, int] = now.values["by_reason"] or {}
    uses = {row.kind.value: row.uses for row in facilities if row.uses}
    return Sheet(
        code=station.code,
        name=station.name,
        unit=await tx.scalar(sa.select(Unit.name).where(Unit.id == station.unit_id)) or "",
        address=station.address,
        capacity=station.capacity,
        year=first.year,
        month=first.month,
        figures=_figures(now, then.values),
        days=_days(month, by_day),
        hours=[_of_one_day(*both) for both in zip(visits, inside, strict=True)],
        hours_parts=Parts(now.values["visits"], now.values["known_hours"] / 24),
        inside=[row.avg_occupancy for row in inside],
        inside_parts=_parts("avg_occupancy", "occupancy", now.values),
        scanned=_scanned(now.values),
        reasons=Counter(by_reason).most_common(),
        uses=Counter(uses).most_common(),
        comparable=_comparable(month, terms, now.values),
        heard=_figure("reported_share", "visits", now.values, then.values),
        completeness=counted.completeness(month.days, at, station.timezone),
        rolled_up_to=counted.rolled_up_to and counted.rolled_up_to.astimezone(at.tzinfo),
        recounting=counted.recounting,
        calendar_known=is_known(terms.calendar, period_before(month), month),
        generated_at=at,
    )


SHOWN: Mapping[str, str] = {
    "visits": "visits",
    "unique_workers": "visits",
    "offhours_share": "visits",
    "unmet_demand": "visits",
    "grant_rate": "access",
    "open_success_rate": "access",
    "peak_occupancy": "occupancy",
    "dwell_median_s": "visits",
    "promise_rate": "promise",
    "unknown_share": "promise",
    "controller_uptime": "promise",
    "known_share": "visits",
}
"""The figures at the head of the sheet, by their names in the reports, and of which they are."""

BESIDE: Mapping[str, tuple[str, str | None]] = {
    "visits": ("persons", None),
    "unique_workers": ("anonymous_visits", None),
    "unmet_demand": ("refused", None),
    "peak_occupancy": ("max_observed", "capacity"),
    "dwell_median_s": ("stays", "ended"),
    "known_share": ("known_hours", "whole_hours"),
    "reported_share": ("online_hours", "commissioned_hours"),
}
"""What is told beside those that are no rates of fields: what they are of, or leave out."""


def _figures(now: "_MonthFigures", then: Mapping[str, Any]) -> list[Figure]:
    return [_figure(name, report, now.values, then) for name, report in SHOWN.items()]


def _figure(name: str, report: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> Figure:
    parts, is_part = _parts(name, report, now), is_share(name)
    if f"{name}_before" not in now:
        return Figure(name, now[name], then[name], parts, is_share=is_part)
    was, change = now[f"{name}_before"], None if is_part else now[f"{name}_change"]
    over = now[f"{name}_over"]
    return Figure(name, now[name], was, parts, is_part, is_mixed=True, change=change, over=over)


def _parts(name: str, report: str, values: Mapping[str, Any]) -> Parts:
    """Say of what and by what a figure was divided, or what is to be known of it."""
    rate = rate_of(report, name)
    if rate is None:
        of, by = BESIDE[name]
        return Parts(values[of], None if by is None else values[by])
    sides = rate.numerator.of(values), rate.denominator.of(values)
    return Parts(*(None if side is None else side.part for side in sides))


def _scanned(values: Mapping[str, Any]) -> Figure:
    """Say in how much of the free time somebody scanned, which heads that staff counted do not."""
    sides = SCANNED.numerator.of(values), SCANNED.denominator.of(values)
    parts = Parts(*(None if side is None else side.part for side in sides))
    return Figure("scanned", SCANNED.told(values), None, parts, is_share=True)


async def _month(tx: AsyncSession, scope: Scope) -> "_MonthFigures":
    found = _MonthFigures({}, {})
    for report in dict.fromkeys((*SHOWN.values(), "occupancy")):
        rows: Sequence[Any] = await queries.rows(tx, scope, queries.REPORTS[report])
        found.rows[report] = rows
        found.values.update(rows[0]._asdict())
    return found


async def _compared(tx: AsyncSession, scope: Scope) -> "_MonthFigures":
    """Give a month's figures beside what the month before comes to, and how much is known."""
    found = await _month(tx, scope)
    for report, rows in found.rows.items():
        beside = await comparing.compared(tx, scope, report, rows)
        found.values.update(zip(beside.columns, beside.rows[0], strict=True))
    (part,) = (await frame(tx, scope)).parts()
    found.values["known_hours"] = int(part.known.known_ms[0]) / MS_PER_HOUR
    found.values["whole_hours"] = int(part.known.whole_ms[0]) / MS_PER_HOUR
    return found


def _comparable(month: Period, terms: Terms, values: Mapping[str, Any]) -> Comparable:
    """Say which days are compared, as the rows of every report of the station say it."""
    over, left_out = values["days_over"], values["left_out_classes"]
    found: dict[str, list[int]] = {name: [] for name in left_out}
    for day in list(month.days)[:over]:
        name = MIX[class_of(terms.calendar, day)].value
        if name in found:
            found[name].append(day.day)
    return Comparable(values["compared_days"], over, found)


class _MonthFigures(NamedTuple):
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
