"""Whether anybody knows how full stations are now, from what is remembered of each."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors import outages
from app.doors.desk import ControllerDesk
from app.doors.tables import Controller
from app.places import held
from app.places.rules import Calendar, Kind, StationRules, Window
from app.places.standing import list_changes, station_rules
from app.places.tables import Station, StationModes
from app.usual.profiles import today_at
from app.usual.rules import Unknown, UsualClass, held_lately, unknown_because
from app.usual.tables import UsualProfile

_MOMENT = timedelta(seconds=1)


def signs(
    classes: Collection[UsualClass], *, silence: timedelta, since: datetime, at: datetime
) -> sa.Select[*tuple[Any, ...]]:
    """Select what tells of who comes to a station.

    Its controller, how far people scan, and which modes are recorded since an instant. A line for
    each class of days that has a profile and each day that is recorded; at least one.
    """
    return (
        sa.select(
            Station.id,
            Controller.id.label("controller_id"),
            Controller.seen_at,
            Controller.frozen_at,
            outages.has_told(silence=silence, at=at).label("has_told"),
            UsualProfile.day_class,
            UsualProfile.free_coverage,
            StationModes.midnight_at,
            StationModes.windows,
        )
        .outerjoin(
            Controller,
            sa.and_(Controller.station_id == Station.id, Controller.retired_at.is_(None)),
        )
        .outerjoin(
            UsualProfile,
            sa.and_(UsualProfile.station_id == Station.id, UsualProfile.day_class.in_(classes)),
        )
        .outerjoin(StationModes, held.recorded_since(since))
    )


def heard_by_station(
    rows: Iterable[Any], controllers: ControllerDesk, *, at: datetime
) -> Mapping[uuid.UUID, bool]:
    """Say of the stations that have a controller whether a scan reaches it; rows are `signs`."""
    return {
        row.id: row.frozen_at is None
        and controllers.is_heard(row.controller_id, row.seen_at, at=at)
        for row in rows
        if row.controller_id is not None
    }


def told_by_station(rows: Iterable[Any]) -> Mapping[uuid.UUID, bool]:
    """Say of the stations that have a controller whether it told of all who came, as of `signs`.

    That it is heard is not enough: just after a silence it has not told yet who came meanwhile.
    """
    return {row.id: bool(row.has_told) for row in rows if row.controller_id is not None}


def recorded_by_station(rows: Iterable[Any]) -> Mapping[uuid.UUID, tuple[Window, ...]]:
    """Give what is recorded to have held, in order, by station; rows are `signs`."""
    days: dict[uuid.UUID, dict[datetime, Any]] = {}
    for row in rows:
        if row.midnight_at is not None:
            days.setdefault(row.id, {})[row.midnight_at] = row.windows
    return {
        station: tuple(window for day in sorted(some) for window in held.windows_of(day, some[day]))
        for station, some in days.items()
    }


def coverage_by_class(rows: Iterable[Any]) -> Mapping[tuple[uuid.UUID, UsualClass], float | None]:
    """Say how far free time is counted, by station and class of days; rows are `signs`."""
    return {(row.id, row.day_class): row.free_coverage for row in rows}


async def unknown_by_station(
    tx: AsyncSession,
    stations: Sequence[Station],
    controllers: ControllerDesk,
    calendar: Calendar,
    *,
    at: datetime,
) -> Mapping[uuid.UUID, Unknown | None]:
    """Say of each of these stations why nobody knows how full it is now: two statements."""
    ids = [one.id for one in stations]
    longest = timedelta(minutes=max((one.max_stay_min for one in stations), default=0))
    changes = await list_changes(tx, ids, at=at - longest, horizon=longest + _MOMENT)
    today = {one.id: today_at(one, calendar, at) for one in stations}
    asked = signs(
        set(today.values()), silence=controllers.silence, since=at - longest, at=at
    ).where(Station.id.in_(ids))
    rows = (await tx.execute(asked)).all()
    told, coverage, recorded = (
        told_by_station(rows),
        coverage_by_class(rows),
        recorded_by_station(rows),
    )
    # Most stations share their hours: what held by the same rules is worked out once.
    known: dict[tuple[StationRules, tuple[Window, ...], int], Sequence[Kind]] = {}
    found = {}
    for one in stations:
        rules = station_rules(one, changes.get(one.id, ()))
        key = rules, recorded.get(one.id, ()), one.max_stay_min
        if key not in known:
            stay = timedelta(minutes=one.max_stay_min)
            known[key] = held_lately(key[1], rules, calendar, at, stay=stay)
        found[one.id] = unknown_because(
            known[key], has_told=told.get(one.id), coverage=coverage.get((one.id, today[one.id]))
        )
    return found
