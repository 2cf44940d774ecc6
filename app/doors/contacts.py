"""What a door's contact says: when it stood open. Read from the journal, never kept beside it."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import OPENING_WINDOW
from app.doors.rules.journal import EventType, OpenInterval
from app.doors.tables import JournalEntry

REACH = timedelta(hours=1)
"""How far around an instant openings are read, besides what stood before."""

AT_START = JournalEntry.body["at_start"].as_boolean().label("at_start")
"""Whether a controller that started found the door so: it may have moved at any time before."""

DATED = JournalEntry.error_ms.is_not(None)
"""Events whose time is known; of any other nobody can say what it was before or after."""


def comparable(entry: JournalEntry) -> sa.ColumnElement[bool]:
    """Select the events that can be said to come before or after one, by their times.

    One of an unknown time stands beside those of its boot alone, whose times are off by as much.
    """
    if entry.error_ms is not None:
        return DATED
    return sa.and_(
        ~DATED,
        JournalEntry.controller_id == entry.controller_id,
        JournalEntry.boot_id == entry.boot_id,
    )


async def intervals(
    tx: AsyncSession,
    door_id: uuid.UUID,
    *,
    around: datetime,
    among: sa.ColumnElement[bool] = DATED,
) -> Sequence[OpenInterval]:
    """Give the times around an instant in which the contact said open, oldest first.

    An opening without a closing ends at the next opening: something was missed in between.
    """
    contact = (EventType.DOOR_OPENED, EventType.DOOR_CLOSED)
    here = sa.and_(JournalEntry.door_id == door_id, JournalEntry.type.in_(contact), among)
    order = (JournalEntry.corrected_at, JournalEntry.epoch, JournalEntry.seq)
    columns = sa.select(JournalEntry.type, JournalEntry.corrected_at, AT_START).where(here)
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
    return _paired([(row.type, row.corrected_at, row.at_start) for row in (*before, *near)])


async def said_since(tx: AsyncSession, entry: JournalEntry, type: EventType) -> bool:
    """Whether something was said of the door of an event after it, as far as anybody told us.

    What one controller said has an order whatever its clocks did: that of its numbers.
    """
    here = sa.and_(JournalEntry.door_id == entry.door_id, JournalEntry.type == type)
    ours = JournalEntry.controller_id == entry.controller_id
    numbers = sa.tuple_(JournalEntry.epoch, JournalEntry.seq)
    # Two questions: each has an index of its own.
    by_us = sa.exists().where(here, ours, numbers > sa.tuple_(entry.epoch, entry.seq))
    by_others = sa.exists().where(here, ~ours, JournalEntry.corrected_at > entry.corrected_at)
    return bool(await tx.scalar(sa.select(sa.or_(by_us, by_others))))


def _paired(events: Sequence[tuple[EventType, datetime, bool | None]]) -> list[OpenInterval]:
    found: list[OpenInterval] = []
    opening: OpenInterval | None = None
    for kind, at, at_start in events:
        if opening is not None:
            found.append(replace(opening, closed_at=at))
        is_open = kind is EventType.DOOR_OPENED
        opening = OpenInterval(at, None, found_open=at_start is True) if is_open else None
    if opening is not None:
        found.append(opening)
    return found
