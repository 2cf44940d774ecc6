"""Where figures come from, told where it matters: what was not kept, not met, not heard."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import sqlalchemy as sa

from app.db.types import new_id
from app.doors.rules import Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import Controller, JournalEntry, OfflineEntry, Scan
from app.people.rules import Role
from app.places.rules import CITY_ZONE, Because, Kind
from app.places.tables import Station, StationModes, Unit
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.tables import WalkInCount
from tests.conftest import NIGHT, Clock
from tests.support.counting import rolled
from tests.support.worlds import SomeAdmin, a_controller, a_door, a_station, a_unit, an_admin

pytestmark = pytest.mark.anyio

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
MONDAY = datetime(2026, 11, 23, tzinfo=ZoneInfo(CITY_ZONE)).astimezone(UTC)
TODAY = {"from": "2026-11-23", "to": "2026-11-24"}


class Place:
    """A station with a controller, and who asks about it."""

    station: Station
    box: Any
    auditor: SomeAdmin


@pytest.fixture
async def place(runtime: Runtime, clock: Clock) -> Place:
    made, early = Place(), NIGHT - timedelta(days=400)
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=early)
        made.station = await a_station(tx, unit=unit, at=early, code="CQ0001")
        made.box, _ = await a_controller(tx, made.station, at=NIGHT - timedelta(days=30))
        made.auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
    return made


async def heard(runtime: Runtime, place: Place, at: datetime) -> None:
    async with runtime.database.write() as tx:
        of_it = sa.update(Controller).where(Controller.id == place.box)
        await tx.execute(of_it.values(seen_at=at))


async def asks(
    client: httpx.AsyncClient, place: Place, report: str, figure: str, **more: str
) -> dict[str, Any]:
    """Ask page by page, and give the first answer with the rows of all."""
    asked = TODAY | {"figure": figure, "station": str(place.station.id), "limit": "3"} | more
    path, rows = f"/v1/admin/reports/{report}/source", list[Any]()
    while True:
        answer = await client.get(path, params=asked, headers=place.auditor.headers)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        rows += body["rows"] or []
        if body["next"] is None:
            return body | {"rows": rows}
        asked["cursor"] = body["next"]


def hours_of(rows: list[Any], **kind: str) -> float:
    """Sum up the rows that are so."""
    return sum(
        (datetime.fromisoformat(row["until_at"]) - datetime.fromisoformat(row["from_at"])) / HOUR
        for row in rows
        if all(row[name] == value for name, value in kind.items())
    )


async def held(runtime: Runtime, place: Place, *windows: tuple[int, int, Kind, Because]) -> None:
    """Write down what held today, of a promise from 8 to 18."""
    hour = 3_600_000
    async with runtime.database.write() as tx:
        await tx.execute(sa.delete(StationModes))
        tx.add(
            StationModes(
                station_id=place.station.id,
                local_day=date(2026, 11, 23),
                midnight_at=MONDAY,
                windows=[[since * hour, until * hour, *held] for since, until, *held in windows],
                promised=[[8 * hour, 18 * hour]],
                recorded_until=MONDAY + 23 * HOUR,
                changed_at=NIGHT,
            )
        )


async def test_a_promise_that_an_override_broke_shows_it(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """All day closed, with the controller heard: ten hours promised, none kept, and why."""
    await heard(runtime, place, NIGHT)
    await held(runtime, place, (0, 23, Kind.CLOSED, Because.OVERRIDE))
    await rolled(runtime)
    for figure, value in (("promise_rate", 0.0), ("usable_hours", 0.0), ("unknown_hours", 0.0)):
        found = await asks(client, place, "promise", figure)
        assert (found["value"], found["row_kind"]) == (value, "promised")
        (row,) = found["rows"]
        assert (row["mode"], row["because"]) == ("closed", "override")
        assert (row["heard"], row["counts"]) == ("controller", "unusable")
        assert hours_of([row]) == 10


async def test_the_rows_of_a_promise_add_up_to_what_was_kept_of_it(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Heard until 10, heads counted from 12 to 13, closed by an override from 15 on."""
    await heard(runtime, place, MONDAY + 10 * HOUR)
    await held(
        runtime,
        place,
        (0, 8, Kind.CLOSED, Because.WEEKLY),
        (8, 15, Kind.FREE, Because.WEEKLY),
        (15, 23, Kind.CLOSED, Because.OVERRIDE),
    )
    async with runtime.database.write() as tx:
        tx.add(
            WalkInCount(
                id=new_id(),
                station_id=place.station.id,
                count=4,
                from_at=MONDAY + 12 * HOUR,
                until_at=MONDAY + 13 * HOUR,
                local_day=date(2026, 11, 23),
                admin_id=place.auditor.id,
                created_at=NIGHT,
            )
        )
    await rolled(runtime)
    usable = await asks(client, place, "promise", "usable_hours")
    rows = usable["rows"]
    assert [(row["heard"], row["counts"]) for row in rows] == [
        ("controller", "usable"),
        ("silent", "unusable"),
        ("staff", "usable"),
        ("silent", "unusable"),
        ("silent", "unusable"),
    ]
    assert [row["because"] for row in rows] == ["weekly"] * 4 + ["override"]
    assert hours_of(rows) == (await asks(client, place, "promise", "promised_hours"))["value"] == 10
    assert hours_of(rows, counts="usable") == usable["value"] == 3
    one = await asks(client, place, "promise", "usable_hours", by="hour", of_hour="12")
    assert hours_of(one["rows"], counts="usable") == one["value"] == 1
    # Without a controller nobody knows of free hours.
    async with runtime.database.write() as tx:
        await tx.execute(sa.delete(Controller))
    await rolled(runtime)
    unknown = await asks(client, place, "promise", "unknown_hours")
    assert hours_of(unknown["rows"], heard="nobody", counts="unknown") == 6


