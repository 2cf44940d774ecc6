"""What people counters say: who went in and out, resets, and how far the count had drifted. Pure.

A counter's series is its own: it never changes a visit, and nothing of it is clamped away. Below
zero it is wrong, and the series says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counted:
    """A people counter's word: so many came in, or went out, or the count begins anew."""

    at: datetime
    delta: int
    reset_to: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a count stands at an instant."""

    inside: int = 0
    entries: int = 0
    """Persons in since the last reset."""


@dataclass(frozen=True, slots=True)
class Reset:
    """A count that began anew."""

    at: datetime
    counted: int
    """What it said just before."""
    reset_to: int
    entries: int
    """Persons in since the reset before."""

    @property
    def drift(self) -> int:
        """How far it was off; negative: it had counted too few."""
        return self.counted - self.reset_to

    @property
    def drift_per_100(self) -> float | None:
        """How far it was off, either way, for each hundred entries; None: nobody came in."""
        return round(100 * abs(self.drift) / self.entries, 1) if self.entries else None


@dataclass(slots=True)
class Hour:
    """An hour in which somebody was counted."""

    from_at: datetime
    people_in: int
    people_out: int
    inside: int
    """What the count said at its end."""


@dataclass(frozen=True, slots=True)
class Series:
    """What was counted in a time."""

    inside: int
    """What the count says at the end."""
    lowest: int
    """The least that it said; below zero it proves that it was wrong."""
    hours: list[Hour]
    resets: list[Reset]


def counted(words: Iterable[Counted], start: Standing, since: datetime) -> Series:
    """Add the words of a time up, in their order; hours are counted from `since`."""
    inside, lowest, entries = start.inside, start.inside, start.entries
    hours: list[Hour] = []
    resets: list[Reset] = []
    for word in words:
        from_at = since + (word.at - since) // HOUR * HOUR
        if not hours or hours[-1].from_at != from_at:
            hours.append(Hour(from_at, 0, 0, inside))
        if word.reset_to is not None:
            resets.append(Reset(word.at, inside, word.reset_to, entries))
            inside, entries = word.reset_to, 0
        else:
            inside += word.delta
            entries += max(word.delta, 0)
            hours[-1].people_in += max(word.delta, 0)
            hours[-1].people_out += max(-word.delta, 0)
        hours[-1].inside = inside
        lowest = min(lowest, inside)
    return Series(inside, lowest, hours, resets)
