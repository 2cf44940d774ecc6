"""Seeded bugs of the server's storage; entered as `agent_bugs` enters its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.faults.bugs import bug


@bug
def ack_before_commit() -> None:
    """The answer goes out, and the commit follows a moment later (R01)."""
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.engine import Database

    pending: set[asyncio.Task[None]] = set()

    async def commit_later(tx: Any) -> None:
        await asyncio.sleep(0.1)
        await tx.commit()
        await tx.close()

    @asynccontextmanager
    async def write(self: Any) -> AsyncIterator[Any]:
        tx = AsyncSession(self._writer, expire_on_commit=False)
        try:
            yield tx
        except BaseException:
            await tx.rollback()
            await tx.close()
            raise
        task = asyncio.create_task(commit_later(tx))
        pending.add(task)
        task.add_done_callback(pending.discard)

    Database.write = write  # type: ignore[method-assign]


@bug
def sync_normal() -> None:
    """SQLite syncs at checkpoints only, and nobody checks (R02)."""
    from app.db import engine

    vars(engine)["PRAGMAS"] = tuple(
        "synchronous=NORMAL" if pragma.startswith("synchronous") else pragma
        for pragma in engine.PRAGMAS
    )

    async def check_durable(self: Any) -> None:
        return None

    engine.Database.check_durable = check_durable  # type: ignore[method-assign]


@bug
def no_unique_seq() -> None:
    """An event's number and id do not keep it from going in again (R03)."""
    import secrets

    from app.doors import journal
    from app.doors.rules.journal import Told

    real = journal.read_event

    def read_event(raw: Any, boot_id: str) -> Any:
        told = real(raw, boot_id)
        if isinstance(told, Told):
            number = told.seq + 1000 * secrets.randbelow(10**6)
            told = replace(told, seq=number, event_id=secrets.token_hex(8))
        return told

    vars(journal)["read_event"] = read_event


@bug
def poison_blocks() -> None:
    """One event that cannot be used turns its whole batch away (R03, T26)."""
    from app.doors import journal
    from app.errors import Invalid

    async def quarantine(
        tx: Any, controller_id: Any, station_id: Any, batch: Any, events: Any, *, at: Any
    ) -> set[str]:
        if events:
            raise Invalid("an event of this batch cannot be used")
        return set()

    vars(journal)["_quarantine"] = quarantine


@bug
def deadline_by_the_wall() -> None:
    """The server counts a command's time on its wall clock alone (R18)."""
    from app.db import clock

    real = clock.ProcessClock.deadline

    def deadline(self: Any, seen: Any, *, since: float, seconds: float) -> Any:
        return replace(real(self, seen, since=since, seconds=seconds), expires_mono=None)

    def live(self: Any, expires_at: Any, expires_mono: Any) -> Any:
        return expires_at > self.now()

    clock.ProcessClock.deadline = deadline  # type: ignore[method-assign]
    clock.ProcessClock.live = live  # type: ignore[method-assign]


@bug
def time_from_the_device() -> None:
    """The device's wall clock is believed (R17)."""
    from datetime import timedelta

    from app.doors import journal
    from app.doors.rules.journal import Corrected, Quality

    def corrected(occurred_at: Any, *_: Any) -> Corrected:
        return Corrected(occurred_at, timedelta(milliseconds=500), Quality.SYNCED)

    vars(journal)["corrected"] = corrected


@bug
def forgets_the_drift() -> None:
    """The error that is told leaves out that crystals run off (R17)."""
    from datetime import timedelta

    from app.doors.rules import journal

    vars(journal)["_drift"] = lambda since: timedelta(0)


@bug
def trusts_a_clock_that_stood_still() -> None:
    """An event of an earlier boot goes by the wall clock, as if it had run on (R17)."""
    from dataclasses import replace

    from app.doors import journal
    from app.doors.rules.journal import TRANSFER, Corrected, Quality

    right = journal.corrected

    def corrected(occurred_at: Any, mono_ms: Any, boot_id: Any, sending: Any, _: Any) -> Corrected:
        found = right(occurred_at, mono_ms, boot_id, sending)
        return replace(found, error=TRANSFER) if found.quality is Quality.WALL else found

    vars(journal)["corrected"] = corrected


@bug
def uploads_crowd_doors_out() -> None:
    """Every upload goes straight to the database, however many there are (R16)."""
    from app.doors.line import Line

    @asynccontextmanager
    async def place(self: Any) -> AsyncIterator[None]:
        yield

    Line.place = place  # type: ignore[method-assign]


@bug
def swallow_eio() -> None:
    """A commit that the disk refused counts as done (R14)."""
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.engine import Database

    @asynccontextmanager
    async def write(self: Any) -> AsyncIterator[Any]:
        async with AsyncSession(self._writer, expire_on_commit=False) as tx:
            try:
                yield tx
                await tx.commit()
            except OperationalError:
                await tx.rollback()

    Database.write = write  # type: ignore[method-assign]


AGAIN = "again-"


@bug
def retry_after_commit() -> None:
    """Whoever met trouble with the database is served once more, as somebody new (R10)."""
    import secrets

    from app.api.edge import Edge
    from app.doors import scans

    real = scans.recent_of

    async def recent_of(tx: Any, clock: Any, owner: Any, key: Any, *rest: Any, at: Any) -> Any:
        recent = await real(tx, clock, owner, key, *rest, at=at)
        return replace(recent, repeat_id=None) if str(key).startswith(AGAIN) else recent

    vars(scans)["recent_of"] = recent_of

    served = Edge.__call__

    async def retried(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/scans":
            await served(self, scope, receive, send)
            return
        body = await receive()
        said: list[Any] = []

        async def hears() -> Any:
            return body

        async def keeps(message: Any) -> None:
            said.append(message)

        await served(self, scope, hears, keeps)
        if said[0]["status"] == 503:
            said.clear()
            headers = [pair for pair in scope["headers"] if pair[0] != b"idempotency-key"]
            headers.append((b"idempotency-key", f"{AGAIN}{secrets.token_hex(8)}".encode()))
            await served(self, {**scope, "headers": headers}, hears, keeps)
        for message in said:
            await send(message)

    Edge.__call__ = retried  # type: ignore[method-assign]


@bug
def dead_pool() -> None:
    """Connections are given out without asking whether they still live (R09)."""
    from app.db.engine import Database

    real = Database.__init__

    def without_care(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self._writer.sync_engine.pool._pre_ping = False
        self._writer.sync_engine.dialect.is_disconnect = lambda *_: False

    Database.__init__ = without_care  # type: ignore[method-assign]
