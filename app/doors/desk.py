"""What one process remembers of the controllers: their credentials, and when each was heard.

A poll must cost no more than one read, so credentials are remembered (and forgotten on the bell
`credentials`), and when a controller was heard is kept in memory and written in bulk.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Monotonic, Now
from app.db.engine import Database
from app.db.gathered import Gathered, padded
from app.db.later import move_on
from app.db.types import table_of
from app.db.upsert import moved
from app.db.wakeups import LocalWakeups
from app.doors import outages
from app.doors.clones import BootWatch
from app.doors.outages import Presence
from app.doors.tables import Controller
from app.errors import Unavailable
from app.people.secrets import hash_of

CREDENTIALS = "credentials"
"""Rings when a credential changed or a controller was retired."""

AT_ONCE = 4_096
"""Controllers that one statement holds."""

CREDENTIAL_OVERLAP = timedelta(hours=1)


class TooManyPolls(Unavailable):
    """This process holds as many waiting controllers as it may; come back in a while."""


@dataclass(frozen=True, slots=True)
class KnownController:
    """Who is polling."""

    controller_id: uuid.UUID
    station_id: uuid.UUID
    until: datetime | None
    """When a replaced credential ends; None for the newest, and while the newest was not used."""


@dataclass(frozen=True, slots=True)
class _Credential:
    known: KnownController
    is_used: bool
    """Whether the device has shown that it holds it."""


class ControllerDesk:
    """What one process remembers of the controllers."""

    def __init__(
        self,
        database: Database,
        wakeups: LocalWakeups,
        *,
        now: Now,
        monotonic: Monotonic,
        silence_s: int,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._now = now
        self._monotonic = monotonic
        self._silence = timedelta(seconds=silence_s)
        self._started = monotonic()
        self._known: dict[bytes, KnownController] = {}
        # Close together: a claim may wait for it, at the start of a process.
        self._credentials = Gathered(self._read, apart_s=0.02)
        self._forgotten = 0
        self._heard: dict[uuid.UUID, datetime] = {}
        self._unwritten: dict[uuid.UUID, datetime] = {}
        self._returned: dict[uuid.UUID, list[Presence]] = {}
        """Whom this process had not heard for so long that there may be an outage to write."""
        self._polls: dict[uuid.UUID, object] = {}
        self.boots = BootWatch()

    def forget(self, _topic: str | None = None) -> None:
        """Forget every credential; each is read again at its next use."""
        self._known.clear()
        self._forgotten += 1

    async def find(self, credential: str, *, at: datetime) -> KnownController | None:
        """Say whose credential this is; opens and closes its own read when it must look."""
        digest = hash_of(credential)
        known = self._known.get(digest)
        if known is None:
            forgotten = self._forgotten
            found = await self._credentials.ask(digest)
            if found is not None and not found.is_used:
                async with self._database.write() as tx:
                    await _mark_used(tx, self._wakeups, found.known.controller_id, digest, at=at)
                forgotten = self._forgotten
                found = await self._credentials.ask(digest)  # Revoked while we wrote, perhaps.
            if found is None:
                return None
            known = found.known
            if forgotten == self._forgotten:
                self._known[digest] = known
        if known.until is not None and at >= known.until:
            return None
        self.heard(known.controller_id, at)
        return known

    async def _read(self, digests: Sequence[bytes]) -> Mapping[bytes, _Credential]:
        async with self._database.read() as tx:
            return await _credentials(tx, digests, at=self._now())

    @property
    def silence(self) -> timedelta:
        """A controller that was not heard for so long is offline."""
        return self._silence

    def heard(self, controller_id: uuid.UUID, at: datetime) -> None:
        """Note that a request began or ended."""
        before = self._heard.get(controller_id)
        self._heard[controller_id] = at
        self._unwritten[controller_id] = at
        if before is None or at - before > self._silence:
            self._returned.setdefault(controller_id, []).append(Presence.begun(at))
        elif controller_id in self._returned:
            self._returned[controller_id][-1].heard(at)

    def is_heard(
        self, controller_id: uuid.UUID | None, seen_at: datetime | None, *, at: datetime
    ) -> bool:
        """Whether a command could reach the controller (law 6).

        For CONTROLLER_SILENCE_S after its start a process has not heard long enough to doubt.
        """
        if controller_id is None:
            return False
        if self._monotonic() - self._started < self._silence.total_seconds():
            return True
        last = max(filter(None, (seen_at, self._heard.get(controller_id))), default=None)
        return last is not None and at - last < self._silence

    @contextmanager
    def polling(self, controller_id: uuid.UUID, *, limit: int) -> Iterator[Callable[[], bool]]:
        """Count one open poll; the function given tells whether a newer one took its place.

        Raises TooManyPolls when this process holds as many as it may.
        """
        if len(self._polls) >= limit and controller_id not in self._polls:
            raise TooManyPolls
        mark = object()
        self._polls[controller_id] = mark
        try:
            yield lambda: self._polls.get(controller_id) is not mark
        finally:
            if self._polls.get(controller_id) is mark:
                del self._polls[controller_id]

    @property
    def open_polls(self) -> int:
        """How many controllers wait in this process now."""
        return len(self._polls)

    async def write_heard(self, *, at: datetime) -> int:
        """Write what was heard since the last time, to the second, the greater value kept.

        Also that this process was there to hear, and the outages that are over.
        """
        noted, self._unwritten = self._unwritten, {}
        returned, self._returned = self._returned, {}
        seconds = {id: heard_at.replace(microsecond=0) for id, heard_at in noted.items()}
        try:
            async with self._database.write() as tx:
                if returned:
                    # All, or two processes wait in a circle: each for what the other goes on to.
                    await _hold(tx, sorted(noted))
                    await outages.note_returns(tx, returned, silence=self._silence, at=at)
                await move_on(tx, table_of(Controller).c.seen_at, seconds)
                await outages.listen(tx, at=at)
        except BaseException:
            self._unwritten = noted | self._unwritten
            # By the time this succeeds another process may have missed whom we hear.
            for controller_id, heard_at in noted.items():
                earlier = returned.get(controller_id, [Presence.begun(heard_at)])
                self._returned[controller_id] = earlier + self._returned.get(controller_id, [])
            raise
        return len(noted)


async def _credentials(
    tx: AsyncSession, digests: Sequence[bytes], *, at: datetime
) -> Mapping[bytes, _Credential]:
    """Find whose credentials these are; nothing of those that are wrong, revoked or over."""
    rows = await tx.execute(_credentials_query(), {"digests": padded(digests)})
    found: dict[bytes, _Credential] = {}
    for row in rows:
        newest = KnownController(row.id, row.station_id, None)
        found[row.credential_hash] = _Credential(newest, row.credential_used)
        if row.previous_hash is not None and (
            row.previous_until is None or row.previous_until > at
        ):
            replaced = KnownController(row.id, row.station_id, row.previous_until)
            found[row.previous_hash] = _Credential(replaced, is_used=True)
    return found


@lru_cache(maxsize=1)
def _credentials_query() -> Any:
    c = table_of(Controller).c  # A row of the mapper's own costs more than all the rest.
    digests = sa.bindparam("digests", type_=c.credential_hash.type, expanding=True)
    return sa.select(
        c.id,
        c.station_id,
        c.credential_hash,
        c.credential_used,
        c.previous_hash,
        c.previous_until,
    ).where(
        c.retired_at.is_(None), sa.or_(c.credential_hash.in_(digests), c.previous_hash.in_(digests))
    )


async def _hold(tx: AsyncSession, ids: Sequence[uuid.UUID]) -> None:
    """Lock controllers in the order of their ids; counted, since to give them back costs more."""
    for start in range(0, len(ids), AT_ONCE):
        held = (
            sa.select(Controller.id)
            .where(Controller.id.in_(padded(ids[start : start + AT_ONCE])))
            .order_by(Controller.id)
            .with_for_update(key_share=True)
            .subquery()
        )
        await tx.execute(sa.select(sa.func.count()).select_from(held))


async def _mark_used(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    digest: bytes,
    *,
    at: datetime,
) -> None:
    """Note the first use of the newest credential: now the one before has an hour left."""
    result = await tx.execute(
        sa.update(Controller)
        .where(
            Controller.id == controller_id,
            Controller.credential_hash == digest,
            Controller.credential_used.is_(False),
            Controller.retired_at.is_(None),
        )
        .values(credential_used=True, previous_until=at + CREDENTIAL_OVERLAP, changed_at=at)
    )
    if moved(result):
        await wakeups.wake(tx, CREDENTIALS)
