"""One station's day, counted: raw facts in, counters by hour out. The only place that counts.

Rollups call it for every (station, local day); whatever a report says is a sum of what it gave.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from app.doors.rules import CommandState, Outcome, Reason
from app.places.rules.local_time import instant, zone
from app.reports.rules.counters import (
    ALL_DAY,
    DECIDE,
    DOOR,
    DWELL,
    PICKUP,
    PULSE,
    QUARTERS,
    TIMED,
    C,
    F,
    bucket,
    command,
    facility,
    occupation,
    refused,
)

DAY_QUARTERS = 24 * QUARTERS
QUARTER_MS = 900_000
DAY_MS = 86_400_000
CROWDED = 0.9
"""Of the seats (metrics 21)."""
CROWDED_FOR_MS = 300_000

UNLOCKS: Mapping[CommandState, C] = {
    CommandState.PENDING: C.UNLOCK_LIVE,
    CommandState.CLAIMED: C.UNLOCK_LIVE,
    CommandState.EXECUTED: C.EXECUTED,
    CommandState.REFUSED: C.UNLOCK_REFUSED,
    CommandState.FAILED: C.UNLOCK_FAILED,
    CommandState.EXPIRED: C.UNLOCK_EXPIRED,
    CommandState.UNKNOWN: C.UNLOCK_UNKNOWN,
}
"""What became of a granted scan: exactly one of these."""

Counts = dict[int, int]
ByHour = defaultdict[int, Counts]


def ms_of(at: datetime) -> int:
    """Give an instant in whole milliseconds since 1970; what lies between is cut off."""
    return (at - _EPOCH) // _MS


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@lru_cache(maxsize=4_096)
def quarter_edges(timezone: str, day: date) -> tuple[int, ...]:
    """Give the 97 instants (ms) between which a local day's 96 quarter hours lie.

    By the wall clock: in a zone that changes its clock, a quarter may be longer, or empty. One
    that the clock jumps over lies at the jump, so that each instant is in the hour that was shown.
    """
    place = zone(timezone)
    return tuple(ms_of(instant(place, day, 15 * number)) for number in range(DAY_QUARTERS + 1))


class Stay(NamedTuple):
    """A visit, as far as the day must know it."""

    from_ms: int
    until_ms: int
    """When it ended, is taken to end, or now if it still goes on."""
    persons: int
    hour: int | None
    """The local hour in which it began; None: it began on another day and is only inside."""
    is_return: bool = False
    is_free: bool = False
    is_offline: bool = False
    is_over: bool = False
    is_imputed: bool = False
    """Over by time alone."""
    is_seen: bool = False
    """Whether somebody saw its end; of some stays that are over only something later told."""
    occupation: str | None = None
    number: int | None = None
    """What stands for the worker in sets; None: anonymous."""


class Attempt(NamedTuple):
    """A scan."""

    hour: int
    outcome: Outcome
    reason: Reason
    demand_key: bytes | None = None
    decide_ms: int | None = None


class Order(NamedTuple):
    """A command; times in milliseconds after it was decided."""

    hour: int
    state: CommandState
    by_scan: bool
    has_contact: bool = False
    claimed_ms: int | None = None
    pulsed_ms: int | None = None
    opened_ms: int | None = None


class Alone(NamedTuple):
    """What a controller did with a pass while it worked alone."""

    hour: int
    opened: bool
    flagged: bool
    demand_key: bytes | None = None
    """Of what he got by it, the same as of his scans."""


class Use(NamedTuple):
    """A use of a facility."""

    hour: int
    kind: str
    is_over: bool
    in_use_ms: int = 0
    quantity_milli: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a station's day."""

    timezone: str
    day: date
    capacity: int
    """Of time of which none are recorded, but that before a record on the same day."""
    seats: Sequence[tuple[int, int, int]] = ()
    """From when until when there were how many, as far as it is recorded, in order."""
    stays: Sequence[Stay] = ()
    attempts: Sequence[Attempt] = ()
    orders: Sequence[Order] = ()
    alone: Sequence[Alone] = ()
    uses: Sequence[Use] = ()
    heads: int = 0
    """What staff counted, in counts that began on this day."""
    head_counts: int = 0
    """How many these are."""
    counted: Sequence[tuple[int, int]] = ()
    """When they counted: from and until, also of counts that began on the day before."""


@dataclass(slots=True)
class Counted:
    """What a day comes to, besides its health."""

    hours: ByHour
    peak: float = 0.0
    """Greatest mean of persons inside over a quarter hour (metrics 18)."""
    peak_ms: int | None = None
    """When that quarter began; the first of equals."""
    most_inside: int = 0
    crowd: dict[str, set[int]] = field(default_factory=dict)
    """The distinct workers of the visits, by occupation; '' is who said nothing."""


