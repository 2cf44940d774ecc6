"""The journal of a controller: every event taken in once, whatever was repeated, lost or wrong.

An answer means durable rows. One bad event is put into quarantine and the rest go in. What an event
causes is written afterwards, in transactions of its own (`effects.py`), so that no effect can keep
an event out.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind, skew_alert
from app.alerts.tables import Alert
from app.db.gathered import padded
from app.db.types import new_id, table_of
from app.db.upsert import upsert
from app.db.wakeups import LocalWakeups
from app.doors import clones
from app.doors.completeness import AHEAD, GAP_STAYS, held_above, how_many, losses, not_held
from app.doors.rules.journal import (
    WITHOUT_EFFECT,
    EventType,
    Range,
    Sending,
    Told,
    Unusable,
    Why,
    advanced,
    at_station,
    content_hash,
    corrected,
    gaps,
    is_late,
    read_event,
    storable,
)
from app.doors.tables import (
    Controller,
    Door,
    JournalCursor,
    JournalEntry,
    JournalLoss,
    QuarantinedEvent,
)
from app.places.tables import Facility


class Status(StrEnum):
    """What became of one event of a batch."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one epoch, sent by one boot."""

    epoch: int
    sending: Sending
    events: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event."""

    event_id: str
    seq: int | None
    status: Status
    reason: Why | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch; every row it speaks of is durable once it is committed."""

    results: Sequence[Result]
    acked_through: int
    due: bool
    """Whether effects are waiting to be written."""


@dataclass(slots=True)
class _Sorted:
    told: list[Told] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)


async def take_in(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    batch: Batch,
    *,
    at: datetime,
) -> Taken | None:
    """Take a batch in, each event once.

    1. Hold the controller's row: batches of one controller go in one after another. Not its key,
       which a scan's command points at: nobody at the door waits for an upload.
    2. Read every event; put what cannot be used into quarantine.
    3. Insert the rest in one statement; what stood there already is a duplicate if it is the same,
       and evidence of a clone if it is not.
    4. Move the cursor over what is held without a gap. Of a controller that never told us anything
       it begins with what it tells first: a box that is enrolled anew goes on with its numbers.

    What such a box told under an earlier enrolment, whose answer was lost, it tells again: the same
    event under the same number is a duplicate, and shows that its journal is the same. Another
    event under that number is another box's, or another time's, and goes in.

    None when the controller is retired.
    """
    station_id = await tx.scalar(
        sa.select(Controller.station_id)
        .where(Controller.id == controller_id, Controller.retired_at.is_(None))
        .with_for_update(key_share=True)
    )
    if station_id is None:
        return None
    before = await _standing(tx, controller_id, station_id, batch.epoch)
    found = await _sort(tx, station_id, batch)
    told_earlier, earlier = await _told_earlier(tx, station_id, batch.epoch, before, found.told)
    results: dict[int, Result] = {
        id(told.body): Result(told.event_id, told.seq, Status.DUPLICATE) for told in told_earlier
    }
    new = [told for told in found.told if id(told.body) not in results]
    fresh = await _insert(tx, controller_id, batch, new, at=at)
    due = False
    came_in: list[Told] = []
    for told in new:
        # Of two events under one number in one batch, the first went in.
        if fresh.pop(told.seq, None) == told.event_id:
            came_in.append(told)
            results[id(told.body)] = Result(told.event_id, told.seq, Status.ACCEPTED)
            due = due or told.type not in WITHOUT_EFFECT
    stood = [told for told in found.told if id(told.body) not in results]
    clashes = await _clashes(tx, controller_id, batch.epoch, stood)
    for told in stood:
        if id(told.body) in clashes:
            found.unusable.append(told.unusable(Why.CONFLICT))
        else:
            results[id(told.body)] = Result(told.event_id, told.seq, Status.DUPLICATE)
    for item in found.unusable:
        results[id(item.body)] = Result(item.event_id, item.seq, Status.QUARANTINED, item.why)
    news = await _quarantine(tx, controller_id, station_id, batch, found.unusable, at=at)
    told_before = before.has_quarantined and await _told_otherwise(
        tx, controller_id, batch.epoch, came_in
    )
    if Why.CONFLICT in news or told_before:
        await clones.found(tx, wakeups, controller_id, detail={"by": "journal"}, at=at)
    lost = [
        told
        for told in found.told
        if told.type is EventType.OVERFLOW and results[id(told.body)].status is Status.ACCEPTED
    ]
    await _note_lost(tx, controller_id, station_id, batch, lost, at=at)
    through = before.acked_through
    numbers = [told.seq for told in found.told]
    numbers += [item.seq for item in found.unusable if item.seq is not None]
    if numbers:
        if before.newest_epoch is None:
            first = min([*numbers, *(told.body["first_seq"] for told in lost)])
            before = replace(before, acked_through=first - 1)
        elif batch.epoch > before.newest_epoch:
            await _note_new_epoch(tx, controller_id, station_id, batch, at=at)
        through = await _advance(
            tx,
            controller_id,
            batch.epoch,
            numbers,
            before,
            earlier=earlier,
            has_losses=before.has_losses or bool(lost),
            at=at,
        )
    await _watch_clock(tx, controller_id, station_id, batch.sending, before, at=at)
    return Taken(
        [results[id(raw)] for raw in batch.events],
        through,
        due,
    )


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a journal stands before a batch."""

    acked_through: int
    highest: int
    gap_at: datetime | None
    has_losses: bool
    has_quarantined: bool
    clock_is_off: bool
    """Whether an alert of its clock is open."""
    newest_epoch: int | None
    """None: nothing of this controller's journal was ever told."""
    highest_earlier: int
    """The highest number of this epoch told under earlier enrolments at the station."""


