"""The mark of what one worker wanted at one station in one half hour (law 8).

A random number, the same for his scans there and for what a controller opened for him alone. It is
found by his live rows: once these are anonymous, nothing leads from it to anybody.
"""

import secrets
import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import HALF_HOUR, half_hour_of
from app.doors.tables import OfflineEntry, Scan
from app.people.sign_in import SignedInWorker
from app.places.rules import local_day


async def met(
    tx: AsyncSession, worker: SignedInWorker, station_id: uuid.UUID, *, at: datetime
) -> bytes:
    """Give the mark of what a controller met when it opened for him: that of his scans, or a new
    one, which a later scan of that half hour takes.

    Told after a day, of a worker without consent no scan is found any more.
    """
    his = Scan.owner_key == worker.owner_key
    if worker.consented:
        his = sa.or_(his, Scan.worker_id == worker.worker_id)
    since = half_hour_of(at)
    found: bytes | None = await tx.scalar(
        sa.select(Scan.demand_key)
        .where(
            his,
            Scan.station_id == station_id,
            Scan.scanned_at >= since,
            Scan.scanned_at < since + HALF_HOUR,
        )
        .limit(1)
    )
    return found or new()


async def met_before(
    tx: AsyncSession, owner_key: bytes, station_id: uuid.UUID, timezone: str, *, at: datetime
) -> bytes | None:
    """Give the mark of what a controller has met for him already in this half hour."""
    found: bytes | None = await tx.scalar(
        sa.select(OfflineEntry.demand_key)
        .where(
            OfflineEntry.station_id == station_id,
            # By the day, as the index is.
            OfflineEntry.local_day == local_day(at, timezone),
            OfflineEntry.happened_at >= half_hour_of(at),
            OfflineEntry.owner_key == owner_key,
            OfflineEntry.demand_key.is_not(None),
        )
        .limit(1)
    )
    return found


def new() -> bytes:
    """Give a mark that nothing bears yet."""
    return secrets.token_bytes(16)
