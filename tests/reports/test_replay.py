"""What-if by hand-made histories: who is let in or turned away when rules are other."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.doors.rules import Outcome, Reason
from app.places.rules import (
    Because,
    Calendar,
    Change,
    ChangeKind,
    Hours,
    Kind,
    StationRules,
    Tier,
    mode_at,
    parse_hours,
)
from app.reports.rules.replay import Recorded, Replay, Site, Sojourn
from app.reports.rules.suppositions import Ignored, OtherHours, Supposition
from app.reports.rules.tallies import Decided, Ledger, MovedScan, Tally
from app.reports.rules.timetables import Timetables

ZONE = ZoneInfo("Asia/Shanghai")
CALENDAR = Calendar({}, frozenset({2026}))
MINUTE = timedelta(minutes=1)


def hours(*spans: tuple[str, str]) -> Hours:
    rows = [
        {"weekday": day, "opens": opens, "closes": closes}
        for day in range(1, 8)
        for opens, closes in spans
    ]
    return parse_hours({"regular": rows})


RULES = StationRules(
    "Asia/Shanghai", staffed=hours(("09:00", "17:00")), access=hours(("06:00", "22:00"))
)


def at(hour: float) -> datetime:
    return datetime(2026, 11, 23, tzinfo=ZONE) + timedelta(hours=hour)


def scanned(hour: float, answer: Outcome | Reason, **changes: Any) -> Recorded:
    """Give a scan at a local hour that came to this, by the station's own rules."""
    when = at(hour)
    mode = mode_at(RULES, CALENDAR, when)
    refused = isinstance(answer, Reason)
    values: dict[str, Any] = {
        "station_id": "s",
        "scan_id": hour,
        "scanned_at": when,
        "local_day": when.date(),
        "local_hour": when.hour,
        "outcome": Outcome.REFUSED if refused else answer,
        "reason": answer if refused else Reason.OK,
        "mode": mode.kind,
        "because": mode.because,
        "party_size": 1,
        "worker_id": None,
        "demand_key": None,
        "expires_at": None,
        "settled_at": None,
        **dict.fromkeys(("visit_id", "started_at", "stay_until", "ended_at", "left_at")),
        "visitors": None,
    }
    return Recorded(**(values | changes))


def entered(hour: float, *, minutes: float, seen: bool = True, **changes: Any) -> Recorded:
    """Give a scan that let somebody in, for so many minutes; `seen`: somebody saw him leave."""
    came = at(hour)
    left = came + minutes * MINUTE
    free = mode_at(RULES, CALENDAR, came).kind is Kind.FREE
    visit = {
        "visit_id": changes.get("worker_id") or hour,
        "started_at": came,
        "stay_until": came + 60 * MINUTE if seen else left,
        "ended_at": left,
        "left_at": left if seen else None,
        "visitors": changes.get("party_size", 1),
    }
    return scanned(hour, Outcome.WALK_IN if free else Outcome.GRANTED, **(visit | changes))


def replayed(*scans: Recorded, supposed: Supposition, **site: Any) -> Tally:
    return ledger_of(*scans, supposed=supposed, **site).rows["s"]


def ledger_of(*scans: Recorded, supposed: Supposition, listed: int = 0, **site: Any) -> Ledger:
    values: dict[str, Any] = {
        "place": "s",
        "rules": RULES,
        "capacity": 10,
        "max_stay": 60 * MINUTE,
        "usual_stay": 20 * MINUTE,
    }
    ledger = Ledger(lambda place, _day, _hour: place, listed=listed)
    sites = {"s": Site(**(values | site))}
    replay = Replay(sites, supposed, Timetables(CALENDAR), ledger)
    replay.feed(scans)
    replay.finish()
    return ledger


def answers(*scans: Recorded, supposed: Supposition, **site: Any) -> list[str]:
    """Say what each scan comes to."""
    found = []
    for count in range(1, len(scans) + 1):
        now = replayed(*scans[:count], supposed=supposed, **site).answers
        before = (
            replayed(*scans[: count - 1], supposed=supposed, **site).answers if count > 1 else {}
        )
        (pair,) = [pair for pair, n in now.items() if n > before.get(pair, 0)]
        found.append(pair[1].value)
    return found


LATER = Supposition(access=OtherHours(hours(("06:00", "23:30"))))


def test_longer_access_hours_let_in_exactly_within_them() -> None:
    closed = Reason.STATION_CLOSED
    night = [scanned(hour, closed) for hour in (5.99, 22, 23.49, 23.5)]
    assert answers(*night, supposed=LATER) == [closed, "granted", "granted", closed]
    found = ledger_of(*night, supposed=LATER)
    assert [tally.newly_let_in for tally in found.hours] == [0] * 22 + [1, 1]
    assert found.rows["s"].newly_turned_away == 0