async def _standing(
    tx: AsyncSession, controller_id: uuid.UUID, station_id: uuid.UUID, epoch: int
) -> _Standing:
    """Read it in one statement, after the controller is held: most batches are of one event."""
    names = {
        "id": controller_id,
        "station": station_id,
        "epoch": epoch,
        "subject": f"controller:{controller_id}",
    }
    row = (await tx.execute(_STANDING, names)).one()
    return _Standing(
        acked_through=row.acked_through or 0,
        highest=row.highest or 0,
        gap_at=row.gap_at,
        has_losses=row.losses,
        has_quarantined=row.quarantined,
        clock_is_off=row.off,
        newest_epoch=row.newest_epoch,
        highest_earlier=row.highest_earlier or 0,
    )


async def _sort(tx: AsyncSession, station_id: uuid.UUID, batch: Batch) -> _Sorted:
    """Part the events that can be used from those that cannot."""
    found = _Sorted()
    read = [read_event(raw, batch.sending.boot_id) for raw in batch.events]
    told = [item for item in read if isinstance(item, Told)]
    of_doors = any(item.door is not None for item in told)
    doors = await _ids(tx, Door, station_id) if of_doors else set[str]()
    of_facilities = any(item.facility is not None for item in told)
    facilities = await _ids(tx, Facility, station_id) if of_facilities else set[str]()
    for item in read:
        held = at_station(item, doors, facilities) if isinstance(item, Told) else item
        if isinstance(held, Told):
            found.told.append(held)
        else:
            found.unusable.append(held)
    return found


async def _ids(tx: AsyncSession, kind: Any, station_id: uuid.UUID) -> set[str]:
    found = await tx.scalars(sa.select(kind.id).where(kind.station_id == station_id))
    return {str(key) for key in found}


