"""Our own agent passes the examination; agents that are broken in one place fail on that rule."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from json import dumps
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent import commands as agent_commands
from app.agent import journal as agent_journal
from app.agent import loop as agent_loop
from app.agent import relay as agent_relay
from app.agent import server as agent_server
from app.agent.commands import Commands, Grant
from app.agent.contact import SimulatedDoor
from app.agent.journal import Journal
from app.agent.loop import Agent, run_agent
from app.agent.pace import Backoff, Pace, Patience
from app.agent.relay import SimulatedRelay
from app.agent.server import Server
from app.api.controller.config import (
    ConfigOut,
    DoorOut,
    FacilityOut,
    LimitsOut,
    OfflinePolicyOut,
    StationOut,
)
from app.api.controller.polls import CommandsOut
from app.conformance.examination import Examination
from app.conformance.rules import RULES, Outcome, Verdict
from app.conformance.scenes.order import SCENES, examine
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

    async def reboot(self) -> bool:
        """Stop the agent; start it again as it was started first."""
        await self.off()
        await self.enter(self.code)
        return True

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
    finally:
        if rest := asyncio.all_tasks(loop):  # Somebody is still on his way through the door.
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.wait(rest))
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


def test_a_wire_that_tells_of_a_pulse_when_it_is_over_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent acknowledges as soon as the relay is on, and the last pulse lasts 3 s."""
    pulsed = agent_relay.append_line

    def later(*words: Any) -> None:
        asyncio.get_running_loop().call_later(2.9, pulsed, *words)

    monkeypatch.setattr(agent_relay, "append_line", later)
    found = examined(tmp_path, "deadline")
    assert found["always.wire"].outcome is Outcome.PASS


def test_the_played_server_gives_the_config_that_the_real_one_gives() -> None:
    stage = Stage(monotonic=lambda: 0.0, now=lambda: BEGAN)
    config = stage.config()
    assert config.keys() == ConfigOut.model_fields.keys()
    for shape, given in (
        (StationOut, config["station"]),
        (DoorOut, config["doors"][0]),
        (FacilityOut, config["facilities"][0]),
        (LimitsOut, config["limits"]),
        (OfflinePolicyOut, config["offline_policy"]),
    ):
        assert given.keys() == shape.model_fields.keys()
    assert config["windows"][0].keys() == {"from", "until", "kind", "because"}
    answer = stage.poll_answer([])
    assert answer.keys() == CommandsOut.model_fields.keys()


# Broken agents


def opens_without_claiming(patch: pytest.MonkeyPatch) -> None:
    async def claims(self: Commands, command: str, *, until: float) -> Grant:
        return Grant(command, "unlock", "d1", 3_000, self._pace.monotonic(), 9.0)

    patch.setattr(Commands, "_claim", claims)


