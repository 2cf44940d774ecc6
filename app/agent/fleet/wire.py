"""A small HTTP/1.1 client for thousands of controllers in one process.

A shared `httpx.AsyncClient` looks through all its connections at every request, which costs more
than everything else once there are thousands. Here each controller keeps its own few, and llhttp
(`httptools`, which uvicorn reads requests with) reads the answers.
"""

import asyncio
import json as jsonlib
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import httptools
import httpx
from typing_extensions import override

KEPT_S = 2.0
"""A connection that nobody needs is kept for so long, in seconds; files are what runs out."""

CONNECT_S = 10.0
"""How long connecting may take, in seconds."""


class Lost(OSError):
    """The connection ended before the answer was whole."""


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[httpx.Response] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._keeps = True
        self._begin()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # Not asserted: the transports of uvloop are not of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self._wire.drop(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost("the connection ended"))

    @override
    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    async def ask(self, raw: bytes) -> httpx.Response:
        """Send one request and give its answer; raises `Lost`."""
        if self._transport is None:
            raise Lost("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        try:
            return await self._answer
        except asyncio.CancelledError:
            # An answer that nobody reads would be taken for that of the next request.
            self.abort()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Reset the connection."""
        self.wake()
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent."""
        return self._keeps and self._transport is not None and not self._transport.is_closing()

    def rest(self) -> None:
        """Hang up in a while, unless somebody needs us."""
        self._expiry = asyncio.get_running_loop().call_later(KEPT_S, self.abort)

    def wake(self) -> None:
        """Be needed again."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._keeps = self._parser.should_keep_alive()
        answer = httpx.Response(status, headers=self._headers, content=b"".join(self._body))
        self._headers, self._body = [], []
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        else:
            self.abort()  # An answer to nothing.


class Wire:
    """One controller's way to one server; takes the place of an `httpx.AsyncClient`."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OSError(f"{address!r} is no address of a server; write http://host:port")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._name = parts.netloc.rpartition("@")[2]
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self.connects = 0
        """How often a connection was made."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = None,
    ) -> httpx.Response:
        """Send one request; raises `OSError`. Its time is limited by whoever calls (`Server`)."""
        raw = written(
            method,
            url.removeprefix(self._origin),
            host=self._name,
            json=json,
            params=params,
            headers=headers or {},
        )
        connection = await self._take()
        answer = await connection.ask(raw)
        if connection.is_usable:
            connection.rest()
            self._idle.append(connection)
        return answer

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            connection.wake()
            if connection.is_usable:
                return connection
        self.connects += 1
        async with asyncio.timeout(CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self._host, self._port, ssl=self._tls
            )
        self._all.add(connection)
        return connection

    def drop(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        connection.wake()
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def cut(self) -> None:
        """Reset every connection, as a reboot does."""
        for connection in list(self._all):
            connection.abort()


def written(
    method: str,
    path: str,
    *,
    host: str,
    json: Any,
    params: Mapping[str, str] | None,
    headers: Mapping[str, str],
) -> bytes:
    """Write one request; raises ValueError for a header that would break out of its line."""
    target = quote(path, safe="/:?=&%~!$'()*+,;@") + (f"?{urlencode(params)}" if params else "")
    lines = [f"{method} {target or '/'} HTTP/1.1", f"Host: {host}"]
    content = b""
    if json is not None:
        content = jsonlib.dumps(json, ensure_ascii=False).encode()
        lines.append("Content-Type: application/json")
    if content or method != "GET":
        lines.append(f"Content-Length: {len(content)}")
    for name, value in headers.items():
        if any(sign in name + value for sign in "\r\n\0"):
            raise ValueError("a header of more than one line")
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
