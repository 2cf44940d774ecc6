"""Sending what is due: at least once, each by one process at a time, no receiver in another's way.

A delivery is claimed in its row before it goes out and settled afterwards. A process that dies in
between leaves a claim that times out, and the delivery goes out again, with the same event id.
"""

import asyncio
import json
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.webhooks.courier import Courier, Outcome
from app.alerts.webhooks.hooks import secrets_of, subject_of
from app.alerts.webhooks.rules import (
    CLAIM,
    GIVE_UP,
    DeliveryState,
    OffBecause,
    must_switch_off,
    next_try,
    signature,
)
from app.alerts.webhooks.tables import IS_DUE, Delivery, Webhook
from app.clock import Now
from app.db.engine import Database
from app.db.types import new_id
from app.db.upsert import moved
from app.vault import Vault

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Tries that are under way at a time, in one process; one for each webhook at most."""
LOOK_AGAIN_S = 0.5
"""While a slow receiver is waited for, the others' new deliveries are looked for so often."""
RUN_FOR = timedelta(seconds=30)
"""A run begins nothing new after so long; the next one goes on."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What sending needs."""

    database: Database
    courier: Courier
    vault: Vault
    public_url: str
    now: Now
    draw: Callable[[], float] = random.random
    """The share of the pause that is waited: full jitter."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A delivery that is ours for the time of a claim."""

    id: uuid.UUID
    claim: uuid.UUID
    webhook_id: uuid.UUID
    event_id: uuid.UUID
    attempts: int
    created_at: datetime
    payload: dict[str, Any]
    alert_id: uuid.UUID | None
    url: str
    secrets: Sequence[str]


