"""Reads for thousands who ask for one row each, many of them in one statement.

Whoever merely begins can wait for a moment: one read serves all that came meanwhile. Whoever is in
a hurry is read for at once, and so is the first one after a quiet moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

APART_S = 0.2
"""Reads for those who are in no hurry are so far apart, in seconds."""

MOST = 256
"""Keys in one read."""


class Gathered(Generic[K, V]):
    """Reads for whoever asks; what it gives was read after it was asked for."""

    def __init__(
        self,
        read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        apart_s: float = APART_S,
    ) -> None:
        self._read_many = read
        self._apart_s = apart_s
        self._asked: list[tuple[K, asyncio.Future[V | None]]] = []
        self._hurry = False
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, key: K, *, at_once: bool = False) -> V | None:
        """Give what the read finds for a key; None when it finds nothing."""
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._asked.append((key, answer))
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
        self._not_before = asyncio.get_running_loop().time() + self._apart_s
        try:
            found = await self._read_many([key for key, _ in asked])
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for key, answer in asked:
                if not answer.done():  # Whoever asked may have gone away.
                    answer.set_result(found.get(key))
        finally:
            self._reading = None
            self._plan()


def padded(keys: Sequence[K]) -> list[K]:
    """Repeat the last key up to a power of two, so that the database has planned each length."""
    length = 1 << (len(keys) - 1).bit_length()
    return [*keys, *([keys[-1]] * (length - len(keys)))]
