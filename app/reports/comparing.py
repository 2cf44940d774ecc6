"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import FacilityKind
from app.reports.columns import Column, Ints
from app.reports.frame import AT_ONCE, MOST_STREAMED, Frame, Part, frame
from app.reports.progress import progress
from app.reports.queries import REPORTS, Columns, exact_of, fewest, rows_of
from app.reports.rules import Bucket, By, Class, rate
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
from app.reports.rules.rates import ENOUGH, MS_PER_HOUR, half_up, is_counted, rate_of
from app.reports.scope import PeriodInvalid, Scope
from app.reports.sums import Sums

FIGURES: Mapping[str, Sequence[str]] = {
    "visits": (
        "visits",
        "visits_free",
        "visits_scan",
        "visits_offline",
        "persons",
        "returns",
        "out_of_hours_visits",
        "offhours_share",
        "staffed_hours",
        "unstaffed_hours",
        "covered_hours",
        "free_mode_coverage",
        "night_uplift",
        "walk_in_heads",
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
        "claimed",
        "executed",
        "open_success_rate",
        "refused_after_grant",
        "failed",
        "expired",
        "unknown",
        "with_contact",
        "opened",
        "proven_open_rate",
        "alone_opened",
        "alone_refused",
        "alone_flagged",
    ),
    "occupancy": (
        "person_hours",
        "used_hours",
        "reporting_hours",
        "seat_hours",
        "reporting_person_hours",
        "reporting_used_hours",
        "staffed_hours",
        "covered_hours",
        "heads_only_hours",
        "free_mode_coverage",
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
        "staffed_hours",
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

OF_MODES = frozenset(
    {
        "staffed_hours",
        "unstaffed_hours",
        "covered_hours",
        "heads_only_hours",
        "reporting_hours",
        "seat_hours",
        "reporting_person_hours",
        "reporting_used_hours",
        "standing_hours",
        "out_of_order_hours",
        "degraded_hours",
        "unknown_hours",
        "promised_hours",
        "usable_hours",
    }
)
"""What is only known of time of which it is recorded what held: of so many days these are."""

BESIDE = (
    "compared_days",
    "days_over",
    "left_out_classes",
    "before_known_share",
    "before_reported_share",
)
"""What is told of each row that is compared, whatever its figures: of which days they are, and how
complete the period before is."""

Key = tuple[Any, ...]
"""Which row: its place and hour of the day, and its kind of facility."""
MOST_ROWS = 50_000
"""How many rows a comparison may have in one answer; what is written row by row may have more."""


class ComparisonInvalid(Invalid):
    """This cannot be compared with the period before."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What the period before comes to, row by row of the report."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def columns_of(report: str) -> Sequence[str]:
    """Name what is added to each row.

    Of each figure: what came on the days that are compared, what the period before comes to, and
    the change from this to that; then which days these are, and how complete the period before is.
    """
    figures = [
        f"{name}{what}" for name in FIGURES[report] for what in ("_over", "_before", "_change")
    ]
    return [*figures, *BESIDE]


def check(report: str, by: By, bucket: Bucket | None) -> None:
    """Refuse what has no period before; raises ComparisonInvalid."""
    if report not in FIGURES:
        raise ComparisonInvalid(f"these can be compared: {', '.join(FIGURES)}")
    is_place = by.is_place and bucket in (None, Bucket.HOUR_OF_DAY)
    if not is_place and (by, bucket) != (By.HOUR, None):
        raise ComparisonInvalid(
            "places are compared, over the whole period or by hour_of_day: by station, unit, "
            "branch, operating_model or all; and all of them together by hour"
        )


@dataclass(frozen=True)
class Pair:
    """A report, and what of its places is set beside it, before anything is counted."""

    report: str
    made: Frame
    """Of the report itself."""
    now: Frame
    """The same places, by the classes of the days that are over."""
    then: Frame
    """The same in the period before."""
    days_over: int
    """How many days of the report's period are over."""

    @property
    def rows(self) -> int:
        """How many rows there are, for each kind of thing."""
        return self.made.rows

    def parts(self) -> Sequence[tuple[int, int]]:
        """Cut the places `[first, end)` into portions that are computed together, in order."""
        most = max(each.slots.count for each in (self.made, self.now, self.then))
        step, count = max(1, AT_ONCE // max(1, most)), len(self.made.places)
        return [(first, min(first + step, count)) for first in range(0, count, step)]


async def pair(tx: AsyncSession, scope: Scope, report: str, *, is_at_once: bool) -> Pair:
    """Say which rows a report has, and which there were before; only days that are over count.

    Raises PeriodInvalid where there are too many of them, before any is computed.
    """
    made = await frame(tx, scope, most=MOST_STREAMED)
    if is_at_once and (rows := await fewest(tx, made, REPORTS[report])) > MOST_ROWS:
        raise PeriodInvalid(
            f"beside the period before, JSON has at most {MOST_ROWS:,} rows, and this would be "
            f"{rows:,}: ask for CSV, for one unit or station, or without a bucket"
        )
    counted_at = (await progress(tx)).counted_at or datetime.fromtimestamp(0, UTC)
    until = local_day(min(counted_at, scope.at), CITY_ZONE)
    asked = replace(scope, period=period_before(scope.period))
    before = (await frame(tx, asked, most=2 * MOST_STREAMED)).at_places(made.places)
    now, then = (
        replace(
            each,
            slots=mixed(each.scope.period, scope.calendar, until=until, by_hour=made.slots.by_hour),
        )
        for each in (made, before)
    )
    today = local_day(scope.at, CITY_ZONE)
    return Pair(report, made, now, then, sum(1 for day in scope.period.days if day < today))


async def streamed(
    read_tx: Callable[[], AbstractAsyncContextManager[AsyncSession]], pair: Pair
) -> AsyncIterator[Columns]:
    """Compute a report and the period before a part at a time, each in a short read; by columns."""
    for first, end in pair.parts():
        async with read_tx() as tx:
            rows = await rows_of(tx, Part(pair.made, first, end), REPORTS[pair.report])
            beside = await _beside(tx, pair, rows, first, end)
        yield await asyncio.to_thread(_columns, rows, beside)


def _columns(rows: Sequence[Any], beside: Sequence[Sequence[Any]]) -> Columns:
    return list(zip(*((*row, *more) for row, more in zip(rows, beside, strict=True)), strict=True))


async def compared(tx: AsyncSession, scope: Scope, report: str, rows: Sequence[Any]) -> Compared:
    """Compare few rows, each with itself in the period before; only days that are over count."""
    found = await pair(tx, scope, report, is_at_once=True)
    beside = await _beside(tx, found, rows, 0, len(found.made.places))
    return Compared(columns_of(report), beside)


async def _beside(
    tx: AsyncSession, pair: Pair, rows: Sequence[Any], first: int, end: int
) -> Sequence[Sequence[Any]]:
    """Give what is set beside the rows of some places."""
    now, then = [
        await _by_class(tx, Part(each, first, end), pair.report, rows)
        for each in (pair.now, pair.then)
    ]
    return await asyncio.to_thread(_row_by_row, pair, rows, now, then)


def _row_by_row(
    pair: Pair, rows: Sequence[Any], now: "_Cut", then: "_Cut"
) -> Sequence[Sequence[Any]]:
    report, found = pair.report, []
    lengths = {
        slot.day_class: sum(1 for _ in slot.days) for slot in pair.now.slots.bases if slot.day_class
    }
    for row in rows:
        mine, theirs = (cut.figures_of(report, row) for cut in (now, then))
        beside: list[Any] = []
        for name in FIGURES[report]:
            came, was = both(report, name, mine, theirs)
            beside += [came, was, change(came, was)]
        spot = _spot_of(row)
        same = [each for each in lengths if now.knows(spot, each) and then.knows(spot, each)]
        beside += [sum(lengths[each] for each in same), pair.days_over]
        beside.append([each.value for each in lengths if each not in same])
        beside += then.heard.get(spot, _Heard()).shares
        found.append(beside)
    return found


def both(
    report: str, name: str, now: "_Figures", then: "_Figures"
) -> tuple[float | None, float | None]:
    """Give a figure of the days that can be compared, and what it was with the same mix of days.

    A share or a mean is that of the sums, before these are rounded. None where no class of days is
    known in both periods.
    """
    rate, enough = rate_of(report, name), ENOUGH.get((report, name))
    parts: Sequence[str] = (name, *(enough.names if enough else ())) if rate is None else rate.names
    mine, theirs = ({part: side.get(part, {}) for part in parts} for side in (now, then))
    classes = known_together(*mine.values(), *theirs.values())
    came = {part: total(mine[part], classes) for part in parts}
    was = {part: expected(theirs[part], mine[part], classes) for part in parts}
    if rate is not None:
        return rate.told(came), rate.told(was)
    known = [
        sums[name] if enough is None or is_counted(enough, sums) else None for sums in (came, was)
    ]
    return _told(name, known[0], 1_000), _told(name, known[1], 100)


def _told(name: str, value: float | None, places: int) -> float | None:
    """Give a duration in hours, as its name says, and a whole number as it is."""
    is_duration = name.endswith("_hours")
    if value is None or (isinstance(value, int) and not is_duration):
        return value
    return half_up(value, MS_PER_HOUR if is_duration else 1, places)


def _place_of(row: Any) -> Key:
    return row.station, row.unit, row.operating_model


def _spot_of(row: Any) -> Key:
    return (*_place_of(row), row.hour)


def row_key(row: Any) -> Key:
    """Say which row it is."""
    return (*_spot_of(row), getattr(row, "kind", None))


def _times(part: Part) -> Iterator[tuple[Key, Class]]:
    """Give the rows of a part, each of a place, perhaps an hour of the day, and a class of days."""
    hours: Sequence[int | None] = range(24) if part.frame.slots.by_hour else [None]
    for place in part.places:
        for slot in part.frame.slots.bases:
            assert slot.day_class is not None
            for hour in hours:
                yield (*_place_of(place), hour), slot.day_class


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


class _Days(NamedTuple):
    """How many days of a class are known at a place."""

    known: float
    recorded: float
    """Of which it is recorded what held."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A period by classes of days."""

    values: dict[Key, dict[Class, Sequence[Any]]]
    """For each row, in the order of ADDED."""
    days: dict[Key, dict[Class, _Days]]
    """For each place, and hour of the day where rows are of such."""
    heard: dict[Key, _Heard]
    """For the same."""

    def knows(self, spot: Key, day_class: Class) -> bool:
        """Say whether anything is known of a place on days of a class."""
        days = self.days.get(spot, {}).get(day_class)
        return days is not None and days.known > 0

    def figures_of(self, report: str, row: Any) -> _Figures:
        """Give what came of a row; of thousands, one at a time."""
        found: _Figures = {name: {} for name in ADDED[report]}
        days = self.days.get(_spot_of(row), {})
        for each, values in self.values.get(row_key(row), {}).items():
            known, recorded = days[each]
            for name, value in zip(ADDED[report], values, strict=True):
                found[name][each] = OnDays(recorded if name in OF_MODES else known, value)
        return found


async def _by_class(tx: AsyncSession, part: Part, report: str, rows: Sequence[Any]) -> _Cut:
    found = _Cut({}, {}, {})
    things = _things(part, rows)
    if not part.rows or (REPORTS[report].has_things and not things):
        return found
    columns, sums = await exact_of(tx, part, REPORTS[report], things)
    await asyncio.to_thread(_add, found, report, part, columns, sums)
    return found


def _things(part: Part, rows: Sequence[Any]) -> Mapping[FacilityKind, Ints]:
    """Say which kinds of things the report has rows of, and at which of the places."""
    number = {_place_of(place): number for number, place in enumerate(part.places)}
    found: dict[FacilityKind, Ints] = {}
    for row in rows:
        kind, place = getattr(row, "kind", None), number.get(_place_of(row))
        if kind is not None and place is not None:
            found.setdefault(kind, np.zeros(len(part.places), np.int64))[place] = 1
    return found


def _add(found: _Cut, report: str, part: Part, columns: Mapping[str, Column], sums: Sums) -> None:
    """Add the rows of a part, each of one class of days."""
    known = part.known.measured_ms / DAY_MS
    recorded = known * np.minimum(sums[C.RECORDED_MS] / np.maximum(part.known.known_ms, 1), 1)
    times = zip(_times(part), known.tolist(), recorded.tolist(), strict=True)
    for (spot, day_class), *days in times:
        found.days.setdefault(spot, {})[day_class] = _Days(*days)
    names = ("station", "unit", "operating_model", "hour")
    spots = zip(*(columns[name] for name in names), strict=True)
    kinds = columns.get("kind", [None] * len(columns["station"]))
    of_rows = zip(*(columns[name] for name in ADDED[report]), strict=True)
    each = zip(spots, kinds, columns["day_class"], of_rows, strict=True)
    for spot, kind, row_class, values in each:
        found.values.setdefault((*spot, kind), {})[Class(row_class)] = values
    length = {slot.day_class: sum(1 for _ in slot.days) for slot in part.frame.slots.bases}
    heard = part.known.shares, sums[C.ONLINE_MS], sums[C.COMMISSIONED_MS]
    told = zip(_times(part), *(column.tolist() for column in heard), strict=True)
    for (spot, day_class), share, online, commissioned in told:
        one = found.heard.setdefault(spot, _Heard())
        one.known += share * length[day_class]
        one.days += length[day_class]
        one.online_ms += online
        one.commissioned_ms += commissioned
