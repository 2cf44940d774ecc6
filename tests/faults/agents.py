"""A house for a trial: a database, a server process, and boxes at doors, to be killed and frozen.

Everything listens on loopback only, lives in the round's folder, and ends with the block; should
the trial itself be killed, its processes die with it.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
import sqlalchemy as sa

from app.clock import monotonic, utc_now
from app.db import schema
from app.db.engine import Database
from app.doors.registry import NewDoor, add_doors, poster_token
from app.doors.tables import Command, Controller, Scan
from app.doors.tokens import TokenKind
from app.main import build_runtime, opened
from app.runtime import Runtime
from app.settings import Settings
from tests.faults.history import Pulse as Pulsed
from tests.faults.history import pulses_in, read_lines
from tests.faults.isolated import Life
from tests.faults.nursery import Nursery, Sprung
from tests.faults.promise import Round
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.server import free_port
from tests.support.worlds import (
    SomeWorker,
    a_controller,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

ROOT = Path(__file__).parent.parent.parent

READY_S = 300.0
"""How long a server may take to answer, in seconds, on a machine that has other things to do."""

LIMITS = {
    "YIZHAN_LIMIT_SCAN_MINUTE": "1000000",
    "YIZHAN_LIMIT_DOORS_HOUR": "1000000",
    # A clock step must not make a controller look silent: that is another promise.
    "YIZHAN_CONTROLLER_SILENCE_S": "3600",
}
"""What would otherwise turn a hurried trial away."""

FAKETIME = (
    os.environ.get("LIBFAKETIME", ""),
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)
"""Where Debian's package `libfaketime` puts it; `LIBFAKETIME` names another place."""

T = TypeVar("T")


def faketime() -> Path | None:
    """Find libfaketime; None when it is not installed."""
    return next((Path(place) for place in FAKETIME if place and Path(place).is_file()), None)


class WallClock:
    """The wall clock of one process, which can be put forward and back while it runs.

    Its monotonic clocks stay true, as those of a real machine do.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.steps = 0
        file.write_text("+0\n")

    def step(self, seconds: int) -> None:
        """Let the clock show true time plus so much from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
        self.steps += 1

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live by this clock."""
        library = faketime()
        assert library is not None
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@dataclass(slots=True)
class Child:
    """One process of ours."""

    log: Path
    process: "subprocess.Popen[bytes] | Sprung"

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it as a power cut would, and wait until it is gone."""
        if self.lives:
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end; kill it if it does not within 10 s."""
        if self.lives:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def said(self, lines: int = 15) -> str:
        """Give the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.lives:
            self.process.send_signal(number)


