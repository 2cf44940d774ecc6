"""Visits open, continue and end; the sweep writes down the ends that nobody told (law 10)."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.serial import alone
from app.db.types import new_id, table_of
from app.db.upsert import moved, upsert
from app.errors import NotFound
from app.people.tables import Occupation
from app.places.rules import Kind, local_day, local_hour
from app.places.tables import Station
from app.visits.rules import (
    LONGEST_STAY,
    RE_ENTRY,
    Came,
    Continues,
    Ending,
    Fact,
    Heard,
    Left,
    Opens,
    Parts,
    Retraced,
    Stay,
    arrive,
    comes_back,
    last_heard,
    renewed,
    retrace,
    turned,
)
from app.visits.tables import EndSource, FacilityUse, StationPresence, Visit, VoidBecause

ATTEMPTS = 3
"""How often an arrival looks again when another of the same worker is written at the same time."""

ONE_OPEN = sa.text("ended_at IS NULL AND owner_key IS NOT NULL")
"""Where `owner_key` is unique: one open visit per worker."""


NOT_VOID = {"voided_at": None, "void_because": None}


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


async def open_visit(
    tx: AsyncSession, arrival: Arrival, *, started_at: datetime, at: datetime | None = None
) -> uuid.UUID:
    """Open a visit, or continue the one he is in; gives its id.

    1. An open visit of his at this station that still counts goes on, renewed.
    2. An open visit of his elsewhere, or past its time, ends: at this arrival, or at its own
       cut-off instant if that was sooner.
    3. Evidence that comes late opens the visit at its own time. If it is the beginning of the visit
       he is in, that one began sooner; if he came elsewhere since, it is over already; if he was
       heard of elsewhere before and after, that visit was two. Of the visits since it is said anew
       whether he only came back.

    Capacity is not looked at: the door was open, facts are facts. `at` is when this is written;
    without it, `started_at`.
    """
    await alone(tx, _person(arrival.owner_key, arrival.worker_id))
    for _ in range(ATTEMPTS):
        his = await _visits_around(tx, arrival, started_at)
        arriving = arrive(
            his, station_id=arrival.station_id, at=started_at, max_stay=arrival.max_stay
        )
        for visit_id, end in arriving.ends:
            await _change(tx, visit_id, at or started_at, **_ended(end))
        if arriving.parts is not None:
            await _part(tx, arriving.parts, at=at or started_at)
        began = {
            "mode": arrival.mode,
            "re_entry": arriving.re_entry and arrival.worker_id is not None,
            "started_at": started_at,
            "local_day": local_day(started_at, arrival.timezone),
            "local_hour": local_hour(started_at, arrival.timezone),
            "changed_at": at or started_at,
        }
        match arriving.becomes:
            case Continues() as goes_on:
                await _go_on(tx, goes_on, began)
                found: uuid.UUID | None = goes_on.visit_id
            case Opens() as opens:
                found = await _insert(tx, arrival, opens, began)
        if found is not None:
            if his and his[-1].started_at > started_at:
                after = await _visits_around(tx, arrival, started_at)
                await _turn(tx, turned(his, after), since=started_at, at=at or started_at)
            return found
    raise RuntimeError("another visit of the worker kept coming in between")


async def _turn(
    tx: AsyncSession, returns: Mapping[uuid.UUID, bool], *, since: datetime, at: datetime
) -> None:
    """Write down of later visits that he only came back, or did not after all."""
    for visit_id, re_entry in returns.items():
        await tx.execute(
            sa.update(Visit)
            .where(
                Visit.id == visit_id,
                Visit.started_at > since,
                Visit.re_entry.is_not(re_entry),
                # Without consent nobody is known to have come back.
                Visit.worker_id.is_not(None),
                Visit.voided_at.is_(None),
            )
            .values(re_entry=re_entry, changed_at=at)
            .execution_options(synchronize_session=False)
        )


def _person(owner_key: bytes | None, worker_id: uuid.UUID | None) -> str:
    """Name whose visits are written by one transaction at a time."""
    return f"visits of {worker_id or (owner_key or new_id().bytes).hex()}"


def _his(owner_key: bytes | None, worker_id: uuid.UUID | None) -> sa.ColumnElement[bool] | None:
    """Select the visits of a worker: by his key while it is kept, and with consent by himself."""
    whose: list[sa.ColumnElement[bool]] = []
    if owner_key is not None:  # Comparing with None would make every anonymous visit his.
        whose.append(Visit.owner_key == owner_key)
    if worker_id is not None:
        whose.append(Visit.worker_id == worker_id)
    return sa.or_(*whose) if whose else None


async def _visits_around(
    tx: AsyncSession, arrival: Arrival, started_at: datetime
) -> Sequence[Stay]:
    """Give the worker's open visit, and those that touch an instant or follow it.

    A visit here that never was, but that he left later, stands for his leave alone.
    """
    his = _his(arrival.owner_key, arrival.worker_id)
    if his is None:
        return []
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until)
    touching = sa.and_(
        Visit.started_at > started_at - LONGEST_STAY,
        sa.or_(Visit.ended_at.is_(None), until > started_at - RE_ENTRY),
    )
    left_later = sa.and_(
        Visit.voided_at.is_not(None),
        Visit.station_id == arrival.station_id,
        Visit.left_at > started_at,
    )
    rows = await tx.execute(
        sa.select(
            Visit.id,
            Visit.station_id,
            Visit.started_at,
            Visit.stay_until,
            Visit.ended_at,
            Visit.left_at,
            Visit.voided_at,
            Station.max_stay_min,
        )
        .join(Station, Station.id == Visit.station_id)
        .where(his, sa.or_(sa.and_(Visit.voided_at.is_(None), touching), left_later))
        .with_for_update(of=Visit)
    )
    stays = [
        Stay(row.id, row.station_id, row.left_at, row.left_at, row.left_at, row.left_at)
        if row.voided_at is not None
        else _stay(
            row.id, row.station_id, row.started_at, row.stay_until, row.ended_at, row.max_stay_min
        )
        for row in rows
    ]
    return sorted(stays, key=lambda stay: stay.started_at)


def _stay(
    id: uuid.UUID,
    station_id: uuid.UUID,
    started_at: datetime,
    stay_until: datetime,
    ended_at: datetime | None,
    max_stay_min: int,
) -> Stay:
    heard_at = last_heard(started_at, stay_until, ended_at, timedelta(minutes=max_stay_min))
    return Stay(id, station_id, started_at, stay_until, ended_at, heard_at)


async def _part(tx: AsyncSession, parts: Parts, *, at: datetime) -> None:
    """Make two visits of one; the later part keeps its id, by which he leaves."""
    query = (
        sa.select(Visit, Station.timezone, Station.max_stay_min)
        .join(Station, Station.id == Visit.station_id)
        .where(Visit.id == parts.visit_id)
        .execution_options(populate_existing=True)
    )
    visit, timezone, max_stay_min = (await tx.execute(query)).one()
    tx.add(
        Visit(
            id=new_id(),
            station_id=visit.station_id,
            worker_id=visit.worker_id,
            owner_key=visit.owner_key,
            occupation=visit.occupation,
            mode=visit.mode,
            party_size=visit.party_size,
            re_entry=visit.re_entry,
            started_at=visit.started_at,
            # Nobody knows when he was heard of in this part after he came.
            stay_until=max(visit.started_at + timedelta(minutes=max_stay_min), parts.left_at),
            ended_at=parts.left_at,
            end_source=EndSource.OTHER_STATION,
            local_day=visit.local_day,
            local_hour=visit.local_hour,
            changed_at=at,
        )
    )
    visit.started_at = parts.back_at
    visit.local_day = local_day(parts.back_at, timezone)
    visit.local_hour = local_hour(parts.back_at, timezone)
    visit.re_entry = parts.back_at - parts.left_at < RE_ENTRY and visit.worker_id is not None
    visit.changed_at = at
    await tx.flush()


def _ended(end: Ending) -> dict[str, Any]:
    source = EndSource.IMPUTED if end.imputed else EndSource.OTHER_STATION
    return {"ended_at": end.at, "end_source": source}


async def _go_on(tx: AsyncSession, goes_on: Continues, began: dict[str, Any]) -> None:
    changes = {"changed_at": began["changed_at"]}
    if goes_on.is_open:
        changes["stay_until"] = goes_on.stay_until
    if goes_on.sooner:
        changes |= began
        # One that never was, as far as was known, and that he left all the same.
        await tx.execute(
            sa.update(Visit)
            .where(Visit.id == goes_on.visit_id, Visit.voided_at.is_not(None))
            .values(
                stay_until=goes_on.stay_until,
                ended_at=Visit.left_at,
                end_source=EndSource.WORKER,
                **NOT_VOID,
            )
            .execution_options(synchronize_session=False)
        )
    await tx.execute(
        sa.update(Visit)
        .where(Visit.id == goes_on.visit_id)
        .values(changes)
        .execution_options(synchronize_session=False)
    )


async def _insert(
    tx: AsyncSession, arrival: Arrival, opens: Opens, began: dict[str, Any]
) -> uuid.UUID | None:
    """Write the visit; None if an open one of his was written at this very moment."""
    over = _ended(opens.over) if opens.over else {}
    found: uuid.UUID | None = await tx.scalar(
        upsert(tx, Visit)
        .values(
            id=new_id(),
            station_id=arrival.station_id,
            worker_id=arrival.worker_id,
            owner_key=arrival.owner_key,
            occupation=arrival.occupation,
            party_size=arrival.party_size,
            stay_until=opens.stay_until,
            **began,
            **over,
        )
        .on_conflict_do_nothing(index_elements=["owner_key"], index_where=ONE_OPEN)
        .returning(Visit.id)
    )
    return found


async def _change(tx: AsyncSession, visit_id: uuid.UUID, at: datetime, **values: Any) -> None:
    await tx.execute(
        sa.update(Visit)
        .where(Visit.id == visit_id)
        .values(changed_at=at, **values)
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one time that a worker went in."""

    arrival: Arrival
    at: datetime
    visit_id: uuid.UUID | None
    """The visit it was part of, as far as was known."""


