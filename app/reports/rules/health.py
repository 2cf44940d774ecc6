"""Whether a station kept its promise, hour by hour (metrics 26-28, 34-36). Pure.

All times are milliseconds since 1970, all spans half-open, all sums exact integers. Time counts
only within the station's life and until now.

- Open: the mode was free or scan. Promised: the published hours said so, whatever then held.
- Usable: open, and observed: a controller is online, or staff count heads while they hold the door.
  Closed against the promise, or with a controller that is known to be silent, it is not usable; nor
  is it where a scan opens the door and there is no controller: nobody could come in (law 6). Of a
  free door without a controller, and of one that no server was there to hear, nobody knows.
- Of doors nothing is counted: no row says from when to when one was out of use, or its controller
  frozen. Alerts tell that somebody should look, and close by time or by hand, not by repair.
- A controller is online unless it was silent longer than it may be. Of such a silence, what no
  server process was there to hear is unknown, not offline. A rest of the silence beside it that
  is no longer than it may be was no silence: right before the servers went, or right after they
  came back.
- A facility counts while its station was open: so many units times the time.
- A fault is over when somebody says that the thing works, also badly, and counts there. Who only
  does not know any more ends the time that it was known to last, and repairs nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from app.places.rules import Because, Kind

Span = tuple[int, int]
"""From, until."""

Seats = tuple[int, int, int]
"""From, until, how many there were."""

HeldWindow = tuple[int, int, Kind, Because]
"""A recorded window of a mode: from, until, what held and why."""

OUT_OF_ORDER, UNKNOWN, DEGRADED = "out_of_order", "unknown", "degraded"
REPAIRED = frozenset({"working", DEGRADED})
"""Who says so says that a fault is over."""


class Device(NamedTuple):
    """A controller of the station: its time there and its silences."""

    enrolled_ms: int
    retired_ms: int | None
    seen_ms: int | None
    """When it was last heard; None: never."""
    outages: Sequence[Span] = ()
    """Its silences that are over, whole, in order."""


class Thing(NamedTuple):
    """A spell of a facility: so many units in one status."""

    facility: object
    kind: str
    quantity: int
    status: str
    from_ms: int
    until_ms: int | None
    out_from_ms: int | None = None
    """When it was first said to be out of order, as long as nobody has said since that it works."""
    out_until_ms: int | None = None
    """Until when that was last known; None: it is out of order."""


class Day(NamedTuple):
    """A local day of a station, and all that is known of it."""

    edges: Sequence[int]
    """Where its hours begin, and where the last ends: 25 instants."""
    now_ms: int
    life: tuple[int, int | None]
    """When the station was registered, and when it was retired."""
    silence_ms: int
    """So long a controller may be silent."""
    held: Sequence[HeldWindow] = ()
    """The recorded modes, in order."""
    promised: Sequence[Span] = ()
    """When it was promised to be open, in order."""
    counted: Sequence[Span] = ()
    """When staff counted who was there."""
    seats: Sequence[Seats] = ()
    """How many there were, as far as it is recorded, in order; hours are told without them."""
    devices: Sequence[Device] = ()
    deaf: Sequence[Span] = ()
    """When no server process was there to hear, in order."""
    things: Sequence[Thing] = ()
    """Spells of facilities that touch the day or end where it begins; of each facility in order."""


@dataclass(slots=True)
class Standing:
    """What the facilities of one kind were like in an hour: units times milliseconds."""

    standing_ms: int = 0
    out_ms: int = 0
    unknown_ms: int = 0
    degraded_ms: int = 0
    repairs_ms: list[int] = field(default_factory=list)
    """How long each was out of order that works again: from the first word of it until the last
    that was known of it."""


@dataclass(slots=True)
class Hour:
    """What a station was like in an hour: milliseconds."""

    recorded_ms: int = 0
    """For so long it is recorded which mode held."""
    open_ms: int = 0
    staffed_ms: int = 0
    promised_ms: int = 0
    usable_ms: int = 0
    """Promised, and observed to be usable."""
    unknown_ms: int = 0
    """Promised, and nobody knows whether it was usable."""
    commissioned_ms: int = 0
    online_ms: int = 0
    deaf_ms: int = 0
    """Commissioned, and nobody knows whether it was online."""
    outages_ended: int = 0
    outage_ms: int = 0
    """How long those were known to last, from beginning to end."""
    facilities: dict[str, Standing] = field(default_factory=dict)


def of_a_day(known: Day, edges: Sequence[int]) -> Day:
    """Cut what is known of many days down to what one of them is told by."""
    begins, ends = edges[0], edges[-1]
    return known._replace(
        edges=edges,
        held=[one for one in known.held if one[0] < ends and one[1] > begins],
        promised=_clipped(known.promised, begins, ends),
        seats=[one for one in known.seats if one[0] < ends and one[1] > begins],
        devices=[
            one._replace(outages=[(s, u) for s, u in one.outages if s < ends and u >= begins])
            for one in known.devices
            if one.enrolled_ms < ends and (one.retired_ms is None or one.retired_ms > begins)
        ],
        things=[
            one
            for one in known.things
            if one.from_ms < ends and (one.until_ms is None or one.until_ms >= begins)
        ],
    )


def plain(day: Day) -> Day | None:
    """Give the day that this one is like, counted from its beginning; None: it is like no other.

    A day is like another of the same modes when nothing else happened on it: the station and its
    controllers were there all day and heard, and no facility changed.
    """
    begins, ends = day.edges[0], day.edges[-1]
    lived = day.life[0] <= begins and (day.life[1] is None or day.life[1] >= ends)
    if not lived or day.now_ms < ends:
        return None
    for device in day.devices:
        whole = device.enrolled_ms <= begins
        if not whole or (device.retired_ms is not None and device.retired_ms < ends):
            return None
        if any(
            until >= begins and since < ends for (since, until), _ in _all_silences(device, day)
        ):
            return None
    for thing in day.things:
        if thing.from_ms >= begins or (thing.until_ms is not None and thing.until_ms < ends):
            return None
    length = ends - begins
    return Day(
        edges=tuple(edge - begins for edge in day.edges),
        now_ms=length,
        life=(0, None),
        silence_ms=length,
        held=tuple(
            (max(since, begins) - begins, min(until, ends) - begins, kind, because)
            for since, until, kind, because in day.held
        ),
        promised=tuple(shifted(day.promised, -begins)),
        # Where a controller is heard all day, it matters to nobody who else counted.
        counted=() if day.devices else tuple(shifted(day.counted, -begins)),
        devices=(Device(0, None, length),) if day.devices else (),
        things=tuple(
            Thing(None, thing.kind, thing.quantity, thing.status, 0, None) for thing in day.things
        ),
    )


def hours_of(day: Day) -> Sequence[Hour]:
    """Say for each hour of a day what the station was like."""
    hours = [Hour() for _ in range(len(day.edges) - 1)]
    registered, ends = _life(day)
    life = _clipped([(registered, ends)], day.edges[0], day.edges[-1])
    if not life:
        return hours
    silences = [_silences(device, day) for device in day.devices]
    told = _told(day, life, silences)

    for name, spans in (
        ("recorded_ms", intersection([window[:2] for window in day.held], life)),
        ("open_ms", told.is_open),
        ("staffed_ms", told.free),
        ("promised_ms", told.promised),
        ("usable_ms", told.usable),
        ("unknown_ms", told.unknown),
        ("commissioned_ms", told.commissioned),
        ("online_ms", told.online),
        ("deaf_ms", told.deaf),
    ):
        for number, length in _poured(day.edges, spans):
            setattr(hours[number], name, getattr(hours[number], name) + length)
    for ended_ms, lasted_ms in (end for found in silences for end in found.ended):
        back = _hour(day.edges, ended_ms)
        if back is not None and registered <= ended_ms < ends:
            hours[back].outages_ended += 1
            hours[back].outage_ms += lasted_ms
    _facilities(day, hours, told.is_open, until_ms=ends)
    return hours


class _Told(NamedTuple):
    """What is known of the time of a day; each in order and apart."""

    free: Sequence[Span]
    is_open: Sequence[Span]
    commissioned: Sequence[Span]
    online: Sequence[Span]
    deaf: Sequence[Span]
    silent: Sequence[Span]
    lacking: Sequence[Span]
    """A scan opens the door, and there is no controller to open it."""
    observed: Sequence[Span]
    promised: Sequence[Span]
    usable: Sequence[Span]
    unknown: Sequence[Span]


def _told(day: Day, life: Sequence[Span], silences: Sequence["_Silences"]) -> _Told:
    free, is_open = _open(day, life)
    commissioned, online, deaf = _heard(day, life, silences)
    observed = _observed(day, free, online)
    silent = difference(difference(commissioned, online), deaf)
    lacking = difference(difference(is_open, free), commissioned)
    promised = intersection(union(day.promised), life)
    kept = intersection(promised, is_open)
    return _Told(
        free,
        is_open,
        commissioned,
        online,
        deaf,
        silent,
        lacking,
        observed,
        promised,
        usable=intersection(kept, observed),
        unknown=difference(difference(difference(kept, observed), silent), lacking),
    )


class Heard(StrEnum):
    """Who told of a time whether the station could be used."""

    CONTROLLER = "controller"
    STAFF = "staff"
    """They counted heads while they held the door."""
    SILENT = "silent"
    """Its controller was there and silent, and was listened for."""
    NO_CONTROLLER = "no_controller"
    """A scan had to open the door, and there was no controller: nobody could come in."""
    NOBODY = "nobody"
    """There was a controller and no server to hear it; or none, and no scan had to open."""


class Counts(StrEnum):
    """As what a promised time counts."""

    USABLE = "usable"
    UNKNOWN = "unknown"
    UNUSABLE = "unusable"


class Piece(NamedTuple):
    """A promised time in which one mode held, and one told of it or none did."""

    from_ms: int
    until_ms: int
    mode: Kind | None
    """None, as the next: that is not recorded."""
    because: Because | None
    heard: Heard
    counts: Counts


def pieces(day: Day) -> Sequence[Piece]:
    """Say what became of the promised time of a day, in order: what is counted of it, and why."""
    life = _clipped([_life(day)], day.edges[0], day.edges[-1])
    told = _told(day, life, [_silences(device, day) for device in day.devices])
    modes = [window[:2] for window in day.held]
    cuts = told.online, told.silent, told.lacking, told.observed, told.usable, told.unknown
    edges = sorted({edge for spans in (modes, *cuts) for span in spans for edge in span})
    found = []
    for span in told.promised:
        within = edges[bisect_right(edges, span[0]) : bisect_left(edges, span[1])]
        for since, until in pairwise([span[0], *within, span[1]]):
            held = next((one for one in day.held if one[0] <= since < one[1]), None)
            mode, because = (None, None) if held is None else held[2:]
            online, silent, lacking, observed, usable, unknown = (
                _holds(some, since) for some in cuts
            )
            heard = (
                Heard.CONTROLLER
                if online
                else Heard.STAFF
                if observed
                else Heard.SILENT
                if silent
                else Heard.NO_CONTROLLER
                if lacking
                else Heard.NOBODY
            )
            counts = Counts.USABLE if usable else Counts.UNKNOWN if unknown else Counts.UNUSABLE
            found.append(Piece(since, until, mode, because, heard, counts))
    return found


def _holds(spans: Sequence[Span], at_ms: int) -> bool:
    """Say whether an instant lies in one of some spans, in order and apart."""
    place = bisect_right(spans, at_ms, key=itemgetter(0)) - 1
    return place >= 0 and at_ms < spans[place][1]


def reporting(day: Day) -> Sequence[Span]:
    """Say when on a day the station was open and its controller heard (T of metrics 16).

    Staff who count heads hold the door, but put nobody inside: nothing can be a mean over that.
    """
    life = _clipped([_life(day)], day.edges[0], day.edges[-1])
    _, is_open = _open(day, life)
    _, online, _ = _heard(day, life, [_silences(device, day) for device in day.devices])
    return intersection(is_open, online)


def _life(day: Day) -> Span:
    """Say from when to when the station was there, as far as time has passed."""
    registered, retired = day.life
    return registered, day.now_ms if retired is None else min(retired, day.now_ms)


def _observed(day: Day, free: Sequence[Span], online: Sequence[Span]) -> list[Span]:
    """Say when a controller was heard, or staff counted heads while they held the door."""
    return union(online, intersection(free, union(day.counted)))


def _open(day: Day, life: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Say when staff held the door, and when the station was open at all."""
    free = intersection(_spans_of(day.held, Kind.FREE), life)
    return free, union(free, intersection(_spans_of(day.held, Kind.SCAN), life))


