"""What a comparison must say, recounted from raw rows by classes of days: slow, and plainly right.

Like `oracle.py` it shares no arithmetic with the product: fractions, and a line for each rule.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest

from app.places.rules import DayClass
from tests.reports import oracle
from tests.reports.oracle import Raw, Row

Number = Fraction | int
Sums = Mapping[str, Fraction]
CLASSES = ("workday", "weekend", "public_holiday")

HELD = {
    "visits": {"staffed_hours", "unstaffed_hours", "covered_hours"},
    "access": set[str](),
    "occupancy": {
        "staffed_hours",
        "covered_hours",
        "heads_only_hours",
        "reporting_hours",
        "seat_hours",
        "reporting_person_hours",
        "reporting_used_hours",
    },
    "facilities": {"standing_hours", "out_of_order_hours", "degraded_hours", "unknown_hours"},
    "promise": {"promised_hours", "usable_hours", "unknown_hours", "staffed_hours"},
}
"""What is only known of time of which it was recorded what held, by report."""

EXPECTED: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "visits": oracle.visits_of,
    "access": oracle.access_of,
    "occupancy": oracle.occupancy_of,
    "promise": oracle.promise_of,
}


@dataclass(frozen=True)
class Quotient:
    """A share or a mean of sums: how it is divided, what of, and to one of how many it is told."""

    parts: tuple[str, ...]
    divided: Callable[..., Fraction | None]
    places: int = 10_000
    enough: tuple[str, ...] = ()
    """What tells how well it is known: counted time, less what only heads tell, and free time."""


def by(part: Number, whole: Number) -> Fraction | None:
    return Fraction(part) / whole if whole > 0 else None


def plain(part: str, whole: str) -> Quotient:
    return Quotient((part, whole), by)


def mean(part: str, whole: str, unit: int, places: int) -> Quotient:
    return Quotient((part, whole), lambda a, b: by(a, b * unit), places)


def uplift(out: Number, unstaffed: Number, free: Number, staffed: Number) -> Fraction | None:
    if not (unstaffed and free and staffed):
        return None
    return Fraction(out) / unstaffed / (Fraction(free) / staffed)


SCANNED = ("covered_hours", "heads_only_hours", "staffed_hours")
HEADED = ("covered_hours", "staffed_hours")


def inside(part: str, whole: str) -> Quotient:
    return Quotient((part, whole), by, enough=SCANNED)


QUOTIENTS: Mapping[str, Mapping[str, Quotient]] = {
    "visits": {
        "offhours_share": plain("out_of_hours_visits", "visits"),
        "free_mode_coverage": plain("covered_hours", "staffed_hours"),
        "night_uplift": Quotient(
            ("out_of_hours_visits", "unstaffed_hours", "visits_free", "staffed_hours"),
            uplift,
            enough=HEADED,
        ),
        "dwell_mean_s": mean("stay_hours", "stays", 1_000, 100),
        "imputed_exit_share": plain("imputed_exits", "ended"),
    },
    "access": {
        "grant_rate": Quotient(("granted", "walk_in", "decided"), lambda a, b, c: by(a + b, c)),
        "open_success_rate": Quotient(
            ("executed", "opened", "with_contact", "granted"), lambda a, b, c, d: by(a + b - c, d)
        ),
        "proven_open_rate": plain("opened", "with_contact"),
    },
    "occupancy": {
        "free_mode_coverage": plain("covered_hours", "staffed_hours"),
        "avg_occupancy": inside("reporting_person_hours", "reporting_hours"),
        "avg_when_used": inside("reporting_person_hours", "reporting_used_hours"),
        "seat_utilization": inside("reporting_person_hours", "seat_hours"),
        "time_utilization": inside("reporting_used_hours", "reporting_hours"),
        "crowded_minutes": Quotient(("crowded_minutes",), Fraction, 1_000, SCANNED),
    },
    "facilities": {
        "uses_per_visit": plain("uses", "visits"),
        "availability": Quotient(
            ("standing_hours", "out_of_order_hours"), lambda a, b: by(a - b, a)
        ),
        "unknown_share": plain("unknown_hours", "standing_hours"),
        "repair_mean_min": mean("repair_hours", "repairs", 60_000, 10),
    },
    "promise": {
        "promise_rate": Quotient(
            ("usable_hours", "promised_hours", "unknown_hours"), lambda a, b, c: by(a, b - c)
        ),
        "unknown_share": plain("unknown_hours", "promised_hours"),
        "controller_uptime": Quotient(
            ("online_hours", "commissioned_hours", "unheard_hours"), lambda a, b, c: by(a, b - c)
        ),
        "mttr_min": mean("outage_hours", "outages", 60_000, 10),
    },
}
"""What is no sum, by report; durations are milliseconds here."""


def is_near(found: Any, wanted: Fraction | None, places: int) -> bool:
    """Whether a number is another, rounded to one of so many places."""
    if wanted is None or found is None:
        return wanted is None and found is None
    return abs(Fraction(found) - wanted) <= Fraction(1, 2 * places) + Fraction(1, 10**8)


@dataclass
class Side:
    """A place's row in one of two periods, cut into its classes of days that are over."""

    report: str
    kind: Any
    row: Row | None
    """None: in this period it is no place of the report."""
    days: Mapping[str, list[date]]

    def __post_init__(self) -> None:
        self.pieces = {
            each: replace(self.row, days=days)
            for each, days in self.days.items()
            if self.row is not None and days
        }
        self._values: dict[str, dict[str, Any]] = {}

    def known(self, day_class: str) -> Fraction:
        """Of how many of its days anything is known."""
        piece = self.pieces.get(day_class)
        return Fraction(piece.measured, 86_400) if piece else Fraction()

    def days_of(self, name: str, day_class: str) -> Fraction:
        """Of how many days a figure is."""
        piece, known = self.pieces.get(day_class), self.known(day_class)
        if piece is None or name not in HELD[self.report]:
            return known
        recorded = Fraction(piece.health("RECORDED_MS"), max(piece.known * 1_000, 1))
        return known * min(recorded, 1)

    def value(self, name: str, day_class: str) -> Number | None:
        """What came of a figure; durations in milliseconds. None: it is not known."""
        if day_class not in self.pieces:
            return None
        if day_class not in self._values:
            self._values[day_class] = self._counted(self.pieces[day_class])
        value = self._values[day_class][name]
        return None if value is None else Fraction(value)

    def _counted(self, piece: Row) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(oracle, "hours", lambda ms: ms)
            if self.report == "facilities":
                found = oracle.facilities_of(piece).get(self.kind) or self._unused(piece)
            else:
                found = EXPECTED[self.report](piece)
        if self.report == "occupancy":
            # Of how many days' free time who was inside is known is asked of all together.
            found["crowded_minutes"] = oracle.crowded_of(piece)
        return oracle.said(piece, found)

    def _unused(self, piece: Row) -> dict[str, Any]:
        """Give what is told of a kind on days on which nobody used any, and none stood there."""
        names = set(QUOTIENTS["facilities"]) | HELD["facilities"]
        names |= {"uses", "quantity", "in_use_hours", "repairs", "repair_hours"}
        came = sum(not visit.re_entry for visit in piece.of(piece.raw.visits))
        return dict.fromkeys(names, 0) | {"visits": came}

    def heard(self) -> Any:
        """Of the time with a controller, the share in which it was heard."""
        online, commissioned = (
            sum(piece.health(name) for piece in self.pieces.values())
            for name in ("ONLINE_MS", "COMMISSIONED_MS")
        )
        return oracle.share(online, commissioned)

    def known_share(self) -> float:
        """Of the days, the share that is known."""
        count = sum(len(piece.days) for piece in self.pieces.values())
        known = sum(piece.known_share * len(piece.days) for piece in self.pieces.values())
        return known / count if count else 0.0


