"""What a controller did while it was alone, reviewed: the visit, and what we would have said.

An offline entry is a fact whatever we think of it (law 11): the visit is written, and beside it the
reason for which the same decision as for any scan would have refused it at that instant.
"""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors import contacts, demands, passes
from app.doors.facts import DoorFacts, door_of_pass, site_of
from app.doors.rules import (
    CommandState,
    Facts,
    Place,
    Reason,
    Refused,
    decide,
)
from app.doors.rules.journal import opened_by
from app.doors.scans import ScanDesk
from app.doors.tables import Command, JournalEntry, OfflineEntry, Pass, Scan, in_state
from app.doors.tokens import CLOCK_SLACK, PASS_LIFETIME
from app.people.sign_in import SignedInWorker
from app.people.tables import Worker
from app.places import held
from app.places.rules import Mode, local_day, local_hour, mode_at
from app.places.tables import Station
from app.visits import presence
from app.visits.tables import Visit


async def review(
    tx: AsyncSession, desk: ScanDesk, entry: JournalEntry, *, at: datetime
) -> OfflineEntry:
    """Take down one offline entry.

    1. Whose pass it was, and at which door, both held until the commit; and what held there then.
    2. What we would have said at that instant.
    3. If the relay pulsed, which demand of his that met, whatever the contact says of the door.
    4. Then the visit: at the pulse, or at a door with a contact when it opened.
    """
    assert entry.door_id is not None
    jti = entry.body.get("jti")
    happened = entry.corrected_at
    found = await _whose(tx, desk, jti, entry.door_id, happened)
    worker, door = found or (None, await site_of(tx, entry.door_id, at=happened))
    then = await held.recorded_at(tx, door.station.id, door.station.timezone, at=happened)
    mode = _mode(desk, door, then, happened)
    if then is not None and then.seats is not None:
        door = replace(door, station=replace(door.station, capacity=then.seats))
    token = await _token_reason(tx, entry, jti, worker, at=at)
    facts = await _facts_then(tx, desk, worker, door, mode, token, happened)
    decision = decide(facts)
    opened = entry.body.get("result") == "opened"
    demand = None
    if opened and worker is not None:
        demand = await demands.met(tx, worker, door.station.id, at=happened)
    row = OfflineEntry(
        entry_id=entry.id,
        station_id=door.station.id,
        door_id=door.door_id,
        worker_id=worker.worker_id if worker and worker.consented else None,
        owner_key=worker.owner_key if worker else None,
        jti=jti,
        demand_key=demand,
        opened=opened,
        reason=Reason.OK if opened else _said(entry.body.get("reason")),
        would_have_been_refused=decision.reason if isinstance(decision, Refused) else None,
        occupation=worker.occupation if worker else None,
        mode=mode.kind,
        because=mode.because,
        happened_at=happened,
        local_day=local_day(happened, door.station.timezone),
        local_hour=local_hour(happened, door.station.timezone),
        reviewed_at=at,
        changed_at=at,
    )
    tx.add(row)
    await tx.flush()
    if opened:
        entered = happened
        if door.has_contact:
            among = contacts.comparable(entry)
            intervals = await contacts.intervals(tx, door.door_id, around=happened, among=among)
            proof = opened_by(happened, intervals)
            if proof is None:
                return row
            row.opened_at = entered = proof
        await enter(tx, row, started_at=entered, at=at)
    return row


def _mode(desk: ScanDesk, door: DoorFacts, then: held.Then | None, at: datetime) -> Mode:
    """Say what held at a door: as it is recorded, whatever was changed or withdrawn since (law 1).

    Else by the rules, which nobody has changed since the record ends: they were read before it.
    """
    if then is None:
        return mode_at(door.rules, desk.calendar.current, at)
    # Until when is not recorded, and of what is past no decision asks.
    return Mode(then.kind, then.because, until=None, calendar_known=True)


