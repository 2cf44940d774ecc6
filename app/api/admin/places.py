"""HTTP for administrators of places: units, districts, facilities, the calendar."""

import uuid
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import (
    Field,
    StrictInt,
)
from sqlalchemy import select

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_writes
from app.api.problems import problems
from app.api.shapes import CSV_BODY, FacilityItem, In, Line, Name, Out, StaffAbsentMin, Text
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.people.admins import SignedInAdmin, get_station_in_use, visible_stations, visible_units
from app.people.rules import Permission
from app.places import calendar, districts, facilities, units
from app.places.facilities import FacilityNotFound, NewFacility
from app.places.rules import DayClass
from app.places.stations import (
    StationNotFound,
    StationRetired,
    bump,
)
from app.places.tables import (
    Facility,
    FacilityKind,
    FacilityStatus,
    Unit,
    UnitKind,
)
from app.places.units import NewUnit, UnitInUse, UnitInvalid, UnitNotFound

router = APIRouter(tags=["admin: places"])

_guarded = (NotSignedIn, AdminForbidden)


def _reads(permission: Permission) -> Any:
    return Depends(admin_reads(permission))


def _writes(permission: Permission) -> Any:
    return Depends(admin_writes(permission))


UnitReader = Annotated[SignedInAdmin, _reads(Permission.READ_UNITS)]
UnitEditor = Annotated[SignedInAdmin, _writes(Permission.EDIT_UNITS)]
Reader = Annotated[SignedInAdmin, _reads(Permission.READ_STATIONS)]
FacilityEditor = Annotated[SignedInAdmin, _writes(Permission.EDIT_FACILITIES)]
CalendarReader = Annotated[SignedInAdmin, _reads(Permission.READ_CALENDAR)]
CalendarEditor = Annotated[SignedInAdmin, _writes(Permission.EDIT_CALENDAR)]


class UnitOut(Out):
    id: uuid.UUID
    name: str
    kind: UnitKind
    parent_id: uuid.UUID | None
    path: str
    staff_absent_min: int | None
    created_at: datetime
    retired_at: datetime | None


class UnitIn(In):
    name: Line
    kind: UnitKind
    parent: uuid.UUID | None = None
    staff_absent_min: StaffAbsentMin | None = None
    """So many minutes into staffed hours without staff its stations turn to scanning; 0: never;
    null: as the unit above says."""


class UnitPatch(In):
    name: Line | None = None
    kind: UnitKind | None = None
    parent: uuid.UUID | None = None
    """Moves the whole branch."""
    staff_absent_min: StaffAbsentMin | None = None


