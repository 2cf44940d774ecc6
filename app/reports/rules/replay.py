"""What-if: the recorded scans of a station decided again under other rules. Pure.

Two histories run side by side: the people inside as they were recorded, and as they would have
been. Every scan is decided by the one `decide()`, from the facts that its record proves, the mode
that the one mode function gives, and the people of the second history. No rule is written here a
second time. A station's scans come in order of time; whoever feeds them need not hold them.
"""

import heapq
from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from app.doors.rules import (
    RESERVATION_GRACE,
    Granted,
    Outcome,
    Reason,
    Refused,
    WalkIn,
    decide,
    facts_on_record,
    half_hour_of,
)
from app.places.rules import Because, Kind, Mode, StationRules
from app.reports.rules.suppositions import Supposition
from app.reports.rules.tallies import LET_IN, Answer, Ledger, Tally
from app.reports.rules.timetables import Timetables
from app.visits.rules import last_heard


class Sojourn(NamedTuple):
    """A recorded visit, as far as it takes up places."""

    visit_id: Hashable
    worker_id: Hashable | None
    started_at: datetime
    stay_until: datetime
    ended_at: datetime | None
    left_at: datetime | None
    """The end, if somebody saw it or saw him elsewhere; None when it is imputed or to come."""
    party_size: int


class Recorded(NamedTuple):
    """A scan as it was recorded, and the visit that came of it; in this order it is fed."""

    station_id: Hashable
    scan_id: Hashable
    scanned_at: datetime
    local_day: date
    local_hour: int
    outcome: Outcome
    reason: Reason
    mode: Kind | None
    because: Because | None
    party_size: int
    worker_id: Hashable | None
    demand_key: Hashable | None
    expires_at: datetime | None
    settled_at: datetime | None
    """When the command of a grant without a visit was over."""
    visit_id: Hashable | None
    started_at: datetime | None
    stay_until: datetime | None
    ended_at: datetime | None
    left_at: datetime | None
    visitors: int | None
    """The visit's party."""


@dataclass(frozen=True, slots=True)
class Site:
    """A station as it is today, with what is known of the period."""

    place: Hashable
    """Which row's it is, where rows are places."""
    rules: StationRules
    """Today's hours, and every dated change as long as it held then."""
    capacity: int
    """The places of today: of time of which no others are recorded."""
    max_stay: timedelta
    usual_stay: timedelta | None = None
    """The median stay of the period whose end was observed."""
    silences: Sequence[tuple[datetime, datetime]] = ()
    """When the controller was silent, in order."""
    seats: Sequence[tuple[datetime, datetime, int]] = ()
    """From when until when there were how many places, as far as it is recorded, in order."""
    sojourns: Sequence[Sojourn] = ()
    """Visits that no scan of the period opened, in order of their beginning."""
    met_alone: Collection[Hashable] = ()
    """The demands of the period that the controller met while it worked alone."""


@dataclass(slots=True, eq=False)
class _Stay:
    """A place that is taken: by a visit, or kept for one that is about to begin."""

    counts_from: datetime
    """From when he needs no other place; before, the place is only kept for him."""
    until: datetime
    persons: int
    names: list[Hashable]
    """By what his later scans are known as his."""
    earlier: "_Stay | None" = None
    """Another place that is taken for him."""


class _Inside:
    """Who is inside, in one of the two histories."""

    def __init__(self) -> None:
        self.persons = 0
        self._leaving: list[tuple[datetime, int, _Stay]] = []
        self._stays: dict[Hashable, _Stay] = {}
        self._entered = 0

    def pass_time(self, at: datetime) -> None:
        """Let those leave whose time is over."""
        while self._leaving and self._leaving[0][0] <= at:
            stay = heapq.heappop(self._leaving)[2]
            self.persons -= stay.persons
            for name in stay.names:
                if self._stays.get(name) is stay:
                    del self._stays[name]

    def of(self, names: Sequence[Hashable]) -> _Stay | None:
        """Give the place that somebody has taken."""
        if self._stays:
            for name in names:
                if (stay := self._stays.get(name)) is not None:
                    return stay
        return None

    def enter(self, stay: _Stay) -> None:
        """Take a place."""
        self.persons += stay.persons
        self._entered += 1
        heapq.heappush(self._leaving, (stay.until, self._entered, stay))
        for name in stay.names:
            self._stays[name] = stay

    def know(self, stay: _Stay, names: Sequence[Hashable]) -> None:
        """Learn by what else somebody is known."""
        for name in names:
            if self._stays.get(name) is not stay:
                self._stays[name] = stay
                stay.names.append(name)


def _held_by(stay: _Stay | None, at: datetime) -> int:
    """Count the persons of all places that are taken for somebody."""
    held = 0
    while stay is not None:
        held += stay.persons if at < stay.until else 0
        stay = stay.earlier
    return held


_NEVER = datetime.max.replace(tzinfo=UTC)

_REFUSED_BEFORE, _LET_IN_BEFORE, _REFUSED_AFTER, _LET_IN_AFTER = 1, 2, 4, 8