async def _whose(
    tx: AsyncSession, desk: ScanDesk, jti: Any, door_id: uuid.UUID, at: datetime
) -> tuple[SignedInWorker, DoorFacts] | None:
    if not isinstance(jti, str):
        return None
    return await door_of_pass(tx, desk.vault.key("owner"), jti, door_id, at=at)


def _said(reason: Any) -> Reason:
    try:
        return Reason(reason)
    except ValueError:
        return Reason.CONTROLLER_OFFLINE


async def _token_reason(
    tx: AsyncSession, entry: JournalEntry, jti: Any, worker: SignedInWorker | None, *, at: datetime
) -> Reason:
    """A pass that we gave, shown once and in its time, opens; of any other we would say why not.

    Of one that may have been ours, and forgotten since, we say nothing.
    """
    if worker is None:
        return Reason.OK if await _forgotten(tx, entry, jti, at=at) else Reason.TOKEN_INVALID
    shown_before = sa.or_(
        # By its owner, as the index is: the station's row is held meanwhile.
        sa.exists().where(
            Scan.owner_key == worker.owner_key, Scan.idempotency_key == passes.key_of(jti)
        ),
        sa.exists().where(
            OfflineEntry.jti == jti,
            OfflineEntry.opened,
            OfflineEntry.entry_id != entry.id,
        ),
    )
    query = sa.select(Pass.issued_at, Pass.expires_at, shown_before.label("shown_before"))
    row = (await tx.execute(query.where(Pass.id == jti))).one()
    if row.shown_before or not _in_its_time(entry, row.issued_at, row.expires_at):
        return Reason.TOKEN_EXPIRED
    return Reason.OK


async def _forgotten(tx: AsyncSession, entry: JournalEntry, jti: Any, *, at: datetime) -> bool:
    """Whether a pass that we do not know may be one that is no longer kept."""
    if not isinstance(jti, str) or await tx.get(Pass, jti) is not None:
        return False
    if entry.error_ms is None:
        return True
    earliest = entry.corrected_at - timedelta(milliseconds=entry.error_ms)
    return earliest - PASS_LIFETIME - CLOCK_SLACK < at - passes.KEPT_FOR


def _in_its_time(entry: JournalEntry, issued_at: datetime, expires_at: datetime) -> bool:
    """Whether a pass may have been good when it was shown, as well as that instant is known."""
    if entry.error_ms is None:
        return True
    error = timedelta(milliseconds=entry.error_ms)
    earliest, latest = entry.corrected_at - error, entry.corrected_at + error
    return issued_at <= latest + CLOCK_SLACK and earliest < expires_at


async def _facts_then(
    tx: AsyncSession,
    desk: ScanDesk,
    worker: SignedInWorker | None,
    door: DoorFacts,
    mode: Mode,
    token: Reason,
    at: datetime,
) -> Facts:
    """Gather what a decision at that instant would have looked at."""
    station = door.station
    then = await _then(tx, worker, station.id, at)
    return Facts(
        token=token,
        worker_blocked=then.blocked_at is not None and then.blocked_at <= at,
        door_retired=door.retired_at is not None and door.retired_at <= at,
        mode=mode,
        scans_last_minute=then.scans_last_minute,
        scan_limit=desk.limits.scans_per_minute,
        doors_last_hour=then.doors_last_hour,
        door_limit=desk.limits.doors_per_hour,
        here=Place(station.latitude, station.longitude, at),
        last_opened=then.last_opened,
        inside=then.inside,
        capacity=station.capacity,
        counted_already=then.counted_already,
    )


@dataclass(frozen=True, slots=True)
class _Then:
    blocked_at: datetime | None = None
    scans_last_minute: int = 0
    doors_last_hour: int = 0
    last_opened: Place | None = None
    inside: int = 0
    counted_already: bool = False


