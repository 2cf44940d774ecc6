"""HTTP for reports as files: CSV, Excel, and a station's month on one page to print.

A file that leaves the house is written into the audit trail before the first byte of it is sent.
CSV is written part by part, however long it is, and is one table: how complete it is, headers tell.
"""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic_core import to_json
from starlette.background import BackgroundTask

from app.api.admin.readers import Reader
from app.api.deps import Held, Now
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import problems
from app.audit import Action, record
from app.errors import Unavailable
from app.people.admins import get_station
from app.places import stations
from app.places.stations import StationNotFound
from app.reports.asked import Format
from app.reports.drawing import SheetFailed, printed
from app.reports.rules import Period
from app.reports.scope import PeriodInvalid
from app.reports.sheet import Terms, gather, month_of

log = logging.getLogger(__name__)

router = APIRouter(tags=["admin: reports"])


class SheetUnavailable(Unavailable):
    """The sheet cannot be drawn just now."""


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


def file_name(
    report: str,
    period: Period,
    form: Format,
    *,
    unit: uuid.UUID | None,
    station: uuid.UUID | None,
) -> str:
    """Name the file of a report of one unit, one station or all."""
    place = "".join(f"-{id}" for id in (unit, station) if id is not None)
    return f"{report}-{period.from_day}-{period.to_day}{place}.{form}"


def attached_csv(name: str, facts: Mapping[str, Any], text: AsyncIterator[bytes]) -> Response:
    """Send rows as a file that leaves the house, as it is written."""
    headers = _attached(name, facts)
    return StreamingResponse(text, media_type="text/csv; charset=utf-8", headers=headers)


async def attached_workbook(
    name: str, facts: Mapping[str, Any], write: Callable[[Path], Awaitable[None]]
) -> Response:
    """Send what `write` writes as a workbook."""
    handle, text = tempfile.mkstemp(suffix=".xlsx")
    os.close(handle)
    path = Path(text)
    try:
        await write(path)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    gone = BackgroundTask(path.unlink, missing_ok=True)
    headers = _attached(name, facts)
    return FileResponse(path, media_type=XLSX_TYPE, headers=headers, background=gone)


def header_of(fact: str) -> str:
    """Name the header that tells a fact of a report beside its file."""
    return f"Report-{fact.replace('_', '-').title()}"


def described_headers(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Describe for OpenAPI the headers of files, by the schemas of their facts."""
    return {
        header_of(fact): {
            "description": f"Of files: `{fact}`, as in the JSON.",
            "content": {"application/json": {"schema": schema}},
        }
        for fact, schema in schemas.items()
    }


def _attached(name: str, facts: Mapping[str, Any]) -> dict[str, str]:
    # A table has no room for them, and without them what is not final looks final.
    told = {header_of(fact): to_json(value).decode() for fact, value in facts.items()}
    return {"Content-Disposition": f'attachment; filename="{name}"'} | told
