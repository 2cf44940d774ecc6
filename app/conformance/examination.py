"""One device before the played server: what scenes do to it with, and note of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from app.conformance.rules import (
    RULES,
    Outcome,
    Verdict,
)
from app.conformance.stage import Command, Seen, Stage, Twist, Usual, result_of
from app.conformance.wire import Answer

PATIENCE_S = 90.0
"""How long a device may take to come back, in seconds: silence for 75 s counts as offline."""

PERSON_S = 600.0
"""How long a person may take to do what was asked, in seconds."""

OUTAGE_S = 30.0
MOST_IN_OUTAGE = 25
"""Polls in an outage: random pauses that grow from 2 s to 10 s make about ten."""

PORTAL = "<!doctype html><title>Wi-Fi</title><p>Please accept our terms."


class Operator(Protocol):
    """The person beside the device."""

    async def enter(self, code: str) -> None:
        """Type address and code into the device."""

    async def reboot(self) -> bool:
        """Cut the device's power, and give it back; says whether somebody said that he did."""

    async def move_door(self) -> None:
        """Open and close the door, or make the device record something in another way."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of the examination, with the rules it judges."""

    name: str
    rules: Sequence[str]
    play: "Callable[[Examination], Awaitable[None]]"


@dataclass
class Examination:
    """One device before the played server."""

    stage: Stage
    operator: Operator
    wire: Path | None = None
    """A file to which something that watches the relay adds a line at each pulse."""
    wire_before: int = 0
    """Lines that stood there before."""
    told: Callable[[Verdict], None] = lambda verdict: None
    """Hears each verdict once, as soon as it is final."""
    begins: Callable[[Scene], None] = lambda scene: None
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def passed(self, name: str) -> None:
        """Note that a rule was kept."""
        self._note(Verdict(RULES[name], Outcome.PASS))

    def failed(self, name: str, why: str) -> None:
        """Note what the device did wrong."""
        self._note(Verdict(RULES[name], Outcome.FAIL, why))

    def not_seen(self, name: str, why: str) -> None:
        """Note why a rule could not be judged."""
        self._note(Verdict(RULES[name], Outcome.NOT_SEEN, why))

    def judge(self, name: str, fault: str) -> None:
        """Note a rule as failed if there is a fault, else as passed."""
        if fault:
            self.failed(name, fault)
        else:
            self.passed(name)

    def _note(self, verdict: Verdict) -> None:
        before = self.verdicts.get(verdict.rule.name)
        if before is None or before.outcome is not Outcome.FAIL:
            self.verdicts[verdict.rule.name] = verdict

    # What most scenes need

    async def calm(self) -> bool:
        """Wait until the device polls as in quiet times, its relay released."""
        self.stage.untwist()
        await self.released()
        return bool(await self.stage.until(lambda: self.stage.is_polled, within_s=PATIENCE_S))

    async def released(self) -> None:
        """Wait until the relay is off: a device may acknowledge as soon as it is on."""
        if (left := self.stage.released_at - self.stage.monotonic()) > 0:
            await asyncio.sleep(left)

    async def settled(self, command: Command, *, within_s: float = 15.0) -> Seen | None:
        """Wait for the ack of a command; None when none came."""
        found = await self.stage.until(
            lambda: self.stage.of("ack", command=command.id), within_s=within_s
        )
        return found[-1] if found else None

    async def opens(self, *twists: Twist, life_s: float = 10.0) -> tuple[Command, str]:
        """Tell of a command and wait for its result; gives a fault when it is not executed."""
        self.stage.once("claim", *twists)
        command = self.stage.tell(life_s=life_s)
        ack = await self.settled(command)
        command.shown = False
        if ack is None:
            claimed = self.stage.of("claim", command=command.id)
            return command, (
                "the command was claimed and no ack came" if claimed else "nothing was claimed"
            )
        if result_of(ack) != "executed":
            detail = ack.body.get("detail") if isinstance(ack.body, dict) else None
            return command, f"the ack says {result_of(ack)!r} ({detail!r}) in place of executed"
        return command, ""


def lost(of: Twist | None = None) -> Twist:
    """Do as usual, and cut the connection in place of the answer."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await (of(seen, usual) if of else usual())
        return replace(answer, lost=True)

    return twist


def says(answer: Answer) -> Twist:
    """Answer this, and do nothing else."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        return answer

    return twist


def stalled(seconds: float) -> Twist:
    """Do as usual, and hold the answer back."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await usual()
        await asyncio.sleep(seconds)
        return answer

    return twist


def trickling(seconds: float) -> Twist:
    """Do as usual, and let the answer come byte by byte."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        return replace(await usual(), over_s=seconds)

    return twist


def changed(**fields: Any) -> Twist:
    """Do as usual, and change fields of a good answer."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await usual()
        good = answer.status < 300 and isinstance(answer.json, dict)
        return replace(answer, json=answer.json | fields) if good else answer

    return twist


def field_of(seen: Seen, name: str) -> Any:
    """Give a field of what the device sent."""
    return seen.body.get(name) if isinstance(seen.body, dict) else None


def text_of(seen: Seen, name: str) -> str:
    """Give a field as text to compare by, whatever the device made of it."""
    return json.dumps(field_of(seen, name), sort_keys=True)


def answered(stage: Stage, status: int) -> Seen | None:
    """Give the last poll that was answered so."""
    for one in reversed(stage.of("poll")):
        if one.answer is not None and one.answer.status == status and one.ended_at is not None:
            return one
    return None


def status_of(seen: Seen) -> int | None:
    """Give the status of the answer to it; None while there is none."""
    return seen.answer.status if seen.answer else None
