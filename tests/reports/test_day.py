"""A station's day, counted: small days of which everybody can say what they come to."""

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.doors.rules import CommandState
from app.reports.catalogue import field_of
from app.reports.rules.counters import C
from app.reports.rules.day import Counts, Facts, Order, Stay, count, quarter_edges

DAY, ZONE = date(2026, 11, 24), "Asia/Shanghai"
EDGES = quarter_edges(ZONE, DAY)
MINUTE = 60_000
HOUR = 60 * MINUTE
STAFFED = dict.fromkeys(range(8, 18), HOUR)


def at(hours: float) -> int:
    return EDGES[0] + round(hours * HOUR)


def counted(**facts: Any) -> dict[int, Counts]:
    day = Facts(timezone=ZONE, day=DAY, **{"capacity": 1} | facts)
    return dict(count(day, STAFFED, ()).hours)


def total(hours: dict[int, Counts], key: int) -> int:
    return sum(counts.get(key, 0) for counts in hours.values())


def test_a_count_of_heads_covers_every_staffed_hour_that_it_touches() -> None:
    def covered(*spans: tuple[float, float]) -> set[int]:
        hours = counted(counted=[(at(since), at(until)) for since, until in spans])
        return {hour for hour, counts in hours.items() if counts.get(C.COVERED_MS) == HOUR}

    assert covered((8, 18)) == set(range(8, 18))
    assert covered((-2, 9.5)) == {8, 9}
    assert covered((10.5, 11), (16, 26)) == {10, 16, 17}
    assert covered((19, 24)) == set()


def test_only_a_stay_whose_end_somebody_saw_has_a_length() -> None:
    """Who came to another station had left some time before."""
    seen = Stay(at(9), at(10), 1, 9, is_over=True, is_seen=True)
    elsewhere = seen._replace(until_ms=at(11), is_seen=False)
    imputed = elsewhere._replace(is_imputed=True)
    hours = counted(stays=[seen, elsewhere, imputed])
    keys = (C.OVER, C.IMPUTED, C.DWELLS, C.DWELL_MS)
    assert [total(hours, key) for key in keys] == [3, 1, 1, HOUR]


def test_seats_are_those_that_there_were_and_where_none_are_recorded_those_of_today() -> None:
    seats = [(at(-5), at(9), 2), (at(9), at(9.5), 1), (at(11), at(11.5), 4)]
    day = Facts(ZONE, DAY, capacity=8, seats=seats)
    hours = count(day, STAFFED, [(at(8.5), at(12))]).hours
    found = {hour: counts.get(C.SEATS_MS, 0) / HOUR for hour, counts in hours.items()}
    found = {hour: seats for hour, seats in found.items() if seats}
    assert found == {8: 1, 9: 4.5, 10: 8, 11: 6}


def test_it_is_crowded_by_the_seats_that_there_were() -> None:
    def crowded(*seats: tuple[float, float, int]) -> dict[int, float]:
        spells = [(at(since), at(until), number) for since, until, number in seats]
        hours = counted(capacity=2, stays=[Stay(at(9.5), at(11.5), 3, None)], seats=spells)
        return {h: each[C.CROWDED_MS] / HOUR for h, each in hours.items() if C.CROWDED_MS in each}

    assert crowded() == {9: 0.5, 10: 1, 11: 0.5}
    assert crowded((0, 24, 4)) == {}
    assert crowded((0, 24, 0)) == {}
    assert crowded((0, 10, 4), (10, 10.25, 3)) == {10: 1, 11: 0.5}
    # A run goes on when the seats become others and it stays as crowded.
    assert crowded((0, 11.4, 4), (11.4, 11.44, 3), (11.44, 24, 1)) == {11: pytest.approx(0.1)}
    assert crowded((0, 11.4, 4), (11.4, 11.44, 3), (11.44, 24, 4)) == {}


@pytest.mark.parametrize(
    ("timezone", "day", "lengths"),
    [
        ("Asia/Shanghai", DAY, {}),
        ("America/New_York", date(2025, 3, 9), {2: 0}),
        ("America/New_York", date(2025, 11, 2), {1: 120}),
        ("America/Santiago", date(2026, 9, 6), {0: 0}),
        ("Australia/Lord_Howe", date(2026, 10, 4), {2: 30}),
        ("Australia/Sydney", date(2026, 10, 4), {2: 0}),
    ],
)
def test_each_instant_lies_in_the_hour_that_the_clock_shows(
    timezone: str, day: date, lengths: dict[int, int]
) -> None:
    edges = quarter_edges(timezone, day)[::4]
    minutes = {hour: (edges[hour + 1] - edges[hour]) // MINUTE for hour in range(24)}
    assert minutes == dict.fromkeys(range(24), 60) | lengths
    for hour in range(24):
        for ms in range(edges[hour], edges[hour + 1], MINUTE):
            shown = datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(timezone))
            assert (shown.date(), shown.hour) == (day, hour)


def test_no_more_doors_are_proved_to_open_than_there_are_contacts_to_prove_it() -> None:
    """A door that has none by the register may have one that tells all the same."""
    order = Order(9, CommandState.EXECUTED, by_scan=True, claimed_ms=70, pulsed_ms=400)
    told = order._replace(opened_ms=900)
    orders = [order, told, order._replace(has_contact=True), told._replace(has_contact=True)]
    hours = counted(orders=orders)
    keys = (C.EXECUTED, C.WITH_CONTACT, C.OPENED)
    assert [total(hours, key) for key in keys] == [4, 3, 2]


def test_a_crowd_over_midnight_is_two_and_the_catalogue_says_so() -> None:
    def crowded(since: float, until: float) -> int:
        return total(counted(stays=[Stay(at(since), at(until), 1, None)]), C.CROWDED_MS)

    assert crowded(23, 24.05) == HOUR
    assert crowded(23.95, 25) == 0
    says = field_of("occupancy", "crowded_minutes")
    assert "midnight" in says.formula
    assert "午夜" in says.formula_zh


def test_an_administrator_sees_at_which_hour_doors_fail() -> None:
    """What was opened from afar is no scan, and counts with the controller's commands alone."""
    failed = Order(8, CommandState.FAILED, by_scan=True, claimed_ms=400)
    lost = Order(23, CommandState.UNKNOWN, by_scan=True, claimed_ms=400)
    orders = [failed, failed, failed._replace(by_scan=False), lost]
    orders += [
        Order(8, state, by_scan=True) for state in (CommandState.PENDING, CommandState.CLAIMED)
    ]
    hours = counted(orders=orders)
    keys = (C.UNLOCK_FAILED, C.UNLOCK_LIVE, C.UNLOCK_UNKNOWN, C.UNLOCK_EXPIRED, C.EXECUTED)
    assert [hours[8].get(key, 0) for key in keys] == [2, 2, 0, 0, 0]
    assert [hours[23].get(key, 0) for key in keys] == [0, 0, 1, 0, 0]
