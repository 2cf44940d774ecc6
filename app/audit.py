"""The append-only trail of what administrators did, written in the same transaction as the act."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.db.types import Base, Json, closed_enum, new_id


class Action(StrEnum):
    """What can be done, in the past tense."""

    UNIT_ADDED = "unit.added"
    UNIT_AMENDED = "unit.amended"
    UNIT_RETIRED = "unit.retired"
    STATION_ADDED = "station.added"
    STATION_AMENDED = "station.amended"
    STATION_RETIRED = "station.retired"
    STATIONS_IMPORTED = "stations.imported"
    STATIONS_EXPORTED = "stations.exported"
    MODE_CHANGE_ADDED = "mode_change.added"
    MODE_CHANGE_AMENDED = "mode_change.amended"
    MODE_CHANGE_RETIRED = "mode_change.retired"
    STAFF_CONFIRMED = "staff.confirmed"
    CALENDAR_CHANGED = "calendar.changed"
    FACILITY_ADDED = "facility.added"
    FACILITY_AMENDED = "facility.amended"
    FACILITY_RETIRED = "facility.retired"
    DOOR_ADDED = "door.added"
    DOOR_AMENDED = "door.amended"
    DOOR_RETIRED = "door.retired"
    DOOR_UNLOCKED = "door.unlocked"
    POSTER_PRINTED = "poster.printed"
    POSTERS_REVOKED = "posters.revoked"
    ENROLMENT_ISSUED = "enrolment.issued"
    ENROLMENT_USED = "enrolment.used"
    """A controller came in by a code: the act of whoever made the code."""
    CONTROLLER_AMENDED = "controller.amended"
    CONTROLLER_RETIRED = "controller.retired"
    CONTROLLER_THAWED = "controller.thawed"
    WORKER_LISTED = "worker.listed"
    WORKER_AMENDED = "worker.amended"
    WORKER_RETIRED = "worker.retired"
    ADMIN_ADDED = "admin.added"
    ADMIN_AMENDED = "admin.amended"
    ADMIN_RETIRED = "admin.retired"
    ADMIN_SIGNED_IN = "admin.signed_in"
    ADMIN_SIGNED_OUT = "admin.signed_out"
    WALK_INS_COUNTED = "walk_ins.counted"
    WALK_INS_WITHDRAWN = "walk_ins.withdrawn"
    KEY_ROTATED = "key.rotated"
    REPORT_EXPORTED = "report.exported"
    ALERT_ACKNOWLEDGED = "alert.acknowledged"
    ALERT_CLOSED = "alert.closed"
    WEBHOOK_ADDED = "webhook.added"
    WEBHOOK_AMENDED = "webhook.amended"
    WEBHOOK_RETIRED = "webhook.retired"
    WEBHOOK_SECRET_ROTATED = "webhook.secret_rotated"
    WEBHOOK_TESTED = "webhook.tested"


class AuditEntry(Base):
    """One act of one administrator."""

    __tablename__ = "audit_entries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    admin_id: Mapped[uuid.UUID | None]
    """Who; None for the command line."""
    action: Mapped[Action] = mapped_column(closed_enum(Action))
    subject: Mapped[str]
    """What it was done to, as `kind:id`."""
    unit_path: Mapped[str | None]
    """The branch of the union the subject belongs to: who may read the entry. None: the city."""
    station_id: Mapped[uuid.UUID | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(Json)
    after: Mapped[dict[str, Any] | None] = mapped_column(Json)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, for the trail."""

    admin_id: uuid.UUID | None
    """None for the command line, which already has the machine."""


COMMAND_LINE = Actor(None)
"""Whoever can run a command on the server."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an act is done to."""

    kind: str
    id: uuid.UUID | str
    unit_path: str | None = None
    station_id: uuid.UUID | None = None


async def record(
    tx: AsyncSession,
    actor: Actor,
    action: Action,
    subject: Subject,
    *,
    at: datetime,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Write one entry; it stands or falls with the act's transaction."""
    await tx.execute(
        sa.insert(AuditEntry).values(
            id=new_id(),
            at=at,
            admin_id=actor.admin_id,
            action=action,
            subject=f"{subject.kind}:{subject.id}",
            unit_path=subject.unit_path,
            station_id=subject.station_id,
            before=before,
            after=after,
        )
    )


async def who_did(
    tx: AsyncSession, action: Action, subject: Subject, *, at: datetime
) -> Actor | None:
    """Say who did something to a subject at an instant; None when nothing says so."""
    rows = await tx.execute(
        sa.select(AuditEntry.admin_id).where(
            AuditEntry.at == at,
            AuditEntry.action == action,
            AuditEntry.subject == f"{subject.kind}:{subject.id}",
        )
    )
    found = rows.first()
    return None if found is None else Actor(found.admin_id)


async def history(
    tx: AsyncSession, *, within: sa.ColumnElement[bool], request: PageRequest
) -> PageOf[AuditEntry]:
    """Give a page of the entries that `within` admits, newest first; raises CursorInvalid."""
    return await cursors.page(
        tx,
        sa.select(AuditEntry).where(within),
        by=[AuditEntry.id],
        request=request,
        newest_first=True,
    )