def _heard(
    day: Day, life: Sequence[Span], silences: Sequence["_Silences"]
) -> tuple[list[Span], list[Span], list[Span]]:
    """Say when the station had a controller, when it was heard, and when nobody could hear it."""
    silent = union(*(found.silent for found in silences))
    unknown = union(*(found.unknown for found in silences))
    commissioned = intersection(union(*(_time_of(device, day) for device in day.devices)), life)
    online = difference(difference(commissioned, silent), unknown)
    return commissioned, online, difference(intersection(commissioned, unknown), silent)


def _facilities(day: Day, hours: Sequence[Hour], is_open: Sequence[Span], *, until_ms: int) -> None:
    columns = {OUT_OF_ORDER: "out_ms", UNKNOWN: "unknown_ms", DEGRADED: "degraded_ms"}
    before: Thing | None = None
    for thing in day.things:
        ends = until_ms if thing.until_ms is None else thing.until_ms
        column = columns.get(thing.status)
        for number, length in _poured(day.edges, _clipped(is_open, thing.from_ms, ends)):
            standing = hours[number].facilities.setdefault(thing.kind, Standing())
            standing.standing_ms += thing.quantity * length
            if column is not None:
                grown = getattr(standing, column) + thing.quantity * length
                setattr(standing, column, grown)
        lasted_ms = None if before is None else _repaired_ms(before, thing)
        if lasted_ms is not None:
            repaired = _hour(day.edges, thing.from_ms)
            if repaired is not None and day.life[0] <= thing.from_ms < until_ms:
                standing = hours[repaired].facilities.setdefault(thing.kind, Standing())
                standing.repairs_ms.append(lasted_ms)
        before = thing


