"""The screen at a door: a full-screen page on this box that shows the rotating code.

The page asks this agent every second. Codes are fetched ahead, by the server's time, and only while
a page asks for them: a browser that died is a dead screen, and the server hears of it by silence.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from app.agent import AgentError
from app.agent.link import Link
from app.agent.pace import Pace
from app.agent.server import CredentialRefused, Server, ServerAway, body
from app.doors import qr

logger = logging.getLogger(__name__)

FETCH_EVERY_S = 120.0
"""How often codes are fetched, in seconds: well within the five minutes of a dead screen."""

FETCH_AGAIN_S = 10.0
"""Pause after a fetch that failed, in seconds."""

WATCHED_FOR_S = 60.0
"""A page that did not ask for so long, in seconds, is no screen any more."""

NO_STORE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:"
    ),
    "X-Content-Type-Options": "nosniff",
}


class ScreenUnusable(AgentError):
    """The screen's page cannot be served here."""


@dataclass(frozen=True, slots=True)
class Code:
    """What is shown during `[shown_from, shown_until)`, by the server's time."""

    url: str
    shown_from: datetime
    shown_until: datetime


class Codes:
    """The codes of one door, fetched ahead while somebody looks."""

    def __init__(self, door: str, link: Link, pace: Pace) -> None:
        self.door = door
        self._link = link
        self._pace = pace
        self._held: list[Code] = []
        self._asked = float("-inf")
        self._due = float("-inf")

    def now(self) -> Code | None:
        """Give what to show now; None when there is nothing that would be taken."""
        self._asked = self._pace.monotonic()
        estimate = self._link.now()
        if estimate is None:
            return None
        at = estimate.at
        return next((one for one in self._held if one.shown_from <= at < one.shown_until), None)

    async def refresh(self, server: Server) -> None:
        """Fetch, if somebody looks and it is due."""
        now = self._pace.monotonic()
        if now < self._due or now - self._asked > WATCHED_FOR_S:
            return
        self._due = now + FETCH_AGAIN_S
        try:
            response = await server.call("GET", f"/v1/controller/doors/{self.door}/codes")
            if response.status_code != httpx.codes.OK:
                logger.warning("no codes door=%s status=%s", self.door, response.status_code)
                return
            self._held = [_read(one) for one in body(response)["codes"]]
        except (ServerAway, CredentialRefused, KeyError, TypeError, ValueError) as error:
            logger.warning("no codes door=%s why=%s", self.door, error)
            return
        self._due = now + FETCH_EVERY_S * self._pace.dice.uniform(0.8, 1.0)


def _read(one: Mapping[str, Any]) -> Code:
    return Code(
        str(one["url"]),
        datetime.fromisoformat(one["shown_from"]),
        datetime.fromisoformat(one["shown_until"]),
    )


class _Site(uvicorn.Server):
    """uvicorn without its own handling of signals: the agent's stop the agent, and that this."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGINT and SIGTERM to whoever handles them."""
        yield


class Screen:
    """Serves the page of every door with a screen on one port of this box, and nowhere else."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def serve(self, board: "Board") -> None:
        """Serve for as long as the agent lives; raises ScreenUnusable when the port is taken."""
        config = uvicorn.Config(
            app_of(board),
            host="127.0.0.1",
            port=self._port,
            log_level="warning",
            access_log=False,
            lifespan="off",
        )
        server = _Site(config)
        fetching = asyncio.create_task(board.keep_fresh())
        try:
            await server.serve()
        except SystemExit as error:  # That is how it says that a port is taken.
            raise ScreenUnusable(f"port {self._port} of this box cannot be used") from error
        finally:
            # Cancelled, it leaves its port open, and whoever is connected to it.
            for listening in getattr(server, "servers", []):
                listening.close()
            for connection in list(server.server_state.connections):
                connection.shutdown()
            fetching.cancel()
            await asyncio.wait({fetching})


class Board:
    """What the page asks: which doors there are, and what a door's screen shows now."""

    def __init__(
        self, config: Callable[[], Mapping[str, Any]], server: Server, link: Link, pace: Pace
    ) -> None:
        self._config = config
        self._server = server
        self._link = link
        self._pace = pace
        self._codes: dict[str, Codes] = {}

    def doors(self) -> list[tuple[str, str]]:
        """Give the doors with a screen, as (id, station and name)."""
        doors, station = self._config().get("doors"), self._config().get("station")
        where = str(station.get("name", "")) if isinstance(station, dict) else ""
        return [
            (str(one["id"]), f"{where} · {one.get('name', '')}".strip(" ·"))
            for one in (doors if isinstance(doors, list) else [])
            if isinstance(one, dict) and one.get("has_display") is True and "id" in one
        ]

    def shown(self, door: str) -> dict[str, Any]:
        """Say what a door's screen shows now, and for how many milliseconds."""
        codes = self._codes.setdefault(door, Codes(door, self._link, self._pace))
        code, estimate = codes.now(), self._link.now()
        if code is None or estimate is None:
            return {"svg": None, "left_ms": 0}
        left = (code.shown_until - estimate.at) / timedelta(milliseconds=1)
        return {"svg": qr.svg(code.url), "left_ms": int(left)}

    async def keep_fresh(self) -> None:
        """Fetch codes for the screens that are looked at."""
        while True:
            await self._pace.sleep(1.0)
            for codes in list(self._codes.values()):
                await codes.refresh(self._server)


def app_of(board: Board) -> Starlette:
    """Build the page's own small site."""

    async def index(_: Request) -> Response:
        doors = board.doors()
        if len(doors) == 1:
            return _page()
        rows = "".join(f'<li><a href="/doors/{id}">{_escaped(name)}</a></li>' for id, name in doors)
        empty = "<p>这里没有带屏幕的门。No door here has a screen.</p>"
        listed = f"<ul>{rows}</ul>" if rows else empty
        return HTMLResponse(f"<!doctype html><meta charset=utf-8>{listed}", headers=NO_STORE)

    async def page(request: Request) -> Response:
        known = request.path_params["door"] in dict(board.doors())
        return _page() if known else Response(status_code=404)

    async def code(request: Request) -> Response:
        doors = dict(board.doors())
        door = request.path_params.get("door") or (next(iter(doors)) if len(doors) == 1 else None)
        if door not in doors:
            return Response(status_code=404)
        return JSONResponse(board.shown(door) | {"name": doors[door]}, headers=NO_STORE)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/code", code),
            Route("/doors/{door}", page),
            Route("/doors/{door}/code", code),
        ]
    )


def _page() -> Response:
    content = resources.files("app.agent").joinpath("screen.html").read_text("utf-8")
    return HTMLResponse(content, headers=NO_STORE)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
