"""Workers: register, list, amend, block; consent given and withdrawn."""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.db.upsert import upsert
from app.errors import Conflict, Invalid, NotFound
from app.people import phones
from app.people.tables import BlockedNumber, Consent, Occupation, Worker
from app.people.turns import phone_turn, take_turns
from app.places.tables import Unit
from app.vault import Vault


class WorkerNotFound(NotFound):
    """There is no such worker."""


class PhoneKnown(Conflict):
    """This number is registered already."""


class PhoneNotMobile(Invalid):
    """This is not a mobile number of +86, so no code could be sent there."""


@dataclass(frozen=True, slots=True)
class NewListing:
    """A number to register by hand."""

    phone: str
    occupation: Occupation | None
    unit_id: uuid.UUID | None
    """The branch of who registers it; None: the whole city's."""


KEPT_OUT_FOR = timedelta(days=180)
"""How long a blocked number stays blocked after its worker was erased."""

CONSENT_VERSIONS = frozenset({"2026-11", "2026-12"})
"""The texts of consent that the phone page showed; each says for how long data is kept, the second
also that of a year it is kept who came where, until it is closed."""


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


async def get_in_scope(
    tx: AsyncSession, worker_id: uuid.UUID, *, within: sa.ColumnElement[bool]
) -> Worker:
    """Give a worker an administrator sees; raises WorkerNotFound for any other."""
    worker = await tx.scalar(
        sa.select(Worker).where(Worker.id == worker_id, Worker.erased_at.is_(None), within)
    )
    if worker is None:
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
    """Add a worker with a random number of his own."""
    worker_id = new_id()
    worker = Worker(
        id=worker_id,
        number=await free_number(tx),
        phone_sealed=phones.seal(vault.key("phone"), phone, aad=_aad(worker_id)),
        phone_index=phones.blind_index(vault.key("phone-index"), phone),
        occupation=occupation,
        listed=listed,
        created_at=at,
        changed_at=at,
    )
    kept_out = await tx.get(BlockedNumber, worker.phone_index)
    if kept_out is not None and kept_out.until_at > at:
        worker.blocked_at, worker.blocked_because = at, kept_out.because
    tx.add(worker)
    await tx.flush()
    return worker


NUMBER_BITS = 25
NUMBER_TRIES = 8


async def free_number(tx: AsyncSession) -> int:
    """Give a random number that no worker has: of few bits, so that sets of many are small.

    In a set the upper bits are shared. Of 2^25 numbers six million workers take a fifth; where a
    country took most of them, a few tries would fail and the next number is of 32 bits.
    """
    tries = 0
    while True:
        number = secrets.randbits(NUMBER_BITS if tries < NUMBER_TRIES else 32)
        if await tx.scalar(sa.select(Worker.id).where(Worker.number == number)) is None:
            return number
        tries += 1


async def keep_out(
    tx: AsyncSession, phone_index: bytes, because: str | None, *, at: datetime
) -> None:
    """Remember that a number was blocked, when its worker has himself forgotten."""
    statement = upsert(tx, BlockedNumber).values(
        phone_index=phone_index, because=because, until_at=at + KEPT_OUT_FOR
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["phone_index"], set_={"until_at": statement.excluded.until_at}
        )
    )


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
    tx: AsyncSession, vault: Vault, new: NewListing, *, actor: Actor, at: datetime
) -> Worker:
    """Register a number by hand, so that it may sign in when registration is restricted.

    A worker who registered himself becomes listed; raises PhoneKnown when he is already, and
    PhoneNotMobile.
    """
    if not phones.is_served(new.phone):
        raise PhoneNotMobile
    index = phones.blind_index(vault.key("phone-index"), new.phone)
    await take_turns(tx, [phone_turn(index)], at=at)
    worker = await find_by_index(tx, index)
    if worker is None:
        worker = await register(tx, vault, new.phone, occupation=new.occupation, listed=True, at=at)
    elif worker.listed:
        raise PhoneKnown
    worker.listed = True
    worker.unit_id = new.unit_id
    worker.occupation = new.occupation or worker.occupation
    worker.changed_at = at
    await record(tx, actor, Action.WORKER_LISTED, await _subject(tx, worker), at=at)
    return worker


async def _subject(tx: AsyncSession, worker: Worker) -> Subject:
    path = await tx.scalar(sa.select(Unit.path).where(Unit.id == worker.unit_id))
    return Subject("worker", worker.id, unit_path=path)


async def amend(
    tx: AsyncSession,
    worker: Worker,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Worker:
    """Change a worker's occupation, or block or unblock him (`blocked`, `blocked_because`)."""
    _apply(worker, changes, at)
    after = {name: str(value) for name, value in changes.items()}
    subject = await _subject(tx, worker)
    await record(tx, actor, Action.WORKER_AMENDED, subject, at=at, after=after)
    return worker


async def retire(tx: AsyncSession, worker: Worker, *, actor: Actor, at: datetime) -> Worker:
    """Block a worker; only he himself can erase his data. Retiring again changes nothing."""
    if worker.blocked_at is None:
        _apply(worker, {"blocked": True}, at)
        await record(tx, actor, Action.WORKER_RETIRED, await _subject(tx, worker), at=at)
    return worker


def _apply(worker: Worker, changes: Mapping[str, Any], at: datetime) -> None:
    if "occupation" in changes:
        worker.occupation = changes["occupation"]
    if changes.get("blocked") is True and worker.blocked_at is None:
        worker.blocked_at = at
    if "blocked_because" in changes:
        worker.blocked_because = changes["blocked_because"]
    if changes.get("blocked") is False:
        worker.blocked_at = None
        worker.blocked_because = None
    worker.changed_at = at
