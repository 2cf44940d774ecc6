"""HTTP for the audit trail: append-only, scoped like everything else."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app import audit
from app.api.deps import Page, ReadTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads
from app.api.problems import problems
from app.api.shapes import Out
from app.audit import Action
from app.db.cursors import CursorInvalid
from app.people.admins import SignedInAdmin, visible_entries
from app.people.rules import Permission

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
    found = await audit.history(tx, within=visible_entries(admin), request=page)
    link_next(request, response, found)
    return found.rows
