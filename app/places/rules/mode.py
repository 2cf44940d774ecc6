"""The mode function: what holds at a station at an instant, why, and until when (law 1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from zoneinfo import ZoneInfo

from app.places.rules.hours import DAY_MIN, Hours, Span
from app.places.rules.local_time import day_of, instant, zone

HORIZON = timedelta(days=14)
"""How far a mode looks ahead for its end, and a controller's config for its windows."""

_ONE_DAY = timedelta(days=1)

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_EARLIEST = datetime(1, 1, 4, tzinfo=UTC)
_LATEST = datetime(9999, 12, 1, tzinfo=UTC)
"""Beyond the last two, days beside an instant or its horizon cannot be written as dates."""


class Kind(StrEnum):
    """What holds at a station."""

    FREE = "free"
    SCAN = "scan"
    STAFF_ONLY = "staff_only"
    CLOSED = "closed"
    EVACUATION = "evacuation"


class Because(StrEnum):
    """Which rule decided a mode."""

    WEEKLY = "weekly"
    PUBLIC_HOLIDAY = "public_holiday"
    MAKEUP_WORKDAY = "makeup_workday"
    EXCEPTION = "exception"
    OVERRIDE = "override"
    EMERGENCY = "emergency"
    STAFF_ABSENT = "staff_absent"
    NO_ACCESS_HOURS = "no_access_hours"


class ChangeKind(StrEnum):
    """What an exception or an override makes of a station."""

    CLOSED = "closed"
    STAFFED = "staffed"
    HELD_OPEN = "held_open"
    ACCESS = "access"
    STAFF_ONLY = "staff_only"
    LOCKDOWN = "lockdown"
    EVACUATION = "evacuation"


class DayClass(StrEnum):
    """What makes a day other than its weekday says."""

    PUBLIC_HOLIDAY = "public_holiday"
    MAKEUP_WORKDAY = "makeup_workday"


class Tier(StrEnum):
    """How a change came: dated ahead, on the spot, or by itself because nobody came."""

    EXCEPTION = "exception"
    OVERRIDE = "override"
    STAFF_ABSENT = "staff_absent"
    """Not a rank: it turns what staff would hold open into scanning, and nothing else."""


