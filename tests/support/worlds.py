"""Builders: a unit, a station, a door, a controller, a worker; each with sensible defaults."""

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.types import new_id
from app.doors.registry import NewDoor, add_doors, poster_token
from app.doors.tables import Controller, Door, ListeningSpell
from app.doors.tokens import TokenKind
from app.people.rules import Role, owner_key
from app.people.secrets import hash_of
from app.people.tables import (
    Admin,
    AdminSession,
    Consent,
    Occupation,
    Worker,
    WorkerSession,
)
from app.places.rules import grid_cell
from app.places.spells import first_of
from app.places.tables import (
    Facility,
    FacilityKind,
    FacilitySpell,
    FacilityStatus,
    OperatingModel,
    Station,
    Unit,
    UnitKind,
)
from app.runtime import Runtime
from app.visits.tables import StationPresence

_CODES = count(10_000_000)
"""Of stations whose code does not matter: of thousands of random ones two are alike at times."""

DAY_AND_NIGHT: dict[str, Any] = {
    "regular": [{"weekday": day, "opens": "00:00", "closes": "24:00"} for day in range(1, 8)],
    "public_holiday": None,
    "makeup_workday": None,
}
"""Access at any hour."""

OFFICE_HOURS: dict[str, Any] = {
    "regular": [{"weekday": day, "opens": "08:00", "closes": "18:00"} for day in range(1, 8)],
    "public_holiday": None,
    "makeup_workday": None,
}
"""Staffed from eight to six, every day."""


def always(at: datetime) -> Now:
    """Read a clock that stands."""
    return lambda: at


async def a_unit(
    tx: AsyncSession, *, parent: Unit | None = None, at: datetime, name: str = "市总工会"
) -> Unit:
    """Add a unit below `parent`, or a root."""
    number = 1 + (
        await tx.scalar(
            sa.select(sa.func.count()).where(
                Unit.parent_id == parent.id if parent else Unit.parent_id.is_(None)
            )
        )
        or 0
    )
    unit = Unit(
        id=new_id(),
        name=name,
        kind=UnitKind.DISTRICT if parent else UnitKind.CITY,
        parent_id=parent.id if parent else None,
        number=number,
        path=f"{parent.path}.{number}" if parent else str(number),
        created_at=at,
        changed_at=at,
    )
    tx.add(unit)
    await tx.flush()
    return unit


async def a_station(
    tx: AsyncSession, *, unit: Unit | None = None, at: datetime, **changes: Any
) -> Station:
    """Add a station that is staffed in office hours and opens by scan at any other time."""
    unit = unit or await a_unit(tx, at=at)
    values: dict[str, Any] = {
        "id": new_id(),
        "code": f"CQ{next(_CODES):08d}",
        "name": "解放碑驿站",
        "unit_id": unit.id,
        "address": "渝中区民族路 1 号",
        "latitude": 29.5583,
        "longitude": 106.5772,
        "capacity": 20,
        "operating_model": OperatingModel.UNION_BUILT,
        "timezone": "Asia/Shanghai",
        "staffed_hours": OFFICE_HOURS,
        "access_hours": DAY_AND_NIGHT,
        "max_stay_min": 60,
        "confirm_tap": False,
        "config_version": 1,
        "created_at": at,
        "changed_at": at,
    } | changes
    station = Station(cell=grid_cell(values["latitude"], values["longitude"]), **values)
    tx.add(station)
    await tx.flush()
    tx.add(StationPresence(station_id=station.id))
    await tx.flush()
    return station


async def a_door(tx: AsyncSession, station: Station, *, at: datetime, name: str = "正门") -> Door:
    """Add a door."""
    (door,) = await add_doors(tx, station.id, [NewDoor(name)], at=at)
    return door


async def a_controller(
    tx: AsyncSession, station: Station, *, at: datetime
) -> tuple[uuid.UUID, str]:
    """Enrol a controller that was heard just now; give its id and credential."""
    credential = secrets.token_urlsafe(32)
    controller = Controller(
        id=new_id(),
        station_id=station.id,
        serial="test",
        firmware="test",
        credential_hash=hash_of(credential),
        credential_at=at,
        credential_used=True,
        enrolled_at=at,
        seen_at=at,
        changed_at=at,
    )
    tx.add(controller)
    await tx.flush()
    return controller.id, credential


