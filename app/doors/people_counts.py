"""A station's people counter: its series by the hour, its resets and its drift."""

import uuid
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules.people import Counted, Series, Standing, counted
from app.doors.tables import PeopleCount

_ORDER = (PeopleCount.counted_at, PeopleCount.entry_id)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a station's people counter said in a time."""

    series: Series | None
    """None: no counter ever said anything here, which is not the same as nobody."""
    told_at: datetime | None
    """When it last said anything."""


async def between(
    tx: AsyncSession, station_id: uuid.UUID, *, since: datetime, until: datetime
) -> Counts:
    """Give what was counted in `[since, until)`, on from where the count stood then."""
    here = PeopleCount.station_id == station_id
    told_at = await tx.scalar(
        sa.select(PeopleCount.counted_at)
        .where(here, PeopleCount.counted_at < until)
        .order_by(PeopleCount.counted_at.desc())
        .limit(1)
    )
    if told_at is None:
        return Counts(None, None)
    rows = await tx.execute(
        sa.select(PeopleCount.counted_at, PeopleCount.delta, PeopleCount.reset_to)
        .where(here, PeopleCount.counted_at >= since, PeopleCount.counted_at < until)
        .order_by(*_ORDER)
    )
    words = [Counted(row.counted_at, row.delta, row.reset_to) for row in rows]
    return Counts(counted(words, await _standing(tx, here, since), since), told_at)


async def _standing(tx: AsyncSession, here: sa.ColumnElement[bool], since: datetime) -> Standing:
    """Say where the count stood at an instant: the last reset, and what was counted after it."""
    before = sa.and_(here, PeopleCount.counted_at < since)
    reset = (
        await tx.execute(
            sa.select(PeopleCount.counted_at, PeopleCount.entry_id, PeopleCount.reset_to)
            .where(before, PeopleCount.reset_to.is_not(None))
            .order_by(*(column.desc() for column in _ORDER))
            .limit(1)
        )
    ).one_or_none()
    after: sa.ColumnElement[bool] = sa.true()
    if reset is not None:
        after = sa.tuple_(*_ORDER) > sa.tuple_(
            sa.literal(reset.counted_at, PeopleCount.counted_at.type),
            sa.literal(reset.entry_id, PeopleCount.entry_id.type),
        )
    came_in = sa.case((PeopleCount.delta > 0, PeopleCount.delta), else_=0)
    moved, entries = (
        await tx.execute(
            sa.select(
                sa.func.coalesce(sa.func.sum(PeopleCount.delta), 0),
                sa.func.coalesce(sa.func.sum(came_in), 0),
            ).where(before, after)
        )
    ).one()
    base = reset.reset_to if reset is not None else 0
    return Standing(base + int(moved), int(entries))