def told(
    report: str, name: str, now: Side, then: Side
) -> tuple[tuple[Fraction | None, int], tuple[Fraction | None, int]]:
    """Give what came on the days that can be compared, and what came before with the same mix.

    Each beside the one of how many to which it is rounded.
    """
    quotient = QUOTIENTS[report].get(name)
    parts = (name,) if quotient is None else (*quotient.parts, *quotient.enough)
    together = [
        each
        for each in CLASSES
        if all(
            side.value(part, each) is not None and side.days_of(part, each) > 0
            for side in (now, then)
            for part in parts
        )
    ]
    places = 1_000, 100
    if quotient is not None and name != "crowded_minutes":
        places = quotient.places, quotient.places
    if not together:
        return (None, places[0]), (None, places[1])
    came: dict[str, Fraction] = {}
    was: dict[str, Fraction] = {}
    for part in parts:
        came[part] = was[part] = Fraction()
        for each in together:
            here, before = now.value(part, each), then.value(part, each)
            assert here is not None
            assert before is not None
            came[part] += here
            was[part] += Fraction(before) / then.days_of(part, each) * now.days_of(part, each)
    return (_of(quotient, name, came), places[0]), (_of(quotient, name, was), places[1])


def _of(quotient: Quotient | None, name: str, sums: Sums) -> Fraction | None:
    if quotient is None:
        return sums[name] / 3_600_000 if name.endswith("_hours") else sums[name]
    if quotient.enough:
        *counted, free = (sums[each] for each in quotient.enough)
        covered = counted[0] - sum(counted[1:])
        coverage = oracle.share(covered, free)  # type: ignore[arg-type]
        if coverage is not None and coverage < 0.5:
            return None
    return quotient.divided(*(sums[each] for each in quotient.parts))


