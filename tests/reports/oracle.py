"""What every report must say, recounted from raw rows minute by minute: slow, and plainly right.

It shares no arithmetic with the product: sets, counters and loops over minutes, in plain Python.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors.rules import CommandState, Outcome
from app.doors.tables import (
    Command,
    Controller,
    ControllerOutage,
    Door,
    ListeningSpell,
    OfflineEntry,
    Scan,
)
from app.people.tables import Worker
from app.places.rules import Calendar, DayClass, Kind
from app.places.tables import (
    Facility,
    FacilityKind,
    FacilitySpell,
    Station,
    StationModes,
    Unit,
)
from app.visits.tables import EndSource, FacilityUse, Visit, WalkInCount
from tests.reports import standing
from tests.reports.standing import MS, Box, Life, Thing, Time

MINUTE = timedelta(minutes=1)
Hour = tuple[date, int]
"""A local day and an hour of it."""


SINCE = re.compile(r"TOLD|PROMISED|USABLE|UNKNOWN|REPORTING|SEATS|\w+ MINUTES")
"""What older versions did not count begins so."""


@dataclass
class Told:
    """How stations stood, as it was when their history was written."""

    lives: Mapping[Any, Life]
    listened: Sequence[Time]
    calendar: Calendar
    older: date | None = None
    """A day that an older version counted, which knew less."""
    silence: timedelta = timedelta(seconds=75)
    days: tuple[date, date] = date.min, date.max
    """The first and the last day of which anything was recorded, and so counted."""
    by_minutes: bool = True
    """Whether all who came and went did so at whole minutes; else nobody is asked of who was inside
    meanwhile."""


@dataclass(eq=False)
class Raw:
    """All raw rows, as of an instant."""

    at: datetime
    stations: list[Station]
    units: dict[Any, Unit]
    visits: list[Visit]
    scans: list[Scan]
    commands: list[Command]
    alone: list[OfflineEntry]
    uses: list[FacilityUse]
    facilities: list[Facility]
    heads: list[WalkInCount]
    controllers: list[Controller]
    contacts: dict[Any, bool]
    numbers: dict[Any, int]
    told: Told
    """What is known of how stations stood."""
    _inside: dict[Any, Counter[int]] = field(default_factory=dict)
    _hours: dict[Any, dict[Hour, list[tuple[int, int]]]] = field(default_factory=dict)
    _afterwards: dict[Any, set[tuple[date, int | None]]] = field(default_factory=dict)

    @cached_property
    def workers(self) -> set[int]:
        """Whoever came."""
        mine = {self.number_of(visit) for visit in self.visits if not visit.re_entry}
        return {number for number in mine if number is not None}

    def number_of(self, visit: Visit) -> int | None:
        """Give whose it was, or the number that stands for whoever was erased; None: nobody's."""
        if visit.worker_id is not None:
            return self.numbers[visit.worker_id]
        return visit.erased_number

    @cached_property
    def met(self) -> set[Any]:
        """Demands of whoever was let in: by a scan, or by a controller that was alone."""
        scans = {scan.demand_key for scan in self.scans if scan.outcome is not Outcome.REFUSED}
        return scans | {entry.demand_key for entry in self.alone if entry.opened}

    @cached_property
    def alone_visits(self) -> set[Any]:
        """Visits that a controller let in by itself, and not only back in."""
        began = {visit.id: visit.started_at for visit in self.visits}
        return {
            entry.visit_id
            for entry in self.alone
            if entry.visit_id in began
            and (entry.opened_at or entry.happened_at) <= began[entry.visit_id]
        }

    @cached_property
    def scanned(self) -> Mapping[Any, set[Hour]]:
        """Hours in which anybody came in freely and scanned, by station."""
        found: dict[Any, set[Hour]] = defaultdict(set)
        for visit in self.visits:
            if visit.mode is Kind.FREE:
                found[visit.station_id].add((visit.local_day, visit.local_hour))
        return found

    @cached_property
    def counted(self) -> Mapping[Any, set[Hour]]:
        """The same, and those in which staff counted heads."""
        found = defaultdict(set, {place: set(hours) for place, hours in self.scanned.items()})
        for station in self.stations:
            for heads in self.heads:
                if heads.station_id == station.id:
                    for number in range(minute(heads.from_at), minute(heads.until_at)):
                        local = self.local(station, number)
                        found[station.id].add((local.date(), local.hour))
        return found

    def zone(self, station: Station) -> ZoneInfo:
        return ZoneInfo(station.timezone)

    def is_there(self, station: Station, first: date) -> bool:
        """Whether it was not retired before the period began."""
        begins = datetime.combine(first, time(), self.zone(station))
        return station.retired_at is None or station.retired_at > begins

    def is_told(self, station: Station, period: tuple[date, date]) -> bool:
        """Whether it was there, or anything happened there all the same."""
        afterwards = (period[0] <= day < period[1] for day, _ in self.afterwards(station))
        return self.is_there(station, period[0]) or any(afterwards)

    def afterwards(self, station: Station) -> set[tuple[date, int | None]]:
        """Hours in which something happened though it was retired; None: at none of the day's."""
        if station.retired_at is None:
            return set()
        if station.id not in self._afterwards:
            facts = [*self.visits, *self.scans, *self.alone, *self.uses, *self.heads]
            mine = [row for row in facts if row.station_id == station.id]
            found = {
                (row.local_day, getattr(row, "local_hour", None))
                for row in mine
                if not isinstance(row, WalkInCount) or row.count
            }
            for command in self.commands:
                if command.station_id == station.id:
                    local = command.created_at.astimezone(self.zone(station))
                    found.add((local.date(), local.hour))
            found |= set(self.hours(station))
            self._afterwards[station.id] = {
                (day, hour) for day, hour in found if self._ends_later(station, day, hour)
            }
        return self._afterwards[station.id]

    def _ends_later(self, station: Station, day: date, hour: int | None) -> bool:
        begins = datetime.combine(day, time(hour or 0), self.zone(station))
        length = timedelta(days=1) if hour is None else timedelta(hours=1)
        ends = (begins + length).astimezone(UTC)
        return station.retired_at is not None and station.retired_at < ends

    def until(self, visit: Visit) -> datetime:
        return visit.ended_at or min(visit.stay_until, self.at)

    def inside(self, station: Station) -> Counter[int]:
        """Persons inside, minute by minute since 1970; every instant is a whole minute."""
        if station.id not in self._inside:
            found: Counter[int] = Counter()
            for visit in self.visits:
                if visit.station_id == station.id:
                    first, last = minute(visit.started_at), minute(self.until(visit))
                    for number in range(first, last):
                        found[number] += visit.party_size
            self._inside[station.id] = found
        return self._inside[station.id]

    def hours(self, station: Station) -> dict[Hour, list[tuple[int, int]]]:
        """The same by local hour: minutes of the hour, and persons."""
        if station.id not in self._hours:
            found: dict[Hour, list[tuple[int, int]]] = defaultdict(list)
            for number, persons in self.inside(station).items():
                local = self.local(station, number)
                found[local.date(), local.hour].append((local.minute, persons))
            self._hours[station.id] = found
        return self._hours[station.id]

    def local(self, station: Station, number: int) -> datetime:
        return datetime.fromtimestamp(number * 60, UTC).astimezone(self.zone(station))

    def seats_at(self, station: Station, number: int) -> int:
        """How many seats there were in a minute."""
        at = datetime.fromtimestamp(number * 60, UTC)
        return self.told.lives[station.id].seats(at, station.capacity)

    @cached_property
    def health(self) -> Mapping[tuple[Any, date], Mapping[int, Mapping[str, int]]]:
        """How stations stood, by station and day, by hour: numbers by their names."""
        found = {}
        for station in self.stations:
            by_day = standing.stood(
                station,
                self.told.lives[station.id],
                at=self.at,
                calendar=self.told.calendar,
                deaf=standing.deaf_times(self.told.listened, self.at),
                silence=self.told.silence,
                counted=[
                    (heads.from_at, heads.until_at)
                    for heads in self.heads
                    if heads.station_id == station.id
                ],
                inside=self.inside(station) if self.told.by_minutes else {},
            )
            for day, by_hour in by_day.items():
                if not self.told.days[0] <= day <= self.told.days[1]:
                    continue
                found[station.id, day] = {
                    hour: {
                        name: value
                        for name, value in counts.items()
                        if day != self.told.older or not SINCE.match(name)
                    }
                    for hour, counts in by_hour.items()
                }
        return found

    @lru_cache  # noqa: B019  # One for each small history of a test.
    def crowded(self, station_id: Any) -> Counter[Hour]:
        """Minutes at 90 % of the seats in runs of five or more, by local hour; none over days."""
        (station,) = [each for each in self.stations if each.id == station_id]
        found: Counter[Hour] = Counter()
        inside = self.inside(station)
        run: list[datetime] = []
        for number in [*sorted(inside), None]:
            seats = 0 if number is None else self.seats_at(station, number)
            is_full = number is not None and seats > 0 and inside[number] >= 0.9 * seats
            local = self.local(station, number) if number is not None else None
            follows = run and local and local - run[-1] == MINUTE and local.date() == run[-1].date()
            if not (is_full and follows):
                if len(run) >= 5:
                    found.update((each.date(), each.hour) for each in run)
                run = []
            if is_full and local is not None:
                run.append(local)
        return found