async def a_listener(held: Runtime) -> None:
    """Let some process have been there to hear since yesterday, and until tomorrow."""
    day = timedelta(days=1)
    async with held.database.write() as tx:
        tx.add(ListeningSpell(from_at=held.now() - day, until_at=held.now() + day))


@dataclass(frozen=True, slots=True)
class SomeWorker:
    """A signed-in worker."""

    id: uuid.UUID
    token: str
    owner_key: bytes

    @property
    def headers(self) -> dict[str, str]:
        """What his phone sends."""
        return {"Authorization": f"Bearer {self.token}"}


async def a_worker(
    tx: AsyncSession,
    held: Runtime,
    *,
    at: datetime,
    consented: bool = True,
    blocked: bool = False,
    occupation: Occupation = Occupation.RIDER,
) -> SomeWorker:
    """Add a worker with a session."""
    worker = Worker(
        id=new_id(),
        number=secrets.randbits(32),
        phone_index=secrets.token_bytes(32),
        occupation=occupation,
        listed=False,
        blocked_at=at if blocked else None,
        created_at=at,
        changed_at=at,
    )
    tx.add(worker)
    await tx.flush()
    if consented:
        consent = Consent(
            id=new_id(), worker_id=worker.id, version="2026-11", channel="phone_page", given_at=at
        )
        tx.add(consent)
        await tx.flush()
        worker.consent_id = consent.id
    token = secrets.token_urlsafe(32)
    tx.add(
        WorkerSession(
            token_hash=hash_of(token),
            worker_id=worker.id,
            created_at=at,
            expires_at=at + timedelta(days=30),
        )
    )
    await tx.flush()
    return SomeWorker(worker.id, token, owner_key(held.vault.key("owner"), worker.id))


@dataclass(frozen=True, slots=True)
class SomeAdmin:
    """A signed-in administrator."""

    id: uuid.UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What his client sends."""
        return {"Authorization": f"Bearer {self.token}"}


async def an_admin(
    tx: AsyncSession,
    *,
    at: datetime,
    role: Role = Role.CITY_ADMIN,
    unit: Unit | None = None,
    station: Station | None = None,
) -> SomeAdmin:
    """Add an administrator with a session; the password hash opens nothing."""
    admin = Admin(
        id=new_id(),
        username=f"admin-{secrets.token_hex(4)}",
        password_hash="!",
        role=role,
        unit_id=unit.id if unit else None,
        station_id=station.id if station else None,
        created_at=at,
        changed_at=at,
    )
    tx.add(admin)
    await tx.flush()
    token = secrets.token_urlsafe(32)
    tx.add(
        AdminSession(
            token_hash=hash_of(token),
            admin_id=admin.id,
            created_at=at,
            used_at=at,
            expires_at=at + timedelta(hours=12),
        )
    )
    await tx.flush()
    return SomeAdmin(admin.id, token)


@dataclass(frozen=True, slots=True)
class Scene:
    """A station with a door, its poster and its controller, and a worker in front of it."""

    station: Station
    door: Door
    poster: str
    controller_id: uuid.UUID
    credential: str
    worker: SomeWorker

    @property
    def controller_headers(self) -> dict[str, str]:
        """What the controller sends."""
        return {"Authorization": f"Bearer {self.credential}"}


async def a_scene(held: Runtime, **station: Any) -> Scene:
    """Set the scene of a night."""
    at = held.now()
    async with held.database.write() as tx:
        made = await a_station(tx, at=at, **station)
        door = await a_door(tx, made, at=at)
        controller_id, credential = await a_controller(tx, made, at=at)
        worker = await a_worker(tx, held, at=at)
    poster = poster_token(held.keys.signing(TokenKind.POSTER), door)
    return Scene(made, door, poster, controller_id, credential, worker)


async def a_facility(
    tx: AsyncSession, station: Station, *, at: datetime, **changes: Any
) -> Facility:
    """Add a microwave that works."""
    values: dict[str, Any] = {
        "id": new_id(),
        "station_id": station.id,
        "kind": FacilityKind.MICROWAVE,
        "name": "微波炉",
        "quantity": 1,
        "status": FacilityStatus.WORKING,
        "status_at": at,
        "created_at": at,
        "changed_at": at,
    } | changes
    facility = Facility(**values)
    tx.add(facility)
    await tx.flush()
    spell = first_of(values) | {"until_at": values.get("retired_at")}
    tx.add(FacilitySpell(**spell))
    await tx.flush()
    return facility
