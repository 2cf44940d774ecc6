"""What the events of a journal cause: visits that begin, alerts, counts, facilities.

Written after the events are durable, in their order, each by itself: an effect that fails is noted
and holds up no other. Running twice does no harm.

An event that may take workers has a transaction of its own. A scan takes a worker, then the
station's presence row; whoever kept both of one worker while waiting for the next would wait in a
circle with it.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
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
from app.doors.line import Line, ServerBusy
from app.doors.registry import OF_A_CONTACT
from app.doors.rules.journal import EventType
from app.doors.scans import ScanDesk
from app.doors.tables import Controller, JournalEntry, PeopleCount
from app.places import facilities, held
from app.places.rules import Kind
from app.places.tables import FacilityStatus
from app.visits import usage

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Events of one controller that are looked up at a time."""

AT_A_TIME = 2
"""Controllers whose effects one process writes at a time; the connections are the doors'."""

_TAKES_WORKERS = frozenset({EventType.OFFLINE_ENTRY, EventType.DOOR_OPENED, EventType.DOOR_CLOSED})

_OF_THE_EVENT = (DataError, IntegrityError, ProgrammingError)
"""What a database says of an event that it will say again."""


class Effects:
    """Who writes effects in one process after a batch: one for each controller, in a short line.

    Whoever finds another at work on its controller leaves it to that one, which goes on with what
    came meanwhile. What is put off, and what the database refuses now, the job does.
    """

    def __init__(self, database: Database, desk: ScanDesk, *, line: Line, now: Now) -> None:
        self._database = database
        self._desk = desk
        self._line = line
        self._now = now
        self._due: set[uuid.UUID] = set()
        self._at_work: set[uuid.UUID] = set()

    async def write(self, controller_id: uuid.UUID) -> None:
        """Write the effects that are due of one controller, or leave them to who is at it."""
        self._due.add(controller_id)
        if controller_id in self._at_work:
            return
        self._at_work.add(controller_id)
        try:
            while controller_id in self._due:
                self._due.discard(controller_id)
                # A place for some at a time: a backlog keeps nobody waiting who brings one event.
                async with self._line.place():
                    found = await _apply_some(
                        self._database, self._desk, controller_id, now=self._now
                    )
                if found == AT_ONCE:
                    self._due.add(controller_id)
        except ServerBusy:
            log.info("effects left to the job controller=%s why=busy", controller_id)
        except (DBAPIError, PoolTimeout) as error:
            log.warning("effects left to the job controller=%s why=%s", controller_id, error)
        finally:
            self._due.discard(controller_id)
            self._at_work.discard(controller_id)


async def apply_due(database: Database, desk: ScanDesk, *, now: Now) -> int:
    """Write the effects that are due of all controllers; gives how many events."""
    done = 0
    for controller_id in await _with_due(database):
        found = AT_ONCE
        while found == AT_ONCE:
            found = await _apply_some(database, desk, controller_id, now=now)
            done += found
    return done


async def _with_due(database: Database) -> list[uuid.UUID]:
    async with database.read() as tx:
        found = await tx.scalars(
            sa.select(JournalEntry.controller_id)
            .where(JournalEntry.applied_at.is_(None))
            .distinct()
        )
        return list(found)


async def _apply_some(
    database: Database, desk: ScanDesk, controller_id: uuid.UUID, *, now: Now
) -> int:
    """Apply the oldest due events of a controller, part by part; gives how many were due."""
    await desk.calendar.fresh(database)
    found: int | None = None
    left: Sequence[JournalEntry] = []
    while found is None or left:
        async with database.write() as tx:
            station_id = await _hold(tx, controller_id)
            if found is None:
                left = await _due(tx, controller_id)
                found = len(left)
                part, left = _parted(left)
            else:
                part, left = _parted(left)
                part = await _still_due(tx, part)
            await _apply(tx, desk, part, station_id, at=now())
    return found


async def _hold(tx: AsyncSession, controller_id: uuid.UUID) -> uuid.UUID:
    """Hold a controller, so that nobody else applies its events meanwhile; gives its station.

    Its key is not held: a scan's command points at it, and would wait for them all.
    """
    station_id = await tx.scalar(
        sa.select(Controller.station_id)
        .where(Controller.id == controller_id)
        .with_for_update(key_share=True)
    )
    assert station_id is not None
    return station_id


async def _due(tx: AsyncSession, controller_id: uuid.UUID) -> Sequence[JournalEntry]:
    found = await tx.scalars(
        sa.select(JournalEntry)
        .where(JournalEntry.controller_id == controller_id, JournalEntry.applied_at.is_(None))
        .order_by(JournalEntry.corrected_at, JournalEntry.epoch, JournalEntry.seq)
        .limit(AT_ONCE)
    )
    return found.all()


def _parted(
    entries: Sequence[JournalEntry],
) -> tuple[Sequence[JournalEntry], Sequence[JournalEntry]]:
    """Give what goes into one transaction, and the rest: an event that takes workers goes alone."""
    take = (number for number, each in enumerate(entries) if each.type in _TAKES_WORKERS)
    first = max(1, next(take, len(entries)))
    return entries[:first], entries[first:]


async def _still_due(tx: AsyncSession, entries: Sequence[JournalEntry]) -> Sequence[JournalEntry]:
    """Leave out what another process applied since these were looked up."""
    ids = [entry.id for entry in entries]
    found = await tx.scalars(
        sa.select(JournalEntry.id).where(
            JournalEntry.id.in_(ids), JournalEntry.applied_at.is_(None)
        )
    )
    due = set(found)
    return [entry for entry in entries if entry.id in due]


async def _apply(
    tx: AsyncSession,
    desk: ScanDesk,
    entries: Sequence[JournalEntry],
    station_id: uuid.UUID,
    *,
    at: datetime,
) -> None:
    for entry in entries:
        effect = await _safely(tx, desk, entry, station_id, at)
        await tx.execute(
            sa.update(JournalEntry)
            .where(JournalEntry.id == entry.id)
            .values(applied_at=at, effect=effect)
            .execution_options(synchronize_session=False)
        )


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
        if entry.error_ms is not None:
            await book.settle(tx, AlertKind.DOOR_HELD, subject, at=at, over_at=over_at)
        elif not await contacts.said_since(tx, entry, EventType.DOOR_HELD):
            await book.settle(tx, AlertKind.DOOR_HELD, subject, at=at)
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
    open and stand open: that is kept, and alarms nobody. A box may not have known that it was free.
    Of one at an unknown time its word that the station was not free is all that there is.
    """
    kind = {
        EventType.DOOR_FORCED: AlertKind.DOOR_FORCED,
        EventType.DOOR_HELD: AlertKind.DOOR_HELD,
        EventType.TAMPER: AlertKind.TAMPER,
    }[entry.type]
    if kind is AlertKind.DOOR_HELD and await contacts.said_since(tx, entry, EventType.DOOR_CLOSED):
        return "over"
    if kind in OF_A_CONTACT and entry.error_ms is not None:
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
