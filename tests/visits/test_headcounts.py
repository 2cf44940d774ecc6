"""Occupancy for administrators, and the heads that staff count; over HTTP."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.audit import Action, AuditEntry
from app.db.types import new_id
from app.doors.tables import Controller
from app.people.rules import Role
from app.people.tables import Occupation
from app.places.rules import Kind
from app.places.tables import Station
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.tables import WalkInCount
from tests.conftest import NIGHT, Clock
from tests.support.counting import rolled
from tests.support.worlds import (
    SomeAdmin,
    a_controller,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio


async def a_kept_station(runtime: Runtime, **changes: Any) -> tuple[Station, SomeAdmin]:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=NIGHT - timedelta(days=30), **changes)
        keeper = await an_admin(tx, at=NIGHT, role=Role.STATION_KEEPER, station=station)
    return station, keeper


def hours_ago(number: float) -> str:
    return (NIGHT - timedelta(hours=number)).isoformat()


async def counts(
    client: httpx.AsyncClient, station: Station, keeper: SomeAdmin, **body: Any
) -> httpx.Response:
    sent = {"count": 12, "from": hours_ago(3), "until": hours_ago(2)} | body
    return await client.post(
        f"/v1/admin/stations/{station.id}/walk-ins", json=sent, headers=keeper.headers
    )


async def test_a_head_count_is_kept_listed_and_audited(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, keeper = await a_kept_station(runtime)
    made = await counts(client, station, keeper)
    assert made.status_code == 201, made.text
    await counts(client, station, keeper, **{"from": hours_ago(2), "until": hours_ago(1)})
    await counts(client, station, keeper, **{"from": hours_ago(1), "until": hours_ago(0)})
    seen: list[str] = []
    url: str | None = f"/v1/admin/stations/{station.id}/walk-ins?limit=2"
    pages = 0
    while url:
        listed = await client.get(url, headers=keeper.headers)
        assert listed.status_code == 200, listed.text
        seen += [row["from"] for row in listed.json()]
        url, pages = listed.links.get("next", {}).get("url"), pages + 1
    begun = [datetime.fromisoformat(each) for each in seen]
    assert begun == [NIGHT - timedelta(hours=number) for number in (1, 2, 3)]
    assert pages == 2
    async with runtime.database.read() as tx:
        entries = (await tx.scalars(sa.select(AuditEntry).order_by(AuditEntry.id))).all()
    assert [entry.action for entry in entries] == [Action.WALK_INS_COUNTED] * 3
    assert entries[0].admin_id == keeper.id
    assert entries[0].station_id == station.id
    assert entries[0].after == {
        "id": made.json()["id"],
        "count": 12,
        "from": hours_ago(3),
        "until": hours_ago(2),
    }


@pytest.mark.parametrize(
    "body",
    [
        {"count": -1},
        {"count": 10_001},
        {"count": 1.5},
        {"count": True},
        {"count": None},
        {"from": "yesterday"},
        {"from": "2026-11-23T12:00:00"},
        {"until": hours_ago(3)},
        {"until": hours_ago(4)},
        {"until": hours_ago(-0.01)},
        {"from": hours_ago(26.01)},
        {"extra": 1},
    ],
)
async def test_a_bad_head_count_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, body: dict[str, Any]
) -> None:
    station, keeper = await a_kept_station(runtime)
    answer = await counts(client, station, keeper, **body)
    assert answer.status_code == 422, answer.text
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(WalkInCount)) == 0
        assert await tx.scalar(sa.select(sa.func.count()).select_from(AuditEntry)) == 0


@pytest.mark.parametrize(
    ("begin", "end", "status"),
    [(3, 2, 409), (4, 2.5, 409), (2.5, 1, 409), (5, 1, 409), (4, 3, 201), (2, 1, 201)],
)
async def test_no_time_is_counted_twice(
    client: httpx.AsyncClient, runtime: Runtime, begin: float, end: float, status: int
) -> None:
    station, keeper = await a_kept_station(runtime)
    assert (await counts(client, station, keeper)).status_code == 201
    times = {"from": hours_ago(begin), "until": hours_ago(end)}
    answer = await counts(client, station, keeper, **times)
    assert answer.status_code == status, answer.text
    other, another_keeper = await a_kept_station(runtime)
    assert (await counts(client, other, another_keeper, **times)).status_code == 201


async def test_two_counts_at_once_are_one(client: httpx.AsyncClient, runtime: Runtime) -> None:
    station, keeper = await a_kept_station(runtime)
    answers = await asyncio.gather(*(counts(client, station, keeper) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def withdraws(
    client: httpx.AsyncClient, station: Station, admin: SomeAdmin, count_id: str
) -> httpx.Response:
    path = f"/v1/admin/stations/{station.id}/walk-ins/{count_id}"
    return await client.delete(path, headers=admin.headers)


async def listed(
    client: httpx.AsyncClient, station: Station, admin: SomeAdmin
) -> list[tuple[int, str | None]]:
    path = f"/v1/admin/stations/{station.id}/walk-ins"
    answer = await client.get(path, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    return [(row["count"], row["withdrawn_at"]) for row in answer.json()]


async def told(
    client: httpx.AsyncClient, runtime: Runtime, station: Station
) -> tuple[int | None, list[str]]:
    """Count what changed; gives the heads of the day, and the counts they come from."""
    await rolled(runtime)
    async with runtime.database.write() as tx:
        auditor = await an_admin(tx, at=runtime.now(), role=Role.AUDITOR)
    asked = {"from": "2026-11-23", "to": "2026-11-24", "station": str(station.id)}
    path = "/v1/admin/reports/visits"
    answer = await client.get(path, params=asked, headers=auditor.headers)
    (row,) = answer.json()["rows"]
    asked |= {"figure": "walk_in_heads"}
    source = (await client.get(f"{path}/source", params=asked, headers=auditor.headers)).json()
    assert source["value"] == row["walk_in_heads"]
    assert row["head_counts"] == len(source["rows"])
    return row["walk_in_heads"], [each["id"] for each in source["rows"]]


async def test_a_wrong_count_is_withdrawn_counted_right_and_the_report_is_right(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    station, keeper = await a_kept_station(runtime)
    wrong = (await counts(client, station, keeper, count=300)).json()
    assert wrong["withdrawn_at"] is None
    assert await told(client, runtime, station) == (300, [wrong["id"]])
    assert (await counts(client, station, keeper, count=30)).status_code == 409

    clock.advance(60)
    gone = await withdraws(client, station, keeper, wrong["id"])
    assert (gone.status_code, gone.content) == (204, b"")
    assert await told(client, runtime, station) == (None, [])

    right = await counts(client, station, keeper, count=30)
    assert right.status_code == 201, right.text
    assert await told(client, runtime, station) == (30, [right.json()["id"]])

    shown = dict(await listed(client, station, keeper))
    assert shown.keys() == {30, 300}
    assert shown[30] is None
    assert datetime.fromisoformat(shown[300] or "") == clock.now()


async def test_a_withdrawal_is_a_mark_on_the_row_and_an_act_in_the_trail(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    station, keeper = await a_kept_station(runtime)
    made = (await counts(client, station, keeper, count=300)).json()
    clock.advance(60)
    assert (await withdraws(client, station, keeper, made["id"])).status_code == 204
    withdrawn_at = clock.now()
    clock.advance(60)
    # Again changes nothing, as where a change of hours is withdrawn.
    assert (await withdraws(client, station, keeper, made["id"])).status_code == 204
    async with runtime.database.read() as tx:
        row = (await tx.scalars(sa.select(WalkInCount))).one()
        entries = (await tx.scalars(sa.select(AuditEntry).order_by(AuditEntry.id))).all()
    assert (row.count, row.admin_id, row.created_at) == (300, keeper.id, NIGHT)
    assert (row.withdrawn_at, row.withdrawn_by) == (withdrawn_at, keeper.id)
    assert [entry.action for entry in entries] == [
        Action.WALK_INS_COUNTED,
        Action.WALK_INS_WITHDRAWN,
    ]
    counted, withdrawn = entries
    assert (withdrawn.at, withdrawn.admin_id, withdrawn.station_id, withdrawn.subject) == (
        withdrawn_at,
        keeper.id,
        station.id,
        counted.subject,
    )
    assert counted.after is not None
    assert withdrawn.before == counted.after | {"withdrawn_at": None}
    assert withdrawn.after == counted.after | {"withdrawn_at": withdrawn_at.isoformat()}


async def test_two_withdrawals_at_once_are_one(client: httpx.AsyncClient, runtime: Runtime) -> None:
    station, keeper = await a_kept_station(runtime)
    made = (await counts(client, station, keeper)).json()
    answers = await asyncio.gather(
        *(withdraws(client, station, keeper, made["id"]) for _ in range(4))
    )
    assert [answer.status_code for answer in answers] == [204] * 4
    async with runtime.database.read() as tx:
        actions = (await tx.scalars(sa.select(AuditEntry.action))).all()
    assert sorted(actions) == [Action.WALK_INS_COUNTED, Action.WALK_INS_WITHDRAWN]


async def test_only_a_count_that_was_withdrawn_frees_its_time(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, keeper = await a_kept_station(runtime)
    for _ in range(3):
        made = await counts(client, station, keeper)
        assert made.status_code == 201, made.text
        assert (await counts(client, station, keeper)).status_code == 409
        await withdraws(client, station, keeper, made.json()["id"])
    await counts(client, station, keeper, **{"from": hours_ago(2.5), "until": hours_ago(1.5)})
    assert (await counts(client, station, keeper)).status_code == 409


async def test_who_may_count_may_withdraw_at_his_own_stations_only(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, keeper = await a_kept_station(runtime)
    other, another_keeper = await a_kept_station(runtime)
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=NIGHT, name="别的工会")
        foreign = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=unit)
        auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
        chief = await an_admin(tx, at=NIGHT)
    made = (await counts(client, station, keeper)).json()

    async def refused(admin: SomeAdmin, at: Station, id: str) -> tuple[int, str]:
        answer = await withdraws(client, at, admin, id)
        return answer.status_code, answer.json()["code"]

    assert await refused(auditor, station, made["id"]) == (403, "admin_forbidden")
    for stranger in (foreign, another_keeper):
        assert await refused(stranger, station, made["id"]) == (404, "station_not_found")
    for admin in (another_keeper, chief):
        assert await refused(admin, other, made["id"]) == (404, "head_count_not_found")
    assert await refused(keeper, station, str(new_id())) == (404, "head_count_not_found")
    path = f"/v1/admin/stations/{station.id}/walk-ins/{made['id']}"
    assert (await client.delete(path)).status_code == 401
    assert await listed(client, station, keeper) == [(12, None)]
    assert (await withdraws(client, station, chief, made["id"])).status_code == 204


async def test_a_count_is_withdrawn_also_after_its_station_was_retired(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, _ = await a_kept_station(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=NIGHT)
    made = (await counts(client, station, chief)).json()
    retired = await client.post(f"/v1/admin/stations/{station.id}/retire", headers=chief.headers)
    assert retired.status_code == 200, retired.text
    assert (await withdraws(client, station, chief, made["id"])).status_code == 204


async def test_nobody_counts_or_looks_beyond_his_scope(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    station, keeper = await a_kept_station(runtime)
    foreign_station, _ = await a_kept_station(runtime)
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=NIGHT, name="别的工会")
        foreign = await an_admin(tx, at=NIGHT, role=Role.UNIT_ADMIN, unit=unit)
        auditor = await an_admin(tx, at=NIGHT, role=Role.AUDITOR)
    assert (await counts(client, foreign_station, keeper)).status_code == 404
    assert (await counts(client, station, foreign)).status_code == 404
    assert (await counts(client, station, auditor)).status_code == 403
    for path in ("occupancy", "walk-ins"):
        url = f"/v1/admin/stations/{station.id}/{path}"
        assert (await client.get(url, headers=foreign.headers)).status_code == 404
        assert (await client.get(url, headers=auditor.headers)).status_code == 200
        assert (await client.get(url)).status_code == 401


async def test_occupancy_counts_parties_and_forgets_who_is_over_time(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    station, _ = await a_kept_station(runtime, capacity=10)
    async with runtime.database.write() as tx:
        controller, _ = await a_controller(tx, station, at=clock.now())

    async def seen() -> tuple[int, int, str]:
        async with runtime.database.write() as tx:  # An idle session ends before this story.
            auditor = await an_admin(tx, at=clock.now(), role=Role.AUDITOR)
            # It was heard all the time.
            heard = sa.update(Controller).where(Controller.id == controller)
            await tx.execute(heard.values(seen_at=clock.now()))
        url = f"/v1/admin/stations/{station.id}/occupancy"
        answer = (await client.get(url, headers=auditor.headers)).json()
        assert datetime.fromisoformat(answer["as_of"]) == clock.now()
        assert answer["reserved"] == 0
        return answer["inside"], answer["capacity"], answer["level"]

    assert await seen() == (0, 10, "空闲")
    for party_size in (1, 5):
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=clock.now())
            arrival = Arrival(
                station_id=station.id,
                timezone=station.timezone,
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=Occupation.RIDER,
                mode=Kind.SCAN,
                party_size=party_size,
                max_stay=timedelta(minutes=60),
            )
            await presence.open_visit(tx, arrival, started_at=clock.now())
        clock.advance(20 * 60)
    assert await seen() == (6, 10, "较多")
    clock.advance(20 * 60)
    assert await seen() == (5, 10, "较少")
    clock.advance(20 * 60)
    assert await seen() == (0, 10, "空闲")
