"""HTTP for reports: scoped by one subquery, as JSON or a file, with how complete they are.

A long report may take seconds, so it never runs in a write, which on SQLite would keep every scan
waiting: the guard's write ends first.
"""

import asyncio
import uuid
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from app.api.admin.files import (
    XLSX_TYPE,
    attached_csv,
    attached_workbook,
    described_headers,
    file_name,
)
from app.api.admin.readers import Reader
from app.api.deps import Held, Now
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import problems
from app.api.shapes import LocalDay, Out
from app.audit import Action, Subject, record
from app.places.stations import StationNotFound
from app.places.units import UnitNotFound
from app.reports.answers import answer, as_csv, as_json, as_workbook
from app.reports.asked import Asked, Compare, Format, Report, checked, period_of, scope_of
from app.reports.catalogue import described
from app.reports.comparing import MOST_ROWS, ComparisonInvalid
from app.reports.frame import MOST_ROWS as AT_ONCE
from app.reports.ranking import Ranked
from app.reports.rules import Bucket, By
from app.reports.scope import PeriodInvalid
from app.reports.workbook import check_length

router = APIRouter(tags=["admin: reports"])

REPORT_SCHEMA: dict[str, Any] = {
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
        "calendar_known",
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
        "calendar_known": {
            "type": ["boolean", "null"],
            "description": "Where rows are cut by `day_class`, or compared on the same mix of "
            "days: whether the calendar has every day of the period, and of the one before where "
            "that is compared; of other years a day is as its weekday says. `null` where nothing "
            "in the answer depends on which days are holidays.",
        },
        "generated_at": {"type": "string", "format": "date-time"},
    },
}

TOLD_BESIDE = (
    "completeness",
    "rolled_up_to",
    "recounting",
    "calendar_known",
    "generated_at",
    "refused_without_station",
)
"""What the JSON says of its rows and a table cannot: of files, headers tell it."""


class FieldOut(Out):
    name: str
    title: str
    formula: str
    formula_zh: str
    unit: str
    numerator: str | None
    denominator: str | None


class RankedOut(FieldOut):
    """A figure by which stations can be ranked, as the report `report` has it."""

    report: str
    must_be_heard: bool
    """Whether a station is left out that was not heard for about as long as its peers."""


class DescribedOut(Out):
    report: str
    title: str
    says: str
    says_zh: str
    by: list[str]
    buckets: list[str]
    dimensions: dict[str, str]
    dimensions_zh: dict[str, str]
    compared: list[str]
    endings: dict[str, str]
    endings_zh: dict[str, str]
    beside: dict[str, str]
    beside_zh: dict[str, str]
    figures: list[str]
    ranked: list[RankedOut]
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
            "headers": described_headers(
                {fact: REPORT_SCHEMA["properties"][fact] for fact in TOLD_BESIDE}
            ),
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
        By,
        Query(
            description="One row per station or other place, or per piece of time of all. "
            "`branch`: per unit directly below the place that is asked about, with all below it."
        ),
    ] = By.STATION,
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
    station: Annotated[uuid.UUID | None, Query(description="Only this station.")] = None,
    bucket: Annotated[Bucket | None, Query(description="Cut each row into pieces of time.")] = None,
    compare: Annotated[
        Compare | None,
        Query(
            description="Beside each figure: the period before on the same mix of days. Days of a "
            "class (workday, weekend, public_holiday) that only one of the periods has are left "
            "out: each row says `compared_days` of `days_over`, and `left_out_classes`. As JSON "
            f"of at most {MOST_ROWS:,} rows: places, times 24 by `hour_of_day`, times the kinds of "
            "facilities; of more it is refused before it is computed. Files have no such limit."
        ),
    ] = None,
    figure: Annotated[
        Ranked | None, Query(description="Of `ranking`: by what; visits by default.")
    ] = None,
    form: Annotated[
        Format,
        Query(
            alias="format",
            description=f"JSON, of at most {AT_ONCE:,} rows, or a file: CSV or Excel. Files are "
            "written part by part; of `occupations`, month by month.",
        ),
    ] = Format.JSON,
) -> Response:
    """Give a report over local days, `to` excluded."""
    asked = Asked(report, period_of(from_day, to_day), by, bucket, compare, figure, unit, station)
    asked = checked(asked)
    days = (await held.calendar.fresh(held.database)).current
    retention = timedelta(days=held.settings.retention_days)
    async with held.database.read() as tx:
        found = await answer(
            tx,
            asked,
            await scope_of(tx, admin, asked, days, retention=retention, at=at),
            silence=timedelta(seconds=held.settings.controller_silence_s),
            streams=form is not Format.JSON,
            is_whole_city=admin.has_city and unit is None and station is None,
        )
    if form is Format.JSON:
        pieces = [piece async for piece in as_json(held.database.read, found)]
        text = await asyncio.to_thread(b"".join, pieces)
        return Response(text, media_type="application/json")
    if form is Format.XLSX:
        check_length(found.least)  # What is refused has not left the house.
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=asked.echo())
    name, read = (
        file_name(report, asked.period, form, unit=unit, station=station),
        held.database.read,
    )
    if form is Format.CSV:
        return attached_csv(name, found.facts, as_csv(read, found))
    return await attached_workbook(name, found.facts, partial(as_workbook, read, found))