def test_whoever_taps_again_is_newly_let_in_once() -> None:
    """Three taps at a closed door, and one of another."""
    closed = Reason.STATION_CLOSED
    taps = [scanned(22 + second / 3600, closed, worker_id="a") for second in (0, 4, 9)]
    (row,) = ledger_of(*taps, scanned(22.1, closed, worker_id="b"), supposed=LATER).rows.values()
    assert (row.newly_let_in, row.again) == (4, 2)


def test_scans_that_moved_are_listed_until_there_are_enough() -> None:
    closed, full = Reason.STATION_CLOSED, Reason.STATION_FULL
    night = [
        entered(21.9, minutes=60, worker_id="a"),
        scanned(22.1, closed, worker_id="b"),
        scanned(22.2, closed, worker_id="c"),
        scanned(23.5, closed),
    ]
    supposed = Supposition(access=LATER.access, capacity=2)
    found = ledger_of(*night, supposed=supposed, listed=2)
    before = Decided(Outcome.REFUSED, closed)
    assert found.moved_scans == [
        MovedScan(22.1, at(22.1), before, Decided(Outcome.GRANTED, Reason.OK)),
        MovedScan(22.2, at(22.2), before, Decided(Outcome.REFUSED, full)),
    ]
    assert found.rows["s"].moved == 2
    first = ledger_of(*night, supposed=supposed, listed=1)
    assert (first.moved_scans, first.rows["s"].moved) == (found.moved_scans[:1], 2)
    assert ledger_of(*night, supposed=supposed).moved_scans == []


def test_shorter_hours_turn_away_and_other_staffed_hours_ask_for_a_scan() -> None:
    day = [entered(hour, minutes=10) for hour in (7, 12, 21)]
    assert answers(*day, supposed=Supposition(access=OtherHours(None))) == [
        "station_closed",
        "walk_in",
        "station_closed",
    ]
    assert answers(*day, supposed=Supposition(staffed=OtherHours(None))) == ["granted"] * 3


def test_a_smaller_station_turns_away_who_comes_while_it_is_full() -> None:
    night = [
        entered(18, minutes=30, worker_id="a"),
        entered(18.1, minutes=30, worker_id="b"),
        entered(18.2, minutes=30, worker_id="c", party_size=2),
        entered(18.4, minutes=5, worker_id="b", started_at=at(18.1), party_size=2),
        entered(18.51, minutes=30, worker_id="d"),
    ]
    assert answers(*night, supposed=Supposition(capacity=2)) == [
        "granted",
        "granted",
        "station_full",
        # Inside already, he needs no place; and at 18:30 the first has left.
        "granted",
        "granted",
    ]


def test_who_is_newly_let_in_takes_a_place_for_as_long_as_is_usual_here() -> None:
    closed = Reason.STATION_CLOSED
    night = [
        scanned(22, closed, demand_key="a"),
        scanned(22.1, closed, demand_key="a"),
        scanned(22.2, closed, demand_key="b"),
        scanned(22.34, closed, demand_key="b"),
    ]
    supposed = Supposition(access=LATER.access, capacity=1)
    # He who taps again is inside; the other waits until twenty minutes are over.
    assert answers(*night, supposed=supposed) == ["granted", "granted", "station_full", "granted"]
    # Where no stay was ever seen to end, it is the longest stay.
    longest = answers(*night, supposed=supposed, usual_stay=None)
    assert longest == ["granted", "granted", "station_full", "station_full"]


def test_unmet_demand_counts_a_worker_once_in_a_half_hour_and_only_if_nothing_opened() -> None:
    closed = Reason.STATION_CLOSED
    night = [
        scanned(23.1, closed, demand_key="a"),
        scanned(23.2, closed, demand_key="a"),
        scanned(23.4, closed, demand_key="b"),
        scanned(23.6, closed, demand_key="a2"),
    ]
    found = ledger_of(*night, supposed=LATER)
    for tally in (found.rows["s"], found.hours[23]):
        assert (tally.unmet_before, tally.unmet_after) == (3, 1)
    met = [*night[:1], entered(23.3, minutes=5, demand_key="a")]
    assert replayed(*met, supposed=Supposition()).unmet_before == 0
    tally = replayed(*night, supposed=LATER, met_alone={"a2", "b"})
    assert (tally.unmet_before, tally.unmet_after) == (1, 0)


