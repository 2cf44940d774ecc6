"""A recorded answer proves facts that give it again."""

from datetime import UTC, datetime, timedelta

import pytest

from app.doors.rules import Reason, Refused, decide, facts_on_record, half_hour_of
from app.places.rules import Because, Kind, Mode

MODES = {
    Reason.STATION_CLOSED: (Kind.CLOSED, Because.WEEKLY),
    Reason.LOCKDOWN: (Kind.CLOSED, Because.EMERGENCY),
    Reason.EVACUATION: (Kind.EVACUATION, Because.EMERGENCY),
    Reason.STAFF_ONLY: (Kind.STAFF_ONLY, Because.OVERRIDE),
}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
def test_every_refusal_is_given_again_for_the_same_reason(reason: Reason) -> None:
    kind, because = MODES.get(reason, (Kind.SCAN, Because.WEEKLY))
    facts = facts_on_record(
        reason,
        Mode(kind, because, None, True),
        controller_heard=reason is not Reason.CONTROLLER_OFFLINE,
        inside=0,
        capacity=0 if reason is Reason.STATION_FULL else 1,
        party_size=1,
        counted_already=False,
    )
    assert decide(facts) == Refused(reason)


def test_a_half_hour_begins_at_the_full_and_at_the_half() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for minutes, began in ((0, 0), (29.99, 0), (30, 30), (59, 30)):
        assert half_hour_of(noon + timedelta(minutes=minutes)) == noon + timedelta(minutes=began)
