"""HTTP for administrators of stations: register, import, hours, exceptions, overrides."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StringConstraints
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_waits, admin_writes
from app.api.problems import problems
from app.api.shapes import (
    CSV_BODY,
    FacilityItem,
    In,
    Line,
    Note,
    Out,
    Rfc3339,
    StaffAbsentMin,
    Text,
)
from app.audit import Action, Subject, record
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.doors import attendance, commands, registry
from app.doors.registry import NewDoor
from app.doors.rules import LONGEST_ALONE_H
from app.doors.tables import Door
from app.people.admins import (
    SignedInAdmin,
    get_station,
    get_station_in_use,
    visible_stations,
    visible_units,
)
from app.people.rules import Permission
from app.places import facilities, stations, transfer, units
from app.places.coordinates import CoordinateSystem, from_wgs84, to_wgs84
from app.places.districts import DistrictInvalid
from app.places.facilities import NewFacility
from app.places.rules import CITY_ZONE, ChangeKind, Tier
from app.places.stations import (
    EMERGENCIES,
    CodeTaken,
    Description,
    ModeChangeInvalid,
    ModeChangeNotFound,
    StationInvalid,
    StationNotFound,
    StationRetired,
    Wanted,
)
from app.places.tables import ModeChange, OperatingModel, Station, Unit
from app.places.transfer import ImportRefused
from app.places.units import UnitInvalid, UnitNotFound
from app.runtime import Runtime
from app.visits import presence

router = APIRouter(tags=["admin: stations"])

_guarded = (NotSignedIn, AdminForbidden)

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_STATIONS))]
Editor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_STATIONS))]
Keeper = Annotated[SignedInAdmin, Depends(admin_writes(Permission.CONFIRM_STAFF))]
Exporter = Annotated[SignedInAdmin, Depends(admin_waits(Permission.READ_STATIONS))]
System = Annotated[CoordinateSystem, Query()]


class DoorIn(In):
    name: Line
    has_display: StrictBool = False
    has_contact: StrictBool = False


class DoorOut(Out):
    id: uuid.UUID
    name: str
    has_display: bool
    has_contact: bool


Hours = dict[str, Any]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Latitude = Annotated[StrictFloat, Field(ge=-90, le=90)]
Longitude = Annotated[StrictFloat, Field(ge=-180, le=180)]
Capacity = Annotated[StrictInt, Field(ge=1, le=10_000)]
MaxStay = Annotated[StrictInt, Field(ge=5, le=1440)]
OfflineHours = Annotated[StrictInt, Field(ge=1, le=LONGEST_ALONE_H)]
DistrictCode = Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")]


class StationIn(In):
    code: Code
    name: Line
    unit: uuid.UUID
    district: DistrictCode | None = None
    address: Line
    latitude: Latitude
    longitude: Longitude
    capacity: Capacity
    operating_model: OperatingModel
    timezone: Line = CITY_ZONE
    staffed_hours: Hours | None
    access_hours: Hours | None
    max_stay_min: MaxStay = 60
    confirm_tap: StrictBool = False
    offline_hours: OfflineHours | None = None
    """For so long without us its controller opens by passes; null: never."""
    staff_absent_min: StaffAbsentMin | None = None
    """So many minutes into staffed hours without staff it turns to scanning; 0: never."""
    facilities: Annotated[tuple[FacilityItem, ...], Field(max_length=100)] = ()
    doors: Annotated[tuple[DoorIn, ...], Field(max_length=20)] = ()


class StationPatch(In):
    name: Line = ""
    unit: uuid.UUID = uuid.UUID(int=0)
    district: DistrictCode | None = None
    address: Line = ""
    latitude: Latitude = 0
    longitude: Longitude = 0
    capacity: Capacity = 0
    operating_model: OperatingModel = OperatingModel.UNION_BUILT
    timezone: Line = CITY_ZONE
    staffed_hours: Hours | None = None
    access_hours: Hours | None = None
    max_stay_min: MaxStay = 60
    confirm_tap: StrictBool = False
    offline_hours: OfflineHours | None = None
    staff_absent_min: StaffAbsentMin | None = None


class StationOut(Out):
    id: uuid.UUID
    code: str
    name: str
    unit_id: uuid.UUID
    district: str | None
    address: str
    latitude: float
    longitude: float
    capacity: int
    operating_model: OperatingModel
    timezone: str
    staffed_hours: Hours | None
    access_hours: Hours | None
    max_stay_min: int
    confirm_tap: bool
    offline_hours: int | None
    staff_absent_min: int | None
    staff_seen_at: datetime | None
    doors: list[DoorOut]
    created_at: datetime
    changed_at: datetime
    retired_at: datetime | None


async def _shapes(
    tx: AsyncSession, rows: Sequence[Station], system: CoordinateSystem
) -> list[dict[str, Any]]:
    doors = await registry.doors_of(tx, [row.id for row in rows])
    return [_shape(row, doors[row.id], system) for row in rows]


def _shape(row: Station, doors: Sequence[Door], system: CoordinateSystem) -> dict[str, Any]:
    latitude, longitude = from_wgs84(row.latitude, row.longitude, system)
    values = {name: getattr(row, name) for name in StationOut.model_fields if name != "doors"}
    return values | {"latitude": latitude, "longitude": longitude, "doors": list(doors)}


@router.get(
    "/v1/admin/stations",
    response_model=list[StationOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_stations(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    unit: uuid.UUID | None = None,
    q: Annotated[Text | None, Query(description="A part of the code or of the name.")] = None,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """List the stations in your scope, by code."""
    query = select(Station).where(Station.id.in_(visible_stations(admin)))
    if q is not None:
        query = query.where(
            or_(
                Station.code.icontains(q, autoescape=True),
                Station.name.icontains(q, autoescape=True),
            )
        )
    if unit is not None:
        branch = await tx.scalar(select(Unit.path).where(Unit.id == unit))
        if branch is None:
            return []
        below = select(Unit.id).where(units.under(branch))
        query = query.where(Station.unit_id.in_(below))
    found = await cursors.page(tx, query, by=[Station.code], request=page)
    link_next(request, response, found)
    return await _shapes(tx, found.rows, coordinate_system)


_stationed = (
    *_guarded,
    UnitNotFound,
    UnitInvalid,
    StationInvalid,
    DistrictInvalid,
)


@router.post(
    "/v1/admin/stations",
    status_code=201,
    response_model=StationOut,
    responses=problems(*_stationed, CodeTaken),
)
async def add_station(
    body: StationIn,
    tx: WriteTx,
    admin: Editor,
    at: Now,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """Add a station with its doors and facilities."""
    await units.get_in_use(tx, body.unit, within=visible_units(admin))
    latitude, longitude = to_wgs84(body.latitude, body.longitude, coordinate_system)
    given = body.model_dump(exclude={"unit", "facilities", "doors", "latitude", "longitude"})
    description = Description(**given, unit_id=body.unit, latitude=latitude, longitude=longitude)
    station = await stations.create(tx, description, actor=admin.actor, at=at)
    await presence.prepare(tx, [station.id])
    doors = [NewDoor(door.name, door.has_display, door.has_contact) for door in body.doors]
    await registry.add_doors(tx, station.id, doors, at=at)
    things = [NewFacility(item.kind, item.name, item.quantity) for item in body.facilities]
    await facilities.add(tx, station, things, actor=admin.actor, at=at)
    (shape,) = await _shapes(tx, [station], coordinate_system)
    return shape


class ImportRow(Out):
    row: int
    code: str
    status: str
    errors: list[str]


class ImportOut(Out):
    dry_run: bool
    created: int
    amended: int
    unchanged: int
    rows: list[ImportRow]


@router.post(
    "/v1/admin/stations/import",
    response_model=ImportOut,
    responses=problems(*_guarded, ImportRefused),
    openapi_extra=CSV_BODY,
)
async def import_stations(
    request: Request, tx: WriteTx, admin: Editor, held: Held, at: Now, dry_run: bool = False
) -> Any:
    """Import stations from CSV; any bad row imports nothing, and every bad row is named."""
    result = await transfer.import_stations(
        tx,
        held.wakeups,
        await request.body(),
        within=visible_units(admin),
        dry_run=dry_run,
        actor=admin.actor,
        at=at,
    )
    await registry.furnish(tx, result.new, at=at)
    return result


@router.get(
    "/v1/admin/stations/export",
    response_class=Response,
    responses={
        **problems(*_guarded),
        200: {"description": "Importable again.", "content": {"text/csv": {}}},
    },
)
async def export_stations(admin: Exporter, held: Held, at: Now) -> Response:
    """Give your stations as CSV."""
    async with held.database.write() as tx:
        subject = Subject("stations", "export", unit_path=admin.unit_path)
        await record(tx, admin.actor, Action.STATIONS_EXPORTED, subject, at=at)
    # Thousands of rows take a while: not while a door could wait for the writer.
    async with held.database.read() as tx:
        within = visible_stations(admin)
        doors = await registry.describe_doors(tx, within=within)
        content = await transfer.export_stations(tx, doors, within=within)
    headers = {"Content-Disposition": 'attachment; filename="stations.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


@router.get(
    "/v1/admin/stations/{station_id:uuid}",
    response_model=StationOut,
    responses=problems(*_guarded, StationNotFound),
)
async def get_one_station(
    station_id: uuid.UUID,
    tx: ReadTx,
    admin: Reader,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """Give one station."""
    (shape,) = await _shapes(tx, [await get_station(tx, admin, station_id)], coordinate_system)
    return shape


@router.patch(
    "/v1/admin/stations/{station_id:uuid}",
    response_model=StationOut,
    responses=problems(*_stationed, StationNotFound, StationRetired),
)
async def amend_station(
    station_id: uuid.UUID,
    body: StationPatch,
    tx: WriteTx,
    admin: Editor,
    held: Held,
    at: Now,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """Change a station; its id and its code never change."""
    station = await get_station(tx, admin, station_id)
    changes = body.model_dump(exclude_unset=True)
    if "unit" in changes:
        await units.get_in_use(tx, changes["unit"], within=visible_units(admin))
        changes["unit_id"] = changes.pop("unit")
    if "latitude" in changes or "longitude" in changes:
        shown = from_wgs84(station.latitude, station.longitude, coordinate_system)
        latitude = changes.get("latitude", shown[0])
        longitude = changes.get("longitude", shown[1])
        point = to_wgs84(latitude, longitude, coordinate_system)
        changes["latitude"], changes["longitude"] = point
    station = await stations.amend(
        tx, held.wakeups, station, changes=changes, actor=admin.actor, at=at
    )
    (shape,) = await _shapes(tx, [station], coordinate_system)
    return shape


@router.post(
    "/v1/admin/stations/{station_id:uuid}/retire",
    response_model=StationOut,
    responses=problems(*_guarded, StationNotFound),
)
async def retire_station(
    station_id: uuid.UUID, tx: WriteTx, admin: Editor, held: Held, at: Now
) -> Any:
    """Take a station out of use; nothing is deleted."""
    station = await get_station(tx, admin, station_id)
    await stations.retire(tx, held.wakeups, station, actor=admin.actor, at=at)
    await registry.settle_alerts(tx, station.id, at=at)
    (shape,) = await _shapes(tx, [station], CoordinateSystem.WGS84)
    return shape


class StaffPresentOut(Out):
    station_id: uuid.UUID
    staff_seen_at: datetime
    was_absent: bool
    """Whether the station had turned to scanning."""


@router.post(
    "/v1/admin/stations/{station_id:uuid}/staff-present",
    response_model=StaffPresentOut,
    responses=problems(*_guarded, StationNotFound, StationRetired),
)
async def confirm_staff(
    station_id: uuid.UUID, tx: WriteTx, admin: Keeper, held: Held, at: Now
) -> Any:
    """Say that staff are there; a station that had turned to scanning is free again at once."""
    station = await get_station_in_use(tx, admin, station_id)
    was_absent = await attendance.confirm(tx, held.wakeups, station, actor=admin.actor, at=at)
    return StaffPresentOut(station_id=station.id, staff_seen_at=at, was_absent=was_absent)


class ChangeIn(In):
    kind: ChangeKind
    from_at: Rfc3339 = Field(alias="from")
    until_at: Rfc3339 = Field(alias="until")
    note: Note = ""

    def wanted(self) -> Wanted:
        """The change as the operation takes it."""
        return Wanted(self.kind, self.from_at, self.until_at, self.note)


class ChangePatch(In):
    kind: ChangeKind = ChangeKind.CLOSED
    from_at: Rfc3339 | None = Field(default=None, alias="from")
    until_at: Rfc3339 | None = Field(default=None, alias="until")
    note: Note = ""

    def wanted(self, change: ModeChange) -> Wanted:
        """What stands, with what was given in its place."""
        given = self.model_fields_set
        return Wanted(
            self.kind if "kind" in given else change.kind,
            self.from_at or change.from_at,
            self.until_at or change.until_at,
            self.note if "note" in given else change.note,
        )


class ChangeOut(Out):
    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: uuid.UUID
    station_id: uuid.UUID
    kind: ChangeKind
    from_at: datetime = Field(serialization_alias="from")
    until_at: datetime = Field(serialization_alias="until")
    note: str
    created_at: datetime
    retired_at: datetime | None


def _mode_change_routes(tier: Tier, plural: str, editor: Permission) -> None:
    """Add the routes of dated exceptions, or of overrides: the same acts on two tiers."""
    path = f"/v1/admin/stations/{{station_id:uuid}}/{plural}"
    one = f"{path}/{{change_id}}"
    gone = problems(*_guarded, StationNotFound, ModeChangeNotFound)
    changed = problems(
        *_guarded, StationNotFound, ModeChangeNotFound, ModeChangeInvalid, StationRetired
    )
    Writer = Annotated[SignedInAdmin, Depends(admin_writes(editor))]

    @router.get(
        path,
        response_model=list[ChangeOut],
        responses=problems(*_guarded, StationNotFound, CursorInvalid),
        name=f"list_{plural}",
    )
    async def list_all(
        station_id: uuid.UUID,
        request: Request,
        response: Response,
        tx: ReadTx,
        admin: Reader,
        page: Page,
    ) -> Any:
        station = await get_station(tx, admin, station_id)
        query = select(ModeChange).where(
            ModeChange.station_id == station.id, ModeChange.tier == tier
        )
        found = await cursors.page(tx, query, by=[ModeChange.id], request=page, newest_first=True)
        link_next(request, response, found)
        return found.rows

    @router.post(
        path, status_code=201, response_model=ChangeOut, responses=changed, name=f"add_{plural}"
    )
    async def add(
        station_id: uuid.UUID, body: ChangeIn, tx: WriteTx, admin: Writer, held: Held, at: Now
    ) -> Any:
        station = await get_station(tx, admin, station_id)
        if body.kind in EMERGENCIES:
            await commands.lock_doors(tx, station.id)
        change = await stations.add_change(
            tx, held.wakeups, station, tier, body.wanted(), actor=admin.actor, at=at
        )
        await _stop_pending(tx, held, change, at)
        return change

    @router.get(one, response_model=ChangeOut, responses=gone, name=f"get_{plural}")
    async def get(station_id: uuid.UUID, change_id: uuid.UUID, tx: ReadTx, admin: Reader) -> Any:
        station = await get_station(tx, admin, station_id)
        return await stations.get_change(tx, station, tier, change_id)

    @router.patch(one, response_model=ChangeOut, responses=changed, name=f"amend_{plural}")
    async def amend(
        station_id: uuid.UUID,
        change_id: uuid.UUID,
        body: ChangePatch,
        tx: WriteTx,
        admin: Writer,
        held: Held,
        at: Now,
    ) -> Any:
        station = await get_station(tx, admin, station_id)
        await commands.lock_doors(tx, station.id)
        change = await stations.get_change(tx, station, tier, change_id)
        wanted = body.wanted(change)
        change = await stations.amend_change(
            tx, held.wakeups, station, change, wanted, actor=admin.actor, at=at
        )
        await _stop_pending(tx, held, change, at)
        return change

    @router.post(f"{one}/retire", response_model=ChangeOut, responses=gone, name=f"retire_{plural}")
    async def retire(
        station_id: uuid.UUID,
        change_id: uuid.UUID,
        tx: WriteTx,
        admin: Writer,
        held: Held,
        at: Now,
    ) -> Any:
        station = await get_station(tx, admin, station_id)
        change = await stations.get_change(tx, station, tier, change_id)
        return await stations.retire_change(
            tx, held.wakeups, station, change, actor=admin.actor, at=at
        )


async def _stop_pending(tx: AsyncSession, held: Runtime, change: ModeChange, at: datetime) -> None:
    """Refuse what is pending when an emergency begins now; the doors are held already."""
    if change.kind in EMERGENCIES and change.from_at <= at < change.until_at:
        await commands.refuse_pending(tx, held.wakeups, change.station_id, at=at)


_mode_change_routes(Tier.EXCEPTION, "exceptions", Permission.EDIT_HOURS)
_mode_change_routes(Tier.OVERRIDE, "overrides", Permission.OVERRIDE)
