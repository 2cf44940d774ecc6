"""Sign-in by telephone: a number, a one-time code, a session; with all its limits (T10-T13).

Known and unknown numbers, and numbers over budget, get the same answer: whether a message goes out
is written in the challenge's row, and messages are sent from the rows, after the commit.
"""

import hmac
import logging
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.engine import Database
from app.db.upsert import moved
from app.errors import Problem, TooMany, Unauthorized
from app.people import phones, workers
from app.people.rules import code_mac, owner_key
from app.people.secrets import hash_of
from app.people.sms import SmsFailed, SmsSender
from app.people.tables import LoginChallenge, Occupation, SmsState, Worker, WorkerSession
from app.vault import Vault

log = logging.getLogger(__name__)

CODE_LIFETIME = timedelta(minutes=5)
BREAKER_SENT = 200
"""The breaker looks at so many messages of a door or network."""
BREAKER_MIN_SHARE = 0.2
"""Below this share of codes that were used, somebody burns our messages (promises T11)."""
SEND_LEASE = timedelta(minutes=4)
"""A message that could not be sent within this time is no longer worth sending."""


class CodeWrong(Unauthorized):
    """This code is wrong, used or expired; please ask for a new one."""


class TooManyWrongCodes(TooMany):
    """Too many wrong codes for this number; please wait."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """How many codes may be sent, and tried."""

    phone_minute: int
    phone_hour: int
    phone_day: int
    door_hour: int
    network_hour: int | None
    """None: not limited, in development."""
    tries: int
    failures_day: int
    listed_only: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for a code, from where."""

    phone: str
    network: str
    door_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class SignedInWorker:
    """Who scans."""

    worker_id: uuid.UUID
    owner_key: bytes
    occupation: Occupation | None
    consented: bool
    blocked: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What a worker sends back."""

    challenge_id: str
    code: str
    occupation: Occupation | None
    consent: workers.Given | None


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session, told once."""

    token: str
    expires_at: datetime
    worker: Worker


async def request_code(
    tx: AsyncSession, vault: Vault, asked: Asked, budgets: Budgets, *, at: datetime
) -> str:
    """Make a challenge; gives its id. Its message goes out later, if it may.

    1. Look the number up, whatever becomes of it.
    2. Count the budgets from the rows: per number, door and network; look at the breakers.
    3. Write the challenge in any case: all answers look alike.
    """
    index = phones.blind_index(vault.key("phone-index"), asked.phone)
    worker = await workers.find_by_index(tx, index)
    withheld = not phones.is_served(asked.phone) or (
        budgets.listed_only and (worker is None or not worker.listed)
    )
    if not withheld:
        withheld = await _over_budget(tx, index, asked, budgets, at=at)
    challenge_id, code = secrets.token_hex(16), f"{secrets.randbelow(10**6):06d}"
    await tx.execute(
        sa.insert(LoginChallenge).values(
            id=challenge_id,
            phone_index=index,
            phone_sealed=phones.seal(vault.key("phone"), asked.phone, aad=challenge_id),
            code_sealed=phones.seal(vault.key("phone"), code, aad=f"code|{challenge_id}"),
            code_mac=code_mac(vault.key("otp-pepper"), challenge_id, code),
            door_id=asked.door_id,
            network=asked.network,
            sms_state=SmsState.WITHHELD if withheld else SmsState.DUE,
            failures=0,
            created_at=at,
            expires_at=at + CODE_LIFETIME,
        )
    )
    return challenge_id


async def _over_budget(
    tx: AsyncSession, index: bytes, asked: Asked, budgets: Budgets, *, at: datetime
) -> bool:
    sent = LoginChallenge.sms_state != SmsState.WITHHELD

    def count(where: sa.ColumnElement[bool], within: timedelta) -> sa.ScalarSelect[int]:
        return (
            sa.select(sa.func.count())
            .where(where, sent, LoginChallenge.created_at > at - within)
            .scalar_subquery()
        )

    own = LoginChallenge.phone_index == index
    door = LoginChallenge.door_id == asked.door_id
    network = LoginChallenge.network == asked.network
    hour = timedelta(hours=1)
    row = (
        await tx.execute(
            sa.select(
                count(own, timedelta(minutes=1)).label("minute"),
                count(own, hour).label("hour"),
                count(own, timedelta(days=1)).label("day"),
                count(door, hour).label("door"),
                count(network, hour).label("network"),
            )
        )
    ).one()
    if row.minute >= budgets.phone_minute or row.hour >= budgets.phone_hour:
        return True
    if row.day >= budgets.phone_day:
        return True
    if asked.door_id is not None and (
        row.door >= budgets.door_hour or await _is_burnt(tx, door, at=at)
    ):
        return True
    if budgets.network_hour is None:
        return False
    return row.network >= budgets.network_hour or await _is_burnt(tx, network, at=at)


