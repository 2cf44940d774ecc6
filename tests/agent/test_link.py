"""The server's time as a controller knows it: the best answer counts, until another contradicts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.agent.link import KEPT_EVERY_S, Link
from app.agent.state import StateFolder
from tests.agent.world import VirtualClock

START = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)


class World:
    """A controller's link, and a server whose clock may be wrong."""

    def __init__(self, folder: Path, *, has_rtc: bool = False) -> None:
        self.folder, self.has_rtc = folder, has_rtc
        self.clock = VirtualClock()
        self.zero = self.clock.now
        self.server_off = timedelta(0)
        self.link = self.boot()

    def boot(self) -> Link:
        return Link(StateFolder(self.folder), self.clock.pace(), has_rtc=self.has_rtc)

    def truth(self) -> datetime:
        return START + timedelta(seconds=self.clock.now - self.zero)

    def hears(self, *, within_s: float) -> None:
        """Hear an answer that the server wrote at the end of so many seconds."""
        sent_at = self.link.sent()
        self.clock.advance(within_s)
        said = (self.truth() + self.server_off).isoformat()
        self.link.heard(httpx.Response(204, headers={"Server-Time": said}), sent_at)

    def is_right(self) -> bool:
        """Whether the truth lies within the error that the link tells."""
        known = self.link.now()
        assert known is not None
        return abs(known.at - self.truth()) <= known.error


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_time_told_by_a_server_that_was_wrong_counts_until_it_tells_another(
    world: World, hours: int
) -> None:
    """R18: after it there are only polls, whose answers take 25 s to come."""
    world.server_off = timedelta(hours=hours)
    world.hears(within_s=0.06)
    assert not world.is_right()
    world.server_off = timedelta(0)
    world.hears(within_s=25)
    assert world.is_right()
    world.clock.advance(3 * 3600)
    assert world.is_right()


def test_an_answer_that_took_long_takes_no_better_ones_place(world: World) -> None:
    world.hears(within_s=0.06)
    for _ in range(200):
        world.hears(within_s=25)
    known = world.link.now()
    assert known is not None
    # 0.53 s, and 50 in a million of 5,000 s.
    assert known.error < timedelta(seconds=0.8)
    assert world.is_right()


def test_what_was_kept_for_the_next_boot_is_put_right_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, has_rtc=True)
    world.server_off = timedelta(hours=-1)
    world.hears(within_s=0.06)
    world.server_off = timedelta(0)
    world.clock.advance(KEPT_EVERY_S / 10)
    world.hears(within_s=25)
    world.link = world.boot()
    assert world.is_right()
