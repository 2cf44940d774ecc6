"""Passes: what a worker's phone shows to a reader at a door, good for a minute and once.

Online the server checks it (`verify`): the same decision as for any scan, recorded as one. What
stands for the worker in a pass says nothing at another station and nothing without our key.
"""

import hmac
import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors import scans, tokens
from app.doors.facts import arrival_by_pass
from app.doors.registry import DoorNotFound
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.scans import Attempt, ScanDesk, Shown
from app.doors.tables import Command, Door, Pass, in_state
from app.doors.tokens import PASS_LIFETIME, TokenKind, TokenRefusal
from app.errors import Forbidden, TooMany
from app.people.sign_in import SignedInWorker
from app.places.tables import Station

KEPT_FOR = timedelta(days=15)
"""So long it is known whose a pass was, and while a controller may still tell of it for longer."""

PER_MINUTE = 10
"""A page that shows a pass asks for a new one well before the old one ends."""


class PassRefused(Forbidden):
    """Your account is blocked; please contact your union."""


class TooManyPasses(TooMany):
    """You have asked for passes too often; please wait a minute."""


@dataclass(frozen=True, slots=True)
class IssuedPass:
    """A pass, told once."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Verified:
    """What a reader is told of a pass."""

    valid: bool
    reason: Reason
    command: uuid.UUID | None = None
    """What the controller claims; None while the door stands open to anybody."""


def key_of(jti: str) -> str:
    """Say under which key the scan of a pass is kept."""
    return f"pass:{jti}"


async def issue(
    tx: AsyncSession, desk: ScanDesk, worker: SignedInWorker, door_id: uuid.UUID, *, at: datetime
) -> IssuedPass:
    """Give a worker a pass for a door; raises DoorNotFound, PassRefused, TooManyPasses."""
    code = await tx.scalar(
        sa.select(Station.code)
        .join(Door, Door.station_id == Station.id)
        .where(Door.id == door_id, Door.retired_at.is_(None), Station.retired_at.is_(None))
    )
    if code is None:
        raise DoorNotFound
    if worker.blocked:
        raise PassRefused
    lately = await tx.scalar(
        sa.select(sa.func.count()).where(
            Pass.worker_id == worker.worker_id, Pass.issued_at > at - timedelta(minutes=1)
        )
    )
    if (lately or 0) >= PER_MINUTE:
        raise TooManyPasses(retry_after_s=60)
    jti = secrets.token_hex(12)
    text = worker.worker_id.bytes + code.encode()
    subject = hmac.digest(desk.vault.key("owner"), b"pass:" + text, "sha256")[:12].hex()
    expires_at = at + PASS_LIFETIME
    await tx.execute(
        sa.insert(Pass).values(
            id=jti,
            worker_id=worker.worker_id,
            subject=subject,
            door_id=door_id,
            issued_at=at,
            expires_at=expires_at,
        )
    )
    token = tokens.sign_pass(
        desk.keys.signing(TokenKind.PASS),
        station=code,
        worker=subject,
        issued_at=at,
        expires_at=expires_at,
        jti=jti,
    )
    return IssuedPass(token, expires_at)


async def verify(
    tx: AsyncSession,
    desk: ScanDesk,
    station_id: uuid.UUID,
    door_id: uuid.UUID,
    attempt: Attempt,
    *,
    at: datetime,
) -> Verified:
    """Check a pass that a reader of this station saw at a door; raises DoorNotFound.

    1. The signature, the audience and the time: pure.
    2. Whose it is; the same decision as for any scan, recorded as one under the pass's number.
    3. Shown again, it is the same scan: while its command lives the reader gets it again, later it
       is used up.
    """
    code = await tx.scalar(
        sa.select(Station.code)
        .join(Door, Door.station_id == Station.id)
        .where(Door.id == door_id, Station.id == station_id)
    )
    if code is None:
        raise DoorNotFound
    claims = tokens.verify_pass(desk.keys.verifying, attempt.token, at, audience=code)
    if isinstance(claims, TokenRefusal):
        return Verified(False, Reason(claims.value))
    found = await arrival_by_pass(tx, desk.vault.key("owner"), claims.jti, door_id, at=at)
    if found is None:
        return Verified(False, Reason.TOKEN_INVALID)
    worker, door = found
    by_pass = replace(attempt, key=key_of(claims.jti))
    view = await scans.settle(tx, desk, worker, door, by_pass, Shown(Reason.OK), at=at)
    if view.outcome is Outcome.REFUSED:
        return Verified(False, view.reason)
    if view.outcome is Outcome.WALK_IN:
        return Verified(not view.replayed, Reason.TOKEN_EXPIRED if view.replayed else Reason.OK)
    command = await tx.scalar(
        sa.select(Command.id).where(
            Command.scan_id == view.id,
            in_state(CommandState.PENDING),
            desk.clock.live(Command.expires_at, Command.expires_mono),
        )
    )
    if command is None:
        return Verified(False, Reason.TOKEN_EXPIRED)
    return Verified(True, Reason.OK, command)
