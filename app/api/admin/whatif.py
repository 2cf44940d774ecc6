"""HTTP for what-if: the recorded scans of a period, decided again, as JSON or a file."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import Field
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from app.api.admin.files import (
    XLSX_TYPE,
    attached_csv,
    attached_workbook,
    described_headers,
    file_name,
)
from app.api.admin.readers import Reader
from app.api.admin.source import CompletenessOut
from app.api.admin.stations import Capacity, Hours, MaxStay
from app.api.deps import Held, Lang, Now
from app.api.edge import hung_up
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import problems
from app.api.shapes import In, LocalDay, Out
from app.api.words import ASSUMPTIONS, Language
from app.audit import Action, Subject, record
from app.doors.rules import Outcome, Reason
from app.errors import RequestInvalid
from app.people.admins import SignedInAdmin
from app.places.rules import CITY_ZONE, local_day, parse_hours
from app.places.stations import StationNotFound
from app.places.tables import OperatingModel
from app.places.units import UnitNotFound
from app.reports.answers import CALENDAR_UNKNOWN, EMPTY_CELL, about_asked, local
from app.reports.asked import Format, period_of, places_within
from app.reports.rollup import retained_since
from app.reports.rules import Bucket, By, Class, Completeness, completeness
from app.reports.rules.suppositions import Ignored, OtherHours, Supposition
from app.reports.scope import PeriodInvalid, Scope
from app.reports.whatif import Assumption, Wanted, WhatIf, what_if
from app.reports.whatif_table import as_csv, as_workbook
from app.settings import Settings

router = APIRouter(tags=["admin: reports"])

REPORT = "what-if"
"""What it is called among the reports."""
CLIENT_CLOSED_REQUEST = 499
"""Nobody hears it; so proxies write down that the caller left first."""


class ChangeIn(In):
    """What is supposed; a field that is absent leaves the station as it is."""

    staffed_hours: Hours | None = None
    """null: never staffed."""
    access_hours: Hours | None = None
    """null: no scan opens."""
    capacity: Capacity = 0
    max_stay_min: MaxStay = 60
    ignore: Annotated[tuple[Ignored, ...], Field(max_length=len(Ignored))] = ()


class WhatIfIn(In):
    from_day: Annotated[LocalDay, Field(alias="from", description="First local day.")]
    to_day: Annotated[LocalDay, Field(alias="to", description="The day after the last.")]
    unit: uuid.UUID | None = None
    station: uuid.UUID | None = None
    change: ChangeIn
    by: By = By.STATION
    bucket: Bucket | None = None


class MovedOut(Out):
    before: str
    after: str
    scans: int


class OutcomesOut(Out):
    granted: int
    walk_in: int
    refused: int


class FiguresOut(Out):
    recorded: OutcomesOut
    replayed: OutcomesOut
    newly_let_in: int
    newly_let_in_again: int
    """Of these, scans of somebody who would have been inside already: taps of one person."""
    newly_turned_away: int
    moved: list[MovedOut]
    unmet_demand_before: int | None
    unmet_demand_after: int | None


class RowOut(Out):
    station: str | None
    unit: str | None
    name: str
    operating_model: OperatingModel | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: Class | None
    known_share: float
    figures: FiguresOut | None


class StaysOut(Out):
    by_median: int
    by_longest: int


class AssumptionOut(Out):
    code: Assumption
    says: str


class DecidedOut(Out):
    outcome: Outcome
    reason: Reason


class MovedScanOut(Out):
    id: uuid.UUID
    scanned_at: datetime
    before: DecidedOut
    after: DecidedOut


class WhatIfOut(Out):
    report: str
    from_day: Annotated[date, Field(serialization_alias="from")]
    to_day: Annotated[date, Field(serialization_alias="to")]
    by: By
    bucket: Bucket | None
    change: dict[str, Any]
    rows: list[RowOut]
    totals: FiguresOut
    by_hour: list[FiguresOut]
    scans: int
    scans_moved: int
    moved_scans: list[MovedScanOut] | None
    """The first 500 by time, of one station and at most 31 days; null of more."""
    without_mode: int
    without_station: int | None
    amended_since: int | None
    stays: StaysOut
    assumes: list[AssumptionOut]
    completeness: CompletenessOut
    known_share: float
    """Of the time of all rows, what `known_share` of a row is of its own."""
    calendar_known: bool | None
    """Whether the calendar has every day, where rows are cut by `day_class` or modes are computed;
    null: nothing in the answer depends on which days are holidays."""
    generated_at: datetime


TOLD_BESIDE: Mapping[str, Any] = {
    "completeness": {"type": "object"},
    "known_share": {"type": "number"},
    "calendar_known": {"type": ["boolean", "null"]},
    "scans": {"type": "integer"},
    "scans_moved": {"type": "integer"},
    "without_mode": {"type": "integer"},
    "without_station": {"type": ["integer", "null"]},
    "amended_since": {"type": ["integer", "null"]},
    "stays": {"type": "object"},
    "assumes": {"type": "array", "items": {"type": "string"}, "description": "Their codes."},
    "generated_at": {"type": "string", "format": "date-time"},
}
"""What the JSON says of its rows and a table cannot: of files, headers tell it."""


@router.post(
    "/v1/admin/reports/what-if",
    response_model=WhatIfOut,
    responses={
        **problems(NotSignedIn, AdminForbidden, UnitNotFound, StationNotFound, PeriodInvalid),
        200: {
            "headers": described_headers(TOLD_BESIDE),
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                XLSX_TYPE: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
)
async def replay_scans(
    body: WhatIfIn,
    admin: Reader,
    request: Request,
    held: Held,
    at: Now,
    lang: Lang,
    form: Annotated[Format, Query(alias="format", description="JSON, or a file: CSV or Excel.")] = (
        Format.JSON
    ),
) -> Response:
    """Decide the recorded scans of at most 366 days again under other rules; changes nothing.

    Of one station and at most 31 days it lists the scans that would have come to another answer;
    they name no worker. A file has the rows. One replay runs at a time in each process, and ends
    when its caller hangs up.
    """

    def require_caller(_stations: int = 0) -> None:
        if hung_up(request.receive):
            raise ClientDisconnect

    async with held.database.read() as tx:
        wanted = await wanted_of(tx, admin, body, held.settings, at=at)
    try:
        async with held.rehearsal:
            require_caller()  # Perhaps he waited for another's replay, and not to its end.
            calendar = await held.calendar.fresh(held.database)
            found = await what_if(held.database, calendar.current, wanted, require_caller)
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if form is not Format.JSON or found.moved_scans is not None:
        async with held.database.write() as tx:
            subject = Subject("report", REPORT, unit_path=admin.unit_path)
            after = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
            await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    if form is Format.JSON:
        text = await asyncio.to_thread(as_json, body, found, lang, at=at)
        return Response(text, media_type="application/json")
    name = file_name(REPORT, wanted.scope.period, form, unit=body.unit, station=body.station)
    facts = facts_of(body, found, at=at)
    if form is Format.CSV:
        return attached_csv(name, facts, _whole(await asyncio.to_thread(as_csv, found)))

    async def write(path: Path) -> None:
        await asyncio.to_thread(as_workbook, found, path, about(body, found, at=at))

    return await attached_workbook(name, facts, write)


@router.get("/v1/admin/reports/what-if", include_in_schema=False)
async def refuse_get(_admin: Reader) -> None:
    """Say that this is asked by POST, before the path is taken for a report's name."""
    raise HTTPException(405, headers={"Allow": "POST"})


