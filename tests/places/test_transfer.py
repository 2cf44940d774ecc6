"""Stations come in and go out as CSV: every bad row is named, and any bad row imports nothing."""

import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.audit import COMMAND_LINE, Action, AuditEntry
from app.db.engine import embedded_url
from app.doors import registry
from app.doors.registry import NewDoor, add_doors
from app.doors.tables import Door
from app.people.rules import Role
from app.places import districts, transfer
from app.places.rules import hours_to_json, parse_hours
from app.places.tables import Facility, Station
from app.places.transfer import COLUMNS, Imported, ImportRefused, read_hours, write_hours
from app.runtime import Runtime
from app.visits.tables import StationPresence
from tests.conftest import make_settings
from tests.support.server import prepared
from tests.support.worlds import a_station, a_unit, an_admin
from tests.test_cli import yizhan

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


TEXTS = [
    *(f"{sign}1+1|cmd" for sign in "=+-@|%＝＋－＠"),
    *("'=1", "''=1", "'quoted", "a'b"),
    *("解放碑\u3000驿站", "a\u00a0b", "\u200b驿站", "—", "-5", "-1e-05"),
    *('a"b,c', "a;b|c\\d\\", "😀", "é" * 200),
]
"""What names may hold that a file could lose."""


async def test_any_name_the_api_takes_goes_out_and_comes_in_unchanged(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        unit = await a_unit(tx, at=at, name="=1|市总工会")
        for number, text in enumerate(TEXTS):
            code = f"N{number:02}"
            station = await a_station(tx, unit=unit, at=at, code=code, name=text, address=text)
            await add_doors(
                tx, station.id, [NewDoor(text), NewDoor("侧门", True, has_contact=True)], at=at
            )
    out = await exports(runtime)
    again = await imports(runtime, out)
    assert (again.created, again.amended, again.unchanged) == (0, 0, len(TEXTS))
    await imports(runtime, out.replace(b"\r\nN", b"\r\nC"))
    async with runtime.database.read() as tx:
        query = sa.select(Station.code, Door.name, Door.has_display, Door.has_contact).join(
            Door, Door.station_id == Station.id
        )
        found = {tuple(row) for row in await tx.execute(query)}
    for number, text in enumerate(TEXTS):
        for letter in "NC":
            assert (f"{letter}{number:02}", text, False, False) in found
            assert (f"{letter}{number:02}", "侧门", True, True) in found


async def test_no_cell_that_goes_out_begins_like_a_formula(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        unit = await a_unit(tx, at=at, name="@市总工会")
        for number, text in enumerate(TEXTS):
            place = {"name": text, "address": text, "latitude": -29.5, "longitude": -1e-05}
            station = await a_station(tx, unit=unit, at=at, code=f"N{number:02}", **place)
            await add_doors(tx, station.id, [NewDoor(text)], at=at)
    rows = list(csv.reader(io.StringIO((await exports(runtime)).decode("utf-8-sig"), newline="")))
    assert len(rows) == 1 + len(TEXTS)
    for cell in (cell for row in rows for cell in row):
        numeric = cell.lstrip("-").replace(".", "").replace("e-", "").isdigit()
        assert numeric or not cell.startswith(tuple("=+-@|%＝＋－＠")), cell


async def test_a_station_keeps_a_district_that_was_abolished_and_no_other_takes_it(
    runtime: Runtime,
) -> None:
    await the_units(runtime)
    async with runtime.database.write() as tx:
        await districts.load(tx, districts.shipped())
        unit = await a_unit(tx, at=runtime.now(), name="江北区总工会")
        await a_station(tx, unit=unit, at=runtime.now(), code="OLD", district="500105")
    assert (await imports(runtime, await exports(runtime))).unchanged == 1
    for row in ({"district": "500105"}, {"code": "YZ-2", "district": "500112"}):
        with pytest.raises(ImportRefused) as refusal:
            await imports(runtime, a_file(row))
        (error,) = refusal.value.extensions["errors"]
        assert error == {
            "loc": ["row", 2],
            "message": f"district: {row['district']} is no district of today",
        }
    old = {"code": "OLD", "unit": "江北区总工会"}
    assert (await imports(runtime, a_file(old | {"district": "500157"}))).amended == 1
    with pytest.raises(ImportRefused):
        await imports(runtime, a_file(old | {"district": "500105"}))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
async def test_every_encoding_says_the_same(runtime: Runtime, encoding: str) -> None:
    await the_units(runtime)
    name = "磁器口驿站（二）𠮷"
    await imports(runtime, a_file({"name": name}, encoding=encoding))
    again = await imports(runtime, a_file({"name": name}))
    assert again.unchanged == 1


@pytest.mark.parametrize(
    "header",
    [
        (*COLUMNS, "note"),
        COLUMNS[:-1],
        (COLUMNS[1], COLUMNS[0], *COLUMNS[2:]),
        (*COLUMNS[:-1], "Doors"),
        (*COLUMNS[:-1], COLUMNS[0]),
    ],
    ids=["one more", "one less", "another order", "another case", "one twice"],
)
async def test_columns_are_exactly_those_that_are_known(
    runtime: Runtime, header: tuple[str, ...]
) -> None:
    await the_units(runtime)
    lines = [",".join(header), ",".join(GOOD.get(name, "") for name in header), ""]
    with pytest.raises(ImportRefused, match="The first line must be: code,name,unit"):
        await imports(runtime, "\r\n".join(lines).encode())
    assert await count(runtime, Station) == 0


async def test_the_row_that_is_named_is_the_row_of_the_file(runtime: Runtime) -> None:
    await the_units(runtime)
    content = a_file({}, {"code": "YZ-2", "capacity": "x"}).replace(b"\r\nYZ-2", b"\r\n\r\nYZ-2")
    with pytest.raises(ImportRefused) as refusal:
        await imports(runtime, content)
    assert [error["loc"] for error in refusal.value.extensions["errors"]] == [["row", 4]]


async def test_every_cell_that_is_wrong_is_named_not_only_the_first(runtime: Runtime) -> None:
    await the_units(runtime)
    bad = {"name": "", "latitude": "x", "capacity": "x", "staffed_hours": "x", "doors": "a|b"}
    with pytest.raises(ImportRefused) as refusal:
        await imports(runtime, a_file(bad))
    errors = refusal.value.extensions["errors"]
    assert [error["message"].split(":")[0] for error in errors] == list(bad)


async def everything(runtime: Runtime) -> list[list[Any]]:
    """What stands in every table an import writes to."""
    async with runtime.database.read() as tx:
        return [
            sorted(map(str, await tx.execute(sa.select(*kind.__table__.columns))))
            for kind in (Station, Facility, Door, StationPresence, AuditEntry)
        ]


async def test_a_dry_run_says_what_the_import_will_do_and_changes_nothing(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({}, {"code": "YZ-002"}))
    before = await everything(runtime)
    content = a_file({}, {"code": "YZ-002", "name": "新名"}, {"code": "YZ-003"})
    dry = await imports(runtime, content, dry_run=True)
    with pytest.raises(ImportRefused):
        await imports(runtime, a_file({"capacity": "9"}, {"capacity": "x"}), dry_run=True)
    assert await everything(runtime) == before
    done = await imports(runtime, content)
    assert dry.rows == done.rows
    assert [row.status for row in dry.rows] == ["unchanged", "amended", "created"]
    assert await everything(runtime) != before


async def test_a_retired_station_does_not_come_back_by_a_file(runtime: Runtime) -> None:
    await the_units(runtime)
    await imports(runtime, a_file({}))
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Station).values(retired_at=runtime.now()))
    assert (await exports(runtime)).count(b"\r\n") == 1
    with pytest.raises(ImportRefused, match="row 2: YZ-001 is retired"):
        await imports(runtime, a_file({}))


