"""What a door's contact says: when it stood open. Read from the journal, never kept beside it."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import OPENING_WINDOW
from app.doors.rules.journal import EventType, OpenInterval
from app.doors.tables import JournalEntry

REACH = timedelta(hours=1)
"""How far around an instant openings are read, besides what stood before."""


async def intervals(
    tx: AsyncSession, door_id: uuid.UUID, *, around: datetime
) -> Sequence[OpenInterval]:
    """Give the times around an instant in which the contact said open, oldest first.

    An opening without a closing ends at the next opening: something was missed in between.
    """
    contact = (EventType.DOOR_OPENED, EventType.DOOR_CLOSED)
    here = sa.and_(JournalEntry.door_id == door_id, JournalEntry.type.in_(contact))
    order = (JournalEntry.corrected_at, JournalEntry.epoch, JournalEntry.seq)
    columns = sa.select(JournalEntry.type, JournalEntry.corrected_at).where(here)
    before = (
        await tx.execute(
            columns.where(JournalEntry.corrected_at < around - REACH)
            .order_by(*(column.desc() for column in order))
            .limit(1)
        )
    ).all()
    near = (
        await tx.execute(
            columns.where(
                JournalEntry.corrected_at.between(around - REACH, around + OPENING_WINDOW + REACH)
            ).order_by(*order)
        )
    ).all()
    return _paired([(row.type, row.corrected_at) for row in (*before, *near)])


async def closed_since(tx: AsyncSession, entry: JournalEntry) -> bool:
    """Whether the door of an event was closed after it, as far as anybody told us."""
    numbers = sa.tuple_(JournalEntry.epoch, JournalEntry.seq)
    closed = sa.exists().where(
        JournalEntry.door_id == entry.door_id,
        JournalEntry.type == EventType.DOOR_CLOSED,
        sa.or_(
            JournalEntry.corrected_at > entry.corrected_at,
            sa.and_(
                JournalEntry.corrected_at == entry.corrected_at,
                numbers > sa.tuple_(entry.epoch, entry.seq),
            ),
        ),
    )
    return bool(await tx.scalar(sa.select(closed)))


def _paired(events: Sequence[tuple[EventType, datetime]]) -> list[OpenInterval]:
    found: list[OpenInterval] = []
    since: datetime | None = None
    for kind, at in events:
        if since is not None:
            found.append(OpenInterval(since, at))
        since = at if kind is EventType.DOOR_OPENED else None
    if since is not None:
        found.append(OpenInterval(since, None))
    return found
