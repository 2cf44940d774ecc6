"""Passes while the controller is alone: judged by policy, clock, keys, memory; never twice."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.journal import Journal
from app.agent.link import Link
from app.agent.passes import UNKNOWN_KID_S, Answer, Passes
from app.agent.server import Server
from app.agent.state import Result, StateFolder
from app.doors import tokens
from app.doors.tokens import TokenKind
from tests.agent.world import ListRelay, VirtualClock

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
KEY = tokens.generate_key(TokenKind.PASS)
POSTER_KEY = tokens.generate_key(TokenKind.POSTER)
DOOR = "d1"


def public(key: tokens.SigningKey) -> dict[str, str]:
    return tokens.jwk(tokens.verifying_key(key.kid, key.kind, tokens.public_bytes(key)))


class World:
    """One box with its disk, its clocks, a server that may be silent, and a reader."""

    def __init__(self, folder: Path, *, has_rtc: bool = False, hours: int | None = 72) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        self.zero = self.clock.now
        self.has_rtc = has_rtc
        self.server_says: dict[str, Any] = {}
        self.asked: list[httpx.Request] = []
        self.relay = ListRelay()
        self.results: dict[str, Result | None] = {}
        """What becomes of a command that the server gives, if it is not carried out."""
        self.jwks = [public(KEY), public(POSTER_KEY)]
        self.denials: dict[str, Any] = {"version": 0, "denials": [], "more": False}
        self.policy = {"kind": "passes", "hours": hours, "denial_version": 0}
        self.wall_shift = 0.0
        if hours is None:
            self.policy["kind"] = "never"
        self.kind = "scan"
        self.boot()

    def true_time(self) -> datetime:
        return START + timedelta(seconds=self.clock.now - self.zero)

    def boot(self) -> None:
        """Start, as after a power cut: the disk stays, the monotonic clock does not."""
        pace = self.clock.pace()
        offset = self.clock.now - 5
        pace = type(pace)(
            monotonic=lambda: self.clock.now - offset,
            wall=lambda: self.true_time().timestamp() + self.wall_shift,
            sleep=self.clock.sleep,
            dice=pace.dice,
        )
        state = StateFolder(self.folder)
        self.link = Link(state, pace, has_rtc=self.has_rtc)
        self.journal = Journal(state, boot_id="b", pace=pace, link=self.link)
        self.passes = Passes(state, self.link, self.journal, self.relay, pace)
        self.passes.recall()
        self.passes.follow(self.config())
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.server = Server("http://127.0.0.1:1", http, self.link, firmware="t")

    def reboot(self, *, loses_journal: bool = False) -> None:
        self.journal.close()
        if loses_journal:
            for file in self.folder.glob("journal.db*"):
                file.unlink()
        self.boot()

    def config(self) -> dict[str, Any]:
        windows = [
            {
                "from": (START - timedelta(days=1)).isoformat(),
                "until": (START + timedelta(days=14)).isoformat(),
                "kind": self.kind,
                "because": "weekly",
            }
        ]
        return {
            "version": "1",
            "station": {"code": "CQ1"},
            "doors": [{"id": DOOR, "pulse_ms": 3000}],
            "windows": windows,
            "offline_policy": self.policy,
        }

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        headers = {"Server-Time": self.true_time().isoformat()}
        path = request.url.path
        if path.endswith("jwks.json"):
            return httpx.Response(200, json={"keys": self.jwks}, headers={"ETag": '"1"'})
        if path.endswith("/denials"):
            return httpx.Response(200, json=self.denials, headers=headers)
        if path.endswith("/verify"):
            if not self.server_says:
                raise httpx.ConnectError("cut")
            return httpx.Response(200, json=self.server_says, headers=headers)
        return httpx.Response(200, json={}, headers=headers)

    async def hear(self) -> None:
        """Hear the server once, as any call does."""
        await self.server.call("GET", "/v1/controller/config")
        await self.passes.refresh(self.server)

    async def alone_after(self, seconds: float = 80) -> None:
        """Hear the server, then nothing for so long."""
        await self.hear()
        self.clock.advance(seconds)
        assert self.link.alone

    def token(self, jti: str = "j1", *, age_s: float = 5, **changes: Any) -> str:
        issued = self.true_time() - timedelta(seconds=age_s)
        values: dict[str, Any] = {
            "station": "CQ1",
            "worker": "w1",
            "issued_at": issued,
            "expires_at": issued + timedelta(seconds=60),
            "jti": jti,
        }
        return tokens.sign_pass(changes.pop("key", KEY), **(values | changes))

    async def show(self, token: str, door: str = DOOR) -> Answer:
        async def carry_out(command: str) -> Result | None:
            result = self.results.get(command, Result(command, "b", "executed", 0))
            if result is not None and result.result == "executed":
                self.relay.pulses.append(command)  # type: ignore[arg-type]
            return result

        return await self.passes.shown(door, token, self.server, carry_out)

    def entries(self) -> list[dict[str, Any]]:
        return [one for one in self.journal.waiting() if one["type"] == "offline_entry"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


async def test_alone_a_good_pass_opens_once_and_is_written_down(world: World) -> None:
    await world.alone_after()
    token = world.token()
    assert await world.show(token) == Answer(True, "ok")
    assert [pulse.door for pulse in world.relay.pulses] == [DOOR]
    again = await world.show(token)
    assert (again.opened, again.reason, again.why) == (False, "token_expired", "used")
    assert len(world.relay.pulses) == 1
    opened, refused = world.entries()
    assert (opened["result"], opened["jti"], opened["door"]) == ("opened", "j1", DOOR)
    assert opened["clock_error_ms"] < 1000
    assert (refused["result"], refused["why"]) == ("refused", "used")
    assert token not in json.dumps(world.entries())


async def test_heard_the_servers_word_counts_and_without_it_nothing_opens(world: World) -> None:
    await world.hear()
    world.server_says = {"valid": True, "reason": "ok", "command": "k1"}
    assert (await world.show(world.token("j1"))).opened
    assert world.relay.pulses == ["k1"]
    world.server_says = {"valid": False, "reason": "station_full", "command": None}
    assert (await world.show(world.token("j2"))).reason == "station_full"
    # The answer was lost; the server may have decided: not decided again here.
    world.server_says = {}
    lost = world.token("j3")
    assert (await world.show(lost)).reason == "controller_offline"
    world.clock.advance(20)
    assert len(world.relay.pulses) == 1
    # A minute later the link is given up; that very pass is used up all the same.
    world.clock.advance(80)
    fresh = world.token("j3", age_s=1)
    assert (await world.show(fresh)).why == "used"
    assert len(world.relay.pulses) == 1


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "not_granted"),
        (Result("k1", "b", "refused", None, "deadline_passed"), "deadline_passed"),
        (Result("k1", "b", "failed", None, "OSError: stuck"), "OSError: stuck"),
    ],
    ids=["not granted", "too late", "a relay that fails"],
)
async def test_nobody_is_told_that_a_door_opened_whose_relay_did_not_move(
    world: World, result: Result | None, why: str
) -> None:
    await world.hear()
    world.server_says = {"valid": True, "reason": "ok", "command": "k1"}
    world.results["k1"] = result
    assert await world.show(world.token()) == Answer(False, "controller_offline", why)


async def test_at_a_free_door_the_servers_word_opens_without_a_command(world: World) -> None:
    await world.hear()
    world.server_says = {"valid": True, "reason": "ok", "command": None}
    assert (await world.show(world.token())).opened
    assert world.relay.pulses == []


async def test_over_a_restart_a_pass_stays_used(tmp_path: Path) -> None:
    """T03: kill -9 in between."""
    world = World(tmp_path, has_rtc=True)
    await world.alone_after()
    token = world.token()
    assert (await world.show(token)).opened
    world.reboot()
    world.clock.advance(80)
    again = world.token(age_s=1)  # The same number, in its time.
    assert (await world.show(again)).why == "used"
    assert len(world.relay.pulses) == 1
    world.journal.close()


async def test_without_memory_what_was_given_before_this_boot_opens_nothing(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, has_rtc=True)
    await world.alone_after()
    assert not world.journal.remembers
    token = world.token()
    assert (await world.show(token)).opened
    world.clock.advance(2)
    world.reboot(loses_journal=True)
    world.clock.advance(76)
    assert (await world.show(world.token(age_s=79))).why == "token_expired"
    world.reboot(loses_journal=True)
    world.link.silence_s = 0
    world.clock.advance(10)
    assert (await world.show(world.token("j5", age_s=20))).why == "before_boot"
    assert (await world.show(world.token("j6", age_s=1))).opened
    world.journal.close()


async def test_stopped_between_noting_and_recording_the_next_boot_tells(world: World) -> None:
    class Cut(BaseException):
        pass

    await world.alone_after()
    expires = world.true_time() + timedelta(seconds=50)
    # What `begin` wrote is all that a power cut left.
    assert world.journal.begin("j9", expires, "offline_entry", door=DOOR, result="opened")
    world.reboot()
    (entry,) = world.entries()
    assert (entry["jti"], entry["interrupted"], entry["result"]) == ("j9", True, "opened")
    assert world.journal.is_used("j9")
    world.reboot()
    assert len(world.entries()) == 1


async def test_a_relay_that_fails_opened_nothing(world: World) -> None:
    await world.alone_after()
    world.relay.fault = RuntimeError("stuck")
    found = await world.show(world.token())
    assert (found.opened, found.why) == (False, "relay")
    (entry,) = world.entries()
    assert (entry["result"], entry["why"]) == ("refused", "relay: RuntimeError")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"station": "CQ2"}, "token_invalid"),
        ({"key": tokens.generate_key(TokenKind.PASS)}, "token_invalid"),
        ({"age_s": 62}, "token_expired"),
        ({"age_s": 59}, None),
        ({"age_s": -10}, "token_invalid"),
    ],
    ids=["another station", "unknown key", "too old", "just in time", "from the future"],
)
async def test_any_other_pass_is_refused(
    world: World, change: dict[str, Any], why: str | None
) -> None:
    await world.alone_after()
    assert (await world.show(world.token(**change))).why == why
    assert len(world.relay.pulses) == (1 if why is None else 0)


async def test_no_other_text_opens(world: World) -> None:
    await world.alone_after()
    good = world.token()
    poster = tokens.sign_poster(POSTER_KEY, door="x", generation=1)
    for text in ("", "x", good + "==", good[:-1], poster, "a" * 2000, good.replace(".", "..")):
        found = await world.show(text)
        assert not found.opened, text
    assert not (await world.show(good, door="d2")).opened
    assert world.relay.pulses == []


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("closed", "station_closed"),
        ("staff_only", "staff_only"),
        ("evacuation", "evacuation"),
        ("something_new", "policy_expired"),
    ],
)
async def test_the_mode_holds_while_alone(tmp_path: Path, kind: str, why: str) -> None:
    world = World(tmp_path)
    world.kind = kind
    world.reboot()
    await world.alone_after()
    assert (await world.show(world.token())).why == why
    world.journal.close()


async def test_a_free_door_stands_open_and_uses_nothing_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.kind = "free"
    world.reboot()
    await world.alone_after()
    assert (await world.show(world.token())).opened
    assert world.relay.pulses == []
    assert not world.journal.is_used("j1")
    world.journal.close()


async def test_a_station_that_never_works_alone_opens_nothing_and_holds_no_keys(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, hours=None)
    await world.alone_after()
    assert (await world.show(world.token())).why == "policy_never"
    assert not (tmp_path / "jwks.json").exists()
    world.journal.close()


async def test_after_the_policys_hours_nothing_opens_until_the_server_is_heard(
    tmp_path: Path,
) -> None:
    """R07."""
    world = World(tmp_path, hours=2)
    await world.alone_after(7199)
    assert (await world.show(world.token("j1"))).opened
    world.clock.advance(2)
    assert (await world.show(world.token("j2"))).why == "policy_expired"
    pulses = len(world.relay.pulses)
    await world.hear()
    assert len(world.relay.pulses) == pulses
    world.clock.advance(80)
    assert (await world.show(world.token("j3"))).opened
    world.journal.close()


async def test_after_a_power_cut_without_a_clock_nothing_opens(world: World) -> None:
    """T21: no battery, no time, no passes."""
    await world.alone_after()
    world.reboot()
    world.clock.advance(80)
    assert (await world.show(world.token())).why == "clock_unknown"


@pytest.mark.parametrize(
    ("shift", "why"), [(0.0, None), (-3600.0, "clock_unknown"), (3600.0, "token_expired")]
)
async def test_a_clock_on_a_battery_that_somebody_set_judges_nothing_wrongly(
    tmp_path: Path, shift: float, why: str | None
) -> None:
    world = World(tmp_path, has_rtc=True)
    await world.alone_after()
    world.wall_shift = shift
    world.reboot()
    world.clock.advance(80)
    assert (await world.show(world.token())).why == why
    world.journal.close()


async def test_a_denied_worker_is_turned_away_and_let_in_again(world: World) -> None:
    await world.hear()
    until = (world.true_time() + timedelta(days=14)).isoformat()
    world.policy["denial_version"] = 1
    world.denials = {"version": 1, "denials": [{"subject": "w1", "until": until}], "more": False}
    await world.hear()
    world.clock.advance(80)
    assert (await world.show(world.token("j1"))).reason == "worker_blocked"
    assert (await world.show(world.token("j2", worker="w2"))).opened
    world.policy["denial_version"] = 2
    past = (world.true_time() - timedelta(seconds=99)).isoformat()
    world.denials = {"version": 2, "denials": [{"subject": "w1", "until": past}], "more": False}
    await world.hear()
    asked = [r for r in world.asked if r.url.path.endswith("/denials")]
    assert [dict(r.url.params)["since"] for r in asked] == ["0", "1"]
    world.clock.advance(80)
    assert (await world.show(world.token("j3"))).opened


@pytest.mark.parametrize(
    "odd",
    [
        "nobody",
        {},
        {"subject": "w3"},
        {"subject": "w3", "until": "soon"},
        {"subject": "w3", "until": "2026-12-01T00:00:00"},
        {"subject": "w3", "until": "0001-01-01T00:00:00+14:00"},
        {"subject": ["w3"], "until": "2026-12-01T00:00:00Z"},
    ],
    ids=str,
)
async def test_a_denial_that_cannot_be_read_is_asked_for_again_and_hides_no_other(
    world: World, odd: Any
) -> None:
    await world.hear()
    until = (world.true_time() + timedelta(days=14)).isoformat()
    world.policy["denial_version"] = 1
    good = {"subject": "w1", "until": until}
    world.denials = {"version": 1, "denials": [odd, good], "more": True}
    await world.hear()
    await world.hear()
    asked = [r for r in world.asked if r.url.path.endswith("/denials")]
    assert [dict(r.url.params)["since"] for r in asked] == ["0", "0"]
    world.clock.advance(80)
    assert (await world.show(world.token("j1"))).reason == "worker_blocked"
    assert (await world.show(world.token("j2", worker="w2"))).opened


@pytest.mark.parametrize("denials", [None, "none", {"subject": "w1"}])
async def test_an_answer_without_denials_leaves_what_is_held(world: World, denials: Any) -> None:
    await world.hear()
    world.policy["denial_version"] = 1
    world.denials = {"version": 1, "denials": denials, "more": True}
    await world.hear()
    world.clock.advance(80)
    assert (await world.show(world.token())).opened


async def test_keys_and_windows_that_cannot_be_read_end_nothing(world: World) -> None:
    world.jwks += [{"kty": "OKP", "crv": "Ed25519", "typ": ["pass+jwt"]}, "key"]  # type: ignore[list-item]
    config = world.config()
    config["windows"] += [{"from": "2026-11-23T00:00:00", "until": "x", "kind": [], "because": 1}]
    config["windows"] = [config["windows"][-1], *config["windows"][:-1]]
    world.passes.follow(config)
    await world.alone_after()
    assert (await world.show(world.token())).opened


async def test_a_disk_that_refuses_keeps_no_door_shut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFolder, "replace", refuse)
    until = (world.true_time() + timedelta(days=14)).isoformat()
    world.policy["denial_version"] = 1
    world.denials = {"version": 1, "denials": [{"subject": "w1", "until": until}], "more": False}
    await world.alone_after()
    assert (await world.show(world.token("j1"))).reason == "worker_blocked"
    assert (await world.show(world.token("j2", worker="w2"))).opened


def refuses(*_: Any, **__: Any) -> Any:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_journal_that_refuses_keeps_no_door_shut_and_no_pass_is_good_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hear()
    world.server_says = {"valid": True, "reason": "ok", "command": "k1"}
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_use", refuses)
        assert await world.show(world.token("j1")) == Answer(True, "ok")
        world.clock.advance(80)
        # Alone, nobody could remember a pass over a power cut.
        assert await world.show(world.token("j2")) == Answer(False, "controller_offline", "journal")
    assert world.relay.pulses == ["k1"]
    assert (await world.show(world.token("j1", age_s=1))).why == "used"
    assert (await world.show(world.token("j2", age_s=1))).opened


async def test_a_refusal_that_cannot_be_written_down_is_told_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.alone_after()
    monkeypatch.setattr(Journal, "_insert", refuses)
    assert (await world.show(world.token(station="CQ2"))).why == "token_invalid"


async def test_an_opening_whose_record_the_disk_refused_is_told_in_the_same_boot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.alone_after()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_finish", refuses)
        assert await world.show(world.token()) == Answer(True, "ok")
        with pytest.raises(sqlite3.OperationalError):
            world.journal.waiting()
        # An answer about other events does not end the wait for this one.
        world.journal.settle([])
    assert world.journal.news.is_set()
    (entry,) = world.entries()
    assert (entry["jti"], entry["result"], "interrupted" in entry) == ("j1", "opened", False)


async def test_an_act_that_the_disk_still_refuses_at_the_start_does_not_end_the_box(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = world.true_time() + timedelta(seconds=50)
    assert world.journal.begin("j9", expires, "offline_entry", door=DOOR, result="opened")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_finish", refuses)
        world.reboot()
    (entry,) = world.entries()
    assert (entry["jti"], entry["interrupted"]) == ("j9", True)


async def test_keys_that_are_fetched_before_anybody_knows_the_time_are_good(tmp_path: Path) -> None:
    """The keys' answer says no time: at the first start of the day it comes before any poll."""
    world = World(tmp_path, hours=12)
    await world.hear()
    world.clock.advance(100 * 3600)
    world.reboot()
    await world.passes.refresh(world.server)
    assert world.link.now() is None
    world.clock.advance(20)
    await world.alone_after()
    assert (await world.show(world.token())).opened
    assert len([r for r in world.asked if r.url.path.endswith("jwks.json")]) == 2
    kept = json.loads((tmp_path / "jwks.json").read_text())
    fetched = world.true_time() - timedelta(seconds=100)
    assert abs(datetime.fromisoformat(kept["fetched_at"]) - fetched) < timedelta(seconds=1)
    world.journal.close()