async def wanted_of(
    tx: AsyncSession, admin: SignedInAdmin, asked: WhatIfIn, settings: Settings, *, at: datetime
) -> Wanted:
    """Read what is asked, and of which stations of his.

    Raises RequestInvalid, PeriodInvalid, UnitNotFound, StationNotFound.
    """
    supposed = _supposed(asked.change)
    period = period_of(asked.from_day, asked.to_day)
    stations, roots = await places_within(tx, admin, asked.unit, asked.station)
    scope = Scope(
        stations=stations,
        roots=roots,
        period=period,
        by=asked.by,
        at=at,
        retained_since=retained_since(at, timedelta(days=settings.retention_days)),
        bucket=asked.bucket,
    )
    whole_city = admin.has_city and asked.unit is None and asked.station is None
    silence = timedelta(seconds=settings.controller_silence_s)
    return Wanted(scope, supposed, silence, CITY_ZONE if whole_city else None)


def known_of(asked: WhatIfIn, *, at: datetime) -> Completeness:
    """Say how much of the period can be known."""
    days = period_of(asked.from_day, asked.to_day).days
    return completeness(days, local_day(at, CITY_ZONE))


async def _whole(text: bytes) -> AsyncIterator[bytes]:
    yield text


def facts_of(asked: WhatIfIn, found: WhatIf, *, at: datetime) -> dict[str, Any]:
    """Say what is to be known of the rows, as `TOLD_BESIDE` describes it."""
    own = {"completeness": asdict(known_of(asked, at=at)), "generated_at": at}
    return {name: own[name] if name in own else getattr(found, name) for name in TOLD_BESIDE}


