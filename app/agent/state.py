"""What the agent keeps on disk, written so that a power cut leaves the old or the new."""

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.agent import AgentError

logger = logging.getLogger(__name__)

LONGEST_LOG_BYTES = 65_536
"""The file of results is written anew beyond this size, in bytes, once nothing is waiting."""


class StateLocked(AgentError):
    """Another agent uses this state folder."""


class StateFolder:
    """The agent's own folder: only its owner reads it, only one agent uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; raises `StateLocked` when another process or task holds it."""
        # The folder itself: a file for this could not be opened on a disk that refuses writes.
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateLocked(f"another agent uses {self.path}") from error
            yield
        finally:
            os.close(folder)

    def read(self, name: str) -> dict[str, Any]:
        """Read one JSON object; empty when it was never written or cannot be read."""
        try:
            kept = json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            logger.warning("state cannot be read file=%s why=%s", name, error)
            return {}
        return kept if isinstance(kept, dict) else {}

    def write(self, name: str, kept: dict[str, Any]) -> None:
        """Replace one JSON object; it is on the disk when this returns."""
        self.replace(name, json.dumps(kept, ensure_ascii=False).encode())

    def write_if_possible(self, name: str, kept: dict[str, Any]) -> None:
        """Replace one JSON object that the agent can work with even if the disk refuses it.

        A box whose disk is full or worn out goes on opening; after a power cut it knows less.
        """
        try:
            self.write(name, kept)
        except OSError as error:
            logger.error("state not kept file=%s why=%s", name, error)

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file as a whole, readable by its owner only."""
        new = self.path / f"{name}.new"
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)
        self._sync()

    def remove(self, name: str) -> None:
        """Remove a file, if there is one; it is gone from the disk when this returns."""
        (self.path / name).unlink(missing_ok=True)
        self._sync()

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Add one JSON line; it is on the disk when this returns."""
        append_line(self.path / name, line)

    def content(self, name: str) -> bytes:
        """Read a file as a whole; empty when there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return b""

    def size(self, name: str) -> int:
        """Say how long a file is, in bytes."""
        return (self.path / name).stat().st_size

    def _sync(self) -> None:
        """Bring what the folder lists to the disk."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one JSON line to a file of lines, in one write, and fsync it.

    Raises OSError; the file may then end in the middle of a line.
    """
    content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.write(file, content) < len(content):
            # A disk at its last block takes what it can, and says nothing.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file)
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one command that the server granted to us."""

    command: str

    boot_id: str
    """The boot that claimed the command; a late ack names it, not the present one."""

    result: Literal["executed", "refused", "failed"]

    pulse_after_claim_ms: int | None = None
    """Milliseconds from sending the claim to the pulse; None when there was none."""

    detail: str | None = None


class Results:
    """Results the server has not acknowledged; they outlive a restart (late acks, law 3)."""

    FILE = "results.jsonl"

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._unacked: dict[str, Result] = dict(self._read())
        self._is_torn = True
        """Whether the file may end in the middle of a line, which the next one must not go on."""
        try:
            self._compact()
        except OSError as error:
            # A full disk keeps no box from starting; what waits is in memory, and in the file.
            logger.error("results not tidied why=%s", error)
        self.waiting = asyncio.Event()
        """Set while there are unacknowledged results."""
        self.news = asyncio.Event()
        """Set when there is a new result, or a new reason to try the old ones."""
        if self._unacked:
            self.waiting.set()

    def add(self, result: Result) -> None:
        """Keep a result until it is acknowledged.

        A full disk does not keep the server from hearing it: the ack goes out all the same.
        """
        self._unacked[result.command] = result
        self.waiting.set()
        self.news.set()
        try:
            self._write(asdict(result))
        except OSError as error:
            logger.error("result not kept command=%s why=%s", result.command, error)

    def unacked(self) -> list[Result]:
        """Give what still waits for the server, oldest first."""
        return list(self._unacked.values())

    def settle(self, result: Result) -> None:
        """Forget a result that the server has answered."""
        self._unacked.pop(result.command, None)
        try:
            self._write({"settled": result.command})
            if not self._unacked and self._state.size(self.FILE) > LONGEST_LOG_BYTES:
                self._compact()
        except OSError as error:
            # The ack goes out once more after a restart, and the server answers as before.
            logger.error("settled result not kept command=%s why=%s", result.command, error)
        if not self._unacked:
            self.waiting.clear()

    def _write(self, line: dict[str, Any]) -> None:
        """Bring one change to the disk."""
        if self._is_torn:
            self._compact()
            return
        self._is_torn = True
        self._state.append(self.FILE, line)
        self._is_torn = False

    def _compact(self) -> None:
        lines = (json.dumps(asdict(result), ensure_ascii=False) for result in self.unacked())
        self._state.replace(self.FILE, "".join(line + "\n" for line in lines).encode())
        self._is_torn = False

    def _read(self) -> dict[str, Result]:
        found: dict[str, Result] = {}
        for line in self._state.content(self.FILE).splitlines():
            try:
                kept = json.loads(line)
                if "settled" in kept:
                    found.pop(kept["settled"], None)
                else:
                    found[kept["command"]] = Result(**kept)
            except (ValueError, TypeError, KeyError):
                logger.warning("unreadable line in file=%s", self.FILE)
        return found
