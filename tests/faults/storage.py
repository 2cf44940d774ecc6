"""System calls of a running server: watched, or made to fail or to kill, by `strace`."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.agents import Child

SYNCS = "fdatasync,fsync"
WRITES = "pwrite64,fdatasync,fsync,ftruncate,unlink"
SENDS = "write,writev,sendto,sendmsg"


def strace() -> str | None:
    """Find strace; None when it is not installed."""
    return shutil.which("strace")


@contextlib.contextmanager
def attached(child: Child, *options: str, log: Path) -> Iterator[None]:
    """Trace a running process and all its threads while the block runs."""
    command = [strace() or "strace", "-f", "-q", "-o", str(log), *options]
    tracer = subprocess.Popen(
        [*command, "-p", str(child.process.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _until_attached(tracer, child)
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()


def _until_attached(tracer: "subprocess.Popen[bytes]", child: Child) -> None:
    """Wait until every thread of the process is traced."""
    until, ended_by = time.monotonic() + 120, 0.0
    while time.monotonic() < until:
        if not child.lives:
            return  # The call it was to die at came while it was being attached to.
        tasks = Path(f"/proc/{child.process.pid}/task")
        tracers = []
        with contextlib.suppress(OSError):  # A thread, or the process, may end meanwhile.
            tracers = [
                re.search(r"TracerPid:\t(\d+)", (task / "status").read_text())
                for task in tasks.iterdir()
            ]
        if tracers and all(found and found[1] != "0" for found in tracers):
            return
        if tracer.poll() is not None:
            # With the process, most likely: of whose end word may come a moment later.
            ended_by = min(until, ended_by or time.monotonic() + 5)
            if time.monotonic() > ended_by:
                assert tracer.stderr is not None
                raise RuntimeError(f"strace ended: {tracer.stderr.read().decode()[-300:]}")
        time.sleep(0.02)
    raise RuntimeError("strace did not attach within two minutes")


_CALL = re.compile(r"^\d+\s+(?P<call>\w+)\((?P<fd>\d+)<(?P<file>[^>]*)>(?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. (?P<call>\w+) resumed>")
_BEGUN = re.compile(r"^(?P<pid>\d+)\s+(?P<call>\w+)\(\d+<(?P<file>[^>]*)>.*<unfinished \.\.\.>$")


def early_answers(log: Path) -> tuple[int, list[str]]:
    """Count the good answers in a trace, and give those sent over writes that were not synced.

    An answer is early when the write-ahead log was written to after its last finished sync.
    """
    unsynced = 0
    answers, early = 0, []
    pending: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        begun = _BEGUN.match(line)
        if begun and begun["call"] in ("fdatasync", "fsync"):
            pending[begun["pid"]] = begun["file"]
            continue
        resumed = _RESUMED.match(line)
        if resumed and resumed["call"] in ("fdatasync", "fsync"):
            if pending.pop(resumed["pid"], "").endswith("-wal"):
                unsynced = 0
            continue
        call = _CALL.match(line)
        if call is None:
            continue
        if call["file"].endswith("-wal"):
            if call["call"] == "pwrite64":
                unsynced += 1
            elif call["call"] in ("fdatasync", "fsync"):
                unsynced = 0
        elif call["call"] in SENDS and re.search(r"HTTP/1\.1 20[01]", call["rest"]):
            answers += 1
            if unsynced:
                early.append(f"a good answer over {unsynced} unsynced writes")
    return answers, early