def count(
    facts: Facts, staffed_ms: Mapping[int, int], reporting: Sequence[tuple[int, int]]
) -> Counted:
    """Count a station's day.

    `staffed_ms` says how long staff held the door, by the hour; `reporting` when the station was
    open and somebody told of it, in order and apart.
    """
    found = Counted(defaultdict(dict))
    hours = found.hours
    _visits(facts.stays, hours, found.crowd)
    _presence(facts, reporting, found)
    _attempts(facts.attempts, {one.demand_key for one in facts.alone if one.opened}, hours)
    for order in facts.orders:
        _order(order, hours[order.hour])
    for alone in facts.alone:
        _add(hours[alone.hour], C.ALONE_OPENED if alone.opened else C.ALONE_REFUSED, 1)
        if alone.opened and alone.flagged:
            _add(hours[alone.hour], C.ALONE_FLAGGED, 1)
    for use in facts.uses:
        _use(use, hours[use.hour])
    _add(hours[ALL_DAY], C.HEADS, facts.heads)
    _add(hours[ALL_DAY], C.HEAD_COUNTS, facts.head_counts)
    _covered(facts, hours, staffed_ms)
    return found


def _add(counts: Counts, key: int, value: int) -> None:
    if value:
        counts[key] = counts.get(key, 0) + value


