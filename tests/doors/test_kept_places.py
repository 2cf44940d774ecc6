"""Law 9: a place is kept from the grant until the visit begins, or nothing can open any more."""

import httpx
import pytest
import sqlalchemy as sa

from app.doors import commands
from app.doors.tables import Scan
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.conftest import Clock
from tests.doors.test_commands import LONG_AGO, acks, claims, expire, granted, told
from tests.doors.test_journal import an_event, pulses, rows, sends, with_contact
from tests.support.worlds import Scene, SomeWorker, a_scene, a_worker

pytestmark = pytest.mark.anyio


async def another(runtime: Runtime) -> SomeWorker:
    async with runtime.database.write() as tx:
        return await a_worker(tx, runtime, at=runtime.now())


async def is_told(client: httpx.AsyncClient, scene: Scene, worker: SomeWorker, key: str) -> str:
    """Let a worker scan at the scene's door; gives the reason he is told."""
    headers = worker.headers | {"Idempotency-Key": key}
    answer = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert answer.is_success, answer.text
    return str(answer.json()["reason"])


async def ends_what_is_over(runtime: Runtime) -> None:
    """Run what the job runs."""
    async with runtime.database.write() as tx:
        await commands.expire(tx, clock=runtime.deadlines, at=runtime.now())


async def test_a_pulse_alone_gives_no_place_away_where_a_contact_will_tell(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime, capacity=1), await another(runtime)
    await with_contact(runtime, scene)
    await pulses(client, runtime, scene)
    assert await rows(runtime, Visit) == []
    assert await is_told(client, scene, other, "a") == "station_full"
    clock.advance(4)
    event = an_event(1, runtime, "door_opened", door=str(scene.door.id), mono_ms=9_000)
    await sends(client, scene, [event], mono_ms=9_000)
    assert len(await rows(runtime, Visit)) == 1
    # From now on it is the visit that takes the place, and nothing besides.
    async with runtime.database.read() as tx:
        kept = sa.select(sa.func.count()).where(Scan.reserved_until.is_not(None))
        assert await tx.scalar(kept) == 0
    for key, minutes, reason in (("b", 59, "station_full"), ("c", 1, "ok")):
        clock.advance(minutes * 60)
        await told(client, scene)  # It is heard.
        assert await is_told(client, scene, other, key) == reason


async def test_a_place_kept_for_a_door_that_nobody_opened_ends_by_its_own_time(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime, capacity=1), await another(runtime)
    await with_contact(runtime, scene)
    await pulses(client, runtime, scene)
    clock.advance(30)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Scan).values(reserved_until=LONG_AGO))  # On either clock.
    assert await is_told(client, scene, other, "a") == "ok"


@pytest.mark.parametrize("seen_by", ["the job", "his next scan"])
async def test_a_command_that_nobody_claimed_keeps_no_place(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, seen_by: str
) -> None:
    scene, other = await a_scene(runtime, capacity=1), await another(runtime)
    await granted(client, scene)
    assert await is_told(client, scene, other, "a") == "station_full"
    await expire(runtime, clock)
    if seen_by == "the job":
        await ends_what_is_over(runtime)
    else:
        elsewhere = await a_scene(runtime)
        assert await is_told(client, elsewhere, scene.worker, "b") == "ok"
    assert await is_told(client, scene, other, "c") == "ok"


async def test_a_claim_that_nobody_settled_keeps_its_place_for_he_may_be_inside(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_scene(runtime, capacity=1), await another(runtime)
    await granted(client, scene)
    (command,) = await told(client, scene)
    assert (await claims(client, scene, command)).status_code == 200
    await expire(runtime, clock)
    await ends_what_is_over(runtime)
    assert await is_told(client, scene, other, "a") == "station_full"


@pytest.mark.parametrize("result", ["refused", "failed"])
async def test_what_did_not_open_keeps_no_place(
    client: httpx.AsyncClient, runtime: Runtime, result: str
) -> None:
    scene, other = await a_scene(runtime, capacity=1), await another(runtime)
    await with_contact(runtime, scene)
    await granted(client, scene)
    (command,) = await told(client, scene)
    await claims(client, scene, command)
    assert (await acks(client, scene, command, result)).status_code == 200
    assert await is_told(client, scene, other, "a") == "ok"
