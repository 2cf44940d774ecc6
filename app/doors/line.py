"""A line for what can wait: a few at a time are served, and those who came last come first.

After an outage a whole city comes at once, and whoever waits for an answer gives up after 10 s.
First come, first served would then serve only those who are about to give up: all of the work would
be for callers who are gone, and nobody would ever be done. Whoever came last has most time left.
Nobody stands longer than 5 s: then he is told when to come back, each at another moment, so that
as many come as can be served.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.clock import Monotonic
from app.errors import Unavailable

WAIT_S = 5.0
"""How long somebody stands in line, in seconds; an agent gives up on an answer after 10."""

LEAST_S, MOST_S = 2, 60
"""Within which we ask to be asked again, in seconds."""

EMBEDDED_UPLOADS = 1
UPLOADS = 4
"""How many journals go on side by side where the database takes several; below its pool."""

LATEST = 0.05
"""How much the latest time in service weighs in their mean."""


class ServerBusy(Unavailable):
    """Many controllers want something just now; please come back in a while."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__()


class Line:
    """The line of one process for so many places."""

    def __init__(
        self,
        places: int,
        *,
        monotonic: Monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._places = places
        self._free = places
        self._monotonic = monotonic
        self._dice = dice
        self._waiting: list[asyncio.Future[None]] = []
        self._mean_s = 0.0
        """How long one is in service."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place; raises ServerBusy when there was none for so long."""
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        began = self._monotonic()
        try:
            yield
        finally:
            self._mean_s += LATEST * (self._monotonic() - began - self._mean_s)
            self._pass_on()

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        end = loop.call_later(WAIT_S, self._put_off, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                self._pass_on()  # The place was ours already.
            raise
        finally:
            end.cancel()

    def _put_off(self, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting:
            retry_after_s = self._later()
            self._waiting.remove(turn)
            turn.set_exception(ServerBusy(retry_after_s))

    def _later(self) -> int:
        """Spread who is put off over twice the time in which all who stand here were served."""
        drained_s = len(self._waiting) * self._mean_s / self._places
        return round(min(max(LEAST_S, 2 * drained_s * self._dice()), MOST_S))

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
