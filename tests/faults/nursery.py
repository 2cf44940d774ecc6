"""Where processes of the product come from quickly: one that has imported it all, and forks.

A trial that kills a server two hundred times would spend most of its time on imports. So one
process imports the product, with the seeded bug in it, and forks a child for each start. The
children are processes like any other, to be killed, frozen and traced; they die with the nursery,
and that with the trial.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAUSE_S = 0.005


@dataclass(slots=True)
class Sprung:
    """A forked process, handled as one handles a `Popen`."""

    pid: int
    exit: Path
    """Appears when it has ended, and says how."""
    returncode: int | None = None

    def poll(self) -> int | None:
        """Say how it ended, if it did."""
        if self.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                self.returncode = int(self.exit.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("forked", timeout or 0)
            time.sleep(PAUSE_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


@dataclass(slots=True)
class Nursery:
    """The trial's side of it."""

    process: "subprocess.Popen[bytes]"
    exits: Path
    count: int = field(default=0)

    @classmethod
    def open(cls, command: Sequence[str], exits: Path, *, log: Path, **how: object) -> "Nursery":
        """Start the process that forks."""
        exits.mkdir(exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(  # type: ignore[call-overload]
                [*command, str(exits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                **how,
            )
        return cls(process, exits)

    def spring(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> Sprung:
        """Fork a process that does what the arguments say."""
        self.count += 1
        exit = self.exits / str(self.count)
        wanted = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "log": str(log),
            "exit": str(exit),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError("the nursery is gone")
        return Sprung(int(said), exit)

    def close(self) -> None:
        """End it; its children die with it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def serve(begin: Callable[[Sequence[str]], None], ready: Callable[[], None]) -> None:
    """Fork what is asked for on stdin until it ends; `begin` is what a child does."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    exits: dict[int, Path] = {}
    rest = b""
    while True:
        heard, _, _ = select.select([0, wake], [], [])
        if wake in heard:
            os.read(wake, 4096)
            _reap(exits)
        if 0 in heard:
            read = os.read(0, 65_536)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                wanted = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    for pipe in (wake, waker):
                        os.close(pipe)
                    _child(wanted, begin, ready)
                exits[pid] = Path(wanted["exit"])
                os.write(1, f"{pid}\n".encode())


def _reap(exits: dict[int, Path]) -> None:
    while exits:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = exits.pop(pid)
        new = told.with_suffix(".new")
        new.write_text(str(os.waitstatus_to_exitcode(status)))
        new.replace(told)


def _child(
    wanted: Mapping[str, object], begin: Callable[[Sequence[str]], None], ready: Callable[[], None]
) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ready()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(str(wanted["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for new, old in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(new, old)
        os.close(nothing)
        os.close(log)
        os.environ.update(wanted["environment"])  # type: ignore[arg-type]
        begin(wanted["arguments"])  # type: ignore[arg-type]
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
