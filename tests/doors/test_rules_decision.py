"""The policy of a scan, one row per boundary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.doors.rules.decision import (
    ALWAYS,
    SCAN_MODE,
    CommandState,
    Facts,
    Granted,
    Place,
    Reason,
    Refused,
    ScanState,
    WalkIn,
    decide,
    is_final,
    state_now,
)
from app.places.rules import Because, Kind, Mode

AT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
SCAN = Mode(Kind.SCAN, Because.WEEKLY, None, True)
FREE = Mode(Kind.FREE, Because.WEEKLY, None, True)
HERE = Place(29.5600, 106.5750, AT)
GOOD = Facts(token=Reason.OK, mode=SCAN, here=HERE, capacity=10)


def mode(kind: Kind, because: Because = Because.WEEKLY) -> Mode:
    return Mode(kind, because, None, True)


def test_a_good_code_at_night_opens_the_door() -> None:
    assert decide(GOOD) == Granted()


def test_in_staffed_hours_he_walks_in() -> None:
    assert decide(replace(GOOD, mode=FREE)) == WalkIn()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"worker_blocked": True}, Reason.WORKER_BLOCKED),
        ({"token": Reason.TOKEN_INVALID, "mode": None}, Reason.TOKEN_INVALID),
        ({"token": Reason.TOKEN_REVOKED}, Reason.TOKEN_REVOKED),
        ({"token": Reason.WRONG_KIND, "mode": None}, Reason.WRONG_KIND),
        ({"door_retired": True}, Reason.DOOR_RETIRED),
        ({"mode": mode(Kind.EVACUATION, Because.EMERGENCY)}, Reason.EVACUATION),
        ({"mode": mode(Kind.CLOSED, Because.EMERGENCY)}, Reason.LOCKDOWN),
        ({"mode": mode(Kind.STAFF_ONLY, Because.OVERRIDE)}, Reason.STAFF_ONLY),
        ({"mode": mode(Kind.CLOSED)}, Reason.STATION_CLOSED),
        ({"mode": mode(Kind.CLOSED, Because.NO_ACCESS_HOURS)}, Reason.STATION_CLOSED),
        ({"scans_last_minute": 10}, Reason.RATE_LIMITED),
        ({"needs_display": True}, Reason.DISPLAY_REQUIRED),
        ({"doors_last_hour": 6}, Reason.RATE_LIMITED),
        ({"controller_heard": False}, Reason.CONTROLLER_OFFLINE),
        ({"inside": 10}, Reason.STATION_FULL),
        ({"inside": 9, "reserved": 1}, Reason.STATION_FULL),
        ({"inside": 6, "party_size": 5}, Reason.STATION_FULL),
        ({"capacity": 0}, Reason.STATION_FULL),
    ],
)
def test_each_rule_refuses_with_its_reason(changes: dict[str, object], reason: Reason) -> None:
    assert decide(replace(GOOD, **changes)) == Refused(reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"scans_last_minute": 9},
        {"doors_last_hour": 5},
        {"inside": 9},
        {"inside": 5, "party_size": 5},
        {"inside": 10, "counted_already": True},
    ],
)
def test_just_inside_a_limit_the_door_opens(changes: dict[str, object]) -> None:
    assert decide(replace(GOOD, **changes)) == Granted()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"inside": 99},
        {"controller_heard": False},
        {"doors_last_hour": 99},
        {"last_opened": Place(31.0, 121.0, AT)},
    ],
)
def test_a_walk_in_skips_capacity_controller_and_travel(changes: dict[str, object]) -> None:
    assert decide(replace(GOOD, mode=FREE, **changes)) == WalkIn()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metres_north", "minutes_ago", "refused"),
    [
        (300_000, 10, True),
        (300_000, 151, False),
        (1_990, 0, False),
        (2_010, 0, True),
        (2_010, 1, True),
        (2_010, 1.1, False),
    ],
)
def test_travel_is_believed_up_to_120_km_h_and_within_2_km(
    metres_north: float, minutes_ago: float, refused: bool
) -> None:
    degrees = metres_north / 111_195
    last = Place(29.56 + degrees, 106.575, AT - timedelta(minutes=minutes_ago))
    decision = decide(replace(GOOD, last_opened=last))
    assert decision == (Refused(Reason.IMPOSSIBLE_TRAVEL) if refused else Granted())


def test_the_first_reason_wins() -> None:
    everything_wrong = replace(
        GOOD, worker_blocked=True, token=Reason.TOKEN_REVOKED, door_retired=True, inside=99
    )
    assert decide(everything_wrong) == Refused(Reason.WORKER_BLOCKED)


def test_every_check_is_a_sentence_an_administrator_can_read() -> None:
    for check in (*ALWAYS, *SCAN_MODE):
        assert check.__doc__
        assert check.__doc__.endswith(".")


@pytest.mark.parametrize(
    ("stored", "live", "reads"),
    [
        (CommandState.PENDING, True, CommandState.PENDING),
        (CommandState.PENDING, False, CommandState.EXPIRED),
        (CommandState.CLAIMED, True, CommandState.CLAIMED),
        (CommandState.CLAIMED, False, CommandState.UNKNOWN),
        (CommandState.EXECUTED, False, CommandState.EXECUTED),
        (CommandState.REFUSED, False, CommandState.REFUSED),
    ],
)
def test_past_its_deadline_a_command_reads_as_over(
    stored: CommandState, live: bool, reads: CommandState
) -> None:
    assert state_now(stored, live=live) is reads


def test_only_pending_and_claimed_may_still_move() -> None:
    moving = {state for state in ScanState if not is_final(state)}
    assert moving == {ScanState.PENDING, ScanState.CLAIMED}
