"""A controller's journal: when an event really happened, what is missing, what a contact proves.

A device's clock is never trusted by itself. Its monotonic clock is, within a drift; so an event is
placed on the server's clock by the last instant that both knew (law 11, promises R17).
"""

import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.doors.rules.alone import DRIFT_PPM
from app.doors.rules.decision import OPENING_WINDOW

TRANSFER = timedelta(milliseconds=500)
"""What a message may take on its way, one way, before anybody notices."""

SLOWEST_UPLOAD = timedelta(seconds=10)
"""An upload may be under way for so long until its sender gives it up (protocol)."""

LARGEST_NOTED_MS = 86_400_000
"""Who knows the time no better than this does not know it."""

LATE_AFTER = timedelta(seconds=60)
"""An event told later than this is marked so; it feeds reports, and alerts that say it was late."""

NO_TIME = timedelta(0)

MAX_BATCH = 500
MAX_SEQ = 2**53 - 1
"""The greatest whole number every JSON reader keeps exactly."""


class EventType(StrEnum):
    """What a controller records (contract)."""

    DOOR_OPENED = "door_opened"
    DOOR_CLOSED = "door_closed"
    DOOR_FORCED = "door_forced"
    DOOR_HELD = "door_held"
    OFFLINE_ENTRY = "offline_entry"
    PEOPLE_IN = "people_in"
    PEOPLE_OUT = "people_out"
    FACILITY_USE = "facility_use"
    FACILITY_STATUS = "facility_status"
    TAMPER = "tamper"
    POWER = "power"
    OVERFLOW = "overflow"
    NOTE = "note"


OF_A_DOOR = frozenset(
    {
        EventType.DOOR_OPENED,
        EventType.DOOR_CLOSED,
        EventType.DOOR_FORCED,
        EventType.DOOR_HELD,
        EventType.OFFLINE_ENTRY,
    }
)
"""Events that must name a door of the controller's station."""

OF_A_FACILITY = frozenset({EventType.FACILITY_USE, EventType.FACILITY_STATUS})

WITHOUT_EFFECT = frozenset({EventType.POWER, EventType.NOTE, EventType.OVERFLOW})
"""Events that are only kept; an overflow's effect is on the cursor, at once."""


class Quality(StrEnum):
    """How well the corrected time of an event is known, best first."""

    SYNCED = "synced"
    """By an instant of ours that the device had heard in the same boot."""
    SENT = "sent"
    """By the device's monotonic clock, up to the sending."""
    NOTED = "noted"
    """By what the device knew of our time when it wrote the event down."""
    WALL = "wall"
    """By the device's wall clock, moved by what it was off at the sending."""
    UNKNOWN = "unknown"
    """As the device says; nobody knows how far off it was."""


@dataclass(frozen=True, slots=True)
class Sync:
    """An instant both sides knew: the server's time, and the device's monotonic clock then."""

    server_time: datetime
    mono_ms: int
    rtt_ms: int


@dataclass(frozen=True, slots=True)
class Noted:
    """The server's time as the device knew it when it wrote an event down."""

    server_time: datetime
    error: timedelta


@dataclass(frozen=True, slots=True)
class Sending:
    """What is known of clocks when a batch was sent and received."""

    boot_id: str
    received_at: datetime
    sent_at: datetime | None = None
    """The device's wall clock."""
    sent_mono_ms: int | None = None
    """The device's monotonic clock."""
    sync: Sync | None = None


@dataclass(frozen=True, slots=True)
class Corrected:
    """When an event happened, on the server's clock."""

    at: datetime
    error: timedelta | None
    """It happened within so much of `at`; None: unknown."""
    quality: Quality


def corrected(
    occurred_at: datetime,
    mono_ms: int | None,
    boot_id: str,
    sending: Sending,
    noted: Noted | None = None,
) -> Corrected:
    """Place an event on the server's clock; never after it was received.

    Within the boot that sends, the monotonic clock decides, whatever the wall clock did. Of an
    earlier boot nobody knows how long the device was off, nor what its wall clock did then: what it
    noted of our time decides, and without that its wall clock gives a guess without a bound.
    """
    is_of_this_boot = boot_id == sending.boot_id
    found = _placed(occurred_at, mono_ms if is_of_this_boot else None, sending, noted)
    if found.quality is Quality.WALL and not is_of_this_boot:
        found = replace(found, error=None)
    return found if found.at <= sending.received_at else _held(found, sending.received_at)


