"""Stations come in and go out as CSV: every bad row is named, and any bad row imports nothing."""

import csv
import io
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.audit import COMMAND_LINE
from app.doors import registry
from app.doors.tables import Door
from app.places import transfer
from app.places.rules import hours_to_json, parse_hours
from app.places.tables import Facility, Station
from app.places.transfer import COLUMNS, Imported, ImportRefused, read_hours, write_hours
from app.runtime import Runtime
from app.visits.tables import StationPresence
from tests.support.worlds import a_unit

pytestmark = pytest.mark.anyio

GOOD = {
    "code": "YZ-001",
    "name": "解放碑驿站",
    "unit": "市总工会/渝中区总工会",
    "district": "",
    "address": "渝中区民族路 1 号",
    "latitude": "29.5583",
    "longitude": "106.5772",
    "capacity": "20",
    "operating_model": "union_built",
    "timezone": "",
    "staffed_hours": "1-5 08:30-12:00 14:00-18:30; PH closed",
    "access_hours": "1-7 00:00-24:00",
    "max_stay_min": "60",
    "confirm_tap": "no",
    "facilities": "microwave:2;water",
    "doors": "正门;侧门|contact",
}


def a_file(*rows: dict[str, str], encoding: str = "utf-8") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows([GOOD | row for row in rows])
    return text.getvalue().encode(encoding)


async def the_units(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=runtime.now())
        await a_unit(tx, at=runtime.now(), parent=city, name="渝中区总工会")


async def imports(runtime: Runtime, content: bytes, *, dry_run: bool = False) -> Imported:
    async with runtime.database.write() as tx:
        done = await transfer.import_stations(
            tx,
            runtime.wakeups,
            content,
            within=None,
            dry_run=dry_run,
            actor=COMMAND_LINE,
            at=runtime.now(),
        )
        await registry.furnish(tx, done.new, at=runtime.now())
    return done


async def exports(runtime: Runtime) -> bytes:
    async with runtime.database.read() as tx:
        return await transfer.export_stations(tx, await registry.describe_doors(tx))


async def count(runtime: Runtime, kind: Any) -> int:
    async with runtime.database.read() as tx:
        return await tx.scalar(sa.select(sa.func.count()).select_from(kind)) or 0


async def test_a_row_becomes_a_station_with_its_facilities_and_doors(runtime: Runtime) -> None:
    await the_units(runtime)
    done = await imports(runtime, a_file({}))
    assert done.summary() == "1 rows: 1 created, 0 amended, 0 unchanged"
    async with runtime.database.read() as tx:
        station = (await tx.scalars(sa.select(Station))).one()
        doors = (await tx.scalars(sa.select(Door).order_by(Door.id))).all()
        things = (await tx.scalars(sa.select(Facility).order_by(Facility.id))).all()
    assert (station.name, station.timezone, station.capacity) == ("解放碑驿站", "Asia/Shanghai", 20)
    assert [(door.name, door.has_contact) for door in doors] == [("正门", False), ("侧门", True)]
    assert [(thing.kind.value, thing.quantity) for thing in things] == [
        ("microwave", 2),
        ("water", 1),
    ]
    assert await count(runtime, StationPresence) == 1


async def test_what_goes_out_comes_in_again_unchanged(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({}, {"code": "YZ-002", "name": "=HYPERLINK(1)", "doors": ""}))
    out = await exports(runtime)
    assert out.startswith(b"\xef\xbb\xbf")
    assert "'=HYPERLINK" in out.decode("utf-8-sig")  # A spreadsheet does not run it.
    again = await imports(runtime, out)
    assert (again.created, again.amended, again.unchanged) == (0, 0, 2)
    assert await exports(runtime) == out


async def test_an_export_fills_an_empty_city(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({}))
    out = await exports(runtime)
    renamed = out.replace(b"YZ-001", b"YZ-777")
    await imports(runtime, renamed)
    assert await count(runtime, Door) == 4
    assert await count(runtime, Facility) == 4


async def test_a_changed_row_amends_and_keeps_the_id(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({}))
    async with runtime.database.read() as tx:
        before = (await tx.scalars(sa.select(Station))).one()
    done = await imports(runtime, a_file({"capacity": "33"}))
    assert done.amended == 1
    async with runtime.database.read() as tx:
        after = (await tx.scalars(sa.select(Station))).one()
    assert (after.id, after.capacity) == (before.id, 33)
    assert after.config_version == before.config_version + 1
    assert await count(runtime, Door) == 2


async def test_a_dry_run_tells_all_and_writes_nothing(runtime: Runtime) -> None:
    await the_units(runtime)
    done = await imports(runtime, a_file({}), dry_run=True)
    assert done.summary() == "1 rows: 1 would be created, 0 would be amended, 0 unchanged"
    assert await count(runtime, Station) == 0


