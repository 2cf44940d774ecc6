"""What workers do who came, over HTTP: right where shown, hidden where few, the same for all."""

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import openpyxl
import pytest
import sqlalchemy as sa

from app.cli.places import ANYWHERE
from app.people.rules import Role
from app.people.tables import Occupation
from app.places.rules import Kind
from app.places.tables import Station, Unit
from app.reports.answers import answer, as_json
from app.reports.asked import Asked, Report, period_of, scope_of
from app.reports.occupations import GROUPS
from app.reports.rules import Bucket, By, Grain
from app.reports.tables import Rollup
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import NIGHT
from tests.support.counting import rolled
from tests.support.worlds import SomeAdmin, SomeWorker, a_station, a_unit, a_worker, an_admin

pytestmark = pytest.mark.anyio

MONTHS = {"from": "2026-09-01", "to": "2026-11-01"}
SEPTEMBER = datetime(2026, 9, 10, 4, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 10, 4, tzinfo=UTC)
PLAN: dict[tuple[datetime, str, str], Iterable[int]] = {
    (OCTOBER, "CQ0001", "rider"): range(9),
    (OCTOBER, "CQ0002", "rider"): range(4, 10),
    (OCTOBER, "CQ0003", "rider"): range(7),
    (OCTOBER, "CQ0004", "rider"): range(8),
    (OCTOBER, "CQ0001", "courier"): range(10, 16),
    (OCTOBER, "CQ0002", "courier"): range(10, 17),
    (OCTOBER, "CQ0003", "courier"): range(10, 12),
    (OCTOBER, "CQ0004", "courier"): range(10, 17),
    (OCTOBER, "CQ0001", "driver"): range(17, 19),
    (SEPTEMBER, "CQ0001", "rider"): range(6),
    (SEPTEMBER, "CQ0004", "rider"): range(3),
    (SEPTEMBER, "CQ0004", "courier"): range(10, 16),
}
"""When, where, what they do, and which workers; CQ0001 and 2 are the district's own, 3 a street's
in it, 4 another district's."""


class City:
    near: Unit
    far: Unit
    stations: dict[str, Station]
    auditor: SomeAdmin


@pytest.fixture
async def city(runtime: Runtime) -> City:
    made, early = City(), NIGHT - timedelta(days=400)
    async with runtime.database.write() as tx:
        root = await a_unit(tx, at=early)
        made.near = await a_unit(tx, parent=root, at=early, name="渝中区总工会")
        street = await a_unit(tx, parent=made.near, at=early, name="街道工会")
        made.far = await a_unit(tx, parent=root, at=early, name="江津区总工会")
        homes = {"CQ0001": made.near, "CQ0002": made.near, "CQ0003": street, "CQ0004": made.far}
        made.stations = {
            code: await a_station(tx, unit=unit, at=early, code=code)
            for code, unit in homes.items()
        }
        made.auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        workers = [await a_worker(tx, runtime, at=early) for _ in range(20)]
        for place, (key, of) in enumerate(PLAN.items()):
            at, code, occupation = key
            for number in of:
                begun = at + timedelta(hours=3 * place, minutes=number)
                await come(tx, made.stations[code], workers[number], Occupation(occupation), begun)
    await rolled(runtime)
    return made


async def come(
    tx: Any, station: Station, worker: SomeWorker, occupation: Occupation, at: datetime
) -> None:
    arrival = Arrival(
        station_id=station.id,
        timezone=station.timezone,
        owner_key=worker.owner_key,
        worker_id=worker.id,
        occupation=occupation,
        mode=Kind.SCAN,
        party_size=2,
        max_stay=timedelta(minutes=60),
    )
    await presence.open_visit(tx, arrival, started_at=at)


async def asks(client: httpx.AsyncClient, who: SomeAdmin, **query: Any) -> httpx.Response:
    return await client.get(
        "/v1/admin/reports/occupations", params=MONTHS | query, headers=who.headers
    )