def started(arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Child:
    """Start a process of the product, watched."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.watched", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    return Child(log, process)


@dataclass(frozen=True, slots=True)
class Box:
    """A station with one door and the controller behind it."""

    station: uuid.UUID
    door: uuid.UUID
    poster: str
    controller: uuid.UUID
    credential: str


@dataclass(frozen=True, slots=True)
class Town:
    """What a trial finds in its database."""

    admin: str
    """The session of an administrator of everything."""
    boxes: Sequence[Box]
    workers: Sequence[SomeWorker]

    @property
    def admin_headers(self) -> dict[str, str]:
        """What the administrator's client sends."""
        return {"Authorization": f"Bearer {self.admin}"}


def a_town(
    boxes: int, *, workers: int = 0, has_contact: bool = False, **station: Any
) -> Callable[[Runtime], Awaitable[Town]]:
    """Build stations that open by scan at any hour, all in one place, and workers."""

    async def build(held: Runtime) -> Town:
        at = held.now()
        made = []
        async with held.database.write() as tx:
            unit = await a_unit(tx, at=at)
            admin = await an_admin(tx, at=at)
            for _ in range(boxes):
                values = {"staffed_hours": None, "capacity": 100_000} | station
                place = await a_station(tx, unit=unit, at=at, **values)
                (door,) = await add_doors(
                    tx, place.id, [NewDoor("正门", has_contact=has_contact)], at=at
                )
                controller, credential = await a_controller(tx, place, at=at)
                poster = poster_token(held.keys.signing(TokenKind.POSTER), door)
                made.append(Box(place.id, door.id, poster, controller, credential))
            people = [await a_worker(tx, held, at=at) for _ in range(workers)]
        return Town(admin.token, made, people)

    return build


@dataclass(slots=True)
class House(Generic[T]):
    """A database and a server process on it; usable while `a_house` is open."""

    round: Round
    settings: Settings
    built: T
    """What was built in the database before the first start."""
    port: int = field(default_factory=free_port)
    clock: WallClock | None = None
    postgres: PostgresServer | None = None
    """The round's own, on PostgreSQL."""
    server_database_url: str | None = None
    """Where the server finds its database, if not where the trial does."""
    server: Child | None = None
    slow_upload_s: float = 0.0
    """How much longer each upload takes than it would, as on a slow disk."""
    starts: int = 0
    nursery: Nursery | None = None
    _children: list[Child] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the server listens, straight."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def reads_log(self) -> Path:
        """Where the observer writes what was read when."""
        return self.round.folder / "reads.jsonl"

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        self.server = self._begin(
            ["serve", "--port", str(self.port)],
            name="server",
            environment={
                "YIZHAN_DATA_DIR": str(self.settings.data_dir),
                "YIZHAN_DATABASE_URL": self.server_database_url or self.settings.database_url,
                "FAULT_READS": str(self.reads_log),
                "FAULT_SLOW_UPLOAD_S": str(self.slow_upload_s),
                **LIMITS,
                **(self.clock.environment if self.clock else {}),
            },
        )
        self.starts += 1
        until = time.monotonic() + READY_S
        async with httpx.AsyncClient() as client:
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz", timeout=30)).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                if not self.server.lives or time.monotonic() > until:
                    raise RuntimeError(f"the server did not start\n{self.server.said()}")
                await asyncio.sleep(0.05)

    def agents(
        self, boxes: Mapping[str, tuple[Box, str]], *, clock: WallClock | None = None
    ) -> Child:
        """Start one process with an agent for each box: its name, the box, and its server's URL."""
        listed = []
        for name, (box, url) in boxes.items():
            state = self.round.folder / name
            state.mkdir(exist_ok=True)
            identity = state / "identity.json"
            if not identity.exists():
                kept = {"credential": box.credential, "credential_at": time.time()}
                identity.write_text(json.dumps(kept))
            listed.append({"state": str(state), "url": url})
        first = next(iter(boxes))
        file = self.round.folder / f"{first}.boxes.json"
        file.write_text(json.dumps(listed))
        environment = clock.environment if clock else {}
        return self._begin(["agents", str(file)], name=first, environment=environment)

    def isolated(self, life: Life) -> Child:
        """Start a process that lives through days alone, or what is left of them."""
        state = Path(life.state)
        file = state / "life.json"
        life.write(file)
        return self._begin(["isolated", str(file)], name=state.name, environment={})

    def _begin(self, arguments: list[str], *, name: str, environment: Mapping[str, str]) -> Child:
        bug = {"FAULT_BUG": self.round.bug} if self.round.bug else {}
        log = self.round.folder / f"{name}.log"
        if "LD_PRELOAD" in environment:
            child = started(arguments, log=log, environment={**environment, **bug})
        else:
            child = self._sprung(arguments, log, {**environment, **bug})
        self._children = [other for other in self._children if other.lives]
        self._children.append(child)
        return child

    def _sprung(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> Child:
        """Start a process that needs no environment before its first instruction."""
        if self.nursery is None:
            bug = {"FAULT_BUG": self.round.bug} if self.round.bug else {}
            self.nursery = Nursery.open(
                [sys.executable, "-m", "tests.faults.watched", "nursery"],
                self.round.folder / "exits",
                log=self.round.folder / "nursery.log",
                cwd=ROOT,
                env={**os.environ, **bug},
            )
        return Child(log, self.nursery.spring(arguments, log=log, environment=environment))

    def pulses(self) -> list[Pulsed]:
        """Read every relay log of the round."""
        return pulses_in(sorted(self.round.folder.glob("*/relay.jsonl")))

    def read_ns(self) -> dict[str, int]:
        """Give when the request with each key had been read, first."""
        found: dict[str, int] = {}
        for line in read_lines(self.reads_log):
            found.setdefault(line["key"], line["read_ns"])
        return found

    async def rows(self, query: Any) -> Sequence[Any]:
        """Read the database beside the server."""
        database = Database(self.settings.effective_database_url, pool_size=2)
        try:
            async with database.read() as tx:
                found: Sequence[Any] = (await tx.execute(query)).all()
                return found
        finally:
            await database.dispose()

    async def granted(self) -> dict[str, str]:
        """Give the commands that were claimed, each with the boot that claimed it."""
        query = sa.select(Command.id, Command.boot_id).where(Command.claimed_at.is_not(None))
        return {str(row.id): row.boot_id for row in await self.rows(query)}

    async def frozen(self) -> int:
        """Count the controllers that the server took for clones."""
        rows = await self.rows(sa.select(Controller.id).where(Controller.frozen_at.is_not(None)))
        return len(rows)

    async def commands_by_key(self) -> dict[str, str]:
        """Give the Idempotency-Key of the scan behind each command."""
        rows = await self.rows(
            sa.select(Command.id, Scan.idempotency_key).join(Scan, Scan.id == Command.scan_id)
        )
        return {str(row.id): row.idempotency_key for row in rows}

    def end(self) -> None:
        """End every process."""
        for child in self._children:
            child.thaw()
            child.kill()
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None


@contextmanager
def _database(round: Round) -> Iterator[PostgresServer | None]:
    """Bring up the round's database, empty: a PostgreSQL of its own, or a file."""
    if round.database == "sqlite":
        yield None
        return
    with running_postgres() as server:
        server.create_database("faults")
        yield server


@asynccontextmanager
async def a_house(
    round: Round,
    build: Callable[[Runtime], Awaitable[T]],
    *,
    clock: WallClock | None = None,
    slow_upload_s: float = 0.0,
) -> AsyncIterator[House[T]]:
    """Build a database and serve it until the block ends."""
    with ExitStack() as stack:
        postgres = stack.enter_context(_database(round))
        url = postgres.url("faults") if postgres else ""
        settings = Settings(data_dir=round.folder / "data", database_url=url)
        settings.data_dir.mkdir()
        held = build_runtime(settings, now=utc_now, monotonic=monotonic)
        await schema.migrate(held.database)
        async with opened(held):
            built = await build(held)
        house = House(round, settings, built, clock=clock, postgres=postgres)
        house.slow_upload_s = slow_upload_s
        stack.callback(house.end)
        await house.start()
        yield house


async def pause(dice: random.Random, least_s: float, most_s: float) -> None:
    """Wait for a time that the seed chooses."""
    await asyncio.sleep(dice.uniform(least_s, most_s))