async def _told_earlier(
    tx: AsyncSession,
    station_id: uuid.UUID,
    epoch: int,
    before: _Standing,
    events: Sequence[Told],
) -> tuple[Sequence[Told], Sequence[uuid.UUID]]:
    """Give the events that are held under an earlier enrolment, and which enrolments hold them."""
    perhaps = {told.seq for told in events if told.seq <= before.highest_earlier}
    if not perhaps:
        return [], []
    rows = await tx.execute(
        sa.select(JournalEntry.controller_id, JournalEntry.seq, JournalEntry.content_hash)
        .join(Controller, Controller.id == JournalEntry.controller_id)
        .where(
            Controller.station_id == station_id,
            Controller.retired_at.is_not(None),
            JournalEntry.epoch == epoch,
            JournalEntry.seq.in_(sorted(perhaps)),
        )
    )
    holders: dict[tuple[int, bytes], uuid.UUID] = {
        (row.seq, row.content_hash): row.controller_id for row in rows
    }
    held: list[Told] = []
    by: set[uuid.UUID] = set()
    for told in events:
        holder = holders.get((told.seq, _hash(told.boot_id, told.body)))
        if holder is not None:
            held.append(told)
            by.add(holder)
    return held, sorted(by)


async def _insert(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    batch: Batch,
    events: Sequence[Told],
    *,
    at: datetime,
) -> dict[int, str]:
    """Insert what is new; gives the numbers that went in, with their event ids."""
    if not events:
        return {}
    rows = [_row(controller_id, batch, told, at) for told in events]
    entries = table_of(JournalEntry)  # For 500 rows the mapper's own work would be felt.
    insert = upsert(tx, entries).on_conflict_do_nothing()
    if len(rows) == 1:
        result = await tx.execute(insert.returning(entries.c.seq, entries.c.event_id), rows)
        return {row.seq: row.event_id for row in result}
    # To give rows back, many would have to be written into one long statement, at twice the cost.
    await tx.execute(insert, rows)
    ours = padded([row["id"] for row in rows])
    found = await tx.execute(
        sa.select(entries.c.seq, entries.c.event_id).where(entries.c.id.in_(ours))
    )
    return {row.seq: row.event_id for row in found}


def _row(controller_id: uuid.UUID, batch: Batch, told: Told, at: datetime) -> dict[str, Any]:
    happened = corrected(told.occurred_at, told.mono_ms, told.boot_id, batch.sending, told.noted)
    error = happened.error
    return {
        "id": new_id(),
        "controller_id": controller_id,
        "epoch": batch.epoch,
        "seq": told.seq,
        "event_id": told.event_id,
        "boot_id": told.boot_id,
        "type": told.type,
        "door_id": uuid.UUID(told.door) if told.door is not None else None,
        "occurred_at": told.occurred_at,
        "corrected_at": happened.at,
        "error_ms": None if error is None else round(error.total_seconds() * 1000),
        "quality": happened.quality,
        "late": is_late(happened, batch.sending.received_at),
        "received_at": at,
        "content_hash": _hash(told.boot_id, told.body),
        "body": storable(told.body),
        "applied_at": at if told.type in WITHOUT_EFFECT else None,
        "effect": None,
    }


def _hash(boot_id: str, body: Any) -> bytes:
    # A repetition after a reboot names the boot that the first sending left out.
    return content_hash({"boot_id": boot_id, "event": _without_boot(body)})


def _without_boot(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if name != "boot_id"}


async def _clashes(
    tx: AsyncSession, controller_id: uuid.UUID, epoch: int, events: Sequence[Told]
) -> set[int]:
    """Give those (by identity) whose number or id stands for something else already."""
    if not events:
        return set()
    rows = await tx.execute(
        sa.select(
            JournalEntry.epoch,
            JournalEntry.seq,
            JournalEntry.event_id,
            JournalEntry.content_hash,
        ).where(
            JournalEntry.controller_id == controller_id,
            sa.or_(
                sa.and_(
                    JournalEntry.epoch == epoch,
                    JournalEntry.seq.in_([told.seq for told in events]),
                ),
                JournalEntry.event_id.in_([told.event_id for told in events]),
            ),
        )
    )
    same = {(row.epoch, row.seq, row.event_id, row.content_hash) for row in rows}
    return {
        id(told.body)
        for told in events
        if (epoch, told.seq, told.event_id, _hash(told.boot_id, told.body)) not in same
    }


