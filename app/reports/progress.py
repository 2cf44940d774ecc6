"""How far the counting has come: what a report knows, and until when."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import local_day
from app.reports.changes import CHANGED, CLOSED
from app.reports.rules import Completeness, completeness
from app.reports.tables import RollupDue, RollupMark


class Progress(NamedTuple):
    """How far the counting has come."""

    rolled_up_to: datetime | None
    """What was changed before this instant is counted for sure, unless it is being counted."""
    counted_at: datetime | None
    """As of when everything was last looked at and all of it counted; later is not known yet."""
    recounting: bool
    """Whether something is due to be counted anew just now."""

    def completeness(self, days: Sequence[date], at: datetime, zone: str) -> Completeness:
        """Say how complete days of a zone are."""
        counted_at = self.counted_at or datetime.fromtimestamp(0, UTC)
        return completeness(days, local_day(at, zone), local_day(counted_at, zone))


async def progress(tx: AsyncSession) -> Progress:
    """Say how far the counting has come."""
    marks = {
        row.name: row.at for row in await tx.execute(sa.select(RollupMark.name, RollupMark.at))
    }
    due = await tx.scalar(sa.select(RollupDue.depth).limit(1))
    return Progress(marks.get(CHANGED), marks.get(CLOSED), due is not None)
