"""Periods, spans that cover them, slots of time, exact shares and percentiles."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.places.rules import Calendar, DayClass
from app.reports.columns import rounded, share, shown
from app.reports.rules import (
    Branch,
    Bucket,
    By,
    Class,
    Grain,
    Period,
    Span,
    branches,
    class_of,
    completeness,
    cover,
    rate,
    roots_of,
    runs,
    slots,
    span_end,
    span_of,
)


def days(first: int, last: int) -> Period:
    return Period(date(2026, 11, first), date(2026, 11, last))


def test_a_period_is_half_open_local_days() -> None:
    period = days(1, 3)
    assert [day.day for day in period.days] == [1, 2]
    start, end = period.instants("Asia/Shanghai")
    assert start == datetime(2026, 10, 31, 16, tzinfo=UTC)
    assert end == datetime(2026, 11, 2, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date(2026, 11, 2), date(2026, 11, 2)),
        (date(2026, 11, 2), date(2026, 11, 1)),
        (date(2026, 1, 1), date(2027, 1, 3)),
    ],
)
def test_no_period_is_empty_or_longer_than_a_leap_year(first: date, last: date) -> None:
    with pytest.raises(ValueError, match=r"to must come after from|at most 366 days"):
        Period(first, last)


def test_the_longest_period_is_a_leap_year() -> None:
    assert len(Period(date(2028, 1, 1), date(2029, 1, 1)).days) == 366


@pytest.mark.parametrize(
    ("today", "over", "begun", "to_come"),
    [(1, 0, 1, 3), (3, 2, 1, 1), (5, 4, 0, 0), (30, 4, 0, 0)],
)
def test_days_to_come_are_no_data(today: int, over: int, begun: int, to_come: int) -> None:
    found = completeness(days(1, 5).days, date(2026, 11, today))
    assert (found.days_over, found.days_begun, found.days_to_come) == (over, begun, to_come)
    assert found.days_asked == 4
    assert (found.days_counted, found.share) == (over, over / 4)


def test_days_that_nobody_counted_yet_are_over_and_not_complete() -> None:
    found = completeness(days(1, 5).days, date(2026, 11, 5), date(2026, 11, 3))
    assert (found.days_over, found.days_counted, found.share) == (4, 2, 0.5)
    # What was counted today is counted until today, whatever the clock of the counting said.
    found = completeness(days(1, 5).days, date(2026, 11, 3), date(2026, 11, 5))
    assert (found.days_over, found.days_counted) == (2, 2)


def test_a_day_before_anything_is_wholly_to_come() -> None:
    assert completeness(days(5, 7).days, date(2026, 11, 1)).days_to_come == 2


def test_nothing_divided_is_no_rate() -> None:
    assert rate(0, 0) is None
    assert rate(0, 3) == 0.0
    assert rate(1, 3) == 0.3333


NEVER = date(2100, 1, 1)
some_day = st.dates(date(2023, 11, 1), date(2027, 3, 31))


def days_of(spans: Sequence[Span]) -> list[date]:
    found = []
    for grain, first in spans:
        assert span_of(grain, first) == first
        count = (span_end(grain, first) - first).days
        found += [first + timedelta(days=number) for number in range(count)]
    return found


@given(first=some_day, length=st.integers(1, 800))
def test_a_cover_has_every_day_once_and_no_fewer_spans_do(first: date, length: int) -> None:
    end = first + timedelta(days=length)
    spans = cover(first, end, empty_from=NEVER)
    assert days_of(spans) == [first + timedelta(days=number) for number in range(length)]
    # A span of a larger grain that fits is in the cover, so nothing could be put together.
    for grain in Grain:
        day = span_of(grain, first)
        while day < end:
            if first <= day and span_end(grain, day) <= end:
                larger = [span for span in spans if span.from_day <= day]
                assert span_end(*larger[-1]) >= span_end(grain, day)
            day = span_end(grain, day)


def test_the_year_so_far_is_one_span() -> None:
    year = Span(Grain.YEAR, date(2026, 1, 1))
    today = date(2026, 11, 24)
    assert cover(date(2026, 1, 1), today, empty_from=today) == [year]
    assert cover(date(2026, 1, 1), date(2026, 11, 26), empty_from=today) == [year]
    spans = cover(date(2026, 1, 1), date(2026, 11, 23), empty_from=today)
    assert [span.grain for span in spans[:4]] == [Grain.QUARTER] * 3 + [Grain.MONTH]
    assert len(spans) == 4 + 22
    assert cover(today, date(2026, 12, 1), empty_from=today) == []


@given(first=some_day, length=st.integers(1, 500))
def test_runs_are_the_same_spans(first: date, length: int) -> None:
    spans = cover(first, first + timedelta(days=length), empty_from=NEVER)
    found = []
    for grain, day, end in runs(spans):
        while day < end:
            found.append(Span(grain, day))
            day = span_end(grain, day)
    assert sorted(found) == sorted(spans)
    assert len(runs(spans)) <= 6


def test_days_fall_to_classes_by_the_calendar_and_else_by_their_weekday() -> None:
    festival, makeup = date(2026, 10, 1), date(2026, 10, 10)
    calendar = Calendar(
        {festival: DayClass.PUBLIC_HOLIDAY, makeup: DayClass.MAKEUP_WORKDAY}, frozenset({2026})
    )
    assert class_of(calendar, festival) is Class.PUBLIC_HOLIDAY
    assert class_of(calendar, makeup) is Class.MAKEUP_WORKDAY
    assert class_of(calendar, date(2026, 10, 17)) is Class.WEEKEND
    assert class_of(calendar, date(2027, 10, 1)) is Class.WORKDAY


@pytest.mark.parametrize(("by", "bucket"), [(by, b) for by in By for b in (None, *Bucket)])
def test_every_day_of_a_period_is_in_exactly_one_slot(by: By, bucket: Bucket | None) -> None:
    period = Period(date(2026, 9, 28), date(2026, 11, 4))
    calendar = Calendar({}, frozenset())
    if not by.is_place and bucket is not None and (bucket is not Bucket.HOUR or by is By.HOUR):
        with pytest.raises(ValueError, match="cannot be cut by"):
            slots(period, by, bucket, calendar)
        return
    found = slots(period, by, bucket, calendar)
    assert sorted(day for base in found.bases for day in base.days) == list(period.days)
    assert found.by_hour == (bucket in (Bucket.HOUR, Bucket.HOUR_OF_DAY) or by is By.HOUR)
    assert found.count == len(found.bases) * (24 if found.by_hour else 1)


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    calendar = Calendar({}, frozenset())
    period = Period(date(2026, 10, 30), date(2026, 11, 3))  # Friday to Monday.
    weeks = slots(period, By.WEEK, None, calendar).bases
    assert [base.day for base in weeks] == [date(2026, 10, 26), date(2026, 11, 2)]
    months = slots(period, By.STATION, Bucket.MONTH, calendar).bases
    assert [base.day for base in months] == [date(2026, 10, 1), date(2026, 11, 1)]
    assert [len(list(base.days)) for base in months] == [2, 2]


counts = st.integers(0, 10**17)


@given(part=counts, whole=counts)
def test_shares_are_rounded_half_up_exactly(part: int, whole: int) -> None:
    (found,) = rounded(np.array([part]), np.array([whole]))
    if whole:
        exact = Fraction(part, whole) * 10_000
        # The whole number is exact; beyond 2**53 the float that it is told as is not.
        assert found == float(int(exact + Fraction(1, 2))) / 10_000


def test_a_share_is_never_nothing_for_something_nor_all_for_less() -> None:
    parts, wholes = np.array([0, 1, 999_999, 7, 0]), np.array([9, 10**6, 10**6, 7, 0])
    assert share(parts, wholes).tolist() == [0.0, 0.0001, 0.9999, 1.0, 0.0]


def test_what_is_not_known_is_none() -> None:
    assert shown(np.array([0, 1]), np.array([True, False])) == [0, None]


def test_each_unit_belongs_to_the_row_of_one_branch() -> None:
    """A city with two districts, of which the first has a street with a block; and another city."""
    city, near, far, street, block, other = map(uuid.UUID, (str(n) * 32 for n in range(6)))
    above = {block: street, street: near, near: city, far: city, city: None, other: None}

    def rows(*roots: uuid.UUID) -> dict[uuid.UUID, Branch]:
        return dict(branches(above, roots))

    assert rows(city) == {
        city: Branch(city, is_own=True),
        near: Branch(near),
        far: Branch(far),
        street: Branch(near),
        block: Branch(near),
    }
    assert rows(near) == {
        near: Branch(near, is_own=True),
        street: Branch(street),
        block: Branch(street),
    }
    assert rows(block) == {block: Branch(block, is_own=True)}
    mine = (city, near, far, street, block)
    assert rows(city, other) == dict.fromkeys(mine, Branch(city)) | {other: Branch(other)}
    assert rows() == {unit: Branch(unit, is_own=True) for unit in above}

    def counted(*homes: uuid.UUID) -> list[uuid.UUID]:
        return list(roots_of(above, [city, other], homes))

    assert counted(block) == counted(city, near) == [city]
    assert counted(other, uuid.uuid4()) == [other]
    assert counted(far, other) == counted() == [city, other]