def _repaired_ms(before: Thing, after: Thing) -> int | None:
    """Say how long a fault lasted that the second spell tells to be over; None: there is none."""
    follows = before.facility == after.facility and before.until_ms == after.from_ms
    if not follows or before.out_from_ms is None or after.status not in REPAIRED:
        return None
    known_until = after.from_ms if before.out_until_ms is None else before.out_until_ms
    return known_until - before.out_from_ms


class _Silences(NamedTuple):
    silent: Sequence[Span]
    unknown: Sequence[Span]
    ended: Sequence[tuple[int, int]]
    """When one ended, and how long it was known to last."""


def _silences(device: Device, day: Day) -> _Silences:
    """Tell what is known of the silences of a controller."""
    silent: list[Span] = []
    unknown: list[Span] = []
    ended: list[tuple[int, int]] = []
    for span, is_over in _all_silences(device, day):
        deaf = _clipped(day.deaf, *span)
        unknown += deaf
        known = []
        for piece in difference([span], deaf):
            if piece[1] - piece[0] > day.silence_ms:
                known.append(piece)
            elif piece[0] != span[0] and piece[1] != span[1]:
                unknown.append(piece)
        silent += known
        if is_over and known:
            ended.append((span[1], sum(until - since for since, until in known)))
    return _Silences(silent, sorted(unknown), ended)


