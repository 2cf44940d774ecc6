"""Whether staff came: a station that waits for them in vain turns to scanning by itself.

Off unless a station, or a unit above it, says after how many minutes. What shows that staff came:
an administrator's word, a door contact that opened, a door that was left open shortly before, a
walk-in, heads that were counted. Once turned, it is turned back by an administrator's word, by such
a sign of the time before, however late it is told, or by the end of these staffed hours. A sign of
the time since is none: a door that opened may then have been a worker's.

While the station's controller is silent nothing is known, which is not the same as nobody came; and
a door that does not hear of it opens to no scan. Such a station waits until it is heard.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.audit import Action, Actor, record
from app.db.engine import Database
from app.db.types import new_id
from app.db.wakeups import LocalWakeups
from app.doors import contacts, outages
from app.doors.rules.journal import EventType
from app.doors.tables import Controller, Door, JournalEntry
from app.places import held, stations
from app.places.rules import Because, Calendar, ChangeKind, Kind, Tier, inherited, staffed_time
from app.places.standing import list_changes, station_rules
from app.places.tables import ModeChange, Station, Unit
from app.visits.tables import Visit, WalkInCount

EARLY = timedelta(hours=1)
"""Staff who say so this long before their hours begin, or open a door and leave it open, are there
when they do."""

AT_ONCE = 50
"""So many stations are looked at before others have their turn."""

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Awaited:
    """A station whose staff should have shown by now, and of whom nothing is known."""

    station_id: uuid.UUID
    since: datetime
    """When these staffed hours began."""
    until: datetime
    after_min: int


async def confirm(
    tx: AsyncSession, wakeups: LocalWakeups, station: Station, *, actor: Actor, at: datetime
) -> bool:
    """Write down that staff are there; tells whether the station had turned to scanning."""
    await _hold(tx, station.id)
    absence = await _absence(tx, station.id, at=at)
    if absence is not None:
        await _turn_back(tx, wakeups, absence, at=at)
    station.staff_seen_at = station.changed_at = at
    subject = await stations.subject_of(tx, station)
    was_absent = absence is not None
    await record(
        tx, actor, Action.STAFF_CONFIRMED, subject, at=at, after={"was_absent": was_absent}
    )
    return was_absent


async def watch(
    database: Database,
    wakeups: LocalWakeups,
    calendar: Calendar,
    *,
    silence: timedelta,
    now: Callable[[], datetime],
) -> None:
    """Turn stations to scanning where staff are awaited in vain, and back where a sign comes late.

    Alerts of what is over are closed. Each station has a transaction of its own, so that a door
    never waits for all of them.
    """
    at = now()
    async with database.read() as tx:
        awaited = await _awaited(tx, calendar, at=at)
        told = outages.has_told(silence=silence, at=at)
        looked_at = set(await tx.scalars(sa.select(Controller.station_id).where(told)))
        looked_at |= set(await tx.scalars(sa.select(ModeChange.station_id).where(_live(at))))
        over = await _over(tx, at=at)
    for one in awaited:
        if one.station_id in looked_at:
            async with database.write() as tx:
                await _look(tx, wakeups, one, at=at)
    if over:
        async with database.write() as tx:
            for subject in over:
                await book.settle(tx, AlertKind.STAFF_ABSENT, subject, at=at)


async def _look(tx: AsyncSession, wakeups: LocalWakeups, awaited: Awaited, *, at: datetime) -> None:
    """Look for a sign of staff at one station, and turn it by that."""
    await _hold(tx, awaited.station_id)
    absence = await _absence(tx, awaited.station_id, at=at)
    sign = await _sign(tx, awaited, before=awaited.until if absence is None else absence.from_at)
    if sign is None:
        if absence is None:
            await _turn(tx, wakeups, awaited, at=at)
        return
    if absence is not None:
        await _turn_back(tx, wakeups, absence, at=at)
    # Known until the next staffed hours: nobody need look again.
    seen = sa.update(Station).where(Station.id == awaited.station_id)
    await tx.execute(seen.values(staff_seen_at=sign))


def _alert_of(station_id: uuid.UUID) -> str:
    return f"station:{station_id}"


def _live(at: datetime) -> sa.ColumnElement[bool]:
    """Select the absences that hold at an instant."""
    return sa.and_(
        ModeChange.tier == Tier.STAFF_ABSENT,
        ModeChange.retired_at.is_(None),
        ModeChange.until_at > at,
    )


async def _absence(tx: AsyncSession, station_id: uuid.UUID, *, at: datetime) -> ModeChange | None:
    """Give the absence that holds at a station; there is at most one, for the station is held."""
    here = sa.select(ModeChange).where(_live(at), ModeChange.station_id == station_id)
    return (await tx.scalars(here)).one_or_none()


async def _hold(tx: AsyncSession, station_id: uuid.UUID) -> None:
    """Let one transaction at a time say whether a station's staff came."""
    await tx.execute(sa.select(Station.id).where(Station.id == station_id).with_for_update())


