"""R05: no relay pulses later than 10 s after its scan was read, whatever stalls, freezes and steps.

Workers scan at many doors side by side. First at the edge: word of a command reaches its door just
before its deadline, and the answer to its claim crosses it. Then in trouble: on the way, the
answers to claims are held for up to 30 s, and those to polls for up to 12 s; agents and server
stand still for up to 20 s at a time. In both, where `libfaketime` is installed, the wall clock of
each process jumps by an hour, forward and back. The instants compared come from one clock, the
system's monotonic one: the pulse from the relay's log, the reading from an observer beside the
server's own figures.
"""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from tests.faults.agents import (
    READY_S,
    Child,
    House,
    Town,
    WallClock,
    a_house,
    a_town,
    faketime,
    pause,
)
from tests.faults.history import (
    DEADLINE_NS,
    History,
    Pulse,
    at_most_once,
    only_granted,
    waits_ns,
    within_deadline,
)
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.proxy import NOTHING, Fault, Plan, Proxy, Seen, proxying

PROCESSES = 6
DOORS = 6
"""Behind each process of agents."""
WORKERS = 12
"""At each door they take turns, so that no tap is a repetition."""

HOUR_S = 3_600

EDGE_NS = 3_000_000_000
"""So near to the deadline a pulse is at the edge."""
FEWEST_AT_THE_EDGE = 10


def edge_of(dice: random.Random) -> Plan:
    """Tell of commands just before their deadline; hold the answers to claims until it passes.

    An agent asks again after 3 s, so that an answer crosses the deadline only if it is held less.
    """

    def plan(seen: Seen) -> Fault:
        if seen.path.endswith("/claim"):
            return Fault(hold_answer_s=dice.uniform(0, 2.8))
        if seen.path.startswith("/v1/controller/commands?"):
            return Fault(hold_answer_s=dice.uniform(6.5, 9.8))
        return NOTHING

    return plan


def plan_of(dice: random.Random) -> Plan:
    """Hold answers: of claims for up to 30 s, a third of them briefly; of polls now and then."""

    def plan(seen: Seen) -> Fault:
        if seen.path.endswith("/claim"):
            if dice.random() < 0.25:
                return Fault(hold_request_s=dice.uniform(0, 5))
            return Fault(hold_answer_s=dice.uniform(0, 30 if dice.random() < 0.4 else 3))
        if seen.path.startswith("/v1/controller/commands?") and dice.random() < 0.5:
            return Fault(hold_answer_s=dice.uniform(0, 12))
        return NOTHING

    return plan


async def freezes(
    child: Callable[[], Child | None], dice: random.Random, *, gap_s: tuple[float, float]
) -> int:
    """Let a process stand still for up to 20 s again and again, until cancelled."""
    count = 0
    try:
        while True:
            await pause(dice, *gap_s)
            if (held := child()) is not None:
                held.freeze()
                count += 1
            await pause(dice, 0, 20 if dice.random() < 0.5 else 4)
            if held is not None:
                held.thaw()
    except asyncio.CancelledError:
        if (last := child()) is not None:
            last.thaw()
        return count


async def steps(clock: WallClock, dice: random.Random, *, gap_s: tuple[float, float]) -> None:
    """Put a wall clock an hour forward and back, until cancelled."""
    while True:
        await pause(dice, *gap_s)
        clock.step(dice.choice((-HOUR_S, 0, HOUR_S)))


async def people(house: House[Town], dice: random.Random, *, when: str, until: float) -> int:
    """Scan at every door, again and again; gives how many scans were granted."""
    history = History(house.round.folder / "history.jsonl")
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=house.url, limits=limits, timeout=60) as phones:

        async def at_door(nth: int, own: random.Random) -> int:
            granted = turn = 0
            while time.monotonic() < until:
                await pause(own, 0.5, 3.0)
                worker = house.built.workers[(nth + turn) % len(house.built.workers)]
                key = f"{when}-{nth}-{turn}"
                turn += 1
                tried = history.begin("scan", key)
                headers = {**worker.headers, "Idempotency-Key": key}
                body = {"token": house.built.boxes[nth].poster}
                try:
                    answer = await phones.post("/v1/scans", json=body, headers=headers)
                except httpx.HTTPError as error:
                    history.end(tried, "info", str(error))
                    continue
                history.end(tried, "ok", answer.json().get("outcome"))
                granted += tried.answer == "granted"
            return granted

        tasks = [
            at_door(nth, random.Random(dice.random())) for nth in range(len(house.built.boxes))
        ]
        return sum(await asyncio.gather(*tasks))


