"""The doors of a station: add, amend, retire, and revoke their posters."""

import secrets
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.rules import AlertKind
from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.db.wakeups import LocalWakeups
from app.doors.tables import Controller, Door
from app.doors.tokens import SigningKey, sign_poster
from app.errors import NotFound
from app.places import stations
from app.places.tables import Station, Unit
from app.places.transfer import DoorRow, NewStation
from app.visits import presence

DEFAULT_PULSE_MS = 3000
MAX_GRACE = timedelta(days=14)
"""How long an old generation of posters may still open while new ones are printed."""

OF_A_CONTACT = (AlertKind.DOOR_HELD, AlertKind.DOOR_FORCED)
OF_A_DOOR = (*OF_A_CONTACT, AlertKind.TAMPER)
"""Alerts that are over with their door: nothing else may ever end them."""

OF_A_BOX = (AlertKind.CLONE, AlertKind.CLOCK_SKEW)
"""Alerts that are over with their controller, and with its station."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_NUMBER_LENGTH = 8


class DoorNotFound(NotFound):
    """There is no such door."""


@dataclass(frozen=True, slots=True)
class NewDoor:
    """A door to register."""

    name: str
    has_display: bool = False
    has_contact: bool = False
    pulse_ms: int = DEFAULT_PULSE_MS
    poster_fallback: bool = True


async def add_doors(
    tx: AsyncSession, station_id: uuid.UUID, doors: Sequence[NewDoor], *, at: datetime
) -> Sequence[Door]:
    """Register doors of a station; the caller records the act and tells the controller."""
    rows = [
        Door(
            id=new_id(),
            number="".join(secrets.choice(_ALPHABET) for _ in range(_NUMBER_LENGTH)),
            station_id=station_id,
            name=door.name,
            has_display=door.has_display,
            has_contact=door.has_contact,
            generation=1,
            pulse_ms=door.pulse_ms,
            poster_fallback=door.poster_fallback,
            created_at=at,
            changed_at=at,
        )
        for door in doors
    ]
    tx.add_all(rows)
    await tx.flush()
    return rows


async def furnish(tx: AsyncSession, imported: Sequence[NewStation], *, at: datetime) -> None:
    """Give imported stations their presence rows and doors."""
    await presence.prepare(tx, [new.station_id for new in imported])
    for new in imported:
        doors = [NewDoor(door.name, door.has_display, door.has_contact) for door in new.doors]
        await add_doors(tx, new.station_id, doors, at=at)


async def doors_of(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, Sequence[Door]]:
    """Give the doors in use of several stations, in the order in which they were added."""
    found: dict[uuid.UUID, list[Door]] = {station_id: [] for station_id in station_ids}
    rows = await tx.scalars(
        sa.select(Door)
        .where(Door.station_id.in_(station_ids), Door.retired_at.is_(None))
        .order_by(Door.id)
    )
    for door in rows:
        found[door.station_id].append(door)
    return found


async def describe_doors(
    tx: AsyncSession, *, within: sa.Select[uuid.UUID] | None = None
) -> Mapping[uuid.UUID, Sequence[DoorRow]]:
    """Give the doors in use of many stations, for an export."""
    query = (
        sa.select(Door.station_id, Door.name, Door.has_display, Door.has_contact)
        .where(Door.retired_at.is_(None))
        .order_by(Door.id)
    )
    if within is not None:
        query = query.where(Door.station_id.in_(within))
    found: dict[uuid.UUID, list[DoorRow]] = {}
    for row in await tx.execute(query):
        door = DoorRow(row.name, row.has_display, row.has_contact)
        found.setdefault(row.station_id, []).append(door)
    return found


@dataclass(frozen=True, slots=True)
class Located:
    """A door with its station."""

    door: Door
    station: Station
    unit_path: str

    @property
    def subject(self) -> Subject:
        """The door as the audit trail names it."""
        return Subject("door", self.door.id, unit_path=self.unit_path, station_id=self.station.id)


async def get_door(
    tx: AsyncSession, door_id: uuid.UUID, *, within: sa.Select[uuid.UUID]
) -> Located:
    """Find a door at one of the stations `within`; raises DoorNotFound."""
    row = (
        await tx.execute(
            sa.select(Door, Station, Unit.path)
            .join(Station, Station.id == Door.station_id)
            .join(Unit, Unit.id == Station.unit_id)
            .where(Door.id == door_id, Door.station_id.in_(within))
        )
    ).one_or_none()
    if row is None:
        raise DoorNotFound
    return Located(row.Door, row.Station, row.path)


async def find_by_number(tx: AsyncSession, number: str) -> Located | None:
    """Find a door in use by the `d` of its poster."""
    row = (
        await tx.execute(
            sa.select(Door, Station, Unit.path)
            .join(Station, Station.id == Door.station_id)
            .join(Unit, Unit.id == Station.unit_id)
            .where(
                Door.number == number,
                Door.retired_at.is_(None),
                Station.retired_at.is_(None),
            )
        )
    ).one_or_none()
    return Located(row.Door, row.Station, row.path) if row else None


async def amend(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    located: Located,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Door:
    """Change a door's name, screen, contact or pulse."""
    door = located.door
    before = {name: getattr(door, name) for name in changes}
    for name, value in changes.items():
        setattr(door, name, value)
    door.changed_at = at
    await record(
        tx, actor, Action.DOOR_AMENDED, located.subject, at=at, before=before, after=dict(changes)
    )
    if changes.get("has_contact") is False:  # Nobody tells any more that it is over.
        await _settle(tx, OF_A_CONTACT, [f"door:{door.id}"], at=at)
    await stations.bump(tx, wakeups, door.station_id)
    return door


