"""Opening a door from afar: an administrator's unlock, under the same command rules, audited."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, record
from app.doors import commands
from app.doors.registry import Located
from app.doors.rules import UNLOCK_SECONDS
from app.doors.scans import ScanDesk
from app.doors.tables import Command, Controller
from app.errors import Conflict
from app.places.rules import Because, Kind, mode_now
from app.places.standing import list_changes, station_rules


class ControllerSilent(Conflict):
    """The door's controller is offline; it cannot be opened from afar now."""


class ControllerFrozen(Conflict):
    """The door's controller is frozen, since it may be a copy; let it work again first."""


class DoorOutOfUse(Conflict):
    """This door is retired."""


class EmergencyHolds(Conflict):
    """A lockdown or an evacuation holds at this station."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants the door open, and why."""

    actor: Actor
    reason: str
    read_at: float
    """The monotonic instant at which the request had been read."""


async def unlock(
    tx: AsyncSession, desk: ScanDesk, located: Located, request: Request, *, at: datetime
) -> Command:
    """Queue one pulse; raises a Conflict where that cannot be."""
    door, station = located.door, located.station
    if door.retired_at is not None or station.retired_at is not None:
        raise DoorOutOfUse
    changes = await list_changes(tx, [station.id], at=at)
    rules = station_rules(station, changes.get(station.id, ()))
    mode = mode_now(rules, desk.calendar.current, at)
    if mode.because is Because.EMERGENCY or mode.kind is Kind.EVACUATION:
        raise EmergencyHolds
    row = (
        await tx.execute(
            sa.select(
                Controller.id,
                Controller.seen_at,
                Controller.frozen_at,
                desk.clock.now().label("clock_now"),
            ).where(Controller.station_id == station.id, Controller.retired_at.is_(None))
        )
    ).one_or_none()
    if row is not None and row.frozen_at is not None:
        raise ControllerFrozen
    if row is None or not desk.controllers.is_heard(row.id, row.seen_at, at=at):
        raise ControllerSilent
    deadline = desk.clock.deadline(row.clock_now, since=request.read_at, seconds=UNLOCK_SECONDS)
    order = commands.Order(
        station_id=station.id,
        door_id=door.id,
        controller_id=row.id,
        admin_id=request.actor.admin_id,
    )
    command_id = await commands.queue(tx, desk.wakeups, order, deadline=deadline, at=at)
    after = {"reason": request.reason, "command": str(command_id)}
    await record(tx, request.actor, Action.DOOR_UNLOCKED, located.subject, at=at, after=after)
    return await tx.get_one(Command, command_id)
