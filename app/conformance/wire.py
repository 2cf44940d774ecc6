"""A small HTTP server that can do to a device what a network does: stall, trickle, hang up."""

import asyncio
import contextlib
import http
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httptools

TRICKLES = 20
"""In so many pieces a trickling body is sent."""

LARGEST = 1_000_000
"""A device that sends more in one request is cut off, in bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a device."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device gets."""

    status: int = 200
    json: Any = None
    text: str | None = None
    """A body that is no JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    over_s: float = 0.0
    """The body comes in pieces over so many seconds."""
    lost: bool = False
    """The connection is cut; nothing of the answer arrives."""


Handler = Callable[[Request], Awaitable[Answer]]


class Listener:
    """Serves one handler on a port; a handler whose device hangs up is cancelled."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen; gives the port, which is a free one when 0 was asked for."""
        self._server = await asyncio.start_server(self._serve, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        await asyncio.sleep(0)  # A closed connection lets go of its socket one round later.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        talk = _Talk(reader, writer)
        reading = asyncio.create_task(talk.read())
        try:
            while (request := await talk.requests.get()) is not None:
                answering = asyncio.ensure_future(self._handler(request))
                try:
                    await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
                    if not answering.done():
                        return
                    if not await talk.send(answering.result(), gone=reading):
                        return
                finally:
                    answering.cancel()
                    await asyncio.wait({answering})
        except (ConnectionError, asyncio.CancelledError):
            pass  # The device hung up, or the examination is over.
        finally:
            writer.close()
            self._open.discard(task)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({reading})


class _Talk:
    """One connection: requests as they come, answers as they go."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""
        self._keeps = True
        self.requests: asyncio.Queue[Request | None] = asyncio.Queue()
        """Ends with None."""

    async def read(self) -> None:
        """Read until the device hangs up or talks no HTTP."""
        try:
            while data := await self._reader.read(65_536):
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError, ValueError):
            pass
        finally:
            self.requests.put_nowait(None)

    def on_message_begin(self) -> None:
        """Begin a request (called by the parser, as the next five)."""
        self._url, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        """Read a part of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Let a device that asks first send its body."""
        if self._headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Read a part of the body."""
        self._body += body
        if len(self._body) > LARGEST:
            raise ValueError("too large")

    def on_message_complete(self) -> None:
        """Hand the request over."""
        parts = urlsplit(self._url.decode("latin-1"))
        self._keeps = self._parser.should_keep_alive()
        self.requests.put_nowait(
            Request(
                method=self._parser.get_method().decode("latin-1"),
                path=unquote(parts.path),
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers=self._headers,
                body=self._body,
            )
        )

    async def send(self, answer: Answer, *, gone: asyncio.Task[None]) -> bool:
        """Send an answer; says whether the connection serves another request."""
        if answer.lost:
            self._writer.transport.abort()
            return False
        body = b"" if answer.text is None else answer.text.encode()
        headers = {"Content-Type": "text/html; charset=utf-8", **answer.headers}
        if answer.json is not None:
            body = json.dumps(answer.json, ensure_ascii=False).encode()
            kind = "application/json" if answer.status < 400 else "application/problem+json"
            headers["Content-Type"] = kind
        if answer.status not in (204, 304):
            headers["Content-Length"] = str(len(body))
        if not self._keeps:
            headers["Connection"] = "close"
        head = f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(head.encode("latin-1") + b"\r\n")
        size = max(1, -(-len(body) // TRICKLES)) if answer.over_s else len(body) or 1
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        for number, piece in enumerate(pieces):
            if answer.over_s and number:
                await asyncio.wait({gone}, timeout=answer.over_s / (len(pieces) - 1))
                if gone.done():
                    return False
            self._writer.write(piece)
            await self._writer.drain()
        return self._keeps
