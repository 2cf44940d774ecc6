"""Occupancy: who is inside now, by station; counted when read, never kept."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.visits.tables import Visit


async def inside_by_station(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, at: datetime
) -> Mapping[uuid.UUID, int]:
    """Count the persons inside each of these stations now: one statement for all."""
    rows = await tx.execute(_inside(at).where(Visit.station_id.in_(station_ids)))
    counted = {row.station_id: int(row.persons) for row in rows}
    return {station_id: counted.get(station_id, 0) for station_id in station_ids}


async def inside_everywhere(tx: AsyncSession, *, at: datetime) -> Mapping[uuid.UUID, int]:
    """Count the persons inside every station in which anybody is now."""
    return {row.station_id: int(row.persons) for row in await tx.execute(_inside(at))}


def _inside(at: datetime) -> sa.Select[uuid.UUID, int]:
    return (
        sa.select(Visit.station_id, sa.func.sum(Visit.party_size).label("persons"))
        .where(Visit.ended_at.is_(None), Visit.started_at <= at, Visit.stay_until > at)
        .group_by(Visit.station_id)
    )
