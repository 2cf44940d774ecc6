"""When which mode holds, for whole arrays of instants: what `mode_at` says, looked up (law 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.places.rules import (
    CITY_ZONE,
    Because,
    Calendar,
    DayClass,
    Kind,
    StationRules,
    mode_at,
    mode_windows,
)
from app.places.rules.mode import HORIZON

Ints = NDArray[np.int64]

KINDS = tuple(Kind)
REASONS = tuple(Because)
"""Modes and their reasons stand in arrays as numbers into these."""

US = 1_000_000
MINUTE = 60 * US
DAY = 1440 * MINUTE
OFFSET = 8 * 60 * MINUTE
"""China has one zone, and no summer time since 1991."""

_SPAN = 1 << 52
"""More microseconds than any period has, so that one sorted array serves all timetables."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """Give an instant in microseconds of Unix time."""
    return (at - _EPOCH) // _MICROSECOND


def midnight(day: date) -> int:
    """Give the instant at which a local day begins, in microseconds of Unix time."""
    return (day - _EPOCH.date()).days * DAY - OFFSET


def instant_of(at: int) -> datetime:
    """Turn microseconds of Unix time into an instant."""
    return _EPOCH + timedelta(microseconds=at)


@dataclass(frozen=True, slots=True)
class Modes:
    """What holds at many instants."""

    kind: NDArray[Any]
    because: NDArray[Any]
    until: Ints
    known: NDArray[np.bool_]
    endless: NDArray[np.bool_]
    """Where the mode does not change within the horizon, so that `until` says nothing."""

    def taken(self, which: NDArray[Any]) -> "Modes":
        """Give some of them."""
        return Modes(
            self.kind[which],
            self.because[which],
            self.until[which],
            self.known[which],
            self.endless[which],
        )


class Timetable:
    """The modes of every kind of station over a period."""

    def __init__(
        self, rules: Sequence[StationRules], calendar: Calendar, from_day: date, until: date
    ) -> None:
        if any(each.timezone != CITY_ZONE for each in rules):
            raise ValueError(f"generated stations lie in {CITY_ZONE}")
        self._origin = midnight(from_day)
        begins: list[int] = []
        held: list[tuple[int, int, bool]] = []
        ends: list[int] = []
        for number, each in enumerate(rules):
            start = instant_of(self._origin)
            end = instant_of(midnight(until)) + HORIZON + timedelta(days=1)
            windows = mode_windows(each, calendar, start, end)
            changes = [
                (one.from_at, one.kind is not two.kind, two.from_at)
                for one, two in pairwise([*windows, windows[-1]])
            ]
            until_at, found = _SPAN - 1, []
            for _, differs, following in reversed(changes):
                until_at = micros(following) - self._origin if differs else until_at
                found.append(until_at)
            cuts = _new_years(calendar, from_day, until)
            for window, over in zip(windows, reversed(found), strict=True):
                inner = [cut for cut in cuts if window.from_at < cut < window.until_at]
                for at in (window.from_at, *inner):
                    begins.append(number * _SPAN + micros(at) - self._origin)
                    known = not cuts or mode_at(each, calendar, at).calendar_known
                    held.append((KINDS.index(window.kind), REASONS.index(window.because), known))
                    ends.append(over)
        self._begins = np.array(begins, np.int64)
        self._kinds = np.array([kind for kind, _, _ in held], np.int8)
        self._reasons = np.array([because for _, because, _ in held], np.int8)
        self._known = np.array([known for _, _, known in held], np.bool_)
        self._until = np.array(ends, np.int64)
        self._count = len(rules)

    def at(self, rules: NDArray[Any], instants: Ints) -> Modes:
        """Say what holds at stations with these rules (by number) at these instants."""
        since = instants - self._origin
        found = np.searchsorted(self._begins, rules * _SPAN + since, side="right") - 1
        until = self._until[found]
        endless = until - since >= HORIZON // _MICROSECOND
        return Modes(
            self._kinds[found],
            self._reasons[found],
            until + self._origin,
            self._known[found],
            endless,
        )

    def minutes(self, day: date) -> NDArray[Any]:
        """Give the kind that holds at each minute of a local day, one row for each of the rules."""
        instants = midnight(day) + np.arange(1440, dtype=np.int64) * MINUTE
        rules = np.repeat(np.arange(self._count, dtype=np.int64), 1440)
        return self.at(rules, np.tile(instants, self._count)).kind.reshape(self._count, 1440)


def _new_years(calendar: Calendar, from_day: date, until: date) -> list[datetime]:
    """Give the instants at which it may change whether the calendar is known.

    None where every year of the period has one. Else a window may go on over such a change: every
    half hour of a year's first day, when windows of the old year still end, and the very first.
    """
    years = range(from_day.year - 1, (until + HORIZON).year + 1)
    if calendar.years.issuperset(years[1:]) and from_day.timetuple().tm_yday > 1:
        return []
    return [
        instant_of(midnight(date(year, 1, 1)) + half * 30 * MINUTE)
        for year in years[1:]
        for half in range(49)
    ]


def day_class(calendar: Calendar, day: date) -> str:
    """Name what kind of day it is for those who work outside."""
    match calendar.day_class(day):
        case DayClass.PUBLIC_HOLIDAY:
            return "public_holiday"
        case DayClass.MAKEUP_WORKDAY:
            return "weekday"
        case None:
            return "weekend" if day.weekday() >= 5 else "weekday"
