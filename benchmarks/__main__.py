"""make bench: measures side by side in one run, prints a table, writes docs/benchmarks.md."""

import asyncio
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from app.clock import monotonic, utc_now
from app.db import schema
from app.db.engine import Database
from app.main import build_runtime, opened
from app.places import nearby
from app.places.rules import Calendar
from app.places.tables import Station
from app.settings import Settings
from benchmarks import world
from benchmarks.load import Connection, Round, burst, nearest_rank, request
from benchmarks.world import World
from tests.support.postgres import PostgresServer, running_postgres

ROOT = Path(__file__).resolve().parents[1]
STATIONS = 1_000
ROUNDS = 5
SCANS = 1_500
"""Scans in one round; each by another worker, so that no limit and no double tap is met."""
CONNECTIONS = 16
LATENCY_SCANS = 300
IDLE_S = 20
COUNTRY = 186_100
NEAR_QUERIES = 400

console = Console()


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    what: str
    measured: str
    goal: str = ""


@contextmanager
def serving(settings: Settings, factory: str = "build") -> Iterator[tuple[int, psutil.Process]]:
    """Run the server under measurement as one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "uvicorn", f"benchmarks.server:{factory}", "--factory",
            "--port", str(port), "--no-access-log", "--log-level", "error",
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "YIZHAN_DATABASE_URL": settings.database_url,
            "YIZHAN_DATA_DIR": str(settings.data_dir),
            "YIZHAN_LIMIT_SCAN_MINUTE": "1000000",
            "YIZHAN_LIMIT_DOORS_HOUR": "1000000",
            "YIZHAN_MAX_WAIT_S": "60",
            "YIZHAN_DATABASE_POOL_SIZE": str(CONNECTIONS),
        },
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def scan_requests(made: World, start: int, count: int) -> list[bytes]:
    """Write real scans: each worker once."""
    return [
        request(
            "POST",
            "/v1/scans",
            {"Authorization": f"Bearer {made.tokens[number]}", "Idempotency-Key": f"k{number}"},
            {"token": made.posts[number % len(made.posts)].poster},
        )
        for number in range(start, start + count)
    ]


def bare_requests(made: World, start: int, count: int) -> list[bytes]:
    """Write the bare handler's requests for the same doors and workers."""
    found = []
    for number in range(start, start + count):
        post = made.posts[number % len(made.posts)]
        body = {
            "station": post.station,
            "door": post.door,
            "controller": post.controller,
            "worker": made.workers[number],
        }
        found.append(request("POST", "/bench/scans", {}, body))
    return found


async def measure_scans(made: World, port: int) -> list[Line]:
    """Measure real and bare scans in turn, A B A B; the ratio is of neighbours."""
    real: list[Round] = []
    bare: list[Round] = []
    for number in range(ROUNDS + 1):
        first = number * SCANS
        real.append(await burst(port, scan_requests(made, first, SCANS), connections=CONNECTIONS))
        bare.append(await burst(port, bare_requests(made, first, SCANS), connections=CONNECTIONS))
    for found in (*real, *bare):
        if set(found.statuses) != {201}:
            raise SystemExit(f"bench: not every scan was granted: {found.statuses}")
    real, bare = real[1:], bare[1:]  # The first pair warms up.
    ratios = [a.per_second / b.per_second for a, b in zip(real, bare, strict=True)]
    return [
        Line(
            "scans per second, real / bare handler: ratio",
            f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})",
            "at least 0.7",
        ),
        _burst_line("scans per second, real endpoint", real),
        _burst_line("scans per second, bare handler", bare),
    ]