def _visits(stays: Iterable[Stay], hours: ByHour, crowd: dict[str, set[int]]) -> None:
    for stay in stays:
        if stay.hour is None:
            continue
        counts = hours[stay.hour]
        if stay.is_return:
            _add(counts, C.RETURNS, 1)
        else:
            _first(stay, counts, crowd)
        if stay.is_over:
            _add(counts, C.OVER, 1)
            if stay.is_imputed:
                _add(counts, C.IMPUTED, 1)
            if stay.is_seen:
                dwell_ms = stay.until_ms - stay.from_ms
                _add(counts, C.DWELLS, 1)
                _add(counts, C.DWELL_MS, dwell_ms)
                _add(counts, DWELL + bucket(dwell_ms // 60_000), 1)


def _first(stay: Stay, counts: Counts, crowd: dict[str, set[int]]) -> None:
    kind = C.VISITS_SCAN
    if stay.is_free:
        kind = C.VISITS_FREE
    elif stay.is_offline:
        kind = C.VISITS_OFFLINE
    _add(counts, kind, 1)
    _add(counts, C.PERSONS, stay.persons)
    said = occupation(stay.occupation)
    _add(counts, said, 1)
    _add(counts, said + 1, stay.persons)
    if stay.number is None:
        _add(counts, C.ANONYMOUS, 1)
    else:
        crowd.setdefault(stay.occupation or "", set()).add(stay.number)


def _presence(facts: Facts, reporting: Sequence[tuple[int, int]], found: Counted) -> None:
    """Integrate who was inside over the quarters of the day (metrics 16-21)."""
    edges = quarter_edges(facts.timezone, facts.day)
    begins, ends = edges[0], edges[-1]
    seated = _seated(facts, begins, ends)
    for since, until in reporting:
        for hour, ms in by_hour(edges, since, until):
            _add(found.hours[hour], C.REPORTING_MS, ms)
        for first, last, seats in seated:
            for hour, ms in by_hour(edges, max(since, first), min(until, last)):
                _add(found.hours[hour], C.SEATS_MS, seats * ms)
    if not facts.stays:
        return
    # Where reporting begins or ends, or the seats become others, nobody comes or goes.
    turns = {edge for span in reporting for edge in span}
    edges_of_seats = {first for first, _, _ in seated[1:]}
    changes: defaultdict[int, int] = defaultdict(int, dict.fromkeys(turns | edges_of_seats, 0))
    for stay in facts.stays:
        since, until = max(stay.from_ms, begins), min(stay.until_ms, ends)
        if since < until:
            changes[since] += stay.persons
            changes[until] -= stay.persons
    person_ms: dict[int, int] = {}
    used_ms: dict[int, int] = {}
    most: dict[int, int] = {}
    crowded: list[tuple[int, int]] = []
    inside, since, number, is_reporting = 0, begins, 0, False
    spell = 0
    for at in sorted(changes):
        if inside > 0:
            while seated[spell][1] <= since:
                spell += 1
            seats = seated[spell][2]
            if seats and inside >= CROWDED * seats:
                if crowded and crowded[-1][1] == since:
                    crowded[-1] = (crowded[-1][0], at)
                else:
                    crowded.append((since, at))
            number = bisect_right(edges, since, number) - 1
            while since < at:
                ends = edges[number + 1]
                cut = at if at < ends else ends
                if cut > since:
                    hour = number // QUARTERS
                    most[hour] = max(most.get(hour, 0), inside)
                    person_ms[number] = person_ms.get(number, 0) + inside * (cut - since)
                    used_ms[number] = used_ms.get(number, 0) + cut - since
                    if is_reporting:
                        counts = found.hours[hour]
                        _add(counts, C.REPORTING_PERSON_MS, inside * (cut - since))
                        _add(counts, C.REPORTING_USED_MS, cut - since)
                    since = cut
                if cut == ends:
                    number += 1
        inside, since = inside + changes[at], at
        is_reporting ^= at in turns
        if inside > found.most_inside:
            found.most_inside = inside
    for number, value in person_ms.items():
        counts = found.hours[number // QUARTERS]
        mean = value / (edges[number + 1] - edges[number])
        _add(counts, C.PERSON_MS, value)
        _add(counts, C.USED_MS, used_ms[number])
        _add(counts, C.QUARTER + number % QUARTERS, round(mean * QUARTER_MS))
        if round(mean, 4) > found.peak:
            found.peak, found.peak_ms = round(mean, 4), edges[number]
    for hour, value in most.items():
        found.hours[hour][C.MOST] = value
    for since, until in crowded:
        if until - since >= CROWDED_FOR_MS:
            for hour, ms in by_hour(edges, since, until):
                _add(found.hours[hour], C.CROWDED_MS, ms)


def _seated(facts: Facts, begins: int, ends: int) -> Sequence[tuple[int, int, int]]:
    """Say how many seats there were all through a day; before the first record, as many as then."""
    found: list[tuple[int, int, int]] = []

    def goes_on(until: int, seats: int) -> None:
        since = found[-1][1] if found else begins
        if since >= until:
            return
        if found and found[-1][2] == seats:
            since = found.pop()[0]
        found.append((since, until, seats))

    for since, until, seats in facts.seats:
        goes_on(min(since, ends), facts.capacity if found else seats)
        goes_on(min(until, ends), seats)
    goes_on(ends, facts.capacity)
    return found


def by_hour(edges: Sequence[int], since: int, until: int) -> Iterable[tuple[int, int]]:
    """Share an interval out over the hours of a day: (hour, milliseconds)."""
    for hour in range(24):
        ms = min(until, edges[(hour + 1) * QUARTERS]) - max(since, edges[hour * QUARTERS])
        if ms > 0:
            yield hour, ms


def _attempts(
    attempts: Iterable[Attempt], met_alone: Collection[bytes | None], hours: ByHour
) -> None:
    demands: dict[bytes, tuple[int, bool]] = {}
    for attempt in attempts:
        counts = hours[attempt.hour]
        match attempt.outcome:
            case Outcome.GRANTED:
                _add(counts, C.GRANTED, 1)
            case Outcome.WALK_IN:
                _add(counts, C.WALK_INS, 1)
            case Outcome.REFUSED:
                _add(counts, C.REFUSED, 1)
                _add(counts, refused(attempt.reason), 1)
        if attempt.decide_ms is not None:
            _time(counts, DECIDE, attempt.decide_ms)
        if attempt.demand_key is not None:
            is_met = attempt.demand_key in met_alone
            hour, met = demands.get(attempt.demand_key, (attempt.hour, is_met))
            met = met or attempt.outcome is not Outcome.REFUSED
            demands[attempt.demand_key] = (min(hour, attempt.hour), met)
    for hour, met in demands.values():
        if not met:
            _add(hours[hour], C.UNMET, 1)


def _time(counts: Counts, histogram: int, ms: int) -> None:
    _add(counts, histogram + bucket(ms), 1)
    _add(counts, TIMED[histogram], 1)


def _order(order: Order, counts: Counts) -> None:
    _add(counts, command(order.state), 1)
    if order.claimed_ms is not None:
        _time(counts, PICKUP, order.claimed_ms)
    if order.pulsed_ms is not None:
        _time(counts, PULSE, order.pulsed_ms)
        if order.opened_ms is not None:
            _time(counts, DOOR, order.opened_ms - order.pulsed_ms)
    if order.by_scan:
        if order.claimed_ms is not None:
            _add(counts, C.CLAIMED, 1)
        _add(counts, UNLOCKS[order.state], 1)
        # Where the register says that there is no contact, one may have told all the same.
        if order.state is CommandState.EXECUTED and (
            order.has_contact or order.opened_ms is not None
        ):
            _add(counts, C.WITH_CONTACT, 1)
        if order.opened_ms is not None:
            _add(counts, C.OPENED, 1)


def _use(use: Use, counts: Counts) -> None:
    _add(counts, facility(use.kind, F.USES if use.is_over else F.OPEN_USES), 1)
    _add(counts, facility(use.kind, F.QUANTITY), use.quantity_milli)
    _add(counts, facility(use.kind, F.IN_USE_MS), use.in_use_ms)


def _covered(facts: Facts, hours: ByHour, staffed_ms: Mapping[int, int]) -> None:
    """Note in which staffed hours anybody was counted at all: scanned, or by staff (metrics 12).

    Heads that staff counted say that somebody came, and put nobody inside.
    """
    edges = quarter_edges(facts.timezone, facts.day)
    headed = {hour for span in facts.counted for hour, _ in by_hour(edges, *span)}
    scanned = {stay.hour for stay in facts.stays if stay.hour is not None and stay.is_free}
    for hour in (headed | scanned) & staffed_ms.keys():
        _add(hours[hour], C.COVERED_MS, staffed_ms[hour])
        if hour not in scanned:
            _add(hours[hour], C.HEADS_ONLY_MS, staffed_ms[hour])