async def retire(
    tx: AsyncSession, wakeups: LocalWakeups, located: Located, *, actor: Actor, at: datetime
) -> Door:
    """Take a door out of use; retiring it again changes nothing."""
    if located.door.retired_at is None:
        located.door.retired_at = at
        located.door.changed_at = at
        await record(tx, actor, Action.DOOR_RETIRED, located.subject, at=at)
        await _settle(tx, OF_A_DOOR, [f"door:{located.door.id}"], at=at)
        await stations.bump(tx, wakeups, located.door.station_id)
    return located.door


async def settle_alerts(tx: AsyncSession, station_id: uuid.UUID, *, at: datetime) -> None:
    """Close what was wrong at a station that is taken out of use, with its doors and its boxes."""
    doors = await tx.scalars(sa.select(Door.id).where(Door.station_id == station_id))
    boxes = await tx.scalars(sa.select(Controller.id).where(Controller.station_id == station_id))
    subjects = [*(f"door:{id}" for id in doors), *(f"controller:{id}" for id in boxes)]
    await _settle(tx, (*OF_A_DOOR, *OF_A_BOX), subjects, at=at)


async def _settle(
    tx: AsyncSession, kinds: Iterable[AlertKind], subjects: Collection[str], *, at: datetime
) -> None:
    for kind in kinds:
        await book.settle_all(tx, kind, subjects, at=at)


async def revoke_posters(
    tx: AsyncSession,
    located: Located,
    *,
    grace: timedelta,
    actor: Actor,
    at: datetime,
) -> Door:
    """Begin a new generation of posters; the one before opens until the grace is over."""
    result = await tx.execute(
        sa.update(Door)
        .where(Door.id == located.door.id)
        .values(
            generation=Door.generation + 1,
            grace_until=at + grace if grace else None,
            changed_at=at,
        )
        .returning(Door)
        .execution_options(populate_existing=True)
    )
    door: Door = result.scalar_one()
    await record(
        tx,
        actor,
        Action.POSTERS_REVOKED,
        located.subject,
        at=at,
        after={"generation": door.generation, "grace_s": int(grace.total_seconds())},
    )
    return door


def poster_token(key: SigningKey, door: Door) -> str:
    """Sign the poster of a door's present generation."""
    return sign_poster(key, door=door.number, generation=door.generation)
