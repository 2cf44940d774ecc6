"""HTTP for everybody: the stations, where they are, what holds there; never a head count."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.deps import Held, Lang, Now, Page, ReadTx, link_next
from app.api.problems import problems
from app.api.shapes import Out, Rfc3339, Text
from app.api.site import public
from app.api.words import Language, too_little, usually
from app.db import cursors
from app.db.cursors import CursorInvalid, PageRequest
from app.errors import Invalid
from app.places import facilities, nearby, stations, units
from app.places.coordinates import CoordinateSystem, from_wgs84, to_wgs84
from app.places.nearby import MAX_RADIUS_M, NearStation
from app.places.rules import Because, Calendar, Kind, Mode, local_hour
from app.places.stations import StationNotFound
from app.places.tables import Facility, FacilityKind, FacilityStatus, OperatingModel, Station, Unit
from app.runtime import Runtime
from app.usual import live, profiles
from app.usual.rules import K_PUBLIC, Unknown, UsualClass, live_level
from app.usual.tables import UsualProfile
from app.visits import occupancy
from app.visits.rules import Level

router = APIRouter(tags=["public"], dependencies=[Depends(public)])


class NearInvalid(Invalid):
    """`near` must be two numbers: latitude,longitude."""


class ModeOut(Out):
    kind: Kind
    because: Because
    until: datetime | None
    calendar_known: bool


class OccupancyOut(Out):
    level: Level | None
    """None: nobody knows, or no places are counted."""
    unknown_because: Unknown | None
    """Why nobody knows."""
    as_of: datetime


class StationLine(Out):
    id: uuid.UUID
    code: str
    name: str
    address: str
    latitude: float
    longitude: float
    operating_model: OperatingModel
    mode: ModeOut
    occupancy: OccupancyOut
    distance_m: int | None
    walking_minutes: int | None


class HourRow(Out):
    weekday: int
    opens: str
    closes: str


class DayRow(Out):
    opens: str
    closes: str


class HoursOut(Out):
    regular: list[HourRow]
    public_holiday: list[DayRow] | None
    makeup_workday: list[DayRow] | None


class FacilityOut(Out):
    id: uuid.UUID
    kind: FacilityKind
    name: str
    quantity: int | None
    """None for seats: with the level it would tell how many are inside (law 15)."""
    status: FacilityStatus
    status_at: datetime


class UsualOut(Out):
    day_class: UsualClass
    levels: list[Level | None]
    """By hour of the day; None: hidden, or fewer than four such days in eight weeks."""
    hidden_hours: list[int]
    """Fewer than `k` distinct workers stand behind these hours, or none at all."""
    suppressed: bool
    """Whether any hour is hidden."""
    k: int
    like_days: int
    """So many such days were counted in eight weeks."""
    says: str | None
    """How it usually is at this hour of such days."""
    made_at: datetime


class StationOut(StationLine):
    timezone: str
    staffed_hours: HoursOut | None
    access_hours: HoursOut | None
    facilities: list[FacilityOut]
    usual: UsualOut | None
    """What is usual on a day like today, never in numbers; None: nothing was made out yet."""


System = Annotated[CoordinateSystem, Query()]
Code = Annotated[str, Path(max_length=64)]


async def _lines(
    tx: AsyncSession,
    held: Runtime,
    found: Sequence[tuple[Station, Mode, NearStation | None]],
    calendar: Calendar,
    system: CoordinateSystem,
    at: datetime,
) -> list[dict[str, Any]]:
    shown = [row[0] for row in found]
    inside = await occupancy.inside_by_station(tx, [one.id for one in shown], at=at)
    unknown = await live.unknown_by_station(tx, shown, held.controllers, calendar, at=at)
    lines = []
    for station, mode, near in found:
        latitude, longitude = from_wgs84(station.latitude, station.longitude, system)
        why = unknown[station.id]
        lines.append(
            {
                "id": station.id,
                "code": station.code,
                "name": station.name,
                "address": station.address,
                "latitude": latitude,
                "longitude": longitude,
                "operating_model": station.operating_model,
                "mode": mode,
                "occupancy": {
                    "level": live_level(inside[station.id], station.capacity, why),
                    "unknown_because": why,
                    "as_of": at,
                },
                "distance_m": near.distance_m if near else None,
                "walking_minutes": near.walking_minutes if near else None,
            }
        )
    return lines


def _point(near: str, system: CoordinateSystem) -> tuple[float, float]:
    parts = near.split(",")
    try:
        latitude, longitude = (float(part) for part in parts)
    except ValueError:
        raise NearInvalid from None
    # Written so that NaN fails too.
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise NearInvalid("Latitude lies between -90 and 90, longitude between -180 and 180.")
    return to_wgs84(latitude, longitude, system)


def _among(facility: FacilityKind | None, branch: str | None, q: str | None) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [Station.retired_at.is_(None)]
    if facility is not None:
        conditions.append(
            exists().where(
                Facility.station_id == Station.id,
                Facility.kind == facility,
                Facility.retired_at.is_(None),
                Facility.status.in_((FacilityStatus.WORKING, FacilityStatus.DEGRADED)),
            )
        )
    if branch is not None:
        conditions.append(Station.unit_id.in_(select(Unit.id).where(units.under(branch))))
    if q is not None:
        conditions.append(
            or_(
                func.lower(Station.code) == func.lower(q),
                Station.name.icontains(q, autoescape=True),
                Station.address.icontains(q, autoescape=True),
            )
        )
    return and_(*conditions)


@router.get(
    "/v1/stations",
    response_model=list[StationLine],
    responses=problems(NearInvalid, CursorInvalid),
)
async def list_stations(
    request: Request,
    response: Response,
    tx: ReadTx,
    held: Held,
    at: Now,
    page: Page,
    near: Annotated[str | None, Query(max_length=60, description="LAT,LON")] = None,
    radius_m: Annotated[int, Query(ge=1, le=MAX_RADIUS_M)] = 3000,
    usable: Annotated[str | None, Query(pattern="^now$")] = None,
    facility: FacilityKind | None = None,
    unit: uuid.UUID | None = None,
    q: Annotated[Text | None, Query()] = None,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """List stations: near a point, nearest first; or by code, page by page."""
    calendar = (await held.calendar.fresh(held.database)).current
    branch = None
    if unit is not None:
        branch = await tx.scalar(select(Unit.path).where(Unit.id == unit))
        if branch is None:
            return []
    among = _among(facility, branch, q)
    if near is not None:
        latitude, longitude = _point(near, coordinate_system)
        hits = await nearby.near(
            tx,
            calendar,
            latitude=latitude,
            longitude=longitude,
            radius_m=radius_m,
            at=at,
            request=page,
            usable=usable is not None,
            among=among,
        )
        link_next(request, response, hits)
        found: list[tuple[Station, Mode, NearStation | None]] = [
            (hit.station, hit.mode, hit) for hit in hits.rows
        ]
    else:
        found = await _by_code(request, response, tx, calendar, among, page, at)
        if usable is not None:
            found = [row for row in found if row[1].kind in nearby.USABLE]
    return await _lines(tx, held, found, calendar, coordinate_system, at)


async def _by_code(
    request: Request,
    response: Response,
    tx: AsyncSession,
    calendar: Calendar,
    among: ColumnElement[bool],
    page: PageRequest,
    at: datetime,
) -> list[tuple[Station, Mode, NearStation | None]]:
    rows = await cursors.page(tx, select(Station).where(among), by=[Station.code], request=page)
    link_next(request, response, rows)
    modes = await nearby.modes_of(tx, calendar, rows.rows, at=at)
    return [(station, modes[station.id], None) for station in rows.rows]


@router.get("/v1/stations/{code}", response_model=StationOut, responses=problems(StationNotFound))
async def get_station(
    code: Code,
    tx: ReadTx,
    held: Held,
    at: Now,
    lang: Lang,
    coordinate_system: System = CoordinateSystem.WGS84,
) -> Any:
    """Give one station: its hours, what holds now, its facilities, what is usual there."""
    station = await stations.get_by_code(tx, code)
    calendar = (await held.calendar.fresh(held.database)).current
    modes = await nearby.modes_of(tx, calendar, [station], at=at)
    shown = [(station, modes[station.id], None)]
    (line,) = await _lines(tx, held, shown, calendar, coordinate_system, at)
    things = await facilities.facilities_of(tx, [station.id])
    return {
        **line,
        "timezone": station.timezone,
        "staffed_hours": station.staffed_hours,
        "access_hours": station.access_hours,
        "facilities": [_shown(one) for one in things[station.id]],
        "usual": await _usual_today(tx, station, calendar, lang, at),
    }


def _shown(one: Facility) -> FacilityOut:
    shown = FacilityOut.model_validate(one)
    return shown.model_copy(update={"quantity": None}) if one.kind is FacilityKind.REST else shown


@router.get(
    "/v1/stations/{code}/usual", response_model=list[UsualOut], responses=problems(StationNotFound)
)
async def station_usual(
    code: Code,
    tx: ReadTx,
    at: Now,
    lang: Lang,
    hour: Annotated[
        int | None, Query(ge=0, le=23, description="Of which hour is said how it usually is.")
    ] = None,
) -> Any:
    """Say what is usual at a station on days of each class; by default of this hour."""
    station = await stations.get_by_code(tx, code)
    asked = local_hour(at, station.timezone) if hour is None else hour
    return [_usual(one, asked, lang) for one in await profiles.of_station(tx, station.id)]


async def _usual_today(
    tx: AsyncSession, station: Station, calendar: Calendar, lang: Language, at: datetime
) -> dict[str, Any] | None:
    today = profiles.today_at(station, calendar, at)
    profile = (await profiles.by_station(tx, {station.id: today})).get(station.id)
    return None if profile is None else _usual(profile, local_hour(at, station.timezone), lang)


def _usual(profile: UsualProfile, hour: int, lang: Language) -> dict[str, Any]:
    return {
        "day_class": profile.day_class,
        "levels": profile.levels,
        "hidden_hours": profile.hidden_hours,
        "suppressed": bool(profile.hidden_hours),
        "k": K_PUBLIC,
        "like_days": profile.days,
        "says": _says(profile, hour, lang),
        "made_at": profile.made_at,
    }


def _says(profile: UsualProfile, hour: int, lang: Language) -> str | None:
    if hour in profile.hidden_hours:
        return too_little(profile.day_class, hour, lang)
    level = profile.levels[hour]
    return None if level is None else usually(Level(level), profile.day_class, hour, lang)


@router.get("/v1/stations/{code}/mode", response_model=ModeOut, responses=problems(StationNotFound))
async def station_mode(
    code: Code, tx: ReadTx, held: Held, now: Now, at: Annotated[Rfc3339 | None, Query()] = None
) -> Any:
    """Say what holds at a station at an instant, why, and until when."""
    station = await stations.get_by_code(tx, code)
    calendar = (await held.calendar.fresh(held.database)).current
    return (await nearby.modes_of(tx, calendar, [station], at=at or now))[station.id]
