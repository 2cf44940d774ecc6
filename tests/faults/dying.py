"""An agent that is killed as it enters the n-th of the calls by which it writes something down.

In each life it boots, which is an event of its journal, takes, carries out and acknowledges one
command, and uploads the event. Then another agent boots on what the dead one left on its disk.
"""

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import sqlalchemy as sa

from app.agent.journal import Journal
from app.agent.state import Results
from app.doors.rules import CommandState
from app.doors.tables import Command, JournalEntry
from tests.faults.agents import Box, Child, House, Town
from tests.faults.history import read_lines
from tests.faults.proxy import NOTHING, Fault, Seen
from tests.faults.storage import attached

CALLS = ("fsync", "fdatasync", "rename", "write", "pwrite64", "ftruncate", "unlink", "sendto")
"""The first two are those of a short round; at the last a word to the server is lost with it."""

PATIENCE_S = 60.0
"""How long a life, or what the next one is to make good, may take on a busy machine, in seconds."""


RESULT = re.compile(r" command command=(\S+) result=(\w+)")
"""What an agent's log says when a command is over."""

HELD_S = 0.5


def slow_posts(seen: Seen) -> Fault:
    """Hold claims and acks: polls tell of the same command again before it is over."""
    return Fault(hold_request_s=HELD_S) if "/commands/" in seen.path else NOTHING


@dataclass(slots=True)
class Dying:
    """One box, its lives, and what its disk held whenever it died."""

    house: House[Town]
    box: Box
    url: str
    """Where the box finds the server, behind `slow_posts`."""
    admin: httpx.AsyncClient
    name: str = "dying"
    commands: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """What became of each command, as a dead agent's disk or log says."""
    events: set[tuple[int, int, str]] = field(default_factory=set)
    """(epoch, seq, event id) of each event on a dead agent's disk."""
    kills: int = 0

    async def at_every_call(self, *, full: bool) -> list[str]:
        """Kill at the n-th call, n = 1, 2, ... until none is left; says what was lost or doubled.

        A short round takes the first few.
        """
        await self._recover()
        for call in CALLS if full else CALLS[:2]:
            for nth in range(1, (200 if full else 5) + 1):
                if not await self._dies(call, nth):
                    break
                self.kills += 1
                await self._recover()
        return await self._judged()

    async def _dies(self, call: str, nth: int) -> bool:
        """Live until the n-th call, or until all is done; says whether it came so far."""
        child = self._boot()
        child.freeze()  # Until strace holds it: its first writes count too.
        inject = f"inject={call}:signal=SIGKILL:when={nth}"
        log = self.house.round.folder / "dying.strace"
        with attached(child, "-e", f"trace={call}", "-e", inject, log=log):
            child.thaw()
            command = await self._unlock()

            async def is_over() -> bool:
                return not child.lives or await self._is_done(command)

            await _until(is_over)
            await asyncio.sleep(0.3)  # It writes down, too, that the server has its word.
        killed = not child.lives
        self._end(child)
        return killed

    async def _recover(self) -> None:
        """Boot again: that one obeys a command, and tells what the dead had no time to tell."""
        child = self._boot()
        command = await self._unlock()

        async def is_made_good() -> bool:
            return await self._is_done(command) and not await self._missing()

        await _until(is_made_good)
        self._end(child)

    def _boot(self) -> Child:
        return self.house.agents({self.name: (self.box, self.url)})

    def _end(self, child: Child) -> None:
        """Cut the power, and look at what is on the disk."""
        child.kill()
        state = self.house.round.folder / self.name
        for line in read_lines(state / Results.FILE):
            if "command" in line:
                self.results[line["command"]] = line["result"]
        # Said when it is on the disk: an agent that keeps nothing is caught too.
        self.results |= dict(RESULT.findall(child.log.read_text(errors="replace")))
        copy = self.house.round.folder / f"{self.name}-journal"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        # A copy: whoever opens a journal and closes it puts it in order.
        for file in state.glob(f"{Journal.FILE}*"):
            shutil.copy(file, copy)
        if not (copy / Journal.FILE).exists():
            return
        epoch = int(json.loads((state / "epoch.json").read_text())["epoch"])
        with (
            contextlib.closing(sqlite3.connect(copy / Journal.FILE)) as db,
            contextlib.suppress(sqlite3.OperationalError),  # Killed before it had tables.
        ):
            for (event,) in db.execute("SELECT event FROM events"):
                read = json.loads(event)
                self.events.add((epoch, read["seq"], read["event_id"]))

    async def _unlock(self) -> str:
        """Let the administrator open the door, as soon as the controller was heard."""
        until = time.monotonic() + PATIENCE_S
        path = f"/v1/admin/doors/{self.box.door}/unlock"
        while time.monotonic() < until:
            answer = await self.admin.post(path, json={"reason": "R04"})
            if answer.status_code == httpx.codes.CREATED:
                self.commands.append(answer.json()["id"])
                return self.commands[-1]
            await asyncio.sleep(0.1)
        raise RuntimeError(f"no command could be given: {answer.text}")

    async def _is_done(self, command: str) -> bool:
        """Whether the server has the command's result, and the event of the boot that acted."""
        rows = await self.house.rows(
            sa.select(Command.id)
            .join(JournalEntry, JournalEntry.boot_id == Command.boot_id)
            .where(Command.state == CommandState.EXECUTED)
        )
        return command in {str(row.id) for row in rows}

    async def _states(self) -> dict[str, CommandState]:
        mine = Command.controller_id == self.box.controller
        rows = await self.house.rows(sa.select(Command.id, Command.state).where(mine))
        return {str(row.id): row.state for row in rows}

    async def _held(self) -> list[tuple[int, int, str]]:
        mine = JournalEntry.controller_id == self.box.controller
        rows = await self.house.rows(
            sa.select(JournalEntry.epoch, JournalEntry.seq, JournalEntry.event_id).where(mine)
        )
        return [(row.epoch, row.seq, row.event_id) for row in rows]

    async def _missing(self) -> list[str]:
        """Say what an agent that is back has not made good yet."""
        states, held = await self._states(), set(await self._held())
        found = [f"event {event} is lost" for event in sorted(self.events - held)]
        found += [
            f"command {command} was {result}, and the server says {states.get(command)}"
            for command, result in self.results.items()
            if states.get(command) != result
        ]
        found += [
            f"command {command} was never taken, and waits"
            for command, state in states.items()
            if state is CommandState.PENDING
        ]
        return found

    async def _judged(self) -> list[str]:
        """Say what is lost, doubled, or told and not true."""
        held = await self._held()
        found = await self._missing()
        found += [
            f"{n} events have the number {number} of epoch {epoch}"
            for (epoch, number), n in Counter((epoch, seq) for epoch, seq, _ in held).items()
            if n > 1
        ]
        highest = Counter[int]()
        for epoch, seq, _ in held:
            highest[epoch] = max(highest[epoch], seq)
        # A number that was given was on the disk: what the server does not hold, the agent lost.
        found += [f"epoch {e}: numbers are missing" for e in highest if _gaps(held, e, highest[e])]
        pulsed = {pulse.command for pulse in self.house.pulses()}
        found += [
            f"command {command} was told as executed, and never pulsed"
            for command, state in (await self._states()).items()
            if state is CommandState.EXECUTED and command not in pulsed
        ]
        return found


def _gaps(held: list[tuple[int, int, str]], epoch: int, highest: int) -> set[int]:
    return set(range(1, highest + 1)) - {seq for one, seq, _ in held if one == epoch}


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so, but not for ever: what is not so then is judged."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if await is_so():
            return
        await asyncio.sleep(0.1)
