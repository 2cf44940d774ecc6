"""HTTP for reports: scoped by one subquery, as JSON or a file, with how complete they are.

A long report may take seconds, so it never runs in a write, which on SQLite would keep every scan
waiting: the guard's write ends first, and a file that leaves the house is written into the audit
trail before the first byte of it is sent. CSV is written part by part, however long it is.
"""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask

from app.api.deps import Held, Now, Page
from app.api.guards import AdminForbidden, NotSignedIn, admin_waits
from app.api.problems import RequestInvalid, problems
from app.api.shapes import LocalDay, Out
from app.audit import Action, Subject, record
from app.db.cursors import CursorInvalid
from app.doors.rules import CommandState, Outcome, Reason
from app.errors import Unavailable
from app.people.admins import (
    Roots,
    SignedInAdmin,
    get_station,
    visible_roots,
    visible_stations,
    visible_units,
)
from app.people.rules import Permission
from app.places import stations, units
from app.places.rules import Because, Calendar, Kind, local_day
from app.places.stations import StationNotFound
from app.places.tables import Station, Unit
from app.places.units import UnitNotFound
from app.reports import comparing, queries, source
from app.reports.catalogue import SAYS, described, field_of
from app.reports.comparing import ComparisonInvalid
from app.reports.drawing import SheetFailed, printed
from app.reports.export import csv_head, csv_text
from app.reports.frame import (
    MOST_STREAMED,
    Frame,
    PeriodInvalid,
    Progress,
    Scope,
    frame,
    progress,
)
from app.reports.occupations import occupations
from app.reports.queries import REPORTS
from app.reports.ranking import Ranked, ranking
from app.reports.rollup import CITY_ZONE, retained_since
from app.reports.rules import Bucket, By, Completeness, Period, completeness
from app.reports.rules.comparison import period_before
from app.reports.sheet import gather, month_of
from app.reports.workbook import write_workbook
from app.reports.written import rows_as_json
from app.visits.tables import EndSource

log = logging.getLogger(__name__)

router = APIRouter(tags=["admin: reports"])

Reader = Annotated[SignedInAdmin, Depends(admin_waits(Permission.READ_REPORTS))]


class SheetUnavailable(Unavailable):
    """The sheet cannot be drawn just now."""


class Report(StrEnum):
    """The reports there are."""

    VISITS = "visits"
    ACCESS = "access"
    OCCUPANCY = "occupancy"
    FACILITIES = "facilities"
    PROMISE = "promise"
    OCCUPATIONS = "occupations"
    RANKING = "ranking"
    CONTROLLERS = "controllers"


class Compare(StrEnum):
    """What a report is compared with."""

    BEFORE = "before"


class Format(StrEnum):
    """How a report is written."""

    JSON = "json"
    CSV = "csv"
    XLSX = "xlsx"


XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


COLUMNS: dict[Report, tuple[str, ...]] = {
    report: SAYS[report][0]._fields  # type: ignore[attr-defined]  # Rows are named tuples.
    for report in Report
}


REPORT_SCHEMA = {
    "type": "object",
    "required": [
        "report",
        "from",
        "to",
        "by",
        "rows",
        "completeness",
        "rolled_up_to",
        "recounting",
        "generated_at",
    ],
    "properties": {
        "report": {"type": "string"},
        "from": {"type": "string", "format": "date"},
        "to": {"type": "string", "format": "date"},
        "by": {"type": "string"},
        "bucket": {"type": ["string", "null"]},
        "figure": {"type": "string", "description": "Of `ranking`: by what."},
        "compare": {"type": "string", "description": "Where the period before was asked for."},
        "before_from": {"type": "string", "format": "date"},
        "before_to": {"type": "string", "format": "date"},
        "rows": {"type": "array", "items": {"type": "object"}},
        "completeness": {"type": "object"},
        "refused_without_station": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "Of `access` for the whole city: refusals that name no station.",
        },
        "rolled_up_to": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "What was changed before this instant is in the figures for sure.",
        },
        "recounting": {
            "type": "boolean",
            "description": "Whether something is being counted anew just now.",
        },
        "generated_at": {"type": "string", "format": "date-time"},
    },
}


class CompletenessOut(Out):
    days_asked: int
    days_over: int
    days_begun: int
    days_to_come: int
    share: float


class FieldOut(Out):
    name: str
    title: str
    formula: str
    unit: str
    numerator: str | None
    denominator: str | None


