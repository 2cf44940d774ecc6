"""What it costs to hold a poll for every controller of the city, and how soon they are woken."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import sqlalchemy as sa

from app.agent.fleet.files import raise_file_limit
from app.clock import utc_now
from app.db.engine import Database
from app.settings import Settings
from benchmarks.ground import Ground, Group, console, prepare, serving, settled
from benchmarks.load import Answer, Connection, nearest_rank, request
from benchmarks.record import Line
from benchmarks.world import Post, World

AGENTS = 5_523
"""Stations of the city."""

WAIT_S = 25
"""As long as the agent asks the server to hold a poll."""

IDLE_S = 2 * WAIT_S
"""How long idling is watched: each controller polls twice."""

LATENCY_SCANS = 300
PULSE_SCANS = 600
SCANS_PER_S = 20
DOOR_PHONES = 32
"""Connections that scans come over."""


@dataclass(slots=True)
class Doors:
    """Simulated controllers on raw connections, and what they saw; by controller."""

    answered: dict[str, float] = field(default_factory=dict)
    """When the last poll that told of a command was answered."""
    pulsed: dict[str, float] = field(default_factory=dict)
    """When the relay would have been energised: the claim's answer was there."""
    polls: int = 0

    async def keep(self, port: int, post: Post, *, after_s: float) -> None:
        """Poll for one controller until cancelled; claim and acknowledge what it is told of."""
        await asyncio.sleep(after_s)
        path = f"/v1/controller/commands?wait={WAIT_S}&boot_id=b"
        raw = request("GET", path, _bearer(post.credential))
        async with Connection(port) as connection:
            while True:
                self.polls += 1
                answer = await connection.ask(raw)
                if answer.status == 200:
                    self.answered[post.controller] = answer.at
                    await self._open(connection, post, answer)
                elif answer.status != 204:
                    raise SystemExit(f"bench: a poll was answered {answer.status}: {answer.body!r}")

    async def _open(self, connection: Connection, post: Post, told: Answer) -> None:
        headers = _bearer(post.credential)
        for command in json.loads(told.body)["commands"]:
            path = f"/v1/controller/commands/{command['id']}"
            claim = {"boot_id": "b", "nonce": command["id"]}
            answer = await connection.ask(request("POST", f"{path}/claim", headers, claim))
            if answer.status == 200:
                self.pulsed[post.controller] = answer.at
                ack = {"boot_id": "b", "result": "executed"}
                await connection.ask(request("POST", f"{path}/ack", headers, ack))


@asynccontextmanager
async def polling(posts: Sequence[Post], port: int) -> AsyncIterator[Doors]:
    """Hold a poll for each of the posts, begun evenly over the wait, as a long day spreads them."""
    doors = Doors()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(doors.keep(port, post, after_s=WAIT_S * number / len(posts)))
            for number, post in enumerate(posts)
        ]
        await asyncio.sleep(WAIT_S + 3)
        yield doors
        for task in tasks:
            task.cancel()


@dataclass(frozen=True, slots=True)
class Idle:
    """What a process costs that only holds polls."""

    memory: int
    """Bytes; all of the process."""
    more: int
    """Bytes more than before the first poll."""
    share: float
    """Percent of one core."""
    polls_per_s: float


async def idle(posts: Sequence[Post], port: int, process: psutil.Process, before: int) -> Idle:
    """Measure a process while it holds the polls of others."""
    async with polling(posts, port) as doors:
        return await _idling(doors, process, before)


async def _idling(doors: Doors, process: psutil.Process, before: int) -> Idle:
    begun = doors.polls
    process.cpu_percent()
    await asyncio.sleep(IDLE_S)
    share, memory = process.cpu_percent(), process.memory_info().rss
    return Idle(memory, memory - before, share, (doors.polls - begun) / IDLE_S)


async def measure(ground: Ground) -> Sequence[Line]:
    """Hold every poll of the city: a bare handler first, then the product; then scan."""
    raise_file_limit()
    agents = ground.scaled(AGENTS)
    settings = ground.settings()
    console.print(f"filling the database with {agents:,} stations ...")
    made = await prepare(settings, stations=agents, workers=LATENCY_SCANS + PULSE_SCANS)
    console.print(f"{agents:,} polls at the bare handler ({WAIT_S + IDLE_S} s) ...")
    with serving(settings, "benchmarks.bare:build") as (port, process):
        bare = await idle(made.posts, port, process, process.memory_info().rss)
    console.print(f"{agents:,} polls at the product ({WAIT_S + IDLE_S} s) ...")
    since = utc_now()
    with serving(settings) as (port, process):
        before = process.memory_info().rss
        async with polling(made.posts, port) as doors:
            used = _seconds(process)
            # It idles for weeks: what it does once in a quarter of an hour is told beside.
            waited_s = await settled(settings, since=since)
            settling_s = _seconds(process) - used
            begun = await transactions(settings)
            real = await _idling(doors, process, before)
            asked = await transactions(settings) - begun
            console.print(f"{LATENCY_SCANS} scans, one at a time ...")
            latencies = await _latencies(made, port, doors)
            console.print(f"{PULSE_SCANS} scans, {SCANS_PER_S} a second ...")
            pulses = await _pulses(made, port, doors)
    return [
        *_compared(agents, real, bare),
        Line(
            f"{agents:,} idle long polls: jobs that run once in 15 minutes or less often",
            f"{max(0.0, settling_s - waited_s * real.share / 100):.1f} s of processor at their "
            "first run after a start, not in the share above",
        ),
        Line(
            f"{agents:,} idle long polls: transactions in the database",
            f"{asked / IDLE_S:.1f}/s for all of them",
            "nothing per controller and second",
        ),
        Line(
            f"commit to poll answer, {agents:,} controllers waiting",
            f"{_percentiles(latencies)} ({len(latencies)} scans, one at a time)",
            "p99 under 50 ms",
        ),
        Line(
            f"scan sent to relay pulse, {agents:,} controllers waiting",
            f"{_percentiles(pulses)} ({len(pulses)} scans, {SCANS_PER_S} a second)",
            "p99 under 250 ms",
        ),
    ]