def minute(at: datetime) -> int:
    seconds = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert seconds % 60 == 0
    return int(seconds) // 60


async def read_raw(tx: AsyncSession, units: Sequence[Unit], at: datetime, told: Told) -> Raw:
    """Read everything of the stations of some units."""
    ours = sa.select(Station.id).where(Station.unit_id.in_([unit.id for unit in units]))

    async def rows(kind: Any) -> list[Any]:
        query = sa.select(kind).where(kind.station_id.in_(ours))
        return list(await tx.scalars(query.execution_options(populate_existing=True)))

    query = sa.select(Station).where(Station.id.in_(ours)).order_by(Station.code)
    stations = list(await tx.scalars(query.execution_options(populate_existing=True)))
    return Raw(
        at=at,
        stations=stations,
        units={unit.id: unit for unit in await tx.scalars(sa.select(Unit))},
        # One that never was stays in the table, and no report speaks of it.
        visits=[visit for visit in await rows(Visit) if visit.voided_at is None],
        scans=await rows(Scan),
        commands=await rows(Command),
        alone=await rows(OfflineEntry),
        uses=await rows(FacilityUse),
        facilities=await rows(Facility),
        heads=[heads for heads in await rows(WalkInCount) if heads.withdrawn_at is None],
        controllers=await rows(Controller),
        contacts={door.id: door.has_contact for door in await tx.scalars(sa.select(Door))},
        numbers={worker.id: worker.number for worker in await tx.scalars(sa.select(Worker))},
        told=told,
    )