class DescribedOut(Out):
    report: str
    says: str
    by: list[str]
    buckets: list[str]
    compared: list[str]
    privacy: str
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
        **problems(
            NotSignedIn,
            AdminForbidden,
            UnitNotFound,
            StationNotFound,
            PeriodInvalid,
            ComparisonInvalid,
        ),
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
    by: Annotated[
        By, Query(description="One row per station or other place, or per piece of time of all.")
    ] = By.STATION,
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
    station: Annotated[uuid.UUID | None, Query(description="Only this station.")] = None,
    bucket: Annotated[Bucket | None, Query(description="Cut each row into pieces of time.")] = None,
    compare: Annotated[
        Compare | None,
        Query(description="Beside each count: the period before on the same mix of days."),
    ] = None,
    figure: Annotated[
        Ranked | None, Query(description="Of `ranking`: by what; visits by default.")
    ] = None,
    form: Annotated[Format, Query(alias="format", description="JSON, or a file: CSV or Excel.")] = (
        Format.JSON
    ),
) -> Response:
    """Give a report over local days, `to` excluded."""
    if report is Report.RANKING:
        figure = figure or Ranked.VISITS
    elif figure is not None:
        raise RequestInvalid("only the ranking is by a figure")
    asked = Asked(report, period_of(from_day, to_day), by, bucket, compare, figure)
    if compare is not None:
        comparing.check(report, by.is_place and bucket is None)
    if report in (Report.CONTROLLERS, Report.RANKING):
        _refuse_cuts(report, by, bucket)
    known = completeness(asked.period, local_day(at, CITY_ZONE))
    days = (await held.calendar.fresh(held.database)).current
    async with held.database.read() as tx:
        scope = await _scope(tx, admin, asked, (unit, station), days, held, at)
        columns: Sequence[str] = COLUMNS[report]
        if form is Format.CSV and report in REPORTS and compare is None:
            made = await frame(tx, scope, most=MOST_STREAMED)
        else:
            made = None
            rows = await _rows(tx, asked, scope, held.settings.controller_silence_s)
            if compare is not None:
                beside = await comparing.compared(tx, scope, report)
                columns = [*columns, *beside.columns]
                rows = [(*row, *more) for row, more in zip(rows, beside.rows, strict=True)]
            counted = await progress(tx)
        nowhere = None
        if report is Report.ACCESS and admin.has_city and unit is None and station is None:
            nowhere = await queries.refused_nowhere(tx, asked.period, CITY_ZONE)
    if form is Format.JSON:
        return Response(
            await asyncio.to_thread(_json, asked, columns, rows, known, counted, nowhere, at),
            media_type="application/json",
        )
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=asked.echo())
    if made is not None:
        return _csv(asked, _streamed(held, made, asked))
    if form is Format.CSV:
        return _csv(asked, _written(columns, rows))
    return await _excel(asked, columns, rows, known, at)


class VisitRowOut(Out):
    id: uuid.UUID
    started_at: datetime
    stay_until: datetime
    ended_at: datetime | None
    end_source: EndSource | None
    mode: Kind
    party_size: int
    re_entry: bool


class ScanRowOut(Out):
    id: uuid.UUID
    scanned_at: datetime
    outcome: Outcome
    reason: Reason
    mode: Kind | None
    because: Because | None
    party_size: int


class CommandRowOut(Out):
    id: uuid.UUID
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None
    pulsed_at: datetime | None
    opened_at: datetime | None
    state: CommandState


class UseRowOut(Out):
    id: uuid.UUID
    facility_id: uuid.UUID
    begun_at: datetime
    ended_at: datetime | None
    quantity: Decimal | None


class CounterOut(Out):
    name: str
    sum: int


class RollupsOut(Out):
    count: int
    rolled_from: datetime | None
    rolled_to: datetime | None


class SourceOut(Out):
    report: str
    figure: str
    title: str
    formula: str
    unit: str
    numerator: str | None
    denominator: str | None
    value: Any
    known_share: float
    completeness: CompletenessOut
    counters: list[CounterOut]
    rollups: RollupsOut
    row_kind: source.Rows | None
    station: str | None
    rows: list[VisitRowOut] | list[ScanRowOut] | list[CommandRowOut] | list[UseRowOut] | None
    next: str | None


