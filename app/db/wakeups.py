"""Wake-ups: a bell says "look again"; it carries no data, the rows are the truth.

`wake` rings when the transaction commits and never if it rolls back; what becomes of its savepoints
rings nothing. In one process that is all. On PostgreSQL the topics are also told to the other
processes, after the commit and coalesced, on a connection of our own: `pg_notify` inside the
transaction would take a database-wide lock at commit.
A process that dies between commit and notice, or a lost LISTEN connection, costs latency only: on
reconnect every bell rings once, and a job looks once a second for pending commands.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import override

from app.db.engine import Database

log = logging.getLogger(__name__)

CHANNEL = "yizhan_wakeups"
NOTED = "wakeups"
"""Where a transaction keeps what it will ring."""
_MAX_TOPICS = 500
_PAUSE_S = 0.005


class Bell:
    """Rings for one listener of one topic; small, since every waiting controller has one."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Ring; a bell that nobody waits for keeps ringing until somebody does."""
        self._rung = True
        self._wake()

    async def wait(self, seconds: float) -> bool:
        """Wait for a ring; False when the time is over. Clears the bell before it returns."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class LocalWakeups:
    """Bells within one process."""

    def __init__(self) -> None:
        self._bells: dict[str, tuple[Bell, ...]] = {}
        self._watchers: list[tuple[str, Callable[[str | None], None]]] = []

    async def wake(self, tx: AsyncSession, topic: str) -> None:
        """Ring the topic's bells when `tx` commits."""
        noted: _Noted = tx.sync_session.info.setdefault(NOTED, _Noted(self))
        noted.topics.add(topic)

    @contextmanager
    def listen(self, *topics: str) -> Iterator[Bell]:
        """Hear these topics; listen first, then look."""
        bell = Bell()
        for topic in topics:
            self._bells[topic] = (*self._bells.get(topic, ()), bell)
        try:
            yield bell
        finally:
            for topic in topics:
                left = tuple(each for each in self._bells[topic] if each is not bell)
                if left:
                    self._bells[topic] = left
                else:
                    del self._bells[topic]

    def watch(self, prefix: str, react: Callable[[str | None], None]) -> None:
        """Call `react(topic)` for every ring of a topic that begins with `prefix`.

        For what a process keeps in memory. `react(None)` means that rings may have been missed.
        """
        self._watchers.append((prefix, react))

    def ring(self, topic: str) -> None:
        """Ring the bells of this process."""
        for bell in self._bells.get(topic, ()):
            bell.ring()
        for prefix, react in self._watchers:
            if topic.startswith(prefix):
                react(topic)

    def ring_all(self) -> None:
        """Ring every bell of this process: rings may have been missed."""
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
        for _prefix, react in self._watchers:
            react(None)

    def listened(self) -> set[str]:
        """Give the topics that somebody listens to now."""
        return set(self._bells)

    async def run(self) -> None:
        """Carry rings between processes until cancelled; in one process there is nothing to do."""
        await asyncio.Event().wait()

    def tell(self, topics: set[str]) -> None:
        """Ring the bells of every process."""
        for topic in topics:
            self.ring(topic)
        self._tell_others(topics)

    def _tell_others(self, topics: set[str]) -> None:
        pass


class PostgresWakeups(LocalWakeups):
    """The same bells, heard by every process on the same PostgreSQL."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn
        self._untold: set[str] = set()
        self._something_to_tell = asyncio.Event()
        self._lost = asyncio.Event()

    @override
    def _tell_others(self, topics: set[str]) -> None:
        self._untold |= topics
        self._something_to_tell.set()

    @override
    async def run(self) -> None:
        """Keep one connection that listens and tells; reconnect with back-off until cancelled."""
        delay = 0.1
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=10)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                log.warning(
                    "wakeups unreachable error=%s retry_s=%.1f", type(error).__name__, delay
                )
                await asyncio.sleep(delay + delay * secrets.randbelow(1000) / 1000)
                delay = min(delay * 2, 5)
                continue
            try:
                await self._serve(connection)
                delay = 0.1
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("wakeups lost error=%s", type(error).__name__)
            finally:
                with suppress(Exception):
                    await connection.close(timeout=1)

    async def _serve(self, connection: Any) -> None:
        self._lost.clear()
        own_pid = connection.get_server_pid()

        def heard(_connection: Any, pid: int, _channel: str, topic: str) -> None:
            if pid != own_pid:  # Our own rings were rung at the commit.
                self.ring(topic)

        connection.add_termination_listener(lambda _connection: self._gone())
        await connection.add_listener(CHANNEL, heard)
        self.ring_all()
        log.info("wakeups listening pid=%s", os.getpid())
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(10):
                    await self._something_to_tell.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=5)  # Finds a half-dead connection.
                continue
            self._something_to_tell.clear()
            if self._lost.is_set():
                break
            topics = list(self._untold)[:_MAX_TOPICS]
            # Taken out before it is told: what is rung again meanwhile is told again.
            self._untold.difference_update(topics)
            try:
                await connection.execute(
                    "SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic",
                    CHANNEL,
                    topics,
                    timeout=5,
                )
            except BaseException:
                self._untold.update(topics)
                raise
            if self._untold:
                self._something_to_tell.set()
            # What is committed meanwhile goes out together: at a rush, a few times fewer words.
            await asyncio.sleep(_PAUSE_S)
        raise ConnectionError("the listening connection ended")

    def _gone(self) -> None:
        self._lost.set()
        self._something_to_tell.set()


@dataclass(frozen=True, slots=True)
class _Noted:
    """What a transaction will ring."""

    wakeups: LocalWakeups
    topics: set[str] = field(default_factory=set)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    if session.in_nested_transaction():
        return  # A savepoint was released: nobody else sees yet what would be rung for.
    if noted := session.info.pop(NOTED, None):
        noted.wakeups.tell(noted.topics)


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    if session.in_nested_transaction():
        return  # What was noted before the savepoint stands; what was noted within rings in vain.
    session.info.pop(NOTED, None)


def wakeups_for(database: Database) -> LocalWakeups:
    """Give the wake-ups that fit this database."""
    if database.is_embedded:
        return LocalWakeups()
    return PostgresWakeups(
        database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
