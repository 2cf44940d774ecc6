"""A person's data: export, erase, retain. The one place that knows where it lies.

Where a person's data lies is read from the foreign keys, so that a table that is added later cannot
be forgotten.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.alerts.rules import KEPT_CLOSED
from app.alerts.tables import Alert
from app.alerts.webhooks.tables import Delivery
from app.db.engine import Database
from app.db.types import Base, table_of
from app.db.upsert import moved
from app.doors.denials import DENIED_FOR
from app.doors.passes import KEPT_FOR
from app.doors.rules import LIVE
from app.doors.tables import (
    AckEvidence,
    Command,
    Controller,
    ControllerOutage,
    Door,
    DoorTicket,
    JournalEntry,
    OfflineEntry,
    Pass,
    PassDenial,
    PeopleCount,
    QuarantinedEvent,
    Scan,
    ScanAlias,
)
from app.people import workers
from app.people.tables import (
    AdminLoginFailure,
    AdminSession,
    BlockedNumber,
    LoginChallenge,
    LoginTurn,
    SmsState,
    Worker,
    WorkerSession,
)
from app.reports.tables import Renumbering
from app.vault import Vault
from app.visits.tables import FacilityUse, Visit
from app.visits.usage import User

LIVE_KEYS_FOR = timedelta(hours=24)
"""How long idempotency keys and what stands for the worker in live rows are kept (law 4)."""

SESSIONS_FOR = timedelta(days=30)
DELIVERIES_FOR = timedelta(days=30)
"""How long the log of webhooks' deliveries is kept."""
RAW_FOR = timedelta(days=400)
"""How long what the devices of the field told is kept as it came; no person stands in it."""
BATCH = 500
"""Rows changed in one transaction."""

NO_OWNER = {"owner_key": None, "idempotency_key": None, "body_hash": None}
NO_ACTOR = {"actor": None, "idempotency_key": None, "body_hash": None}
"""What the live logic needs for a day, and nobody afterwards."""

_NEVER_EXPORTED = frozenset(
    {"token_hash", "phone_sealed", "phone_index", "owner_key", "demand_key", "actor"}
)
"""Secrets and keyed hashes: of no use to their owner, of use to a thief."""


