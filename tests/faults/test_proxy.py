"""The proxy: each fault does what it says to a request or an answer, and to nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.faults.proxy import NOTHING, Fault, Kill, Plan, Proxy, proxying

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def an_echo(heard: list[bytes]) -> AsyncIterator[int]:
    """Answer every request with its own body, and remember it; gives the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                heard.append(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def posts(proxy: Proxy, body: bytes) -> bytes:
    async with httpx.AsyncClient() as client:
        return (await client.post(proxy.url, content=body)).content


def only(number: int, fault: Fault) -> Plan:
    return lambda seen: fault if seen.number == number else NOTHING


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_request_at=0),
        Fault(cut_request_at=20, cut="close"),
        Fault(cut_answer_at=0),
        Fault(cut_answer_at=10, cut="half_close"),
    ],
)
async def test_a_cut_takes_one_exchange_and_spares_the_next(fault: Fault) -> None:
    heard: list[bytes] = []
    async with an_echo(heard) as port, proxying(port, only(1, fault)) as proxy:
        with pytest.raises(httpx.HTTPError):
            await posts(proxy, b"one")
        assert await posts(proxy, b"two") == b"two"
        assert heard == ([b"one", b"two"] if fault.cut_answer_at is not None else [b"two"])


async def test_a_copy_reaches_the_server_and_its_answer_nobody() -> None:
    heard: list[bytes] = []
    async with an_echo(heard) as port, proxying(port, only(1, Fault(copies=2))) as proxy:
        assert await posts(proxy, b"one") == b"one"
        async with asyncio.timeout(10):
            while len(heard) < 3:  # noqa: ASYNC110  # The echo tells nobody.
                await asyncio.sleep(0.01)
        assert heard == [b"one"] * 3


async def test_held_and_trickled_bytes_arrive_whole() -> None:
    fault = Fault(hold_request_s=0.02, hold_answer_s=0.02, trickle_s=0.001)
    body = bytes(range(256)) * 4
    async with an_echo([]) as port, proxying(port, lambda _: fault) as proxy:
        assert await posts(proxy, body) == body
        assert (proxy.seen, proxy.faults) == (1, 1)


async def test_a_link_that_is_down_takes_nobody_until_it_is_up() -> None:
    fault = Fault(cut_request_at=5, link_down=True)
    async with an_echo([]) as port, proxying(port, only(1, fault)) as proxy:
        for _ in range(2):
            with pytest.raises(httpx.HTTPError):
                await posts(proxy, b"one")
        assert proxy.went_down.is_set()
        proxy.up()
        assert await posts(proxy, b"two") == b"two"


@pytest.mark.parametrize("forwards", [True, False])
async def test_a_pattern_kills_the_connection_even_in_two_pieces(forwards: bool) -> None:
    heard = asyncio.Queue[bytes]()

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                heard.put_nowait(data)
        except OSError:
            pass
        finally:
            writer.close()

    struck = asyncio.Event()
    kill = Kill(b"COMMIT", then=struck.set, forwards=forwards)
    server = await asyncio.start_server(listens, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with proxying(port, kill=kill) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            for piece in (b"\x00BEGIN;COM", b"MIT;"):
                writer.write(piece)
                await writer.drain()
                if piece.startswith(b"\x00"):
                    assert await heard.get() == piece
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert struck.is_set()
            writer.close()
    finally:
        server.close()