def reuses_a_claim_after_a_reboot(patch: pytest.MonkeyPatch) -> None:
    call = Server.call
    kept: dict[str, Any] = {}

    async def calls(self: Server, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/claim"):
            more["json"] = kept.setdefault(path, more["json"])
        return await call(self, method, path, **more)

    patch.setattr(Server, "call", calls)


def repeats_a_claim_with_a_new_nonce(patch: pytest.MonkeyPatch) -> None:
    call = Server.call

    async def calls(self: Server, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/claim"):
            more["json"] = more["json"] | {"nonce": uuid.uuid4().hex}
        return await call(self, method, path, **more)

    patch.setattr(Server, "call", calls)


def knows_no_deadline(patch: pytest.MonkeyPatch) -> None:
    read = agent_commands._grant
    patch.setattr(
        agent_commands, "_grant", lambda *words, **more: replace(read(*words, **more), ttl_s=3_600)
    )


def counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    read = agent_commands._grant

    def reads(*words: Any, **more: Any) -> Grant:
        return replace(read(*words, **more), sent_at=asyncio.get_running_loop().time())

    patch.setattr(agent_commands, "_grant", reads)


def takes_a_told_command_again(patch: pytest.MonkeyPatch) -> None:
    call = Server.call

    async def calls(self: Server, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/claim"):
            more["json"] = more["json"] | {"nonce": path.split("/")[-2]}
        return await call(self, method, path, **more)

    patch.setattr(Server, "call", calls)
    patch.setattr(Commands, "take", lambda self, command: True)


def takes_any_answer_for_a_grant(patch: pytest.MonkeyPatch) -> None:
    read = agent_server.body
    grant = {"kind": "unlock", "door": "d1", "pulse_ms": 3_000, "ttl_ms": 9_000}

    def reads(response: Any) -> dict[str, Any]:
        try:
            return read(response)
        except agent_server.ServerAway:
            return grant

    patch.setattr("app.agent.commands.body", reads)


def sends_a_result_once(patch: pytest.MonkeyPatch) -> None:
    acknowledge = agent_commands._acknowledge

    async def once(*words: Any) -> None:
        with contextlib.suppress(agent_server.ServerAway):
            await acknowledge(*words)

    patch.setattr(agent_commands, "_acknowledge", once)


def hammers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "next", lambda self, retry_after_s=0.0: 0.05)


def pauses_without_jitter(patch: pytest.MonkeyPatch) -> None:
    def pauses(self: Backoff, retry_after_s: float = 0.0) -> float:
        self.failures += 1
        return retry_after_s + min(2.0 ** min(self.failures, 4), self._most_s)

    patch.setattr(Backoff, "next", pauses)


def tries_a_refused_credential_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent_loop, "REFUSED_PAUSE_S", 1.0)


def stops_polling_for_its_config(patch: pytest.MonkeyPatch) -> None:
    poll = Agent._poll

    async def polls(self: Agent, tasks: asyncio.TaskGroup) -> float:
        while self._is_behind:
            self._fetch_config_beside(tasks)
            await self._fetching_config.over(within_s=3_600)
            await asyncio.sleep(1)
        return await poll(self, tasks)

    patch.setattr(Agent, "_poll", polls)


def waits_for_every_answer_to_a_config(patch: pytest.MonkeyPatch) -> None:
    poll = Agent._poll

    async def polls(self: Agent, tasks: asyncio.TaskGroup) -> float:
        await self._fetching_config.over(within_s=3_600)
        return await poll(self, tasks)

    patch.setattr(Agent, "_poll", polls)


def gives_a_config_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Patience, "failed", lambda self, _=0.0: setattr(self, "_not_before", 1e9))


def forgets_the_config_it_holds(patch: pytest.MonkeyPatch) -> None:
    fetch = Agent._fetch_config

    async def fetches(self: Agent) -> bool:
        try:
            return await fetch(self)
        except agent_server.ServerAway:
            self._config = {}
            raise

    patch.setattr(Agent, "_fetch_config", fetches)


def numbers_its_events_anew_at_each_sending(patch: pytest.MonkeyPatch) -> None:
    waiting = Journal.waiting

    def renamed(self: Journal, *words: Any) -> list[dict[str, Any]]:
        return [event | {"event_id": uuid.uuid4().hex} for event in waiting(self, *words)]

    patch.setattr(Journal, "waiting", renamed)


def forgets_events_that_nobody_holds(patch: pytest.MonkeyPatch) -> None:
    send = agent_journal._send

    async def careless(*words: Any, **more: Any) -> list[int]:
        with contextlib.suppress(agent_server.ServerAway):
            await send(*words, **more)
        return [event["seq"] for event in words[2]]

    patch.setattr(agent_journal, "_send", careless)


def uploads_in_a_busy_loop(patch: pytest.MonkeyPatch) -> None:
    send = agent_journal._send

    async def eager(*words: Any, **more: Any) -> list[int]:
        await asyncio.sleep(0.05)
        return await send(*words, **more) or [-1]

    patch.setattr(agent_journal, "_send", eager)


def begins_its_numbers_anew_after_a_reboot(patch: pytest.MonkeyPatch) -> None:
    opened = agent_journal._opened

    def fresh(state: Any, pace: Any) -> Any:
        for file in (*state.path.glob("journal.db*"), state.path / "epoch.json"):
            file.unlink(missing_ok=True)
        return opened(state, pace)

    patch.setattr(agent_journal, "_opened", fresh)
    # One that knows that it is enrolled takes an epoch that none before can have had.
    patch.setattr(agent_journal, "IDENTITY", "nothing.json")


def keeps_its_boot_id(patch: pytest.MonkeyPatch) -> None:
    made = uuid.uuid4()
    patch.setattr(agent_loop, "uuid", type("Same", (), {"uuid4": staticmethod(lambda: made)}))


