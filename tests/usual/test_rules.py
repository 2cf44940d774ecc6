"""What is usual, as tables: classes of days, medians, levels, forecasts and their backtest."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.places.rules import (
    Because,
    Calendar,
    Change,
    ChangeKind,
    DayClass,
    Kind,
    StationRules,
    Tier,
    Window,
    parse_hours,
)
from app.usual.rules import (
    FEWEST,
    Expected,
    HourOf,
    Means,
    Past,
    Unknown,
    UsualClass,
    backtest,
    busy_vs_capacity,
    busy_vs_usual,
    class_of,
    expected,
    forecast_days,
    free_coverage,
    held_lately,
    hidden_hours,
    hour_means,
    hours_with_all,
    like_days,
    live_level,
    medians,
    middle,
    profile_days,
    quarter_means,
    unknown_because,
    usual_levels,
    workers_by_hour,
)
from app.visits.rules import Level
from tests.support.worlds import DAY_AND_NIGHT, OFFICE_HOURS

CALENDAR = Calendar(
    {
        date(2026, 10, 1): DayClass.PUBLIC_HOLIDAY,
        date(2026, 10, 2): DayClass.PUBLIC_HOLIDAY,
        date(2026, 10, 10): DayClass.MAKEUP_WORKDAY,
    },
    frozenset({2026}),
)
TODAY = date(2026, 11, 24)
"""A Tuesday."""


@pytest.mark.parametrize(
    ("day", "found"),
    [
        (date(2026, 10, 1), UsualClass.PUBLIC_HOLIDAY),
        (date(2026, 10, 10), UsualClass.WORKDAY),  # A Saturday on which people work.
        (date(2026, 10, 11), UsualClass.WEEKEND),
        (date(2026, 10, 12), UsualClass.WORKDAY),
        (date(2027, 1, 1), UsualClass.WORKDAY),  # A Friday of a year nobody knows of yet.
    ],
)
def test_a_day_is_like_others_of_its_class(day: date, found: UsualClass) -> None:
    assert class_of(day, CALENDAR) is found


def test_the_last_like_days_are_the_newest_before_a_day() -> None:
    found = like_days(UsualClass.WORKDAY, date(2026, 10, 13), CALENDAR, count=3)
    assert found == [date(2026, 10, 12), date(2026, 10, 10), date(2026, 10, 9)]


def test_a_rare_class_is_looked_for_for_a_year_and_no_longer() -> None:
    assert like_days(UsualClass.PUBLIC_HOLIDAY, TODAY, CALENDAR) == [
        date(2026, 10, 2),
        date(2026, 10, 1),
    ]
    assert like_days(UsualClass.PUBLIC_HOLIDAY, date(2027, 10, 4), CALENDAR) == []


def test_a_public_profile_stands_on_the_days_of_eight_weeks() -> None:
    found = profile_days(UsualClass.WEEKEND, TODAY, CALENDAR)
    assert found[0] == date(2026, 11, 22)
    assert found[-1] == date(2026, 10, 3)
    assert len(found) == 15  # Sixteen, and people worked on one.


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], None),
        ([1, 1, 1], None),
        ([0, 0, 0, 0], 0),
        ([1, 2, 3, 10], 2.5),
        ([5, 1, 9, 2, 2], 2),
    ],
)
def test_a_median_needs_four_values(values: list[float], found: float | None) -> None:
    assert middle(values) == found


def test_an_hour_in_which_nobody_heard_the_controller_is_not_a_zero() -> None:
    hour = 3_600_000
    heard = HourOf([900_000, 0, 450_000, 0], hour, hour)
    barely = HourOf([0, 0, 0, 0], hour, hour // 2)
    silent = HourOf([0, 0, 0, 0], hour, hour // 2 - 1)
    without = HourOf([0, 0, 0, 1_800_000])
    assert quarter_means([heard, barely, silent, without]) == (
        [1, 0, 0.5, 0] + [0] * 4 + [None] * 4 + [0, 0, 0, 2]
    )
    assert hour_means(quarter_means([heard, silent])) == [0.375, None]


def test_an_hour_of_an_open_door_is_known_only_where_enough_scan() -> None:
    hour = 3_600_000
    free = HourOf([900_000, 0, 0, 0], free_ms=hour // 2 + 1)
    half = HourOf([900_000, 0, 0, 0], free_ms=hour // 2)
    assert quarter_means([free, half], is_scanned=False) == [None] * 4 + [1, 0, 0, 0]
    assert quarter_means([free], is_scanned=True) == [1, 0, 0, 0]
    assert hours_with_all([1.0, 0.0, None, 1.0, 0.0, 0.0, 0.0, 0.0]) == [False, True]


def test_an_hour_in_which_nobody_could_come_in_is_no_measure_of_one_that_is_open() -> None:
    """In a unit's sum it is: nobody is inside there."""
    hour = 3_600_000
    closed = HourOf([0] * 4, recorded_ms=hour)
    opened = HourOf([900_000] * 4, recorded_ms=hour, open_ms=1)
    of_older_sums = HourOf([0] * 4)
    assert quarter_means([closed, opened, of_older_sums]) == [None] * 4 + [1] * 4 + [0] * 4
    assert quarter_means([closed], has_closed=True) == [0] * 4
    days = {TODAY - timedelta(days=one): [closed if one % 2 else opened] * 24 for one in (1, 2, 3)}
    assert backtest(Past(days), CALENDAR, TODAY).hours == 0


