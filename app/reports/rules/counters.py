"""What a rollup counts: every counter has a number, and a row is a sparse vector of them.

Counters add: the vector of a month is the sum of its days', that of a unit the sum of its
stations'. So a figure over any time and any set of stations is one sum and one formula. Numbers are
stored; what is here may grow at the end of each list and never changes its number.

Durations are whole milliseconds, quantities thousandths, so that sums are exact integers.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

from app.doors.rules import CommandState, Reason


class C(IntEnum):
    """Counters of one number each."""

    VISITS_FREE = 1
    """Visits, without returns within ten minutes, that began in free mode (metrics 1)."""
    VISITS_SCAN = 2
    """The same, in any other mode."""
    VISITS_OFFLINE = 3
    """The same, begun by an opening of a controller that worked alone."""
    PERSONS = 4
    """Parties of these visits, summed up."""
    ANONYMOUS = 5
    """Of these visits, those without consent."""
    RETURNS = 6
    """Returns within ten minutes, which count with the visit before."""
    OVER = 7
    """Stays, returns included, that are over."""
    IMPUTED = 8
    """Of these, ended by time alone."""
    DWELLS = 9
    """Stays whose end somebody saw."""
    DWELL_MS = 10
    HEADS = 11
    """What staff counted; belongs to a day and to no hour."""
    HEAD_COUNTS = 12
    """How many times they did, on the same terms; 0 in older sums."""

    WALK_INS = 20
    GRANTED = 21
    REFUSED = 22
    UNMET = 23
    """Demand keys with a refusal and without a grant (law 8)."""
    CLAIMED = 24
    """Granted scans whose command a controller claimed."""
    EXECUTED = 25
    """Granted scans whose relay pulsed."""
    OPENED = 26
    """Granted scans for which a contact proved that the door opened within 15 s, or stood open."""
    WITH_CONTACT = 27
    """Executed, at a door with a contact or that one proved to open: what OPENED is a part of."""
    ALONE_OPENED = 28
    """What controllers opened while they worked alone."""
    ALONE_REFUSED = 29
    ALONE_FLAGGED = 30
    """Opened alone, and would have been refused."""
    UNLOCK_REFUSED = 31
    """Granted scans whose command was refused: at the claim, or by the controller. With those that
    were executed, and the next four, these are all that were granted: less in older sums."""
    UNLOCK_FAILED = 32
    """Granted scans whose relay failed."""
    UNLOCK_EXPIRED = 33
    """Granted scans whose command nobody claimed in time."""
    UNLOCK_UNKNOWN = 34
    """Granted scans whose command was claimed and never acknowledged."""
    UNLOCK_LIVE = 35
    """Granted scans whose command may still be executed."""
    TIMED_DECIDE = 36
    """How many times the histogram of decisions holds: what percentiles are of. So the next three;
    0 in older sums."""
    TIMED_PICKUP = 37
    TIMED_PULSE = 38
    TIMED_DOOR = 39

    PERSON_MS = 40
    """The integral of the persons inside."""
    USED_MS = 41
    """Time of stations with at least one person inside."""
    CROWDED_MS = 42
    """Time of stations at 90 % of the seats or more, in runs of five minutes or longer."""
    QUARTER = 44
    """Person-time of the hour's first quarter, as milliseconds of a quarter of 15 minutes; the next
    three numbers are the other quarters'. Only in vectors by hour."""

    MOST = 48
    """Greatest number inside at any instant of the hour. It does not add, so only in the vector by
    hour of a station's day."""

    OPEN_MS = 50
    """Time in which the station was open: mode free or scan. In older sums, 51 and 52 are how much
    of that a promise made of the modes alone was kept, and unknown."""
    STAFFED_MS = 53
    """Time in free mode."""
    COVERED_MS = 54
    """Of that, time in hours in which anybody was counted: scanned or by staff."""
    COMMISSIONED_MS = 55
    """Time in which the station had a controller."""
    ONLINE_MS = 56
    """Of that, time in which it was heard."""
    OUTAGES = 57
    """Outages that ended."""
    OUTAGE_MS = 58
    """Their lengths."""
    DEAF_MS = 59
    """Commissioned, and no server was there to hear."""
    RECORDED_MS = 60
    """Time of which it is recorded which mode held."""

    TOLD_MS = 61
    """Of that, time of which the numbers from here on were counted: less in older sums."""
    PROMISED_MS = 62
    """Time in which the station was promised to be open, whatever then held (metrics 26)."""
    USABLE_MS = 63
    """Of that, time in which it was observed to be usable."""
    UNKNOWN_MS = 64
    """Of that, time open of which nobody knows whether it was: not where nobody could come in."""
    REPORTING_MS = 65
    """Time open in which a controller was heard (T of metrics 16)."""
    SEATS_MS = 66
    """The same, times the seats."""
    REPORTING_PERSON_MS = 67
    """The integral of the persons inside over that time."""
    REPORTING_USED_MS = 68
    """Of that time, what had at least one person inside."""
    HEADS_ONLY_MS = 69
    """Of the covered time, that in hours in which staff counted heads and nobody scanned: none in
    older sums."""


QUARTERS = 4