async def run(round: Round) -> Verdict:
    """Scan, stall, freeze and step for a while, then compare two instants of each pulse."""
    dice = random.Random(round.seed)
    edge_s, lasts_s = (90.0, 300.0) if round.full else (20.0, 30.0)
    steps_clocks = faketime() is not None
    if not steps_clocks:
        print("R05: libfaketime is not installed; the clocks are not stepped")

    stepped: list[WallClock] = []

    def a_clock(name: str) -> WallClock | None:
        if not steps_clocks:
            return None
        stepped.append(WallClock(round.folder / f"{name}.clock"))
        return stepped[-1]

    server_clock = a_clock("server")
    async with (
        contextlib.AsyncExitStack() as stack,
        a_house(round, a_town(PROCESSES * DOORS, workers=WORKERS * 6), clock=server_clock) as house,
    ):
        clocks, troubles, proxies = [], [], []
        children: list[tuple[Child, WallClock | None, random.Random]] = []
        for nth in range(PROCESSES):
            boxes = {}
            for place in range(nth * DOORS, (nth + 1) * DOORS):
                plan = edge_of(random.Random(dice.random()))
                proxy = await stack.enter_async_context(proxying(house.port, plan))
                proxies.append(proxy)
                boxes[f"agent-{place}"] = (house.built.boxes[place], proxy.url)
            clock = a_clock(f"agents-{nth}")
            child = house.agents(boxes, clock=clock)
            children.append((child, clock, random.Random(dice.random())))
        await _there(proxies)
        for _, clock, own in children:
            if clock is not None:
                clocks.append(asyncio.create_task(steps(clock, own, gap_s=(0.5, 3))))
        own = random.Random(dice.random())
        if server_clock is not None:
            clocks.append(asyncio.create_task(steps(server_clock, own, gap_s=(2, 8))))
        scans = await people(house, dice, when="edge", until=time.monotonic() + edge_s)
        for proxy in proxies:
            proxy.plan = plan_of(random.Random(dice.random()))
        for child, _, its in children:
            troubles.append(
                asyncio.create_task(freezes(functools.partial(_itself, child), its, gap_s=(2, 8)))
            )
        troubles.append(asyncio.create_task(freezes(lambda: house.server, own, gap_s=(6, 14))))
        scans += await people(house, dice, when="trouble", until=time.monotonic() + lasts_s)
        # What is in flight may still go wrong.
        await asyncio.sleep(12)
        for task in (*troubles, *clocks):
            task.cancel()
        count = sum(await asyncio.gather(*troubles))
        await asyncio.gather(*clocks, return_exceptions=True)
        pulses, read_ns = house.pulses(), await reads(house)
        waits = waits_ns(pulses, read_ns)
        at_the_edge = sum(wait > DEADLINE_NS - EDGE_NS for wait in waits)
        return Verdict(
            {
                "scans": scans,
                "pulses": len(pulses),
                "at_the_edge": at_the_edge,
                "longest_ms": max(waits, default=0) // 1_000_000,
                "stalls": sum(proxy.faults for proxy in proxies),
                "freezes": count,
                "clock_steps": sum(clock.steps for clock in stepped),
            },
            judged(pulses, read_ns, await house.granted()),
            _empty(round, pulses, at_the_edge),
        )


def _empty(round: Round, pulses: list[Pulse], at_the_edge: int) -> str:
    """Say why a round shows nothing: a bug at the edge is not missed where nobody came there."""
    if round.bug and at_the_edge < FEWEST_AT_THE_EDGE:
        return f"{at_the_edge} pulses came near their deadline"
    return "" if pulses else "no relay ever pulsed"


async def _there(proxies: Sequence[Proxy]) -> None:
    """Wait until every agent has turned to its server; the troubles begin then."""
    until = time.monotonic() + READY_S
    while any(proxy.seen == 0 for proxy in proxies):
        if time.monotonic() > until:
            raise TimeoutError("the agents never came")
        await asyncio.sleep(0.2)


def _itself(child: Child) -> Child:
    return child


async def reads(house: House[Town]) -> dict[str, int]:
    """Give when the scan of each command had been read."""
    read_ns = house.read_ns()
    keys = await house.commands_by_key()
    return {command: read_ns[key] for command, key in keys.items() if key in read_ns}


def judged(pulses: list[Pulse], read_ns: dict[str, int], granted: Mapping[str, str]) -> list[str]:
    """Say what broke the promise."""
    late = within_deadline(pulses, read_ns)
    return late + only_granted(pulses, granted) + at_most_once(pulses)


TRIAL = Trial(
    promise="R05",
    says="No relay pulses later than 10 s after the scan, through stalls, freezes and clock steps.",
    rests_on="A grant says how many milliseconds are left, by one clock (`app/db/clock.py`); the"
    " agent counts them from before it sent its claim, and looks at the relay"
    " (`app/agent/commands.py`).",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("ttl_from_wall_clock", "ttl_from_the_answer"),
)
