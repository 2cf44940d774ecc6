"""What is usual at stations, from rollups: profiles, live figures, forecasts, and who sees."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import jobs
from app.audit import COMMAND_LINE
from app.db.upsert import upsert
from app.people.rules import Role
from app.places.rules import ChangeKind, Kind, Tier
from app.places.stations import Wanted, add_change
from app.places.tables import Station, Unit
from app.reports import vectors
from app.reports.changes import CLOSED, move
from app.reports.rules import Grain
from app.reports.rules.counters import QUARTERS, C
from app.reports.tables import Rollup
from app.runtime import Runtime
from app.usual.rules import UsualClass
from app.usual.tables import UsualProfile
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.tables import VoidBecause
from tests.conftest import Clock
from tests.reports.test_rollup import a_visit
from tests.support.statements import statements_of
from tests.support.worlds import (
    SomeAdmin,
    SomeWorker,
    a_controller,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio

TODAY = date(2026, 11, 23)
"""The Monday of the tests' clock, in Chongqing."""
FRIDAY = date(2026, 11, 20)
"""The last workday before."""


async def a_day(
    tx: AsyncSession,
    place: Station | Unit,
    day: date,
    inside: Mapping[int, float],
) -> None:
    """Write down a day as if it had been counted: persons inside by hour."""
    hours = {
        hour: {C.QUARTER + quarter: round(persons * 900_000) for quarter in range(QUARTERS)}
        for hour, persons in inside.items()
    }
    await counted(tx, place, day, hours)


async def counted(
    tx: AsyncSession, place: Station | Unit, day: date, hours: Mapping[int, Mapping[int, int]]
) -> None:
    """Write down a day as if these counters by hour had been counted."""
    await tx.execute(
        upsert(tx, Rollup).values(
            place_id=place.id,
            grain=Grain.DAY,
            from_day=day,
            counts=b"",
            hours=vectors.packed_hours(hours),
            peak=0.0,
            uniques=0,
            crowd=b"",
            rolled_at=place.created_at,
        )
    )


async def weeks(tx: AsyncSession, place: Station | Unit, inside: Mapping[int, float]) -> None:
    """Write down eight weeks in which every day was the same."""
    for number in range(1, 57):
        await a_day(tx, place, TODAY - timedelta(days=number), inside)


async def came(
    tx: AsyncSession, station: Station, hour: int, workers: Iterable[SomeWorker], *, day: date
) -> None:
    """Write down that these workers came in an hour of a day."""
    at = datetime.combine(day, time(hour), ZoneInfo("Asia/Shanghai")).astimezone(UTC)
    for worker in workers:
        tx.add(a_visit(station, at, written=at, worker_id=worker.id))
    await tx.flush()


async def make(runtime: Runtime) -> None:
    job = jobs.find("usual-profiles")
    assert job is not None
    await jobs.run_once(runtime, job)


async def put_inside(runtime: Runtime, station: Station, persons: int) -> None:
    async with runtime.database.write() as tx:
        for _ in range(persons):
            worker = await a_worker(tx, runtime, at=runtime.now())
            arrival = Arrival(
                station_id=station.id,
                timezone=station.timezone,
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=None,
                mode=Kind.SCAN,
                party_size=1,
                max_stay=timedelta(hours=1),
            )
            await presence.open_visit(tx, arrival, started_at=runtime.now())


