"""Into which rows a report falls: its places, and the pieces of time that each row is about. Pure.

A row is about a place and a slot of time. A slot is made of ranges of days, such as all Mondays of
the period, and may be cut into the hours of the day.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import TypeVar

from app.places.rules import Calendar
from app.reports.rules.arithmetic import Period


class By(StrEnum):
    """What a report has one row for: places first, then pieces of time of the whole scope."""

    STATION = "station"
    UNIT = "unit"
    """Of a unit the stations that it keeps itself."""
    BRANCH = "branch"
    """Each unit directly below the place that was asked about, with everything below it."""
    OPERATING_MODEL = "operating_model"
    ALL = "all"
    HOUR = "hour"
    DAY = "day"
    WEEKDAY = "weekday"
    DAY_CLASS = "day_class"
    WEEK = "week"
    MONTH = "month"

    @property
    def is_place(self) -> bool:
        """Whether rows are places, which a bucket cuts into pieces of time."""
        return self in (By.STATION, By.UNIT, By.BRANCH, By.OPERATING_MODEL, By.ALL)

    @property
    def is_unit(self) -> bool:
        """Whether rows are units."""
        return self in (By.UNIT, By.BRANCH)


class Bucket(StrEnum):
    """Into what pieces of time each row is cut."""

    HOUR = "hour"
    """Every hour of every day."""
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    HOUR_OF_DAY = "hour_of_day"
    """Each of the 24, of all days together."""
    WEEKDAY = "weekday"
    DAY_CLASS = "day_class"

    @property
    def is_hours(self) -> bool:
        """Whether its pieces are hours."""
        return self in (Bucket.HOUR, Bucket.HOUR_OF_DAY)


class Class(StrEnum):
    """What kind of day it is, by the calendar; in a year without data by its weekday alone."""

    WORKDAY = "workday"
    WEEKEND = "weekend"
    PUBLIC_HOLIDAY = "public_holiday"
    MAKEUP_WORKDAY = "makeup_workday"


def is_by_class(by: By, bucket: Bucket | None) -> bool:
    """Say whether rows are cut by what kind of days there are."""
    return by is By.DAY_CLASS or bucket is Bucket.DAY_CLASS


def class_of(calendar: Calendar, day: date) -> Class:
    """Say what kind of day it is."""
    special = calendar.day_class(day)
    if special is not None:
        return Class(special.value)
    return Class.WORKDAY if day.isoweekday() < 6 else Class.WEEKEND


@dataclass(frozen=True, slots=True)
class Slot:
    """A piece of time: its name, and its days as ranges `[first, end)` in order."""

    ranges: Sequence[tuple[date, date]]
    day: date | None = None
    """Of a day, a week (its Monday) or a month (its first), even if the period begins later."""
    weekday: int | None = None
    """1 is Monday."""
    day_class: Class | None = None

    @property
    def days(self) -> Iterator[date]:
        """Every day of it."""
        for first, end in self.ranges:
            for number in range((end - first).days):
                yield first + timedelta(days=number)


@dataclass(frozen=True, slots=True)
class Slots:
    """The pieces of time of a report."""

    bases: Sequence[Slot]
    by_hour: bool
    """Whether each is cut into the 24 hours of the day."""

    @property
    def count(self) -> int:
        """How many rows each place has."""
        return len(self.bases) * (24 if self.by_hour else 1)


def slots(period: Period, by: By, bucket: Bucket | None, calendar: Calendar) -> Slots:
    """Cut a period; raises ValueError where the two make no sense together."""
    if by.is_place:
        kinds = {Bucket.HOUR: By.DAY, Bucket.HOUR_OF_DAY: By.ALL}
        kind = By.ALL if bucket is None else kinds.get(bucket) or By(bucket.value)
    elif (bucket is Bucket.HOUR and by is not By.HOUR) or bucket is None:
        kind = by
    else:
        raise ValueError(
            f"rows by {by.value} cannot be cut by {bucket.value}: rows of time are cut by hour, "
            "and rows of places (station, unit, branch, operating_model, all) by any bucket"
        )
    by_hour = by is By.HOUR or (bucket is not None and bucket.is_hours)
    return Slots(_bases(period, kind, calendar), by_hour)


def _bases(period: Period, kind: By, calendar: Calendar) -> Sequence[Slot]:
    days = period.days
    match kind:
        case By.DAY:
            return [Slot(ranges_of([day]), day) for day in days]
        case By.WEEK:
            weeks = _grouped(days, [day - timedelta(days=day.weekday()) for day in days])
            return [Slot(ranges_of(each), monday) for monday, each in weeks.items()]
        case By.MONTH:
            months = _grouped(days, [day.replace(day=1) for day in days])
            return [Slot(ranges_of(each), first) for first, each in months.items()]
        case By.WEEKDAY:
            found = _grouped(days, [day.isoweekday() for day in days])
            return [Slot(ranges_of(found[number]), weekday=number) for number in sorted(found)]
        case By.DAY_CLASS:
            of = _grouped(days, [class_of(calendar, day) for day in days])
            return [Slot(ranges_of(of[each]), day_class=each) for each in Class if each in of]
        case _:
            return [Slot(ranges_of(days))]


Name = TypeVar("Name")


def _grouped(days: Sequence[date], names: Sequence[Name]) -> dict[Name, list[date]]:
    found: dict[Name, list[date]] = {}
    for day, name in zip(days, names, strict=True):
        found.setdefault(name, []).append(day)
    return found


def ranges_of(days: Sequence[date]) -> Sequence[tuple[date, date]]:
    """Put days that follow each other together."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and found[-1][1] == day:
            found[-1] = (found[-1][0], day + timedelta(days=1))
        else:
            found.append((day, day + timedelta(days=1)))
    return found
