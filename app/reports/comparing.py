"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.reports.columns import Column
from app.reports.frame import Part, frame
from app.reports.progress import progress
from app.reports.queries import REPORTS, exact_of
from app.reports.rules import Class, Period, rate
from app.reports.rules.comparison import (
    OnDays,
    change,
    expected,
    known_together,
    mixed,
    period_before,
    total,
)
from app.reports.rules.counters import C
from app.reports.rules.day import DAY_MS
from app.reports.rules.rates import MS_PER_HOUR, half_up, rate_of
from app.reports.scope import Scope
from app.reports.sums import Sums

FIGURES: Mapping[str, Sequence[str]] = {
    "visits": (
        "visits",
        "visits_free",
        "visits_scan",
        "visits_offline",
        "persons",
        "out_of_hours_visits",
        "offhours_share",
        "staffed_hours",
        "unstaffed_hours",
        "covered_hours",
        "free_mode_coverage",
        "night_uplift",
        "refused",
        "unmet_demand",
        "stays",
        "stay_hours",
        "dwell_mean_s",
        "ended",
        "imputed_exits",
        "imputed_exit_share",
    ),
    "access": (
        "decided",
        "granted",
        "walk_in",
        "refused",
        "grant_rate",
        "unmet_demand",
        "executed",
        "open_success_rate",
        "with_contact",
        "opened",
        "proven_open_rate",
    ),
    "occupancy": (
        "person_hours",
        "used_hours",
        "reporting_hours",
        "seat_hours",
        "reporting_person_hours",
        "reporting_used_hours",
        "avg_occupancy",
        "avg_when_used",
        "seat_utilization",
        "time_utilization",
        "crowded_minutes",
    ),
    "facilities": (
        "uses",
        "quantity",
        "in_use_hours",
        "visits",
        "uses_per_visit",
        "standing_hours",
        "out_of_order_hours",
        "degraded_hours",
        "unknown_hours",
        "availability",
        "unknown_share",
        "repairs",
        "repair_hours",
        "repair_mean_min",
    ),
    "promise": (
        "promised_hours",
        "usable_hours",
        "unknown_hours",
        "promise_rate",
        "unknown_share",
        "commissioned_hours",
        "online_hours",
        "unheard_hours",
        "controller_uptime",
        "outages",
        "outage_hours",
        "mttr_min",
    ),
}
"""What adds up from day to day, and the shares and means of it, by report.

Percentiles, peaks and distinct workers do not add, and what stands there now is of no period.
"""

ADDED: Mapping[str, Sequence[str]] = {
    report: [name for name in names if rate_of(report, name) is None]
    for report, names in FIGURES.items()
}
"""Of these, what is no share or mean. All that shares and means are made of is among them."""

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
    """Name what is added to each row.

    Of each figure: what came on the days that are over, what the period before comes to, and the
    change from this to that; then how complete the period before is.
    """
    figures = [
        f"{name}{what}" for name in FIGURES[report] for what in ("_over", "_before", "_change")
    ]
    return [*figures, "before_known_share", "before_reported_share"]


def check(report: str, scope_is_places: bool) -> None:
    """Refuse what has no period before; raises ComparisonInvalid."""
    if report not in FIGURES:
        raise ComparisonInvalid(f"these can be compared: {', '.join(FIGURES)}")
    if not scope_is_places:
        raise ComparisonInvalid(
            "places are compared, over the whole period: "
            "by station, unit, branch, operating_model or all"
        )


async def compared(tx: AsyncSession, scope: Scope, report: str, rows: Sequence[Any]) -> Compared:
    """Compare every row's place with itself in the period before; only days that are over count."""
    counted_at = (await progress(tx)).counted_at or datetime.fromtimestamp(0, UTC)
    until = local_day(min(counted_at, scope.at), CITY_ZONE)
    before = period_before(scope.period)
    now = await _by_class(tx, scope, report, scope.period, until)
    then = await _by_class(tx, scope, report, before, until)
    found = await asyncio.to_thread(_beside, report, rows, now, then)
    return Compared(columns_of(report), found, before)