def _references() -> Iterator[tuple[sa.Table, sa.Column[Any]]]:
    """Give every column of every table that points at a worker."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if any(key.column.table.name == "workers" for key in column.foreign_keys):
                yield table, column


async def export(
    tx: AsyncSession, vault: Vault, worker_id: uuid.UUID, owner_key: bytes
) -> dict[str, Any]:
    """Give every row that is about this worker, by table, and his number in the clear."""
    worker = await workers.get_worker(tx, worker_id)
    phone = workers.phone_of(worker, vault)
    found: dict[str, Any] = {"workers": [await _row(tx, worker) | {"phone": phone}]}
    for table, column in _references():
        rows = (await tx.execute(sa.select(table).where(column == worker_id))).mappings()
        found.setdefault(table.name, []).extend(_plain_row(dict(row)) for row in rows)
    for query in _unnamed(worker, owner_key):
        name = query.get_final_froms()[0].name  # type: ignore[attr-defined]  # Always a table.
        rows = (await tx.execute(query)).mappings()
        found.setdefault(name, []).extend(_plain_row(dict(row)) for row in rows)
    return found


def _unnamed(worker: Worker, owner_key: bytes) -> Iterator[sa.Select[Any]]:
    """Select what is his without naming him: by a visit of his, or for a while by keyed hashes."""
    visits, scans, uses, challenges = (
        kind.__table__ for kind in (Visit, Scan, FacilityUse, LoginChallenge)
    )
    yield sa.select(visits).where(visits.c.owner_key == owner_key, visits.c.worker_id.is_(None))
    yield sa.select(scans).where(scans.c.owner_key == owner_key, scans.c.worker_id.is_(None))
    alone = table_of(OfflineEntry)
    yield sa.select(alone).where(alone.c.owner_key == owner_key, alone.c.worker_id.is_(None))
    own_visits = sa.select(visits.c.id).where(visits.c.worker_id == worker.id)
    actor = User(owner_key=owner_key).actor
    yield sa.select(uses).where(sa.or_(uses.c.actor == actor, uses.c.visit_id.in_(own_visits)))
    yield sa.select(
        *(challenges.c[name] for name in ("created_at", "expires_at", "used_at", "sms_state"))
    ).where(challenges.c.phone_index == worker.phone_index)


async def _row(tx: AsyncSession, worker: Worker) -> dict[str, Any]:
    table = Worker.__table__
    row = (await tx.execute(sa.select(table).where(table.c.id == worker.id))).mappings().one()
    return _plain_row(dict(row))


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name, value in row.items()
        if name not in _NEVER_EXPORTED and not isinstance(value, bytes)
    }


def _plain(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case Enum():
            return value.value
        case Decimal():
            return float(value)
        case _:
            return value


async def erase(tx: AsyncSession, worker_id: uuid.UUID, owner_key: bytes, *, at: datetime) -> None:
    """Forget a worker.

    1. His consent ends; what proves it stays, and names nobody.
    2. His codes lose his number; if he was blocked, its keyed hash stays out for a while.
    3. Whatever points at him lets go of him; what cannot, such as his sessions, goes.
    4. What is his by keyed hash, such as the visit he is in, is nobody's.
    5. His own row stays empty, so that counts of workers stay true.
    """
    worker = await workers.get_worker(tx, worker_id)
    await workers.withdraw_consent(tx, worker, at=at)
    if worker.phone_index is not None:
        # The rows stay for their day, without the number: they are what limits its messages.
        await tx.execute(
            sa.update(LoginChallenge)
            .where(LoginChallenge.phone_index == worker.phone_index)
            .values(
                phone_sealed=None,
                code_sealed=None,
                used_at=sa.func.coalesce(LoginChallenge.used_at, at),
                sms_state=sa.case(
                    (LoginChallenge.sms_state == SmsState.DUE, SmsState.FAILED),
                    else_=LoginChallenge.sms_state,
                ),
            )
        )
        if worker.blocked_at is not None:
            await workers.keep_out(tx, worker.phone_index, worker.blocked_because, at=at)
    await _renumber(tx, worker, at=at)
    await tx.flush()
    for table, column in _references():
        if column.nullable:
            await tx.execute(sa.update(table).where(column == worker_id).values({column: None}))
        else:
            await tx.execute(sa.delete(table).where(column == worker_id))
    await _forget_owner(tx, owner_key)
    worker.phone_sealed = None
    worker.phone_index = None
    worker.occupation = None
    worker.unit_id = None
    worker.listed = False
    worker.blocked_because = None
    worker.erased_at = at
    worker.changed_at = at


async def _renumber(tx: AsyncSession, worker: Worker, *, at: datetime) -> None:
    """Let a number that leads to nobody stand for him in counts of distinct workers.

    His visits are marked as changed, so that their days are counted anew with it.
    """
    old, new = worker.number, await workers.free_number(tx)
    await tx.execute(
        sa.update(Visit)
        .where(Visit.worker_id == worker.id)
        .values(erased_number=new, changed_at=at)
        .execution_options(synchronize_session=False)
    )
    tx.add(Renumbering(old_number=old, new_number=new))
    worker.number = await workers.free_number(tx)


async def _forget_owner(tx: AsyncSession, owner_key: bytes) -> None:
    own_scans = sa.select(Scan.id).where(Scan.owner_key == owner_key)
    changes = (
        # By the scan, which is indexed; settled commands are not indexed by their owner.
        sa.update(Command).where(Command.scan_id.in_(own_scans)).values(owner_key=None),
        sa.delete(ScanAlias).where(ScanAlias.owner_key == owner_key),
        sa.update(Scan).where(Scan.owner_key == owner_key).values(NO_OWNER),
        sa.update(OfflineEntry).where(OfflineEntry.owner_key == owner_key).values(owner_key=None),
        sa.update(Visit).where(Visit.owner_key == owner_key).values(owner_key=None),
        sa.update(FacilityUse)
        .where(FacilityUse.actor == User(owner_key=owner_key).actor)
        .values(NO_ACTOR),
    )
    for change in changes:
        await tx.execute(change.execution_options(synchronize_session=False))


@dataclass(frozen=True, slots=True)
class _Rule:
    """What loses its person, where, and how."""

    table: Any
    where: sa.ColumnElement[bool]
    values: dict[str, Any] | None
    """None: the row is deleted."""


def _rules(at: datetime, retention: timedelta) -> tuple[_Rule, ...]:
    day_ago, past, old = at - LIVE_KEYS_FOR, at - retention, at - SESSIONS_FOR
    return (
        _Rule(Scan, sa.and_(Scan.owner_key.is_not(None), Scan.scanned_at < day_ago), NO_OWNER),
        _Rule(
            Command,
            sa.and_(
                Command.owner_key.is_not(None),
                Command.changed_at < day_ago,
                Command.state.not_in(LIVE),
            ),
            {"owner_key": None},
        ),
        _Rule(
            FacilityUse,
            sa.and_(FacilityUse.actor.is_not(None), FacilityUse.begun_at < day_ago),
            NO_ACTOR,
        ),
        _Rule(ScanAlias, ScanAlias.created_at < day_ago, None),
        _Rule(Pass, sa.and_(Pass.issued_at < at - KEPT_FOR, ~_may_be_told_of(at, past)), None),
        # A lifting is such a row as well, for controllers that were away meanwhile.
        _Rule(PassDenial, PassDenial.until_at < at - DENIED_FOR, None),
        _Rule(DoorTicket, DoorTicket.expires_at < day_ago, None),
        _Rule(
            OfflineEntry,
            sa.and_(OfflineEntry.owner_key.is_not(None), OfflineEntry.reviewed_at < day_ago),
            {"owner_key": None},
        ),
        *_raw(at - RAW_FOR),
        _Rule(BlockedNumber, BlockedNumber.until_at < at, None),
        _Rule(LoginChallenge, LoginChallenge.created_at < day_ago, None),
        _Rule(LoginTurn, LoginTurn.taken_at < day_ago, None),
        _Rule(AdminLoginFailure, AdminLoginFailure.at < day_ago, None),
        _Rule(WorkerSession, _over(WorkerSession, old), None),
        _Rule(AdminSession, _over(AdminSession, old), None),
        _Rule(Delivery, Delivery.created_at < at - DELIVERIES_FOR, None),
        _Rule(
            Alert,
            sa.and_(
                Alert.closed_at < at - KEPT_CLOSED,
                # Told of late: it goes once that is no longer kept.
                ~sa.exists().where(Delivery.alert_id == Alert.id),
            ),
            None,
        ),
        _Rule(
            Visit,
            sa.and_(Visit.owner_key.is_not(None), Visit.ended_at < day_ago),
            {"owner_key": None},
        ),
        _Rule(
            Visit,
            sa.and_(Visit.worker_id.is_not(None), Visit.started_at < past),
            {"worker_id": None},
        ),
        _Rule(
            Visit,
            sa.and_(Visit.erased_number.is_not(None), Visit.started_at < past),
            {"erased_number": None},
        ),
        _Rule(
            Scan,
            sa.and_(Scan.worker_id.is_not(None), Scan.scanned_at < past),
            {"worker_id": None},
        ),
        _Rule(
            OfflineEntry,
            sa.and_(OfflineEntry.worker_id.is_not(None), OfflineEntry.happened_at < past),
            {"worker_id": None},
        ),
    )


def _may_be_told_of(at: datetime, past: datetime) -> sa.ColumnElement[bool]:
    """Select the passes by which a controller may have opened alone, of which it has not told yet.

    It was silent when they were given, and still is, or was until lately, or until another took its
    place: a box that is enrolled anew brings the journal along. Without consent the visit will have
    no worker, so nothing of him is kept for it; and nothing for longer than visits know theirs.
    """
    lately = at - KEPT_FOR
    at_its_station = sa.exists().where(Door.id == Pass.door_id)
    silent = at_its_station.where(
        Controller.station_id == Door.station_id,
        Controller.seen_at < Pass.issued_at,
        sa.or_(
            Controller.retired_at.is_(None),
            sa.and_(Controller.retired_at > Pass.issued_at, Controller.retired_at > lately),
        ),
    )
    was_silent = at_its_station.where(
        ControllerOutage.station_id == Door.station_id,
        ControllerOutage.from_at < Pass.issued_at,
        ControllerOutage.until_at > Pass.issued_at,
        ControllerOutage.until_at > lately,
    )
    consented = sa.exists().where(Worker.id == Pass.worker_id, Worker.consent_id.is_not(None))
    return sa.and_(Pass.issued_at >= past, consented, sa.or_(silent, was_silent))


def _raw(old: datetime) -> Iterator[_Rule]:
    """Let go of what the field told before then, but for what younger figures stand on."""
    later = aliased(PeopleCount)
    # A count is a sum since the last reset, so what was told before one counts no more.
    told_before_a_reset = sa.exists().where(
        later.station_id == PeopleCount.station_id,
        later.reset_to.is_not(None),
        later.counted_at > PeopleCount.counted_at,
        later.counted_at < old,
    )
    yield _Rule(PeopleCount, sa.and_(PeopleCount.counted_at < old, told_before_a_reset), None)
    yield _Rule(
        JournalEntry,
        sa.and_(
            JournalEntry.received_at < old,
            JournalEntry.applied_at.is_not(None),
            *(
                ~sa.exists().where(kind.entry_id == JournalEntry.id)
                for kind in (PeopleCount, OfflineEntry)
            ),
        ),
        None,
    )
    yield _Rule(QuarantinedEvent, QuarantinedEvent.received_at < old, None)
    yield _Rule(AckEvidence, AckEvidence.received_at < old, None)


def _over(session: Any, old: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(session.ended_at < old, session.expires_at < old)


async def retain(database: Database, *, at: datetime, retention_days: int) -> int:
    """Take what is past its time out of every row, in batches; gives how many rows changed.

    What is due is looked up in reads, so that the one writer is held for the changes alone.
    """
    changed = 0
    for rule in _rules(at, timedelta(days=retention_days)):
        key = sa.inspect(rule.table).primary_key[0]
        while True:
            async with database.read() as tx:
                due = (await tx.scalars(sa.select(key).where(rule.where).limit(BATCH))).all()
            if not due:
                break
            async with database.write() as tx:
                changed += await _apply(tx, rule, key.in_(due))
    return changed


async def _apply(tx: AsyncSession, rule: _Rule, which: sa.ColumnElement[bool]) -> int:
    # The condition again: a row may have changed since it was looked up.
    change: Any = sa.delete(rule.table)
    if rule.values is not None:
        change = sa.update(rule.table).values(rule.values)
    return moved(
        await tx.execute(
            change.where(which, rule.where).execution_options(synchronize_session=False)
        )
    )
