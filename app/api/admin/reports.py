"""HTTP for reports: scoped by one subquery, as JSON or a file, with how complete they are.

A report may take seconds, so it never runs in a write, which on SQLite would keep every scan
waiting: the guard's write ends first, the rows are read, and a file that leaves the house is then
written into the audit trail, before the first byte of it is sent.
"""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask

from app.api.deps import Held, Now
from app.api.guards import AdminForbidden, NotSignedIn, admin_waits
from app.api.problems import RequestInvalid, problems
from app.api.shapes import LocalDay, Out
from app.audit import Action, Subject, record
from app.errors import Unavailable
from app.people.admins import SignedInAdmin, get_station, visible_stations, visible_units
from app.people.rules import Permission
from app.places import stations, units
from app.places.rules import local_day
from app.places.stations import StationNotFound
from app.places.tables import Station, Unit
from app.places.units import UnitNotFound
from app.reports import queries
from app.reports.catalogue import described
from app.reports.drawing import SheetFailed, printed
from app.reports.export import csv_lines
from app.reports.frame import Bucket, By, PeriodInvalid, Scope
from app.reports.rules import Completeness, Period, completeness
from app.reports.sheet import gather, month_of
from app.reports.workbook import write_workbook

log = logging.getLogger(__name__)

router = APIRouter(tags=["admin: reports"])

Reader = Annotated[SignedInAdmin, Depends(admin_waits(Permission.READ_REPORTS))]
CITY_ZONE = "Asia/Shanghai"


class SheetUnavailable(Unavailable):
    """The sheet cannot be drawn just now."""


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
    XLSX = "xlsx"


XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


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
        "bucket": {"type": ["string", "null"]},
        "rows": {"type": "array", "items": {"type": "object"}},
        "completeness": {"type": "object"},
        "refused_without_station": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "Of `access` for the whole city: refusals that name no station.",
        },
        "generated_at": {"type": "string", "format": "date-time"},
    },
}


class FieldOut(Out):
    name: str
    title: str
    formula: str
    unit: str


class DescribedOut(Out):
    report: str
    says: str
    by: list[str]
    buckets: list[str]
    fields: list[FieldOut]


@router.get(
    "/v1/admin/reports",
    response_model=list[DescribedOut],
    responses=problems(NotSignedIn, AdminForbidden),
)
async def list_reports(admin: Reader) -> Any:
    """List the reports: what each says, its rows, and how each figure is computed."""
    return described()


@router.get(
    "/v1/admin/stations/{station_id}/sheet.pdf",
    response_class=Response,
    responses={
        **problems(NotSignedIn, AdminForbidden, StationNotFound, PeriodInvalid, SheetUnavailable),
        200: {"description": "One A4 page to print.", "content": {"application/pdf": {}}},
    },
)
async def station_sheet(
    station_id: uuid.UUID,
    admin: Reader,
    held: Held,
    at: Now,
    month: Annotated[str, Query(pattern=r"^[0-9]{4}-[0-9]{2}$", description="Such as 2026-10.")],
) -> Response:
    """Give a station's month on one page, with charts."""
    period = month_of(month)
    async with held.database.read() as tx:
        station = await get_station(tx, admin, station_id)
        local = at.astimezone(ZoneInfo(station.timezone))
        retention = timedelta(days=held.settings.retention_days)
        gathered = await gather(tx, station, period, at=local, retention=retention)
        subject = await stations.subject_of(tx, station)
    async with held.press:
        try:
            pdf = await printed(gathered)
        except (SheetFailed, TimeoutError) as error:
            log.error("sheet failed station=%s why=%s", station.code, error)
            raise SheetUnavailable from error
    async with held.database.write() as tx:
        after = {"month": month}
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    headers = {"Content-Disposition": f'attachment; filename="{station.code}-{month}.pdf"'}
    return Response(pdf, media_type="application/pdf", headers=headers)


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
                XLSX_TYPE: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
)
async def report(
    report: Report,
    admin: Reader,
    held: Held,
    at: Now,
    from_day: Annotated[LocalDay, Query(alias="from", description="First local day.")],
    to_day: Annotated[LocalDay, Query(alias="to", description="The day after the last.")],
    by: Annotated[By, Query(description="One row per station or unit, or all by day.")] = (
        By.STATION
    ),
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
    station: Annotated[uuid.UUID | None, Query(description="Only this station.")] = None,
    bucket: Annotated[Bucket | None, Query(description="Cut each row by day or hour.")] = None,
    form: Annotated[Format, Query(alias="format", description="JSON, or a file: CSV or Excel.")] = (
        Format.JSON
    ),
) -> Response:
    """Give a report over local days, `to` excluded."""
    asked = Asked(report, period_of(from_day, to_day), by, bucket)
    if report is Report.CONTROLLERS:
        _refuse_cuts(by, bucket)
    async with held.database.read() as tx:
        scope = asked.scope(
            await stations_within(tx, admin, unit, station),
            at=at,
            retention=timedelta(days=held.settings.retention_days),
        )
        rows = await _rows(tx, report, scope, held.settings.controller_silence_s)
        whole_city = admin.has_city and unit is None and station is None
        nowhere = None
        if report is Report.ACCESS and whole_city:
            nowhere = await queries.refused_nowhere(tx, asked.period, CITY_ZONE)
    known = completeness(asked.period, local_day(at, CITY_ZONE))
    if form is not Format.JSON:
        async with held.database.write() as tx:
            subject = Subject("report", report.value, unit_path=admin.unit_path)
            await record(
                tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=asked.echo()
            )
        return await _file(form, asked, rows, known, at)
    body = asked.echo() | {
        "rows": [row._asdict() for row in rows],
        "completeness": asdict(known),
        "generated_at": at,
    }
    if nowhere is not None:
        body["refused_without_station"] = nowhere
    return JSONResponse(jsonable_encoder(body))


