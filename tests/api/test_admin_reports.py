"""Reports over HTTP: what is echoed, scoped, refused, audited and written as CSV."""

import csv
import io
import json
import os
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import openpyxl
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.admin.reports import TOLD_BESIDE
from app.audit import COMMAND_LINE, Action, AuditEntry
from app.db.types import new_id
from app.doors.rules import Outcome, Reason
from app.doors.tables import Controller, ControllerOutage, Scan
from app.people.admins import SignedInAdmin, visible_roots, visible_stations
from app.people.rules import Role
from app.people.tables import Occupation
from app.places import facilities, held, units
from app.places.facilities import NewFacility
from app.places.rules import CITY_ZONE, Kind
from app.places.tables import FacilityKind, Station, StationModes, Unit
from app.reports import queries
from app.reports.comparing import FIGURES
from app.reports.rules import Grain
from app.reports.tables import RollupDue
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.tables import EndSource, FacilityUse, Visit, WalkInCount
from tests.conftest import NIGHT, Clock
from tests.support.counting import rolled
from tests.support.worlds import (
    SomeAdmin,
    a_controller,
    a_station,
    a_unit,
    a_worker,
    always,
    an_admin,
)

pytestmark = pytest.mark.anyio

REPORTS = ("visits", "access", "occupancy", "facilities", "promise", "ranking", "controllers")
"""Those that speak of any day."""
TODAY = {"from": "2026-11-23", "to": "2026-11-24"}


class City:
    """Two districts with a station each, and a visit of three in the first."""

    near: Unit
    far: Unit
    stations: list[Station]
    auditor: SomeAdmin


async def came(tx: AsyncSession, runtime: Runtime, station: Station, at: datetime) -> None:
    """Let three come in, one of whom we know."""
    worker = await a_worker(tx, runtime, at=at)
    arrival = Arrival(
        station_id=station.id,
        timezone=station.timezone,
        owner_key=worker.owner_key,
        worker_id=worker.id,
        occupation=Occupation.RIDER,
        mode=Kind.SCAN,
        party_size=3,
        max_stay=timedelta(minutes=60),
    )
    await presence.open_visit(tx, arrival, started_at=at)


@pytest.fixture
async def city(runtime: Runtime, clock: Clock) -> City:
    made = City()
    early = NIGHT - timedelta(days=400)
    async with runtime.database.write() as tx:
        root = await a_unit(tx, at=early)
        made.near = await a_unit(tx, parent=root, at=early, name="渝中区总工会")
        made.far = await a_unit(tx, parent=root, at=early, name="江津区总工会")
        made.stations = [
            await a_station(tx, unit=unit, at=early, code=code, name=name)
            for unit, code, name in (
                (made.near, "CQ0001", "=解放碑驿站"),
                (made.far, "CQ0002", "几江驿站"),
            )
        ]
        made.auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        station = made.stations[0]
        await came(tx, runtime, station, NIGHT - timedelta(minutes=30))
    await rolled(runtime)
    return made


async def asks(
    client: httpx.AsyncClient, who: SomeAdmin, report: str = "visits", **query: Any
) -> httpx.Response:
    return await client.get(
        f"/v1/admin/reports/{report}", params=TODAY | query, headers=who.headers
    )


async def audited(runtime: Runtime) -> list[AuditEntry]:
    async with runtime.database.read() as tx:
        query = sa.select(AuditEntry).where(AuditEntry.action == Action.REPORT_EXPORTED)
        return list(await tx.scalars(query))


async def test_a_report_echoes_what_was_asked_and_says_how_complete_it_is(
    client: httpx.AsyncClient, city: City, clock: Clock
) -> None:
    answer = await asks(client, city.auditor, to="2026-11-25", bucket="day")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {name: body[name] for name in ("report", "from", "to", "by", "bucket")} == {
        "report": "visits",
        "from": "2026-11-23",
        "to": "2026-11-25",
        "by": "station",
        "bucket": "day",
    }
    assert body["completeness"] == {
        "days_asked": 2,
        "days_over": 0,
        "days_counted": 0,
        "days_begun": 1,
        "days_to_come": 1,
        "share": 0.0,
    }
    first, to_come, second, _ = body["rows"]
    assert (first["station"], first["day"], first["visits"]) == ("CQ0001", "2026-11-23", 1)
    assert (first["persons"], first["unique_workers"], first["out_of_hours_visits"]) == (3, 1, 1)
    # 23:40 of 24:00 has passed; nothing at all of tomorrow has; nobody came to the second.
    assert first["known_share"] == round(23 / 24 + 40 / 60 / 24, 4)
    assert (to_come["known_share"], to_come["visits"]) == (0.0, None)
    assert (second["station"], second["visits"], second["offhours_share"]) == ("CQ0002", 0, None)


