"""A controller's days without a server, lived through in seconds.

Its journal, its link and its upload are the product's own; only its clocks are ours. The days lie
in the past and end at the true present, so that the server it then meets needs no other clock than
its own.

    python -m tests.faults.watched isolated life.json
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import httpx

from app.agent.journal import Journal, upload
from app.agent.link import Link
from app.agent.pace import Pace
from app.agent.server import Server
from app.agent.state import StateFolder
from tests.faults.history import read_lines

SAVED_EVERY_S = 3_600.0
"""How often a box without a battery clock saves what its wall clock shows."""


class WhileOff(StrEnum):
    """What a device's wall clock does while the power is off."""

    RUNS = "runs"
    """It has a battery."""
    STOPS = "stops"
    """It goes on from what it showed last."""
    GOES_BACK = "goes_back"
    """It goes on from what was saved before the power went."""
    IS_LOST = "is_lost"
    """It begins in 1970."""


@dataclass(slots=True)
class DeviceClock:
    """The clocks of a device whose crystal runs off, at an instant that we choose."""

    drift_ppm: float = 0.0
    wall_off_s: float = 0.0
    """By how much its wall clock is wrong at its boot."""
    before_s: float = 0.0
    """How far the present instant lies in the past."""
    boot_at: float = field(default=0.0)
    while_off: WhileOff = WhileOff.RUNS
    showed: float | None = None
    """What the wall clock showed when the power went."""

    def boot(self) -> None:
        """Begin a boot now."""
        self.boot_at = self.true()
        if self.showed is None:
            return
        match self.while_off:
            case WhileOff.RUNS:
                pass
            case WhileOff.STOPS:
                self.wall_off_s = self.showed - self.boot_at
            case WhileOff.GOES_BACK:
                saved = self.showed - self.showed % SAVED_EVERY_S
                self.wall_off_s = saved - self.boot_at
            case WhileOff.IS_LOST:
                self.wall_off_s = -self.boot_at

    def lose_power(self) -> None:
        """End the boot now."""
        self.showed = self.wall()

    def true(self) -> float:
        """Give the true time, in seconds since 1970."""
        return time.time() - self.before_s

    def monotonic(self) -> float:
        """Give what the device's monotonic clock shows."""
        return (self.true() - self.boot_at) * (1 + self.drift_ppm / 1e6)

    def wall(self) -> float:
        """Give what the device's wall clock shows."""
        return self.boot_at + self.wall_off_s + self.monotonic()

    def pace(self) -> Pace:
        """Give an agent these clocks; its pauses are true ones."""
        return Pace(monotonic=self.monotonic, wall=self.wall)

    def truth(self) -> datetime:
        """Give the true time as an instant."""
        return datetime.fromtimestamp(self.true(), UTC)


@dataclass(frozen=True, slots=True)
class Life:
    """What one controller lives through."""

    state: str
    url: str
    credential: str
    door: str
    hours: float
    events: int
    capacity: int

    def write(self, path: Path) -> None:
        """Write it down for the process that lives it."""
        path.write_text(json.dumps(asdict(self)))


OBSERVED = "observed.jsonl"
"""In the state's folder: what happened, and under which number it was written down."""


@dataclass(frozen=True, slots=True)
class Device:
    """One boot of a device."""

    boot_id: str
    clock: DeviceClock
    journal: Journal
    link: Link

    async def upload(self, *, url: str, credential: str) -> None:
        """Upload until the server holds all of it."""
        async with httpx.AsyncClient() as http:
            server = Server(url, http, self.link, firmware="faults")
            server.credential = credential
            work = asyncio.create_task(
                upload(
                    self.journal,
                    server,
                    boot_id=self.boot_id,
                    pace=self.clock.pace(),
                    refused_pause_s=1,
                )
            )
            while self.journal.news.is_set() and not work.done():
                await asyncio.wait({work}, timeout=0.02)
            work.cancel()
            (ended,) = await asyncio.gather(work, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended


@contextmanager
def device(state: Path, clock: DeviceClock, **journal: int) -> Iterator[Device]:
    """Boot a device with such clocks."""
    clock.boot()
    folder, pace = StateFolder(state), clock.pace()
    link = Link(folder, pace)
    boot_id = f"boot-{time.monotonic_ns()}"
    kept = Journal(folder, boot_id=boot_id, pace=pace, link=link, **journal)
    try:
        yield Device(boot_id, clock, kept, link)
    finally:
        kept.close()
        clock.lose_power()


def live(life: Life) -> None:
    """Go on where the last boot was cut off: what is left of the days, then the upload."""
    state = Path(life.state)
    observed = state / OBSERVED
    lines = read_lines(observed)
    done = len(lines)
    clock = DeviceClock(before_s=life.hours * 3600 * (1 - done / life.events))
    with device(state, clock, capacity=life.capacity) as box:
        journal = box.journal
        with observed.open("a") as file:

            def note(seq: int) -> None:
                file.write(json.dumps({"seq": seq}) + "\n")
                file.flush()

            last = journal._kept("last_seq") or 0
            if done < life.events and last > (lines[-1]["seq"] if lines else 0):
                # The cut came between the journal and our own note.
                note(last)
                done += 1
            for nth in range(done + 1, life.events + 1):
                clock.before_s = life.hours * 3600 * (1 - nth / life.events)
                if nth % 50:
                    note(journal.record("note", what=f"nth-{nth}"))
                else:
                    moved = "door_opened" if nth % 100 else "door_closed"
                    note(journal.record(moved, door=life.door, what=f"nth-{nth}"))
        if journal.held:
            clock.before_s = 0
            asyncio.run(box.upload(url=life.url, credential=life.credential))


def main(path: Path) -> None:
    """Live the life that was written down."""
    live(Life(**json.loads(path.read_text())))
