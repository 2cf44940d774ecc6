"""Which alerts there are, when each opens and closes by itself, and for whom it is urgent. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class AlertKind(StrEnum):
    """What can be wrong; closed, and stable in the API."""

    CONTROLLER_SILENT = "controller_silent"
    DOOR_FORCED = "door_forced"
    DOOR_HELD = "door_held"
    NOT_OPENED = "not_opened"
    """Granted, but the door did not open: three times in ten minutes, whatever hindered it."""
    CLONE = "clone"
    """One credential speaks from two devices, or one number stands for two events."""
    CLOCK_SKEW = "clock_skew"
    QUARANTINE = "quarantine"
    """A controller sent an event that could not be taken in."""
    TAMPER = "tamper"
    EVENTS_LOST = "events_lost"
    DISPLAY_DEAD = "display_dead"
    STAFF_ABSENT = "staff_absent"
    CALENDAR_MISSING = "calendar_missing"
    WEBHOOK_OFF = "webhook_off"
    """A webhook failed for so long that it was switched off."""


class Severity(StrEnum):
    """How soon somebody should look."""

    URGENT = "urgent"
    """A door may stand open to anybody, or to nobody."""
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an alert of one kind opens and closes."""

    severity: Severity
    closes_after: timedelta | None
    """So long after its last evidence it closes by itself; None: when its cause is over, or when
    somebody closes it."""


BEHAVIOUR: dict[AlertKind, Behaviour] = {
    AlertKind.CONTROLLER_SILENT: Behaviour(Severity.URGENT, None),
    AlertKind.DOOR_FORCED: Behaviour(Severity.URGENT, None),
    AlertKind.DOOR_HELD: Behaviour(Severity.NORMAL, None),
    AlertKind.NOT_OPENED: Behaviour(Severity.URGENT, timedelta(hours=1)),
    AlertKind.CLONE: Behaviour(Severity.URGENT, None),
    AlertKind.CLOCK_SKEW: Behaviour(Severity.NORMAL, None),
    AlertKind.QUARANTINE: Behaviour(Severity.NORMAL, timedelta(hours=24)),
    AlertKind.TAMPER: Behaviour(Severity.URGENT, None),
    AlertKind.EVENTS_LOST: Behaviour(Severity.NORMAL, timedelta(hours=24)),
    AlertKind.DISPLAY_DEAD: Behaviour(Severity.NORMAL, None),
    AlertKind.STAFF_ABSENT: Behaviour(Severity.NORMAL, None),
    AlertKind.CALENDAR_MISSING: Behaviour(Severity.NORMAL, None),
    AlertKind.WEBHOOK_OFF: Behaviour(Severity.NORMAL, None),
}

KEPT_CLOSED = timedelta(days=400)
"""How long an alert that is over is kept, as other raw data of the field."""

SKEW_OPENS = timedelta(seconds=30)
SKEW_CLOSES = timedelta(seconds=10)
"""Hysteresis: a clock that wavers around one bound does not open and close an alert each minute."""

STEADY_AGAIN = timedelta(minutes=5)
"""Hysteresis: heard for so long without a silence, a controller is back. A silence shows after 75 s
and a poll takes 25 s, so a link that drops every few minutes makes one alert, not one each time."""

NOT_OPENED_TIMES = 3
NOT_OPENED_WITHIN = timedelta(minutes=10)


def skew_alert(skew: timedelta, *, is_open: bool) -> bool:
    """Whether a device's clock should have an open alert: opens above 30 s, closes below 10 s."""
    return abs(skew) > (SKEW_CLOSES if is_open else SKEW_OPENS)


def is_over(kind: AlertKind, last_at: datetime, at: datetime) -> bool:
    """Whether an open alert has been quiet for long enough to close by itself."""
    quiet = BEHAVIOUR[kind].closes_after
    return quiet is not None and at - last_at >= quiet
