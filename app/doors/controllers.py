"""Controllers: enrol, give a new credential, correct, thaw and retire."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.rules import AlertKind
from app.audit import COMMAND_LINE, Action, Actor, Subject, record, who_did
from app.db.types import new_id
from app.db.wakeups import LocalWakeups
from app.doors import clones
from app.doors.commands import topic_of
from app.doors.desk import CREDENTIALS
from app.doors.registry import doors_of
from app.doors.tables import Controller, Door, Enrolment
from app.errors import NotFound, Unauthorized
from app.people.secrets import hash_of
from app.places.tables import Station, Unit

CODE_LIFETIME = timedelta(hours=24)


class EnrolmentRefused(Unauthorized):
    """This enrolment code is not valid: wrong, used or older than 24 hours."""


class ControllerNotFound(NotFound):
    """There is no such controller."""


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """An enrolment code, told once."""

    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Introduction:
    """How a controller introduces itself."""

    code: str
    serial: str
    firmware: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a controller is told at its enrolment."""

    controller_id: uuid.UUID
    credential: str
    station: Station
    doors: Sequence[Door]


async def issue_code(
    tx: AsyncSession, station: Station, *, actor: Actor, at: datetime
) -> IssuedCode:
    """Make a one-time enrolment code for a station: 128 random bits, good for 24 hours."""
    code = secrets.token_hex(16)
    enrolment_id = new_id()
    await tx.execute(
        sa.insert(Enrolment).values(
            id=enrolment_id,
            station_id=station.id,
            code_hash=hash_of(code),
            created_at=at,
            expires_at=at + CODE_LIFETIME,
        )
    )
    subject = await _subject(tx, "enrolment", enrolment_id, station)
    await record(tx, actor, Action.ENROLMENT_ISSUED, subject, at=at)
    return IssuedCode(code, at + CODE_LIFETIME)


async def enrol(
    tx: AsyncSession, wakeups: LocalWakeups, introduction: Introduction, *, at: datetime
) -> Enrolled:
    """Take a controller in; its predecessor at the station retires.

    1. Use the code up: one conditional update, so of two at once one wins.
    2. A code that is used up answers again only to the same serial and nonce, with a fresh
       credential, until that controller's credential was first used (the answer was lost).

    Raises EnrolmentRefused.
    """
    used = await tx.scalar(
        sa.update(Enrolment)
        .where(
            Enrolment.code_hash == hash_of(introduction.code),
            Enrolment.used_at.is_(None),
            Enrolment.expires_at > at,
        )
        .values(used_at=at, serial=introduction.serial, nonce=introduction.nonce)
        .returning(Enrolment)
    )
    if used is None:
        return await _enrol_again(tx, wakeups, introduction, at=at)
    await _retire_at(tx, wakeups, used.station_id, at=at)
    credential = secrets.token_urlsafe(32)
    controller_id = new_id()
    await tx.execute(
        sa.insert(Controller).values(
            id=controller_id,
            station_id=used.station_id,
            serial=introduction.serial,
            firmware=introduction.firmware,
            credential_hash=hash_of(credential),
            credential_at=at,
            credential_used=False,
            enrolled_at=at,
            seen_at=at,  # Other processes have not heard it yet, but it is there.
            changed_at=at,
        )
    )
    await tx.execute(
        sa.update(Enrolment).where(Enrolment.id == used.id).values(controller_id=controller_id)
    )
    await wakeups.wake(tx, CREDENTIALS)
    return await _enrolled(tx, used, controller_id, credential, at=at)


async def _enrol_again(
    tx: AsyncSession, wakeups: LocalWakeups, introduction: Introduction, *, at: datetime
) -> Enrolled:
    rows = await tx.execute(
        sa.select(Controller, Enrolment)
        .join(Enrolment, Enrolment.controller_id == Controller.id)
        .where(
            Enrolment.code_hash == hash_of(introduction.code),
            Enrolment.expires_at > at,
            Enrolment.serial == introduction.serial,
            Enrolment.nonce == introduction.nonce,
            Controller.credential_used.is_(False),
            Controller.previous_hash.is_(None),
            Controller.retired_at.is_(None),
        )
        .with_for_update(of=Controller)
    )
    found = rows.one_or_none()
    if found is None:
        raise EnrolmentRefused
    controller, used = found
    credential = secrets.token_urlsafe(32)
    controller.credential_hash = hash_of(credential)
    controller.credential_at = at
    controller.changed_at = at
    await wakeups.wake(tx, CREDENTIALS)
    return await _enrolled(tx, used, controller.id, credential, at=at)


