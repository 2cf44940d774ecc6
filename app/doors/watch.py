"""What goes wrong with doors by the passing of time: silence, and commands that open nothing."""

import uuid
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import NOT_OPENED_TIMES, NOT_OPENED_WITHIN, STEADY_AGAIN, AlertKind
from app.doors.rules import OPENING_WINDOW, UNLOCK_SECONDS, CommandState
from app.doors.tables import Command, Controller, ControllerOutage, Door, in_state
from app.places.tables import Station

SETTLED_AFTER = timedelta(seconds=UNLOCK_SECONDS) + OPENING_WINDOW + timedelta(seconds=5)
"""By then a command is over, and the word of a contact should have come in."""


async def silence(tx: AsyncSession, *, after: timedelta, at: datetime) -> None:
    """Open an alert for every controller that fell silent, close those that are back for good.

    One that falls silent again before that adds to its open alert.
    """
    quiet = await tx.execute(
        sa.select(Controller.id, Controller.station_id, Controller.seen_at)
        .join(Station, Station.id == Controller.station_id)
        .where(
            Controller.retired_at.is_(None),
            Station.retired_at.is_(None),
            Controller.seen_at < at - after,
        )
    )
    silent = {f"controller:{row.id}": row for row in quiet}
    known = await book.open_ones(tx, AlertKind.CONTROLLER_SILENT)
    if gone := known.keys() - silent.keys():
        wavering = {
            f"controller:{controller_id}"
            for controller_id in await tx.scalars(
                sa.select(ControllerOutage.controller_id).where(
                    ControllerOutage.until_at > at - STEADY_AGAIN,
                    ControllerOutage.changed_at > at - STEADY_AGAIN,  # It has the index.
                )
            )
        }
        await book.settle_all(tx, AlertKind.CONTROLLER_SILENT, gone - wavering, at=at)
    fallen = [
        Evidence(
            AlertKind.CONTROLLER_SILENT,
            subject,
            row.station_id,
            row.seen_at + after,
            {"seen_at": row.seen_at.isoformat()},
        )
        for subject, row in silent.items()
    ]
    await book.note_all(tx, await book.untold(tx, fallen, known), at=at)


async def not_opened(tx: AsyncSession, *, at: datetime) -> None:
    """Open an alert for a door that was to open three times in ten minutes and never did.

    Counted since it last opened. While it goes on, the open alert hears of it.
    """
    kind = AlertKind.NOT_OPENED
    opened = await book.open_ones(tx, kind)
    found = [
        Evidence(kind, f"door:{row.door_id}", row.station_id, row.last_at, {"times": row.times})
        for row in await tx.execute(_in_vain(at))
    ]
    await book.note_all(tx, await book.untold(tx, found, opened), at=at)


def _in_vain(at: datetime) -> sa.Select[tuple[uuid.UUID, uuid.UUID, int, datetime]]:
    """Select the doors of which so many commands in a row opened nothing."""
    until = at - SETTLED_AFTER
    lately = (
        sa.select(Command.door_id, Command.created_at, _opened().label("opened"))
        .join_from(Controller, Command, Command.controller_id == Controller.id)
        .join(Door, Door.id == Command.door_id)
        .where(
            Command.created_at > until - NOT_OPENED_WITHIN,
            Command.created_at <= until,
            ~_forbidden(),
        )
        .cte("lately")
    )
    opened = (
        sa.select(lately.c.door_id, sa.func.max(lately.c.created_at).label("opened_at"))
        .where(lately.c.opened)
        .group_by(lately.c.door_id)
        .cte("opened")
    )
    times = sa.func.count()
    last_at = sa.func.max(lately.c.created_at, type_=lately.c.created_at.type)
    return (
        sa.select(lately.c.door_id, Door.station_id, times.label("times"), last_at.label("last_at"))
        .join(Door, Door.id == lately.c.door_id)
        .outerjoin(opened, opened.c.door_id == lately.c.door_id)
        .where(
            sa.or_(opened.c.opened_at.is_(None), lately.c.created_at > opened.c.opened_at),
        )
        .group_by(lately.c.door_id, Door.station_id)
        .having(times >= NOT_OPENED_TIMES)
    )


def _opened() -> sa.ColumnElement[bool]:
    """As far as anybody can know: at a door without a contact, the pulse is the last word."""
    pulsed = in_state(CommandState.EXECUTED)
    return sa.and_(pulsed, sa.or_(~Door.has_contact, Command.opened_at.is_not(None)))


def _forbidden() -> sa.ColumnElement[bool]:
    """A lockdown, an evacuation or a freeze refused it; a refusal of the device has its boot."""
    return sa.and_(in_state(CommandState.REFUSED), Command.boot_id.is_(None))