async def read_told(tx: AsyncSession) -> Told:
    """Read how stations stood where no more is known of it than what the product wrote down."""
    lives: defaultdict[Any, Life] = defaultdict(lambda: Life(held=[]))
    boxes: dict[Any, Box] = {}
    for box in await tx.scalars(sa.select(Controller)):
        heard = [(box.enrolled_at, box.seen_at)] if box.seen_at else []
        boxes[box.id] = Box(box.enrolled_at, box.retired_at, heard, silences=[])
        lives[box.station_id].boxes.append(boxes[box.id])
    for outage in await tx.scalars(sa.select(ControllerOutage)):
        silences = boxes[outage.controller_id].silences
        assert silences is not None
        silences.append((outage.from_at, outage.until_at))
    for row in await tx.scalars(sa.select(StationModes).order_by(StationModes.local_day)):
        life, since = lives[row.station_id], row.midnight_at
        assert life.held is not None
        for a, b, kind, _ in row.windows:
            life.held.append((since + a * MS, since + b * MS, Kind(kind)))
        life.promised += [(since + a * MS, since + b * MS) for a, b in row.promised or ()]
        life.seated += [(since + a * MS, since + b * MS, n) for a, b, n in row.seats or ()]
    things: dict[Any, Thing] = {}
    for facility in await tx.scalars(sa.select(Facility)):
        thing = Thing(facility.kind, facility.created_at, facility.retired_at)
        things[facility.id] = thing
        lives[facility.station_id].things.append(thing)
    for spell in await tx.scalars(sa.select(FacilitySpell).order_by(FacilitySpell.from_at)):
        things[spell.facility_id].words.append((spell.from_at, spell.status))
        things[spell.facility_id].counts.append((spell.from_at, spell.quantity))
    days = (await tx.scalars(sa.select(StationModes.local_day))).all()
    rows = await tx.execute(sa.select(ListeningSpell.from_at, ListeningSpell.until_at))
    return Told(
        lives,
        [(a, b) for a, b in rows],
        Calendar({}, frozenset()),
        days=(min(days, default=date.max), max(days, default=date.min)),
        by_minutes=False,
    )