def test_workers_count_who_came_on_days_on_which_the_hour_is_known() -> None:
    one, two = TODAY - timedelta(days=1), TODAY - timedelta(days=2)
    days: dict[date, Means] = {one: [1.0, None], two: [None, 2.0]}
    came = [(one, 0, "a"), (one, 0, "b"), (two, 0, "c"), (two, 1, "a"), (TODAY, 1, "b")]
    assert workers_by_hour(came, days) == {0: 2, 1: 1}


def test_a_quarter_has_the_median_of_the_days_on_which_it_is_known() -> None:
    days: list[Means | None] = [[1.0, None], [3.0, 1.0], None, [5.0, 1.0], [7.0, 1.0]]
    assert medians(days, 2) == [4, None]


def test_usual_levels_are_of_the_mean_and_hide_one_person() -> None:
    full = [9.0] * 24
    days = [[1.0] * 12 + full[:12], [1.0] * 12 + full[:12], full, None, [1.0] * 12 + full[:12]]
    found = usual_levels(days, 10)
    assert found[0] is Level.FEW  # A mean of three of ten.
    assert found[23] is Level.FULL
    assert usual_levels([[1.0] * 24] * 4, 1) == [Level.EMPTY] * 24
    assert usual_levels([full] * 3, 10) == [None] * 24
    assert usual_levels([full] * 4, 0) == [None] * 24


def test_ten_distinct_workers_make_an_hour_public_and_none_hide_it_like_few() -> None:
    levels = [Level.EMPTY, Level.EMPTY, Level.MANY, None]
    assert hidden_hours(levels, {1: 9, 2: 10, 3: 1}) == [0, 1]


def test_busy_is_told_beside_the_places_and_beside_what_is_usual() -> None:
    assert busy_vs_capacity(5, 20) == 0.25
    assert busy_vs_capacity(25, 20) == 1.25
    assert busy_vs_capacity(1, 0) is None
    assert busy_vs_usual(3, 2.0) == 1.5
    assert busy_vs_usual(3, 0.0) == 3  # Less than one counts as one.
    assert busy_vs_usual(3, None) is None


FREE, SCAN, CLOSED = Kind.FREE, Kind.SCAN, Kind.CLOSED


