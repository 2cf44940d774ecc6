"""A drawn day: near its plan, by seed, and lawful in every row."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from app.db.bulk import Column, Rows
from app.doors.rules import CommandState, Outcome, Reason
from app.generate.city import NEVER, City
from app.generate.crowd import Rhythm
from app.generate.day import draw_day
from app.generate.events import Whereabouts
from app.generate.founding import draw_city
from app.generate.plan import Plan
from app.generate.rows import Drawn
from app.generate.timetable import MINUTE, instant_of, midnight
from app.places.rules import CITY_ZONE, Because, Kind, local_day, local_hour, mode_at
from app.visits.tables import EndSource

SMALL = Plan(stations=30, days=20, until=date(2026, 10, 15), seed=5, retention_days=None)
"""With the holidays of October in it."""

BUSY = replace(SMALL, stations=60, visits_per_station_day=90, days=4, smart_share=0.9)
"""So full that people are turned away."""

LARGE = replace(SMALL, stations=250, days=25, smart_share=0.5)


@lru_cache(maxsize=8)
def drawn(plan: Plan) -> tuple[City, Sequence[Drawn]]:
    """Draw all days of a plan, once."""
    city = draw_city(plan).city
    rhythm, before, days = Rhythm(city), Whereabouts.nowhere(city), []
    for index in range(plan.days):
        days.append(draw_day(city, rhythm, index, before))
        before = days[-1].after
    return city, days


def rows_of(day: Drawn, name: str) -> list[dict[str, Any]]:
    """Give the rows of a table as a reader would see them."""
    (found,) = [rows for table, rows in day.rows if table.name == name]
    columns = {name: plain(column) for name, column in found.items()}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def plain(column: Column) -> list[Any]:
    values: list[Any] = column.values.tolist()
    if column.words is not None:
        values = [column.words[number] for number in values]
    if column.null is None:
        return values
    return [None if null else value for value, null in zip(values, column.null, strict=True)]


@lru_cache(maxsize=20)
def every(plan: Plan, name: str) -> list[dict[str, Any]]:
    """Give all rows of a table."""
    return [row for day in drawn(plan)[1] for row in rows_of(day, name)]


def station_numbers(city: City) -> dict[bytes, int]:
    return {bytes(raw): number for number, raw in enumerate(city.stations.ids)}


def by_worker(visits: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found = defaultdict(list)
    for visit in sorted(visits, key=lambda visit: visit["started_at"]):
        if visit["worker_id"] is not None:
            found[visit["worker_id"]].append(visit)
    return list(found.values())


def until(visit: dict[str, Any]) -> int:
    found: int = visit["ended_at"] or visit["stay_until"]
    return found


@pytest.mark.parametrize("plan", [SMALL, BUSY, LARGE], ids=["small", "busy", "large"])
def test_as_many_visits_come_as_the_plan_says(plan: Plan) -> None:
    city, days = drawn(plan)
    rhythm = Rhythm(city)
    station_days = sum(int(rhythm.alive(index).sum()) for index in range(plan.days))
    assert station_days > plan.stations * plan.days * 0.9
    visits = sum(day.visits for day in days)
    # Where all are full, some are turned away.
    tolerance = 0.3 if plan is BUSY else 0.06
    assert visits == pytest.approx(plan.visits_per_station_day * station_days, rel=tolerance)


def same(ours: Rows, theirs: Rows) -> bool:
    if ours.keys() != theirs.keys():
        return False
    return all(plain(column) == plain(theirs[name]) for name, column in ours.items())


def test_the_same_seed_gives_the_same_rows_and_another_gives_others() -> None:
    first = drawn(SMALL)[1]
    drawn.cache_clear()
    again = drawn(SMALL)[1]
    for one, two in zip(first, again, strict=True):
        for (_, ours), (_, theirs) in zip(one.rows, two.rows, strict=True):
            assert same(ours, theirs)
    other = drawn(replace(SMALL, seed=6))[1]
    assert not same(first[0].rows[0][1], other[0].rows[0][1])


def test_a_holiday_is_quieter_than_a_working_day() -> None:
    _, days = drawn(LARGE)
    first = LARGE.from_day
    holidays = [days[(date(2026, 10, day) - first).days].visits for day in range(1, 7)]
    working = [days[(date(2026, 9, day) - first).days].visits for day in range(21, 25)]
    assert max(holidays) < 0.8 * min(working)


def test_riders_come_in_the_night_where_a_scan_opens() -> None:
    hours = np.array([visit["local_hour"] for visit in every(LARGE, "visits")])
    modes = [visit["mode"] for visit in every(LARGE, "visits") if visit["local_hour"] in (1, 2)]
    night = np.isin(hours, (1, 2)).mean()
    assert 0.002 < night < 0.06
    assert set(modes) <= {Kind.SCAN.value, Kind.FREE.value}
    assert modes.count(Kind.SCAN.value) > 0.9 * len(modes)


def test_few_stations_see_much_of_what_happens() -> None:
    city, _ = drawn(LARGE)
    counts = np.zeros(LARGE.stations)
    numbers = station_numbers(city)
    for visit in every(LARGE, "visits"):
        counts[numbers[visit["station_id"]]] += 1
    ordered = np.sort(counts)[::-1]
    assert 0.25 < ordered[: LARGE.stations // 10].sum() / ordered.sum() < 0.6
    assert np.median(counts) < counts.mean()


def test_most_workers_use_one_to_three_stations() -> None:
    used = [
        len({visit["station_id"] for visit in his}) for his in by_worker(every(SMALL, "visits"))
    ]
    assert np.mean(np.array(used) <= 3) > 0.9


@pytest.mark.parametrize(
    "plan",
    [
        SMALL,
        BUSY,
        replace(SMALL, until=date(2027, 1, 4), days=6),  # Into a year without a calendar.
        replace(SMALL, until=date(2025, 1, 3), days=5),  # And out of one.
    ],
    ids=["autumn", "busy", "into 2027", "into 2025"],
)
def test_a_scan_keeps_the_mode_that_the_mode_function_gives(plan: Plan) -> None:
    city, _ = drawn(plan)
    numbers, scans = station_numbers(city), every(plan, "scans")
    rng = np.random.default_rng(1)
    changed = {number for number, rules in enumerate(city.rules) if rules.changes}
    some = set(rng.choice(len(scans), min(400, len(scans)), replace=False).tolist())
    for index, scan in enumerate(scans):
        if scan["station_id"] is None:
            assert scan["mode"] is scan["mode_until"] is scan["local_day"] is None
            continue
        rules = int(city.stations.rules[numbers[scan["station_id"]]])
        at = instant_of(scan["scanned_at"])
        special = rules in changed and scan["because"] != Because.WEEKLY.value
        if index not in some and not special and (at + timedelta(hours=8)).hour != 0:
            continue
        mode = mode_at(city.rules[rules], city.calendar, at)
        seen = None if scan["mode_until"] is None else instant_of(scan["mode_until"])
        told = (Kind(scan["mode"]), Because(scan["because"]), seen, scan["calendar_known"])
        assert told == (mode.kind, mode.because, mode.until, mode.calendar_known), at


def test_what_is_decided_follows_from_the_mode() -> None:
    expected = {
        Kind.FREE: {Outcome.WALK_IN, Outcome.REFUSED},
        Kind.SCAN: {Outcome.GRANTED, Outcome.REFUSED},
    }
    for scan in every(LARGE, "scans"):
        outcome, reason = Outcome(scan["outcome"]), Reason(scan["reason"])
        assert (outcome is Outcome.REFUSED) == (reason is not Reason.OK)
        if scan["mode"] is not None:
            assert outcome in expected.get(Kind(scan["mode"]), {Outcome.REFUSED})
        if reason is Reason.STATION_CLOSED:
            assert scan["mode"] == Kind.CLOSED.value


def test_people_are_turned_away_for_many_reasons() -> None:
    reasons = {scan["reason"] for plan in (LARGE, BUSY) for scan in every(plan, "scans")}
    assert reasons >= {
        reason.value
        for reason in (
            Reason.STATION_CLOSED,
            Reason.STATION_FULL,
            Reason.RATE_LIMITED,
            Reason.CONTROLLER_OFFLINE,
            Reason.TOKEN_REVOKED,
            Reason.TOKEN_INVALID,
            Reason.DISPLAY_REQUIRED,
            Reason.STAFF_ONLY,
            Reason.LOCKDOWN,
        )
    }


@pytest.mark.parametrize("plan", [SMALL, BUSY], ids=["small", "busy"])
def test_a_worker_is_in_one_place_at_a_time(plan: Plan) -> None:
    for his in by_worker(every(plan, "visits")):
        for one, two in pairwise(his):
            assert until(one) <= two["started_at"]
            if one["station_id"] != two["station_id"]:
                assert two["started_at"] - one["started_at"] > 25 * MINUTE


@pytest.mark.parametrize("plan", [SMALL, BUSY], ids=["small", "busy"])
def test_coming_back_within_ten_minutes_is_a_re_entry_and_nothing_else_is(plan: Plan) -> None:
    flagged = 0
    for his in by_worker(every(plan, "visits")):
        for before, visit in pairwise([None, *his]):
            back = (
                before is not None
                and before["station_id"] == visit["station_id"]
                and visit["started_at"] - until(before) < 10 * MINUTE
            )
            assert visit["re_entry"] is back
            flagged += back
    assert flagged > 10


def test_a_station_is_full_exactly_when_its_places_are_taken() -> None:
    city, _ = drawn(BUSY)
    numbers = station_numbers(city)
    visits, scans = every(BUSY, "visits"), every(BUSY, "scans")
    scanned = {scan["visit_id"]: scan["scanned_at"] for scan in scans}
    stays = defaultdict(list)
    for visit in visits:
        since = scanned.get(visit["id"], visit["started_at"])  # Or he was let in by a pass.
        stay = (since, until(visit), visit["party_size"])
        stays[visit["station_id"]].append(stay)
    full = 0
    for scan in scans:
        refused = scan["reason"] == Reason.STATION_FULL.value
        if not refused and scan["outcome"] != Outcome.GRANTED.value:
            continue
        at = scan["scanned_at"]
        inside = sum(party for since, over, party in stays[scan["station_id"]] if since < at < over)
        capacity = city.stations.capacity[numbers[scan["station_id"]]]
        assert bool(inside + scan["party_size"] > capacity) is refused
        full += refused
    assert full > 10


@pytest.mark.parametrize("plan", [SMALL, LARGE], ids=["small", "large"])
def test_a_visit_ends_by_the_law(plan: Plan) -> None:
    horizon, sources = midnight(plan.until), set()
    for visit in every(plan, "visits"):
        sources.add(visit["end_source"])
        assert visit["started_at"] < visit["stay_until"]
        match visit["end_source"]:
            case None:
                assert visit["ended_at"] is None
                assert visit["stay_until"] > horizon
            case EndSource.IMPUTED.value:
                assert visit["ended_at"] == visit["stay_until"]
            case _:
                assert visit["started_at"] < visit["ended_at"] <= visit["stay_until"]
        assert visit["ended_at"] is None or visit["ended_at"] <= horizon
    assert all(visit["started_at"] < horizon for visit in every(plan, "visits"))
    assert sources >= {EndSource.WORKER, EndSource.IMPUTED, EndSource.OTHER_STATION}


def test_local_days_and_hours_are_those_of_the_stations_clock() -> None:
    for visit in every(SMALL, "visits"):
        at = instant_of(visit["started_at"])
        day = date(1970, 1, 1) + timedelta(days=visit["local_day"])
        assert (day, visit["local_hour"]) == (local_day(at, CITY_ZONE), local_hour(at, CITY_ZONE))


def test_a_door_opens_after_it_was_claimed_and_in_time() -> None:
    scans = {scan["id"]: scan for scan in every(LARGE, "scans")}
    states = set()
    for command in every(LARGE, "commands"):
        scan = scans.pop(command["scan_id"])
        assert scan["outcome"] == Outcome.GRANTED.value
        states.add(command["state"])
        executed = command["state"] == CommandState.EXECUTED.value
        assert (command["pulsed_at"] is not None) is executed
        if command["claimed_at"] is not None:
            assert command["created_at"] < command["claimed_at"] < command["expires_at"]
        if executed:
            assert command["claimed_at"] < command["pulsed_at"] < command["settled_at"]
        if command["opened_at"] is not None:
            assert 0 < command["opened_at"] - command["pulsed_at"] < 15_000_000
        if not executed:
            assert scan["visit_id"] is None
    assert all(scan["outcome"] != Outcome.GRANTED.value for scan in scans.values())
    assert states == {state.value for state in CommandState} - {"pending", "claimed", "refused"}


def test_decisions_took_some_milliseconds_and_now_and_then_many() -> None:
    took = sorted(scan["decide_ms"] for scan in every(LARGE, "scans"))
    assert took[0] >= 0
    assert 4 <= took[len(took) // 2] <= 15
    assert 100 < took[-1] < 5_000


def test_a_visit_of_a_granted_scan_begins_when_the_door_opened() -> None:
    commands = {command["scan_id"]: command for command in every(LARGE, "commands")}
    visits = {visit["id"]: visit for visit in every(LARGE, "visits")}
    for scan in every(LARGE, "scans"):
        if scan["visit_id"] is None:
            assert scan["outcome"] != Outcome.WALK_IN.value
            continue
        visit = visits.pop(scan["visit_id"])
        assert visit["mode"] == scan["mode"]
        assert visit["party_size"] == scan["party_size"]
        if scan["outcome"] == Outcome.WALK_IN.value:
            assert visit["started_at"] == scan["scanned_at"]
            continue
        command = commands[scan["id"]]
        assert visit["started_at"] == (command["opened_at"] or command["pulsed_at"])
    alone = {entry["visit_id"]: entry for entry in every(LARGE, "offline_entries")}
    assert set(visits) == set(alone)
    for id, visit in visits.items():
        assert visit["started_at"] == (alone[id]["opened_at"] or alone[id]["happened_at"])


def test_only_who_consented_is_named() -> None:
    city, _ = drawn(SMALL)
    workers = {bytes(raw): number for number, raw in enumerate(city.workers.ids)}
    named = 0
    for scan in every(SMALL, "scans"):
        if scan["worker_id"] is not None:
            number = workers[scan["worker_id"]]
            assert city.workers.consent_from[number] <= scan["scanned_at"]
            assert scan["scanned_at"] < city.workers.consent_until[number]
            named += 1
    assert 0.5 < named / len(every(SMALL, "scans")) < 0.9


def test_things_are_used_by_those_inside_and_not_when_they_are_broken() -> None:
    city, _ = drawn(LARGE)
    visits = {visit["id"]: visit for visit in every(LARGE, "visits")}
    things = city.facilities
    broken = {bytes(raw): int(at) for raw, at in zip(things.ids, things.broken_at, strict=True)}
    out = {
        bytes(raw): (int(since), int(until))
        for raw, since, until, is_used in zip(
            things.ids, *things.faults, things.is_degraded, strict=True
        )
        if not is_used
    }
    assert any(until < NEVER for _, until in out.values())
    amounts, sessions = 0, 0
    for use in every(LARGE, "facility_uses"):
        visit = visits[use["visit_id"]]
        assert use["station_id"] == visit["station_id"]
        assert visit["started_at"] <= use["begun_at"] < until(visit)
        assert use["begun_at"] < broken[use["facility_id"]]
        since, mended = out.get(use["facility_id"], (0, 0))
        assert not since <= use["begun_at"] < mended
        if use["quantity"] is not None:
            amounts += 1
            assert use["ended_at"] == use["begun_at"]
        elif use["ended_at"] is not None:
            sessions += 1
            assert use["begun_at"] <= use["ended_at"] <= until(visit)
    assert amounts > 100
    assert sessions > 100


def test_demand_has_one_mark_for_a_worker_a_station_and_half_an_hour() -> None:
    found: defaultdict[bytes, set[tuple[Any, ...]]] = defaultdict(set)
    marks: defaultdict[tuple[Any, ...], set[bytes]] = defaultdict(set)
    for scan in every(SMALL, "scans"):
        if scan["demand_key"] is None or scan["worker_id"] is None:
            continue
        wanted = (scan["worker_id"], scan["station_id"], scan["scanned_at"] // (30 * MINUTE))
        found[scan["demand_key"]].add(wanted)
        marks[wanted].add(scan["demand_key"])
    assert all(len(wanted) == 1 for wanted in found.values())
    assert all(len(each) == 1 for each in marks.values())


def test_the_same_day_is_drawn_from_the_same_evening_before() -> None:
    city, days = drawn(SMALL)
    rhythm = Rhythm(city)
    again = draw_day(city, rhythm, 7, days[6].after)
    for (_, ours), (_, theirs) in zip(again.rows, days[7].rows, strict=True):
        assert same(ours, theirs)


def test_nothing_happens_before_a_station_opens_or_after_it_is_gone() -> None:
    city, _ = drawn(LARGE)
    numbers = station_numbers(city)
    fresh = gone = 0
    for scan in every(LARGE, "scans"):
        if scan["station_id"] is not None:
            number = numbers[scan["station_id"]]
            opened, retired = city.stations.opened_at[number], city.stations.retired_at[number]
            assert opened <= scan["scanned_at"] < retired
            fresh += bool(opened > city.origin)
            gone += bool(retired < city.horizon)
    assert fresh > 0
    assert gone > 0
