"""R16: the backlog of a fleet drains after an outage, and doors open meanwhile.

Many controllers come back at once, each with a full journal, to a server whose disk is slow: each
upload takes a while longer. At other doors people want in, before and during the drain. No event
may be missing in the end; and of the openings asked for during the drain at least half as large a
share must have led to a pulse as before it, whatever the machine can do. How long things took is
printed.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import httpx
import sqlalchemy as sa

from app.doors.tables import JournalCursor
from tests.faults.agents import Box, House, Town, a_house, a_town
from tests.faults.history import DEADLINE_NS, at_most_once, only_granted, within_deadline
from tests.faults.journals import Oracle, an_event, lost_or_doubled, sends
from tests.faults.promise import Round, Trial, Verdict

DOORS = 6
FLEET = 110
"""A fiftieth of the city's 5,523; a short round takes half of them."""

SLOW_S = 0.2
"""How much longer each upload takes than it would: one of each in a line takes over 10 s."""

QUIET = 12
"""Openings asked for before the drain."""
READY = 200
"""After so many without a pulse no agent will ever be there."""


async def run(round: Round) -> Verdict:
    """Open doors in peace, then while a fleet uploads."""
    dice = random.Random(round.seed)
    # 8 million events of 72 h, scaled as the fleet is, are 1,450 for each.
    size, events, batch = (FLEET, 1_450, 500) if round.full else (FLEET // 2, 30, 10)
    oracle = Oracle(round.folder / "oracle.jsonl")
    try:
        async with a_house(round, a_town(DOORS + size), slow_upload_s=SLOW_S) as house:
            doors, fleet = house.built.boxes[:DOORS], house.built.boxes[DOORS:]
            house.agents({f"agent-{nth}": (box, house.url) for nth, box in enumerate(doors)})
            openings = Openings(house, dice)
            while not house.pulses() and openings.count < READY:
                await openings.ask(doors, 1)
            await openings.answered()
            await openings.ask(doors, QUIET)
            quiet = await openings.answered()
            begun = time.monotonic()
            drains = asyncio.gather(
                *(drain(house, box, oracle, events, batch, dice.random()) for box in fleet)
            )
            while not drains.done():
                await openings.ask(doors, 1)
            statuses = sum(await drains, Counter[int]())
            took_s = time.monotonic() - begun
            busy = await openings.answered()
            pulses = house.pulses()
            violations = at_most_once(pulses) + only_granted(pulses, await house.granted())
            violations += within_deadline(pulses, openings.read_ns())
            violations += await lost_or_doubled(house, oracle)
            violations += await _incomplete(house, events)
            if busy[1] and busy[0] / busy[1] < quiet[0] / quiet[1] / 2:
                violations.append(
                    f"{busy[0]} of {busy[1]} openings during the drain, {quiet[0]} of {quiet[1]}"
                    " before it"
                )
    finally:
        oracle.close()
    tries = {
        "controllers": size,
        "events": len(oracle.events),
        "drain_s": int(took_s),
        "events_per_s": int(len(oracle.events) / took_s),
        "uploads_put_off": statuses[503],
        "openings": busy[1],
        "pulses": busy[0],
        "slowest_ms": busy[2],
        "openings_before": quiet[1],
        "pulses_before": quiet[0],
        "slowest_before_ms": quiet[2],
    }
    return Verdict(tries, violations[:10], "" if quiet[0] and busy[1] else "no door ever opened")


class Openings:
    """Remote openings asked for one after another, without waiting for what comes of them."""

    def __init__(self, house: House[Town], dice: random.Random) -> None:
        self._house, self._dice = house, dice
        self._tasks: list[asyncio.Task[None]] = []
        self._keys: dict[str, str] = {}
        """The command that each request made, by its key."""
        self.count = 0
        self._told = 0

    async def ask(self, doors: Sequence[Box], number: int) -> None:
        """Ask for so many, two in a second."""
        for _ in range(number):
            self.count += 1
            door = self._dice.choice(doors).door
            self._tasks.append(asyncio.create_task(self._ask(str(door), f"r16-{self.count}")))
            await asyncio.sleep(0.5)

    async def _ask(self, door: str, key: str) -> None:
        headers = self._house.built.admin_headers | {"Idempotency-Key": key}
        async with httpx.AsyncClient(base_url=self._house.url, timeout=60) as http:
            answer = await http.post(
                f"/v1/admin/doors/{door}/unlock", json={"reason": "R16"}, headers=headers
            )
        if answer.status_code == 201:
            self._keys[key] = answer.json()["id"]

    async def answered(self) -> tuple[int, int, int]:
        """Say of those asked for since the last time: pulses, openings, the slowest in ms."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        until = time.monotonic_ns() + DEADLINE_NS
        while self._waits():
            await asyncio.sleep(0.2)
            if time.monotonic_ns() > until:
                break
        keys = [f"r16-{nth}" for nth in range(self._told + 1, self.count + 1)]
        self._told = self.count
        read_ns = self.read_ns()
        pulsed = {pulse.command: pulse.at_ns for pulse in self._house.pulses()}
        took = [
            pulsed[command] - read_ns[command]
            for key in keys
            if (command := self._keys.get(key)) in pulsed and command in read_ns
        ]
        return len(took), len(keys), max(took, default=0) // 1_000_000

    def _waits(self) -> bool:
        """Whether a command that was given may pulse still."""
        return bool(set(self._keys.values()) - {one.command for one in self._house.pulses()})

    def read_ns(self) -> dict[str, int]:
        """Give when the request of each command had been read."""
        read_ns = self._house.read_ns()
        return {command: read_ns[key] for key, command in self._keys.items() if key in read_ns}


async def drain(
    house: House[Town], box: Box, oracle: Oracle, events: int, batch: int, seed: float
) -> Counter[int]:
    """Upload a journal as an agent does: batch by batch, with growing pauses when put off."""
    dice, answers, failures = random.Random(seed), Counter[int](), 0
    async with httpx.AsyncClient(base_url=house.url, timeout=60) as http:
        done = 0
        while done < events:
            seqs = range(done + 1, min(done + batch, events) + 1)
            try:
                for result in await sends(http, box, [an_event(box, seq) for seq in seqs]):
                    oracle.event(box, 1, result["seq"], result["event_id"])
            except httpx.HTTPStatusError as error:
                answers[error.response.status_code] += 1
                wait_s = float(error.response.headers.get("Retry-After", 0))
                failures += 1
                await asyncio.sleep(wait_s + dice.uniform(0, min(30, 2**failures)))
                continue
            answers[200] += 1
            failures, done = 0, seqs[-1]
    return answers


async def _incomplete(house: House[Town], events: int) -> list[str]:
    rows = await house.rows(
        sa.select(JournalCursor.controller_id, JournalCursor.acked_through).where(
            JournalCursor.highest == events, JournalCursor.acked_through < events
        )
    )
    return [f"{row.controller_id} is complete through {row.acked_through}" for row in rows[:5]]


TRIAL = Trial(
    promise="R16",
    says="A fleet's backlog drains after an outage while doors are still opened.",
    rests_on="An upload waits for a place before it takes a connection, so that a claim stands"
    " behind one upload and not behind all of them; whoever waits too long is put off"
    " (`app/api/controller/journal.py`, `app/doors/line.py`). A fiftieth of the city is"
    " tried; the times are of this machine.",
    run=run,
    databases=("sqlite",),
    bugs=("uploads_crowd_doors_out",),
)
