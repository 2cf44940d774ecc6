"""What still happened at a station after it was retired: who stayed on, and who was let in.

A controller that works alone does not know yet, and nobody is put out of the door. What happened is
counted, and belongs to that station (laws 10 and 11); so it is told wherever time of the station is
told, though none of that time is missing where nothing happened.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import Instant, table_of
from app.places.rules import local_day
from app.places.tables import Station
from app.reports.rules import By, Grain, Period
from app.reports.rules.counters import ALL_DAY, QUARTERS
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.scope import Scope
from app.reports.tables import Rollup
from app.reports.vectors import hours_in

_STATION, _ROLLUP = table_of(Station), table_of(Rollup)


class After(NamedTuple):
    """A day of a station on which something happened after it was retired."""

    station: uuid.UUID
    unit: uuid.UUID
    model: str
    day: date
    hours: frozenset[int]
    """Of the day, in which it happened; `ALL_DAY` of what belongs to none."""

    def key(self, by: By) -> Any:
        """Give what of it says to which row it belongs (`grouped.key_of`)."""
        if by is By.STATION:
            return self.station
        if by is By.OPERATING_MODEL:
            return self.model
        return self.unit if by.is_unit else None


class Afterwards(NamedTuple):
    """What is known of the stations of a scope that were retired."""

    scope: Scope
    """Without those of which nothing is told in its period."""
    days: Sequence[After]
    gone: Sequence[uuid.UUID]
    """Stations that are told of alone for what happened afterwards: none of their time is missing.
    """


async def afterwards(tx: AsyncSession, scope: Scope, until: datetime) -> Afterwards:
    """Leave out stations that were retired before the period began, unless asked for by name.

    Nothing is missing where there was nothing any more: with them no month would ever be complete.
    Only where something still happened, until the instant `until`, they stay.
    """
    c, period = _STATION.c, scope.period
    over = datetime.combine(period.to_day, time(), UTC) + timedelta(days=1)
    query = sa.select(c.id, c.unit_id, c.operating_model, c.timezone, c.retired_at).where(
        c.id.in_(scope.stations), c.retired_at < over
    )
    retired = {row.id: row for row in await tx.execute(query)}
    if not retired:
        return Afterwards(scope, (), ())
    days = await _days(tx, scope, retired, until)
    named = set(scope.roots.stations)
    if named.issuperset(retired):
        return Afterwards(scope, days, ())
    begins = {
        zone: datetime.combine(period.from_day, time(), ZoneInfo(zone))
        for zone in {row.timezone for row in retired.values()}
    }
    gone = {one.station for one in days}
    gone = {id for id in gone if retired[id].retired_at <= begins[retired[id].timezone]} - named
    instants = {zone: sa.literal(at, Instant()) for zone, at in begins.items()}
    is_there = [
        Station.retired_at.is_(None),
        # Also in a zone of which no station was retired before the period was over.
        Station.retired_at >= over,
        Station.retired_at > sa.case(instants, value=Station.timezone),
        *([Station.id.in_(gone | named)] if gone or named else ()),
    ]
    there = replace(scope, stations=scope.stations.where(sa.or_(*is_there)))
    return Afterwards(there, days, list(gone))


NAMED_AT_ONCE = 500
"""Stations that one statement names, each twice."""


def _of_days(since: Mapping[uuid.UUID, date], period: Period) -> sa.Select[Any]:
    """Select the days of stations from those on on which they were retired."""
    c, columns = _ROLLUP.c, (sa.column("id", sa.Uuid()), sa.column("day", sa.Date()))
    first = [(id, max(day, period.from_day)) for id, day in since.items()]
    gone = sa.values(*columns, name="gone").data(first).cte()
    return sa.select(c.place_id, c.from_day, c.hours).where(
        c.place_id == gone.c.id,
        c.grain == Grain.DAY,
        c.from_day >= gone.c.day,
        c.from_day < period.to_day,
        c.hours != b"",
    )


async def _days(
    tx: AsyncSession, scope: Scope, retired: dict[uuid.UUID, Any], until: datetime
) -> Sequence[After]:
    since = {row.id: local_day(row.retired_at, row.timezone) for row in retired.values()}
    lines: list[Any] = []
    # By their names: else the days of every station would be looked through.
    for start in range(0, len(since), NAMED_AT_ONCE):
        some = dict(list(since.items())[start : start + NAMED_AT_ONCE])
        lines += await tx.execute(_of_days(some, scope.period))
    found: list[After] = []
    until_ms = ms_of(until)
    for place, day, data in lines:
        row = retired[place]
        edges, retired_ms = quarter_edges(row.timezone, day), ms_of(row.retired_at)
        hours = set()
        for hour in hours_in(data):
            whole = hour == ALL_DAY
            begins, ends = (0, -1) if whole else (hour * QUARTERS, (hour + 1) * QUARTERS)
            if edges[begins] < until_ms and edges[ends] > retired_ms:
                hours.add(hour)
        if hours:
            model = row.operating_model.value
            found.append(After(place, row.unit_id, model, day, frozenset(hours)))
    return found
