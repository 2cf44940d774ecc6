"""R17: an event's corrected time is near the truth, or says that nobody knows.

Devices with crystals that run fast and slow, wall clocks that are wrong by days and stepped, and
power cuts that forget the monotonic clock and stop, turn back or lose the wall clock, write down
events in virtual time. Some heard the server before, some after, some never. The trial alone knows
when each event really happened, and judges the time, the error and the lateness of every one.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from app.agent.link import Link
from app.agent.server import Server
from app.doors.rules.journal import LATE_AFTER, Quality
from app.doors.tables import JournalEntry
from tests.faults.agents import Box, House, Town, a_house, a_town
from tests.faults.isolated import DeviceClock, WhileOff, device
from tests.faults.promise import Round, Trial, Verdict

HOUR_S = 3_600.0

SOON, LATER = timedelta(seconds=2), timedelta(seconds=10)
"""Within so much of the truth: heard at most an hour ago, and at most three days ago."""

GOOD_PPM = 20.0
BOUND_PPM = 50.0
"""How far a crystal of the promise runs off, and how far the error that is told allows for."""

ROUNDING = timedelta(milliseconds=5)
"""Clocks are told in whole milliseconds."""

SURE = (Quality.SYNCED, Quality.SENT)
"""An event of the boot that uploads has one of these."""


@dataclass(slots=True)
class Story:
    """One device, and when its events really happened."""

    box: Box
    clock: DeviceClock
    heard: str
    """Whether the server was heard `before` the events, `after` them, or `never`."""
    age_s: float
    """How long ago its story begins."""
    happened: dict[int, datetime] = field(default_factory=dict)
    """The true instants, by number."""
    last_boot: set[int] = field(default_factory=set)
    """Numbers of events of the boot that uploads."""
    power_cuts: int = 0
    upload_s: float = 0.0

    async def live(self, house: House[Town], dice: random.Random, events: int) -> None:
        """Let it write events down, reboot perhaps, and upload what it has."""
        state = house.round.folder / f"device-{self.box.controller}"
        self.clock.before_s = self.age_s
        instants = sorted(dice.uniform(0, self.age_s) for _ in range(events))[::-1]
        boots = dice.choice((1, 2))
        parts = [instants] if boots == 1 else [instants[: events // 2], instants[events // 2 :]]
        for part in parts:
            if part is not parts[0]:
                # It is off from the last event before to an instant before the next.
                self.clock.before_s = dice.uniform(part[0], self.clock.before_s)
                self.power_cuts += 1
            with device(state, self.clock) as box:
                if self.heard == "before":
                    self._hear(box.link, dice)
                self.last_boot = set()
                for before_s in part:
                    self.clock.before_s = before_s
                    # Before the disk has it, which on a slow machine takes a while.
                    happened = self.clock.truth()
                    number = box.journal.record("note", what="something")
                    self.happened[number] = happened
                    self.last_boot.add(number)
                    if dice.random() < 0.02:
                        self.clock.wall_off_s += dice.uniform(-HOUR_S, HOUR_S)
                if part is parts[-1]:
                    self.clock.before_s = 0
                    async with httpx.AsyncClient() as http:
                        if self.heard == "after":
                            server = Server(house.url, http, box.link, firmware="faults")
                            server.credential = self.box.credential
                            await server.call("GET", "/v1/controller/config")
                    begun = self.clock.true()
                    await box.upload(url=house.url, credential=self.box.credential)
                    self.upload_s = self.clock.true() - begun

    def _hear(self, link: Link, dice: random.Random) -> None:
        """Let an answer of long ago say what time it was, somewhere on its round trip."""
        trip_s = dice.uniform(0.02, 1.5)
        sent_at = link.sent()
        at = self.clock.truth() + timedelta(seconds=trip_s * dice.random())
        self.clock.before_s -= trip_s
        link.heard(httpx.Response(204, headers={"Server-Time": at.isoformat()}), sent_at)

    def judged(self, rows: Sequence[Any]) -> tuple[Counter[str], list[str]]:
        """Hold what the server made of each event against the truth."""
        found: list[str] = []
        count: Counter[str] = Counter()
        # A slow machine may keep the upload itself for longer than the server allows for.
        slow = timedelta(seconds=max(0.0, self.upload_s - 0.5))
        for row in rows:
            count[row.quality] += 1
            found += [f"{fault}, {row.quality} ({self.who})" for fault in self._faults(row, slow)]
        if len(rows) != len(self.happened):
            found.append(f"{len(rows)} rows of {len(self.happened)} events ({self.who})")
        return count, found

    @property
    def who(self) -> str:
        """Name it in a few words."""
        who = f"{self.clock.drift_ppm:+.0f} ppm, heard {self.heard}, {self.age_s / HOUR_S:.0f} h"
        return who + (f", its clock {self.clock.while_off} while off" if self.power_cuts else "")

    def _faults(self, row: Any, slow: timedelta) -> Iterator[str]:
        happened, is_of_last_boot = self.happened[row.seq], row.seq in self.last_boot
        if row.corrected_at > row.received_at:
            yield "an event of the future"
        if is_of_last_boot and row.quality not in SURE:
            yield "an event of the uploading boot is badly known"
        if row.error_ms is None:
            if self.heard == "before" or is_of_last_boot:
                yield "the server was heard, and no error is told"
            if not row.late:
                yield "an event of unknown time is not late"
            return
        off, told = abs(row.corrected_at - happened), timedelta(milliseconds=row.error_ms)
        if off > told + ROUNDING + slow:
            yield f"{off} off, told {row.error_ms} ms"
        limit = SOON if self.age_s <= HOUR_S else LATER
        if abs(self.clock.drift_ppm) <= GOOD_PPM and off > limit + slow:
            yield f"{off} off, limit {limit}"
        over = row.received_at - happened - LATE_AFTER
        if abs(over) > told + ROUNDING + slow and row.late is not (over > timedelta(0)):
            yield f"late is {row.late}, {over} beyond the limit"


def _stories(house: House[Town], dice: random.Random) -> list[Story]:
    """Sweep the drift, and for each of it whether and when the server was heard."""
    found = []
    for nth, box in enumerate(house.built.boxes):
        drift = (-BOUND_PPM, -GOOD_PPM, -5.0, 0.0, 5.0, GOOD_PPM, BOUND_PPM)[nth % 7]
        off_s = dice.choice((0.0, dice.uniform(-2, 2), -400 * 24 * HOUR_S, 30 * 24 * HOUR_S))
        while_off = dice.choice(list(WhileOff))
        clock = DeviceClock(drift_ppm=drift, wall_off_s=off_s, while_off=while_off)
        heard = ("before", "after", "never")[nth % 3]
        found.append(Story(box, clock, heard, HOUR_S * (1, 72)[nth % 2]))
    return found


async def run(round: Round) -> Verdict:
    """Let devices of every drift live and upload; then judge each row."""
    dice = random.Random(round.seed)
    devices, events = (84, 200) if round.full else (42, 40)
    async with a_house(round, a_town(devices)) as house:
        violations: list[str] = []
        count: Counter[str] = Counter()
        power_cuts, worst = 0, timedelta(0)
        for story in _stories(house, dice):
            await story.live(house, random.Random(dice.random()), events)
            rows = await house.rows(
                sa.select(
                    JournalEntry.seq,
                    JournalEntry.corrected_at,
                    JournalEntry.error_ms,
                    JournalEntry.quality,
                    JournalEntry.late,
                    JournalEntry.received_at,
                ).where(JournalEntry.controller_id == story.box.controller)
            )
            qualities, found = story.judged(rows)
            count += qualities
            power_cuts += story.power_cuts
            violations += found[:2]
            if abs(story.clock.drift_ppm) <= GOOD_PPM:
                offs = [
                    abs(row.corrected_at - story.happened[row.seq])
                    for row in rows
                    if row.error_ms is not None
                ]
                worst = max([worst, *offs])
    tries = {"devices": devices, "events": devices * events, "power_cuts": power_cuts}
    tries |= {f"{quality}": number for quality, number in sorted(count.items())}
    tries["worst_of_20_ppm_ms"] = int(worst / timedelta(milliseconds=1))
    unseen = [kind for kind in (Quality.SYNCED, Quality.NOTED, Quality.WALL) if not count[kind]]
    return Verdict(tries, violations[:10], f"no event was {unseen[0]}" if unseen else "")


TRIAL = Trial(
    promise="R17",
    says="An event's corrected time is within 2 s of the truth when the server was heard within the"
    " hour, within 10 s after 72 h, or it is flagged.",
    rests_on="Within the boot that uploads, the device's monotonic clock places an event beside"
    " an instant that both sides knew, and the error told grows by 50 in a million"
    " (`app/doors/rules/journal.py`, `app/agent/link.py`). An event of an earlier boot stands"
    " at the server's time that the device knew when it recorded it (`app/agent/journal.py`). Where"
    " it knew none, the event hangs on a wall clock that may have stood still: no error is told,"
    " and it is late.",
    run=run,
    databases=("sqlite",),
    bugs=("time_from_the_device", "forgets_the_drift", "trusts_a_clock_that_stood_still"),
)