async def _then(
    tx: AsyncSession, worker: SignedInWorker | None, station_id: uuid.UUID, at: datetime
) -> _Then:
    """Read what the worker had done by then, and who was inside."""
    his_visit: sa.ColumnElement[bool] = sa.false()
    his_scan: sa.ColumnElement[bool] = sa.false()
    he: sa.ColumnElement[bool] = sa.false()
    if worker is not None:
        he = Worker.id == worker.worker_id
        his_visit = Visit.owner_key == worker.owner_key
        his_scan = Scan.owner_key == worker.owner_key
        if worker.consented:
            his_visit = sa.or_(his_visit, Visit.worker_id == worker.worker_id)
            his_scan = sa.or_(his_scan, Scan.worker_id == worker.worker_id)
    there = sa.and_(
        Visit.station_id == station_id,
        Visit.started_at <= at,
        sa.func.coalesce(Visit.ended_at, Visit.stay_until) > at,
    )
    opened = sa.and_(
        his_scan,
        Scan.scanned_at <= at,
        in_state(CommandState.CLAIMED, CommandState.EXECUTED, CommandState.UNKNOWN),
    )
    row = (
        await tx.execute(
            sa.select(
                sa.select(Worker.blocked_at).where(he).scalar_subquery().label("blocked_at"),
                sa.select(sa.func.count(Scan.id))
                .where(his_scan, Scan.scanned_at.between(at - timedelta(minutes=1), at))
                .scalar_subquery()
                .label("scans_last_minute"),
                sa.select(sa.func.count(Scan.door_id.distinct()))
                .join(Command, Command.scan_id == Scan.id)
                .where(opened, Scan.scanned_at > at - timedelta(hours=1))
                .scalar_subquery()
                .label("doors_last_hour"),
                sa.select(sa.func.coalesce(sa.func.sum(Visit.party_size), 0))
                .where(there, sa.not_(sa.func.coalesce(his_visit, sa.false())))
                .scalar_subquery()
                .label("inside"),
                sa.exists().where(there, his_visit).label("counted_already"),
            )
        )
    ).one()
    last = (
        await tx.execute(
            sa.select(Scan.scanned_at, Station.latitude, Station.longitude)
            .join(Station, Station.id == Scan.station_id)
            .join(Command, Command.scan_id == Scan.id)
            .where(opened, Scan.station_id != station_id)
            .order_by(Scan.scanned_at.desc())
            .limit(1)
        )
    ).one_or_none()
    return _Then(
        row.blocked_at,
        row.scans_last_minute,
        row.doors_last_hour,
        Place(last.latitude, last.longitude, last.scanned_at) if last else None,
        row.inside,
        row.counted_already,
    )


async def enter(tx: AsyncSession, row: OfflineEntry, *, started_at: datetime, at: datetime) -> None:
    """Open the visit of an offline entry, at the instant at which its door opened."""
    station = await tx.get_one(Station, row.station_id)
    arrival = presence.Arrival(
        station_id=row.station_id,
        timezone=station.timezone,
        owner_key=row.owner_key,
        worker_id=row.worker_id,
        occupation=row.occupation,
        mode=row.mode,
        party_size=1,
        max_stay=timedelta(minutes=station.max_stay_min),
    )
    row.visit_id = await presence.open_visit(tx, arrival, started_at=started_at, at=at)
    row.changed_at = at
    await tx.flush()


async def pulses(
    tx: AsyncSession,
    door_id: uuid.UUID,
    *,
    since: datetime,
    until: datetime | None,
    among: sa.ColumnElement[bool],
) -> list[OfflineEntry]:
    """Give the pulses at a door in a time, those of which no contact has spoken among them.

    `among`: of what events, such as those that can be compared with a contact's.
    """
    query = (
        sa.select(OfflineEntry)
        .join(JournalEntry, JournalEntry.id == OfflineEntry.entry_id)
        .where(
            OfflineEntry.door_id == door_id,
            OfflineEntry.happened_at >= since,
            OfflineEntry.opened,
            among,
        )
        .order_by(OfflineEntry.happened_at)
    )
    if until is not None:
        query = query.where(OfflineEntry.happened_at <= until)
    return list(await tx.scalars(query))
