"""A server of a few lines and a clock that only moves when told, for the agent's tests."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.agent.contact import Contact, ExitContact
from app.agent.loop import run_agent
from app.agent.modes import Lock
from app.agent.pace import Pace
from app.agent.reader import Reader
from app.agent.relay import Pulse, Relay

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class VirtualClock:
    """Monotonic and wall seconds that pass only in `sleep` and `advance`."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def true_time(self) -> datetime:
        return datetime.fromtimestamp(1_800_000_000 + self.now, UTC)

    def pace(self, seed: int = 7) -> Pace:
        return Pace(
            monotonic=lambda: self.now,
            wall=lambda: 1_800_000_000 + self.now,
            sleep=self.sleep,
            dice=random.Random(seed),
        )


def told(*commands: str, version: str = "1", next_poll_ms: int = 0) -> httpx.Response:
    """A poll's answer that tells of commands."""
    return httpx.Response(
        200,
        json={
            "commands": [{"id": one, "kind": "unlock", "door": "d1"} for one in commands],
            "config_version": version,
            "next_poll_ms": next_poll_ms,
            "server_time": "2026-01-05T01:00:00+08:00",
        },
    )


def granted(ttl_ms: int = 9_000, kind: str = "unlock", pulse_ms: int = 3_000) -> httpx.Response:
    """A claim's answer that allows the pulse."""
    grant = {"ttl_ms": ttl_ms, "kind": kind, "door": "d1", "pulse_ms": pulse_ms}
    return httpx.Response(200, json=grant)


def taken_in(request: httpx.Request) -> httpx.Response:
    """An answer to a batch that takes every event in."""
    events = json.loads(request.content)["events"]
    results = [
        {"event_id": event["event_id"], "seq": event["seq"], "status": "accepted"}
        for event in events
    ]
    return httpx.Response(200, json={"results": results, "acked_through": 0})


def refused(status: int, code: str) -> httpx.Response:
    """An error as RFC 9457 describes it."""
    return httpx.Response(status, json={"code": code, "status": status})


@dataclass
class FakeServer:
    """Answers each kind of call from a list; the last answer of a list repeats.

    When the polls have run out, a poll waits for ever; so does any other call whose list is empty.
    A poll that names another version of the config is told of it, and of the commands the next
    time.
    """

    clock: VirtualClock
    polls: list[Answer] = field(default_factory=list)
    claims: list[Answer] = field(default_factory=lambda: [granted()])
    acks: list[Answer] = field(default_factory=lambda: [httpx.Response(200, json={})])
    configs: list[Answer] = field(
        default_factory=lambda: [
            httpx.Response(200, json={"version": "1", "doors": []}, headers={"ETag": '"1"'})
        ]
    )
    enrolments: list[Answer] = field(
        default_factory=lambda: [
            httpx.Response(201, json={"controller_id": "c1", "credential": "secret-1"})
        ]
    )
    credentials: list[Answer] = field(
        default_factory=lambda: [httpx.Response(200, json={"credential": "secret-2"})]
    )
    events: list[Answer] = field(default_factory=lambda: [taken_in])
    verdicts: list[Answer] = field(default_factory=list)
    jwks: list[Answer] = field(
        default_factory=lambda: [httpx.Response(200, json={"keys": []}, headers={"ETag": '"1"'})]
    )
    denials: list[Answer] = field(default_factory=list)
    tells_time: bool = False
    """Whether its answers say what time it is, as those of the real one do."""
    seen: list[tuple[str, httpx.Request]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        kind = _kind(request)
        async with self.changed:
            self.seen.append((kind, request))
            self.changed.notify_all()
        answers: list[Answer] = getattr(self, kind)
        if not answers:
            await asyncio.Event().wait()
        answer = answers[0] if len(answers) == 1 and kind != "polls" else answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, httpx.Response):
            answer = answer(request)
        if kind == "polls" and (news := _version_alone(request, answer)) is not None:
            self.polls.insert(0, answer)
            answer = news
        # One answer may be given twice; httpx wants a fresh object each time.
        headers = dict(answer.headers)
        if self.tells_time:
            headers["Server-Time"] = self.clock.true_time().isoformat()
        return httpx.Response(answer.status_code, content=answer.content, headers=headers)

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(request.content) for one, request in self.seen if one == kind]

    def requests(self, kind: str) -> list[httpx.Request]:
        return [request for one, request in self.seen if one == kind]

    async def reached(self, true: Callable[[], object]) -> None:
        """Wait until something holds that a request brings about."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(true)


def _version_alone(request: httpx.Request, answer: httpx.Response) -> httpx.Response | None:
    """Give what the contract lets a poll hear that names another version; None: the answer."""
    named = request.url.params.get("config_version")
    if named is None or answer.status_code != 200 or b'"commands"' not in answer.content:
        return None
    said = answer.json()
    if not said["commands"] or said["config_version"] == named:
        return None
    return httpx.Response(200, json=said | {"commands": []})


def _kind(request: httpx.Request) -> str:
    path = request.url.path
    for end, kind in {
        "/enrol": "enrolments",
        "/credential": "credentials",
        "/config": "configs",
        "/commands": "polls",
        "/claim": "claims",
        "/ack": "acks",
        "/events": "events",
        "/verify": "verdicts",
        "/jwks.json": "jwks",
        "/denials": "denials",
    }.items():
        if path.endswith(end):
            return kind
    raise AssertionError(f"no such path: {path}")


class ListRelay:
    """A relay that keeps its pulses in a list, and fails when told to."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.pulses: list[Pulse] = []
        self.fault = fault

    def pulse(self, pulse: Pulse) -> None:
        if self.fault is not None:
            raise self.fault
        self.pulses.append(pulse)

    def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def an_agent(
    server: FakeServer,
    state: Path,
    *,
    relay: Relay,
    contact: Contact | None = None,
    exits: ExitContact | None = None,
    reader: Reader | None = None,
    lock: Lock | None = None,
    code: str | None = "CODE",
    seed: int = 7,
) -> AsyncIterator[asyncio.Task[None]]:
    """Run an agent against the server until the block ends; an agent that failed fails there."""
    stop = asyncio.Event()
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as http:
        task = asyncio.create_task(
            run_agent(
                server_url="http://127.0.0.1:1/",
                state_dir=state,
                code=code,
                relay=relay,
                serial="S-1",
                firmware="9.9",
                stop=stop,
                contact=contact,
                exits=exits,
                reader=reader,
                lock=lock,
                http=http,
                pace=server.clock.pace(seed),
            )
        )
        try:
            yield task
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task
