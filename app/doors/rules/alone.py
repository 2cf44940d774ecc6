"""What a controller may do while no server is heard: which passes open, and for how long. Pure.

This is a smaller policy than a scan's decision, with a name of its own: the controller applies it
by itself, and the server reviews afterwards what it would have said (law 11).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.doors.rules.decision import Reason
from app.places.rules import Because, Kind, Window

DRIFT_PPM = 50
"""How far a controller's crystal may run off: 50 parts in a million, 4.3 s a day (T21)."""

SYNC_ERROR = timedelta(milliseconds=500)
"""How well the server's time is known at the moment it is heard, besides half the round trip."""

LARGEST_ERROR = timedelta(seconds=30)
"""With a clock that may be off by more than this, no pass is judged (T21)."""

LONGEST_ALONE_H = 160
"""Hours after which a clock of 50 ppm comes near that error: no station works alone for longer."""


def clock_error(age: timedelta, round_trip: timedelta) -> timedelta:
    """Bound how far off the server's time is that was heard so long ago (T21)."""
    return SYNC_ERROR + round_trip / 2 + abs(age) * DRIFT_PPM / 1_000_000


class Hindrance(StrEnum):
    """Why a controller that is alone does not open; stable in the journal."""

    POLICY_NEVER = "policy_never"
    """This station's controller opens nothing without the server."""
    POLICY_EXPIRED = "policy_expired"
    """It has been alone for longer than it may."""
    CLOCK_UNKNOWN = "clock_unknown"
    """It lost its clock, or its clock may be off by too much."""
    KEYS_MISSING = "keys_missing"
    """It holds no keys that are fresh enough to judge by."""
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    WRONG_KIND = "wrong_kind"
    USED = "used"
    """This pass was shown before."""
    BEFORE_BOOT = "before_boot"
    """It was given before this boot, whose memory of used passes is gone."""
    DENIED = "denied"
    """The server said that passes of this worker open nothing any more."""
    STATION_CLOSED = "station_closed"
    STAFF_ONLY = "staff_only"
    LOCKDOWN = "lockdown"
    EVACUATION = "evacuation"


_REASONS = {
    Hindrance.USED: Reason.TOKEN_EXPIRED,
    Hindrance.BEFORE_BOOT: Reason.TOKEN_EXPIRED,
    Hindrance.DENIED: Reason.WORKER_BLOCKED,
}


def reason_of(hindrance: Hindrance) -> Reason:
    """Say it in the words of a scan; what is about being alone is `controller_offline`."""
    if hindrance in _REASONS:
        return _REASONS[hindrance]
    try:
        return Reason(hindrance.value)
    except ValueError:
        return Reason.CONTROLLER_OFFLINE


@dataclass(frozen=True, slots=True)
class Alone:
    """What a controller knows of itself at one instant."""

    hours: int | None
    """The station's policy: for so many hours passes open; None: never."""
    heard_ago: timedelta | None
    """Since when no server was heard; None: it was never heard since nobody knows when."""
    error: timedelta | None
    """How far off its idea of the server's time may be; None: it has none."""
    keys_age: timedelta | None
    """How long ago its keys were fetched; None: it has none."""
    windows: Sequence[Window]
    at: datetime
    """The server's time, as well as it knows."""


def hindrance(alone: Alone) -> Hindrance | None:
    """Say why no pass opens here now, whatever it is; None when a good one would."""
    if alone.hours is None:
        return Hindrance.POLICY_NEVER
    if alone.error is None or alone.heard_ago is None or alone.error > LARGEST_ERROR:
        return Hindrance.CLOCK_UNKNOWN
    longest = timedelta(hours=alone.hours)
    if alone.heard_ago > longest:
        return Hindrance.POLICY_EXPIRED
    if alone.keys_age is None or alone.keys_age > longest:
        return Hindrance.KEYS_MISSING
    window = next((w for w in alone.windows if w.from_at <= alone.at < w.until_at), None)
    if window is None:
        return Hindrance.POLICY_EXPIRED
    return _closed_by(window.kind, window.because)


def _closed_by(kind: Kind, because: Because) -> Hindrance | None:
    match kind:
        case Kind.CLOSED if because is Because.EMERGENCY:
            return Hindrance.LOCKDOWN
        case Kind.CLOSED:
            return Hindrance.STATION_CLOSED
        case Kind.STAFF_ONLY:
            return Hindrance.STAFF_ONLY
        case Kind.EVACUATION:
            return Hindrance.EVACUATION
        case _:
            return None
