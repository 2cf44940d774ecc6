"""What a fleet decides: its dice, its clocks, its witness, its file; no server needed."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from app.agent.fleet import controller, run
from app.agent.fleet.controller import Controller, RelayLog, Tally, World
from app.agent.fleet.faults import LEVELS, Clocks, Faults, Level, Trip, trip
from app.agent.fleet.posts import (
    AdminLogin,
    MemoryState,
    Post,
    PostFile,
    TooFewStations,
    recruit,
)
from app.agent.fleet.run import Plan, TooFewFiles, fast_loop, run_fleet
from app.agent.fleet.wire import Lost, Wire, written
from app.agent.fleet.witness import Law, Witness, pulses_in
from app.agent.state import Result, Results

pytestmark = pytest.mark.anyio


def trips(level: Level, seed: int, number: int = 5_000) -> list[Trip]:
    dice = random.Random(seed)
    return [trip(LEVELS[level], dice) for _ in range(number)]


def test_the_same_seed_gives_the_same_troubles_and_another_seed_others() -> None:
    assert trips(Level.ROUGH, 7) == trips(Level.ROUGH, 7)
    assert trips(Level.ROUGH, 7) != trips(Level.ROUGH, 8)


def test_a_calm_world_does_nothing_to_a_request() -> None:
    assert set(trips(Level.NONE, 7)) == {Trip()}


def test_every_trouble_comes_about_as_often_as_it_says() -> None:
    faults, found = LEVELS[Level.ROUGH], trips(Level.ROUGH, 7)
    shares = {
        faults.refused: [one.refused for one in found],
        faults.lost: [one.lost for one in found],
        faults.cut: [one.cut_after_s is not None for one in found],
        faults.stalled: [one.stall_s > 0 for one in found],
        faults.repeated: [one.repeated for one in found],
    }
    for share, happened in shares.items():
        assert share * 0.7 < sum(happened) / len(found) < share * 1.3
    assert max(one.stall_s for one in found) > 10, "a stall outlives a command"


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_clocks_drift_within_bounds_and_only_the_wall_clock_steps() -> None:
    faults = Faults(drift=100e-6, step_every_s=60, step_s=3600)
    steps = 0
    for seed in range(20):
        hand, dice = Hand(), random.Random(seed)
        clocks = Clocks(faults, dice, monotonic=hand, wall=lambda: 1_800_000_000.0)
        mono, wall = clocks.monotonic(), clocks.wall()
        for _ in range(100):
            hand.now += 10
            assert clocks.monotonic() - mono == pytest.approx(10, rel=101e-6)
            steps += abs(clocks.wall() - wall - 10) > 1
            mono, wall = clocks.monotonic(), clocks.wall()
    assert 150 < steps < 500


def test_the_witness_sees_a_second_pulse() -> None:
    witness = Witness()
    witness.grant("k", sent_at=10, ttl_s=5)
    witness.pulse("k", at=11)
    assert witness.broken == []
    witness.pulse("k", at=12)
    assert witness.broken == [(Law.TWICE, "k")]


def test_the_witness_sees_a_second_pulse_of_an_earlier_run(tmp_path: Path) -> None:
    log = tmp_path / "relay.jsonl"
    log.write_text(json.dumps({"command": "k"}) + '\n{"comm')
    witness = Witness()
    witness.remember(pulses_in(log))
    assert witness.pulses == 0
    witness.grant("k", sent_at=10, ttl_s=5)
    witness.pulse("k", at=11)
    assert witness.broken == [(Law.TWICE, "k")]


def test_the_witness_counts_a_deadline_from_the_sending_of_the_claim() -> None:
    witness = Witness()
    witness.grant("early", sent_at=10, ttl_s=5)
    witness.pulse("early", at=14.999)
    witness.grant("late", sent_at=10, ttl_s=5)
    witness.pulse("late", at=15.001)
    assert witness.broken == [(Law.LATE, "late")]


def test_a_repeated_grant_neither_shortens_nor_prolongs_a_command() -> None:
    witness = Witness()
    witness.grant("k", sent_at=10, ttl_s=5)
    witness.grant("k", sent_at=12, ttl_s=2.9)
    witness.pulse("k", at=14.95)
    assert witness.broken == []


def test_a_slow_clock_is_forgiven_its_drift_and_no_more() -> None:
    witness = Witness(drift=200e-6)
    witness.grant("within", sent_at=10, ttl_s=10)
    witness.pulse("within", at=20.0015)
    witness.grant("beyond", sent_at=10, ttl_s=10)
    witness.pulse("beyond", at=20.0025)
    assert witness.broken == [(Law.LATE, "beyond")]


def test_a_pulse_that_nobody_granted_is_a_broken_law() -> None:
    witness = Witness()
    witness.tell("k", at=1)
    witness.pulse("k", at=2)
    assert witness.broken == [(Law.UNGRANTED, "k")]
    assert witness.seconds == [1]
    assert witness.unpulsed == 0


def test_percentiles_are_by_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [run.percentile(ordered, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert run.percentile([4.0], 99) == 4.0


def test_posts_outlive_the_process_and_each_start_is_a_new_epoch(tmp_path: Path) -> None:
    first = PostFile(tmp_path)
    first.keep(Post("a", "s1", code="C"))
    first.keep(Post("a", "s1", identity={"credential": "x"}))
    first.keep(Post("b", "s2", code="D"))
    first.close()
    with (tmp_path / "fleet.jsonl").open("a") as file:
        file.write('{"serial": "torn')
    second = PostFile(tmp_path)
    second.close()
    assert second.posts == {
        "a": Post("a", "s1", identity={"credential": "x"}),
        "b": Post("b", "s2", code="D"),
    }
    assert (first.epoch, second.epoch) == (1, 2)
    assert (tmp_path / "fleet.jsonl").stat().st_mode & 0o077 == 0


async def test_state_in_memory_outlives_a_reboot_and_the_identity_goes_to_the_file() -> None:
    kept: list[Post] = []
    state = MemoryState(Post("a", "s1", code="C"), kept.append)
    Results(state).add(Result("k", "b", "executed", 5))
    assert [result.command for result in Results(state).unacked()] == ["k"]
    assert kept == []
    state.write("config.json", {"etag": "1"})
    assert state.read("config.json") == {"etag": "1"}
    state.write("identity.json", {"credential": "x"})
    assert kept == [Post("a", "s1", code=None, identity={"credential": "x"})]
    assert state.read("identity.json") == {"credential": "x"}


def test_a_header_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="more than one line"):
        written("GET", "/", host="h", json=None, params=None, headers={"A": "b\r\nC: d"})


Respond = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(respond: Respond) -> AsyncIterator[str]:
    """Serve connections until the block ends; every request's path goes to `respond`."""
    over: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        over.append(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await respond(head.split()[1], writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*over)


async def test_an_answer_that_breaks_off_is_lost_and_the_next_request_connects_anew() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    whole = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-A: b\r\n\r\n{"ok": 1}'
    answers = [half, whole]
    asked = []

    async def respond(path: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        writer.write(answers.pop(0))
        writer.close()

    async with listening(respond) as base:
        wire = Wire(base)
        with pytest.raises(Lost):
            await wire.request("GET", f"{base}/a")
        answer = await wire.request("GET", f"{base}/b", params={"c": "ü"})
        assert (answer.status_code, answer.json(), answer.headers["x-a"]) == (200, {"ok": 1}, "b")
        assert wire.connects == 2
        assert asked == [b"/a", b"/b?c=%C3%BC"]
        wire.cut()


def test_the_wire_works_on_the_loop_that_the_command_runs_it_on() -> None:
    async def respond(path: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def asks() -> int:
        async with listening(respond) as base:
            wire = Wire(base)
            answer = await wire.request("GET", f"{base}/a")
            wire.cut()
            return answer.status_code

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        assert runner.run(asyncio.wait_for(asks(), 10)) == 200


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one() -> None:
    async def respond(path: bytes, writer: asyncio.StreamWriter) -> None:
        if path == b"/slow":
            await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))

    async with listening(respond) as base:
        wire = Wire(base)
        assert (await wire.request("GET", f"{base}/first")).text == "/first"
        assert (await wire.request("GET", f"{base}/again")).text == "/again"
        assert wire.connects == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wire.request("GET", f"{base}/slow")
        assert (await wire.request("GET", f"{base}/next")).text == "/next"
        assert wire.connects == 2
        wire.cut()


async def test_a_fleet_says_clearly_when_it_may_open_too_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "raise_file_limit", lambda: 1_024)
    plan = Plan("http://127.0.0.1:1", 5_523, tmp_path)
    with pytest.raises(TooFewFiles, match=r"5523 controllers need 5723 open files.*allows 1024"):
        await run_fleet(plan, stop=asyncio.Event(), out=Console(quiet=True))


