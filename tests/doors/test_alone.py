"""Working alone: the policy told, whose passes are denied, and what is reviewed afterwards."""

import dataclasses
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from app import privacy
from app.audit import COMMAND_LINE
from app.doors import effects, passes, review, tokens
from app.doors.denials import DENIED_FOR
from app.doors.rules.alone import (
    LARGEST_ERROR,
    LONGEST_ALONE_H,
    Alone,
    Hindrance,
    clock_error,
    hindrance,
    reason_of,
)
from app.doors.tables import Controller, ControllerOutage, OfflineEntry, Pass
from app.people.rules import Role
from app.people.tables import Worker
from app.places import stations
from app.places.rules import Because, ChangeKind, Kind, Tier, Window
from app.places.stations import Wanted
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.conftest import NIGHT, Clock
from tests.support.counting import rolled
from tests.support.worlds import (
    OFFICE_HOURS,
    Scene,
    a_controller,
    a_door,
    a_scene,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio

_numbers: Iterator[int] = count(1)


async def a_pass(client: httpx.AsyncClient, scene: Scene) -> str:
    """Get a pass and give its number."""
    body = {"door": str(scene.door.id)}
    answer = await client.post("/v1/me/pass", json=body, headers=scene.worker.headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def jti_of(runtime: Runtime, scene: Scene, token: str) -> str:
    found = tokens.verify_pass(
        runtime.keys.verifying, token, runtime.now(), audience=scene.station.code
    )
    assert isinstance(found, tokens.PassClaims)
    return found.jti


async def tells(
    client: httpx.AsyncClient, runtime: Runtime, scene: Scene, *events: dict[str, Any]
) -> list[dict[str, Any]]:
    """Upload what happened while it was alone, and let the effects be written."""
    batch = [{"event_id": f"e{(n := next(_numbers))}", "seq": n} | event for event in events]
    answer = await client.post(
        "/v1/controller/events",
        json={"boot_id": "b", "epoch": 0, "events": batch, "sent_at": runtime.now().isoformat()},
        headers=scene.controller_headers,
    )
    assert answer.status_code == 200, answer.text
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def entered(scene: Scene, jti: str | None, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "type": "offline_entry",
        "door": str(scene.door.id),
        "jti": jti,
        "result": "opened",
        "occurred_at": at.isoformat(),
    } | more


async def the_entry(runtime: Runtime) -> OfflineEntry:
    async with runtime.database.read() as tx:
        return (await tx.scalars(sa.select(OfflineEntry))).one()


async def visits(runtime: Runtime) -> list[Visit]:
    async with runtime.database.read() as tx:
        return list(await tx.scalars(sa.select(Visit)))


async def test_a_station_says_explicitly_for_how_long_its_controller_works_alone(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    told = await client.get("/v1/controller/config", headers=scene.controller_headers)
    never = {"kind": "never", "hours": None, "denial_version": 0}
    assert told.json()["offline_policy"] == never
    path = f"/v1/admin/stations/{scene.station.id}"
    for wrong in (0, -1, LONGEST_ALONE_H + 1, "72", 1.5, True):
        answer = await client.patch(path, json={"offline_hours": wrong}, headers=chief.headers)
        assert answer.status_code == 422, wrong
    changed = await client.patch(path, json={"offline_hours": 72}, headers=chief.headers)
    assert changed.json()["offline_hours"] == 72
    now = await client.get(
        "/v1/controller/config",
        headers=scene.controller_headers | {"If-None-Match": told.headers["ETag"]},
    )
    assert now.json()["offline_policy"] == never | {"kind": "passes", "hours": 72}
    back = await client.patch(path, json={"offline_hours": None}, headers=chief.headers)
    assert back.json()["offline_hours"] is None


async def test_what_was_opened_alone_is_a_visit_at_its_own_time(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    happened = runtime.now() + timedelta(seconds=20)
    clock.advance(3 * 3600)
    (result,) = await tells(client, runtime, scene, entered(scene, jti, happened))
    assert result["status"] == "accepted"
    entry = await the_entry(runtime)
    assert (entry.opened, entry.would_have_been_refused, entry.reason) == (True, None, "ok")
    assert (entry.worker_id, entry.mode) == (scene.worker.id, Kind.SCAN)
    (visit,) = await visits(runtime)
    assert (visit.id, visit.worker_id) == (entry.visit_id, scene.worker.id)
    assert abs(visit.started_at - happened) < timedelta(seconds=1)
    # The same event again, and the job again: nothing more.
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    assert len(await visits(runtime)) == 1


@pytest.mark.parametrize(
    ("station", "blocked", "reason"),
    [
        ({"access_hours": OFFICE_HOURS, "staffed_hours": None}, False, "station_closed"),
        ({"capacity": 1}, False, None),
        ({}, True, "worker_blocked"),
    ],
    ids=["outside the hours", "room for one", "blocked before"],
)
async def test_beside_it_stands_what_the_server_would_have_said(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    station: dict[str, Any],
    blocked: bool,
    reason: str | None,
) -> None:
    scene = await a_scene(runtime, **station)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    if blocked:
        async with runtime.database.write() as tx:
            await tx.execute(
                sa.update(Worker)
                .where(Worker.id == scene.worker.id)
                .values(blocked_at=runtime.now() + timedelta(seconds=5))
            )
    happened = runtime.now() + timedelta(seconds=20)
    clock.advance(3600)
    await tells(client, runtime, scene, entered(scene, jti, happened))
    entry = await the_entry(runtime)
    assert entry.would_have_been_refused == reason
    # Facts are facts: he is inside either way.
    assert len(await visits(runtime)) == 1


LONG_HOURS: dict[str, Any] = {
    "regular": [{"weekday": day, "opens": "08:00", "closes": "24:00"} for day in range(1, 8)],
    "public_holiday": None,
    "makeup_workday": None,
}


@pytest.mark.parametrize(
    ("station", "since", "said"),
    [
        ({}, {"staffed_hours": LONG_HOURS}, None),
        ({}, {"access_hours": OFFICE_HOURS}, None),
        ({"capacity": 0}, {"capacity": 20}, "station_full"),
        ({"capacity": 20}, {"capacity": 0}, None),
    ],
    ids=["longer staffed hours", "no nights", "more seats", "fewer seats"],
)
async def test_what_is_told_after_the_station_was_amended_is_judged_by_what_held(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    station: dict[str, Any],
    since: dict[str, Any],
    said: str | None,
) -> None:
    """Opened at 23:40; the next morning the station is amended; then the link is mended."""
    scene = await a_scene(runtime, offline_hours=72, **station)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    happened = runtime.now() + timedelta(seconds=20)
    clock.advance(9 * 3600)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, scene.station.id)
        terms: dict[str, Any] = {"actor": COMMAND_LINE, "at": runtime.now()}
        await stations.amend(tx, runtime.wakeups, row, changes=since, **terms)
    clock.advance(9 * 3600)
    await tells(client, runtime, scene, entered(scene, jti, happened))
    entry = await the_entry(runtime)
    assert (entry.mode, entry.because) == (Kind.SCAN, Because.WEEKLY)
    assert entry.would_have_been_refused == said
    assert [visit.mode for visit in await visits(runtime)] == [Kind.SCAN]
    await rolled(runtime)
    async with runtime.database.write() as tx:
        who = await an_admin(tx, at=runtime.now())
    asked = {"from": "2026-11-23", "to": "2026-11-24", "by": "all"}
    told = await client.get("/v1/admin/reports/visits", params=asked, headers=who.headers)
    (found,) = told.json()["rows"]
    figures = ("visits_free", "out_of_hours_visits", "staffed_hours")
    assert [found[name] for name in figures] == [0, 1, 0]


@pytest.mark.parametrize("until", ["withdrawn", "shortened"])
async def test_what_was_opened_while_it_was_closed_is_said_to_be_whatever_became_of_the_closing(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, until: str
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    terms: dict[str, Any] = {"actor": COMMAND_LINE}
    closed = Wanted(ChangeKind.CLOSED, runtime.now(), runtime.now() + timedelta(hours=9), "")
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, scene.station.id)
        terms |= {"at": runtime.now()}
        change = await stations.add_change(tx, runtime.wakeups, row, Tier.OVERRIDE, closed, **terms)
    happened = runtime.now() + timedelta(seconds=20)
    clock.advance(3600)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, scene.station.id)
        change = await stations.get_change(tx, row, Tier.OVERRIDE, change.id)
        terms |= {"at": runtime.now()}
        if until == "withdrawn":
            await stations.retire_change(tx, runtime.wakeups, row, change, **terms)
        else:
            # As if it had begun only now.
            later = dataclasses.replace(closed, from_at=runtime.now())
            await stations.amend_change(tx, runtime.wakeups, row, change, later, **terms)
    clock.advance(3600)
    await tells(client, runtime, scene, entered(scene, jti, happened))
    entry = await the_entry(runtime)
    assert (entry.mode, entry.because) == (Kind.CLOSED, Because.OVERRIDE)
    assert entry.would_have_been_refused == "station_closed"


@pytest.mark.parametrize(("after_s", "said"), [(10, "door_retired"), (60, None)])
async def test_a_door_is_out_of_use_from_when_it_was_retired(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, after_s: float, said: str | None
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    happened, retired_at = (runtime.now() + timedelta(seconds=each) for each in (20, after_s))
    async with runtime.database.write() as tx:
        (await tx.get_one(type(scene.door), scene.door.id)).retired_at = retired_at
    clock.advance(3600)
    await tells(client, runtime, scene, entered(scene, jti, happened))
    assert (await the_entry(runtime)).would_have_been_refused == said


async def unmet(client: httpx.AsyncClient, runtime: Runtime, day: int = 23) -> list[int]:
    """Give the unmet demand of a day as the report has it, and as the replay has it."""
    await rolled(runtime)
    async with runtime.database.write() as tx:
        who = await an_admin(tx, at=runtime.now())
    days = {"from": f"2026-11-{day}", "to": f"2026-11-{day + 1}"}
    path = "/v1/admin/reports"
    told = await client.get(f"{path}/visits", params=days | {"by": "all"}, headers=who.headers)
    assert told.status_code == 200, told.text
    (row,) = told.json()["rows"]
    asked = await client.post(f"{path}/what-if", json=days | {"change": {}}, headers=who.headers)
    assert asked.status_code == 200, asked.text
    totals = asked.json()["totals"]
    return [row["unmet_demand"], totals["unmet_demand_before"], totals["unmet_demand_after"]]


@pytest.mark.parametrize("told_first", [False, True], ids=["told later", "told before he scans"])
@pytest.mark.parametrize("consented", [True, False])
async def test_who_got_in_by_his_pass_in_that_half_hour_wanted_nothing_in_vain(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, consented: bool, told_first: bool
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    async with runtime.database.write() as tx:
        someone, other = [
            await a_worker(tx, runtime, at=runtime.now(), consented=consented) for _ in range(2)
        ]
    scene = dataclasses.replace(scene, worker=someone)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    entry = entered(scene, jti, runtime.now() + timedelta(seconds=20))
    if told_first:
        clock.advance(60)
        await tells(client, runtime, scene, entry)
    clock.advance(120)
    for worker in (someone, other):
        headers = worker.headers | {"Idempotency-Key": "k"}
        answer = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
        assert answer.json()["reason"] == "controller_offline", answer.text
    if not told_first:
        assert await unmet(client, runtime) == [2, 2, 2]
        clock.advance(3 * 3600)
        await tells(client, runtime, scene, entry)
    assert await unmet(client, runtime) == [1, 1, 1]


async def test_a_demand_is_met_in_its_own_half_hour_at_its_own_station_and_by_a_door_that_opened(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = [await a_scene(runtime, offline_hours=72) for _ in range(2)]
    other = dataclasses.replace(other, worker=scene.worker)

    async def shows(where: Scene, **more: Any) -> dict[str, Any]:
        jti = await jti_of(runtime, where, await a_pass(client, where))
        return entered(where, jti, runtime.now() + timedelta(seconds=20), **more)

    clock.advance(30 * 60)  # 00:10
    before = await shows(scene)
    clock.advance(30 * 60)
    headers = scene.worker.headers | {"Idempotency-Key": "k"}
    answer = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert answer.json()["reason"] == "controller_offline", answer.text
    there = await shows(other)
    refused = await shows(scene, result="refused", reason="policy_expired")
    clock.advance(30 * 60)
    after = await shows(scene)
    clock.advance(60)
    await tells(client, runtime, other, there)
    await tells(client, runtime, scene, before, refused, after)
    assert await unmet(client, runtime, day=24) == [1, 1, 1]


async def test_a_pass_used_twice_or_unknown_or_of_another_station_is_said_to_be(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    foreign = await jti_of(runtime, other, await a_pass(client, other))
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    for number in (jti, jti, foreign, "made-up", None):
        at += timedelta(seconds=1)
        await tells(client, runtime, scene, entered(scene, number, at))
    async with runtime.database.read() as tx:
        entries = list(await tx.scalars(sa.select(OfflineEntry).order_by(OfflineEntry.happened_at)))
    said = [entry.would_have_been_refused for entry in entries]
    assert said == [None, "token_expired", "token_invalid", "token_invalid", "token_invalid"]
    assert [entry.worker_id for entry in entries] == [scene.worker.id] * 2 + [None] * 3


@pytest.mark.parametrize(
    ("shown_after", "said"),
    [(-7, "token_expired"), (-5, None), (0, None), (60.5, None), (62, "token_expired")],
)
async def test_a_pass_that_opened_outside_its_minute_is_said_to_be(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    shown_after: float,
    said: str | None,
) -> None:
    """An hour later its time is known within 0.7 s; when it was given, within 5 s besides."""
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    shown = runtime.now() + timedelta(seconds=shown_after)
    clock.advance(3600)
    await tells(client, runtime, scene, entered(scene, jti, shown))
    assert (await the_entry(runtime)).would_have_been_refused == said


async def test_of_an_unknown_time_nobody_says_that_it_was_outside_the_minute(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    shown = runtime.now() - timedelta(days=3)
    clock.advance(3600)
    event = entered(scene, jti, shown) | {"event_id": "e", "seq": 1}
    answer = await client.post(
        "/v1/controller/events",
        json={"boot_id": "b", "epoch": 0, "events": [event]},
        headers=scene.controller_headers,
    )
    assert answer.status_code == 200, answer.text
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    assert (await the_entry(runtime)).would_have_been_refused is None


@pytest.mark.parametrize("his_own", [True, False])
async def test_a_pass_that_he_showed_to_the_server_before_is_used_up(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, his_own: bool
) -> None:
    """Another worker who sends the same key says nothing of it."""
    scene = await a_scene(runtime)
    token = await a_pass(client, scene)
    jti = await jti_of(runtime, scene, token)
    if his_own:
        shown = {"door": str(scene.door.id), "token": token}
        answer = await client.post(
            "/v1/controller/verify", json=shown, headers=scene.controller_headers
        )
        assert answer.json()["valid"], answer.text
    else:
        async with runtime.database.write() as tx:
            other = await a_worker(tx, runtime, at=runtime.now())
        headers = other.headers | {"Idempotency-Key": passes.key_of(jti)}
        await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    await tells(client, runtime, scene, entered(scene, jti, at))
    said = (await the_entry(runtime)).would_have_been_refused
    assert said == ("token_expired" if his_own else None)


async def test_administrators_see_what_was_opened_alone_within_their_scope(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    async with runtime.database.write() as tx:
        keeper = await an_admin(
            tx, at=runtime.now(), role=Role.STATION_KEEPER, station=scene.station
        )
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    for number, instant in ((jti, at), (jti, at + timedelta(seconds=9))):
        await tells(client, runtime, scene, entered(scene, number, instant))
    await tells(client, runtime, other, entered(other, "x", at))

    async def listed(**params: Any) -> list[dict[str, Any]]:
        answer = await client.get(
            "/v1/admin/offline-entries", params=params, headers=keeper.headers
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    both = await listed()
    said = [one["would_have_been_refused"] for one in both]
    assert said == ["token_expired", None]
    assert {one["station_id"] for one in both} == {str(scene.station.id)}
    assert str(scene.worker.id) not in str(both)
    assert [one["id"] for one in await listed(flagged=True)] == [both[0]["id"]]
    assert [one["id"] for one in await listed(flagged=False)] == [both[1]["id"]]
    assert await listed(station=str(other.station.id)) == []


async def test_it_opens_any_door_of_its_station(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        side = await a_door(tx, scene.station, at=runtime.now(), name="侧门")
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    await tells(client, runtime, scene, entered(scene, jti, at, door=str(side.id)))
    entry = await the_entry(runtime)
    assert (entry.door_id, entry.would_have_been_refused) == (side.id, None)


async def test_at_a_door_with_a_contact_the_visit_waits_for_its_word(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        (await tx.get_one(type(scene.door), scene.door.id)).has_contact = True
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    pulse = runtime.now() + timedelta(seconds=5)
    clock.advance(600)
    await tells(client, runtime, scene, entered(scene, jti, pulse))
    assert await visits(runtime) == []
    opened = pulse + timedelta(seconds=4)
    door = {"type": "door_opened", "door": str(scene.door.id), "occurred_at": opened.isoformat()}
    await tells(client, runtime, scene, door)
    (visit,) = await visits(runtime)
    assert abs(visit.started_at - opened) < timedelta(seconds=1)
    assert (await the_entry(runtime)).visit_id == visit.id


async def test_before_a_power_cut_the_word_of_its_own_boot_begins_the_visit(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Nobody knows when that was, but the contact spoke four seconds after the pulse."""
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        (await tx.get_one(type(scene.door), scene.door.id)).has_contact = True
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    pulse = runtime.now() + timedelta(seconds=5)
    clock.advance(600)
    boot = {"boot_id": "earlier"}
    opened = {
        "type": "door_opened",
        "door": str(scene.door.id),
        "occurred_at": (pulse + timedelta(seconds=4)).isoformat(),
    }
    await tells(client, runtime, scene, opened | {"boot_id": "another"})
    await tells(client, runtime, scene, entered(scene, jti, pulse, **boot))
    assert await visits(runtime) == []
    await tells(client, runtime, scene, opened | boot)
    (visit,) = await visits(runtime)
    entry = await the_entry(runtime)
    assert (entry.visit_id, entry.would_have_been_refused) == (visit.id, None)
    assert visit.started_at == entry.opened_at == entry.happened_at + timedelta(seconds=4)


async def test_a_pass_that_opened_before_a_power_cut_is_not_said_to_be_too_old(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """The wall clock of its box stopped meanwhile; what it noted of our time did not."""
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    pulse = runtime.now() + timedelta(seconds=5)
    clock.advance(10 * 3600)
    noted = {"server_time": pulse.isoformat(), "error_ms": 600, "boot_id": "earlier"}
    await tells(client, runtime, scene, entered(scene, jti, runtime.now(), **noted))
    entry = await the_entry(runtime)
    assert (entry.happened_at, entry.would_have_been_refused) == (pulse, None)


async def test_what_it_refused_alone_is_kept_and_nobody_is_inside(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    refused = entered(scene, jti, at, result="refused", reason="token_expired", why="used")
    await tells(client, runtime, scene, refused)
    entry = await the_entry(runtime)
    assert (entry.opened, entry.reason, entry.visit_id) == (False, "token_expired", None)
    assert await visits(runtime) == []


@pytest.mark.parametrize(
    "wrong", [{"result": "perhaps"}, {"jti": 7}, {"jti": "a b"}, {"door": "x"}]
)
async def test_an_entry_that_says_nonsense_goes_to_quarantine(
    client: httpx.AsyncClient, runtime: Runtime, wrong: dict[str, Any]
) -> None:
    scene = await a_scene(runtime)
    (result,) = await tells(client, runtime, scene, entered(scene, "j", runtime.now()) | wrong)
    assert result["status"] == "quarantined"


async def test_who_is_blocked_is_told_to_the_stations_he_holds_passes_for_by_what_is_new(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, elsewhere = await a_scene(runtime), await a_scene(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    await a_pass(client, scene)
    await a_pass(client, elsewhere)

    async def news(of: Scene, since: int) -> dict[str, Any]:
        answer = await client.get(
            "/v1/controller/denials", params={"since": since}, headers=of.controller_headers
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    nothing: dict[str, Any] = {"version": 0, "denials": [], "more": False}
    assert await news(scene, 0) == nothing
    before = await client.get("/v1/controller/config", headers=scene.controller_headers)
    path = f"/v1/admin/workers/{scene.worker.id}"
    blocked = await client.patch(path, json={"blocked": True}, headers=chief.headers)
    assert blocked.status_code == 200, blocked.text
    # The waiting poll is told at once, by the version of the config.
    poll = await client.get(
        "/v1/controller/commands",
        params={"wait": 1, "config_version": before.json()["version"]},
        headers=scene.controller_headers,
    )
    assert poll.status_code == 200
    config = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert config.json()["offline_policy"]["denial_version"] == 1
    first = await news(scene, 0)
    async with runtime.database.read() as tx:
        subject = await tx.scalar(sa.select(Pass.subject).where(Pass.worker_id == scene.worker.id))
    assert [denial["subject"] for denial in first["denials"]] == [subject]
    assert datetime.fromisoformat(first["denials"][0]["until"]) > runtime.now()
    assert await news(scene, 1) == nothing | {"version": 1}
    assert await news(elsewhere, 0) == nothing
    # Said again, nothing is new; unblocked, it is lifted.
    await client.patch(path, json={"blocked": True}, headers=chief.headers)
    assert (await news(scene, 1))["version"] == 1
    clock.advance(60)
    await client.patch(path, json={"blocked": False}, headers=chief.headers)
    lifted = await news(scene, 1)
    assert lifted["version"] == 2
    assert datetime.fromisoformat(lifted["denials"][0]["until"]) <= runtime.now()
    # Whoever asks from the beginning, or from a future we never gave, hears what holds.
    assert await news(scene, 0) == nothing | {"version": 2}
    assert await news(scene, 99) == nothing | {"version": 2}


async def test_a_box_that_was_away_for_days_hears_that_somebody_is_blocked_no_more(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    await a_pass(client, scene)
    path = f"/v1/admin/workers/{scene.worker.id}"
    for blocked in (True, False):
        done = await client.patch(path, json={"blocked": blocked}, headers=chief.headers)
        assert done.status_code == 200, done.text

    async def news() -> list[Any]:
        await privacy.retain(runtime.database, at=runtime.now(), retention_days=180)
        answer = await client.get(
            "/v1/controller/denials", params={"since": 1}, headers=scene.controller_headers
        )
        return list(answer.json()["denials"])

    clock.advance(DENIED_FOR.total_seconds())
    (lifted,) = await news()
    assert datetime.fromisoformat(lifted["until"]) <= runtime.now()
    clock.advance(1)  # By then every box forgot the denial by itself.
    assert await news() == []


WINDOWS = [Window(NIGHT - timedelta(days=1), NIGHT + timedelta(days=1), Kind.SCAN, Because.WEEKLY)]


def alone(**changes: Any) -> Alone:
    known: dict[str, Any] = {
        "hours": 72,
        "heard_ago": timedelta(hours=1),
        "error": timedelta(seconds=1),
        "keys_age": timedelta(hours=1),
        "windows": WINDOWS,
        "at": NIGHT,
    }
    return Alone(**(known | changes))


def of(kind: Kind, because: Because = Because.OVERRIDE) -> list[Window]:
    return [Window(NIGHT, NIGHT + timedelta(hours=1), kind, because)]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"hours": None}, "policy_never"),
        ({"heard_ago": timedelta(hours=72)}, None),
        ({"heard_ago": timedelta(hours=72, microseconds=1)}, "policy_expired"),
        ({"heard_ago": None}, "clock_unknown"),
        ({"error": None}, "clock_unknown"),
        ({"error": LARGEST_ERROR}, None),
        ({"error": LARGEST_ERROR + timedelta(microseconds=1)}, "clock_unknown"),
        ({"keys_age": None}, "keys_missing"),
        ({"keys_age": timedelta(hours=73)}, "keys_missing"),
        ({"windows": []}, "policy_expired"),
        ({"windows": of(Kind.FREE)}, None),
        ({"windows": of(Kind.CLOSED)}, "station_closed"),
        ({"windows": of(Kind.CLOSED, Because.EMERGENCY)}, "lockdown"),
        ({"windows": of(Kind.STAFF_ONLY)}, "staff_only"),
        ({"windows": of(Kind.EVACUATION, Because.EMERGENCY)}, "evacuation"),
        ({"windows": of(Kind.CLOSED), "at": NIGHT + timedelta(hours=1)}, "policy_expired"),
    ],
)
async def test_what_a_controller_may_do_alone(changes: dict[str, Any], found: str | None) -> None:
    assert hindrance(alone(**changes)) == found


async def test_every_hindrance_is_said_in_the_words_of_a_scan() -> None:
    said = {each: reason_of(each) for each in Hindrance}
    assert said[Hindrance.USED] == "token_expired"
    assert said[Hindrance.DENIED] == "worker_blocked"
    assert said[Hindrance.LOCKDOWN] == "lockdown"
    assert said[Hindrance.CLOCK_UNKNOWN] == "controller_offline"


async def test_a_clock_within_its_bound_is_never_further_off_than_it_says() -> None:
    """T21: a crystal of 50 ppm, a round trip of any shape."""
    rng = random.Random(21)
    for _ in range(500):
        ppm = rng.uniform(-50, 50)
        age = timedelta(hours=rng.uniform(0, LONGEST_ALONE_H))
        there, back = (timedelta(seconds=rng.uniform(0, 5)) for _ in range(2))
        # The server wrote its time after `there`; half of the whole round trip is added.
        off = (there + back) / 2 - back + age * ppm / 1_000_000
        assert abs(off) <= clock_error(age, there + back)
    assert clock_error(timedelta(hours=LONGEST_ALONE_H), timedelta(seconds=1)) <= LARGEST_ERROR
    assert datetime(2026, 1, 1, tzinfo=UTC) < NIGHT


async def test_the_databases_trouble_is_not_the_events(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadlock while an entry is reviewed loses nothing: the batch is tried again."""
    scene = await a_scene(runtime)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    at = runtime.now() + timedelta(seconds=1)
    clock.advance(600)
    real = review.review

    async def deadlocked(*args: Any, **more: Any) -> Any:
        raise OperationalError("select", {}, Exception("deadlock detected"))

    monkeypatch.setattr(review, "review", deadlocked)
    with pytest.raises(OperationalError):  # What the job meets; the controller has its answer.
        await tells(client, runtime, scene, entered(scene, jti, at))
    assert await visits(runtime) == []
    monkeypatch.setattr(review, "review", real)
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    assert len(await visits(runtime)) == 1


async def hears(runtime: Runtime, scene: Scene, since: datetime) -> None:
    """Hear a controller again that was last heard `since` then."""
    async with runtime.database.write() as tx:
        tx.add(
            ControllerOutage(
                controller_id=scene.controller_id,
                station_id=scene.station.id,
                from_at=since,
                until_at=runtime.now(),
                changed_at=runtime.now(),
            )
        )
        await tx.execute(sa.update(Controller).values(seen_at=runtime.now()))


async def forgets(runtime: Runtime) -> None:
    await privacy.retain(runtime.database, at=runtime.now(), retention_days=180)


async def known_passes(runtime: Runtime) -> int:
    async with runtime.database.read() as tx:
        return await tx.scalar(sa.select(sa.func.count(Pass.id))) or 0


DAY_S = 86_400.0


@pytest.mark.parametrize("back", ["the same box", "enrolled anew"])
async def test_whose_pass_it_was_is_known_when_the_link_is_mended_after_weeks(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, back: str
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    heard_at = runtime.now()
    clock.advance(3600)
    jti = await jti_of(runtime, scene, await a_pass(client, scene))
    happened = runtime.now() + timedelta(seconds=20)
    clock.advance(16 * DAY_S)
    await forgets(runtime)
    if back == "the same box":
        await hears(runtime, scene, heard_at)
    else:
        async with runtime.database.write() as tx:
            await tx.execute(sa.update(Controller).values(retired_at=runtime.now()))
            _, credential = await a_controller(tx, scene.station, at=runtime.now())
        scene = dataclasses.replace(scene, credential=credential)
    clock.advance(60)
    await forgets(runtime)  # The journal stands in line meanwhile.
    await tells(client, runtime, scene, entered(scene, jti, happened))
    entry = await the_entry(runtime)
    assert (entry.worker_id, entry.would_have_been_refused) == (scene.worker.id, None)
    assert entry.demand_key is not None
    assert [visit.worker_id for visit in await visits(runtime)] == [scene.worker.id]
    clock.advance(15 * DAY_S)
    await forgets(runtime)
    assert await known_passes(runtime) == 0


async def test_a_pass_is_forgotten_once_nothing_more_can_be_told_of_it(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    await a_pass(client, scene)
    clock.advance(60)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Controller).values(seen_at=runtime.now()))
    clock.advance(15 * DAY_S - 60)
    await forgets(runtime)
    assert await known_passes(runtime) == 1
    clock.advance(1)
    await forgets(runtime)  # It is silent now, and was heard after the pass.
    assert await known_passes(runtime) == 0


async def test_a_pass_is_kept_for_no_longer_than_a_visit_and_not_without_consent(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    clock.advance(3600)
    async with runtime.database.write() as tx:
        shy = await a_worker(tx, runtime, at=runtime.now(), consented=False)
    await a_pass(client, scene)
    await a_pass(client, dataclasses.replace(scene, worker=shy))
    clock.advance(16 * DAY_S)
    await forgets(runtime)
    async with runtime.database.read() as tx:
        assert list(await tx.scalars(sa.select(Pass.worker_id))) == [scene.worker.id]
    clock.advance(164 * DAY_S + 1)
    await forgets(runtime)
    assert await known_passes(runtime) == 0


@pytest.mark.parametrize(
    ("age_days", "error", "said"),
    [(14, "known", "token_invalid"), (16, "known", None), (1, "unknown", None)],
)
async def test_a_pass_that_may_have_been_forgotten_is_not_said_to_be_wrong(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    age_days: int,
    error: str,
    said: str | None,
) -> None:
    scene = await a_scene(runtime, offline_hours=72)
    happened = runtime.now()
    clock.advance(age_days * DAY_S)
    event = entered(scene, "forgotten", happened) | {"event_id": "e", "seq": 1}
    body = {"boot_id": "b", "epoch": 0, "events": [event]}
    if error == "known":
        body["sent_at"] = runtime.now().isoformat()
    answer = await client.post("/v1/controller/events", json=body, headers=scene.controller_headers)
    assert answer.status_code == 200, answer.text
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    entry = await the_entry(runtime)
    assert (entry.worker_id, entry.would_have_been_refused) == (None, said)
    assert len(await visits(runtime)) == 1


async def test_what_never_was_a_pass_of_this_station_is_said_to_be_wrong_however_old(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    foreign = await jti_of(runtime, other, await a_pass(client, other))
    happened = runtime.now()
    clock.advance(16 * DAY_S)
    first, second = [entered(scene, jti, happened) for jti in (foreign, None)]
    await tells(client, runtime, scene, first, second)
    async with runtime.database.read() as tx:
        entries = list(await tx.scalars(sa.select(OfflineEntry)))
    assert [entry.would_have_been_refused for entry in entries] == ["token_invalid"] * 2
