"""HTTP for where a figure of a report comes from, down to the rows that were counted."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
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
from app.db.cursors import CursorInvalid, PageOf
from app.doors.rules import CommandState, Outcome, Reason
from app.errors import RequestInvalid
from app.people.admins import get_station
from app.places.rules import CITY_ZONE, Because, Kind
from app.places.stations import StationNotFound
from app.places.tables import FacilityKind, FacilityStatus, OperatingModel
from app.places.units import UnitNotFound
from app.reports import cells, comparing
from app.reports.asked import Asked, Report, period_of, scope_of
from app.reports.behind import behind, may_list
from app.reports.beside import (
    BEFORE,
    CHANGE,
    OF_BEFORE,
    OVER,
    Beside,
    Told,
    beside_of,
    source_beside,
)
from app.reports.catalogue import Field as Said
from app.reports.catalogue import field_of
from app.reports.cells import RowUnknown
from app.reports.comparing import FIGURES, ComparisonInvalid
from app.reports.dimensions import ENDINGS, cuts_of
from app.reports.export import title_of
from app.reports.made import KNOWN, MADE, Rows, made_of
from app.reports.progress import progress
from app.reports.ranking import Ranked
from app.reports.rules import Bucket, By, Class
from app.reports.rules.health import Counts, Heard
from app.reports.scope import PeriodInvalid
from app.reports.source import Source, source
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
    with_contact: bool
    """Whether it was executed at a door whose contact tells of openings: there only `opened_at`
    proves one."""
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


class PromisedRowOut(Out):
    """A promised time, and as what it counts; `id` is the station's."""

    id: uuid.UUID
    from_at: datetime
    until_at: datetime
    mode: Kind | None
    because: Because | None
    heard: Heard
    """Who told of it whether the station could be used."""
    counts: Counts


class DemandRowOut(ScanRowOut):
    """A refused scan, and the demand that it is a part of."""

    demand: uuid.UUID
    """The same for the refused scans of one worker here in one half hour."""
    met: bool
    """Whether he was let in all the same in that half hour."""


class OutageRowOut(Out):
    """A silence of the controller `id`; one that goes on has no end."""

    id: Annotated[uuid.UUID, Field(validation_alias=AliasChoices("controller_id", "id"))]
    from_at: datetime
    until_at: datetime | None


class SpellRowOut(Out):
    """A time of a facility in one status; `id` is the facility's."""

    id: Annotated[uuid.UUID, Field(validation_alias=AliasChoices("facility_id", "id"))]
    kind: FacilityKind
    quantity: int
    status: FacilityStatus
    from_at: datetime
    until_at: datetime | None


class HourRowOut(Out):
    """An hour, as it was counted: milliseconds, and visits that began in free mode.

    `id` is the station's. Staffed time is covered by whole hours: in which anybody scanned, or
    staff counted heads.
    """

    id: uuid.UUID
    from_at: datetime
    until_at: datetime
    open_ms: int
    staffed_ms: int
    covered_ms: int
    heads_only_ms: int
    visits_free: int
    reporting_ms: int
    seats_ms: int
    commissioned_ms: int
    online_ms: int
    deaf_ms: int


class CounterOut(Out):
    name: str
    sum: int


class OnDaysOut(Out):
    """What was counted on the compared days of one class; `measured_ms` of them is known."""

    is_before: bool
    day_class: Class
    days: int
    counters: list[CounterOut]


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
    on_days: list[OnDaysOut]
    """Of a figure beside the period before: what was counted on the days of each class; with what
    came before, on those of this period as well, to which it is weighed."""
    rollups: RollupsOut
    row_kind: Rows | None
    station: str | None
    """Whose rows stand behind the figure; null: none do, or those of more than one station."""
    rows: (
        list[VisitRowOut]
        | list[DemandRowOut]
        | list[ScanRowOut]
        | list[CommandRowOut]
        | list[UseRowOut]
        | list[HeadsRowOut]
        | list[AloneRowOut]
        | list[ModeRowOut]
        | list[PromisedRowOut]
        | list[SpellRowOut]
        | list[OutageRowOut]
        | list[HourRowOut]
        | None
    )
    """null: there are none, or of more than one station, or of more than 31 days."""
    next: str | None


