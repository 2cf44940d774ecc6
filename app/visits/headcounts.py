"""Head counts: walk-ins that staff counted, in whatever mode, beside the scanned visits."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, record
from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.db.types import new_id
from app.errors import Conflict, Invalid, NotFound
from app.places.rules import local_day
from app.places.stations import subject_of
from app.places.tables import Station
from app.visits.tables import WalkInCount

LONGEST = timedelta(hours=24)


class HeadCountInvalid(Invalid):
    """The head count's time is not acceptable."""


class HeadCountOverlaps(Conflict):
    """A head count of this station stands for a part of that time already."""


class HeadCountNotFound(NotFound):
    """This station has no such head count."""


@dataclass(frozen=True, slots=True)
class HeadCount:
    """How many heads, when."""

    count: int
    from_at: datetime
    until_at: datetime


async def add(
    tx: AsyncSession, station: Station, counted: HeadCount, *, actor: Actor, at: datetime
) -> WalkInCount:
    """Write a head count down; raises HeadCountInvalid, HeadCountOverlaps."""
    if not counted.from_at < counted.until_at <= at:
        raise HeadCountInvalid("from must come before until, and until must not lie ahead.")
    if counted.from_at < station.created_at:
        raise HeadCountInvalid("The station was not registered then.")
    if station.retired_at is not None and counted.until_at > station.retired_at:
        raise HeadCountInvalid("The station was retired then.")
    if counted.until_at - counted.from_at > LONGEST:
        raise HeadCountInvalid("A head count covers at most 24 hours.")
    # The station's row makes two counts of the same time wait for each other.
    # FOR NO KEY UPDATE: visits that refer to the station meanwhile need not wait.
    await tx.execute(
        sa.select(Station.id).where(Station.id == station.id).with_for_update(key_share=True)
    )
    overlapping = await tx.scalar(
        sa.select(WalkInCount.id)
        .where(
            WalkInCount.station_id == station.id,
            WalkInCount.from_at < counted.until_at,
            WalkInCount.until_at > counted.from_at,
            WalkInCount.withdrawn_at.is_(None),
        )
        .limit(1)
    )
    if overlapping is not None:
        raise HeadCountOverlaps
    assert actor.admin_id is not None
    row = WalkInCount(
        id=new_id(),
        station_id=station.id,
        count=counted.count,
        from_at=counted.from_at,
        until_at=counted.until_at,
        local_day=local_day(counted.from_at, station.timezone),
        admin_id=actor.admin_id,
        created_at=at,
    )
    tx.add(row)
    await tx.flush()
    subject = await subject_of(tx, station)
    await record(tx, actor, Action.WALK_INS_COUNTED, subject, at=at, after=_told(row))
    return row


async def withdraw(
    tx: AsyncSession, station: Station, count_id: uuid.UUID, *, actor: Actor, at: datetime
) -> None:
    """Mark a head count as withdrawn; again changes nothing; raises HeadCountNotFound.

    The row stays as it was written. Reports find the days it told of by when it was withdrawn.
    Where it was taken for a sign of staff, signs are looked for again.
    """
    # Who looks for signs of staff just now has it read as one, and has not written that down yet.
    await tx.execute(
        sa.select(Station.id).where(Station.id == station.id).with_for_update(key_share=True)
    )
    this = WalkInCount.id == count_id, WalkInCount.station_id == station.id
    row = await tx.scalar(
        sa.update(WalkInCount)
        .where(*this, WalkInCount.withdrawn_at.is_(None))
        .values(withdrawn_at=at, withdrawn_by=actor.admin_id)
        .returning(WalkInCount)
    )
    if row is None:
        if await tx.scalar(sa.select(WalkInCount.id).where(*this)) is None:
            raise HeadCountNotFound
        return  # Somebody was first.
    was_sign = Station.id == station.id, Station.staff_seen_at == row.until_at
    await tx.execute(sa.update(Station).where(*was_sign).values(staff_seen_at=None))
    told = _told(row)
    await record(
        tx,
        actor,
        Action.WALK_INS_WITHDRAWN,
        await subject_of(tx, station),
        at=at,
        before=told | {"withdrawn_at": None},
        after=told | {"withdrawn_at": at.isoformat()},
    )


def _told(row: WalkInCount) -> dict[str, Any]:
    """Say which count it is, for the audit trail."""
    return {
        "id": str(row.id),
        "count": row.count,
        "from": row.from_at.isoformat(),
        "until": row.until_at.isoformat(),
    }


async def list_counts(
    tx: AsyncSession, station_id: uuid.UUID, *, request: PageRequest
) -> PageOf[WalkInCount]:
    """Give a page of the head counts of a station, newest first; raises CursorInvalid.

    Those that were withdrawn too.
    """
    return await cursors.page(
        tx,
        sa.select(WalkInCount).where(WalkInCount.station_id == station_id),
        by=[WalkInCount.from_at, WalkInCount.id],
        request=request,
        newest_first=True,
    )
