"""R15: 120 hours without a server lose no event that fits the journal; of more, what is told.

One controller fills its journal to the last place, another beyond it, both in virtual time and with
power cuts on the way, while they write and while they upload. Then the numbers that were written
down must be those that the server holds, and those it does not hold exactly those the device
reported lost.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from app.doors.rules.journal import EventType
from app.doors.tables import JournalCursor, JournalEntry, JournalLoss
from tests.faults.agents import Box, Child, House, Town, a_house, a_town
from tests.faults.history import read_lines
from tests.faults.isolated import OBSERVED, Life
from tests.faults.journals import integrity
from tests.faults.promise import Round, Trial, Verdict

HOURS = 120.0
CUTS = 4
"""For each of the two."""


async def run(round: Round) -> Verdict:
    """Let one journal fill up and another run over."""
    dice = random.Random(round.seed)
    capacity = 50_000 if round.full else 2_000
    async with a_house(round, a_town(2)) as house:
        fits, runs_over = await asyncio.gather(
            *(
                Isolation(house, box, events, capacity).told(random.Random(dice.random()))
                for box, events in zip(
                    house.built.boxes, (capacity, capacity * 6 // 5), strict=True
                )
            )
        )
        violations = fits.violations + runs_over.violations
        house.end()
        violations += integrity(house)
    if fits.tries["reported_lost"]:
        violations.append("a journal that had room for everything reported a loss")
    tries = {"hours": int(HOURS), "power_cuts": 2 * CUTS}
    tries |= {f"{name}_with_room": number for name, number in fits.tries.items()}
    tries |= runs_over.tries
    ran_over = runs_over.tries["reported_lost"]
    return Verdict(tries, violations, "" if ran_over or violations else "no journal ran over")


@dataclass(frozen=True, slots=True)
class Isolation:
    """One controller, its days alone, and its return."""

    house: House[Town]
    box: Box
    events: int
    capacity: int

    async def told(self, dice: random.Random) -> Verdict:
        """Let it live, with power cuts; then compare what it wrote down with what is held."""
        state = self.house.round.folder / f"isolated-{self.events}"
        state.mkdir()
        life = Life(
            state=str(state),
            url=self.house.url,
            credential=self.box.credential,
            door=str(self.box.door),
            hours=HOURS,
            events=self.events,
            capacity=self.capacity,
        )
        child = self.house.isolated(life)
        for mark in sorted(dice.sample(range(1, self.events), CUTS - 1)):
            child = await self._cut(life, child, mark)
        # The last one comes while it uploads, or after.
        child = await self._cut(life, child, self.events, after_s=dice.uniform(0, 1))
        await asyncio.to_thread(child.process.wait)
        numbers = [line["seq"] for line in read_lines(state / OBSERVED)]
        verdict = await self._compared(numbers)
        if child.process.returncode:
            verdict.violations.append(f"the controller ended badly: {child.said(3)}")
        return verdict

    async def _cut(self, life: Life, child: Child, mark: int, *, after_s: float = 0) -> Child:
        """Cut the power when so much was written down, and boot it again."""
        observed = Path(life.state) / OBSERVED
        while child.lives:
            if observed.exists() and observed.read_bytes().count(b"\n") >= mark:
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(after_s)
        child.kill()
        return self.house.isolated(life)

    async def _compared(self, numbers: Sequence[int]) -> Verdict:
        mine = JournalEntry.controller_id == self.box.controller
        rows = await self.house.rows(
            sa.select(JournalEntry.epoch, JournalEntry.seq).where(
                mine, JournalEntry.type != EventType.OVERFLOW
            )
        )
        losses = await self.house.rows(
            sa.select(JournalLoss.first_seq, JournalLoss.last_seq).where(
                JournalLoss.controller_id == self.box.controller
            )
        )
        cursors = await self.house.rows(
            sa.select(
                JournalCursor.epoch, JournalCursor.acked_through, JournalCursor.highest
            ).where(JournalCursor.controller_id == self.box.controller)
        )
        written, held = set(numbers), {row.seq for row in rows}
        lost = {seq for loss in losses for seq in range(loss.first_seq, loss.last_seq + 1)}
        faults = {
            "neither held nor reported lost": written - held - lost,
            "held and reported lost": held & lost,
            "reported lost and never written down": lost - written,
            "held and never written down": held - written,
        }
        violations = [
            f"of {self.events} events {len(which)} are {what}: {sorted(which)[:3]}"
            for what, which in faults.items()
            if which
        ]
        if len(rows) != len(held) or len(written) != self.events:
            violations.append(f"{len(rows)} rows, {len(held)} numbers, {len(written)} written down")
        violations += [
            f"epoch {one.epoch} is complete through {one.acked_through} of {one.highest}"
            for one in cursors
            if one.epoch != 1 or one.acked_through != one.highest
        ]
        return Verdict(
            {"events": self.events, "held": len(held), "reported_lost": len(lost)}, violations
        )


TRIAL = Trial(
    promise="R15",
    says="120 hours without a server lose none of 50,000 events; of 60,000 the loss is told"
    " exactly.",
    rests_on="A journal on the device's disk, synced at every event; when it is full the oldest"
    " give way and an `overflow` event names them (`app/agent/journal.py`); the server's"
    " cursor moves only over what it holds or knows to be lost (`app/doors/journal.py`)."
    " The hours are virtual.",
    run=run,
    databases=("sqlite",),
    bugs=("silent_overflow",),
)
