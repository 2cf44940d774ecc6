"""What thousands of polls see is read for many at once, and never before it was asked for."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.db.gathered import MOST
from app.doors.tables import Controller
from app.runtime import Runtime
from tests.support.statements import statements_of
from tests.support.worlds import a_scene

pytestmark = pytest.mark.anyio


async def test_many_polls_are_read_for_in_one_statement(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    other = await a_scene(runtime)
    ids = [scene.controller_id, other.controller_id, uuid.uuid4()] * 10
    with statements_of(runtime.database) as statements:
        seen = await asyncio.gather(*(runtime.lookout.ask(one, at_once=False) for one in ids))
    assert sum("FROM controllers" in statement for statement in statements) == 1
    assert [one is None for one in seen] == [False, False, True] * 10


async def test_what_one_read_cannot_hold_is_read_after_it(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    ids = [uuid.uuid4() for _ in range(MOST)] + [scene.controller_id]
    seen = await asyncio.gather(*(runtime.lookout.ask(one, at_once=False) for one in ids))
    assert [one is not None for one in seen] == [False] * MOST + [True]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_look_sees_what_was_committed_before_it(runtime: Runtime, at_once: bool) -> None:
    scene = await a_scene(runtime)
    under_way = [
        asyncio.create_task(runtime.lookout.ask(scene.controller_id, at_once=False))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    async with runtime.database.write() as tx:
        await tx.execute(
            sa.update(Controller)
            .where(Controller.id == scene.controller_id)
            .values(retired_at=runtime.now())
        )
    assert await runtime.lookout.ask(scene.controller_id, at_once=at_once) is None
    await asyncio.gather(*under_way)


async def test_a_poll_that_went_away_takes_no_other_with_it(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    gone = asyncio.create_task(runtime.lookout.ask(scene.controller_id, at_once=False))
    stays = asyncio.create_task(runtime.lookout.ask(scene.controller_id, at_once=False))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.wait_for(stays, 5) is not None


async def test_a_database_that_fails_is_told_to_every_poll_and_asked_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await a_scene(runtime)

    async def fails(_keys: Any) -> Any:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(runtime.lookout, "_read_many", fails)
        looks = (runtime.lookout.ask(scene.controller_id, at_once=True) for _ in range(3))
        found = await asyncio.gather(*looks, return_exceptions=True)
    assert [type(one) for one in found] == [ConnectionError] * 3
    assert await runtime.lookout.ask(scene.controller_id, at_once=True) is not None


PLAIN = "wait=0"


@pytest.mark.parametrize(
    ("query", "credential"),
    [
        (f"{PLAIN}&boot_id=b", "right"),
        (f"{PLAIN}&boot_id=b&config_version=", "right"),
        (f"{PLAIN}&config_version=0-20000101", "right"),
        (f"{PLAIN}&config_version=%E4%BA%8C", "right"),
        (f"{PLAIN}&boot_id={'b' * 129}", "right"),
        (f"{PLAIN}&boot_id={'b' * 128}", "right"),
        ("wait=61", "right"),
        ("wait=-1", "right"),
        ("wait=", "right"),
        ("wait=soon", "right"),
        ("wait=%30", "right"),
        (PLAIN, "wrong"),
        (PLAIN, "long" * 100),
        (PLAIN, ""),
        (PLAIN, None),
    ],
)
async def test_a_plain_poll_is_answered_as_the_documented_one(
    client: httpx.AsyncClient, runtime: Runtime, query: str, credential: str | None
) -> None:
    """A parameter that nobody knows sends the same poll through the framework."""
    scene = await a_scene(runtime)
    headers = {}
    if credential is not None:
        secret = scene.credential if credential == "right" else credential
        headers["Authorization"] = f"Bearer {secret}"
    plain, documented = [
        await client.get(f"/v1/controller/commands?{query}{more}", headers=headers)
        for more in ("", "&unknown=1")
    ]
    assert plain.status_code == documented.status_code
    assert _steady(plain) == _steady(documented)


@pytest.mark.parametrize("more", ["", "&unknown=1"])
@pytest.mark.parametrize("name", ["boot_id", "config_version"])
@pytest.mark.parametrize("text", ["%00", "a%00", "", "a%20b", "a%0A", "%E4%BA%8C", "b" * 129])
async def test_a_poll_whose_texts_no_row_can_hold_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, name: str, text: str, more: str
) -> None:
    """On both ways: one such boot would keep the boots of others from being written down."""
    scene = await a_scene(runtime)
    path = f"/v1/controller/commands?{PLAIN}&{name}={text}{more}"
    answer = await client.get(path, headers=scene.controller_headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert answer.json()["errors"][0]["loc"] == ["query", name]


def _steady(answer: httpx.Response) -> tuple[dict[str, Any], dict[str, str]]:
    body = answer.json() if answer.content else {}
    body.pop("server_time", None)
    return body, {name: value for name, value in answer.headers.items() if name != "server-time"}
