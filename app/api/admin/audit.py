"""HTTP for the audit trail: append-only, scoped like everything else."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import and_, or_, select

from app.api.deps import Page, ReadTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads
from app.api.problems import problems
from app.api.shapes import Out
from app.audit import Action, AuditEntry
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.people.admins import SignedInAdmin
from app.people.rules import Permission
from app.places.rules import under_bounds

router = APIRouter(tags=["admin: audit"])

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_AUDIT))]


class EntryOut(Out):
    id: uuid.UUID
    at: datetime
    admin_id: uuid.UUID | None
    action: Action
    subject: str
    station_id: uuid.UUID | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@router.get(
    "/v1/admin/audit",
    response_model=list[EntryOut],
    responses=problems(NotSignedIn, AdminForbidden, CursorInvalid),
)
async def list_entries(
    request: Request, response: Response, tx: ReadTx, admin: Reader, page: Page
) -> Any:
    """List what administrators did in your scope, newest first."""
    query = select(AuditEntry)
    if admin.station_id is not None:
        query = query.where(AuditEntry.station_id == admin.station_id)
    elif admin.unit_path is not None:
        low, high = under_bounds(admin.unit_path)
        path = AuditEntry.unit_path
        query = query.where(or_(path == admin.unit_path, and_(path >= low, path < high)))
    found = await cursors.page(tx, query, by=[AuditEntry.id], request=page, newest_first=True)
    link_next(request, response, found)
    return found.rows