_ROWS_OUT: dict[source.Rows, type[Out]] = {
    source.Rows.VISITS: VisitRowOut,
    source.Rows.SCANS: ScanRowOut,
    source.Rows.COMMANDS: CommandRowOut,
    source.Rows.USES: UseRowOut,
}


@router.get(
    "/v1/admin/reports/{report}/source",
    response_model=SourceOut,
    responses=problems(
        NotSignedIn, AdminForbidden, UnitNotFound, StationNotFound, PeriodInvalid, CursorInvalid
    ),
)
async def source_of(
    report: Report,
    admin: Reader,
    held: Held,
    at: Now,
    page: Page,
    figure: Annotated[str, Query(max_length=40, description="A field of the report.")],
    from_day: Annotated[LocalDay, Query(alias="from", description="First local day.")],
    to_day: Annotated[LocalDay, Query(alias="to", description="The day after the last.")],
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
    station: Annotated[uuid.UUID | None, Query(description="Only this station.")] = None,
) -> Any:
    """Say where a figure comes from: formula, counters, completeness, and raw rows page by page.

    Rows are given of one station and of at most 31 days, null otherwise; they name no worker.
    """
    made = source.MADE[report].get(figure)
    if made is None:
        raise RequestInvalid(f"the figures of this report are: {', '.join(source.MADE[report])}")
    asked = Asked(report, period_of(from_day, to_day), By.ALL, None)
    days = (await held.calendar.fresh(held.database)).current
    async with held.database.read() as tx:
        scope = await _scope(tx, admin, asked, (unit, station), days, held, at)
        (part,) = (await frame(tx, scope)).parts()
        found = await source.source(tx, part, report, figure)
        one = rows = None
        if station is not None and made.rows is not None and source.may_list(scope):
            one = await get_station(tx, admin, station)
            rows = await source.behind(tx, scope, one, made, page)
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        after = asked.echo() | {"figure": figure, "station": one.code if one else None}
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    says = field_of(report, figure)
    shape = None if made.rows is None else _ROWS_OUT[made.rows]
    return {
        "report": report,
        "figure": figure,
        "title": says.title,
        "formula": says.formula,
        "unit": says.unit,
        "numerator": says.numerator,
        "denominator": says.denominator,
        "value": found.value,
        "known_share": found.known_share,
        "completeness": completeness(asked.period, local_day(at, CITY_ZONE)),
        "counters": found.counters,
        "rollups": {
            "count": found.rollups,
            "rolled_from": found.rolled_from,
            "rolled_to": found.rolled_to,
        },
        "row_kind": made.rows,
        "station": one.code if one else None,
        "rows": [shape.model_validate(row) for row in rows.rows] if rows and shape else None,
        "next": rows.next if rows else None,
    }


def _json(
    asked: "Asked",
    columns: Sequence[str],
    rows: Sequence[Any],
    known: Completeness,
    counted: Progress,
    nowhere: dict[str, int] | None,
    at: datetime,
) -> bytes:
    """Write the answer; a hundred thousand values take a while, so beside the loop."""
    more: dict[str, Any] = {
        "completeness": asdict(known),
        "rolled_up_to": counted.rolled_up_to,
        "recounting": counted.recounting,
        "generated_at": at,
    }
    if nowhere is not None:
        more["refused_without_station"] = nowhere
    head, tail = to_json(asked.echo()), to_json(more)
    return b'%b,"rows":%b,%b' % (head[:-1], rows_as_json(columns, rows), tail[1:])


def _csv(asked: "Asked", lines: AsyncIterator[str]) -> Response:
    """Send the report as a file that leaves the house, as it is written."""
    return StreamingResponse(
        lines, media_type="text/csv; charset=utf-8", headers=_attached(asked, Format.CSV)
    )


async def _streamed(held: Held, made: Frame, asked: "Asked") -> AsyncIterator[str]:
    columns = COLUMNS[asked.report]
    yield csv_head(columns)
    async for rows in queries.streamed(held.database.read, made, REPORTS[asked.report]):
        yield await asyncio.to_thread(csv_text, columns, rows)


async def _written(columns: Sequence[str], rows: Sequence[Any]) -> AsyncIterator[str]:
    yield csv_head(columns)
    yield csv_text(columns, rows)


async def _excel(
    asked: "Asked",
    columns: Sequence[str],
    rows: Sequence[Any],
    known: Completeness,
    at: datetime,
) -> Response:
    # Thousands of rows take a while: beside the loop that doors wait on.
    about = _about(asked, known, at)
    path = await asyncio.to_thread(_workbook, columns, rows, about)
    gone = BackgroundTask(path.unlink, missing_ok=True)
    headers = _attached(asked, Format.XLSX)
    return FileResponse(path, media_type=XLSX_TYPE, headers=headers, background=gone)


