"""A small TCP proxy that does to a connection what a bad network does, by plan.

It reads along: of HTTP it knows where a request begins and ends, so that a plan can say "hold the
answer to this claim for 7 s". A connection that is not HTTP passes through as it is, and can still
be killed by a pattern in its bytes (`Kill`).
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Cut = Literal["close", "reset", "half_close"]
"""How a connection ends: in order, at once (RST), or in the direction of the bytes only."""

Side = Literal["client", "server"]

CHUNK = 65_536
HEAD_END = b"\r\n\r\n"
METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ", b"OPTIONS ")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came by."""

    number: int
    """It is the so-manieth of this proxy, from 1."""
    method: str
    path: str
    """With the query."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request and its answer; by default nothing."""

    hold_request_s: float = 0.0
    """How long its bytes are kept before they go on."""
    hold_answer_s: float = 0.0
    """How long the bytes of the answer are kept, from the first on."""
    trickle_s: float = 0.0
    """A pause after each 16 bytes of the answer."""
    copies: int = 0
    """So often the request goes to the server once more, on connections of its own."""
    copy_after_s: float = 0.0
    """When the copies go, counted from the original."""
    cut_request_at: int | None = None
    """The connection ends when so many bytes of the request went on."""
    cut_answer_at: int | None = None
    """The connection ends when so many bytes of the answer went on."""
    cut: Cut = "reset"
    link_down: bool = False
    """The cut takes the whole link down, until `up()`."""


NOTHING = Fault()

Plan = Callable[[Seen], Fault]


@dataclass(frozen=True, slots=True)
class Kill:
    """End a connection when a pattern passes, in whatever protocol."""

    pattern: bytes
    from_side: Side = "client"
    then: Callable[[], Awaitable[None] | None] | None = None
    """Called when the pattern was passed on, before the connection ends."""
    forwards: bool = True
    """Whether the bytes with the pattern still go on."""
    chance: Callable[[], bool] = lambda: True
    """Whether this time is one of them."""


@dataclass(slots=True)
class Proxy:
    """A listening port of ours before a port of the server; open while `proxying` is."""

    target: tuple[str, int]
    plan: Plan
    kill: Kill | None = None
    port: int = 0
    seen: int = 0
    faults: int = 0
    """How many requests met a fault."""
    is_down: bool = False
    went_down: asyncio.Event = field(default_factory=asyncio.Event)
    _lines: set["_Line"] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where clients turn to."""
        return f"http://127.0.0.1:{self.port}"

    def down(self) -> None:
        """Take the link down: every connection is reset, new ones too."""
        self.is_down = True
        self.went_down.set()
        for line in list(self._lines):
            line.end("reset")

    def up(self) -> None:
        """Let the link come back."""
        self.is_down = False
        self.went_down.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        if self.is_down:
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        line = _Line(self, reader, writer, *upstream)
        self._lines.add(line)
        try:
            await line.carry()
        finally:
            line.end("close")
            self._lines.discard(line)

    def meet(self, head: bytes) -> Fault:
        """Ask the plan what befalls the request that begins so."""
        self.seen += 1
        method, path, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        fault = self.plan(Seen(self.seen, method, path))
        self.faults += fault != NOTHING
        return fault

    def beside(self, work: Awaitable[None]) -> None:
        """Let something go on beside the connections."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send_copy(self, request: bytes, fault: Fault) -> None:
        """Send a request once more, and read its answer for nobody."""
        await asyncio.sleep(fault.copy_after_s)
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(*self.target)
            try:
                writer.write(request)
                await writer.drain()
                await asyncio.wait_for(reader.read(CHUNK), 30)
            finally:
                writer.transport.abort()

    async def ended(self) -> None:
        """End what is left."""
        for line in list(self._lines):
            line.end("reset")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxying(
    target_port: int, plan: Plan = lambda _: NOTHING, *, kill: Kill | None = None
) -> AsyncIterator[Proxy]:
    """Listen on a free loopback port until the block ends."""
    proxy = Proxy(("127.0.0.1", target_port), plan, kill)
    carried: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.accept(reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.ended()
        for task in list(carried):
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)


