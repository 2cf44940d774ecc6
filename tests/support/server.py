"""A real server on a loopback port, in a thread of the test's process."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import uvicorn

from app.clock import monotonic, utc_now
from app.db import schema
from app.main import build_runtime, create_app, opened
from app.runtime import Runtime
from app.settings import Settings

T = TypeVar("T")


def free_port() -> int:
    """Give a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepared(settings: Settings, act: Callable[[Runtime], Awaitable[T]]) -> T:
    """Migrate the database and do something in it before a server opens it."""

    async def whole() -> T:
        held = build_runtime(settings, now=utc_now, monotonic=monotonic)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        await schema.migrate(held.database)
        async with opened(held):
            return await act(held)

    return asyncio.run(whole())


@contextmanager
def serving(settings: Settings, port: int) -> Iterator[str]:
    """Serve until the block ends; gives the address."""
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=port, log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < until, "the server takes too long"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