class Replay:
    """Decides the scans of some stations again, one station after the other."""

    def __init__(
        self,
        sites: Mapping[Hashable, Site],
        supposed: Supposition,
        timetables: Timetables,
        ledger: Ledger,
    ) -> None:
        self._sites, self._supposed = sites, supposed
        self._timetables, self._ledger = timetables, ledger
        self._station: _Station | None = None

    def feed(self, rows: Iterable[Any]) -> None:
        """Take scans in, each a `Recorded` or a row like it, by station and time."""
        station = self._station
        for row in rows:
            if station is None or station.id != row[0]:
                self.finish()
                site = self._sites[row[0]]
                station = _Station(row[0], site, self._supposed, self._timetables, self._ledger)
                self._station = station
            station.scan(*row)

    def finish(self) -> None:
        """Close the books of the last station."""
        if self._station is not None:
            self._station.close_half_hour()
            self._station = None


class _Station:
    """One station's two histories."""

    def __init__(
        self,
        id: Hashable,
        site: Site,
        supposed: Supposition,
        timetables: Timetables,
        ledger: Ledger,
    ) -> None:
        self.id = id
        self._site, self._supposed, self._ledger = site, supposed, ledger
        self._today = self._other = None
        if supposed.moves_modes:
            self._today = timetables.of(site.rules)
            self._other = timetables.of(supposed.rules_of(site.rules))
        self._max_stay = supposed.max_stay or site.max_stay
        self._seats_from = [since for since, _, _ in site.seats]
        self._usual_stay = min(site.usual_stay or self._max_stay, self._max_stay)
        self._ignored = supposed.ignored_reasons
        self._then, self._now = _Inside(), _Inside()
        self._sojourn = 0
        self._half_hour: datetime | None = None
        self._demands: dict[Hashable, tuple[int, tuple[Tally, Tally]]] = {}

    def scan(
        self,
        _station_id: Hashable,
        scan_id: Hashable,
        at: datetime,
        day: date,
        hour: int,
        outcome: Outcome,
        reason: Reason,
        kind: Kind | None,
        because: Because | None,
        party_size: int,
        worker_id: Hashable | None,
        demand_key: Hashable | None,
        expires_at: datetime | None,
        settled_at: datetime | None,
        visit_id: Hashable | None,
        started_at: datetime | None,
        stay_until: datetime | None,
        ended_at: datetime | None,
        left_at: datetime | None,
        visitors: int | None,
    ) -> None:
        """Decide one scan again, count both answers, and let both histories go on."""
        self._pass_time(at)
        names = [name for name in (visit_id, worker_id, demand_key) if name is not None]
        recorded = None
        if visit_id is not None and started_at is not None and stay_until is not None:
            recorded = Sojourn(
                visit_id, worker_id, started_at, stay_until, ended_at, left_at, visitors or 1
            )
        kept_until = None
        if outcome is Outcome.GRANTED and expires_at is not None:
            kept_until = expires_at + RESERVATION_GRACE
            if settled_at is not None and settled_at < kept_until:
                kept_until = settled_at
        then, now = self._then, self._now
        his_then, his = then.of(names), now.of(names)
        if kind is None or because is None:
            self._ledger.without_mode += 1
            self._recall(then, his_then, recorded, kept_until, names, at, party_size)
            self._suppose(his, recorded, kept_until, names, at, party_size)
            return
        mode = Mode(kind, because, None, True)
        if self._other is not None and self._today is not None:
            if self._today.at(at, day).kind is not kind:
                self._ledger.amended_since += 1
            mode = self._other.at(at, day)
        others = now.persons - _held_by(his, at)
        capacity = self._supposed.capacity
        if capacity is None:
            capacity = self._places(at)
            # What the scans prove of the places there were: they may have been others than today.
            needed = then.persons - _held_by(his_then, at) + party_size
            if reason is Reason.STATION_FULL:
                capacity = min(capacity, needed - 1)
            elif outcome is Outcome.GRANTED and not _counts(his_then, at):
                capacity = max(capacity, needed)
        decision = decide(
            facts_on_record(
                Reason.OK if reason in self._ignored else reason,
                mode,
                controller_heard=self._is_heard(outcome, reason, at),
                inside=others,
                capacity=capacity,
                party_size=party_size,
                counted_already=_counts(his, at),
            )
        )
        before: Answer = reason if outcome is Outcome.REFUSED else outcome
        match decision:
            case Refused(why):
                after: Answer = why
            case WalkIn():
                after = Outcome.WALK_IN
            case Granted():
                after = Outcome.GRANTED
        tallies = self._ledger.tallies(self._ledger.key(self._site.place, day, hour), hour)
        is_again = before not in LET_IN and after in LET_IN and _counts(his, at)
        for tally in tallies:
            tally.answers[before, after] += 1
            tally.again += is_again
        if before is not after:
            self._ledger.move(scan_id, at, before, after)
        if demand_key is not None:
            self._demand(demand_key, at, before in LET_IN, after in LET_IN, tallies)
        self._recall(then, his_then, recorded, kept_until, names, at, party_size)
        if after in LET_IN:
            if before not in LET_IN or (after is Outcome.WALK_IN and recorded is None):
                self._newly(his, names, at, party_size)
            else:
                self._suppose(his, recorded, kept_until, names, at, party_size)

    def _places(self, at: datetime) -> int:
        """Say how many places there were, by the record; where there is none, as many as today."""
        number = bisect_right(self._seats_from, at) - 1
        if number >= 0 and at < self._site.seats[number][1]:
            return self._site.seats[number][2]
        return self._site.capacity

    def _is_heard(self, outcome: Outcome, reason: Reason, at: datetime) -> bool:
        """Say whether the controller was heard: by the record, else by its silences of the time."""
        if Reason.CONTROLLER_OFFLINE in self._ignored:
            return True
        if reason is Reason.CONTROLLER_OFFLINE:
            return False
        if outcome is Outcome.GRANTED or reason is Reason.STATION_FULL:
            return True
        return not any(since <= at < until for since, until in self._site.silences)

    def _pass_time(self, at: datetime) -> None:
        """Let those in whom no scan of the period let in, and those out whose time is over."""
        sojourns = self._site.sojourns
        while self._sojourn < len(sojourns) and sojourns[self._sojourn].started_at <= at:
            came = sojourns[self._sojourn]
            self._sojourn += 1
            names = [name for name in (came.visit_id, came.worker_id) if name is not None]
            for inside, until in (
                (self._then, came.ended_at or came.stay_until),
                (self._now, self._until(came)),
            ):
                inside.pass_time(came.started_at)
                inside.enter(_Stay(came.started_at, until, came.party_size, list(names)))
        self._then.pass_time(at)
        self._now.pass_time(at)

    def _recall(
        self,
        inside: _Inside,
        his: _Stay | None,
        recorded: Sojourn | None,
        kept_until: datetime | None,
        names: list[Hashable],
        at: datetime,
        party_size: int,
    ) -> None:
        """Let the recorded history go on."""
        until = (recorded.ended_at or recorded.stay_until) if recorded else kept_until
        _go_on(inside, his, recorded, until, names, at, party_size)

    def _suppose(
        self,
        his: _Stay | None,
        recorded: Sojourn | None,
        kept_until: datetime | None,
        names: list[Hashable],
        at: datetime,
        party_size: int,
    ) -> None:
        """Let the supposed history go on where he was let in in both."""
        until = self._until(recorded) if recorded else kept_until
        _go_on(self._now, his, recorded, until, names, at, party_size)

    def _newly(
        self, his: _Stay | None, names: list[Hashable], at: datetime, party_size: int
    ) -> None:
        """Let somebody in of whom no stay is recorded: he stays as long as is usual here."""
        if his is not None and _counts(his, at):
            self._now.know(his, names)
            return
        self._now.enter(_Stay(at, at + self._usual_stay, party_size, names, his))

    def _until(self, came: Sojourn) -> datetime:
        """Say when a recorded visit stops counting under the supposed longest stay (law 10)."""
        if self._supposed.max_stay is None:
            return came.ended_at or came.stay_until
        heard_at = last_heard(came.started_at, came.stay_until, came.ended_at, self._site.max_stay)
        cut_off = heard_at + self._max_stay
        return cut_off if came.left_at is None else min(came.left_at, cut_off)

    def _demand(
        self,
        key: Hashable,
        at: datetime,
        in_before: bool,
        in_after: bool,
        tallies: tuple[Tally, Tally],
    ) -> None:
        """Note for law 8 whether one demand was met, in either history."""
        half_hour = half_hour_of(at)
        if half_hour != self._half_hour:
            self.close_half_hour()
            self._half_hour = half_hour
        seen, where = self._demands.get(key, (0, tallies))
        seen |= _LET_IN_BEFORE if in_before else _REFUSED_BEFORE
        seen |= _LET_IN_AFTER if in_after else _REFUSED_AFTER
        self._demands[key] = (seen, where)

    def close_half_hour(self) -> None:
        """Count the demands of the half hour that was refused and never met (law 8)."""
        for key, (seen, tallies) in self._demands.items():
            if key in self._site.met_alone:
                continue
            for tally in tallies:
                tally.unmet_before += not seen & _LET_IN_BEFORE
                tally.unmet_after += not seen & _LET_IN_AFTER
        self._demands.clear()


def _counts(stay: _Stay | None, at: datetime) -> bool:
    """Say whether somebody is inside already and needs no place."""
    return stay is not None and stay.counts_from <= at < stay.until


def _go_on(
    inside: _Inside,
    his: _Stay | None,
    recorded: Sojourn | None,
    until: datetime | None,
    names: list[Hashable],
    at: datetime,
    party_size: int,
) -> None:
    """Let somebody in as recorded: his visit goes on or begins, or his place is only kept."""
    about_to = recorded is not None and his is not None and recorded.visit_id in his.names
    if his is not None and (about_to or _counts(his, at)):
        inside.know(his, names)
        return
    if until is None or until <= at:
        return
    if recorded is not None:
        stay = _Stay(recorded.started_at, until, recorded.party_size, names, his)
    else:
        stay = _Stay(_NEVER, until, party_size, names, his)
    inside.enter(stay)