@pytest.mark.parametrize(
    ("held", "has_told", "coverage", "found"),
    [
        # Whoever comes in by scan is counted, as long as the door's box is heard.
        ([SCAN], True, None, None),
        ([SCAN], False, 1.0, Unknown.CONTROLLER_SILENT),
        ([SCAN], None, 1.0, Unknown.NO_CONTROLLER),
        # In free hours only who scans is counted; no box is needed for that.
        ([FREE], None, 0.5, None),
        ([FREE], False, 0.5, None),
        ([FREE], True, 0.4999, Unknown.HARDLY_COUNTED),
        ([FREE], True, 0.0, Unknown.HARDLY_COUNTED),
        # Of which nothing is made out yet, that is not to be said.
        ([FREE], True, None, Unknown.NOT_COUNTED_YET),
        ([FREE, SCAN], True, None, Unknown.NOT_COUNTED_YET),
        # Whoever came before the door was locked may still be inside.
        ([FREE, SCAN], True, 0.1, Unknown.HARDLY_COUNTED),
        ([FREE, SCAN], True, 0.5, None),
        ([FREE, SCAN], False, 0.1, Unknown.CONTROLLER_SILENT),
        # Who came in by a scan while it was silent may be inside still; without one nobody did.
        ([SCAN, FREE], False, 0.5, Unknown.CONTROLLER_SILENT),
        ([SCAN, FREE], None, 0.5, None),
        ([SCAN, FREE], True, 0.5, None),
        # Where nobody may come in, no level would tell of room.
        ([CLOSED], True, 1.0, Unknown.CLOSED),
        ([FREE, Kind.STAFF_ONLY], True, 1.0, Unknown.CLOSED),
        ([SCAN, Kind.EVACUATION], False, None, Unknown.CLOSED),
        ([CLOSED, SCAN], True, None, None),
    ],
)
def test_it_is_known_who_is_inside_where_whoever_came_had_to_be_counted(
    held: Sequence[Kind], has_told: bool | None, coverage: float | None, found: Unknown | None
) -> None:
    assert unknown_because(held, has_told=has_told, coverage=coverage) is found


def test_a_level_is_told_only_where_it_is_known() -> None:
    assert live_level(0, 10, None) is Level.EMPTY
    assert live_level(10, 10, Unknown.CONTROLLER_SILENT) is None
    assert live_level(0, 0, None) is None  # No places are counted.


def local(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 24, hour, minute, tzinfo=UTC) - timedelta(hours=8)


@pytest.mark.parametrize(
    ("at", "stay_min", "found"),
    [
        (local(12), 60, [FREE]),
        (local(18), 60, [FREE, SCAN]),
        (local(18, 59), 60, [FREE, SCAN]),
        (local(19), 60, [SCAN]),
        (local(19), 61, [FREE, SCAN]),
        (local(8), 60, [SCAN, FREE]),
        # Somebody held the door open from two until three.
        (local(2, 30), 60, [SCAN, FREE]),
        (local(3, 59), 60, [FREE, SCAN]),
        (local(4), 60, [SCAN]),
    ],
)
def test_what_held_lately_goes_back_for_the_longest_stay(
    at: datetime, stay_min: int, found: Sequence[Kind]
) -> None:
    open_door = Change(ChangeKind.HELD_OPEN, Tier.OVERRIDE, local(2), local(3), local(1))
    rules = StationRules(
        "Asia/Shanghai", parse_hours(OFFICE_HOURS), parse_hours(DAY_AND_NIGHT), (open_door,)
    )
    assert held_lately((), rules, CALENDAR, at, stay=timedelta(minutes=stay_min)) == found


@pytest.mark.parametrize(
    ("at", "found"),
    [
        (local(2, 20), [FREE, SCAN]),
        (local(3, 19), [FREE, SCAN, SCAN]),
        (local(3, 20), [SCAN, SCAN]),
        (local(3, 30), [SCAN]),
        # The record does not go back so far: of the time before it the rules tell.
        (local(1, 20), [SCAN, SCAN, FREE]),
        # Another process, whose clock is ahead, has recorded what is to us to come.
        (local(2, 19), [FREE]),
    ],
)
def test_what_is_recorded_held_whatever_the_rules_say_now(
    at: datetime, found: Sequence[Kind]
) -> None:
    rules = StationRules("Asia/Shanghai", None, parse_hours(DAY_AND_NIGHT))
    recorded = [
        Window(local(1), local(1, 10), SCAN, Because.WEEKLY),
        Window(local(1, 10), local(2, 20), FREE, Because.OVERRIDE),
        Window(local(2, 20), local(2, 30), SCAN, Because.WEEKLY),
    ]
    known = [one for one in recorded if one.from_at < at]
    assert held_lately(known, rules, CALENDAR, at, stay=timedelta(hours=1)) == found


