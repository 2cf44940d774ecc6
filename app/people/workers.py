"""Workers: register, list, amend, block; consent given and withdrawn."""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.errors import Conflict, NotFound
from app.people import phones
from app.people.tables import Consent, Occupation, Worker
from app.vault import Vault


class WorkerNotFound(NotFound):
    """There is no such worker."""


class PhoneKnown(Conflict):
    """This number is registered already."""


@dataclass(frozen=True, slots=True)
class Given:
    """A consent as it was given."""

    version: str
    channel: str


def phone_of(worker: Worker, vault: Vault) -> str | None:
    """Read a worker's number; None once erased."""
    if worker.phone_sealed is None:
        return None
    return phones.unseal(vault.key("phone"), worker.phone_sealed, aad=_aad(worker.id))


def _aad(worker_id: uuid.UUID) -> str:
    return f"worker|phone|{worker_id}"


async def find_by_index(tx: AsyncSession, phone_index: bytes) -> Worker | None:
    """Find a worker by the blind index of his number."""
    return await tx.scalar(sa.select(Worker).where(Worker.phone_index == phone_index))


async def get_worker(tx: AsyncSession, worker_id: uuid.UUID) -> Worker:
    """Give a worker who was not erased; raises WorkerNotFound."""
    worker = await tx.get(Worker, worker_id)
    if worker is None or worker.erased_at is not None:
        raise WorkerNotFound
    return worker


async def register(
    tx: AsyncSession,
    vault: Vault,
    phone: str,
    *,
    occupation: Occupation | None,
    listed: bool,
    at: datetime,
) -> Worker:
    """Add a worker with a random 32-bit number of his own."""
    worker_id = new_id()
    worker = Worker(
        id=worker_id,
        number=await _free_number(tx),
        phone_sealed=phones.seal(vault.key("phone"), phone, aad=_aad(worker_id)),
        phone_index=phones.blind_index(vault.key("phone-index"), phone),
        occupation=occupation,
        listed=listed,
        created_at=at,
        changed_at=at,
    )
    tx.add(worker)
    await tx.flush()
    return worker


async def _free_number(tx: AsyncSession) -> int:
    while True:
        number = secrets.randbits(32)
        if await tx.scalar(sa.select(Worker.id).where(Worker.number == number)) is None:
            return number


async def give_consent(tx: AsyncSession, worker: Worker, given: Given, *, at: datetime) -> None:
    """Write down a consent; giving the same version again changes nothing."""
    if worker.consent_id is not None:
        current = await tx.get_one(Consent, worker.consent_id)
        if current.version == given.version:
            return
        await withdraw_consent(tx, worker, at=at)
    consent = Consent(
        id=new_id(),
        worker_id=worker.id,
        version=given.version,
        channel=given.channel,
        given_at=at,
    )
    tx.add(consent)
    await tx.flush()
    worker.consent_id = consent.id
    worker.changed_at = at


async def withdraw_consent(tx: AsyncSession, worker: Worker, *, at: datetime) -> None:
    """End the consent in force; later visits are stored without the worker."""
    if worker.consent_id is None:
        return
    await tx.execute(
        sa.update(Consent).where(Consent.id == worker.consent_id).values(withdrawn_at=at)
    )
    worker.consent_id = None
    worker.changed_at = at


async def consent_of(tx: AsyncSession, worker: Worker) -> Consent | None:
    """Give the consent in force."""
    return await tx.get(Consent, worker.consent_id) if worker.consent_id else None


async def list_number(
    tx: AsyncSession,
    vault: Vault,
    phone: str,
    *,
    occupation: Occupation | None,
    actor: Actor,
    at: datetime,
) -> Worker:
    """Register a number by hand, so that it may sign in when registration is restricted.

    A worker who registered himself becomes listed; raises PhoneKnown when he is already.
    """
    index = phones.blind_index(vault.key("phone-index"), phone)
    worker = await find_by_index(tx, index)
    if worker is None:
        worker = await register(tx, vault, phone, occupation=occupation, listed=True, at=at)
    elif worker.listed:
        raise PhoneKnown
    worker.listed = True
    worker.changed_at = at
    await record(tx, actor, Action.WORKER_LISTED, Subject("worker", worker.id), at=at)
    return worker


async def amend(
    tx: AsyncSession,
    worker: Worker,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Worker:
    """Change a worker's occupation, or block or unblock him (`blocked`, `blocked_because`)."""
    if "occupation" in changes:
        worker.occupation = changes["occupation"]
    if changes.get("blocked") is True and worker.blocked_at is None:
        worker.blocked_at = at
    if changes.get("blocked") is False:
        worker.blocked_at = None
        worker.blocked_because = None
    if "blocked_because" in changes:
        worker.blocked_because = changes["blocked_because"]
    worker.changed_at = at
    after = {name: str(value) for name, value in changes.items()}
    subject = Subject("worker", worker.id)
    await record(tx, actor, Action.WORKER_AMENDED, subject, at=at, after=after)
    return worker
