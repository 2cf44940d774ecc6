"""What a scan decides: the facts of its instant, the ordered checks, the decision. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.places.rules import Because, Kind, Mode, distance_m

UNLOCK_SECONDS = 10.0
"""A relay never pulses later than this after the scan request was read (law 3)."""

RESERVATION_GRACE = timedelta(seconds=20)
"""How long after its command's deadline a kept place is given up (law 9)."""

REPEAT_AFTER_EXECUTION = timedelta(seconds=10)
"""For so long after the pulse another tap gets the same scan (law 4)."""

OPENING_WINDOW = timedelta(seconds=15)
"""How long after the pulse an opening of the door belongs to it (law 5)."""

SCREEN_DEAD_AFTER = timedelta(minutes=5)
"""A screen for which no code was fetched for so long shows none (law 13)."""

MAX_SPEED_KM_H = 120.0
"""Nobody travels faster between two stations (law 13)."""

NEAR_M = 2_000.0
"""Within this distance any speed is believed (law 13)."""


class Reason(StrEnum):
    """Why a scan was answered as it was; closed, and stable in the API."""

    OK = "ok"
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    WRONG_KIND = "wrong_kind"
    WORKER_BLOCKED = "worker_blocked"
    STATION_CLOSED = "station_closed"
    STAFF_ONLY = "staff_only"
    LOCKDOWN = "lockdown"
    EVACUATION = "evacuation"
    STATION_FULL = "station_full"
    CONTROLLER_OFFLINE = "controller_offline"
    DOOR_RETIRED = "door_retired"
    RATE_LIMITED = "rate_limited"
    IMPOSSIBLE_TRAVEL = "impossible_travel"
    DISPLAY_REQUIRED = "display_required"
    PRESENCE_REQUIRED = "presence_required"


class Outcome(StrEnum):
    """What became of a scan."""

    GRANTED = "granted"
    """An unlock command exists."""
    WALK_IN = "walk_in"
    """The door stands open; the visit is recorded at once."""
    REFUSED = "refused"


class CommandState(StrEnum):
    """Where an unlock command is (law 3)."""

    PENDING = "pending"
    CLAIMED = "claimed"
    EXECUTED = "executed"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


LIVE = (CommandState.PENDING, CommandState.CLAIMED)
"""States in which the relay may still pulse."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The door opens."""


@dataclass(frozen=True, slots=True)
class WalkIn:
    """The door stands open."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The door stays as it is."""

    reason: Reason


Decision = Granted | WalkIn | Refused


@dataclass(frozen=True, slots=True)
class Place:
    """A point on the earth and when somebody was there."""

    latitude: float
    longitude: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision looks at, as it was at the instant of the scan."""

    token: Reason
    """What the token's own check said; OK when it names a door and is good."""
    worker_blocked: bool = False
    door_retired: bool = False
    needs_display: bool = False
    """The door has a screen whose codes work, and this was its poster."""
    mode: Mode | None = None
    """None when the token names no door."""
    scans_last_minute: int = 0
    scan_limit: int = 10
    doors_last_hour: int = 0
    """Other doors that opened for him within the hour."""
    door_limit: int = 6
    here: Place | None = None
    last_opened: Place | None = None
    """Where a door last opened for him."""
    controller_heard: bool = True
    inside: int = 0
    """Persons of counted visits, without his own."""
    reserved: int = 0
    """Persons for whom a place is kept, without his own."""
    capacity: int = 0
    party_size: int = 1
    counted_already: bool = False
    """He is inside already and needs no place."""


Check = Callable[[Facts], Reason | None]


def worker_blocked(facts: Facts) -> Reason | None:
    """A blocked worker opens no door."""
    return Reason.WORKER_BLOCKED if facts.worker_blocked else None


def token_refused(facts: Facts) -> Reason | None:
    """Only a good code of this door opens it."""
    return None if facts.token is Reason.OK else facts.token


def door_retired(facts: Facts) -> Reason | None:
    """A retired door, or a door of a retired station, opens for no one."""
    return Reason.DOOR_RETIRED if facts.door_retired else None


def evacuation(facts: Facts) -> Reason | None:
    """Nobody enters while a station is being evacuated."""
    return Reason.EVACUATION if facts.mode and facts.mode.kind is Kind.EVACUATION else None


