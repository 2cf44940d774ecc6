"""Webhooks as administrators keep them: add, amend, switch on, give a new secret, retire."""

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.rules import AlertKind
from app.alerts.webhooks import outbox
from app.alerts.webhooks.rules import DeliveryState, EventKind, OffBecause, target_of
from app.alerts.webhooks.tables import IS_DUE, Delivery, Webhook
from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.errors import Conflict, Invalid, NotFound
from app.places.tables import Unit
from app.vault import Vault


class WebhookNotFound(NotFound):
    """There is no such webhook."""


class WebhookInvalid(Invalid):
    """The webhook's description is not acceptable."""


class WebhookOff(Conflict):
    """This webhook is off or retired."""


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A webhook to add."""

    name: str
    url: str
    kinds: list[str] | None
    severities: list[str] | None


MayTell = Callable[[str], bool]
"""Whether an address is one of a host that the operator listed."""


def subject_of(webhook_id: uuid.UUID) -> str:
    """Name a webhook as the subject of an alert."""
    return f"webhook:{webhook_id}"


def _require_listed(url: str, may_tell: MayTell) -> None:
    if target_of(url) is None:
        raise WebhookInvalid("The address must look like https://hooks.example.org/path.")
    if not may_tell(url):
        raise WebhookInvalid("The operator has not listed this host in WEBHOOK_HOSTS.")


def _sealed(vault: Vault, webhook_id: uuid.UUID, secret: str) -> bytes:
    return vault.wrap(secret.encode(), purpose=_purpose(webhook_id))


def _purpose(webhook_id: uuid.UUID) -> str:
    return f"webhook|{webhook_id}"


def _new_secret() -> str:
    return f"whsec_{secrets.token_urlsafe(32)}"


def secrets_of(webhook: Webhook, vault: Vault, *, at: datetime) -> list[str]:
    """Give the secrets that sign now: the newest first, the one before while both do."""
    sealed = [webhook.secret_sealed]
    if (
        webhook.previous_sealed is not None
        and webhook.previous_until is not None
        and at < webhook.previous_until
    ):
        sealed.append(webhook.previous_sealed)
    purpose = _purpose(webhook.id)
    return [vault.unwrap(each, purpose=purpose).decode() for each in sealed]


async def get(
    tx: AsyncSession, webhook_id: uuid.UUID, *, within: sa.Select[uuid.UUID], lock: bool = False
) -> Webhook:
    """Give a webhook of the units `within`; raises WebhookNotFound."""
    query = sa.select(Webhook).where(Webhook.id == webhook_id, Webhook.unit_id.in_(within))
    found = await tx.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise WebhookNotFound
    return found


async def _subject(tx: AsyncSession, webhook: Webhook) -> Subject:
    path = await tx.scalar(sa.select(Unit.path).where(Unit.id == webhook.unit_id))
    return Subject("webhook", webhook.id, unit_path=path)


def _shown(webhook: Webhook) -> dict[str, Any]:
    """What the trail says: the host only, since the rest of an address may be a key."""
    target = target_of(webhook.url)
    return {
        "name": webhook.name,
        "host": target.authority if target else None,
        "kinds": webhook.kinds,
        "severities": webhook.severities,
        "enabled": webhook.off_at is None,
    }


async def add(
    tx: AsyncSession,
    vault: Vault,
    unit: Unit,
    new: NewWebhook,
    *,
    may_tell: MayTell,
    actor: Actor,
    at: datetime,
) -> tuple[Webhook, str]:
    """Add a webhook; gives its secret, which nobody is told again; raises WebhookInvalid."""
    _require_listed(new.url, may_tell)
    webhook_id, secret = new_id(), _new_secret()
    webhook = Webhook(
        id=webhook_id,
        unit_id=unit.id,
        name=new.name,
        url=new.url,
        kinds=new.kinds,
        severities=new.severities,
        secret_sealed=_sealed(vault, webhook_id, secret),
        failures=0,
        created_at=at,
        changed_at=at,
    )
    tx.add(webhook)
    await tx.flush()
    subject = Subject("webhook", webhook.id, unit_path=unit.path)
    await record(tx, actor, Action.WEBHOOK_ADDED, subject, at=at, after=_shown(webhook))
    return webhook, secret


def _require_in_use(webhook: Webhook) -> None:
    if webhook.retired_at is not None:
        raise WebhookOff("This webhook is retired.")


async def amend(
    tx: AsyncSession,
    webhook: Webhook,
    *,
    changes: Mapping[str, Any],
    may_tell: MayTell,
    actor: Actor,
    at: datetime,
) -> Webhook:
    """Change name, address or choice, or switch it on or off; raises WebhookInvalid, WebhookOff.

    `changes` holds some of `name, url, kinds, severities, enabled`. Switched on again it begins
    anew: its failures are forgotten and their alert is over.
    """
    _require_in_use(webhook)
    before, old_url = _shown(webhook), webhook.url
    if "url" in changes and changes["url"] != old_url:
        _require_listed(changes["url"], may_tell)
    for name in ("name", "url", "kinds", "severities"):
        if name in changes:
            setattr(webhook, name, changes[name])
    await _switch(tx, webhook, changes.get("enabled"), at=at)
    after = _shown(webhook)
    if after == before and webhook.url == old_url:
        return webhook
    webhook.changed_at = at
    subject = await _subject(tx, webhook)
    await record(tx, actor, Action.WEBHOOK_AMENDED, subject, at=at, before=before, after=after)
    return webhook


async def _switch(
    tx: AsyncSession, webhook: Webhook, enabled: bool | None, *, at: datetime
) -> None:
    if enabled is False and webhook.off_at is None:
        webhook.off_at, webhook.off_because = at, OffBecause.ADMINISTRATOR
    if enabled is True and webhook.off_at is not None:
        # Before it is on: it never heard that alert open, and is not told that it is over.
        await book.settle(tx, AlertKind.WEBHOOK_OFF, subject_of(webhook.id), at=at)
        webhook.off_at = webhook.off_because = None
        webhook.failures, webhook.failing_since = 0, None


async def rotate_secret(
    tx: AsyncSession,
    vault: Vault,
    webhook: Webhook,
    *,
    overlap: timedelta,
    actor: Actor,
    at: datetime,
) -> str:
    """Give a webhook a new secret, told once; the old one signs beside it for the overlap.

    Raises WebhookOff when it is retired.
    """
    _require_in_use(webhook)
    secret = _new_secret()
    webhook.previous_sealed = webhook.secret_sealed if overlap else None
    webhook.previous_until = at + overlap if overlap else None
    webhook.secret_sealed = _sealed(vault, webhook.id, secret)
    webhook.changed_at = at
    subject = await _subject(tx, webhook)
    after = {"overlap_hours": overlap / timedelta(hours=1)}
    await record(tx, actor, Action.WEBHOOK_SECRET_ROTATED, subject, at=at, after=after)
    return secret


async def send_test(tx: AsyncSession, webhook: Webhook, *, actor: Actor, at: datetime) -> Delivery:
    """Queue a test event; the one that is still due, if there is one; raises WebhookOff."""
    if webhook.retired_at is not None or webhook.off_at is not None:
        raise WebhookOff
    due = await tx.scalar(
        sa.select(Delivery)
        .where(Delivery.webhook_id == webhook.id, Delivery.event == EventKind.TEST, IS_DUE)
        .limit(1)
    )
    if due is not None:
        return due
    subject = await _subject(tx, webhook)
    await record(tx, actor, Action.WEBHOOK_TESTED, subject, at=at)
    return await outbox.announce_test(tx, webhook, at=at)


async def retire(tx: AsyncSession, webhook: Webhook, *, actor: Actor, at: datetime) -> Webhook:
    """Take a webhook out of use; what was still due is given up. Again changes nothing."""
    if webhook.retired_at is not None:
        return webhook
    webhook.retired_at = webhook.changed_at = at
    webhook.previous_sealed = webhook.previous_until = None
    await tx.execute(
        sa.update(Delivery)
        .where(Delivery.webhook_id == webhook.id, IS_DUE)
        .values(
            state=DeliveryState.FAILED,
            claim=None,
            claimed_until=None,
            settled_at=at,
            error="the webhook was retired",
        )
        .execution_options(synchronize_session=False)
    )
    await book.settle(tx, AlertKind.WEBHOOK_OFF, subject_of(webhook.id), at=at)
    subject = await _subject(tx, webhook)
    await record(tx, actor, Action.WEBHOOK_RETIRED, subject, at=at)
    return webhook
