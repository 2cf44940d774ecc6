"""HTTP for where a figure of a report comes from, down to the rows that were counted."""

import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AliasChoices, Field

from app.api.admin.readers import Reader
from app.api.deps import Held, Now, Page
from app.api.guards import AdminForbidden, NotSignedIn
from app.api.problems import problems
from app.api.shapes import LocalDay, Out
from app.audit import Action, Subject, record
from app.db.cursors import CursorInvalid
from app.doors.rules import CommandState, Outcome, Reason
from app.errors import RequestInvalid
from app.people.admins import get_station
from app.places.rules import CITY_ZONE, Because, Kind
from app.places.stations import StationNotFound
from app.places.tables import FacilityKind, FacilityStatus, OperatingModel
from app.places.units import UnitNotFound
from app.reports import cells, source
from app.reports.asked import Asked, Report, period_of, scope_of
from app.reports.catalogue import field_of
from app.reports.cells import RowUnknown
from app.reports.comparing import FIGURES
from app.reports.dimensions import cuts_of
from app.reports.export import COMPARED
from app.reports.progress import progress
from app.reports.rules import Bucket, By, Class
from app.reports.rules.comparison import period_before
from app.reports.rules.rates import rate_of
from app.reports.scope import PeriodInvalid
from app.visits.tables import EndSource

router = APIRouter(tags=["admin: reports"])


class CompletenessOut(Out):
    days_asked: int
    days_over: int
    days_counted: int
    days_begun: int
    days_to_come: int
    share: float


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
    decide_ms: int | None
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


class HeadsRowOut(Out):
    id: uuid.UUID
    from_at: datetime
    until_at: datetime
    count: int


class AloneRowOut(Out):
    id: Annotated[uuid.UUID, Field(validation_alias=AliasChoices("entry_id", "id"))]
    happened_at: datetime
    opened: bool
    reason: Reason
    would_have_been_refused: Reason | None
    mode: Kind
    because: Because


class ModeRowOut(Out):
    """A mode that held; `id` is the station's."""

    id: uuid.UUID
    from_at: datetime
    until_at: datetime
    mode: Kind
    because: Because
    promised_ms: int
    """Of that time, how long the station was promised to be open, whatever held."""


class OutageRowOut(Out):
    """A silence that is over; `id` is the controller's."""

    id: Annotated[uuid.UUID, Field(validation_alias=AliasChoices("controller_id", "id"))]
    from_at: datetime
    until_at: datetime


class SpellRowOut(Out):
    """A time of a facility in one status; `id` is the facility's."""

    id: Annotated[uuid.UUID, Field(validation_alias=AliasChoices("facility_id", "id"))]
    kind: FacilityKind
    quantity: int
    status: FacilityStatus
    from_at: datetime
    until_at: datetime | None


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
    rows: (
        list[VisitRowOut]
        | list[ScanRowOut]
        | list[CommandRowOut]
        | list[UseRowOut]
        | list[HeadsRowOut]
        | list[AloneRowOut]
        | list[ModeRowOut]
        | list[SpellRowOut]
        | list[OutageRowOut]
        | None
    )
    next: str | None


ROWS_OUT: dict[source.Rows, type[Out]] = {
    source.Rows.VISITS: VisitRowOut,
    source.Rows.SCANS: ScanRowOut,
    source.Rows.COMMANDS: CommandRowOut,
    source.Rows.USES: UseRowOut,
    source.Rows.HEADS: HeadsRowOut,
    source.Rows.ALONE: AloneRowOut,
    source.Rows.MODES: ModeRowOut,
    source.Rows.OUTAGES: OutageRowOut,
    source.Rows.SPELLS: SpellRowOut,
}


async def named(
    of_station: Annotated[str | None, Query(max_length=40, description="Its code.")] = None,
    of_unit: Annotated[uuid.UUID | None, Query()] = None,
    of_operating_model: Annotated[OperatingModel | None, Query()] = None,
    of_day: Annotated[LocalDay | None, Query(description="As the row says it.")] = None,
    of_hour: Annotated[int | None, Query(ge=0, le=23)] = None,
    of_weekday: Annotated[int | None, Query(ge=1, le=7)] = None,
    of_day_class: Annotated[Class | None, Query()] = None,
    of_kind: Annotated[
        FacilityKind | None, Query(description="Of `facilities`; all kinds by default.")
    ] = None,
) -> cells.Names:
    """Which row of the report: what its fields say."""
    return cells.Names(
        of_station,
        of_unit,
        of_operating_model,
        of_day,
        of_hour,
        of_weekday,
        of_day_class,
        of_kind,
    )


