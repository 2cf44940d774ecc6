"""The agent's journal: numbered, on the disk, uploaded until the server has each event."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent import journal as agent_journal
from app.agent.journal import DROPPED, Journal
from app.agent.link import Link
from app.agent.state import StateFolder
from tests.agent.world import FakeServer, ListRelay, VirtualClock, an_agent, taken_in, told

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


OPEN: list[Journal] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def a_journal(folder: Path, clock: VirtualClock, **more: Any) -> Journal:
    state, pace = StateFolder(folder), clock.pace()
    OPEN.append(Journal(state, boot_id="b", pace=pace, link=Link(state, pace), **more))
    return OPEN[-1]


async def test_numbers_go_on_after_a_restart_and_nothing_is_forgotten(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = a_journal(tmp_path, clock)
    assert [journal.record("note") for _ in range(3)] == [1, 2, 3]
    journal.settle([2])
    journal.close()
    again = a_journal(tmp_path, clock)
    assert again.epoch == journal.epoch == 1
    assert again.news.is_set()
    assert [event["seq"] for event in again.waiting()] == [1, 3]
    again.settle([1, 3])
    assert not again.news.is_set()
    assert again.record("note") == 4


def test_an_event_says_what_was_known_of_the_servers_time_when_it_was_recorded(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """After a power cut no clock of the box tells how long ago that was."""
    state, pace = StateFolder(tmp_path), clock.pace()
    link = Link(state, pace)
    OPEN.append(journal := Journal(state, boot_id="b", pace=pace, link=link))
    journal.record("note", what="nothing heard yet")
    sent_at = link.sent()
    clock.advance(0.2)
    said = {"Server-Time": (clock.true_time() - timedelta(seconds=0.1)).isoformat()}
    link.heard(httpx.Response(204, headers=said), sent_at)
    clock.advance(3_600)
    happened = clock.true_time()
    assert journal.begin("j1", happened + timedelta(seconds=60), "offline_entry")
    clock.advance(1_000)
    journal.record("note", what="later")
    journal.finish("j1", result="opened")
    events = journal.waiting()
    assert "server_time" not in events[0]
    assert "error_ms" not in events[0]
    (entry,) = (event for event in events if event["type"] == "offline_entry")
    assert datetime.fromisoformat(entry["server_time"]) == happened
    # 0.5 s, half of 0.2 s, and 50 in a million of an hour.
    assert entry["error_ms"] == 780
    journal.close()
    again = a_journal(tmp_path, clock)
    assert again.waiting() == events


def test_it_is_kept_for_its_owner_only(clock: VirtualClock, tmp_path: Path) -> None:
    a_journal(tmp_path, clock)
    (file,) = tmp_path.glob("journal.db")
    assert file.stat().st_mode & 0o777 == 0o600


async def test_news_end_when_the_disk_holds_nothing_whatever_was_counted(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal, earlier = a_journal(tmp_path, clock), a_journal(tmp_path, clock)
    seq = journal.record("note")
    # A boot before this one still writes: what it uploads is gone for both.
    earlier.settle([seq])
    journal.settle([])
    assert not journal.news.is_set()
    assert journal.held == 0


async def test_a_journal_that_is_gone_or_damaged_begins_a_new_epoch(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = a_journal(tmp_path, clock)
    journal.record("note")
    journal.close()
    (tmp_path / Journal.FILE).write_bytes(b"not a database" * 1000)
    damaged = a_journal(tmp_path, clock)
    assert (damaged.epoch, damaged.record("note")) == (2, 1)
    assert (tmp_path / "journal.epoch-1.damaged").exists()
    damaged.close()
    (tmp_path / Journal.FILE).unlink()
    gone = a_journal(tmp_path, clock)
    assert (gone.epoch, gone.record("note")) == (3, 1)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("{torn"),
        lambda file: file.write_bytes(b"\xff\xfe" * 20),
        lambda file: file.write_text('{"epoch": "many"}'),
        lambda file: file.write_text('{"epoch": 1}'),
    ],
    ids=["gone", "torn", "noise", "no number", "an old copy"],
)
def test_a_sound_journal_outlives_the_number_of_its_epoch(
    clock: VirtualClock, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    journal = a_journal(tmp_path, clock)
    journal.record("note")
    journal.close()
    (tmp_path / Journal.FILE).unlink()
    second = a_journal(tmp_path, clock)
    assert second.epoch == 2
    held = [second.record("note"), second.record("note")]
    second.close()
    harm(tmp_path / "epoch.json")
    again = a_journal(tmp_path, clock)
    assert (again.epoch, again.remembers) == (2, True)
    assert [event["seq"] for event in again.waiting()] == held
    assert list(tmp_path.glob("*.damaged")) == []
    again.close()
    (tmp_path / Journal.FILE).write_bytes(b"not a database" * 1000)
    assert a_journal(tmp_path, clock).epoch > 2


@pytest.mark.parametrize("wall", [None, 0.0], ids=["a clock", "a clock that began anew"])
async def test_with_both_gone_no_epoch_comes_twice(
    clock: VirtualClock, tmp_path: Path, wall: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wall is not None:
        pace = clock.pace()
        monkeypatch.setattr(clock, "pace", lambda: dataclasses.replace(pace, wall=lambda: wall))
    epochs = [a_journal(tmp_path, clock).epoch]
    for _ in range(3):
        OPEN[-1].close()
        (tmp_path / Journal.FILE).write_bytes(b"not a database" * 1000)
        (tmp_path / "epoch.json").write_text("{torn")
        epochs.append(a_journal(tmp_path, clock).epoch)
        clock.advance(60)
    assert len(set(epochs)) == 4
    assert all(1_000_000 < epoch < 2**31 for epoch in epochs[1:])


async def test_a_journal_made_before_they_said_their_epoch_goes_on(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = a_journal(tmp_path, clock)
    journal.record("note")
    journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / Journal.FILE)) as db, db:
        db.execute("DELETE FROM kept WHERE name = 'epoch'")
    again = a_journal(tmp_path, clock)
    assert (again.epoch, again.record("note")) == (1, 2)
    again.close()
    (tmp_path / "epoch.json").unlink()
    assert a_journal(tmp_path, clock).record("note") == 3


async def test_an_old_copy_of_a_journal_gives_no_number_a_second_time(
    clock: VirtualClock, tmp_path: Path
) -> None:
    a_journal(tmp_path, clock).close()
    old = (tmp_path / Journal.FILE).read_bytes()
    (tmp_path / Journal.FILE).unlink()
    second = a_journal(tmp_path, clock)
    assert (second.epoch, second.record("note")) == (2, 1)
    second.close()
    (tmp_path / Journal.FILE).write_bytes(old)
    third = a_journal(tmp_path, clock)
    assert (third.epoch, third.record("note")) == (3, 1)


def refuses(*_: Any, **__: Any) -> Any:
    raise sqlite3.OperationalError("disk I/O error")


def is_full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


class StandingClock(VirtualClock):
    """A clock that stands still through all pauses, so that no deadline passes."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("refusal", [refuses, is_full])
