"""The agent's loop: poll, claim, pulse, ack; wait and try again when the server is away.

`run_agent` is the only door into this package.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from app.agent import AgentError
from app.agent.commands import Commands, deliver
from app.agent.contact import HELD_AFTER_S, Contact, ExitContact
from app.agent.enrolment import Identity
from app.agent.journal import Journal, upload
from app.agent.link import SILENCE_S, Link
from app.agent.modes import LOOKS_EVERY_S, Lock, hold
from app.agent.openings import Openings
from app.agent.pace import Backoff, Pace, Patience
from app.agent.passes import Answer, Passes
from app.agent.reader import Reader
from app.agent.relay import Relay
from app.agent.screen import Board, Screen
from app.agent.server import CredentialRefused, Server, ServerAway, body, number
from app.agent.state import Result, Results, StateFolder
from app.places.rules import Kind

logger = logging.getLogger(__name__)

POLL_WAIT_S = 25
"""How long the server may hold a poll, in seconds."""

POLL_SLACK_S = 10.0
"""How much longer the agent waits for the answer of a poll, in seconds."""

BACKOFF_S = 10.0
"""Pauses while the server is away are drawn from 0 to this, in seconds, the first one too (R11)."""

BESIDE_WAIT_S = 3
"""How long a poll is held while a config is fetched, in seconds: the next one can name it."""

FIRST_CONFIG_S = 2.0
"""So long a boot that has no config waits for one before its first poll, in seconds."""

CONFIG_PAUSE_S, LONGEST_CONFIG_PAUSE_S = 5.0, 60.0
"""Pauses after a config that could not be fetched, in seconds; polls go on meanwhile."""

QUICK_PAUSE_S = 1.0
"""Pause after an answer that came at once and brought nothing new, in seconds."""

LONGEST_PAUSE_S = 60.0
"""The server chooses the next poll within this, in seconds: silence for 75 s counts as offline."""

REFUSED_PAUSE_S = 60.0
REFUSED_TRIES = 5
"""A refused credential is tried this often, this many seconds apart, before the agent gives up."""


class CredentialRevoked(AgentError):
    """The server refuses this controller's credential; it must be enrolled again."""


async def run_agent(
    *,
    server_url: str,
    state_dir: Path,
    code: str | None,
    relay: Relay,
    serial: str,
    firmware: str,
    stop: asyncio.Event,
    contact: Contact | None = None,
    exits: ExitContact | None = None,
    reader: Reader | None = None,
    lock: Lock | None = None,
    screen: Screen | None = None,
    has_rtc: bool = False,
    http: httpx.AsyncClient | None = None,
    pace: Pace | None = None,
) -> None:
    """Serve the doors of one controller until `stop` is set.

    `code` is the one-time enrolment code, needed once. `contact` tells when doors move, `exits`
    when somebody leaves, `reader` what is shown at them, `lock` is held open while a door is free,
    `screen` shows codes. `has_rtc` says that this box has a clock that runs on while it is off.
    Many agents of one process share `http` (made with room for five connections per agent); alone,
    an agent makes its own. At the end the relay is closed.

    Raises `AgentError`: `NotEnrolled` and `EnrolmentRefused` at the start, `StateLocked` when
    another agent uses the folder, `CredentialRevoked` later.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(relay.close)
        if http is None:
            http = await stack.enter_async_context(httpx.AsyncClient())
        state = StateFolder(state_dir)
        stack.enter_context(state.locked())
        pace = pace or Pace()
        link = Link(state, pace, has_rtc=has_rtc)
        server = Server(server_url, http, link, firmware=firmware)
        identity = Identity(state, serial=serial, firmware=firmware, pace=pace)
        agent = Agent(
            server, state, identity, link, relay=relay, pace=pace, contact=contact, exits=exits
        )
        stack.callback(agent.close)
        beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if reader is not None:
            beside.append(lambda: reader.serve(agent.judge, agent.note_of_reader))
        if lock is not None:
            beside.append(lambda: hold(lock, agent.mode, pace))
        if screen is not None:
            beside.append(lambda: screen.serve(Board(agent.config, server, link, pace)))
        work = asyncio.create_task(agent.run(code, beside))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            stopped.cancel()
            await asyncio.wait({work, stopped})
        if not work.cancelled():
            work.result()


class Errand:
    """Something that is done beside the polls, once at a time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it goes on now."""
        return self._task is not None and not self._task.done()

    def begin(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        """Set it going, unless it goes on."""
        if self.is_under_way:
            work.close()
        else:
            self._task = tasks.create_task(work)

    async def over(self, *, within_s: float) -> None:
        """Wait until it is over, for no longer than so many seconds."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)


