"""Facility use: begin, end, count; by a worker inside, or by staff."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import new_id
from app.db.upsert import upsert
from app.errors import Conflict, Invalid, NotFound
from app.places.rules import local_day, local_hour
from app.places.tables import Facility, FacilityStatus, Station
from app.visits import presence
from app.visits.tables import FacilityUse, Visit


class NotInside(Conflict):
    """You are not at this station now; scan the code at its door first."""


class FacilityOutOfUse(Conflict):
    """This facility is out of order or no longer in use."""


class UseNotFound(NotFound):
    """You have no such use of a facility."""


class UseKeyReused(Invalid):
    """This Idempotency-Key was used for another request."""


@dataclass(frozen=True, slots=True)
class User:
    """Who uses a facility: a worker inside, or staff for somebody."""

    owner_key: bytes | None = None
    admin_id: uuid.UUID | None = None

    @property
    def actor(self) -> str:
        """Whose idempotency key it is."""
        if self.admin_id is not None:
            return f"admin:{self.admin_id}"
        assert self.owner_key is not None
        return f"worker:{self.owner_key.hex()}"


@dataclass(frozen=True, slots=True)
class Begun:
    """A use as it stands, and whether this request made it."""

    use: FacilityUse
    replayed: bool


async def begin(
    tx: AsyncSession,
    facility: Facility,
    user: User,
    *,
    quantity: Decimal | None,
    key: str,
    at: datetime,
) -> Begun:
    """Begin a use, or count a quantity that is over at once; renews the worker's visit (law 10).

    Raises UseKeyReused, FacilityOutOfUse, NotInside.
    """
    body_hash = hashlib.sha256(f"{facility.id}\n{quantity}".encode()).digest()
    if (stored := await _stored(tx, user, key, body_hash)) is not None:
        return Begun(stored, replayed=True)
    if facility.retired_at is not None or facility.status is FacilityStatus.OUT_OF_ORDER:
        raise FacilityOutOfUse
    station = await tx.get_one(Station, facility.station_id)
    visit_id = await _visit_of(tx, station, user, at=at)
    inserted = await tx.execute(
        upsert(tx, FacilityUse)
        .values(
            id=new_id(),
            facility_id=facility.id,
            station_id=station.id,
            visit_id=visit_id,
            admin_id=user.admin_id,
            actor=user.actor,
            idempotency_key=key,
            body_hash=body_hash,
            quantity=quantity,
            begun_at=at,
            ended_at=at if quantity is not None else None,
            local_day=local_day(at, station.timezone),
            local_hour=local_hour(at, station.timezone),
            changed_at=at,
        )
        .on_conflict_do_nothing(index_elements=["actor", "idempotency_key"])
        .returning(FacilityUse)
    )
    use: FacilityUse | None = inserted.scalar_one_or_none()
    if use is None:  # The same key came at the same time and was first.
        stored = await _stored(tx, user, key, body_hash)
        assert stored is not None
        return Begun(stored, replayed=True)
    return Begun(use, replayed=False)


async def _stored(tx: AsyncSession, user: User, key: str, body_hash: bytes) -> FacilityUse | None:
    stored = await tx.scalar(
        sa.select(FacilityUse).where(
            FacilityUse.actor == user.actor, FacilityUse.idempotency_key == key
        )
    )
    if stored is not None and stored.body_hash != body_hash:
        raise UseKeyReused
    return stored


async def _visit_of(
    tx: AsyncSession, station: Station, user: User, *, at: datetime
) -> uuid.UUID | None:
    if user.owner_key is None:
        return None
    visit = await presence.find_open(tx, user.owner_key, at=at)
    if visit is None or visit.station_id != station.id:
        raise NotInside
    await presence.renew(tx, visit, at=at, max_stay=timedelta(minutes=station.max_stay_min))
    return visit.id


async def end(
    tx: AsyncSession,
    use_id: uuid.UUID,
    user: User,
    *,
    within: sa.Select[Any] | None,
    at: datetime,
) -> FacilityUse:
    """End a use; again changes nothing. For who began it, or staff of a station `within`.

    Raises UseNotFound.
    """
    query = sa.select(FacilityUse).where(FacilityUse.id == use_id).with_for_update()
    if within is not None:
        query = query.where(FacilityUse.station_id.in_(within))
    else:
        own_visit = sa.exists().where(
            Visit.id == FacilityUse.visit_id, Visit.owner_key == user.owner_key
        )
        query = query.where(sa.or_(FacilityUse.actor == user.actor, own_visit))
    use = await tx.scalar(query)
    if use is None:
        raise UseNotFound
    if use.ended_at is None:
        use.ended_at = max(at, use.begun_at)
        use.changed_at = at
        if use.visit_id is not None and user.owner_key is not None:
            await _renew(tx, use, at=at)
    return use


async def _renew(tx: AsyncSession, use: FacilityUse, *, at: datetime) -> None:
    row = (
        await tx.execute(
            sa.select(Visit, Station.max_stay_min)
            .join(Station, Station.id == Visit.station_id)
            .where(Visit.id == use.visit_id, Visit.ended_at.is_(None), Visit.stay_until > at)
        )
    ).one_or_none()
    if row is not None:
        max_stay = timedelta(minutes=row.max_stay_min)
        await presence.renew(tx, row.Visit, at=at, max_stay=max_stay)


@dataclass(frozen=True, slots=True)
class Reported:
    """A use that a device reports when it is over."""

    facility_id: uuid.UUID
    station_id: uuid.UUID
    actor: str
    key: str
    begun_at: datetime
    ended_at: datetime
    quantity: Decimal | None


async def report(tx: AsyncSession, used: Reported, *, at: datetime) -> None:
    """Count a use that a device reported; the same key counts once."""
    station = await tx.get_one(Station, used.station_id)
    text = f"{used.facility_id}\n{used.quantity}"
    await tx.execute(
        upsert(tx, FacilityUse)
        .values(
            id=new_id(),
            facility_id=used.facility_id,
            station_id=used.station_id,
            visit_id=None,
            admin_id=None,
            actor=used.actor,
            idempotency_key=used.key,
            body_hash=hashlib.sha256(text.encode()).digest(),
            quantity=used.quantity,
            begun_at=used.begun_at,
            ended_at=used.ended_at,
            local_day=local_day(used.begun_at, station.timezone),
            local_hour=local_hour(used.begun_at, station.timezone),
            changed_at=at,
        )
        .on_conflict_do_nothing(index_elements=["actor", "idempotency_key"])
    )