def _burst_line(what: str, rounds: Sequence[Round]) -> Line:
    median = statistics.median(found.per_second for found in rounds)
    seconds = sorted(second for found in rounds for second in found.seconds)
    p50, p99 = (nearest_rank(seconds, share) * 1000 for share in (0.5, 0.99))
    return Line(what, f"{median:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def measure_polls(made: World, port: int, process: psutil.Process) -> list[Line]:
    """Hold a poll for every controller; measure the idle cost, then commit to poll answer."""
    before = process.memory_info().rss
    answered: dict[str, float] = {}
    stop = asyncio.Event()

    async def wait(number: int) -> None:
        post = made.posts[number]
        raw = request(
            "GET",
            "/v1/controller/commands?wait=60&boot_id=b",
            {"Authorization": f"Bearer {post.credential}"},
        )
        async with Connection(port) as connection:
            while not stop.is_set():
                answer = await connection.ask(raw)
                if answer.status == 200:
                    answered[post.controller] = answer.at
                    await _finish(connection, post.credential, answer.body)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(number)) for number in range(len(made.posts))]
        await _quiet(len(made.posts))
        idle = await _idle(made, process)
        memory = process.memory_info().rss - before
        latencies = await _latencies(made, port, answered)
        stop.set()
        for task in tasks:
            task.cancel()
    p50, p99 = (nearest_rank(latencies, share) * 1000 for share in (0.5, 0.99))
    held = len(made.posts)
    return [
        Line(
            f"commit to poll answer, {held:,} controllers waiting",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms ({len(latencies)} scans)",
            "p99 under 50 ms",
        ),
        Line(
            f"{held:,} idle long polls: memory of the process",
            f"{memory / 2**20:.0f} MiB more, {memory / held / 1024:.0f} KiB each",
        ),
        *idle,
    ]


async def _finish(connection: Connection, credential: str, body: bytes) -> None:
    """Claim and acknowledge, so that the next poll waits again."""
    headers = {"Authorization": f"Bearer {credential}"}
    for command in json.loads(body)["commands"]:
        path = f"/v1/controller/commands/{command['id']}"
        claim = {"boot_id": "b", "nonce": command["id"]}
        await connection.ask(request("POST", f"{path}/claim", headers, claim))
        ack = {"boot_id": "b", "result": "failed"}
        await connection.ask(request("POST", f"{path}/ack", headers, ack))


async def _idle(made: World, process: psutil.Process) -> list[Line]:
    settings = Settings()
    database = Database(settings.database_url, pool_size=2)
    try:
        begun = await _transactions(database)
        process.cpu_percent()
        await asyncio.sleep(IDLE_S)
        share = process.cpu_percent()
        asked = await _transactions(database) - begun
    finally:
        await database.dispose()
    held = len(made.posts)
    return [
        Line(f"{held:,} idle long polls: processor share", f"{share:.1f} % of one core"),
        Line(
            f"{held:,} idle long polls: transactions in the database",
            f"{asked / IDLE_S:.1f}/s for all of them",
            "nothing per controller and second",
        ),
    ]


async def _quiet(held: int) -> None:
    """Wait until what the scans before left pending is done with; a poll in 25 s each is quiet."""
    database = Database(Settings().database_url, pool_size=2)
    try:
        for _ in range(30):
            begun = await _transactions(database)
            await asyncio.sleep(3)
            if await _transactions(database) - begun < 3 * max(10, held / 25):
                return
    finally:
        await database.dispose()


async def _transactions(database: Database) -> int:
    async with database.read() as tx:
        await tx.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        found = await tx.scalar(
            sa.text(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database "
                "WHERE datname = current_database()"
            )
        )
    return int(found or 0)


async def _latencies(made: World, port: int, answered: dict[str, float]) -> list[float]:
    """Scan at random doors, one at a time; compare commit and answer on the machine's clock."""
    first = (ROUNDS + 1) * SCANS
    rng = random.Random(1)
    found = []
    async with Connection(port) as connection:
        for number in range(first, first + LATENCY_SCANS):
            post = rng.choice(made.posts)
            answered.pop(post.controller, None)
            headers = {
                "Authorization": f"Bearer {made.tokens[number]}",
                "Idempotency-Key": f"k{number}",
            }
            raw = request("POST", "/v1/scans", headers, {"token": post.poster})
            scan = await connection.ask(raw)
            assert scan.status == 201, scan.body
            for _ in range(200):
                if post.controller in answered:
                    break
                await asyncio.sleep(0.005)
            raw = request("GET", f"/bench/committed?topic=controller:{post.controller}", {})
            committed = json.loads((await connection.ask(raw)).body)
            found.append(answered[post.controller] - committed[f"controller:{post.controller}"])
            await asyncio.sleep(0.01)
    return sorted(found)


