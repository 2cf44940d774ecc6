"""A scan as its worker sees it, at any time after it was decided."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.clock import DeadlineClock
from app.doors.rules import (
    OPENING_WINDOW,
    Outcome,
    Reason,
    ScanState,
    is_final,
    state_now,
)
from app.doors.tables import Command, Door, Scan
from app.errors import NotFound
from app.places.rules import (
    Because,
    Kind,
    Mode,
)
from app.places.tables import Station

CONTACT_TOLD = timedelta(seconds=3)
"""How long the word of a contact may take to come in, after the time in which it counts."""


class ScanNotFound(NotFound):
    """You have no such scan."""


@dataclass(frozen=True, slots=True)
class Named:
    """A station as a scan shows it."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class DoorNamed:
    """A door as a scan shows it."""

    id: uuid.UUID
    name: str
    has_contact: bool
    """Whether somebody knows when it opens; else `executed` is the last that is known."""
    takes_passes: bool
    """Whether a pass opens it while its controller is alone."""


@dataclass(frozen=True, slots=True)
class ScanView:
    """A scan as its worker sees it."""

    id: uuid.UUID
    outcome: Outcome
    reason: Reason
    station: Named | None
    door: DoorNamed | None
    mode: Mode | None
    timezone: str | None
    state: ScanState
    expires_at: datetime | None
    visit_id: uuid.UUID | None
    replayed: bool
    near: tuple[float, float] | None
    """Where to look for other stations, latitude and longitude."""
    station_id: uuid.UUID | None
    left_s: float
    """Seconds until its state may change by the passing of time alone; 0: it will not."""
    final: bool
    """Whether nothing more will come; at a door with a contact, its word is waited for."""


async def view(
    tx: AsyncSession,
    clock: DeadlineClock,
    scan_id: uuid.UUID,
    owner_key: bytes,
    *,
    replayed: bool = False,
) -> ScanView:
    """Read one scan of this worker as of now; raises ScanNotFound."""
    row = (
        await tx.execute(_view_query(clock), {"scan": scan_id, "owner": owner_key})
    ).one_or_none()
    if row is None:
        raise ScanNotFound
    found: Scan = row.Scan
    state = ScanState.NONE
    if row.state is not None:
        state = ScanState(state_now(row.state, live=bool(row.live)).value)
    if row.opened_at is not None:
        state = ScanState.OPENED
    contact_until = None
    if state is ScanState.EXECUTED and row.has_contact:
        contact_until = row.pulsed_at + OPENING_WINDOW + CONTACT_TOLD
    until = contact_until or found.expires_at
    mode = None
    if found.mode is not None and found.because is not None:
        mode = Mode(
            Kind(found.mode), Because(found.because), found.mode_until, bool(found.calendar_known)
        )
    return ScanView(
        id=found.id,
        outcome=found.outcome,
        reason=found.reason,
        station=Named(row.code, row.station_name) if row.code is not None else None,
        door=DoorNamed(found.door_id, row.door_name, row.has_contact, row.offline_hours is not None)
        if found.door_id is not None
        else None,
        mode=mode,
        timezone=row.timezone,
        state=state,
        expires_at=found.expires_at,
        visit_id=found.visit_id,
        replayed=replayed,
        near=(row.latitude, row.longitude) if row.latitude is not None else None,
        station_id=found.station_id,
        left_s=max(0.0, (until - row.clock_now).total_seconds()) if until else 0.0,
        final=is_final(state) and not (contact_until and row.clock_now < contact_until),
    )


@lru_cache(maxsize=4)
def _view_query(clock: DeadlineClock) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(
            Scan,
            Station.code,
            Station.name.label("station_name"),
            Station.timezone,
            Station.latitude,
            Station.longitude,
            Station.offline_hours,
            Door.name.label("door_name"),
            Door.has_contact,
            Command.state,
            Command.pulsed_at,
            Command.opened_at,
            clock.live(Command.expires_at, Command.expires_mono).label("live"),
            clock.now().label("clock_now"),
        )
        .outerjoin(Station, Station.id == Scan.station_id)
        .outerjoin(Door, Door.id == Scan.door_id)
        .outerjoin(Command, Command.scan_id == Scan.id)
        .where(
            Scan.id == sa.bindparam("scan", type_=sa.Uuid()),
            Scan.owner_key == sa.bindparam("owner", type_=sa.LargeBinary()),
        )
    )
