"""The fleet's run: enrol, start, show, stop, and say whether a law was broken."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from app.agent import AgentError
from app.agent.fleet.controller import Controller, RelayLog, Tally, World
from app.agent.fleet.faults import LEVELS, Level
from app.agent.fleet.files import raise_file_limit
from app.agent.fleet.posts import AdminLogin, AdminRefused, PostFile, TooFewStations, recruit
from app.agent.fleet.witness import Law, Witness, pulses_in
from app.agent.state import StateFolder

START_WITHIN_S = 10.0
"""All controllers begin within this, in seconds, as after a power cut of the whole city."""

STARTS_PER_S = 500
"""A small fleet begins sooner."""

LINGER_S = 90.0
"""A fleet that is to stop goes on for at most so long, in seconds, to finish what it began.

Longer than the longest pause between two tries, and the calls before and after it.
"""

LINE_EVERY_S = 10.0
"""Where no table can be shown, a line is printed this often, in seconds."""

SPARE_FILES = 200
"""Files beside the connections: the server's pages, logs, libraries."""


class TooFewFiles(AgentError):
    """The system lets one process open too few files for so many controllers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What fleet is wanted."""

    server_url: str
    agents: int
    folder: Path
    login: AdminLogin | None = None
    """Whoever enrols what is missing; not needed for controllers that are enrolled already."""
    faults: Level = Level.NONE
    seed: int = 1
    seconds: float | None = None
    """How long to run; None: until asked to stop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fleet did in its run."""

    tally: Tally
    witness: Witness
    agents: int
    seconds: float
    unsent_events: int
    unsent_results: int

    @property
    def is_lawful(self) -> bool:
        """Whether no law was broken."""
        return not self.witness.broken


async def run_fleet(plan: Plan, *, stop: asyncio.Event, out: Console) -> Outcome:
    """Run a fleet until `stop` is set or its time is over.

    Raises `AgentError` when it cannot begin: `TooFewFiles`, `TooFewStations`, `AdminRefused`,
    `StateLocked`.
    """
    _require_files(plan.agents, out)
    plan = _tidied(plan)
    with contextlib.ExitStack() as stack:
        stack.enter_context(StateFolder(plan.folder).locked())
        file = PostFile(plan.folder)
        stack.callback(file.close)
        await _fill(plan, file, out)
        posts = [post for post in file.posts.values() if post.is_enrolled][: plan.agents]
        faults = LEVELS[plan.faults]
        witness = Witness(drift=faults.drift)
        path = plan.folder / "relay.jsonl"
        witness.remember(pulses_in(path))
        log = RelayLog(path, witness)
        stack.callback(log.close)
        tally, calm, over = Tally(), asyncio.Event(), asyncio.Event()
        world = World(plan.server_url, faults, calm, over, plan.seed, file, log, witness, tally)
        controllers = [Controller(world, post) for post in posts]
        # A collection that looks through thousands of controllers stops all of them for a while.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        began = time.monotonic()
        await _live(plan, world, controllers, stop=stop, out=out)
        return Outcome(
            tally,
            witness,
            len(controllers),
            time.monotonic() - began,
            sum(one.unsent_events for one in controllers),
            sum(one.unsent_results for one in controllers),
        )


def _tidied(plan: Plan) -> Plan:
    return Plan(
        plan.server_url.rstrip("/"),
        plan.agents,
        plan.folder,
        plan.login,
        plan.faults,
        plan.seed,
        plan.seconds,
    )


def _require_files(agents: int, out: Console) -> None:
    """Raise our limit; every controller holds one connection and, for moments, another."""
    limit = raise_file_limit()
    if limit < agents + SPARE_FILES:
        raise TooFewFiles(
            f"{agents} controllers need {agents + SPARE_FILES} open files, and this system allows "
            f"{limit}; raise the hard limit (ulimit -Hn) or ask for fewer agents"
        )
    if limit < 2 * agents + SPARE_FILES:
        out.print(
            f"this system allows {limit} open files; {agents} controllers may need "
            f"{2 * agents + SPARE_FILES} when all send at once"
        )


async def _fill(plan: Plan, file: PostFile, out: Console) -> None:
    """Enrol what is missing."""
    enrolled = sum(post.is_enrolled for post in file.posts.values())
    if enrolled >= plan.agents:
        return
    if plan.login is None:
        raise TooFewStations(
            f"{enrolled} controllers are enrolled in {plan.folder}; to enrol "
            f"{plan.agents - enrolled} more, name an administrator: --admin NAME --password-stdin"
        )
    with Progress(console=out) as progress:
        bar = progress.add_task("enrolling", total=plan.agents, completed=enrolled)
        try:
            async with httpx.AsyncClient(timeout=30) as http:
                await recruit(
                    file,
                    plan.server_url,
                    plan.login,
                    agents=plan.agents,
                    moved=lambda number: progress.update(bar, completed=number),
                    http=http,
                )
        except httpx.HTTPError as error:
            raise AdminRefused(f"no answer from {plan.server_url}: {error}") from error
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


