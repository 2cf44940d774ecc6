"""HTTP for administrators of visits: occupancy now, head counts of walk-ins."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field, StrictInt

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import In, Out, Rfc3339
from app.db.cursors import CursorInvalid
from app.doors import scans
from app.people.admins import SignedInAdmin, get_station
from app.people.rules import Permission
from app.places.stations import StationNotFound
from app.visits import headcounts, occupancy
from app.visits.headcounts import HeadCount, HeadCountInvalid, HeadCountOverlaps
from app.visits.rules import Level, level

router = APIRouter(tags=["admin: visits"])

_guarded = (NotSignedIn, AdminForbidden, StationNotFound)
Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_REPORTS))]
Counter = Annotated[SignedInAdmin, Depends(admin_writes(Permission.COUNT_WALK_INS))]


class OccupancyOut(Out):
    inside: int
    """Persons of visits that count now."""
    reserved: int
    """Persons for whom a place is kept now."""
    capacity: int
    level: Level | None
    as_of: datetime


@router.get(
    "/v1/admin/stations/{station_id:uuid}/occupancy",
    response_model=OccupancyOut,
    responses=problems(*_guarded),
)
async def station_occupancy(
    station_id: uuid.UUID, tx: ReadTx, admin: Reader, held: Held, at: Now
) -> Any:
    """Say who is inside a station now, in numbers."""
    station = await get_station(tx, admin, station_id)
    inside = (await occupancy.inside_by_station(tx, [station.id], at=at))[station.id]
    return OccupancyOut(
        inside=inside,
        reserved=await scans.count_reserved(tx, station.id, clock=held.deadlines),
        capacity=station.capacity,
        level=level(inside, station.capacity),
        as_of=at,
    )


class WalkInIn(In):
    count: Annotated[StrictInt, Field(ge=0, le=10_000)]
    from_at: Rfc3339 = Field(alias="from")
    until_at: Rfc3339 = Field(alias="until")


class WalkInOut(Out):
    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: uuid.UUID
    count: int
    from_at: datetime = Field(serialization_alias="from")
    until_at: datetime = Field(serialization_alias="until")
    created_at: datetime


@router.post(
    "/v1/admin/stations/{station_id:uuid}/walk-ins",
    status_code=201,
    response_model=WalkInOut,
    responses=problems(*_guarded, HeadCountInvalid, HeadCountOverlaps),
)
async def count_walk_ins(
    station_id: uuid.UUID, body: WalkInIn, tx: WriteTx, admin: Counter, at: Now
) -> Any:
    """Write down how many heads staff counted in free hours."""
    station = await get_station(tx, admin, station_id)
    counted = HeadCount(body.count, body.from_at, body.until_at)
    return await headcounts.add(tx, station, counted, actor=admin.actor, at=at)


@router.get(
    "/v1/admin/stations/{station_id:uuid}/walk-ins",
    response_model=list[WalkInOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_walk_ins(
    station_id: uuid.UUID,
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
) -> Any:
    """List the head counts of a station, newest first."""
    station = await get_station(tx, admin, station_id)
    found = await headcounts.list_counts(tx, station.id, request=page)
    link_next(request, response, found)
    return found.rows