def about(asked: WhatIfIn, found: WhatIf, *, at: datetime) -> list[tuple[str, str]]:
    """Say on a workbook itself what was supposed, of when, and what is taken for granted."""
    known = known_of(asked, at=at)
    supposed = asked.change.model_dump(mode="json", exclude_unset=True)
    counts = {
        "重新判断的扫码 scans": found.scans,
        "结果会变的扫码 scans_moved": found.scans_moved,
        "没有记录模式而略去 without_mode": found.without_mode,
        "认不出驿站 without_station": found.without_station,
        "与当时记录不一致 amended_since": found.amended_since,
        "按停留中位数 stays.by_median": found.stays.by_median,
        "按最长停留 stays.by_longest": found.stays.by_longest,
    }
    return [
        *about_asked({"report": REPORT, **asked.model_dump(mode="json", by_alias=True)}),
        ("假设 change", to_json(supposed).decode()),
        ("生成时间 generated_at", local(at)),
        ("完整度 completeness", f"{known.days_over}/{known.days_asked} 天已结束 days over"),
        *([CALENDAR_UNKNOWN] if found.calendar_known is False else []),
        *((title, f"{count:,}") for title, count in counts.items() if count is not None),
        *((f"前提 {each}", " ".join(ASSUMPTIONS[each].values())) for each in found.assumes),
        EMPTY_CELL,
    ]


def as_json(asked: WhatIfIn, found: WhatIf, lang: Language, *, at: datetime) -> bytes:
    """Write the answer, as `WhatIfOut` describes it."""
    says = [{"code": each, "says": ASSUMPTIONS[each][lang]} for each in found.assumes]
    return to_json(
        {
            "report": REPORT,
            "from": asked.from_day,
            "to": asked.to_day,
            "by": asked.by,
            "bucket": asked.bucket,
            "change": asked.change.model_dump(mode="json", exclude_unset=True),
            **{name: getattr(found, name) for name in WhatIf.__slots__},
            "assumes": says,
            "completeness": known_of(asked, at=at),
            "generated_at": at,
        }
    )


def _supposed(change: ChangeIn) -> Supposition:
    """Read what is supposed: only fields that were sent, for null says something of its own."""
    given = change.model_fields_set
    return Supposition(
        staffed=_hours(change, "staffed_hours"),
        access=_hours(change, "access_hours"),
        capacity=change.capacity if "capacity" in given else None,
        max_stay=timedelta(minutes=change.max_stay_min) if "max_stay_min" in given else None,
        ignored=frozenset(change.ignore),
    )


def _hours(change: ChangeIn, name: str) -> OtherHours | None:
    if name not in change.model_fields_set:
        return None
    hours = getattr(change, name)
    try:
        return OtherHours(None if hours is None else parse_hours(hours))
    except ValueError as error:
        message = str(error)
        errors = [{"loc": ["body", "change", name], "message": message}]
        raise RequestInvalid(message, errors=errors) from error
