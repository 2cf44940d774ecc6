"""HTTP for reports as files: CSV, Excel, and a station's month on one page to print.

A file that leaves the house is written into the audit trail before the first byte of it is sent.
CSV is written part by part, however long it is.
"""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from app.api.admin.asked import COLUMNS, Asked, Reader
from app.api.deps import Held, Now
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import problems
from app.audit import Action, record
from app.errors import Unavailable
from app.people.admins import get_station
from app.places import stations
from app.places.stations import StationNotFound
from app.reports import queries
from app.reports.drawing import SheetFailed, printed
from app.reports.export import csv_head, csv_text
from app.reports.frame import Frame, PeriodInvalid
from app.reports.queries import REPORTS
from app.reports.rollup import CITY_ZONE
from app.reports.rules import Completeness
from app.reports.sheet import Terms, gather, month_of
from app.reports.workbook import write_workbook

log = logging.getLogger(__name__)

router = APIRouter(tags=["admin: reports"])


class SheetUnavailable(Unavailable):
    """The sheet cannot be drawn just now."""


class Format(StrEnum):
    """How a report is written."""

    JSON = "json"
    CSV = "csv"
    XLSX = "xlsx"


XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


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
    await held.calendar.fresh(held.database)
    async with held.database.read() as tx:
        station = await get_station(tx, admin, station_id)
        local = at.astimezone(ZoneInfo(station.timezone))
        retention = timedelta(days=held.settings.retention_days)
        terms = Terms(local, held.calendar.current, retention)
        gathered = await gather(tx, station, period, terms)
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


def as_csv(asked: Asked, lines: AsyncIterator[str]) -> Response:
    """Send the report as a file that leaves the house, as it is written."""
    return StreamingResponse(
        lines, media_type="text/csv; charset=utf-8", headers=_attached(asked, Format.CSV)
    )


async def lines_of_parts(held: Held, made: Frame, asked: Asked) -> AsyncIterator[str]:
    """Write a long report part by part."""
    columns = COLUMNS[asked.report]
    yield csv_head(columns)
    async for rows in queries.streamed(held.database.read, made, REPORTS[asked.report]):
        yield await asyncio.to_thread(csv_text, columns, rows)


async def lines_of(columns: Sequence[str], rows: Sequence[Any]) -> AsyncIterator[str]:
    """Write rows that are there already."""
    yield csv_head(columns)
    yield csv_text(columns, rows)


async def as_excel(
    asked: Asked,
    columns: Sequence[str],
    rows: Sequence[Any],
    known: Completeness,
    at: datetime,
) -> Response:
    """Send the report as a workbook; thousands of rows take a while, so beside the loop."""
    about = _about(asked, known, at)
    path = await asyncio.to_thread(_workbook, columns, rows, about)
    gone = BackgroundTask(path.unlink, missing_ok=True)
    headers = _attached(asked, Format.XLSX)
    return FileResponse(path, media_type=XLSX_TYPE, headers=headers, background=gone)


def _attached(asked: Asked, form: Format) -> dict[str, str]:
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


_ONLY = (("工会组织 unit", "unit"), ("驿站 station", "station"), ("指标 figure", "figure"))
"""What a report may be narrowed to, beside its period."""


def _about(asked: Asked, known: Completeness, at: datetime) -> list[tuple[str, str]]:
    """Say on the file itself what it is, of when, and how complete."""
    made = at.astimezone(ZoneInfo(CITY_ZONE)).isoformat(timespec="seconds")
    said = asked.echo()
    return [
        ("报表 report", asked.report.value),
        ("起 from", asked.period.from_day.isoformat()),
        ("止（不含）to", asked.period.to_day.isoformat()),
        ("行 by", asked.by.value + (f" / {asked.bucket.value}" if asked.bucket else "")),
        *((title, said[name]) for title, name in _ONLY if said.get(name)),
        ("生成时间 generated_at", made),
        *(
            [("对比期 before", f"{said['before_from']} – {said['before_to']}")]
            if "before_from" in said
            else []
        ),
        ("完整度 completeness", f"{known.days_over}/{known.days_asked} 天已结束 days over"),
        ("空格 empty cell", "没有数据，不是零。No data, which is not zero."),
    ]