def test_a_turned_away_visit_takes_no_place_and_lets_others_in() -> None:
    evening = [
        entered(17.5, minutes=50, worker_id="a"),
        scanned(18, Reason.STATION_FULL, worker_id="b"),
    ]
    late = Supposition(access=OtherHours(hours(("18:00", "22:00"))), capacity=1)
    assert answers(*evening, supposed=late) == ["station_closed", "granted"]


def test_the_record_proves_how_many_places_there_were() -> None:
    evening = [
        entered(18, minutes=30, worker_id="a"),
        entered(18.1, minutes=30, worker_id="b"),
        scanned(18.2, Reason.STATION_FULL, worker_id="c"),
    ]
    # The station was made larger, or smaller, since.
    for capacity in (1, 50):
        same = answers(*evening, supposed=Supposition(), capacity=capacity)
        assert same == ["granted", "granted", "station_full"]
    assert answers(*evening, supposed=Supposition(capacity=3))[2] == "granted"


def test_places_are_those_that_there_were_and_where_none_are_recorded_those_of_today() -> None:
    closed = Reason.STATION_CLOSED
    night = [scanned(22 + n / 10, closed, worker_id=str(n)) for n in range(1, 7)]
    places = [(at(0), at(22.25), 1), (at(22.25), at(22.45), 2)]
    assert answers(*night, supposed=LATER, seats=places, capacity=5, usual_stay=60 * MINUTE) == [
        "granted",
        "station_full",
        "granted",
        "station_full",
        "granted",
        "granted",
    ]


def test_a_shorter_longest_stay_frees_places_of_those_whom_nobody_saw_leave() -> None:
    evening = [
        entered(18, minutes=60, seen=False, worker_id="a"),
        entered(18.1, minutes=40, worker_id="b"),
        scanned(18.6, Reason.STATION_FULL, worker_id="c"),
        scanned(18.65, Reason.STATION_FULL, worker_id="d"),
    ]
    half = Supposition(max_stay=30 * MINUTE, capacity=2)
    assert answers(*evening, supposed=half) == ["granted"] * 4
    assert answers(*evening, supposed=Supposition(capacity=2))[2:] == ["station_full"] * 2
    # A longer one keeps them, and no longer those who were seen to leave.
    evening = [*evening[:2], entered(19.05, minutes=5, worker_id="e")]
    longer = Supposition(max_stay=90 * MINUTE, capacity=1)
    assert answers(*evening, supposed=longer) == ["granted", "station_full", "station_full"]
    assert answers(*evening[1:], supposed=longer) == ["granted", "granted"]


def test_a_kept_place_counts_until_its_command_is_over() -> None:
    def kept(settled: float | None) -> list[Recorded]:
        over = {"settled_at": at(18) + settled * timedelta(seconds=1)} if settled else {}
        expires = at(18) + timedelta(seconds=10)
        return [
            scanned(18, Outcome.GRANTED, worker_id="a", expires_at=expires, **over),
            entered(18 + 25 / 3600, minutes=5, worker_id="b"),
        ]

    one = Supposition(capacity=1)
    assert answers(*kept(None), supposed=one) == ["granted", "station_full"]
    assert answers(*kept(3), supposed=one) == ["granted", "granted"]
    # It is kept from others, not from himself.
    again = [kept(None)[0], entered(18 + 25 / 3600, minutes=5, worker_id="a")]
    assert answers(*again, supposed=one) == ["granted", "granted"]


def test_a_visit_that_no_scan_opened_takes_its_place() -> None:
    alone = Sojourn("v", None, at(18), at(19), None, None, 2)
    scans = [entered(18.5, minutes=5), entered(19, minutes=5, worker_id="b")]
    found = answers(*scans, supposed=Supposition(capacity=2), sojourns=[alone])
    assert found == ["station_full", "granted"]


def test_a_token_that_was_bad_stays_bad_and_a_blocked_worker_blocked() -> None:
    stand = [
        reason
        for reason in Reason
        if reason not in (Reason.OK, Reason.STATION_CLOSED, Reason.STATION_FULL)
        and reason not in (Reason.LOCKDOWN, Reason.EVACUATION, Reason.STAFF_ONLY)
    ]
    evening = [scanned(18 + number / 100, reason) for number, reason in enumerate(stand)]
    assert answers(*evening, supposed=LATER) == [reason.value for reason in stand]