async def test_a_fleet_without_credentials_asks_for_an_administrator(tmp_path: Path) -> None:
    plan = Plan("http://127.0.0.1:1", 3, tmp_path)
    with pytest.raises(TooFewStations, match="--admin NAME"):
        await run_fleet(plan, stop=asyncio.Event(), out=Console(quiet=True))


async def test_a_fleet_that_finds_no_room_says_how_to_make_it(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        signed_in = {"access_token": "t"} if request.method == "POST" else []
        return httpx.Response(200, json=signed_in)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        file, login = PostFile(tmp_path), AdminLogin("chief", "secret")
        with pytest.raises(TooFewStations, match=r"room for 0.*import stations.*or retire"):
            await recruit(file, "http://server", login, agents=1, moved=print, http=http)


class Door:
    """A door that a test moves."""

    def __init__(self, *_: object) -> None:
        self.moved: Callable[[str, bool], None] | None = None
        self.watched = asyncio.Event()
        self.is_passed = False

    def is_open(self, _door: str) -> bool:
        return False

    def watch(self, moved: Callable[[str, bool], None] | None) -> None:
        self.moved = moved
        if moved is None:
            self.watched.clear()
        else:
            self.watched.set()


def a_controller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Controller, Door]:
    """Make a controller with a contact at its door, whose server is not there."""
    door = Door()
    monkeypatch.setattr(controller, "SimulatedDoor", lambda *_: door)
    file, witness = PostFile(folder), Witness()
    log = RelayLog(folder / "relay.jsonl", witness)
    post = Post("s", "station", identity={"credential": "secret"})
    calm, over = asyncio.Event(), asyncio.Event()
    world = World("http://127.0.0.1:1", Faults(), calm, over, 1, file, log, witness, Tally())
    made = Controller(world, post)
    config = {"config": {"doors": [{"id": "door", "has_contact": True}]}}
    made._memory.write("config.json", config)
    return made, door