@dataclass(frozen=True, slots=True)
class Change:
    """A dated exception or an override: replaces the mode exactly within `[from_at, until_at)`.

    Instants are kept in UTC; a naive one raises `ValueError`. A change that ends before it
    begins never holds.
    """

    kind: ChangeKind
    tier: Tier
    from_at: datetime
    until_at: datetime
    created_at: datetime

    def __post_init__(self) -> None:
        """Keep instants in UTC: datetimes of one other zone compare by their wall clocks."""
        for name in ("from_at", "until_at", "created_at"):
            object.__setattr__(self, name, _utc(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Published:
    """A change as it stood for a while, and what anybody could read of it meanwhile."""

    change: Change
    written_at: datetime
    replaced_at: datetime | None = None
    """When it was amended or withdrawn; None: it stands."""

    def stood_before(self, at: datetime) -> bool:
        """Say whether an instant found it written."""
        return self.written_at < at and (self.replaced_at is None or at <= self.replaced_at)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which days are not what their weekday says, in the years for which that is known."""

    days: Mapping[date, DayClass]
    years: frozenset[int]
    """Years with data. In any other year every day is as its weekday (the stated fallback)."""

    def knows(self, day: date) -> bool:
        """Say whether it has data of the day's year."""
        return day.year in self.years

    def day_class(self, day: date) -> DayClass | None:
        """Say what makes a day special; None for an ordinary day and in an unknown year."""
        return self.days.get(day) if self.knows(day) else None


@dataclass(frozen=True, slots=True)
class StationRules:
    """All that a station itself says about its mode."""

    timezone: str
    """IANA name."""
    staffed: Hours | None
    """None: never staffed."""
    access: Hours | None
    """None: no scan ever opens this station."""
    changes: tuple[Change, ...] = ()
    """Exceptions and overrides in force, in any order."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What holds at an instant."""

    kind: Kind
    because: Because
    until: datetime | None
    """The next instant (UTC) at which `kind` changes; None: not within the horizon."""
    calendar_known: bool
    """Whether there is calendar data for the year of the day that decided."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which one mode holds for one reason: `[from_at, until_at)`, UTC."""

    from_at: datetime
    until_at: datetime
    kind: Kind
    because: Because


def mode_at(
    rules: StationRules, calendar: Calendar, at: datetime, *, horizon: timedelta = HORIZON
) -> Mode:
    """Say what holds at a station at an instant, why, and until when.

    The first that speaks decides (law 1):

    1. an evacuation, 2. a lockdown, 3. an override, 4. a dated exception, the newest within each
       (a tie goes to the later `from_at`, then to the kind that lets fewer people in);
    5. staffed hours: free; 6. access hours: scan; 7. else closed. Special days of the calendar
       replace the weekday in both hours; a window over midnight keeps the reason of the day it
       starts, and where it meets a window of the next day, that next day is the reason.

    Where staff should be and are not (`Tier.STAFF_ABSENT`), free by the hours or by a dated
    `staffed` is scan. A window closed by nothing but the hours is closed because of the day it is.
    `horizon` bounds the search for `until`. Never raises for an aware instant: in the first days
    and the last weeks that a `datetime` can hold, the nearest answer stands, without an end.
    """
    asked = _utc(at)
    at = min(max(asked, _EARLIEST), _LATEST)
    segments = _segments(rules, calendar, at, at + horizon)
    _, _, (kind, because, known) = next(segments)
    until = next((begins for begins, _, held in segments if held[0] is not kind), None)
    return Mode(kind, because, until if at == asked else None, known)


def mode_now(rules: StationRules, calendar: Calendar, at: datetime) -> Mode:
    """Say what holds as of now, where a door is decided.

    An emergency that had begun when it was written down has begun, though the clock of whoever
    asks lies behind the clock of whoever wrote it (law 2).
    """
    if not rules.changes:
        return mode_at(rules, calendar, at)
    changes = tuple(
        replace(change, from_at=min(change.from_at, at))
        if change.kind in _EMERGENCIES and change.from_at <= change.created_at
        else change
        for change in rules.changes
    )
    return mode_at(replace(rules, changes=changes), calendar, at)


def mode_windows(
    rules: StationRules, calendar: Calendar, from_at: datetime, until_at: datetime
) -> tuple[Window, ...]:
    """Write out the modes of `[from_at, until_at)` as windows without gaps.

    At every instant within, they say what `mode_at` says. Neighbours differ in kind or reason.
    """
    windows: list[Window] = []
    if (from_at := _utc(from_at)) >= (until_at := _utc(until_at)):
        return ()
    for begins, ends, (kind, because, _) in _segments(rules, calendar, from_at, until_at):
        last = windows[-1] if windows else None
        if last is not None and last.kind is kind and last.because is because:
            windows[-1] = Window(last.from_at, ends, kind, because)
        else:
            windows.append(Window(begins, ends, kind, because))
    return tuple(windows)


def promised_windows(
    rules: StationRules,
    calendar: Calendar,
    from_at: datetime,
    until_at: datetime,
    published: Sequence[Published],
) -> tuple[Window, ...]:
    """Write out as windows what was promised for `[from_at, until_at)`: what was published of it.

    Published are the hours, and of each day the exceptions as they stood when it began; windows are
    cut there. What is decided later than that, or on the spot, keeps a promise or breaks it, and so
    does an emergency; it promises nothing.
    """
    place, since, found = zone(rules.timezone), _utc(from_at), list[Window]()
    dated = [
        one
        for one in published
        if one.change.tier is Tier.EXCEPTION and one.change.kind not in _EMERGENCIES
    ]
    while since < until_at:
        day = day_of(place, since)
        begins = instant(place, day, 0)
        ends = min(instant(place, day + timedelta(days=1), 0), _utc(until_at))
        stood = tuple(one.change for one in dated if one.stood_before(begins))
        found += mode_windows(replace(rules, changes=stood), calendar, since, ends)
        since = ends
    return tuple(found)


def staffed_time(
    rules: StationRules, calendar: Calendar, at: datetime, *, reach: timedelta = timedelta(days=1)
) -> Window | None:
    """Give the time around an instant in which staff should be there; None when they need not.

    Free by the hours or by a dated exception is theirs, free by an override is nobody's: who held
    the door open knew why. It begins at most `reach` before, and ends where the mode changes.
    """
    before = mode_windows(rules, calendar, at - reach, at + timedelta(microseconds=1))
    begins: datetime | None = None
    for window in reversed(before):
        if window.kind is not Kind.FREE or window.because in (Because.OVERRIDE, Because.EMERGENCY):
            break
        begins = window.from_at
    if begins is None:
        return None
    mode = mode_at(rules, calendar, at)
    return Window(begins, mode.until or at + HORIZON, mode.kind, mode.because)


_Held = tuple[Kind, Because, bool]
"""A mode without its end: kind, reason, whether the calendar is known."""

_Segment = tuple[datetime, datetime, _Held]
"""From, until (UTC), and what is held between them; never empty."""

_OUTCOMES: dict[ChangeKind, Kind] = {
    ChangeKind.CLOSED: Kind.CLOSED,
    ChangeKind.STAFFED: Kind.FREE,
    ChangeKind.HELD_OPEN: Kind.FREE,
    ChangeKind.ACCESS: Kind.SCAN,
    ChangeKind.STAFF_ONLY: Kind.STAFF_ONLY,
    ChangeKind.LOCKDOWN: Kind.CLOSED,
    ChangeKind.EVACUATION: Kind.EVACUATION,
}

_EMERGENCIES = (ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)
"""Stand above every tier, the later above the earlier."""

_TIERS = (Tier.EXCEPTION, Tier.OVERRIDE)
"""The later above the earlier."""

_STRICTNESS = (Kind.FREE, Kind.SCAN, Kind.STAFF_ONLY, Kind.CLOSED, Kind.EVACUATION)
"""Settles a full tie: the later lets fewer people in."""


def _segments(
    rules: StationRules, calendar: Calendar, from_at: datetime, until_at: datetime
) -> Iterator[_Segment]:
    """Walk through what is held in `[from_at, until_at)`, day by day and only as far as asked."""
    place = zone(rules.timezone)
    changes = [
        change
        for change in rules.changes
        if change.from_at < until_at and from_at < change.until_at
    ]
    if not changes:
        yield from _by_hours(rules, calendar, place, from_at, until_at)
        return
    edges = {edge for change in changes for edge in (change.from_at, change.until_at)}
    inner = sorted(edge for edge in edges if from_at < edge < until_at)
    for begins, ends in pairwise([from_at, *inner, until_at]):
        there = [change for change in changes if change.from_at <= begins < change.until_at]
        holding = [change for change in there if change.tier is not Tier.STAFF_ABSENT]
        nobody_came = len(holding) < len(there)
        if not holding:
            for since, until, held in _by_hours(rules, calendar, place, begins, ends):
                yield since, until, _unattended(held) if nobody_came else held
            continue
        highest = max(holding, key=_rank)
        outcome = (*_outcome(highest), calendar.knows(day_of(place, begins)))
        by_staff = highest.kind is ChangeKind.STAFFED and highest.tier is Tier.EXCEPTION
        yield begins, ends, _unattended(outcome) if nobody_came and by_staff else outcome


def _unattended(held: _Held) -> _Held:
    """Turn what staff would hold open into scanning."""
    kind, _, known = held
    return (Kind.SCAN, Because.STAFF_ABSENT, known) if kind is Kind.FREE else held


def _rank(change: Change) -> tuple[int, datetime, datetime, int]:
    """Order changes: tier, then newest, then later from, then stricter."""
    if change.kind in _EMERGENCIES:
        tier = len(_TIERS) + _EMERGENCIES.index(change.kind)
    else:
        tier = _TIERS.index(change.tier)
    strictness = _STRICTNESS.index(_OUTCOMES[change.kind])
    return tier, change.created_at, change.from_at, strictness


def _outcome(change: Change) -> tuple[Kind, Because]:
    """Say what a change makes of a station, and the reason to give."""
    if change.kind in _EMERGENCIES:
        return _OUTCOMES[change.kind], Because.EMERGENCY
    return _OUTCOMES[change.kind], Because(change.tier)


def _by_hours(
    rules: StationRules, calendar: Calendar, place: ZoneInfo, from_at: datetime, until_at: datetime
) -> Iterator[_Segment]:
    """Walk through what the hours alone hold in `[from_at, until_at)`."""
    day, last_day = day_of(place, from_at), day_of(place, until_at)
    begins, current = from_at, None
    while day <= last_day:
        for minute, held in _day(rules, calendar, day):
            # Instants cost more than minutes: only where something changes is one needed.
            if held == current:
                continue
            edge = instant(place, day, minute)
            if edge >= until_at:
                break
            if edge > begins and current is not None:
                yield begins, edge, current
                begins = edge
            current = held
        day += _ONE_DAY
    assert current is not None
    yield begins, until_at, current


def _day(rules: StationRules, calendar: Calendar, day: date) -> list[tuple[int, _Held]]:
    """Say what the hours hold on a local day: from which minute, what; the first from minute 0."""
    eve = day - _ONE_DAY
    windows: list[tuple[int, int, _Held]] = []
    for kind, hours in ((Kind.FREE, rules.staffed), (Kind.SCAN, rules.access)):
        if hours is None:
            continue
        spans, because = _spans(hours, calendar, day)
        held = (kind, because, calendar.knows(day))
        windows += [(span.opens_min, span.closes_min, held) for span in spans]
        spans, because = _spans(hours, calendar, eve)
        held = (kind, because, calendar.knows(eve))
        windows += [
            (0, span.closes_min - DAY_MIN, held) for span in spans if span.closes_min > DAY_MIN
        ]
    otherwise = (Kind.CLOSED, _closed_because(rules, calendar, day), calendar.knows(day))
    cuts = {0}
    for opens, closes, _ in windows:
        cuts.add(opens)
        cuts.add(closes)
    found: list[tuple[int, _Held]] = []
    for cut in sorted(cuts):
        if cut >= DAY_MIN:
            break
        # Staffed stands before access, and today before the eve.
        open_now = (held for opens, closes, held in windows if opens <= cut < closes)
        found.append((cut, next(open_now, otherwise)))
    return found


def _spans(hours: Hours, calendar: Calendar, day: date) -> tuple[tuple[Span, ...], Because]:
    """Say which windows start on a day, and by which rule."""
    match calendar.day_class(day):
        case DayClass.PUBLIC_HOLIDAY if hours.public_holiday is not None:
            return hours.public_holiday, Because.PUBLIC_HOLIDAY
        case DayClass.MAKEUP_WORKDAY if hours.makeup_workday is not None:
            return hours.makeup_workday, Because.MAKEUP_WORKDAY
        case DayClass.MAKEUP_WORKDAY:
            return hours.regular[0], Because.MAKEUP_WORKDAY
        case _:
            return hours.regular[day.weekday()], Because.WEEKLY


def _closed_because(rules: StationRules, calendar: Calendar, day: date) -> Because:
    """Say why no window is open on a day: its class, if the hours have a rule for it."""
    if rules.access is None:
        return Because.NO_ACCESS_HOURS
    match calendar.day_class(day):
        case DayClass.MAKEUP_WORKDAY:
            return Because.MAKEUP_WORKDAY
        case DayClass.PUBLIC_HOLIDAY if any(
            hours is not None and hours.public_holiday is not None
            for hours in (rules.staffed, rules.access)
        ):
            return Because.PUBLIC_HOLIDAY
        case _:
            return Because.WEEKLY


def _utc(at: datetime) -> datetime:
    """Read an instant as UTC; raises `ValueError` for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} names no instant: it has no zone")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        # Up to a day beyond what a datetime can hold.
        return _FIRST if at.year == _FIRST.year else _LAST
