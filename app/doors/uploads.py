"""The queue of the journals: a few uploads at a time go to the database.

After an outage a whole city brings its journals at once. On SQLite every writing transaction stands
in one line, and a claim that waited behind thousands of uploads would come too late for its door
(promise R16).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import Unavailable

WAIT_S = 5.0
"""How long an upload waits for its place, in seconds; an agent gives up on an answer after 10."""

EMBEDDED_PLACES = 1
PLACES = 4
"""How many uploads go on side by side where the database takes several; below its pool."""


class UploadsBusy(Unavailable):
    """Many journals are being uploaded just now; please bring this one again in a while."""

    retry_after_s = 5


class UploadQueue:
    """The line of uploads of one process."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place while an upload is written; raises UploadsBusy after a while."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise UploadsBusy from None
        try:
            yield
        finally:
            self._places.release()