REASON = 100
REASONS: Sequence[Reason] = (
    Reason.TOKEN_INVALID,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_REVOKED,
    Reason.WRONG_KIND,
    Reason.WORKER_BLOCKED,
    Reason.STATION_CLOSED,
    Reason.STAFF_ONLY,
    Reason.LOCKDOWN,
    Reason.EVACUATION,
    Reason.STATION_FULL,
    Reason.CONTROLLER_OFFLINE,
    Reason.DOOR_RETIRED,
    Reason.RATE_LIMITED,
    Reason.IMPOSSIBLE_TRAVEL,
    Reason.DISPLAY_REQUIRED,
    Reason.PRESENCE_REQUIRED,
)
"""Refused scans by reason: REASON + place in this list."""

COMMAND = 140
COMMANDS: Sequence[CommandState] = (
    CommandState.PENDING,
    CommandState.CLAIMED,
    CommandState.EXECUTED,
    CommandState.REFUSED,
    CommandState.FAILED,
    CommandState.EXPIRED,
    CommandState.UNKNOWN,
)
"""All commands, also from afar, by state: COMMAND + place in this list."""

OCCUPATION = 160
OCCUPATIONS: Sequence[str] = (
    "rider",
    "courier",
    "driver",
    "sanitation",
    "construction",
    "security",
    "traffic",
    "vendor",
    "other",
)
"""Visits and persons by occupation: OCCUPATION + 2 x (place in this list + 1), and one more.

Place 0 is who said nothing.
"""

FACILITY = 300
FACILITY_KINDS: Sequence[str] = (
    "water",
    "microwave",
    "charger",
    "battery_swap",
    "air_conditioner",
    "first_aid",
    "aed",
    "books",
    "legal_aid",
    "toilet",
    "locker",
    "laundry",
    "haircut",
    "coffee",
    "meals",
    "nursing_room",
    "rest",
)
PER_KIND = 16


class F(IntEnum):
    """Counters of one kind of facility: FACILITY + PER_KIND x its place, and one of these."""

    USES = 0
    """Sessions that ended, and quantities."""
    OPEN_USES = 1
    QUANTITY = 2
    """Thousandths."""
    IN_USE_MS = 3
    STANDING_MS = 4
    """Units times time."""
    OUT_MS = 5
    """Of that, out of order."""
    DEGRADED_MS = 6
    UNKNOWN_MS = 7
    REPAIRS = 8
    """Times out of order that ended."""
    REPAIR_MS = 9


HISTOGRAMS = 10_000
"""From here on every counter is of a histogram."""
DWELL = 10_000
"""Histogram of observed stays: DWELL + bucket of whole minutes."""
PICKUP = 12_000
"""Histogram of the time from decision to claim: PICKUP + bucket of milliseconds."""
PULSE = 14_000
"""Histogram of the time from decision to pulse, milliseconds."""
DOOR = 16_000
"""Histogram of the time from pulse to the door's contact, milliseconds."""
DECIDE = 18_000
"""Histogram of the time from a scan's arrival at the server to its decision, milliseconds."""
SPREAD = 2_000
"""So many numbers a histogram may take."""
TIMED: Mapping[int, C] = {
    DECIDE: C.TIMED_DECIDE,
    PICKUP: C.TIMED_PICKUP,
    PULSE: C.TIMED_PULSE,
    DOOR: C.TIMED_DOOR,
}
"""By histogram, how many times it holds."""

REPAIR = 20_000
"""Histograms of the times out of order that ended, one of each kind of facility: REPAIR +
REPAIR_SPREAD x the kind's place + bucket of whole minutes."""
REPAIR_SPREAD = 1_000

ALL_DAY = 24
"""The hour of what belongs to a day and to no hour of it."""

HOURS = 25


def refused(reason: Reason) -> int:
    """Give the counter of refusals for a reason."""
    return REASON + REASONS.index(reason)


def command(state: CommandState) -> int:
    """Give the counter of commands in a state."""
    return COMMAND + COMMANDS.index(state)


def occupation(name: str | None) -> int:
    """Give the counter of visits of an occupation; the next number counts their persons."""
    return OCCUPATION + 2 * (0 if name is None else OCCUPATIONS.index(name) + 1)


def facility(kind: str, counter: F) -> int:
    """Give a counter of a kind of facility."""
    return FACILITY + PER_KIND * FACILITY_KINDS.index(kind) + counter


def repairs(kind: str) -> int:
    """Give where the histogram of repairs of a kind of facility begins."""
    return REPAIR + REPAIR_SPREAD * FACILITY_KINDS.index(kind)


_EXACT = 64
_PER_DOUBLING = 32


def bucket(value: int) -> int:
    """Give the bucket of a value: exact below 64, then 32 to every doubling (within 3.2 %)."""
    value = max(0, value)
    if value < _EXACT:
        return value
    doubling = value.bit_length() - 7  # 64..127 is doubling 0
    return _EXACT + doubling * _PER_DOUBLING + ((value >> (doubling + 1)) - _PER_DOUBLING)


def floor_of(bucket: int) -> int:
    """Give the least value of a bucket: what a percentile answers."""
    if bucket < _EXACT:
        return bucket
    doubling, place = divmod(bucket - _EXACT, _PER_DOUBLING)
    return (_PER_DOUBLING + place) << (doubling + 1)
