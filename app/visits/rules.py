"""When a visit opens, continues, counts and ends, and how full a station is. Pure."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

RE_ENTRY = timedelta(minutes=10)
"""Coming back within this time after leaving is a new row that counts with the first visit."""

LONGEST_STAY = timedelta(days=7)
"""How far back anybody looks for a visit that may still go on, renewed again and again."""


class Level(StrEnum):
    """How full a station is, as the public sees it: never a head count (law 15)."""

    EMPTY = "空闲"
    FEW = "较少"
    MANY = "较多"
    FULL = "已满"


def level(inside: float, capacity: int) -> Level | None:
    """Say how full a station is, or with a mean usually is; None where no places are counted.

    Nobody and one person look alike: one person alone at 02:00 is nobody's business.
    """
    if capacity <= 0:
        return None
    share = inside / capacity
    if inside <= 1 or share < 0.25:
        return Level.EMPTY
    if share >= 0.9:
        return Level.FULL
    return Level.FEW if share < 0.6 else Level.MANY


def counts_at(
    at: datetime, *, started_at: datetime, ended_at: datetime | None, stay_until: datetime
) -> bool:
    """Say whether a visit counts at an instant (law 10)."""
    return started_at <= at < (ended_at or stay_until)


def renewed(stay_until: datetime, at: datetime, max_stay: timedelta) -> datetime:
    """Say until when a stay counts after the worker was heard of; never sooner than before."""
    return max(stay_until, at + max_stay)


def last_heard(
    started_at: datetime, stay_until: datetime, ended_at: datetime | None, max_stay: timedelta
) -> datetime:
    """Say when the worker of a visit was last heard of, as well as his stay's end tells."""
    heard_at = max(started_at, stay_until - max_stay)
    # After its end nobody was heard of there, whatever the station's longest stay is by now.
    return min(heard_at, ended_at or heard_at)


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit of a worker as far as it matters for his next one."""

    id: uuid.UUID
    station_id: uuid.UUID
    started_at: datetime
    stay_until: datetime
    ended_at: datetime | None
    heard_at: datetime
    """When the worker was last heard of there."""

    @property
    def until(self) -> datetime:
        """When it stops counting (law 10)."""
        return self.ended_at or self.stay_until


@dataclass(frozen=True, slots=True)
class Ending:
    """When something else ends a visit, and whether it was over by itself before."""

    at: datetime
    imputed: bool


@dataclass(frozen=True, slots=True)
class Continues:
    """The arrival belongs to a visit that is there: it is renewed, and may begin sooner."""

    visit_id: uuid.UUID
    sooner: bool
    stay_until: datetime
    is_open: bool


@dataclass(frozen=True, slots=True)
class Opens:
    """The arrival is a new visit; `over` when he came elsewhere since."""

    stay_until: datetime
    over: Ending | None


@dataclass(frozen=True, slots=True)
class Parts:
    """A visit was two: he went elsewhere in between, and was back when he was last heard of."""

    visit_id: uuid.UUID
    left_at: datetime
    back_at: datetime


@dataclass(frozen=True, slots=True)
class Arriving:
    """What an arrival does to a worker's visits."""

    ends: tuple[tuple[uuid.UUID, Ending], ...]
    becomes: Continues | Opens
    re_entry: bool
    """Whether he left this station within the last ten minutes."""
    parts: Parts | None = None


def ending(stay_until: datetime, at: datetime) -> Ending:
    """Say how a visit ends that something ends at `at`: at its own cut-off if that was sooner."""
    return Ending(stay_until, True) if stay_until <= at else Ending(at, False)


def came_back(his: Sequence[Stay], *, station_id: uuid.UUID, at: datetime) -> bool:
    """Say whether who comes at an instant left that station within the last ten minutes."""
    return any(stay.station_id == station_id and at - RE_ENTRY < stay.until <= at for stay in his)


def turned(before: Sequence[Stay], after: Sequence[Stay]) -> dict[uuid.UUID, bool]:
    """Say of which visits it changed whether he only came back, given what changed of his visits.

    Of the others nothing new is known, and what was said of them once may rest on visits that
    nobody knows as his any more.
    """
    found = {}
    for stay in after:
        was, now = (
            came_back(
                [other for other in his if other.id != stay.id],
                station_id=stay.station_id,
                at=stay.started_at,
            )
            for his in (before, after)
        )
        if was is not now:
            found[stay.id] = now
    return found