def pulses_twice(patch: pytest.MonkeyPatch) -> None:
    pulsed = agent_relay.append_line

    def twice(*words: Any) -> None:
        pulsed(*words)
        pulsed(*words)

    patch.setattr(agent_relay, "append_line", twice)


def _without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Break an agent so that its events lack a field."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        waiting = Journal.waiting

        def lacking(self: Journal, *words: Any) -> list[dict[str, Any]]:
            events = waiting(self, *words)
            return [{key: event[key] for key in event if key != name} for event in events]

        patch.setattr(Journal, "waiting", lacking)

    broken.__name__ = f"says_no_{name}"
    return broken


says_no_door, says_no_occurred_at = _without("door"), _without("occurred_at")


def does_not_say_that_it_sends_json(patch: pytest.MonkeyPatch) -> None:
    request = httpx.AsyncClient.request

    async def requests(
        self: httpx.AsyncClient, method: str, url: str, *, json: Any = None, **more: Any
    ) -> httpx.Response:
        content = None if json is None else dumps(json).encode()
        return await request(self, method, url, content=content, **more)

    patch.setattr(httpx.AsyncClient, "request", requests)


def puts_what_is_to_be_posted(patch: pytest.MonkeyPatch) -> None:
    call = Server.call

    async def calls(self: Server, method: str, path: str, **more: Any) -> Any:
        return await call(self, "PUT" if path.endswith("/ack") else method, path, **more)

    patch.setattr(Server, "call", calls)


BROKEN: Sequence[tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = (
    (opens_without_claiming, "opening", "opening.claims"),
    (opens_without_claiming, "opening", "always.granted"),
    (reuses_a_claim_after_a_reboot, "reboot", "reboot.once"),
    (repeats_a_claim_with_a_new_nonce, "claims", "claim.repeats"),
    (repeats_a_claim_with_a_new_nonce, "claims", "always.nonce"),
    (knows_no_deadline, "deadline", "deadline.stalled"),
    (knows_no_deadline, "deadline", "deadline.trickled"),
    (knows_no_deadline, "deadline", "deadline.over"),
    (counts_from_the_answer, "deadline", "deadline.stalled"),
    (counts_from_the_answer, "deadline", "deadline.counts"),
    (takes_a_told_command_again, "opening", "opening.once"),
    (takes_any_answer_for_a_grant, "claims", "claim.portal"),
    (sends_a_result_once, "acks", "ack.repeats"),
    (sends_a_result_once, "acks", "ack.trouble"),
    (hammers, "outages", "outage.backs_off"),
    (hammers, "later", "later.503"),
    (pauses_without_jitter, "outages", "outage.jitter"),
    (tries_a_refused_credential_at_once, "credential", "credential.patient"),
    (stops_polling_for_its_config, "trouble", "config.trouble"),
    (stops_polling_for_its_config, "trouble", "config.hangs"),
    (waits_for_every_answer_to_a_config, "trouble", "config.hangs"),
    (gives_a_config_up, "trouble", "config.trouble"),
    (forgets_the_config_it_holds, "trouble", "config.kept"),
    (numbers_its_events_anew_at_each_sending, "journal", "journal.repeats"),
    (numbers_its_events_anew_at_each_sending, "journal", "always.unchanged"),
    (forgets_events_that_nobody_holds, "journal", "journal.trouble"),
    (forgets_events_that_nobody_holds, "journal", "journal.unsaid"),
    (uploads_in_a_busy_loop, "journal", "journal.pace"),
    (begins_its_numbers_anew_after_a_reboot, "reboot", "reboot.numbers"),
    (keeps_its_boot_id, "reboot", "reboot.boot"),
    (pulses_twice, "opening", "always.wire"),
    (says_no_door, "journal", "always.taken"),
    (says_no_occurred_at, "journal", "always.taken"),
    (does_not_say_that_it_sends_json, "enrolment", "always.valid"),
    (puts_what_is_to_be_posted, "opening", "always.valid"),
)


@pytest.mark.parametrize(
    ("broken", "scene", "rule"), BROKEN, ids=[f"{one.__name__}-{rule}" for one, _, rule in BROKEN]
)
def test_a_broken_agent_fails_on_the_very_rule(
    broken: Callable[[pytest.MonkeyPatch], None],
    scene: str,
    rule: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch)
    verdict = examined(tmp_path, scene)[rule]
    assert verdict.outcome is Outcome.FAIL
    assert verdict.why
