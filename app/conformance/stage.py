"""The played server: one station, one door, and whatever a scene does to its answers."""

import asyncio
import email.message
import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.api.controller.enrolment import EnrolIn
from app.api.controller.journal import EventsIn, SyncIn
from app.api.controller.polls import AckIn, ClaimIn, is_key
from app.api.controller.readers import VerifyIn
from app.clock import Monotonic, Now
from app.conformance.rules import same_event
from app.conformance.wire import Answer, Request
from app.doors.rules.journal import (
    EventType,
    Range,
    Told,
    Unusable,
    Why,
    advanced,
    at_station,
    read_event,
)

LONGEST_WAIT_S = 25
PULSE_MS = 3_000
LIFE_S = 10.0
"""How long a command lives, in seconds (law 3)."""

HANGING_UP_S = 0.5
"""How long it may take until a connection that the device closed is seen to be closed."""

KINDS = (
    ("enrol", "POST", re.compile(r"/v1/controller/enrol")),
    ("credential", "POST", re.compile(r"/v1/controller/credential")),
    ("config", "GET", re.compile(r"/v1/controller/config")),
    ("poll", "GET", re.compile(r"/v1/controller/commands")),
    ("claim", "POST", re.compile(r"/v1/controller/commands/([^/]+)/claim")),
    ("ack", "POST", re.compile(r"/v1/controller/commands/([^/]+)/ack")),
    ("events", "POST", re.compile(r"/v1/controller/events")),
    ("verify", "POST", re.compile(r"/v1/controller/verify")),
)
METHODS = {kind: method for kind, method, _ in KINDS}
BODIES: Mapping[str, type[BaseModel]] = {
    "enrol": EnrolIn,
    "claim": ClaimIn,
    "ack": AckIn,
    "events": EventsIn,
    "verify": VerifyIn,
}
"""What the real server reads bodies by."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Seen:
    """One request of the device, and what it got."""

    kind: str
    command: str | None
    """Of a claim or an ack."""
    at: float
    request: Request
    body: Any
    """As JSON; None where there is none."""
    wrong: Answer | None = None
    """How the real server refuses it, whatever a scene answers; None: it is well formed."""
    events: list[Told | Unusable] = field(default_factory=list)
    """What a well-formed upload brings, event by event as the real server reads it."""
    answer: Answer | None = None
    """None while it is open, and when the device hung up."""
    ended_at: float | None = None

    @property
    def granted(self) -> bool:
        """Whether this claim was answered with a grant that arrived."""
        answer = self.answer
        return (
            self.kind == "claim"
            and answer is not None
            and not answer.lost
            and answer.status == 200
            and answer.json is not None
        )


@dataclass(eq=False, slots=True)
class Command:
    """One command for the door."""

    id: str
    expires_at: float
    """On the played server's monotonic clock."""
    repeats: int = 0
    """So many polls more tell of it after it was claimed."""
    shown: bool = True
    claimed_by: tuple[str, str] | None = None
    """Boot id and nonce."""
    result: str | None = None


Usual = Callable[[], Awaitable[Answer]]
Twist = Callable[[Seen, Usual], Awaitable[Answer]]
"""Answers in place of the usual answer, which it may ask for."""