class _Line:
    """One connection through the proxy; requests on it come one after another."""

    def __init__(
        self,
        proxy: Proxy,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = from_client, to_client
        self._from_server, self._to_server = from_server, to_server
        self._fault = NOTHING
        self._answered = 0
        """Bytes of the present answer that went on."""
        self._tail: dict[Side, bytes] = {"client": b"", "server": b""}

    async def carry(self) -> None:
        """Carry both ways until one of them ends."""
        ways = {asyncio.create_task(self._requests()), asyncio.create_task(self._answers())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def end(self, how: Cut) -> None:
        """End both sides."""
        for writer in (self._to_client, self._to_server):
            if how == "reset":
                _reset(writer)
            else:
                writer.close()

    async def _requests(self) -> None:
        """Pass requests on, each as a whole; what is not HTTP goes on as it comes."""
        held = b""
        while data := await self._from_client.read(CHUNK):
            held += data
            if not held.startswith(METHODS):
                await self._pass(held, "client")
                held = b""
                continue
            while (size := _request_size(held)) is not None and len(held) >= size:
                request, held = held[:size], held[size:]
                await self._one_request(request)
        await self._pass(held, "client")

    async def _one_request(self, request: bytes) -> None:
        fault = self._fault = self._proxy.meet(request)
        self._answered = 0
        if fault.copies:
            copy = request.replace(b"\r\nConnection: keep-alive", b"\r\nConnection: close")
            for _ in range(fault.copies):
                self._proxy.beside(self._proxy.send_copy(copy, fault))
        if fault.hold_request_s:
            await asyncio.sleep(fault.hold_request_s)
        if fault.cut_request_at is not None:
            await self._pass(request[: fault.cut_request_at], "client")
            await self._cut("client")
            return
        await self._pass(request, "client")

    async def _answers(self) -> None:
        """Pass answers on, as the present request's fault says."""
        while data := await self._from_server.read(CHUNK):
            fault = self._fault
            if fault.hold_answer_s and not self._answered:
                await asyncio.sleep(fault.hold_answer_s)
            if fault.cut_answer_at is not None and self._answered + len(data) > fault.cut_answer_at:
                await self._pass(data[: fault.cut_answer_at - self._answered], "server")
                await self._cut("server")
                return
            self._answered += len(data)
            if fault.trickle_s:
                for start in range(0, len(data), 16):
                    await self._pass(data[start : start + 16], "server")
                    await asyncio.sleep(fault.trickle_s)
            else:
                await self._pass(data, "server")

    async def _cut(self, side: Side) -> None:
        """Cut as the fault says; a half-closed connection stays open the other way."""
        if self._fault.link_down:
            self._proxy.down()
        if self._fault.cut != "half_close":
            self.end(self._fault.cut)
            return
        writer = self._to_server if side == "client" else self._to_client
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
        await asyncio.sleep(30)

    async def _pass(self, data: bytes, side: Side) -> None:
        """Send bytes on, and kill the connection if its pattern is among them."""
        kill = self._proxy.kill
        strikes = False
        if kill is not None and kill.from_side == side:
            watched = self._tail[side] + data
            strikes = kill.pattern in watched and kill.chance()
            # A pattern may come in two pieces, and must not be seen twice.
            keep = 0 if kill.pattern in watched else len(kill.pattern) - 1
            self._tail[side] = watched[len(watched) - keep :] if keep else b""
        if data and not (strikes and kill is not None and not kill.forwards):
            writer = self._to_server if side == "client" else self._to_client
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
        if strikes and kill is not None:
            if kill.then is not None and (waits := kill.then()) is not None:
                await waits
            self.end("reset")


def _request_size(held: bytes) -> int | None:
    """Say how long the request at the beginning is; None while its head is not whole."""
    end = held.find(HEAD_END)
    if end < 0:
        return None
    found = LENGTH.search(held[:end])
    return end + len(HEAD_END) + (int(found[1]) if found else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a dying box or a firewall does."""
    peer = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
