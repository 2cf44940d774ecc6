"""What the polls of thousands of controllers see, read for many of them in one statement.

A poll that merely begins can wait for a moment: one read serves all that began meanwhile. A poll
whose bell rang is read for at once, and so is the first one after a quiet moment.
"""

import asyncio
import uuid

from app.clock import Now
from app.db.clock import DeadlineClock
from app.db.engine import Database
from app.doors.commands import Outlook, outlooks

GATHER_S = 0.05
"""Reads for polls that merely begin are so far apart, in seconds."""

MOST = 256
"""Controllers in one read."""


class Lookout:
    """Reads for whoever asks; what it gives was read after it was asked for."""

    def __init__(self, database: Database, clock: DeadlineClock, now: Now) -> None:
        self._database = database
        self._clock = clock
        self._now = now
        self._asked: list[tuple[uuid.UUID, asyncio.Future[Outlook | None]]] = []
        self._hurry = False
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None

    async def look(self, controller_id: uuid.UUID, *, at_once: bool) -> Outlook | None:
        """Say what a controller has to do; None when it was retired."""
        answer: asyncio.Future[Outlook | None] = asyncio.get_running_loop().create_future()
        self._asked.append((controller_id, answer))
        self._hurry = self._hurry or at_once
        self._plan()
        return await answer

    def _plan(self) -> None:
        """See to it that what was asked for is read, now or soon."""
        if self._reading is not None or not self._asked:
            return
        loop = asyncio.get_running_loop()
        is_due = loop.time() >= self._not_before or len(self._asked) >= MOST
        if self._hurry or is_due:
            if self._timer is not None:
                self._timer.cancel()
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_at(self._not_before, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        asked, self._asked = self._asked[:MOST], self._asked[MOST:]
        self._hurry = self._hurry and bool(self._asked)
        self._not_before = asyncio.get_running_loop().time() + GATHER_S
        try:
            async with self._database.read() as tx:
                ids = [controller_id for controller_id, _ in asked]
                seen = await outlooks(tx, ids, clock=self._clock, at=self._now())
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for controller_id, answer in asked:
                if not answer.done():  # Its poll may have gone away.
                    answer.set_result(seen.get(controller_id))
        finally:
            self._reading = None
            self._plan()