def _placed(
    occurred_at: datetime, mono_ms: int | None, sending: Sending, noted: Noted | None
) -> Corrected:
    """Place by the best clock that gives a date at all: one may be millions of years off."""
    if mono_ms is not None and sending.sync is not None and _agrees(sending.sync, sending):
        with suppress(OverflowError):
            at, error = _by(sending.sync, mono_ms)
            return Corrected(at, error, Quality.SYNCED)
    if mono_ms is not None and sending.sent_mono_ms is not None:
        age = timedelta(milliseconds=sending.sent_mono_ms - mono_ms)
        with suppress(OverflowError):
            return Corrected(sending.received_at - age, TRANSFER + _drift(age), Quality.SENT)
    if noted is not None and noted.server_time - noted.error <= sending.received_at + TRANSFER:
        return Corrected(noted.server_time, noted.error, Quality.NOTED)
    if sending.sent_at is not None:
        age = sending.sent_at - occurred_at
        with suppress(OverflowError):
            return Corrected(sending.received_at - age, TRANSFER + _drift(age), Quality.WALL)
    return Corrected(occurred_at, None, Quality.UNKNOWN)


def _by(sync: Sync, mono_ms: int) -> tuple[datetime, timedelta]:
    """Give our time at an instant of the device's monotonic clock, and how far it may be off."""
    since = timedelta(milliseconds=mono_ms - sync.mono_ms)
    half = timedelta(milliseconds=sync.rtt_ms) / 2
    return sync.server_time + half + since, half + _drift(since)


def _agrees(sync: Sync, sending: Sending) -> bool:
    """Whether a sync puts the sending where it can have been.

    It may have been heard while our clock was wrong. Nothing is sent after it is received, nor
    longer before that than an upload may be under way.
    """
    if sending.sent_mono_ms is None:
        return True
    try:
        sent_at, error = _by(sync, sending.sent_mono_ms)
    except OverflowError:
        return False
    early = sending.received_at - sent_at
    return -(error + TRANSFER) <= early <= error + SLOWEST_UPLOAD


def _held(found: Corrected, latest: datetime) -> Corrected:
    """Hold a time that lies after the receipt; what it was over is part of its error."""
    error = None if found.error is None else max(found.error, found.at - latest)
    return Corrected(latest, error, found.quality)


def _drift(since: timedelta) -> timedelta:
    return abs(since) * DRIFT_PPM / 1_000_000


def is_late(happened: Corrected, received_at: datetime) -> bool:
    """Whether an event is told too late to act on; one of unknown time always is."""
    if happened.error is None:
        return True
    return received_at - happened.at > LATE_AFTER


def content_hash(event: Mapping[str, Any]) -> bytes:
    """Tell two events under one number apart: SHA-256 of the event as canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(event).encode("utf-8", "surrogatepass")).digest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers `first..last`, both included."""

    first: int
    last: int


def advanced(through: int, taken: Iterable[int], lost: Sequence[Range]) -> int:
    """Say up to which number everything is either held or known to be lost.

    `taken` are numbers above `through` in ascending order, `lost` what the device reported lost.
    """
    for number in taken:
        through = _over_lost(through, lost)
        if number > through + 1:
            break
        through = max(through, number)
    return _over_lost(through, lost)


def _over_lost(through: int, lost: Sequence[Range]) -> int:
    moved = True
    while moved:
        moved = False
        for gone in lost:
            if gone.first <= through + 1 <= gone.last:
                through, moved = gone.last, True
    return through


def gaps(through: int, taken: Iterable[int], lost: Sequence[Range]) -> list[Range]:
    """Give the ranges above `through` that were neither taken nor reported lost.

    `taken` in ascending order; nothing is missing above its greatest.
    """
    found: list[Range] = []
    expected = through + 1
    for number in taken:
        if number > expected:
            found += _without(Range(expected, number - 1), lost)
        expected = max(expected, number + 1)
    return found


