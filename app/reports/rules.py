"""Arithmetic of reports: periods, rates, percentiles, the profile of an occupancy. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

BIN = timedelta(minutes=15)
"""The bins whose means give the peak (metrics 18)."""

LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open local days `[from_day, to_day)`; raises ValueError when empty or over 366 days."""

    from_day: date
    to_day: date

    def __post_init__(self) -> None:
        """Refuse what is no period."""
        if self.to_day <= self.from_day:
            raise ValueError("to must come after from; the day `to` itself is not included")
        if self.to_day - self.from_day > LONGEST:
            raise ValueError("a report covers at most 366 days")

    @property
    def days(self) -> Sequence[date]:
        """Every day of the period."""
        count = (self.to_day - self.from_day).days
        return [self.from_day + timedelta(days=number) for number in range(count)]

    def instants(self, timezone: str) -> tuple[datetime, datetime]:
        """Give the period as instants in UTC, at a station in this zone."""
        zone = ZoneInfo(timezone)
        start = datetime.combine(self.from_day, time.min, zone)
        end = datetime.combine(self.to_day, time.min, zone)
        return start.astimezone(UTC), end.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Completeness:
    """How much of what was asked for can be known."""

    days_asked: int
    days_over: int
    """Days that have passed everywhere; only they are complete."""
    days_begun: int
    """Days that are still going on: their figures will grow."""
    days_to_come: int
    share: float
    """days_over / days_asked."""


def completeness(period: Period, today: date) -> Completeness:
    """Say how complete a period can be on a day: the future is no data, and not zero (law 16)."""
    over = sum(1 for day in period.days if day < today)
    begun = sum(1 for day in period.days if day == today)
    asked = len(period.days)
    return Completeness(asked, over, begun, asked - over - begun, round(over / asked, 4))


def rate(part: float, whole: float) -> float | None:
    """Divide; None where there is nothing to divide by (metrics, conventions)."""
    return None if whole == 0 else round(part / whole, 4)


def nearest_rank(values: Iterable[float], percent: int) -> float | None:
    """Give a percentile by the nearest-rank method; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


def mean(values: Sequence[float]) -> float | None:
    """Give the arithmetic mean; None without values."""
    return round(sum(values) / len(values), 2) if values else None


@dataclass(frozen=True, slots=True)
class Stay:
    """So many persons inside during `[from_at, until_at)`."""

    from_at: datetime
    until_at: datetime
    persons: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What an occupancy was like over a time (metrics 16-20)."""

    person_seconds: float
    """The integral of the occupancy."""
    used_seconds: float
    """How long at least one person was inside."""
    peak: float
    """The greatest mean of a 15-minute bin."""
    peak_at: datetime | None
    """When the peak's bin began."""
    max_observed: int


def _steps(stays: Iterable[Stay], t0: datetime, t1: datetime) -> Iterator[tuple[datetime, int]]:
    """Give the instants at which the occupancy changes, and what it is from then on."""
    changes: dict[datetime, int] = {}
    for stay in stays:
        start, end = max(stay.from_at, t0), min(stay.until_at, t1)
        if start < end:
            changes[start] = changes.get(start, 0) + stay.persons
            changes[end] = changes.get(end, 0) - stay.persons
    inside = 0
    for at in sorted(changes):
        inside += changes[at]
        yield at, inside


def profile(stays: Iterable[Stay], t0: datetime, t1: datetime) -> Profile:
    """Integrate the stays over `[t0, t1)`; bins begin at t0."""
    steps = list(_steps(stays, t0, t1))
    bins: dict[int, float] = {}
    total = used = 0.0
    greatest = 0
    for (at, inside), (until, _) in pairwise(steps):
        if inside == 0:
            continue
        seconds = (until - at).total_seconds()
        total += inside * seconds
        used += seconds
        greatest = max(greatest, inside)
        _spread(bins, t0, at, until, inside)
    if not bins:
        return Profile(0.0, 0.0, 0.0, None, 0)
    index = min(bins, key=lambda number: (-bins[number], number))
    peak = bins[index] / BIN.total_seconds()
    return Profile(total, used, round(peak, 4), t0 + index * BIN, greatest)


def _spread(
    bins: dict[int, float], t0: datetime, at: datetime, until: datetime, inside: int
) -> None:
    """Add one level's person-seconds to the bins it lies in."""
    number = (at - t0) // BIN
    while at < until:
        end = min(t0 + (number + 1) * BIN, until)
        bins[number] = bins.get(number, 0.0) + inside * (end - at).total_seconds()
        at, number = end, number + 1
