"""R01: whatever moment the server is killed at, nothing acknowledged is lost, nothing is doubled.

First at random, under load. Then, on SQLite, at each of the system calls by which one batch reaches
the disk, and each of those by which a planned stop leaves it in order: the server is killed as it
enters the first, the second, and so on until none is left.
"""

import asyncio
import contextlib
import itertools
import random
import signal
import subprocess

import httpx

from tests.faults.agents import House, Town, a_house, a_town
from tests.faults.journals import (
    Oracle,
    Uploader,
    an_event,
    integrity,
    lost_or_doubled,
    scanning,
    sends,
)
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.storage import WRITES, attached, strace

UPLOADERS = 8

STOPS_S = 20.0
"""A stop under strace takes its time, in seconds."""


async def run(round: Round) -> Verdict:
    """Kill the server at random, then at every write of a batch."""
    dice = random.Random(round.seed)
    oracle = Oracle(round.folder / "oracle.jsonl")
    try:
        async with a_house(round, a_town(UPLOADERS + 1, workers=20)) as house:
            tries = await _at_random(house, oracle, dice, kills=200 if round.full else 8)
            if round.database == "sqlite" and strace():
                tries |= await _at_every_call(house, oracle, full=round.full)
            if house.server is None or not house.server.lives:
                await house.start()
            violations = await lost_or_doubled(house, oracle)
            house.end()
            violations += integrity(house)
            empty = "" if oracle.events else "nothing was acknowledged"
            return Verdict(tries, violations, empty)
    finally:
        oracle.close()


async def _at_random(
    house: House[Town], oracle: Oracle, dice: random.Random, *, kills: int
) -> dict[str, int]:
    uploaders = [
        Uploader(house, box, oracle, random.Random(dice.random()))
        for box in house.built.boxes[:UPLOADERS]
    ]
    load = [asyncio.create_task(uploader.run()) for uploader in uploaders]
    load.append(asyncio.create_task(scanning(house, oracle, random.Random(dice.random()))))
    try:
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(0.005, 0.4))
            assert house.server is not None
            house.server.kill()
            await house.start()
        await asyncio.sleep(0.3)
    finally:
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    return {
        "kills": kills,
        "events": len(oracle.events),
        "scans": len(oracle.scans),
        "repeats": sum(uploader.repeats for uploader in uploaders),
    }


async def _at_every_call(house: House[Town], oracle: Oracle, *, full: bool) -> dict[str, int]:
    """Kill at the n-th call of a batch or of a stop, n = 1, 2, ... until none is left.

    A short round takes the first few of a batch.
    """
    calls = WRITES.split(",") if full else WRITES.split(",")[:2]
    tries = {}
    seqs = itertools.count(1, 3)
    for what, act in (("batch", _batch), ("stop", _stop))[: 2 if full else 1]:
        kills = 0
        for call in calls:
            for nth in range(1, (60 if full else 6) + 1):
                assert house.server is not None
                if not house.server.lives:
                    await house.start()
                inject = f"inject={call}:signal=SIGKILL:when={nth}"
                log = house.round.folder / "kill.strace"
                with attached(house.server, "-e", f"trace={call}", "-e", inject, log=log):
                    await act(house, oracle, next(seqs))
                if house.server.process.poll() != -signal.SIGKILL:
                    break
                kills += 1
        tries[f"kills_at_calls_of_a_{what}"] = kills
    return tries


async def _batch(house: House[Town], oracle: Oracle, seq: int) -> None:
    box = house.built.boxes[-1]
    events = [an_event(box, seq + n) for n in range(3)]
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        with contextlib.suppress(httpx.HTTPError):
            for result in await sends(http, box, events):
                oracle.event(box, 1, result["seq"], result["event_id"])
    await asyncio.sleep(0.05)


async def _stop(house: House[Town], oracle: Oracle, seq: int) -> None:
    """Let it have something to put in order, then ask it to end."""
    with contextlib.suppress(httpx.HTTPError):
        await _batch(house, oracle, seq)
    server = house.server
    assert server is not None
    if server.lives:
        server.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(server.process.wait, STOPS_S)


TRIAL = Trial(
    promise="R01",
    says="Nothing acknowledged is lost or doubled, at whatever moment the server is killed.",
    rests_on="The answer goes out after the commit (`app/api/deps.py`), the commit is synced"
    " (`app/db/engine.py`), an event's number is unique (`app/doors/tables.py`), a"
    " repeated scan is found by its key (`app/doors/scans.py`).",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("ack_before_commit",),
)
