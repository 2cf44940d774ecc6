"""A period beside the one before it, on the same mix of days (metrics 48). Pure.

A month with ten days of holidays is not worse than the month before because fewer came on them. So
what came on workdays, weekends and holidays is taken as means per day of each, and the means of the
period before are weighted with the days of this one: that is what it would have been. Days at work
to make up for a holiday are workdays.
"""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from app.places.rules import Calendar
from app.reports.rules.arithmetic import Period
from app.reports.rules.slots import Class, Slot, Slots, class_of, ranges_of

MIX: Mapping[Class, Class] = {
    Class.WORKDAY: Class.WORKDAY,
    Class.MAKEUP_WORKDAY: Class.WORKDAY,
    Class.WEEKEND: Class.WEEKEND,
    Class.PUBLIC_HOLIDAY: Class.PUBLIC_HOLIDAY,
}
CLASSES = (Class.WORKDAY, Class.WEEKEND, Class.PUBLIC_HOLIDAY)


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
    """What came on the days of one class."""

    days: float
    """How many of them are known."""
    value: float | None


ByClass = Mapping[Class, OnDays]


def known_together(parts: Mapping[str, ByClass]) -> Mapping[str, ByClass]:
    """Leave of each part the days of a class of which all of them are known.

    What is divided and by what are then of the same days.
    """
    known = [
        {each for each, mine in part.items() if mine.days and mine.value is not None}
        for part in parts.values()
    ]
    same = set.intersection(*known)
    return {
        name: {each: mine for each, mine in part.items() if each in same}
        for name, part in parts.items()
    }


def expected(before: ByClass, now: ByClass) -> float | None:
    """Give what the period before comes to with this period's days.

    Of its days of which anything is known, as in `total`. None where some of these are of a class
    of which nothing is known before. It is not rounded: shares are made of it.
    """
    found = 0.0
    known = {each: mine for each, mine in now.items() if mine.days and mine.value is not None}
    for each, mine in known.items():
        was = before.get(each)
        if was is None or was.value is None or not was.days:
            return None
        found += was.value * (mine.days / was.days)
    return found if known else None


def total(now: ByClass) -> float | None:
    """Sum up what came on the known days; None where none is."""
    values = [mine.value for mine in now.values() if mine.days and mine.value is not None]
    return sum(values) if values else None


def change(value: float | None, before: float | None) -> float | None:
    """Say by what part of it a value differs from the one before; None where that is nought."""
    return None if value is None or not before else round(value / before - 1, 4)
