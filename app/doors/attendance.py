"""Whether staff came: a station that waits for them in vain turns to scanning by itself.

Off unless a station, or a unit above it, says after how many minutes. What shows that staff came:
an administrator's word, a door contact that opened, a door that was left open shortly before, a
walk-in, heads that were counted. Once turned, only an administrator's word or the end of these
staffed hours turns it back: a door that opened may then have been a worker's.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

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
from app.doors import contacts
from app.doors.rules.journal import EventType
from app.doors.tables import Door, JournalEntry
from app.places import held, stations
from app.places.rules import Calendar, ChangeKind, Kind, Tier, inherited, staffed_time
from app.places.standing import list_changes, station_rules
from app.places.tables import ModeChange, Station, Unit
from app.visits.tables import Visit, WalkInCount

EARLY = timedelta(hours=1)
"""Staff who say so this long before their hours begin, or open a door and leave it open, are there
when they do."""

AT_ONCE = 50
"""So many stations are looked at before others have their turn."""

_DAY = timedelta(days=1)


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
    ended = (
        await tx.scalars(
            sa.select(ModeChange).where(_live(at), ModeChange.station_id == station.id)
        )
    ).all()
    if ended:
        await held.record(tx, [station.id], at=at)
    for absence in ended:
        absence.until_at = absence.changed_at = at
    station.staff_seen_at = station.changed_at = at
    subject = await stations.subject_of(tx, station)
    after = {"was_absent": bool(ended)}
    await record(tx, actor, Action.STAFF_CONFIRMED, subject, at=at, after=after)
    if ended:
        await book.settle(tx, AlertKind.STAFF_ABSENT, _alert_of(station.id), at=at)
        await stations.bump(tx, wakeups, station.id)
    return bool(ended)


async def watch(
    database: Database, wakeups: LocalWakeups, calendar: Calendar, *, now: Callable[[], datetime]
) -> None:
    """Turn stations to scanning where staff are awaited in vain; close the alerts of what is over.

    Each station has a transaction of its own, so that a door never waits for all of them.
    """
    at = now()
    async with database.read() as tx:
        awaited = await _awaited(tx, calendar, at=at)
        over = await _over(tx, at=at)
    for one in awaited:
        async with database.write() as tx:
            await _hold(tx, one.station_id)
            sign = await _sign(tx, one)
            if sign is None:
                await _turn(tx, wakeups, one, at=at)
                continue
            # Known until the next staffed hours: nobody need look again.
            seen = sa.update(Station).where(Station.id == one.station_id)
            await tx.execute(seen.values(staff_seen_at=sign))
    if over:
        async with database.write() as tx:
            for subject in over:
                await book.settle(tx, AlertKind.STAFF_ABSENT, subject, at=at)


def _alert_of(station_id: uuid.UUID) -> str:
    return f"station:{station_id}"


def _live(at: datetime) -> sa.ColumnElement[bool]:
    """Select the absences that hold at an instant."""
    return sa.and_(
        ModeChange.tier == Tier.STAFF_ABSENT,
        ModeChange.retired_at.is_(None),
        ModeChange.until_at > at,
    )


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
            rules = station_rules(row, changes.get(row.id, ()))
            time, after_min = staffed_time(rules, calendar, at), some[row.id]
            if time is None or at < time.from_at + timedelta(minutes=after_min):
                continue
            if row.staff_seen_at is None or row.staff_seen_at < time.from_at - EARLY:
                found.append(Awaited(row.id, time.from_at, time.until_at, after_min))
        await asyncio.sleep(0)
    return found


async def _sign(tx: AsyncSession, awaited: Awaited) -> datetime | None:
    """Find when something showed that staff came; None when nothing did."""
    here, since = awaited.station_id, awaited.since
    said = sa.select(Station.staff_seen_at).where(
        Station.id == here, Station.staff_seen_at >= since - EARLY
    )
    opened = (
        sa.select(JournalEntry.corrected_at)
        .join(Door, Door.id == JournalEntry.door_id)
        .where(
            Door.station_id == here,
            JournalEntry.type == EventType.DOOR_OPENED,
            contacts.AT_START.is_distinct_from(True),
            JournalEntry.corrected_at >= since,
        )
    )
    walked_in = sa.select(Visit.started_at).where(
        Visit.station_id == here,
        Visit.started_at >= since,
        Visit.mode == Kind.FREE,
        Visit.voided_at.is_(None),
    )
    counted = sa.select(WalkInCount.until_at).where(
        WalkInCount.station_id == here, WalkInCount.until_at > since
    )
    for sign in (said, opened, walked_in, counted):
        found: datetime | None = await tx.scalar(sign.limit(1))
        if found is not None:
            return max(found, since)
    return since if await _left_open(tx, awaited) else None


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
    live = _live(at), ModeChange.station_id == awaited.station_id
    if await tx.scalar(sa.select(ModeChange.id).where(*live).limit(1)) is not None:
        return
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
