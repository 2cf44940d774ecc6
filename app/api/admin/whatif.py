"""HTTP for what-if: the recorded scans of a period, decided again under other rules."""

import asyncio
import uuid
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from pydantic import Field
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.admin.readers import Reader
from app.api.admin.source import CompletenessOut
from app.api.admin.stations import Capacity, Hours, MaxStay
from app.api.deps import Held, Lang, Now
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
from app.reports.asked import period_of, places_within
from app.reports.rollup import retained_since
from app.reports.rules import Bucket, By, Class, Completeness, completeness
from app.reports.rules.suppositions import Ignored, OtherHours, Supposition
from app.reports.scope import PeriodInvalid, Scope
from app.reports.whatif import Assumption, Wanted, WhatIf, what_if
from app.settings import Settings

router = APIRouter(tags=["admin: reports"])


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
    generated_at: datetime


@router.post(
    "/v1/admin/reports/what-if",
    response_model=WhatIfOut,
    responses=problems(NotSignedIn, AdminForbidden, UnitNotFound, StationNotFound, PeriodInvalid),
)
async def replay_scans(body: WhatIfIn, admin: Reader, held: Held, at: Now, lang: Lang) -> Response:
    """Decide the recorded scans of at most 366 days again under other rules; changes nothing.

    Of one station and at most 31 days it lists the scans that would have come to another answer;
    they name no worker. One replay runs at a time in each process.
    """
    async with held.database.read() as tx:
        wanted = await wanted_of(tx, admin, body, held.settings, at=at)
    async with held.rehearsal:
        calendar = await held.calendar.fresh(held.database)
        found = await what_if(held.database, calendar.current, wanted)
    if found.moved_scans is not None:
        async with held.database.write() as tx:
            subject = Subject("report", "what-if", unit_path=admin.unit_path)
            after = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
            await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    text = await asyncio.to_thread(as_json, body, found, lang, at=at)
    return Response(text, media_type="application/json")


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


def as_json(asked: WhatIfIn, found: WhatIf, lang: Language, *, at: datetime) -> bytes:
    """Write the answer, as `WhatIfOut` describes it."""
    says = [{"code": each, "says": ASSUMPTIONS[each][lang]} for each in found.assumes]
    return to_json(
        {
            "report": "what-if",
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
