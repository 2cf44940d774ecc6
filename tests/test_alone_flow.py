"""The story of a night without a link: a pass opens, and afterwards everybody knows."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from app.agent.loop import run_agent
from app.agent.pace import Pace
from app.agent.passes import Answer
from app.agent.reader import Judge, Note
from app.agent.relay import SimulatedRelay
from app.doors.tables import JournalEntry, OfflineEntry
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.conftest import Clock
from tests.support.worlds import a_door, a_station, a_worker, an_admin

pytestmark = pytest.mark.anyio


class Cable(httpx.AsyncBaseTransport):
    """The way from the box to the server, which somebody may pull."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx.ASGITransport(app)
        self.is_cut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_cut:
            raise httpx.ConnectError("cut", request=request)
        answer = await self._inner.handle_async_request(request)
        if self.is_cut:
            raise httpx.ReadError("cut", request=request)
        return answer


class HandReader:
    """A reader that sees what the test holds before it."""

    def __init__(self) -> None:
        self.judge: asyncio.Future[Judge] = asyncio.get_running_loop().create_future()

    async def serve(self, judge: Judge, _note: Note) -> None:
        self.judge.set_result(judge)
        await asyncio.Event().wait()


async def until(true: Callable[[], Any]) -> Any:
    """Look again until something holds; a test that waits for ever fails."""
    async with asyncio.timeout(20):
        while True:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)


async def test_a_night_without_a_link(
    client: httpx.AsyncClient, app: FastAPI, runtime: Runtime, clock: Clock, tmp_path: Path
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        station = await a_station(tx, at=at)
        door = await a_door(tx, station, at=at)
        worker = await a_worker(tx, runtime, at=at)
        chief = await an_admin(tx, at=at)
    allowed = await client.patch(
        f"/v1/admin/stations/{station.id}", json={"offline_hours": 12}, headers=chief.headers
    )
    assert allowed.status_code == 200, allowed.text
    code = await client.post(
        "/v1/admin/controllers/enrolment",
        json={"station": str(station.id)},
        headers=chief.headers,
    )
    cable, reader, stop = Cable(app), HandReader(), asyncio.Event()
    state = tmp_path / "agent"
    relay = SimulatedRelay(state / "relay.jsonl")
    pace = Pace(
        monotonic=clock.monotonic,
        wall=lambda: clock.now().timestamp(),
        sleep=lambda seconds: asyncio.sleep(min(seconds, 0.02)),
    )

    def pulses() -> int:
        return len(relay.log.read_text().splitlines()) if relay.log.exists() else 0

    async def a_pass() -> str:
        body = {"door": str(door.id)}
        answer = await client.post("/v1/me/pass", json=body, headers=worker.headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async with httpx.AsyncClient(transport=cable, base_url="http://testserver") as http:
        agent = asyncio.create_task(
            run_agent(
                server_url="http://testserver",
                state_dir=state,
                code=code.json()["code"],
                relay=relay,
                serial="S",
                firmware="f",
                stop=stop,
                reader=reader,
                http=http,
                pace=pace,
            )
        )
        try:
            await until(lambda: (state / "jwks.json").exists())
            judge = await reader.judge
            # With the link, the server decides.
            online: Answer = await judge(str(door.id), await a_pass())
            assert online.opened
            assert pulses() == 1
            await until(lambda: _count(runtime, Visit, 1))
            # The link goes; for a while nobody knows, and nothing opens.
            cable.is_cut = True
            shown = await a_pass()
            assert not (await judge(str(door.id), shown)).opened
            clock.advance(80)
            alone = await judge(str(door.id), await a_pass())
            assert alone == Answer(True, "ok")
            assert pulses() == 2
            clock.advance(3 * 3600)
            assert (await judge(str(door.id), await a_pass())).opened
            assert pulses() == 3
            # The link is back: the facts arrive, and no relay moves.
            cable.is_cut = False
            await until(lambda: _count(runtime, OfflineEntry, 2))
            await until(lambda: _said(runtime, "following"))
            assert pulses() == 3
        finally:
            stop.set()
            await agent
    async with runtime.database.read() as tx:
        entries = list(await tx.scalars(sa.select(OfflineEntry).order_by(OfflineEntry.happened_at)))
        notes = set(await tx.scalars(sa.select(JournalEntry.type)))
        visits = list(await tx.scalars(sa.select(Visit).order_by(Visit.started_at)))
    assert [(one.opened, one.would_have_been_refused) for one in entries] == [(True, None)] * 2
    assert {one.worker_id for one in entries} == {worker.id}
    # The first goes on the visit that had begun; three hours later it is another.
    assert len(visits) == 2
    assert entries[1].visit_id == visits[1].id
    assert (entries[1].happened_at - entries[0].happened_at).total_seconds() == pytest.approx(
        3 * 3600, abs=5
    )
    assert {"note", "power", "offline_entry"} <= {str(kind) for kind in notes}


async def _count(runtime: Runtime, kind: Any, wanted: int) -> bool:
    async with runtime.database.read() as tx:
        return await tx.scalar(sa.select(sa.func.count()).select_from(kind)) == wanted


async def _said(runtime: Runtime, what: str) -> bool:
    async with runtime.database.read() as tx:
        entries = await tx.scalars(sa.select(JournalEntry.body))
        return any(body.get("what") == what for body in entries)
