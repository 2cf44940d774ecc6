"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.reports.frame import Part, Scope, frame, progress
from app.reports.queries import REPORTS, rows_and_sums
from app.reports.rules import Class, Period, rate
from app.reports.rules.comparison import OnDays, change, expected, mixed, period_before, total
from app.reports.rules.counters import C
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
    found = []
    for row in rows:
        beside: list[float | None] = []
        for name in FIGURES[report]:
            key = (*_key_of(row), name)
            of_now = now.figures.get(key, {})
            came, was = total(of_now), expected(then.figures.get(key, {}), of_now)
            beside += [came, was, change(came, was)]
        beside += then.heard.get(_place_of(row), _Heard()).shares
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


@dataclass(frozen=True, slots=True)
class _Cut:
    """A period by classes of days."""

    figures: dict[Key, dict[Class, OnDays]]
    """For each row and figure, what came on the days of each class."""
    heard: dict[Key, _Heard]
    """For each place."""


async def _by_class(
    tx: AsyncSession, scope: Scope, report: str, period: Period, until: date
) -> _Cut:
    cut = await frame(tx, replace(scope, period=period))
    made = replace(cut, slots=mixed(period, scope.calendar, until=until))
    found: dict[Key, dict[Class, OnDays]] = {}
    heard: dict[Key, _Heard] = {}
    for part in made.parts() if made.slots.count else ():
        rows, sums = await rows_and_sums(tx, part, REPORTS[report])
        days = dict(zip(_times(part), (part.known.measured_ms / DAY_MS).tolist(), strict=True))
        for row in rows:
            of_class = days[(*_place_of(row), row.day_class)]
            for name in FIGURES[report]:
                value = OnDays(of_class, getattr(row, name))
                found.setdefault((*_key_of(row), name), {})[Class(row.day_class)] = value
        lengths = [sum(1 for _ in slot.days) for slot in made.slots.bases] * len(part.places)
        columns = part.known.shares, lengths, sums[C.ONLINE_MS], sums[C.COMMISSIONED_MS]
        of_rows = zip(_times(part), *(list(each) for each in columns), strict=True)
        for (*place, _), share, length, online, commissioned in of_rows:
            one = heard.setdefault(tuple(place), _Heard())
            one.known += float(share) * length
            one.days += length
            one.online_ms += int(online)
            one.commissioned_ms += int(commissioned)
    return _Cut(found, heard)
