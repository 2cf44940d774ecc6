"""One writing process per data folder, as long as the database is embedded."""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class DataDirLocked(RuntimeError):
    """Another process writes to this data folder."""


class WriterLock:
    """Holds `DATA_DIR/lock` while this process writes; the kernel frees it at its end."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._fd: int | None = None

    def __enter__(self) -> "WriterLock":
        """Take the lock, or raise DataDirLocked with the holder's process id."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise DataDirLocked(
                f"process {holder} already writes to {self._path.parent}; "
                "stop it first, or use its API"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