async def test_where_a_scan_had_to_open_and_there_was_no_controller_nobody_could_come_in(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Free from 8 to 12, then by scan: retired at 14, when it had been dead for two hours."""
    await heard(runtime, place, MONDAY + 12 * HOUR)
    await held(
        runtime,
        place,
        (0, 8, Kind.CLOSED, Because.WEEKLY),
        (8, 12, Kind.FREE, Because.WEEKLY),
        (12, 23, Kind.SCAN, Because.WEEKLY),
    )
    await rolled(runtime)
    left = await asks(client, place, "promise", "promise_rate")
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Controller).values(retired_at=MONDAY + 14 * HOUR))
    await rolled(runtime)
    found = await asks(client, place, "promise", "promise_rate")
    assert (found["value"], left["value"]) == (0.4, 0.4)
    assert [(row["heard"], row["counts"]) for row in found["rows"]] == [
        ("controller", "usable"),
        ("silent", "unusable"),
        ("no_controller", "unusable"),
    ]
    assert hours_of(found["rows"], heard="no_controller") == 4
    assert (await asks(client, place, "promise", "unknown_hours"))["value"] == 0


async def test_a_controller_that_is_silent_now_is_among_the_silences(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Dead for ten days: no word of its return ends that silence, and it counts all the same."""
    since = NIGHT - timedelta(days=10)
    await heard(runtime, place, since)
    await held(runtime, place, (0, 23, Kind.SCAN, Because.WEEKLY))
    await rolled(runtime)
    for figure in ("controller_uptime", "reported_share"):
        found = await asks(client, place, "promise", figure)
        assert found["value"] == 0.0
        (row,) = found["rows"]
        assert (row["id"], row["until_at"]) == (str(place.box), None)
        assert datetime.fromisoformat(row["from_at"]) == since
    # Of time in which it was commissioned and not heard, hours tell: of each as it was counted.
    hours = (await asks(client, place, "promise", "online_hours"))["rows"]
    assert {row["online_ms"] for row in hours} == {0}
    assert all(row["commissioned_ms"] for row in hours)
    # It is not over, so it is no outage that ended; and before it began there was none.
    assert (await asks(client, place, "promise", "outages"))["rows"] == []
    before = {"from": "2026-11-10", "to": "2026-11-11"}
    assert (await asks(client, place, "promise", "controller_uptime", **before))["rows"] == []
    # Of one that was heard just now nothing is told: it may be silent for so long.
    await heard(runtime, place, NIGHT - timedelta(seconds=75))
    assert (await asks(client, place, "promise", "controller_uptime"))["rows"] == []
    await heard(runtime, place, NIGHT - timedelta(seconds=76))
    assert len((await asks(client, place, "promise", "controller_uptime"))["rows"]) == 1


async def test_refused_scans_say_which_of_them_are_one_demand_and_whether_it_was_met(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Four demands in ten refusals: one let in later, one opened for by a controller alone."""
    refused, granted = (Outcome.REFUSED, Reason.STATION_FULL), (Outcome.GRANTED, Reason.OK)
    keys = [bytes([number]) * 16 for number in range(4)]
    tried = [*(keys[:1] * 4), *(keys[1:2] * 3), keys[2], keys[2], keys[3]]
    at = MONDAY + 20 * HOUR
    async with runtime.database.write() as tx:
        scans = [(key, refused) for key in tried] + [(keys[1], granted)]
        for number, (key, (outcome, reason)) in enumerate(scans):
            tx.add(
                Scan(
                    id=new_id(),
                    station_id=place.station.id,
                    demand_key=key,
                    outcome=outcome,
                    reason=reason,
                    party_size=1,
                    scanned_at=at + number * MINUTE,
                    local_day=date(2026, 11, 23),
                    local_hour=20,
                    changed_at=runtime.now(),
                )
            )
        door = await a_door(tx, place.station, at=MONDAY)
        entry = JournalEntry(
            id=new_id(),
            controller_id=place.box,
            epoch=1,
            seq=1,
            event_id="1",
            boot_id="1",
            type=EventType.OFFLINE_ENTRY,
            door_id=door.id,
            occurred_at=at,
            corrected_at=at,
            error_ms=0,
            quality=Quality.SYNCED,
            late=True,
            received_at=at,
            content_hash=b"",
            body={},
            applied_at=at,
        )
        tx.add(entry)
        await tx.flush()
        tx.add(
            OfflineEntry(
                entry_id=entry.id,
                station_id=place.station.id,
                door_id=door.id,
                demand_key=keys[2],
                happened_at=at + 5 * MINUTE,
                opened=True,
                reason=Reason.OK,
                mode=Kind.SCAN,
                because=Because.WEEKLY,
                local_day=date(2026, 11, 23),
                local_hour=20,
                reviewed_at=runtime.now(),
                changed_at=runtime.now(),
            )
        )
    await rolled(runtime)
    for cut in ({}, {"by": "hour", "of_hour": "20"}):
        for report in ("visits", "access"):
            found = await asks(client, place, report, "unmet_demand", **cut)
            rows = found["rows"]
            assert (found["row_kind"], len(rows)) == ("demands", 10)
            assert len({row["demand"] for row in rows}) == 4
            assert len({row["demand"] for row in rows if not row["met"]}) == found["value"] == 2
            assert [row["met"] for row in rows] == [False] * 4 + [True] * 5 + [False]
            assert not any(key.hex() in str(rows) for key in keys)


async def came(runtime: Runtime, place: Place, *days: tuple[int, int]) -> None:
    """Let so many come on each day of November, at noon."""
    async with runtime.database.write() as tx:
        for day, times in days:
            for number in range(times):
                at = datetime(2026, 11, day, 4, number, tzinfo=UTC)
                arrival = Arrival(
                    station_id=place.station.id,
                    timezone=CITY_ZONE,
                    owner_key=new_id().bytes,
                    worker_id=None,
                    occupation=None,
                    mode=Kind.SCAN,
                    party_size=1,
                    max_stay=HOUR,
                )
                await presence.open_visit(tx, arrival, started_at=at)
    await rolled(runtime)


async def test_of_a_station_whose_days_are_too_many_it_is_named_and_no_row_is_listed(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Else whoever asked of one station would be told to ask of one."""
    await came(runtime, place, (2, 1), (3, 2))
    for to, rows in (("2026-12-02", 3), ("2026-12-03", None)):
        for how in (
            {"station": str(place.station.id)},
            {"by": "station", "of_station": "CQ0001"},
        ):
            asked = {"from": "2026-11-01", "to": to, "figure": "visits"} | how
            answer = await client.get(
                "/v1/admin/reports/visits/source", params=asked, headers=place.auditor.headers
            )
            found = answer.json()
            assert (found["value"], found["station"]) == (3, "CQ0001"), answer.text
            assert (None if found["rows"] is None else len(found["rows"])) == rows


async def test_what_is_set_beside_a_figure_tells_where_it_comes_from(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Three on Thursday and Friday, one on the Saturday, beside two, one and none before."""
    await came(runtime, place, (12, 1), (13, 1), (19, 2), (20, 1), (21, 1))
    asked = {"from": "2026-11-19", "to": "2026-11-22", "by": "station", "of_station": "CQ0001"}
    report = await client.get(
        "/v1/admin/reports/visits",
        params={name: asked[name] for name in ("from", "to")} | {"compare": "before"},
        headers=place.auditor.headers,
    )
    (row,) = report.json()["rows"]
    over, before, change = [
        await asks(client, place, "visits", f"visits{ending}", **asked)
        for ending in ("_over", "_before", "_change")
    ]
    for ending, found in (("over", over), ("before", before), ("change", change)):
        assert found["value"] == row[f"visits_{ending}"]
        assert f"visits_{ending}" == found["figure"]
        assert "visits with started_at" in found["formula"]
    # 16 to 18 are workdays alone: no Saturday can be compared.
    assert (over["value"], len(over["rows"])) == (3, 3)
    assert [one["days"] for one in over["on_days"]] == [2]
    sums = {one["name"]: one["sum"] for one in over["counters"]}
    assert (sums["visits_scan"], sums["measured_ms"]) == (3, 2 * 86_400_000)
    # What came before is told beside the days to which it is weighed, and is alone summed up.
    assert [(one["is_before"], one["days"]) for one in before["on_days"]] == [(True, 3), (False, 2)]
    assert {one["name"]: one["sum"] for one in before["counters"]}["visits_scan"] == 0
    assert {row["started_at"][:10] for row in over["rows"]} == {
        "2026-11-19",
        "2026-11-20",
    }
    assert before["rows"] == []
    week = asked | {"from": "2026-11-16", "to": "2026-11-23"}
    before = await asks(client, place, "visits", "visits_before", **week)
    assert (before["value"], len(before["rows"])) == (2, 2)
    of_days = [(one["is_before"], one["day_class"], one["days"]) for one in before["on_days"]]
    assert of_days == [
        (True, "workday", 5),
        (True, "weekend", 2),
        (False, "workday", 5),
        (False, "weekend", 2),
    ]
    change = await asks(client, place, "visits", "visits_change", **week)
    assert (change["value"], len(change["rows"])) == (1.0, 6)
    assert {one["is_before"] for one in change["on_days"]} == {True, False}
    assert (change["unit"], change["denominator"]) == ("share", "visits_before")
    share = await asks(client, place, "visits", "offhours_share_before", **week)
    assert share["value"] == 1.0
    known = await asks(client, place, "visits", "before_known_share", **week)
    assert known["value"] == 1.0
    for wrong in ({"figure": "unique_workers_before"}, {"by": "day", "of_day": "2026-11-19"}):
        query = asked | {"figure": "visits_before"} | wrong
        answer = await client.get(
            "/v1/admin/reports/visits/source", params=query, headers=place.auditor.headers
        )
        assert answer.status_code == 422, answer.text
    # Of days to come nothing is over.
    none = {"from": "2026-12-01", "to": "2026-12-02"}
    none_yet = await asks(client, place, "visits", "visits_over", **asked | none)
    assert (none_yet["value"], none_yet["rows"], none_yet["on_days"]) == (None, [], [])


async def test_days_of_a_class_of_which_nothing_was_known_before_are_not_behind_a_comparison(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Registered on a Wednesday: the weekend before it is left out, and so is the one after."""
    new = Place()
    async with runtime.database.write() as tx:
        unit = await tx.get_one(Unit, place.station.unit_id)
        registered = datetime(2026, 11, 11, tzinfo=ZoneInfo(CITY_ZONE)).astimezone(UTC)
        new.station = await a_station(tx, unit=unit, at=registered, code="CQ0002")
    new.auditor = place.auditor
    await came(runtime, new, (12, 3), (15, 4), (17, 1), (18, 1))
    asked = {"from": "2026-11-14", "to": "2026-11-22", "by": "station", "of_station": "CQ0002"}
    over = await asks(client, new, "visits", "visits_over", **asked)
    before = await asks(client, new, "visits", "visits_before", **asked)
    assert (over["value"], len(over["rows"])) == (2, 2)
    # Three on three days that are known, of the six workdays; here there are five.
    assert (before["value"], len(before["rows"])) == (5, 3)
    told = [
        (one["is_before"], one["day_class"], one["days"], [each["sum"] for each in one["counters"]])
        for one in before["on_days"]
    ]
    day = 86_400_000
    assert told == [
        (True, "workday", 6, [0, 3, 0, 3 * day]),
        (False, "workday", 5, [0, 2, 0, 5 * day]),
    ]


async def test_what_is_ranked_tells_where_it_comes_from(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    await came(runtime, place, (23, 3))
    asked = {"by": "station", "of_station": "CQ0001"}
    for figure in ("value", "numerator", "rank"):
        found = await asks(client, place, "ranking", figure, ranked="offhours_share", **asked)
        sums = {one["name"]: one["sum"] for one in found["counters"]}
        assert sums == {"visits_free": 0, "visits_scan": 3, "visits_offline": 0}
        assert (found["row_kind"], len(found["rows"])) == ("visits", 3)
        assert found["value"] == {"value": 1.0, "numerator": 3, "rank": None}[figure]
        assert found["formula"].startswith(
            {
                "value": "out_of_hours_visits / visits; null without visits",
                "numerator": "out_of_hours_visits: visits that began in any mode but free",
                "rank": "1 + peers with more",
            }[figure]
        )
        sides = ("out_of_hours_visits", "visits") if figure == "value" else (None, None)
        assert (found["numerator"], found["denominator"]) == sides
        assert found["unit"] == {"value": "share", "numerator": "count", "rank": "number"}[figure]
    assert (await asks(client, place, "ranking", "value", **asked))["value"] == 3
    answer = await client.get(
        "/v1/admin/reports/visits/source",
        params=TODAY | {"figure": "visits", "ranked": "visits"},
        headers=place.auditor.headers,
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")


async def test_of_a_station_that_was_gone_before_it_is_told_by_name_where_it_stands(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Nothing of it is known in the period: its row says so, and so does every figure of it."""
    async with runtime.database.write() as tx:
        retired = sa.update(Station).where(Station.id == place.station.id)
        await tx.execute(retired.values(retired_at=NIGHT - timedelta(days=180)))
        unit = await tx.scalar(sa.select(Unit))
        await a_station(tx, unit=unit, at=NIGHT - timedelta(days=400), code="CQ0002")
    await rolled(runtime)

    async def codes(**query: str) -> list[Any]:
        answer = await client.get(
            "/v1/admin/reports/ranking", params=TODAY | query, headers=place.auditor.headers
        )
        assert answer.status_code == 200, answer.text
        return [(row["station"], row["value"], row["known_share"]) for row in answer.json()["rows"]]

    assert [code for code, *_ in await codes()] == ["CQ0002"]
    assert await codes(station=str(place.station.id)) == [("CQ0001", None, 0.0)]
    for names in ({}, {"of_station": "CQ0001"}):
        for figure in ("value", "numerator", "denominator", "percentile", "rank"):
            found = await asks(client, place, "ranking", figure, by="station", **names)
            assert (found["value"], found["known_share"]) == (None, 0.0)
        found = await asks(client, place, "ranking", "peers", by="station", **names)
        assert found["value"] == 1


async def test_times_and_peaks_say_what_they_are_made_of(
    client: httpx.AsyncClient, runtime: Runtime, place: Place
) -> None:
    """Two for an hour each, a minute apart, on a day that is over."""
    await came(runtime, place, (20, 2))
    day = {"from": "2026-11-20", "to": "2026-11-21"}
    wanted = {
        "measured_hours": {"measured_ms": 86_400_000},
        "station_hours": {"known_ms": 86_400_000},
        "known_share": {"known_ms": 86_400_000, "whole_ms": 86_400_000},
        "peak_occupancy": {"measured_ms": 86_400_000, "quarter_person_ms": 1_800_000},
        "max_observed": {"most": 2},
    }
    for figure, sums in wanted.items():
        found = await asks(client, place, "occupancy", figure, **day)
        told = {one["name"]: one["sum"] for one in found["counters"]}
        assert told.items() >= sums.items(), figure
