"""Code readers at doors: they come and go, and take nothing with them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.agent.passes import Answer
from app.agent.reader import LineReader, ReaderUnusable
from tests.agent.world import FakeServer, ListRelay, VirtualClock, an_agent, told

pytestmark = pytest.mark.anyio

PATIENCE_S = 10


@dataclass
class Heard:
    """What readers handed over, and what became of them."""

    texts: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    notes: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)

    async def judge(self, door: str, text: str) -> Answer:
        self.texts.put_nowait((door, text))
        if text == "poison":
            raise RuntimeError("nobody thought of it")
        return Answer(True, "ok")

    def note(self, door: str, what: str) -> None:
        self.notes.put_nowait((door, what))

    async def text(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.texts.get(), PATIENCE_S)

    async def noted(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.notes.get(), PATIENCE_S)


@contextlib.asynccontextmanager
async def reading(paths: Mapping[str, Path]) -> AsyncIterator[Heard]:
    """Read until the block ends; readers that ended before that fail there."""
    heard = Heard()
    task = asyncio.create_task(
        LineReader(paths, VirtualClock().pace()).serve(heard.judge, heard.note)
    )
    try:
        yield heard
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.contextmanager
def plugged_in(path: Path) -> Iterator[int]:
    """Plug a serial reader in for as long as the block lasts; gives where it types."""
    types, shows = os.openpty()
    path.unlink(missing_ok=True)
    path.symlink_to(os.ttyname(shows))
    try:
        yield types
    finally:
        os.close(types)
        os.close(shows)


def pulled_out(types: int) -> None:
    """Pull a reader out: whoever reads it is hung up on."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, types)
    os.close(nothing)


async def test_a_reader_that_is_unplugged_is_read_again_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "reader"
    with plugged_in(path) as types:
        async with reading({"d1": path}) as heard:
            os.write(types, b"one\n")
            assert await heard.text() == ("d1", "one")
            assert heard.notes.empty()
            pulled_out(types)
            assert await heard.noted() == ("d1", "reader_gone")
            with plugged_in(path) as again:
                os.write(again, b"two\n")
                assert await heard.text() == ("d1", "two")
                assert await heard.noted() == ("d1", "reader_back")
            assert await heard.noted() == ("d1", "reader_gone")
            assert heard.notes.empty()


async def test_a_reader_that_is_missing_at_the_start_holds_up_no_other(tmp_path: Path) -> None:
    missing, there = tmp_path / "missing", tmp_path / "there"
    os.mkfifo(there)
    async with reading({"d1": missing, "d2": there}) as heard:
        assert await heard.noted() == ("d1", "reader_gone")
        with there.open("wb", buffering=0) as pipe:
            pipe.write(b"here\n")
        assert await heard.text() == ("d2", "here")
        with plugged_in(missing) as types:
            os.write(types, b"late\n")
            assert await heard.text() == ("d1", "late")
            assert await heard.noted() == ("d1", "reader_back")


async def test_a_pass_that_goes_wrong_leaves_the_next_ones_alone(tmp_path: Path) -> None:
    path = tmp_path / "reader"
    with plugged_in(path) as types:
        async with reading({"d1": path}) as heard:
            os.write(types, b"poison\nbread\n")
            assert [await heard.text(), await heard.text()] == [("d1", "poison"), ("d1", "bread")]


async def test_a_phone_that_is_still_there_after_its_answer_is_not_judged_again(
    tmp_path: Path,
) -> None:
    path, clock, heard = tmp_path / "reader", VirtualClock(), Heard()

    async def judge(door: str, text: str) -> Answer:
        answer = await heard.judge(door, text)
        # As long as the server and the door take; the reader goes on seeing him.
        clock.advance(4)
        return answer

    with plugged_in(path) as types:
        os.write(types, b"one\none\none\ntwo\n")
        task = asyncio.create_task(LineReader({"d1": path}, clock.pace()).serve(judge, heard.note))
        assert [await heard.text(), await heard.text()] == [("d1", "one"), ("d1", "two")]
        task.cancel()
        await asyncio.wait({task})


async def test_what_can_never_be_a_reader_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ReaderUnusable, match="neither a device nor a pipe"):
            await LineReader({"d1": path}, VirtualClock().pace()).serve(Heard().judge, Heard().note)


async def test_the_doors_go_on_without_their_reader_and_the_server_hears_of_it(
    tmp_path: Path,
) -> None:
    relay = ListRelay()
    server = FakeServer(VirtualClock(), polls=[told("k1")])
    reader = LineReader({"d1": tmp_path / "missing"}, VirtualClock().pace())
    async with an_agent(server, tmp_path / "state", relay=relay, reader=reader):
        await server.reached(lambda: server.bodies("acks"))
        await server.reached(lambda: "reader_gone" in str(server.bodies("events")))
    assert [pulse.command for pulse in relay.pulses] == ["k1"]
    events = [event for body in server.bodies("events") for event in body["events"]]
    noted = next(event for event in events if event.get("what") == "reader_gone")
    assert (noted["type"], noted["door"]) == ("note", "d1")