async def test_a_report_of_a_part_says_of_which_wherever_it_goes(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    for name, id in (("unit", city.near.id), ("station", city.stations[0].id)):
        asked = {name: str(id), "to": "2026-11-25"}
        assert (await asks(client, city.auditor, **asked)).json()[name] == str(id)
        book = await asks(client, city.auditor, **asked, format="xlsx")
        about = openpyxl.load_workbook(io.BytesIO(book.content))["说明"]
        assert str(id) in [row[1].value for row in about.iter_rows()]
        assert ((await audited(runtime))[-1].after or {})[name] == str(id)


@pytest.mark.parametrize("report", REPORTS)
async def test_every_report_answers_as_json_and_as_csv(
    client: httpx.AsyncClient, runtime: Runtime, city: City, report: str
) -> None:
    as_json = await asks(client, city.auditor, report)
    assert as_json.status_code == 200, as_json.text
    assert await audited(runtime) == []
    as_csv = await asks(client, city.auditor, report, format="csv")
    assert as_csv.status_code == 200, as_csv.text
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert (
        f'filename="{report}-2026-11-23-2026-11-24.csv"' in (as_csv.headers["content-disposition"])
    )
    assert as_csv.content.startswith(b"\xef\xbb\xbf")
    lines = list(csv.reader(io.StringIO(as_csv.text.removeprefix("\ufeff"), newline="")))
    assert len(lines) == 1 + len(as_json.json()["rows"])
    assert len({len(line) for line in lines}) == 1
    assert not any(cell.startswith("=") for line in lines for cell in line)
    as_xlsx = await asks(client, city.auditor, report, format="xlsx")
    assert as_xlsx.status_code == 200
    book = openpyxl.load_workbook(io.BytesIO(as_xlsx.content))
    assert [sheet.title for sheet in book] == ["报表", "说明"]
    assert book["报表"].max_row == len(lines)
    assert [cell.value for cell in book["报表"][1]] == lines[0]
    entries = await audited(runtime)
    assert len(entries) == 2
    for entry in entries:
        assert (entry.admin_id, entry.subject) == (city.auditor.id, f"report:{report}")
        figure = {"figure": "visits"} if report == "ranking" else {}
        asked = {"by": "station", "bucket": None, "unit": None, "station": None}
        assert entry.after == {"report": report} | asked | TODAY | figure


async def test_a_workbook_shows_what_is_ranked_in_its_own_unit(
    client: httpx.AsyncClient, city: City
) -> None:
    for figure, shown in (("offhours_share", "0.00%"), ("visits", "#,##0")):
        answer = await asks(client, city.auditor, "ranking", figure=figure, format="xlsx")
        sheet = openpyxl.load_workbook(io.BytesIO(answer.content))["报表"]
        at = [cell.value for cell in sheet[1]].index("数值 (value)")
        cells = [row[at] for row in sheet.iter_rows(min_row=2) if row[at].value is not None]
        assert cells
        assert {(cell.value, cell.number_format) for cell in cells if cell.value} == {(1, shown)}


async def test_a_workbook_leaves_no_file_behind(
    client: httpx.AsyncClient, city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(os.listdir(tmp_path))
    assert (await asks(client, city.auditor, format="xlsx")).status_code == 200
    assert sorted(os.listdir(tmp_path)) == before


async def test_a_workbook_that_is_too_long_is_refused_and_not_in_the_trail(
    client: httpx.AsyncClient, runtime: Runtime, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.reports.workbook.MOST_ROWS", 1)
    answer = await asks(client, city.auditor, format="xlsx")
    assert (answer.status_code, answer.json()["code"]) == (422, "period_invalid")
    assert await audited(runtime) == []


async def test_nobody_reads_of_stations_beyond_his_scope(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        far = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=city.far)
        keeper = await an_admin(tx, at=NIGHT, role=Role.STATION_KEEPER, station=city.stations[0])

    async def codes(who: SomeAdmin, **query: Any) -> list[str]:
        answer = await asks(client, who, **query)
        assert answer.status_code == 200, answer.text
        return [row["station"] for row in answer.json()["rows"]]

    near_id, far_id = (str(station.id) for station in city.stations)
    assert await codes(city.auditor) == ["CQ0001", "CQ0002"]
    assert await codes(far) == ["CQ0002"]
    assert await codes(keeper) == ["CQ0001"]
    assert await codes(city.auditor, unit=str(city.near.id)) == ["CQ0001"]
    assert await codes(city.auditor, station=far_id) == ["CQ0002"]
    assert await codes(city.auditor, station=far_id, unit=str(city.near.id)) == []
    for report in REPORTS:
        assert (await asks(client, far, report, station=near_id)).status_code == 404
        assert (await asks(client, far, report, unit=str(city.near.id))).status_code == 404
        assert (await asks(client, keeper, report, station=far_id)).status_code == 404
        rows = (await asks(client, far, report)).json()["rows"]
        assert "CQ0001" not in {row["station"] for row in rows}
    (row,) = (await asks(client, far, by="day")).json()["rows"]
    assert row["visits"] == 0
    (row,) = (await asks(client, city.auditor, by="day")).json()["rows"]
    assert row["visits"] == 1
    assert (await client.get("/v1/admin/reports/visits", params=TODAY)).status_code == 401


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"to": "2026-11-23"}, "period_invalid"),
        ({"to": "2026-11-22"}, "period_invalid"),
        ({"to": "2027-11-25"}, "period_invalid"),
        ({"from": "1999-12-31"}, "request_invalid"),
        ({"from": "2026-02-30"}, "request_invalid"),
        ({"from": "yesterday"}, "request_invalid"),
        ({"by": "moon"}, "request_invalid"),
        ({"bucket": "year"}, "request_invalid"),
        ({"by": "hour", "bucket": "hour"}, "period_invalid"),
        ({"by": "weekday", "bucket": "week"}, "period_invalid"),
        ({"format": "pdf"}, "request_invalid"),
        ({"station": "CQ0001"}, "request_invalid"),
    ],
)
async def test_a_bad_question_gets_a_clear_answer(
    client: httpx.AsyncClient, runtime: Runtime, city: City, query: dict[str, str], code: str
) -> None:
    answer = await asks(client, city.auditor, **({"format": "csv"} | query))
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == code
    assert await audited(runtime) == []


