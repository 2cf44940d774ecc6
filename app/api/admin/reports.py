"""HTTP for reports: scoped by one subquery, as JSON and as CSV, with how complete they are."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import select

from app.api.deps import Held, Now, WriteTx
from app.api.guards import AdminForbidden, NotSignedIn, admin_writes
from app.api.problems import problems
from app.api.shapes import LocalDay
from app.audit import Action, Subject, record
from app.errors import Invalid
from app.people.admins import SignedInAdmin, get_station, visible_stations, visible_units
from app.people.rules import Permission
from app.places import units
from app.places.rules import local_day
from app.places.stations import StationNotFound
from app.places.tables import Station, Unit
from app.places.units import UnitNotFound
from app.reports import queries
from app.reports.export import csv_lines
from app.reports.queries import By, Scope
from app.reports.rules import Period, completeness

router = APIRouter(tags=["admin: reports"])

# In a write, because a file that leaves the house is written into the audit trail.
Reader = Annotated[SignedInAdmin, Depends(admin_writes(Permission.READ_REPORTS))]
CITY_ZONE = "Asia/Shanghai"


class PeriodInvalid(Invalid):
    """The period is not acceptable."""


class Report(StrEnum):
    """The reports there are."""

    VISITS = "visits"
    ACCESS = "access"
    OCCUPANCY = "occupancy"
    FACILITIES = "facilities"
    CONTROLLERS = "controllers"


class Format(StrEnum):
    """How a report is written."""

    JSON = "json"
    CSV = "csv"


COLUMNS: dict[Report, tuple[str, ...]] = {
    Report.VISITS: queries.VisitsRow._fields,
    Report.ACCESS: queries.AccessRow._fields,
    Report.OCCUPANCY: queries.OccupancyRow._fields,
    Report.FACILITIES: queries.FacilitiesRow._fields,
    Report.CONTROLLERS: queries.ControllersRow._fields,
}


REPORT_SCHEMA = {
    "type": "object",
    "required": ["report", "from", "to", "by", "rows", "completeness", "generated_at"],
    "properties": {
        "report": {"type": "string"},
        "from": {"type": "string", "format": "date"},
        "to": {"type": "string", "format": "date"},
        "by": {"type": "string"},
        "rows": {"type": "array", "items": {"type": "object"}},
        "completeness": {"type": "object"},
        "generated_at": {"type": "string", "format": "date-time"},
    },
}


@router.get(
    "/v1/admin/reports/{report}",
    response_class=Response,
    responses={
        **problems(NotSignedIn, AdminForbidden, UnitNotFound, StationNotFound, PeriodInvalid),
        200: {
            "description": "The report.",
            "content": {
                "application/json": {"schema": REPORT_SCHEMA},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
    },
)
async def report(
    report: Report,
    tx: WriteTx,
    admin: Reader,
    held: Held,
    at: Now,
    from_day: Annotated[LocalDay, Query(alias="from", description="First local day.")],
    to_day: Annotated[LocalDay, Query(alias="to", description="The day after the last.")],
    by: By = By.STATION,
    unit: uuid.UUID | None = None,
    station: uuid.UUID | None = None,
    form: Annotated[Format, Query(alias="format")] = Format.JSON,
) -> Response:
    """Give a report over local days, `to` excluded."""
    try:
        period = Period(from_day, to_day)
    except ValueError as error:
        raise PeriodInvalid(str(error)) from error
    today = local_day(at, CITY_ZONE)
    scope = Scope(
        stations=await _stations(tx, admin, unit, station),
        period=period,
        by=by,
        at=at,
        today=today,
        retained_since=today - timedelta(days=held.settings.retention_days),
    )
    rows = await _rows(tx, report, scope, held.settings.controller_silence_s)
    if form is Format.CSV:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        after = {"from": from_day.isoformat(), "to": to_day.isoformat(), "by": by.value}
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
        name = f"{report.value}-{from_day}-{to_day}.csv"
        return StreamingResponse(
            csv_lines(COLUMNS[report], [tuple(row) for row in rows]),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
    return JSONResponse(
        jsonable_encoder(
            {
                "report": report,
                "from": from_day,
                "to": to_day,
                "by": by,
                "rows": [row._asdict() for row in rows],
                "completeness": asdict(completeness(period, today)),
                "generated_at": at,
            }
        )
    )


async def _rows(tx: WriteTx, report: Report, scope: Scope, silence_s: int) -> Sequence[Any]:
    match report:
        case Report.VISITS:
            return await queries.visits(tx, scope)
        case Report.ACCESS:
            return await queries.access(tx, scope)
        case Report.OCCUPANCY:
            return await queries.occupancy(tx, scope)
        case Report.FACILITIES:
            return await queries.facilities(tx, scope)
        case Report.CONTROLLERS:
            silent_since = scope.at - timedelta(seconds=silence_s)
            return await queries.controllers(tx, scope, silent_since=silent_since)


async def _stations(
    tx: WriteTx, admin: SignedInAdmin, unit: uuid.UUID | None, station: uuid.UUID | None
) -> Any:
    query = visible_stations(admin)
    if station is not None:
        found = await get_station(tx, admin, station)
        query = query.where(Station.id == found.id)
    if unit is not None:
        branch = await units.get_unit(tx, unit, within=visible_units(admin))
        query = query.where(Station.unit_id.in_(select(Unit.id).where(units.under(branch.path))))
    return query
