"""What each share and mean is divided of and by, in fields of its row. Pure.

Of this the catalogue speaks, stations are ranked by it, and a period is compared with another: a
share of some days is that of their sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Sums = Mapping[str, float | None]
"""Fields by their names; durations as milliseconds, so that no digit is by chance."""

SHARE_PLACES = 10_000
"""Shares have four decimals."""
MS_PER_HOUR = 3_600_000

COVERAGE = 0.5
"""Below this share of counted staffed hours nobody can compare nights with them (metrics 13), and
of those in which somebody scanned nobody knows who was inside."""


class Measure(NamedTuple):
    """In what a rate is told."""

    milliseconds: int
    """How many of them are one; of what is no duration, one of what is divided."""
    places: int
    """To one of how many it is rounded, half up."""


PARTS = Measure(1, SHARE_PLACES)
SECONDS = Measure(1_000, 100)
MINUTES = Measure(60_000, 10)


def half_up(part: float, whole: float, places: int) -> float:
    """Divide, to one of so many places; of whole numbers, no digit is by chance."""
    return (2 * places * part + whole) // (2 * whole) / places


class Quotient(NamedTuple):
    """What is yet to be divided."""

    part: float
    whole: float


@dataclass(frozen=True, slots=True)
class Sum:
    """Some fields, less others."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Say it, as the catalogue prints it."""
        return " - ".join([" + ".join(self.plus), *self.minus])

    @property
    def names(self) -> tuple[str, ...]:
        """The fields it is made of."""
        return *self.plus, *self.minus

    def of(self, sums: Sums) -> Quotient | None:
        """Sum up; None where one of them is not known."""
        found: float = 0
        for names, sign in ((self.plus, 1), (self.minus, -1)):
            for name in names:
                one = sums[name]
                if one is None:
                    return None
                found += sign * one
        return Quotient(found, 1)


@dataclass(frozen=True, slots=True)
class Rate:
    """One sum by another; of two rates, how many times the second the first is."""

    numerator: "Sum | Rate"
    denominator: "Sum | Rate"
    measure: Measure = PARTS
    enough: "Rate | None" = None
    """Another rate that says how well this one is known: below COVERAGE it says nothing."""

    @property
    def words(self) -> str:
        """Say it, as the catalogue prints it."""
        return f"{self.numerator.words} / {self.denominator.words}"

    @property
    def names(self) -> tuple[str, ...]:
        """The fields it is made of, and that say whether it is known, each once."""
        more = self.enough.names if self.enough is not None else ()
        return tuple(dict.fromkeys((*self.numerator.names, *self.denominator.names, *more)))

    def of(self, sums: Sums) -> Quotient | None:
        """Divide what is to be divided; None where a part is not known, or by nothing itself."""
        part, whole = self.numerator.of(sums), self.denominator.of(sums)
        if part is None or whole is None or not part.whole or not whole.whole:
            return None
        return Quotient(part.part * whole.whole, part.whole * whole.part)

    def told(self, sums: Sums) -> float | None:
        """Give the rate of some sums; None where it is not known, and where it is by nothing."""
        if self.enough is not None and not is_counted(self.enough, sums):
            return None
        found = self.of(sums)
        if found is None or found.whole <= 0:
            return None
        return half_up(found.part, found.whole * self.measure.milliseconds, self.measure.places)


def is_counted(coverage: Rate, sums: Sums) -> bool:
    """Whether enough of the free time was counted; where there was none, nothing is missing."""
    found = coverage.of(sums)
    if found is None:
        return False
    share = coverage.told(sums)
    return share is None or share >= COVERAGE


def _rate(numerator: str, denominator: str, *, measure: Measure = PARTS, less: str = "") -> Rate:
    """Divide one field by another, perhaps less a third."""
    return Rate(Sum((numerator,)), Sum((denominator,), (less,) if less else ()), measure)


def _inside(numerator: str, denominator: str) -> Rate:
    """Divide what is said of who was inside."""
    return Rate(Sum((numerator,)), Sum((denominator,)), enough=SCANNED)


FREE_MODE_COVERAGE = _rate("covered_hours", "staffed_hours")
SCANNED = Rate(Sum(("covered_hours",), ("heads_only_hours",)), Sum(("staffed_hours",)))
"""The same without the heads that staff counted, which put nobody inside."""

RATES: Mapping[str, Rate] = {
    "offhours_share": _rate("out_of_hours_visits", "visits"),
    "free_mode_coverage": FREE_MODE_COVERAGE,
    "night_uplift": Rate(
        _rate("out_of_hours_visits", "unstaffed_hours"),
        _rate("visits_free", "staffed_hours"),
        enough=FREE_MODE_COVERAGE,
    ),
    "dwell_mean_s": _rate("stay_hours", "stays", measure=SECONDS),
    "imputed_exit_share": _rate("imputed_exits", "ended"),
    "grant_rate": Rate(Sum(("granted", "walk_in")), Sum(("decided",))),
    # At a door with a contact only the contact's word counts; at one without, the relay's.
    "open_success_rate": Rate(Sum(("executed", "opened"), ("with_contact",)), Sum(("granted",))),
    "proven_open_rate": _rate("opened", "with_contact"),
    "avg_occupancy": _inside("reporting_person_hours", "reporting_hours"),
    "avg_when_used": _inside("reporting_person_hours", "reporting_used_hours"),
    "seat_utilization": _inside("reporting_person_hours", "seat_hours"),
    "time_utilization": _inside("reporting_used_hours", "reporting_hours"),
    "uses_per_visit": _rate("uses", "visits"),
    "availability": Rate(
        Sum(("standing_hours",), ("out_of_order_hours",)), Sum(("standing_hours",))
    ),
    "unknown_share": _rate("unknown_hours", "standing_hours"),
    "repair_mean_min": _rate("repair_hours", "repairs", measure=MINUTES),
    "visits_per_seat": _rate("visits", "capacity"),
    "promise_rate": _rate("usable_hours", "promised_hours", less="unknown_hours"),
    "controller_uptime": _rate("online_hours", "commissioned_hours", less="unheard_hours"),
    "mttr_min": _rate("outage_hours", "outages", measure=MINUTES),
    "visits_share": _rate("visits", "all_visits"),
    "occupation_share": _rate("visits", "told_visits"),
}
"""By their names in the reports."""

RATES_OF: Mapping[tuple[str, str], Rate] = {
    ("promise", "unknown_share"): _rate("unknown_hours", "promised_hours"),
}
"""Where one name means another thing in one report."""


ENOUGH: Mapping[tuple[str, str], Rate] = {("occupancy", "crowded_minutes"): SCANNED}
"""What says of a figure that is no rate, and adds up, how well it is known: as of rates."""


def rate_of(report: str, name: str) -> Rate | None:
    """Say what a field of a report is divided of and by; None where it is no rate."""
    return RATES_OF.get((report, name), RATES.get(name))
