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

from app.db.engine import Database
from app.db.types import Base
from app.db.upsert import moved
from app.doors.rules import LIVE
from app.doors.tables import Command, Scan
from app.people import workers
from app.people.tables import LoginChallenge, Worker, WorkerSession
from app.vault import Vault
from app.visits.tables import FacilityUse, Visit

LIVE_KEYS_FOR = timedelta(hours=24)
"""How long idempotency keys and what stands for the worker in live rows are kept (law 4)."""

SESSIONS_FOR = timedelta(days=30)
BATCH = 1000

_NEVER_EXPORTED = frozenset(
    {"token_hash", "phone_sealed", "phone_index", "owner_key", "demand_key"}
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
    # The visit he is in without consent is his to see, as long as it is known to be his.
    open_visits = sa.select(Visit.__table__).where(
        Visit.owner_key == owner_key, Visit.worker_id.is_(None)
    )
    for row in (await tx.execute(open_visits)).mappings():
        found["visits"].append(_plain_row(dict(row)))
    if worker.phone_index is not None:
        challenges = sa.select(LoginChallenge.created_at, LoginChallenge.used_at).where(
            LoginChallenge.phone_index == worker.phone_index
        )
        rows = (await tx.execute(challenges)).mappings()
        found["login_challenges"] = [_plain_row(dict(row)) for row in rows]
    return found


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
    """Forget a worker: number, occupation, consent, sessions, and who made which visit.

    What happened stays, as counts of nobody; an empty row keeps the foreign keys whole.
    """
    worker = await workers.get_worker(tx, worker_id)
    if worker.phone_index is not None:
        await tx.execute(
            sa.delete(LoginChallenge).where(LoginChallenge.phone_index == worker.phone_index)
        )
    for table, column in _references():
        if column.nullable:
            await tx.execute(sa.update(table).where(column == worker_id).values({column: None}))
        else:
            await tx.execute(sa.delete(table).where(column == worker_id))
    await _forget_owner(tx, owner_key)
    worker.phone_sealed = None
    worker.phone_index = None
    worker.occupation = None
    worker.consent_id = None
    worker.blocked_because = None
    worker.erased_at = at
    worker.changed_at = at


async def _forget_owner(tx: AsyncSession, owner_key: bytes) -> None:
    await tx.execute(
        sa.update(Visit).where(Visit.owner_key == owner_key).values(owner_key=None, occupation=None)
    )
    await tx.execute(
        sa.update(Scan)
        .where(Scan.owner_key == owner_key)
        .values(owner_key=None, idempotency_key=None, body_hash=None, occupation=None)
    )
    await tx.execute(
        sa.update(Command).where(Command.owner_key == owner_key).values(owner_key=None)
    )
    await tx.execute(
        sa.update(FacilityUse)
        .where(FacilityUse.actor == f"worker:{owner_key.hex()}")
        .values(actor=None, idempotency_key=None, body_hash=None)
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What loses its person, where, and how."""

    table: Any
    where: sa.ColumnElement[bool]
    values: dict[str, Any] | None
    """None: the row is deleted."""


def _rules(at: datetime, retention: timedelta) -> tuple[_Rule, ...]:
    keys_before, past = at - LIVE_KEYS_FOR, at - retention
    no_key = {"owner_key": None, "idempotency_key": None, "body_hash": None}
    return (
        _Rule(Scan, sa.and_(Scan.owner_key.is_not(None), Scan.scanned_at < keys_before), no_key),
        _Rule(
            Command,
            sa.and_(
                Command.owner_key.is_not(None),
                Command.created_at < keys_before,
                Command.state.not_in(LIVE),
            ),
            {"owner_key": None},
        ),
        _Rule(
            FacilityUse,
            sa.and_(FacilityUse.actor.is_not(None), FacilityUse.begun_at < keys_before),
            {"actor": None, "idempotency_key": None, "body_hash": None},
        ),
        _Rule(LoginChallenge, LoginChallenge.created_at < keys_before, None),
        _Rule(WorkerSession, WorkerSession.expires_at < at - SESSIONS_FOR, None),
        _Rule(
            Visit,
            sa.and_(Visit.worker_id.is_not(None), Visit.started_at < past),
            {"worker_id": None},
        ),
        _Rule(
            Scan,
            sa.and_(Scan.worker_id.is_not(None), Scan.scanned_at < past),
            {"worker_id": None},
        ),
    )


async def retain(database: Database, *, at: datetime, retention_days: int) -> int:
    """Take the person out of every row past its time, in batches; gives how many rows changed."""
    changed = 0
    for rule in _rules(at, timedelta(days=retention_days)):
        while True:
            async with database.write() as tx:
                batch = await _apply(tx, rule)
            changed += batch
            if batch < BATCH:
                break
    return changed


async def _apply(tx: AsyncSession, rule: _Rule) -> int:
    key = sa.inspect(rule.table).primary_key[0]
    ids = sa.select(key).where(rule.where).limit(BATCH).scalar_subquery()
    if rule.values is None:
        return moved(await tx.execute(sa.delete(rule.table).where(key.in_(ids))))
    statement = sa.update(rule.table).where(key.in_(ids)).values(**rule.values)
    return moved(await tx.execute(statement.execution_options(synchronize_session=False)))