async def _limits(tx: AsyncSession) -> Mapping[uuid.UUID, int]:
    """Give the minutes of every station in use that has any: its own, or those of its branch."""
    units = (await tx.execute(sa.select(Unit.id, Unit.path, Unit.staff_absent_min))).all()
    said = {unit.path: unit.staff_absent_min for unit in units if unit.staff_absent_min is not None}
    own = sa.select(Station.id, Station.unit_id, Station.staff_absent_min).where(
        Station.retired_at.is_(None), Station.staffed_hours.is_not(None)
    )
    if not said:
        own = own.where(Station.staff_absent_min > 0)
    paths = {unit.id: unit.path for unit in units}
    found: dict[uuid.UUID, int] = {}
    for station in await tx.execute(own):
        minutes = station.staff_absent_min
        if minutes is None:
            minutes = inherited(paths[station.unit_id], said)
        if minutes:
            found[station.id] = minutes
    return found


async def _awaited(tx: AsyncSession, calendar: Calendar, *, at: datetime) -> Sequence[Awaited]:
    """Find the stations whose staff are overdue and of whom nothing is known."""
    limits = list((await _limits(tx)).items())
    found: list[Awaited] = []
    for first in range(0, len(limits), AT_ONCE):
        some = dict(limits[first : first + AT_ONCE])
        rows = await tx.scalars(sa.select(Station).where(Station.id.in_(some)))
        # What ended within the day still says when these staffed hours began.
        changes = await list_changes(tx, list(some), at=at - _DAY, horizon=2 * _DAY)
        for row in rows:
            # These hours are staff's also where the station turned because of them.
            others = [one for one in changes.get(row.id, ()) if one.tier is not Tier.STAFF_ABSENT]
            rules = station_rules(row, others)
            time, after_min = staffed_time(rules, calendar, at), some[row.id]
            if time is None or at < time.from_at + timedelta(minutes=after_min):
                continue
            if row.staff_seen_at is None or row.staff_seen_at < time.from_at - EARLY:
                found.append(Awaited(row.id, time.from_at, time.until_at, after_min))
        await asyncio.sleep(0)
    return await _not_before(tx, found, at=at)


async def _not_before(
    tx: AsyncSession, awaited: Sequence[Awaited], *, at: datetime
) -> Sequence[Awaited]:
    """Let staff be awaited since no sooner than the time was theirs, as it is recorded.

    Where hours were amended at noon, or a closing withdrawn, the rules of now speak of the morning
    too, and nobody could know that.
    """
    if not awaited:
        return awaited
    ids = [one.station_id for one in awaited]
    from_day, to_day = (at - _DAY).date(), (at + _DAY).date()
    recorded = await held.windows(tx, ids, from_day=from_day, to_day=to_day)
    found: list[Awaited] = []
    for one in awaited:
        others = [
            _EPOCH + timedelta(milliseconds=window.until_ms)
            for window in (recorded[one.station_id].held if one.station_id in recorded else ())
            if not _is_of_staff(window)
        ]
        since = max([one.since, *others])
        if at >= since + timedelta(minutes=one.after_min):
            found.append(replace(one, since=since))
    return found


def _is_of_staff(window: held.Held) -> bool:
    """Whether staff should have been there, as `staffed_time` says of rules."""
    is_theirs = window.kind is Kind.FREE and window.because not in held.UNFORESEEN
    return is_theirs or window.because is Because.STAFF_ABSENT


