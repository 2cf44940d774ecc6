"""Profiles of what is usual at stations: made every night from the counts, read by whoever asks."""

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import Database
from app.db.upsert import upsert
from app.places import units
from app.places.rules import CITY_ZONE, Calendar, local_day
from app.places.tables import Station, Unit
from app.reports import vectors
from app.reports.rules import Grain
from app.reports.rules.counters import HOURS, QUARTERS, C
from app.reports.tables import Rollup
from app.usual.rules import (
    HOURS_OF_DAY,
    K_PUBLIC,
    HourOf,
    Means,
    UsualClass,
    class_of,
    free_coverage,
    hidden_hours,
    hour_means,
    hours_with_all,
    known_days,
    like_days,
    medians,
    profile_days,
    quarter_means,
    unscanned_because,
    usual_levels,
    workers_by_hour,
)
from app.usual.tables import UsualProfile
from app.visits.rules import Level
from app.visits.tables import Visit

AT_ONCE = 100
"""Stations whose profiles are made in one read and one write."""

QUARTERS_OF_DAY = HOURS_OF_DAY * QUARTERS

_OTHERS = (
    C.COMMISSIONED_MS,
    C.ONLINE_MS,
    C.STAFFED_MS,
    C.VISITS_FREE,
    C.RECORDED_MS,
    C.OPEN_MS,
)
"""In the order of the fields of an hour."""
_COUNTERS = ((C.QUARTER, C.QUARTER + QUARTERS), *((one, one + 1) for one in _OTHERS))


def hours_of(hours: Sequence[bytes]) -> list[list[HourOf]]:
    """Read the hours of days from vectors by hour, one for each day."""
    if not hours:
        return []
    table = vectors.summed_hours(hours, range(len(hours)), len(hours), _COUNTERS)
    quarters = zip(*(table[C.QUARTER + number].tolist() for number in range(QUARTERS)), strict=True)
    others = (table[one].tolist() for one in _OTHERS)
    lines = [HourOf(some, *rest) for some, *rest in zip(quarters, *others, strict=True)]
    return [lines[day * HOURS : day * HOURS + HOURS_OF_DAY] for day in range(len(hours))]


@dataclass(frozen=True, slots=True)
class _Basis:
    """Which days stand behind the profiles of a class."""

    day_class: UsualClass
    like: Sequence[date]
    """For the medians."""
    weeks: Sequence[date]
    """For the levels."""


def _bases(calendar: Calendar, today: date) -> Sequence[_Basis]:
    return [
        _Basis(one, like_days(one, today, calendar), profile_days(one, today, calendar))
        for one in UsualClass
    ]


async def make(database: Database, calendar: Calendar, *, at: datetime) -> int:
    """Make the profiles of every station anew; gives of how many."""
    bases = _bases(calendar, local_day(at, CITY_ZONE))
    days = {day for basis in bases for day in (*basis.like, *basis.weeks)}
    async with database.read() as tx:
        query = sa.select(Station.id, Station.capacity).where(Station.retired_at.is_(None))
        stations = (await tx.execute(query.order_by(Station.id))).all()
    for start in range(0, len(stations), AT_ONCE):
        some = {row.id: row.capacity for row in stations[start : start + AT_ONCE]}
        async with database.read() as tx:
            rows = await _rolled(tx, some, days)
        # Beside the loop that doors wait on.
        drafts = await asyncio.to_thread(_drafts, some, rows, bases)
        async with database.read() as tx:
            workers = await _workers(tx, some, bases, drafts)
        made = [one.row(of, at) for one, of in zip(drafts, workers, strict=True)]
        async with database.write() as tx:
            insert = upsert(tx, UsualProfile)
            keys = ("station_id", "day_class")
            changes = {name: insert.excluded[name] for name in made[0] if name not in keys}
            await tx.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes), made)
    return len(stations)


async def _rolled(
    tx: AsyncSession, stations: Collection[uuid.UUID], days: Collection[date]
) -> Mapping[uuid.UUID, Sequence[Any]]:
    query = sa.select(Rollup.place_id, Rollup.from_day, Rollup.hours).where(
        Rollup.place_id.in_(stations), Rollup.grain == Grain.DAY, Rollup.from_day.in_(days)
    )
    found: defaultdict[uuid.UUID, list[Any]] = defaultdict(list)
    for row in await tx.execute(query):
        found[row.place_id].append(row)
    return found