@pytest.mark.parametrize("query", [{"by": "unit"}, {"by": "day"}, {"bucket": "day"}])
async def test_the_report_of_controllers_is_not_cut(
    client: httpx.AsyncClient, city: City, query: dict[str, str]
) -> None:
    answer = await asks(client, city.auditor, "controllers", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    (error,) = answer.json()["errors"]
    assert error["loc"] == ["query", *query]


async def test_the_day_in_which_retention_falls_is_beyond_it(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    days = runtime.settings.retention_days
    edge = NIGHT.date() - timedelta(days=days)
    async with runtime.database.write() as tx:
        for at in (NIGHT - timedelta(days=days), NIGHT - timedelta(days=days - 1)):
            await came(tx, runtime, city.stations[1], at)
    await rolled(runtime)
    for day, beyond in ((edge, True), (edge + timedelta(days=1), False)):
        answer = await asks(client, city.auditor, **{"from": day.isoformat()})
        _, row = answer.json()["rows"]
        assert row["visits"] > 0
        assert row["beyond_retention"] is beyond
        assert (row["unique_workers"] is None) is beyond
        assert (row["anonymous_visits"] is None) is beyond
        assert row["unmet_demand"] == 0


async def test_a_report_says_how_far_the_counting_has_come(
    client: httpx.AsyncClient, runtime: Runtime, city: City, clock: Clock
) -> None:
    body = (await asks(client, city.auditor)).json()
    assert body["recounting"] is False
    assert datetime.fromisoformat(body["rolled_up_to"]) <= NIGHT
    # What nobody looked at since is not known, and not zero.
    clock.advance(timedelta(days=2).total_seconds())
    async with runtime.database.write() as tx:
        auditor = await an_admin(tx, at=clock.now(), role=Role.AUDITOR)
    tomorrow = {"from": "2026-11-24", "to": "2026-11-25", "by": "all"}
    (row,) = (await asks(client, auditor, **tomorrow)).json()["rows"]
    assert (row["known_share"], row["visits"]) == (0.0, None)
    await rolled(runtime)
    (row,) = (await asks(client, auditor, **tomorrow)).json()["rows"]
    assert (row["known_share"], row["visits"]) == (1.0, 0)


def told_beside(answer: httpx.Response) -> dict[str, Any]:
    """Read what the headers of a file say of it."""
    return {
        name.removeprefix("report-").replace("-", "_"): json.loads(text)
        for name, text in answer.headers.items()
        if name.startswith("report-")
    }


async def test_a_report_says_when_nobody_knows_which_of_its_days_are_holidays(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=NIGHT, role=Role.CITY_ADMIN)
    year = "date,day_class,name,state_council_notice\n2025-01-01,public_holiday,元旦,x\n"
    headers = chief.headers | {"Content-Type": "text/csv"}
    imported = await client.post("/v1/admin/calendar", content=year, headers=headers)
    assert imported.status_code == 200
    january = {"from": "2025-01-01", "to": "2025-02-01", "by": "all"}
    unknown = {"from": "2027-01-01", "to": "2027-01-02"}
    asked: list[tuple[dict[str, str], bool | None]] = [
        (january | {"bucket": "day_class"}, True),
        (january | {"compare": "before"}, False),
        (unknown | {"by": "day_class"}, False),
        # Nothing in these depends on which days are holidays, so nobody is warned.
        (january, None),
        (unknown | {"by": "day"}, None),
        (unknown | {"by": "all", "bucket": "hour_of_day"}, None),
    ]
    for query, is_known in asked:
        answer = await asks(client, city.auditor, **query)
        assert answer.json()["calendar_known"] is is_known, query
        as_xlsx = await asks(client, city.auditor, format="xlsx", **query)
        page = openpyxl.load_workbook(io.BytesIO(as_xlsx.content))["说明"]
        about = [row[0].value for row in page.iter_rows()]
        assert ("日历未知 calendar_known" in about) is (is_known is False)
        assert told_beside(as_xlsx)["calendar_known"] is is_known


async def test_a_report_says_the_same_of_itself_in_every_format(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """A file that looks final and is not, or leaves refusals out, misleads who opens it later."""
    async with runtime.database.write() as tx:
        far = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=city.far)
        for reason in (Reason.TOKEN_INVALID, Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED):
            tx.add(
                Scan(
                    id=new_id(),
                    outcome=Outcome.REFUSED,
                    reason=reason,
                    party_size=1,
                    scanned_at=NIGHT,
                    changed_at=NIGHT,
                )
            )
    for recounts in (False, True):
        if recounts:
            async with runtime.database.write() as tx:
                due = {"place_id": city.near.id, "grain": Grain.DAY, "from_day": NIGHT.date()}
                tx.add(RollupDue(**due, depth=0, token=new_id()))
        body = (await asks(client, city.auditor, "access")).json()
        facts = {name: body[name] for name in TOLD_BESIDE}
        assert facts["recounting"] is recounts
        assert facts["refused_without_station"] == {"token_expired": 1, "token_invalid": 2}
        as_csv = await asks(client, city.auditor, "access", format="csv")
        assert told_beside(as_csv) == facts
        lines = list(csv.reader(io.StringIO(as_csv.text.removeprefix("\ufeff"), newline="")))
        assert len({len(line) for line in lines}) == 1, "one table and nothing else"
        as_xlsx = await asks(client, city.auditor, "access", format="xlsx")
        assert told_beside(as_xlsx) == facts
        page = openpyxl.load_workbook(io.BytesIO(as_xlsx.content))["说明"]
        about = {row[0].value.rpartition(" ")[2]: row[1].value for row in page.iter_rows()}
        assert about["completeness"].startswith("0/1 ")
        assert about["refused_without_station.token_invalid"] == "2"
        assert ("recounting" in about) is recounts
        counted = datetime.fromisoformat(about["rolled_up_to"])
        assert counted == datetime.fromisoformat(facts["rolled_up_to"]).replace(microsecond=0)
    # What is not told of a part is not told beside its file either.
    part = (await asks(client, far, "access")).json()
    assert "refused_without_station" not in part
    beside = told_beside(await asks(client, far, "access", format="csv"))
    assert beside == {name: part[name] for name in TOLD_BESIDE if name in part}


async def test_every_header_of_a_file_is_described(client: httpx.AsyncClient, city: City) -> None:
    described = (await client.get("/openapi.json")).json()
    answer = described["paths"]["/v1/admin/reports/{report}"]["get"]["responses"]["200"]
    sent = (await asks(client, city.auditor, "access", format="csv")).headers
    assert {name.lower() for name in answer["headers"]} == {
        name for name in sent if name.startswith("report-")
    }
    page = Path(__file__).parents[2].joinpath("docs", "reports.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in answer["headers"])


async def test_the_roots_of_a_scope_hold_the_stations_of_the_scope(
    runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        street = await a_unit(tx, parent=city.near, at=NIGHT, name="街道")
        below = await a_station(tx, unit=street, at=NIGHT, code="CQ0003")
    near, far = city.stations
    branch, of_near = city.near.path, city.near.id
    admins = [
        SignedInAdmin(new_id(), Role.CITY_ADMIN, None, None),
        SignedInAdmin(new_id(), Role.AUDITOR, None, None),
        SignedInAdmin(new_id(), Role.UNIT_ADMIN, branch, None, of_near),
        SignedInAdmin(new_id(), Role.UNIT_ADMIN, None, None),
        SignedInAdmin(new_id(), Role.STATION_KEEPER, None, far.id),
        SignedInAdmin(new_id(), Role.STATION_KEEPER, branch, near.id, of_near),
    ]
    only: list[tuple[Unit | None, Station | None]] = [
        (None, None),
        (city.near, None),
        (None, below),
        (city.near, below),
        (city.far, below),
    ]
    async with runtime.database.read() as tx:
        for admin in admins:
            for unit, station in only if admin.has_city else only[:1]:
                stations = visible_stations(admin)
                if station is not None:
                    stations = stations.where(Station.id == station.id)
                if unit is not None:
                    mine = sa.select(Unit.id).where(units.under(unit.path))
                    stations = stations.where(Station.unit_id.in_(mine))
                roots = await visible_roots(tx, admin, unit=unit, station=station)
                found = set(roots.stations)
                for id in roots.units:
                    root = await tx.get_one(Unit, id)
                    mine = sa.select(Unit.id).where(units.under(root.path))
                    held = sa.select(Station.id).where(Station.unit_id.in_(mine))
                    found |= set(await tx.scalars(held))
                assert found == set(await tx.scalars(stations)), (admin, unit, station)


async def test_a_long_file_is_written_part_by_part(
    client: httpx.AsyncClient, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (await asks(client, city.auditor, format="csv", bucket="hour")).text
    monkeypatch.setattr("app.reports.frame.AT_ONCE", 1)
    assert (await asks(client, city.auditor, format="csv", bucket="hour")).text == wanted
    monkeypatch.setattr("app.reports.answers.MOST_STREAMED", 40)
    answer = await asks(client, city.auditor, format="csv", bucket="hour")
    assert (answer.status_code, answer.json()["code"]) == (422, "period_invalid")


async def test_a_report_holds_no_write(
    client: httpx.AsyncClient, runtime: Runtime, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite there is one writer: while a long report is read, scans must be written."""
    read = queries.read
    written = []

    async def slow(*args: Any) -> Any:
        async with runtime.database.write() as tx:
            written.append(await a_unit(tx, at=NIGHT, name="与此同时"))
        return await read(*args)

    monkeypatch.setattr(queries, "read", slow)
    for number, form in enumerate(("json", "csv", "xlsx"), 1):
        assert (await asks(client, city.auditor, format=form)).status_code == 200
        assert len(written) == number


async def test_a_figure_tells_where_it_comes_from_down_to_the_rows(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    station = city.stations[0]
    async with runtime.database.write() as tx:
        await came(tx, runtime, station, NIGHT - timedelta(minutes=20))
    await rolled(runtime)

    async def source(**query: Any) -> httpx.Response:
        params = TODAY | {"figure": "visits"} | query
        url = f"/v1/admin/reports/{query.pop('report', 'visits')}/source"
        return await client.get(url, params=params, headers=city.auditor.headers)

    one = {"station": str(station.id)}
    first = (await source(**one, limit=1)).json()
    assert (first["value"], first["title"], first["unit"]) == (2, "人次", "count")
    assert first["formula"].startswith("visits with started_at in the row's time")
    assert first["counters"] == [
        {"name": "visits_free", "sum": 0},
        {"name": "visits_scan", "sum": 2},
        {"name": "visits_offline", "sum": 0},
    ]
    assert first["rollups"]["count"] == 1
    assert first["completeness"]["days_begun"] == 1
    second = (await source(**one, limit=1, cursor=first["next"])).json()
    assert second["next"] is None
    rows = [*first["rows"], *second["rows"]]
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    for row in rows:
        assert not {name for name in row if "worker" in name or "owner" in name}
        assert "occupation" not in row
    assert len({row["id"] for row in rows}) == 2
    # No rows without a station, nor of a time in which one worker's habits would show.
    whole = (await source()).json()
    assert (whole["value"], whole["rows"], whole["station"]) == (2, None, None)
    assert (await source(**one, **{"from": "2026-10-24"})).json()["rows"] == rows
    assert (await source(**one, **{"from": "2026-10-23"})).json()["rows"] is None
    entries = await audited(runtime)
    assert len(entries) == 5
    assert entries[0].after is not None
    assert (entries[0].after["figure"], entries[0].after["station"]) == ("visits", "CQ0001")
    # Of a cell: the hour that they came in, of this row of the report alone.
    hour = {"by": "station", "bucket": "hour", "of_station": "CQ0001", "of_day": TODAY["from"]}
    came_at = {
        datetime.fromisoformat(row["started_at"]).astimezone(ZoneInfo(CITY_ZONE)).hour
        for row in rows
    }
    for number in {*came_at, 3}:
        found = (await source(**hour, of_hour=number)).json()
        assert found["value"] == len(found["rows"]) == sum(one["sum"] for one in found["counters"])
        assert (found["value"] > 0) is (number in came_at)
        assert (found["station"], found["completeness"]["days_asked"]) == ("CQ0001", 1)
    told = (await audited(runtime))[-1]
    assert told.after is not None
    assert told.after["of"].keys() == {"station", "day", "hour"}
    for other in (
        {"by": "day", "from": "2026-11-20"},
        {"of_hour": 3},
        hour | {"of_hour": 3, "of_weekday": 3},
    ):
        answer = await source(**other)
        assert (answer.status_code, answer.json()["code"]) == (422, "row_unknown")
    known = (await source(figure="known_share", **hour, of_hour=3)).json()
    sums = {counter["name"]: counter["sum"] for counter in known["counters"]}
    assert known["value"] == sums["known_ms"] / sums["whole_ms"] == 1.0
    answer = await source(figure="unique_workers_change")
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert "beside the period before, visits, " in answer.json()["detail"]
    hidden = (await source(report="occupations", **one)).json()
    assert (hidden["value"], hidden["counters"], hidden["rows"]) == (None, [], None)
    assert hidden["formula"].startswith("visits of the occupation")
    for wrong in (
        {"figure": "name"},
        {"report": "ranking"},
        {"figure": "grant_rate"},
        {"report": "controllers", "figure": "live", "by": "day"},
        {"report": "occupations", "bucket": "hour"},
        hour | {"of_hour": 24},
    ):
        answer = await source(**wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    async with runtime.database.write() as tx:
        far = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=city.far)
    for query in (one, {"unit": str(city.near.id)}):
        answer = await client.get(
            "/v1/admin/reports/visits/source",
            params=TODAY | {"figure": "visits"} | query,
            headers=far.headers,
        )
        assert answer.status_code == 404


async def test_time_and_states_have_rows_too(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """What held, silences that are over, spells of facilities, heads: a figure names its own."""
    station, day = city.stations[0], datetime(2026, 11, 23, tzinfo=ZoneInfo(CITY_ZONE))
    at = [day.astimezone(UTC) + timedelta(hours=hour) for hour in range(25)]
    windows = [[0, 8, "scan", "weekly"], [8, 18, "free", "weekly"], [18, 20, "closed", "override"]]
    async with runtime.database.write() as tx:
        box, _ = await a_controller(tx, station, at=NIGHT - timedelta(days=9))
        await tx.execute(sa.update(Controller).values(seen_at=NIGHT))
        new = NewFacility(FacilityKind.WATER, "", 2)
        (facility,) = await facilities.add(tx, station, [new], actor=COMMAND_LINE, at=at[1])
        await tx.execute(sa.delete(StationModes))
        tx.add_all(
            [
                StationModes(
                    station_id=station.id,
                    local_day=day.date(),
                    midnight_at=at[0],
                    windows=[[a * 3_600_000, b * 3_600_000, *what] for a, b, *what in windows],
                    recorded_until=at[20],
                    changed_at=at[20],
                ),
                ControllerOutage(
                    controller_id=box,
                    from_at=at[0] - timedelta(hours=3),
                    until_at=at[2],
                    station_id=station.id,
                    changed_at=at[2],
                ),
                # Only says that the day was counted anew: no row of anything.
                ControllerOutage(
                    controller_id=box,
                    from_at=at[1],
                    until_at=at[1],
                    station_id=station.id,
                    changed_at=at[2],
                ),
                WalkInCount(
                    id=new_id(),
                    station_id=station.id,
                    count=7,
                    from_at=at[9],
                    until_at=at[10],
                    local_day=day.date(),
                    admin_id=city.auditor.id,
                    created_at=at[10],
                ),
            ]
        )

    async def rows(report: str, figure: str, **more: str) -> list[Any]:
        asked = {"figure": figure, "station": str(station.id)} | more
        answer = await asks(client, city.auditor, f"{report}/source", **asked)
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["rows"]
        return found

    held = await rows("promise", "promised_hours")
    assert [(row["mode"], row["because"]) for row in held] == [tuple(w[2:]) for w in windows]
    assert datetime.fromisoformat(held[1]["from_at"]) == at[8]
    hour = {"by": "hour", "of_hour": "19"}
    assert [row["mode"] for row in await rows("visits", "unstaffed_hours", **hour)] == ["closed"]
    for figure in ("reported_share", "outages"):
        (silence,) = await rows("promise", figure)
        assert (silence["id"], datetime.fromisoformat(silence["until_at"])) == (str(box), at[2])
    (heads,) = await rows("visits", "walk_in_heads")
    assert heads["count"] == 7
    (spell,) = await rows("facilities", "availability")
    assert (spell["id"], spell["quantity"]) == (str(facility.id), 2)
    assert await rows("facilities", "out_of_order_hours") == []


async def test_each_kind_of_facility_is_compared_with_itself_before(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    station = city.stations[0]
    async with runtime.database.write() as tx:
        at = datetime(2026, 11, 16, 20, tzinfo=UTC)
        kinds = (FacilityKind.MICROWAVE, FacilityKind.CHARGER)
        new = [NewFacility(kind, "", 1) for kind in kinds]
        made = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at)
        for facility, uses in zip(made, ((1, 3), (2, 1)), strict=True):
            for day, times in zip((18, 19), uses, strict=True):
                for number in range(times):
                    begun_at = datetime(2026, 11, day, 2 + number, tzinfo=UTC)
                    tx.add(
                        FacilityUse(
                            id=new_id(),
                            facility_id=facility.id,
                            station_id=station.id,
                            begun_at=begun_at,
                            ended_at=begun_at + timedelta(minutes=5),
                            local_day=begun_at.date(),
                            local_hour=begun_at.hour + 8,
                            changed_at=runtime.now(),
                        )
                    )
    await rolled(runtime)
    query = {"from": "2026-11-19", "to": "2026-11-20", "compare": "before"}
    query |= {"station": str(station.id)}
    rows = (await asks(client, city.auditor, "facilities", **query)).json()["rows"]
    found = {row["kind"]: (row["uses"], row["uses_before"], row["uses_change"]) for row in rows}
    assert found == {"microwave": (3, 1.0, 2.0), "charger": (1, 2.0, -0.5)}


async def test_shares_and_means_are_compared_as_sums_of_equal_days(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Out of hours came 3 of 4 on Monday and Tuesday, none of 4 on Wednesday, then all 4."""
    async with runtime.database.write() as tx:
        for day, times, out in ((16, 2, 1), (17, 2, 2), (18, 4, 0), (19, 3, 3), (20, 1, 1)):
            for number in range(times):
                at = datetime(2026, 11, day, 4, tzinfo=UTC) + timedelta(hours=number)
                await came(tx, runtime, city.stations[0], at)
                how = {
                    "mode": Kind.SCAN if number < out else Kind.FREE,
                    "ended_at": at + timedelta(seconds=600 + 37 * number + day),
                    "end_source": EndSource.WORKER,
                    "changed_at": runtime.now(),
                }
                await tx.execute(sa.update(Visit).where(Visit.started_at == at).values(how))
    await rolled(runtime)
    query = {"from": "2026-11-19", "to": "2026-11-22", "compare": "before"}
    row, _ = (await asks(client, city.auditor, **query)).json()["rows"]
    # A Thursday and a Friday are compared with three workdays, and no weekend with any.
    assert (row["compared_days"], row["days_over"]) == (2, 3)
    assert (row["offhours_share"], row["offhours_share_over"]) == (1.0, 1.0)
    assert (row["offhours_share_before"], row["offhours_share_change"]) == (0.375, 1.6667)
    query |= {"to": "2026-11-21", "from": "2026-11-18"}
    row, none = (await asks(client, city.auditor, **query)).json()["rows"]
    assert (row["out_of_hours_visits_over"], row["visits_over"]) == (4, 8)
    assert row["offhours_share"] == row["offhours_share_over"] == 0.5
    before = await asks(client, city.auditor, **{"from": "2026-11-16", "to": "2026-11-18"})
    assert before.json()["rows"][0]["offhours_share"] == 0.75
    # Of the period before, 15 to 17, only workdays count: Monday and Tuesday, each one and a half.
    assert (row["out_of_hours_visits_before"], row["visits_before"]) == (4.5, 6.0)
    assert (row["offhours_share_before"], row["offhours_share_change"]) == (0.75, -0.3333)
    # A mean is of the sums as they were counted, and not of hours as rows round them.
    assert row["dwell_mean_s"] == row["dwell_mean_s_over"]
    assert row["dwell_mean_s_before"] == before.json()["rows"][0]["dwell_mean_s"]
    # Nothing to divide by is nothing to compare.
    told = ("offhours_share_over", "offhours_share_before", "offhours_share_change")
    assert [none[name] for name in told] == [None, None, None]
    assert (none["visits_over"], none["visits_before"]) == (0, 0)
    answer = await asks(client, city.auditor, **query, format="csv")
    header, *_ = csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"), newline=""))
    assert "无人值守时段占比（前期，按本期日期构成） (offhours_share_before)" in header
    assert "无人值守时段占比变化率 (offhours_share_change)" in header


@pytest.mark.parametrize("report", ["visits", "access", "occupancy", "facilities", "promise"])
async def test_of_days_that_are_all_over_a_share_is_the_one_of_the_row(
    client: httpx.AsyncClient, runtime: Runtime, city: City, report: str
) -> None:
    await rolled(runtime)
    query = {"from": "2026-11-09", "to": "2026-11-21", "compare": "before", "by": "all"}
    body = (await asks(client, city.auditor, report, **query)).json()
    assert body["rows"] or report == "facilities"
    for row in body["rows"]:
        for name in FIGURES[report]:
            assert row[f"{name}_over"] == row[name], name


async def test_what_is_too_long_to_compare_at_once_is_refused_at_once_and_is_still_a_file(
    client: httpx.AsyncClient, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every station by the hour of the day: too much for one JSON, and not for a CSV."""
    query = {"from": "2026-11-16", "to": "2026-11-23", "compare": "before", "bucket": "hour_of_day"}
    whole = (await asks(client, city.auditor, **query)).json()["rows"]
    assert len(whole) == 48
    monkeypatch.setattr("app.reports.comparing.MOST_ROWS", 47)
    monkeypatch.setattr("app.reports.comparing.AT_ONCE", 24)
    as_csv = await asks(client, city.auditor, **query, format="csv")
    assert as_csv.status_code == 200, as_csv.text
    lines = list(csv.DictReader(io.StringIO(as_csv.text.removeprefix("\ufeff"), newline="")))
    assert [line["小时 (hour)"] for line in lines] == [str(row["hour"]) for row in whole]
    column = next(name for name in lines[0] if name.endswith("(visits_before)"))
    came = ["" if row["visits_before"] is None else row["visits_before"] for row in whole]
    assert [line[column] for line in lines] == list(map(str, came))

    def compute(*_: Any) -> None:
        raise AssertionError("nothing is computed of what is refused")

    monkeypatch.setattr("app.reports.comparing.exact_of", compute)
    monkeypatch.setattr("app.reports.comparing.part_columns", compute)
    refused = await asks(client, city.auditor, **query)
    assert (refused.status_code, refused.json()["code"]) == (422, "period_invalid")
    assert "at most 47 rows, and this would be 48: ask for CSV" in refused.json()["detail"]


async def test_a_report_is_compared_with_the_period_before(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """2026-11-19 and 20 were a Thursday and a Friday, as the 21st and 22nd a weekend."""
    async with runtime.database.write() as tx:
        for day, times in ((12, 2), (17, 2), (18, 1), (19, 3), (20, 1), (21, 5), (22, 0)):
            for number in range(times):
                at = datetime(2026, 11, day, 4, tzinfo=UTC) + timedelta(hours=number)
                await came(tx, runtime, city.stations[0], at)
    await rolled(runtime)
    query = {"from": "2026-11-19", "to": "2026-11-21", "compare": "before"}
    body = (await asks(client, city.auditor, **query)).json()
    assert (body["before_from"], body["before_to"]) == ("2026-11-17", "2026-11-19")
    first, second = body["rows"]
    assert (first["visits"], first["visits_before"], first["visits_change"]) == (4, 3.0, 0.3333)
    assert (second["visits"], second["visits_before"], second["visits_change"]) == (0, 0.0, None)
    used = (await asks(client, city.auditor, "occupancy", **query)).json()["rows"][0]
    assert (used["person_hours"], used["person_hours_before"]) == (12.0, 9.0)
    assert used["person_hours_change"] == 0.3333
    # Of the week only Monday goes on: four workdays are compared, of five with two visits before.
    week = {"from": "2026-11-17", "to": "2026-11-24", "compare": "before", "by": "all"}
    (row,) = (await asks(client, city.auditor, **week)).json()["rows"]
    assert (row["visits"], row["visits_over"]) == (13, 12)
    assert (row["visits_before"], row["visits_change"]) == (1.6, 12 / 1.6 - 1)
    # Nobody heard a controller of these stations then, for there was none.
    assert (row["before_known_share"], row["before_reported_share"]) == (1.0, None)
    # A weekend cannot be compared with workdays, nor a day that goes on with anything.
    for days in (("2026-11-21", "2026-11-23"), ("2026-11-23", "2026-11-24")):
        query = {"from": days[0], "to": days[1], "compare": "before", "by": "all"}
        (row,) = (await asks(client, city.auditor, **query)).json()["rows"]
        assert (row["visits_before"], row["visits_change"]) == (None, None)
    answer = await asks(client, city.auditor, **query, format="csv")
    (header, _) = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))
    assert "人次（前期，按本期日期构成） (visits_before)" in header
    assert (await asks(client, city.auditor, **query, format="xlsx")).status_code == 200
    (*_, entry) = await audited(runtime)
    assert entry.after is not None
    assert entry.after["before_from"] == "2026-11-22"
    for wrong in ({"by": "day"}, {"bucket": "day"}):
        answer = await asks(client, city.auditor, compare="before", **wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "comparison_invalid")
    answer = await asks(client, city.auditor, "controllers", compare="before")
    assert answer.json()["code"] == "comparison_invalid"


async def test_stations_are_ranked_among_their_peers_of_the_whole_city(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    early = NIGHT - timedelta(days=400)
    day = datetime(2026, 11, 20, 4, tzinfo=UTC)
    async with runtime.database.write() as tx:
        far = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=city.far)
        for number in range(9):
            unit = city.far if number < 2 else city.near
            station = await a_station(
                tx, unit=unit, at=early, code=f"CQ1{number:03d}", capacity=15 + number % 3
            )
            for visit in range(min(number, 5)):
                await came(tx, runtime, station, day + timedelta(hours=visit))
        await a_station(tx, unit=city.near, at=day, code="CQ2000", capacity=15)
    await rolled(runtime)
    query = {"from": "2026-11-18", "to": "2026-11-22"}
    answer = await asks(client, city.auditor, "ranking", **query)
    assert answer.status_code == 200, answer.text
    rows = {row["station"]: row for row in answer.json()["rows"]}
    group = [row for row in rows.values() if row["peer_group"].endswith(" 10-19")]
    assert [row["station"] for row in group][-1] == "CQ2000", "not known for long enough"
    ranked = [row for row in group if row["rank"]]
    told = [(row["station"], row["value"], row["percentile"], row["rank"]) for row in ranked]
    assert [row[1] for row in told] == [5, 5, 5, 5, 4, 3, 2, 1, 0]
    assert {row[2] for row in told[:4]} == {0.8125}
    assert [row[2] for row in told[4:]] == [0.5, 0.375, 0.25, 0.125, 0.0]
    assert [row[3] for row in told] == [1, 1, 1, 1, 5, 6, 7, 8, 9]
    assert {row["peers"] for row in ranked} == {8}
    assert {row["percentile"] for row in rows.values() if row not in group} <= {None}
    mine = (await asks(client, far, "ranking", **query)).json()["rows"]
    assert {row["station"] for row in mine} == {"CQ0002", "CQ1000", "CQ1001"}
    assert all(row == rows[row["station"]] for row in mine)
    for figure in ("visits_per_seat", "grant_rate", "seat_utilization", "promise_rate"):
        body = (await asks(client, far, "ranking", figure=figure, **query)).json()
        assert body["figure"] == figure
        for row in body["rows"]:
            if row["denominator"]:
                assert abs(row["numerator"] / row["denominator"] - row["value"]) < 0.001
    for report, wrong in (("visits", {"figure": "visits"}), ("ranking", {"by": "day"})):
        answer = await asks(client, city.auditor, report, **wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")


async def test_silence_leaves_nobody_out_of_a_ranking_by_what_it_is_a_part_of(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Ten controllers, of which one is silent for half of the day: who scans there is refused."""
    early = NIGHT - timedelta(days=9)
    midnight = datetime(2026, 11, 20, tzinfo=ZoneInfo(CITY_ZONE)).astimezone(UTC)
    noon = midnight + timedelta(hours=12)
    async with runtime.database.write() as tx:
        for number in range(10):
            station = await a_station(
                tx, unit=city.near, at=early, code=f"CQ1{number:03d}", capacity=5
            )
            box, _ = await a_controller(tx, station, at=early)
            scans = [(Outcome.GRANTED, Reason.OK)]
            if number == 0:
                scans += [(Outcome.REFUSED, Reason.CONTROLLER_OFFLINE)]
                tx.add(
                    ControllerOutage(
                        controller_id=box,
                        station_id=station.id,
                        from_at=midnight,
                        until_at=noon,
                        changed_at=NIGHT,
                    )
                )
            for outcome, reason in scans:
                tx.add(
                    Scan(
                        id=new_id(),
                        station_id=station.id,
                        demand_key=reason.value.encode(),
                        outcome=outcome,
                        reason=reason,
                        party_size=1,
                        scanned_at=noon,
                        local_day=date(2026, 11, 20),
                        local_hour=12,
                        changed_at=NIGHT,
                    )
                )
        await tx.execute(sa.update(Controller).values(seen_at=NIGHT, changed_at=NIGHT))
    await held.record_all(runtime.database, now=always(midnight + timedelta(days=1)))
    await rolled(runtime)
    query = {"from": "2026-11-20", "to": "2026-11-21"}
    wanted = {
        "controller_uptime": (0.5, 0.0, 10),
        "promise_rate": (0.5, 0.0, 10),
        "grant_rate": (0.5, 0.0, 10),
        "unmet_demand": (1, 1.0, 1),
        "open_success_rate": (0.0, 0.5, 1),
        # Nobody knows who came while it was silent: that is not nobody.
        "out_of_hours_visits": (0, None, None),
        # Nor, at any of them, who came by day, when nobody scanned at an open door.
        "visits": (0, None, None),
    }
    for figure, told in wanted.items():
        answer = await asks(client, city.auditor, "ranking", figure=figure, **query)
        assert answer.status_code == 200, answer.text
        rows = {row["station"]: row for row in answer.json()["rows"]}
        one = rows["CQ1000"]
        assert (one["value"], one["percentile"], one["rank"]) == told, figure
        assert (one["known_share"], one["reported_share"]) == (1.0, 0.5)
        is_counted = figure != "visits"
        assert one["peers"] == 9 * is_counted
        assert rows["CQ1009"]["peers"] == (8 if told[1] is None else 9) * is_counted


async def test_a_station_that_was_gone_before_the_period_is_no_gap_in_it(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """To the last local day on which it stood it is told of; and by name at any time."""
    gone = city.stations[1]
    async with runtime.database.write() as tx:
        # Noon of the 20th of October in the city.
        (await tx.get_one(Station, gone.id)).retired_at = datetime(2026, 10, 20, 4, tzinfo=UTC)
    await rolled(runtime)

    async def told(since: str, until: str, **query: Any) -> list[tuple[str | None, float]]:
        answer = await asks(client, city.auditor, **{"from": since, "to": until} | query)
        return [(row["station"], row["known_share"]) for row in answer.json()["rows"]]

    assert await told("2026-10-20", "2026-10-21") == [("CQ0001", 1.0), ("CQ0002", 0.5)]
    assert await told("2026-10-21", "2026-10-23") == [("CQ0001", 1.0)]
    assert await told("2026-10-21", "2026-10-23", by="all") == [(None, 1.0)]
    assert await told("2026-10-21", "2026-10-23", by="unit") == [(None, 1.0)]
    named = await told("2026-10-21", "2026-10-23", station=str(gone.id))
    assert named == [("CQ0002", 0.0)]


async def test_refusals_are_told_by_station_and_hour_of_the_day(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Of all days together: 24 rows for each station, however long the period."""
    async with runtime.database.write() as tx:
        for day in (10, 11, 12):
            at = datetime(2026, 11, day, 15, 40, tzinfo=UTC)
            tx.add(
                Scan(
                    id=new_id(),
                    station_id=city.stations[0].id,
                    demand_key=b"somebody",
                    outcome=Outcome.REFUSED,
                    reason=Reason.STATION_CLOSED,
                    party_size=1,
                    scanned_at=at,
                    local_day=at.date(),
                    local_hour=23,
                    changed_at=NIGHT,
                )
            )
    await rolled(runtime)
    answer = await asks(client, city.auditor, **{"from": "2026-11-01"}, bucket="hour_of_day")
    rows = answer.json()["rows"]
    assert len(rows) == 48
    assert {(row["station"], row["hour"]): row["unmet_demand"] for row in rows} == {
        (code, hour): 3 if (code, hour) == ("CQ0001", 23) else 0
        for code in ("CQ0001", "CQ0002")
        for hour in range(24)
    }
    by_weekday = await asks(client, city.auditor, **{"from": "2026-11-01"}, bucket="weekday")
    found = [
        (row["station"], row["weekday"], row["unmet_demand"])
        for row in by_weekday.json()["rows"]
        if row["unmet_demand"]
    ]
    assert found == [("CQ0001", weekday, 1) for weekday in (2, 3, 4)]