Named = Annotated[cells.Names, Depends(named)]


def _unknown(report: Report, figure: str, from_day: date, to_day: date) -> str:
    """Say what can be asked instead."""
    name = next((figure.removesuffix(end) for end in COMPARED if figure.endswith(end)), "")
    if name in FIGURES.get(report, ()):
        before = period_before(period_of(from_day, to_day))
        rate = rate_of(report, name)
        parts = ", ".join((name,) if rate is None else rate.names)
        return (
            f"{figure} is computed from {parts}: ask for each over this period, and from "
            f"{before.from_day} to {before.to_day}, by day_class to see the mix of days"
        )
    return f"the figures of this report are: {', '.join([source.KNOWN, *source.MADE[report]])}"


@router.get(
    "/v1/admin/reports/{report}/source",
    response_model=SourceOut,
    responses=problems(
        NotSignedIn,
        AdminForbidden,
        UnitNotFound,
        StationNotFound,
        PeriodInvalid,
        RowUnknown,
        CursorInvalid,
    ),
)
async def source_of(
    report: Report,
    admin: Reader,
    held: Held,
    at: Now,
    page: Page,
    names: Named,
    figure: Annotated[str, Query(max_length=40, description="A field of the report.")],
    from_day: Annotated[LocalDay, Query(alias="from", description="First local day.")],
    to_day: Annotated[LocalDay, Query(alias="to", description="The day after the last.")],
    by: Annotated[By, Query(description="As in the report; by default its sum.")] = By.ALL,
    bucket: Annotated[Bucket | None, Query(description="As in the report.")] = None,
    unit: Annotated[uuid.UUID | None, Query(description="Only this unit's branch.")] = None,
    station: Annotated[uuid.UUID | None, Query(description="Only this station.")] = None,
) -> Any:
    """Say where a figure comes from: formula, counters, completeness, and raw rows page by page.

    Asked like the report, with what names a row of it in `of_station`, `of_day` and so on, it
    speaks of just that cell. Rows are given of one station and of at most 31 days from the first to
    the last, null otherwise; they name no worker.
    """
    made = source.made_of(report, figure)
    if made is None:
        raise RequestInvalid(_unknown(report, figure, from_day, to_day))
    _check_cut(report, by, bucket)
    asked = Asked(report, period_of(from_day, to_day), by, bucket, unit=unit, station=station)
    days = (await held.calendar.fresh(held.database)).current
    async with held.database.read() as tx:
        retention = timedelta(days=held.settings.retention_days)
        scope = await scope_of(tx, admin, asked, days, retention=retention, at=at)
        cell = await cells.find(tx, scope, names)
        found = await source.source(tx, cell, report, figure)
        counted = await progress(tx)
        one = rows = None
        its_station = cell.station_id or station
        if its_station is not None and made.rows is not None and source.may_list(cell):
            one = await get_station(tx, admin, its_station)
            rows = await source.behind(tx, cell, one, made, page)
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        after = asked.echo() | {"figure": figure, "station": one.code if one else None}
        after["of"] = names.echo()
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    says = field_of(report, figure)
    shape = None if made.rows is None else ROWS_OUT[made.rows]
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
        "completeness": counted.completeness(list(cell.slot.days), at, CITY_ZONE),
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


def _check_cut(report: Report, by: By, bucket: Bucket | None) -> None:
    """Refuse rows that the report does not have; the sum of it all may be asked of any."""
    cuts, buckets = cuts_of(report)
    if by is not By.ALL and by not in cuts:
        raise RequestInvalid(f"the report of {report.value} has no rows by {by.value}")
    if bucket is not None and bucket not in buckets:
        raise RequestInvalid(f"the report of {report.value} is not cut by {bucket.value}")