@pytest.mark.parametrize(
    "ignored",
    [
        Ignored.CONTROLLER_OFFLINE,
        Ignored.DISPLAY_REQUIRED,
        Ignored.RATE_LIMITED,
        Ignored.IMPOSSIBLE_TRAVEL,
    ],
)
def test_a_check_that_is_ignored_refuses_nobody(ignored: Ignored) -> None:
    evening = [scanned(18, Reason(ignored.value)), scanned(18.1, Reason.TOKEN_REVOKED)]
    supposed = Supposition(ignored=frozenset({ignored}))
    assert answers(*evening, supposed=supposed) == ["granted", "token_revoked"]


def test_a_controller_that_nobody_asked_is_silent_while_an_alert_says_so() -> None:
    night = [scanned(hour, Reason.STATION_CLOSED) for hour in (22.1, 22.5, 23)]
    silent = [(at(22.4), at(23))]
    found = answers(*night, supposed=LATER, silences=silent)
    assert found == ["granted", "controller_offline", "granted"]
    heard = Supposition(access=LATER.access, ignored=frozenset({Ignored.CONTROLLER_OFFLINE}))
    assert answers(*night, supposed=heard, silences=silent) == ["granted"] * 3


def test_changes_of_that_time_stand_unless_they_are_ignored_and_emergencies_stand_always() -> None:
    def rules(kind: ChangeKind, tier: Tier) -> StationRules:
        change = Change(kind, tier, at(22), at(22.5), at(20))
        return StationRules("Asia/Shanghai", RULES.staffed, RULES.access, (change,))

    closed = Reason.STATION_CLOSED
    night = [scanned(22.2, closed), scanned(22.6, closed)]
    for kind, tier, ignored, expected in (
        (ChangeKind.CLOSED, Tier.OVERRIDE, None, "station_closed"),
        (ChangeKind.CLOSED, Tier.OVERRIDE, Ignored.OVERRIDE, "granted"),
        (ChangeKind.CLOSED, Tier.OVERRIDE, Ignored.EXCEPTION, "station_closed"),
        (ChangeKind.CLOSED, Tier.EXCEPTION, Ignored.EXCEPTION, "granted"),
        (ChangeKind.LOCKDOWN, Tier.OVERRIDE, Ignored.OVERRIDE, "lockdown"),
        (ChangeKind.HELD_OPEN, Tier.OVERRIDE, None, "walk_in"),
    ):
        supposed = Supposition(access=LATER.access, ignored=frozenset({ignored} if ignored else ()))
        found = answers(*night, supposed=supposed, rules=rules(kind, tier))
        assert found == [expected, "granted"], (kind, tier, ignored)


def test_without_a_change_of_hours_the_recorded_mode_stands_whatever_the_hours_are_now() -> None:
    night = [entered(23, minutes=5, mode=Kind.SCAN, because=Because.WEEKLY)]
    assert answers(*night, supposed=Supposition()) == ["granted"]
    moved = ledger_of(*night, supposed=Supposition(staffed=OtherHours(RULES.staffed)))
    assert moved.amended_since == 1
    assert moved.rows["s"].newly_turned_away == 1


def test_a_scan_without_a_mode_is_left_out_and_its_visit_still_takes_a_place() -> None:
    evening = [
        entered(18, minutes=30, worker_id="a", mode=None, because=None),
        entered(18.1, minutes=5, worker_id="b"),
    ]
    found = ledger_of(*evening, supposed=Supposition(capacity=1))
    assert found.without_mode == 1
    assert found.rows["s"].answers == {(Outcome.GRANTED, Reason.STATION_FULL): 1}


def test_a_walk_in_whose_door_had_not_opened_for_a_scan_is_inside() -> None:
    """With staff there, a grant whose relay failed would have been a visit."""
    evening = [
        scanned(18, Outcome.GRANTED, worker_id="a", expires_at=at(18), settled_at=at(18)),
        entered(18.1, minutes=5, worker_id="b"),
        scanned(21.9, Outcome.GRANTED, worker_id="c"),
    ]
    staffed = Supposition(staffed=OtherHours(hours(("09:00", "18:03"))), capacity=1)
    assert answers(*evening, supposed=staffed) == ["walk_in", "station_full", "granted"]


def test_stations_are_apart_and_come_one_after_the_other() -> None:
    scans = [
        entered(18, minutes=30, worker_id="a", station_id="s"),
        entered(18.1, minutes=30, worker_id="b", station_id="t"),
    ]
    site = Site("u", RULES, 10, 60 * MINUTE)
    ledger = Ledger(lambda _place, _day, hour: hour)
    supposed = Supposition(capacity=1)
    replay = Replay({"s": site, "t": site}, supposed, Timetables(CALENDAR), ledger)
    for scan in scans:
        replay.feed([scan])
    replay.finish()
    assert ledger.rows[18].answers == {(Outcome.GRANTED, Outcome.GRANTED): 2}