@router.get(
    "/v1/admin/units",
    response_model=list[UnitOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_units(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: UnitReader,
    page: Page,
    q: Annotated[Text | None, Query(description="A part of the name.")] = None,
) -> Any:
    """List the units of your branch, in the order of the tree."""
    query = select(Unit).where(Unit.id.in_(visible_units(admin)))
    if q is not None:
        query = query.where(Unit.name.icontains(q, autoescape=True))
    found = await cursors.page(tx, query, by=[Unit.path], request=page)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/units",
    status_code=201,
    response_model=UnitOut,
    responses=problems(*_guarded, UnitInvalid),
)
async def add_unit(body: UnitIn, tx: WriteTx, admin: UnitEditor, at: Now) -> Any:
    """Add a unit below one of your branch; only the whole city may add a root."""
    if body.parent is not None:
        await units.get_parent(tx, body.parent, within=visible_units(admin))
    elif admin.unit_path is not None:
        raise UnitInvalid("Name the parent: only a city administrator adds a root.")
    new = NewUnit(body.name, body.kind, body.parent, body.staff_absent_min)
    return await units.add(tx, new, actor=admin.actor, at=at)


@router.get(
    "/v1/admin/units/{unit_id}",
    response_model=UnitOut,
    responses=problems(*_guarded, UnitNotFound),
)
async def get_unit(unit_id: uuid.UUID, tx: ReadTx, admin: UnitReader) -> Any:
    """Give one unit."""
    return await units.get_unit(tx, unit_id, within=visible_units(admin))


@router.patch(
    "/v1/admin/units/{unit_id}",
    response_model=UnitOut,
    responses=problems(*_guarded, UnitNotFound, UnitInvalid),
)
async def amend_unit(
    unit_id: uuid.UUID, body: UnitPatch, tx: WriteTx, admin: UnitEditor, at: Now
) -> Any:
    """Rename a unit, change its kind, or move its branch below another unit."""
    unit = await units.get_unit(tx, unit_id, within=visible_units(admin))
    if "parent" in body.model_fields_set and body.parent is None and unit.parent_id is not None:
        raise UnitInvalid("A branch moves below another unit; it does not become a root.")
    if body.parent is not None and body.parent != unit.parent_id:
        if unit.path == admin.unit_path:
            raise UnitInvalid("The root of your own branch is moved by who stands above it.")
        parent = await units.get_parent(tx, body.parent, within=visible_units(admin))
        unit = await units.move(tx, unit, parent, actor=admin.actor, at=at)
    changes = body.model_dump(exclude_unset=True, exclude={"parent"})
    return await units.amend(tx, unit, changes=changes, actor=admin.actor, at=at)


@router.post(
    "/v1/admin/units/{unit_id}/retire",
    response_model=UnitOut,
    responses=problems(*_guarded, UnitNotFound, UnitInUse),
)
async def retire_unit(unit_id: uuid.UUID, tx: WriteTx, admin: UnitEditor, at: Now) -> Any:
    """Take a unit out of use once nothing hangs on it."""
    unit = await units.get_unit(tx, unit_id, within=visible_units(admin))
    return await units.retire(tx, unit, actor=admin.actor, at=at)


class DistrictOut(Out):
    adcode: str
    name: str
    kind: str
    valid_from: date | None
    valid_to: date | None
    successors: list[str]
    note: str


@router.get("/v1/admin/districts", response_model=list[DistrictOut], responses=problems(*_guarded))
async def list_districts(tx: ReadTx, admin: UnitReader) -> Any:
    """List every district that is or was, with its successors."""
    return await districts.list_districts(tx)


class FacilityOut(Out):
    id: uuid.UUID
    station_id: uuid.UUID
    kind: FacilityKind
    name: str
    quantity: int
    status: FacilityStatus
    status_at: datetime
    created_at: datetime
    retired_at: datetime | None


class FacilityIn(FacilityItem):
    station: uuid.UUID


class FacilityPatch(In):
    name: Name = ""
    quantity: Annotated[StrictInt, Field(ge=1, le=10_000)] = 1
    status: FacilityStatus = FacilityStatus.WORKING


@router.get(
    "/v1/admin/facilities",
    response_model=list[FacilityOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_facilities(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    station: uuid.UUID | None = None,
) -> Any:
    """List the facilities of your stations."""
    query = select(Facility).where(Facility.station_id.in_(visible_stations(admin)))
    if station is not None:
        query = query.where(Facility.station_id == station)
    found = await cursors.page(tx, query, by=[Facility.id], request=page)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/facilities",
    status_code=201,
    response_model=FacilityOut,
    responses=problems(*_guarded, StationNotFound, StationRetired),
)
async def add_facility(
    body: FacilityIn, tx: WriteTx, admin: FacilityEditor, held: Held, at: Now
) -> Any:
    """Add a facility to a station."""
    station = await get_station_in_use(tx, admin, body.station)
    new = NewFacility(body.kind, body.name, body.quantity)
    (facility,) = await facilities.add(tx, station, [new], actor=admin.actor, at=at)
    await bump(tx, held.wakeups, station.id)
    return facility


@router.get(
    "/v1/admin/facilities/{facility_id}",
    response_model=FacilityOut,
    responses=problems(*_guarded, FacilityNotFound),
)
async def get_facility(facility_id: uuid.UUID, tx: ReadTx, admin: Reader) -> Any:
    """Give one facility."""
    return await facilities.get_facility(tx, facility_id, within=visible_stations(admin))


@router.patch(
    "/v1/admin/facilities/{facility_id}",
    response_model=FacilityOut,
    responses=problems(*_guarded, FacilityNotFound),
)
async def amend_facility(
    facility_id: uuid.UUID,
    body: FacilityPatch,
    tx: WriteTx,
    admin: FacilityEditor,
    held: Held,
    at: Now,
) -> Any:
    """Change a facility's name, quantity or status."""
    facility = await facilities.get_facility(tx, facility_id, within=visible_stations(admin))
    changes = body.model_dump(exclude_unset=True)
    amended = await facilities.amend(tx, facility, changes=changes, actor=admin.actor, at=at)
    if "name" in changes:
        await bump(tx, held.wakeups, amended.station_id)
    return amended


@router.post(
    "/v1/admin/facilities/{facility_id}/retire",
    response_model=FacilityOut,
    responses=problems(*_guarded, FacilityNotFound),
)
async def retire_facility(
    facility_id: uuid.UUID, tx: WriteTx, admin: FacilityEditor, held: Held, at: Now
) -> Any:
    """Take a facility out of use."""
    facility = await facilities.get_facility(tx, facility_id, within=visible_stations(admin))
    retired = await facilities.retire(tx, facility, actor=admin.actor, at=at)
    await bump(tx, held.wakeups, retired.station_id)
    return retired


class CalendarDayOut(Out):
    day: date
    day_class: DayClass
    name: str
    source: str


class CalendarOut(Out):
    years: list[int]
    next_year_missing: bool
    days: list[CalendarDayOut]


@router.get("/v1/admin/calendar", response_model=CalendarOut, responses=problems(*_guarded))
async def get_calendar(
    tx: ReadTx,
    admin: CalendarReader,
    held: Held,
    at: Now,
    year: Annotated[int | None, Query(ge=2000, le=2099)] = None,
) -> Any:
    """Give the holidays and make-up working days."""
    known = (await held.calendar.fresh(held.database)).current
    return {
        "years": sorted(known.years),
        "next_year_missing": calendar.missing_next_year(known, at.date()),
        "days": await calendar.list_days(tx, year=year),
    }


class CalendarImportOut(Out):
    days: int


@router.post(
    "/v1/admin/calendar",
    response_model=CalendarImportOut,
    responses=problems(*_guarded, calendar.CalendarInvalid),
    openapi_extra=CSV_BODY,
)
async def import_calendar(
    request: Request, tx: WriteTx, admin: CalendarEditor, held: Held, at: Now
) -> Any:
    """Import the calendar from CSV; the years in the file are replaced."""
    content = await request.body()
    days = await calendar.import_days(tx, held.wakeups, content, actor=admin.actor, at=at)
    return CalendarImportOut(days=days)
