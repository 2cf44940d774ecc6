"""The places and people of a generated city, drawn by seed, with their rows.

Hours are those of the sample city (app/demo/city.py); the share of smart stations is Chongqing's.
Popularity has a heavy tail: most stations see a few visits a day, some see sixty. People have no
phone number, so nobody can sign in as one of them, and no message ever reaches a stranger.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.bulk import BulkLoad, Column, Rows
from app.db.types import table_of
from app.demo.city import CITY, SAMPLES
from app.doors.registry import DEFAULT_PULSE_MS
from app.doors.tables import Controller, ControllerOutage, Door, ListeningSpell
from app.generate.city import (
    FACILITY_KINDS,
    NEVER,
    NEVER_IN_PERIOD,
    OCCUPATIONS,
    City,
    Doors,
    Facilities,
    Flags,
    Outages,
    Stations,
    Workers,
    values,
)
from app.generate.numbers import mixed, new_ids
from app.generate.plan import Plan
from app.generate.timetable import DAY, MINUTE, Ints, Timetable, instant_of, midnight
from app.people.rules import Role
from app.people.tables import Admin, Consent, Occupation, Worker
from app.people.workers import CONSENT_VERSIONS, NUMBER_BITS
from app.places import calendar as calendar_days
from app.places import districts
from app.places.rules import (
    CITY_ZONE,
    Calendar,
    Change,
    ChangeKind,
    Hours,
    StationRules,
    Tier,
    grid_cell,
    parse_hours,
)
from app.places.tables import (
    CalendarDay,
    District,
    Facility,
    FacilityKind,
    FacilitySpell,
    FacilityStatus,
    ModeChange,
    OperatingModel,
    Station,
    Unit,
    UnitKind,
)
from app.places.transfer import read_hours
from app.visits.tables import StationPresence

CHUNK = 1000
"""Rows of a small table that are written at once."""

CENTRES = {
    "500101": (30.81, 108.41, 12), "500102": (29.70, 107.39, 10), "500103": (29.556, 106.570, 38),
    "500104": (29.484, 106.482, 16), "500106": (29.541, 106.457, 36),
    "500107": (29.502, 106.511, 36), "500108": (29.523, 106.563, 32),
    "500109": (29.806, 106.396, 16), "500110": (29.028, 106.651, 7), "500111": (29.707, 105.722, 7),
    "500113": (29.402, 106.541, 22), "500114": (29.53, 108.77, 4), "500115": (29.858, 107.081, 7),
    "500116": (29.290, 106.259, 10), "500117": (29.972, 106.276, 9), "500118": (29.356, 105.927, 9),
    "500119": (29.157, 107.099, 5), "500120": (29.592, 106.227, 8), "500151": (29.845, 106.056, 5),
    "500152": (30.191, 105.840, 4), "500153": (29.405, 105.594, 5), "500154": (31.161, 108.393, 5),
    "500155": (30.654, 107.769, 4), "500156": (29.325, 107.760, 3), "500157": (29.62, 106.56, 75),
    "500229": (31.948, 108.664, 1), "500230": (29.864, 107.731, 3), "500231": (30.327, 107.333, 4),
    "500233": (30.300, 108.039, 4), "500235": (30.931, 108.697, 4), "500236": (31.018, 109.464, 4),
    "500237": (31.075, 109.879, 3), "500238": (31.399, 109.570, 2), "500240": (29.999, 108.114, 3),
    "500241": (28.448, 109.007, 3), "500242": (28.841, 108.769, 3), "500243": (29.294, 108.166, 3),
}  # fmt: skip
"""Where the districts' towns lie (WGS-84), and how many of the stations are there, in parts."""

SITES = (
    "步行街",
    "地铁口",
    "商圈",
    "物流园",
    "农贸市场",
    "公园",
    "客运站",
    "社区",
    "写字楼",
    "广场",
)
HOUSES = ("骑手之家", "快递员驿站", "环卫之家", "司机之家", "户外劳动者驿站", "暖心驿站")

MODELS = (
    (OperatingModel.UNION_BUILT, 0.40),
    (OperatingModel.COMMERCE_SUPPORTED, 0.28),
    (OperatingModel.ENTERPRISE_PARTNERED, 0.20),
    (OperatingModel.IDLE_PREMISES, 0.12),
)

