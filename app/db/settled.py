"""Up to which instant everything that was written can be seen.

A row carries the instant at which its writer began, and is seen when he commits. Whoever searches
for what is new by that instant must not search past a writer who still works.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

SLACK = timedelta(seconds=40)
"""How long a writer may wait for a connection after he read the clock, and clocks may differ."""


async def settled_until(tx: AsyncSession, *, at: datetime) -> datetime:
    """Give the instant up to which no writer can still be at work."""
    if tx.get_bind().dialect.name == "sqlite":
        return at - SLACK  # One writer: none is at work while this is read after him.
    oldest = await tx.scalar(
        sa.text(
            "SELECT max(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            # What the server does by itself, such as to vacuum, writes no rows of ours.
            "AND xact_start IS NOT NULL AND backend_type = 'client backend'"
        )
    )
    return at - SLACK - timedelta(seconds=float(oldest or 0))