def _beside(
    report: str, rows: Sequence[Any], now: "_Cut", then: "_Cut"
) -> Sequence[Sequence[float | None]]:
    found = []
    for row in rows:
        mine, theirs = (cut.figures.get(key_of(row), {}) for cut in (now, then))
        beside: list[float | None] = []
        for name in FIGURES[report]:
            came, was = both(report, name, mine, theirs)
            beside += [came, was, change(came, was)]
        beside += then.heard.get(_place_of(row), _Heard()).shares
        found.append(beside)
    return found


def both(
    report: str, name: str, now: "_Figures", then: "_Figures"
) -> tuple[float | None, float | None]:
    """Give a figure of the days that are over, and what it was with the same mix of days.

    A share or a mean is that of the sums, before these are rounded.
    """
    rate = rate_of(report, name)
    parts = (name,) if rate is None else rate.names
    mine = known_together({part: now.get(part, {}) for part in parts})
    came = {part: total(days) for part, days in mine.items()}
    was = {part: expected(then.get(part, {}), days) for part, days in mine.items()}
    if rate is not None:
        return rate.told(came), rate.told(was)
    return _told(name, came[name], 1_000), _told(name, was[name], 100)


def _told(name: str, value: float | None, places: int) -> float | None:
    """Give a duration in hours, as its name says, and a whole number as it is."""
    is_duration = name.endswith("_hours")
    if value is None or (isinstance(value, int) and not is_duration):
        return value
    return half_up(value, MS_PER_HOUR if is_duration else 1, places)


def _place_of(row: Any) -> Key:
    return row.station, row.unit, row.operating_model


def key_of(row: Any) -> Key:
    """Say which row it is."""
    return (*_place_of(row), getattr(row, "kind", None))


def _times(part: Part) -> Iterator[Key]:
    """Give the places of a part with each of its classes of days."""
    for place in part.places:
        for slot in part.frame.slots.bases:
            yield (*_place_of(place), slot.day_class)


@dataclass(slots=True)
class _Heard:
    """How complete the days of a place are, class by class."""

    known: float = 0.0
    days: int = 0
    online_ms: int = 0
    commissioned_ms: int = 0

    @property
    def shares(self) -> Sequence[float | None]:
        """Of the time, what is known; of the time with a controller, what it was heard."""
        return [
            rate(self.known, self.days) if self.days else None,
            rate(self.online_ms, self.commissioned_ms),
        ]


_Figures = dict[str, dict[Class, OnDays]]
"""What came of each figure on the days of each class; durations are milliseconds."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A period by classes of days."""

    figures: dict[Key, _Figures]
    """For each row."""
    heard: dict[Key, _Heard]
    """For each place."""


async def _by_class(
    tx: AsyncSession, scope: Scope, report: str, period: Period, until: date
) -> _Cut:
    cut = await frame(tx, replace(scope, period=period))
    made = replace(cut, slots=mixed(period, scope.calendar, until=until))
    found = _Cut({}, {})
    for part in made.parts() if made.slots.count else ():
        columns, sums = await exact_of(tx, part, REPORTS[report])
        await asyncio.to_thread(_add, found, report, part, columns, sums)
    return found


def _add(found: _Cut, report: str, part: Part, columns: Mapping[str, Column], sums: Sums) -> None:
    """Add the rows of a part, each of one class of days."""
    days = dict(zip(_times(part), (part.known.measured_ms / DAY_MS).tolist(), strict=True))
    names = ADDED[report]
    places = zip(columns["station"], columns["unit"], columns["operating_model"], strict=True)
    kinds = columns.get("kind", [None] * len(columns["station"]))
    of_rows = zip(columns["day_class"], *(columns[name] for name in names), strict=True)
    for place, kind, (day_class, *values) in zip(places, kinds, of_rows, strict=True):
        figures = found.figures.setdefault((*place, kind), {})
        for name, value in zip(names, values, strict=True):
            of_class = OnDays(days[(*place, day_class)], value)
            figures.setdefault(name, {})[Class(day_class)] = of_class
    lengths = [sum(1 for _ in slot.days) for slot in part.frame.slots.bases] * len(part.places)
    heard = part.known.shares, lengths, sums[C.ONLINE_MS], sums[C.COMMISSIONED_MS]
    of_places = zip(_times(part), *(list(each) for each in heard), strict=True)
    for (*place, _), share, length, online, commissioned in of_places:
        one = found.heard.setdefault(tuple(place), _Heard())
        one.known += float(share) * length
        one.days += length
        one.online_ms += int(online)
        one.commissioned_ms += int(commissioned)
