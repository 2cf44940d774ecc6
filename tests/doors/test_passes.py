"""A pass opens the door it was given for, once, within its minute; nothing else."""

import asyncio
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.doors import tokens
from app.doors.tables import Pass, Scan
from app.doors.tokens import TokenKind
from app.people.tables import Worker
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.conftest import Clock
from tests.support.worlds import OFFICE_HOURS, Scene, a_scene

pytestmark = pytest.mark.anyio


async def asks(client: httpx.AsyncClient, scene: Scene) -> httpx.Response:
    body = {"door": str(scene.door.id)}
    return await client.post("/v1/me/pass", json=body, headers=scene.worker.headers)


async def a_pass(client: httpx.AsyncClient, scene: Scene) -> str:
    answer = await asks(client, scene)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["token"]
    return found


async def reads(
    client: httpx.AsyncClient, scene: Scene, token: str, door: Any = None
) -> dict[str, Any]:
    answer = await client.post(
        "/v1/controller/verify",
        json={"door": str(door or scene.door.id), "token": token},
        headers=scene.controller_headers,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def executes(client: httpx.AsyncClient, scene: Scene, command: str) -> None:
    path = f"/v1/controller/commands/{command}"
    claim = {"boot_id": "b", "nonce": "n"}
    claimed = await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
    assert claimed.status_code == 200, claimed.text
    ack = {"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 0}
    await client.post(f"{path}/ack", json=ack, headers=scene.controller_headers)


async def test_a_pass_shown_to_the_reader_opens_the_door_and_begins_the_visit(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    token = await a_pass(client, scene)
    shown = await reads(client, scene, token)
    assert (shown["valid"], shown["reason"]) == (True, "ok")
    # The reader's answer was lost: the same command again.
    assert await reads(client, scene, token) == shown
    await executes(client, scene, shown["command"])
    async with runtime.database.read() as tx:
        (visit,) = await tx.scalars(sa.select(Visit))
        assert visit.worker_id == scene.worker.id
    used = await reads(client, scene, token)
    assert (used["valid"], used["reason"], used["command"]) == (False, "token_expired", None)


async def test_it_is_good_for_a_minute_at_its_own_door_only(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    token = await a_pass(client, scene)
    assert (await reads(client, other, token))["reason"] == "token_invalid"
    foreign = await client.post(
        "/v1/controller/verify",
        json={"door": str(scene.door.id), "token": token},
        headers=other.controller_headers,
    )
    assert foreign.status_code == 404
    clock.advance(59)
    assert (await reads(client, scene, token))["valid"]
    late = await a_pass(client, scene)
    clock.advance(60)
    assert (await reads(client, scene, late))["reason"] == "token_expired"


async def test_a_signed_pass_nobody_was_given_opens_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    at = runtime.now()
    forged = tokens.sign_pass(
        runtime.keys.signing(TokenKind.PASS),
        station=scene.station.code,
        worker="somebody",
        issued_at=at,
        expires_at=at + tokens.PASS_LIFETIME,
        jti="nobody",
    )
    for token in (forged, scene.poster, "x", "x" * 5_000):
        found = await reads(client, scene, token)
        assert not found["valid"]


async def test_the_decision_is_the_same_as_for_any_scan_and_is_kept(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime, access_hours=OFFICE_HOURS)
    found = await reads(client, scene, await a_pass(client, scene))
    assert (found["valid"], found["reason"]) == (False, "station_closed")
    async with runtime.database.read() as tx:
        (scan,) = await tx.scalars(sa.select(Scan))
    assert (scan.reason.value, scan.worker_id) == ("station_closed", scene.worker.id)


async def test_a_pass_of_one_who_was_blocked_meanwhile_is_refused(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    token = await a_pass(client, scene)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Worker).values(blocked_at=runtime.now()))
    assert (await reads(client, scene, token))["reason"] == "worker_blocked"
    refused = await asks(client, scene)
    assert (refused.status_code, refused.json()["code"]) == (403, "pass_refused")


async def test_shown_to_two_readers_at_once_it_is_one_command(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    token = await a_pass(client, scene)
    found = await asyncio.gather(*(reads(client, scene, token) for _ in range(4)))
    assert len({each["command"] for each in found}) == 1


async def test_what_stands_for_the_worker_differs_from_station_to_station(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    there = Scene(
        other.station, other.door, other.poster, other.controller_id, other.credential, scene.worker
    )
    for each in (scene, scene, there):
        await a_pass(client, each)
    async with runtime.database.read() as tx:
        given = list(await tx.scalars(sa.select(Pass.subject).order_by(Pass.issued_at)))
    assert len(set(given)) == 2
    assert all(scene.worker.id.hex not in subject for subject in given)


async def test_passes_are_not_given_without_end(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    answers = [(await asks(client, scene)).status_code for _ in range(11)]
    assert answers == [201] * 10 + [429]
    clock.advance(61)
    assert (await asks(client, scene)).status_code == 201
    body = {"door": "01a20000-0000-7000-8000-000000000000"}
    nowhere = await client.post("/v1/me/pass", json=body, headers=scene.worker.headers)
    assert nowhere.status_code == 404
