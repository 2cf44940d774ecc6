"""Whether anybody knows how full stations are now, from what is remembered of each."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.desk import ControllerDesk
from app.doors.tables import Controller
from app.places.rules import Calendar, Kind, StationRules
from app.places.standing import list_changes, station_rules
from app.places.tables import Station
from app.usual.profiles import today_at
from app.usual.rules import Unknown, UsualClass, held_lately, unknown_because
from app.usual.tables import UsualProfile

_MOMENT = timedelta(seconds=1)


def signs(classes: Collection[UsualClass]) -> sa.Select[Any, Any, Any, Any, Any]:
    """Select what tells of who comes to a station: its controller, and how far people scan.

    A line for each class of days that has a profile; at least one.
    """
    return (
        sa.select(
            Station.id,
            Controller.id.label("controller_id"),
            Controller.seen_at,
            UsualProfile.day_class,
            UsualProfile.free_coverage,
        )
        .outerjoin(
            Controller,
            sa.and_(Controller.station_id == Station.id, Controller.retired_at.is_(None)),
        )
        .outerjoin(
            UsualProfile,
            sa.and_(UsualProfile.station_id == Station.id, UsualProfile.day_class.in_(classes)),
        )
    )


def heard_by_station(
    rows: Iterable[Any], controllers: ControllerDesk, *, at: datetime
) -> Mapping[uuid.UUID, bool]:
    """Say of the stations that have a controller whether it is heard; rows are `signs`."""
    return {
        row.id: controllers.is_heard(row.controller_id, row.seen_at, at=at)
        for row in rows
        if row.controller_id is not None
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
    rows = (await tx.execute(signs(set(today.values())).where(Station.id.in_(ids)))).all()
    heard, coverage = heard_by_station(rows, controllers, at=at), coverage_by_class(rows)
    # Most stations share their hours: what held by the same rules is worked out once.
    known: dict[tuple[StationRules, int], Sequence[Kind]] = {}
    found = {}
    for one in stations:
        key = station_rules(one, changes.get(one.id, ())), one.max_stay_min
        if key not in known:
            stay = timedelta(minutes=one.max_stay_min)
            known[key] = held_lately(key[0], calendar, at, stay=stay)
        found[one.id] = unknown_because(
            known[key], heard=heard.get(one.id), coverage=coverage.get((one.id, today[one.id]))
        )
    return found
