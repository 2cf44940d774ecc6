"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import local_day
from app.reports.frame import Scope, frame, progress
from app.reports.queries import REPORTS, rows_of
from app.reports.rollup import CITY_ZONE
from app.reports.rules import Class, Period
from app.reports.rules.comparison import OnDays, change, expected, mixed, period_before, total
from app.reports.rules.day import DAY_MS

FIGURES: Mapping[str, Sequence[str]] = {
    "visits": (
        "visits",
        "visits_free",
        "visits_scan",
        "visits_offline",
        "persons",
        "out_of_hours_visits",
        "refused",
        "unmet_demand",
        "stays",
    ),
    "access": ("decided", "granted", "walk_in", "refused", "unmet_demand", "executed", "opened"),
    "promise": ("outages",),
}
"""Counts that add up from day to day, by report."""


class ComparisonInvalid(Invalid):
    """This cannot be compared with the period before."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What the period before comes to, row by row of the report."""

    columns: Sequence[str]
    rows: Sequence[Sequence[float | None]]
    before: Period


def columns_of(report: str) -> Sequence[str]:
    """Name what is added to each row: the figure before and its change."""
    return [f"{name}_{what}" for name in FIGURES[report] for what in ("before", "change")]


def check(report: str, scope_is_places: bool) -> None:
    """Refuse what has no period before; raises ComparisonInvalid."""
    if report not in FIGURES:
        raise ComparisonInvalid(f"these can be compared: {', '.join(FIGURES)}")
    if not scope_is_places:
        raise ComparisonInvalid(
            "places are compared, over the whole period: by station, unit, operating_model or all"
        )


async def compared(tx: AsyncSession, scope: Scope, report: str) -> Compared:
    """Compare every place with itself in the period before; only days that are over count."""
    counted_at = (await progress(tx)).counted_at or datetime.fromtimestamp(0, UTC)
    until = local_day(min(counted_at, scope.at), CITY_ZONE)
    before = period_before(scope.period)
    now = await _by_class(tx, scope, report, scope.period, until)
    then = await _by_class(tx, scope, report, before, until)
    rows = []
    for mine, past in zip(now, then, strict=True):
        row: list[float | None] = []
        for name in FIGURES[report]:
            was = expected(past[name], mine[name])
            row += [was, change(total(mine[name]), was)]
        rows.append(row)
    return Compared(columns_of(report), rows, before)


async def _by_class(
    tx: AsyncSession, scope: Scope, report: str, period: Period, until: date
) -> Sequence[Mapping[str, Mapping[Class, OnDays]]]:
    """Give for each place and figure what came on the days of each class."""
    cut = await frame(tx, replace(scope, period=period))
    made = replace(cut, slots=mixed(period, scope.calendar, until=until))
    names = FIGURES[report]
    found: list[dict[str, dict[Class, OnDays]]] = [
        {name: {} for name in names} for _ in made.places
    ]
    for part in made.parts() if made.slots.count else ():
        rows: Sequence[Any] = await rows_of(tx, part, REPORTS[report])
        days = (part.known.measured_ms / DAY_MS).tolist()
        for number, row in enumerate(rows):
            place, slot = divmod(number, made.slots.count)
            each = made.slots.bases[slot].day_class or Class.WORKDAY
            for name in names:
                value = OnDays(days[number], getattr(row, name))
                found[part.first + place][name][each] = value
    return found