def lockdown(facts: Facts) -> Reason | None:
    """A lockdown closes every door of the station."""
    mode = facts.mode
    locked = mode and mode.kind is Kind.CLOSED and mode.because is Because.EMERGENCY
    return Reason.LOCKDOWN if locked else None


def staff_only(facts: Facts) -> Reason | None:
    """While a station is for its staff only, no scan opens it."""
    return Reason.STAFF_ONLY if facts.mode and facts.mode.kind is Kind.STAFF_ONLY else None


def station_closed(facts: Facts) -> Reason | None:
    """Outside staffed and access hours a station is closed."""
    return Reason.STATION_CLOSED if facts.mode and facts.mode.kind is Kind.CLOSED else None


def scans_too_often(facts: Facts) -> Reason | None:
    """A worker scans only so often in a minute."""
    return Reason.RATE_LIMITED if facts.scans_last_minute >= facts.scan_limit else None


def too_many_doors(facts: Facts) -> Reason | None:
    """A worker opens only so many different doors in an hour."""
    return Reason.RATE_LIMITED if facts.doors_last_hour >= facts.door_limit else None


def display_required(facts: Facts) -> Reason | None:
    """A door with a working screen is opened with the code on the screen."""
    return Reason.DISPLAY_REQUIRED if facts.needs_display else None


def impossible_travel(facts: Facts) -> Reason | None:
    """Nobody opens two doors faster than he can travel between them."""
    if facts.here is None or facts.last_opened is None:
        return None
    here, last = facts.here, facts.last_opened
    metres = distance_m(here.latitude, here.longitude, last.latitude, last.longitude)
    if metres <= NEAR_M:
        return None
    hours = max((here.at - last.at) / timedelta(hours=1), 0.0)
    return Reason.IMPOSSIBLE_TRAVEL if metres / 1000 > MAX_SPEED_KM_H * hours else None


def controller_offline(facts: Facts) -> Reason | None:
    """A door whose controller is silent cannot be opened."""
    return None if facts.controller_heard else Reason.CONTROLLER_OFFLINE


def station_full(facts: Facts) -> Reason | None:
    """A full station takes in nobody who is not inside already."""
    if facts.counted_already:
        return None
    wanted = facts.inside + facts.reserved + facts.party_size
    return Reason.STATION_FULL if wanted > facts.capacity else None


ALWAYS: tuple[Check, ...] = (
    worker_blocked,
    token_refused,
    door_retired,
    evacuation,
    lockdown,
    staff_only,
    station_closed,
    scans_too_often,
)
"""The policy at any door, in the order in which a refusal is explained: the first reason wins."""

SCAN_MODE: tuple[Check, ...] = (
    display_required,
    too_many_doors,
    impossible_travel,
    controller_offline,
    station_full,
)
"""What is looked at besides when a relay must pulse; a walk-in skips it (law 9)."""


def decide(facts: Facts) -> Decision:
    """Say whether the door opens, and if not, the first reason."""
    if reason := _first(ALWAYS, facts):
        return Refused(reason)
    if facts.mode and facts.mode.kind is Kind.FREE:
        return WalkIn()
    if reason := _first(SCAN_MODE, facts):
        return Refused(reason)
    return Granted()


def _first(checks: tuple[Check, ...], facts: Facts) -> Reason | None:
    return next((reason for check in checks if (reason := check(facts))), None)


class ScanState(StrEnum):
    """Which of the four facts is true of a scan, as its worker sees it (law 5)."""

    NONE = "none"
    PENDING = "pending"
    CLAIMED = "claimed"
    EXECUTED = "executed"
    OPENED = "opened"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


def poster_suffices(
    *, has_display: bool, poster_fallback: bool, codes_at: datetime | None, at: datetime
) -> bool:
    """Whether a door's poster opens it: it has no screen, or its screen is dead (law 13)."""
    if not has_display:
        return True
    dead = codes_at is None or at - codes_at >= SCREEN_DEAD_AFTER
    return dead and poster_fallback


def is_final(state: ScanState) -> bool:
    """Whether nothing more will come; a late acknowledgement may still settle `unknown`."""
    return state not in (ScanState.PENDING, ScanState.CLAIMED)


def state_now(state: CommandState, *, live: bool) -> CommandState:
    """Read a stored state as of now: past its deadline a command reads as over (contract)."""
    if live:
        return state
    if state is CommandState.PENDING:
        return CommandState.EXPIRED
    return CommandState.UNKNOWN if state is CommandState.CLAIMED else state
