"""Whose passes open nothing any more, told to controllers by what is new since they last asked.

A blocked worker is given no new pass; this is for the passes he holds, at a controller that judges
alone. Each word ends by itself: the passes it is about are over long before.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.upsert import upsert
from app.db.wakeups import LocalWakeups
from app.doors.tables import Door, Pass, PassDenial
from app.people.tables import Worker
from app.places import stations
from app.places.tables import Station

DENIED_FOR = timedelta(days=14)
"""Longer than any controller may work alone."""

AT_MOST = 1000
"""Words in one answer."""


@dataclass(frozen=True, slots=True)
class Denial:
    """No pass of this subject opens at the station until then; a time in the past lifts it."""

    subject: str
    until: datetime


@dataclass(frozen=True, slots=True)
class News:
    """What is new since a version, and the version this brings a controller to."""

    version: int
    denials: Sequence[Denial]
    more: bool
    """Whether to ask again at once."""


async def follow(tx: AsyncSession, wakeups: LocalWakeups, worker: Worker, *, at: datetime) -> None:
    """Tell the stations for which a worker holds passes that he was blocked, or is so no more."""
    subjects = await tx.execute(
        sa.select(Door.station_id, Pass.subject)
        .join(Door, Door.id == Pass.door_id)
        .where(Pass.worker_id == worker.id)
        .distinct()
        .order_by(Door.station_id)
    )
    blocked = worker.blocked_at is not None
    for station_id, subject in subjects.all():
        said = await tx.scalar(
            sa.select(PassDenial.until_at).where(
                PassDenial.station_id == station_id, PassDenial.subject == subject
            )
        )
        if blocked == (said is not None and said > at):
            continue
        version = await tx.scalar(
            sa.update(Station)
            .where(Station.id == station_id)
            .values(denial_version=Station.denial_version + 1)
            .returning(Station.denial_version)
        )
        values = {"version": version, "until_at": at + DENIED_FOR if blocked else at}
        await tx.execute(
            upsert(tx, PassDenial)
            .values(station_id=station_id, subject=subject, **values)
            .on_conflict_do_update(index_elements=["station_id", "subject"], set_=values)
        )
        await stations.bump(tx, wakeups, station_id)


async def news(tx: AsyncSession, station_id: uuid.UUID, *, since: int, at: datetime) -> News:
    """Give what a station's controller has not heard yet, oldest first.

    From 0, or from a version that we never gave, everything that still holds.
    """
    version = await tx.scalar(sa.select(Station.denial_version).where(Station.id == station_id))
    assert version is not None
    known = since if since <= version else 0
    query = (
        sa.select(PassDenial.subject, PassDenial.until_at, PassDenial.version)
        .where(PassDenial.station_id == station_id, PassDenial.version > known)
        .order_by(PassDenial.version)
        .limit(AT_MOST + 1)
    )
    if known == 0:
        query = query.where(PassDenial.until_at > at)
    rows = (await tx.execute(query)).all()
    told = rows[:AT_MOST]
    more = len(rows) > AT_MOST
    return News(
        version=told[-1].version if more else version,
        denials=[Denial(row.subject, row.until_at) for row in told],
        more=more,
    )
