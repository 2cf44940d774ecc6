"""Rows of a report beside those of the period before, on the same mix of days (metrics 48)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import FacilityKind
from app.reports.columns import Column, Ints
from app.reports.frame import AT_ONCE, MOST_STREAMED, Frame, Part, frame
from app.reports.progress import progress
from app.reports.queries import REPORTS, Columns, exact_of, fewest, part_columns
from app.reports.rules import Bucket, By, rate
from app.reports.rules.comparison import (
    CLASSES,
    Bools,
    Floats,
    OnDays,
    Values,
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
        "head_counts",
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
    # Of the same places: perhaps below another root then, of which nothing is told any more.
    roots = made.scope.told_roots
    asked = replace(scope, period=period_before(scope.period), told_roots=roots)
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
    report = REPORTS[pair.report]
    for first, end in pair.parts():
        async with read_tx() as tx:
            columns = await part_columns(tx, Part(pair.made, first, end), report)
            named = dict(zip(report.row._fields, columns, strict=True))
            beside = await _beside(tx, pair, _keys_of(named), first, end)
        yield [*columns, *beside]


async def compared(tx: AsyncSession, scope: Scope, report: str, rows: Sequence[Any]) -> Compared:
    """Compare few rows, each with itself in the period before; only days that are over count."""
    found = await pair(tx, scope, report, is_at_once=True)
    keys = list(map(row_key, rows))
    beside = await _beside(tx, found, keys, 0, len(found.made.places))
    return Compared(columns_of(report), list(zip(*beside, strict=True)))


async def _beside(
    tx: AsyncSession, pair: Pair, keys: Sequence[Key], first: int, end: int
) -> Columns:
    """Give what is set beside rows of some places, by columns."""
    now, then = [
        await _by_class(tx, Part(each, first, end), pair.report, keys)
        for each in (pair.now, pair.then)
    ]
    return await asyncio.to_thread(_column_by_column, pair, now, then)


def _column_by_column(pair: Pair, now: "_Cut", then: "_Cut") -> Columns:
    found = list[Column]()
    for name in FIGURES[pair.report]:
        came, was = both(pair.report, name, now, then)
        found += [came, was, list(map(change, came, was))]
    lengths = {base.day_class: len(list(base.days)) for base in pair.now.slots.bases}
    days = np.array([lengths.get(each, 0) for each in CLASSES])
    same = (now.known > 0) & (then.known > 0)
    found += [(days @ same).tolist(), [pair.days_over] * same.shape[1]]
    mine = [number for number, each in enumerate(CLASSES) if each in lengths]
    found.append(
        [[CLASSES[number].value for number in mine if not line[number]] for line in same.T.tolist()]
    )
    return [*found, *then.heard]


Side = Mapping[str, OnDays]
"""What came of each figure, by its name."""


def both(report: str, name: str, now: "Side | _Cut", then: "Side | _Cut") -> tuple[Column, Column]:
    """Give a figure of the days that can be compared, and what it was with the same mix of days.

    A share or a mean is that of the sums, before these are rounded. None where no class of days is
    known in both periods.
    """
    rate, enough = rate_of(report, name), ENOUGH.get((report, name))
    parts: Sequence[str] = (name, *(enough.names if enough else ())) if rate is None else rate.names
    mine, theirs = ({part: side[part] for part in parts} for side in (now, then))
    together = known_together([*mine.values(), *theirs.values()])
    came = {part: total(mine[part], together).tolist() for part in parts}
    was = {part: expected(theirs[part], mine[part], together).tolist() for part in parts}
    is_told: Sequence[bool] = np.any(together, axis=0).tolist()

    def told(sums: Mapping[str, float], places: int) -> float | None:
        if rate is not None:
            return rate.told(sums)
        if enough is not None and not is_counted(enough, sums):
            return None
        return _told(name, sums[name], places)

    def column(sums: Mapping[str, Column], places: int) -> Column:
        lines = zip(*sums.values(), strict=True)
        return [
            told(dict(zip(parts, line, strict=True)), places) if is_known else None
            for line, is_known in zip(lines, is_told, strict=True)
        ]

    return column(came, 1_000), column(was, 100)


def _told(name: str, value: float, places: int) -> float:
    """Give a duration in hours, as its name says, and a whole number as it is."""
    is_duration = name.endswith("_hours")
    if isinstance(value, int) and not is_duration:
        return value
    return half_up(value, MS_PER_HOUR if is_duration else 1, places)


def row_key(row: Any) -> Key:
    """Say which row it is."""
    return row.station, row.unit, row.operating_model, row.hour, getattr(row, "kind", None)


def _keys_of(columns: Mapping[str, Column]) -> Sequence[Key]:
    """Say the same of many rows."""
    names = ("station", "unit", "operating_model", "hour")
    kinds = columns.get("kind", [None] * len(columns["station"]))
    return list(zip(*(columns[name] for name in names), kinds, strict=True))


@dataclass(frozen=True, slots=True)
class _Cut:
    """A period by classes of days, of some rows: arrays [class, row]."""

    known: Floats
    """How many days are known at the row's place, in its hour of the day."""
    recorded: Floats
    """Of how many of these it is recorded what held."""
    heard: Columns
    """Of the time, the share that is known; of the time with a controller, that it was heard."""
    values: Mapping[str, tuple[Values, Bools]]
    """What came of each figure, and whether that is known; durations are milliseconds."""

    def __getitem__(self, name: str) -> OnDays:
        """Give what came of a figure, and of how many days it is."""
        return OnDays(self.recorded if name in OF_MODES else self.known, *self.values[name])