class Agent:
    """One controller of one boot."""

    def __init__(
        self,
        server: Server,
        state: StateFolder,
        identity: Identity,
        link: Link,
        *,
        relay: Relay,
        pace: Pace,
        contact: Contact | None = None,
        exits: ExitContact | None = None,
        journal: type[Journal] = Journal,
    ) -> None:
        self._server = server
        self._link = link
        self._state = state
        self._identity = identity
        self._pace = pace
        self._boot_id = str(uuid.uuid4())
        self._results = Results(state)
        self._openings = Openings(relay, exits, pace)
        self._commands = Commands(
            server, self._openings, self._results, boot_id=self._boot_id, pace=pace
        )
        self._config: dict[str, Any] = {}
        self._config_patience = Patience(
            pace, first_s=CONFIG_PAUSE_S, most_s=LONGEST_CONFIG_PAUSE_S
        )
        self._is_behind = False
        """Whether the server has a config that we do not hold yet."""
        self._fetching_config, self._fetching_rest = Errand(), Errand()
        self._journal = journal(state, boot_id=self._boot_id, pace=pace, link=link)
        self._passes = Passes(state, link, self._journal, self._openings, pace)
        self._open_doors: dict[str, asyncio.Task[None]] = {}
        self._judged_openings: set[asyncio.Task[None]] = set()
        self._contact = contact
        self._told_doors: set[str] = set()
        """Doors of which this boot has said how they stand."""
        if contact is not None:
            contact.watch(self.door_moved)

    def close(self) -> None:
        """Let go of the journal's file."""
        for watch in (*self._open_doors.values(), *self._judged_openings):
            watch.cancel()
        self._journal.close()

    def door_moved(self, door: str, is_open: bool) -> None:
        """Write down that a door opened or closed, and watch for how long it stands open.

        A door that the server knows without a contact says nothing.
        """
        if door in self._with_contact():
            self._note_door(door, is_open)
            if is_open and self.mode() is not Kind.FREE and self._openings.are_watched(door):
                task = asyncio.create_task(
                    self._judge_opening(door, opened_at=self._pace.monotonic())
                )
                self._judged_openings.add(task)
                task.add_done_callback(self._judged_openings.discard)

    def _tell_how_doors_stand(self) -> None:
        """Write down how each door stands, once in a boot: while we were off it may have moved.

        It is marked, for it says nothing of when the door moved.
        """
        for door in self._with_contact() - self._told_doors:
            is_open = self._contact.is_open(door) if self._contact is not None else None
            if is_open is not None:
                self._note_door(door, is_open, at_start=True)

    def _note_door(self, door: str, is_open: bool, **more: Any) -> None:
        self._told_doors.add(door)
        self._record("door_opened" if is_open else "door_closed", door=door, **more)
        if watch := self._open_doors.pop(door, None):
            watch.cancel()
        if is_open:
            self._open_doors[door] = asyncio.create_task(self._held(door))

    async def _held(self, door: str) -> None:
        """Record that a door stands open for too long; while it is free it may."""
        since = self._pace.monotonic()
        while self._pace.monotonic() - since < HELD_AFTER_S:
            await self._pace.sleep(LOOKS_EVERY_S)
            if self.mode() is Kind.FREE:
                since = self._pace.monotonic()
        self._record("door_held", door=door)

    async def _judge_opening(self, door: str, *, opened_at: float) -> None:
        """Record that a door was forced, if nothing explains that it opened."""
        if await self._openings.was_forced(door, opened_at=opened_at):
            self._record("door_forced", door=door)

    def note_of_reader(self, door: str, what: str) -> None:
        """Write down that a door's code reader went away, or is back."""
        self._record("note", what=what, door=door)

    def _record(self, type: str, **fields: Any) -> None:
        """Write an event down; a disk that refuses it does not keep the doors from opening."""
        self._journal.record(type, **fields)

    @property
    def commands_in_hand(self) -> int:
        """How many commands were told and have no result yet."""
        return self._commands.in_hand

    async def judge(self, door: str, token: str) -> Answer:
        """Judge a pass that somebody shows at a door; opens it if it is good."""
        self._look_at_link()
        return await self._passes.shown(door, token, self._server, self._claim_for_reader)

    async def _claim_for_reader(self, command: str) -> Result | None:
        # The poll may tell of it at the same time: whoever takes it first carries it out.
        if self._commands.take(command):
            return await self._carry_out(command, told_at=self._pace.monotonic())
        return await self._commands.result_of(command)

    def config(self) -> Mapping[str, Any]:
        """Give the config that the server gave last, or nothing."""
        config = self._config.get("config")
        return config if isinstance(config, dict) else {}

    def mode(self) -> Kind | None:
        """Say what holds at the station now; None when we cannot know."""
        return self._passes.mode()

    def _recall(self) -> None:
        """Take over what an earlier boot kept; not before we know which controller we are."""
        self._config = self._state.read("config.json")
        self._passes.recall()
        self._follow()

    def _follow(self) -> None:
        """Work by the config that we hold now."""
        limits = self.config().get("limits")
        silence_s = number(limits.get("silence_s")) if isinstance(limits, dict) else 0
        self._link.silence_s = silence_s or SILENCE_S
        self._passes.follow(self.config())

    def _look_at_link(self) -> None:
        """Write down that we work alone now, or follow the server again; nothing else happens."""
        turned = self._link.turned()
        if turned is not None:
            what = "alone" if turned else "following"
            logger.warning("link %s", what)
            self._record("note", what=what)

    async def run(
        self, code: str | None, beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    ) -> None:
        """Enrol if need be, then poll; commands, acks and whatever is `beside` run along."""
        await self._identity.enrol(self._server, code=code)
        self._recall()
        logger.info("agent started boot_id=%s", self._boot_id)
        self._record("power", what="boot")
        self._tell_how_doors_stand()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._deliver())
                tasks.create_task(self._upload())
                for work in beside:
                    tasks.create_task(work())
                await self._poll_for_ever(tasks)
        except BaseExceptionGroup as group:
            # One failure ended the group: callers get it as itself.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    async def _deliver(self) -> None:
        await deliver(self._results, self._server, pace=self._pace, refused_pause_s=REFUSED_PAUSE_S)

    async def _upload(self) -> None:
        await upload(
            self._journal,
            self._server,
            boot_id=self._boot_id,
            pace=self._pace,
            refused_pause_s=REFUSED_PAUSE_S,
        )

    async def _poll_for_ever(self, tasks: asyncio.TaskGroup) -> None:
        backoff = Backoff(self._pace, first_s=BACKOFF_S, most_s=BACKOFF_S)
        refused = 0
        if not self._config:
            # Else a door might be opened before we know that it has a contact to be heard.
            self._fetch_config_beside(tasks)
            await self._fetching_config.over(within_s=FIRST_CONFIG_S)
        while True:
            try:
                if not self._config:
                    self._fetch_config_beside(tasks)
                self._fetching_rest.begin(tasks, self._fetch_rest())
                pause_s = await self._poll(tasks)
            except ServerAway as away:
                pause_s = backoff.next(away.retry_after_s)
            except CredentialRefused:
                refused += 1
                logger.error("credential refused try=%d of=%d", refused, REFUSED_TRIES)
                if refused == REFUSED_TRIES:
                    self._passes.forget()
                    raise CredentialRevoked(
                        "the server refuses this controller's credential; enrol it again"
                    ) from None
                pause_s = REFUSED_PAUSE_S
            else:
                if backoff.failures or refused:
                    self._results.news.set()
                backoff.reset()
                refused = 0
            self._look_at_link()
            if pause_s:
                await self._pace.sleep(pause_s)

    async def _poll(self, tasks: asyncio.TaskGroup) -> float:
        """Poll once, set the told commands going, and say how long to pause, in seconds."""
        sent_at = self._pace.monotonic()
        wait_s = BESIDE_WAIT_S if self._fetching_config.is_under_way else POLL_WAIT_S
        asked = {"wait": str(wait_s), "boot_id": self._boot_id}
        if self._config and not self._is_behind:
            # To a version that is not its own the server answers at once, and tells no commands.
            asked["config_version"] = self._version()
        response = await self._server.call(
            "GET",
            "/v1/controller/commands",
            params=asked,
            within_s=wait_s + POLL_SLACK_S,
        )
        told_at = self._pace.monotonic()
        fresh = False
        match response.status_code:
            case httpx.codes.OK:
                answer = body(response)
                fresh = self._begin(answer, tasks, told_at=told_at)
                version, next_poll_ms = answer.get("config_version"), answer.get("next_poll_ms")
            case httpx.codes.NO_CONTENT:
                version = response.headers.get("Config-Version")
                next_poll_ms = response.headers.get("Next-Poll-Ms")
            case status:
                raise ServerAway(f"poll answered {status}")
        self._is_behind = version is not None and str(version) != self._version()
        if self._is_behind:
            fresh = self._fetch_config_beside(tasks) or fresh
        pause_s = min(number(next_poll_ms) / 1000, LONGEST_PAUSE_S)
        if not fresh and told_at - sent_at < QUICK_PAUSE_S:
            # Commands already in hand, a newer poll of a second agent, or a proxy that does not
            # wait: without a pause this would be a busy loop.
            pause_s = max(pause_s, QUICK_PAUSE_S * self._pace.dice.uniform(0.5, 1.5))
        return pause_s

    def _begin(self, answer: dict[str, Any], tasks: asyncio.TaskGroup, *, told_at: float) -> bool:
        """Set each new command going beside the polls; say whether there was one."""
        told = answer.get("commands")
        ids = [
            str(command["id"])
            for command in (told if isinstance(told, list) else [])
            if isinstance(command, dict) and command.get("id")
        ]
        new = [command for command in ids if self._commands.take(command)]
        for command in new:
            tasks.create_task(self._carry_out(command, told_at=told_at))
        return bool(new)

    async def _carry_out(self, command: str, *, told_at: float) -> Result | None:
        try:
            return await self._commands.carry_out(command, told_at=told_at)
        except Exception:
            # One command that went wrong in a way nobody thought of leaves the others alone.
            logger.exception("command abandoned command=%s", command)
            return None

    def _version(self) -> str:
        return str(self.config().get("version", ""))

    def _with_contact(self) -> set[str]:
        """Give the doors that the server knows with a contact."""
        doors = self.config().get("doors")
        return {
            str(one.get("id"))
            for one in (doors if isinstance(doors, list) else [])
            if isinstance(one, dict) and one.get("has_contact") is True
        }

    def _fetch_config_beside(self, tasks: asyncio.TaskGroup) -> bool:
        """Begin to bring the config up to date, unless it is too soon; no command waits for it."""
        if self._fetching_config.is_under_way or not self._config_patience.is_over:
            return False
        self._fetching_config.begin(tasks, self._try_config(tasks))
        return True

    async def _try_config(self, tasks: asyncio.TaskGroup) -> None:
        """Bring the config up to date if the server gives it."""
        try:
            changed = await self._fetch_config()
        except ServerAway as away:
            logger.warning("config not fetched why=%s", away)
            self._config_patience.failed(away.retry_after_s)
        except CredentialRefused:
            # The next poll meets the same refusal and deals with it.
            self._config_patience.failed()
        else:
            if changed:
                self._is_behind = False
            if self._is_behind:
                # Polls tell of one that is not to be had yet.
                self._config_patience.failed()
            else:
                self._config_patience.succeeded()
            # It may name denials that we do not know.
            self._fetching_rest.begin(tasks, self._fetch_rest())

    async def _fetch_rest(self) -> None:
        """Renew the credential, and fetch what judging alone needs, when they are due."""
        try:
            await self._identity.rotate_when_old(self._server)
            await self._passes.refresh(self._server)
        except CredentialRefused:
            # The next poll meets the same refusal and deals with it.
            return

    async def _fetch_config(self) -> bool:
        """Bring the config up to date, on disk first; say whether its version changed."""
        etag = self._config.get("etag")
        response = await self._server.call(
            "GET", "/v1/controller/config", headers={"If-None-Match": etag} if etag else None
        )
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return False
        if response.status_code != httpx.codes.OK:
            raise ServerAway(f"config answered {response.status_code}")
        before = self._version()
        config = {"etag": response.headers.get("ETag"), "config": body(response)}
        self._state.write_if_possible("config.json", config)
        self._config = config
        self._follow()
        self._tell_how_doors_stand()
        logger.info("config version=%s", self._version())
        return self._version() != before