OCCUPATION_SHARES = (0.36, 0.16, 0.14, 0.15, 0.08, 0.04, 0.03, 0.03, 0.01)
BY_NIGHT = (Occupation.RIDER, Occupation.DRIVER, Occupation.COURIER)
"""Whoever comes in the night is one of them."""

THINGS = (
    (FacilityKind.WATER, 0.95),
    (FacilityKind.MICROWAVE, 0.85),
    (FacilityKind.CHARGER, 0.75),
    (FacilityKind.FIRST_AID, 0.50),
    (FacilityKind.REST, 0.60),
    (FacilityKind.TOILET, 0.40),
    (FacilityKind.BOOKS, 0.25),
    (FacilityKind.LAUNDRY, 0.08),
    (FacilityKind.COFFEE, 0.08),
    (FacilityKind.LEGAL_AID, 0.06),
)


def shipped_calendar() -> Sequence[calendar_days.NamedDay]:
    """Give the holidays that come with this version."""
    content = resources.files("app.data").joinpath("calendar_cn.csv").read_bytes()
    return calendar_days.parse(content)


def _calendar() -> Calendar:
    days = {day.day: day.day_class for day in shipped_calendar()}
    return Calendar(days, frozenset(day.year for day in days))


def _hours(text: str) -> Hours | None:
    found = read_hours(text)
    return None if found is None else parse_hours(found)


def _uuid(raw: Any) -> uuid.UUID:
    return uuid.UUID(bytes=bytes(raw))


def _firsts(counts: Ints) -> Ints:
    """Say where each group begins when they stand one behind the other."""
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


class Builder:
    """What the draws of a city share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = np.random.default_rng([plan.seed, 0])
        self.origin, self.horizon = midnight(plan.from_day), midnight(plan.until)
        self.before = self.origin - 200 * DAY
        """When units and the first workers were there already."""
        self.rules: list[StationRules] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self.changes: list[dict[str, Any]] = []
        self.rows: list[tuple[Any, Sequence[dict[str, Any]]]] = []

    def add(self, kind: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Keep rows to be written."""
        self.rows.append((kind, rows))

    def rules_of(self, staffed: str, access: str) -> int:
        """Give the number of these hours."""
        if (staffed, access) not in self._numbers:
            self._numbers[staffed, access] = len(self.rules)
            self.rules.append(StationRules(CITY_ZONE, _hours(staffed), _hours(access)))
        return self._numbers[staffed, access]

    def with_changes(self, rules: int, station_id: uuid.UUID) -> int:
        """Give the number of hours like these with some exceptions and an emergency."""
        changes = []
        kinds = (
            (ChangeKind.CLOSED, Tier.EXCEPTION, 24 * 60),
            (ChangeKind.STAFF_ONLY, Tier.EXCEPTION, 8 * 60),
            (ChangeKind.HELD_OPEN, Tier.OVERRIDE, 10 * 60),
            (ChangeKind.LOCKDOWN, Tier.OVERRIDE, 6 * 60),
            (ChangeKind.EVACUATION, Tier.OVERRIDE, 90),
        )
        for index in self.rng.choice(len(kinds), 2, replace=False).tolist():
            kind, tier, minutes = kinds[index]
            day = int(self.rng.integers(0, self.plan.days))
            from_at = self.origin + day * DAY + int(self.rng.integers(0, 16 * 60)) * MINUTE
            said_at = instant_of(from_at if tier is Tier.OVERRIDE else from_at - 3 * DAY)
            begins, ends = instant_of(from_at), instant_of(from_at + minutes * MINUTE)
            changes.append(Change(kind, tier, begins, ends, said_at))
            self.changes.append(
                {
                    "id": _uuid(new_ids(self.rng, np.array([from_at]))[0]),
                    "station_id": station_id,
                    "tier": tier,
                    "kind": kind,
                    "from_at": begins,
                    "until_at": ends,
                    "note": "",
                    "created_at": said_at,
                    "changed_at": said_at,
                    "retired_at": None,
                }
            )
        self.rules.append(replace(self.rules[rules], changes=tuple(changes)))
        return len(self.rules) - 1