def _all_silences(device: Device, day: Day) -> Iterator[tuple[Span, bool]]:
    """Give its silences, and whether each is over."""
    for outage in device.outages:
        yield outage, True
    since = device.enrolled_ms if device.seen_ms is None else device.seen_ms
    until = day.now_ms if device.retired_ms is None else min(device.retired_ms, day.now_ms)
    if until - since > day.silence_ms:
        yield (since, until), False


def _time_of(device: Device, day: Day) -> Sequence[Span]:
    until = day.now_ms if device.retired_ms is None else min(device.retired_ms, day.now_ms)
    return [(device.enrolled_ms, until)] if device.enrolled_ms < until else []


def _spans_of(held: Iterable[HeldWindow], kind: Kind) -> Sequence[Span]:
    return [(since, until) for since, until, holds, _ in held if holds is kind]


def _poured(edges: Sequence[int], spans: Iterable[Span]) -> Iterator[tuple[int, int]]:
    """Cut spans by hours: which hour, how much of it."""
    for span in spans:
        since, until = max(span[0], edges[0]), min(span[1], edges[-1])
        number = bisect_right(edges, since) - 1
        while since < until:
            ends = min(edges[number + 1], until)
            yield number, ends - since
            since, number = ends, number + 1


def _hour(edges: Sequence[int], at_ms: int) -> int | None:
    """Say in which hour an instant lies, if in any."""
    return bisect_right(edges, at_ms) - 1 if edges[0] <= at_ms < edges[-1] else None


def _clipped(spans: Iterable[Span], from_ms: int, until_ms: int) -> list[Span]:
    return [
        (max(since, from_ms), min(until, until_ms))
        for since, until in spans
        if since < until_ms and from_ms < until and max(since, from_ms) < min(until, until_ms)
    ]


def shifted(spans: Iterable[Span], by_ms: int) -> list[Span]:
    """Give the spans as so much later."""
    return [(since + by_ms, until + by_ms) for since, until in spans]


def union(*many: Iterable[Span]) -> list[Span]:
    """Give the time in any of the spans: in order, apart."""
    found: list[Span] = []
    for since, until in sorted(span for spans in many for span in spans):
        if found and since <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], until)
        elif since < until:
            found.append((since, until))
    return found


def intersection(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """Give the time in both; each in order and apart."""
    found: list[Span] = []
    first = second = 0
    while first < len(one) and second < len(other):
        since = max(one[first][0], other[second][0])
        until = min(one[first][1], other[second][1])
        if since < until:
            found.append((since, until))
        if one[first][1] <= other[second][1]:
            first += 1
        else:
            second += 1
    return found


def difference(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """Give the time in the one and not in the other; each in order and apart."""
    if not one:
        return []
    edges = [one[0][0], *(edge for span in other for edge in span), one[-1][1]]
    outside = [
        (max(since, edges[0]), min(until, edges[-1])) for since, until in list(pairwise(edges))[::2]
    ]
    return intersection(one, [span for span in outside if span[0] < span[1]])
