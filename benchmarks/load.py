"""A small HTTP/1.1 client: a general one would cost more than the server it measures."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took in seconds."""

    status: int
    body: bytes
    seconds: float
    at: float
    """The monotonic instant at which it was read."""


def request(method: str, path: str, headers: dict[str, str], body: object = None) -> bytes:
    """Write one request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(content)}"]
    if content:
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Connection":
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        self._writer.close()

    async def ask(self, raw: bytes) -> Answer:
        """Send one request and read its answer."""
        began = time.monotonic()
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = await self._reader.readexactly(length) if length else b""
        at = time.monotonic()
        return Answer(status, body, at - began, at)


@dataclass(frozen=True, slots=True)
class Round:
    """One burst of requests."""

    per_second: float
    seconds: Sequence[float]
    """How long each took."""
    statuses: dict[int, int]


async def burst(port: int, raws: Sequence[bytes], *, connections: int) -> Round:
    """Send the requests over so many connections, each as soon as the last was answered."""
    waiting = iter(raws)
    answers: list[Answer] = []

    async def drain() -> None:
        async with Connection(port) as connection:
            answers.extend([await connection.ask(raw) for raw in waiting])

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(drain())
    elapsed = time.monotonic() - began
    statuses: dict[int, int] = {}
    for answer in answers:
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    return Round(len(answers) / elapsed, sorted(a.seconds for a in answers), statuses)


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """Give a percentile by the nearest-rank method, as the reports do."""
    rank = max(1, -(-int(share * len(ordered) * 1000) // 1000))
    return ordered[min(rank, len(ordered)) - 1]
