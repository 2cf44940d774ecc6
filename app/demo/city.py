"""The sample city: a union tree, Chongqing's districts, and a dozen stations of all four models.

The stations are made up; districts and calendar are real. Coordinates are near the places named.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.doors import registry
from app.doors.registry import NewDoor
from app.doors.tables import Door
from app.places import calendar, districts, facilities, stations, units
from app.places.facilities import NewFacility
from app.places.rules import CITY_ZONE
from app.places.stations import Description
from app.places.tables import FacilityKind, OperatingModel, Station, Unit, UnitKind
from app.places.transfer import read_hours
from app.places.units import NewUnit
from app.runtime import Runtime
from app.visits import presence

CITY = "重庆市总工会"

ALWAYS = "1-7 00:00-24:00"
NIGHTS = "1-7 18:00-08:00"
OFFICE = "1-5 08:30-12:00 14:00-18:30; PH closed"
DAYS = "1-7 08:00-18:00"

OPEN_DOOR = "CQ-LJ-0001"
"""Without staffed hours and with access all day: its story works at any hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One station of the sample city."""

    code: str
    name: str
    union: str
    district: str
    address: str
    latitude: float
    longitude: float
    capacity: int
    model: OperatingModel
    staffed: str
    access: str
    things: str
    doors: str = "正门"
    max_stay_min: int = 60
    confirm_tap: bool = False
    has_contact: bool = False
    has_display: bool = False


_U, _C = OperatingModel.UNION_BUILT, OperatingModel.COMMERCE_SUPPORTED
_E, _I = OperatingModel.ENTERPRISE_PARTNERED, OperatingModel.IDLE_PREMISES

SAMPLES = (
    Sample(
        OPEN_DOOR, "观音桥步行街骑手驿站", "两江新区总工会", "500157", "观音桥步行街 6 号旁",
        29.5757, 106.5325, 16, _U, "", ALWAYS, "water:2;microwave:2;charger:6;rest:16;toilet:1",
    ),
    Sample(
        "CQ-YZ-0001", "解放碑劳动者驿站", "渝中区总工会", "500103", "民族路 101 号",
        29.5583, 106.5772, 24, _C, DAYS, NIGHTS,
        "water:2;microwave:3;charger:8;meals:1;first_aid:1;books:1;toilet:1", "正门;侧门",
    ),
    Sample(
        "CQ-YZ-0002", "较场口环卫之家", "渝中区总工会", "500103", "较场口得意广场负一层",
        29.5531, 106.5736, 12, _I, "1-7 05:30-11:00 13:30-20:00", "1-7 04:00-24:00",
        "water:1;microwave:1;laundry:1;rest:10;toilet:1",
    ),
    Sample(
        "CQ-YZ-0003", "大坪龙湖骑手之家", "渝中区总工会", "500103", "长江二路 174 号",
        29.5395, 106.5165, 20, _E, "1-7 10:00-22:00", ALWAYS,
        "water:1;charger:10;battery_swap:1;coffee:1;rest:12",
    ),
    Sample(
        "CQ-NA-0001", "南坪万达司机驿站", "南岸区总工会", "500108", "江南大道 8 号",
        29.5262, 106.5627, 18, _C, "1-7 07:30-19:30", "1-7 19:30-07:30; PH 00:00-24:00",
        "water:2;microwave:2;charger:4;air_conditioner:2;legal_aid:1", has_contact=True,
    ),
    Sample(
        "CQ-NA-0002", "弹子石老街暖心驿站", "南岸区总工会", "500108", "泰昌路 68 号",
        29.5812, 106.5889, 10, _I, DAYS, "1-7 18:00-24:00", "water:1;first_aid:1;aed:1;rest:8",
    ),
    Sample(
        "CQ-SPB-0001", "三峡广场快递员驿站", "沙坪坝区总工会", "500106", "渝碚路 40 号",
        29.5592, 106.4586, 22, _U, "1-5 08:00-18:00; 6-7 09:00-17:00; MW 08:00-18:00", ALWAYS,
        "water:2;microwave:2;charger:6;locker:20;books:1;toilet:1",
    ),
    Sample(
        "CQ-SPB-0002", "大学城熙街驿站", "沙坪坝区总工会", "500106", "大学城中路 20 号",
        29.6064, 106.3025, 14, _E, "1-7 09:00-21:00", NIGHTS, "water:1;coffee:1;charger:4;rest:10",
    ),
    Sample(
        "CQ-JLP-0001", "杨家坪步行街驿站", "九龙坡区总工会", "500107", "西郊路 2 号",
        29.5044, 106.5113, 15, _C, DAYS, NIGHTS, "water:1;microwave:2;meals:1;haircut:1;toilet:1",
        confirm_tap=True,
    ),
    Sample(
        "CQ-BB-0001", "北碚天生街驿站", "北碚区总工会", "500109", "天生路 99 号",
        29.8256, 106.4303, 12, _I, OFFICE, "", "water:1;legal_aid:1;nursing_room:1;rest:6",
    ),
    Sample(
        "CQ-BN-0001", "鱼洞货车司机之家", "巴南区总工会", "500113", "滨洲路 33 号",
        29.3836, 106.5197, 30, _U, "1-7 08:00-20:00", ALWAYS,
        "water:2;microwave:2;laundry:2;toilet:2;rest:24;meals:1", max_stay_min=240,
        has_contact=True, has_display=True,
    ),
    Sample(
        "CQ-LJ-0002", "两路城南户外劳动者驿站", "两江新区总工会", "500157", "双龙大道 150 号",
        29.7186, 106.6325, 16, _E, DAYS, "1-7 18:00-02:00", "water:1;charger:6;microwave:1;rest:10",
    ),
)  # fmt: skip
"""Made-up stations with believable names, hours and things to use."""


async def fill(held: Runtime, *, count: int) -> None:
    """Fill an empty database with the sample city; leave a filled one as it is."""
    at = held.now()
    async with held.database.write() as tx:
        if await tx.scalar(sa.select(Unit.id).limit(1)) is not None:
            return
        await districts.load(tx, districts.shipped())
        holidays = resources.files("app.data").joinpath("calendar_cn.csv").read_bytes()
        await calendar.import_days(tx, held.wakeups, holidays, actor=COMMAND_LINE, at=at)
        unions = await _unions(tx, at=at)
        for sample in SAMPLES[:count]:
            await _add(tx, sample, unions[sample.union], at=at)
    async with held.database.read() as tx:
        await held.calendar.load(tx)


async def _unions(tx: AsyncSession, *, at: datetime) -> dict[str, uuid.UUID]:
    """Add the city union and one union for each current district."""
    root = await units.add(tx, NewUnit(CITY, UnitKind.CITY, None), actor=COMMAND_LINE, at=at)
    found = {CITY: root.id}
    for district in await districts.list_districts(tx):
        if districts.is_current(district, at.date()):
            new = NewUnit(f"{district.name}总工会", UnitKind.DISTRICT, root.id)
            unit = await units.add(tx, new, actor=COMMAND_LINE, at=at)
            found[unit.name] = unit.id
    return found


async def _add(tx: AsyncSession, sample: Sample, unit_id: uuid.UUID, *, at: datetime) -> None:
    description = Description(
        code=sample.code,
        name=sample.name,
        unit_id=unit_id,
        district=sample.district,
        address=sample.address,
        latitude=sample.latitude,
        longitude=sample.longitude,
        capacity=sample.capacity,
        operating_model=sample.model,
        timezone=CITY_ZONE,
        staffed_hours=read_hours(sample.staffed),
        access_hours=read_hours(sample.access),
        max_stay_min=sample.max_stay_min,
        confirm_tap=sample.confirm_tap,
    )
    station = await stations.create(tx, description, actor=COMMAND_LINE, at=at)
    await presence.prepare(tx, [station.id])
    names = sample.doors.split(";")
    doors = [NewDoor(name, sample.has_display, sample.has_contact) for name in names]
    await registry.add_doors(tx, station.id, doors, at=at)
    things = [_thing(item) for item in sample.things.split(";")]
    await facilities.add(tx, station, things, actor=COMMAND_LINE, at=at)


def _thing(item: str) -> NewFacility:
    kind, _, count = item.partition(":")
    return NewFacility(FacilityKind(kind), "", int(count))


async def doors_with_access(tx: AsyncSession) -> Sequence[tuple[Station, Door]]:
    """Give the doors that scans can open, the one for any hour first."""
    rows: Sequence[Any] = (
        await tx.execute(
            sa.select(Station, Door)
            .join(Door, Door.station_id == Station.id)
            .where(Station.retired_at.is_(None), Door.retired_at.is_(None))
            .order_by(Station.code != OPEN_DOOR, Station.code, Door.id)
        )
    ).all()
    return [(row.Station, row.Door) for row in rows if row.Station.access_hours is not None]
