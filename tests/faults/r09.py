"""R09: PostgreSQL goes away under load and comes back; nothing acknowledged is lost, only 503 said.

By turns one of its processes is killed (it restarts the others), the whole of it is killed, and it
is shut down at once; it then recovers from its log. The server must serve in full again within 15 s
of the database's return; where the machine is so slow that an ordinary batch takes longer than a
second, within so many times that.
"""

import asyncio
import random
import time
from collections import Counter

import httpx
import psutil

from tests.faults.agents import House, Town, a_house, a_town
from tests.faults.journals import Oracle, Uploader, an_event, lost_or_doubled, scanning, sends
from tests.faults.promise import Round, Trial, Verdict

BACK_S = 15.0
UPLOADERS = 4


async def run(round: Round) -> Verdict:
    """Take the database away again and again."""
    dice = random.Random(round.seed)
    oracle = Oracle(round.folder / "oracle.jsonl")
    violations: list[str] = []
    scans: Counter[int] = Counter()
    slowest = 0.0
    cycles = 20 if round.full else 3
    usual = 0.0
    try:
        async with a_house(round, a_town(UPLOADERS + 1, workers=20)) as house:
            uploaders = [
                Uploader(house, box, oracle, random.Random(dice.random()))
                for box in house.built.boxes[:UPLOADERS]
            ]
            load = [asyncio.create_task(uploader.run()) for uploader in uploaders]
            load.append(asyncio.create_task(scanning(house, oracle, dice, scans)))
            for cycle in range(cycles):
                await asyncio.sleep(dice.uniform(0.2, 1))
                usual = max(usual, await _served_again(house, seq=1 + 2 * cycle))
                await asyncio.to_thread(_taken_away, house, cycle)
                within_s = BACK_S * max(1.0, usual)
                took = await _served_again(house, seq=2 + 2 * cycle, most_s=within_s + 1)
                slowest = max(slowest, took)
                if took > within_s:
                    violations.append(f"served again after {took:.1f} s")
                    break
            await asyncio.sleep(1)
            for task in load:
                task.cancel()
            ended = await asyncio.gather(*load, return_exceptions=True)
            violations += [
                f"{type(error).__name__}: {error}"
                for error in ended
                if error and not isinstance(error, asyncio.CancelledError)
            ]
            answers = sum((uploader.answers for uploader in uploaders), scans)
            wrong = {status: n for status, n in answers.items() if status >= 500 and status != 503}
            if wrong:
                violations.append(f"answers that are neither good nor 503: {wrong}")
            violations += await lost_or_doubled(house, oracle)
            assert house.server is not None
            if not house.server.lives:
                violations.append("the server ended")
    finally:
        oracle.close()
    tries = {
        "outages": cycles,
        "events": len(oracle.events),
        "scans": len(oracle.scans),
        "answers_503": answers[503],
        "slowest_return_ms": round_ms(slowest),
        "slowest_batch_ms": round_ms(usual),
    }
    return Verdict(tries, violations)


def round_ms(seconds: float) -> int:
    """Give whole milliseconds."""
    return int(seconds * 1000)


def _taken_away(house: House[Town], cycle: int) -> None:
    """Take the database away in one of three manners, and bring it back."""
    postgres = house.postgres
    assert postgres is not None
    assert postgres.process is not None
    match cycle % 3:
        case 0:
            postgres.kill()
        case 1:
            postgres.stop("immediate")
        case _:
            for child in psutil.Process(postgres.process.pid).children():
                if "postgres: postgres" in " ".join(child.cmdline()):
                    child.kill()
                    return
    postgres.start()


async def _served_again(house: House[Town], *, seq: int, most_s: float = 120.0) -> float:
    """Wait until a batch is taken; gives the seconds since the database was back."""
    begun = time.monotonic()
    box = house.built.boxes[-1]
    async with httpx.AsyncClient(base_url=house.url, timeout=5) as http:
        while time.monotonic() - begun < most_s:
            try:
                await sends(http, box, [an_event(box, seq)])
                return time.monotonic() - begun
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
    return time.monotonic() - begun


TRIAL = Trial(
    promise="R09",
    says="PostgreSQL may go: nothing acknowledged is lost, only 503 is said, and 15 s after its"
    " return all is well.",
    rests_on="A connection that broke is thrown away and the request answered 503; nothing is"
    " tried again by itself (`app/db/engine.py`, `app/api/problems.py`). Where an"
    " ordinary batch takes over a second, the 15 s are as many batches.",
    run=run,
    databases=("postgresql",),
    bugs=("dead_pool", "ack_before_commit"),
)
