"""Districts compared, each with everything below it, over HTTP: `by=branch` of every report."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.people.rules import Role
from app.people.tables import Occupation
from app.places.rules import Kind
from app.places.tables import FacilityKind, Station, Unit
from app.reports.queries import REPORTS
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import NIGHT, Clock
from tests.support.counting import rolled
from tests.support.worlds import (
    SomeAdmin,
    SomeWorker,
    a_facility,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio

EARLY = NIGHT - timedelta(days=400)
TODAY = {"from": "2026-11-23", "to": "2026-11-24"}
HOMES = {
    "CQ0000": "旧街",
    "CQ0001": "解放碑街道",
    "CQ0002": "几江街道",
    "CQ0003": "渝中区",
    "CQ0004": "市",
    "CQ0005": "朝天门街道",
}
"""On what each station hangs; the first was retired two weeks ago."""
CAME = {
    "CQ0001": ("zhang", "li"),
    "CQ0002": ("zhang",),
    "CQ0003": ("zhang", "wang"),
    "CQ0004": ("zhao",),
    "CQ0005": ("li",),
}
"""Who comes where, if anybody does: Zhang and Li to several streets, Zhang to both districts."""
DAYS = {
    datetime(2026, 11, 17, 2, tzinfo=UTC): ("CQ0002", "CQ0004"),
    datetime(2026, 11, 19, 2, tzinfo=UTC): ("CQ0001", "CQ0005", "CQ0004"),
    NIGHT - timedelta(hours=12): tuple(CAME),
}
"""When somebody came, and to which stations: every two hours to the next; each time others."""
CITY_ROWS = [("渝中区", 5, 3), ("江津区", 1, 1), ("市（本级）", 1, 1)]
"""By branch of the city: name, visits, workers; in the order of the codes."""
NEAR_ROWS = [("解放碑街道", 2, 2), ("渝中区（本级）", 2, 2), ("朝天门街道", 1, 1)]


class City:
    """A city, its districts and their streets; in one district no station ever stood."""

    units: dict[str, Unit]
    stations: dict[str, Station]
    auditor: SomeAdmin


@pytest.fixture
async def city(runtime: Runtime) -> City:
    return await founded(runtime, DAYS)


async def founded(runtime: Runtime, days: Mapping[datetime, Sequence[str]]) -> City:
    made = City()
    async with runtime.database.write() as tx:
        made.units = {}
        for name, parent in (
            ("市", None),
            ("渝中区", "市"),
            ("江津区", "市"),
            ("旧区", "市"),
            ("新区", "市"),
            ("解放碑街道", "渝中区"),
            ("朝天门街道", "渝中区"),
            ("几江街道", "江津区"),
            ("旧街", "旧区"),
        ):
            above = made.units[parent] if parent else None
            made.units[name] = await a_unit(tx, parent=above, at=EARLY, name=name)
        made.stations = {
            code: await a_station(tx, unit=made.units[unit], at=EARLY, code=code)
            for code, unit in HOMES.items()
        }
        made.stations["CQ0000"].retired_at = NIGHT - timedelta(days=14)
        made.auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        names = sorted({name for each in CAME.values() for name in each})
        for at, codes in days.items():
            workers = {name: await a_worker(tx, runtime, at=EARLY) for name in names}
            for number, code in enumerate(codes):
                mine = [workers[name] for name in CAME[code]]
                await come(tx, made.stations[code], mine, at + timedelta(hours=2 * number))
    await rolled(runtime)
    return made


async def come(tx: Any, station: Station, workers: Sequence[SomeWorker], at: datetime) -> None:
    """Let some workers come, each alone, minute by minute."""
    for number, worker in enumerate(workers):
        arrival = Arrival(
            station_id=station.id,
            timezone=station.timezone,
            owner_key=worker.owner_key,
            worker_id=worker.id,
            occupation=Occupation.RIDER,
            mode=Kind.SCAN,
            party_size=1,
            max_stay=timedelta(minutes=60),
        )
        await presence.open_visit(tx, arrival, started_at=at + timedelta(minutes=number))


async def asks(
    client: httpx.AsyncClient, who: SomeAdmin, report: str = "visits", **query: Any
) -> httpx.Response:
    params = TODAY | {"by": "branch"} | query
    return await client.get(f"/v1/admin/reports/{report}", params=params, headers=who.headers)


async def rows(
    client: httpx.AsyncClient, who: SomeAdmin, report: str = "visits", **query: Any
) -> list[dict[str, Any]]:
    answer = await asks(client, who, report, **query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def said(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(row["name"], row["visits"], row["unique_workers"]) for row in rows]


async def test_the_city_compares_its_districts_each_with_everything_below_it(
    client: httpx.AsyncClient, city: City
) -> None:
    """Who went to three stations of a district is one worker of it; nobody is where nothing is."""
    found = await rows(client, city.auditor)
    assert said(found) == CITY_ROWS
    units = ("渝中区", "江津区", "市")
    assert [row["unit"] for row in found] == [str(city.units[name].id) for name in units]
    for row in found:
        assert (row["station"], row["operating_model"]) == (None, None)
    assert said(await rows(client, city.auditor, unit=str(city.units["市"].id))) == CITY_ROWS


async def test_a_row_says_whether_it_is_of_a_whole_branch_whatever_the_unit_is_called(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        tx.add(far := await tx.merge(city.units["江津区"]))
        far.name = "江津区（本级）"
    for report in ("visits", "access", "occupancy", "promise", "occupations"):
        query = {"from": "2026-11-01", "to": "2026-12-01"} if report == "occupations" else {}
        found = await rows(client, city.auditor, report, **query)
        own = {row["name"]: row["is_own"] for row in found}
        own.pop("旧区", None)  # Had a station in the first half of the month.
        assert own == {"渝中区": False, "江津区（本级）": False, "市（本级）": True}, report
    answer = await asks(client, city.auditor, format="csv")
    lines = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))
    told = {line["名称 (name)"]: line["仅本级直属 (is_own)"] for line in lines}
    assert told == {"渝中区": "no", "江津区（本级）": "no", "市（本级）": "yes"}
    # By `unit` every row is of what one unit keeps; a station is no unit.
    assert {row["is_own"] for row in await rows(client, city.auditor, by="unit")} == {True}
    assert {row["is_own"] for row in await rows(client, city.auditor, by="station")} == {None}


async def test_a_district_compares_its_streets_and_what_it_keeps_itself(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    near = city.units["渝中区"]
    async with runtime.database.write() as tx:
        mine = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=near)
    assert said(await rows(client, city.auditor, unit=str(near.id))) == NEAR_ROWS
    # Its own administrator sees the same, and nothing of others, whatever he asks.
    assert said(await rows(client, mine)) == NEAR_ROWS
    assert said(await rows(client, mine, unit=str(near.id))) == NEAR_ROWS
    for name in ("市", "江津区", "几江街道"):
        assert (await asks(client, mine, unit=str(city.units[name].id))).status_code == 404
    far = city.stations["CQ0002"]
    assert (await asks(client, mine, station=str(far.id))).status_code == 404
    # Of a street nothing is below: one row, of what it keeps.
    street = str(city.units["解放碑街道"].id)
    assert said(await rows(client, mine, unit=street)) == [("解放碑街道", 2, 2)]


async def test_of_several_roots_each_is_a_row_with_everything_below_it(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        other = await a_unit(tx, at=EARLY, name="产业工会")
        below = await a_unit(tx, parent=other, at=EARLY, name="快递工会")
        await a_station(tx, unit=below, at=EARLY, code="CQ0009")
    await rolled(runtime)
    assert said(await rows(client, city.auditor)) == [("市", 7, 4), ("产业工会", 0, 0)]


async def test_a_root_without_stations_changes_nothing_anywhere(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """One that was made by mistake and retired at once, and one that waits for its stations."""
    november = {"from": "2026-11-01", "to": "2026-12-01"}
    earlier = {"from": "2026-11-19", "to": "2026-11-21", "compare": "before"}
    supposed: dict[str, Any] = november | {"change": {}, "by": "branch"}
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=NIGHT)

    async def told() -> list[Any]:
        what_if = await client.post(
            "/v1/admin/reports/what-if", json=supposed, headers=chief.headers
        )
        assert what_if.status_code == 200, what_if.text
        return [
            await rows(client, city.auditor),
            await rows(client, city.auditor, by="all"),
            await rows(client, city.auditor, **earlier),
            await rows(client, city.auditor, "occupations", **november),
            what_if.json()["rows"],
        ]

    before = await told()
    async with runtime.database.write() as tx:
        (await a_unit(tx, at=NIGHT, name="测试")).retired_at = NIGHT
        await a_unit(tx, parent=await a_unit(tx, at=NIGHT, name="产业工会"), at=NIGHT, name="快递")
    await rolled(runtime)
    assert await told() == before
    assert said(before[0]) == CITY_ROWS
    (total,) = before[1]
    assert (total["visits"], total["unique_workers"]) == (7, 4)
    names = ["旧区", "渝中区", "江津区", "市（本级）"]
    assert list(dict.fromkeys(row["name"] for row in before[3])) == names
    assert [row["name"] for row in before[4]] == names


async def test_a_root_whose_stations_are_gone_is_a_row_of_the_time_when_they_were_not(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Beside the period before, in which they were, districts are compared with districts."""
    async with runtime.database.write() as tx:
        other = await a_unit(tx, at=EARLY, name="测试")
        station = await a_station(tx, unit=other, at=EARLY, code="CQ0009")
        station.retired_at = NIGHT - timedelta(days=5)
        other.retired_at = NIGHT - timedelta(days=5)
        worker = await a_worker(tx, runtime, at=EARLY)
        await come(tx, station, [worker], datetime(2026, 11, 17, 3, tzinfo=UTC))
    await rolled(runtime)
    assert said(await rows(client, city.auditor)) == CITY_ROWS
    then = {"from": "2026-11-17", "to": "2026-11-19"}
    both = await rows(client, city.auditor, **then)
    assert said(both) == [("市", 2, 2), ("测试", 1, 1)]
    for row in both:
        params = then | {"by": "branch", "figure": "visits", "of_unit": row["unit"]}
        url = "/v1/admin/reports/visits/source"
        found = await client.get(url, params=params, headers=city.auditor.headers)
        assert (found.status_code, found.json().get("value")) == (200, row["visits"]), found.text
    days = {"from": "2026-11-19", "to": "2026-11-21", "compare": "before"}
    found_rows = await rows(client, city.auditor, **days)
    told = {row["name"]: (row["visits"], row["visits_before"]) for row in found_rows}
    assert told == {"渝中区": (3, 0.0), "江津区": (0, 1.0), "市（本级）": (1, 1.0)}


