"""A pass that the reader at a door saw."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from app.api.controller.key import CredentialRefused, Lenient, Polling
from app.api.deps import Held, Now
from app.api.problems import problems
from app.api.shapes import Out
from app.doors import passes
from app.doors.registry import DoorNotFound
from app.doors.rules import Reason
from app.doors.scans import Attempt

router = APIRouter(tags=["controller"])


class VerifyIn(Lenient):
    door: uuid.UUID
    token: Annotated[str, Field(max_length=20_000)]


class VerifiedOut(Out):
    valid: bool
    reason: Reason
    command: uuid.UUID | None


@router.post(
    "/v1/controller/verify",
    response_model=VerifiedOut,
    responses=problems(CredentialRefused, DoorNotFound),
)
async def verify(body: VerifyIn, request: Request, held: Held, controller: Polling, at: Now) -> Any:
    """Check a pass that the reader at a door saw; a good one is a command to claim."""
    await held.keys.fresh(held.database)
    await held.calendar.fresh(held.database)
    scope = request.scope
    attempt = Attempt(body.token, 1, "", scope["arrived_at"], scope["read_at"])
    async with held.database.write() as tx:
        return await passes.verify(tx, held.scans, controller.station_id, body.door, attempt, at=at)
