"""Stations: create, amend, retire; their dated exceptions and overrides."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.db.wakeups import LocalWakeups
from app.errors import Conflict, Invalid, NotFound
from app.places import districts, held
from app.places.rules import (
    ChangeKind,
    Tier,
    grid_cell,
    hours_to_json,
    is_timezone,
    parse_hours,
)
from app.places.tables import ModeChange, OperatingModel, PastChange, Station, Unit

LONGEST_OVERRIDE = timedelta(days=7)
EMERGENCIES = (ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)


class StationNotFound(NotFound):
    """There is no such station."""


class StationInvalid(Invalid):
    """The station's description is not acceptable."""


class CodeTaken(Conflict):
    """A station has this code already."""


class StationRetired(Conflict):
    """This station is retired."""


class ModeChangeNotFound(NotFound):
    """There is no such exception or override."""


class ModeChangeInvalid(Invalid):
    """The exception or override is not acceptable."""


@dataclass(frozen=True, slots=True)
class Description:
    """What is written down about a station; codes and ids never change."""

    code: str
    name: str
    unit_id: uuid.UUID
    district: str | None
    address: str
    latitude: float
    longitude: float
    capacity: int
    operating_model: OperatingModel
    timezone: str
    staffed_hours: Mapping[str, Any] | None
    access_hours: Mapping[str, Any] | None
    max_stay_min: int
    confirm_tap: bool
    offline_hours: int | None = None
    """For so long without the server its controller opens by passes; None: never."""
    staff_absent_min: int | None = None
    """So long into staffed hours without staff it turns to scanning; 0: never; None: its unit's."""


COLUMNS = tuple(Description.__slots__)
RECORDED_COLUMNS = frozenset({"timezone", "staffed_hours", "access_hours", "capacity"})
"""What decides a station's mode, and its seats: it is recorded what held before they change."""


def checked(description: Description) -> Description:
    """Give the description in its canonical form; raises StationInvalid naming what is wrong."""
    errors: list[dict[str, Any]] = []
    if not is_timezone(description.timezone):
        message = f"{description.timezone!r} is not a time zone such as Asia/Shanghai"
        errors.append({"loc": ["timezone"], "message": message})
    parsed: dict[str, Any] = {}
    for name in ("staffed_hours", "access_hours"):
        value = getattr(description, name)
        try:
            parsed[name] = None if value is None else hours_to_json(parse_hours(value))
        except ValueError as error:
            errors.append({"loc": [name], "message": str(error)})
    if errors:
        raise StationInvalid(errors[0]["message"], errors=errors)
    return replace(description, **parsed)


async def get_station(tx: AsyncSession, station_id: uuid.UUID) -> Station:
    """Give a station; raises StationNotFound."""
    station = await tx.get(Station, station_id)
    if station is None:
        raise StationNotFound
    return station


async def get_by_code(tx: AsyncSession, code: str) -> Station:
    """Give a station in use by its code; raises StationNotFound."""
    if not code.isascii() or not code.isprintable():
        raise StationNotFound
    station = await tx.scalar(
        sa.select(Station).where(Station.code == code, Station.retired_at.is_(None))
    )
    if station is None:
        raise StationNotFound
    return station


async def subject_of(tx: AsyncSession, station: Station) -> Subject:
    """Name a station for the audit trail."""
    path = await tx.scalar(sa.select(Unit.path).where(Unit.id == station.unit_id))
    return Subject("station", station.id, unit_path=path, station_id=station.id)


async def create(
    tx: AsyncSession, description: Description, *, actor: Actor, at: datetime
) -> Station:
    """Add a station; raises StationInvalid, CodeTaken."""
    description = checked(description)
    await districts.require_current(tx, description.district, at=at)
    taken = await tx.scalar(sa.select(Station.id).where(Station.code == description.code))
    if taken is not None:
        raise CodeTaken
    station = Station(
        id=new_id(),
        **{name: getattr(description, name) for name in COLUMNS},
        cell=grid_cell(description.latitude, description.longitude),
        config_version=1,
        created_at=at,
        changed_at=at,
    )
    tx.add(station)
    await tx.flush()
    subject = await subject_of(tx, station)
    after = {"code": station.code, "name": station.name}
    await record(tx, actor, Action.STATION_ADDED, subject, at=at, after=after)
    return station


