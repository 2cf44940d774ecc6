"""Law 3: at most one pulse per command, never late; and what each step costs."""

import asyncio
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from app.db.types import new_id
from app.doors import commands
from app.doors.rules import CommandState
from app.doors.tables import AckEvidence, Command, Scan
from app.places.rules import ChangeKind, Tier
from app.places.tables import ModeChange
from app.runtime import Runtime
from app.visits import presence
from app.visits.tables import Visit
from tests.conftest import Clock
from tests.support.statements import statements_of
from tests.support.worlds import Scene, a_scene, a_worker, an_admin

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def granted(client: httpx.AsyncClient, scene: Scene, key: str = "k") -> dict[str, Any]:
    answer = await client.post(
        "/v1/scans",
        json={"token": scene.poster},
        headers={**scene.worker.headers, "Idempotency-Key": key},
    )
    assert answer.json()["outcome"] == "granted", answer.text
    found: dict[str, Any] = answer.json()
    return found


async def told(client: httpx.AsyncClient, scene: Scene) -> list[str]:
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    return [item["id"] for item in poll.json()["commands"]] if poll.status_code == 200 else []


async def claims(
    client: httpx.AsyncClient, scene: Scene, command: str, boot: str = "b", nonce: str = "n"
) -> httpx.Response:
    return await client.post(
        f"/v1/controller/commands/{command}/claim",
        json={"boot_id": boot, "nonce": nonce},
        headers=scene.controller_headers,
    )


async def acks(
    client: httpx.AsyncClient, scene: Scene, command: str, result: str, boot: str = "b", **more: Any
) -> httpx.Response:
    return await client.post(
        f"/v1/controller/commands/{command}/ack",
        json={"boot_id": boot, "result": result, **more},
        headers=scene.controller_headers,
    )


