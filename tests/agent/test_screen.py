"""The page of a door's screen: the code of now, by the server's time, while somebody looks."""

import asyncio
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.link import Link
from app.agent.screen import FETCH_EVERY_S, WATCHED_FOR_S, Board, Screen, app_of
from app.agent.server import Server
from app.agent.state import StateFolder
from tests.agent.world import VirtualClock

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "station": {"code": "CQ1", "name": "解放碑驿站"},
    "doors": [
        {"id": "d1", "name": "<正门>", "has_display": True},
        {"id": "d2", "name": "侧门", "has_display": False},
    ],
}


class World:
    def __init__(self, folder: Path, config: dict[str, Any] = CONFIG) -> None:
        self.clock = VirtualClock()
        self.zero = self.clock.now
        self.fetches: list[str] = []
        self.is_cut = False
        pace = self.clock.pace()
        link = Link(StateFolder(folder), pace)
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.server = Server("http://127.0.0.1:1", http, link, firmware="t")
        self.board = Board(lambda: config, self.server, link, pace)
        transport = httpx.ASGITransport(app_of(self.board))
        self.browser = httpx.AsyncClient(transport=transport, base_url="http://box")

    def true_time(self) -> datetime:
        return START + timedelta(seconds=self.clock.now - self.zero)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_cut:
            raise httpx.ConnectError("cut")
        headers = {"Server-Time": self.true_time().isoformat()}
        if not request.url.path.endswith("/codes"):
            return httpx.Response(200, json={}, headers=headers)
        self.fetches.append(request.url.path)
        window = int(self.true_time().timestamp() // 30)
        codes = [
            {
                "token": f"t{number}",
                "url": f"http://h/s/t{number}",
                "shown_from": datetime.fromtimestamp(number * 30, UTC).isoformat(),
                "shown_until": datetime.fromtimestamp(number * 30 + 30, UTC).isoformat(),
            }
            for number in range(window, window + 30)
        ]
        return httpx.Response(200, json={"codes": codes}, headers=headers)

    async def look(self) -> dict[str, Any]:
        answer = await self.browser.get("/code")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    async def second(self) -> None:
        self.clock.advance(1)
        for codes in list(self.board._codes.values()):
            await codes.refresh(self.server)


async def test_it_shows_the_code_of_now_and_goes_on_without_the_server_for_a_while(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.server.call("GET", "/v1/controller/config")
    assert (await world.look())["svg"] is None
    await world.second()
    first = await world.look()
    assert first["name"] == "解放碑驿站 · <正门>"
    assert first["svg"].startswith("<svg")
    assert 0 < first["left_ms"] <= 30_000
    world.is_cut = True
    seen = {first["svg"]}
    for _ in range(13 * 60):
        await world.second()
        seen.add((await world.look())["svg"])
    assert None not in seen
    assert len(seen) in (26, 27)
    for _ in range(3 * 60):
        await world.second()
    assert (await world.look())["svg"] is None


async def test_codes_are_fetched_only_while_somebody_looks(tmp_path: Path) -> None:
    """A browser that died is a dead screen: the server hears of it by silence."""
    world = World(tmp_path)
    await world.server.call("GET", "/v1/controller/config")
    for _ in range(600):
        await world.look()
        await world.second()
    assert 600 / FETCH_EVERY_S <= len(world.fetches) <= 600 / FETCH_EVERY_S / 0.8 + 1
    before = len(world.fetches)
    for _ in range(600):
        await world.second()
    assert len(world.fetches) - before <= 1 + WATCHED_FOR_S / FETCH_EVERY_S


async def test_it_is_a_page_of_its_own_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path)
    page = await world.browser.get("/")
    assert "扫码开门" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert (await world.browser.get("/doors/d2")).status_code == 404
    assert (await world.browser.get("/doors/d2/code")).status_code == 404
    assert (await world.browser.get("/doors/d1")).status_code == 200


async def test_two_screens_are_chosen_from_a_list(tmp_path: Path) -> None:
    doors = [dict(CONFIG["doors"][0]), {"id": "d3", "name": "后门", "has_display": True}]
    world = World(tmp_path, CONFIG | {"doors": doors})
    page = await world.browser.get("/")
    assert 'href="/doors/d3"' in page.text
    assert "&lt;正门&gt;" in page.text
    assert (await world.browser.get("/code")).status_code == 404


async def test_before_the_server_was_heard_it_shows_no_code(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.is_cut = True
    await world.look()
    await world.second()
    assert (await world.look())["svg"] is None


async def test_whoever_handles_signals_goes_on_doing_so_while_the_page_is_served(
    tmp_path: Path,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    handled = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(one) for one in handled]
    serving = asyncio.create_task(Screen(port).serve(World(tmp_path).board))
    try:
        async with asyncio.timeout(10), httpx.AsyncClient() as browser:
            while True:
                try:
                    answer = await browser.get(f"http://127.0.0.1:{port}/")
                except httpx.ConnectError:
                    await asyncio.sleep(0.01)
                else:
                    break
        assert answer.status_code == 200
        assert [signal.getsignal(one) for one in handled] == before
    finally:
        serving.cancel()
        await asyncio.wait({serving})
    # Its port is free for the next one.
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()
