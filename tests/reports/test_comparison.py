"""A period beside the one before: equal days are compared, whatever holidays there were."""

import re
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.places.rules import Calendar, DayClass
from app.reports.catalogue import described
from app.reports.comparing import ADDED, FIGURES, both
from app.reports.rules import Class, Period, class_of
from app.reports.rules.comparison import (
    MIX,
    OnDays,
    change,
    expected,
    known_together,
    mixed,
    period_before,
    total,
)
from app.reports.rules.rates import MS_PER_HOUR, RATES, rate_of

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
    assert known_together(october, november) == [Class.WORKDAY, Class.WEEKEND]
    assert both("visits", "visits", {"visits": november}, {"visits": october}) == (246, 246)
    # November has no holidays that could say anything about October's: of its other 24 days came
    # 204, and as many would have come in November.
    assert both("visits", "visits", {"visits": october}, {"visits": november}) == (204, 204)


def test_days_of_which_nothing_is_known_now_are_not_compared_either() -> None:
    """Workdays of this period are not known: its weekends alone are compared, and are no loss."""
    before = {Class.WORKDAY: OnDays(20, 200), Class.WEEKEND: OnDays(8, 16)}
    now = {Class.WORKDAY: OnDays(22, None), Class.WEEKEND: OnDays(8, 20)}
    assert both("visits", "visits", {"visits": now}, {"visits": before}) == (20, 16)
    # Nor are those of which nothing was known then.
    assert both("visits", "visits", {"visits": before}, {"visits": now}) == (16, 20)
    nothing = {Class.WORKDAY: OnDays(22, None)}
    assert both("visits", "visits", {"visits": nothing}, {"visits": before}) == (None, None)
    holiday = {Class.PUBLIC_HOLIDAY: OnDays(1, 5)}
    assert both("visits", "visits", {"visits": holiday}, {"visits": before}) == (None, None)


def test_what_is_divided_and_by_what_are_of_the_same_days() -> None:
    """Modes of workdays are not recorded: their visits are not put over hours of weekends."""
    workdays, weekend = OnDays(20, 200), OnDays(8, 16)
    visits = {Class.WORKDAY: workdays, Class.WEEKEND: weekend}
    hours = {Class.WORKDAY: OnDays(20, None), Class.WEEKEND: OnDays(8, 64)}
    assert known_together(visits, hours) == [Class.WEEKEND]
    assert known_together(visits) == [Class.WORKDAY, Class.WEEKEND]
    assert known_together(visits, {}) == []


def test_visits_of_days_without_modes_are_not_put_over_the_hours_of_others() -> None:
    """Nights of weekends alone are compared, where nobody recorded which mode held on workdays."""
    hour = MS_PER_HOUR
    here: dict[str, tuple[Any, Any]] = {
        "out_of_hours_visits": (500, 6),
        "unstaffed_hours": (None, 8 * hour),
        "visits_free": (90, 5),
        "staffed_hours": (None, 10 * hour),
        "covered_hours": (None, 9 * hour),
    }
    classes = (Class.WORKDAY, Class.WEEKEND)
    now = {
        name: {each: OnDays(5, value) for each, value in zip(classes, values, strict=True)}
        for name, values in here.items()
    }
    assert both("visits", "night_uplift", now, now) == (1.5, 1.5)
    assert both("visits", "free_mode_coverage", now, now) == (0.9, 0.9)
    assert both("visits", "out_of_hours_visits", now, now) == (506, 506.0)
    assert both("visits", "staffed_hours", now, now) == (10.0, 10.0)
    # Of the period before nobody knows what held at weekends either.
    then = now | {"staffed_hours": {Class.WEEKEND: OnDays(5, None)}}
    assert both("visits", "night_uplift", now, then) == (None, None)
    assert both("visits", "night_uplift", {}, now) == (None, None)


def test_holidays_do_not_make_a_share_worse() -> None:
    """On workdays 9 of 10 got in, on holidays 1 of 2; this period has as many of both.

    The period before, half workdays, says what these days would have come to: no share of shares.
    """
    before = {
        "granted": {Class.WORKDAY: OnDays(20, 180), Class.PUBLIC_HOLIDAY: OnDays(2, 2)},
        "walk_in": {Class.WORKDAY: OnDays(20, 0), Class.PUBLIC_HOLIDAY: OnDays(2, 0)},
        "decided": {Class.WORKDAY: OnDays(20, 200), Class.PUBLIC_HOLIDAY: OnDays(2, 4)},
    }
    now = {
        "granted": {Class.WORKDAY: OnDays(7, 63), Class.PUBLIC_HOLIDAY: OnDays(7, 7)},
        "walk_in": {Class.WORKDAY: OnDays(7, 0), Class.PUBLIC_HOLIDAY: OnDays(7, 0)},
        "decided": {Class.WORKDAY: OnDays(7, 70), Class.PUBLIC_HOLIDAY: OnDays(7, 14)},
    }
    rate = RATES["grant_rate"]
    over, was = both("access", "grant_rate", now, before)
    # 182 of 204 is 0.8922; of seven workdays and seven holidays it is 70 of 84.
    assert (over, was, change(over, was)) == (0.8333, 0.8333, 0)
    classes = [Class.WORKDAY, Class.PUBLIC_HOLIDAY]
    assert rate.told({name: total(days, classes) for name, days in before.items()}) == 0.8922
    # Where the period before had no holiday, the workdays alone are compared.
    for days in before.values():
        del days[Class.PUBLIC_HOLIDAY]
    assert both("access", "grant_rate", now, before) == (0.9, 0.9)


def test_shares_and_means_are_compared_and_what_does_not_add_is_not() -> None:
    for one in described():
        rates = {field.name for field in one.fields if field.numerator is not None}
        by_names = {field.name: field for field in one.fields}
        if one.report not in FIGURES:
            assert not one.compared
            continue
        assert rates <= set(one.compared)
        assert not {*ADDED[one.report]} & rates
        for name in one.compared:
            assert not re.search("median|p[59][05]|p99|peak|unique|max_|units|_at$", name)
            assert name.endswith("_hours") is (by_names[name].unit == "hours")
            rate = rate_of(one.report, name)
            # Whoever wants to know what a share before is made of finds it in the same row.
            assert set(rate.names if rate else ()) <= set(ADDED[one.report])
        percentiles = {name for name in by_names if re.search("median|_p[59]|peak", name)}
        assert not percentiles & set(one.compared)


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
    shared = [each for each in now if each in then]
    wanted = sum(
        Fraction(then[each].value or 0) / int(then[each].days) * int(now[each].days)
        for each in shared
    )
    over, was = total(now, shared), expected(then, now, shared)
    assert set(known_together(now, then)) == set(shared)
    assert (over, was) == (
        (sum(now[each].value or 0 for each in shared), pytest.approx(float(wanted)))
        if shared
        else (None, None)
    )
    assert change(5, None) is change(None, 5.0) is change(5, 0.0) is None
    assert change(6, 4.0) == 0.5
