"""How complete a journal is: which of its numbers are held, missing, or told to be lost."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import KEPT_CLOSED, AlertKind
from app.doors.rules.journal import Range, gaps
from app.doors.tables import (
    Controller,
    JournalCursor,
    JournalEntry,
    JournalLoss,
    QuarantinedEvent,
)

AHEAD = 2_000
"""How many numbers beyond a gap are looked at in one go."""

GAP_STAYS = timedelta(minutes=10)
"""A number that is missing for so long will hardly come any more."""


async def held_above(
    tx: AsyncSession, controller_id: uuid.UUID, epoch: int, *, above: int, limit: int
) -> list[int]:
    """Give the numbers that are held above one, in order: taken in or in quarantine."""
    held = [
        sa.select(kind.seq.label("seq")).where(
            kind.controller_id == controller_id, kind.epoch == epoch, kind.seq > above
        )
        for kind in (JournalEntry, QuarantinedEvent)
    ]
    every = sa.union(*held).subquery()
    found = await tx.scalars(sa.select(every.c.seq).order_by(every.c.seq).limit(limit))
    return list(found)


async def losses(
    tx: AsyncSession, controller_id: uuid.UUID, epoch: int, *, above: int = 0
) -> list[Range]:
    """Give what the device reported lost, beyond a number."""
    rows = await tx.execute(
        sa.select(JournalLoss.first_seq, JournalLoss.last_seq)
        .where(
            JournalLoss.controller_id == controller_id,
            JournalLoss.epoch == epoch,
            JournalLoss.last_seq > above,
        )
        .order_by(JournalLoss.first_seq)
    )
    return [Range(row.first_seq, row.last_seq) for row in rows]


async def not_held(
    tx: AsyncSession, controller_id: uuid.UUID, epoch: int, ranges: Sequence[Range]
) -> list[Range]:
    """Give what is missing of some ranges, which are in order and may overlap.

    A device that never got our answer reports as lost what we hold.
    """
    found: list[Range] = []
    through = 0
    for one in ranges:
        through = max(through, one.first - 1)
        while through < one.last:
            held = await held_above(tx, controller_id, epoch, above=through, limit=AHEAD)
            if len(held) < AHEAD or held[-1] > one.last:
                held = [number for number in held if number <= one.last] + [one.last + 1]
            found += gaps(through, held, [])
            through = min(held[-1], one.last)
    return found


def how_many(ranges: Iterable[Range]) -> int:
    """Count the numbers of ranges that do not overlap."""
    return sum(one.last - one.first + 1 for one in ranges)


@dataclass(frozen=True, slots=True)
class JournalState:
    """How complete a controller's journal of one epoch is."""

    epoch: int
    acked_through: int
    highest: int
    gaps: Sequence[Range]
    """Numbers nobody has told us of."""
    lost: Sequence[Range]
    """Numbers the device reported lost, and that we do not hold."""
    quarantined: int


async def states(tx: AsyncSession, controller_id: uuid.UUID) -> list[JournalState]:
    """Say how complete a controller's journal is, epoch by epoch, newest first."""
    cursors = await tx.scalars(
        sa.select(JournalCursor)
        .where(JournalCursor.controller_id == controller_id)
        .order_by(JournalCursor.epoch.desc())
    )
    return [await _state(tx, cursor) for cursor in cursors]


async def _state(tx: AsyncSession, cursor: JournalCursor) -> JournalState:
    controller_id, epoch = cursor.controller_id, cursor.epoch
    beyond: list[int] = []
    above = cursor.acked_through
    while cursor.highest > above:
        part = await held_above(tx, controller_id, epoch, above=above, limit=AHEAD)
        if not part:
            break
        beyond += part
        above = part[-1]
    lost = await losses(tx, controller_id, epoch)
    quarantined = await tx.scalar(
        sa.select(sa.func.count()).where(
            QuarantinedEvent.controller_id == controller_id, QuarantinedEvent.epoch == epoch
        )
    )
    return JournalState(
        epoch=epoch,
        acked_through=cursor.acked_through,
        highest=cursor.highest,
        gaps=gaps(cursor.acked_through, beyond, lost),
        lost=await not_held(tx, controller_id, epoch, lost),
        quarantined=quarantined or 0,
    )


async def watch_gaps(tx: AsyncSession, *, at: datetime) -> None:
    """Open an alert for numbers that stay missing, and of which the device says nothing.

    Batches come in any order, so a gap is given a while to close. Each is told once, and one of
    which the alert may be gone by now was.
    """
    found = (
        await tx.execute(
            sa.select(JournalCursor, Controller.station_id)
            .join(Controller, Controller.id == JournalCursor.controller_id)
            .where(
                JournalCursor.gap_at <= at - GAP_STAYS,
                JournalCursor.gap_at > at - KEPT_CLOSED,
                Controller.retired_at.is_(None),
            )
        )
    ).all()
    if not found:
        return
    subjects = [_subject(row.JournalCursor) for row in found]
    oldest = min(row.JournalCursor.gap_at for row in found)
    before = await book.told(tx, AlertKind.EVENTS_LOST, subjects, since=oldest)
    for subject, (cursor, station_id) in zip(subjects, found, strict=True):
        since = cursor.gap_at
        assert since is not None
        if subject in before and before[subject] >= since:
            continue
        missing = (await _state(tx, cursor)).gaps
        if not missing:
            continue  # It closed between the two looks.
        detail = {
            "epoch": cursor.epoch,
            "first_seq": missing[0].first,
            "last_seq": missing[-1].last,
            "events": how_many(missing),
            "reported": False,
        }
        evidence = Evidence(AlertKind.EVENTS_LOST, subject, station_id, since, detail)
        await book.note(tx, evidence, at=at)


def _subject(cursor: JournalCursor) -> str:
    """Name a gap of its own: what a device reports lost is told at once, and would hide it."""
    return f"controller:{cursor.controller_id}/epoch:{cursor.epoch}"
