"""Visits open, continue and end; the sweep writes down the ends that nobody told (law 10)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import new_id
from app.db.upsert import moved, upsert
from app.errors import NotFound
from app.people.tables import Occupation
from app.places.rules import Kind, local_day, local_hour
from app.visits.rules import RE_ENTRY, renewed
from app.visits.tables import EndSource, StationPresence, Visit


class VisitNotFound(NotFound):
    """You have no such open visit."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who came in where."""

    station_id: uuid.UUID
    timezone: str
    owner_key: bytes | None
    """Whose visit it will be while it is open; None when nobody knows any more."""
    worker_id: uuid.UUID | None
    """Whose visit it will be for good; None without consent."""
    occupation: Occupation | None
    mode: Kind
    party_size: int
    max_stay: timedelta


async def prepare(tx: AsyncSession, station_ids: Sequence[uuid.UUID]) -> None:
    """Make the rows that are locked while places of these stations are given away."""
    if station_ids:
        rows = [{"station_id": station_id} for station_id in station_ids]
        await tx.execute(
            upsert(tx, StationPresence)
            .values(rows)
            .on_conflict_do_nothing(index_elements=["station_id"])
        )


async def open_visit(tx: AsyncSession, arrival: Arrival, *, started_at: datetime) -> uuid.UUID:
    """Open a visit, or continue the one he is in; gives its id.

    1. An open visit of his at this station that still counts goes on, renewed.
    2. An open visit of his elsewhere, or past its time, ends: at this arrival, or at its own
       cut-off instant if that was sooner.
    3. Evidence that comes late opens the visit at its own time; if he went elsewhere since, it is
       over already.

    Capacity is not looked at: the door was open, facts are facts.
    """
    current = await _current(tx, arrival.owner_key)
    if current is not None:
        if current.started_at > started_at:
            return await _insert(tx, arrival, started_at, ended_before=current.started_at)
        counts = started_at < current.stay_until
        if counts and current.station_id == arrival.station_id:
            until = renewed(current.stay_until, started_at, arrival.max_stay)
            await _change(tx, current.id, started_at, stay_until=until)
            return current.id
        await _end(tx, current, at=started_at)
    return await _insert(tx, arrival, started_at)


async def _current(tx: AsyncSession, owner_key: bytes | None) -> Visit | None:
    if owner_key is None:
        return None
    return await tx.scalar(
        sa.select(Visit)
        .where(Visit.owner_key == owner_key, Visit.ended_at.is_(None))
        .with_for_update()
    )


async def _insert(
    tx: AsyncSession,
    arrival: Arrival,
    started_at: datetime,
    *,
    ended_before: datetime | None = None,
) -> uuid.UUID:
    visit_id = new_id()
    stay_until = started_at + arrival.max_stay
    over = _ending(stay_until, ended_before) if ended_before else None
    values: dict[str, Any] = {
        "id": visit_id,
        "station_id": arrival.station_id,
        "worker_id": arrival.worker_id,
        "owner_key": None if over else arrival.owner_key,
        "occupation": arrival.occupation,
        "mode": arrival.mode,
        "party_size": arrival.party_size,
        "re_entry": await _came_back(tx, arrival, started_at),
        "started_at": started_at,
        "stay_until": stay_until,
        "local_day": local_day(started_at, arrival.timezone),
        "local_hour": local_hour(started_at, arrival.timezone),
        "changed_at": started_at,
    }
    await tx.execute(sa.insert(Visit).values(**values, **(over or {})))
    return visit_id


async def _came_back(tx: AsyncSession, arrival: Arrival, started_at: datetime) -> bool:
    """Say whether he left this station within the last ten minutes; known only with consent."""
    if arrival.worker_id is None:
        return False
    found = await tx.scalar(
        sa.select(Visit.id)
        .where(
            Visit.worker_id == arrival.worker_id,
            Visit.station_id == arrival.station_id,
            Visit.ended_at > started_at - RE_ENTRY,
            Visit.ended_at <= started_at,
        )
        .limit(1)
    )
    return found is not None


def _ending(stay_until: datetime, at: datetime) -> dict[str, Any]:
    """Say how a visit ends that something else ends at `at`."""
    if stay_until <= at:
        return {"ended_at": stay_until, "end_source": EndSource.IMPUTED}
    return {"ended_at": at, "end_source": EndSource.OTHER_STATION}


async def _end(tx: AsyncSession, visit: Visit, *, at: datetime) -> None:
    await _change(tx, visit.id, at, owner_key=None, **_ending(visit.stay_until, at))


async def _change(tx: AsyncSession, visit_id: uuid.UUID, at: datetime, **values: Any) -> None:
    await tx.execute(sa.update(Visit).where(Visit.id == visit_id).values(changed_at=at, **values))


async def leave(
    tx: AsyncSession,
    visit_id: uuid.UUID,
    owner_key: bytes,
    *,
    worker_id: uuid.UUID | None = None,
    at: datetime,
) -> Visit:
    """End a visit as its worker says; past its time it ended at its cut-off instant.

    Leaving again changes nothing. Raises VisitNotFound unless the visit is his.
    """
    visit = await tx.scalar(
        sa.select(Visit)
        .where(
            Visit.id == visit_id,
            sa.or_(Visit.owner_key == owner_key, Visit.worker_id == worker_id),
        )
        .with_for_update()
    )
    if visit is None:
        raise VisitNotFound
    if visit.ended_at is None:
        late = visit.stay_until <= at
        visit.ended_at = visit.stay_until if late else max(at, visit.started_at)
        visit.end_source = EndSource.IMPUTED if late else EndSource.WORKER
        visit.owner_key = None
        visit.changed_at = at
    return visit


async def renew(tx: AsyncSession, visit: Visit, *, at: datetime, max_stay: timedelta) -> None:
    """Keep a visit counted because its worker was heard of."""
    await _change(tx, visit.id, at, stay_until=renewed(visit.stay_until, at, max_stay))


async def find_open(tx: AsyncSession, owner_key: bytes, *, at: datetime) -> Visit | None:
    """Find the visit a worker is in, if it counts now."""
    return await tx.scalar(
        sa.select(Visit).where(
            Visit.owner_key == owner_key,
            Visit.ended_at.is_(None),
            Visit.started_at <= at,
            Visit.stay_until > at,
        )
    )


async def sweep(tx: AsyncSession, *, at: datetime) -> int:
    """Write the ends that time brought, each at its own instant, never now."""
    result = await tx.execute(
        sa.update(Visit)
        .where(Visit.ended_at.is_(None), Visit.stay_until <= at)
        .values(
            ended_at=Visit.stay_until,
            end_source=EndSource.IMPUTED,
            owner_key=None,
            changed_at=at,
        )
    )
    return moved(result)


def inside(station_id: Any, at: Any, *, excluding: Any = None) -> sa.ScalarSelect[int]:
    """Count the persons inside a station at an instant, as a subquery (law 10)."""
    query = sa.select(sa.func.coalesce(sa.func.sum(Visit.party_size), 0)).where(
        Visit.station_id == station_id,
        Visit.ended_at.is_(None),
        Visit.started_at <= at,
        Visit.stay_until > at,
    )
    if excluding is not None:
        query = query.where(Visit.owner_key.is_distinct_from(excluding))
    return query.scalar_subquery()
