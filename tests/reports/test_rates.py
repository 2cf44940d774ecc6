"""A share of some days is that of their sums, and never one of shares."""

from typing import Any

import pytest

from app.reports.rules.rates import MS_PER_HOUR, RATES, RATES_OF, Rate, Sum, rate_of

HOUR = MS_PER_HOUR


@pytest.mark.parametrize(
    ("name", "sums", "told"),
    [
        ("offhours_share", {"out_of_hours_visits": 124, "visits": 383}, 0.3238),
        ("offhours_share", {"out_of_hours_visits": 0, "visits": 3}, 0.0),
        ("offhours_share", {"out_of_hours_visits": 0, "visits": 0}, None),
        ("offhours_share", {"out_of_hours_visits": None, "visits": 3}, None),
        ("grant_rate", {"granted": 7, "walk_in": 2, "decided": 12}, 0.75),
        ("promise_rate", {"usable_hours": 9, "promised_hours": 12, "unknown_hours": 2}, 0.9),
        ("promise_rate", {"usable_hours": 0, "promised_hours": 2, "unknown_hours": 3}, None),
        ("availability", {"standing_hours": 8, "out_of_order_hours": 2}, 0.75),
        # A half is rounded up, as in the rows themselves: of 1 / 32 the last digit is 3.
        ("uses_per_visit", {"uses": 1, "visits": 32}, 0.0313),
        ("dwell_mean_s", {"stay_hours": 1_234_567, "stays": 2}, 617.28),
        ("repair_mean_min", {"repair_hours": 100_000, "repairs": 1}, 1.7),
    ],
)
def test_it_is_one_sum_by_another_rounded_as_rows_are(
    name: str, sums: dict[str, Any], told: float | None
) -> None:
    assert RATES[name].told(sums) == told


@pytest.mark.parametrize(("covered", "told"), [(5, 1.5), (4.99, None), (0, None)])
def test_nights_are_compared_only_where_enough_staffed_hours_were_counted(
    covered: float, told: float | None
) -> None:
    sums = {"out_of_hours_visits": 6, "unstaffed_hours": 8, "visits_free": 5, "staffed_hours": 10}
    assert RATES["night_uplift"].told(sums | {"covered_hours": covered}) == told
    assert set(RATES["night_uplift"].names) == {*sums, "covered_hours"}


@pytest.mark.parametrize(
    ("covered", "headed", "staffed", "told"),
    [(5, 0, 10, 3.5), (10, 5, 10, 3.5), (10, 5.01, 10, None), (0, 0, 0, 3.5), (None, 0, 10, None)],
)
def test_who_was_inside_is_known_only_where_enough_scanned_of_those_who_came_freely(
    covered: float | None, headed: float, staffed: float, told: float | None
) -> None:
    sums: dict[str, Any] = {"reporting_person_hours": 3.5 * HOUR, "reporting_hours": HOUR}
    free = {"covered_hours": covered, "heads_only_hours": headed, "staffed_hours": staffed}
    assert RATES["avg_occupancy"].told(sums | free) == told
    assert set(RATES["avg_occupancy"].names) == {*sums, *free}


def test_nothing_happened_with_staff_is_nothing_to_compare_nights_with() -> None:
    sums = {"out_of_hours_visits": 6, "unstaffed_hours": 8, "visits_free": 0, "staffed_hours": 10}
    assert RATES["night_uplift"].told(sums | {"covered_hours": 10}) is None


def test_it_says_itself_in_words_as_the_catalogue_prints_them() -> None:
    assert Rate(Sum(("a", "b")), Sum(("c",), ("d",))).words == "a + b / c - d"
    assert RATES["promise_rate"].denominator.words == "promised_hours - unknown_hours"
    assert RATES["night_uplift"].numerator.words == "out_of_hours_visits / unstaffed_hours"


def test_one_name_may_be_by_another_field_in_one_report() -> None:
    assert rate_of("promise", "unknown_share") is RATES_OF["promise", "unknown_share"]
    assert rate_of("facilities", "unknown_share") is RATES["unknown_share"]
    assert rate_of("visits", "visits") is None
