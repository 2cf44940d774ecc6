"""What-if over HTTP: what is echoed, assumed, scoped and refused; what is read besides scans."""

import asyncio
import csv
import io
import json
from collections.abc import MutableMapping
from datetime import datetime, timedelta
from typing import Any

import httpx
import openpyxl
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from app.api.admin.whatif import TOLD_BESIDE, FiguresOut, RowOut, WhatIfOut
from app.api.words import ASSUMPTIONS, Language
from app.audit import Action, AuditEntry
from app.db.types import new_id
from app.doors.rules import Outcome, Reason
from app.doors.tables import Controller, ControllerOutage, Scan
from app.people.rules import Role
from app.places.rules import Because, ChangeKind, Kind, Tier, local_day, local_hour
from app.places.tables import ModeChange, Station, Unit
from app.reports.export import BOM
from app.reports.rules.replay import Replay
from app.reports.whatif import Assumption
from app.runtime import Runtime
from app.visits.tables import EndSource, Visit
from tests.conftest import NIGHT, Clock
from tests.support.worlds import (
    DAY_AND_NIGHT,
    SomeAdmin,
    a_controller,
    a_station,
    a_unit,
    an_admin,
)

pytestmark = pytest.mark.anyio

EVENING = NIGHT - timedelta(hours=1)
"""22:40 in Chongqing."""


def until(closes: str) -> dict[str, Any]:
    rows = [{"weekday": day, "opens": "06:00", "closes": closes} for day in range(1, 8)]
    return {"regular": rows, "public_holiday": None, "makeup_workday": None}


class City:
    """Two districts with a station each, closed after ten, where people come after ten."""

    near: Unit
    far: Unit
    stations: list[Station]
    chief: SomeAdmin
    keeper: SomeAdmin


def closed(station: Station | None, at: datetime, key: bytes, **changes: Any) -> Scan:
    values: dict[str, Any] = {
        "id": new_id(),
        "station_id": station.id if station else None,
        "demand_key": key,
        "outcome": Outcome.REFUSED,
        "reason": Reason.STATION_CLOSED,
        "mode": Kind.CLOSED,
        "because": Because.WEEKLY,
        "calendar_known": True,
        "party_size": 1,
        "scanned_at": at,
        "local_day": local_day(at, "Asia/Shanghai") if station else None,
        "local_hour": local_hour(at, "Asia/Shanghai") if station else None,
        "changed_at": at,
    }
    return Scan(**(values | changes))


@pytest.fixture
async def city(runtime: Runtime, clock: Clock) -> City:
    made = City()
    early = NIGHT - timedelta(days=40)
    async with runtime.database.write() as tx:
        root = await a_unit(tx, at=early)
        made.near = await a_unit(tx, parent=root, at=early, name="渝中区总工会")
        made.far = await a_unit(tx, parent=root, at=early, name="江津区总工会")
        made.stations = [
            await a_station(
                tx,
                unit=unit,
                at=early,
                code=code,
                staffed_hours=None,
                access_hours=until("22:00"),
                capacity=1,
            )
            for unit, code in ((made.near, "CQ0001"), (made.far, "CQ0002"))
        ]
        made.chief = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        made.keeper = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=made.near)
        for number, station in enumerate(made.stations):
            for minutes in range(0, 20 * (number + 1), 20):
                key = bytes([number, minutes])
                tx.add(closed(station, EVENING + timedelta(minutes=minutes), key))
        nowhere = {"reason": Reason.TOKEN_INVALID, "mode": None, "because": None}
        tx.add(closed(None, EVENING, b"x", **nowhere))
    return made


async def asks(
    client: httpx.AsyncClient, who: SomeAdmin, change: dict[str, Any], **more: Any
) -> httpx.Response:
    body = {"from": "2026-11-23", "to": "2026-11-24", "change": change} | more
    return await client.post(
        "/v1/admin/reports/what-if",
        json=body,
        headers={**who.headers, "Accept-Language": "en"},
    )


