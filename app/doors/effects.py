"""What the events of a journal cause: visits that begin, alerts, counts, facilities.

Written after the events are durable, in their order, each by itself: an effect that fails is noted
and holds up no other. Running twice does no harm.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.clock import Now
from app.db.engine import Database
from app.db.upsert import upsert
from app.doors import contacts, correction, review
from app.doors.rules.journal import EventType
from app.doors.scans import ScanDesk
from app.doors.tables import Controller, JournalEntry, PeopleCount
from app.places import facilities, held
from app.places.rules import Kind
from app.places.tables import FacilityStatus
from app.visits import usage

log = logging.getLogger(__name__)

AT_ONCE = 100

_OF_THE_EVENT = (DataError, IntegrityError, ProgrammingError)
"""What a database says of an event that it will say again."""


async def apply_due(
    database: Database, desk: ScanDesk, *, now: Now, controller_id: uuid.UUID | None = None
) -> int:
    """Write the effects that are due, of one controller or of all; gives how many events."""
    await desk.calendar.fresh(database)
    done = 0
    for controller in [controller_id] if controller_id else await _with_due(database):
        while True:
            async with database.write() as tx:
                number = await _apply_some(tx, desk, controller, at=now())
            done += number
            if number < AT_ONCE:
                break
    return done


async def apply_soon(
    database: Database, desk: ScanDesk, *, now: Now, controller_id: uuid.UUID
) -> None:
    """Write the effects that are due after a batch; what the database refuses now, the job does."""
    try:
        await apply_due(database, desk, now=now, controller_id=controller_id)
    except (DBAPIError, PoolTimeout) as error:
        log.warning("effects left to the job controller=%s why=%s", controller_id, error)


async def _with_due(database: Database) -> list[uuid.UUID]:
    async with database.read() as tx:
        found = await tx.scalars(
            sa.select(JournalEntry.controller_id)
            .where(JournalEntry.applied_at.is_(None))
            .distinct()
        )
        return list(found)


async def _apply_some(
    tx: AsyncSession, desk: ScanDesk, controller_id: uuid.UUID, *, at: datetime
) -> int:
    """Apply the oldest due events of a controller, which is held: nobody else does meanwhile.

    Its key is not: a scan's command points at it, and would wait for them all.
    """
    station_id = await tx.scalar(
        sa.select(Controller.station_id)
        .where(Controller.id == controller_id)
        .with_for_update(key_share=True)
    )
    assert station_id is not None
    entries = (
        await tx.scalars(
            sa.select(JournalEntry)
            .where(JournalEntry.controller_id == controller_id, JournalEntry.applied_at.is_(None))
            .order_by(JournalEntry.corrected_at, JournalEntry.epoch, JournalEntry.seq)
            .limit(AT_ONCE)
        )
    ).all()
    for entry in entries:
        effect = await _safely(tx, desk, entry, station_id, at)
        await tx.execute(
            sa.update(JournalEntry)
            .where(JournalEntry.id == entry.id)
            .values(applied_at=at, effect=effect)
        )
    return len(entries)


async def _safely(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    act = _ACTS.get(entry.type)
    if act is None:
        return "kept"
    try:
        async with tx.begin_nested():
            return await act(tx, desk, entry, station_id, at)
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, _OF_THE_EVENT):
            raise  # The database's trouble, such as a deadlock: the batch is tried again.
        log.exception("effect failed event=%s type=%s", entry.id, entry.type)
        detail = {"event": entry.event_id, "error": type(error).__name__}
        subject = f"controller:{entry.controller_id}"
        evidence = Evidence(AlertKind.QUARANTINE, subject, station_id, at, detail)
        await book.note(tx, evidence, at=at)
        return "failed"


async def _door_moved(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    """An opening begins the visits of the pulses it belongs to; a closing ends the holding.

    Told late, either may show that it was otherwise than was thought.
    """
    settled = await correction.contact_moved(tx, desk, entry, at=at)
    if entry.type is EventType.DOOR_CLOSED:
        subject, over_at = f"door:{entry.door_id}", entry.corrected_at
        await book.settle(tx, AlertKind.DOOR_HELD, subject, at=at, over_at=over_at)
        return f"closed:{settled}" if settled else "closed"
    return f"opened:{settled}" if settled else "unmatched"


async def _worked_alone(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    row = await review.review(tx, desk, entry, at=at)
    if row.would_have_been_refused is not None and row.opened:
        return f"opened, would_have_been_refused:{row.would_have_been_refused.value}"
    return "opened" if row.opened else "refused"


async def _alerts(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    """Somebody should look, even when it is told late; the alert says that it was.

    A holding that is told after its end is over already. While the station is free its door may
    stand open: that is kept, and alarms nobody.
    """
    kind = {
        EventType.DOOR_FORCED: AlertKind.DOOR_FORCED,
        EventType.DOOR_HELD: AlertKind.DOOR_HELD,
        EventType.TAMPER: AlertKind.TAMPER,
    }[entry.type]
    if kind is AlertKind.DOOR_HELD and await contacts.closed_since(tx, entry):
        return "over"
    if kind is AlertKind.DOOR_HELD:
        then = await held.kind_at(tx, station_id, desk.calendar.current, at=entry.corrected_at)
        if then is Kind.FREE:
            return "free"
    subject = f"door:{entry.door_id}" if entry.door_id else f"controller:{entry.controller_id}"
    evidence = Evidence(
        kind,
        subject,
        station_id,
        entry.corrected_at,
        {"event": entry.event_id},
        late=entry.late,
    )
    await book.note(tx, evidence, at=at)
    return f"alert:{kind.value}"


async def _people(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    count = int(entry.body.get("count", 1))
    await tx.execute(
        upsert(tx, PeopleCount)
        .values(
            entry_id=entry.id,
            station_id=station_id,
            counted_at=entry.corrected_at,
            delta=count if entry.type is EventType.PEOPLE_IN else -count,
            reset_to=entry.body.get("reset_to"),
        )
        .on_conflict_do_nothing()
    )
    return "counted"


async def _facility_used(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    quantity = entry.body.get("quantity")
    used = usage.Reported(
        facility_id=uuid.UUID(entry.body["facility"]),
        station_id=station_id,
        actor=f"controller:{entry.controller_id}",
        key=entry.event_id,
        begun_at=entry.corrected_at - timedelta(seconds=entry.body.get("duration_s") or 0),
        ended_at=entry.corrected_at,
        quantity=None if quantity is None else Decimal(str(quantity)),
    )
    await usage.report(tx, used, at=at)
    return "used"


async def _facility_status(
    tx: AsyncSession,
    desk: ScanDesk,
    entry: JournalEntry,
    station_id: uuid.UUID,
    at: datetime,
) -> str:
    facility_id = uuid.UUID(entry.body["facility"])
    status = FacilityStatus(entry.body["status"])
    moved = await facilities.report_status(
        tx, facility_id, status, status_at=entry.corrected_at, at=at
    )
    return "status" if moved else "outdated"


_Act = Callable[[AsyncSession, ScanDesk, JournalEntry, uuid.UUID, datetime], Awaitable[str]]

_ACTS: dict[EventType, _Act] = {
    EventType.OFFLINE_ENTRY: _worked_alone,
    EventType.DOOR_OPENED: _door_moved,
    EventType.DOOR_CLOSED: _door_moved,
    EventType.DOOR_FORCED: _alerts,
    EventType.DOOR_HELD: _alerts,
    EventType.TAMPER: _alerts,
    EventType.PEOPLE_IN: _people,
    EventType.PEOPLE_OUT: _people,
    EventType.FACILITY_USE: _facility_used,
    EventType.FACILITY_STATUS: _facility_status,
}
