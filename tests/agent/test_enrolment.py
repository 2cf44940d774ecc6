"""Enrolment: a code works once, and a lost answer does not waste it."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.enrolment import EnrolmentRefused, NotEnrolled
from app.agent.state import StateFolder
from tests.agent.world import FakeServer, ListRelay, VirtualClock, an_agent, refused, told

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def _until_polled(server: FakeServer, state: Path, code: str | None = "CODE") -> str:
    """Run an agent until its first poll and give the credential it used."""
    async with an_agent(server, state, relay=ListRelay(), code=code):
        await server.reached(lambda: server.requests("polls"))
    return server.requests("polls")[-1].headers["Authorization"].removeprefix("Bearer ")


async def test_a_lost_answer_is_asked_for_again_with_the_same_nonce(
    clock: VirtualClock, tmp_path: Path
) -> None:
    yes = httpx.Response(201, json={"controller_id": "c1", "credential": "secret-1"})
    lost = httpx.ReadTimeout("lost")
    server = FakeServer(clock, enrolments=[lost, httpx.Response(502), yes])
    assert await _until_polled(server, tmp_path) == "secret-1"
    first, second, third = server.bodies("enrolments")
    assert first == second == third
    assert {**first, "nonce": ""} == {
        "code": "CODE",
        "serial": "S-1",
        "firmware": "9.9",
        "nonce": "",
    }


async def test_the_nonce_survives_a_power_cut_during_the_first_attempt(
    clock: VirtualClock, tmp_path: Path
) -> None:
    before = FakeServer(clock, enrolments=[httpx.ReadTimeout("lost")])
    async with an_agent(before, tmp_path, relay=ListRelay()):
        await before.reached(lambda: before.bodies("enrolments"))
    after = FakeServer(clock)
    await _until_polled(after, tmp_path)
    assert after.bodies("enrolments")[0] == before.bodies("enrolments")[0]


async def test_the_credential_is_kept_for_its_owner_only(
    clock: VirtualClock, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    await _until_polled(FakeServer(clock), state)
    server = FakeServer(clock)
    assert await _until_polled(server, state, code=None) == "secret-1"
    assert server.requests("enrolments") == []
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "identity.json").stat().st_mode) == 0o600


async def test_a_used_code_is_not_sent_again_and_a_new_one_is(
    clock: VirtualClock, tmp_path: Path
) -> None:
    await _until_polled(FakeServer(clock), tmp_path)
    same = FakeServer(clock)
    await _until_polled(same, tmp_path)
    other = FakeServer(
        clock, enrolments=[httpx.Response(201, json={"controller_id": "c2", "credential": "new"})]
    )
    assert await _until_polled(other, tmp_path, code="OTHER") == "new"
    assert same.requests("enrolments") == []
    assert "Authorization" not in other.requests("enrolments")[0].headers


class Spy:
    """A reader that sees nothing; it knows who would judge."""

    def __init__(self) -> None:
        self.agent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def serve(self, judge: Any, _note: Any) -> None:
        self.agent.set_result(judge.__self__)
        await asyncio.Event().wait()


def a_config(station: str) -> httpx.Response:
    """A config of the one version that both stations have."""
    policy = {"kind": "passes", "hours": 12, "denial_version": 7}
    config = {"version": "1", "station": {"code": station}, "doors": [], "offline_policy": policy}
    return httpx.Response(200, json=config, headers={"ETag": '"1"'})


def some_denials() -> httpx.Response:
    denied = [{"subject": "w1", "until": "2100-01-01T00:00:00Z"}]
    return httpx.Response(200, json={"version": 7, "denials": denied, "more": False})


async def test_a_box_that_moves_to_another_station_works_by_nothing_of_the_old_one(
    clock: VirtualClock, tmp_path: Path
) -> None:
    first = FakeServer(clock, configs=[a_config("A")], denials=[some_denials()])
    await _until_polled(first, tmp_path)
    assert len(first.requests("denials")) == 1
    other = httpx.Response(201, json={"controller_id": "c2", "credential": "new"})
    server = FakeServer(
        clock, enrolments=[other], configs=[a_config("B")], denials=[some_denials()]
    )
    spy = Spy()
    async with an_agent(server, tmp_path, relay=ListRelay(), code="OTHER", reader=spy):
        await server.reached(lambda: server.requests("polls"))
        assert (await spy.agent).config()["station"]["code"] == "B"
    assert "If-None-Match" not in server.requests("configs")[0].headers
    assert server.requests("denials")[0].url.params["since"] == "0"


async def test_the_old_stations_config_is_gone_before_the_new_credential_is_kept(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FakeServer(clock, configs=[a_config("A")], denials=[some_denials()])
    await _until_polled(first, tmp_path)
    replace = StateFolder.replace

    def cut(self: StateFolder, name: str, content: bytes) -> None:
        if b'"new"' in content:
            assert not (tmp_path / "config.json").exists()
        replace(self, name, content)

    monkeypatch.setattr(StateFolder, "replace", cut)
    other = httpx.Response(201, json={"controller_id": "c2", "credential": "new"})
    server = FakeServer(
        clock, enrolments=[other], configs=[a_config("B")], denials=[some_denials()]
    )
    assert await _until_polled(server, tmp_path, code="OTHER") == "new"


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422])
async def test_a_refusal_that_says_nothing_of_the_code_is_no_reason_to_stop(
    clock: VirtualClock, tmp_path: Path, status: int
) -> None:
    yes = httpx.Response(201, json={"controller_id": "c1", "credential": "secret-1"})
    server = FakeServer(clock, enrolments=[refused(status, "request_invalid"), yes])
    assert await _until_polled(server, tmp_path) == "secret-1"
    first, second = server.bodies("enrolments")
    assert first == second


async def test_a_refused_code_is_not_tried_again(clock: VirtualClock, tmp_path: Path) -> None:
    server = FakeServer(clock, enrolments=[refused(401, "code_used")])
    with pytest.raises(EnrolmentRefused, match="code_used"):
        async with an_agent(server, tmp_path, relay=ListRelay()) as task:
            await asyncio.wait({task}, timeout=10)
    assert len(server.requests("enrolments")) == 1


async def test_who_typed_a_wrong_code_reads_what_is_wrong(
    clock: VirtualClock, tmp_path: Path
) -> None:
    said = {"code": "enrolment_refused", "detail": "This code is wrong, used or too old."}
    server = FakeServer(clock, enrolments=[httpx.Response(401, json=said)])
    with pytest.raises(EnrolmentRefused, match="wrong, used or too old"):
        async with an_agent(server, tmp_path, relay=ListRelay()) as task:
            await asyncio.wait({task}, timeout=10)


async def test_without_code_and_credential_the_agent_says_so(
    clock: VirtualClock, tmp_path: Path
) -> None:
    with pytest.raises(NotEnrolled):
        async with an_agent(FakeServer(clock), tmp_path, relay=ListRelay(), code=None) as task:
            await asyncio.wait({task}, timeout=10)


async def test_an_old_credential_is_exchanged_and_the_new_one_kept(
    clock: VirtualClock, tmp_path: Path
) -> None:
    await _until_polled(FakeServer(clock), tmp_path)
    clock.advance(29 * 86_400)
    young = FakeServer(clock)
    assert await _until_polled(young, tmp_path) == "secret-1"
    clock.advance(2 * 86_400)
    old = FakeServer(clock, polls=[told()])
    async with an_agent(old, tmp_path, relay=ListRelay()):
        await old.reached(lambda: len(old.requests("polls")) == 2)
    sent = [poll.headers["Authorization"] for poll in old.requests("polls")]
    assert sent == ["Bearer secret-1", "Bearer secret-2"]
    later = FakeServer(clock)
    assert await _until_polled(later, tmp_path) == "secret-2"
    assert [len(one.requests("credentials")) for one in (young, old, later)] == [0, 1, 0]


async def test_a_failed_exchange_leaves_the_old_credential_at_work(
    clock: VirtualClock, tmp_path: Path
) -> None:
    await _until_polled(FakeServer(clock), tmp_path)
    clock.advance(31 * 86_400)
    server = FakeServer(clock, polls=[told(), told()], credentials=[httpx.Response(500)])
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(server.requests("polls")) == 3)
    assert len(server.requests("credentials")) == 1
    assert server.requests("polls")[0].headers["Authorization"] == "Bearer secret-1"
