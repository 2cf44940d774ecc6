"""The rows that a day leaves in the tables; what retention has taken by now is not there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from app.db.bulk import Column, Rows
from app.db.types import table_of
from app.doors.rules import UNLOCK_SECONDS, CommandState, Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import Command, CommandKind, JournalEntry, OfflineEntry, Scan
from app.generate.city import OCCUPATIONS, City, Flags, day_of, values
from app.generate.events import (
    ENDS,
    FREE,
    HOUR,
    OK,
    OUTCOMES,
    STATES,
    WHYS,
    Events,
    Uses,
    Whereabouts,
)
from app.generate.numbers import hexed, marks, mixed, new_ids
from app.generate.timetable import (
    DAY,
    KINDS,
    MINUTE,
    OFFSET,
    REASONS,
    US,
    Ints,
    instant_of,
    midnight,
)
from app.places import held
from app.places.tables import StationModes
from app.visits.tables import FacilityUse, Visit, WalkInCount

HALF_HOUR = 30 * MINUTE
TELLING = 5 * US
"""So long after it is heard again a box has told what it did alone."""
PUSH = 2 * US
"""From the relay to the door's contact."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of a day by table, and where everybody is at its end."""

    rows: Sequence[tuple[sa.Table, Rows]]
    visits: int
    scans: int
    refused: int
    commands: int
    uses: int
    head_counts: int
    alone: int
    """Passes by which boxes opened that worked alone."""
    after: Whereabouts


def written(
    city: City,
    events: Events,
    uses: Uses,
    index: int,
    after: Whereabouts,
    rng: np.random.Generator,
) -> Drawn:
    """Write the day down; what retention has taken by now is not there."""
    wishes, count = events.wishes, len(events.reason)
    entered = np.flatnonzero(events.enters)
    entered = entered[np.argsort(events.start[entered], kind="stable")]
    visit_ids = np.zeros(count, "V16")
    visit_ids[entered] = new_ids(rng, events.start[entered])
    scanned = np.argsort(wishes.at, kind="stable")
    scan_ids = np.zeros(count, "V16")
    scan_ids[scanned] = new_ids(rng, wishes.at[scanned])
    granted = scanned[events.outcome[scanned] == OUTCOMES.index(Outcome.GRANTED)]
    begun = np.argsort(uses.begun, kind="stable")
    heads, head_rows = _head_counts(city, index, rng)
    return Drawn(
        rows=(
            (table_of(Visit), _visit_rows(city, events, entered, visit_ids)),
            (table_of(Scan), _scan_rows(city, events, scanned, scan_ids, visit_ids, index, rng)),
            (table_of(Command), _command_rows(city, events, granted, scan_ids, rng)),
            (table_of(FacilityUse), _use_rows(city, events, uses, begun, visit_ids, rng)),
            (table_of(WalkInCount), head_rows),
            (table_of(StationModes), _mode_rows(city, index)),
            *_alone_rows(city, events, index, visit_ids, after),
        ),
        visits=len(entered),
        scans=count,
        refused=int((events.reason != OK).sum()),
        commands=len(granted),
        uses=len(begun),
        head_counts=heads,
        alone=int(events.by_pass.sum()),
        after=after,
    )


def _words(numbers: NDArray[Any], kinds: Sequence[Any], null: Flags | None = None) -> Column:
    return Column(numbers, null, values(kinds))


def _same(count: int, word: str) -> Column:
    return Column(np.zeros(count, np.int8), words=(word,))


