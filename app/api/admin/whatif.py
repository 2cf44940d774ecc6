"""HTTP for what-if: the recorded scans of a period, decided again under other rules."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from pydantic import Field

from app.api.admin.source import CompletenessOut
from app.api.admin.stations import Capacity, Hours, MaxStay
from app.api.deps import Held, Lang, Now
from app.api.guards import AdminForbidden, NotSignedIn, admin_waits
from app.api.problems import problems
from app.api.shapes import In, LocalDay, Out
from app.api.words import ASSUMPTIONS, Language
from app.errors import RequestInvalid
from app.people.admins import SignedInAdmin
from app.people.rules import Permission
from app.places.rules import CITY_ZONE, local_day, parse_hours
from app.places.stations import StationNotFound
from app.places.units import UnitNotFound
from app.reports.asked import period_of, places_within
from app.reports.rollup import retained_since
from app.reports.rules import By, completeness
from app.reports.rules.suppositions import Ignored, OtherHours, Supposition
from app.reports.scope import PeriodInvalid, Scope
from app.reports.whatif import Assumption, Rows, Wanted, WhatIf, what_if

router = APIRouter(tags=["admin: reports"])

Reader = Annotated[SignedInAdmin, Depends(admin_waits(Permission.READ_REPORTS))]


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
    by: Rows = Rows.STATION


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
    day: date | None
    hour: int | None
    known_share: float
    figures: FiguresOut | None


class StaysOut(Out):
    by_median: int
    by_longest: int


class AssumptionOut(Out):
    code: Assumption
    says: str


class WhatIfOut(Out):
    report: str
    from_day: Annotated[date, Field(serialization_alias="from")]
    to_day: Annotated[date, Field(serialization_alias="to")]
    by: Rows
    change: dict[str, Any]
    rows: list[RowOut]
    totals: FiguresOut
    by_hour: list[FiguresOut]
    scans: int
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
async def replay_scans(body: WhatIfIn, admin: Reader, held: Held, at: Now, lang: Lang) -> Any:
    """Decide the recorded scans of at most 366 days again under other rules; changes nothing.

    One replay runs at a time in each process.
    """
    period = period_of(body.from_day, body.to_day)
    supposed = _supposed(body.change)
    async with held.database.read() as tx:
        stations, roots = await places_within(tx, admin, body.unit, body.station)
    scope = Scope(
        stations=stations,
        roots=roots,
        period=period,
        by=By.STATION,
        at=at,
        retained_since=retained_since(at, timedelta(days=held.settings.retention_days)),
    )
    whole_city = admin.has_city and body.unit is None and body.station is None
    silence = timedelta(seconds=held.settings.controller_silence_s)
    wanted = Wanted(scope, body.by, supposed, silence, CITY_ZONE if whole_city else None)
    async with held.rehearsal:
        calendar = await held.calendar.fresh(held.database)
        found = await what_if(held.database, calendar.current, wanted)
    return {
        "report": "what-if",
        "from_day": period.from_day,
        "to_day": period.to_day,
        "by": body.by,
        "change": body.change.model_dump(mode="json", exclude_unset=True),
        **_shape(found, lang),
        "completeness": asdict(completeness(period.days, local_day(at, CITY_ZONE))),
        "generated_at": at,
    }


@router.get("/v1/admin/reports/what-if", include_in_schema=False)
async def refuse_get(_admin: Reader) -> None:
    """Say that this is asked by POST, before the path is taken for a report's name."""
    raise HTTPException(405, headers={"Allow": "POST"})


def _shape(found: WhatIf, lang: Language) -> Mapping[str, Any]:
    values = {name: getattr(found, name) for name in WhatIf.__slots__}
    says = [{"code": each, "says": ASSUMPTIONS[each][lang]} for each in found.assumes]
    return values | {"assumes": says}


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