async def test_longer_hours_say_who_would_have_been_let_in_where_and_when(
    client: httpx.AsyncClient, city: City
) -> None:
    answer = await asks(client, city.chief, {"access_hours": until("23:00")})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {name: body[name] for name in ("report", "from", "to", "by")} == {
        "report": "what-if",
        "from": "2026-11-23",
        "to": "2026-11-24",
        "by": "station",
    }
    first, second = body["rows"]
    assert (first["station"], second["station"]) == ("CQ0001", "CQ0002")
    assert first["figures"] == {
        "recorded": {"granted": 0, "walk_in": 0, "refused": 1},
        "replayed": {"granted": 1, "walk_in": 0, "refused": 0},
        "newly_let_in": 1,
        "newly_let_in_again": 0,
        "newly_turned_away": 0,
        "moved": [{"before": "station_closed", "after": "granted", "scans": 1}],
        "unmet_demand_before": 1,
        "unmet_demand_after": 0,
    }
    # 22:40 is let in; at 23:00 the station is closed again.
    assert second["figures"]["newly_let_in"] == 1
    assert body["totals"]["newly_let_in"] == 2
    assert [each["newly_let_in"] for each in body["by_hour"]] == [0] * 22 + [2, 0]
    assert (body["scans"], body["without_mode"], body["without_station"]) == (3, 0, 1)
    assert (body["amended_since"], body["stays"]) == (0, {"by_median": 0, "by_longest": 2})
    assert body["completeness"]["days_begun"] == 1
    assumed = {each["code"]: each["says"] for each in body["assumes"]}
    assert assumed["hours_of_today"] == ASSUMPTIONS[Assumption.HOURS_OF_TODAY][Language.EN]
    assert body["change"] == {"access_hours": until("23:00")}


async def test_the_answer_has_what_is_described_and_nothing_else(
    client: httpx.AsyncClient, city: City
) -> None:
    """It is written past the models that describe it."""
    answer = await asks(client, city.chief, {"access_hours": until("23:00")})
    body = answer.json()
    described = WhatIfOut.model_json_schema(mode="serialization")["properties"]
    assert set(body) == set(described)
    assert set(body["rows"][0]) == set(RowOut.model_fields)
    for figures in (body["totals"], body["by_hour"][22], body["rows"][0]["figures"]):
        assert set(figures) == set(FiguresOut.model_fields)
    WhatIfOut.model_validate(body | {"from_day": body["from"], "to_day": body["to"]})