@dataclass
class Stage:
    """A server that is honest unless a scene twists it; it writes down all it hears."""

    monotonic: Monotonic
    now: Now
    code: str = field(default_factory=lambda: secrets.token_hex(4))
    station: str = "YZ-TEST"
    door: str = field(default_factory=lambda: str(uuid.uuid4()))
    facility: str = field(default_factory=lambda: str(uuid.uuid4()))
    version: str = "1"
    polled_version: str | None = None
    """What polls say in place of the version."""
    next_poll_ms: int = 0
    skew: timedelta = timedelta(0)
    """How wrong the dates in answers are."""
    seen: list[Seen] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)
    credentials: list[str] = field(default_factory=list)
    overlaps: int = 0
    """How often two polls were open at once."""
    journal: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Epoch and number of each event id that is held."""
    quarantine: set[tuple[int, int]] = field(default_factory=set)
    untaken: list[Unusable] = field(default_factory=list)
    """What had to be put into quarantine for its own content."""
    lost: dict[int, list[Range]] = field(default_factory=dict)
    _introduced: tuple[str, str] | None = None
    _once: dict[str, list[Twist]] = field(default_factory=dict)
    _standing: dict[str, Twist] = field(default_factory=dict)
    _bell: asyncio.Event = field(default_factory=asyncio.Event)
    _newest_poll: Seen | None = None

    # What scenes do

    def once(self, kind: str, *twists: Twist) -> None:
        """Twist the next answers of a kind, one after another."""
        self._once.setdefault(kind, []).extend(twists)

    def is_due(self, kind: str) -> bool:
        """Whether a twist of `once` still waits for its request."""
        return bool(self._once.get(kind))

    @contextmanager
    def standing(self, kind: str, twist: Twist) -> Iterator[None]:
        """Twist every answer of a kind for a while."""
        self._standing[kind] = twist
        try:
            yield
        finally:
            del self._standing[kind]

    def untwist(self) -> None:
        """Be honest again in everything."""
        self._once.clear()

    def tell(self, *, life_s: float = LIFE_S) -> Command:
        """Make a command that polls tell of."""
        command = Command(str(uuid.uuid4()), self.monotonic() + life_s)
        self.commands[command.id] = command
        self.ring()
        return command

    def change_config(self) -> None:
        """Raise the version of the config; waiting polls are answered."""
        self.version = str(int(self.version) + 1)
        self.ring()

    def ring(self) -> None:
        """Let everybody look again."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def until(self, true: Callable[[], T], *, within_s: float) -> T:
        """Wait until something holds; gives what it was at the end, true or not."""
        ends = self.monotonic() + within_s
        while not (found := true()) and (left := ends - self.monotonic()) > 0:
            await self._heard(left)
        return found

    async def _heard(self, within_s: float) -> None:
        bell = asyncio.ensure_future(self._bell.wait())
        try:
            await asyncio.wait({bell}, timeout=within_s)
        finally:
            bell.cancel()

    def mark(self) -> int:
        """Mark this moment: how many requests came before it."""
        return len(self.seen)

    def of(self, kind: str, *, since: int = 0, command: str | None = None) -> list[Seen]:
        """Give the requests of a kind from a mark on."""
        return [
            one
            for one in self.seen[since:]
            if one.kind == kind and (command is None or one.command == command)
        ]

    def after(self, seen: Seen) -> list[Seen]:
        """Give the requests of the same kind that came after one."""
        return self.of(seen.kind, since=self.seen.index(seen) + 1)

    def executed(self, command: str, *, since: int = 0) -> list[Seen]:
        """Give the acks that say a command was executed."""
        told = self.of("ack", since=since, command=command)
        return [one for one in told if result_of(one) == "executed"]

    def sent_events(self, since: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Give (epoch, event) of what could be read of well-formed uploads, as it came."""
        return [
            (one.body["epoch"], {**read.body, "boot_id": read.boot_id})
            for one in self.of("events", since=since)
            for read in one.events
            if isinstance(read, Told)
        ]

    def sent_numbers(self) -> list[tuple[int, Range]]:
        """Give (epoch, numbers) of each event of well-formed uploads, and of what was told lost."""
        found = []
        for one in self.of("events"):
            for read in one.events:
                if read.seq is not None:
                    found.append((one.body["epoch"], Range(read.seq, read.seq)))
                if isinstance(read, Told) and read.type is EventType.OVERFLOW:
                    found.append((one.body["epoch"], _gone(read)))
        return found

    @property
    def released_at(self) -> float:
        """Say when the relay is released after every pulse that was told."""
        told = [one.at for one in self.of("ack") if result_of(one) == "executed"]
        return told[-1] + PULSE_MS / 1000 if told else 0.0

    @property
    def is_polled(self) -> bool:
        """Whether a poll waits for its answer now."""
        return any(one.kind == "poll" and one.ended_at is None for one in self.seen[-20:])

    # What the device is answered

    async def __call__(self, request: Request) -> Answer:
        """Answer one request."""
        kind, command = _kind(request.path)
        seen = Seen(kind, command, self.monotonic(), request, _json(request.body))
        seen.wrong = refusal(seen)
        if kind == "events" and seen.wrong is None:
            boot_id = seen.body["boot_id"]
            seen.events = [read_event(event, boot_id) for event in seen.body["events"]]
        self.seen.append(seen)
        self.ring()
        over_s = 0.0
        try:
            usual = partial(self._usual, seen)
            twists = self._once.get(kind)
            twist = twists.pop(0) if twists else self._standing.get(kind)
            answer = await (twist(seen, usual) if twist else usual())
            told = self.now() + self.skew
            dates = {
                "Date": format_datetime(told, usegmt=True),
                "Server-Time": told.isoformat(),
            }
            seen.answer = replace(answer, headers={**dates, **answer.headers})
            over_s = answer.over_s
            return seen.answer
        finally:
            seen.ended_at = self.monotonic() + over_s
            self.ring()

    async def _usual(self, seen: Seen) -> Answer:
        if seen.kind == "other":
            return problem(404, "not_found")
        if seen.wrong is not None and seen.wrong.status == 405:
            return seen.wrong
        if seen.kind != "enrol" and self._bearer(seen) not in self.credentials:
            return problem(401, "credential_refused")
        if seen.wrong is not None:
            return seen.wrong
        match seen.kind:
            case "enrol":
                return self._enrol(seen)
            case "credential":
                self.credentials.append(secrets.token_urlsafe(32))
                return Answer(json={"credential": self.credentials[-1]})
            case "config":
                return self._config(seen)
            case "poll":
                return await self._poll(seen)
            case "claim":
                return self._claim(seen)
            case "ack":
                return self._ack(seen)
            case "events":
                return self._events(seen)
            case _:
                return Answer(json={"valid": False, "reason": "token_invalid", "command": None})

    def _bearer(self, seen: Seen) -> str:
        return seen.request.headers.get("authorization", "").removeprefix("Bearer ")

    def _enrol(self, seen: Seen) -> Answer:
        who = (seen.body["serial"], seen.body["nonce"])
        if seen.body["code"] != self.code or self._introduced not in (None, who):
            return problem(401, "enrolment_refused")
        self._introduced = who
        self.credentials = [secrets.token_urlsafe(32)]
        enrolled = {
            "controller_id": str(uuid.uuid4()),
            "credential": self.credentials[0],
            "station": self._station(),
            "doors": self._doors(),
        }
        return Answer(201, json=enrolled)

    def _station(self) -> dict[str, Any]:
        return {"code": self.station, "name": "合格驿站", "timezone": "Asia/Shanghai"}

    def _doors(self) -> list[dict[str, Any]]:
        return [
            {
                "id": self.door,
                "name": "正门",
                "has_display": False,
                "has_contact": True,
                "pulse_ms": PULSE_MS,
            }
        ]

    def _config(self, seen: Seen) -> Answer:
        etag = f'"{self.version}"'
        if seen.request.headers.get("if-none-match") == etag:
            return Answer(304, headers={"ETag": etag})
        return Answer(json=self.config(), headers={"ETag": etag})

    def config(self) -> dict[str, Any]:
        """Give what the device works by."""
        begins = self.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return {
            "version": self.version,
            "station": self._station(),
            "doors": self._doors(),
            "facilities": [{"id": self.facility, "kind": "microwave", "name": "微波炉"}],
            "windows": [
                {
                    "from": begins.isoformat(),
                    "until": (begins + timedelta(days=14)).isoformat(),
                    "kind": "scan",
                    "because": "weekly",
                }
            ],
            "limits": {"max_wait_s": LONGEST_WAIT_S, "silence_s": 75},
            "offline_policy": {"kind": "never", "hours": None, "denial_version": 0},
            "jwks_url": "https://invalid.example/.well-known/jwks.json",
        }

    async def _poll(self, seen: Seen) -> Answer:
        query = seen.request.query
        wait_s = int(query.get("wait", LONGEST_WAIT_S))
        until = self.monotonic() + min(wait_s, LONGEST_WAIT_S)
        self._newest_poll = seen
        self.ring()
        named = query.get("config_version")
        while True:
            version = self.polled_version or self.version
            told = [] if named not in (None, version) else self._told()
            left = until - self.monotonic()
            if told or named not in (None, version):
                commands = [{"id": one, "kind": "unlock", "door": self.door} for one in told]
                return Answer(json=self.poll_answer(commands))
            if self._newest_poll is not seen:
                # A device that hung up to poll anew ends this here, and holds one poll only.
                await asyncio.sleep(HANGING_UP_S)
                self.overlaps += 1
                left = 0
            if left <= 0:
                headers = {"Config-Version": version, "Next-Poll-Ms": str(self.next_poll_ms)}
                return Answer(204, headers=headers)
            await self._heard(left)

    def poll_answer(self, commands: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the body of a poll's answer."""
        return {
            "commands": commands,
            "config_version": self.polled_version or self.version,
            "next_poll_ms": self.next_poll_ms,
            "server_time": (self.now() + self.skew).isoformat(),
        }

    def _told(self) -> list[str]:
        found = []
        for command in self.commands.values():
            if not command.shown or self.monotonic() >= command.expires_at:
                continue
            if command.claimed_by is not None:
                if command.repeats <= 0:
                    continue
                command.repeats -= 1
            found.append(command.id)
        return found

    def _claim(self, seen: Seen) -> Answer:
        command = self.commands.get(seen.command or "")
        if command is None:
            return problem(404, "command_not_found")
        left_ms = int((command.expires_at - self.monotonic()) * 1000)
        who = (seen.body["boot_id"], seen.body["nonce"])
        if command.result is not None:
            return problem(410, "command_settled")
        if left_ms <= 0:
            return problem(410, "command_expired")
        if command.claimed_by not in (None, who):
            return problem(409, "claimed_by_another")
        command.claimed_by = who
        grant = {"ttl_ms": left_ms, "kind": "unlock", "door": self.door, "pulse_ms": PULSE_MS}
        return Answer(json=grant)

    def _ack(self, seen: Seen) -> Answer:
        command = self.commands.get(seen.command or "")
        if command is None:
            return problem(404, "command_not_found")
        if command.claimed_by is None or command.claimed_by[0] != seen.body["boot_id"]:
            return problem(409, "not_claimed")
        if command.result not in (None, seen.body["result"]):
            return problem(409, "ack_conflict")
        command.result = seen.body["result"]
        return Answer(json={"id": command.id, "result": command.result})

    def _events(self, seen: Seen) -> Answer:
        epoch = seen.body["epoch"]
        results = [self._take_in(epoch, read) for read in seen.events]
        return Answer(json={"results": results, "acked_through": self.through(epoch)})

    def through(self, epoch: int) -> int:
        """Say up to which number of an epoch nothing is missing, from the first that came."""
        numbers = sorted(seq for held, seq in {*self.journal, *self.quarantine} if held == epoch)
        if not numbers:
            return 0
        return advanced(numbers[0] - 1, numbers, self.lost.get(epoch, []))

    def _take_in(self, epoch: int, read: Told | Unusable) -> dict[str, Any]:
        if isinstance(read, Told):
            read = at_station(read, {self.door}, {self.facility})
        status, why = "quarantined", None
        if isinstance(read, Unusable):
            why = read.why
            self.untaken.append(read)
        else:
            key, named = (epoch, read.seq), {**read.body, "boot_id": read.boot_id}
            before = self.journal.get(key)
            if before is None and self.names.setdefault(read.event_id, key) == key:
                status = "accepted"
                self.journal[key] = named
            elif before is not None and same_event(before, named):
                status = "duplicate"
            else:
                why = Why.CONFLICT
            if status == "accepted" and read.type is EventType.OVERFLOW:
                self.lost.setdefault(epoch, []).append(_gone(read))
        if why is not None and read.seq is not None:
            self.quarantine.add((epoch, read.seq))
        return {"event_id": read.event_id, "seq": read.seq, "status": status, "reason": why}


def problem(status: int, code: str, **more: Any) -> Answer:
    """Refuse as RFC 9457 describes it."""
    return Answer(status, json={"type": "about:blank", "status": status, "code": code, **more})


def refusal(seen: Seen) -> Answer | None:
    """Refuse what the real server would refuse by its form alone; None: it is well formed."""
    request = seen.request
    if request.method != METHODS.get(seen.kind, request.method):
        return problem(405, "method_not_allowed")
    if seen.kind == "poll":
        return _odd_poll(request.query)
    if (shape := BODIES.get(seen.kind)) is None:
        return None
    if request.body and not _says_json(request.headers.get("content-type", "")):
        return _invalid("header", "content-type", "it must be application/json")
    if seen.body is None and request.body not in (b"", b"null"):
        return problem(400, "json_malformed")
    return _unfit(shape, seen.body)


def _odd_poll(query: Mapping[str, str]) -> Answer | None:
    wait = query.get("wait", "0")
    if not (wait.isascii() and wait.isdecimal() and len(wait) <= 4 and int(wait) <= 60):
        return _invalid("query", "wait", "it must be a whole number from 0 to 60")
    for name in ("boot_id", "config_version"):
        if not is_key(query.get(name, "-")):
            return _invalid("query", name, "it must be 1 to 128 visible ASCII characters")
    return None


def _says_json(content_type: str) -> bool:
    said = email.message.Message()
    said["content-type"] = content_type
    subtype = said.get_content_subtype()
    is_json = subtype == "json" or subtype.endswith("+json")
    return said.get_content_maintype() == "application" and is_json


def _unfit(shape: type[BaseModel], body: Any) -> Answer | None:
    try:
        shape.model_validate(body)
    except ValidationError as error:
        errors = [
            {"loc": [str(part) for part in one["loc"]], "message": one["msg"]}
            for one in error.errors()
        ]
        return problem(422, "request_invalid", errors=errors)
    return None


def _invalid(part: str, name: str, message: str) -> Answer:
    return problem(422, "request_invalid", errors=[{"loc": [part, name], "message": message}])


def sync_fault(upload: Seen) -> str:
    """Say what is wrong with the `sync` of an upload, which the real server goes without."""
    sync = upload.body.get("sync") if isinstance(upload.body, dict) else None
    wrong = None if sync is None else _unfit(SyncIn, sync)
    return "" if wrong is None else what_is_wrong(wrong)


def noted_fault(upload: Seen) -> str:
    """Say which event of an upload tells our time in a way that the real server leaves out."""
    for read in upload.events:
        if isinstance(read, Told) and read.noted is None and "server_time" in read.body:
            return f"event {read.seq}: server_time and error_ms cannot be read"
    return ""


def what_is_wrong(answer: Answer | None) -> str:
    """Say what a malformed request got wrong."""
    said = answer.json if answer and isinstance(answer.json, dict) else {}
    found = [f"{'.'.join(one['loc'])}: {one['message']}" for one in said.get("errors", [])]
    return "; ".join(found) or str(said.get("code", "no answer"))


def _gone(overflow: Told) -> Range:
    return Range(overflow.body["first_seq"], overflow.body["last_seq"])


def result_of(ack: Seen) -> str | None:
    """Give the result an ack tells."""
    found = ack.body.get("result") if isinstance(ack.body, dict) else None
    return found if isinstance(found, str) else None


def _kind(path: str) -> tuple[str, str | None]:
    for kind, _, pattern in KINDS:
        if match := pattern.fullmatch(path):
            return kind, match[1] if match.groups() else None
    return "other", None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