async def test_one_of_many_claims_wins(client: httpx.AsyncClient, runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    answers = await asyncio.gather(
        *(claims(client, scene, command, nonce=f"n{number}") for number in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert {a.json().get("code") for a in answers} == {None, "claimed_by_another"}


async def test_the_same_nonce_gets_the_same_grant_with_less_time(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    first = await claims(client, scene, command)
    clock.advance(2)
    again = await claims(client, scene, command)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["ttl_ms"] <= first.json()["ttl_ms"]
    other_boot = await claims(client, scene, command, boot="after-restart")
    assert other_boot.status_code == 409


async def test_the_pulse_after_a_repeated_claim_is_dated_from_the_claim_that_was_answered(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """The first answer was lost; the device counts from its second sending."""
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    began = clock.now()
    assert (await claims(client, scene, command)).status_code == 200
    clock.advance(7)
    assert (await claims(client, scene, command)).status_code == 200
    assert (await claims(client, scene, command, nonce="another")).status_code == 409
    clock.advance(2)
    ack = await acks(client, scene, command, "executed", pulse_after_claim_ms=400)
    assert ack.status_code == 200
    assert (await claims(client, scene, command)).status_code == 410
    async with runtime.database.read() as tx:
        row = (await tx.scalars(sa.select(Command))).one()
    assert (row.claimed_at, row.pulsed_at) == (began, began + timedelta(seconds=7.4))


async def expire(runtime: Runtime, clock: Clock) -> None:
    """Let the ten seconds pass, on whichever clock decides."""
    clock.advance(10.01)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Command).values(expires_at=LONG_AGO))


async def test_past_the_deadline_nothing_is_given(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    scan = await granted(client, scene)
    (command,) = await told(client, scene)
    await expire(runtime, clock)
    late = await claims(client, scene, command)
    assert late.status_code == 410
    assert late.json()["code"] == "command_expired"
    assert await told(client, scene) == []
    state = await client.get(f"/v1/scans/{scan['id']}", headers=scene.worker.headers)
    assert state.json()["state"] == "expired"


async def test_when_the_clock_went_back_an_hour_a_command_has_no_hour_left(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """On PostgreSQL the clock of another machine decides; seen from it, the end lies far ahead."""
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Command).values(expires_at=ahead))
    if runtime.database.is_embedded:
        clock.advance(10.01)
    assert await told(client, scene) == []
    late = await claims(client, scene, command)
    assert (late.status_code, late.json()["code"]) == (410, "command_expired")
    async with runtime.database.write() as tx:
        assert await commands.expire(tx, clock=runtime.deadlines, at=clock.now())


async def test_a_claim_that_was_never_settled_reads_unknown_and_a_late_ack_settles_it(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    scan = await granted(client, scene)
    (command,) = await told(client, scene)
    assert (await claims(client, scene, command)).status_code == 200
    await expire(runtime, clock)
    state = await client.get(f"/v1/scans/{scan['id']}", headers=scene.worker.headers)
    assert state.json()["state"] == "unknown"
    async with runtime.database.write() as tx:
        await commands.expire(tx, clock=runtime.deadlines, at=clock.now())
    ack = await acks(client, scene, command, "executed", pulse_after_claim_ms=200)
    assert ack.status_code == 200
    state = await client.get(f"/v1/scans/{scan['id']}", headers=scene.worker.headers)
    assert state.json()["state"] == "executed"
    assert state.json()["visit_id"] is not None


@pytest.mark.parametrize("said", [{}, {"pulse_after_claim_ms": 3_600_000}])
async def test_however_late_it_is_told_the_pulse_was_within_its_ten_seconds(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, said: dict[str, Any]
) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    began = clock.now()
    clock.advance(2)
    assert (await claims(client, scene, command)).status_code == 200
    clock.advance(7_200)
    assert (await acks(client, scene, command, "executed", **said)).status_code == 200
    async with runtime.database.read() as tx:
        visit = (await tx.scalars(sa.select(Visit))).one()
        assert began <= visit.started_at <= began + timedelta(seconds=10)
        assert await tx.scalar(sa.select(presence.inside(scene.station.id, clock.now()))) == 0


async def test_the_first_ack_stands_and_another_is_kept_as_evidence(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    await claims(client, scene, command)
    assert (await acks(client, scene, command, "executed")).status_code == 200
    assert (await acks(client, scene, command, "executed")).status_code == 200
    for detail in ("once", "again"):
        other = await acks(client, scene, command, "failed", detail=detail)
        assert other.status_code == 409
        assert other.json()["code"] == "ack_conflict"
    stranger = await acks(client, scene, command, "executed", boot="another")
    assert stranger.json()["code"] == "not_claimed"
    async with runtime.database.read() as tx:
        kept = await tx.execute(sa.select(AckEvidence.boot_id, AckEvidence.detail))
        assert {tuple(row) for row in kept} == {("b", "again"), ("another", None)}
        assert await tx.scalar(sa.select(sa.func.count()).select_from(AckEvidence)) == 2
        assert await tx.scalar(sa.select(Command.state)) is CommandState.EXECUTED


@pytest.mark.parametrize(
    ("detail", "kept"),
    [
        ("d" * 300, "d" * 200),
        ("  one\nline \x00", "one line"),
        ("门" * 201, "门" * 200),
        ("\t", None),
        ("", None),
        ({"code": 7}, None),
    ],
)
async def test_a_remark_that_cannot_be_kept_costs_no_result(
    client: httpx.AsyncClient, runtime: Runtime, detail: Any, kept: str | None
) -> None:
    """Or the device would forget a pulse that we never heard of."""
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    await claims(client, scene, command)
    ack = await acks(client, scene, command, "executed", detail=detail)
    assert ack.status_code == 200, ack.text
    async with runtime.database.read() as tx:
        (row,) = await tx.scalars(sa.select(Command))
    assert (row.state, row.detail) == (CommandState.EXECUTED, kept)


async def test_another_controllers_command_does_not_exist(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    assert (await claims(client, other, command)).status_code == 404
    assert (await acks(client, other, command, "executed")).status_code == 404


async def test_a_lockdown_refuses_what_is_pending(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    scan = await granted(client, scene)
    (command,) = await told(client, scene)
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=clock.now())
    lockdown = await client.post(
        f"/v1/admin/stations/{scene.station.id}/overrides",
        json={
            "kind": "lockdown",
            "from": clock.now().isoformat(),
            "until": (clock.now() + timedelta(hours=1)).isoformat(),
            "note": "gas",
        },
        headers=admin.headers,
    )
    assert lockdown.status_code == 201, lockdown.text
    refused = await claims(client, scene, command)
    assert refused.status_code == 410
    assert refused.json()["code"] == "command_refused"
    state = await client.get(f"/v1/scans/{scan['id']}", headers=scene.worker.headers)
    assert state.json()["state"] == "refused"


@pytest.mark.parametrize("behind_s", [3, 3_600])
@pytest.mark.parametrize("kind", [ChangeKind.LOCKDOWN, ChangeKind.EVACUATION])
async def test_an_emergency_that_has_begun_holds_for_a_clock_that_lies_behind_too(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, kind: ChangeKind, behind_s: int
) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    clock.advance(1)
    at = clock.now()
    # As another process writes it that does not know of the command.
    values = {"from_at": at, "until_at": at + timedelta(hours=1), "created_at": at}
    async with runtime.database.write() as tx:
        tx.add(
            ModeChange(
                id=new_id(),
                station_id=scene.station.id,
                tier=Tier.OVERRIDE,
                kind=kind,
                note="",
                changed_at=at,
                **values,
            )
        )
        worker = await a_worker(tx, runtime, at=at - timedelta(days=1))
        admin = await an_admin(tx, at=at)
    clock.set(at - timedelta(seconds=behind_s))
    refused = await claims(client, scene, command)
    assert (refused.status_code, refused.json()["code"]) == (410, "command_refused")
    headers = worker.headers | {"Idempotency-Key": "k"}
    answer = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert answer.json()["reason"] == kind.value
    afar = await client.post(
        f"/v1/admin/doors/{scene.door.id}/unlock", json={"reason": "x"}, headers=admin.headers
    )
    assert (afar.status_code, afar.json()["code"]) == (409, "emergency_holds")


async def test_no_claim_commits_after_a_lockdown_committed(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=clock.now())
    for number in range(15):
        scene = await a_scene(runtime)
        await granted(client, scene, f"k{number}")
        (command,) = await told(client, scene)
        body = {
            "kind": "lockdown",
            "from": clock.now().isoformat(),
            "until": (clock.now() + timedelta(hours=1)).isoformat(),
        }
        claim, lockdown = await asyncio.gather(
            claims(client, scene, command),
            client.post(
                f"/v1/admin/stations/{scene.station.id}/overrides",
                json=body,
                headers=admin.headers,
            ),
        )
        assert lockdown.status_code == 201
        assert claim.status_code in (200, 410)
        async with runtime.database.read() as tx:
            state = await tx.scalar(
                sa.select(Command.state).where(Command.station_id == scene.station.id)
            )
        expected = CommandState.CLAIMED if claim.status_code == 200 else CommandState.REFUSED
        assert state is expected


async def test_capacity_is_given_away_once(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, capacity=3)
    async with runtime.database.write() as tx:
        crowd = [await a_worker(tx, runtime, at=clock.now()) for _ in range(8)]
    answers = await asyncio.gather(
        *(
            client.post(
                "/v1/scans",
                json={"token": scene.poster},
                headers={**worker.headers, "Idempotency-Key": "k"},
            )
            for worker in crowd
        )
    )
    outcomes = sorted(answer.json()["reason"] for answer in answers)
    assert outcomes == ["ok"] * 3 + ["station_full"] * 5
    async with runtime.database.read() as tx:
        kept = await tx.scalar(sa.select(sa.func.count()).where(Scan.reserved_until.is_not(None)))
    assert kept == 3


async def test_a_granted_scan_costs_four_statements_a_claim_two_a_poll_one(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    await asyncio.sleep(0.5)  # The bells' connection stands: nothing is forgotten any more.
    await client.get("/.well-known/jwks.json")
    await client.get(f"/v1/stations/{scene.station.code}")
    await told(client, scene)  # Keys, calendar and credential are in memory from now on.
    with statements_of(runtime.database) as sent:
        await granted(client, scene)
    assert len(sent) <= 4, sent
    assert not [statement for statement in sent if "notify" in statement.lower()]
    with statements_of(runtime.database) as sent:
        (command,) = await told(client, scene)
    assert len(sent) == 1, sent
    with statements_of(runtime.database) as sent:
        assert (await claims(client, scene, command)).status_code == 200
    assert len(sent) == 2, sent


async def test_waiting_polls_hold_no_connection_and_ask_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scenes = [await a_scene(runtime) for _ in range(8)]
    with statements_of(runtime.database) as sent:
        waiting = [
            asyncio.create_task(
                client.get(
                    "/v1/controller/commands",
                    params={"wait": 1},
                    headers=scene.controller_headers,
                )
            )
            for scene in scenes
        ]
        await asyncio.sleep(0.5)
        pool: Any = runtime.database.reading_engine.pool
        assert pool.checkedout() == 0
        asked = len(sent)
        await asyncio.sleep(0.4)
        assert len(sent) == asked
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [204] * 8
    assert all("Config-Version" in answer.headers for answer in answers)


async def test_a_newer_poll_ends_the_older(client: httpx.AsyncClient, runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    older = asyncio.create_task(
        client.get("/v1/controller/commands", params={"wait": 2}, headers=scene.controller_headers)
    )
    await asyncio.sleep(0.1)
    newer = asyncio.create_task(
        client.get("/v1/controller/commands", params={"wait": 1}, headers=scene.controller_headers)
    )
    done, _ = await asyncio.wait({older, newer}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {older}
    assert older.result().status_code == 204
    await newer


async def test_a_retired_controller_loses_its_open_poll_and_everything_else(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=clock.now())
    poll = asyncio.create_task(
        client.get("/v1/controller/commands", params={"wait": 2}, headers=scene.controller_headers)
    )
    await asyncio.sleep(0.1)
    retired = await client.post(
        f"/v1/admin/controllers/{scene.controller_id}/retire", headers=admin.headers
    )
    assert retired.status_code == 200
    assert (await poll).status_code == 401
    config = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert config.status_code == 401


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_the_end_of_a_poll_whose_controller_hung_up_is_no_sign_of_life(
    app: FastAPI, runtime: Runtime, clock: Clock, hangs_up: bool
) -> None:
    """Law 6: its link broke in the middle of a wait; the end of that wait is only our own clock."""
    scene = await a_scene(runtime)
    clock.advance(100)  # Longer than a young process gives everybody the benefit of the doubt.
    told = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if told:
            return told.pop()
        if not hangs_up:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/controller/commands",
        "raw_path": b"/v1/controller/commands",
        "query_string": b"wait=1",
        "root_path": "",
        "headers": [(b"authorization", scene.controller_headers["Authorization"].encode())],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    poll = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0.3)
    clock.advance(50)
    await poll
    clock.advance(26)
    heard = runtime.controllers.is_heard(scene.controller_id, None, at=clock.now())
    assert heard is not hangs_up


async def test_who_waits_when_we_stop_is_asked_back_over_a_while(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """R11: thousands lose one process in the same second."""
    scene = await a_scene(runtime)
    runtime.stopping.set()
    pauses = set()
    for _ in range(20):
        answer = await client.get(
            "/v1/controller/commands", params={"wait": 2}, headers=scene.controller_headers
        )
        assert answer.status_code == 204
        pauses.add(int(answer.headers["Next-Poll-Ms"]))
    assert len(pauses) > 10
    assert max(pauses) <= 5_000


async def test_a_changed_config_is_told_to_a_waiting_controller(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    config = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert config.status_code == 200
    etag, version = config.headers["ETag"], config.json()["version"]
    same = await client.get(
        "/v1/controller/config", headers={**scene.controller_headers, "If-None-Match": etag}
    )
    assert same.status_code == 304
    async with runtime.database.write() as tx:
        admin = await an_admin(tx, at=clock.now())
    poll = asyncio.create_task(
        client.get(
            "/v1/controller/commands",
            params={"wait": 2, "config_version": version},
            headers=scene.controller_headers,
        )
    )
    await asyncio.sleep(0.1)
    amended = await client.patch(
        f"/v1/admin/stations/{scene.station.id}",
        json={"staffed_hours": None},
        headers=admin.headers,
    )
    assert amended.status_code == 200, amended.text
    answer = await poll
    assert answer.status_code == 200
    assert answer.json()["commands"] == []
    assert answer.json()["config_version"] != version


async def test_the_start_expires_what_an_earlier_process_left(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await granted(client, scene)
    async with runtime.database.write() as tx:
        changed = await commands.expire(
            tx, clock=runtime.deadlines, at=clock.now(), everything=True
        )
    assert changed == 1
    assert await told(client, scene) == []
