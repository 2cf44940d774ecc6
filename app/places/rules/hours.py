"""The hours a station announces, and their JSON."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

DAY_MIN = 24 * 60
"""Minutes of a day on the wall clock."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_REGULAR = frozenset({"regular"})
_SPECIAL = frozenset({"public_holiday", "makeup_workday"})
_ROW = frozenset({"opens", "closes"})
_WEEKLY_ROW = _ROW | {"weekday"}


@dataclass(frozen=True, slots=True)
class Span:
    """One window of a day, half-open, on the wall clock of the station.

    A window over midnight belongs to the day it starts; no window is longer than 24 hours.
    Raises `ValueError` for anything else.
    """

    opens_min: int
    """Minutes from local midnight, 0..1439."""
    closes_min: int
    """Minutes from the same midnight: after `opens_min`, over 1440 when past midnight."""

    def __post_init__(self) -> None:
        """Refuse what no row of hours can say."""
        longest = self.opens_min + DAY_MIN
        if not (0 <= self.opens_min < DAY_MIN and self.opens_min < self.closes_min <= longest):
            raise ValueError(f"no window of a day: {self.opens_min}..{self.closes_min} minutes")


@dataclass(frozen=True, slots=True)
class Hours:
    """The weekly windows of one kind (staffed or access), and what holds on special days."""

    regular: tuple[tuple[Span, ...], ...]
    """Seven days, Monday first."""
    public_holiday: tuple[Span, ...] | None = None
    """None: a public holiday is as its weekday. Empty: closed all day."""
    makeup_workday: tuple[Span, ...] | None = None
    """None: a make-up working day is as Monday. Empty: closed all day."""

    def __post_init__(self) -> None:
        """Refuse a week that has not seven days."""
        if len(self.regular) != len(WEEKDAYS):
            raise ValueError(f"a week has seven days, not {len(self.regular)}")


def parse_hours(data: Mapping[str, Any]) -> Hours:
    """Read the contract's Hours JSON.

    `closes` before `opens` runs over midnight and belongs to the day it starts; a window that
    closes at 00:00 closes at 24:00. Rows of one day may touch and must not overlap among
    themselves. A window over midnight may reach into a window of the next day: at night both
    hold, so the two together are their union, and a week of 20:00-08:00 beside 07:00-18:00 needs
    no cutting by hand.

    Raises `ValueError` with one sentence that names the day and the times, for an unknown or
    missing field, a weekday outside 1..7, a time that is not HH:MM (24:00 only closes), a window
    of length zero and overlapping rows.
    """
    _fields(data, "hours", required=_REGULAR, optional=_SPECIAL)
    week: list[list[Span]] = [[] for _ in WEEKDAYS]
    for row in _rows(data["regular"], "regular"):
        _fields(row, "a row of regular", required=_WEEKLY_ROW)
        weekday = row["weekday"]
        if type(weekday) is not int or not 1 <= weekday <= len(WEEKDAYS):
            raise ValueError(
                f"{row['opens']!s}-{row['closes']!s}: weekday is {weekday!r}, "
                "but must be 1 (Monday) to 7 (Sunday)."
            )
        week[weekday - 1].append(_span(row, WEEKDAYS[weekday - 1]))
    return Hours(
        tuple(_apart(spans, WEEKDAYS[index]) for index, spans in enumerate(week)),
        _special(data.get("public_holiday"), "public_holiday"),
        _special(data.get("makeup_workday"), "makeup_workday"),
    )


def hours_to_json(hours: Hours) -> dict[str, Any]:
    """Write hours as the contract's JSON; `parse_hours` gives back the same value."""
    return {
        "regular": [
            {"weekday": index + 1, **_span_to_json(span)}
            for index, spans in enumerate(hours.regular)
            for span in spans
        ],
        "public_holiday": _special_to_json(hours.public_holiday),
        "makeup_workday": _special_to_json(hours.makeup_workday),
    }


def _special(rows: object, day: str) -> tuple[Span, ...] | None:
    """Read the rows of a special day."""
    if rows is None:
        return None
    spans = []
    for row in _rows(rows, day):
        _fields(row, f"a row of {day}", required=_ROW)
        spans.append(_span(row, day))
    return _apart(spans, day)


def _rows(rows: object, day: str) -> Sequence[Any]:
    """Refuse what is no list."""
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise ValueError(f"{day} must be a list of windows.")
    return rows


def _fields(
    data: object,
    what: str,
    *,
    required: frozenset[str],
    optional: frozenset[str] = frozenset(),
) -> None:
    """Refuse missing and unknown fields."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be an object.")
    for name in sorted(required - data.keys()):
        raise ValueError(f"{what} has no {name}.")
    for name in sorted(str(key) for key in data.keys() - required - optional):
        raise ValueError(f"{what} has an unknown field {name!r}.")


def _span(row: Mapping[str, Any], day: str) -> Span:
    """Read one window."""
    opens, closes = row["opens"], row["closes"]
    opens_min, closes_min = _minutes(opens), _minutes(closes)
    if opens_min is None or opens_min == DAY_MIN:
        raise ValueError(f"{day}: opens is {opens!r}, but must be a time from 00:00 to 23:59.")
    if closes_min is None:
        raise ValueError(f"{day}: closes is {closes!r}, but must be a time from 00:00 to 24:00.")
    if closes_min <= opens_min:
        closes_min += DAY_MIN
    return Span(opens_min, closes_min)


def _minutes(text: object) -> int | None:
    """Read HH:MM or 24:00 as minutes from midnight."""
    if text == "24:00":
        return DAY_MIN
    if not isinstance(text, str) or (match := _TIME.fullmatch(text)) is None:
        return None
    return int(match[1]) * 60 + int(match[2])


def _apart(spans: list[Span], day: str) -> tuple[Span, ...]:
    """Put the windows of one day in order, and refuse those that overlap."""
    ordered = sorted(spans, key=lambda span: (span.opens_min, span.closes_min))
    for earlier, later in pairwise(ordered):
        if later.opens_min < earlier.closes_min:
            raise ValueError(f"{day}: {_words(later)} overlaps {_words(earlier)}.")
    return tuple(ordered)


def _special_to_json(spans: tuple[Span, ...] | None) -> list[dict[str, str]] | None:
    """Write the windows of a special day."""
    return None if spans is None else [_span_to_json(span) for span in spans]


def _span_to_json(span: Span) -> dict[str, str]:
    """Write one window."""
    closes = span.closes_min if span.closes_min <= DAY_MIN else span.closes_min - DAY_MIN
    return {"opens": _clock(span.opens_min), "closes": _clock(closes)}


def _words(span: Span) -> str:
    """Name a window as its row does."""
    return "{opens}-{closes}".format_map(_span_to_json(span))


def _clock(minutes: int) -> str:
    """Write minutes from midnight as HH:MM."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
