"""A period beside the one before: equal days are compared, whatever holidays there were."""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.places.rules import Calendar, DayClass
from app.reports.catalogue import described
from app.reports.comparing import ADDED, FIGURES, both
from app.reports.rules import Class, Period, class_of
from app.reports.rules.comparison import (
    CLASSES,
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


Days = Mapping[Class, tuple[float, Any]]
"""Of each class, how many days are known, and what came on them; None: nobody knows."""


def on(days: Days) -> OnDays:
    """Give the same of one row."""
    each = [days.get(one, (0, None)) for one in CLASSES]
    known, values = zip(*each, strict=True)
    return OnDays(
        np.array(known, float)[:, None],
        np.array([value or 0 for value in values])[:, None],
        np.array([value is not None for value in values])[:, None],
    )


def beside(
    report: str, name: str, now: Mapping[str, Days], before: Mapping[str, Days]
) -> tuple[Any, Any]:
    sides = ({part: on(days) for part, days in side.items()} for side in (now, before))
    (came,), (was,) = both(report, name, *sides)
    return came, was


def together(*parts: Days) -> list[Class]:
    found = known_together(map(on, parts))[:, 0].tolist()
    return [each for each, is_known in zip(CLASSES, found, strict=True) if is_known]


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

    def of(period: Period) -> dict[Class, tuple[int, int]]:
        found: dict[Class, tuple[int, int]] = {}
        for slot in mixed(period, CALENDAR, until=date(2027, 1, 1)).bases:
            assert slot.day_class is not None
            days = len(list(slot.days))
            each = 10 if slot.day_class is Class.WORKDAY else 4
            found[slot.day_class] = days, each * days
        return found

    october = of(Period(date(2026, 10, 1), date(2026, 11, 1)))
    november = of(Period(date(2026, 11, 1), date(2026, 12, 1)))
    assert {each: days for each, (days, _) in october.items()} == {
        Class.WORKDAY: 18,
        Class.WEEKEND: 6,
        Class.PUBLIC_HOLIDAY: 7,
    }
    assert together(october, november) == [Class.WORKDAY, Class.WEEKEND]
    assert beside("visits", "visits", {"visits": november}, {"visits": october}) == (246, 246)
    # November has no holidays that could say anything about October's: of its other 24 days came
    # 204, and as many would have come in November.
    assert beside("visits", "visits", {"visits": october}, {"visits": november}) == (204, 204)


def test_days_of_which_nothing_is_known_now_are_not_compared_either() -> None:
    """Workdays of this period are not known: its weekends alone are compared, and are no loss."""
    before = {Class.WORKDAY: (20, 200), Class.WEEKEND: (8, 16)}
    now = {Class.WORKDAY: (22, None), Class.WEEKEND: (8, 20)}
    assert beside("visits", "visits", {"visits": now}, {"visits": before}) == (20, 16)
    # Nor are those of which nothing was known then.
    assert beside("visits", "visits", {"visits": before}, {"visits": now}) == (16, 20)
    nothing = {Class.WORKDAY: (22, None)}
    assert beside("visits", "visits", {"visits": nothing}, {"visits": before}) == (None, None)
    holiday = {Class.PUBLIC_HOLIDAY: (1, 5)}
    assert beside("visits", "visits", {"visits": holiday}, {"visits": before}) == (None, None)


def test_what_is_divided_and_by_what_are_of_the_same_days() -> None:
    """Modes of workdays are not recorded: their visits are not put over hours of weekends."""
    workdays, weekend = (20, 200), (8, 16)
    visits = {Class.WORKDAY: workdays, Class.WEEKEND: weekend}
    hours = {Class.WORKDAY: (20, None), Class.WEEKEND: (8, 64)}
    assert together(visits, hours) == [Class.WEEKEND]
    assert together(visits) == [Class.WORKDAY, Class.WEEKEND]
    assert together(visits, {}) == []


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
        name: {each: (5, value) for each, value in zip(classes, values, strict=True)}
        for name, values in here.items()
    }
    assert beside("visits", "night_uplift", now, now) == (1.5, 1.5)
    assert beside("visits", "free_mode_coverage", now, now) == (0.9, 0.9)
    assert beside("visits", "out_of_hours_visits", now, now) == (506, 506.0)
    assert beside("visits", "staffed_hours", now, now) == (10.0, 10.0)
    # Of the period before nobody knows what held at weekends either.
    then = now | {"staffed_hours": {Class.WEEKEND: (5, None)}}
    assert beside("visits", "night_uplift", now, then) == (None, None)
    nothing: dict[str, Days] = {name: {} for name in now}
    assert beside("visits", "night_uplift", nothing, now) == (None, None)


def test_holidays_do_not_make_a_share_worse() -> None:
    """On workdays 9 of 10 got in, on holidays 1 of 2; this period has as many of both.

    The period before, half workdays, says what these days would have come to: no share of shares.
    """
    before: dict[str, dict[Class, tuple[int, int]]] = {
        "granted": {Class.WORKDAY: (20, 180), Class.PUBLIC_HOLIDAY: (2, 2)},
        "walk_in": {Class.WORKDAY: (20, 0), Class.PUBLIC_HOLIDAY: (2, 0)},
        "decided": {Class.WORKDAY: (20, 200), Class.PUBLIC_HOLIDAY: (2, 4)},
    }
    now = {
        "granted": {Class.WORKDAY: (7, 63), Class.PUBLIC_HOLIDAY: (7, 7)},
        "walk_in": {Class.WORKDAY: (7, 0), Class.PUBLIC_HOLIDAY: (7, 0)},
        "decided": {Class.WORKDAY: (7, 70), Class.PUBLIC_HOLIDAY: (7, 14)},
    }
    rate = RATES["grant_rate"]
    over, was = beside("access", "grant_rate", now, before)
    # 182 of 204 is 0.8922; of seven workdays and seven holidays it is 70 of 84.
    assert (over, was, change(over, was)) == (0.8333, 0.8333, 0)
    sums = {name: sum(value for _, value in days.values()) for name, days in before.items()}
    assert rate.told(sums) == 0.8922
    # Where the period before had no holiday, the workdays alone are compared.
    for days in before.values():
        del days[Class.PUBLIC_HOLIDAY]
    assert beside("access", "grant_rate", now, before) == (0.9, 0.9)


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
    sides: list[dict[Class, tuple[int, int]]] = [{}, {}]
    for side, (days, found) in enumerate(zip((period, before), sides, strict=True)):
        for number, day in enumerate(days.days):
            each = MIX[class_of(CALENDAR, day)]
            known, value = found.get(each, (0, 0))
            found[each] = known + 1, value + counts[number][side]
    now, then = sides
    shared = [each for each in now if each in then]
    wanted = sum(Fraction(then[each][1]) / then[each][0] * now[each][0] for each in shared)
    assert set(together(now, then)) == set(shared)
    some = known_together([on(now), on(then)])
    (over,), (was,) = total(on(now), some), expected(on(then), on(now), some)
    assert (over, was) == (sum(now[each][1] for each in shared), pytest.approx(float(wanted)))
    assert change(5, None) is change(None, 5.0) is change(5, 0.0) is None
    assert change(6, 4.0) == 0.5