async def booted(made: Controller, door: Door) -> asyncio.Task[None]:
    """Let it boot, until it watches its door."""
    living = asyncio.create_task(made.live(first_within_s=0))
    await door.watched.wait()
    return living


async def test_what_a_door_does_while_its_controller_is_off_is_nobodys_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, door = a_controller(tmp_path, monkeypatch)
    living = await booted(made, door)
    assert door.moved is not None
    before = made.unsent_events
    door.moved("door", True)
    assert made.unsent_events == before + 1
    living.cancel()
    await asyncio.wait({living})
    assert door.moved is None
    again = await booted(made, door)
    door.moved("door", False)
    assert made.unsent_events > before + 1
    again.cancel()
    await asyncio.wait({again})


async def test_a_controller_has_settled_when_nobody_is_at_its_door_and_the_server_has_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, door = a_controller(tmp_path, monkeypatch)
    assert made.has_settled, "it has not begun anything"
    living = await booted(made, door)
    assert not made.has_settled, "its first event waits for the server"
    made._memory.journal.execute("DELETE FROM events")
    door.is_passed = True
    assert not made.has_settled
    door.is_passed = False
    assert made.has_settled
    living.cancel()
    await asyncio.wait({living})
    assert not made.has_settled, "it is off, and will have something to say"


async def test_a_fleet_that_is_to_stop_waits_until_all_is_told_or_a_second_signal() -> None:
    class Slow:
        has_settled = False

    slow, stop = Slow(), asyncio.Event()
    settling = asyncio.create_task(run._settled([slow], stop))  # type: ignore[list-item]
    await asyncio.wait({settling}, timeout=0.5)
    assert not settling.done()
    slow.has_settled = True
    await settling
    slow.has_settled = False
    settling = asyncio.create_task(run._settled([slow], stop))  # type: ignore[list-item]
    stop.set()
    await settling
