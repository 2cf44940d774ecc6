"""Facilities: what there is to use at a station, and whether it works."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.errors import NotFound
from app.places import spells
from app.places.stations import subject_of
from app.places.tables import Facility, FacilityKind, FacilitySpell, FacilityStatus, Station


class FacilityNotFound(NotFound):
    """There is no such facility."""


@dataclass(frozen=True, slots=True)
class NewFacility:
    """A facility to add."""

    kind: FacilityKind
    name: str
    quantity: int


async def add(
    tx: AsyncSession,
    station: Station,
    new: Sequence[NewFacility],
    *,
    actor: Actor,
    at: datetime,
) -> Sequence[Facility]:
    """Add facilities to a station; new ones work."""
    described: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "station_id": station.id,
            "kind": item.kind,
            "name": item.name,
            "quantity": item.quantity,
            "status": FacilityStatus.WORKING,
            "status_at": at,
            "created_at": at,
            "changed_at": at,
        }
        for item in new
    ]
    rows = [Facility(**values) for values in described]
    tx.add_all(rows)
    await tx.flush()
    tx.add_all(FacilitySpell(**spells.first_of(values)) for values in described)
    await tx.flush()
    subject = await subject_of(tx, station)
    for row in rows:
        after = {"kind": row.kind.value, "name": row.name, "quantity": row.quantity}
        await record(tx, actor, Action.FACILITY_ADDED, _of(row, subject), at=at, after=after)
    return rows


def _of(facility: Facility, station: Subject) -> Subject:
    return Subject(
        "facility", facility.id, unit_path=station.unit_path, station_id=station.station_id
    )


async def get_facility(
    tx: AsyncSession, facility_id: uuid.UUID, *, within: sa.Select[uuid.UUID] | None = None
) -> Facility:
    """Give a facility, at one of the stations `within`; raises FacilityNotFound."""
    query = sa.select(Facility).where(Facility.id == facility_id)
    if within is not None:
        query = query.where(Facility.station_id.in_(within))
    facility = await tx.scalar(query)
    if facility is None:
        raise FacilityNotFound
    return facility


async def amend(
    tx: AsyncSession,
    facility: Facility,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Facility:
    """Change a facility's name, quantity or status; a new status notes since when."""
    station = await tx.get_one(Station, facility.station_id)
    before = {name: _plain(getattr(facility, name)) for name in changes}
    await spells.hold(tx, facility.id)
    if changes.get("quantity", facility.quantity) != facility.quantity:
        await spells.count(tx, facility.id, changes["quantity"], at=at)
    if "status" in changes:
        await spells.say(tx, facility.id, changes["status"], said_at=at, at=at)
        facility.status, facility.status_at = await spells.latest(tx, facility.id)
    for name in changes.keys() - {"status"}:
        setattr(facility, name, changes[name])
    facility.changed_at = at
    subject = _of(facility, await subject_of(tx, station))
    after = {name: _plain(value) for name, value in changes.items()}
    await record(tx, actor, Action.FACILITY_AMENDED, subject, at=at, before=before, after=after)
    return facility


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, FacilityStatus | FacilityKind) else value


async def retire(tx: AsyncSession, facility: Facility, *, actor: Actor, at: datetime) -> Facility:
    """Take a facility out of use; again changes nothing."""
    if facility.retired_at is None:
        station = await tx.get_one(Station, facility.station_id)
        await spells.hold(tx, facility.id)
        await spells.end(tx, facility.id, at=at)
        facility.status, facility.status_at = await spells.latest(tx, facility.id)
        facility.retired_at = at
        facility.changed_at = at
        subject = _of(facility, await subject_of(tx, station))
        await record(tx, actor, Action.FACILITY_RETIRED, subject, at=at)
    return facility


async def facilities_of(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, Sequence[Facility]]:
    """Give the facilities in use of several stations."""
    found: dict[uuid.UUID, list[Facility]] = {station_id: [] for station_id in station_ids}
    rows = await tx.scalars(
        sa.select(Facility)
        .where(Facility.station_id.in_(station_ids), Facility.retired_at.is_(None))
        .order_by(Facility.id)
    )
    for facility in rows:
        found[facility.station_id].append(facility)
    return found


async def report_status(
    tx: AsyncSession,
    facility_id: uuid.UUID,
    status: FacilityStatus,
    *,
    status_at: datetime,
    at: datetime,
) -> bool:
    """Take a device's word on a facility, late as it may be; tells whether it is the last word."""
    if not await spells.hold(tx, facility_id):
        return False
    is_last = await spells.say(tx, facility_id, status, said_at=status_at, at=at)
    now, since = await spells.latest(tx, facility_id)
    await tx.execute(
        sa.update(Facility)
        .where(
            Facility.id == facility_id, sa.or_(Facility.status != now, Facility.status_at != since)
        )
        .values(status=now, status_at=since, changed_at=at)
    )
    return is_last
