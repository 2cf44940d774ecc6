"""Periods, what can be known, spreads, and the meter against a count minute by minute."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reports.rules import (
    Inside,
    Life,
    Meter,
    Period,
    Profile,
    Slot,
    Spread,
    completeness,
    known_of,
    nearest_rank,
    rate,
    spread,
)

T0 = datetime(2026, 11, 1, tzinfo=UTC)


def minute(number: int) -> datetime:
    return T0 + timedelta(minutes=number)


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
    found = completeness(days(1, 5), date(2026, 11, today))
    assert (found.days_over, found.days_begun, found.days_to_come) == (over, begun, to_come)
    assert found.days_asked == 4
    assert found.share == over / 4


def test_a_day_before_anything_is_wholly_to_come() -> None:
    assert completeness(days(5, 7), date(2026, 11, 1)).days_to_come == 2


def test_nothing_divided_is_no_rate() -> None:
    assert rate(0, 0) is None
    assert rate(0, 3) == 0.0
    assert rate(1, 3) == 0.3333


def test_percentiles_are_by_nearest_rank() -> None:
    ordered = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [nearest_rank(ordered, percent) for percent in (5, 30, 40, 50, 100)] == [
        15.0,
        20.0,
        20.0,
        35.0,
        50.0,
    ]


def test_a_spread_of_nothing_is_nothing() -> None:
    assert spread([]) == Spread(None, None, None, None, None)
    assert spread([3.0, 1.0]) == Spread(2.0, 1.0, 3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ({}, (0.0, 0, 0)),
        ({(0, 100): 1}, (1.0, 0, 100)),
        ({(-50, 200): 3}, (1.0, 0, 100)),
        ({(25, 100): 1}, (0.75, 25, 100)),
        ({(0, 100): 1, (50, 60): 1}, (0.55, 0, 100)),
        ({(100, 200): 1}, (0.0, 0, 0)),
        ({(90, 10): 1}, (0.0, 0, 0)),
        ({(0, 1): 1, (200, 300): 999_999}, (0.0001, 0, 1)),
        ({(0, 100): 999_999, (1, 100): 1}, (0.9999, 0, 100)),
    ],
)
def test_the_known_share_is_of_all_stations_time(
    lives: dict[tuple[int, int], int], expected: tuple[float, int, int]
) -> None:
    given_lives = {Life(minute(a), minute(b)): count for (a, b), count in lives.items()}
    share, since, until = known_of(given_lives, minute(0), minute(100))
    assert (share, since, until) == (expected[0], minute(expected[1]), minute(expected[2]))


def by_minutes(stays: list[Inside], slot: Slot) -> Profile:
    """Count minute by minute who is inside: slow, and plainly right."""
    found = Profile()
    length = int((slot.until_at - slot.from_at) / timedelta(minutes=1))
    inside = [
        sum(
            stay.persons
            for stay in stays
            if stay.from_at <= slot.from_at + timedelta(minutes=number) < stay.until_at
        )
        for number in range(length)
    ]
    found.person_seconds = 60.0 * sum(inside)
    found.used_seconds = 60.0 * sum(1 for persons in inside if persons)
    found.max_observed = max(inside, default=0)
    for first in range(0, length, 15):
        part = inside[first : first + 15]
        mean = round(sum(part) / len(part), 4)
        if mean > found.peak:
            found.peak, found.peak_at = mean, slot.from_at + timedelta(minutes=first)
    return found


some_stays = st.lists(
    st.builds(
        lambda start, length, persons: Inside(minute(start), minute(start + length), persons),
        start=st.integers(-60, 200),
        length=st.sampled_from([0, 1, 14, 15, 16, 60, 61, 300]),
        persons=st.integers(1, 5),
    ),
    max_size=12,
)
some_slots = st.lists(st.integers(0, 240), min_size=2, max_size=6, unique=True).map(sorted)


@given(stays=some_stays, marks=some_slots, gaps=st.booleans())
def test_the_meter_says_what_a_count_by_minutes_says(
    stays: list[Inside], marks: list[int], gaps: bool
) -> None:
    slots = [Slot(minute(a), minute(b)) for a, b in itertools.pairwise(marks)]
    if gaps:
        slots = slots[::2]
    meter = Meter(slots)
    for stay in sorted(stays, key=lambda stay: stay.from_at):
        meter.add(stay)
    assert meter.finish() == [by_minutes(stays, slot) for slot in slots]
