"""HTTP for forecasts: what is to be expected at a station or in a unit, and how good that is."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from app.api.deps import Held, Now, ReadTx
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads
from app.api.problems import problems
from app.api.shapes import Out
from app.people.admins import SignedInAdmin, get_station, visible_units
from app.people.rules import Permission
from app.places import units
from app.places.stations import StationNotFound
from app.places.units import UnitNotFound
from app.usual import forecasts
from app.usual.forecasts import Outlook
from app.usual.rules import BACKTEST, Unexpected, UsualClass

router = APIRouter(tags=["admin: reports"])

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_REPORTS))]


class HourAheadOut(Out):
    from_at: datetime = Field(serialization_alias="from")
    until_at: datetime = Field(serialization_alias="until")
    day_class: UsualClass
    persons: float | None
    """The mean of persons inside that is to be expected; None: `unexpected_because` says why."""
    low: float | None
    high: float | None
    unexpected_because: Unexpected | None
    values: int
    stations_share: float | None
    """Of a unit: the share of its stations of which it is known what is usual then. Below one half
    there is no figure; of the others only who scanned is in it. None of a station."""


class SkillOut(Out):
    days: int
    """Over so many days it was tried."""
    hours: int
    mae: float | None
    mae_last_week: float | None
    skill: float | None


class ForecastOut(Out):
    as_of: datetime
    hours: list[HourAheadOut]
    skill: SkillOut


def _told(found: Outlook, at: datetime) -> dict[str, Any]:
    hours = [
        {
            "from_at": hour.from_at,
            "until_at": hour.until_at,
            "day_class": hour.day_class,
            "persons": hour.expected and hour.expected.persons,
            "low": hour.expected and hour.expected.low,
            "high": hour.expected and hour.expected.high,
            "unexpected_because": hour.unexpected_because,
            "values": hour.values,
            "stations_share": hour.stations_share,
        }
        for hour in found.hours
    ]
    skill = {
        "days": BACKTEST,
        "hours": found.skill.hours,
        "mae": found.skill.mae,
        "mae_last_week": found.skill.mae_last_week,
        "skill": found.skill.skill,
    }
    return {"as_of": at, "hours": hours, "skill": skill}


@router.get(
    "/v1/admin/stations/{station_id:uuid}/forecast",
    response_model=ForecastOut,
    responses=problems(NotSignedIn, AdminForbidden, StationNotFound),
)
async def station_forecast(
    station_id: uuid.UUID, tx: ReadTx, admin: Reader, held: Held, at: Now
) -> Any:
    """Forecast the persons inside a station for 24 hours."""
    station = await get_station(tx, admin, station_id)
    calendar = (await held.calendar.fresh(held.database)).current
    found = await forecasts.of_station(tx, station, calendar, at=at)
    return _told(found, at)


@router.get(
    "/v1/admin/units/{unit_id:uuid}/forecast",
    response_model=ForecastOut,
    responses=problems(NotSignedIn, AdminForbidden, UnitNotFound),
)
async def unit_forecast(unit_id: uuid.UUID, tx: ReadTx, admin: Reader, held: Held, at: Now) -> Any:
    """Forecast the persons inside all stations of a unit's branch for 24 hours."""
    unit = await units.get_unit(tx, unit_id, within=visible_units(admin))
    calendar = (await held.calendar.fresh(held.database)).current
    found = await forecasts.of_unit(tx, unit, calendar, at=at)
    return _told(found, at)