async def amend(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    station: Station,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Station:
    """Change what is written down; raises StationInvalid, StationRetired."""
    if station.retired_at is not None:
        raise StationRetired
    before = {name: getattr(station, name) for name in COLUMNS}
    wanted = checked(Description(**(before | dict(changes))))
    if wanted.district != station.district:
        await districts.require_current(tx, wanted.district, at=at)
    changed = [name for name in COLUMNS if getattr(wanted, name) != before[name]]
    if not changed:
        return station
    if RECORDED_COLUMNS & set(changed):
        await held.record(tx, [station.id], at=at)
    for name in changed:
        setattr(station, name, getattr(wanted, name))
    station.cell = grid_cell(station.latitude, station.longitude)
    station.changed_at = at
    await record(
        tx,
        actor,
        Action.STATION_AMENDED,
        await subject_of(tx, station),
        at=at,
        before={name: _plain(before[name]) for name in changed},
        after={name: _plain(getattr(wanted, name)) for name in changed},
    )
    await bump(tx, wakeups, station.id)
    return station


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value


async def retire(
    tx: AsyncSession, wakeups: LocalWakeups, station: Station, *, actor: Actor, at: datetime
) -> Station:
    """Take a station out of use; its rows and its code stay. Again changes nothing."""
    if station.retired_at is None:
        await held.record(tx, [station.id], at=at)
        station.retired_at = at
        station.changed_at = at
        subject = await subject_of(tx, station)
        await record(tx, actor, Action.STATION_RETIRED, subject, at=at)
        await bump(tx, wakeups, station.id)
    return station


async def bump(tx: AsyncSession, wakeups: LocalWakeups, station_id: uuid.UUID) -> None:
    """Tell a station's controller that its config changed."""
    await tx.execute(
        sa.update(Station)
        .where(Station.id == station_id)
        .values(config_version=Station.config_version + 1)
    )
    await wakeups.wake(tx, f"station:{station_id}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An exception or override as it should stand."""

    kind: ChangeKind
    from_at: datetime
    until_at: datetime
    note: str


def _check(tier: Tier, wanted: Wanted, at: datetime) -> None:
    if wanted.until_at <= wanted.from_at:
        raise ModeChangeInvalid("until must come after from.")
    if tier is Tier.EXCEPTION and wanted.kind in EMERGENCIES:
        raise ModeChangeInvalid(f"{wanted.kind.value} is an override, not a dated exception.")
    if tier is Tier.OVERRIDE and wanted.until_at > at + LONGEST_OVERRIDE:
        raise ModeChangeInvalid("An override ends within 7 days.")


async def add_change(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    station: Station,
    tier: Tier,
    wanted: Wanted,
    *,
    actor: Actor,
    at: datetime,
) -> ModeChange:
    """Add an exception or override; raises ModeChangeInvalid, StationRetired."""
    if station.retired_at is not None:
        raise StationRetired
    _check(tier, wanted, at)
    await held.record(tx, [station.id], at=at)
    change = ModeChange(
        id=new_id(),
        station_id=station.id,
        tier=tier,
        kind=wanted.kind,
        from_at=wanted.from_at,
        until_at=wanted.until_at,
        note=wanted.note,
        created_at=at,
        changed_at=at,
    )
    tx.add(change)
    await tx.flush()
    await _tell(tx, wakeups, station, change, Action.MODE_CHANGE_ADDED, actor=actor, at=at)
    return change


async def get_change(
    tx: AsyncSession, station: Station, tier: Tier, change_id: uuid.UUID
) -> ModeChange:
    """Give one exception or override of a station; raises ModeChangeNotFound."""
    change = await tx.scalar(
        sa.select(ModeChange).where(
            ModeChange.id == change_id,
            ModeChange.station_id == station.id,
            ModeChange.tier == tier,
        )
    )
    if change is None:
        raise ModeChangeNotFound
    return change


async def amend_change(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    station: Station,
    change: ModeChange,
    wanted: Wanted,
    *,
    actor: Actor,
    at: datetime,
) -> ModeChange:
    """Replace what an exception or override says; raises ModeChangeInvalid."""
    if change.retired_at is not None:
        raise ModeChangeNotFound
    _check(change.tier, wanted, at)
    await held.record(tx, [station.id], at=at)
    # Whoever was at it first has ended: the station is locked from here on.
    await tx.refresh(change)
    if change.retired_at is not None:
        raise ModeChangeNotFound
    _keep(tx, change, at=at)
    change.kind, change.note = wanted.kind, wanted.note
    change.from_at, change.until_at = wanted.from_at, wanted.until_at
    change.changed_at = at
    await _tell(tx, wakeups, station, change, Action.MODE_CHANGE_AMENDED, actor=actor, at=at)
    return change


async def retire_change(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    station: Station,
    change: ModeChange,
    *,
    actor: Actor,
    at: datetime,
) -> ModeChange:
    """Withdraw an exception or override; again changes nothing."""
    await held.record(tx, [station.id], at=at)
    await tx.refresh(change)  # Whoever was at it first has ended: the station is locked.
    if change.retired_at is None:
        _keep(tx, change, at=at)
        change.retired_at = at
        change.changed_at = at
        await _tell(tx, wakeups, station, change, Action.MODE_CHANGE_RETIRED, actor=actor, at=at)
    return change


def _keep(tx: AsyncSession, change: ModeChange, *, at: datetime) -> None:
    """Keep what an exception said until now: a day that had begun was promised by it."""
    if change.tier is Tier.EXCEPTION and change.changed_at < at:
        tx.add(
            PastChange(
                change_id=change.id,
                written_at=change.changed_at,
                replaced_at=at,
                kind=change.kind,
                from_at=change.from_at,
                until_at=change.until_at,
            )
        )


async def _tell(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    station: Station,
    change: ModeChange,
    action: Action,
    *,
    actor: Actor,
    at: datetime,
) -> None:
    after = {
        "change": str(change.id),
        "tier": change.tier.value,
        "kind": change.kind.value,
        "from": change.from_at.isoformat(),
        "until": change.until_at.isoformat(),
        "note": change.note,
    }
    subject = await subject_of(tx, station)
    await record(tx, actor, action, subject, at=at, after=after)
    await bump(tx, wakeups, station.id)
