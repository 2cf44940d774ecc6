"""One day: what is decided about the wishes of its crowd.

Pure: the same city, day, and whereabouts of the evening before give the same rows. Nothing steps
through people one by one; where one event depends on the one before (a place that is taken, a
worker who is elsewhere), arrays are sorted so that neighbours meet.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.doors.rules import CommandState, Outcome, Reason
from app.generate.city import FACILITY_KINDS, City, Flags, day_of
from app.generate.crowd import Rhythm, Wishes, draw
from app.generate.events import ENDS, OK, OUTCOMES, STATES, WHYS, Events, Uses, Whereabouts
from app.generate.numbers import mixed
from app.generate.rows import TELLING, Drawn, written
from app.generate.timetable import DAY, KINDS, MINUTE, REASONS, US, Ints, midnight
from app.places.rules import Because, Kind
from app.places.tables import FacilityKind
from app.visits.rules import RE_ENTRY
from app.visits.tables import EndSource

SCAN = KINDS.index(Kind.SCAN)
RE_ENTRY_US = int(RE_ENTRY.total_seconds()) * US

APART = 30 * MINUTE
"""Nobody begins visits at two stations within less."""

OLD_POSTER_FOR = 14 * DAY

WITH_PASS = np.uint64(7)
"""So many of ten whom a box keeps out because it hears nobody show it a pass."""
SHOWING = np.uint64(25 * US)
"""Until the door opens to a pass it takes once to twice as long."""

SESSIONS = {
    FacilityKind.MICROWAVE: (2, 6),
    FacilityKind.CHARGER: (10, 60),
    FacilityKind.REST: (8, 40),
    FacilityKind.TOILET: (2, 8),
    FacilityKind.BOOKS: (5, 30),
    FacilityKind.LAUNDRY: (25, 50),
    FacilityKind.LEGAL_AID: (10, 30),
}
"""How many minutes a use lasts; of what is not here, quantities are counted."""

AMOUNTS = {FacilityKind.WATER: (200, 1500)}
"""Thousandths of what is counted; else one piece."""

USING = (0.35, 0.12)
"""How many visitors use something, and how many something else besides."""


def draw_day(city: City, rhythm: Rhythm, index: int, before: Whereabouts) -> Drawn:
    """Draw one day.

    1. Draw who wants to go where, and decide each attempt by the ordered checks of a scan.
    2. Where a station is full, refuse.
    3. Whoever would be in two places at once is taken for a stranger; who moved on ends his visit.
    4. A refusal of a full station stands only if it is still full by what really happened.
    5. Write it down.
    """
    rng = np.random.default_rng([city.plan.seed, 2, day_of(city, index).toordinal()])
    events = _decided(city, draw(city, rhythm, index, rng), rng)
    uses = _uses(city, events, rng)
    _stay(city, events, uses)
    begins = midnight(day_of(city, index))
    full = (events.outcome == OUTCOMES.index(Outcome.GRANTED)) & ~_fits(
        city, events, before, begins
    )
    _refuse(events, full, Reason.STATION_FULL)
    _one_place_each(city, events, before)
    full &= ~_fits(city, events, before, begins)
    was_full = events.reason == WHYS.index(Reason.STATION_FULL)
    kept = full | ~was_full
    numbers = np.cumsum(kept) - 1
    which = (kept & events.enters)[uses.event]
    events.keep(kept)
    uses = Uses(numbers[uses.event[which]], *(_part(uses, name, which) for name in _USE_REST))
    after = _after(city, events, before, begins + DAY)
    return written(city, events, uses, index, after, rng)


_USE_REST = ("facility", "begun", "ended", "is_over", "quantity", "counted")


def _part(uses: Uses, name: str, which: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = getattr(uses, name)[which]
    return found


def _decided(city: City, wishes: Wishes, rng: np.random.Generator) -> Events:
    """Decide as a scan does, the first reason first; then see what became of what was granted."""
    count, at = len(wishes), wishes.at
    modes = city.timetable.at(city.stations.rules[wishes.station], at)
    kind, doors, chance = modes.kind, city.doors, rng.random((4, len(wishes)))
    revoked_at = doors.revoked_at[wishes.door]
    old_poster = (revoked_at <= at) & (at < revoked_at + OLD_POSTER_FOR) & (chance[0] < 0.06)
    display = doors.has_display[wishes.door]
    closed = kind == KINDS.index(Kind.CLOSED)
    emergency = modes.because == REASONS.index(Because.EMERGENCY)
    scanning = kind == SCAN
    dead = city.outages.cover(wishes.station, at, city.origin)
    checks = (
        (Reason.WORKER_BLOCKED, city.workers.blocked_at[wishes.worker] <= at),
        (Reason.TOKEN_INVALID, chance[1] < 0.001),
        (Reason.WRONG_KIND, chance[1] > 0.9995),
        (Reason.TOKEN_REVOKED, old_poster),
        (Reason.TOKEN_EXPIRED, display & (chance[2] < 0.01)),
        (Reason.EVACUATION, kind == KINDS.index(Kind.EVACUATION)),
        (Reason.LOCKDOWN, closed & emergency),
        (Reason.STAFF_ONLY, kind == KINDS.index(Kind.STAFF_ONLY)),
        (Reason.STATION_CLOSED, closed),
        (Reason.RATE_LIMITED, wishes.tap >= 10),
        (Reason.DISPLAY_REQUIRED, scanning & display & (chance[3] < 0.03)),
        (Reason.CONTROLLER_OFFLINE, scanning & dead),
    )
    reason = np.select(
        [holds for _, holds in checks], [WHYS.index(why) for why, _ in checks], OK
    ).astype(np.int8)
    outcome = np.where(
        reason != OK,
        OUTCOMES.index(Outcome.REFUSED),
        np.where(scanning, OUTCOMES.index(Outcome.GRANTED), OUTCOMES.index(Outcome.WALK_IN)),
    ).astype(np.int8)
    # More taps and second tries belong to doors that stayed shut.
    walked = outcome == OUTCOMES.index(Outcome.WALK_IN)
    granted = outcome == OUTCOMES.index(Outcome.GRANTED)
    kept = ~(walked & wishes.luckless) & ~((walked | granted) & (wishes.tap > 0))
    nothing, no = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    events = Events(
        wishes=wishes,
        modes=modes,
        reason=reason,
        outcome=outcome,
        state=np.zeros(count, np.int8),
        claimed=nothing.copy(),
        pulsed=nothing.copy(),
        opened=nothing.copy(),
        settled=nothing.copy(),
        pulse_ms=nothing.copy(),
        start=nothing.copy(),
        enters=no.copy(),
        until=nothing.copy(),
        stay_until=nothing.copy(),
        end_source=np.zeros(count, np.int8),
        stranger=no.copy(),
        re_entry=no.copy(),
        named=no.copy(),
        alone_until=nothing.copy(),
    )
    events.keep(kept)
    _carried_out(city, events, rng)
    _let_in_alone(city, events)
    return events


def _carried_out(city: City, events: Events, rng: np.random.Generator) -> None:
    """Say what became of the commands, and when the visits began (law 5)."""
    wishes, count = events.wishes, len(events.reason)
    at = wishes.at
    contact = city.doors.has_contact[wishes.door]
    granted = events.outcome == OUTCOMES.index(Outcome.GRANTED)
    fate = rng.random(count)
    lost = np.select(
        [fate < 0.45, fate < 0.65, fate < 0.85, contact],
        [
            STATES.index(state)
            for state in (
                CommandState.EXPIRED,
                CommandState.UNKNOWN,
                CommandState.FAILED,
                CommandState.EXECUTED,
            )
        ],
        STATES.index(CommandState.EXPIRED),
    )
    executed = STATES.index(CommandState.EXECUTED)
    events.state = np.where(wishes.luckless, lost, executed).astype(np.int8)
    claimed = granted & (events.state != STATES.index(CommandState.EXPIRED))
    pulsed = granted & (events.state == executed)
    settled = pulsed | (granted & (events.state == STATES.index(CommandState.FAILED)))
    opened = pulsed & contact & ~wishes.luckless
    wait = np.minimum(rng.lognormal(np.log(0.35), 0.6, count), 9.0) * US
    events.pulse_ms = rng.integers(60, 400, count)
    claimed_at = at + wait.astype(np.int64)
    pulsed_at = claimed_at + events.pulse_ms * 1000
    push = np.minimum(rng.lognormal(np.log(2.2), 0.5, count), 14.0) * US
    opened_at = pulsed_at + push.astype(np.int64)
    events.claimed = np.where(claimed, claimed_at, 0)
    events.pulsed = np.where(pulsed, pulsed_at, 0)
    events.settled = np.where(settled, pulsed_at + rng.integers(60, 500, count) * 1000, 0)
    events.opened = np.where(opened, opened_at, 0)
    walked = events.outcome == OUTCOMES.index(Outcome.WALK_IN)
    events.enters = walked | opened | (pulsed & ~contact & ~wishes.luckless)
    begun = np.where(contact, opened_at, pulsed_at)
    events.start = np.where(walked, at, np.where(events.enters, begun, 0))


def _let_in_alone(city: City, events: Events) -> None:
    """Let most of those whom a box without a way to us keeps out show it a pass."""
    wishes, at = events.wishes, events.wishes.at
    chance = mixed((at ^ wishes.worker).astype(np.uint64))
    again = city.outages.heard_again(wishes.station, at, city.origin)
    over = np.minimum(city.stations.retired_at, city.horizon)[wishes.station]
    told = (again > 0) & (again + TELLING < over)
    refused = events.reason == WHYS.index(Reason.CONTROLLER_OFFLINE)
    first = ~wishes.luckless & (wishes.tap == 0)
    alone = refused & told & first & (chance % np.uint64(10) < WITH_PASS)
    events.alone_until = np.where(alone, again, 0)
    events.enters |= alone
    took = (SHOWING + chance % np.uint64(SHOWING)).astype(np.int64)
    events.start = np.where(alone, at + took, events.start)


def _uses(city: City, events: Events, rng: np.random.Generator) -> Uses:
    """Draw what visitors use, within the time that they are there."""
    stations, things = city.stations, city.facilities
    shortest = np.array([SESSIONS.get(kind, (0, 0))[0] for kind in FACILITY_KINDS])
    longest = np.array([SESSIONS.get(kind, (0, 0))[1] for kind in FACILITY_KINDS])
    least = np.array([AMOUNTS.get(kind, (1000, 1000))[0] for kind in FACILITY_KINDS])
    most = np.array([AMOUNTS.get(kind, (1000, 1000))[1] for kind in FACILITY_KINDS])
    found = []
    for share in USING:
        event = np.flatnonzero(events.enters & (rng.random(len(events.start)) < share))
        station, dwell = events.wishes.station[event], events.wishes.dwell[event]
        chance = rng.random((4, len(event)))
        nth = (chance[0] * stations.facilities[station]).astype(np.int64)
        facility = stations.first_facility[station] + nth
        kind = things.kinds[facility]
        start = events.start[event]
        begun = start + (chance[1] * 0.6 * dwell).astype(np.int64)
        minutes = shortest[kind] + chance[2] * (longest[kind] - shortest[kind])
        ended = np.minimum(begun + (minutes * MINUTE).astype(np.int64), start + dwell - US)
        counted = longest[kind] == 0
        amount = least[kind] + (chance[2] * (most[kind] - least[kind])).astype(np.int64)
        since, until = things.faults[:, facility]
        is_out = (begun >= since) & (begun < until) & ~things.is_degraded[facility]
        happens = (begun < np.minimum(things.broken_at[facility], city.horizon)) & ~is_out
        found.append(
            Uses(
                event,
                facility,
                begun,
                np.where(counted, begun, ended),
                counted | ((chance[3] > 0.06) & (ended <= city.horizon)),
                amount,
                counted,
            )
        )
        found[-1] = Uses(*(_part(found[-1], name, happens) for name in ("event", *_USE_REST)))
    return Uses(
        *(np.concatenate([getattr(one, name) for one in found]) for name in ("event", *_USE_REST))
    )


def _stay(city: City, events: Events, uses: Uses) -> None:
    """Say until when each visit counts: his last event plus the longest stay (law 10)."""
    heard = events.start.copy()
    np.maximum.at(heard, uses.event, np.where(uses.is_over, uses.ended, uses.begun))
    events.stay_until = heard + city.stations.max_stay[events.wishes.station]
    leaves = events.wishes.leaves
    left = events.start + events.wishes.dwell
    events.until = np.where(leaves, left, events.stay_until)
    events.end_source = np.where(
        leaves, ENDS.index(EndSource.WORKER), ENDS.index(EndSource.IMPUTED)
    ).astype(np.int8)


_STATION = 1 << 42
"""More microseconds than a day and the longest stay."""


def _fits(city: City, events: Events, before: Whereabouts, begins: int) -> Flags:
    """Say of every attempt whether its party would find room (law 9).

    A place is taken from the scan on, as the place that is kept for him is.
    """
    wishes, enters = events.wishes, events.enters
    taken = np.where(events.by_pass, events.start, wishes.at)
    coming = np.concatenate(
        [before.inside_station * _STATION, _place(wishes.station, taken, begins)[enters]]
    )
    going = np.concatenate(
        [
            _place(before.inside_station, before.inside_until, begins),
            _place(wishes.station, events.until, begins)[enters],
        ]
    )
    party = np.concatenate([before.inside_party, wishes.party[enters]])
    asked = _place(wishes.station, wishes.at, begins)
    inside = _counted(coming, party, asked, "left") - _counted(going, party, asked, "right")
    fits: Flags = inside + wishes.party <= city.stations.capacity[wishes.station]
    return fits


def _place(station: Ints, at: Ints, begins: int) -> Ints:
    return station * _STATION + at - begins


def _counted(keys: Ints, party: Ints, asked: Ints, side: Any) -> Ints:
    """Sum up the parties before each of the keys asked for."""
    order = np.argsort(keys)
    sums = np.concatenate([[0], np.cumsum(party[order])])
    found: Ints = sums[np.searchsorted(keys[order], asked, side=side)]
    return found


def _refuse(events: Events, which: Flags, reason: Reason) -> None:
    events.reason[which] = WHYS.index(reason)
    events.outcome[which] = OUTCOMES.index(Outcome.REFUSED)
    events.enters = events.enters & ~which


def _one_place_each(city: City, events: Events, before: Whereabouts) -> None:
    """See to it that each worker is in one place at a time.

    Of two events of one worker that cannot both be his, the later was a stranger's; it is looked
    at again until none is left. Who said nothing and turned up elsewhere ended his visit there.
    """
    wishes = events.wishes
    worker, station, at = wishes.worker, wishes.station, wishes.at
    # In one number: by worker, then by time.
    order = np.argsort(worker * (1 << 38) + (at - city.origin) % (1 << 38))
    left = events.start + wishes.dwell
    while True:
        order = order[~events.stranger[order]]
        him = worker[order]
        last = _last_entry(events.enters[order], him)
        known = last >= 0
        one = order[np.maximum(last, 0)]
        was = np.where(known, station[one], before.station[him])
        since = np.where(known, events.start[one], before.since[him])
        until = np.where(known, events.until[one], before.until[him])
        gone = np.where(known, left[one], before.until[him])
        now, here = at[order], was == station[order]
        clash = np.where(here, now < until, (now < gone) | (now - since < APART))
        if not clash.any():
            break
        events.stranger[order[clash]] = True
    moved = known & ~here & events.enters[order] & (events.start[order] < until)
    events.until[one[moved]] = events.start[order[moved]]
    events.end_source[one[moved]] = ENDS.index(EndSource.OTHER_STATION)
    workers = city.workers
    events.named = (
        ~events.stranger
        & (workers.consent_from[worker] <= at)
        & (at < workers.consent_until[worker])
    )
    until = np.where(known, events.until[one], before.until[him])
    was_named = np.where(known, events.named[one], before.named[him])
    start = events.start[order]
    soon = here & was_named & (until <= start) & (start < until + RE_ENTRY_US)
    events.re_entry[order] = soon & events.enters[order] & events.named[order]


def _last_entry(enters: Flags, worker: Ints) -> NDArray[Any]:
    """Say for each event where the same worker's last entry before it stands; -1: nowhere."""
    own = np.where(enters, np.arange(len(enters)), -1)
    last = np.concatenate([[-1], np.maximum.accumulate(own)[:-1]]) if len(own) else own
    same = worker[np.maximum(last, 0)] == worker
    return np.where((last >= 0) & same, last, -1)


def _after(city: City, events: Events, before: Whereabouts, over: int) -> Whereabouts:
    """Say where everybody is when the day is over."""
    entered = np.flatnonzero(events.enters & ~events.stranger)
    entered = entered[np.argsort(events.start[entered], kind="stable")]
    # The last of each worker, so that the order of writing does not matter.
    him, first = np.unique(events.wishes.worker[entered][::-1], return_index=True)
    last = entered[::-1][first]
    station, since, until = before.station.copy(), before.since.copy(), before.until.copy()
    named = before.named.copy()
    station[him] = events.wishes.station[last]
    since[him], until[him], named[him] = events.start[last], events.until[last], events.named[last]
    inside = events.enters & (events.until > over)
    still = before.inside_until > over
    return Whereabouts(
        station,
        since,
        until,
        named,
        np.concatenate([before.inside_station[still], events.wishes.station[inside]]),
        np.concatenate([before.inside_until[still], events.until[inside]]),
        np.concatenate([before.inside_party[still], events.wishes.party[inside]]),
        before.told + _by_station(events.wishes.station[events.by_pass], len(before.told)),
    )


def _by_station(stations: Ints, count: int) -> Ints:
    return np.bincount(stations, minlength=count).astype(np.int64)
