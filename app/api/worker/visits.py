"""HTTP for workers inside: leave, use facilities; staff may record a use too."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from app.api.deps import Now, WriteTx
from app.api.guards import (
    NotSignedIn,
    OriginRefused,
    WritingWorker,
    WritingWorkerOrStaff,
)
from app.api.problems import problems
from app.api.shapes import In, Out
from app.api.worker.doors import IdempotencyKey, IdempotencyKeyMissing
from app.people.admins import SignedInAdmin, visible_stations
from app.people.sign_in import SignedInWorker
from app.places import facilities
from app.places.facilities import FacilityNotFound
from app.visits import presence, usage
from app.visits.presence import VisitNotFound
from app.visits.tables import EndSource
from app.visits.usage import User

router = APIRouter(tags=["worker"])


class VisitOut(Out):
    id: uuid.UUID
    started_at: datetime
    ended_at: datetime | None
    end_source: EndSource | None
    party_size: int


@router.post(
    "/v1/visits/{visit_id}/leave",
    response_model=VisitOut,
    responses=problems(NotSignedIn, OriginRefused, VisitNotFound),
)
async def leave(visit_id: uuid.UUID, tx: WriteTx, worker: WritingWorker, at: Now) -> Any:
    """End your visit; the door was never locked from inside."""
    return await presence.leave(tx, visit_id, worker.owner_key, worker_id=worker.worker_id, at=at)


class UseIn(In):
    quantity: Annotated[Decimal, Field(gt=0, le=100_000, decimal_places=3)] | None = None


class UseOut(Out):
    id: uuid.UUID
    facility_id: uuid.UUID
    quantity: float | None
    begun_at: datetime
    ended_at: datetime | None


def _user(person: SignedInWorker | SignedInAdmin) -> User:
    if isinstance(person, SignedInAdmin):
        return User(admin_id=person.admin_id)
    return User(owner_key=person.owner_key)


@router.post(
    "/v1/facilities/{facility_id}/uses",
    status_code=201,
    response_model=UseOut,
    responses={
        **problems(
            NotSignedIn,
            OriginRefused,
            IdempotencyKeyMissing,
            FacilityNotFound,
            usage.NotInside,
            usage.FacilityOutOfUse,
            usage.UseKeyReused,
        ),
        200: {"model": UseOut, "description": "A repeat: the use that stands."},
    },
)
async def begin_use(
    facility_id: uuid.UUID,
    response: Response,
    tx: WriteTx,
    person: WritingWorkerOrStaff,
    key: IdempotencyKey,
    at: Now,
    body: UseIn | None = None,
) -> Any:
    """Begin to use a facility, or count a quantity."""
    within = visible_stations(person) if isinstance(person, SignedInAdmin) else None
    facility = await facilities.get_facility(tx, facility_id, within=within)
    quantity = body.quantity if body else None
    begun = await usage.begin(tx, facility, _user(person), quantity=quantity, key=key, at=at)
    if begun.replayed:
        response.status_code = 200
    return begun.use


@router.post(
    "/v1/facility-uses/{use_id}/end",
    response_model=UseOut,
    responses=problems(NotSignedIn, OriginRefused, usage.UseNotFound),
)
async def end_use(use_id: uuid.UUID, tx: WriteTx, person: WritingWorkerOrStaff, at: Now) -> Any:
    """End the use of a facility."""
    within = visible_stations(person) if isinstance(person, SignedInAdmin) else None
    return await usage.end(tx, use_id, _user(person), within=within, at=at)
