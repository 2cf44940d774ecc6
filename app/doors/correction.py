"""What a door's contact tells after the fact: a pulse let somebody in, at another time, or nobody.

Occupancy is what was recorded, in whatever order it arrived (laws 5 and 10). An event says again
what every pulse between it and the contact's next one came to. Where that is not what was thought,
the worker's visits are written anew from all his entries.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors import commands, contacts, review
from app.doors.rules import OPENING_WINDOW
from app.doors.rules.journal import EventType, opened_by
from app.doors.scans import ScanDesk
from app.doors.tables import Command, Door, JournalEntry, OfflineEntry, Scan
from app.places.tables import Station
from app.visits import presence
from app.visits.presence import Arrival, Entry


async def contact_moved(
    tx: AsyncSession, desk: ScanDesk, entry: JournalEntry, *, at: datetime
) -> int:
    """Let an event of a contact settle the pulses it touches; gives how many it changed.

    The door is held: a pulse that is told meanwhile sees the event, or the event sees the pulse.
    One of an unknown time is about no pulse but those that its own boot told of (law 11).
    """
    assert entry.door_id is not None
    door_id = entry.door_id
    has_contact = await tx.scalar(
        sa.select(Door.has_contact).where(Door.id == door_id).with_for_update(key_share=True)
    )
    until = await _next_event(tx, entry)
    only_opened = entry.type is EventType.DOOR_CLOSED
    since = entry.corrected_at - OPENING_WINDOW
    changed = 0
    is_dated = entry.error_ms is not None
    pulses = await _pulses(tx, door_id, since, until, only_opened=only_opened) if is_dated else ()
    for row in pulses:
        intervals = await contacts.intervals(tx, door_id, around=row.pulsed_at)
        opened = opened_by(row.pulsed_at, intervals)
        if opened == row.opened_at or not (has_contact or row.opened_at is None):
            continue
        changed += 1
        await _settle_command(tx, row, opened, at=at)
        if row.scan_id is not None:
            await desk.wakeups.wake(tx, commands.scan_topic(row.scan_id))
    if has_contact:
        among = contacts.comparable(entry)
        for alone in await review.pulses(tx, door_id, since=since, until=until, among=among):
            intervals = await contacts.intervals(tx, door_id, around=alone.happened_at, among=among)
            opened = opened_by(alone.happened_at, intervals)
            if opened != alone.opened_at:
                changed += 1
                await _settle_alone(tx, alone, opened, at=at)
    return changed


async def _next_event(tx: AsyncSession, entry: JournalEntry) -> datetime | None:
    """Say when the contact spoke next: later pulses depend on that word, not on this one."""
    found: datetime | None = await tx.scalar(
        sa.select(JournalEntry.corrected_at)
        .where(
            JournalEntry.door_id == entry.door_id,
            JournalEntry.type.in_((EventType.DOOR_OPENED, EventType.DOOR_CLOSED)),
            JournalEntry.corrected_at > entry.corrected_at,
            contacts.comparable(entry),
        )
        .order_by(JournalEntry.corrected_at)
        .limit(1)
    )
    return found


async def _pulses(
    tx: AsyncSession,
    door_id: uuid.UUID,
    since: datetime,
    until: datetime | None,
    *,
    only_opened: bool,
) -> Sequence[Any]:
    query = (
        sa.select(Command.id, Command.scan_id, Command.pulsed_at, Command.opened_at)
        .where(Command.door_id == door_id, Command.pulsed_at >= since)
        .order_by(Command.pulsed_at)
    )
    if until is not None:
        query = query.where(Command.pulsed_at <= until)
    if only_opened:
        query = query.where(Command.opened_at.is_not(None))
    return (await tx.execute(query)).all()


async def _settle_command(
    tx: AsyncSession, row: Any, opened: datetime | None, *, at: datetime
) -> None:
    await tx.execute(
        sa.update(Command).where(Command.id == row.id).values(opened_at=opened, changed_at=at)
    )
    if row.scan_id is None:
        return
    if row.opened_at is None:
        assert opened is not None
        await commands.enter(tx, row.scan_id, started_at=opened, at=at)
        return
    scan = await tx.get_one(Scan, row.scan_id, populate_existing=True)
    visit_id = scan.visit_id
    if opened is None:
        scan.visit_id, scan.changed_at = None, at
    await tx.flush()
    await _rewrite(tx, scan, visit_id, (row.opened_at, opened), at=at)


async def _settle_alone(
    tx: AsyncSession, alone: OfflineEntry, opened: datetime | None, *, at: datetime
) -> None:
    before, visit_id = alone.opened_at, alone.visit_id
    alone.opened_at, alone.changed_at = opened, at
    if before is None:
        assert opened is not None
        await review.enter(tx, alone, started_at=opened, at=at)
        return
    if opened is None:
        alone.visit_id = None
    await tx.flush()
    await _rewrite(tx, alone, visit_id, (before, opened), at=at)


async def _rewrite(
    tx: AsyncSession,
    of: Scan | OfflineEntry,
    visit_id: uuid.UUID | None,
    times: tuple[datetime, datetime | None],
    *,
    at: datetime,
) -> None:
    """Write the visits of whoever went in, or did not, anew since then."""
    if visit_id is None:
        return
    since = min(each for each in times if each is not None)
    rows = await presence.written(tx, of.owner_key, of.worker_id, since=since, also=visit_id)
    held = await _entries(tx, [row.id for row in rows])
    entries = [entry for _, entry in held]
    found = await presence.rewrite(tx, rows, entries, since=since, without=visit_id, at=at)
    for (row, entry), now in zip(held, found, strict=True):
        if now != entry.visit_id:
            row.visit_id, row.changed_at = now, at
    await tx.flush()


async def _entries(
    tx: AsyncSession, visit_ids: Sequence[uuid.UUID]
) -> list[tuple[Scan | OfflineEntry, Entry]]:
    """Give every entry that is known to be part of these visits, with its row."""
    scans = await tx.execute(
        sa.select(
            Scan,
            Station,
            sa.func.coalesce(Command.opened_at, Command.pulsed_at, Scan.scanned_at),
        )
        .join(Station, Station.id == Scan.station_id)
        .outerjoin(Command, Command.scan_id == Scan.id)
        .where(Scan.visit_id.in_(visit_ids))
        .execution_options(populate_existing=True)
    )
    found: list[tuple[Scan | OfflineEntry, Entry]] = []
    for scan, station, entered_at in scans.all():
        assert scan.mode is not None
        arrival = _arrival(scan, station, scan.mode, scan.party_size)
        found.append((scan, Entry(arrival, entered_at, scan.visit_id)))
    alone = await tx.execute(
        sa.select(OfflineEntry, Station)
        .join(Station, Station.id == OfflineEntry.station_id)
        .where(OfflineEntry.visit_id.in_(visit_ids))
    )
    for row, station in alone.all():
        arrival = _arrival(row, station, row.mode, 1)
        found.append((row, Entry(arrival, row.opened_at or row.happened_at, row.visit_id)))
    return found


def _arrival(of: Scan | OfflineEntry, station: Station, mode: Any, party_size: int) -> Arrival:
    return Arrival(
        station_id=station.id,
        timezone=station.timezone,
        owner_key=of.owner_key,
        worker_id=of.worker_id,
        occupation=of.occupation,
        mode=mode,
        party_size=party_size,
        max_stay=timedelta(minutes=station.max_stay_min),
    )