async def _sign(tx: AsyncSession, awaited: Awaited, *, before: datetime) -> datetime | None:
    """Find when something showed before an instant that staff came; None when nothing did."""
    here, since = awaited.station_id, awaited.since
    said = sa.select(Station.staff_seen_at).where(
        Station.id == here, Station.staff_seen_at >= since - EARLY
    )
    walked_in = sa.select(Visit.started_at).where(
        Visit.station_id == here,
        Visit.started_at >= since,
        Visit.started_at < before,
        Visit.mode == Kind.FREE,
        Visit.voided_at.is_(None),
    )
    counted = sa.select(WalkInCount.until_at).where(
        WalkInCount.station_id == here,
        WalkInCount.until_at > since,
        WalkInCount.until_at <= before,
        WalkInCount.withdrawn_at.is_(None),
    )
    for sign in (said, walked_in, counted):
        found: datetime | None = await tx.scalar(sign.limit(1))
        if found is not None:
            return max(found, since)
    opened = await _opened(tx, awaited, before=before)
    if opened is None and await _left_open(tx, awaited):
        return since
    return opened


async def _opened(tx: AsyncSession, awaited: Awaited, *, before: datetime) -> datetime | None:
    """Find when a door opened within these hours, for sure before an instant.

    What may have been later may have been a worker's; of what happened at an unknown time nobody
    knows on which day it was.
    """
    rows = await tx.execute(
        sa.select(JournalEntry.corrected_at, JournalEntry.error_ms)
        .join(Door, Door.id == JournalEntry.door_id)
        .where(
            Door.station_id == awaited.station_id,
            JournalEntry.type == EventType.DOOR_OPENED,
            contacts.AT_START.is_distinct_from(True),
            JournalEntry.corrected_at >= awaited.since,
            JournalEntry.corrected_at < before,
            JournalEntry.error_ms.is_not(None),
        )
    )
    for row in rows:
        if row.corrected_at + timedelta(milliseconds=row.error_ms) < before:
            found: datetime = row.corrected_at
            return found
    return None


async def _left_open(tx: AsyncSession, awaited: Awaited) -> bool:
    """Whether a door that was opened shortly before these hours still stood open at their start."""
    since = awaited.since
    doors = await tx.scalars(sa.select(Door.id).where(Door.station_id == awaited.station_id))
    for door_id in doors.all():
        if any(
            since - EARLY <= stood.opened_at < since
            and not stood.found_open
            and (stood.closed_at is None or stood.closed_at >= since)
            for stood in await contacts.intervals(tx, door_id, around=since)
        ):
            return True
    return False


async def _turn(tx: AsyncSession, wakeups: LocalWakeups, awaited: Awaited, *, at: datetime) -> None:
    """Let the station open by scan until staff say that they are there, or their hours end."""
    await held.record(tx, [awaited.station_id], at=at)
    tx.add(
        ModeChange(
            id=new_id(),
            station_id=awaited.station_id,
            tier=Tier.STAFF_ABSENT,
            kind=ChangeKind.ACCESS,
            from_at=at,
            until_at=awaited.until,
            note="",
            created_at=at,
            changed_at=at,
        )
    )
    await stations.bump(tx, wakeups, awaited.station_id)
    detail = {"since": awaited.since.isoformat(), "after_min": awaited.after_min}
    evidence = Evidence(
        AlertKind.STAFF_ABSENT, _alert_of(awaited.station_id), awaited.station_id, at, detail
    )
    await book.note(tx, evidence, at=at)


async def _turn_back(
    tx: AsyncSession, wakeups: LocalWakeups, absence: ModeChange, *, at: datetime
) -> None:
    """End an absence; what held until now stays what it was."""
    await held.record(tx, [absence.station_id], at=at)
    absence.until_at = absence.changed_at = at
    await book.settle(tx, AlertKind.STAFF_ABSENT, _alert_of(absence.station_id), at=at)
    await stations.bump(tx, wakeups, absence.station_id)


async def _over(tx: AsyncSession, *, at: datetime) -> Sequence[str]:
    """Find the open alerts whose station is no longer turned."""
    still = sa.select(ModeChange.station_id).where(_live(at))
    rows = await tx.scalars(
        sa.select(Alert.subject).where(
            Alert.kind == AlertKind.STAFF_ABSENT,
            Alert.closed_at.is_(None),
            Alert.station_id.not_in(still),
        )
    )
    return rows.all()