def _without(whole: Range, lost: Sequence[Range]) -> list[Range]:
    left = [whole]
    for gone in lost:
        parts = []
        for part in left:
            if part.first < gone.first:
                parts.append(Range(part.first, min(part.last, gone.first - 1)))
            if part.last > gone.last:
                parts.append(Range(max(part.first, gone.last + 1), part.last))
        left = [part for part in parts if part.first <= part.last]
    return left


@dataclass(frozen=True, slots=True)
class OpenInterval:
    """A time in which a door's contact said open."""

    opened_at: datetime
    closed_at: datetime | None
    """None: it is open still, as far as anybody knows."""
    found_open: bool = False
    """It stood open when a controller started: nobody saw when it had opened."""


def opened_by(pulsed_at: datetime, intervals: Iterable[OpenInterval]) -> datetime | None:
    """Say when the door opened for a pulse; None without proof (law 5).

    The door was open already: at the pulse. Else at the first opening within 15 s after it, which a
    door that was found open has not. One interval may prove several pulses.
    """
    found = [
        max(pulsed_at, interval.opened_at)
        for interval in intervals
        if interval.opened_at <= pulsed_at + (NO_TIME if interval.found_open else OPENING_WINDOW)
        and (interval.closed_at is None or interval.closed_at > pulsed_at)
    ]
    return min(found, default=None)


DEEPEST = 8
"""An event is no deeper tree than this."""


def storable(value: Any, depth: int = 0) -> Any:
    """Give a JSON value that any database holds: no NUL, no half characters, no NaN."""
    if depth > DEEPEST:
        return "(too deep)"
    match value:
        case dict() if depth < DEEPEST and _are_plain(value) and _are_plain(value.values()):
            return value  # Nearly every one: a batch has 500.
        case str():
            return value.replace("\x00", "\u2400").encode("utf-8", "replace").decode()
        case float() if not math.isfinite(value):
            return str(value)
        case int() if not isinstance(value, bool) and abs(value) > MAX_SEQ:
            return str(value)[:100] if abs(value) < 10**100 else "(too large)"
        case list():
            return [storable(item, depth + 1) for item in value]
        case dict():
            return {storable(str(name)): storable(item, depth + 1) for name, item in value.items()}
        case _:
            return value


def _are_plain(values: Iterable[Any]) -> bool:
    return all(map(_is_plain, values))


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() and "\x00" not in value
    return kind is bool or value is None or (kind is int and abs(value) <= MAX_SEQ)


class Why(StrEnum):
    """Why an event could not be taken in; stable in the API."""

    NOT_AN_OBJECT = "not_an_object"
    BAD_NUMBER = "bad_number"
    BAD_EVENT_ID = "bad_event_id"
    BAD_BOOT_ID = "bad_boot_id"
    UNKNOWN_TYPE = "unknown_type"
    BAD_TIME = "bad_time"
    BAD_FIELD = "bad_field"
    UNKNOWN_DOOR = "unknown_door"
    UNKNOWN_FACILITY = "unknown_facility"
    CONFLICT = "conflict"
    """The same number or id came before with other content."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as a controller told it, read and checked by itself."""

    seq: int
    event_id: str
    boot_id: str
    type: EventType
    occurred_at: datetime
    mono_ms: int | None
    door: str | None
    facility: str | None
    noted: Noted | None
    body: Mapping[str, Any]

    def unusable(self, why: "Why") -> "Unusable":
        """Give it as one that cannot be taken in after all."""
        return Unusable(why, self.seq, self.event_id, self.boot_id, self.body)


@dataclass(frozen=True, slots=True)
class Unusable:
    """An event that cannot be taken in, with what could be read of it."""

    why: Why
    seq: int | None
    event_id: str
    boot_id: str
    body: Any