async def test_over_http_files_stay_within_the_scope_and_leave_a_trail(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        city = await a_unit(tx, at=at)
        own = await a_unit(tx, at=at, parent=city, name="渝中区总工会")
        other = await a_unit(tx, at=at, parent=city, name="江津区总工会")
        await a_station(tx, unit=other, at=at, code="FAR")
        chief = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=own)
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, unit=own)

    async def sends(content: bytes, dry_run: bool = False) -> httpx.Response:
        return await client.post(
            "/v1/admin/stations/import",
            params={"dry_run": dry_run},
            content=content,
            headers=chief.headers | {"Content-Type": "text/csv"},
        )

    for row, said in (
        ({"unit": "市总工会/江津区总工会"}, "is no unit of yours"),
        ({"unit": "市总工会"}, "is no unit of yours"),
        ({"code": "FAR"}, "outside your scope"),
    ):
        refused = await sends(a_file({}, {"code": "YZ-2"} | row))
        assert (refused.status_code, refused.json()["code"]) == (422, "import_refused")
        (error,) = refused.json()["errors"]
        assert error["loc"] == ["row", 3]
        assert said in error["message"]
    assert (await sends(a_file({}), dry_run=True)).json()["dry_run"] is True
    assert await count(runtime, Station) == 1
    done = await sends(a_file({}))
    assert done.status_code == 200, done.text
    assert done.json() == {
        "dry_run": False,
        "created": 1,
        "amended": 0,
        "unchanged": 0,
        "rows": [{"row": 2, "code": "YZ-001", "status": "created", "errors": []}],
    }
    out = await client.get("/v1/admin/stations/export", headers=chief.headers)
    assert out.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(out.content.decode("utf-8-sig"), newline="")))
    assert [line["code"] for line in lines] == ["YZ-001"]
    assert (await sends(out.content)).json()["unchanged"] == 1
    denied = await client.post(
        "/v1/admin/stations/import", content=a_file({}), headers=keeper.headers
    )
    assert denied.status_code == 403
    async with runtime.database.read() as tx:
        trail = list(await tx.scalars(sa.select(AuditEntry).order_by(AuditEntry.id)))
    assert [(entry.action, entry.admin_id) for entry in trail] == [
        (action, chief.id)
        for action in (
            Action.STATIONS_IMPORTED,
            Action.STATIONS_EXPORTED,
            Action.STATIONS_IMPORTED,
        )
    ]
    assert trail[0].after == {"created": 1, "amended": 0, "unchanged": 0}


def test_the_command_line_brings_files_in_and_out(tmp_path: Path) -> None:
    data_dir, file = tmp_path / "var", tmp_path / "stations.csv"
    settings = make_settings(tmp_path, embedded_url(data_dir / "yizhan.db"))
    prepared(settings, the_units)

    def says(*words: str, code: int = 0) -> str:
        told = yizhan(data_dir, *words)
        assert told.returncode == code, told.stderr
        return told.stdout + told.stderr

    file.write_bytes(a_file({}, {"code": "YZ-002"}, encoding="gb18030"))
    for done in ("would be created", "created"):
        dry = ["--dry-run"] if "would" in done else []
        told = says("import", "stations", str(file), *dry)
        assert told.startswith(f"2 rows: 2 {done}, 0 "), told
    says("export", "stations", str(file))
    assert "0 created, 0 amended, 2 unchanged" in says("import", "stations", str(file))
    file.write_bytes(a_file({"capacity": "33"}, {"code": "YZ-002", "capacity": "x"}))
    refused = says("import", "stations", str(file), code=1)
    assert "  row.3: capacity: 'x' is no whole number" in refused
    says("export", "stations", str(file))
    assert b",20,union_built," in file.read_bytes()


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