async def _live(
    plan: Plan,
    world: World,
    controllers: Sequence[Controller],
    *,
    stop: asyncio.Event,
    out: Console,
) -> None:
    within_s = min(START_WITHIN_S, len(controllers) / STARTS_PER_S)
    # A failure of ours is no virtual fault: it ends the group, and the run.
    with _shown(plan, world, len(controllers), out):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.live(first_within_s=within_s)) for one in controllers]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.seconds):
                    await stop.wait()
            stop.clear()
            world.calm.set()
            world.over.set()
            for one in controllers:
                one.keep_on()
            await _settled(controllers, stop)
            for task in tasks:
                task.cancel()


async def _settled(controllers: Sequence[Controller], stop: asyncio.Event) -> None:
    """Wait until everything is with the server; a second signal ends this, and so does time."""
    until = time.monotonic() + LINGER_S
    while time.monotonic() < until and not stop.is_set():
        # First of all: what was told a moment ago shall be in hand.
        await asyncio.sleep(0.2)
        if all(one.has_settled for one in controllers):
            return


@contextlib.contextmanager
def _shown(plan: Plan, world: World, agents: int, out: Console) -> Iterator[None]:
    """Show how it goes: a live table in a terminal, a line now and then elsewhere."""
    began = time.monotonic()

    def now() -> Table:
        return table(world.tally, world.witness, agents, time.monotonic() - began)

    if out.is_terminal:
        with Live(console=out, refresh_per_second=2, get_renderable=now):
            yield
        return

    async def lines() -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            out.print(line(world.tally, world.witness, agents, time.monotonic() - began))

    printing = asyncio.create_task(lines())
    try:
        yield
    finally:
        printing.cancel()


def _rows(tally: Tally, witness: Witness, agents: int, seconds: float) -> list[tuple[str, str]]:
    return [
        ("agents polling", f"{tally.polling:,} of {agents:,}"),
        ("polls answered", f"{tally.polls:,} ({tally.polls / max(seconds, 1):.0f}/s)"),
        ("connections made", f"{tally.connects:,}"),
        ("reboots", f"{tally.reboots:,}"),
        ("virtual faults", ", ".join(f"{n:,} {name}" for name, n in sorted(tally.faults.items()))),
        ("commands told", f"{len(witness.told):,}"),
        ("relay pulses", f"{witness.pulses:,}"),
        ("command to pulse", _latency(witness.seconds)),
        ("events uploaded", f"{tally.events:,}"),
        ("credentials revoked", f"{tally.revoked:,}"),
        *((f"BROKEN: {law.value}", f"{witness.count(law):,}") for law in Law if witness.count(law)),
    ]


def _latency(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none yet"
    ordered = sorted(seconds)
    p50, p99 = (percentile(ordered, share) * 1000 for share in (50, 99))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Give a percentile by the nearest-rank method, as the reports do."""
    return ordered[max(1, -(-percent * len(ordered) // 100)) - 1]


def table(tally: Tally, witness: Witness, agents: int, seconds: float) -> Table:
    """Draw how it goes."""
    drawn = Table("fleet", f"after {seconds:.0f} s", min_width=50)
    for name, value in _rows(tally, witness, agents, seconds):
        drawn.add_row(name, value)
    return drawn


def line(tally: Tally, witness: Witness, agents: int, seconds: float) -> str:
    """Say on one line how it goes."""
    return (
        f"{seconds:.0f} s: {tally.polling:,} of {agents:,} polling, "
        f"{len(witness.told):,} commands, "
        f"{witness.pulses:,} pulses ({_latency(witness.seconds)}), {tally.connects:,} connections, "
        f"{tally.events:,} events, {len(witness.broken)} laws broken"
    )


def summary(outcome: Outcome, out: Console) -> None:
    """Print what a run came to."""
    out.print(table(outcome.tally, outcome.witness, outcome.agents, outcome.seconds))
    silent = outcome.agents - len(outcome.tally.polled)
    if silent:
        out.print(f"{silent:,} controllers never had a poll answered")
    if outcome.unsent_events or outcome.unsent_results:
        out.print(
            f"not with the server: {outcome.unsent_events:,} events, "
            f"{outcome.unsent_results:,} results"
        )
    if outcome.witness.unpulsed:
        out.print(f"{outcome.witness.unpulsed:,} commands were told and had no pulse in time")
    for law, command in outcome.witness.broken[:20]:
        out.print(f"BROKEN: command {command} {law.value}")
    if outcome.is_lawful:
        out.print("no law was broken")


def quiet() -> None:
    """Keep thousands of controllers from logging what the table counts."""
    logging.getLogger("app.agent").setLevel(logging.CRITICAL)


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give what makes the event loop: libuv's where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows.
        return asyncio.new_event_loop
    return uvloop.new_event_loop