def period_before(period: tuple[date, date]) -> tuple[date, date]:
    """Of whole months as many before, else as many days."""
    first, end = period
    if first.day > 1 or end.day > 1:
        return first - (end - first), first
    since, months = first, (end.year - first.year) * 12 + end.month - first.month
    for _ in range(months):
        since = (since - timedelta(days=1)).replace(day=1)
    return since, first


def by_class(
    period: tuple[date, date], until: date, calendar: Mapping[date, DayClass]
) -> dict[str, list[date]]:
    """Give a period's days that are over: workdays, among them those to make up, and others."""
    found: dict[str, list[date]] = {each: [] for each in CLASSES}
    day = period[0]
    while day < min(period[1], until):
        name = oracle.class_of(day, dict(calendar))
        found["workday" if name == "makeup_workday" else name].append(day)
        day += timedelta(days=1)
    return found


def key_of(row: Row) -> tuple[Any, ...]:
    """Say which row it is, among those of its report."""
    name = row.name
    return name["station"], name["unit"], name["operating_model"], name["hour"]


def sides(
    raw: Raw,
    rows: Sequence[Row],
    before: Sequence[Row],
    until: date,
    calendar: Mapping[date, DayClass],
) -> Callable[[Any, str, Any], tuple[Side, Side]]:
    """Give, by a row's key, its report and its kind of thing, the two periods of it."""
    at_now, at_then = ({key_of(row): row for row in each} for each in (rows, before))
    cut_now, cut_then = (
        by_class(each[0].period, until, calendar) if each else {} for each in (rows, before)
    )
    found: dict[Any, tuple[Side, Side]] = {}

    def at(key: Any, report: str, kind: Any) -> tuple[Side, Side]:
        asked = key, report, kind
        if asked not in found:
            found[asked] = (
                Side(report, kind, at_now.get(key), cut_now),
                Side(report, kind, at_then.get(key), cut_then),
            )
        return found[asked]

    return at
