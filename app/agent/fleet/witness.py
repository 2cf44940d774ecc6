"""The witness: hears what passes between controllers and server, and counts broken laws.

It keeps to the machine's own clock, which no virtual fault touches, and takes no part.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Law(StrEnum):
    """What must never happen (laws 3 and 13)."""

    TWICE = "pulsed twice"
    LATE = "pulsed past its deadline"
    UNGRANTED = "pulsed without a grant"


@dataclass(slots=True)
class Witness:
    """What happened to every command that this fleet heard of."""

    drift: float = 0.0
    """How much slower than ours a controller's clock may run, as a share."""
    told: dict[str, float] = field(default_factory=dict)
    """When a poll first told of a command."""
    pulsed: set[str] = field(default_factory=set)
    broken: list[tuple[Law, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """From a command's telling to its pulse, one figure for each."""
    _deadlines: dict[str, float] = field(default_factory=dict)
    _earlier: int = 0

    def remember(self, commands: Iterable[str]) -> None:
        """Take over what an earlier run of this fleet pulsed."""
        self.pulsed.update(commands)
        self._earlier = len(self.pulsed)

    @property
    def pulses(self) -> int:
        """How many pulses this run made."""
        return len(self.pulsed) - self._earlier + self.count(Law.TWICE)

    @property
    def unpulsed(self) -> int:
        """How many of the commands we were told of had no pulse: lost, late or refused."""
        return len(self.told.keys() - self.pulsed)

    def count(self, law: Law) -> int:
        """Say how often a law was broken."""
        return Counter(kind for kind, _ in self.broken)[law]

    def tell(self, command: str, *, at: float) -> None:
        """A poll's answer named this command."""
        self.told.setdefault(command, at)

    def grant(self, command: str, *, sent_at: float, ttl_s: float) -> None:
        """A claim sent at this instant was granted.

        Each grant holds until `sent_at + ttl_s`, and none reaches beyond the command's time; so of
        two the later counts.
        """
        until = sent_at + ttl_s * (1 + self.drift)
        self._deadlines[command] = max(until, self._deadlines.get(command, until))

    def pulse(self, command: str, *, at: float) -> None:
        """The relay was energised for this command."""
        if command in self.pulsed:
            self.broken.append((Law.TWICE, command))
        self.pulsed.add(command)
        deadline = self._deadlines.get(command)
        if deadline is None:
            self.broken.append((Law.UNGRANTED, command))
        elif at > deadline:
            self.broken.append((Law.LATE, command))
        if command in self.told:
            self.seconds.append(at - self.told[command])


def pulses_in(log: Path) -> list[str]:
    """Read which commands a relay log names; a torn last line names none."""
    found = []
    if log.exists():
        for line in log.read_bytes().splitlines():
            try:
                found.append(str(json.loads(line)["command"]))
            except (ValueError, KeyError, TypeError):
                continue
    return found
