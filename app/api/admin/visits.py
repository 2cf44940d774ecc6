"""HTTP for administrators of visits: occupancy now, people counters, head counts of walk-ins."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StrictInt
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import In, Out, Rfc3339
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.doors import people_counts, scans
from app.errors import Invalid
from app.people.admins import SignedInAdmin, get_station, visible_stations, visible_units
from app.people.rules import Permission
from app.places import units
from app.places.stations import StationNotFound
from app.places.tables import Station, Unit
from app.places.units import UnitNotFound
from app.runtime import Runtime
from app.usual import live, profiles
from app.usual.rules import Unknown, UsualClass, busy_vs_capacity, busy_vs_usual, live_level
from app.visits import headcounts, occupancy
from app.visits.headcounts import (
    HeadCount,
    HeadCountInvalid,
    HeadCountNotFound,
    HeadCountOverlaps,
)
from app.visits.rules import Level

router = APIRouter(tags=["admin: visits"])

_guarded = (NotSignedIn, AdminForbidden, StationNotFound)
Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_REPORTS))]
Counter = Annotated[SignedInAdmin, Depends(admin_writes(Permission.COUNT_WALK_INS))]

LAST_DAY = timedelta(days=1)
LONGEST_SERIES = timedelta(days=31)


class UsualNowOut(Out):
    model_config = ConfigDict(from_attributes=True, frozen=True)

    day_class: UsualClass
    quarter: str
    """When the quarter hour begins, on the station's clock, such as 23:30."""
    median: float | None
    """Persons inside then, on the last eight days of the class; None: fewer than four are known."""
    days: int | None
    """So many of the eight are known; None: it was made before they were counted."""
    made_at: datetime


class OccupancyOut(Out):
    inside: int
    """Persons of visits that count now."""
    reserved: int
    """Persons for whom a place is kept now."""
    capacity: int
    is_known: bool
    """Whether whoever came had to be counted; else more may be inside than that."""
    unknown_because: Unknown | None
    level: Level | None
    """None, like the next two, where it is not known, and where no places are counted."""
    busy_vs_capacity: float | None
    busy_vs_usual: float | None
    """`inside / max(1, usual.median)`; None also where there is no median."""
    usual: UsualNowOut | None
    """What it is compared with, known or not; None: nothing was made out yet for such days."""
    as_of: datetime


class OccupancyLine(OccupancyOut):
    id: uuid.UUID
    code: str
    name: str


async def _occupancies(
    tx: AsyncSession, held: Runtime, stations: Sequence[Station], at: datetime
) -> list[dict[str, Any]]:
    ids = [station.id for station in stations]
    calendar = (await held.calendar.fresh(held.database)).current
    inside = await occupancy.inside_by_station(tx, ids, at=at)
    reserved = await scans.reserved_by_station(tx, ids, clock=held.deadlines)
    usual = await profiles.usual_now(tx, stations, calendar, at=at)
    unknown = await live.unknown_by_station(tx, stations, held.controllers, calendar, at=at)
    found: list[dict[str, Any]] = []
    for station in stations:
        persons, why, usually = inside[station.id], unknown[station.id], usual.get(station.id)
        is_known = why is None
        median = None if usually is None else usually.median
        found.append(
            {
                "id": station.id,
                "code": station.code,
                "name": station.name,
                "inside": persons,
                "reserved": reserved[station.id],
                "capacity": station.capacity,
                "is_known": is_known,
                "unknown_because": why,
                "level": live_level(persons, station.capacity, why),
                "busy_vs_capacity": (
                    busy_vs_capacity(persons, station.capacity) if is_known else None
                ),
                "busy_vs_usual": busy_vs_usual(persons, median) if is_known else None,
                "usual": usually,
                "as_of": at,
            }
        )
    return found


@router.get(
    "/v1/admin/stations/{station_id:uuid}/occupancy",
    response_model=OccupancyOut,
    responses=problems(*_guarded),
)
async def station_occupancy(
    station_id: uuid.UUID, tx: ReadTx, admin: Reader, held: Held, at: Now
) -> Any:
    """Say who is inside a station now, in numbers, beside its places and what is usual."""
    station = await get_station(tx, admin, station_id)
    (found,) = await _occupancies(tx, held, [station], at)
    return found


@router.get(
    "/v1/admin/occupancy",
    response_model=list[OccupancyLine],
    responses=problems(NotSignedIn, AdminForbidden, UnitNotFound, CursorInvalid),
)
async def list_occupancy(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    held: Held,
    at: Now,
    page: Page,
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
) -> Any:
    """Say who is inside each station in use now, by code."""
    among = sa.select(Station).where(
        Station.id.in_(visible_stations(admin)), Station.retired_at.is_(None)
    )
    if unit is not None:
        branch = await units.get_unit(tx, unit, within=visible_units(admin))
        among = among.where(Station.unit_id.in_(sa.select(Unit.id).where(units.under(branch.path))))
    found = await cursors.page(tx, among, by=[Station.code], request=page)
    link_next(request, response, found)
    return await _occupancies(tx, held, found.rows, at)


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
    since: Rfc3339 | None = None,
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
    withdrawn_at: datetime | None
    """When it was taken back; from then on it counts nowhere. Null: it stands."""


@router.post(
    "/v1/admin/stations/{station_id:uuid}/walk-ins",
    status_code=201,
    response_model=WalkInOut,
    responses=problems(*_guarded, HeadCountInvalid, HeadCountOverlaps),
)
async def count_walk_ins(
    station_id: uuid.UUID, body: WalkInIn, tx: WriteTx, admin: Counter, at: Now
) -> Any:
    """Write down how many heads staff counted, in whatever mode the station was."""
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
    """List the head counts of a station, newest first, those that were withdrawn too."""
    station = await get_station(tx, admin, station_id)
    found = await headcounts.list_counts(tx, station.id, request=page)
    link_next(request, response, found)
    return found.rows


@router.delete(
    "/v1/admin/stations/{station_id:uuid}/walk-ins/{count_id:uuid}",
    status_code=204,
    response_class=Response,
    responses=problems(*_guarded, HeadCountNotFound),
)
async def withdraw_walk_ins(
    station_id: uuid.UUID, count_id: uuid.UUID, tx: WriteTx, admin: Counter, at: Now
) -> None:
    """Take a wrong head count back: it counts nowhere, and its time may be counted anew."""
    station = await get_station(tx, admin, station_id)
    await headcounts.withdraw(tx, station, count_id, actor=admin.actor, at=at)