@pytest.mark.parametrize("said", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "now"])
async def test_a_time_that_nobody_lives_in_is_not_the_servers(world: World, said: str) -> None:
    world.link.heard(httpx.Response(200, headers={"Server-Time": said}), world.link.sent())
    assert world.link.now() is None


async def test_a_key_that_the_server_took_away_opens_nothing(world: World) -> None:
    await world.hear()
    world.jwks = []
    world.clock.advance(2 * 3600)
    await world.hear()
    world.clock.advance(80)
    found = await world.show(world.token())
    assert (found.opened, found.why) == (False, "keys_missing")


async def test_made_up_keys_make_no_storm_of_fetches(world: World) -> None:
    """5.4: at most one fetch more in five minutes."""
    await world.hear()
    for number in range(200):
        stranger = tokens.generate_key(TokenKind.PASS)
        await world.show(world.token(f"s{number}", key=stranger))
        await world.passes.refresh(world.server)
        world.clock.advance(1)
    fetches = [r for r in world.asked if r.url.path.endswith("jwks.json")]
    assert UNKNOWN_KID_S > 200
    assert len(fetches) <= 2


async def test_refusals_do_not_flood_the_journal(world: World) -> None:
    await world.alone_after()
    for _ in range(200):
        await world.show("nonsense")
    assert len(world.entries()) <= 30


async def test_somebody_else_in_between_is_not_the_server(world: World) -> None:
    """A page of the network's own answers every call, and says nothing of the server."""
    await world.alone_after()
    heard_ago = world.link.heard_ago()
    world.link.heard(httpx.Response(200, text="<html>"), world.link.sent())
    assert world.link.alone
    assert world.link.heard_ago() == heard_ago
    assert (await world.show(world.token())).opened


async def test_neither_silence_nor_its_end_pulses(world: World) -> None:
    await world.hear()
    seen = []
    for _ in range(5):
        world.clock.advance(74)
        seen.append(world.link.turned())
        world.clock.advance(2)
        seen.append(world.link.turned())
        await world.hear()
        seen.append(world.link.turned())
    assert seen == [None, True, False] * 5
    assert world.relay.pulses == []