@dataclass(frozen=True, slots=True)
class _Draft:
    """A station's profile of a class, before it is known which hours the public may see."""

    station_id: uuid.UUID
    basis: _Basis
    weeks: Mapping[date, Means]
    """Means by hour of the days behind the levels."""
    levels: Sequence[Level | None]
    values: Mapping[str, Any]
    """The rest of its row."""

    def is_doubtful(self, workers: Mapping[int, int]) -> bool:
        """Whether enough of so many workers may have come on days of which an hour is not known."""
        are_all = len(self.weeks) == len(self.basis.weeks)
        return any(
            level is not None
            and workers.get(hour, 0) >= K_PUBLIC
            and (not are_all or any(day[hour] is None for day in self.weeks.values()))
            for hour, level in enumerate(self.levels)
        )

    def row(self, workers: Mapping[int, int], at: datetime) -> dict[str, Any]:
        """Give its row. What nobody may see is not kept either."""
        hidden = hidden_hours(self.levels, workers)
        levels = [None if hour in hidden else level for hour, level in enumerate(self.levels)]
        return {
            "station_id": self.station_id,
            "day_class": self.basis.day_class,
            "levels": levels,
            "hidden_hours": hidden,
            **self.values,
            "made_at": at,
        }


def _drafts(
    stations: Mapping[uuid.UUID, int],
    rows: Mapping[uuid.UUID, Sequence[Any]],
    bases: Sequence[_Basis],
) -> Sequence[_Draft]:
    return [
        _draft(station, capacity, basis, hours)
        for station, capacity in stations.items()
        for hours in [_hours_by_day(rows.get(station, ()))]
        for basis in bases
    ]


def _hours_by_day(rows: Sequence[Any]) -> Mapping[date, Sequence[HourOf]]:
    days = hours_of([row.hours for row in rows])
    return dict(zip((row.from_day for row in rows), days, strict=True))


def _draft(
    station_id: uuid.UUID, capacity: int, basis: _Basis, hours: Mapping[date, Sequence[HourOf]]
) -> _Draft:
    like = [hours.get(day) for day in basis.like]
    coverage = free_coverage(like)
    is_scanned = unscanned_because(coverage) is None

    def means(day: Sequence[HourOf], *, has_closed: bool = False) -> Means:
        return quarter_means(day, is_scanned=is_scanned, has_closed=has_closed)

    weeks = {day: hour_means(means(hours[day])) for day in basis.weeks if day in hours}
    usual = [None if day is None else means(day) for day in like]
    # In a unit's sum a station that is closed has nobody inside, and that is known.
    whole = [None if day is None else means(day, has_closed=True) for day in like]
    are_known = hours_with_all(medians(whole, QUARTERS_OF_DAY))
    values = {
        "days": len(weeks),
        "medians": list(medians(usual, QUARTERS_OF_DAY)),
        "median_days": list(known_days(usual, QUARTERS_OF_DAY)),
        "known_hours": sum(is_known << hour for hour, is_known in enumerate(are_known)),
        "free_coverage": coverage,
    }
    levels = usual_levels(list(weeks.values()), capacity)
    return _Draft(station_id, basis, weeks, levels, values)


async def _workers(
    tx: AsyncSession,
    stations: Collection[uuid.UUID],
    bases: Sequence[_Basis],
    drafts: Sequence[_Draft],
) -> Sequence[Mapping[int, int]]:
    """Count the distinct workers of each hour behind each draft.

    Where an hour is not known on some of the days, and enough workers came for it to be told, they
    are read one by one, to see on which days they came.
    """
    counted = {basis.day_class: await _callers(tx, stations, basis.weeks) for basis in bases}
    found = [counted[one.basis.day_class].get(one.station_id, {}) for one in drafts]
    doubtful = {
        number
        for number, (one, workers) in enumerate(zip(drafts, found, strict=True))
        if one.is_doubtful(workers)
    }
    if doubtful:
        days = {day for number in doubtful for day in drafts[number].weeks}
        came = await _came(tx, {drafts[number].station_id for number in doubtful}, days)
        for number in doubtful:
            one = drafts[number]
            found[number] = workers_by_hour(came.get(one.station_id, ()), one.weeks)
    return found


def _of_workers(stations: Collection[uuid.UUID], days: Collection[date]) -> Sequence[Any]:
    return (
        Visit.station_id.in_(stations),
        Visit.local_day.in_(days),
        Visit.voided_at.is_(None),
    )


async def _callers(
    tx: AsyncSession, stations: Collection[uuid.UUID], days: Collection[date]
) -> Mapping[uuid.UUID, Mapping[int, int]]:
    """Count the distinct workers who came in each hour over some days, by station.

    Those without consent, or erased since, cannot be told apart and count for none; who came in an
    hour before and stayed counts there.
    """
    query = (
        sa.select(Visit.station_id, Visit.local_hour, sa.func.count(Visit.worker_id.distinct()))
        .where(*_of_workers(stations, days))
        .group_by(Visit.station_id, Visit.local_hour)
    )
    found: defaultdict[uuid.UUID, dict[int, int]] = defaultdict(dict)
    for station, hour, workers in await tx.execute(query):
        found[station][hour] = workers
    return found


