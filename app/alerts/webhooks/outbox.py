"""What is to be told: rows that are written in the transaction of what they tell."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts.rules import BEHAVIOUR
from app.alerts.tables import Alert
from app.alerts.webhooks.rules import DeliveryState, Ear, EventKind, hears
from app.alerts.webhooks.tables import Delivery, Webhook
from app.db.types import new_id
from app.db.upsert import upsert
from app.places.tables import Station, Unit, UnitKind

AT_ONCE = 500


async def announce(
    tx: AsyncSession, event: EventKind, alert_ids: Sequence[uuid.UUID], *, at: datetime
) -> None:
    """Queue what happened to these alerts for every webhook that wants to hear it."""
    if not alert_ids:
        return
    ears = await _ears(tx)
    if not ears:
        return
    for start in range(0, len(alert_ids), AT_ONCE):
        rows = await _told(tx, event, alert_ids[start : start + AT_ONCE], ears, at=at)
        if rows:
            await tx.execute(
                upsert(tx, Delivery).on_conflict_do_nothing(
                    index_elements=["webhook_id", "alert_id", "event"]
                ),
                rows,
            )


async def announce_test(tx: AsyncSession, webhook: Webhook, *, at: datetime) -> Delivery:
    """Queue a test event for one webhook."""
    event_id = new_id()
    payload = _payload(event_id, EventKind.TEST, at)
    delivery = Delivery(**_row(webhook.id, event_id, EventKind.TEST, None, payload, at))
    tx.add(delivery)
    await tx.flush()
    return delivery


async def _ears(tx: AsyncSession) -> list[tuple[uuid.UUID, Ear]]:
    rows = await tx.execute(
        sa.select(
            Webhook.id,
            Webhook.kinds,
            Webhook.severities,
            Unit.path,
            Unit.kind,
            Unit.parent_id,
        )
        .join(Unit, Unit.id == Webhook.unit_id)
        .where(Webhook.retired_at.is_(None), Webhook.off_at.is_(None))
    )
    return [
        (
            row.id,
            Ear(
                path=row.path,
                has_city=row.parent_id is None and row.kind is UnitKind.CITY,
                kinds=row.kinds,
                severities=row.severities,
            ),
        )
        for row in rows
    ]


async def _told(
    tx: AsyncSession,
    event: EventKind,
    alert_ids: Sequence[uuid.UUID],
    ears: list[tuple[uuid.UUID, Ear]],
    *,
    at: datetime,
) -> list[dict[str, Any]]:
    found = await tx.execute(
        sa.select(Alert, Station.code, Station.name, Unit.path, Unit.name.label("unit_name"))
        .outerjoin(Station, Station.id == Alert.station_id)
        .outerjoin(Unit, Unit.id == Station.unit_id)
        .where(Alert.id.in_(alert_ids))
        .execution_options(populate_existing=True)
    )
    rows = []
    for alert, code, name, path, unit_name in found:
        hearing = [webhook_id for webhook_id, ear in ears if hears(ear, alert.kind, path)]
        # Made from the alert, so that it is the same for every webhook and every repetition.
        event_id = uuid.uuid5(alert.id, event.value)
        payload = _payload(event_id, event, at)
        payload["alert"] = _alert(alert)
        if alert.station_id is not None:
            payload["station"] = {"code": code, "name": name, "unit": unit_name}
        rows += [_row(each, event_id, event, alert.id, payload, at) for each in hearing]
    return rows


def _payload(event_id: uuid.UUID, event: EventKind, at: datetime) -> dict[str, Any]:
    return {
        "id": str(event_id),
        "type": event.value,
        "at": at.isoformat(),
        "alert": None,
        "station": None,
    }


def _alert(alert: Alert) -> dict[str, Any]:
    """What is told of an alert: never its subject, its detail or who looked after it."""
    return {
        "id": str(alert.id),
        "kind": alert.kind.value,
        "severity": BEHAVIOUR[alert.kind].severity.value,
        "opened_at": alert.opened_at.isoformat(),
        "acknowledged_at": _text(alert.acknowledged_at),
        "closed_at": _text(alert.closed_at),
        "late": alert.late,
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _row(
    webhook_id: uuid.UUID,
    event_id: uuid.UUID,
    event: EventKind,
    alert_id: uuid.UUID | None,
    payload: dict[str, Any],
    at: datetime,
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "webhook_id": webhook_id,
        "event_id": event_id,
        "event": event,
        "alert_id": alert_id,
        "payload": payload,
        "state": DeliveryState.DUE,
        "attempts": 0,
        "next_at": at,
        "created_at": at,
    }
