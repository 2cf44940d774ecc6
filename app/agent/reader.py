"""The reader at a door: what hands over the text of a code that somebody shows."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from app.agent import AgentError
from app.agent.pace import Backoff, Pace
from app.agent.passes import Answer

logger = logging.getLogger(__name__)

LONGEST_LINE = 2048
SAME_AGAIN_S = 3.0
"""A reader sees one phone many times a second; the same text counts once in so many seconds."""

AGAIN_MOST_S = 30.0
"""A reader that is gone is looked for at least this often, in seconds."""

Judge = Callable[[str, str], Awaitable[Answer]]
"""Called with a door's id and the text that was shown there."""

Note = Callable[[str, str], None]
"""Called with a door's id and what became of its reader: `reader_gone` or `reader_back`."""


class Reader(Protocol):
    """What sees the codes that are shown at doors."""

    async def serve(self, judge: Judge, note: Note) -> None:
        """Hand over each text that is shown, for as long as the agent lives."""
        ...


class ReaderUnusable(AgentError):
    """The reader that was asked for cannot be used here."""


class LineReader:
    """Readers that write a line per code: a serial or USB scanner's device, or a named pipe.

    One that is not there, or goes away, is looked for until it is back; the others, and the doors,
    go on meanwhile.
    """

    def __init__(self, paths: Mapping[str, Path], pace: Pace) -> None:
        self._paths = paths
        self._pace = pace

    async def serve(self, judge: Judge, note: Note) -> None:
        """See `Reader`; raises ReaderUnusable for a path that can never be a reader."""
        for path in self._paths.values():
            if path.is_file() or path.is_dir():
                raise ReaderUnusable(f"the reader {path} is neither a device nor a pipe")
        async with asyncio.TaskGroup() as tasks:
            for door, path in self._paths.items():
                tasks.create_task(self._follow(door, path, judge, note))

    async def _follow(self, door: str, path: Path, judge: Judge, note: Note) -> None:
        """Read one reader, over all its absences."""
        backoff = Backoff(self._pace, first_s=1, most_s=AGAIN_MOST_S)
        is_gone = False

        async def works(text: str) -> None:
            nonlocal is_gone
            if is_gone:
                # Not before it read something: one with a loose plug would fill the journal.
                is_gone = False
                logger.warning("reader is back door=%s path=%s", door, path)
                note(door, "reader_back")
            backoff.reset()
            await self._judged(door, text, judge)

        while True:
            why = await self._read(path, works)
            if not is_gone:
                is_gone = True
                logger.error("reader is gone door=%s path=%s why=%s", door, path, why)
                note(door, "reader_gone")
            await self._pace.sleep(backoff.next())

    async def _read(self, path: Path, works: Callable[[str], Awaitable[None]]) -> str:
        """Hand over what a reader reads until it goes away; says why it did."""
        with contextlib.ExitStack() as stack:
            try:
                lines = await _opened(path, stack)
            except (OSError, ValueError) as error:
                return str(error)
            last, at = "", float("-inf")
            while True:
                try:
                    raw = await lines.readline()
                except ValueError:  # Longer than any code: the rest of it is no code either.
                    continue
                except OSError as error:
                    return str(error)
                if not raw:
                    return "it hung up"
                text = raw.decode("ascii", "replace").strip()
                now = self._pace.monotonic()
                if not text or (text == last and now - at < SAME_AGAIN_S):
                    continue
                await works(text)
                # From when he was answered: until then his phone was before the reader.
                last, at = text, self._pace.monotonic()

    async def _judged(self, door: str, text: str, judge: Judge) -> None:
        try:
            await judge(door, text)
        except Exception:
            # One pass that went wrong in a way nobody thought of leaves the next ones alone.
            logger.exception("pass abandoned door=%s", door)


async def _opened(path: Path, stack: contextlib.ExitStack) -> asyncio.StreamReader:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    # For writing too, so that a pipe does not end with its first writer; never as the terminal of
    # this process, which would end with it.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY), "rb", buffering=0)
    stack.callback(file.close)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), file
    )
    stack.callback(transport.close)
    return lines
