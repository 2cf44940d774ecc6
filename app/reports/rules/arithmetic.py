"""Arithmetic of reports: periods, rates, percentiles, the profile of an occupancy. Pure."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
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


class Life(NamedTuple):
    """During which time a station can have data: registered, not retired, not yet to come."""

    from_at: datetime
    until_at: datetime

    def seconds_in(self, t0: datetime, t1: datetime) -> float:
        """Give how many seconds of `[t0, t1)` it has."""
        return max(0.0, (min(self.until_at, t1) - max(self.from_at, t0)).total_seconds())


def known_of(
    lives: Mapping[Life, int], t0: datetime, t1: datetime
) -> tuple[float, datetime, datetime]:
    """Give the share of so many stations' time in `[t0, t1)` that is known, and from when to when.

    Four decimals, but never 0 for something nor 1 for less than all.
    """
    whole = sum(lives.values()) * (t1 - t0).total_seconds()
    known = sum(life.seconds_in(t0, t1) * count for life, count in lives.items())
    living = [life for life in lives if life.seconds_in(t0, t1) > 0]
    if not living or whole <= 0:
        return 0.0, t0, t0
    share = 1.0 if known >= whole else min(max(round(known / whole, 4), 0.0001), 0.9999)
    since = max(t0, min(life.from_at for life in living))
    return share, since, min(t1, max(life.until_at for life in living))


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


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """Give a percentile of sorted values by the nearest-rank method."""
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


class Spread(NamedTuple):
    """What many values are like: their mean, and percentiles by nearest rank; None without any."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Summarise values."""
    if not values:
        return Spread()
    ordered = sorted(values)
    return Spread(
        round(math.fsum(ordered) / len(ordered), 2),
        *(nearest_rank(ordered, percent) for percent in (50, 90, 95, 99)),
    )


class Inside(NamedTuple):
    """So many persons inside during `[from_at, until_at)`."""

    from_at: datetime
    until_at: datetime
    persons: int


class Slot(NamedTuple):
    """A piece of time that is measured."""

    from_at: datetime
    until_at: datetime


@dataclass(slots=True)
class Profile:
    """What an occupancy was like over a slot (metrics 16-20)."""

    person_seconds: float = 0.0
    """The integral of the occupancy."""
    used_seconds: float = 0.0
    """How long at least one person was inside."""
    peak: float = 0.0
    """The greatest mean of a 15-minute bin; the last bin may be cut by the slot's end."""
    peak_at: datetime | None = None
    """When the peak's bin began; the first of equals."""
    max_observed: int = 0


class Meter:
    """Turns stays, in order of their beginning, into the profile of each slot.

    It holds who is inside and one bin, never the stays: a city's month streams through it.
    Slots are in order and do not overlap; bins begin at their slot's beginning.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.profiles = [Profile() for _ in slots]
        self._slots = slots
        self._slot = 0
        self._bin = -1
        self._bin_seconds = 0.0
        self._leaving: list[tuple[datetime, int]] = []
        self._inside = 0
        self._since = datetime.min.replace(tzinfo=UTC)

    def add(self, stay: Inside) -> None:
        """Take one stay in; it begins no sooner than the one before."""
        if stay.until_at <= stay.from_at:
            return
        self._advance(stay.from_at)
        self._inside += stay.persons
        heapq.heappush(self._leaving, (stay.until_at, stay.persons))

    def finish(self) -> Sequence[Profile]:
        """Let everybody leave; gives one profile per slot."""
        if self._leaving:
            self._advance(max(until for until, _ in self._leaving))
        self._close_bin()
        return self.profiles

    def _advance(self, to: datetime) -> None:
        while self._leaving and self._leaving[0][0] <= to:
            until, persons = heapq.heappop(self._leaving)
            self._level(until)
            self._inside -= persons
        self._level(to)

    def _level(self, until: datetime) -> None:
        """Note that so many were inside since the last change."""
        since, self._since = self._since, until
        if self._inside == 0 or until <= since:
            return
        while self._slot < len(self._slots) and self._slots[self._slot].from_at < until:
            slot = self._slots[self._slot]
            start, end = max(since, slot.from_at), min(until, slot.until_at)
            if start < end:
                self._note(slot, start, end)
            if slot.until_at > until:
                return
            self._close_bin()
            self._slot += 1

    def _note(self, slot: Slot, start: datetime, end: datetime) -> None:
        profile = self.profiles[self._slot]
        seconds = (end - start).total_seconds()
        profile.person_seconds += self._inside * seconds
        profile.used_seconds += seconds
        profile.max_observed = max(profile.max_observed, self._inside)
        while start < end:
            number = (start - slot.from_at) // BIN
            if number != self._bin:
                self._close_bin()
                self._bin = number
            until = min(slot.from_at + (number + 1) * BIN, end)
            self._bin_seconds += self._inside * (until - start).total_seconds()
            start = until

    def _close_bin(self) -> None:
        if self._bin >= 0:
            slot, profile = self._slots[self._slot], self.profiles[self._slot]
            began = slot.from_at + self._bin * BIN
            length = (min(began + BIN, slot.until_at) - began).total_seconds()
            mean_inside = round(self._bin_seconds / length, 4)
            if mean_inside > profile.peak:
                profile.peak, profile.peak_at = mean_inside, began
        self._bin, self._bin_seconds = -1, 0.0
