"""What goes wrong with doors by the passing of time: silence, and pulses that open nothing."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import NOT_OPENED_TIMES, NOT_OPENED_WITHIN, AlertKind
from app.alerts.tables import Alert
from app.doors.rules import OPENING_WINDOW
from app.doors.tables import Command, Controller, Door

SETTLED_AFTER = OPENING_WINDOW + timedelta(seconds=15)
"""By then the word of a contact should have come in."""


async def silence(tx: AsyncSession, *, after: timedelta, at: datetime) -> None:
    """Open an alert for every controller that fell silent, close those that are back."""
    quiet = await tx.execute(
        sa.select(Controller.id, Controller.station_id, Controller.seen_at).where(
            Controller.retired_at.is_(None), Controller.seen_at < at - after
        )
    )
    silent = {f"controller:{row.id}": row for row in quiet}
    rows = await tx.scalars(
        sa.select(Alert.subject).where(
            Alert.kind == AlertKind.CONTROLLER_SILENT, Alert.closed_at.is_(None)
        )
    )
    known = set(rows)
    for subject in known - silent.keys():
        await book.settle(tx, AlertKind.CONTROLLER_SILENT, subject, at=at)
    for subject in silent.keys() - known:
        row = silent[subject]
        evidence = Evidence(
            AlertKind.CONTROLLER_SILENT,
            subject,
            row.station_id,
            row.seen_at + after,
            {"seen_at": row.seen_at.isoformat()},
        )
        await book.note(tx, evidence, at=at)


async def not_opened(tx: AsyncSession, *, at: datetime) -> None:
    """Open an alert for a door whose relay pulsed three times in ten minutes and never opened."""
    rows = await tx.execute(
        sa.select(
            Command.door_id,
            Door.station_id,
            sa.func.count().label("times"),
            sa.func.max(Command.pulsed_at, type_=Command.pulsed_at.type).label("last_at"),
        )
        .join(Door, Door.id == Command.door_id)
        .where(
            Door.has_contact.is_(True),
            Command.pulsed_at > at - SETTLED_AFTER - NOT_OPENED_WITHIN,
            Command.pulsed_at <= at - SETTLED_AFTER,
        )
        .group_by(Command.door_id, Door.station_id)
        .having(
            sa.func.count() >= NOT_OPENED_TIMES,
            sa.func.count(Command.opened_at) == 0,
        )
    )
    for row in rows:
        subject = f"door:{row.door_id}"
        if await book.is_open(tx, AlertKind.NOT_OPENED, subject):
            continue
        evidence = Evidence(
            AlertKind.NOT_OPENED, subject, row.station_id, row.last_at, {"times": row.times}
        )
        await book.note(tx, evidence, at=at)