ROWS_OUT: dict[Rows, type[Out]] = {
    Rows.VISITS: VisitRowOut,
    Rows.SCANS: ScanRowOut,
    Rows.COMMANDS: CommandRowOut,
    Rows.USES: UseRowOut,
    Rows.HEADS: HeadsRowOut,
    Rows.ALONE: AloneRowOut,
    Rows.MODES: ModeRowOut,
    Rows.PROMISED: PromisedRowOut,
    Rows.DEMANDS: DemandRowOut,
    Rows.OUTAGES: OutageRowOut,
    Rows.SPELLS: SpellRowOut,
    Rows.HOURS: HourRowOut,
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


def _unknown(report: Report) -> str:
    """Say what can be asked instead."""
    names = ", ".join([KNOWN, *MADE[report]])
    if report not in FIGURES:
        return f"the figures of this report are: {names}"
    return (
        f"the figures of this report are: {names}; of these, beside the period before, "
        f"{', '.join(FIGURES[report])} with {', '.join(ENDINGS)} behind it, and "
        f"{', '.join(OF_BEFORE)}"
    )


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
        ComparisonInvalid,
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
    ranked: Annotated[
        Ranked | None, Query(description="Of `ranking`: by what; by default visits.")
    ] = None,
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
    beside = beside_of(report, figure)
    by_what = ranked or Ranked.VISITS
    made = made_of(report, beside.figure if beside else figure, by_what)
    if made is None:
        raise RequestInvalid(_unknown(report))
    if ranked is not None and report is not Report.RANKING:
        raise RequestInvalid("only the ranking is by a figure")
    _check_cut(report, by, bucket)
    if beside is not None:
        comparing.check(report, by, bucket)
    asked = Asked(report, period_of(from_day, to_day), by, bucket, unit=unit, station=station)
    days = (await held.calendar.fresh(held.database)).current
    silence = timedelta(seconds=held.settings.controller_silence_s)
    async with held.database.read() as tx:
        retention = timedelta(days=held.settings.retention_days)
        scope = await scope_of(tx, admin, asked, days, retention=retention, at=at)
        cell = await cells.find(tx, scope, names)
        found: Source | Told
        shown: cells.Cell | None
        if beside is not None:
            found = await source_beside(tx, cell, report, beside)
            shown, told_days = found.cell, found.days
        else:
            found = await source(tx, cell, report, figure, by_what)
            shown, told_days = cell, list(cell.slot.days)
        counted = await progress(tx)
        one = None
        rows: PageOf[Any] | None = None
        its_station = cell.station_id or station
        if its_station is not None and made.rows is not None:
            one = await get_station(tx, admin, its_station)
            if shown is None:
                rows = PageOf([], None)
            elif may_list(shown):
                rows = await behind(tx, shown, one, made, page, silence=silence)
    async with held.database.write() as tx:
        subject = Subject("report", report.value, unit_path=admin.unit_path)
        after = asked.echo() | {"figure": figure, "station": one.code if one else None}
        after["of"] = names.echo()
        if report is Report.RANKING:
            after["ranked"] = by_what.value
        await record(tx, admin.actor, Action.REPORT_EXPORTED, subject, at=at, after=after)
    says = field_of(report, figure, by_what) if beside is None else _said_of(report, beside)
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
        "completeness": counted.completeness(told_days, at, CITY_ZONE),
        "counters": found.counters,
        "on_days": found.on_days if isinstance(found, Told) else [],
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


def _said_of(report: Report, beside: Beside) -> Said:
    """Say what is set beside a figure: how it is compared, and what the figure itself is."""
    figure = field_of(report, beside.figure)
    how = ENDINGS.get(beside.column.removeprefix(beside.figure))
    first = "of the period before" if how is None else how.english
    found = replace(
        figure, title=title_of(beside.column), formula=f"{first}; the figure: {figure.formula}"
    )
    if beside.ending != CHANGE:
        return found
    over, before = f"{beside.figure}{OVER}", f"{beside.figure}{BEFORE}"
    return replace(found, unit="share", numerator=f"{over} - {before}", denominator=before)


def _check_cut(report: Report, by: By, bucket: Bucket | None) -> None:
    """Refuse rows that the report does not have; the sum of it all may be asked of any."""
    cuts, buckets = cuts_of(report)
    if by is not By.ALL and by not in cuts:
        raise RequestInvalid(f"the report of {report.value} has no rows by {by.value}")
    if bucket is not None and bucket not in buckets:
        raise RequestInvalid(f"the report of {report.value} is not cut by {bucket.value}")