async def send_due(sender: Sender) -> int:
    """Send the deliveries that are due, a lane for each webhook; gives how many went out.

    A lane ends when nothing is due for its webhook, or at its first failure: then it rests until
    the next run. New deliveries of the others are begun while a slow lane still waits.
    """
    await _give_up(sender)
    places = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()
    until = loop.time() + RUN_FOR.total_seconds()
    sent = 0
    resting: set[uuid.UUID] = set()
    lanes: dict[asyncio.Task[_Lane], uuid.UUID] = {}
    try:
        while True:
            if loop.time() < until:
                busy = resting.union(lanes.values())
                for webhook_id in await _waiting(sender):
                    if webhook_id not in busy:
                        lane = _run_lane(sender, webhook_id, places, until=until)
                        lanes[asyncio.create_task(lane)] = webhook_id
            if not lanes:
                return sent
            done, _ = await asyncio.wait(
                lanes, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                webhook_id, result = lanes.pop(task), task.result()
                sent += result.sent
                if result.failed:
                    resting.add(webhook_id)
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Lane:
    """How a lane ended."""

    sent: int
    failed: bool


async def _run_lane(
    sender: Sender, webhook_id: uuid.UUID, places: asyncio.Semaphore, *, until: float
) -> _Lane:
    """Send what is due for one webhook, one after the other."""
    loop, sent = asyncio.get_running_loop(), 0
    try:
        while loop.time() < until:
            async with places:
                delivered = await _send_one(sender, webhook_id)
            if delivered is None:
                return _Lane(sent, failed=False)
            if not delivered:
                return _Lane(sent, failed=True)
            sent += 1
    except Exception:
        # Such as a database that is away: this webhook rests, the others go on.
        log.exception("webhook lane failed webhook=%s", webhook_id)
        return _Lane(sent, failed=True)
    return _Lane(sent, failed=False)


async def _send_one(sender: Sender, webhook_id: uuid.UUID) -> bool | None:
    """Take the oldest due delivery and try it; None when there is none to take."""
    taken = await _take(sender, webhook_id)
    if taken is None:
        return None
    body = _body(taken, sender.public_url)
    timestamp = int(sender.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "Yizhan-Event-Id": str(taken.event_id),
        "Yizhan-Timestamp": str(timestamp),
        "Yizhan-Signature": signature(taken.secrets, timestamp, body),
    }
    outcome = await sender.courier.post(taken.url, headers=headers, body=body)
    async with sender.database.write() as tx:
        if outcome.error is None:
            await _delivered(tx, taken, outcome, at=sender.now())
        else:
            await _failed(tx, taken, outcome, share=sender.draw(), at=sender.now())
    return outcome.error is None


def _body(taken: _Taken, public_url: str) -> bytes:
    """Write the body, the same at every try; its link needs a session to be followed."""
    link = None if taken.alert_id is None else f"{public_url}/v1/admin/alerts/{taken.alert_id}"
    text = json.dumps(
        taken.payload | {"link": link}, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    return text.encode()


def _free(at: datetime) -> sa.ColumnElement[bool]:
    """Say that a delivery is due and nobody's."""
    unclaimed = sa.or_(Delivery.claimed_until.is_(None), Delivery.claimed_until <= at)
    return sa.and_(IS_DUE, Delivery.next_at <= at, unclaimed)


def _is_on() -> sa.ColumnElement[bool]:
    return sa.and_(Webhook.retired_at.is_(None), Webhook.off_at.is_(None))


async def _waiting(sender: Sender) -> Sequence[uuid.UUID]:
    """Give the webhooks that something is due for."""
    async with sender.database.read() as tx:
        due = sa.exists().where(Delivery.webhook_id == Webhook.id, _free(sender.now()))
        found = await tx.scalars(sa.select(Webhook.id).where(_is_on(), due))
        return found.all()


async def _take(sender: Sender, webhook_id: uuid.UUID) -> _Taken | None:
    """Claim the delivery that has waited longest; None when another process was quicker."""
    at = sender.now()
    async with sender.database.read() as tx:
        row = (
            await tx.execute(
                sa.select(Delivery, Webhook)
                .join(Webhook, Webhook.id == Delivery.webhook_id)
                .where(Delivery.webhook_id == webhook_id, _is_on(), _free(at))
                .order_by(Delivery.next_at, Delivery.id)
                .limit(1)
            )
        ).one_or_none()
    if row is None:
        return None
    delivery, webhook = row
    claim = new_id()
    async with sender.database.write() as tx:
        claimed = await tx.execute(
            sa.update(Delivery)
            .where(Delivery.id == delivery.id, _free(at))
            .values(
                claim=claim,
                claimed_until=at + CLAIM,
                attempts=Delivery.attempts + 1,
                tried_at=at,
            )
            .execution_options(synchronize_session=False)
        )
    if moved(claimed) == 0:
        return None
    return _Taken(
        id=delivery.id,
        claim=claim,
        webhook_id=webhook_id,
        event_id=delivery.event_id,
        attempts=delivery.attempts + 1,
        created_at=delivery.created_at,
        payload=delivery.payload,
        alert_id=delivery.alert_id,
        url=webhook.url,
        secrets=secrets_of(webhook, sender.vault, at=at),
    )


async def _settle(tx: AsyncSession, taken: _Taken, **values: Any) -> bool:
    """Write what became of a try; False when the claim is no longer ours, or nothing is due."""
    result = await tx.execute(
        sa.update(Delivery)
        .where(Delivery.id == taken.id, Delivery.claim == taken.claim, IS_DUE)
        .values(claim=None, claimed_until=None, **values)
        .execution_options(synchronize_session=False)
    )
    return moved(result) == 1


async def _delivered(tx: AsyncSession, taken: _Taken, outcome: Outcome, *, at: datetime) -> None:
    # Received is received: even if the claim went to another process meanwhile.
    await tx.execute(
        sa.update(Delivery)
        .where(Delivery.id == taken.id, IS_DUE)
        .values(
            state=DeliveryState.DELIVERED,
            status=outcome.status,
            duration_ms=outcome.duration_ms,
            error=None,
            claim=None,
            claimed_until=None,
            settled_at=at,
        )
        .execution_options(synchronize_session=False)
    )
    await tx.execute(
        sa.update(Webhook)
        .where(Webhook.id == taken.webhook_id, Webhook.failures > 0)
        .values(failures=0, failing_since=None)
        .execution_options(synchronize_session=False)
    )


async def _failed(
    tx: AsyncSession, taken: _Taken, outcome: Outcome, *, share: float, at: datetime
) -> None:
    """Note a failure and when to try again; switch the webhook off if that was too many."""
    again = next_try(taken.created_at, taken.attempts, share, at)
    ours = await _settle(
        tx,
        taken,
        state=DeliveryState.FAILED if again is None else DeliveryState.DUE,
        next_at=at if again is None else again,
        settled_at=at if again is None else None,
        status=outcome.status,
        duration_ms=outcome.duration_ms,
        error=outcome.error,
    )
    if not ours:
        return
    webhook = (
        await tx.execute(
            sa.update(Webhook)
            .where(Webhook.id == taken.webhook_id)
            .values(
                failures=Webhook.failures + 1,
                failing_since=sa.func.coalesce(Webhook.failing_since, at),
            )
            .returning(Webhook.id, Webhook.name, Webhook.failures, Webhook.failing_since)
            .execution_options(synchronize_session=False)
        )
    ).one()
    if not must_switch_off(webhook.failures, webhook.failing_since, at):
        return
    switched = await tx.execute(
        sa.update(Webhook)
        .where(Webhook.id == webhook.id, _is_on())
        .values(off_at=at, off_because=OffBecause.FAILURES, changed_at=at)
        .execution_options(synchronize_session=False)
    )
    if moved(switched) == 1:
        log.warning("webhook off webhook=%s failures=%s", webhook.id, webhook.failures)
        detail = {"name": webhook.name, "failures": webhook.failures}
        evidence = Evidence(AlertKind.WEBHOOK_OFF, subject_of(webhook.id), None, at, detail)
        await book.note(tx, evidence, at=at)


async def _give_up(sender: Sender) -> None:
    """Give up what became too old while its webhook was off; writes only when there is any."""
    at = sender.now()
    old = sa.and_(IS_DUE, Delivery.created_at <= at - GIVE_UP)
    async with sender.database.read() as tx:
        found = await tx.scalar(sa.select(Delivery.id).where(old).limit(1))
    if found is None:
        return
    async with sender.database.write() as tx:
        await tx.execute(
            sa.update(Delivery)
            .where(old)
            .values(
                state=DeliveryState.FAILED,
                claim=None,
                claimed_until=None,
                settled_at=at,
                error=sa.func.coalesce(Delivery.error, "not sent within a day"),
            )
            .execution_options(synchronize_session=False)
        )