async def _told_otherwise(
    tx: AsyncSession, controller_id: uuid.UUID, epoch: int, events: Sequence[Told]
) -> bool:
    """Say whether a number that came in now stands in quarantine with another content."""
    hashes = {told.seq: _hash(told.boot_id, told.body) for told in events}
    rows = await tx.execute(
        sa.select(QuarantinedEvent.seq, QuarantinedEvent.content_hash).where(
            QuarantinedEvent.controller_id == controller_id,
            QuarantinedEvent.epoch == epoch,
            QuarantinedEvent.seq.in_(list(hashes)),
        )
    )
    return any(row.content_hash != hashes[row.seq] for row in rows)


async def _quarantine(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    station_id: uuid.UUID,
    batch: Batch,
    events: Sequence[Unusable],
    *,
    at: datetime,
) -> set[str]:
    """Keep what cannot be taken in, each once; gives the reasons of what was not kept before."""
    if not events:
        return set()
    rows = [
        {
            "id": new_id(),
            "controller_id": controller_id,
            "epoch": batch.epoch,
            "seq": item.seq,
            "event_id": item.event_id,
            "boot_id": item.boot_id,
            "reason": item.why.value,
            "received_at": at,
            "content_hash": _hash(item.boot_id, item.body),
            "body": {"event": storable(item.body)},
        }
        for item in events
    ]
    result = await tx.execute(
        upsert(tx, QuarantinedEvent).on_conflict_do_nothing().returning(QuarantinedEvent.reason),
        rows,
    )
    reasons = {reason for (reason,) in result}
    if reasons:
        evidence = Evidence(
            AlertKind.QUARANTINE,
            f"controller:{controller_id}",
            station_id,
            at,
            {"reasons": sorted(reasons)},
        )
        await book.note(tx, evidence, at=at)
    return reasons


async def _note_lost(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    station_id: uuid.UUID,
    batch: Batch,
    events: Sequence[Told],
    *,
    at: datetime,
) -> None:
    """Keep which numbers the device's memory lost; of those we miss the number is told exactly."""
    for told in events:
        first, last = told.body["first_seq"], told.body["last_seq"]
        gone = await not_held(tx, controller_id, batch.epoch, [Range(first, last)])
        statement = upsert(tx, JournalLoss).values(
            controller_id=controller_id,
            epoch=batch.epoch,
            first_seq=first,
            last_seq=last,
            received_at=at,
        )
        longer = statement.excluded.last_seq > JournalLoss.last_seq
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["controller_id", "epoch", "first_seq"],
                set_={"last_seq": statement.excluded.last_seq},
                where=longer,
            )
        )
        if not gone:
            continue  # The answer that we hold them never arrived there.
        evidence = Evidence(
            AlertKind.EVENTS_LOST,
            f"controller:{controller_id}",
            station_id,
            at,
            {
                "epoch": batch.epoch,
                "first_seq": gone[0].first,
                "last_seq": gone[-1].last,
                "events": how_many(gone),
                "reported": True,
            },
        )
        await book.note(tx, evidence, at=at)


async def _note_new_epoch(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    station_id: uuid.UUID,
    batch: Batch,
    *,
    at: datetime,
) -> None:
    """Say that the device lost its journal: how much of it we never had nobody knows."""
    detail = {"epoch": batch.epoch, "reported": True, "unknown": True}
    subject = f"controller:{controller_id}"
    evidence = Evidence(AlertKind.EVENTS_LOST, subject, station_id, at, detail)
    await book.note(tx, evidence, at=at)