async def _enrolled(
    tx: AsyncSession,
    used: Enrolment,
    controller_id: uuid.UUID,
    credential: str,
    *,
    at: datetime,
) -> Enrolled:
    """Note who let the controller in, and tell it what is there."""
    station = await tx.get_one(Station, used.station_id)
    subject = await _subject(tx, "enrolment", used.id, station)
    maker = await who_did(tx, Action.ENROLMENT_ISSUED, subject, at=used.created_at)
    after = {"controller": str(controller_id), "serial": used.serial}
    await record(tx, maker or COMMAND_LINE, Action.ENROLMENT_USED, subject, at=at, after=after)
    return Enrolled(
        controller_id, credential, station, (await doors_of(tx, [station.id]))[station.id]
    )


async def rotate_credential(
    tx: AsyncSession, wakeups: LocalWakeups, controller_id: uuid.UUID, *, at: datetime
) -> str:
    """Give a new credential; the one in use overlaps until an hour after the new one's first use.

    Were the hour counted from here, a controller whose answer was lost on a link that stays down
    would be locked out of its station. Asking again replaces the credential that never arrived.
    """
    credential = secrets.token_urlsafe(32)
    arrived = Controller.credential_used
    await tx.execute(
        sa.update(Controller)
        .where(Controller.id == controller_id)
        .values(
            previous_hash=sa.case(
                (arrived, Controller.credential_hash), else_=Controller.previous_hash
            ),
            previous_until=None,
            credential_hash=hash_of(credential),
            credential_used=False,
            credential_at=at,
            changed_at=at,
        )
    )
    await wakeups.wake(tx, CREDENTIALS)
    return credential


async def retire(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller: Controller,
    *,
    actor: Actor,
    at: datetime,
) -> Controller:
    """Revoke a controller: its credential ends, its open poll is cut; again changes nothing."""
    if controller.retired_at is not None:
        return controller
    station = await tx.get_one(Station, controller.station_id)
    controller.retired_at = at
    controller.changed_at = at
    await _gone(tx, wakeups, [controller.id], at=at)
    subject = await _subject(tx, "controller", controller.id, station)
    await record(tx, actor, Action.CONTROLLER_RETIRED, subject, at=at)
    return controller


async def thaw(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller: Controller,
    *,
    actor: Actor,
    at: datetime,
) -> None:
    """Let a frozen controller work again."""
    if controller.frozen_at is None:
        return
    station = await tx.get_one(Station, controller.station_id)
    await clones.thaw(tx, controller, at=at)
    subject = await _subject(tx, "controller", controller.id, station)
    await record(tx, actor, Action.CONTROLLER_THAWED, subject, at=at)
    await wakeups.wake(tx, topic_of(controller.id))


async def get(
    tx: AsyncSession, controller_id: uuid.UUID, *, within: sa.Select[uuid.UUID]
) -> Controller:
    """Find a controller at one of the stations `within`; raises ControllerNotFound."""
    found = await tx.scalar(
        sa.select(Controller).where(
            Controller.id == controller_id, Controller.station_id.in_(within)
        )
    )
    if found is None:
        raise ControllerNotFound
    return found


async def amend(
    tx: AsyncSession,
    controller: Controller,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Controller:
    """Correct what is written down about a controller."""
    station = await tx.get_one(Station, controller.station_id)
    before = {name: getattr(controller, name) for name in changes}
    for name, value in changes.items():
        setattr(controller, name, value)
    controller.changed_at = at
    subject = await _subject(tx, "controller", controller.id, station)
    await record(
        tx,
        actor,
        Action.CONTROLLER_AMENDED,
        subject,
        at=at,
        before=before,
        after=dict(changes),
    )
    return controller


async def _retire_at(
    tx: AsyncSession, wakeups: LocalWakeups, station_id: uuid.UUID, *, at: datetime
) -> None:
    result = await tx.execute(
        sa.update(Controller)
        .where(Controller.station_id == station_id, Controller.retired_at.is_(None))
        .values(retired_at=at, changed_at=at)
        .returning(Controller.id)
    )
    await _gone(tx, wakeups, list(result.scalars()), at=at)


async def _gone(
    tx: AsyncSession, wakeups: LocalWakeups, ids: Sequence[uuid.UUID], *, at: datetime
) -> None:
    """Cut the open polls of controllers that were retired; what was wrong with them is over."""
    for controller_id in ids:
        await wakeups.wake(tx, topic_of(controller_id))
        for kind in (AlertKind.CONTROLLER_SILENT, AlertKind.CLONE, AlertKind.CLOCK_SKEW):
            await book.settle(tx, kind, f"controller:{controller_id}", at=at)
    await wakeups.wake(tx, CREDENTIALS)


async def _subject(tx: AsyncSession, kind: str, id: uuid.UUID, station: Station) -> Subject:
    path = await tx.scalar(sa.select(Unit.path).where(Unit.id == station.unit_id))
    return Subject(kind, id, unit_path=path, station_id=station.id)