async def _is_burnt(tx: AsyncSession, where: sa.ColumnElement[bool], *, at: datetime) -> bool:
    """Whether hardly any of a door's or network's last codes were used (T11)."""
    last = (
        sa.select(LoginChallenge.used_at)
        .where(
            where,
            LoginChallenge.sms_state == SmsState.SENT,
            LoginChallenge.created_at > at - timedelta(days=1),
        )
        .order_by(LoginChallenge.created_at.desc())
        .limit(BREAKER_SENT)
        .subquery()
    )
    row = (
        await tx.execute(
            sa.select(
                sa.func.count().label("sent"), sa.func.count(last.c.used_at).label("used")
            ).select_from(last)
        )
    ).one()
    full: bool = row.sent >= BREAKER_SENT
    return full and row.used < BREAKER_MIN_SHARE * row.sent


async def verify(
    tx: AsyncSession,
    vault: Vault,
    proof: Proof,
    budgets: Budgets,
    *,
    session_lifetime: timedelta,
    at: datetime,
) -> NewSession | Problem:
    """Trade a right code for a session; registers a new worker.

    1. Take the challenge's row; unknown, used, expired or worn out: CodeWrong.
    2. Ten wrong codes for this number within a day, over all challenges: wait.
    3. Compare by the keyed hash; a wrong code is counted.
    4. Use the challenge up; find or register the worker; note consent; open a session.

    A refusal is returned, not raised: the failed try must be committed.
    """
    challenge = await tx.scalar(
        sa.select(LoginChallenge).where(LoginChallenge.id == proof.challenge_id).with_for_update()
    )
    if challenge is None or challenge.used_at is not None or at >= challenge.expires_at:
        return CodeWrong()
    if challenge.failures >= budgets.tries:
        return CodeWrong()
    if wait_s := await _wait_s(tx, challenge.phone_index, budgets, at=at):
        return TooManyWrongCodes(retry_after_s=wait_s)
    mac = code_mac(vault.key("otp-pepper"), challenge.id, proof.code)
    if not hmac.compare_digest(mac, challenge.code_mac):
        challenge.failures += 1
        return CodeWrong()
    challenge.used_at = at
    challenge.code_sealed = None
    worker = await workers.find_by_index(tx, challenge.phone_index)
    if budgets.listed_only and (worker is None or not worker.listed):
        return CodeWrong()
    if worker is None:
        phone = phones.unseal(vault.key("phone"), challenge.phone_sealed, aad=challenge.id)
        worker = await workers.register(
            tx, vault, phone, occupation=proof.occupation, listed=False, at=at
        )
    elif proof.occupation is not None:
        worker.occupation = proof.occupation
        worker.changed_at = at
    if proof.consent is not None:
        await workers.give_consent(tx, worker, proof.consent, at=at)
    return await _open_session(tx, worker, lifetime=session_lifetime, at=at)


async def _wait_s(tx: AsyncSession, phone_index: bytes, budgets: Budgets, *, at: datetime) -> int:
    """Give how long this number must wait: from the tenth failure of a day, doubling."""
    row = (
        await tx.execute(
            sa.select(
                sa.func.coalesce(sa.func.sum(LoginChallenge.failures), 0).label("failures"),
                sa.func.max(LoginChallenge.created_at).label("last"),
            ).where(
                LoginChallenge.phone_index == phone_index,
                LoginChallenge.failures > 0,
                LoginChallenge.created_at > at - timedelta(days=1),
            )
        )
    ).one()
    over = int(row.failures) - budgets.failures_day
    if over < 0 or row.last is None:
        return 0
    wait = timedelta(seconds=min(60 * 2 ** min(over, 10), 6 * 3600))
    return max(0, int((row.last + wait - at).total_seconds()))


