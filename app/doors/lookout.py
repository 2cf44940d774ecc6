"""What a poll sees: that a command exists, and the version of the config (law 3).

It never tells how to open a door: for that the controller claims the command.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.clock import DeadlineClock
from app.db.engine import Database
from app.db.gathered import Gathered, padded
from app.db.types import table_of
from app.doors import clones
from app.doors.rules import CommandState
from app.doors.rules.config import ServerTerms, config_version
from app.doors.tables import Command, CommandKind, Controller, in_state
from app.places.tables import Station


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command that a controller may claim."""

    id: uuid.UUID
    kind: CommandKind
    door: uuid.UUID


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a poll sees."""

    config_version: str
    commands: list[PendingCommand]
    last_boot: str | None = None
    """Which boot of the controller spoke last, as far as it is written down."""


def lookout(
    database: Database, clock: DeadlineClock, now: Now, terms: ServerTerms
) -> Gathered[uuid.UUID, Outlook]:
    """Make what reads for the polls of thousands; it finds nothing for who was retired."""

    async def read(controllers: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Outlook]:
        async with database.read() as tx:
            return await outlooks(tx, controllers, clock=clock, terms=terms, at=now())

    return Gathered(read)


async def outlooks(
    tx: AsyncSession,
    controllers: Sequence[uuid.UUID],
    *,
    clock: DeadlineClock,
    terms: ServerTerms,
    at: datetime,
) -> dict[uuid.UUID, Outlook]:
    """Say in one read what the polls of these controllers see; nothing of those that retired."""
    rows = await tx.execute(_outlook_query(clock), {"controllers": padded(controllers)})
    found: dict[uuid.UUID, Outlook] = {}
    for row in rows:
        seen = found.get(row.controller)
        if seen is None:
            version = config_version(row.station_id, row.config_version, row.timezone, terms, at)
            seen = found[row.controller] = Outlook(version, [], clones.last_of(row.boots))
        if row.id is not None:
            seen.commands.append(PendingCommand(row.id, row.kind, row.door_id))
    return found


@lru_cache(maxsize=4)
def _outlook_query(clock: DeadlineClock) -> Any:
    """Build the statement of every poll, once."""
    station, controller, command = table_of(Station), table_of(Controller), table_of(Command)
    return (
        sa.select(
            controller.c.id.label("controller"),
            controller.c.boots,
            controller.c.station_id,
            station.c.config_version,
            station.c.timezone,
            command.c.id,
            command.c.kind,
            command.c.door_id,
        )
        .select_from(controller)
        .join(station, station.c.id == controller.c.station_id)
        .outerjoin(
            command,
            sa.and_(
                command.c.controller_id == controller.c.id,
                controller.c.frozen_at.is_(None),
                in_state(CommandState.PENDING),
                clock.live(command.c.expires_at, command.c.expires_mono),
            ),
        )
        .where(
            controller.c.id.in_(sa.bindparam("controllers", type_=sa.Uuid(), expanding=True)),
            controller.c.retired_at.is_(None),
        )
        .order_by(command.c.id)
    )


async def controllers_with_work(tx: AsyncSession, *, clock: DeadlineClock) -> Sequence[uuid.UUID]:
    """Give the controllers that have something to claim: one look per process and second."""
    found = await tx.scalars(
        sa.select(Command.controller_id)
        .where(
            in_state(CommandState.PENDING),
            clock.live(Command.expires_at, Command.expires_mono),
        )
        .distinct()
    )
    return found.all()