async def _file(
    form: Format, asked: "Asked", rows: Sequence[Any], known: Completeness, at: datetime
) -> Response:
    """Write the report as a file that leaves the house."""
    name = f"{asked.report}-{asked.period.from_day}-{asked.period.to_day}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    columns = COLUMNS[asked.report]
    if form is Format.CSV:
        lines = csv_lines(columns, rows)
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)
    about = _about(asked, known, at)
    # Thousands of rows take a while: beside the loop that doors wait on.
    path = await asyncio.to_thread(_workbook, columns, rows, about)
    gone = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=XLSX_TYPE, headers=headers, background=gone)


def _workbook(
    columns: Sequence[str], rows: Sequence[Any], about: Sequence[tuple[str, str]]
) -> Path:
    handle, text = tempfile.mkstemp(suffix=".xlsx")
    os.close(handle)
    path = Path(text)
    try:
        write_workbook(path, columns, rows, about, zone=ZoneInfo(CITY_ZONE))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _about(asked: "Asked", known: Completeness, at: datetime) -> list[tuple[str, str]]:
    """Say on the file itself what it is, of when, and how complete."""
    made = at.astimezone(ZoneInfo(CITY_ZONE)).isoformat(timespec="seconds")
    return [
        ("报表 report", asked.report.value),
        ("起 from", asked.period.from_day.isoformat()),
        ("止（不含）to", asked.period.to_day.isoformat()),
        ("行 by", asked.by.value + (f" / {asked.bucket.value}" if asked.bucket else "")),
        ("生成时间 generated_at", made),
        ("完整度 completeness", f"{known.days_over}/{known.days_asked} 天已结束 days over"),
        ("空格 empty cell", "没有数据，不是零。No data, which is not zero."),
    ]


def _refuse_cuts(by: By, bucket: Bucket | None) -> None:
    """Refuse to ignore what was asked: this report has a row per station for the whole period."""
    cuts = {"by": by is not By.STATION, "bucket": bucket is not None}
    message = "the report of controllers has one row per station for the whole period"
    errors = [
        {"loc": ["query", name], "message": message} for name, is_cut in cuts.items() if is_cut
    ]
    if errors:
        raise RequestInvalid(message, errors=errors)


def period_of(from_day: date, to_day: date) -> Period:
    """Read a period; raises PeriodInvalid."""
    try:
        return Period(from_day, to_day)
    except ValueError as error:
        raise PeriodInvalid(str(error)) from error


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asked for; echoed in the answer and in the audit trail."""

    report: Report
    period: Period
    by: By
    bucket: Bucket | None

    def echo(self) -> dict[str, Any]:
        """Say it again."""
        return {
            "report": self.report.value,
            "from": self.period.from_day.isoformat(),
            "to": self.period.to_day.isoformat(),
            "by": self.by.value,
            "bucket": self.bucket.value if self.bucket else None,
        }

    def scope(self, stations: Any, *, at: datetime, retention: timedelta) -> Scope:
        """Add of which stations, and as of when."""
        # The day in which the retention time falls has lost a part of its workers already.
        retained_since = local_day(at - retention, CITY_ZONE) + timedelta(days=1)
        return Scope(
            stations=stations,
            period=self.period,
            by=self.by,
            at=at,
            retained_since=retained_since,
            bucket=self.bucket,
        )


async def _rows(tx: AsyncSession, report: Report, scope: Scope, silence_s: int) -> Sequence[Any]:
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


async def stations_within(
    tx: AsyncSession, admin: SignedInAdmin, unit: uuid.UUID | None, station: uuid.UUID | None
) -> Any:
    """Select the stations an administrator sees; raises UnitNotFound, StationNotFound."""
    query = visible_stations(admin)
    if station is not None:
        found = await get_station(tx, admin, station)
        query = query.where(Station.id == found.id)
    if unit is not None:
        branch = await units.get_unit(tx, unit, within=visible_units(admin))
        query = query.where(Station.unit_id.in_(select(Unit.id).where(units.under(branch.path))))
    return query
