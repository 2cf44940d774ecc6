"""What a group of benchmarks stands on: a PostgreSQL, a folder, a process under measurement."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console

from app import jobs
from app.clock import monotonic, utc_now
from app.db import schema
from app.db.engine import Database
from app.main import build_runtime, opened
from app.settings import Settings
from benchmarks import world
from benchmarks.record import Line
from benchmarks.world import World
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 16
"""Of the server to the database, and of the load that keeps it busy."""

SETTLE_S = 60
"""So long jobs wait after a start."""

console = Console()


@dataclass(frozen=True, slots=True)
class Ground:
    """Where one group measures."""

    server: PostgresServer
    folder: Path
    scale: float = 1.0
    """Smaller than one: a trial, whose figures count for nothing."""

    def scaled(self, number: int) -> int:
        """Give a size as this run wants it."""
        return max(1, round(number * self.scale))

    def settings(self, name: str = "bench") -> Settings:
        """Create a database and give the settings of a service on it."""
        self.server.create_database(name)
        os.environ["YIZHAN_DATABASE_URL"] = self.server.url(name)
        os.environ["YIZHAN_DATA_DIR"] = str(self.folder)
        return Settings()


@dataclass(frozen=True, slots=True)
class Group:
    """Benchmarks that are measured together."""

    title: str
    about: str
    """What to know to read the figures."""
    measure: Callable[[Ground], Awaitable[Sequence[Line]]]
    postgres: Mapping[str, str] = field(
        default_factory=lambda: {"max_connections": "100", "shared_buffers": "256MB"}
    )
    """Settings of the PostgreSQL."""


async def prepare(settings: Settings, *, stations: int, workers: int) -> World:
    """Migrate and fill the database of the load."""
    held = build_runtime(settings, now=utc_now, monotonic=monotonic)
    await schema.migrate(held.database)
    async with opened(held):
        made = await world.build(held, stations=stations, workers=workers)
        # As in a city that has run for a while: what is made once a night is made.
        for name in ("record-modes", "roll-up", "usual-profiles", "retain"):
            job = jobs.find(name)
            assert job is not None
            await jobs.run_once(held, job)
    database = Database(settings.database_url, pool_size=2)
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
    await database.dispose()
    return made


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def settled(settings: Settings, *, since: datetime) -> float:
    """Wait until the jobs that wait after a start have had their first run; gives the seconds.

    Since an instant of the servers' clock; the work of the night may be done already.
    """
    began, patient = time.monotonic(), [job for job in jobs.JOBS if job.is_patient]
    database = Database(settings.database_url, pool_size=1)
    await asyncio.sleep(SETTLE_S)
    while True:
        async with database.read() as tx:
            runs = await jobs.last_runs(tx)
        done = [job for job in patient if job.name in runs]
        if all(job.is_nightly or runs[job.name] >= since for job in done) and done == patient:
            break
        await asyncio.sleep(1)
    await database.dispose()
    return time.monotonic() - began


@contextmanager
def serving(
    settings: Settings, factory: str = "benchmarks.server:build", *, port: int | None = None
) -> Iterator[tuple[int, psutil.Process]]:
    """Run the server under measurement as one process."""
    port = port or free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "uvicorn", factory, "--factory",
            "--port", str(port), "--no-access-log", "--log-level", "error",
            "--timeout-keep-alive", "75", "--no-proxy-headers", "--no-server-header",
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "YIZHAN_DATABASE_URL": settings.database_url,
            "YIZHAN_DATA_DIR": str(settings.data_dir),
            "YIZHAN_LIMIT_SCAN_MINUTE": "1000000",
            "YIZHAN_LIMIT_DOORS_HOUR": "1000000",
            "YIZHAN_LIMIT_BODY_BYTES": "1000000",
            "YIZHAN_DATABASE_POOL_SIZE": str(CONNECTIONS),
        },
    )  # fmt: skip
    try:
        wait_for(port)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(port: int) -> None:
    """Wait until somebody listens; raises TimeoutError."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("the server under measurement did not start")
