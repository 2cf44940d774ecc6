"""The line in which controllers wait with what can wait."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.edge import Edge
from app.doors.line import Line

pytestmark = pytest.mark.anyio

CONFIG = "/v1/controller/config"
DENIALS = "/v1/controller/denials"
CLAIM = "/v1/controller/commands/1/claim"


class Handlers:
    """The application behind the edge: says who was served, with which body."""

    def __init__(self) -> None:
        self.served: list[tuple[str, bytes]] = []
        self.waited_s: dict[str, float] = {}
        """From the arrival of each until the whole of it was read."""
        self.free = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.served.append((scope["name"], body))
        self.waited_s[scope["name"]] = scope["read_at"] - scope["arrived_at"]
        if scope["name"] == "slow":
            await self.free.wait()


async def nothing(_message: Message) -> None:
    pass


class Stage:
    """An edge with room for one at a time, and who calls at it."""

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.seconds = 0.0
        self.edge = Edge(
            self.handlers,
            limit=1_000,
            paperwork=Line(1, monotonic=lambda: 0.0),
            monotonic=lambda: self.seconds,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            docs_paths=(),
        )

    async def calls(self, name: str, path: str, *told: Message) -> asyncio.Task[None]:
        waiting = list(told)

        async def receive() -> Message:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        scope: dict[str, Any] = {"type": "http", "path": path, "headers": [], "name": name}
        task = asyncio.create_task(self.edge(scope, receive, nothing))
        await asyncio.sleep(0)
        return task

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.handlers.served]


def a_body(content: bytes) -> Message:
    return {"type": "http.request", "body": content, "more_body": False}


async def test_whoever_gave_up_in_the_line_is_not_served() -> None:
    stage = Stage()
    slow = await stage.calls("slow", CONFIG, a_body(b""))
    gone = await stage.calls("gone", DENIALS, {"type": "http.disconnect"})
    stays = await stage.calls("stays", DENIALS, a_body(b"events"))
    assert stage.names == ["slow"]
    stage.handlers.free.set()
    await asyncio.gather(slow, gone, stays)
    assert stage.handlers.served == [("slow", b""), ("stays", b"events")]


async def test_doors_go_before_whoever_stands_in_line() -> None:
    stage = Stage()
    slow = await stage.calls("slow", CONFIG, a_body(b""))
    waits = await stage.calls("waits", CONFIG, a_body(b""))
    await (await stage.calls("claims", CLAIM, a_body(b"claim")))
    assert stage.names == ["slow", "claims"]
    stage.seconds = 3.0
    stage.handlers.free.set()
    await asyncio.gather(slow, waits)
    assert stage.names == ["slow", "claims", "waits"]
    assert stage.handlers.waited_s == {"slow": 0.0, "claims": 0.0, "waits": 3.0}


async def test_a_body_that_is_still_on_its_way_is_waited_for() -> None:
    stage = Stage()
    coming = asyncio.Event()

    async def receive() -> Message:
        await coming.wait()
        return a_body(b"late")

    scope = {"type": "http", "path": DENIALS, "headers": [], "name": "late"}
    task = asyncio.create_task(stage.edge(scope, receive, nothing))
    await asyncio.sleep(0)
    assert stage.names == []
    coming.set()
    await task
    assert stage.handlers.served == [("late", b"late")]
