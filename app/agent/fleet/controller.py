"""One controller of the fleet: the real agent's code, on a wire and clocks that may fail.

`Agent` is used as it is. What it runs on is ours: its disk is memory that outlives its reboots, its
HTTP goes through `FaultyHttp`, its relay writes to the fleet's one log.
"""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from app.agent.contact import SimulatedDoor
from app.agent.enrolment import Identity
from app.agent.fleet.faults import Clocks, Faults, Trip, trip, until_next
from app.agent.fleet.posts import FIRMWARE, MemoryState, Post, PostFile
from app.agent.fleet.wire import Lost, Wire
from app.agent.fleet.witness import Witness
from app.agent.journal import TABLES, Journal
from app.agent.link import Link
from app.agent.loop import Agent, CredentialRevoked
from app.agent.pace import Pace
from app.agent.relay import Pulse
from app.agent.server import Server, number
from app.agent.state import Results, StateFolder

BOOT_S = 3.0
"""The longest a controller is off at a reboot, in seconds."""


@dataclass(slots=True)
class Tally:
    """What the whole fleet did."""

    polling: int = 0
    """Polls that wait now."""
    polls: int = 0
    connects: int = 0
    reboots: int = 0
    events: int = 0
    """Journal events that the server answered for."""
    revoked: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    polled: set[str] = field(default_factory=set)
    """Serials of which a poll was answered in this run."""


