"""HTTP for administrators of visits: occupancy now, people counters, head counts of walk-ins."""

import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StrictInt

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import In, Out, Rfc3339
from app.db.cursors import CursorInvalid
from app.doors import people_counts, scans
from app.errors import Invalid
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

LAST_DAY = timedelta(days=1)
LONGEST_SERIES = timedelta(days=31)


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


class CountedHourOut(Out):
    model_config = ConfigDict(from_attributes=True, frozen=True)

    from_at: datetime = Field(serialization_alias="from")
    people_in: int
    people_out: int
    inside: int
    """What the count said at the end of this hour; below zero it was wrong."""


class ResetOut(Out):
    at: datetime
    counted: int
    """What the counter said just before."""
    reset_to: int
    drift: int
    """How far it was off: `counted - reset_to`."""
    entries: int
    """Persons in since the reset before."""
    drift_per_100: float | None
    """Null: nobody came in since the reset before."""


class PeopleCountsOut(Out):
    from_at: datetime = Field(serialization_alias="from")
    until_at: datetime = Field(serialization_alias="until")
    inside: int | None
    """What the counter says at the end; null: no counter ever said anything here."""
    told_at: datetime | None
    """When it last said anything."""
    lowest: int | None
    """The least that it said in this time; below zero it proves a drift."""
    visits_inside: int
    """Persons of visits that count now; a people counter changes no visit."""
    hours: list[CountedHourOut]
    """Those in which somebody was counted."""
    resets: list[ResetOut]


class CountPeriodInvalid(Invalid):
    """`from` must come before `until`, by 31 days at most."""


@router.get(
    "/v1/admin/stations/{station_id:uuid}/people-counts",
    response_model=PeopleCountsOut,
    responses=problems(*_guarded, CountPeriodInvalid),
)
async def station_people_counts(
    station_id: uuid.UUID,
    tx: ReadTx,
    admin: Reader,
    at: Now,
    since: Annotated[Rfc3339 | None, Query(alias="from")] = None,
    until: Rfc3339 | None = None,
) -> Any:
    """Give what the people counter of a station said, by the hour; by default of the last day."""
    station = await get_station(tx, admin, station_id)
    until = until or at
    since = since or until - LAST_DAY
    if not since < until <= since + LONGEST_SERIES:
        raise CountPeriodInvalid
    found = await people_counts.between(tx, station.id, since=since, until=until)
    series = found.series
    return PeopleCountsOut(
        from_at=since,
        until_at=until,
        inside=series.inside if series else None,
        told_at=found.told_at,
        lowest=series.lowest if series else None,
        visits_inside=(await occupancy.inside_by_station(tx, [station.id], at=at))[station.id],
        hours=[CountedHourOut.model_validate(hour) for hour in series.hours] if series else [],
        resets=[ResetOut.model_validate(reset) for reset in series.resets] if series else [],
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
