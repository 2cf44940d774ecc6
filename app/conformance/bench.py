"""The bench: a device, a person beside it, and the report of an examination."""

import asyncio
import contextlib
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.clock import Monotonic, Now
from app.conformance.examination import Examination, Scene
from app.conformance.rules import Outcome, Verdict
from app.conformance.scenes.order import SCENES, examine
from app.conformance.stage import Stage
from app.conformance.wire import Listener

BLIND = (
    "From here it is seen what the device says, not what its relay does. Only --wire FILE, or a"
    " person with a meter, judges that no pulse comes without an executed command, that one command"
    " pulses once, how long the pulse lasts, and that neither a power cut nor the end or the return"
    " of the network pulses. The device's own word, pulse_after_claim_ms, is believed. Not tried at"
    " all: TLS, the change of a credential after 30 days, a full journal, readers and screens."
)
"""What no verdict below stands for."""


class NoSuchScene(OSError):
    """No scene has this name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be examined, and where it is listened."""

    port: int
    lan: bool
    scenes: Sequence[str]
    wire: Path | None


Say = Callable[[str], None]


def chosen(names: Sequence[str]) -> Sequence[Scene]:
    """Find scenes by name, in the order of the examination; all of them without a name."""
    known = [scene.name for scene in SCENES]
    for name in names:
        if name not in known:
            raise NoSuchScene(f"no scene is called {name}; there are {', '.join(known)}")
    return [scene for scene in SCENES if not names or scene.name in names]


def line_of(verdict: Verdict) -> str:
    """Write a verdict as one line."""
    why = f" - {verdict.why}" if verdict.why else ""
    return f"{verdict.outcome:<8} {verdict.rule.name:<20} {verdict.rule.tried}{why}"


def report_of(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Write verdicts for a machine."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {
        "passed": counts[Outcome.PASS],
        "failed": counts[Outcome.FAIL],
        "not_seen": counts[Outcome.NOT_SEEN],
        "rules": [
            {
                "rule": verdict.rule.name,
                "tried": verdict.rule.tried,
                "outcome": verdict.outcome.value,
                "why": verdict.why or None,
            }
            for verdict in verdicts
        ],
        "not_judged": BLIND,
    }


class Person:
    """Whoever sits at the terminal, beside the device."""

    def __init__(self, say: Say, address: str) -> None:
        self._say = say
        self._address = address

    async def enter(self, code: str) -> None:
        """See Operator."""
        self._say(f"Type into the device:  server {self._address}  code {code}")

    async def reboot(self) -> bool:
        """See Operator."""
        self._say("Cut the device's power, wait until it is off, and give it back.")
        if not sys.stdin.isatty():
            return False
        self._say("Press Enter when it runs again.")
        pressed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, pressed.set)
        try:
            await pressed.wait()
            sys.stdin.readline()
        finally:
            loop.remove_reader(sys.stdin)
        return True

    async def move_door(self) -> None:
        """See Operator."""
        self._say(
            "Open and close the door, or make the device record an event in another way (60 s)."
        )


async def run(plan: Plan, say: Say, *, monotonic: Monotonic, now: Now) -> list[Verdict]:
    """Listen, let a person bring the device, and examine it; `say` takes what he is to know.

    Raises OSError: the port is taken, or no scene has this name.
    """
    scenes = chosen(plan.scenes)
    stage = Stage(monotonic=monotonic, now=now)
    listener = Listener(stage)
    port = await listener.open("0.0.0.0" if plan.lan else "127.0.0.1", plan.port)
    address = f"http://{lan_address() if plan.lan else '127.0.0.1'}:{port}"
    before = _lines(plan.wire)
    examination = Examination(
        stage,
        Person(say, address),
        wire=plan.wire,
        wire_before=before,
        told=lambda verdict: say(line_of(verdict)),
        begins=lambda scene: say(f"-- {scene.name}"),
    )
    try:
        return await examine(examination, scenes)
    finally:
        await listener.close()


def _lines(wire: Path | None) -> int:
    return len(wire.read_bytes().splitlines()) if wire is not None and wire.exists() else 0


def lan_address() -> str:
    """Give this machine's address in its network; asks the routing table, sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        found: str = probe.getsockname()[0]
        if not found.startswith("127."):
            return found
    raise OSError("this machine has no address in a network; run without the LAN")


def printed(report: dict[str, Any]) -> str:
    """Write a report as JSON text."""
    return json.dumps(report, indent=1, ensure_ascii=False)