@dataclass
class Row:
    """What a row of a report is about: stations, days, and perhaps an hour of them."""

    raw: Raw
    period: tuple[date, date]
    stations: list[Station]
    days: list[date]
    hour: int | None = None
    day: date | None = None
    weekday: int | None = None
    day_class: str | None = None
    unit: Any = None
    is_own: bool | None = None
    model: str | None = None
    is_station: bool = False

    def __post_init__(self) -> None:
        self.ids = {station.id for station in self.stations}
        self.there = [s for s in self.stations if self.raw.is_there(s, self.period[0])]
        self.on = set(self.days)
        self._pieces: dict[ZoneInfo, list[tuple[datetime, datetime]]] = {}

    @property
    def name(self) -> dict[str, Any]:
        return {
            "station": self.stations[0].code if self.is_station else None,
            "unit": str(self.unit) if self.unit else None,
            "is_own": self.is_own,
            "operating_model": self.model,
            "day": self.day,
            "hour": self.hour,
            "weekday": self.weekday,
            "day_class": self.day_class,
        }

    def holds(self, station_id: Any, day: date, hour: int | None) -> bool:
        return (
            station_id in self.ids and day in self.on and (self.hour is None or hour == self.hour)
        )

    def of(self, rows: Sequence[Any]) -> list[Any]:
        return [
            row
            for row in rows
            if self.holds(row.station_id, row.local_day, getattr(row, "local_hour", None))
        ]

    def orders(self) -> list[Command]:
        found = []
        zones = {station.id: self.raw.zone(station) for station in self.raw.stations}
        for command in self.raw.commands:
            local = command.created_at.astimezone(zones[command.station_id])
            if self.holds(command.station_id, local.date(), local.hour):
                found.append(command)
        return found

    def pieces(self, zone: ZoneInfo) -> Sequence[tuple[datetime, datetime]]:
        if zone not in self._pieces:
            self._pieces[zone] = []
            for day in self.days:
                start = datetime.combine(day, time(self.hour or 0), zone)
                length = timedelta(days=1) if self.hour is None else timedelta(hours=1)
                piece = start.astimezone(UTC), (start + length).astimezone(UTC)
                self._pieces[zone].append(piece)
        return self._pieces[zone]

    def life(self, station: Station) -> tuple[datetime, datetime]:
        first, last = (datetime.combine(day, time(), self.raw.zone(station)) for day in self.period)
        ended = min(station.retired_at or self.raw.at, self.raw.at, last)
        return max(station.created_at, first), ended

    def seconds(self, station: Station, life: tuple[datetime, datetime] | None = None) -> int:
        since, until = life or self.life(station)
        zone = self.raw.zone(station)
        overlaps = (min(until, t1) - max(since, t0) for t0, t1 in self.pieces(zone))
        return sum(max(0, int(overlap.total_seconds())) for overlap in overlaps)

    @cached_property
    def known(self) -> int:
        return sum(self.seconds(station) for station in self.stations)

    @cached_property
    def is_told(self) -> bool:
        """Whether any of its time is known, or something happened after a station was retired."""
        after = [hour for station in self.stations for hour in self.raw.afterwards(station)]
        mine = (day in self.on and self.hour in (None, hour) for day, hour in after)
        return self.known > 0 or any(mine)

    @cached_property
    def known_share(self) -> float:
        pieces = [list(self.pieces(self.raw.zone(station))) for station in self.there]
        whole = sum(int((t1 - t0).total_seconds()) for each in pieces for t0, t1 in each)
        exact = share(self.known, whole) or 0.0
        if self.known in (0, whole):
            return exact
        return min(max(exact, 0.0001), 0.9999)

    @cached_property
    def measured(self) -> int:
        """From the first station's life in the period to the last's, in the zone with most."""
        found = 0
        for timezone in {station.timezone for station in self.stations}:
            mine = [station for station in self.stations if station.timezone == timezone]
            lives = [life for life in map(self.life, mine) if life[0] < life[1]]
            if lives:
                life = min(since for since, _ in lives), max(until for _, until in lives)
                found = max(found, self.seconds(mine[0], life))
        return found

    def minutes(self, station: Station) -> Iterator[tuple[date, int, int]]:
        """Give the minutes with somebody inside: day, quarter of the day, persons."""
        for (day, hour), each in self.raw.hours(station).items():
            if self.holds(station.id, day, hour):
                for number, persons in each:
                    yield day, hour * 4 + number // 15, persons

    @cached_property
    def cared(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for station, day in product(self.ids, self.days):
            for hour, counts in self.raw.health.get((station, day), {}).items():
                if self.hour in (None, hour):
                    found.update(counts)
        return found

    def health(self, name: str) -> int:
        return self.cared[name]

    @property
    def is_recorded(self) -> bool:
        return self.health("RECORDED_MS") > 0


def share(part: float, whole: float) -> float | None:
    return mean(part, whole, 10_000)


def mean(part: float, whole: float, places: int) -> float | None:
    if not whole:
        return None
    return math.floor(Fraction(part) / Fraction(whole) * places + Fraction(1, 2)) / places


def hours(ms: int) -> float:
    return math.floor(Fraction(ms, 3_600) + Fraction(1, 2)) / 1_000


def floor(value: int) -> int:
    """Give the least value that falls into the same bucket: 32 to each doubling from 64 on."""
    if value < 64:
        return value
    width = 1
    while value // width >= 64:
        width *= 2
    return value // width * width


def percentile(values: Sequence[int], percent: int) -> int | None:
    """Give the smallest value that at least so many percent do not exceed."""
    for value in sorted(values):
        if 100 * sum(1 for each in values if each <= value) >= percent * len(values):
            return value
    return None


def since_1970(at: datetime) -> int:
    """What lies between milliseconds is cut off."""
    return ms(at - datetime(1970, 1, 1, tzinfo=UTC))


def ms(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def branches_of(raw: Raw, roots: Sequence[Any], there: set[Any]) -> list[dict[str, Any]]:
    """Give each of several roots with all below it; of one, each unit below it, and its own.

    Only roots below which any of the stations is that are told of.
    """

    def below(unit: Any) -> list[Station]:
        path = raw.units[unit].path + "."
        return [s for s in raw.stations if (raw.units[s.unit_id].path + ".").startswith(path)]

    roots = [root for root in roots if there & {s.id for s in below(root)}] or roots
    if len(roots) > 1:
        return [{"stations": below(root), "unit": root, "is_own": False} for root in roots]
    children = [unit.id for unit in raw.units.values() if unit.parent_id == roots[0]]
    own = [station for station in raw.stations if station.unit_id == roots[0]]
    groups = [{"stations": below(child), "unit": child, "is_own": False} for child in children]
    return [*groups, {"stations": own, "unit": roots[0], "is_own": True}]


def table_of(
    raw: Raw,
    by: str,
    bucket: str | None,
    period: tuple[date, date],
    calendar: dict[date, DayClass],
    roots: Sequence[Any],
) -> list[Row]:
    """Give the rows that a report must have, in order."""
    days = [period[0] + timedelta(days=n) for n in range((period[1] - period[0]).days)]
    groups: list[dict[str, Any]] = [{"stations": raw.stations}]
    there = [station for station in raw.stations if raw.is_told(station, period)]
    kind = by
    if by in ("station", "unit", "branch", "operating_model", "all"):
        kind = {"hour": "day", "hour_of_day": "all", None: "all"}.get(bucket, bucket or "")
    if by == "station":
        groups = [{"stations": [each], "is_station": True} for each in there]
    if by == "unit":
        units = dict.fromkeys(station.unit_id for station in there)
        groups = [
            {
                "stations": [s for s in raw.stations if s.unit_id == unit],
                "unit": unit,
                "is_own": True,
            }
            for unit in units
        ]
    if by == "branch":
        first = {station.id: place for place, station in enumerate(there)}
        groups = [
            group
            for group in branches_of(raw, roots, set(first))
            if any(station.id in first for station in group["stations"])
        ]
        groups.sort(key=lambda group: min(first.get(s.id, len(first)) for s in group["stations"]))
    if by == "operating_model":
        models = dict.fromkeys(station.operating_model for station in there)
        groups = [
            {"stations": [s for s in there if s.operating_model == m], "model": m.value}
            for m in models
        ]
    times: list[dict[str, Any]] = []
    match kind:
        case "day":
            times = [{"days": [day], "day": day} for day in days]
        case "week":
            for day in days:
                if not times or day.weekday() == 0:
                    times.append({"days": [], "day": day - timedelta(days=day.weekday())})
                times[-1]["days"].append(day)
        case "month":
            for day in days:
                if not times or day.day == 1:
                    times.append({"days": [], "day": day.replace(day=1)})
                times[-1]["days"].append(day)
        case "weekday":
            for number in range(1, 8):
                mine = [day for day in days if day.isoweekday() == number]
                times += [{"days": mine, "weekday": number}] if mine else []
        case "day_class":
            for name in ("workday", "weekend", "public_holiday", "makeup_workday"):
                mine = [day for day in days if class_of(day, calendar) == name]
                times += [{"days": mine, "day_class": name}] if mine else []
        case _:
            times = [{"days": days}]
    hourly = range(24) if "hour" in (by, bucket) or bucket == "hour_of_day" else [None]
    return [
        Row(raw, period, **group, **piece, hour=hour)
        for group in groups
        for piece in times
        for hour in hourly
    ]


def class_of(day: date, calendar: dict[date, DayClass]) -> str:
    if day in calendar:
        return calendar[day].value
    return "weekend" if day.weekday() >= 5 else "workday"


def visits_of(row: Row) -> dict[str, Any]:
    raw = row.raw
    rows: list[Visit] = row.of(raw.visits)
    first = [each for each in rows if not each.re_entry]
    free = [each for each in first if each.mode is Kind.FREE]
    out = [each for each in first if each.mode is not Kind.FREE]
    offline = [each for each in out if each.id in raw.alone_visits]
    over = [each for each in rows if each.ended_at or each.stay_until <= raw.at]
    imputed = [each for each in over if each.end_source in (None, EndSource.IMPUTED)]
    stays = [
        since_1970(each.ended_at) - since_1970(each.started_at)
        for each in rows
        if each.end_source in (EndSource.WORKER, EndSource.CONTACT, EndSource.STAFF)
    ]
    scans = row.of(raw.scans)
    refused = [scan for scan in scans if scan.outcome is Outcome.REFUSED]
    staffed, is_open = row.health("STAFFED_MS"), row.health("OPEN_MS")
    unstaffed = max(0, is_open - staffed)
    covered = free_ms(row, raw.counted)
    coverage = share(covered, staffed)
    uplift = None
    if coverage is not None and coverage >= 0.5 and unstaffed and free:
        uplift = round((len(out) / unstaffed) / (len(free) / staffed), 4)
    minutes = [floor(stay // 60_000) * 60 for stay in stays]
    return {
        "visits": len(first),
        "visits_free": len(free),
        "visits_scan": len(out) - len(offline),
        "visits_offline": len(offline),
        "persons": sum(each.party_size for each in first),
        "returns": len(rows) - len(first),
        "unique_workers": len({raw.number_of(each) for each in first} - {None})
        if row.hour is None
        else None,
        "anonymous_visits": sum(raw.number_of(each) is None for each in first),
        "beyond_retention": False,
        "out_of_hours_visits": len(out),
        "offhours_share": share(len(out), len(first)),
        "staffed_hours": hours(staffed) if row.is_recorded else None,
        "unstaffed_hours": hours(unstaffed) if row.is_recorded else None,
        "covered_hours": hours(covered) if row.is_recorded else None,
        "free_mode_coverage": coverage,
        "night_uplift": uplift,
        **heads_of(row),
        "refused": len(refused),
        "unmet_demand": len({scan.demand_key for scan in refused} - raw.met),
        "stays": len(stays),
        "stay_hours": hours(sum(stays)),
        "dwell_mean_s": mean(sum(stays), len(stays) * 1000, 100),
        "dwell_median_s": percentile(minutes, 50),
        "dwell_p90_s": percentile(minutes, 90),
        "ended": len(over),
        "imputed_exits": len(imputed),
        "imputed_exit_share": share(len(imputed), len(over)),
    }


def heads_of(row: Row) -> dict[str, Any]:
    """Say what staff counted, and how often: without a count it is not known, and not nobody."""
    counts = [each.count for each in row.of(row.raw.heads)]
    if row.hour is not None:
        return {"walk_in_heads": None, "head_counts": None}
    return {"walk_in_heads": sum(counts) if counts else None, "head_counts": len(counts)}


def free_ms(row: Row, hours_of: Mapping[Any, set[Hour]]) -> int:
    """Sum the staffed time of some hours."""
    raw, found = row.raw, 0
    for station in row.stations:
        for day, hour in hours_of.get(station.id, ()):
            if row.holds(station.id, day, hour):
                found += raw.health.get((station.id, day), {}).get(hour, {}).get("STAFFED_MS", 0)
    return found


def access_of(row: Row) -> dict[str, Any]:
    scans, orders = row.of(row.raw.scans), row.orders()
    outcomes = Counter(scan.outcome for scan in scans)
    reasons = Counter(scan.reason.value for scan in scans if scan.outcome is Outcome.REFUSED)
    refused = {scan.demand_key for scan in scans if scan.outcome is Outcome.REFUSED}
    by_scan = [order for order in orders if order.scan_id]
    executed = [order for order in by_scan if order.state is CommandState.EXECUTED]
    ends = ends_of(by_scan, row.raw.at)
    opened = [order for order in by_scan if order.opened_at]
    contact = [
        order
        for order in executed
        if order.opened_at
        or order.has_contact
        or (order.has_contact is None and row.raw.contacts[order.door_id])
    ]
    let_in = outcomes[Outcome.GRANTED] + outcomes[Outcome.WALK_IN]
    claims = [
        floor(ms(o.claimed_at) - ms(o.created_at)) for o in map(Since, orders) if o.claimed_at
    ]
    pulsed = [o for o in orders if o.pulsed_at and o.state is CommandState.EXECUTED]
    pulses = [floor(ms(o.pulsed_at) - ms(o.created_at)) for o in map(Since, pulsed)]
    doors = [floor(ms(o.opened_at) - ms(o.pulsed_at)) for o in map(Since, pulsed) if o.opened_at]
    alone = row.of(row.raw.alone)
    decisions = [floor(scan.decide_ms) for scan in scans if scan.decide_ms is not None]
    found: dict[str, Any] = {
        "decided": len(scans),
        "granted": outcomes[Outcome.GRANTED],
        "walk_in": outcomes[Outcome.WALK_IN],
        "refused": outcomes[Outcome.REFUSED],
        "by_reason": dict(sorted(reasons.items())),
        "grant_rate": share(let_in, len(scans)),
        "unmet_demand": len(refused - row.raw.met),
        "claimed": sum(order.claimed_at is not None for order in by_scan),
        "executed": len(executed),
        "open_success_rate": share(
            sum(order not in contact or order in opened for order in executed),
            outcomes[Outcome.GRANTED],
        ),
        "refused_after_grant": ends["refused"],
        "failed": ends["failed"],
        "expired": ends["expired"],
        "unknown": ends["unknown"],
        "live": ends["pending"] + ends["claimed"],
        "with_contact": len(contact),
        "opened": len(opened),
        "proven_open_rate": share(len(opened), len(contact)),
        "alone_opened": sum(entry.opened for entry in alone),
        "alone_refused": sum(not entry.opened for entry in alone),
        "alone_flagged": sum(
            entry.opened and entry.would_have_been_refused is not None for entry in alone
        ),
    }
    latencies = {"decide": decisions, "pickup": claims, "pulse": pulses, "door": doors}
    for name, values in latencies.items():
        found |= {f"{name}_p{p}_ms": percentile(values, p) for p in (50, 95, 99)}
        found[f"{name}_timed"] = len(values)
    return found


class Since:
    """A command's instants as time since 1970, cut to milliseconds only when it is asked."""

    def __init__(self, order: Command) -> None:
        first = datetime(1970, 1, 1, tzinfo=UTC)
        self.created_at = order.created_at - first
        self.claimed_at = order.claimed_at - first if order.claimed_at else None
        self.pulsed_at = (order.pulsed_at or order.created_at) - first
        self.opened_at = order.opened_at - first if order.opened_at else None


def ends_of(orders: Sequence[Command], at: datetime) -> Counter[str]:
    """What became of commands: whoever let the time pass is over, though nobody wrote it yet."""
    over = {CommandState.PENDING: "expired", CommandState.CLAIMED: "unknown"}
    return Counter(
        over[each.state] if each.state in over and each.expires_at <= at else each.state.value
        for each in orders
    )


def claims_of(orders: Sequence[Command]) -> list[int]:
    """How long commands waited to be claimed, by their buckets; milliseconds."""
    claimed = [order for order in map(Since, orders) if order.claimed_at is not None]
    return [floor(ms(order.claimed_at) - ms(order.created_at)) for order in claimed]


def occupancy_of(row: Row) -> dict[str, Any]:
    raw = row.raw
    minutes = [each for station in row.stations for each in row.minutes(station)]
    persons, used = sum(inside for _, _, inside in minutes), len(minutes)
    told = row.is_recorded and row.health("TOLD_MS") == row.health("RECORDED_MS")
    staffed = row.health("STAFFED_MS")
    scanned, covered = free_ms(row, raw.scanned), free_ms(row, raw.counted)
    # Through an open door comes who likes: who was inside is known if many enough scan there.
    is_sure = staffed == 0 or share(scanned, staffed) >= 0.5
    # T: when each station was open and reporting; O is integrated over this alone.
    reporting, seats, persons_then, used_then = (
        row.health(f"{name}_MS")
        for name in ("REPORTING", "SEATS", "REPORTING_PERSON", "REPORTING_USED")
    )
    quarters: Counter[tuple[date, int]] = Counter()
    for day, quarter, inside in minutes:
        quarters[day, quarter] += inside
    peak: Any = 0.0
    peak_at: Any = None
    if quarters:
        best = max(quarters.values())
        day, quarter = min(key for key, value in quarters.items() if value == best)
        peak = round(best / 15, 4)
        # A quarter of stations in two zones is told by the clock of either.
        zones = {each.timezone for each in (row.stations if row.is_station else raw.stations)}
        clock = time(quarter // 4, quarter % 4 * 15)
        local = [datetime.combine(day, clock, ZoneInfo(zone)) for zone in zones]
        peak_at = frozenset(each.astimezone(UTC) for each in local)
    # Of several stations of a model there is none; of one that is left of them there is.
    if row.model is not None and len(row.stations) > 1:
        peak, peak_at = None, None
    most = None
    if row.is_station:
        most = max((inside for _, _, inside in minutes), default=0)
    crowded = crowded_of(row)
    # And that nobody was there is known where there was a box to tell of whoever came.
    if not is_sure or (reporting == 0 and persons == 0):
        peak = peak_at = most = crowded = None
    is_mean = told and is_sure
    return {
        "capacity": sum(s.capacity for s in (row.stations if row.is_station else row.there)),
        "measured_hours": hours(row.measured * 1000),
        "station_hours": hours(row.known * 1000),
        "person_hours": hours(persons * 60_000),
        "used_hours": hours(used * 60_000),
        "reporting_hours": hours(reporting) if told else None,
        "seat_hours": hours(seats) if told else None,
        "reporting_person_hours": hours(persons_then) if told else None,
        "reporting_used_hours": hours(used_then) if told else None,
        "staffed_hours": hours(staffed) if row.is_recorded else None,
        "covered_hours": hours(covered) if row.is_recorded else None,
        "heads_only_hours": hours(covered - scanned) if row.is_recorded else None,
        "free_mode_coverage": share(covered, staffed),
        "avg_occupancy": share(persons_then, reporting) if is_mean else None,
        "avg_when_used": share(persons_then, used_then) if is_mean else None,
        "peak_occupancy": peak,
        "peak_at": peak_at,
        "max_observed": most,
        "seat_utilization": share(persons_then, seats) if is_mean else None,
        "time_utilization": share(used_then, reporting) if is_mean else None,
        "crowded_minutes": crowded,
    }


def crowded_of(row: Row) -> int | None:
    """Give the crowded minutes; None where nothing would tell of anybody, and nobody was seen."""
    if not row.health("REPORTING_MS") and not any(list(row.minutes(each)) for each in row.stations):
        return None
    return sum(
        count
        for station in row.stations
        for (day, hour), count in row.raw.crowded(station.id).items()
        if row.holds(station.id, day, hour)
    )


def facilities_of(row: Row) -> dict[Any, dict[str, Any]]:
    """Give what is said of each kind that stands there, was used, or was looked after."""
    raw = row.raw
    is_cut = any(row.name[name] is not None for name in ("day", "hour", "weekday", "day_class"))
    kinds = {facility.id: facility.kind for facility in raw.facilities}
    standing: Counter[Any] = Counter()
    in_use = {station.id for station in row.stations if station.retired_at is None}
    for facility in raw.facilities:
        if facility.station_id in in_use and facility.retired_at is None:
            standing[facility.kind] += facility.quantity
    faults = Counter(
        thing.kind
        for station in in_use
        for thing in raw.told.lives[station].things
        if thing.retired_at is None
        and (out := thing.out_since()) is not None
        and (raw.at - out).total_seconds() > 72 * 3600
    )
    uses = row.of(raw.uses)
    came = sum(not visit.re_entry for visit in row.of(raw.visits))
    cared = {kind for kind in FacilityKind if row.health(f"{kind.value} STANDING_MS")}
    found = {}
    for kind in {*standing, *(kinds[use.facility_id] for use in uses), *cared}:
        mine = [use for use in uses if kinds[use.facility_id] is kind]
        ended = [use for use in mine if use.ended_at]
        lengths = sum(since_1970(use.ended_at) - since_1970(use.begun_at) for use in ended)
        stood, out, degraded, unknown = (
            row.health(f"{kind.value} {name}_MS")
            for name in ("STANDING", "OUT", "DEGRADED", "UNKNOWN")
        )
        mended = [
            floor(int(name.rpartition(" ")[2]))
            for name, count in row.cared.items()
            if name.startswith(f"{kind.value} MINUTES ")
            for _ in range(count)
        ]
        repairs, repair = row.health(f"{kind.value} REPAIRS"), row.health(f"{kind.value} REPAIR_MS")
        found[kind] = {
            "units": None if is_cut else standing[kind],
            "uses": len(ended),
            "open_uses": len(mine) - len(ended),
            "quantity": round(float(sum(use.quantity or 0 for use in mine)), 3),
            "in_use_hours": hours(lengths),
            "visits": came,
            "uses_per_visit": share(len(ended), came),
            "standing_hours": hours(stood),
            "out_of_order_hours": hours(out),
            "degraded_hours": hours(degraded),
            "unknown_hours": hours(unknown),
            "unknown_share": share(unknown, stood),
            "availability": share(stood - out, stood),
            "repairs": repairs,
            "repair_hours": hours(repair),
            "repair_mean_min": mean(repair, repairs * 60_000, 10),
            "repair_median_min": percentile(mended, 50) if len(mended) == repairs else None,
            "open_faults_over_72h": None if is_cut else faults[kind],
        }
    return found


def promise_of(row: Row) -> dict[str, Any]:
    promised, unknown, usable, commissioned, online, deaf, outages, outage = (
        row.health(name)
        for name in (
            "PROMISED_MS",
            "UNKNOWN_MS",
            "USABLE_MS",
            "COMMISSIONED_MS",
            "ONLINE_MS",
            "DEAF_MS",
            "OUTAGES",
            "OUTAGE_MS",
        )
    )
    told = row.is_recorded and row.health("TOLD_MS") == row.health("RECORDED_MS")
    return {
        "promised_hours": hours(promised) if told else None,
        "usable_hours": hours(usable) if told else None,
        "unknown_hours": hours(unknown) if told else None,
        "promise_rate": share(usable, promised - unknown) if told else None,
        "unknown_share": share(unknown, promised) if told else None,
        "staffed_hours": hours(row.health("STAFFED_MS")) if row.is_recorded else None,
        "commissioned_hours": hours(commissioned),
        "online_hours": hours(online),
        "unheard_hours": hours(deaf),
        "controller_uptime": share(online, commissioned - deaf),
        "outages": outages,
        "outage_hours": hours(outage),
        "mttr_min": mean(outage, outages * 60_000, 10),
    }


def controllers_of(row: Row) -> dict[str, Any]:
    (station,) = row.stations
    mine = [each for each in row.raw.controllers if each.station_id == station.id]
    box = next((each for each in mine if each.retired_at is None), None)
    orders = row.orders()
    states = ends_of(orders, row.raw.at)
    waits = claims_of(orders)
    return {
        "serial": box and box.serial,
        "seen_at": box and box.seen_at,
        "commands": len(orders),
        "live": states["pending"] + states["claimed"],
        **{name: states[name] for name in ("executed", "refused", "failed", "expired", "unknown")},
        "pickup_p50_ms": percentile(waits, 50),
        "pickup_p95_ms": percentile(waits, 95),
        "pickup_timed": len(waits),
    }


ALWAYS = (
    "known_share",
    "beyond_retention",
    "capacity",
    "units",
    "open_faults_over_72h",
    "serial",
    "seen_at",
)
"""Said even of time of which nothing is known."""


def said(row: Row, values: dict[str, Any]) -> dict[str, Any]:
    """Say nothing of what cannot be known."""
    online, commissioned = row.health("ONLINE_MS"), row.health("COMMISSIONED_MS")
    values = values | {"reported_share": share(online, commissioned)}
    if not row.is_told:
        values = {name: value if name in ALWAYS else None for name, value in values.items()}
    return values | {"known_share": row.known_share}
