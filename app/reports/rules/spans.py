"""Spans of local days that are counted as one: days, months, quarters, years. Pure."""

from collections.abc import Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple


class Grain(StrEnum):
    """A span of local days."""

    DAY = "day"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


LARGEST_FIRST = (Grain.YEAR, Grain.QUARTER, Grain.MONTH, Grain.DAY)


class Span(NamedTuple):
    """One span, by its first day."""

    grain: Grain
    from_day: date


def span_of(grain: Grain, day: date) -> date:
    """Give the first day of the span in which a day lies."""
    match grain:
        case Grain.DAY:
            return day
        case Grain.MONTH:
            return day.replace(day=1)
        case Grain.QUARTER:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case Grain.YEAR:
            return day.replace(month=1, day=1)


def span_end(grain: Grain, first: date) -> date:
    """Give the day after the last of a span."""
    if grain is Grain.DAY:
        return first + timedelta(days=1)
    months = {Grain.MONTH: 1, Grain.QUARTER: 3, Grain.YEAR: 12}[grain]
    years, month = divmod(first.month - 1 + months, 12)
    return date(first.year + years, month + 1, 1)


def cover(from_day: date, to_day: date, *, empty_from: date) -> Sequence[Span]:
    """Cover `[from_day, to_day)` by the fewest spans.

    From `empty_from` on there is nothing yet, so a span may reach beyond the period there: the
    year so far is one span.
    """
    found = []
    day, reaches = from_day, date.max if to_day >= empty_from else to_day
    while day < min(to_day, empty_from):
        for grain in LARGEST_FIRST:
            end = span_end(grain, day)
            if span_of(grain, day) == day and end <= reaches:
                found.append(Span(grain, day))
                day = end
                break
    return found


class Run(NamedTuple):
    """Spans of one grain, one after the other: a range of an index."""

    grain: Grain
    from_day: date
    to_day: date
    """The first day of the last span, plus one."""


def runs(spans: Sequence[Span]) -> Sequence[Run]:
    """Put spans together that follow each other."""
    found: list[Run] = []
    end = date.min
    for grain, day in sorted(spans, key=lambda span: (span.grain, span.from_day)):
        after = day + timedelta(days=1)
        if found and found[-1].grain is grain and end == day:
            found[-1] = found[-1]._replace(to_day=after)
        else:
            found.append(Run(grain, day, after))
        end = span_end(grain, day)
    return found
