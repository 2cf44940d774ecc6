"""A period beside the one before it, on the same mix of days (metrics 48). Pure.

A month with ten days of holidays is not worse than the month before because fewer came on them. So
what came on workdays, weekends and holidays is taken as means per day of each, and the means of the
period before are weighted with the days of this one: that is what it would have been. Days at work
to make up for a holiday are workdays. Days of a class that only one of the periods has are left
out: New Year's Day makes nobody unable to compare the rest of January with December.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.places.rules import Calendar
from app.reports.rules.arithmetic import Period
from app.reports.rules.slots import Class, Slot, Slots, class_of, ranges_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

MIX: Mapping[Class, Class] = {
    Class.WORKDAY: Class.WORKDAY,
    Class.MAKEUP_WORKDAY: Class.WORKDAY,
    Class.WEEKEND: Class.WEEKEND,
    Class.PUBLIC_HOLIDAY: Class.PUBLIC_HOLIDAY,
}
CLASSES = (Class.WORKDAY, Class.WEEKEND, Class.PUBLIC_HOLIDAY)
"""In the order of the arrays here."""


def period_before(period: Period) -> Period:
    """Give the period before: of whole months as many months, else as many days."""
    first, end = period.from_day, period.to_day
    if first.day == 1 and end.day == 1:
        months = (end.year - first.year) * 12 + end.month - first.month
        years, month = divmod(first.year * 12 + first.month - 1 - months, 12)
        return Period(date(years, month + 1, 1), first)
    return Period(first - (end - first), first)


def is_known(calendar: Calendar, *periods: Period) -> bool:
    """Say whether the calendar has every day; where it has none, days are as their weekdays say."""
    return all(calendar.knows(day) for period in periods for day in period.days)


def mixed(period: Period, calendar: Calendar, *, until: date, by_hour: bool = False) -> Slots:
    """Cut a period into its workdays, weekends and holidays; only days that are over."""
    days: dict[Class, list[date]] = {each: [] for each in CLASSES}
    for day in period.days:
        if day < until:
            days[MIX[class_of(calendar, day)]].append(day)
    some = [each for each in CLASSES if days[each]]
    return Slots([Slot(ranges_of(days[each]), day_class=each) for each in some], by_hour)


class OnDays(NamedTuple):
    """What came of some rows on the days of each class: arrays [class, row]."""

    days: Floats
    """How many of them are known."""
    value: Values
    """Whole numbers, or parts of them; nought where nothing is known."""
    is_known: Bools


def known_together(parts: Iterable[OnDays]) -> Bools:
    """Say of which classes of days something is known of each part; these can be compared.

    The parts are those of a figure in both periods. So what is divided and by what are of the same
    days, and days of a class that one period has none of are left out of both.
    """
    together: Bools = np.logical_and.reduce([part.is_known & (part.days > 0) for part in parts])
    return together


def expected(before: OnDays, now: OnDays, together: Bools) -> Floats:
    """Give what the period before comes to with this period's days of some classes, row by row.

    It is not rounded: shares are made of it.
    """
    days = np.where(before.days > 0, before.days, 1)
    found: Floats = np.where(together, before.value * (now.days / days), 0.0).sum(axis=0)
    return found


def total(now: OnDays, together: Bools) -> Values:
    """Sum up what came on the days of some classes, row by row."""
    found: Values = np.where(together, now.value, 0).sum(axis=0)
    return found


def change(value: float | None, before: float | None) -> float | None:
    """Say by what part of it a value differs from the one before; None where that is nought."""
    return None if value is None or not before else round(value / before - 1, 4)