async def test_of_one_station_the_scans_that_moved_are_told_and_that_is_in_the_trail(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    far = city.stations[1]
    async with runtime.database.read() as tx:
        query = sa.select(Scan.id).where(Scan.station_id == far.id).order_by(Scan.scanned_at)
        first, _ = await tx.scalars(query)
    change = {"access_hours": until("23:00")}

    async def trail() -> list[AuditEntry]:
        async with runtime.database.read() as tx:
            exported = AuditEntry.action == Action.REPORT_EXPORTED
            return list(await tx.scalars(sa.select(AuditEntry).where(exported)))

    whole = (await asks(client, city.chief, change)).json()
    assert (whole["moved_scans"], whole["scans_moved"], await trail()) == (None, 2, [])
    one = (await asks(client, city.chief, change, station=str(far.id))).json()
    assert one["scans_moved"] == 1
    assert one["moved_scans"] == [
        {
            "id": str(first),
            "scanned_at": "2026-11-23T14:40:00Z",
            "before": {"outcome": "refused", "reason": "station_closed"},
            "after": {"outcome": "granted", "reason": "ok"},
        }
    ]
    (entry,) = await trail()
    assert (entry.subject, entry.admin_id) == ("report:what-if", city.chief.id)
    assert entry.after == {
        "from": "2026-11-23",
        "to": "2026-11-24",
        "station": str(far.id),
        "change": change,
    }


async def test_it_is_taken_away_as_a_file_that_says_what_it_is_and_stands_in_the_trail(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    change = {"access_hours": until("23:00")}
    body = {"from": "2026-11-23", "to": "2026-11-24", "change": change}
    at_once = await asks(client, city.chief, change)

    async def taken(form: str, **more: Any) -> httpx.Response:
        return await client.post(
            "/v1/admin/reports/what-if",
            params={"format": form},
            json=body | more,
            headers=city.chief.headers,
        )

    async def trail() -> list[Any]:
        async with runtime.database.read() as tx:
            return list(await tx.scalars(sa.select(AuditEntry.after).order_by(AuditEntry.id)))

    files = {form: await taken(form) for form in ("csv", "xlsx")}
    for form, file in files.items():
        assert file.status_code == 200, file.text
        told = file.headers["Content-Disposition"]
        assert told == f'attachment; filename="what-if-2026-11-23-2026-11-24.{form}"'
        for fact in TOLD_BESIDE:
            said = json.loads(file.headers[f"Report-{fact.replace('_', '-').title()}"])
            wanted = at_once.json()[fact]
            if fact == "assumes":
                wanted = [each["code"] for each in wanted]
            assert said == wanted, fact
    assert await trail() == [body, body]
    assert files["csv"].headers["Content-Type"] == "text/csv; charset=utf-8"
    text = files["csv"].content.decode()
    assert text.startswith(BOM)
    table = list(csv.reader(io.StringIO(text.removeprefix(BOM), newline="")))
    book = openpyxl.load_workbook(io.BytesIO(files["xlsx"].content))
    cells = [list(row) for row in book["报表"].iter_rows(values_only=True)]
    assert cells[0] == table[0]
    names = [str(title).rpartition("(")[2].rstrip(")") for title in cells[0]]
    rows = [dict(zip(names, row, strict=True)) for row in cells[1:]]
    assert [(row["station"], row["newly_let_in"]) for row in rows] == [("CQ0001", 1), ("CQ0002", 1)]
    assert rows[0]["moved.station_closed.granted"] == 1
    said = dict(book["说明"].iter_rows(values_only=True))
    assert json.loads(said["假设 change"]) == change
    assert said["重新判断的扫码 scans"] == "3"
    narrow = await taken("csv", station=str(city.stations[0].id))
    assert f"-{city.stations[0].id}.csv" in narrow.headers["Content-Disposition"]
    assert (await taken("pdf")).status_code == 422


async def test_it_says_how_complete_it_is(client: httpx.AsyncClient, city: City) -> None:
    """At 23:40 on the second of three days."""
    days = {"from": "2026-11-22", "to": "2026-11-25"}
    body = (await asks(client, city.chief, {}, bucket="day", **days)).json()
    known = body["completeness"]
    assert (known["days_over"], known["days_begun"], known["days_to_come"]) == (1, 1, 1)
    shares = [row["known_share"] for row in body["rows"]]
    assert shares == [1.0, 0.9861, 0.0] * 2
    assert body["known_share"] == 0.662
    # However the rows are cut.
    for cut in ({}, {"by": "unit"}, {"by": "all"}, {"by": "day"}, {"by": "hour"}):
        assert (await asks(client, city.chief, {}, **cut, **days)).json()["known_share"] == 0.662


async def test_it_says_when_nobody_knows_which_days_were_holidays_and_that_matters(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=NIGHT, role=Role.CITY_ADMIN)
    year = "date,day_class,name,state_council_notice\n2026-10-01,public_holiday,国庆节,x\n"
    headers = chief.headers | {"Content-Type": "text/csv"}
    imported = await client.post("/v1/admin/calendar", content=year, headers=headers)
    assert imported.status_code == 200
    other_hours, other_seats = {"access_hours": until("23:00")}, {"capacity": 2}
    unknown = {"from": "2027-01-01", "to": "2027-01-02"}
    asked: list[tuple[dict[str, Any], dict[str, str], bool | None]] = [
        (other_hours, {}, True),
        (other_hours, unknown, False),
        ({"ignore": ["override"]}, unknown, False),
        (other_seats, unknown | {"by": "day_class"}, False),
        (other_seats, {"bucket": "day_class"}, True),
        # Every scan keeps its mode, and no row is of holidays: nobody is warned.
        (other_seats, unknown, None),
    ]
    for change, more, is_known in asked:
        body = {"from": "2026-11-23", "to": "2026-11-24", "change": change} | more
        assert (await asks(client, city.chief, **body)).json()["calendar_known"] is is_known, body
        file = await client.post(
            "/v1/admin/reports/what-if",
            params={"format": "xlsx"},
            json=body,
            headers=city.chief.headers,
        )
        assert json.loads(file.headers["Report-Calendar-Known"]) is is_known
        said = openpyxl.load_workbook(io.BytesIO(file.content))["说明"]
        titles = [row[0].value for row in said.iter_rows()]
        assert ("日历未知 calendar_known" in titles) is (is_known is False)


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_replay_ends_when_its_caller_hangs_up(
    app: FastAPI, city: City, monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    """The next one need not wait minutes for an answer that nobody hears."""
    monkeypatch.setattr("app.reports.whatif.STATIONS", 1)
    replayed: list[int] = []

    def counts(*given: Any) -> Replay:
        replayed.append(1)
        return Replay(*given)

    monkeypatch.setattr("app.reports.whatif.Replay", counts)
    change = {"access_hours": until("23:00")}
    body = json.dumps({"from": "2026-11-23", "to": "2026-11-24", "change": change}).encode()
    told = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if told:
            return told.pop()
        if not (hangs_up and replayed):
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = {**city.chief.headers, "Content-Type": "application/json"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/admin/reports/what-if",
        "raw_path": b"/v1/admin/reports/what-if",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    await app(scope, receive, send)
    if hangs_up:
        assert (sent[0]["status"], replayed) == (499, [1])
    else:
        assert sent[0]["status"] == 200
        assert len(replayed) > 1


@pytest.mark.parametrize(
    "by", ["station", "unit", "branch", "all", "day", "weekday", "day_class", "week", "hour"]
)
async def test_rows_are_for_places_or_times_and_empty_where_nothing_is_known(
    client: httpx.AsyncClient, city: City, by: str
) -> None:
    change = {"access_hours": DAY_AND_NIGHT}
    answer = await asks(client, city.chief, change, by=by, to="2026-11-25")
    rows = answer.json()["rows"]
    # The second who comes to the second station within the hour finds it full.
    found = [(row["figures"] or {}).get("newly_let_in") for row in rows]
    assert (
        found
        == {
            "station": [1, 1],
            "unit": [1, 1],
            "branch": [1, 1],
            "all": [2],
            "day": [2, None],
            "weekday": [2, None],
            "day_class": [2],
            "week": [2],
            "hour": [0] * 22 + [2, 0],
        }[by]
    )
    if by == "unit":
        assert {row["unit"] for row in rows} == {str(city.near.id), str(city.far.id)}


async def test_a_place_may_be_cut_into_the_hours_of_its_day(
    client: httpx.AsyncClient, city: City
) -> None:
    change = {"access_hours": DAY_AND_NIGHT, "capacity": 2}
    answer = await asks(client, city.chief, change, bucket="hour_of_day", to="2026-11-25")
    body = answer.json()
    assert (body["by"], body["bucket"]) == ("station", "hour_of_day")
    let_in = {
        (row["station"], row["hour"]): row["figures"]["newly_let_in"]
        for row in body["rows"]
        if row["figures"] and row["figures"]["newly_let_in"]
    }
    assert let_in == {("CQ0001", 22): 1, ("CQ0002", 22): 1, ("CQ0002", 23): 1}
    assert len(body["rows"]) == 48


async def test_another_district_is_not_there_and_whoever_has_one_sees_only_it(
    client: httpx.AsyncClient, city: City
) -> None:
    near, far = city.stations
    for more in ({"station": str(far.id)}, {"unit": str(city.far.id)}):
        answer = await asks(client, city.keeper, {}, **more)
        assert answer.status_code == 404, more
    answer = await asks(client, city.keeper, {})
    assert [row["station"] for row in answer.json()["rows"]] == [near.code]
    assert (answer.json()["scans"], answer.json()["without_station"]) == (1, None)
    for more in ({"station": str(far.id)}, {"unit": str(city.far.id)}):
        rows = (await asks(client, city.chief, {}, **more)).json()["rows"]
        assert [row["station"] for row in rows] == [far.code]


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"access_hours": until("25:00")}, {}),
        ({"staffed_hours": {"regular": [], "holiday": []}}, {}),
        ({"capacity": 0}, {}),
        ({"ignore": ["station_full"]}, {}),
        ({"colour": "red"}, {}),
        ({}, {"to": "2026-11-23"}),
        ({}, {"to": "2028-01-01"}),
        ({}, {"by": "colour"}),
        ({}, {"by": "day", "bucket": "hour_of_day"}),
        ({}, {"bucket": "minute"}),
    ],
)
async def test_what_cannot_be_supposed_is_refused_with_its_place(
    client: httpx.AsyncClient, city: City, change: dict[str, Any], more: dict[str, Any]
) -> None:
    answer = await asks(client, city.chief, change, **more)
    assert answer.status_code == 422, answer.text
    if "access_hours" in change:
        assert answer.json()["errors"][0]["loc"] == ["body", "change", "access_hours"]


