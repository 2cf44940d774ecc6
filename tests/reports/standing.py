"""How a station stood, found out by asking of every little time what was true then: slow and plain.

The time half of the recount, from the same words by which a history told the product: what rules
stood, when a controller was heard, what was said of a facility. Between two neighbouring edges
nothing changes, so each such time is asked once, and all that is true of it is added up. Of the
product it takes the mode function alone: what hours, calendar, exceptions and emergencies come to
has its own tests, but reports read what was recorded of it, day by day, as rules came and went.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from app.places.rules import Calendar, Change, Kind, StationRules, Tier, mode_at
from app.places.tables import FacilityKind, FacilityStatus, Station

MS = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)
DEAF_AFTER = timedelta(seconds=15)
"""Nothing written for so long: no process was there to hear."""

Time = tuple[datetime, datetime]
Hours = Mapping[date, Mapping[int, Counter[str]]]
"""Of each local day and hour: numbers by their names."""


@dataclass
class Box:
    """A controller, and when it was heard."""

    enrolled_at: datetime
    retired_at: datetime | None = None
    heard: list[Time] = field(default_factory=list)
    """From when until when it kept being heard, in any order."""
    silences: list[Time] | None = None
    """Those that are over, where they were written down; None: see when it was heard."""

    def silent(self, silence: timedelta, at: datetime) -> list[tuple[datetime, datetime, bool]]:
        """Give the times without a sign of life that are too long, and whether each is over."""
        ended = at if self.retired_at is None else min(self.retired_at, at)
        last, found = self.enrolled_at, []
        for first, until in sorted(self.heard):
            if self.silences is None and first - last > silence:
                found.append((last, first, True))
            last = max(last, until)
        found += [(since, until, True) for since, until in self.silences or ()]
        if ended - last > silence:
            found.append((last, ended, False))
        return found


@dataclass
class Thing:
    """A facility, and what was said of it."""

    kind: FacilityKind
    created_at: datetime
    retired_at: datetime | None = None
    words: list[tuple[datetime, FacilityStatus]] = field(default_factory=list)
    """Since when it was how, in any order; at first it works."""
    counts: list[tuple[datetime, int]] = field(default_factory=list)
    """From when on there were how many, in order."""

    def states(self) -> list[tuple[datetime, FacilityStatus]]:
        """Give what it was like, in order; of two words of one instant the worse one stands."""
        worse = ("working", "unknown", "degraded", "out_of_order")
        found = {self.created_at: FacilityStatus.WORKING}
        for at, status in self.words:
            if at >= self.created_at and (self.retired_at is None or at < self.retired_at):
                said = [status, found[at]] if at in found else [status]
                found[at] = max(said, key=lambda one: worse.index(one.value))
        return sorted(found.items())

    def repairs(self) -> list[tuple[datetime, timedelta]]:
        """Give when somebody said that it works again, and how long it was known to be out."""
        found: list[tuple[datetime, timedelta]] = []
        began: datetime | None = None
        known_until = self.created_at
        was_out = False
        for at, status in self.states():
            if was_out:
                known_until = at
            was_out = status is FacilityStatus.OUT_OF_ORDER
            if was_out and began is None:
                began = at
            if status in (FacilityStatus.WORKING, FacilityStatus.DEGRADED):
                if began is not None:
                    found.append((at, known_until - began))
                began = None
        return found

    def out_since(self) -> datetime | None:
        """Say since when it has not worked, if it is out of order now; unknown is no repair."""
        broken = FacilityStatus.OUT_OF_ORDER
        states = self.states()
        if states[-1][1] is not broken:
            return None
        since = states[-1][0]
        for at, status in reversed(states):
            if status in (FacilityStatus.WORKING, FacilityStatus.DEGRADED):
                break
            since = at if status is broken else since
        return since


@dataclass
class Version:
    """What the rules of a station were from an instant on."""

    since: datetime
    rules: StationRules
    seats: int


@dataclass
class Life:
    """All that was true of a station."""

    boxes: list[Box] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    recorded: Time | None = None
    """From when until when what held was written down; that time has no gap."""
    held: list[tuple[datetime, datetime, Kind]] | None = None
    """What is written down of it, where the rules behind it are not known: in order."""
    promised: list[Time] = field(default_factory=list)
    seated: list[tuple[datetime, datetime, int]] = field(default_factory=list)

    def mode(self, at: datetime, calendar: Calendar) -> tuple[Kind | None, bool]:
        """Say what held at an instant, and whether it was promised to be open; None: unknown."""
        if self.held is not None:
            place = bisect_right(self.held, at, key=lambda one: one[0]) - 1
            if place < 0 or at >= self.held[place][1]:
                return None, False
            is_promised = any(since <= at < until for since, until in self.promised)
            return self.held[place][2], is_promised
        if self.recorded is None or not self.recorded[0] <= at < self.recorded[1]:
            return None, False
        rules = self._version(at).rules
        promise = StationRules(rules.timezone, rules.staffed, rules.access, self._dated(at))
        kind, published = (
            mode_at(each, calendar, at, horizon=timedelta(minutes=1)).kind
            for each in (rules, promise)
        )
        return kind, published in (Kind.FREE, Kind.SCAN)

    def seats(self, at: datetime, today: int) -> int:
        """Say how many: before that was written down as many as then, and after it today's."""
        for _, until, number in self.seated:
            if at < until:
                return number
        if self.recorded is None or at >= self.recorded[1]:
            return today
        return self._version(max(at, self.recorded[0])).seats

    def _dated(self, at: datetime) -> tuple[Change, ...]:
        """Give the exceptions of whatever rules stood last before the day began."""
        place = ZoneInfo(self.versions[-1].rules.timezone)
        midnight = datetime.combine(at.astimezone(place).date(), time(), place).astimezone(UTC)
        before = [each.rules for each in self.versions if each.since < midnight]
        dated = before[-1].changes if before else ()
        return tuple(change for change in dated if change.tier is Tier.EXCEPTION)

    def _version(self, at: datetime) -> Version:
        return [each for each in self.versions if each.since <= at][-1]

    def edges(self, timezone: str, since: datetime, until: datetime) -> Iterable[datetime]:
        """Give all instants at which the mode or the seats may become others."""
        yield from self.recorded or ()
        for begins, ends, *_ in (*(self.held or ()), *self.promised, *self.seated):
            yield from (begins, ends)
        clocks: set[int] = set()
        for version in self.versions:
            yield version.since
            for change in version.rules.changes:
                yield from (change.from_at, change.until_at)
            for hours in (version.rules.staffed, version.rules.access):
                if hours is not None:
                    special = (hours.public_holiday or (), hours.makeup_workday or ())
                    for span in (one for spans in (*hours.regular, *special) for one in spans):
                        clocks |= {span.opens_min % 1440, span.closes_min % 1440}
        day, place = since.astimezone(ZoneInfo(timezone)).date(), ZoneInfo(timezone)
        while day <= until.astimezone(place).date():
            for clock in clocks:
                wall = time(clock // 60, clock % 60)
                yield datetime.combine(day, wall, place).astimezone(UTC)
            day += timedelta(days=1)


def deaf_times(spells: Sequence[Time], at: datetime) -> list[Time]:
    """Say when no process was there to hear."""
    found: list[Time] = []
    heard_until: datetime | None = None
    for since, until in [*sorted(spells), (at, at)]:
        if heard_until is not None and since - heard_until > DEAF_AFTER:
            found.append((heard_until, since))
        heard_until = until if heard_until is None else max(heard_until, until)
    return found


def stood(
    station: Station,
    life: Life,
    *,
    at: datetime,
    calendar: Calendar,
    deaf: Sequence[Time],
    silence: timedelta,
    counted: Sequence[Time],
    inside: Mapping[int, int],
) -> Hours:
    """Count how a station stood, by its local days and hours.

    `counted` is when staff counted heads; `inside` who was there, by minutes since 1970.
    """
    found: defaultdict[date, defaultdict[int, Counter[str]]] = defaultdict(
        lambda: defaultdict(Counter)
    )
    place = ZoneInfo(station.timezone)
    until = at if station.retired_at is None else min(station.retired_at, at)

    def hour_of(instant: datetime) -> Counter[str]:
        local = instant.astimezone(place)
        return found[local.date()][local.hour]

    silences = [(box, box.silent(silence, at)) for box in life.boxes]
    since = min([station.created_at, *(box.enrolled_at for box in life.boxes)])
    edges = {station.created_at, until}
    edges |= {edge for times in (deaf, counted) for one in times for edge in one}
    edges |= set(life.edges(station.timezone, since, until))
    for box, silent in silences:
        edges |= {box.enrolled_at, box.retired_at or until}
        edges |= {edge for begins, ends, _ in silent for edge in (begins, ends)}
    for thing in life.things:
        edges |= {thing.created_at, thing.retired_at or until}
        edges |= {said_at for said_at, _ in (*thing.words, *thing.counts)}
    whole = since.replace(minute=0, second=0, microsecond=0)
    edges |= {whole + number * HOUR for number in range((until - whole) // HOUR + 2)}
    states = [(thing, thing.states()) for thing in life.things]

    for begins, ends in pairwise(sorted(edges)):
        if not station.created_at <= begins < until:
            continue
        hour, length = hour_of(begins), (ends - begins) // MS
        kind, is_promised = life.mode(begins, calendar)
        is_open = kind in (Kind.FREE, Kind.SCAN)
        heard = _heard(silences, begins, deaf, silence)
        is_counted = kind is Kind.FREE and any(a <= begins < b for a, b in counted)
        is_observed = heard == "online" or is_counted
        # A scan opens a door by a controller alone: without one it is known that nobody came in.
        is_known = is_observed or heard == "silent" or (heard is None and kind is Kind.SCAN)
        true = {
            "RECORDED_MS": kind is not None,
            "TOLD_MS": kind is not None,
            "OPEN_MS": is_open,
            "STAFFED_MS": kind is Kind.FREE,
            "PROMISED_MS": is_promised,
            "USABLE_MS": is_promised and is_open and is_observed,
            "UNKNOWN_MS": is_promised and is_open and not is_known,
            "COMMISSIONED_MS": heard is not None,
            "ONLINE_MS": heard == "online",
            "DEAF_MS": heard == "unknown",
            # What staff counted is of heads; what is integrated is of scans, which boxes tell.
            "REPORTING_MS": is_open and heard == "online",
        }
        hour.update({name: length for name, holds in true.items() if holds})
        if is_open and heard == "online":
            hour["SEATS_MS"] += length * life.seats(begins, station.capacity)
            _inside(hour, begins, ends, inside)
        for thing, said in states:
            if (
                is_open
                and said[0][0] <= begins
                and (thing.retired_at is None or begins < thing.retired_at)
            ):
                number = [many for from_at, many in thing.counts if from_at <= begins][-1]
                status = [how for from_at, how in said if from_at <= begins][-1]
                names = {"out_of_order": "OUT", "degraded": "DEGRADED", "unknown": "UNKNOWN"}
                hour[f"{thing.kind.value} STANDING_MS"] += number * length
                if status.value in names:
                    hour[f"{thing.kind.value} {names[status.value]}_MS"] += number * length

    for _, silent in silences:
        for begins, ends, is_over in silent:
            known = sum(
                (b - a) // MS
                for a, b in pairwise(sorted({begins, ends, *_within(deaf, begins, ends)}))
                if not _is_in(deaf, a) and b - a > silence
            )
            if is_over and known and station.created_at <= ends < until:
                hour_of(ends).update({"OUTAGES": 1, "OUTAGE_MS": known})
    for thing in life.things:
        for mended_at, lasted in thing.repairs():
            if station.created_at <= mended_at < until:
                kind_name = thing.kind.value
                hour_of(mended_at).update(
                    {
                        f"{kind_name} REPAIRS": 1,
                        f"{kind_name} REPAIR_MS": lasted // MS,
                        f"{kind_name} MINUTES {lasted // timedelta(minutes=1)}": 1,
                    }
                )
    return found


def _heard(
    silences: Sequence[tuple[Box, Sequence[tuple[datetime, datetime, bool]]]],
    at: datetime,
    deaf: Sequence[Time],
    silence: timedelta,
) -> str | None:
    """Say whether the controller that was there was heard; None: there was none.

    What of a silence nobody was there to hear is unknown. What is left of it beside that is a
    silence if it is too long by itself; else it was none, but between two such times is unknown.
    """
    for box, silent in silences:
        if box.enrolled_at <= at and (box.retired_at is None or at < box.retired_at):
            for begins, ends, _ in silent:
                if begins <= at < ends:
                    if _is_in(deaf, at):
                        return "unknown"
                    first = max([begins, *(b for _, b in deaf if begins < b <= at)])
                    last = min([ends, *(a for a, _ in deaf if at < a < ends)])
                    if last - first > silence:
                        return "silent"
                    return "online" if first == begins or last == ends else "unknown"
            return "online"
    return None


def _is_in(times: Sequence[Time], at: datetime) -> bool:
    return any(since <= at < until for since, until in times)


def _within(times: Sequence[Time], since: datetime, until: datetime) -> list[datetime]:
    return [edge for one in times for edge in one if since < edge < until]


def _inside(
    hour: Counter[str], begins: datetime, ends: datetime, inside: Mapping[int, int]
) -> None:
    """Add who was inside, minute by minute."""
    first, last = ((at - datetime(1970, 1, 1, tzinfo=UTC)) // MS for at in (begins, ends))
    for number in range(first // 60_000, -(-last // 60_000)):
        persons = inside.get(number, 0)
        if persons:
            length = min(last, (number + 1) * 60_000) - max(first, number * 60_000)
            hour["REPORTING_PERSON_MS"] += persons * length
            hour["REPORTING_USED_MS"] += length
