"""What doors go by: the decision of a scan, and what a controller's journal says. Pure."""

from app.doors.rules.alone import LONGEST_ALONE_H
from app.doors.rules.decision import (
    LIVE,
    OPENING_WINDOW,
    REPEAT_AFTER_EXECUTION,
    RESERVATION_GRACE,
    SCREEN_DEAD_AFTER,
    UNLOCK_SECONDS,
    CommandState,
    Decision,
    Facts,
    Granted,
    Outcome,
    Place,
    Reason,
    Refused,
    ScanState,
    WalkIn,
    decide,
    is_final,
    poster_suffices,
    state_now,
)
from app.doors.rules.demand import HALF_HOUR, half_hour_of
from app.doors.rules.recorded import facts_on_record

__all__ = [
    "HALF_HOUR",
    "LIVE",
    "LONGEST_ALONE_H",
    "OPENING_WINDOW",
    "REPEAT_AFTER_EXECUTION",
    "RESERVATION_GRACE",
    "SCREEN_DEAD_AFTER",
    "UNLOCK_SECONDS",
    "CommandState",
    "Decision",
    "Facts",
    "Granted",
    "Outcome",
    "Place",
    "Reason",
    "Refused",
    "ScanState",
    "WalkIn",
    "decide",
    "facts_on_record",
    "half_hour_of",
    "is_final",
    "poster_suffices",
    "state_now",
]
