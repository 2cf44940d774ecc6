"""HTTP for webhooks: who is told of alerts, with which secret, and what became of it."""

import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints
from sqlalchemy import select

from app.alerts.rules import AlertKind, Severity
from app.alerts.webhooks import hooks
from app.alerts.webhooks.hooks import NewWebhook, WebhookInvalid, WebhookNotFound, WebhookOff
from app.alerts.webhooks.rules import OVERLAP, DeliveryState, EventKind, OffBecause, all_of
from app.alerts.webhooks.tables import Delivery, Webhook
from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import In, Line, Out
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.people.admins import SignedInAdmin, visible_units
from app.people.rules import Permission
from app.places import units
from app.places.units import UnitInvalid, UnitNotFound

router = APIRouter(tags=["admin: webhooks"])

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.EDIT_WEBHOOKS))]
Editor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_WEBHOOKS))]

_guarded = (NotSignedIn, AdminForbidden)


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("null is not a value here; leave the field out")
    return value


Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Kinds = Annotated[list[AlertKind], Field(min_length=1, max_length=50)]
Severities = Annotated[list[Severity], Field(min_length=1, max_length=10)]


class WebhookOut(Out):
    id: uuid.UUID
    unit_id: uuid.UUID
    name: str
    url: str
    kinds: list[AlertKind] | None
    """Which alerts it hears; null: every kind."""
    severities: list[Severity] | None
    previous_until: datetime | None
    """Until then its deliveries carry the signature of the secret before, too."""
    failures: int
    """Tries that failed in a row."""
    failing_since: datetime | None
    off_at: datetime | None
    off_because: OffBecause | None
    created_at: datetime
    retired_at: datetime | None


class WebhookWithSecret(WebhookOut):
    secret: str
    """Told this once."""


class WebhookIn(In):
    unit: uuid.UUID
    """It hears the alerts of this unit's branch; the city's hears all."""
    name: Line
    url: Url
    kinds: Kinds | None = None
    severities: Severities | None = None


class WebhookPatch(In):
    name: Annotated[Line | None, AfterValidator(_not_null)] = None
    url: Annotated[Url | None, AfterValidator(_not_null)] = None
    kinds: Kinds | None = None
    severities: Severities | None = None
    enabled: Annotated[StrictBool | None, AfterValidator(_not_null)] = None


class RotationIn(In):
    overlap_hours: Annotated[StrictInt, Field(ge=0, le=168)] = OVERLAP // timedelta(hours=1)
    """How long the old secret signs beside the new one; 0 for one that leaked."""


class DeliveryOut(Out):
    id: uuid.UUID
    event_id: uuid.UUID
    event: EventKind
    alert_id: uuid.UUID | None
    state: DeliveryState
    attempts: int
    next_at: datetime
    """When it is tried next, while it is due."""
    status: int | None
    duration_ms: int | None
    error: str | None
    created_at: datetime
    tried_at: datetime | None
    settled_at: datetime | None


def _with_secret(webhook: Webhook, secret: str) -> dict[str, Any]:
    shape = {name: getattr(webhook, name) for name in WebhookOut.model_fields}
    return shape | {"secret": secret}