def test_every_assumption_has_its_sentence_in_every_language() -> None:
    for assumption in Assumption:
        for language in Language:
            assert ASSUMPTIONS[assumption][language]


async def test_a_controller_that_died_was_silent_until_another_took_its_place(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """No return ended its last silence, and still nobody could come in meanwhile."""
    station, minute = city.stations[1], timedelta(minutes=1)
    async with runtime.database.write() as tx:
        controller_id, _ = await a_controller(tx, station, at=EVENING - 300 * minute)
        died = {"seen_at": EVENING - 2 * minute, "retired_at": EVENING + 10 * minute}
        await tx.execute(sa.update(Controller).where(Controller.id == controller_id).values(**died))
    answer = await asks(
        client, city.chief, {"access_hours": DAY_AND_NIGHT}, station=str(station.id)
    )
    moved = [(one["before"], one["after"]) for one in answer.json()["totals"]["moved"]]
    assert sorted(moved) == [
        ("station_closed", "controller_offline"),
        ("station_closed", "granted"),
    ]


async def test_dated_changes_silences_and_usual_stays_of_the_time_are_read(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Each of them changes what the second station's two scans, 20 minutes apart, come to."""
    station = city.stations[1]
    minute = timedelta(minutes=1)

    async def second(**values: Any) -> list[list[str]]:
        change = {"access_hours": DAY_AND_NIGHT} | values
        answer = await asks(client, city.chief, change, station=str(station.id))
        moved = answer.json()["totals"]["moved"]
        return sorted([one["before"], one["after"]] for one in moved)

    granted, full = ["station_closed", "granted"], ["station_closed", "station_full"]
    assert await second() == [granted, full]
    assert await second(capacity=2) == [granted]
    async with runtime.database.write() as tx:
        came = NIGHT - timedelta(hours=5)
        tx.add(
            Visit(
                id=new_id(),
                station_id=station.id,
                mode=Kind.SCAN,
                party_size=1,
                re_entry=False,
                started_at=came,
                stay_until=came + 60 * minute,
                ended_at=came + 19 * minute,
                end_source=EndSource.WORKER,
                local_day=local_day(came, "Asia/Shanghai"),
                local_hour=local_hour(came, "Asia/Shanghai"),
                changed_at=came,
            )
        )
    # People stay for 19 minutes here.
    assert await second() == [granted]
    async with runtime.database.write() as tx:
        controller_id, _ = await a_controller(tx, station, at=came)
        await tx.execute(
            sa.update(Controller).where(Controller.id == controller_id).values(seen_at=NIGHT)
        )
        tx.add(
            ControllerOutage(
                controller_id=controller_id,
                station_id=station.id,
                from_at=EVENING - 2 * minute,
                until_at=EVENING + minute,
                changed_at=EVENING + minute,
            )
        )
    offline = ["station_closed", "controller_offline"]
    assert await second() == [offline, granted]
    # Closed for both, but withdrawn before the second.
    async with runtime.database.write() as tx:
        tx.add(
            ModeChange(
                id=new_id(),
                station_id=station.id,
                tier=Tier.OVERRIDE,
                kind=ChangeKind.STAFF_ONLY,
                from_at=EVENING - minute,
                until_at=EVENING + 60 * minute,
                note="",
                created_at=EVENING - minute,
                changed_at=EVENING,
                retired_at=EVENING + 10 * minute,
            )
        )
    assert await second() == [granted, ["station_closed", "staff_only"]]
    assert await second(ignore=["override"]) == [offline, granted]
    assert await second(ignore=["override", "controller_offline"]) == [granted]