async def test_a_disk_that_refuses_at_the_start_keeps_no_door_shut_and_loses_nothing(
    tmp_path: Path, refusal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, cut, relay = StandingClock(), httpx.ConnectError("cut"), ListRelay()
    first = FakeServer(clock, polls=[told("k1")], acks=[cut], events=[cut])
    async with an_agent(first, tmp_path, relay=relay):
        await first.reached(lambda: first.bodies("acks") and first.bodies("events"))
    journal = a_journal(tmp_path, clock)
    held = journal.waiting()
    journal.close()
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(agent_journal, "_connected", refusal)
        patch.setattr(StateFolder, "replace", is_full)
        patch.setattr(StateFolder, "append", is_full)
        server = FakeServer(clock, polls=[told("k2")])
        async with an_agent(server, tmp_path, relay=relay):
            await server.reached(lambda: len(server.bodies("acks")) == 2 and not server.polls)
        assert server.bodies("events") == []
        assert contents(tmp_path) == before
    assert held
    assert [pulse.command for pulse in relay.pulses] == ["k1", "k2"]
    again = a_journal(tmp_path, clock)
    assert (again.epoch, again.remembers, again.waiting()) == (1, True, held)


async def test_what_the_disk_refuses_for_a_while_is_told_in_its_order_and_with_its_time(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = a_journal(tmp_path, clock)
    journal.record("note", what="before")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_insert", refuses)
        journal.record("door_opened")
        await clock.sleep(3)
        journal.record("door_closed")
        with pytest.raises(sqlite3.OperationalError):
            journal.waiting()
    await clock.sleep(60)
    held = journal.waiting()
    assert [(event["seq"], event["type"]) for event in held] == [
        (1, "note"),
        (2, "door_opened"),
        (3, "door_closed"),
    ]
    began = held[0]["mono_ms"]
    assert [event["mono_ms"] - began for event in held] == [0, 0, 3_000]
    journal.settle([1, 2, 3])
    assert not journal.news.is_set()
    journal.close()


async def test_what_was_written_in_memory_is_told_as_soon_as_the_disk_takes_it(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = a_journal(tmp_path, clock)
    earlier.record("note")
    earlier.close()
    connected, refusals = agent_journal._connected, iter([True, True, True])

    def refuses_thrice(path: str) -> sqlite3.Connection:
        return refuses() if next(refusals, False) else connected(path)

    monkeypatch.setattr(agent_journal, "_connected", refuses_thrice)
    server = FakeServer(clock)
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(uploaded(server)) == 2)
    assert [(event["seq"], event["type"]) for event in uploaded(server)] == [
        (1, "note"),
        (2, "power"),
    ]
    assert server.bodies("events")[0]["epoch"] == 1


async def test_passes_used_in_memory_stay_used_and_none_opens_alone_before_the_disk_has_them(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_journal(tmp_path, clock).close()
    until = clock.true_time() + timedelta(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(agent_journal, "_connected", refuses)
        journal = a_journal(tmp_path, clock, capacity=3)
        assert not journal.remembers
        assert [journal.use("j1", until), journal.use("j1", until)] == [True, False]
        for call in (
            lambda: journal.begin("j2", until, "offline_entry"),
            journal.waiting,
        ):
            with pytest.raises(sqlite3.OperationalError):
                call()
        # Memory has room for three, and what it refuses waits beside it.
        assert [journal.record("note") for _ in range(4)] == [1, 2, 3, 0]
    last, lost = journal.waiting()
    assert (last["seq"], last["type"]) == (4, "note")
    assert (lost["type"], lost["first_seq"], lost["last_seq"]) == ("overflow", 1, 3)
    assert journal.remembers
    assert not journal.use("j1", until)
    assert journal.begin("j2", until, "offline_entry")
    journal.close()
    assert not a_journal(tmp_path, clock).use("j1", until)


@pytest.mark.parametrize(("code", "is_damage"), [(266, False), (11, True)])
def test_a_page_that_the_disk_does_not_give_is_no_damage(
    clock: VirtualClock,
    tmp_path: Path,
    code: int,
    is_damage: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = a_journal(tmp_path, clock)
    journal.record("note")
    journal.close()

    checks = iter([True])

    class Worn(sqlite3.Connection):
        def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
            if "quick_check" in sql and next(checks, False):
                sql = f"SELECT 'Page 3: unable to get the page. error code={code}'"
            return super().execute(sql, *more)

    with monkeypatch.context() as patch:
        patch.setattr(
            "app.agent.journal.sqlite3.connect", functools.partial(sqlite3.connect, factory=Worn)
        )
        a_journal(tmp_path, clock).close()
    assert bool(list(tmp_path.glob("*.damaged"))) == is_damage
    if not is_damage:
        again = a_journal(tmp_path, clock)
        assert (again.epoch, again.record("note")) == (1, 2)


async def test_a_journal_that_was_begun_and_no_further_or_cut_to_nothing_gives_no_number_twice(
    clock: VirtualClock, tmp_path: Path
) -> None:
    first = a_journal(tmp_path, clock)
    first.record("note")
    first.close()
    (tmp_path / Journal.FILE).unlink()
    (tmp_path / Journal.FILE).touch()
    again = a_journal(tmp_path, clock)
    assert (again.epoch, again.record("note"), again.remembers) == (2, 1, False)


async def test_an_enrolled_box_that_lost_the_journal_and_its_number_gives_none_twice(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Here both are gone without a trace; it is not its first boot all the same."""
    epochs = []
    for _ in range(2):
        server = FakeServer(clock)
        async with an_agent(server, tmp_path, relay=ListRelay()):
            await server.reached(lambda s=server: uploaded(s))
        epochs.append(server.bodies("events")[0]["epoch"])
        lose_journal(tmp_path)
    assert epochs[0] == 1
    assert epochs[1] > 1_000_000


def lose_journal(folder: Path) -> None:
    for file in (*folder.glob("journal.db*"), folder / "epoch.json"):
        file.unlink()


DAMAGE = [b'{"to', b"\xff\xfe\x00", b"[1]", b'{"seq": 7}']


def harm(folder: Path, sql: str, *values: Any) -> None:
    """Let the disk give back something else, in a page that its check finds no fault with."""
    with contextlib.closing(sqlite3.connect(folder / Journal.FILE)) as db, db:
        db.execute(sql, values)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_an_event_that_comes_back_damaged_is_told_as_lost_and_holds_up_nothing(
    clock: VirtualClock, tmp_path: Path, damage: bytes
) -> None:
    journal = a_journal(tmp_path, clock)
    for _ in range(3):
        journal.record("note")
    journal.close()
    harm(tmp_path, "UPDATE events SET event = CAST(? AS TEXT) WHERE seq = 2", damage)
    relay, server = ListRelay(), FakeServer(clock, polls=[told("k1")])
    async with an_agent(server, tmp_path, relay=relay):
        await server.reached(lambda: len(uploaded(server)) >= 4 and server.bodies("acks"))
    assert [pulse.command for pulse in relay.pulses] == ["k1"]
    events = uploaded(server)
    assert {event["seq"] for event in events} >= {1, 3}
    (lost,) = [event for event in events if event["type"] == "overflow"]
    assert (lost["first_seq"], lost["last_seq"]) == (2, 2)


async def test_a_damaged_event_that_gives_way_is_told_with_the_rest(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = a_journal(tmp_path, clock, capacity=200)
    for _ in range(200):
        journal.record("note")
    journal.close()
    harm(tmp_path, "UPDATE events SET event = CAST(? AS TEXT) WHERE seq = 50", DAMAGE[0])
    again = a_journal(tmp_path, clock, capacity=200)
    again.record("note")
    kept = again.waiting()
    (lost,) = [event for event in kept if event["type"] == "overflow"]
    assert (lost["first_seq"], lost["last_seq"]) == (1, DROPPED)


@pytest.mark.parametrize("damage", DAMAGE[:3])
async def test_an_act_that_comes_back_damaged_keeps_no_box_from_starting(
    clock: VirtualClock, tmp_path: Path, damage: bytes
) -> None:
    journal = a_journal(tmp_path, clock)
    until = clock.true_time() + timedelta(minutes=1)
    assert journal.begin("j1", until, "offline_entry", door="d1")
    journal.close()
    harm(tmp_path, "UPDATE used SET act = CAST(? AS TEXT)", damage)
    again = a_journal(tmp_path, clock)
    (event,) = again.waiting()
    assert (event["type"], event["jti"], event["interrupted"]) == ("note", "j1", True)
    assert not again.use("j1", until)


async def test_a_damaged_journal_stays_where_it_is_until_its_next_number_is_written(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_journal(tmp_path, clock).close()
    (tmp_path / Journal.FILE).write_bytes(b"not a database" * 1000)
    (tmp_path / "epoch.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "replace", is_full)
        a_journal(tmp_path, clock).close()
    # Else this one would look like the first, and give the first one's numbers again.
    assert a_journal(tmp_path, clock).epoch > 1


async def test_when_it_is_full_the_oldest_give_way_and_their_numbers_are_told(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """R15: above the capacity the loss is reported exactly, also of an earlier report."""
    journal = a_journal(tmp_path, clock, capacity=1_000)
    for _ in range(1_050):
        journal.record("note")
    kept = {event["seq"]: event for event in journal.waiting(limit=5_000)}
    lost = set(range(1, 1_051)) - kept.keys()
    (report,) = (event for event in kept.values() if event["type"] == "overflow")
    assert set(range(report["first_seq"], report["last_seq"] + 1)) == lost
    assert len(lost) == DROPPED
    for _ in range(3_000):
        journal.record("note")
    kept = {event["seq"]: event for event in journal.waiting(limit=5_000)}
    told: set[int] = set()
    for event in kept.values():
        if event["type"] == "overflow":
            told |= set(range(event["first_seq"], event["last_seq"] + 1))
    assert told == set(range(1, max(kept) + 1)) - kept.keys()


async def test_a_pass_through_the_door_is_uploaded(clock: VirtualClock, tmp_path: Path) -> None:
    config = {"version": "1", "doors": [{"id": "d1", "has_contact": True}]}
    server = FakeServer(clock, configs=[httpx.Response(200, json=config, headers={"ETag": '"1"'})])
    door = ADoor()
    async with an_agent(server, tmp_path, relay=door, contact=door):
        await server.reached(lambda: len(server.requests("polls")) == 1)
        door.moves("d1", True)
        door.moves("d1", False)
        door.moves("other", True)
        await server.reached(lambda: len(uploaded(server)) >= 3)
    assert [event["type"] for event in uploaded(server)] == ["power", "door_opened", "door_closed"]
    batch = server.bodies("events")[0]
    assert (batch["epoch"], batch["boot_id"]) == (1, uploaded(server)[0]["boot_id"])
    assert batch["mono_ms"] >= uploaded(server)[0]["mono_ms"]


@pytest.mark.parametrize(("is_open", "type"), [(False, "door_closed"), (True, "door_opened")])
async def test_how_a_door_stands_is_told_once_at_each_start(
    clock: VirtualClock, tmp_path: Path, is_open: bool, type: str
) -> None:
    doors = [{"id": "d1", "has_contact": True}, {"id": "d2", "has_contact": False}]
    config = {"version": "1", "doors": doors}
    answer = httpx.Response(200, json=config, headers={"ETag": '"1"'})
    for _ in range(2):  # The first boot has no config yet.
        server, door = FakeServer(clock, polls=[told(), told()], configs=[answer]), ADoor()
        door.stands_open = is_open
        await polls_thrice(server, tmp_path, door)
        assert told_at_start(server) == [(type, "d1")]


async def polls_thrice(server: FakeServer, folder: Path, door: "ADoor") -> None:
    """Let an agent live until it said how its doors stand, and polls for the third time."""
    async with an_agent(server, folder, relay=door, contact=door):
        await server.reached(lambda: len(server.requests("polls")) == 3)
        await server.reached(lambda: told_at_start(server))


def told_at_start(server: FakeServer) -> list[tuple[str, str]]:
    """Give what the boot that polls said of how its doors stand."""
    boot = server.requests("polls")[0].url.params["boot_id"]
    return [
        (event["type"], event["door"])
        for event in uploaded(server)
        if event.get("at_start") is True and event["boot_id"] == boot
    ]


async def test_a_door_that_moved_already_is_not_told_as_it_was_found(
    clock: VirtualClock, tmp_path: Path
) -> None:
    config = {"version": "1", "doors": [{"id": "d1", "has_contact": True}]}
    answer = httpx.Response(200, json=config, headers={"ETag": '"1"'})
    newer = httpx.Response(200, json=config | {"version": "2"}, headers={"ETag": '"2"'})
    door = ADoor()

    def moves(request: httpx.Request) -> httpx.Response:
        door.moves("d1", False)
        door.stands_open = False
        return told(version="2")

    server = FakeServer(clock, polls=[moves, told(version="2")], configs=[answer, newer])
    async with an_agent(server, tmp_path, relay=door, contact=door):
        await server.reached(lambda: len(uploaded(server)) >= 2)
        await server.reached(lambda: len(server.requests("polls")) == 3)
    events = [(event["type"], event.get("at_start")) for event in uploaded(server)]
    assert events == [("power", None), ("door_closed", None)]


async def test_a_door_that_stands_open_is_reported_once(
    clock: VirtualClock, tmp_path: Path
) -> None:
    config = {"version": "1", "doors": [{"id": "d1", "has_contact": True}]}
    server = FakeServer(clock, configs=[httpx.Response(200, json=config, headers={"ETag": '"1"'})])
    door = ADoor()
    async with an_agent(server, tmp_path, relay=door, contact=door):
        await server.reached(lambda: len(server.requests("polls")) == 1)
        door.moves("d1", True)
        await server.reached(lambda: "door_held" in [event["type"] for event in uploaded(server)])
    held = next(event for event in uploaded(server) if event["type"] == "door_held")
    opened = next(event for event in uploaded(server) if event["type"] == "door_opened")
    assert held["mono_ms"] - opened["mono_ms"] >= 120_000


async def test_a_door_that_is_propped_open_while_it_is_free_is_watched_from_then_on(
    clock: VirtualClock, tmp_path: Path
) -> None:
    until, over = clock.true_time() + timedelta(seconds=600), clock.true_time() + timedelta(days=1)
    windows = [
        {"from": a.isoformat(), "until": b.isoformat(), "kind": kind, "because": "weekly"}
        for a, b, kind in (
            (until - timedelta(days=1), until, "free"),
            (until, over, "scan"),
        )
    ]
    config = {
        "version": "1",
        "doors": [{"id": "d1", "has_contact": True}],
        "windows": windows,
    }
    server = FakeServer(
        clock,
        configs=[httpx.Response(200, json=config, headers={"ETag": '"1"'})],
        tells_time=True,
    )
    ends_at = clock.now + 600
    door = ADoor()
    async with an_agent(server, tmp_path, relay=door, contact=door):
        await server.reached(lambda: len(server.requests("polls")) == 1)
        door.moves("d1", True)
        await server.reached(lambda: "door_held" in [event["type"] for event in uploaded(server)])
    held = next(event for event in uploaded(server) if event["type"] == "door_held")
    # The last look at a free door lies a second or two before the end.
    assert held["mono_ms"] >= (ends_at - 2 + 120) * 1000


async def test_an_upload_that_fails_is_sent_again_with_the_same_numbers(
    clock: VirtualClock, tmp_path: Path
) -> None:
    server = FakeServer(clock, events=[httpx.ConnectError("cut"), httpx.Response(503), taken_in])
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(server.requests("events")) == 3)
    first, _, third = server.bodies("events")
    assert first["events"] == third["events"]


async def test_an_answer_that_holds_nothing_is_followed_by_pauses_that_grow(
    clock: VirtualClock, tmp_path: Path
) -> None:
    empty = httpx.Response(200, json={"results": [], "acked_through": 0})
    answers = iter([empty] * 8)

    def behind(request: httpx.Request) -> httpx.Response:
        return next(answers, None) or taken_in(request)

    server = FakeServer(clock, events=[behind])
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(server.requests("events")) == 9)
    assert len(clock.slept) >= 8
    assert max(clock.slept) > 4
    assert len({json.dumps(batch["events"]) for batch in server.bodies("events")}) == 1


async def test_an_answer_about_events_that_were_not_sent_forgets_none_of_them(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = a_journal(tmp_path, clock)
    for _ in range(600):
        journal.record("note")
    journal.close()

    def confused(request: httpx.Request) -> httpx.Response:
        every = [{"event_id": "?", "seq": seq, "status": "accepted"} for seq in range(1, 700)]
        return httpx.Response(200, json={"results": every, "acked_through": 699})

    server = FakeServer(clock, events=[confused])
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(uploaded(server)) == 601)


async def test_a_batch_that_is_too_large_is_parted(clock: VirtualClock, tmp_path: Path) -> None:
    journal = a_journal(tmp_path, clock)
    for _ in range(7):
        journal.record("note")
    journal.close()

    def small_only(request: httpx.Request) -> httpx.Response:
        if len(json.loads(request.content)["events"]) > 4:
            return httpx.Response(413, json={})
        return taken_in(request)

    server = FakeServer(clock, events=[small_only])
    async with an_agent(server, tmp_path, relay=ListRelay()):
        await server.reached(lambda: len(uploaded(server, most=4)) >= 8)
    assert {event["seq"] for event in uploaded(server, most=4)} == set(range(1, 9))


def uploaded(server: FakeServer, most: int = 500) -> list[dict[str, Any]]:
    return [
        event
        for body in server.bodies("events")
        if len(body["events"]) <= most
        for event in body["events"]
    ]


class ADoor(ListRelay):
    """A relay whose door moves when a test says so."""

    def __init__(self, *, is_open: bool | None = None) -> None:
        super().__init__()
        self.stands_open = is_open

    def watch(self, moved: Any) -> None:
        self.moves = moved

    def is_open(self, _door: str) -> bool | None:
        return self.stands_open