@router.get(
    "/v1/admin/webhooks",
    response_model=list[WebhookOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_webhooks(
    request: Request, response: Response, tx: ReadTx, admin: Reader, page: Page
) -> Any:
    """List the webhooks of your branch, newest first."""
    query = select(Webhook).where(Webhook.unit_id.in_(visible_units(admin)))
    found = await cursors.page(tx, query, by=[Webhook.id], request=page, newest_first=True)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/webhooks",
    status_code=201,
    response_model=WebhookWithSecret,
    responses=problems(*_guarded, UnitNotFound, UnitInvalid, WebhookInvalid),
)
async def add_webhook(body: WebhookIn, tx: WriteTx, held: Held, admin: Editor, at: Now) -> Any:
    """Add a webhook; its secret is told in this answer and never again."""
    unit = await units.get_in_use(tx, body.unit, within=visible_units(admin))
    new = NewWebhook(body.name, body.url, all_of(body.kinds), all_of(body.severities))
    webhook, secret = await hooks.add(
        tx, held.vault, unit, new, may_tell=held.courier.may_tell, actor=admin.actor, at=at
    )
    return _with_secret(webhook, secret)


@router.get(
    "/v1/admin/webhooks/{webhook_id}",
    response_model=WebhookOut,
    responses=problems(*_guarded, WebhookNotFound),
)
async def get_webhook(webhook_id: uuid.UUID, tx: ReadTx, admin: Reader) -> Any:
    """Give one webhook."""
    return await hooks.get(tx, webhook_id, within=visible_units(admin))


@router.patch(
    "/v1/admin/webhooks/{webhook_id}",
    response_model=WebhookOut,
    responses=problems(*_guarded, WebhookNotFound, WebhookInvalid, WebhookOff),
)
async def amend_webhook(
    webhook_id: uuid.UUID, body: WebhookPatch, tx: WriteTx, held: Held, admin: Editor, at: Now
) -> Any:
    """Change a webhook, or switch it off, or on again after it failed for too long."""
    webhook = await hooks.get(tx, webhook_id, within=visible_units(admin), lock=True)
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    for name in {"kinds", "severities"} & changes.keys():
        changes[name] = all_of(changes[name])
    return await hooks.amend(
        tx, webhook, changes=changes, may_tell=held.courier.may_tell, actor=admin.actor, at=at
    )


@router.post(
    "/v1/admin/webhooks/{webhook_id}/rotate-secret",
    response_model=WebhookWithSecret,
    responses=problems(*_guarded, WebhookNotFound, WebhookOff),
)
async def rotate_secret(
    webhook_id: uuid.UUID, body: RotationIn, tx: WriteTx, held: Held, admin: Editor, at: Now
) -> Any:
    """Give a new secret, told once; for the overlap both sign."""
    webhook = await hooks.get(tx, webhook_id, within=visible_units(admin), lock=True)
    overlap = timedelta(hours=body.overlap_hours)
    secret = await hooks.rotate_secret(
        tx, held.vault, webhook, overlap=overlap, actor=admin.actor, at=at
    )
    return _with_secret(webhook, secret)


@router.post(
    "/v1/admin/webhooks/{webhook_id}/test",
    status_code=202,
    response_model=DeliveryOut,
    responses=problems(*_guarded, WebhookNotFound, WebhookOff),
)
async def send_test(webhook_id: uuid.UUID, tx: WriteTx, admin: Editor, at: Now) -> Any:
    """Send a test event; what became of it stands in the deliveries a few seconds later."""
    webhook = await hooks.get(tx, webhook_id, within=visible_units(admin), lock=True)
    return await hooks.send_test(tx, webhook, actor=admin.actor, at=at)


@router.get(
    "/v1/admin/webhooks/{webhook_id}/deliveries",
    response_model=list[DeliveryOut],
    responses=problems(*_guarded, WebhookNotFound, CursorInvalid),
)
async def list_deliveries(
    webhook_id: uuid.UUID,
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    state: DeliveryState | None = None,
) -> Any:
    """List what was told or is still to be told, newest first; kept for 30 days."""
    webhook = await hooks.get(tx, webhook_id, within=visible_units(admin))
    query = select(Delivery).where(Delivery.webhook_id == webhook.id)
    if state is not None:
        query = query.where(Delivery.state == state)
    found = await cursors.page(tx, query, by=[Delivery.id], request=page, newest_first=True)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/webhooks/{webhook_id}/retire",
    response_model=WebhookOut,
    responses=problems(*_guarded, WebhookNotFound),
)
async def retire_webhook(webhook_id: uuid.UUID, tx: WriteTx, admin: Editor, at: Now) -> Any:
    """Take a webhook out of use."""
    webhook = await hooks.get(tx, webhook_id, within=visible_units(admin), lock=True)
    return await hooks.retire(tx, webhook, actor=admin.actor, at=at)
