"""What is asked of reports: which, of which days, of which places, cut how."""

import uuid
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import RequestInvalid
from app.people.admins import (
    Roots,
    SignedInAdmin,
    get_station,
    visible_roots,
    visible_stations,
    visible_units,
)
from app.places import units
from app.places.rules import Calendar
from app.places.tables import Station, Unit
from app.reports import comparing
from app.reports.catalogue import SAYS
from app.reports.ranking import Ranked
from app.reports.rollup import retained_since
from app.reports.rules import Bucket, By, Period, is_by_class
from app.reports.rules.comparison import is_known, period_before
from app.reports.scope import PeriodInvalid, Scope


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


COLUMNS: dict[Report, tuple[str, ...]] = {
    report: SAYS[report][0]._fields  # type: ignore[attr-defined]  # Rows are named tuples.
    for report in Report
}


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
    unit: uuid.UUID | None = None
    station: uuid.UUID | None = None

    def echo(self) -> dict[str, Any]:
        """Say it again."""
        said: dict[str, Any] = {
            "report": self.report.value,
            "from": self.period.from_day.isoformat(),
            "to": self.period.to_day.isoformat(),
            "by": self.by.value,
            "bucket": self.bucket.value if self.bucket else None,
            "unit": str(self.unit) if self.unit else None,
            "station": str(self.station) if self.station else None,
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

    def calendar_known(self, calendar: Calendar) -> bool | None:
        """Say whether the calendar has every day; None where the answer does not depend on it."""
        if self.compare is None and not is_by_class(self.by, self.bucket):
            return None
        before = [] if self.compare is None else [period_before(self.period)]
        return is_known(calendar, self.period, *before)


def checked(asked: Asked) -> Asked:
    """Refuse to ignore what was asked, and fill in what was not said.

    Raises RequestInvalid, ComparisonInvalid.
    """
    if asked.report is Report.RANKING:
        asked = replace(asked, figure=asked.figure or Ranked.VISITS)
    elif asked.figure is not None:
        raise RequestInvalid("only the ranking is by a figure")
    if asked.compare is not None:
        comparing.check(asked.report, asked.by, asked.bucket)
    if asked.report not in (Report.CONTROLLERS, Report.RANKING):
        return asked
    cuts = {"by": asked.by is not By.STATION, "bucket": asked.bucket is not None}
    message = f"the report of {asked.report.value} has one row per station for the whole period"
    errors = [
        {"loc": ["query", name], "message": message} for name, is_cut in cuts.items() if is_cut
    ]
    if errors:
        raise RequestInvalid(message, errors=errors)
    return asked


async def scope_of(
    tx: AsyncSession,
    admin: SignedInAdmin,
    asked: Asked,
    days: Calendar,
    *,
    retention: timedelta,
    at: datetime,
) -> Scope:
    """Say of which stations the report may speak: his own, perhaps of one unit, perhaps one.

    Raises UnitNotFound, StationNotFound.
    """
    stations, roots = await places_within(tx, admin, asked.unit, asked.station)
    return Scope(
        stations=stations,
        roots=roots,
        period=asked.period,
        by=asked.by,
        at=at,
        retained_since=retained_since(at, retention),
        bucket=asked.bucket,
        calendar=days,
    )


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
