"""Histories of what was tried and what came of it, and the checkers that judge them.

A history is a file of JSON lines. An operation begins with `invoke` and ends with `ok`, with `fail`
(it certainly had no effect), or with `info`: nobody knows, and it may take effect at any later
time. A time-out is `info`, never `fail`: taking it for a failure is the classic mistake of such
checkers.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

DEADLINE_NS = 10_000_000_000
"""No pulse is later than this after its scan was read (law 3)."""

End = Literal["ok", "fail", "info"]


@dataclass(slots=True)
class Operation:
    """One thing that a client tried."""

    name: str
    value: Any
    begun_ns: int
    end: End = "info"
    ended_ns: int | None = None
    """None: it may still take effect."""
    answer: Any = None


@dataclass(slots=True)
class History:
    """Writes operations down as they begin and end; the file is what a failure leaves behind."""

    path: Path
    operations: list[Operation] = field(default_factory=list)

    def begin(self, name: str, value: Any = None) -> Operation:
        """Note that something is being tried."""
        operation = Operation(name, value, time.monotonic_ns())
        self.operations.append(operation)
        self._write("invoke", operation, operation.begun_ns)
        return operation

    def end(self, operation: Operation, end: End, answer: Any = None) -> None:
        """Note how it ended."""
        operation.end, operation.answer = end, answer
        now = time.monotonic_ns()
        operation.ended_ns = None if end == "info" else now
        self._write(end, operation, now)

    def _write(self, what: str, operation: Operation, at_ns: int) -> None:
        line = {
            "what": what,
            "operation": id(operation),
            "name": operation.name,
            "value": operation.value,
            "answer": operation.answer,
            "monotonic_ns": at_ns,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a last line that a kill tore off is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Pulse:
    """One line of a relay log."""

    command: str
    door: str
    at_ns: int
    log: str
    """Whose relay it was."""
    boot: str | None = None
    """In which boot of the agent; None where its relay does not say."""


def pulses_in(logs: Iterable[Path]) -> list[Pulse]:
    """Read relay logs, in the order of time."""
    found = [
        Pulse(
            line["command"],
            line["door"],
            line["monotonic_ns"],
            log.parent.name,
            line.get("boot_id"),
        )
        for log in logs
        for line in read_lines(log)
    ]
    return sorted(found, key=lambda pulse: pulse.at_ns)


def at_most_once(pulses: Iterable[Pulse]) -> list[str]:
    """Say which commands pulsed a relay more than once."""
    times: dict[str, list[Pulse]] = {}
    for pulse in pulses:
        times.setdefault(pulse.command, []).append(pulse)
    return [
        f"command {command} pulsed {len(found)} times, by {sorted({one.log for one in found})}"
        for command, found in times.items()
        if len(found) > 1
    ]


def only_granted(pulses: Iterable[Pulse], granted: Mapping[str, str]) -> list[str]:
    """Say which pulses had no claim that the server had granted: to that boot, if it is known."""
    found = []
    for pulse in pulses:
        boot = granted.get(pulse.command)
        if boot is None:
            found.append(f"command {pulse.command} pulsed at {pulse.log} without a granted claim")
        elif pulse.boot not in (None, boot):
            found.append(f"command {pulse.command} pulsed at {pulse.log}, granted to another boot")
    return found


def within_deadline(pulses: Iterable[Pulse], read_ns: Mapping[str, int]) -> list[str]:
    """Say which pulses came later than 10 s after their request had been read."""
    found = []
    for pulse in pulses:
        read = read_ns.get(pulse.command)
        if read is None:
            found.append(f"command {pulse.command} pulsed, and nobody asked for it")
        elif pulse.at_ns - read > DEADLINE_NS:
            late = (pulse.at_ns - read) / 1e9
            found.append(f"command {pulse.command} pulsed {late:.3f} s after its scan was read")
    return found


def waits_ns(pulses: Iterable[Pulse], read_ns: Mapping[str, int]) -> list[int]:
    """Give the time from each reading to its pulse, in nanoseconds."""
    return [pulse.at_ns - read_ns[pulse.command] for pulse in pulses if pulse.command in read_ns]


def set_full(
    added: Sequence[Operation], final: Iterable[Any], *, what: str = "element"
) -> list[str]:
    """Judge a set to which operations add their `value`, by what is in it at the end.

    Acknowledged must be there (else lost), once (else duplicated); what failed or was never tried
    must not be there (phantom); `info` may be there or not.
    """
    count = Counter(final)
    tried = {operation.value: operation.end for operation in added if operation.end != "fail"}
    lost = [value for value, end in tried.items() if end == "ok" and not count[value]]
    return [
        *(f"{what} {value} was acknowledged and is lost" for value in lost),
        *(f"{what} {value} is there {n} times" for value, n in count.items() if n > 1),
        *(
            f"{what} {value} is there, and nobody put it in"
            for value in count
            if value not in tried
        ),
    ]


def within_bounds(changes: Sequence[Operation], reads: Sequence[Operation]) -> list[str]:
    """Judge reads of a counter that operations change by their `value`, positive or negative.

    A read lies between two bounds: what had surely happened before it, and what may have happened
    by its end.
    """
    found = []
    done = [change for change in changes if change.end != "fail"]
    for read in reads:
        if read.end != "ok" or read.ended_ns is None:
            continue
        low = high = 0
        for change in done:
            if change.begun_ns > read.ended_ns:
                continue
            surely = (
                change.end == "ok"
                and change.ended_ns is not None
                and change.ended_ns <= read.begun_ns
            )
            low += change.value if surely or change.value < 0 else 0
            high += change.value if surely or change.value > 0 else 0
        if not low <= read.answer <= high:
            found.append(f"{read.name} read {read.answer}, outside {low}..{high}")
    return found
