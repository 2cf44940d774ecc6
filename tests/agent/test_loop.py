"""The agent against a server that misbehaves in every way the field knows."""

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app.agent import loop as agent_loop
from app.agent.journal import Journal
from app.agent.loop import CredentialRevoked, run_agent
from app.agent.passes import Answer
from app.agent.reader import Judge, Note
from app.agent.relay import Pulse
from app.agent.state import StateFolder, StateLocked
from tests.agent.world import (
    FakeServer,
    ListRelay,
    VirtualClock,
    an_agent,
    granted,
    refused,
    told,
)

pytestmark = pytest.mark.anyio

PULSE = Pulse(command="k1", door="d1", pulse_ms=3_000)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def relay() -> ListRelay:
    return ListRelay()


async def _until_acked(
    server: FakeServer, state: Path, relay: ListRelay, acks: int = 1, seed: int = 7
) -> None:
    async with an_agent(server, state, relay=relay, seed=seed):
        await server.reached(lambda: len(server.bodies("acks")) >= acks and not server.polls)


async def test_a_told_command_is_claimed_pulsed_and_acknowledged(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    server = FakeServer(clock, polls=[told("k1")])
    await _until_acked(server, tmp_path, relay)
    [claim], [ack], poll = (
        server.bodies("claims"),
        server.bodies("acks"),
        server.requests("polls")[0],
    )
    assert relay.pulses == [PULSE]
    assert ack == {"boot_id": claim["boot_id"], "result": "executed", "pulse_after_claim_ms": 0}
    assert dict(poll.url.params) == {
        "wait": "25",
        "boot_id": claim["boot_id"],
        "config_version": "1",
    }
    assert poll.headers["Authorization"] == "Bearer secret-1"
    assert poll.extensions["timeout"]["read"] == 35.0


@pytest.mark.parametrize(
    ("stalled_s", "pulses", "result"),
    [(0.5, 1, "executed"), (8.999, 1, "executed"), (9.0, 0, "refused"), (30.0, 0, "refused")],
)
async def test_a_stalled_claim_answer_never_opens_late(
    clock: VirtualClock,
    relay: ListRelay,
    tmp_path: Path,
    stalled_s: float,
    pulses: int,
    result: str,
) -> None:
    def stall(request: httpx.Request) -> httpx.Response:
        clock.advance(stalled_s)
        return granted(ttl_ms=9_000)

    server = FakeServer(clock, polls=[told("k1")], claims=[stall])
    await _until_acked(server, tmp_path, relay)
    [ack] = server.bodies("acks")
    assert len(relay.pulses) == pulses
    assert ack["result"] == result
    assert ack.get("detail") == (None if pulses else "deadline_passed")


async def test_a_command_told_twice_opens_once(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    server = FakeServer(clock, polls=[told("k1", "k1"), told("k1"), told("k1", "k2")])
    await _until_acked(server, tmp_path, relay, acks=2)
    assert [pulse.command for pulse in relay.pulses] == ["k1", "k2"]
    assert len({claim["nonce"] for claim in server.bodies("claims")}) == 2
    assert len(server.bodies("claims")) == 2


async def test_an_unanswered_claim_is_repeated_with_the_same_nonce(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    lost = httpx.ReadTimeout("lost")
    server = FakeServer(
        clock, polls=[told("k1")], claims=[lost, refused(503, "unavailable"), granted()]
    )
    await _until_acked(server, tmp_path, relay)
    first, second, third = server.bodies("claims")
    assert first == second == third
    assert relay.pulses == [PULSE]


async def test_the_deadline_counts_from_the_claim_that_was_answered(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    def lose(request: httpx.Request) -> httpx.Response:
        clock.advance(3)
        raise httpx.ReadTimeout("lost")

    server = FakeServer(clock, polls=[told("k1")], claims=[lose, granted(ttl_ms=2_000)])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]
    assert server.bodies("acks")[0]["pulse_after_claim_ms"] == 0


async def test_a_claim_is_given_up_when_no_deadline_could_hold(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    def lose(request: httpx.Request) -> httpx.Response:
        clock.advance(3)
        raise httpx.ReadTimeout("lost")

    server = FakeServer(clock, polls=[told("k1"), told("k2")], claims=[lose, lose, lose, lose])
    began = clock.now
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: len(server.seen) > 8 and not server.polls)
        while clock.now < began + 20:
            await clock.sleep(1)
    assert relay.pulses == []
    assert server.bodies("acks") == []
    assert len(server.bodies("claims")) <= 8


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "command_not_found"),
        (409, "claimed_by_another"),
        (410, "command_expired"),
        (410, "command_settled"),
        (410, "command_refused"),
        (422, "invalid"),
    ],
)
async def test_a_refused_claim_opens_nothing_and_is_not_repeated(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, status: int, code: str
) -> None:
    server = FakeServer(
        clock, polls=[told("k1"), told("k1"), told("k2")], claims=[refused(status, code), granted()]
    )
    await _until_acked(server, tmp_path, relay)
    assert [pulse.command for pulse in relay.pulses] == ["k2"]
    assert len(server.bodies("claims")) == 2


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (granted(kind="dance"), "kind_unknown"),
        (granted(pulse_ms=0), "pulse_length"),
        (granted(pulse_ms=3_600_000), "pulse_length"),
        (httpx.Response(200, json={"kind": "unlock", "pulse_ms": 3000}), "deadline_passed"),
        (
            httpx.Response(200, json={"kind": "unlock", "pulse_ms": 3000, "ttl_ms": "soon"}),
            "deadline_passed",
        ),
    ],
)
async def test_what_the_agent_does_not_understand_is_refused(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, answer: httpx.Response, detail: str
) -> None:
    server = FakeServer(clock, polls=[told("k1")], claims=[answer])
    await _until_acked(server, tmp_path, relay)
    [ack] = server.bodies("acks")
    assert relay.pulses == []
    assert (ack["result"], ack["detail"]) == ("refused", detail)


