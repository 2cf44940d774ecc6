"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.reports.frame import Part, Scope, frame, progress
from app.reports.queries import REPORTS, rows_of
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
    "occupancy": ("person_hours", "used_hours", "crowded_minutes"),
    "facilities": ("uses", "quantity", "in_use_hours", "out_of_order_hours", "degraded_hours"),
    "promise": (
        "promised_hours",
        "usable_hours",
        "unknown_hours",
        "commissioned_hours",
        "online_hours",
        "unheard_hours",
        "outages",
    ),
}
"""What adds up from day to day, by report. A share is compared by what it is made of."""

Key = tuple[str | None, ...]
"""Which row: its place, and its kind of facility."""


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


async def compared(tx: AsyncSession, scope: Scope, report: str, rows: Sequence[Any]) -> Compared:
    """Compare every row's place with itself in the period before; only days that are over count."""
    counted_at = (await progress(tx)).counted_at or datetime.fromtimestamp(0, UTC)
    until = local_day(min(counted_at, scope.at), CITY_ZONE)
    before = period_before(scope.period)
    now = await _by_class(tx, scope, report, scope.period, until)
    then = await _by_class(tx, scope, report, before, until)
    found = []
    for row in rows:
        beside: list[float | None] = []
        for name in FIGURES[report]:
            key = (*_key_of(row), name)
            was = expected(then.get(key, {}), now.get(key, {}))
            beside += [was, change(total(now.get(key, {})), was)]
        found.append(beside)
    return Compared(columns_of(report), found, before)


def _place_of(row: Any) -> Key:
    return row.station, row.unit, row.operating_model


def _key_of(row: Any) -> Key:
    return (*_place_of(row), getattr(row, "kind", None))


def _times(part: Part) -> Iterator[Key]:
    """Give the places of a part with each of its classes of days."""
    for place in part.places:
        for slot in part.frame.slots.bases:
            yield (*_place_of(place), slot.day_class)


async def _by_class(
    tx: AsyncSession, scope: Scope, report: str, period: Period, until: date
) -> Mapping[Key, Mapping[Class, OnDays]]:
    """Give for each row and figure what came on the days of each class."""
    cut = await frame(tx, replace(scope, period=period))
    made = replace(cut, slots=mixed(period, scope.calendar, until=until))
    found: dict[Key, dict[Class, OnDays]] = {}
    for part in made.parts() if made.slots.count else ():
        rows: Sequence[Any] = await rows_of(tx, part, REPORTS[report])
        days = dict(zip(_times(part), (part.known.measured_ms / DAY_MS).tolist(), strict=True))
        for row in rows:
            of_class = days[(*_place_of(row), row.day_class)]
            for name in FIGURES[report]:
                value = OnDays(of_class, getattr(row, name))
                found.setdefault((*_key_of(row), name), {})[Class(row.day_class)] = value
    return found
