"""Our own agent passes the examination; agents that are broken in one place fail on that rule."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent import journal as agent_journal
from app.agent.commands import Commands, Grant
from app.agent.contact import SimulatedDoor
from app.agent.journal import Journal
from app.agent.loop import Agent, run_agent
from app.agent.pace import Backoff, Pace
from app.agent.relay import SimulatedRelay
from app.agent.server import Server
from app.agent.state import Results
from app.conformance.rules import RULES, Outcome, Verdict
from app.conformance.scenes import SCENES, Examination, examine
from app.conformance.stage import Stage
from app.conformance.wire import Listener
from tests.conformance.jumping import JumpingLoop

BEGAN = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)


@dataclass
class Bench:
    """Our agent on a bench: somebody types, cuts its power, and lets people through its door."""

    folder: Path
    loop: JumpingLoop
    address: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    agent: asyncio.Task[None] | None = None

    @property
    def wire(self) -> Path:
        """Where the simulated relay writes its pulses."""
        return self.folder / "relay.jsonl"

    async def enter(self, code: str) -> None:
        """Start the agent with the code."""
        self.stop = asyncio.Event()
        pace = Pace(
            monotonic=self.loop.time,
            wall=lambda: BEGAN.timestamp() + self.loop.time(),
            sleep=asyncio.sleep,
            dice=random.Random(7),
        )
        door = SimulatedDoor(SimulatedRelay(self.wire), pace)
        self.agent = asyncio.create_task(
            run_agent(
                server_url=self.address,
                state_dir=self.folder,
                code=code,
                relay=door,
                contact=door,
                serial="S-1",
                firmware="9.9",
                stop=self.stop,
                pace=pace,
            )
        )

    async def reboot(self) -> None:
        """Stop the agent; start it again as it was started first."""
        await self.off()
        await self.enter(self.code)

    async def off(self) -> None:
        """Stop the agent."""
        self.stop.set()
        if self.agent is not None:
            await asyncio.wait({self.agent})

    async def move_door(self) -> None:
        """The simulated door moves by itself."""

    code: str = ""


def examined(folder: Path, *scenes: str) -> dict[str, Verdict]:
    """Let our agent be examined, in these scenes or in all; gives a verdict on each rule."""
    loop = JumpingLoop()

    async def whole() -> list[Verdict]:
        stage = Stage(
            monotonic=loop.time, now=lambda: BEGAN + timedelta(seconds=loop.time() - 1_000)
        )
        bench = Bench(folder, loop, code=stage.code)
        listener = Listener(stage)
        port = await listener.open("127.0.0.1", 0)
        bench.address = f"http://127.0.0.1:{port}"
        chosen = [scene for scene in SCENES if not scenes or scene.name in scenes]
        try:
            return await examine(Examination(stage, bench, wire=bench.wire), chosen)
        finally:
            await bench.off()
            await listener.close()

    try:
        found = loop.run_until_complete(whole())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    return {verdict.rule.name: verdict for verdict in found}


def failed(verdicts: dict[str, Verdict]) -> dict[str, str]:
    return {
        name: verdict.why
        for name, verdict in verdicts.items()
        if verdict.outcome is not Outcome.PASS
    }


def test_our_own_agent_passes_every_rule(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert failed(found) == {}
    assert found.keys() == RULES.keys()