async def written(
    tx: AsyncSession,
    owner_key: bytes | None,
    worker_id: uuid.UUID | None,
    *,
    since: datetime,
    also: uuid.UUID,
) -> Sequence[Visit]:
    """Hold and give a worker's visits since an instant, those that never were among them."""
    await alone(tx, _person(owner_key, worker_id))
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until)
    touching = sa.and_(
        Visit.started_at > since - LONGEST_STAY,
        sa.or_(Visit.ended_at.is_(None), until > since - RE_ENTRY, Visit.left_at > since),
    )
    his, this = _his(owner_key, worker_id), Visit.id == also
    found = await tx.scalars(
        sa.select(Visit)
        .where(this if his is None else sa.or_(this, sa.and_(his, touching)))
        .order_by(Visit.started_at)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found.all()


async def rewrite(
    tx: AsyncSession,
    rows: Sequence[Visit],
    entries: Sequence[Entry],
    *,
    since: datetime,
    without: uuid.UUID,
    at: datetime,
) -> Sequence[uuid.UUID]:
    """Write a worker's visits anew by all that is known; gives the visit of each entry.

    What an entry was thought to have begun, ended or gone on with is forgotten with it, whatever
    came in between. Visits keep their ids, those of their latest entries; a visit of which nothing
    is left is void. `without` is one that is known by its entries alone. `rows` are all that touch
    `since` or come after it: of visits from then on it is said anew whether he only came back.
    """
    stays = {
        station_id: timedelta(minutes=max_stay_min)
        for station_id, max_stay_min in await tx.execute(
            sa.select(Station.id, Station.max_stay_min).where(
                Station.id.in_({row.station_id for row in rows})
            )
        )
    }
    known: dict[Came, Entry | Visit] = {
        Came(entry.at, entry.arrival.station_id, entry.arrival.max_stay): entry for entry in entries
    }
    facts: list[Fact] = [*known]
    begun = {(fact.station_id, fact.at) for fact in known}
    told = {without, *(entry.visit_id for entry in entries)}
    for row in rows:
        if row.left_at is not None:
            facts.append(Left(row.left_at, row.station_id))
        is_told = row.id in told or (row.station_id, row.started_at) in begun
        if row.voided_at is None and not is_told:
            # Nothing else tells of it any more: it is its own evidence.
            max_stay = stays[row.station_id]
            fact = Came(row.started_at, row.station_id, max_stay)
            known[fact] = row
            facts += [fact, Heard(row.stay_until - max_stay, row.station_id, max_stay)]
    ids = [row.id for row in rows]
    for use in await tx.scalars(sa.select(FacilityUse).where(FacilityUse.visit_id.in_(ids))):
        heard = {use.begun_at, use.ended_at or use.begun_at}
        facts += [Heard(each, use.station_id, stays[use.station_id]) for each in heard]
    found = await _rewritten(tx, rows, retrace(facts), known, since=since, at=at)
    return [
        found[Came(entry.at, entry.arrival.station_id, entry.arrival.max_stay)] for entry in entries
    ]


async def _rewritten(
    tx: AsyncSession,
    rows: Sequence[Visit],
    retraced: Sequence[Retraced],
    known: Mapping[Came, Entry | Visit],
    *,
    since: datetime,
    at: datetime,
) -> Mapping[Came, uuid.UUID]:
    """Write retraced visits into the rows that stood for them; gives the visit of each entry."""
    free = {row.id: row for row in rows}
    owner_key = next((row.owner_key for row in rows if row.owner_key is not None), None)
    taken: list[Visit] = []
    for one in retraced:
        ids = [_id_of(known[came]) for came in reversed(one.came)]
        taken.append(next((free.pop(each) for each in ids if each in free), None) or Visit())
    for row in free.values():
        if row.voided_at is None:
            row.voided_at, row.void_because = at, _why(row, known)
            row.ended_at, row.end_source = row.started_at, None
            row.changed_at = at
    found: dict[Came, uuid.UUID] = {}
    for row, one in zip(taken, retraced, strict=True):
        if one.ended_at is None:
            # Two of his are never open at once, not even on the way.
            await tx.flush()
        first = known[one.came[0]]
        worker_id = (first if isinstance(first, Visit) else first.arrival).worker_id
        # Of who is not known any more nobody can tell what else was his.
        if row.started_at != one.started_at or (worker_id is not None and one.started_at >= since):
            row.re_entry = worker_id is not None and comes_back(one, retraced)
        _write(row, one, first)
        if row.owner_key is None:
            row.owner_key = owner_key
        if row.id is None:
            row.id = new_id()
            tx.add(row)
        if tx.is_modified(row):
            row.changed_at = at
        found |= dict.fromkeys(one.came, row.id)
    await tx.flush()
    return found


def _id_of(known: Entry | Visit) -> uuid.UUID | None:
    return known.id if isinstance(known, Visit) else known.visit_id


def _why(row: Visit, known: Mapping[Came, Entry | Visit]) -> VoidBecause:
    is_told = any(_id_of(one) == row.id for one in known.values())
    return VoidBecause.ANOTHER if is_told else VoidBecause.NOT_OPENED


def _write(row: Visit, one: Retraced, first: Entry | Visit) -> None:
    """Let a row say what a retraced visit was; its first entry says who came and how."""
    of = first if isinstance(first, Visit) else first.arrival
    if isinstance(first, Entry):
        row.local_day = local_day(one.started_at, first.arrival.timezone)
        row.local_hour = local_hour(one.started_at, first.arrival.timezone)
    row.station_id = one.station_id
    row.worker_id, row.owner_key = of.worker_id, row.owner_key or of.owner_key
    row.occupation, row.mode, row.party_size = of.occupation, of.mode, of.party_size
    row.started_at, row.stay_until, row.ended_at = one.started_at, one.stay_until, one.ended_at
    row.voided_at = row.void_because = None
    if one.ended_at is None:
        row.end_source = None
    elif one.by_leaving:
        row.end_source, row.left_at = EndSource.WORKER, row.left_at or one.ended_at
    else:
        row.end_source = EndSource.IMPUTED if one.imputed else EndSource.OTHER_STATION


async def leave(
    tx: AsyncSession,
    visit_id: uuid.UUID,
    owner_key: bytes,
    *,
    worker_id: uuid.UUID | None = None,
    at: datetime,
) -> Visit:
    """End a visit as its worker says; past its time it ended at its cut-off instant.

    Leaving again changes nothing; leaving what had ended otherwise is kept as his word. Raises
    VisitNotFound unless the visit is his.
    """
    his: sa.ColumnElement[bool] = Visit.owner_key == owner_key
    if worker_id is not None:  # Comparing with None would make every anonymous visit his.
        his = sa.or_(his, Visit.worker_id == worker_id)
    visit = await tx.scalar(
        sa.select(Visit)
        .where(Visit.id == visit_id, his)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if visit is None:
        raise VisitNotFound
    if visit.left_at is None:
        visit.left_at = visit.changed_at = at
    if visit.ended_at is None:
        late = visit.stay_until <= at
        visit.ended_at = visit.stay_until if late else max(at, visit.started_at)
        visit.end_source = EndSource.IMPUTED if late else EndSource.WORKER
    return visit


async def renew(tx: AsyncSession, visit: Visit, *, at: datetime, max_stay: timedelta) -> None:
    """Keep a visit counted because its worker was heard of; never shortens it, never reopens it."""
    until = renewed(visit.stay_until, at, max_stay)
    await tx.execute(
        sa.update(Visit)
        .where(Visit.id == visit.id, Visit.ended_at.is_(None), Visit.stay_until < until)
        .values(stay_until=until, changed_at=at)
        .execution_options(synchronize_session=False)
    )


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
    overdue = sa.and_(Visit.ended_at.is_(None), Visit.stay_until <= at)
    # A row that somebody changes now is left to the next sweep, so that nobody waits in a circle.
    due = sa.select(Visit.id).where(overdue).with_for_update(skip_locked=True)
    result = await tx.execute(
        sa.update(Visit)
        .where(Visit.id.in_(due), overdue)
        .values(
            ended_at=Visit.stay_until,
            end_source=EndSource.IMPUTED,
            changed_at=at,
        )
        .execution_options(synchronize_session=False)
    )
    return moved(result)


def inside(station_id: Any, at: Any, *, excluding: Any = None) -> sa.ScalarSelect[int]:
    """Count the persons inside a station at an instant, as a subquery (law 10)."""
    visit = table_of(Visit).c
    query = sa.select(sa.func.coalesce(sa.func.sum(visit.party_size), 0)).where(
        visit.station_id == station_id,
        visit.ended_at.is_(None),
        visit.started_at <= at,
        visit.stay_until > at,
    )
    if excluding is not None:
        query = query.where(visit.owner_key.is_distinct_from(excluding))
    return query.scalar_subquery()