class RelayLog:
    """One append-only file for the pulses of all doors; it outlives this process."""

    def __init__(self, path: Path, witness: Witness) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._witness = witness

    def write(self, serial: str, pulse: Pulse) -> None:
        """Write one pulse down, in one write."""
        now_ns = time.monotonic_ns()
        line = {
            "monotonic_ns": now_ns,
            "at": datetime.now(UTC).isoformat(),
            "serial": serial,
            "command": pulse.command,
            "door": pulse.door,
            "pulse_ms": pulse.pulse_ms,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")
        self._witness.pulse(pulse.command, at=now_ns / 1e9)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class Relay:
    """The relay of one controller."""

    serial: str
    log: RelayLog

    def pulse(self, pulse: Pulse) -> None:
        """See `app.agent.relay.Relay`; a simulated door needs no holding."""
        self.log.write(self.serial, pulse)

    def close(self) -> None:
        """See `app.agent.relay.Relay`; the log is the fleet's."""


class FaultyHttp:
    """One controller's requests, with what the dice do to them, and what the witness hears."""

    def __init__(
        self,
        wire: Wire,
        world: "World",
        *,
        serial: str,
    ) -> None:
        self._wire = wire
        self._faults = world.faults
        self._calm = world.calm
        self._over = world.over
        self._dice = random.Random(f"{world.seed}/{serial}/requests")
        self._serial = serial
        self._tally = world.tally
        self._witness = world.witness

    async def request(self, method: str, url: str, **more: Any) -> httpx.Response:
        """See `Http`."""
        if not url.endswith("/commands"):
            return await self._sent(method, url, more)
        self._tally.polling += 1
        try:
            answer = await self._until_over(method, url, more)
        finally:
            self._tally.polling -= 1
        self._tally.polls += 1
        self._tally.polled.add(self._serial)
        return answer

    async def _until_over(self, method: str, url: str, more: Mapping[str, Any]) -> httpx.Response:
        """Wait for a poll's answer, unless nothing new is to be taken on any more."""
        if self._over.is_set():
            raise Lost("the fleet is to stop")
        asked = asyncio.create_task(self._sent(method, url, more))
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({asked, over}, return_when=asyncio.FIRST_COMPLETED)
            if self._over.is_set():
                raise Lost("the fleet is to stop")
            return asked.result()
        finally:
            _abandon(asked, over)

    async def _sent(self, method: str, url: str, more: Mapping[str, Any]) -> httpx.Response:
        fate = Trip() if self._calm.is_set() else trip(self._faults, self._dice)
        if fate.refused:
            self._tally.faults["refused"] += 1
            raise Lost("virtual: the link is down")
        sent_at = time.monotonic()
        before = self._wire.connects
        try:
            if fate.repeated:
                self._tally.faults["repeated"] += 1
                # Both at once, each on a connection of its own; the first answer counts.
                answer = await self._first(method, url, more)
            elif fate.cut_after_s is not None:
                answer = await self._until_cut(method, url, more, fate.cut_after_s)
            else:
                answer = await self._wire.request(method, url, **more)
        finally:
            self._tally.connects += self._wire.connects - before
        self._hear(url, answer, sent_at)
        if fate.lost:
            self._tally.faults["lost"] += 1
            self._wire.cut()
            raise Lost("virtual: the answer is gone")
        if fate.stall_s:
            self._tally.faults["stalled"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(fate.stall_s):
                    await self._calm.wait()
        return answer

    async def _first(self, method: str, url: str, more: Mapping[str, Any]) -> httpx.Response:
        both = [
            asyncio.create_task(self._wire.request(method, url, **more)),
            asyncio.create_task(self._wire.request(method, url, **more)),
        ]
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            _abandon(*both)

    async def _until_cut(
        self, method: str, url: str, more: Mapping[str, Any], seconds: float
    ) -> httpx.Response:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._wire.request(method, url, **more)
        except TimeoutError:
            if not limit.expired():
                raise
            self._tally.faults["cut"] += 1
            raise Lost("virtual: the connection was reset") from None

    def _hear(self, url: str, answer: httpx.Response, sent_at: float) -> None:
        """Tell the witness what the answer said, before anything can happen to it."""
        if answer.status_code != httpx.codes.OK:
            return
        if url.endswith("/commands"):
            for command in answer.json()["commands"]:
                self._witness.tell(str(command["id"]), at=time.monotonic())
        elif url.endswith("/claim"):
            command = url.split("/")[-2]
            ttl_s = number(answer.json().get("ttl_ms")) / 1000
            self._witness.grant(command, sent_at=sent_at, ttl_s=ttl_s)


def _abandon(*tasks: asyncio.Task[Any]) -> None:
    """End tasks whose outcome nobody waits for."""
    for task in tasks:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()


class Memory(MemoryState):
    """A controller's disk: its files and its journal, over all reboots of this run."""

    def __init__(self, post: Post, file: PostFile, tally: Tally) -> None:
        super().__init__(post, file.keep)
        self.epoch = file.epoch
        self.tally = tally
        # Statements are few and short; a cache of them for each controller is what costs.
        self.journal = sqlite3.connect(":memory:", cached_statements=0)
        self.booted = False
        with self.journal:
            for table in TABLES:
                self.journal.execute(table)


class MemoryJournal(Journal):
    """The journal as it is, in memory that outlives the reboots."""

    @override
    def _open(self, state: StateFolder) -> tuple[int, sqlite3.Connection, bool]:
        assert isinstance(state, Memory)
        self._memory = state
        remembers, state.booted = state.booted, True
        return state.epoch, state.journal, remembers

    @override
    def settle(self, numbers: Iterable[int]) -> None:
        """Forget what the server holds, and count it."""
        before = self.held
        super().settle(numbers)
        self._memory.tally.events += before - self.held

    @override
    def close(self) -> None:
        """Leave the memory as it is for the next boot."""


@dataclass(frozen=True, slots=True)
class World:
    """What the controllers of one fleet share."""

    server_url: str
    faults: Faults
    calm: asyncio.Event
    """Set when nothing shall go wrong any more."""
    over: asyncio.Event
    """Set when no command is to be taken on any more."""
    seed: int
    file: PostFile
    log: RelayLog
    witness: Witness
    tally: Tally


class Controller:
    """One controller over all its boots."""

    def __init__(self, world: World, post: Post) -> None:
        self._world = world
        self._serial = post.serial
        self._memory = Memory(post, world.file, world.tally)
        self._dice = random.Random(f"{world.seed}/{post.serial}")
        self._clocks = Clocks(world.faults, self._dice, monotonic=time.monotonic, wall=time.time)
        self._wire = Wire(world.server_url)
        self._pace = Pace(monotonic=self._clocks.monotonic, wall=self._clocks.wall, dice=self._dice)
        self._http = FaultyHttp(self._wire, world, serial=post.serial)
        # The door stands there whether or not the box is on.
        self._door = SimulatedDoor(Relay(post.serial, world.log), self._pace)
        self._agent: Agent | None = None
        self._power = asyncio.timeout(None)
        self._is_revoked = False

    async def live(self, *, first_within_s: float) -> None:
        """Boot, work, reboot, until cancelled; begins within so many seconds."""
        await asyncio.sleep(self._dice.uniform(0, first_within_s))
        while True:
            seconds = until_next(self._world.faults.reboot_every_s, self._dice)
            self._power = asyncio.timeout(None if self._world.calm.is_set() else seconds)
            try:
                async with self._power:
                    await self._boot()
            except TimeoutError:
                self._world.tally.reboots += 1
            except CredentialRevoked:
                self._world.tally.revoked += 1
                self._is_revoked = True
                await asyncio.Event().wait()  # Only a person can help.
            await asyncio.sleep(self._dice.uniform(0, BOOT_S))

    def keep_on(self) -> None:
        """Be spared the next reboot."""
        if self._agent is not None and not self._power.expired():
            self._power.reschedule(None)

    async def _boot(self) -> None:
        world, memory, pace = self._world, self._memory, self._pace
        link = Link(memory, pace)
        server = Server(world.server_url, self._http, link, firmware=FIRMWARE)
        identity = Identity(memory, serial=self._serial, firmware=FIRMWARE, pace=pace)
        agent = Agent(
            server,
            memory,
            identity,
            link,
            relay=self._door,
            contact=self._door,
            pace=pace,
            journal=MemoryJournal,
        )
        self._agent = agent
        try:
            await agent.run(None)
        finally:
            self._agent = None
            # While it is off nobody sees the door; an event of a boot that ended would wait for
            # an upload that ended with it.
            self._door.watch(None)
            agent.close()
            self._wire.cut()

    @property
    def has_settled(self) -> bool:
        """Whether all that it began is over and with the server, or never will be."""
        if self._is_revoked or not self._memory.booted:
            return True
        if self._agent is None or self._agent.commands_in_hand or self._door.is_passed:
            return False
        return not self.unsent_events and not self.unsent_results

    @property
    def unsent_events(self) -> int:
        """How many of its events the server has not answered for."""
        (count,) = self._memory.journal.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    @property
    def unsent_results(self) -> int:
        """How many of its results the server has not answered for."""
        return len(Results(self._memory).unacked())
