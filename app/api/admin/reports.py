"""HTTP for reports: scoped by one subquery, as JSON or a file, with how complete they are.

A long report may take seconds, so it never runs in a write, which on SQLite would keep every scan
waiting: the guard's write ends first.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.admin.asked import COLUMNS, Asked, Compare, Reader, Report, period_of, scope_of
from app.api.admin.files import XLSX_TYPE, Format, as_csv, as_excel, lines_of, lines_of_parts
from app.api.deps import Held, Now
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import RequestInvalid, problems
from app.api.shapes import LocalDay, Out
from app.audit import Action, Subject, record
from app.places.rules import local_day
from app.places.stations import StationNotFound
from app.places.units import UnitNotFound
from app.reports import comparing, queries
from app.reports.catalogue import described
from app.reports.comparing import ComparisonInvalid
from app.reports.frame import MOST_STREAMED, Frame, PeriodInvalid, Progress, Scope, frame, progress
from app.reports.occupations import occupations
from app.reports.queries import REPORTS, Columns
from app.reports.ranking import Ranked, ranking
from app.reports.rollup import CITY_ZONE
from app.reports.rules import Bucket, By, Completeness, completeness
from app.reports.written import rows_as_json

router = APIRouter(tags=["admin: reports"])

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
        "unit": {"type": ["string", "null"], "description": "Only this unit's branch."},
        "station": {"type": ["string", "null"], "description": "Only this station."},
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


class FieldOut(Out):
    name: str
    title: str
    formula: str
    formula_zh: str
    unit: str
    numerator: str | None
    denominator: str | None


class DescribedOut(Out):
    report: str
    title: str
    says: str
    says_zh: str
    by: list[str]
    buckets: list[str]
    compared: list[str]
    figures: list[str]
    privacy: str
    privacy_zh: str
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
    asked = Asked(report, period_of(from_day, to_day), by, bucket, compare, figure, unit, station)
    if compare is not None:
        comparing.check(report, by.is_place and bucket is None)
    if report in (Report.CONTROLLERS, Report.RANKING):
        _refuse_cuts(report, by, bucket)
    known = completeness(asked.period.days, local_day(at, CITY_ZONE))
    days = (await held.calendar.fresh(held.database)).current
    async with held.database.read() as tx:
        scope = await scope_of(tx, admin, asked, (unit, station), days, held, at)
        names: Sequence[str] = COLUMNS[report]
        made: Frame | None = None
        columns: Columns = ()
        rows: Sequence[Any] = ()
        is_summed = report in REPORTS and compare is None
        if is_summed and form is Format.CSV:
            made = await frame(tx, scope, most=MOST_STREAMED)
        elif is_summed and form is Format.JSON:
            columns = await queries.columns(tx, scope, REPORTS[report])
        else:
            rows = await _rows(tx, asked, scope, held.settings.controller_silence_s)
            if compare is not None:
                beside = await comparing.compared(tx, scope, report, rows)
                names = [*names, *beside.columns]
                rows = [(*row, *more) for row, more in zip(rows, beside.rows, strict=True)]
        counted = await progress(tx)
        nowhere = None
        if report is Report.ACCESS and admin.has_city and unit is None and station is None:
            nowhere = await queries.refused_nowhere(tx, asked.period, CITY_ZONE)
    if form is Format.JSON:
        return Response(
            await asyncio.to_thread(
                _json,
                asked,
                names,
                columns or list(zip(*rows, strict=True)),
                known,
                counted,
                nowhere,
                at,
            ),
            media_type="application/json",
        )
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=asked.echo())
    if made is not None:
        return as_csv(asked, lines_of_parts(held, made, asked))
    if form is Format.CSV:
        return as_csv(asked, lines_of(names, rows))
    return await as_excel(asked, names, rows, known, at)


def _json(
    asked: Asked,
    names: Sequence[str],
    columns: Columns,
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
    return b'%b,"rows":%b,%b' % (head[:-1], rows_as_json(names, columns), tail[1:])


def _refuse_cuts(report: Report, by: By, bucket: Bucket | None) -> None:
    """Refuse to ignore what was asked: this report has a row per station for the whole period."""
    cuts = {"by": by is not By.STATION, "bucket": bucket is not None}
    message = f"the report of {report.value} has one row per station for the whole period"
    errors = [
        {"loc": ["query", name], "message": message} for name, is_cut in cuts.items() if is_cut
    ]
    if errors:
        raise RequestInvalid(message, errors=errors)


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
