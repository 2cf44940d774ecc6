"""The vectors are up to date, and our own agent and server answer every one as they say.

Tokens: the validators that server and agent share. Modes and journal: both. Claims: the agent.
"""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.commands import Commands
from app.agent.journal import Journal, _send
from app.agent.link import Link
from app.agent.pace import Pace
from app.agent.passes import kind_at, windows_of
from app.agent.server import Server
from app.agent.state import Results, StateFolder
from app.doors.rules.journal import Quality, Sending, Sync, Told, corrected, is_late, read_event
from app.doors.tokens import (
    TYP,
    DisplayClaims,
    PassClaims,
    PosterClaims,
    TokenKind,
    TokenRefusal,
    VerifyingKey,
    verify_display,
    verify_pass,
    verify_poster,
    verifying_key,
)
from app.places.rules import mode_at, mode_windows
from app.runtime import Runtime
from tests.agent.world import ListRelay, VirtualClock
from tests.support.worlds import a_scene
from tests.vectors import modes, tokens
from tests.vectors.files import FILES, FOLDER, read, text_of

pytestmark = pytest.mark.anyio


def _each(file: str, part: str = "vectors") -> pytest.MarkDecorator:
    found = read(file)[part]
    return pytest.mark.parametrize("vector", found, ids=[one["name"] for one in found])


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_the_generator_writes(name: str) -> None:
    assert (FOLDER / name).read_text("ascii") == text_of(name), "run: python -m tests.vectors"


@pytest.mark.parametrize("name", FILES)
def test_no_two_vectors_have_one_name(name: str) -> None:
    found = read(name)
    for part in ("vectors", "scenarios", "answers", "clocks"):
        names = Counter(one["name"] for one in found.get(part, []))
        assert max(names.values(), default=1) == 1


# Tokens


def _published(jwks: dict[str, Any]) -> dict[str, VerifyingKey]:
    """Read the keys as a device does: from the published text alone."""
    kinds = {typ: kind for kind, typ in TYP.items()}
    return {
        one["kid"]: verifying_key(one["kid"], kinds[one["typ"]], tokens.unb64(one["x"]))
        for one in jwks["keys"]
    }


def _claims(found: PosterClaims | DisplayClaims | PassClaims) -> dict[str, Any]:
    match found:
        case PosterClaims(d, g):
            return {"d": d, "g": g}
        case DisplayClaims(d, issued_at, expires_at, jti):
            times = {"iat": int(issued_at.timestamp()), "exp": int(expires_at.timestamp())}
            return {"d": d, **times, "jti": jti}
        case PassClaims(station, worker, issued_at, expires_at, jti):
            times = {"iat": int(issued_at.timestamp()), "exp": int(expires_at.timestamp())}
            return {"aud": station, "sub": worker, **times, "jti": jti}


@_each("tokens.json")
def test_a_token_is_judged_as_the_vector_says(vector: dict[str, Any]) -> None:
    file = read("tokens.json")
    keys, now = _published(file["jwks"]), datetime.fromisoformat(file["now"])
    assert now.timestamp() == file["now_s"]
    token = vector["token"]
    found: PosterClaims | DisplayClaims | PassClaims | TokenRefusal
    match TokenKind(vector["ask"]):
        case TokenKind.POSTER:
            found = verify_poster(keys, token)
        case TokenKind.DISPLAY:
            found = verify_display(keys, token, now)
        case TokenKind.PASS:
            found = verify_pass(keys, token, now, audience=file["audience"])
    if isinstance(found, TokenRefusal):
        assert (False, found.value) == (vector["valid"], vector.get("reason"))
    else:
        assert (True, _claims(found)) == (vector["valid"], vector.get("claims"))


