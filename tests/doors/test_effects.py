"""Effects beside the doors: which locks they hold, how many are written, when they ring."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import utc_now
from app.db.engine import Database
from app.db.types import new_id
from app.doors import effects, review, views
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import JournalEntry, OfflineEntry, Pass, PeopleCount
from app.doors.views import ScanView
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import Clock, make_settings
from tests.support.worlds import Scene, SomeWorker, a_scene, a_worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """As many connections as the product has."""
    return make_settings(tmp_path, database_url, database_pool_size=10)


def an_entry(runtime: Runtime, controller_id: uuid.UUID, seq: int, **more: Any) -> JournalEntry:
    """Make an event that was taken in, and has had no effect yet."""
    at = runtime.now()
    values: dict[str, Any] = {
        "id": new_id(),
        "controller_id": controller_id,
        "epoch": 1,
        "seq": seq,
        "event_id": f"e{seq}",
        "boot_id": "b",
        "type": EventType.PEOPLE_IN,
        "occurred_at": at,
        "corrected_at": at,
        "quality": Quality.SYNCED,
        "late": False,
        "received_at": at,
        "content_hash": b"h",
        "body": {},
    }
    return JournalEntry(**values | more)


async def went_in_alone(
    tx: AsyncSession, runtime: Runtime, scene: Scene, worker: SomeWorker, seq: int
) -> None:
    """Let a worker have entered by a pass while the controller was alone; it is to be reviewed."""
    at = runtime.now()
    tx.add(
        Pass(
            id=f"pass-{seq}",
            worker_id=worker.id,
            subject="s",
            door_id=scene.door.id,
            issued_at=at - timedelta(seconds=1),
            expires_at=at + timedelta(minutes=1),
        )
    )
    body = {"jti": f"pass-{seq}", "result": "opened"}
    entered = {"type": EventType.OFFLINE_ENTRY, "door_id": scene.door.id, "body": body}
    tx.add(an_entry(runtime, scene.controller_id, seq, **entered))


async def scans(client: httpx.AsyncClient, scene: Scene, worker: SomeWorker) -> httpx.Response:
    headers = worker.headers | {"Idempotency-Key": "k"}
    return await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)


async def number_of(runtime: Runtime, kind: Any, *which: sa.ColumnElement[bool]) -> int:
    async with runtime.database.read() as tx:
        query = sa.select(sa.func.count()).select_from(kind).where(*which)
        return await tx.scalar(query) or 0


async def test_a_worker_scans_while_the_entries_of_others_are_reviewed(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reviews no worker is held, and no station: nobody waits in a circle."""
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        second = await a_worker(tx, runtime, at=runtime.now())
        await went_in_alone(tx, runtime, scene, scene.worker, 1)
        await went_in_alone(tx, runtime, scene, second, 2)
    real, reviewed = review.review, list[str]()
    scanning: list[asyncio.Task[httpx.Response]] = []

    async def reviews(tx: Any, desk: Any, entry: JournalEntry, **more: Any) -> Any:
        if reviewed and not runtime.database.is_embedded:
            scanning.append(asyncio.create_task(scans(client, scene, second)))
            await asyncio.wait(scanning, timeout=0.3)
        reviewed.append(entry.event_id)
        return await real(tx, desk, entry, **more)

    monkeypatch.setattr(review, "review", reviews)
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    if runtime.database.is_embedded:  # One writes at a time: he scans before or after it.
        scanning.append(asyncio.create_task(scans(client, scene, second)))
    answer = await scanning[0]
    assert (answer.status_code, answer.json()["outcome"]) == (201, "granted"), answer.text
    assert reviewed == ["e1", "e2"]
    assert await number_of(runtime, OfflineEntry) == 2