def _attached(asked: "Asked", form: Format) -> dict[str, str]:
    name = f"{asked.report}-{asked.period.from_day}-{asked.period.to_day}.{form}"
    return {"Content-Disposition": f'attachment; filename="{name}"'}


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
    said = asked.echo()
    return [
        ("报表 report", asked.report.value),
        ("起 from", asked.period.from_day.isoformat()),
        ("止（不含）to", asked.period.to_day.isoformat()),
        ("行 by", asked.by.value + (f" / {asked.bucket.value}" if asked.bucket else "")),
        ("生成时间 generated_at", made),
        *(
            [("对比期 before", f"{said['before_from']} – {said['before_to']}")]
            if "before_from" in said
            else []
        ),
        ("完整度 completeness", f"{known.days_over}/{known.days_asked} 天已结束 days over"),
        ("空格 empty cell", "没有数据，不是零。No data, which is not zero."),
    ]


def _refuse_cuts(report: Report, by: By, bucket: Bucket | None) -> None:
    """Refuse to ignore what was asked: this report has a row per station for the whole period."""
    cuts = {"by": by is not By.STATION, "bucket": bucket is not None}
    message = f"the report of {report.value} has one row per station for the whole period"
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
    compare: Compare | None = None
    figure: Ranked | None = None

    def echo(self) -> dict[str, Any]:
        """Say it again."""
        said: dict[str, Any] = {
            "report": self.report.value,
            "from": self.period.from_day.isoformat(),
            "to": self.period.to_day.isoformat(),
            "by": self.by.value,
            "bucket": self.bucket.value if self.bucket else None,
        }
        if self.figure is not None:
            said["figure"] = self.figure.value
        if self.compare is None:
            return said
        before = period_before(self.period)
        return said | {
            "compare": self.compare.value,
            "before_from": before.from_day.isoformat(),
            "before_to": before.to_day.isoformat(),
        }


async def _scope(
    tx: AsyncSession,
    admin: SignedInAdmin,
    asked: Asked,
    only: tuple[uuid.UUID | None, uuid.UUID | None],
    days: Calendar,
    held: Held,
    at: datetime,
) -> Scope:
    """Say of which stations the report may speak: his own, perhaps of one unit, perhaps one."""
    stations, roots = await places_within(tx, admin, *only)
    return Scope(
        stations=stations,
        roots=roots,
        period=asked.period,
        by=asked.by,
        at=at,
        retained_since=retained_since(at, timedelta(days=held.settings.retention_days)),
        bucket=asked.bucket,
        calendar=days,
    )


async def _rows(tx: AsyncSession, asked: Asked, scope: Scope, silence_s: int) -> Sequence[Any]:
    match asked.report:
        case Report.VISITS:
            return await queries.visits(tx, scope)
        case Report.ACCESS:
            return await queries.access(tx, scope)
        case Report.OCCUPANCY:
            return await queries.occupancy(tx, scope)
        case Report.FACILITIES:
            return await queries.facilities(tx, scope)
        case Report.PROMISE:
            return await queries.promise(tx, scope)
        case Report.OCCUPATIONS:
            return await occupations(tx, scope)
        case Report.RANKING:
            return await ranking(tx, scope, asked.figure or Ranked.VISITS)
        case Report.CONTROLLERS:
            silent_since = scope.at - timedelta(seconds=silence_s)
            return await queries.controllers(tx, scope, silent_since=silent_since)


async def places_within(
    tx: AsyncSession, admin: SignedInAdmin, unit: uuid.UUID | None, station: uuid.UUID | None
) -> tuple[Any, Roots]:
    """Select the stations an administrator sees, and give the roots that hold the same.

    Raises UnitNotFound, StationNotFound.
    """
    query = visible_stations(admin)
    branch = one = None
    if station is not None:
        one = await get_station(tx, admin, station)
        query = query.where(Station.id == one.id)
    if unit is not None:
        branch = await units.get_unit(tx, unit, within=visible_units(admin))
        query = query.where(Station.unit_id.in_(select(Unit.id).where(units.under(branch.path))))
    return query, await visible_roots(tx, admin, unit=branch, station=one)