def test_free_coverage_is_the_share_of_free_time_in_which_somebody_was_counted() -> None:
    hour = 3_600_000
    scanned = HourOf([0] * 4, free_ms=hour, free_visits=3)
    nobody = HourOf([0] * 4, free_ms=hour)
    half = HourOf([900_000] * 4, free_ms=hour // 2)  # Who is inside came before it.
    night = HourOf([900_000] * 4)
    day = [night, scanned, nobody, half]
    assert free_coverage([day] * 4) == 0.4
    assert free_coverage([day] * 3) is None
    assert free_coverage([*[day] * 3, None, [night]]) is None
    assert free_coverage([[night]] * 8) is None
    assert free_coverage([[nobody]] * 8) == 0


def test_a_forecast_is_the_median_with_the_band_around_it() -> None:
    assert expected([1, 2, 3]) is None
    assert expected([8, 1, 2, 3, 4, 5, 6, 7]) == Expected(4.5, 2, 7)


@given(st.lists(st.floats(0, 1000), min_size=FEWEST, max_size=8))
def test_what_is_expected_lies_in_its_band_and_the_band_among_what_was(
    values: list[float],
) -> None:
    found = expected(values)
    assert found is not None
    assert found.low <= found.persons <= found.high
    assert min(values) - 1e-4 <= found.low
    assert found.high <= max(values) + 1e-4
    assert expected(values[::-1]) == found


def a_day(values: Sequence[float | None], **more: int) -> list[HourOf]:
    silent = HourOf([0] * 4, commissioned_ms=1)
    return [
        silent if value is None else HourOf([round(value * 900_000)] * 4, **more)
        for value in values
    ]


def series(days: int, value: int = 1, **more: int) -> dict[date, list[HourOf]]:
    each = a_day([value] * 24, **more)
    return {TODAY - timedelta(days=one): each for one in range(1, days + 1)}


def test_off_once_where_last_week_was_off_twice_is_a_skill_of_one_half() -> None:
    known = series(60)
    odd = TODAY - timedelta(days=10)
    known[odd] = a_day([3.0] * 24)
    found = backtest(Past(known), CALENDAR, TODAY)
    assert found.hours == 28 * 24
    # Last week's value is off a week later, too.
    assert (found.mae, found.mae_last_week) == (round(2 / 28, 4), round(4 / 28, 4))
    assert found.skill == 0.5


def test_skill_is_null_where_last_week_was_never_off_or_nothing_was_compared() -> None:
    never_off = backtest(Past(series(60)), CALENDAR, TODAY)
    assert (never_off.mae, never_off.mae_last_week, never_off.skill) == (0, 0, None)
    nothing = backtest(Past(series(5)), CALENDAR, TODAY)
    assert (nothing.hours, nothing.mae, nothing.skill) == (0, None, None)


def test_an_unknown_hour_is_not_compared() -> None:
    known = series(60)
    known[TODAY - timedelta(days=1)] = a_day([None, *[1.0] * 23])
    assert backtest(Past(known), CALENDAR, TODAY).hours == 28 * 24 - 1


def test_free_hours_are_compared_only_where_enough_scan_and_of_units_where_enough_are_known() -> (
    None
):
    hour = 3_600_000
    assert backtest(Past(series(60, free_ms=hour)), CALENDAR, TODAY).hours == 0
    scanned = series(60, free_ms=hour, free_visits=1)
    assert backtest(Past(scanned), CALENDAR, TODAY).hours == 28 * 24
    # Of a unit one station may scan for all: how many are known is asked of each.
    shares = dict.fromkeys(UsualClass, [0.5] * 8 + [0.49] * 16)
    assert backtest(Past(series(60), shares), CALENDAR, TODAY).hours == 28 * 8


@settings(deadline=None)
@given(st.dates(date(2026, 1, 1), date(2026, 12, 1)))
def test_all_days_that_a_forecast_and_its_backtest_look_at_are_read(today: date) -> None:
    everything = {today - timedelta(days=one): a_day([one % 7] * 24) for one in range(1, 500)}
    ahead = {today, today + timedelta(days=1)}
    needed = forecast_days(CALENDAR, today, ahead)
    read = {day: means for day, means in everything.items() if day in needed}
    assert backtest(Past(read), CALENDAR, today) == backtest(Past(everything), CALENDAR, today)
    for day in ahead:
        assert set(like_days(class_of(day, CALENDAR), today, CALENDAR)) <= needed