def arrive(
    his: Sequence[Stay], *, station_id: uuid.UUID, at: datetime, max_stay: timedelta
) -> Arriving:
    """Say what an arrival does, given the worker's visits around it in order of their beginning.

    1. A visit here that counts at that instant goes on, renewed.
    2. A visit elsewhere where he was heard of since (late evidence) was two, with this one between.
    3. Visits elsewhere that count then end then; an open one past its time ends at its cut-off.
    4. A visit here that began later, within the time this arrival would have counted: it began now.
    5. Otherwise a new visit; it is over already if he came elsewhere since (late evidence).
    """
    re_entry = came_back(his, station_id=station_id, at=at)
    before = [stay for stay in his if stay.started_at <= at]
    for stay in before:
        if stay.station_id == station_id and at < stay.until:
            until = renewed(stay.stay_until, at, max_stay)
            goes_on = Continues(stay.id, False, until, stay.ended_at is None)
            return Arriving((), goes_on, re_entry)
    for stay in before:
        if at < stay.heard_at:
            between = Opens(at + max_stay, ending(at + max_stay, stay.heard_at))
            return Arriving((), between, re_entry, Parts(stay.id, at, stay.heard_at))
    ends = tuple(
        (stay.id, ending(stay.stay_until, at))
        for stay in before
        if stay.ended_at is None or at < stay.ended_at
    )
    following = next((stay for stay in his if stay.started_at > at), None)
    if following is None:
        return Arriving(ends, Opens(at + max_stay, None), re_entry)
    if following.station_id == station_id and following.started_at < at + max_stay:
        until = renewed(following.stay_until, at, max_stay)
        sooner = Continues(following.id, True, until, following.ended_at is None)
        return Arriving(ends, sooner, re_entry)
    over = ending(at + max_stay, following.started_at)
    return Arriving(ends, Opens(at + max_stay, over), re_entry)


@dataclass(frozen=True, slots=True)
class Came:
    """He went in somewhere."""

    at: datetime
    station_id: uuid.UUID
    max_stay: timedelta


@dataclass(frozen=True, slots=True)
class Heard:
    """He was heard of inside."""

    at: datetime
    station_id: uuid.UUID
    max_stay: timedelta


@dataclass(frozen=True, slots=True)
class Left:
    """He said that he leaves."""

    at: datetime
    station_id: uuid.UUID


Fact = Came | Heard | Left


@dataclass(slots=True)
class Retraced:
    """A visit as the facts tell it."""

    station_id: uuid.UUID
    started_at: datetime
    stay_until: datetime
    came: list[Came]
    ended_at: datetime | None = None
    by_leaving: bool = False
    imputed: bool = False


def retrace(facts: Sequence[Fact]) -> list[Retraced]:
    """Say what visits of one worker there were, given all that is known of them, in any order."""
    found: list[Retraced] = []
    inside: Retraced | None = None
    order = (Came, Heard, Left)
    for fact in sorted(facts, key=lambda fact: (fact.at, order.index(type(fact)))):
        if inside is not None and inside.stay_until <= fact.at:
            inside.ended_at, inside.imputed, inside = inside.stay_until, True, None
        is_here = inside is not None and inside.station_id == fact.station_id
        match fact:
            case Came(at, station_id, max_stay) if not is_here:
                if inside is not None:
                    inside.ended_at = at
                inside = Retraced(station_id, at, at + max_stay, [fact])
                found.append(inside)
            case Came(at, _, max_stay) | Heard(at, _, max_stay) if inside is not None and is_here:
                inside.stay_until = renewed(inside.stay_until, at, max_stay)
                if isinstance(fact, Came):
                    inside.came.append(fact)
            case Left(at) if inside is not None and is_here:
                inside.ended_at, inside.by_leaving, inside = at, True, None
    return found


def comes_back(one: Retraced, his: Sequence[Retraced]) -> bool:
    """Say whether a visit begins within ten minutes after another of his ended at that station."""
    return any(
        other.station_id == one.station_id
        and other.ended_at is not None
        and one.started_at - RE_ENTRY < other.ended_at <= one.started_at
        for other in his
        if other is not one
    )
