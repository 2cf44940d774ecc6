"""Controllers come in once by a code, change their credential, and are replaced."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.doors import controllers
from app.doors.tables import Controller
from app.main import create_app
from app.places.tables import Station
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import Clock
from tests.support.worlds import a_scene, a_station

pytestmark = pytest.mark.anyio


async def a_code(runtime: Runtime, station: Station | None = None) -> str:
    async with runtime.database.write() as tx:
        station = station or await a_station(tx, at=runtime.now())
        issued = await controllers.issue_code(tx, station, actor=COMMAND_LINE, at=runtime.now())
    return issued.code


async def introduces(client: httpx.AsyncClient, code: str, **changes: Any) -> httpx.Response:
    body = {"code": code, "serial": "SN-1", "firmware": "1.0", "nonce": "n-1"} | changes
    return await client.post("/v1/controller/enrol", json=body)


async def polls(client: httpx.AsyncClient, credential: str) -> int:
    headers = {"Authorization": f"Bearer {credential}"}
    answer = await client.get("/v1/controller/commands", params={"wait": 0}, headers=headers)
    return answer.status_code


async def rotates(client: httpx.AsyncClient, credential: str) -> str:
    headers = {"Authorization": f"Bearer {credential}"}
    answer = await client.post("/v1/controller/credential", headers=headers)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["credential"]
    return found


async def live(runtime: Runtime) -> list[uuid.UUID]:
    async with runtime.database.read() as tx:
        found = await tx.scalars(sa.select(Controller.id).where(Controller.retired_at.is_(None)))
        return list(found)


async def test_a_code_lets_one_controller_in(client: httpx.AsyncClient, runtime: Runtime) -> None:
    code = await a_code(runtime)
    taken = await introduces(client, code)
    assert taken.status_code == 201
    assert await polls(client, taken.json()["credential"]) == 204
    again = await introduces(client, code, serial="SN-2", nonce="n-2")
    assert again.status_code == 401
    assert len(await live(runtime)) == 1


async def test_a_lost_answer_is_given_again_until_the_credential_was_used(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    code = await a_code(runtime)
    lost = (await introduces(client, code)).json()
    found = (await introduces(client, code)).json()
    assert found["controller_id"] == lost["controller_id"]
    assert await polls(client, lost["credential"]) == 401
    assert (await introduces(client, code, nonce="n-2")).status_code == 401
    assert (await introduces(client, code, serial="SN-2")).status_code == 401
    assert await polls(client, found["credential"]) == 204
    assert (await introduces(client, code)).status_code == 401


async def test_a_code_ends_after_a_day(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    code = await a_code(runtime)
    clock.advance(24 * 3600)
    assert (await introduces(client, code)).status_code == 401


async def test_of_two_controllers_with_one_code_one_comes_in(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    code = await a_code(runtime)
    answers = await asyncio.gather(
        *(introduces(client, code, serial=f"SN-{n}", nonce=f"n-{n}") for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 401, 401, 401, 401]
    assert len(await live(runtime)) == 1


async def test_a_new_controller_retires_the_one_before(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    assert await polls(client, scene.credential) == 204
    taken = (await introduces(client, await a_code(runtime, scene.station))).json()
    assert await polls(client, scene.credential) == 401
    assert [str(found) for found in await live(runtime)] == [taken["controller_id"]]


async def test_the_credential_before_ends_an_hour_after_the_new_one_was_used(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    old = (await a_scene(runtime)).credential
    new = await rotates(client, old)
    assert await polls(client, new) == 204
    clock.advance(3599)
    assert await polls(client, old) == 204
    clock.advance(2)
    assert await polls(client, old) == 401
    assert await polls(client, new) == 204


async def test_a_lost_new_credential_locks_nobody_out(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    old = (await a_scene(runtime)).credential
    lost = await rotates(client, old)
    clock.advance(30 * 86_400)  # The link stays down for a month.
    new = await rotates(client, old)
    assert await polls(client, lost) == 401
    assert await polls(client, new) == 204


async def test_a_rotation_does_not_reopen_the_enrolment(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    code = await a_code(runtime)
    first = (await introduces(client, code)).json()["credential"]
    await rotates(client, first)
    assert (await introduces(client, code)).status_code == 401


async def test_a_retired_controller_is_refused_at_once(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    waiting = asyncio.create_task(
        client.get(
            "/v1/controller/commands",
            params={"boot_id": "b", "wait": 2},
            headers=scene.controller_headers,
        )
    )
    await asyncio.sleep(0.3)
    async with runtime.database.write() as tx:
        found = await tx.get_one(Controller, scene.controller_id)
        await controllers.retire(tx, runtime.wakeups, found, actor=COMMAND_LINE, at=runtime.now())
    answer = await asyncio.wait_for(waiting, timeout=1.5)
    assert answer.status_code == 401
    assert await polls(client, scene.credential) == 401


async def test_the_config_has_a_tag_and_windows_without_gaps(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    found = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert found.status_code == 200
    windows = found.json()["windows"]
    for before, after in pairwise(windows):
        assert before["until"] == after["from"]
    assert [door["id"] for door in found.json()["doors"]] == [str(scene.door.id)]
    tagged = scene.controller_headers | {"If-None-Match": found.headers["ETag"]}
    assert (await client.get("/v1/controller/config", headers=tagged)).status_code == 304


@asynccontextmanager
async def serving(settings: Settings, clock: Clock) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    app = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
    ):
        yield app.state.runtime, client


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"max_wait_s": 5}, {"max_wait_s": 5, "silence_s": 75}),
        ({"controller_silence_s": 300}, {"max_wait_s": 2, "silence_s": 300}),
        ({"public_url": "https://other.example"}, {"max_wait_s": 2, "silence_s": 75}),
        ({"retention_days": 90}, None),
    ],
)
async def test_a_restart_with_another_setting_is_told_at_the_next_poll_if_the_config_says_it(
    settings: Settings, clock: Clock, changed: dict[str, Any], told: dict[str, int] | None
) -> None:
    async with serving(settings, clock) as (held, client):
        scene = await a_scene(held)
        found = await client.get("/v1/controller/config", headers=scene.controller_headers)
    tagged = scene.controller_headers | {"If-None-Match": found.headers["ETag"]}
    async with serving(settings.model_copy(update=changed), clock) as (held, client):
        polled = await client.get(
            "/v1/controller/commands",
            params={"wait": 0, "config_version": found.json()["version"]},
            headers=scene.controller_headers,
        )
        fetched = await client.get("/v1/controller/config", headers=tagged)
    if told is None:
        assert (polled.status_code, fetched.status_code) == (204, 304)
        return
    assert polled.json()["config_version"] == fetched.json()["version"]
    assert fetched.json()["limits"] == told
    assert fetched.json()["jwks_url"].startswith(held.settings.public_url)


async def test_a_box_that_is_moved_to_another_station_is_told_that_its_config_is_another(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Every station's own version begins at 1."""
    here, there = await a_scene(runtime), await a_scene(runtime)
    before = await client.get("/v1/controller/config", headers=here.controller_headers)
    version, etag = before.json()["version"], before.headers["ETag"]
    polled = await client.get(
        "/v1/controller/commands",
        params={"wait": 0, "config_version": version},
        headers=there.controller_headers,
    )
    assert polled.status_code == 200
    fetched = await client.get(
        "/v1/controller/config", headers=there.controller_headers | {"If-None-Match": etag}
    )
    assert fetched.status_code == 200
    assert fetched.json()["station"]["code"] == there.station.code
    assert fetched.json()["version"] == polled.json()["config_version"]
