"""R10: a tap or a batch whose commit nobody saw acknowledged has one effect when it is repeated.

The connection to PostgreSQL is cut right after COMMIT went through, before or after PostgreSQL did
it; the connection to the client is cut when the answer should come. The client does what a phone
and a controller do: the same again, until it is answered.
"""

import asyncio
import random
from itertools import product
from typing import Any

import httpx
import sqlalchemy as sa

from app.doors.tables import JournalEntry, Scan
from tests.faults.agents import Box, House, Town, a_house, a_town
from tests.faults.journals import an_event, sends
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.proxy import NOTHING, Fault, Kill, Seen, proxying
from tests.support.worlds import SomeWorker

BOXES = 4

TRIES = 100
"""How often a client repeats before it gives up."""


async def run(round: Round) -> Verdict:
    """Cut at COMMIT, then at the answer."""
    dice = random.Random(round.seed)
    number = 200 if round.full else 40
    # No worker taps twice at a door: a second tap soon after is answered with the first (law 4).
    async with a_house(round, a_town(BOXES, workers=2 * number // BOXES)) as house:
        assert house.postgres is not None
        assert house.server is not None
        cuts = 0
        armed = False

        def strikes() -> bool:
            nonlocal cuts
            hit = armed and dice.random() < 0.5
            cuts += hit
            return hit

        async def a_moment() -> None:
            await asyncio.sleep(dice.choice((0, 0, 0.002, 0.02)))

        kill = Kill(b"COMMIT", then=a_moment, chance=strikes)
        async with proxying(house.postgres.port, kill=kill) as between:
            there = f":{house.postgres.port}/"
            house.server.stop()
            house.server_database_url = house.settings.database_url.replace(
                there, f":{between.port}/"
            )
            await house.start()
            armed = True
            client = _Client(house, house.url, dice)
            await client.does(number)
            armed = False
            await asyncio.sleep(0.5)

            def plan(seen: Seen) -> Fault:
                return Fault(cut_answer_at=0) if dice.random() < 0.5 else NOTHING

            async with proxying(house.port, plan) as before:
                client.url = before.url
                await client.does(number)
                violations = await _compared(house, client)
                tries = {
                    "taps": len(client.taps),
                    "events": sum(client.seqs.values()),
                    "cuts_at_commit": cuts,
                    "cuts_at_answer": before.faults,
                }
    return Verdict(tries, violations[:10], "" if cuts else "no commit was cut")


class _Client:
    """Taps and uploads, each repeated as it was until it is answered."""

    def __init__(self, house: House[Town], url: str, dice: random.Random) -> None:
        self.url = url
        self.taps: dict[str, str] = {}
        """The scan that each key was answered with."""
        self.differ: list[str] = []
        self.seqs: dict[Any, int] = {}
        self._house, self._dice = house, dice
        self._pairs = iter(product(house.built.workers, house.built.boxes))

    async def does(self, number: int) -> None:
        """Tap and upload so often."""
        for _ in range(number):
            await self._taps(*next(self._pairs))
            await self._uploads(self._dice.choice(self._house.built.boxes))

    async def _taps(self, worker: SomeWorker, box: Box) -> None:
        key = f"{self._dice.getrandbits(64):x}"
        headers = {**worker.headers, "Idempotency-Key": key}
        for _ in range(TRIES):
            try:
                async with httpx.AsyncClient(base_url=self.url, timeout=10) as http:
                    answer = await http.post(
                        "/v1/scans", json={"token": box.poster}, headers=headers
                    )
                if answer.status_code in (200, 201):
                    self.taps[key] = answer.json()["id"]
                    return
                if answer.status_code != 503:
                    self.differ.append(f"a tap was answered with {answer.status_code}")
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.02)
        self.differ.append(f"a tap was never answered: {key}")

    async def _uploads(self, box: Box) -> None:
        seq = self.seqs[box.controller] = self.seqs.get(box.controller, 0) + 1
        for _ in range(TRIES):
            try:
                async with httpx.AsyncClient(base_url=self.url, timeout=10) as http:
                    await sends(http, box, [an_event(box, seq)])
                return
            except httpx.HTTPError:
                await asyncio.sleep(0.02)
        self.differ.append(f"an upload was never answered: {seq}")


async def _compared(house: House[Town], client: _Client) -> list[str]:
    """Compare what the client meant with what the database holds."""
    found = list(client.differ)
    scans = {str(row.id) for row in await house.rows(sa.select(Scan.id))}
    if scans != set(client.taps.values()) or len(scans) != len(client.taps):
        found.append(f"{len(client.taps)} taps made {len(scans)} scans")
    events = await house.rows(sa.select(JournalEntry.controller_id, JournalEntry.seq))
    if len(events) != sum(client.seqs.values()):
        found.append(f"{sum(client.seqs.values())} events made {len(events)} rows")
    return found


TRIAL = Trial(
    promise="R10",
    says="A repeated tap or batch has one effect, wherever its first commit or answer was lost.",
    rests_on="The key of a tap and the number of an event are written in the transaction of"
    " their effect (`app/doors/scans.py`, `app/doors/journal.py`).",
    run=run,
    databases=("postgresql",),
    bugs=("retry_after_commit",),
)