async def _open_session(
    tx: AsyncSession, worker: Worker, *, lifetime: timedelta, at: datetime
) -> NewSession:
    token = secrets.token_urlsafe(32)
    await tx.execute(
        sa.insert(WorkerSession).values(
            token_hash=hash_of(token),
            worker_id=worker.id,
            created_at=at,
            expires_at=at + lifetime,
        )
    )
    await tx.flush()
    return NewSession(token, at + lifetime, worker)


async def find_worker(
    tx: AsyncSession, token: str, *, secret: bytes, at: datetime, lock: bool = False
) -> SignedInWorker | None:
    """Say whose session this is, in one select; `lock` takes the worker's row for a scan."""
    query = (
        sa.select(Worker.id, Worker.occupation, Worker.consent_id, Worker.blocked_at)
        .join(WorkerSession, WorkerSession.worker_id == Worker.id)
        .where(
            WorkerSession.token_hash == hash_of(token),
            WorkerSession.ended_at.is_(None),
            WorkerSession.expires_at > at,
            Worker.erased_at.is_(None),
        )
    )
    if lock:
        query = query.with_for_update(key_share=True, of=Worker)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    return SignedInWorker(
        worker_id=row.id,
        owner_key=owner_key(secret, row.id),
        occupation=row.occupation,
        consented=row.consent_id is not None,
        blocked=row.blocked_at is not None,
    )


async def sign_out(tx: AsyncSession, token: str, *, at: datetime) -> None:
    """End a session."""
    await tx.execute(
        sa.update(WorkerSession)
        .where(WorkerSession.token_hash == hash_of(token), WorkerSession.ended_at.is_(None))
        .values(ended_at=at)
    )


@dataclass(frozen=True, slots=True)
class _Message:
    challenge_id: str
    phone: str
    code: str


async def send_due(
    database: Database, sender: SmsSender, *, vault: Vault, domain: str, now: Now
) -> int:
    """Send the messages that wait in the rows; gives how many went out.

    A row is taken (marked sent, its code wiped) before its message goes out: a crash in between
    loses a message, and its worker asks again; it never sends one twice.
    """
    sent = 0
    for message in await _due(database, vault, at=now()):
        if not await _take(database, message.challenge_id):
            continue
        text = f"【工会驿站】验证码 {message.code}，5分钟内有效。请只在 {domain} 输入，勿告诉他人。"
        try:
            await sender.send(message.phone, text, message.code)
            sent += 1
        except (SmsFailed, OSError) as error:
            log.warning("sms failed error=%s", type(error).__name__)
            await _mark(database, message.challenge_id, SmsState.FAILED)
    return sent


async def _due(database: Database, vault: Vault, *, at: datetime) -> Sequence[_Message]:
    key = vault.key("phone")
    async with database.read() as tx:
        rows = await tx.scalars(
            sa.select(LoginChallenge)
            .where(
                LoginChallenge.sms_state == SmsState.DUE,
                LoginChallenge.created_at > at - SEND_LEASE,
            )
            .order_by(LoginChallenge.created_at)
            .limit(100)
        )
        return [
            _Message(
                row.id,
                phones.unseal(key, row.phone_sealed, aad=row.id),
                phones.unseal(key, row.code_sealed, aad=f"code|{row.id}"),
            )
            for row in rows
            if row.code_sealed is not None
        ]


async def _take(database: Database, challenge_id: str) -> bool:
    async with database.write() as tx:
        result = await tx.execute(
            sa.update(LoginChallenge)
            .where(LoginChallenge.id == challenge_id, LoginChallenge.sms_state == SmsState.DUE)
            .values(sms_state=SmsState.SENT, code_sealed=None)
        )
        return moved(result) == 1


async def _mark(database: Database, challenge_id: str, state: SmsState) -> None:
    async with database.write() as tx:
        changes: dict[str, Any] = {"sms_state": state}
        await tx.execute(
            sa.update(LoginChallenge).where(LoginChallenge.id == challenge_id).values(**changes)
        )