def _compared(agents: int, real: Idle, bare: Idle) -> list[Line]:
    what, mib = f"{agents:,} idle long polls", 2**20
    return [
        Line(
            f"{what}: processor share, product / bare handler: ratio",
            f"{real.share / bare.share:.2f}",
            "under 1.5",
        ),
        Line(
            f"{what}: memory of the process, product / bare handler: ratio",
            f"{real.memory / bare.memory:.2f}",
            "under 1.5",
        ),
        *(
            Line(
                f"{what}: {name}",
                f"{one.share:.1f} % of one core ({one.polls_per_s:.0f} polls/s), "
                f"{one.memory / mib:.0f} MiB, of which {one.more / mib:.0f} MiB for the polls "
                f"({one.more / agents / 1024:.0f} KiB each)",
            )
            for name, one in (("product", real), ("bare handler", bare))
        ),
    ]


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _percentiles(seconds: Sequence[float]) -> str:
    p50, p99 = (nearest_rank(seconds, share) * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


async def transactions(settings: Settings) -> int:
    """Count the transactions that the database has ended so far."""
    database = Database(settings.database_url, pool_size=2)
    async with database.read() as tx:
        await tx.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        found = await tx.scalar(
            sa.text(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database "
                "WHERE datname = current_database()"
            )
        )
    await database.dispose()
    return int(found or 0)


async def _latencies(made: World, port: int, doors: Doors) -> list[float]:
    """Scan at random doors, one at a time; compare commit and answer on the machine's clock."""
    rng = random.Random(1)
    found = []
    async with Connection(port) as connection:
        for number in range(LATENCY_SCANS):
            post = rng.choice(made.posts)
            doors.answered.pop(post.controller, None)
            await _scan(connection, made, number, post)
            await _until_in(doors.answered, post.controller)
            raw = request("GET", f"/bench/committed?topic=controller:{post.controller}", {})
            committed = json.loads((await connection.ask(raw)).body)
            found.append(
                doors.answered[post.controller] - committed[f"controller:{post.controller}"]
            )
            await asyncio.sleep(0.01)
    return sorted(found)


async def _pulses(made: World, port: int, doors: Doors) -> list[float]:
    """Scan at a steady rate, each at another door; gives the seconds from scan to pulse."""
    posts = random.Random(2).sample(made.posts, min(PULSE_SCANS, len(made.posts)))
    doors.pulsed.clear()
    found: list[float] = []
    phones: asyncio.Queue[Connection] = asyncio.Queue()
    connections = [Connection(port) for _ in range(DOOR_PHONES)]
    for connection in connections:
        phones.put_nowait(await connection.__aenter__())

    async def scan(number: int, post: Post) -> None:
        phone = await phones.get()
        sent_at = time.monotonic()
        await _scan(phone, made, LATENCY_SCANS + number, post)
        phones.put_nowait(phone)
        await _until_in(doors.pulsed, post.controller)
        found.append(doors.pulsed[post.controller] - sent_at)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, post in enumerate(posts):
            await asyncio.sleep(began + number / SCANS_PER_S - time.monotonic())
            group.create_task(scan(number, post))
    for connection in connections:
        await connection.__aexit__()
    return sorted(found)


async def _scan(connection: Connection, made: World, number: int, post: Post) -> None:
    headers = _bearer(made.tokens[number]) | {"Idempotency-Key": f"k{number}"}
    answer = await connection.ask(request("POST", "/v1/scans", headers, {"token": post.poster}))
    if answer.status != 201:
        raise SystemExit(f"bench: a scan was answered {answer.status}: {answer.body!r}")


async def _until_in(seen: dict[str, float], controller: str) -> None:
    for _ in range(2_000):
        if controller in seen:
            return
        await asyncio.sleep(0.005)
    raise SystemExit("bench: a controller heard nothing of a scan for 10 s")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


GROUP = Group(
    title="Polls",
    about=f"""
One server process, one raw connection per controller, each asking the server to hold its poll for
{WAIT_S} s, as the agent does. The bare handler is FastAPI with one route that only sleeps
(`benchmarks/bare.py`), in a process of its own under the same clients. Memory is that of the
whole process (RSS). A pulse is the instant at which the answer to the claim was read.
""",
    measure=measure,
)
