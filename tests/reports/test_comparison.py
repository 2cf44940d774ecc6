"""A period beside the one before: equal days are compared, whatever holidays there were."""

from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.places.rules import Calendar, DayClass
from app.reports.rules import Class, Period, class_of
from app.reports.rules.comparison import (
    MIX,
    OnDays,
    change,
    expected,
    mixed,
    period_before,
    total,
)

GOLDEN_WEEK = {date(2026, 10, day): DayClass.PUBLIC_HOLIDAY for day in range(1, 8)}
CALENDAR = Calendar(GOLDEN_WEEK | {date(2026, 10, 10): DayClass.MAKEUP_WORKDAY}, frozenset({2026}))


@pytest.mark.parametrize(
    ("period", "before"),
    [
        (("2026-11-01", "2026-12-01"), ("2026-10-01", "2026-11-01")),
        (("2026-01-01", "2026-04-01"), ("2025-10-01", "2026-01-01")),
        (("2026-03-01", "2026-04-01"), ("2026-02-01", "2026-03-01")),
        (("2026-11-02", "2026-11-09"), ("2026-10-26", "2026-11-02")),
        (("2026-11-23", "2026-11-24"), ("2026-11-22", "2026-11-23")),
    ],
)
def test_the_period_before_is_as_many_months_or_else_as_many_days(
    period: tuple[str, str], before: tuple[str, str]
) -> None:
    asked = Period(*map(date.fromisoformat, period))
    assert period_before(asked) == Period(*map(date.fromisoformat, before))


def test_holidays_do_not_make_a_month_worse() -> None:
    """Ten come on a workday and four on any other day, in September and in October alike."""

    def of(period: Period) -> dict[Class, OnDays]:
        found: dict[Class, OnDays] = {}
        for slot in mixed(period, CALENDAR, until=date(2027, 1, 1)).bases:
            assert slot.day_class is not None
            days = len(list(slot.days))
            each = 10 if slot.day_class is Class.WORKDAY else 4
            found[slot.day_class] = OnDays(days, each * days)
        return found

    october = of(Period(date(2026, 10, 1), date(2026, 11, 1)))
    november = of(Period(date(2026, 11, 1), date(2026, 12, 1)))
    assert {each: mine.days for each, mine in october.items()} == {
        Class.WORKDAY: 18,
        Class.WEEKEND: 6,
        Class.PUBLIC_HOLIDAY: 7,
    }
    assert (total(october), total(november)) == (232, 246)
    assert expected(october, november) == 246
    assert change(total(november), expected(october, november)) == 0
    # November has no holidays that could say anything about October's.
    assert expected(november, october) is None


def test_days_of_which_nothing_is_known_now_are_not_compared_either() -> None:
    """Workdays of this period are not known: its weekends alone are compared, and are no loss."""
    before = {Class.WORKDAY: OnDays(20, 200), Class.WEEKEND: OnDays(8, 16)}
    now = {Class.WORKDAY: OnDays(22, None), Class.WEEKEND: OnDays(8, 20)}
    assert (total(now), expected(before, now)) == (20, 16)
    assert change(total(now), expected(before, now)) == 0.25
    nothing = {Class.WORKDAY: OnDays(22, None)}
    assert (total(nothing), expected(before, nothing)) == (None, None)


def test_a_day_that_is_not_over_is_not_compared() -> None:
    month = Period(date(2026, 10, 1), date(2026, 11, 1))
    slots = mixed(month, CALENDAR, until=date(2026, 10, 9))
    assert [(slot.day_class, len(list(slot.days))) for slot in slots.bases] == [
        (Class.WORKDAY, 1),
        (Class.PUBLIC_HOLIDAY, 7),
    ]
    assert mixed(month, CALENDAR, until=date(2026, 10, 1)).count == 0


values = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=20, max_size=20)


@settings(deadline=None)
@given(values, st.integers(0, 20))
def test_the_means_of_each_class_of_days_are_weighted_with_the_days_of_this_period(
    counts: list[tuple[int, int]], start: int
) -> None:
    period = Period(
        date(2026, 10, 1) + timedelta(days=start), date(2026, 10, 21) + timedelta(start)
    )
    before = period_before(period)
    sides: list[dict[Class, OnDays]] = [{}, {}]
    for side, (days, found) in enumerate(zip((period, before), sides, strict=True)):
        for number, day in enumerate(days.days):
            each = MIX[class_of(CALENDAR, day)]
            old = found.get(each, OnDays(0, 0))
            assert old.value is not None
            found[each] = OnDays(old.days + 1, old.value + counts[number][side])
    now, then = sides
    if set(now) <= set(then):
        wanted = sum(
            Fraction(then[each].value or 0) / int(then[each].days) * int(mine.days)
            for each, mine in now.items()
        )
        assert expected(then, now) == pytest.approx(float(wanted), abs=0.006)
    else:
        assert expected(then, now) is None
    assert change(5, None) is change(None, 5.0) is change(5, 0.0) is None
    assert change(6, 4.0) == 0.5