async def test_distinct_workers_of_the_city_stay_exact_beside_a_root_without_stations(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Also when nobody is known any more who came: of a month that was counted in time."""
    clock.set(datetime(2026, 5, 2, tzinfo=UTC))
    days = [datetime(2026, 4, day, 2, tzinfo=UTC) for day in (10, 12)]
    city = await founded(runtime, {day: tuple(CAME) for day in days})
    async with runtime.database.write() as tx:
        (await a_unit(tx, at=runtime.now(), name="测试")).retired_at = runtime.now()
    clock.set(NIGHT)
    await rolled(runtime)
    april = {"from": "2026-04-01", "to": "2026-05-01"}
    (total,) = await rows(client, city.auditor, by="all", **april)
    assert (total["visits"], total["unique_workers"]) == (14, 8)
    twice = [(name, 2 * visits, 2 * workers) for name, visits, workers in CITY_ROWS]
    assert said(await rows(client, city.auditor, **april)) == [("旧区", 0, 0), *twice]


async def test_what_the_branches_are_of_sums_up_to_all(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Also of what stands there now, however deep below."""
    async with runtime.database.write() as tx:
        for number, station in enumerate(city.stations.values()):
            kind = FacilityKind.MICROWAVE
            await a_facility(tx, station, at=EARLY, kind=kind, quantity=number + 1)
    await rolled(runtime)
    figures = {
        "visits": ("visits", "persons", "returns", "refused"),
        "access": ("decided", "granted", "executed"),
        "occupancy": ("capacity", "station_hours", "person_hours"),
        "facilities": ("units", "uses", "visits"),
        "promise": ("promised_hours", "commissioned_hours", "outages"),
    }
    assert set(figures) == set(REPORTS)
    for report, names in figures.items():
        for unit in ({}, {"unit": str(city.units["渝中区"].id)}):
            each = await rows(client, city.auditor, report, **unit)
            (total,) = await rows(client, city.auditor, report, **unit, by="all")
            assert len(each) == 3
            for name in names:
                parts = sum(row[name] or 0 for row in each)
                assert parts == pytest.approx(total[name] or 0, abs=0.02), (report, name)
    named = {row["name"]: row["units"] for row in await rows(client, city.auditor, "facilities")}
    assert named == {"渝中区": 2 + 4 + 6, "江津区": 3, "市（本级）": 5}


async def test_a_branch_whose_stations_were_gone_before_the_period_is_no_row(
    client: httpx.AsyncClient, city: City
) -> None:
    back_then = {"from": "2026-11-08", "to": "2026-11-10"}
    names = [row["name"] for row in await rows(client, city.auditor, **back_then)]
    assert names == ["旧区", "渝中区", "江津区", "市（本级）"]
    assert await rows(client, city.auditor, unit=str(city.units["旧区"].id)) == []


async def test_of_a_single_station_it_is_the_row_of_its_unit(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Of this station alone, although there is another one in its street."""
    station = city.stations["CQ0003"]
    async with runtime.database.write() as tx:
        beside = await a_station(tx, unit=city.units["解放碑街道"], at=EARLY, code="CQ0006")
        somebody = await a_worker(tx, runtime, at=EARLY)
        await come(tx, beside, [somebody], NIGHT - timedelta(minutes=20))
        keeper = await an_admin(tx, at=NIGHT, role=Role.STATION_KEEPER, station=station)
    await rolled(runtime)
    expected = [("渝中区", 2, 2)]
    assert said(await rows(client, city.auditor, station=str(station.id))) == expected
    assert said(await rows(client, keeper)) == expected
    street = str(city.stations["CQ0001"].id)
    assert said(await rows(client, city.auditor, station=street)) == [("解放碑街道", 2, 2)]


async def test_distinct_workers_of_a_district_outlive_what_is_known_of_each(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """A month that was over and counted in time keeps their number for every branch."""
    clock.set(datetime(2026, 5, 2, tzinfo=UTC))
    days = [datetime(2026, 4, day, 2, tzinfo=UTC) for day in (10, 12)]
    city = await founded(runtime, {day: tuple(CAME) for day in days})
    clock.set(NIGHT)
    await rolled(runtime)
    april = {"from": "2026-04-01", "to": "2026-05-01"}
    found = await rows(client, city.auditor, **april)
    twice = [(name, 2 * visits, 2 * workers) for name, visits, workers in CITY_ROWS]
    assert said(found) == [("旧区", 0, 0), *twice]
    # Who came on which of some days is forgotten: these cannot be put together any more.
    some = await rows(client, city.auditor, **april | {"to": "2026-04-20"})
    assert [row["unique_workers"] for row in some] == [0, None, None, None]


async def test_where_a_figure_of_a_branch_comes_from(client: httpx.AsyncClient, city: City) -> None:
    async def source(**query: Any) -> httpx.Response:
        params = TODAY | {"by": "branch", "figure": "visits"} | query
        url = "/v1/admin/reports/visits/source"
        return await client.get(url, params=params, headers=city.auditor.headers)

    near = {"unit": str(city.units["渝中区"].id)}
    for asked in ({}, near):
        for row in await rows(client, city.auditor, **asked):
            found = (await source(**asked, of_unit=row["unit"])).json()
            assert found["value"] == row["visits"], row["name"]
            assert sum(counter["sum"] for counter in found["counters"]) == row["visits"]
    # Rows stand behind it where they are of one station: the district's own of the two of a row.
    station = str(city.stations["CQ0003"].id)
    found = (await source(station=station, of_unit=near["unit"])).json()
    assert (found["value"], len(found["rows"])) == (2, 2)
    street, nobody = str(city.units["解放碑街道"].id), str(city.units["新区"].id)
    for wrong in ({}, {"of_unit": street}, {"of_unit": nobody}, {"of_station": "CQ0001"}):
        answer = await source(**wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "row_unknown"), wrong
    assert "of_unit" in (await source()).json()["detail"]


async def test_branches_are_compared_each_with_itself_before(
    client: httpx.AsyncClient, city: City
) -> None:
    """A Thursday and a Friday, and before them two days of the same week."""
    days = {"from": "2026-11-19", "to": "2026-11-21", "compare": "before"}
    found = await rows(client, city.auditor, **days)
    told = {row["name"]: (row["visits"], row["visits_before"]) for row in found}
    assert told == {"渝中区": (3, 0.0), "江津区": (0, 1.0), "市（本级）": (1, 1.0)}
    answer = await asks(client, city.auditor, compare="before", by="day")
    assert "branch" in answer.json()["detail"]


@pytest.mark.parametrize("by", ["unit", "branch", "operating_model", "all"])
async def test_the_source_of_a_figure_of_before_tells_of_stations_that_were_retired_since(
    client: httpx.AsyncClient, runtime: Runtime, city: City, by: str
) -> None:
    async with runtime.database.write() as tx:
        gone = await a_station(tx, unit=city.units["渝中区"], at=EARLY, code="CQ0008")
        gone.retired_at = datetime(2026, 11, 18, 12, tzinfo=UTC)
        worker = await a_worker(tx, runtime, at=EARLY)
        await come(tx, gone, [worker], datetime(2026, 11, 17, 3, tzinfo=UTC))
    await rolled(runtime)
    days = {"from": "2026-11-19", "to": "2026-11-21", "by": by}
    found = await rows(client, city.auditor, **days, compare="before")
    assert sum(row["visits_before"] for row in found) == 3
    for row in found:
        names = {f"of_{name}": row[name] for name in ("unit", "operating_model") if row[name]}
        answer = await client.get(
            "/v1/admin/reports/visits/source",
            params=days | names | {"figure": "visits_before"},
            headers=city.auditor.headers,
        )
        told = answer.json()
        wanted = row["visits_before"], row["before_known_share"]
        assert (told["value"], told["known_share"]) == wanted, row["name"]


async def test_branches_leave_as_a_file_and_are_cut_by_time(
    client: httpx.AsyncClient, city: City
) -> None:
    answer = await asks(client, city.auditor, format="csv")
    assert answer.status_code == 200
    text = answer.text.removeprefix("\ufeff")
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    (name,) = [field for field in lines[0] if field.endswith("(name)")]
    (visits,) = [field for field in lines[0] if field.endswith("(visits)")]
    expected = [(name, str(visits)) for name, visits, _ in CITY_ROWS]
    assert [(line[name], line[visits]) for line in lines] == expected
    assert (await asks(client, city.auditor, format="xlsx")).status_code == 200
    hours = await rows(client, city.auditor, bucket="hour")
    assert len(hours) == 3 * 24
    for name, visits, _ in CITY_ROWS:
        assert sum(row["visits"] or 0 for row in hours if row["name"] == name) == visits