def draw_city(plan: Plan) -> "Blueprint":
    """Draw a city: units, stations, doors, controllers, facilities, people."""
    make, calendar = Builder(plan), _calendar()
    known = [District(**row) for row in districts.parse(districts.shipped())]
    current = [district for district in known if districts.is_current(district, plan.until)]
    units = _units(make, current)
    make.add(Unit, units)
    stations, rows = _stations(make, [unit["id"] for unit in units[1:]], current)
    make.add(Station, rows)
    make.add(StationPresence, [{"station_id": row["id"]} for row in rows])
    make.add(ModeChange, make.changes)
    doors = _doors(make, stations)
    facilities = _facilities(make, stations)
    outages = _controllers(make, stations)
    keeper = _keeper(make)
    workers, people = _workers(make, stations)
    city = City(
        plan=plan,
        calendar=calendar,
        timetable=Timetable(make.rules, calendar, plan.from_day, plan.until),
        stations=stations,
        doors=doors,
        facilities=facilities,
        workers=workers,
        outages=outages,
        keeper=keeper,
        rules=make.rules,
    )
    return Blueprint(city, make.rows, people)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A city, and its rows."""

    city: City
    small: Sequence[tuple[Any, Sequence[dict[str, Any]]]]
    """Rows to write one by one, in the order of their keys."""
    people: Sequence[tuple[sa.Table, Rows]]

    async def write(self, load: BulkLoad) -> None:
        """Write the rows; the calendar and the districts that we ship replace what is there."""
        await load.tx.execute(sa.delete(CalendarDay))
        await _insert(load.tx, CalendarDay, [asdict(day) for day in shipped_calendar()])
        await districts.load(load.tx, districts.shipped())
        for kind, rows in self.small:
            await _insert(load.tx, kind, rows)
        for table, columns in self.people:
            await load.add(table, columns)


async def _insert(tx: AsyncSession, kind: Any, rows: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(rows), CHUNK):
        await tx.execute(sa.insert(table_of(kind)), rows[start : start + CHUNK])


def _units(make: Builder, current: Sequence[Any]) -> list[dict[str, Any]]:
    at = instant_of(make.before)
    ids = [_uuid(raw) for raw in new_ids(make.rng, np.full(len(current) + 1, make.before))]
    names = [CITY, *(f"{district.name}总工会" for district in current)]
    return [
        {
            "id": unit_id,
            "name": name,
            "kind": UnitKind.DISTRICT if number > 1 else UnitKind.CITY,
            "parent_id": ids[0] if number > 1 else None,
            "number": number,
            "path": f"1.{number}" if number > 1 else "1",
            "created_at": at,
            "changed_at": at,
        }
        for number, (unit_id, name) in enumerate(zip(ids, names, strict=True), 1)
    ]


def _stations(
    make: Builder, unit_ids: Sequence[uuid.UUID], current: Sequence[Any]
) -> tuple[Stations, list[dict[str, Any]]]:
    plan, rng, count = make.plan, make.rng, make.plan.stations
    centres = [CENTRES.get(district.adcode, (29.56, 106.55, 1)) for district in current]
    shares = np.array([share for _, _, share in centres], float)
    # In order of their districts, so that the stations before and after one are its neighbours.
    where = np.sort(rng.choice(len(current), count, p=shares / shares.sum()))
    spread = np.where(shares[where] > 10, 0.05, 0.02)
    latitudes = np.array([lat for lat, _, _ in centres])[where] + rng.normal(0, spread)
    longitudes = np.array([lon for _, lon, _ in centres])[where] + rng.normal(0, spread)
    order = np.lexsort((np.round(latitudes, 2), where))
    latitudes, longitudes = latitudes[order].round(6), longitudes[order].round(6)

    models = rng.choice(len(MODELS), count, p=[share for _, share in MODELS])
    smart = np.zeros(count, np.bool_)
    smart[rng.permutation(count)[: max(1, round(count * plan.smart_share))]] = True
    popularity = rng.lognormal(0, 0.95, count)
    # Of a station that is older than its history, reports would say that nobody came.
    opened_at = np.full(count, make.origin)
    fresh = np.flatnonzero(rng.random(count) < 0.04)
    opened_at[fresh] = make.origin + rng.integers(0, max(plan.days // 2, 1), len(fresh)) * DAY
    retired_at = np.full(count, NEVER)
    gone = np.flatnonzero(rng.random(count) < 0.02)
    last = rng.integers(plan.days - plan.days // 2, plan.days + 1, len(gone))
    retired_at[gone] = make.origin + last * DAY
    ids = new_ids(rng, np.sort(opened_at))
    changed = set(rng.permutation(count)[: min(40, max(1, count // 25))].tolist())

    rules = np.zeros(count, np.int64)
    staffed = np.zeros(count, np.bool_)
    max_stay = np.zeros(count, np.int64)
    rows: list[dict[str, Any]] = []
    for index in range(count):
        model = MODELS[models[index]][0]
        sample = _sample(rng, model, smart=bool(smart[index]))
        access = sample.access if smart[index] else ""
        rules[index] = make.rules_of(sample.staffed, access)
        staffed[index] = sample.staffed != ""
        max_stay[index] = sample.max_stay_min * MINUTE
        if not staffed[index]:
            # Where nobody ever is, hardly anybody comes: 2.5 visits a day.
            popularity[index] *= 0.2
        if index in changed:
            rules[index] = make.with_changes(int(rules[index]), _uuid(ids[index]))
        place = int(where[index])
        retired = None if retired_at[index] == NEVER else instant_of(int(retired_at[index]))
        opened = instant_of(int(opened_at[index]))
        name = f"{SITES[index % len(SITES)]}{index + 1}号{HOUSES[index % len(HOUSES)]}"
        latitude, longitude = float(latitudes[index]), float(longitudes[index])
        rows.append(
            {
                "id": _uuid(ids[index]),
                "code": f"CQ-{current[place].adcode[2:]}-{index + 1:04d}",
                "name": f"{current[place].name}{name}",
                "unit_id": unit_ids[place],
                "district": current[place].adcode,
                "address": f"{current[place].name}{SITES[index % len(SITES)]} {index % 200 + 1} 号",
                "latitude": latitude,
                "longitude": longitude,
                "cell": grid_cell(latitude, longitude),
                "capacity": 0,
                "operating_model": model,
                "timezone": CITY_ZONE,
                "staffed_hours": read_hours(sample.staffed),
                "access_hours": read_hours(access),
                "max_stay_min": sample.max_stay_min,
                "confirm_tap": False,
                "config_version": 1,
                "created_at": opened,
                "changed_at": retired or opened,
                "retired_at": retired,
            }
        )
    popularity = np.minimum(popularity / popularity.mean(), 12)
    seats = 4 + rng.integers(0, 12, count) + np.minimum(popularity * 4, 24)
    capacity = np.where(rng.random(count) < 0.05, 3, seats).astype(np.int64)
    for row, places in zip(rows, capacity.tolist(), strict=True):
        row["capacity"] = places
    nothing = np.zeros(count, np.int64)
    stations = Stations(
        ids=ids,
        rules=rules,
        popularity=popularity / popularity.mean(),
        capacity=capacity,
        max_stay=max_stay,
        opened_at=opened_at,
        retired_at=retired_at,
        controllers=new_ids(rng, opened_at),
        is_smart=smart,
        is_staffed=staffed,
        first_door=nothing.copy(),
        doors=nothing.copy(),
        first_facility=nothing.copy(),
        facilities=nothing.copy(),
        first_worker=nothing.copy(),
        workers=nothing.copy(),
        by_night=nothing.copy(),
    )
    return stations, rows


def _sample(rng: np.random.Generator, model: OperatingModel, *, smart: bool) -> Any:
    """Take the hours of one of the sample stations of a model."""
    fitting = [
        sample
        for sample in SAMPLES
        if sample.model is model and (sample.access if smart else sample.staffed)
    ]
    return fitting[int(rng.integers(0, len(fitting)))]


def _doors(make: Builder, stations: Stations) -> Doors:
    rng, count = make.rng, len(stations.ids)
    stations.doors[:] = np.where(rng.random(count) < 0.15, 2, 1)
    stations.first_door[:] = _firsts(stations.doors)
    of = np.repeat(np.arange(count), stations.doors)
    total, smart = len(of), stations.is_smart[of]
    doors = Doors(
        ids=new_ids(rng, stations.opened_at[of]),
        has_contact=smart & (rng.random(total) < 0.45),
        has_display=smart & (rng.random(total) < 0.15),
        revoked_at=np.where(
            rng.random(total) < 0.03, rng.integers(make.origin, make.horizon, total), NEVER
        ),
    )
    numbers = rng.choice(len(_DIGITS) ** 5, total, replace=False)
    rows = [
        {
            "id": _uuid(doors.ids[index]),
            "number": _door_number(int(numbers[index]), rng),
            "station_id": _uuid(stations.ids[of[index]]),
            "name": "正门" if index == stations.first_door[of[index]] else "侧门",
            "has_display": bool(doors.has_display[index]),
            "has_contact": bool(doors.has_contact[index]),
            "generation": 1 if doors.revoked_at[index] == NEVER else 2,
            "grace_until": None,
            "pulse_ms": DEFAULT_PULSE_MS,
            "poster_fallback": True,
            "created_at": instant_of(int(stations.opened_at[of[index]])),
            "changed_at": instant_of(int(stations.opened_at[of[index]])),
        }
        for index in range(total)
    ]
    make.add(Door, rows)
    return doors


_DIGITS = "abcdefghjkmnpqrstuvwxyz23456789"


def _door_number(number: int, rng: np.random.Generator) -> str:
    """Write a number of its own with three letters that nobody can guess before it."""
    text = "".join(_DIGITS[digit] for digit in rng.integers(0, len(_DIGITS), 3).tolist())
    for _ in range(5):
        number, digit = divmod(number, len(_DIGITS))
        text += _DIGITS[digit]
    return text


def _facilities(make: Builder, stations: Stations) -> Facilities:
    rng, count = make.rng, len(stations.ids)
    has = rng.random((count, len(THINGS))) < np.array([share for _, share in THINGS])
    has[:, 0] |= ~has.any(axis=1)
    stations.facilities[:] = has.sum(axis=1)
    stations.first_facility[:] = _firsts(stations.facilities)
    of, thing = np.nonzero(has)
    total = len(of)
    kinds = np.array([FACILITY_KINDS.index(kind) for kind, _ in THINGS], np.int8)[thing]
    broken_at = np.where(
        rng.random(total) < 0.02,
        rng.integers(max(make.origin, make.horizon - 20 * DAY), make.horizon, total),
        NEVER,
    )
    faults, is_degraded = _faults(make, stations.opened_at[of], broken_at)
    ids = new_ids(rng, stations.opened_at[of])
    found = Facilities(ids, kinds, broken_at, faults, is_degraded)
    rows = []
    for index in range(total):
        broken = int(broken_at[index])
        opened = instant_of(int(stations.opened_at[of[index]]))
        mended = int(faults[1][index])
        said_at = opened if mended == NEVER else instant_of(mended)
        rows.append(
            {
                "id": _uuid(found.ids[index]),
                "station_id": _uuid(stations.ids[of[index]]),
                "kind": FACILITY_KINDS[kinds[index]],
                "name": "",
                "quantity": int(rng.integers(1, 7)),
                "status": (
                    FacilityStatus.WORKING if broken == NEVER else FacilityStatus.OUT_OF_ORDER
                ),
                "status_at": said_at if broken == NEVER else instant_of(broken),
                "created_at": opened,
                "changed_at": said_at if broken == NEVER else instant_of(broken),
            }
        )
    make.add(Facility, rows)
    make.add(FacilitySpell, _spells(rows, found))
    return found


def _faults(make: Builder, opened_at: Ints, broken_at: Ints) -> tuple[Ints, Flags]:
    """Draw from when until when some things did not work, and whether they could be used then.

    By a generator of its own, so that all else stays as it is.
    """
    rng, total = np.random.default_rng([make.plan.seed, 3]), len(opened_at)
    begins = rng.integers(make.origin, make.horizon, total)
    ends = begins + rng.integers(DAY // 12, 5 * DAY, total)
    share = min(0.5, make.plan.days / 400)
    is_there = (rng.random(total) < share) & (begins > opened_at)
    is_there &= ends < np.minimum(broken_at, make.horizon)
    return np.where(is_there, [begins, ends], NEVER), is_there & (rng.random(total) < 0.3)


def _spells(facilities: Sequence[dict[str, Any]], things: Facilities) -> list[dict[str, Any]]:
    """Say how each facility stood: working but for a fault, and broken since it broke for good."""
    spells = []
    for number, row in enumerate(facilities):
        stood = [(row["created_at"], FacilityStatus.WORKING)]
        since, until = (int(line[number]) for line in things.faults)
        if since != NEVER:
            is_degraded = things.is_degraded[number]
            fault = FacilityStatus.DEGRADED if is_degraded else FacilityStatus.OUT_OF_ORDER
            stood += [(instant_of(since), fault), (instant_of(until), FacilityStatus.WORKING)]
        if row["status"] is not FacilityStatus.WORKING:
            stood.append((row["status_at"], row["status"]))
        ends = [*(at for at, _ in stood[1:]), None]
        spells += [
            {
                "facility_id": row["id"],
                "from_at": at,
                "until_at": end,
                "station_id": row["station_id"],
                "kind": row["kind"],
                "quantity": row["quantity"],
                "status": status,
                "said": True,
                "changed_at": end or at,
            }
            for (at, status), end in zip(stood, ends, strict=True)
        ]
    return spells


def _controllers(make: Builder, stations: Stations) -> Outages:
    """Give smart stations their boxes, which are dead for half a day to six days now and then.

    Or only cut off, as often as not: then they open by passes.
    """
    rng = make.rng
    smart = np.flatnonzero(stations.is_smart)
    number = rng.poisson(0.3 + make.plan.days / 120, len(smart))
    of = np.repeat(smart, number)
    begins = rng.integers(make.origin, make.horizon, len(of), dtype=np.int64)
    ends = begins + rng.integers(DAY // 2, 6 * DAY, len(of), dtype=np.int64)
    order = np.lexsort((begins, of))
    of, begins, ends = of[order], begins[order], ends[order]
    # Of two that overlap the first alone is kept.
    apart = np.ones(len(of), np.bool_)
    last = -1
    for index in range(len(of)):
        apart[index] = last < 0 or of[index] != of[last] or begins[index] > ends[last]
        last = index if apart[index] else last
    of, begins, ends = of[apart], begins[apart], ends[apart]
    keys = of * NEVER_IN_PERIOD + begins - make.origin
    outages = Outages(keys, ends, mixed(keys.astype(np.uint64)) % np.uint64(2) == 1)
    dead = outages.cover(smart, np.full(len(smart), make.horizon - 1), make.origin)
    rows = []
    for is_dead, index in zip(dead.tolist(), smart.tolist(), strict=True):
        enrolled = instant_of(int(stations.opened_at[index]))
        last = int(begins[of == index].max()) if is_dead else make.horizon - 1_000_000
        over = min(int(stations.retired_at[index]), make.horizon)
        rows.append(
            {
                "id": _uuid(stations.controllers[index]),
                "station_id": _uuid(stations.ids[index]),
                "serial": f"YZ{index + 1:06d}",
                "firmware": "1.4.2" if rng.random() < 0.8 else "1.3.9",
                "credential_hash": rng.bytes(32),
                "credential_at": enrolled,
                "credential_used": True,
                "enrolled_at": enrolled,
                "seen_at": instant_of(min(last, over)),
                "changed_at": enrolled,
                "retired_at": (
                    None
                    if stations.retired_at[index] == NEVER
                    else instant_of(int(stations.retired_at[index]))
                ),
            }
        )
    make.add(Controller, rows)
    make.add(ControllerOutage, _silences(make, stations, of, begins, ends))
    listened = {"from_at": instant_of(make.origin), "until_at": instant_of(make.horizon)}
    make.add(ListeningSpell, [listened])
    return outages


def _silences(
    make: Builder, stations: Stations, of: Ints, begins: Ints, ends: Ints
) -> list[dict[str, Any]]:
    """Say when controllers were silent and heard again."""
    found: list[dict[str, Any]] = []
    for index, since, until in zip(of.tolist(), begins.tolist(), ends.tolist(), strict=True):
        retired = int(stations.retired_at[index])
        if until >= min(make.horizon, retired) or since < int(stations.opened_at[index]):
            continue  # Never heard again, or not there yet.
        found.append(
            {
                "controller_id": _uuid(stations.controllers[index]),
                "from_at": instant_of(since),
                "until_at": instant_of(until),
                "station_id": _uuid(stations.ids[index]),
                "changed_at": instant_of(until),
            }
        )
    return found


def _keeper(make: Builder) -> uuid.UUID:
    """Add the account that counted heads: closed, and without a password that fits."""
    at = instant_of(make.before)
    keeper = _uuid(new_ids(make.rng, np.array([make.before]))[0])
    row = {
        "id": keeper,
        "username": f"generated-keeper-{keeper.hex[-8:]}",
        "password_hash": "",
        "role": Role.STATION_KEEPER,
        "unit_id": None,
        "station_id": None,
        "created_at": at,
        "changed_at": at,
        "retired_at": at,
    }
    make.add(Admin, [row])
    return keeper


def _workers(make: Builder, stations: Stations) -> tuple[Workers, Sequence[tuple[sa.Table, Rows]]]:
    """Give every station its regulars, those who come by night first."""
    rng, total = make.rng, make.plan.people
    weights = np.sqrt(stations.popularity)
    counts = rng.multinomial(total, weights / weights.sum()).astype(np.int64)
    stations.workers[:], stations.first_worker[:] = counts, _firsts(counts)
    of = np.repeat(np.arange(len(counts)), counts)
    occupations = rng.choice(len(OCCUPATIONS), total, p=OCCUPATION_SHARES).astype(np.int8)
    late = np.isin(occupations, [OCCUPATIONS.index(each) for each in BY_NIGHT])
    occupations = occupations[np.lexsort((~late, of))]
    stations.by_night[:] = np.bincount(of, weights=late, minlength=len(counts))

    created = rng.integers(make.before, make.origin, total, dtype=np.int64)
    consent_from = np.full(total, NEVER)
    early, during = rng.random(total) < 0.72, rng.random(total) < 0.25
    inside = rng.integers(make.origin, make.horizon, total, dtype=np.int64)
    consent_from[during] = inside[during]
    consent_from[early] = created[early]
    withdrawn = (consent_from < NEVER) & (rng.random(total) < 0.04)
    later = consent_from + rng.integers(DAY, 100 * DAY, total, dtype=np.int64)
    consent_until = np.where(withdrawn & (later < make.horizon), later, NEVER)
    blocked_at = np.where(rng.random(total) < 0.001, inside, NEVER)
    ids = new_ids(rng, created)
    # As `workers.free_number` gives them: of few bits, so that sets of many are small.
    spare = np.unique(
        rng.integers(0, max(1 << NUMBER_BITS, 4 * total), 2 * total + 100, dtype=np.int64)
    )
    numbers = rng.permutation(spare)[:total]
    workers = Workers(ids, numbers, occupations, consent_from, consent_until, blocked_at)
    gave = np.flatnonzero(consent_from < NEVER)
    consents = new_ids(rng, consent_from[gave])
    in_force = np.zeros(total, "V16")
    in_force[gave] = consents
    told: Rows = {
        "id": Column(consents),
        "worker_id": Column(ids[gave]),
        "version": Column(np.zeros(len(gave), np.int64), words=(max(CONSENT_VERSIONS),)),
        "channel": Column(np.zeros(len(gave), np.int64), words=("phone_page",)),
        "given_at": Column(consent_from[gave]),
        "withdrawn_at": Column(consent_until[gave], consent_until[gave] == NEVER),
    }
    rows = _worker_rows(workers, created, in_force)
    return workers, ((table_of(Worker), rows), (table_of(Consent), told))


def _worker_rows(workers: Workers, created: Ints, in_force: NDArray[Any]) -> Rows:
    total = len(workers.ids)
    without = (workers.consent_from == NEVER) | (workers.consent_until < NEVER)
    blocked = workers.blocked_at < NEVER
    last = np.maximum(created, np.where(workers.consent_from < NEVER, workers.consent_from, 0))
    last = np.maximum(last, np.where(workers.consent_until < NEVER, workers.consent_until, 0))
    return {
        "id": Column(workers.ids),
        "number": Column(workers.numbers),
        "occupation": Column(workers.occupations, words=values(OCCUPATIONS)),
        "listed": Column(np.zeros(total, np.bool_)),
        "consent_id": Column(in_force, without),
        "blocked_at": Column(workers.blocked_at, ~blocked),
        "blocked_because": Column(np.zeros(total, np.int64), ~blocked, ("重复举报",)),
        "created_at": Column(created),
        "changed_at": Column(np.maximum(last, np.where(blocked, workers.blocked_at, 0))),
    }