async def measure_nearby(server: PostgresServer) -> list[Line]:
    """Search around random points among as many stations as the country has."""
    lines = []
    server.create_database("country")
    with tempfile.TemporaryDirectory() as folder:
        embedded = f"sqlite+aiosqlite:///{folder}/country.db"
        for name, url in (("PostgreSQL", server.url("country")), ("SQLite", embedded)):
            database = Database(url, pool_size=2)
            await schema.migrate(database)
            points = await _country(database)
            for radius_m in (1_000, 5_000):
                seconds = await _searches(database, points, radius_m)
                p50, p99 = (nearest_rank(seconds, share) * 1000 for share in (0.5, 0.99))
                lines.append(
                    Line(
                        f"usable stations within {radius_m // 1000} km of a point, "
                        f"{COUNTRY:,} stations, {name}",
                        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                        "p99 under 10 ms",
                    )
                )
            await database.dispose()
    return lines


async def _country(database: Database) -> list[tuple[float, float]]:
    """Add stations in clusters, as cities are; gives some of their points."""
    rng, at = random.Random(2), utc_now()
    cities = [(rng.uniform(20, 45), rng.uniform(80, 130)) for _ in range(337)]
    points = []
    for number in range(COUNTRY):
        latitude, longitude = cities[number % len(cities)]
        points.append((rng.gauss(latitude, 0.15), rng.gauss(longitude, 0.15)))
    async with database.write() as tx:
        unit_id = await world.a_unit(tx, at)
    for start in range(0, COUNTRY, 5_000):
        async with database.write() as tx:
            rows = [
                world.station(unit_id, number, at, point=points[number])
                for number in range(start, min(start + 5_000, COUNTRY))
            ]
            await tx.execute(sa.insert(Station), rows)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")
    return rng.sample(points, NEAR_QUERIES)


async def _searches(
    database: Database, points: Sequence[tuple[float, float]], radius_m: int
) -> list[float]:
    calendar, at = Calendar({}, frozenset()), utc_now()
    seconds = []
    for latitude, longitude in points:
        async with database.read() as tx:
            began = time.perf_counter()
            await nearby.usable_near(
                tx,
                calendar,
                latitude=latitude,
                longitude=longitude,
                radius_m=radius_m,
                at=at,
                limit=3,
            )
            seconds.append(time.perf_counter() - began)
    return sorted(seconds[20:])


async def prepare(settings: Settings) -> World:
    """Migrate and fill the database of the load."""
    held = build_runtime(settings, now=utc_now, monotonic=monotonic)
    await schema.migrate(held.database)
    async with opened(held):
        workers = (ROUNDS + 1) * SCANS + LATENCY_SCANS
        made = await world.build(held, stations=STATIONS, workers=workers)
    async with Database(settings.database_url, pool_size=2).engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
    return made


def machine() -> str:
    """Describe where this was measured."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {platform.system()}; server, PostgreSQL 18 and load "
        "generator share them"
    )


def show(lines: Sequence[Line]) -> None:
    """Print the table and write it to docs/benchmarks.md."""
    table = Table("what", "measured", "goal")
    for line in lines:
        table.add_row(line.what, line.measured, line.goal)
    console.print(table)
    rows = "\n".join(f"| {line.what} | {line.measured} | {line.goal} |" for line in lines)
    text = (
        "# Benchmarks\n\n"
        f"Printed by one run of `make bench` on {datetime.now(UTC):%Y-%m-%d}, on {machine()}.\n"
        "Machines are noisy: believe ratios within one run, not single figures. The bare handler\n"
        "uses the same framework, session class, pool and driver, inserts the rows of a granted\n"
        "scan and commits (`benchmarks/server.py`).\n\n"
        f"| what | measured | goal |\n|---|---|---|\n{rows}\n"
    )
    target = ROOT / "docs" / "benchmarks.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    console.print(f"wrote {target.relative_to(ROOT)}")


async def whole(server: PostgresServer, folder: Path) -> None:
    """Measure everything."""
    server.create_database("bench")
    os.environ["YIZHAN_DATABASE_URL"] = server.url("bench")
    os.environ["YIZHAN_DATA_DIR"] = str(folder)
    settings = Settings()
    console.print("filling the database ...")
    made = await prepare(settings)
    with serving(settings) as (port, process):
        console.print("scans, real and bare in turn ...")
        lines = await measure_scans(made, port)
        console.print("long polls ...")
        lines += await measure_polls(made, port, process)
    console.print(f"{COUNTRY:,} stations ...")
    lines += await measure_nearby(server)
    show(lines)


def main() -> None:
    """Run on a PostgreSQL from the wheel."""
    settings = {"max_connections": "100", "shared_buffers": "256MB"}
    with (
        running_postgres(settings=settings) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        asyncio.run(whole(server, Path(folder)))


if __name__ == "__main__":
    main()