async def _came(
    tx: AsyncSession, stations: Collection[uuid.UUID], days: Collection[date]
) -> Mapping[uuid.UUID, Sequence[tuple[date, int, uuid.UUID]]]:
    """Say who came on which day and in which hour, by station."""
    query = (
        sa.select(Visit.station_id, Visit.local_day, Visit.local_hour, Visit.worker_id)
        .where(*_of_workers(stations, days), Visit.worker_id.is_not(None))
        .distinct()
    )
    found: defaultdict[uuid.UUID, list[tuple[date, int, uuid.UUID]]] = defaultdict(list)
    for station, day, hour, worker in await tx.execute(query):
        assert worker is not None
        found[station].append((day, hour, worker))
    return found


async def by_station(
    tx: AsyncSession, stations: Mapping[uuid.UUID, UsualClass]
) -> Mapping[uuid.UUID, UsualProfile]:
    """Give the profile of each station for a class of days, where there is one; one statement."""
    rows = await tx.scalars(
        sa.select(UsualProfile).where(
            UsualProfile.station_id.in_(stations),
            UsualProfile.day_class.in_(set(stations.values())),
        )
    )
    return {row.station_id: row for row in rows if row.day_class is stations[row.station_id]}


async def known_shares(tx: AsyncSession, unit_path: str) -> Mapping[UsualClass, Sequence[float]]:
    """Say of how many of a branch's stations in use each hour is known, by class; one statement."""
    branch = sa.select(Unit.id).where(units.under(unit_path))
    query = (
        sa.select(UsualProfile.day_class, UsualProfile.known_hours, sa.func.count())
        .select_from(Station)
        .outerjoin(UsualProfile, UsualProfile.station_id == Station.id)
        .where(Station.unit_id.in_(branch), Station.retired_at.is_(None))
        .group_by(UsualProfile.day_class, UsualProfile.known_hours)
    )
    known = {one: [0] * HOURS_OF_DAY for one in UsualClass}
    stations: Counter[UsualClass | None] = Counter()
    for day_class, hours, count in await tx.execute(query):
        stations[day_class] += count
        for hour in range(HOURS_OF_DAY):
            if hours is not None and hours >> hour & 1:
                known[day_class][hour] += count
    # One without a profile has none of any class.
    return {
        one: [count / max(1, stations[one] + stations[None]) for count in known[one]]
        for one in UsualClass
    }


async def of_station(tx: AsyncSession, station_id: uuid.UUID) -> Sequence[UsualProfile]:
    """Give the profiles of a station, as the classes are ordered; none before they are made."""
    rows = await tx.scalars(sa.select(UsualProfile).where(UsualProfile.station_id == station_id))
    order = list(UsualClass)
    return sorted(rows, key=lambda row: order.index(row.day_class))


def today_at(station: Station, calendar: Calendar, at: datetime) -> UsualClass:
    """Say which days it is like at a station."""
    return class_of(local_day(at, station.timezone), calendar)


@dataclass(frozen=True, slots=True)
class UsualNow:
    """How many are usually inside a station at this time of such a day, and what that stands on."""

    day_class: UsualClass
    quarter: str
    """When the quarter hour begins, on the station's clock, such as 23:30."""
    median: float | None
    """Persons; None: fewer than four of the days are known."""
    days: int | None
    """So many of the last eight like days are known; None: nobody counted them then."""
    made_at: datetime


async def usual_now(
    tx: AsyncSession, stations: Sequence[Station], calendar: Calendar, *, at: datetime
) -> Mapping[uuid.UUID, UsualNow]:
    """Say what is usual on such a day at this time, where a profile was made (metrics 25)."""
    profiles = await by_station(tx, {one.id: today_at(one, calendar, at) for one in stations})
    found = {}
    for station in stations:
        profile = profiles.get(station.id)
        if profile is not None:
            local = at.astimezone(ZoneInfo(station.timezone))
            begins = local.minute * QUARTERS // 60
            number = local.hour * QUARTERS + begins
            found[station.id] = UsualNow(
                profile.day_class,
                f"{local.hour:02d}:{begins * 60 // QUARTERS:02d}",
                profile.medians[number],
                None if profile.median_days is None else profile.median_days[number],
                profile.made_at,
            )
    return found
