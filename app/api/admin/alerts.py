"""HTTP for alerts: list, look, acknowledge, close."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import ColumnElement, select

from app.alerts import book
from app.alerts.book import AlertNotFound
from app.alerts.rules import BEHAVIOUR, AlertKind, Severity
from app.alerts.tables import Alert
from app.api.deps import Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import Out
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.people.admins import SignedInAdmin, visible_stations
from app.people.rules import Permission

router = APIRouter(tags=["admin: alerts"])

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_ALERTS))]
Handler = Annotated[SignedInAdmin, Depends(admin_writes(Permission.HANDLE_ALERTS))]


class AlertOut(Out):
    id: uuid.UUID
    kind: AlertKind
    severity: Severity
    subject: str
    station_id: uuid.UUID | None
    opened_at: datetime
    last_at: datetime
    count: int
    detail: dict[str, Any]
    late: bool
    acknowledged_at: datetime | None
    acknowledged_by: uuid.UUID | None
    closed_at: datetime | None
    closed_by: uuid.UUID | None


def _shape(alert: Alert) -> dict[str, Any]:
    names = [name for name in AlertOut.model_fields if name != "severity"]
    shape = {name: getattr(alert, name) for name in names}
    return shape | {"severity": BEHAVIOUR[alert.kind].severity}


def _visible(admin: SignedInAdmin) -> ColumnElement[bool]:
    """What concerns a station is its scope's; what concerns the city is seen by who sees it all."""
    own = Alert.station_id.in_(visible_stations(admin))
    return own | Alert.station_id.is_(None) if admin.has_city else own


@router.get(
    "/v1/admin/alerts",
    response_model=list[AlertOut],
    responses=problems(NotSignedIn, AdminForbidden, CursorInvalid),
)
async def list_alerts(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    state: Literal["open", "closed"] | None = None,
    kind: AlertKind | None = None,
    station: uuid.UUID | None = None,
) -> Any:
    """List the alerts of your stations, newest first."""
    query = select(Alert).where(_visible(admin))
    if state is not None:
        is_open = Alert.closed_at.is_(None)
        query = query.where(is_open if state == "open" else ~is_open)
    if kind is not None:
        query = query.where(Alert.kind == kind)
    if station is not None:
        query = query.where(Alert.station_id == station)
    found = await cursors.page(tx, query, by=[Alert.id], request=page, newest_first=True)
    link_next(request, response, found)
    return [_shape(alert) for alert in found.rows]


@router.get(
    "/v1/admin/alerts/{alert_id}",
    response_model=AlertOut,
    responses=problems(NotSignedIn, AdminForbidden, AlertNotFound),
)
async def get_alert(alert_id: uuid.UUID, tx: ReadTx, admin: Reader) -> Any:
    """Give one alert."""
    return _shape(await book.get(tx, alert_id, within=_visible(admin)))


@router.post(
    "/v1/admin/alerts/{alert_id}/acknowledge",
    response_model=AlertOut,
    responses=problems(NotSignedIn, AdminForbidden, AlertNotFound),
)
async def acknowledge(alert_id: uuid.UUID, tx: WriteTx, admin: Handler, at: Now) -> Any:
    """Say that you look after it."""
    alert = await book.get(tx, alert_id, within=_visible(admin))
    return _shape(await book.acknowledge(tx, alert, actor=admin.actor, at=at))


@router.post(
    "/v1/admin/alerts/{alert_id}/close",
    response_model=AlertOut,
    responses=problems(NotSignedIn, AdminForbidden, AlertNotFound),
)
async def close(alert_id: uuid.UUID, tx: WriteTx, admin: Handler, at: Now) -> Any:
    """Say that it is over; new evidence opens a new alert."""
    alert = await book.get(tx, alert_id, within=_visible(admin))
    return _shape(await book.close(tx, alert, actor=admin.actor, at=at))