def _when(at: Ints) -> Mapping[str, Column]:
    """Give the local day and hour of instants."""
    local = at + OFFSET
    return {"local_day": Column(local // DAY), "local_hour": Column(local % DAY // HOUR)}


def _nameless(city: City, named: Flags, at: Ints) -> Flags:
    """Say which rows carry no worker: without consent, or past retention."""
    days = city.plan.retention_days
    past = city.horizon - days * DAY if days is not None else 0
    return ~named | (at < past)


def _visit_rows(city: City, events: Events, which: Ints, ids: NDArray[Any]) -> Rows:
    wishes, start, until = events.wishes, events.start[which], events.until[which]
    worker, station = wishes.worker[which], wishes.station[which]
    nameless = _nameless(city, events.named[which], start)
    is_open = until > city.horizon
    return {
        "id": Column(ids[which]),
        "station_id": Column(city.stations.ids[station]),
        "worker_id": Column(city.workers.ids[worker], nameless),
        "occupation": _words(city.workers.occupations[worker], OCCUPATIONS),
        "mode": _words(events.modes.kind[which], KINDS),
        "party_size": Column(wishes.party[which]),
        "re_entry": Column(events.re_entry[which]),
        "started_at": Column(start),
        "stay_until": Column(events.stay_until[which]),
        "ended_at": Column(until, is_open),
        "end_source": _words(events.end_source[which], ENDS, is_open),
        **_when(start),
        "changed_at": Column(
            np.maximum(np.where(is_open, start, until), _told_at(events.alone_until[which]))
        ),
    }


def _told_at(again: Ints) -> Ints:
    """Say when what a box did alone was told and written; 0: it did nothing."""
    found: Ints = np.where(again > 0, again + TELLING, 0)
    return found


def _scan_rows(
    city: City,
    events: Events,
    which: Ints,
    ids: NDArray[Any],
    visit_ids: NDArray[Any],
    index: int,
    rng: np.random.Generator,
) -> Rows:
    wishes, modes, at = events.wishes, events.modes, events.wishes.at[which]
    worker, station, door = wishes.worker[which], wishes.station[which], wishes.door[which]
    reason, enters = events.reason[which], (events.enters & ~events.by_pass)[which]
    granted = events.outcome[which] == OUTCOMES.index(Outcome.GRANTED)
    nowhere = reason == WHYS.index(Reason.TOKEN_INVALID)
    person = np.where(events.stranger[which], _nobody(city, index, which), worker)
    shown = granted & city.doors.has_display[door]
    changed = np.maximum(at, np.where(enters, events.start[which], events.settled[which]))
    return {
        "id": Column(ids[which]),
        "worker_id": Column(city.workers.ids[worker], _nameless(city, events.named[which], at)),
        "demand_key": Column(marks(city.plan.seed, person, station, at // HALF_HOUR), nowhere),
        "station_id": Column(city.stations.ids[station], nowhere),
        "door_id": Column(city.doors.ids[door], nowhere),
        "outcome": _words(events.outcome[which], OUTCOMES),
        "reason": _words(reason, WHYS),
        "occupation": _words(city.workers.occupations[worker], OCCUPATIONS),
        "mode": _words(modes.kind[which], KINDS, nowhere),
        "because": _words(modes.because[which], REASONS, nowhere),
        "mode_until": Column(modes.until[which], nowhere | modes.endless[which]),
        "calendar_known": Column(modes.known[which], nowhere),
        "party_size": Column(wishes.party[which]),
        "code_jti": Column(hexed(rng.integers(0, 1 << 63, len(at), dtype=np.uint64)), ~shown),
        "scanned_at": Column(at),
        "decide_ms": Column(_decided_in(len(at), rng)),
        "expires_at": Column(at + int(UNLOCK_SECONDS) * US, ~granted),
        "visit_id": Column(visit_ids[which], ~enters),
        **{name: Column(each.values, nowhere) for name, each in _when(at).items()},
        "changed_at": Column(changed),
    }


def _decided_in(count: int, rng: np.random.Generator) -> Ints:
    """Draw how many milliseconds decisions took: mostly some, now and then behind many others."""
    took = 7 * rng.lognormal(0, 0.5, count)
    took += np.where(rng.random(count) < 0.01, rng.exponential(120, count), 0)
    return took.astype(np.int64)


def _command_rows(
    city: City, events: Events, which: Ints, scan_ids: NDArray[Any], rng: np.random.Generator
) -> Rows:
    wishes, at = events.wishes, events.wishes.at[which]
    station, count = wishes.station[which], len(which)
    claimed, pulsed = events.claimed[which], events.pulsed[which]
    settled, opened = events.settled[which], events.opened[which]
    failed = events.state[which] == STATES.index(CommandState.FAILED)
    expires = at + int(UNLOCK_SECONDS) * US
    # A box starts anew about once a week.
    boots = mixed((station * 4096 + at // (7 * DAY)).astype(np.uint64))
    changed = np.maximum(np.where(settled > 0, settled, expires), opened)
    return {
        "id": Column(new_ids(rng, at)),
        "kind": _same(count, CommandKind.UNLOCK.value),
        "station_id": Column(city.stations.ids[station]),
        "door_id": Column(city.doors.ids[wishes.door[which]]),
        "controller_id": Column(city.stations.controllers[station]),
        "scan_id": Column(scan_ids[which]),
        "state": _words(events.state[which], STATES),
        "created_at": Column(at),
        "expires_at": Column(expires),
        "claimed_at": Column(claimed, claimed == 0),
        "boot_id": Column(hexed(boots), claimed == 0),
        "nonce": Column(hexed(rng.integers(0, 1 << 63, count, dtype=np.uint64)), claimed == 0),
        "settled_at": Column(settled, settled == 0),
        "pulsed_at": Column(pulsed, pulsed == 0),
        "opened_at": Column(opened, opened == 0),
        "pulse_after_claim_ms": Column(events.pulse_ms[which], pulsed == 0),
        "detail": Column(np.zeros(count, np.int8), ~failed, ("relay does not answer",)),
        "changed_at": Column(changed),
    }


def _use_rows(
    city: City,
    events: Events,
    uses: Uses,
    which: Ints,
    visit_ids: NDArray[Any],
    rng: np.random.Generator,
) -> Rows:
    begun, event = uses.begun[which], uses.event[which]
    open_still = ~uses.is_over[which]
    return {
        "id": Column(new_ids(rng, begun)),
        "facility_id": Column(city.facilities.ids[uses.facility[which]]),
        "station_id": Column(city.stations.ids[events.wishes.station[event]]),
        "visit_id": Column(visit_ids[event]),
        "quantity": Column(uses.quantity[which], ~uses.counted[which]),
        "begun_at": Column(begun),
        "ended_at": Column(uses.ended[which], open_still),
        **_when(begun),
        "changed_at": Column(np.where(open_still, begun, uses.ended[which])),
    }


def _alone_rows(
    city: City, events: Events, index: int, visit_ids: NDArray[Any], after: Whereabouts
) -> Sequence[tuple[sa.Table, Rows]]:
    """Write down what boxes told of the passes by which they opened while they worked alone."""
    which = np.flatnonzero(events.by_pass)
    wishes, start = events.wishes, events.start[which]
    station = wishes.station[which]
    order = np.lexsort((start, station))
    which, start, station = which[order], start[order], station[order]
    worker, door = wishes.worker[which], wishes.door[which]
    # By numbers of its own, so that nothing else of the day becomes other.
    rng = np.random.default_rng([city.plan.seed, index, 7])
    ids, count = new_ids(rng, start), len(which)
    pushed = city.doors.has_contact[door]
    happened = np.where(pushed, start - PUSH, start)
    told = _told_at(events.alone_until[which])
    here = np.bincount(station, minlength=len(after.told))
    earlier = np.arange(count) - np.searchsorted(station, station)
    seq = (after.told - here)[station] + earlier + 1
    marked = marks(city.plan.seed, seq, station)
    boots = mixed((station * 4096 + happened // (7 * DAY)).astype(np.uint64))
    person = np.where(events.stranger[which], _nobody(city, index, which), worker)
    noughts = np.zeros(count, np.int8)
    entries = {
        "id": Column(ids),
        "controller_id": Column(city.stations.controllers[station]),
        "epoch": Column(np.ones(count, np.int64)),
        "seq": Column(seq),
        "event_id": Column(hexed(rng.integers(0, 1 << 63, count, dtype=np.uint64))),
        "boot_id": Column(hexed(boots)),
        "type": _same(count, EventType.OFFLINE_ENTRY.value),
        "door_id": Column(city.doors.ids[door]),
        "occurred_at": Column(happened),
        "corrected_at": Column(happened),
        "error_ms": Column(np.full(count, 20, np.int64)),
        "quality": _same(count, Quality.SYNCED.value),
        "late": Column(np.ones(count, np.bool_)),
        "received_at": Column(told),
        "content_hash": Column(marked),
        "body": Column(noughts, words=('{"result": "opened"}',)),
        "applied_at": Column(told),
        "effect": _same(count, "opened"),
    }
    reviewed = {
        "entry_id": Column(ids),
        "station_id": Column(city.stations.ids[station]),
        "door_id": Column(city.doors.ids[door]),
        "worker_id": Column(
            city.workers.ids[worker], _nameless(city, events.named[which], happened)
        ),
        "demand_key": Column(marks(city.plan.seed, person, station, happened // HALF_HOUR)),
        "opened": Column(np.ones(count, np.bool_)),
        "reason": _words(np.full(count, OK, np.int8), WHYS),
        "occupation": _words(city.workers.occupations[worker], OCCUPATIONS),
        "mode": _words(events.modes.kind[which], KINDS),
        "because": _words(events.modes.because[which], REASONS),
        "happened_at": Column(happened),
        "opened_at": Column(start, ~pushed),
        "visit_id": Column(visit_ids[which]),
        **_when(happened),
        "reviewed_at": Column(told),
        "changed_at": Column(told),
    }
    return (table_of(JournalEntry), entries), (table_of(OfflineEntry), reviewed)


def _nobody(city: City, index: int, which: Ints) -> Ints:
    """Give numbers of strangers: of nobody else, and of nobody twice."""
    return len(city.workers.ids) + index * (1 << 24) + which


def _head_counts(city: City, index: int, rng: np.random.Generator) -> tuple[int, Rows]:
    """Let the staff of some stations count heads for an hour, where the door stands open."""
    begins, stations = midnight(day_of(city, index)), city.stations
    some = rng.random(len(stations.ids)) < 0.15
    hour = rng.integers(8, 18, len(stations.ids))
    from_at = begins + hour * HOUR
    alive = (stations.opened_at <= begins) & (begins + DAY <= stations.retired_at)
    free = city.timetable.at(stations.rules, from_at).kind == FREE
    free &= city.timetable.at(stations.rules, from_at + HOUR - 1).kind == FREE
    which = np.flatnonzero(some & alive & free & stations.is_staffed)
    from_at = from_at[which]
    until_at = from_at + HOUR
    keeper = np.frombuffer(city.keeper.bytes, "V16")
    return len(which), {
        "id": Column(new_ids(rng, until_at)),
        "station_id": Column(stations.ids[which]),
        "count": Column(rng.poisson(1 + 2 * stations.popularity[which])),
        "from_at": Column(from_at),
        "until_at": Column(until_at),
        "local_day": Column((from_at + OFFSET) // DAY),
        "admin_id": Column(np.repeat(keeper, len(which))),
        "created_at": Column(until_at),
    }


def _mode_rows(city: City, index: int) -> Rows:
    """Write down which modes held, as the job of those days would have."""
    begins, stations = midnight(day_of(city, index)), city.stations
    which = np.flatnonzero((stations.opened_at <= begins) & (begins + DAY <= stations.retired_at))
    kinds = np.stack([stations.rules[which], stations.capacity[which]])
    kinds, numbers = np.unique(kinds, axis=1, return_inverse=True)
    since, until = instant_of(begins), instant_of(begins + DAY)
    days = [
        next(held.days_of(city.rules[number], city.calendar, since, until, seats))
        for number, seats in kinds.T.tolist()
    ]
    count = len(which)
    over = Column(np.full(count, begins + DAY, np.int64))
    return {
        "station_id": Column(stations.ids[which]),
        "local_day": Column(np.full(count, (begins + OFFSET) // DAY, np.int64)),
        "midnight_at": Column(np.full(count, begins, np.int64)),
        "windows": Column(numbers, words=[json.dumps(day["windows"]) for day in days]),
        "promised": Column(numbers, words=[json.dumps(day["promised"]) for day in days]),
        "seats": Column(numbers, words=[json.dumps(day["seats"]) for day in days]),
        "recorded_until": over,
        "changed_at": over,
    }
