"""The reader at a door: what hands over the text of a code that somebody shows."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from app.agent import AgentError
from app.agent.pace import Pace
from app.agent.passes import Answer

logger = logging.getLogger(__name__)

LONGEST_LINE = 2048
SAME_AGAIN_S = 3.0
"""A reader sees one phone many times a second; the same text counts once in so many seconds."""

Judge = Callable[[str, str], Awaitable[Answer]]
"""Called with a door's id and the text that was shown there."""


class Reader(Protocol):
    """What sees the codes that are shown at doors."""

    async def serve(self, judge: Judge) -> None:
        """Hand over each text that is shown, for as long as the agent lives."""
        ...


class ReaderUnusable(AgentError):
    """The reader that was asked for cannot be used here."""


class LineReader:
    """Readers that write a line per code: a serial or USB scanner's device, or a named pipe."""

    def __init__(self, paths: Mapping[str, Path], pace: Pace) -> None:
        self._paths = paths
        self._pace = pace

    async def serve(self, judge: Judge) -> None:
        """See `Reader`."""
        async with asyncio.TaskGroup() as tasks:
            for door, path in self._paths.items():
                tasks.create_task(self._read(door, path, judge))

    async def _read(self, door: str, path: Path, judge: Judge) -> None:
        with contextlib.ExitStack() as stack:
            lines = await _opened(path, stack)
            last, at = "", float("-inf")
            while True:
                try:
                    raw = await lines.readline()
                except ValueError:  # Longer than any code: the rest of it is no code either.
                    continue
                if not raw:
                    logger.error("reader is gone door=%s path=%s", door, path)
                    return
                text = raw.decode("ascii", "replace").strip()
                now = self._pace.monotonic()
                if not text or (text == last and now - at < SAME_AGAIN_S):
                    continue
                last, at = text, now
                await judge(door, text)


async def _opened(path: Path, stack: contextlib.ExitStack) -> asyncio.StreamReader:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    try:
        # For writing too, so that a pipe does not end with its first writer.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
        stack.callback(file.close)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), file
        )
    except (OSError, ValueError) as error:
        raise ReaderUnusable(f"the reader {path} cannot be opened: {error}") from error
    stack.callback(transport.close)
    return lines