async def told(client: httpx.AsyncClient, path: str, admin: SomeAdmin) -> Any:
    answer = await client.get(path, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_station_with_few_visitors_shows_no_level_and_says_that_it_hides_them(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        unit = await a_unit(tx, at=early)
        quiet = await a_station(tx, unit=unit, at=early, code="QUIET")
        lively = await a_station(tx, unit=unit, at=early, code="LIVELY")
        await a_station(tx, unit=unit, at=early, code="NEW")
        await weeks(tx, quiet, {23: 12})
        await weeks(tx, lively, {23: 12, 2: 1, 3: 12})
        ten = [await a_worker(tx, runtime, at=early) for _ in range(10)]
        await came(tx, quiet, 23, ten[:3], day=FRIDAY)
        await came(tx, lively, 23, ten[:5], day=FRIDAY)
        await came(tx, lively, 23, ten[5:], day=FRIDAY - timedelta(days=7))
        await came(tx, lively, 2, ten, day=FRIDAY)
        # Ten came at three, but not ten different ones, and not all on such days.
        await came(tx, lively, 3, [*ten[:9], ten[0]], day=FRIDAY)
        await came(tx, lively, 3, ten[9:], day=FRIDAY + timedelta(days=1))
    before = (await client.get("/v1/stations/QUIET")).json()
    assert before["usual"] is None
    await make(runtime)

    found = (await client.get("/v1/stations/QUIET")).json()["usual"]
    assert (found["suppressed"], found["k"]) == (True, 10)
    assert (found["levels"], found["hidden_hours"]) == ([None] * 24, [*range(24)])
    assert found["says"] == "工作日 23:00 左右的扫码记录太少，不公布。"
    async with runtime.database.read() as tx:
        kept = await tx.get_one(UsualProfile, (quiet.id, "workday"))
        assert kept.levels == [None] * 24

    found = (await client.get("/v1/stations/LIVELY")).json()["usual"]
    assert (found["day_class"], found["suppressed"]) == ("workday", True)
    assert found["levels"] == [None, None, "空闲", *[None] * 20, "较多"]
    assert found["hidden_hours"] == [0, 1, *range(3, 23)]
    assert found["says"] == "工作日 23:00 左右通常人较多。"

    # Nothing was ever counted there: that is no emptiness.
    found = (await client.get("/v1/stations/NEW")).json()["usual"]
    assert (found["suppressed"], found["levels"], found["says"]) == (False, [None] * 24, None)


async def test_what_is_usual_is_said_for_the_hour_in_the_callers_language(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now() - timedelta(days=100))
        await weeks(tx, station, {2: 1})
        ten = [await a_worker(tx, runtime, at=runtime.now()) for _ in range(10)]
        await came(tx, station, 2, ten, day=FRIDAY)
    await make(runtime)
    clock.advance(3 * 3600)
    path = f"/v1/stations/{station.code}"
    english = await client.get(path, headers={"Accept-Language": "en"})
    assert english.json()["usual"]["says"] == "Usually quiet at 02:00 on workdays."
    assert (await client.get(path)).json()["usual"]["says"] == "工作日 02:00 左右通常空闲。"


async def test_anybody_may_ask_what_is_usual_on_other_days_under_the_same_privacy_rule(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    saturday = FRIDAY + timedelta(days=1)
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now() - timedelta(days=100), capacity=20)
        other = await a_station(tx, at=runtime.now())
        for number in range(1, 57):
            day = TODAY - timedelta(days=number)
            await a_day(tx, station, day, {2: 1 if day.weekday() < 5 else 20, 3: 12})
        ten = [await a_worker(tx, runtime, at=runtime.now()) for _ in range(10)]
        await came(tx, station, 2, ten, day=FRIDAY)
        await came(tx, station, 2, ten, day=saturday)
        # Ten came at three, and at weekends only nine of them.
        await came(tx, station, 3, ten, day=FRIDAY)
        await came(tx, station, 3, ten[:9], day=saturday)
    path = f"/v1/stations/{station.code}/usual"
    assert (await client.get(path)).json() == []
    await make(runtime)

    english = {"Accept-Language": "en"}
    workday, weekend, holiday = (await client.get(path, params={"hour": 2}, headers=english)).json()
    assert [one["day_class"] for one in (workday, weekend, holiday)] == [*UsualClass]
    assert workday["says"] == "Usually quiet at 02:00 on workdays."
    assert weekend["says"] == "Usually full at 02:00 at weekends."
    assert (holiday["says"], holiday["like_days"]) == (None, 0)
    assert (workday["like_days"], weekend["like_days"]) == (40, 16)
    assert (workday["levels"][2:4], weekend["levels"][2:4]) == (["空闲", "较多"], ["已满", None])
    assert 3 in weekend["hidden_hours"]
    assert 3 not in workday["hidden_hours"]
    found = (await client.get(path, params={"hour": 3}, headers=english)).json()
    assert found[0]["says"] == "Usually busy at 03:00 on workdays."
    assert found[1]["says"] == "Too little is recorded of 03:00 at weekends to be shown."
    # By default it is of this hour: 23:40.
    now = (await client.get(path)).json()
    assert now[0] == (await client.get(f"/v1/stations/{station.code}")).json()["usual"]
    assert now[1]["says"] == "周末 23:00 左右的扫码记录太少，不公布。"
    for asked in ("24", "-1", "x"):
        assert (await client.get(path, params={"hour": asked})).status_code == 422
    assert (await client.get(f"/v1/stations/{other.code}x/usual")).status_code == 404


async def test_workers_without_consent_erased_and_taken_back_count_for_none(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        station = await a_station(tx, at=early)
        await weeks(tx, station, {23: 12})
        nine = [await a_worker(tx, runtime, at=early) for _ in range(9)]
        await came(tx, station, 23, nine, day=FRIDAY)
        at = datetime(2026, 11, 20, 15, tzinfo=UTC)
        tx.add(a_visit(station, at, written=at))
        tx.add(a_visit(station, at, written=at, erased_number=7))
        ghost = await a_worker(tx, runtime, at=early)
        was_not = {"voided_at": at, "void_because": VoidBecause.NOT_OPENED}
        tx.add(a_visit(station, at, 0, written=at, worker_id=ghost.id, **was_not))
    await make(runtime)
    found = (await client.get(f"/v1/stations/{station.code}")).json()["usual"]
    assert found["levels"][23] is None


async def test_administrators_see_how_busy_it_is_beside_places_and_what_is_usual(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        unit = await a_unit(tx, at=early)
        usual_two = await a_station(tx, unit=unit, at=early, code="B", capacity=20)
        new = await a_station(tx, unit=unit, at=early, code="A", capacity=0)
        await a_station(tx, unit=unit, at=early, code="GONE", retired_at=runtime.now())
        await weeks(tx, usual_two, {23: 2})
        await a_controller(tx, usual_two, at=runtime.now())
        admin = await an_admin(tx, at=runtime.now())
    await make(runtime)
    await put_inside(runtime, usual_two, 5)
    one = await told(client, f"/v1/admin/stations/{usual_two.id}/occupancy", admin)
    assert (one["inside"], one["busy_vs_capacity"], one["busy_vs_usual"]) == (5, 0.25, 2.5)
    assert one["usual"] == {
        "day_class": "workday",
        "quarter": "23:30",
        "median": 2,
        "days": 8,
        "made_at": "2026-11-23T15:40:00Z",
    }
    assert (one["level"], one["reserved"]) == ("较少", 0)
    assert (one["is_known"], one["unknown_because"]) == (True, None)
    listed = await told(client, "/v1/admin/occupancy", admin)
    assert [row["code"] for row in listed] == ["A", "B"]
    assert listed[1] == one | {"id": str(usual_two.id), "code": "B", "name": "解放碑驿站"}
    assert listed[0]["id"] == str(new.id)
    assert (listed[0]["busy_vs_capacity"], listed[0]["busy_vs_usual"]) == (None, None)
    assert (listed[0]["usual"]["median"], listed[0]["usual"]["days"]) == (None, 0)


async def test_what_a_station_is_compared_with_is_told_also_where_it_is_not_known_how_full_it_is(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        station = await a_station(tx, at=early)  # No controller.
        for number in (3, 4, 5):  # Friday, Thursday, Wednesday: too few for a median.
            await a_day(tx, station, TODAY - timedelta(days=number), {23: 2})
        admin = await an_admin(tx, at=runtime.now())
    path = f"/v1/admin/stations/{station.id}/occupancy"
    assert (await told(client, path, admin))["usual"] is None
    await make(runtime)
    one = await told(client, path, admin)
    assert (one["is_known"], one["busy_vs_usual"]) == (False, None)
    assert (one["usual"]["median"], one["usual"]["days"]) == (None, 3)
    async with runtime.database.write() as tx:  # As a profile of an earlier version is.
        await tx.execute(sa.update(UsualProfile).values(median_days=sa.null()))
    assert (await told(client, path, admin))["usual"]["days"] is None


async def test_the_live_list_is_paged_and_costs_the_same_however_many_it_shows(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=runtime.now())
        for number in range(5):
            await a_station(tx, unit=unit, at=runtime.now(), code=f"C{number}")
        admin = await an_admin(tx, at=runtime.now())
    seen, costs, url = [], set(), "/v1/admin/occupancy?limit=2"
    await told(client, url, admin)  # A connection's first statements are its own.
    while url:
        with statements_of(runtime.database) as sent:
            answer = await client.get(url, headers=admin.headers)
        seen += [row["code"] for row in answer.json()]
        # The calendar is read anew whenever its bell rings, as it does at the start.
        costs.add(len([each for each in sent if "calendar_days" not in each]))
        url = answer.links.get("next", {}).get("url", "")
    assert seen == [f"C{number}" for number in range(5)]
    assert len(costs) == 1


async def test_live_figures_and_forecasts_stop_at_the_branch(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        root = await a_unit(tx, at=at)
        near = await a_unit(tx, parent=root, at=at, name="渝中区总工会")
        far = await a_unit(tx, parent=root, at=at, name="江津区总工会")
        own = await a_station(tx, unit=near, at=at, code="OWN")
        other = await a_station(tx, unit=far, at=at, code="OTHER")
        admin = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=near)
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=own)
    listed = await told(client, "/v1/admin/occupancy", admin)
    assert [row["code"] for row in listed] == ["OWN"]
    listed = await told(client, f"/v1/admin/occupancy?unit={near.id}", admin)
    assert [row["code"] for row in listed] == ["OWN"]
    await told(client, f"/v1/admin/units/{near.id}/forecast", admin)
    await told(client, f"/v1/admin/stations/{own.id}/forecast", keeper)
    for who, path in (
        (admin, f"/v1/admin/occupancy?unit={far.id}"),
        (admin, f"/v1/admin/stations/{other.id}/forecast"),
        (admin, f"/v1/admin/units/{far.id}/forecast"),
        (admin, f"/v1/admin/units/{root.id}/forecast"),
        (keeper, f"/v1/admin/stations/{other.id}/forecast"),
        (keeper, f"/v1/admin/units/{near.id}/forecast"),
    ):
        answer = await client.get(path, headers=who.headers)
        assert answer.status_code == 404, path
    assert (await client.get(f"/v1/admin/stations/{own.id}/forecast")).status_code == 401


async def test_a_station_and_a_unit_are_forecast_for_24_hours_with_their_skill(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        unit = await a_unit(tx, at=early)
        station = await a_station(tx, unit=unit, at=early)
        for number in range(1, 60):
            day = TODAY - timedelta(days=number)
            await a_day(tx, station, day, {8: number % 8})
            await a_day(tx, unit, day, {8: 100})
        admin = await an_admin(tx, at=runtime.now())
    found = await told(client, f"/v1/admin/stations/{station.id}/forecast", admin)
    hours = found["hours"]
    assert len(hours) == 24
    assert hours[0]["from"] == "2026-11-23T15:00:00Z"  # 23:00, which has begun.
    assert hours[-1]["until"] == "2026-11-24T15:00:00Z"
    assert (hours[0]["persons"], hours[0]["values"]) == (0, 8)
    eight = next(hour for hour in hours if hour["from"] == "2026-11-24T00:00:00Z")
    # The last eight workdays lie 3, 4, 5, 6, 7, 10, 11, 12 days back.
    assert (eight["persons"], eight["low"], eight["high"]) == (4, 3, 6)
    assert found["skill"]["hours"] == 28 * 24
    assert found["skill"]["skill"] < 1
    # Before its stations' profiles are made, nobody knows of whom the unit's sums are.
    found = await told(client, f"/v1/admin/units/{unit.id}/forecast", admin)
    assert {hour["unexpected_because"] for hour in found["hours"]} == {"few_stations"}
    assert {hour["persons"] for hour in found["hours"]} == {None}
    await make(runtime)
    found = await told(client, f"/v1/admin/units/{unit.id}/forecast", admin)
    eight = next(hour for hour in found["hours"] if hour["from"] == "2026-11-24T00:00:00Z")
    assert (eight["persons"], eight["low"], eight["high"]) == (100, 100, 100)
    assert (eight["stations_share"], eight["unexpected_because"]) == (1, None)
    assert (found["skill"]["mae"], found["skill"]["skill"]) == (0, None)


async def test_an_open_door_that_nobody_scans_at_is_not_forecast_to_be_empty(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """No controller, open from 8 to 18; in the evening it is closed, and nobody can be inside."""
    hour_ms = 3_600_000
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        unit = await a_unit(tx, at=early)
        stations = [await a_station(tx, unit=unit, at=early) for _ in range(3)]
        for number in range(1, 60):
            day = TODAY - timedelta(days=number)
            free = {hour: {C.STAFFED_MS: hour_ms} for hour in range(8, 18)}
            scanned = {hour: counts | {C.VISITS_FREE: 1} for hour, counts in free.items()}
            await counted(tx, stations[0], day, scanned)
            for station in stations[1:]:
                await counted(tx, station, day, free)
            of_all = {h: {C.STAFFED_MS: 3 * hour_ms, C.VISITS_FREE: 1} for h in free}
            await counted(tx, unit, day, of_all)
        admin = await an_admin(tx, at=runtime.now())
    await make(runtime)

    async def ahead(place: str) -> tuple[Any, Any]:
        found = await told(client, f"/v1/admin/{place}/forecast", admin)
        by_day = [hour for hour in found["hours"] if "T00" <= hour["from"][10:13] < "T10"]
        by_night = [hour for hour in found["hours"] if hour not in by_day]
        for hours in (by_day, by_night):
            assert len({str({**hour, "from": 0, "until": 0}) for hour in hours}) == 1
        assert found["skill"]["hours"] == 28 * (24 if by_day[0]["persons"] == 0 else 14)
        return by_day[0], by_night[0]

    by_day, by_night = await ahead(f"stations/{stations[1].id}")
    assert (by_day["persons"], by_day["low"], by_day["high"]) == (None, None, None)
    assert (by_day["unexpected_because"], by_day["values"]) == ("hardly_counted", 0)
    assert (by_night["persons"], by_night["unexpected_because"]) == (0, None)
    by_day, _ = await ahead(f"stations/{stations[0].id}")
    assert (by_day["persons"], by_day["stations_share"]) == (0, None)
    # Two of the unit's three tell nothing of their days.
    by_day, by_night = await ahead(f"units/{unit.id}")
    assert (by_day["persons"], by_day["unexpected_because"]) == (None, "few_stations")
    assert (by_day["stations_share"], by_night["stations_share"]) == (0.3333, 1)
    # Nor is it usual there that nobody comes.
    async with runtime.database.read() as tx:
        for station, usual in ((stations[0], 0), (stations[1], None)):
            kept = await tx.get_one(UsualProfile, (station.id, "workday"))
            assert (kept.medians[8 * 4], kept.medians[18 * 4]) == (usual, 0)
            assert kept.levels[8] is None


HOUR_MS = 3_600_000


def inside_while(persons: float, *, is_open: bool) -> dict[int, int]:
    """Give the counters of an hour of which it is recorded what held."""
    held = {C.RECORDED_MS: HOUR_MS, C.OPEN_MS: HOUR_MS if is_open else 0}
    quarters = {C.QUARTER + number: round(persons * 900_000) for number in range(QUARTERS)}
    return held | quarters


async def test_a_fortnight_in_which_it_was_closed_is_no_measure_for_when_it_is_open(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Of the last eight workdays, the first of which is the 11th, it was closed on three."""
    closed = {date(2026, 11, 16) + timedelta(days=number) for number in range(3)}
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        station = await a_station(tx, at=early)
        ten = [await a_worker(tx, runtime, at=early) for _ in range(10)]
        for number in range(1, 60):
            day = TODAY - timedelta(days=number)
            is_open = day not in closed
            hour = inside_while(12 if is_open else 0, is_open=is_open)
            never = inside_while(0, is_open=False)
            await counted(tx, station, day, {3: never, 22: hour, 23: hour})
        await came(tx, station, 23, ten, day=FRIDAY)
        admin = await an_admin(tx, at=runtime.now())
    await make(runtime)
    path = f"/v1/admin/stations/{station.id}"
    found = await told(client, f"{path}/occupancy", admin)
    assert (found["usual"]["median"], found["usual"]["days"]) == (12, 5)

    async def ahead() -> dict[str, tuple[Any, ...]]:
        hours = (await told(client, f"{path}/forecast", admin))["hours"]
        names = ("persons", "values", "unexpected_because")
        return {hour["from"][11:13]: tuple(hour[name] for name in names) for hour in hours}

    found = await ahead()
    assert (found["15"], found["14"]) == ((12, 5, None), (12, 5, None))
    # Nobody knows what comes at three, when it has never been open, if it is tomorrow.
    assert found["19"] == (None, 0, "few_days")
    # At three it is always closed: that is no quiet hour, and none that hides whoever comes.
    usual = (await client.get(f"/v1/stations/{station.code}")).json()["usual"]
    assert (usual["levels"][23], usual["levels"][3]) == ("较多", None)
    assert 3 not in usual["hidden_hours"]

    # It is closed from 23:50 to 22:30: half an hour of the last hour is open.
    clock.advance(10 * 60)
    async with runtime.database.write() as tx:
        until = runtime.now() + timedelta(hours=22, minutes=40)
        wanted = Wanted(ChangeKind.CLOSED, runtime.now(), until, "停电")
        site = await tx.get_one(Station, station.id)
        terms = {"actor": COMMAND_LINE, "at": runtime.now()}
        await add_change(tx, runtime.wakeups, site, Tier.EXCEPTION, wanted, **terms)
    found = await ahead()
    assert found.pop("14") == (12, 5, None)
    # The hour that has begun was open for a while.
    assert found.pop("15") == (12, 5, None)
    assert {because for *_, because in found.values()} == {"closed"}
    assert {persons for persons, *_ in found.values()} == {None}


async def test_ten_who_came_while_nothing_was_known_do_not_show_the_one_who_comes_since(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """For weeks the link of the controller was down, and twelve came in by passes."""
    silent = {C.COMMISSIONED_MS: HOUR_MS}
    heard = silent | {C.ONLINE_MS: HOUR_MS}
    async with runtime.database.write() as tx:
        early = runtime.now() - timedelta(days=100)
        lonely, lively = [await a_station(tx, at=early, capacity=4) for _ in range(2)]
        workers = [await a_worker(tx, runtime, at=early) for _ in range(12)]
        for station in (lonely, lively):
            for number in range(1, 57):
                day = TODAY - timedelta(days=number)
                counters = inside_while(3, is_open=True) | (heard if number < 15 else silent)
                await counted(tx, station, day, {20: counters})
            await came(tx, station, 20, workers, day=FRIDAY - timedelta(days=28))
        await came(tx, lonely, 20, workers[:1], day=FRIDAY)
        await came(tx, lively, 20, workers[:9], day=FRIDAY)
        await came(tx, lively, 20, workers[9:10], day=FRIDAY - timedelta(days=1))
    await make(runtime)
    found = [(await client.get(f"/v1/stations/{one.code}")).json() for one in (lonely, lively)]
    assert [one["usual"]["levels"][20] for one in found] == [None, "较多"]
    assert [20 in one["usual"]["hidden_hours"] for one in found] == [True, False]


async def test_a_forecast_of_fewer_than_four_days_is_null(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now())
        for number in (3, 4, 5):
            await a_day(tx, station, TODAY - timedelta(days=number), {8: 2})
        admin = await an_admin(tx, at=runtime.now())
    found = await told(client, f"/v1/admin/stations/{station.id}/forecast", admin)
    assert {(hour["persons"], hour["values"]) for hour in found["hours"]} == {(None, 3)}
    assert found["skill"] == {
        "days": 28,
        "hours": 0,
        "mae": None,
        "mae_last_week": None,
        "skill": None,
    }


async def counted_until(runtime: Runtime, at: datetime) -> None:
    async with runtime.database.write() as tx:
        await move(tx, CLOSED, at)


async def test_of_a_history_that_is_not_counted_no_profiles_are_made(runtime: Runtime) -> None:
    """A database that was just filled: whoever looked now would find that nothing is known."""
    job = jobs.find("usual-profiles")
    assert job is not None
    assert not await jobs.is_time(runtime, job)
    await counted_until(runtime, runtime.now())
    assert await jobs.is_time(runtime, job)


async def test_profiles_are_made_anew_every_night_and_whenever_asked(
    runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now() - timedelta(days=100))
        await weeks(tx, station, {23: 2})
    await make(runtime)
    job = jobs.find("usual-profiles")
    assert job is not None
    assert not await jobs.is_time(runtime, job)
    clock.advance(3600)  # 00:40: yesterday may not be counted yet.
    assert not await jobs.is_time(runtime, job)
    clock.advance(3600)
    # The server was down meanwhile: the last hours of yesterday are not counted.
    await counted_until(runtime, runtime.now() - timedelta(hours=3))
    assert not await jobs.is_time(runtime, job)
    await counted_until(runtime, runtime.now())
    assert await jobs.is_time(runtime, job)
    async with runtime.database.write() as tx:
        await tx.execute(sa.delete(Rollup))
        await weeks(tx, station, {23: 6})
    await make(runtime)
    assert not await jobs.is_time(runtime, job)
    async with runtime.database.read() as tx:
        kept = await tx.get_one(UsualProfile, (station.id, "workday"))
    assert kept.medians[23 * 4] == 6
    assert (kept.made_at, kept.days) == (runtime.now(), 39)  # Yesterday has no row.


async def run(runtime: Runtime, *names: str) -> None:
    for name in names:
        job = jobs.find(name)
        assert job is not None
        await jobs.run_once(runtime, job)


async def test_visits_of_a_week_become_what_is_usual_and_what_to_expect(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    eight = datetime(2026, 11, 16, tzinfo=UTC)  # 08:00 on the Monday before.
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=eight - timedelta(days=1), capacity=12)
        admin = await an_admin(tx, at=runtime.now())
        workers = [await a_worker(tx, runtime, at=eight) for _ in range(11)]
        for day in range(5):
            for worker in workers:
                at = eight + timedelta(days=day)
                free = {"worker_id": worker.id, "mode": Kind.FREE}
                tx.add(a_visit(station, at, 60, written=at, **free))
    night = clock.now()
    clock.set(eight)  # What holds is written down from its first day on.
    await run(runtime, "record-modes")
    clock.set(night)
    await run(runtime, "record-modes", "roll-up", "usual-profiles")
    found = (await client.get(f"/v1/stations/{station.code}")).json()["usual"]
    assert found["levels"] == [None] * 24  # Of ten staffed hours, somebody scanned in one.
    for place, why in (
        (f"stations/{station.id}", "hardly_counted"),
        (f"units/{station.unit_id}", "few_stations"),
    ):
        ahead = await told(client, f"/v1/admin/{place}/forecast", admin)
        for hour in ahead["hours"]:
            is_free = "00" <= hour["from"][11:13] < "10"
            wanted = (None, why) if is_free else (0, None)
            assert (hour["persons"], hour["unexpected_because"]) == wanted, hour
    async with runtime.database.read() as tx:
        kept = await tx.get_one(UsualProfile, (station.id, "workday"))
    assert kept.free_coverage == 0.1  # One of ten staffed hours.
