"""What a careful stranger broke once: each of these stood wrong, and must not again."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.db.wakeups import PostgresWakeups
from app.doors import controllers, desk, keys
from app.doors.registry import poster_token
from app.doors.tables import Command, Controller, Scan
from app.doors.tokens import PosterClaims, TokenKind
from app.people.tables import Worker
from app.runtime import Runtime
from app.settings import Settings
from tests.api.test_worker_account import PHONE, outbox, signed_in
from tests.conftest import Clock
from tests.support.worlds import Scene, SomeAdmin, a_scene, a_station, a_unit, a_worker, an_admin

pytestmark = pytest.mark.anyio


async def scans(client: httpx.AsyncClient, scene: Scene, key: str, **more: Any) -> httpx.Response:
    headers = scene.worker.headers | {"Idempotency-Key": key}
    body = {"token": scene.poster} | more
    return await client.post("/v1/scans", json=body, headers=headers)


async def executes(client: httpx.AsyncClient, scene: Scene, *, gap_s: float, clock: Clock) -> None:
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    (command,) = poll.json()["commands"]
    path = f"/v1/controller/commands/{command['id']}"
    claim = {"boot_id": "b", "nonce": "n"}
    await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
    clock.advance(gap_s)
    ack = {"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 100}
    await client.post(f"{path}/ack", json=ack, headers=scene.controller_headers)


async def the_chief(runtime: Runtime) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now())


@pytest.mark.parametrize("path", ["/v1/stations/%00", "/v1/stations/a%00/mode", "/v1/stations/%ff"])
async def test_a_nul_in_an_address_is_nothing_there(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_a_nul_in_a_body_or_file_is_refused(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    for name in ("a\x00b", "a\nb", "a\x1bb"):
        body = {"station": str(scene.station.id), "kind": "water", "name": name}
        answer = await client.post("/v1/admin/facilities", json=body, headers=chief.headers)
        assert answer.status_code == 422
    content = "date,day_class,name,state_council_notice\n2031-10-01,public_holiday,a\x00b,x\n"
    headers = chief.headers | {"Content-Type": "text/csv"}
    answer = await client.post("/v1/admin/calendar", content=content, headers=headers)
    assert answer.status_code == 422


async def test_a_second_taps_key_repeated_later_opens_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    first = await scans(client, scene, "k1")
    second = await scans(client, scene, "k2")
    assert (second.status_code, second.json()["id"]) == (200, first.json()["id"])
    await executes(client, scene, gap_s=0, clock=clock)
    clock.advance(30)
    again = await scans(client, scene, "k2")
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = await scans(client, scene, "k2", party_size=2)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Command)) == 1


async def test_after_a_late_ack_the_next_tap_pulses_again(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await scans(client, scene, "k1")
    await executes(client, scene, gap_s=60, clock=clock)
    assert (await scans(client, scene, "k2")).status_code == 201


async def test_a_door_that_never_opened_is_no_journey(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    far, near = await a_scene(runtime, latitude=31.0), await a_scene(runtime)
    here = Scene(
        near.station, near.door, near.poster, near.controller_id, near.credential, far.worker
    )
    await scans(client, far, "k1")
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Command).values(state="expired"))
    found = await scans(client, here, "k2")
    assert (found.json()["outcome"], found.json()["reason"]) == ("granted", "ok")


async def test_a_leaked_key_that_was_rotated_already_can_be_destroyed(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    leaked = runtime.keys.signing(TokenKind.POSTER).kid
    forged = poster_token(runtime.keys.signing(TokenKind.POSTER), scene.door)
    async with runtime.database.write() as tx:
        await keys.rotate(
            tx,
            runtime.vault,
            runtime.wakeups,
            TokenKind.POSTER,
            actor=COMMAND_LINE,
            at=runtime.now(),
        )
    path = f"/v1/admin/keys/{leaked}/retire"
    assert (await client.post(path, headers=chief.headers)).status_code == 409
    gone = await client.post(path, json={"emergency": True}, headers=chief.headers)
    assert gone.json()["state"] == "retired"
    await runtime.keys.fresh(runtime.database)
    assert not isinstance(runtime.keys.poster(forged), PosterClaims)
    signing = runtime.keys.signing(TokenKind.POSTER).kid
    active = await client.post(
        f"/v1/admin/keys/{signing}/retire", json={"emergency": True}, headers=chief.headers
    )
    assert active.status_code == 409  # Rotate first: something must sign.


async def test_erasure_leaves_nothing_that_leads_back(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await scans(client, scene, "k1")
    assert (await client.delete("/v1/me", headers=scene.worker.headers)).status_code == 204
    async with runtime.database.read() as tx:
        (scan,) = await tx.scalars(sa.select(Scan))
    assert (scan.owner_key, scan.worker_id) == (None, None)


async def test_one_half_hour_of_trying_is_one_demand_and_the_next_another(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, access_hours=None)
    for number, gap_s in enumerate((60, 60, 1_800)):
        await scans(client, scene, f"k{number}")
        clock.advance(gap_s)
    await scans(client, scene, "k9")
    async with runtime.database.read() as tx:
        found = list(await tx.scalars(sa.select(Scan.demand_key).order_by(Scan.scanned_at)))
    assert found[0] == found[1] == found[2] != found[3]


async def test_forgetting_oneself_frees_no_messages_and_lifts_no_block(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    headers = {"Authorization": ""}
    token = (await signed_in(client, settings)).json()["access_token"]
    headers["Authorization"] = f"Bearer {token}"
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Worker).values(blocked_at=runtime.now()))
    client.cookies.clear()
    assert (await client.delete("/v1/me", headers=headers)).status_code == 204
    sent = len(outbox(settings))
    await client.post("/v1/auth/otp", json={"phone": PHONE})
    assert len(outbox(settings)) == sent
    clock.advance(120)
    await signed_in(client, settings)
    async with runtime.database.read() as tx:
        worker = await tx.scalar(sa.select(Worker).where(Worker.erased_at.is_(None)))
    assert worker is not None
    assert worker.blocked_at is not None


async def test_a_credential_revoked_while_it_was_looked_up_is_not_remembered(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Controller).values(credential_used=False))
    mark = desk._mark_used

    async def slow(*given: Any, **more: Any) -> None:
        async with runtime.database.read() as tx:
            found = await tx.get_one(Controller, scene.controller_id)
        assert found.retired_at is None
        await mark(*given, **more)
        retire = sa.update(Controller).values(retired_at=runtime.now())
        await given[0].execute(retire)

    monkeypatch.setattr(desk, "_mark_used", slow)
    found = await runtime.controllers.find(scene.credential, at=runtime.now())
    assert found is None


async def test_a_topic_rung_again_while_it_is_told_is_told_again() -> None:
    class Connection:
        """Rings once more while it tells."""

        def __init__(self) -> None:
            self.told: list[list[str]] = []

        async def execute(self, _query: str, _channel: str, topics: list[str], **_: Any) -> None:
            self.told.append(topics)
            if len(self.told) == 1:
                wakeups.tell({"keys"})
            else:
                wakeups._lost.set()

        def get_server_pid(self) -> int:
            return 1

        def add_termination_listener(self, _listener: Any) -> None:
            pass

        async def add_listener(self, _channel: str, _heard: Any) -> None:
            wakeups.tell({"keys"})

    wakeups = PostgresWakeups("postgresql://nowhere")
    connection = Connection()
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(wakeups._serve(connection), timeout=5)
    assert connection.told == [["keys"], ["keys"]]
    assert issubclass(asyncpg.InterfaceError, Exception)


async def test_keys_and_calendar_are_read_again_after_a_read_that_failed(runtime: Runtime) -> None:
    class Broken:
        async def scalars(self, *_: Any) -> Any:
            raise ConnectionResetError

        execute = scalars

    for cache in (runtime.keys, runtime.calendar):
        cache.forget()
        with pytest.raises(ConnectionResetError):
            await cache.load(Broken())  # type: ignore[arg-type]
        assert cache._stale


async def test_a_path_that_was_left_is_never_anothers(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)

    async def add(name: str, parent: str | None = None) -> dict[str, Any]:
        body = {"name": name, "kind": "district" if parent else "city", "parent": parent}
        answer = await client.post("/v1/admin/units", json=body, headers=chief.headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    city = await add("市")
    one, two = await add("一", city["id"]), await add("二", city["id"])
    path = f"/v1/admin/units/{two['id']}"
    await client.patch(path, json={"parent": one["id"]}, headers=chief.headers)
    assert (await add("三", city["id"]))["path"] != two["path"]


async def test_names_from_the_root_stay_unambiguous(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=runtime.now())
        old = await a_unit(tx, at=runtime.now(), parent=city, name="旧")
        old.retired_at = runtime.now()
    parent = {"parent": str(city.id), "kind": "district"}
    assert (
        await client.post("/v1/admin/units", json=parent | {"name": "甲"}, headers=chief.headers)
    ).status_code == 201
    for name in ("甲", "甲/乙"):
        again = await client.post(
            "/v1/admin/units", json=parent | {"name": name}, headers=chief.headers
        )
        assert (again.status_code, again.json()["code"]) == (422, "unit_invalid")
    below = {"parent": str(old.id), "kind": "street", "name": "丙"}
    assert (
        await client.post("/v1/admin/units", json=below, headers=chief.headers)
    ).status_code == 422
    rooted = await client.patch(
        f"/v1/admin/units/{old.id}", json={"parent": None}, headers=chief.headers
    )
    assert rooted.status_code == 422


async def test_refusals_that_name_no_station_are_reported_for_the_city(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    await scans(client, scene, "k1", token="forged")
    await scans(client, scene, "k2", token="x" * 30_000)
    params = {"from": "2026-11-23", "to": "2026-11-24"}
    found = await client.get("/v1/admin/reports/access", params=params, headers=chief.headers)
    assert found.json()["refused_without_station"] == {"token_invalid": 2}


async def test_a_retired_station_takes_nothing_more(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    station = str(scene.station.id)
    await client.post(f"/v1/admin/stations/{station}/retire", headers=chief.headers)
    for path, body in (
        ("/v1/admin/doors", {"station": station, "name": "侧门"}),
        ("/v1/admin/facilities", {"station": station, "kind": "water"}),
        ("/v1/admin/controllers/enrolment", {"station": station}),
    ):
        answer = await client.post(path, json=body, headers=chief.headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "station_retired"), path
    poster = await client.get(f"/v1/admin/doors/{scene.door.id}/poster.png", headers=chief.headers)
    assert poster.status_code == 409


async def test_a_head_count_lies_within_the_stations_life(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    clock.advance(7200)
    path = f"/v1/admin/stations/{scene.station.id}/walk-ins"
    before = runtime.now() - timedelta(days=1)
    for begin, status in ((before, 422), (runtime.now() - timedelta(minutes=90), 201)):
        chief = await the_chief(runtime)
        body = {
            "count": 3,
            "from": begin.isoformat(),
            "until": (begin + timedelta(minutes=30)).isoformat(),
        }
        answer = await client.post(path, json=body, headers=chief.headers)
        assert answer.status_code == status, answer.text


async def test_versions_are_compared_as_http_says(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    for path, headers in (
        ("/.well-known/jwks.json", {}),
        ("/v1/controller/config", scene.controller_headers),
    ):
        etag = (await client.get(path, headers=headers)).headers["ETag"]
        for held in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            answer = await client.get(path, headers=headers | {"If-None-Match": held})
            assert answer.status_code == 304, held


async def test_a_poll_that_is_superseded_names_the_version(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    poll = {"url": "/v1/controller/commands", "headers": scene.controller_headers}
    older = asyncio.create_task(client.get(**poll, params={"wait": 2}))
    await asyncio.sleep(0.3)
    await client.get(**poll, params={"wait": 0})
    answer = await asyncio.wait_for(older, timeout=1)
    assert answer.status_code == 204
    assert answer.headers["Config-Version"]


async def test_a_new_controller_is_there_at_once_for_every_process(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=runtime.now())
        issued = await controllers.issue_code(tx, station, actor=COMMAND_LINE, at=runtime.now())
        await a_worker(tx, runtime, at=runtime.now())
    body = {"code": issued.code, "serial": "s", "firmware": "1", "nonce": "n"}
    await client.post("/v1/controller/enrol", json=body)
    async with runtime.database.read() as tx:
        (controller,) = await tx.scalars(sa.select(Controller))
    assert controller.seen_at == runtime.now()