async def rows(client: httpx.AsyncClient, who: SomeAdmin, **query: Any) -> list[dict[str, Any]]:
    answer = await asks(client, who, **query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def planned(codes: Iterable[str], occupation: str, months: Iterable[datetime]) -> tuple[int, int]:
    sets = [set(PLAN.get((month, code, occupation), ())) for code in codes for month in months]
    return sum(map(len, sets)), len(set().union(*sets))


async def test_what_is_shown_is_what_happened_and_few_are_never_shown(
    client: httpx.AsyncClient, city: City
) -> None:
    branches = {
        "station": {code: [code] for code in city.stations},
        "unit": {
            "渝中区总工会": ["CQ0001", "CQ0002"],
            "街道工会": ["CQ0003"],
            "江津区总工会": ["CQ0004"],
        },
        "branch": {
            "渝中区总工会": ["CQ0001", "CQ0002", "CQ0003"],
            "江津区总工会": ["CQ0004"],
        },
        "all": {"全部": list(city.stations)},
    }
    for by, places in branches.items():
        shown = defaultdict(set)
        for row in await rows(client, city.auditor, **{"from": "2026-10-01"}, by=by):
            codes = places[row["station"] or row["name"]]
            visits, workers = planned(codes, row["occupation"], [OCTOBER])
            assert row["k"] == 5
            assert row["suppressed"] is (row["visits"] is None)
            if workers < 5:
                assert row["suppressed"], row
            if not row["suppressed"]:
                shown[row["occupation"]].add(codes[0])
                told = (row["visits"], row["persons"], row["unique_workers"])
                assert told == (visits, 2 * visits, workers), row
                assert row["visits_share"] == round(visits / row["all_visits"], 4)
            names = {key[2] for key in PLAN}
            assert row["all_visits"] == sum(planned(codes, n, [OCTOBER])[0] for n in names)
        assert shown, by


async def test_one_hidden_month_hides_the_sum_of_months_and_no_question_is_answered_otherwise(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        keeper = await an_admin(
            tx, at=NIGHT, role=Role.STATION_KEEPER, station=city.stations["CQ0004"]
        )
    both = await rows(client, city.auditor)
    by_month = await rows(client, city.auditor, bucket="month")
    for row in both:
        mine = [
            one
            for one in by_month
            if (one["station"], one["occupation"]) == (row["station"], row["occupation"])
        ]
        assert len(mine) == 2
        if any(one["suppressed"] for one in mine):
            assert row["visits"] is None
        else:
            assert row["visits"] == sum(one["visits"] for one in mine)
    (riders,) = [row for row in both if (row["station"], row["occupation"]) == ("CQ0004", "rider")]
    assert riders["suppressed"], "three riders came in September"
    # Whoever asks, and about whatever part, hears the same.
    mine = [row for row in both if row["station"] == "CQ0004"]
    assert await rows(client, keeper) == mine
    assert await rows(client, city.auditor, unit=str(city.far.id)) == mine
    assert await rows(client, city.auditor, station=str(city.stations["CQ0004"].id)) == mine


async def test_branches_are_told_as_by_every_other_question_about_the_same_places(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """As each district alone, and as what a district keeps itself; some of it is hidden."""
    figures = ("occupation", "visits", "persons", "unique_workers", "all_visits", "suppressed")

    def told(rows: list[dict[str, Any]], **of: str) -> list[list[Any]]:
        mine = [row for row in rows if all(row[name] == value for name, value in of.items())]
        return [[row[name] for name in figures] for row in mine]

    near, far = {"unit": str(city.near.id)}, {"unit": str(city.far.id)}
    for months in ({}, {"from": "2026-10-01"}):
        districts = await rows(client, city.auditor, by="branch", **months)
        for one in (near, far):
            alone = await rows(client, city.auditor, by="all", **one, **months)
            assert told(districts, **one) == told(alone)
        streets = await rows(client, city.auditor, by="branch", **near, **months)
        by_unit = await rows(client, city.auditor, by="unit", **near, **months)
        assert told(streets) == told(by_unit)
        assert {row["name"] for row in streets} == {"渝中区总工会（本级）", "街道工会"}
        assert any(row["suppressed"] for row in streets)
        async with runtime.database.write() as tx:
            mine = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=city.near)
        assert told(await rows(client, mine, by="branch", **months)) == told(streets)


async def test_what_a_unit_keeps_itself_is_told_beside_a_station_that_was_gone_before(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    october = {"from": "2026-10-01"}
    async with runtime.database.write() as tx:
        early, left = NIGHT - timedelta(days=400), NIGHT - timedelta(days=200)
        await a_station(tx, unit=city.near, at=early, retired_at=left, code="CQ0000")
    await rolled(runtime)
    own = {"unit": str(city.near.id)}
    for by in ("unit", "branch"):
        found = await rows(client, city.auditor, by=by, **own, **october)
        mine = [row for row in found if row["unit"] == own["unit"]]
        assert {row["all_visits"] for row in mine} == {9 + 6 + 6 + 7 + 2}


async def test_spans_counted_before_numbers_were_kept_are_told_from_their_sets(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    far: dict[str, Any] = {"station": str(city.stations["CQ0004"].id)}
    queries: list[dict[str, Any]] = [
        {"by": by} | bucket | only
        for by in ("station", "unit", "branch", "all")
        for bucket in ({}, {"bucket": "month"})
        for only in ({}, far)
    ]
    told = [await rows(client, city.auditor, **query) for query in queries]
    await change_months(runtime, occupations=None)
    assert [await rows(client, city.auditor, **query) for query in queries] == told


async def test_where_numbers_are_kept_no_set_is_read(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    only = {"station": str(city.stations["CQ0004"].id), "bucket": "month"}
    told = await rows(client, city.auditor, **only)
    assert any(row["unique_workers"] for row in told)
    await change_months(runtime, crowd=b"no set")
    assert await rows(client, city.auditor, **only) == told


async def change_months(runtime: Runtime, **values: Any) -> None:
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Rollup).where(Rollup.grain == Grain.MONTH).values(**values))


async def test_only_whole_months_that_are_over_and_places_of_the_tree(
    client: httpx.AsyncClient, city: City
) -> None:
    for query in (
        {"from": "2026-10-02"},
        {"to": "2026-11-02"},
        {"by": "day"},
        {"by": "operating_model"},
        {"bucket": "week"},
    ):
        answer = await asks(client, city.auditor, **query)
        assert (answer.status_code, answer.json()["code"]) == (422, "period_invalid"), query
    now = {"from": "2026-11-01", "to": "2026-12-01"}
    for row in await rows(client, city.auditor, **now):
        assert (row["visits"], row["suppressed"], row["all_visits"]) == (None, False, None)
    past = {"from": "2026-03-01", "to": "2026-04-01"}
    for row in await rows(client, city.auditor, **past, by="month"):
        assert (row["visits"], row["beyond_retention"]) == (None, True)
    empty = {"from": "2026-08-01", "to": "2026-09-01"}
    for row in await rows(client, city.auditor, **empty, by="all"):
        assert (row["visits"], row["suppressed"], row["all_visits"]) == (0, False, 0)


async def test_a_month_in_which_nobody_came_hides_nothing_of_the_months_around_it(
    client: httpx.AsyncClient, city: City
) -> None:
    """The city opens in September; who asks from August on hears the same."""
    september = {"by": "all", "to": "2026-10-01"}
    since = await rows(client, city.auditor, **september)
    before = await rows(client, city.auditor, **september, **{"from": "2026-08-01"})
    assert any(row["visits"] for row in since)
    figures = ("occupation", "visits", "unique_workers", "suppressed", "all_visits")
    told = [[row[name] for name in figures] for row in since]
    assert [[row[name] for name in figures] for row in before] == told


async def test_the_report_leaves_as_a_file(client: httpx.AsyncClient, city: City) -> None:
    for form in ("csv", "xlsx"):
        assert (await asks(client, city.auditor, format=form)).status_code == 200


@pytest.mark.parametrize(
    "cut",
    [
        {"by": "station", "bucket": "month"},
        {"by": "branch", "bucket": "month"},
        {"by": "month"},
        {"by": "station"},
    ],
    ids=str,
)
async def test_a_file_says_month_by_month_what_the_report_says(
    client: httpx.AsyncClient,
    runtime: Runtime,
    city: City,
    monkeypatch: pytest.MonkeyPatch,
    cut: dict[str, str],
) -> None:
    """With what is hidden in it: no month is hidden by another; a row of two waits for both."""
    wanted = await rows(client, city.auditor, **cut)
    monkeypatch.setattr("app.reports.frame.AT_ONCE", 3)
    bucket = Bucket(cut["bucket"]) if "bucket" in cut else None
    period = period_of(*(date.fromisoformat(MONTHS[name]) for name in ("from", "to")))
    asked = Asked(Report.OCCUPATIONS, period, By(cut["by"]), bucket)
    days = (await runtime.calendar.fresh(runtime.database)).current
    retention = timedelta(days=runtime.settings.retention_days)
    async with runtime.database.read() as tx:
        scope = await scope_of(tx, ANYWHERE, asked, days, retention=retention, at=runtime.now())
        told = await answer(
            tx, asked, scope, silence=timedelta(0), streams=True, is_whole_city=True
        )
    portions: list[int] = []
    pieces = [bytes(one) async for one in as_json(runtime.database.read, told, portions.append)]
    found = json.loads(b"".join(pieces))["rows"]
    assert [row["day"] or "" for row in found] == sorted(row["day"] or "" for row in found)
    places = list(dict.fromkeys((row["station"], row["unit"]) for row in wanted))
    # The same rows; within a month in the same order.
    found.sort(key=lambda row: places.index((row["station"], row["unit"])))
    assert found == wanted
    assert any(row["suppressed"] for row in found)
    assert (len(portions), sum(portions)) == (told.portions, told.least)
    assert max(portions) <= 3 * len(GROUPS)


async def test_what_is_too_long_for_one_answer_is_a_file(
    client: httpx.AsyncClient, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = {"by": "station", "bucket": "month"}
    length = len(await rows(client, city.auditor, **cut))
    monkeypatch.setattr("app.reports.occupations.MOST_ROWS", length - 1)
    refused = await asks(client, city.auditor, **cut)
    assert (refused.status_code, refused.json()["code"]) == (422, "period_invalid")
    # By that word the page offers the file.
    assert f"at most {length - 1} rows, and this would be {length}" in refused.json()["detail"]
    written = await asks(client, city.auditor, **cut, format="csv")
    assert written.status_code == 200, written.text
    assert len(written.text.splitlines()) == 1 + length
    book = await asks(client, city.auditor, **cut, format="xlsx")
    assert openpyxl.load_workbook(io.BytesIO(book.content))["报表"].max_row == 1 + length


async def test_a_unit_without_stations_has_no_rows_over_months_either(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        bare = await a_unit(tx, at=NIGHT - timedelta(days=400), name="没有驿站的工会")
    for by in ("station", "unit", "branch"):
        assert await rows(client, city.auditor, unit=str(bare.id), by=by) == []