async def _advance(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    epoch: int,
    numbers: Iterable[int],
    before: _Standing,
    *,
    earlier: Sequence[uuid.UUID],
    has_losses: bool,
    at: datetime,
) -> int:
    """Move the cursor; the caller holds the controller, so nobody else does.

    What is held under `earlier` enrolments of the same journal is held.
    """
    here = sorted(set(numbers))
    lost: list[Range] = []
    if has_losses:
        lost = await losses(tx, controller_id, epoch, above=before.acked_through)
    for enrolment in earlier:
        lost += await losses(tx, enrolment, epoch, above=before.acked_through)
    through = advanced(
        before.acked_through, [number for number in here if number > before.acked_through], lost
    )
    highest = max([before.highest, *here[-1:]])
    # Something stands beyond: perhaps this batch closed the gap.
    while highest > through or earlier:
        beyond: set[int] = set()
        for holder in (controller_id, *earlier):
            beyond.update(await held_above(tx, holder, epoch, above=through, limit=AHEAD))
        further = advanced(through, sorted(beyond), lost)
        if further == through:
            break
        through = further
    highest = max(highest, through)
    gap_at = before.gap_at
    if highest <= through:
        gap_at = None
    elif gap_at is None or through > before.acked_through:
        gap_at = at
    elif gap_at <= at - GAP_STAYS and _leaves_out(before.highest, here):
        gap_at = at  # The gap before was told; this is another one, with a wait of its own.
    moves = {"acked_through": through, "highest": highest, "gap_at": gap_at, "changed_at": at}
    await tx.execute(
        upsert(tx, JournalCursor)
        .values(controller_id=controller_id, epoch=epoch, **moves)
        .on_conflict_do_update(index_elements=["controller_id", "epoch"], set_=moves)
    )
    return through


def _leaves_out(highest: int, here: Sequence[int]) -> bool:
    """Say whether numbers beyond the highest leave any out."""
    return bool(gaps(highest, [number for number in here if number > highest], []))


async def _watch_clock(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    station_id: uuid.UUID,
    sending: Sending,
    before: _Standing,
    *,
    at: datetime,
) -> None:
    """Open or close the alert of a clock that runs off; the figures have a hysteresis."""
    if sending.sent_at is None:
        return
    subject = f"controller:{controller_id}"
    skew = sending.sent_at - sending.received_at
    opens = skew_alert(skew, is_open=False)
    if opens:
        detail = {"skew_s": round(skew.total_seconds(), 1)}
        evidence = Evidence(AlertKind.CLOCK_SKEW, subject, station_id, at, detail)
        await book.note(tx, evidence, at=at)
    elif before.clock_is_off and not skew_alert(skew, is_open=True):
        await book.settle(tx, AlertKind.CLOCK_SKEW, subject, at=at)


def _standing_query() -> Any:
    """Build the statement of every batch, once."""
    cursor, loss, alert = table_of(JournalCursor).c, table_of(JournalLoss).c, table_of(Alert).c
    controller = sa.bindparam("id", type_=sa.Uuid())
    epoch: Any = sa.bindparam("epoch", type_=sa.Integer())
    losses = sa.exists().where(loss.controller_id == controller, loss.epoch == epoch)
    bad = table_of(QuarantinedEvent).c
    quarantined = sa.exists().where(bad.controller_id == controller, bad.epoch == epoch)
    off = sa.exists().where(
        alert.kind == AlertKind.CLOCK_SKEW,
        alert.subject == sa.bindparam("subject"),
        alert.closed_at.is_(None),
    )
    every = table_of(JournalCursor).alias().c
    before, one_before = table_of(JournalCursor).alias().c, table_of(Controller).c
    highest_earlier = sa.select(sa.func.max(before.highest)).where(
        one_before.station_id == sa.bindparam("station", type_=sa.Uuid()),
        one_before.retired_at.is_not(None),
        before.controller_id == one_before.id,
        before.epoch == epoch,
    )
    newest = sa.select(sa.func.max(every.epoch)).where(every.controller_id == controller)
    one = sa.select(sa.literal(1)).subquery()  # A row also where there is no cursor yet.
    here = sa.and_(cursor.controller_id == controller, cursor.epoch == epoch)
    return sa.select(
        cursor.acked_through,
        cursor.highest,
        cursor.gap_at,
        losses.label("losses"),
        quarantined.label("quarantined"),
        off.label("off"),
        newest.scalar_subquery().label("newest_epoch"),
        highest_earlier.scalar_subquery().label("highest_earlier"),
    ).select_from(one.outerjoin(table_of(JournalCursor), here))


_STANDING = _standing_query()