async def test_a_page_of_somebody_else_in_between_is_no_grant(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    portal = httpx.Response(200, text="<html>please pay for this wifi</html>")
    server = FakeServer(clock, polls=[portal, told("k1")], claims=[portal, granted()])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]


async def test_a_relay_that_fails_is_reported(clock: VirtualClock, tmp_path: Path) -> None:
    relay = ListRelay(fault=OSError("pin is\n\tgone " + "x" * 300))
    server = FakeServer(clock, polls=[told("k1")])
    await _until_acked(server, tmp_path, relay)
    [ack] = server.bodies("acks")
    assert (ack["result"], ack["detail"]) == ("failed", ("OSError: pin is gone " + "x" * 300)[:200])


async def test_an_unacknowledged_result_is_sent_after_a_restart_without_a_second_pulse(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    before = FakeServer(clock, polls=[told("k1")], acks=[httpx.ConnectError("no link")])
    await _until_acked(before, tmp_path, relay)
    after = FakeServer(clock, polls=[told("k1")], claims=[refused(410, "command_settled")])
    await _until_acked(after, tmp_path, relay)
    again = FakeServer(clock, polls=[told()])
    async with an_agent(again, tmp_path, relay=relay):
        await again.reached(lambda: len(again.requests("polls")) == 2)
    assert after.bodies("acks") == before.bodies("acks")[:1]
    assert after.bodies("acks")[0]["boot_id"] != after.bodies("claims")[0]["boot_id"]
    assert relay.pulses == [PULSE]
    assert again.bodies("acks") == []


async def test_one_ack_that_keeps_failing_holds_up_no_other(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    def poison(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if "/k1/" in request.url.path else 200, json={})

    server = FakeServer(clock, polls=[told("k1"), told("k2")], acks=[poison])
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: any("/k2/" in r.url.path for r in server.requests("acks")))


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_an_ack_that_is_answered_is_not_sent_again(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, status: int
) -> None:
    server = FakeServer(clock, polls=[told("k1"), told("k2")], acks=[refused(status, "no")])
    await _until_acked(server, tmp_path, relay, acks=2)
    assert len(server.bodies("acks")) == 2


async def test_an_empty_answer_is_followed_by_the_next_poll_when_the_server_chooses(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    def waited(request: httpx.Request) -> httpx.Response:
        clock.advance(25)
        return httpx.Response(204, headers={"Config-Version": "1", "Next-Poll-Ms": "4500"})

    server = FakeServer(clock, polls=[waited, told("k1", next_poll_ms=250)])
    await _until_acked(server, tmp_path, relay)
    assert clock.slept[:2] == [4.5, 0.25]


async def test_answers_without_news_do_not_become_a_busy_loop(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    empty = httpx.Response(204)
    server = FakeServer(clock, polls=[empty, empty, told("k1"), told("k1")])
    await _until_acked(server, tmp_path, relay)
    assert len(clock.slept) == 3
    assert all(0.5 <= slept <= 1.5 for slept in clock.slept)


async def test_a_server_that_names_a_time_is_not_asked_sooner(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "7"})
    dated = httpx.Response(
        429,
        headers={
            "Date": "Mon, 05 Jan 2026 01:00:00 GMT",
            "Retry-After": "Mon, 05 Jan 2026 01:00:20 GMT",
        },
    )
    forever = httpx.Response(503, headers={"Retry-After": "86400"})
    server = FakeServer(clock, polls=[busy, dated, forever, told("k1")])
    await _until_acked(server, tmp_path, relay)
    low, high = [7, 20, 120], [7 + 10, 20 + 10, 120 + 10]
    assert all(a <= b <= c for a, b, c in zip(low, clock.slept, high, strict=True))


async def test_the_server_is_missed_once_and_greeted_once(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.agent")
    gone = httpx.ConnectError("refused")
    polls = [gone, gone, httpx.Response(502), told("k1")]
    server = FakeServer(clock, polls=polls, events=[])
    await _until_acked(server, tmp_path, relay)
    said = [r.getMessage() for r in caplog.records if r.name == "app.agent.server"]
    assert [line.split(" url=")[0] for line in said] == ["server is away", "server is back"]


async def test_a_slow_claim_is_not_called_a_missing_server(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.agent")
    server = FakeServer(clock, polls=[told("k1")], claims=[TimeoutError(), granted()])
    await _until_acked(server, tmp_path, relay)
    assert [r for r in caplog.records if r.name == "app.agent.server"] == []
    assert relay.pulses == [PULSE]


async def test_pauses_while_the_server_is_away_are_jittered_within_bounds(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    gone = httpx.ConnectError("refused")
    server = FakeServer(clock, polls=[*[gone] * 60, told("k1")])
    await _until_acked(server, tmp_path, relay)
    assert len(clock.slept) == len(set(clock.slept)) == 60
    assert all(0 <= slept <= 10 for slept in clock.slept)
    assert max(clock.slept) > 9
    assert min(clock.slept) < 1


async def test_agents_that_lose_the_server_together_do_not_come_back_together(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    gone = httpx.ConnectError("refused")
    first = []
    for seed in range(30):
        clock.slept.clear()
        server = FakeServer(clock, polls=[gone, told("k1")])
        await _until_acked(server, tmp_path / str(seed), relay, seed=seed)
        first.append(clock.slept[0])
    assert min(first) < 2
    assert max(first) > 8


async def test_the_config_is_kept_and_asked_for_by_its_tag(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    first = FakeServer(clock, polls=[told()])
    async with an_agent(first, tmp_path, relay=relay):
        await first.reached(lambda: len(first.requests("polls")) == 2)
    newer = httpx.Response(200, json={"version": "2"}, headers={"ETag": '"2"'})
    polls = [told(version="2"), told("k1", version="2"), *[told(version="2")] * 50]
    server = FakeServer(clock, polls=polls, configs=[newer])

    def asked() -> list[tuple[str | None, str]]:
        polls = [poll.url.params for poll in server.requests("polls")]
        return [(poll.get("config_version"), poll["wait"]) for poll in polls]

    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: server.bodies("acks") and asked()[-1][0] == "2")
    assert len(first.requests("configs")) == 1
    [request] = server.requests("configs")
    assert request.headers["If-None-Match"] == '"1"'
    # While the config comes a poll names none, so that it is told of commands, and is soon over.
    assert list(dict.fromkeys(asked())) == [("1", "25"), (None, "3"), ("2", "25")]


@pytest.mark.parametrize(
    "answer",
    [refused(503, "server_busy"), httpx.ConnectError("cut"), httpx.Response(304)],
    ids=["busy", "cut", "not yet"],
)
@pytest.mark.parametrize("is_new", [False, True], ids=["another config", "the first config"])
async def test_a_command_does_not_wait_for_a_config_that_is_not_to_be_had(
    clock: VirtualClock,
    relay: ListRelay,
    tmp_path: Path,
    answer: httpx.Response | Exception,
    is_new: bool,
) -> None:
    first = FakeServer(clock, polls=[told()])
    if not is_new:
        async with an_agent(first, tmp_path, relay=relay):
            await first.reached(lambda: len(first.requests("polls")) == 2)
    server = FakeServer(clock, polls=[told("k1", version="2")], configs=[answer])
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: server.bodies("acks"))
    assert relay.pulses == [PULSE]


async def test_a_config_that_failed_is_fetched_later_and_named_again(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    newer = httpx.Response(200, json={"version": "2"}, headers={"ETag": '"2"'})
    later = told(version="2", next_poll_ms=60_000)
    server = FakeServer(
        clock,
        polls=[later] * 4 + [told("k1", version="2")],
        configs=[httpx.Response(503), httpx.Response(500), newer],
    )
    await _until_acked(server, tmp_path, relay)
    named = [poll.url.params.get("config_version") for poll in server.requests("polls")]
    assert named[0] is None
    assert named[-1] == "2"


POLICY = {"kind": "passes", "hours": 12, "denial_version": 1}


@pytest.mark.parametrize("kind", ["configs", "jwks", "denials", "credentials"])
async def test_no_door_waits_for_an_answer_that_does_not_come_to_something_else(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, kind: str
) -> None:
    config = {"version": "1", "doors": [], "offline_policy": POLICY}
    kept = [httpx.Response(200, json=config, headers={"ETag": '"1"'})]
    none = httpx.Response(200, json={"version": 0, "denials": [], "more": False})
    first = FakeServer(clock, polls=[told()], configs=kept, denials=[none])
    async with an_agent(first, tmp_path, relay=relay):
        await first.reached(lambda: len(first.requests("polls")) == 2)
    clock.advance(31 * 86_400)
    before = asyncio.all_tasks()
    server = FakeServer(clock, polls=[told(version="2"), told("k1", version="2")], denials=[none])
    setattr(server, kind, [])
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: server.bodies("acks") and server.requests(kind))
    assert relay.pulses == [PULSE]
    assert len(server.requests(kind)) == 1
    assert asyncio.all_tasks() == before


async def test_a_boot_without_a_config_has_it_before_its_first_poll(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    """Else a door could be opened of which nobody knew yet that it has a contact."""
    server = FakeServer(clock, polls=[told("k1")])
    await _until_acked(server, tmp_path, relay)
    asked = [kind for kind, _ in server.seen if kind in ("configs", "polls")]
    assert asked[:2] == ["configs", "polls"]
    assert server.requests("polls")[0].url.params["config_version"] == "1"


async def test_a_boot_without_a_config_opens_although_none_comes(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_loop, "FIRST_CONFIG_S", 0.01)
    server = FakeServer(clock, polls=[told("k1")], configs=[])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]


async def test_denials_of_which_a_new_config_tells_are_fetched_at_once(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    """No poll has to end before that: what is judged alone is judged by what is known."""
    config = {"version": "1", "doors": [], "offline_policy": POLICY}
    none = httpx.Response(200, json={"version": 1, "denials": [], "more": False})
    first = FakeServer(clock, polls=[told()])
    async with an_agent(first, tmp_path, relay=relay):
        await first.reached(lambda: len(first.requests("polls")) == 2)
    newer = httpx.Response(200, json=config | {"version": "2"}, headers={"ETag": '"2"'})
    server = FakeServer(clock, polls=[told(version="2")], configs=[newer], denials=[none])
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: server.requests("denials"))
    assert len(server.requests("polls")) == 2


@pytest.mark.parametrize("kind", ["jwks", "denials"])
@pytest.mark.parametrize(
    "fault", [httpx.Response(500), refused(503, "server_busy"), refused(404, "no")], ids=str
)
async def test_what_judging_alone_needs_holds_up_no_command(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, kind: str, fault: httpx.Response
) -> None:
    config = {"version": "1", "doors": [], "offline_policy": POLICY}
    none = httpx.Response(200, json={"version": 1, "denials": [], "more": False})
    server = FakeServer(
        clock,
        polls=[told(next_poll_ms=1_000)] * 300 + [told("k1")],
        configs=[httpx.Response(200, json=config, headers={"ETag": '"1"'})],
        denials=[none],
    )
    setattr(server, kind, [fault])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]
    assert 2 < len(server.requests(kind)) < 100
    if kind == "jwks":
        assert len(server.requests("denials")) == 1


class CountingLock:
    """A lock that is looked after by the mode; it never moves here."""

    def hold(self, is_open: bool) -> None:
        assert not is_open


async def test_a_mode_that_only_a_newer_server_knows_is_logged_once(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spans = [(clock.true_time() + timedelta(hours=12 * n)).isoformat() for n in range(6)]
    windows = [
        {"from": a, "until": b, "kind": "siesta", "because": "weekly"}
        for a, b in itertools.pairwise(spans)
    ]
    config = {"version": "1", "doors": [], "windows": windows}
    server = FakeServer(
        clock,
        polls=[told(next_poll_ms=1_000)] * 50 + [told("k1")],
        configs=[httpx.Response(200, json=config, headers={"ETag": '"1"'})],
        tells_time=True,
    )
    async with an_agent(server, tmp_path, relay=relay, lock=CountingLock()):
        await server.reached(lambda: server.bodies("acks"))
    said = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(said) == 1


async def test_an_unchanged_config_does_not_become_a_busy_loop(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    kept = httpx.Response(200, json={"version": "1"}, headers={"ETag": '"1"'})
    server = FakeServer(
        clock,
        polls=[*[told(version="2")] * 200, told("k1")],
        configs=[kept, httpx.Response(304)],
    )
    await _until_acked(server, tmp_path, relay)
    # Only a poll that set a fetch going is followed by the next one at once.
    assert len(clock.slept) + len(server.requests("configs")) >= 200
    assert len(server.requests("configs")) < 30


async def test_a_revoked_credential_ends_the_agent_after_slow_tries(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    no = refused(401, "unauthorized")
    server = FakeServer(clock, polls=[no, no, no, no, no, told("k1")])
    with pytest.raises(CredentialRevoked):
        async with an_agent(server, tmp_path, relay=relay) as task:
            await asyncio.wait({task}, timeout=10)
    assert clock.slept == [60.0] * 4
    assert relay.pulses == []


async def test_a_passing_refusal_of_the_credential_is_survived(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    no = refused(401, "unauthorized")
    server = FakeServer(clock, polls=[no, no, no, no, told("k1")])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]


async def test_a_disk_that_refuses_keeps_no_command_from_being_carried_out(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = FakeServer(clock, polls=[told()])
    async with an_agent(started, tmp_path, relay=relay):
        await started.reached(lambda: len(started.requests("polls")) == 2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def breaks(request: httpx.Request) -> httpx.Response:
        monkeypatch.setattr(StateFolder, "replace", full)
        monkeypatch.setattr(StateFolder, "append", full)
        monkeypatch.setattr(Journal, "_insert", refuse)
        monkeypatch.setattr(Journal, "settle", refuse)
        return httpx.Response(204, headers={"Server-Time": "2026-01-05T01:00:00+08:00"})

    newer = httpx.Response(200, json={"version": "2"}, headers={"ETag": '"2"'})
    server = FakeServer(clock, polls=[breaks, told("k1", version="2")], configs=[newer])
    await _until_acked(server, tmp_path, relay)
    assert relay.pulses == [PULSE]


async def test_an_upload_goes_on_when_the_disk_takes_writes_again(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, refused_once = Journal.settle, asyncio.Event()

    def refuse_once(self: Journal, numbers: Iterable[int]) -> None:
        if not refused_once.is_set():
            refused_once.set()
            raise sqlite3.OperationalError("database or disk is full")
        settle(self, numbers)

    monkeypatch.setattr(Journal, "settle", refuse_once)
    server = FakeServer(clock)
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: len(server.requests("events")) == 2)
    first, second = server.bodies("events")
    assert first["events"] == second["events"]


class HandReader:
    """A reader that sees what a test holds before it."""

    def __init__(self) -> None:
        self.judge: asyncio.Future[Judge] = asyncio.get_running_loop().create_future()

    async def serve(self, judge: Judge, _note: Note) -> None:
        self.judge.set_result(judge)
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (None, Answer(True, "ok")),
        (OSError("stuck"), Answer(False, "controller_offline", "OSError: stuck")),
    ],
    ids=["pulsed", "failed"],
)
@pytest.mark.parametrize("is_told_first", [True, False])
async def test_a_reader_says_what_became_of_the_command_whoever_carried_it_out(
    clock: VirtualClock,
    tmp_path: Path,
    fault: Exception | None,
    answer: Answer,
    is_told_first: bool,
) -> None:
    relay, reader = ListRelay(fault), HandReader()
    verdict = httpx.Response(200, json={"valid": True, "reason": "ok", "command": "k1"})
    server = FakeServer(clock, polls=[told("k1")] if is_told_first else [], verdicts=[verdict])
    async with an_agent(server, tmp_path, relay=relay, reader=reader):
        judge = await reader.judge
        if is_told_first:
            await server.reached(lambda: server.bodies("acks"))
        assert await judge("d1", "a pass") == answer
    assert len(server.bodies("claims")) == 1
    assert len(relay.pulses) == (1 if fault is None else 0)


async def test_two_agents_do_not_share_a_folder(
    clock: VirtualClock, relay: ListRelay, tmp_path: Path
) -> None:
    server = FakeServer(clock)
    async with an_agent(server, tmp_path, relay=relay), httpx.AsyncClient() as http:
        await server.reached(lambda: server.requests("polls"))
        with pytest.raises(StateLocked):
            await run_agent(
                server_url="http://127.0.0.1:1",
                state_dir=tmp_path,
                code=None,
                relay=relay,
                serial="S-1",
                firmware="9.9",
                stop=asyncio.Event(),
                http=http,
            )
