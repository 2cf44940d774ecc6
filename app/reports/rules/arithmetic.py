"""Arithmetic of reports: periods, how complete they are, rates. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

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
    """Days that have passed everywhere."""
    days_counted: int
    """Of these, those that were counted since; only they are complete."""
    days_begun: int
    """Days that are still going on: their figures will grow."""
    days_to_come: int
    share: float
    """days_counted / days_asked."""


def completeness(
    days: Sequence[date], today: date, counted_until: date | None = None
) -> Completeness:
    """Say how complete days can be as of one: the future is no data, and not zero (law 16).

    Days from `counted_until` on are not counted yet; None: whatever is over is counted.
    """
    over = sum(1 for day in days if day < today)
    counted = over
    if counted_until is not None:
        counted = sum(1 for day in days if day < min(today, counted_until))
    begun = sum(1 for day in days if day == today)
    asked = len(days)
    to_come = asked - over - begun
    return Completeness(asked, over, counted, begun, to_come, round(counted / asked, 4))


def rate(part: float, whole: float) -> float | None:
    """Divide; None where there is nothing to divide by (metrics, conventions)."""
    return None if whole == 0 else round(part / whole, 4)


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """Give a percentile of sorted values by the nearest-rank method."""
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]