async def test_only_what_takes_workers_has_a_transaction_of_its_own(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await a_scene(runtime)
    people, alone, door = EventType.PEOPLE_IN, EventType.OFFLINE_ENTRY, EventType.DOOR_OPENED
    kinds = [people, people, alone, door, people, people, people]
    async with runtime.database.write() as tx:
        for seq, kind in enumerate(kinds, start=1):
            where = None if kind is people else scene.door.id
            tx.add(an_entry(runtime, scene.controller_id, seq, type=kind, door_id=where))
    real, parts = effects._apply, list[list[int]]()

    async def applies(
        tx: AsyncSession, desk: Any, entries: Any, station_id: uuid.UUID, **more: Any
    ) -> None:
        parts.append([entry.seq for entry in entries])
        await real(tx, desk, entries, station_id, **more)

    monkeypatch.setattr(effects, "_apply", applies)
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    assert parts == [[1, 2], [3], [4], [5, 6, 7]]
    assert await number_of(runtime, JournalEntry, JournalEntry.applied_at.is_(None)) == 0


class Counted:
    """A database that counts the transactions that are open at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open = self.most = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        with self._counted():
            async with self._database.read() as tx:
                yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        with self._counted():
            async with self._database.write() as tx:
                yield tx

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._open += 1
        self.most = max(self.most, self._open)
        try:
            yield
        finally:
            self._open -= 1


async def test_a_backlog_leaves_the_doors_their_connections(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch that was answered asks for its effects, twenty of each of five controllers."""
    monkeypatch.setattr(effects, "AT_ONCE", 10)
    scenes = [await a_scene(runtime) for _ in range(5)]
    async with runtime.database.write() as tx:
        for scene in scenes:
            tx.add_all(an_entry(runtime, scene.controller_id, seq) for seq in range(1, 25))
    counted = Counted(runtime.database)
    monkeypatch.setattr(runtime.effects, "_database", counted)
    real, goes_on, begun = effects._hold, asyncio.Event(), asyncio.Event()

    async def lingers(tx: AsyncSession, controller_id: uuid.UUID) -> uuid.UUID:
        found = await real(tx, controller_id)
        begun.set()
        if not runtime.database.is_embedded:
            await goes_on.wait()
        return found

    monkeypatch.setattr(effects, "_hold", lingers)
    asked = [
        asyncio.create_task(runtime.effects.write(scene.controller_id))
        for _ in range(20)
        for scene in scenes
    ]
    try:
        async with asyncio.timeout(10):
            await begun.wait()
            answer = await scans(client, scenes[0], scenes[0].worker)
    finally:
        goes_on.set()
        await asyncio.gather(*asked)
    assert answer.status_code == 201, answer.text
    assert counted.most == effects.AT_A_TIME
    assert await number_of(runtime, PeopleCount) == 5 * 24


async def test_what_comes_while_effects_are_written_is_written_by_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await a_scene(runtime)
    real, found = effects._apply_some, list[int]()

    async def then_more_comes(*args: Any, **more: Any) -> int:
        found.append(await real(*args, **more))
        if len(found) == 1:
            async with runtime.database.write() as tx:
                tx.add(an_entry(runtime, scene.controller_id, 2))
            await runtime.effects.write(scene.controller_id)
            assert await number_of(runtime, PeopleCount) == 1
        return found[-1]

    monkeypatch.setattr(effects, "_apply_some", then_more_comes)
    async with runtime.database.write() as tx:
        tx.add(an_entry(runtime, scene.controller_id, 1))
    await runtime.effects.write(scene.controller_id)
    assert found == [1, 1]
    assert await number_of(runtime, PeopleCount) == 2


async def test_a_phone_hears_that_its_door_opened_when_that_can_be_read(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rung before the commit it would look too early, and then not again before its wait ends."""
    clock.set(utc_now())  # As the database's own.
    scene = await a_scene(runtime, staffed_hours=None)
    async with runtime.database.write() as tx:
        (await tx.get_one(type(scene.door), scene.door.id)).has_contact = True
    scan_id = (await scans(client, scene, scene.worker)).json()["id"]
    await pulses(client, scene)
    looks, seen, looked = views.view, list[str](), asyncio.Event()

    async def notes(*args: Any, **more: Any) -> ScanView:
        found = await looks(*args, **more)
        seen.append(found.state.value)
        looked.set()
        return found

    real = effects._safely

    async def lingers(*args: Any) -> str:
        effect = await real(*args)
        await asyncio.sleep(0.2)  # Between the effect's savepoint and the commit.
        return effect

    monkeypatch.setattr(views, "view", notes)
    monkeypatch.setattr(effects, "_safely", lingers)
    waiting = asyncio.create_task(
        client.get(
            f"/v1/scans/{scan_id}",
            params={"wait": 2, "seen": "executed"},
            headers=scene.worker.headers,
        )
    )
    await looked.wait()
    opened = {
        "event_id": "e1",
        "seq": 1,
        "type": "door_opened",
        "door": str(scene.door.id),
        "occurred_at": runtime.now().isoformat(),
    }
    await client.post(
        "/v1/controller/events",
        json={
            "boot_id": "b",
            "epoch": 1,
            "events": [opened],
            "sent_at": runtime.now().isoformat(),
        },
        headers=scene.controller_headers,
    )
    assert (await waiting).json()["state"] == "opened"
    assert seen == ["executed", "opened"]


async def pulses(client: httpx.AsyncClient, scene: Scene) -> None:
    """Let the controller carry out what is pending."""
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    (command,) = poll.json()["commands"]
    path = f"/v1/controller/commands/{command['id']}"
    claim = {"boot_id": "b", "nonce": "n"}
    await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
    ack = {"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 0}
    done = await client.post(f"{path}/ack", json=ack, headers=scene.controller_headers)
    assert done.status_code == 200, done.text
