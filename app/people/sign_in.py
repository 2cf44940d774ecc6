"""Sign-in by telephone: a number, a one-time code, a session; with all its limits (T10-T13).

Known and unknown numbers, and numbers over budget, get the same answer by the same statements:
whether a message goes out is written in the challenge's row, and messages are sent from the rows,
after the commit.
"""

import hmac
import logging
import math
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.engine import Database
from app.db.types import Instant, table_of
from app.db.upsert import moved
from app.errors import Problem, TooMany, Unauthorized
from app.people import phones, workers
from app.people.rules import code_mac, owner_key
from app.people.secrets import hash_of
from app.people.sms import SmsFailed, SmsSender
from app.people.tables import (
    LoginChallenge,
    Occupation,
    SmsState,
    Worker,
    WorkerSession,
)
from app.people.turns import phone_turn, take_turns
from app.vault import Vault

log = logging.getLogger(__name__)

CODE_LIFETIME = timedelta(minutes=5)
BREAKER_SENT = 200
"""The breaker looks at so many messages of a door or network."""
BREAKER_MIN_SHARE = 0.2
"""Below this share of codes that were used, somebody burns our messages (promises T11)."""
SEND_UNTIL = timedelta(minutes=4)
"""A message older than this is no longer worth sending: its code is about to end."""
SEND_AGAIN = timedelta(minutes=1)
"""A message that a process took and did not settle is taken again after so long."""
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)
"""After too many wrong codes: doubling, but never so long that it locks a victim out (T39)."""


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

    1. Take the turns of the network, the door and the number, so that requests that come at once
       are counted one after another.
    2. Look the number up and count every budget from the rows, whatever becomes of it.
    3. Write the challenge in any case: all answers look alike.
    """
    index = phones.blind_index(vault.key("phone-index"), asked.phone)
    turns = [f"network:{asked.network}", phone_turn(index)]
    if asked.door_id is not None:
        turns.append(f"door:{asked.door_id}")
    await take_turns(tx, turns, at=at)
    worker = await workers.find_by_index(tx, index)
    over = await _over_budget(tx, index, asked, budgets, at=at)
    unlisted = budgets.listed_only and (worker is None or not worker.listed)
    withheld = over or unlisted or not phones.is_served(asked.phone)
    challenge_id, code = secrets.token_hex(16), f"{secrets.randbelow(10**6):06d}"
    sealed = phones.seal(vault.key("phone"), code, aad=f"code|{challenge_id}")
    await tx.execute(
        sa.insert(LoginChallenge).values(
            id=challenge_id,
            phone_index=index,
            phone_sealed=phones.seal(vault.key("phone"), asked.phone, aad=challenge_id),
            code_sealed=None if withheld else sealed,
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
    own = LoginChallenge.phone_index == index
    hour, day = timedelta(hours=1), timedelta(days=1)
    budget = [
        (own, timedelta(minutes=1), budgets.phone_minute),
        (own, hour, budgets.phone_hour),
        (own, day, budgets.phone_day),
    ]
    crowds = []
    if asked.door_id is not None:
        door = LoginChallenge.door_id == asked.door_id
        crowds.append(door)
        budget.append((door, hour, budgets.door_hour))
    if budgets.network_hour is not None:
        network = LoginChallenge.network == asked.network
        crowds.append(network)
        budget.append((network, hour, budgets.network_hour))
    counts = [_count_sent(where, since=at - within) for where, within, _ in budget]
    burnt = [share for crowd in crowds for share in _last_sent(crowd, at=at)]
    found = list((await tx.execute(sa.select(*counts, *burnt))).one())
    used, shares = found[: len(counts)], found[len(counts) :]
    spent = any(n >= limit for n, (_, _, limit) in zip(used, budget, strict=True))
    return spent or any(
        sent >= BREAKER_SENT and verified < BREAKER_MIN_SHARE * sent
        for sent, verified in zip(shares[::2], shares[1::2], strict=True)
    )


def _count_sent(where: sa.ColumnElement[bool], *, since: datetime) -> sa.ScalarSelect[int]:
    return (
        sa.select(sa.func.count())
        .where(where, LoginChallenge.sms_state != SmsState.WITHHELD)
        .where(LoginChallenge.created_at > since)
        .scalar_subquery()
    )


def _last_sent(where: sa.ColumnElement[bool], *, at: datetime) -> list[sa.ScalarSelect[int]]:
    """Count a door's or network's last messages of a day, and how many of their codes came back.

    When hardly any did, somebody burns messages there (T11); it recovers as codes come back, or as
    the day passes.
    """
    last = (
        sa.select(LoginChallenge.used_at)
        .where(where, LoginChallenge.sms_state == SmsState.SENT)
        .where(LoginChallenge.created_at > at - timedelta(days=1))
        .order_by(LoginChallenge.created_at.desc())
        .limit(BREAKER_SENT)
        .subquery()
    )
    return [
        sa.select(counted).select_from(last).scalar_subquery()
        for counted in (sa.func.count(), sa.func.count(last.c.used_at))
    ]


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
    3. Compare by the keyed hash; a wrong code is counted. A code that was never sent is no code.
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
    await take_turns(tx, [phone_turn(challenge.phone_index)], at=at)
    if wait_s := await _wait_s(tx, challenge.phone_index, budgets, at=at):
        return TooManyWrongCodes(retry_after_s=wait_s)
    mac = code_mac(vault.key("otp-pepper"), challenge.id, proof.code)
    right = hmac.compare_digest(mac, challenge.code_mac)
    if not right or challenge.sms_state is SmsState.WITHHELD:
        challenge.failures += 1
        challenge.failed_at = at
        return CodeWrong()
    challenge.used_at = at
    challenge.code_sealed = None
    worker = await workers.find_by_index(tx, challenge.phone_index)
    if budgets.listed_only and (worker is None or not worker.listed):
        return CodeWrong()
    if worker is None:
        assert challenge.phone_sealed is not None  # Only an erasure takes it, and uses it up.
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
    failures, last = (
        await tx.execute(
            sa.select(
                sa.func.coalesce(sa.func.sum(LoginChallenge.failures), 0),
                sa.func.max(LoginChallenge.failed_at, type_=LoginChallenge.failed_at.type),
            ).where(
                LoginChallenge.phone_index == phone_index,
                LoginChallenge.created_at > at - timedelta(days=1),
            )
        )
    ).one()
    over = int(failures) - budgets.failures_day
    if over < 0 or last is None:
        return 0
    wait = min(FIRST_WAIT * 2 ** min(over, 10), LONGEST_WAIT)
    left: timedelta = last + wait - at
    return max(0, math.ceil(left.total_seconds()))


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


@lru_cache(maxsize=1)
def session_query() -> Any:
    """Select whose session `:token_hash` is at `:at`, for `signed_in`; others may join what they
    need in the same statement."""
    worker, session = table_of(Worker), table_of(WorkerSession)
    return (
        sa.select(
            worker.c.id.label("worker_id"),
            worker.c.occupation,
            worker.c.consent_id,
            worker.c.blocked_at,
        )
        .join_from(worker, session, session.c.worker_id == worker.c.id)
        .where(
            session.c.token_hash == sa.bindparam("token_hash"),
            session.c.ended_at.is_(None),
            session.c.expires_at > sa.bindparam("at", type_=Instant()),
            worker.c.erased_at.is_(None),
        )
    )


@lru_cache(maxsize=1)
def _locking_query() -> Any:
    return session_query().with_for_update(key_share=True, of=table_of(Worker))


def signed_in(row: Any, *, secret: bytes) -> SignedInWorker:
    """Read the columns of `session_query`."""
    return SignedInWorker(
        worker_id=row.worker_id,
        owner_key=owner_key(secret, row.worker_id),
        occupation=row.occupation,
        consented=row.consent_id is not None,
        blocked=row.blocked_at is not None,
    )


async def find_worker(
    tx: AsyncSession, token: str, *, secret: bytes, at: datetime, lock: bool = False
) -> SignedInWorker | None:
    """Say whose session this is, in one select; `lock` takes the worker's row for a scan."""
    query = _locking_query() if lock else session_query()
    row = (await tx.execute(query, {"token_hash": hash_of(token), "at": at})).one_or_none()
    return None if row is None else signed_in(row, secret=secret)


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

    A row is taken before its message goes out and marked sent afterwards. Whoever takes it and dies
    leaves it to the next run: a message may go out twice, with the same code, but none is lost.
    """
    await _give_up(database, at=now())
    sent = 0
    for message in await _due(database, vault, at=now()):
        if not await _take(database, message.challenge_id, at=now()):
            continue
        text = f"【工会驿站】验证码 {message.code}，5分钟内有效。仅在 {domain} 输入，勿告诉他人。"
        try:
            await sender.send(message.phone, text, message.code)
        except (SmsFailed, OSError) as error:
            # The row stays due; the job tries again until the code is about to end.
            log.warning("sms failed error=%s", type(error).__name__)
            continue
        await _settle(database, LoginChallenge.id == message.challenge_id, SmsState.SENT)
        sent += 1
    return sent


def _waiting(at: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        LoginChallenge.sms_state == SmsState.DUE,
        LoginChallenge.created_at > at - SEND_UNTIL,
        sa.or_(
            LoginChallenge.sms_taken_at.is_(None),
            LoginChallenge.sms_taken_at <= at - SEND_AGAIN,
        ),
    )


async def _due(database: Database, vault: Vault, *, at: datetime) -> Sequence[_Message]:
    key = vault.key("phone")
    async with database.read() as tx:
        rows = await tx.scalars(
            sa.select(LoginChallenge)
            .where(_waiting(at))
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
            if row.code_sealed is not None and row.phone_sealed is not None
        ]


async def _take(database: Database, challenge_id: str, *, at: datetime) -> bool:
    async with database.write() as tx:
        result = await tx.execute(
            sa.update(LoginChallenge)
            .where(LoginChallenge.id == challenge_id, _waiting(at))
            .values(sms_taken_at=at)
        )
        return moved(result) == 1


async def _give_up(database: Database, *, at: datetime) -> None:
    """Mark what could not be sent in time; writes only when there is any."""
    old = sa.and_(
        LoginChallenge.sms_state == SmsState.DUE, LoginChallenge.created_at <= at - SEND_UNTIL
    )
    async with database.read() as tx:
        found = await tx.scalar(sa.select(LoginChallenge.id).where(old).limit(1))
    if found is not None:
        await _settle(database, old, SmsState.FAILED)


async def _settle(database: Database, where: sa.ColumnElement[bool], state: SmsState) -> None:
    async with database.write() as tx:
        await tx.execute(
            sa.update(LoginChallenge)
            .where(where)
            .values(sms_state=state, code_sealed=None)
            .execution_options(synchronize_session=False)
        )