def read_event(raw: Any, boot_id: str) -> Told | Unusable:
    """Read one event of a batch sent by this boot; never raises."""
    if not isinstance(raw, dict):
        return Unusable(Why.NOT_AN_OBJECT, None, "", boot_id, raw)
    seq = raw.get("seq")
    event_id = raw.get("event_id")
    boot = raw.get("boot_id", boot_id)
    number = seq if _is_whole(seq, 1, MAX_SEQ) else None
    name = str(event_id) if _is_key(event_id) else ""
    by = str(boot) if _is_key(boot) else boot_id

    def unusable(why: Why) -> Unusable:
        return Unusable(why, number, name, by, raw)

    if number is None:
        return unusable(Why.BAD_NUMBER)
    if not name:
        return unusable(Why.BAD_EVENT_ID)
    if by != boot:
        return unusable(Why.BAD_BOOT_ID)
    kind = _type(raw.get("type"))
    if kind is None:
        return unusable(Why.UNKNOWN_TYPE)
    occurred_at = _instant(raw.get("occurred_at"))
    if occurred_at is None:
        return unusable(Why.BAD_TIME)
    mono = raw.get("mono_ms")
    if not (mono is None or _is_whole(mono, 0, MAX_SEQ)) or not _fields_fit(kind, raw):
        return unusable(Why.BAD_FIELD)
    return Told(
        seq=number,
        event_id=name,
        boot_id=by,
        type=kind,
        occurred_at=occurred_at,
        mono_ms=mono,
        door=_text(raw.get("door")),
        facility=_text(raw.get("facility")) if kind in OF_A_FACILITY else None,
        noted=_noted(raw),
        body=raw,
    )


def at_station(
    told: Told, doors: Container[str | None], facilities: Container[str | None]
) -> Told | Unusable:
    """Hold an event to the doors and facilities of its controller's station."""
    if told.type in OF_A_DOOR and told.door not in doors:
        return told.unusable(Why.UNKNOWN_DOOR)
    if told.type in OF_A_FACILITY and told.facility not in facilities:
        return told.unusable(Why.UNKNOWN_FACILITY)
    # What is about no door in particular may say of one what it likes.
    return told if told.door is None or told.door in doors else replace(told, door=None)


_TYPES: dict[str, EventType] = {kind.value: kind for kind in EventType}


def _type(value: Any) -> EventType | None:
    return _TYPES.get(value) if isinstance(value, str) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_key(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 128
        and value.isascii()
        and (value.isprintable() and " " not in value)
    )


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    # A device whose clock was lost says 1970, or less if somebody put it back since; that is a time
    # too, only a wrong one.
    return found if found.tzinfo is not None and 1900 <= found.year <= 2100 else None


def _noted(raw: Mapping[str, Any]) -> Noted | None:
    """Read what the device knew of our time; what cannot be read is left out of account."""
    server_time, error_ms = _instant(raw.get("server_time")), raw.get("error_ms")
    if server_time is None or error_ms is None or not _is_whole(error_ms, 0, LARGEST_NOTED_MS):
        return None
    return Noted(server_time, timedelta(milliseconds=error_ms))


def _fields_fit(kind: EventType, raw: Mapping[str, Any]) -> bool:
    match kind:
        case EventType.DOOR_OPENED | EventType.DOOR_CLOSED:
            return isinstance(raw.get("at_start", False), bool)
        case EventType.PEOPLE_IN | EventType.PEOPLE_OUT:
            reset = raw.get("reset_to")
            count = _is_whole(raw.get("count", 1), 0, 1000)
            return count and (reset is None or _is_whole(reset, 0, 10_000))
        case EventType.OVERFLOW:
            first, last = raw.get("first_seq"), raw.get("last_seq")
            # Recorded after what it speaks of: no cursor goes over what is still to come.
            return _is_whole(first, 1, MAX_SEQ) and _is_whole(last, first or 1, raw["seq"] - 1)
        case EventType.FACILITY_USE:
            lasted, quantity = raw.get("duration_s"), raw.get("quantity")
            lasted_fits = lasted is None or _is_whole(lasted, 0, 86_400)
            quantity_fits = quantity is None or (
                isinstance(quantity, int | float)
                and not isinstance(quantity, bool)
                and 0 < quantity <= 1_000_000
            )
            return lasted_fits and quantity_fits
        case EventType.OFFLINE_ENTRY:
            jti = raw.get("jti")
            return raw.get("result") in ("opened", "refused") and (jti is None or _is_key(jti))
        case EventType.FACILITY_STATUS:
            return raw.get("status") in ("working", "degraded", "out_of_order", "unknown")
        case _:
            return True