async def test_gb18030_is_read_as_a_spreadsheet_in_china_writes_it(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({"name": "磁器口驿站"}, encoding="gb18030"))
    async with runtime.database.read() as tx:
        assert (await tx.scalars(sa.select(Station.name))).one() == "磁器口驿站"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "no spaces"}, "code"),
        ({"name": ""}, "name"),
        ({"unit": "市总工会/无"}, "unit"),
        ({"district": "500199"}, "district"),
        ({"latitude": "91"}, "latitude"),
        ({"latitude": "nan"}, "latitude"),
        ({"longitude": "east"}, "longitude"),
        ({"capacity": "-1"}, "capacity"),
        ({"capacity": "1.5"}, "capacity"),
        ({"operating_model": "shop"}, "operating_model"),
        ({"timezone": "Asia/Nowhere"}, "timezone"),
        ({"staffed_hours": "1-5 25:00-26:00"}, "staffed_hours"),
        ({"staffed_hours": "8 08:00-18:00"}, "staffed_hours"),
        ({"access_hours": "1 08:00-12:00 11:00-13:00"}, "access_hours"),
        ({"max_stay_min": "0"}, "max_stay_min"),
        ({"confirm_tap": "maybe"}, "confirm_tap"),
        ({"facilities": "sauna"}, "facilities"),
        ({"doors": "正门|bell"}, "doors"),
    ],
)
async def test_a_bad_cell_is_named_with_its_row_and_nothing_comes_in(
    runtime: Runtime, changes: dict[str, str], said: str
) -> None:
    await the_units(runtime)
    with pytest.raises(ImportRefused) as refusal:
        await imports(runtime, a_file({"code": "YZ-000"}, changes))
    (error,) = refusal.value.extensions["errors"]
    assert error["loc"] == ["row", 3]
    assert error["message"].startswith(said)
    assert await count(runtime, Station) == 0


async def test_every_bad_row_is_named(runtime: Runtime) -> None:
    await the_units(runtime)
    rows = [{"code": f"YZ-{n:03}", "capacity": "x" if n % 2 else "1"} for n in range(10)]
    with pytest.raises(ImportRefused) as refusal:
        await imports(runtime, a_file(*rows, {"code": "YZ-000"}))
    found = [error["loc"][1] for error in refusal.value.extensions["errors"]]
    assert found == [3, 5, 7, 9, 11, 12]  # The last one repeats a code.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"code,name\n1,2\n",
        ",".join(COLUMNS).encode(),
        a_file({})[:-5] + b'"',
        b"\xff\xfe\x00\x00",
        a_file({}) + b"YZ-9,too,short\n",
    ],
)
async def test_what_is_no_such_file_is_refused(runtime: Runtime, content: bytes) -> None:
    await the_units(runtime)
    with pytest.raises(ImportRefused):
        await imports(runtime, content)
    assert await count(runtime, Station) == 0


async def test_a_whole_city_comes_in_at_once(runtime: Runtime) -> None:
    await the_units(runtime)
    rows = [
        {"code": f"CQ-{n:05}", "latitude": f"{29 + n / 10_000:.4f}", "doors": "正门"}
        for n in range(5_523)
    ]
    done = await imports(runtime, a_file(*rows))
    assert done.created == 5_523
    assert await count(runtime, Door) == 5_523
    again = await imports(runtime, await exports(runtime))
    assert again.unchanged == 5_523


minutes = st.integers(0, 1439)
windows = st.lists(minutes, min_size=2, max_size=2, unique=True).map(sorted)
days = st.lists(windows, max_size=1)


@given(
    regular=st.lists(days, min_size=7, max_size=7),
    holiday=st.none() | days,
    makeup=st.none() | days,
)
def test_hours_in_short_form_mean_the_same(
    regular: list[list[list[int]]],
    holiday: list[list[int]] | None,
    makeup: list[list[int]] | None,
) -> None:
    def window(pair: list[int]) -> dict[str, str]:
        opens, closes = (f"{minute // 60:02}:{minute % 60:02}" for minute in pair)
        return {"opens": opens, "closes": closes}

    hours = hours_to_json(
        parse_hours(
            {
                "regular": [
                    {"weekday": number, **window(pair)}
                    for number, pairs in enumerate(regular, 1)
                    for pair in pairs
                ],
                "public_holiday": None if holiday is None else [window(pair) for pair in holiday],
                "makeup_workday": None if makeup is None else [window(pair) for pair in makeup],
            }
        )
    )
    back = read_hours(write_hours(hours))
    assert back is not None
    assert hours_to_json(parse_hours(back)) == hours