def test_every_refusal_of_a_token_has_a_vector_of_every_kind_that_can_have_it() -> None:
    seen = {(one["ask"], one.get("reason")) for one in read("tokens.json")["vectors"]}
    kinds = {kind.value for kind in TokenKind}
    assert seen == {
        (kind, reason)
        for kind in kinds
        for reason in (None, "token_invalid", "wrong_kind", "token_expired")
        if (kind, reason) != ("poster", "token_expired")
    }
    lengths = {
        len(one["token"]) for one in read("tokens.json")["vectors"] if "1,024" in one["name"]
    }
    assert lengths == {1025}


# Claims


class _Tries:
    """A server, a clock and a sleep that follow the claims of one telling."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.bodies: list[dict[str, Any]] = []
        self._left: list[dict[str, Any]] = []
        self._zero = 0.0

    def begin(self, telling: dict[str, Any], *, zero: float) -> None:
        self._left, self._zero = list(telling["claims"]), zero
        self.clock.now = zero + telling["told_at_ms"] / 1000

    async def sleep(self, seconds: float) -> None:
        """End a pause when the vector sends the next claim; without one, after 10 s."""
        sent_ms = self._left[0]["sent_at_ms"] if self._left else 10_000
        self.clock.now = max(self.clock.now, self._zero + sent_ms / 1000)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(_json(request))
        attempt = self._left.pop(0)
        if attempt["answered_at_ms"] is None:
            raise httpx.ReadTimeout("lost")
        later_ms = attempt.get("relay_ready_at_ms", attempt["answered_at_ms"])
        self.clock.now = self._zero + later_ms / 1000
        if attempt["status"] != 200:
            return httpx.Response(attempt["status"], json={"code": attempt["code"]})
        grant = {"kind": "unlock", "door": "d1", "pulse_ms": 3_000, "ttl_ms": attempt["ttl_ms"]}
        return httpx.Response(200, json=grant)

    @property
    def untried(self) -> int:
        return len(self._left)


def _json(request: httpx.Request) -> dict[str, Any]:
    found: dict[str, Any] = httpx.Response(200, content=request.content).json()
    return found


@_each("claims.json")
async def test_our_agent_pulses_as_the_vector_says(vector: dict[str, Any], tmp_path: Path) -> None:
    tries = _Tries()
    pace = Pace(monotonic=lambda: tries.clock.now, sleep=tries.sleep)
    nonces: set[tuple[str, str]] = set()
    async with httpx.AsyncClient(transport=httpx.MockTransport(tries)) as http:
        server = Server("http://127.0.0.1:1", http, Link(StateFolder(tmp_path), pace), firmware="9")
        for number, boot in enumerate(vector["boots"]):
            results, relay = Results(StateFolder(tmp_path / str(number))), ListRelay()
            commands = Commands(server, relay, results, boot_id=f"b{number}", pace=pace)
            for telling in boot:
                command, expect = telling["command"], telling["expect"]
                before = len(relay.pulses), len(results.unacked())
                tries.bodies.clear()
                tries.begin(telling, zero=1_000.0)
                if commands.take(command):
                    await commands.carry_out(command, told_at=tries.clock.now)
                assert tries.untried == 0
                assert len(tries.bodies) == len(telling["claims"])
                carried = {(body["boot_id"], body["nonce"]) for body in tries.bodies}
                assert len(carried) == min(1, len(telling["claims"]))
                assert not carried & nonces
                nonces |= carried
                assert len(relay.pulses) - before[0] == expect["pulse"]
                made = results.unacked()[before[1] :]
                assert [one.result for one in made] == [expect["ack"]] * bool(expect["ack"])
                if expect["pulse"]:
                    after_ms = made[0].pulse_after_claim_ms
                    assert after_ms is not None
                    # Seconds as binary fractions: a millisecond may be cut off.
                    assert abs(after_ms - expect["pulse_after_claim_ms"]) <= 1


# Modes


@_each("modes.json")
def test_our_agent_and_the_server_read_the_windows_alike(vector: dict[str, Any]) -> None:
    windows = vector["windows"]
    ours = windows_of({"windows": windows})
    assert len(ours) == len(windows)
    for ask in vector["asks"]:
        at = datetime.fromisoformat(ask["at"])
        assert kind_at(ours, at) == ask["kind"]
        found = modes.window_at(windows, at)
        assert (ask["kind"], ask["because"]) == (
            (found["kind"], found["because"]) if found else (None, None)
        )
        if vector["station"] is not None and found:
            mode = mode_at(modes.rules_of(vector["station"]), modes.CALENDAR, at)
            assert (mode.kind.value, mode.because.value) == (ask["kind"], ask["because"])
    if vector["station"] is not None:
        made = mode_windows(
            modes.rules_of(vector["station"]),
            modes.CALENDAR,
            modes.FROM,
            modes.FROM + modes.HORIZON,
        )
        told = [
            (datetime.fromisoformat(one["from"]), datetime.fromisoformat(one["until"]), one["kind"])
            for one in windows
        ]
        assert told == [(one.from_at, one.until_at, one.kind.value) for one in made]


# Journal


@_each("journal.json", "scenarios")
async def test_the_server_answers_batches_as_the_vector_says(
    vector: dict[str, Any], client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    for step in vector["steps"]:
        answer = await client.post(
            "/v1/controller/events", json=step["body"], headers=scene.controller_headers
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "results": step["results"],
            "acked_through": step["acked_through"],
        }


async def _forgets(events: list[Any], answer: dict[str, Any], folder: Path) -> list[int]:
    """Let our agent send a batch and read its answer; gives the numbers it forgets."""
    clock = VirtualClock()
    link = Link(StateFolder(folder), clock.pace())
    journal = Journal(StateFolder(folder), boot_id="b", pace=clock.pace(), link=link)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    try:
        async with httpx.AsyncClient(transport=transport) as http:
            server = Server("http://127.0.0.1:1", http, link, firmware="9")
            return await _send(journal, server, events, boot_id="b")
    finally:
        journal.close()


@_each("journal.json", "scenarios")
async def test_our_agent_forgets_what_the_server_holds(
    vector: dict[str, Any], tmp_path: Path
) -> None:
    for step in vector["steps"]:
        answer = {"results": step["results"], "acked_through": step["acked_through"]}
        # Our agent only ever sends objects with a number.
        events = [event for event in step["body"]["events"] if isinstance(event, dict)]
        assert await _forgets(events, answer, tmp_path) == step["forget"]


@_each("journal.json", "answers")
async def test_our_agent_forgets_nothing_that_was_not_said_to_be_held(
    vector: dict[str, Any], tmp_path: Path
) -> None:
    events = [{"event_id": f"e{seq}", "seq": seq} for seq in (1, 2)]
    assert await _forgets(events, vector["answer"], tmp_path) == vector["forget"]


@_each("journal.json", "clocks")
def test_an_event_is_placed_as_the_vector_says(vector: dict[str, Any]) -> None:
    sending, expect = vector["sending"], vector["expect"]
    sync = sending.get("sync")
    received_at = datetime.fromisoformat(sending["received_at"])
    told = read_event({"event_id": "e", "seq": 1, "type": "note"} | vector["event"], "b")
    assert isinstance(told, Told)
    found = corrected(
        told.occurred_at,
        told.mono_ms,
        told.boot_id,
        Sending(
            sending["boot_id"],
            received_at,
            sent_at=_instant(sending.get("sent_at")),
            sent_mono_ms=sending.get("mono_ms"),
            sync=Sync(datetime.fromisoformat(sync["server_time"]), sync["mono_ms"], sync["rtt_ms"])
            if sync
            else None,
        ),
        told.noted,
    )
    assert found.at == datetime.fromisoformat(expect["at"])
    assert found.quality is Quality(expect["quality"])
    assert is_late(found, received_at) is expect["late"]
    if expect["error_ms"] is None:
        assert found.error is None
    else:
        assert found.error is not None
        assert abs(found.error.total_seconds() * 1000 - expect["error_ms"]) <= 1


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
