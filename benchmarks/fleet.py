"""Whole fleets of the real agent against one server process: idling, and back after a kill -9."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.agent.fleet.files import raise_file_limit
from app.agent.fleet.posts import Post as FleetPost
from app.agent.fleet.posts import PostFile
from app.settings import Settings
from benchmarks import world
from benchmarks.ground import ROOT, Ground, Group, console, free_port, prepare, serving
from benchmarks.load import Connection, request
from benchmarks.polls import AGENTS, WAIT_S
from benchmarks.record import Line

COUNTRY = 11_800
"""All smart stations of the country."""

SETTLE_S = 10
PATIENCE_S = 300
"""A fleet that has not come back by then does not."""

ALMOST = 0.99
"""Of a fleet in which everybody was heard, this share waits at any instant; the rest just asks."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a process uses."""

    share: float
    """Percent of one core."""
    memory: int
    files: int

    def says(self) -> str:
        """Say it in one cell of the table."""
        memory = f"{self.memory / 2**20:.0f} MiB"
        return f"{self.share:.0f} % of one core, {memory}, {self.files:,} files"


@dataclass(frozen=True, slots=True)
class Run:
    """What one fleet came to."""

    agents: int
    started_s: float
    """From the start of the fleet until all waited."""
    server: Load
    fleet: Load
    listening_s: float
    """From the kill until the server took connections again."""
    back_s: float
    """From the kill until all waited again."""
    busy: float
    """Percent of one core the server used from its restart until all waited again."""
    verdict: str


async def measure(ground: Ground) -> Sequence[Line]:
    """Run the city's fleet and then the country's."""
    files = raise_file_limit()
    lines: list[Line] = []
    for agents in (ground.scaled(AGENTS), ground.scaled(COUNTRY)):
        settings = ground.settings(f"fleet{agents}")
        console.print(f"filling the database with {agents:,} stations ...")
        made = await prepare(settings, stations=agents, workers=1)
        run = await _run(ground, settings, made.posts)
        lines += _lines(run, files, is_city=not lines)
    return lines


async def _run(ground: Ground, settings: Settings, posts: Sequence[world.Post]) -> Run:
    agents, port = len(posts), free_port()
    folder = ground.folder / f"fleet-{agents}"
    _enrolled(folder, posts)
    with serving(settings, port=port) as (_, server):
        began = time.monotonic()
        with _fleet(folder, port, agents) as (process, log):
            await _until_all(port, agents, process)
            started_s = time.monotonic() - began
            console.print(f"{agents:,} agents wait after {started_s:.0f} s; watching them idle ...")
            await asyncio.sleep(SETTLE_S)
            idle = await _loads(server, psutil.Process(process.pid))
            console.print("kill -9 ...")
            server.kill()
            killed = time.monotonic()
            server.wait(30)  # Until then its port may still answer.
            with serving(settings, port=port) as (_, again):
                listening_s = time.monotonic() - killed
                again.cpu_percent()
                await _until_all(port, agents, process)
                back_s, busy = time.monotonic() - killed, again.cpu_percent()
                console.print(f"all {agents:,} are back after {back_s:.1f} s")
                process.send_signal(signal.SIGINT)
                process.wait(60)
    return Run(agents, started_s, *idle, listening_s, back_s, busy, _verdict(process, log))


def _enrolled(folder: Path, posts: Sequence[world.Post]) -> None:
    """Write the fleet's file as if it had enrolled these controllers itself."""
    file = PostFile(folder)
    for number, post in enumerate(posts):
        identity = {"credential": post.credential, "credential_at": time.time()}
        file.keep(FleetPost(f"bench-{number}", post.station, None, identity))
    file.close()


@contextmanager
def _fleet(folder: Path, port: int, agents: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "out.txt"
    command = [sys.executable, "-m", "app", "fleet", "--server", f"http://127.0.0.1:{port}"]
    command += ["--agents", str(agents), "--state-dir", str(folder)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=os.environ)
    try:
        yield process, log
    except SystemExit:
        console.print(log.read_text(errors="replace")[-2000:])
        raise
    finally:
        process.kill()
        process.wait()


def _verdict(process: subprocess.Popen[bytes], log: Path) -> str:
    text = log.read_text(errors="replace")
    if process.returncode != 0:
        raise SystemExit(f"bench: the fleet ended with {process.returncode}:\n{text[-2000:]}")
    found = re.search(r"no law was broken", text)
    return found.group(0) if found else "no verdict"


async def _until_all(port: int, agents: int, fleet: subprocess.Popen[bytes]) -> None:
    """Wait until the server has heard every agent, and all but a few wait this instant."""
    raw, until, shown = request("GET", "/bench/polls", {}), time.monotonic() + PATIENCE_S, 0.0
    found: dict[str, int] = {}
    async with Connection(port) as connection:
        while time.monotonic() < until and fleet.poll() is None:
            found = json.loads((await connection.ask(raw)).body)
            if found["heard"] >= agents and found["open"] >= ALMOST * agents:
                return
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                console.print(f"  {found['heard']:,} of {agents:,} heard, {found['open']:,} wait")
            await asyncio.sleep(0.1)
    raise SystemExit(f"bench: not every agent polls: {found}, fleet ended: {fleet.poll()}")


async def _loads(server: psutil.Process, fleet: psutil.Process) -> tuple[Load, Load]:
    for process in (server, fleet):
        process.cpu_percent()
    await asyncio.sleep(WAIT_S)
    return _load(server), _load(fleet)


def _load(process: psutil.Process) -> Load:
    return Load(process.cpu_percent(), process.memory_info().rss, process.num_fds())


def _lines(run: Run, files: int, *, is_city: bool) -> list[Line]:
    what = f"{run.agents:,} agents"
    limits = {
        "the server's processor": run.busy / 100,
        "the fleet's processor": run.fleet.share / 100,
        "the server's open files": run.server.files / files,
        "the fleet's open files": run.fleet.files / files,
        "memory": (run.server.memory + run.fleet.memory) / psutil.virtual_memory().total,
    }
    nearest = sorted(limits.items(), key=lambda limit: limit[1], reverse=True)
    return [
        Line(
            f"{what}: kill -9 of the server until all poll again",
            f"{run.back_s:.1f} s, of which {run.listening_s:.1f} s until it listens",
            "within 30 s" if is_city else "",
        ),
        Line(f"{what}: start of the fleet until all poll", f"{run.started_s:.1f} s"),
        Line(f"{what}: the server while they idle", run.server.says()),
        Line(f"{what}: the fleet's one process while they idle", run.fleet.says()),
        Line(
            f"{what}: how much of its limit is used",
            "; ".join(f"{name} {share:.0%}" for name, share in nearest),
        ),
        Line(f"{what}: the fleet's verdict", run.verdict, "no law was broken"),
    ]


GROUP = Group(
    title="Fleet",
    about="""
`yizhan fleet`, the product's own load: the real agent's code, thousands of controllers in one
process, over real HTTP to one server process, which is killed with `kill -9` and started again at
once. Nobody tells the agents; each comes back at its own pace (a pause drawn from 0 to 10 s after
each failure). The controllers are enrolled beforehand, in bulk. "How much of its limit is used"
takes the server's processor while all come back at once, and the rest while they idle; files
are counted against the hard limit of this machine.
At 11,800, all smart stations of the country, nothing broke. What would break first stands first
among the limits: open files. In this test alone, the local ports of the one address that the fleet
calls from may come before it: an earlier version of the agent, which made calls that timed out
again at once, ran out of them.
""",
    measure=measure,
)