async def _by_class(tx: AsyncSession, part: Part, report: str, keys: Sequence[Key]) -> _Cut:
    things = _things(part, keys)
    if not part.rows or (REPORTS[report].has_things and not things):
        none = np.zeros((len(CLASSES), len(keys)))
        nothing = none, none.astype(bool)
        empty: Columns = [[None] * len(keys)] * 2
        return _Cut(none, none, empty, dict.fromkeys(ADDED[report], nothing))
    columns, sums = await exact_of(tx, part, REPORTS[report], things)
    return await asyncio.to_thread(_cut, report, part, columns, sums, keys)


def _things(part: Part, keys: Sequence[Key]) -> Mapping[FacilityKind, Ints]:
    """Say which kinds of things the report has rows of, and at which of the places."""
    number = {place.key: number for number, place in enumerate(part.places)}
    found: dict[FacilityKind, Ints] = {}
    for *place, _, kind in keys:
        at = number.get(tuple(place))
        if kind is not None and at is not None:
            found.setdefault(kind, np.zeros(len(part.places), np.int64))[at] = 1
    return found


def _cut(
    report: str, part: Part, columns: Mapping[str, Column], sums: Sums, keys: Sequence[Key]
) -> _Cut:
    """Find the rows of a part, each of one class of days, for rows of the report."""
    known = part.known.measured_ms / DAY_MS
    recorded = known * np.minimum(sums[C.RECORDED_MS] / np.maximum(part.known.known_ms, 1), 1)
    rows = {key: number for number, key in enumerate(keys)}
    row = np.array([rows.get(key, -1) for key in _keys_of(columns)], np.int64)
    of = np.array([_NUMBER[each] for each in columns["day_class"]], np.int64)
    mine = row >= 0
    at = of[mine], row[mine]
    values = {name: _spread(columns[name], mine, at, len(keys)) for name in ADDED[report]}
    spots = _Spots.of(part, keys)
    return _Cut(spots.by_class(known), spots.by_class(recorded), spots.heard(part, sums), values)


_NUMBER = {each.value: number for number, each in enumerate(CLASSES)}


def _spread(column: Column, mine: Bools, at: tuple[Ints, Ints], rows: int) -> tuple[Values, Bools]:
    """Lay a column out by class and row, and say where anything is known."""
    each = np.array([value or 0 for value in column])
    found = np.zeros((len(CLASSES), rows), each.dtype), np.zeros((len(CLASSES), rows), bool)
    found[0][at] = each[mine]
    found[1][at] = np.array([value is not None for value in column], bool)[mine]
    return found


@dataclass(frozen=True, slots=True)
class _Spots:
    """Where rows have their place and hour among all of a part, whatever else tells them apart."""

    shape: tuple[int, int, int]
    """Places, classes of days, hours."""
    classes: Sequence[int]
    spot: Ints
    """Of each row; behind the last where its place is not there."""

    @classmethod
    def of(cls, part: Part, keys: Sequence[Key]) -> "_Spots":
        """Find them."""
        number = {place.key: number for number, place in enumerate(part.places)}
        bases, hours = part.frame.slots.bases, 24 if part.frame.slots.by_hour else 1
        classes = [CLASSES.index(base.day_class) for base in bases if base.day_class]
        gone = len(part.places)
        found = [
            number.get((station, unit, model), gone) * hours + (hour or 0)
            for station, unit, model, hour, _ in keys
        ]
        return cls((gone, len(bases), hours), classes, np.array(found, np.int64))

    def by_class(self, column: npt.NDArray[Any]) -> Floats:
        """Give of rows by classes of days what each row has, class by class."""
        places, bases, hours = self.shape
        found = np.zeros((len(CLASSES), (places + 1) * hours))
        found[self.classes, : places * hours] = (
            column.reshape(self.shape).swapaxes(0, 1).reshape(bases, -1)
        )
        return found[:, self.spot]

    def heard(self, part: Part, sums: Sums) -> Columns:
        """Say how complete the days are, all classes together."""
        lengths = np.array([len(list(base.days)) for base in part.frame.slots.bases])
        known = (part.known.shares.reshape(self.shape) * lengths[:, None]).sum(axis=1)
        online, commissioned = (
            sums[key].reshape(self.shape).sum(axis=1) for key in (C.ONLINE_MS, C.COMMISSIONED_MS)
        )
        each = [
            list(map(rate, known.ravel().tolist(), [int(lengths.sum())] * known.size)),
            list(map(rate, online.ravel().tolist(), commissioned.ravel().tolist())),
        ]
        beyond: Column = [None] * self.shape[2]
        return [list(map([*column, *beyond].__getitem__, self.spot.tolist())) for column in each]
