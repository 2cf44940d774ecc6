"""The line in which controllers wait with what can wait, while thousands come at once."""

import asyncio
from collections.abc import Callable

import pytest

from app.doors import line
from app.doors.line import Line, ServerBusy

pytestmark = pytest.mark.anyio


class Stage:
    """A line with one place, and who came to it."""

    def __init__(self, dice: Callable[[], float] = lambda: 0.5) -> None:
        self.now = 0.0
        self.line = Line(1, monotonic=lambda: self.now, dice=dice)
        self.served: list[str] = []
        self.leave = asyncio.Event()

    async def comes(self, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._stands(name))
        await asyncio.sleep(0)
        return task

    async def _stands(self, name: str) -> None:
        async with self.line.place():
            self.served.append(name)
            if name == "slow":
                await self.leave.wait()


async def test_who_came_last_is_served_first_since_he_has_most_time_left() -> None:
    stage = Stage()
    tasks = [await stage.comes(name) for name in ("slow", "first", "second", "third")]
    stage.leave.set()
    await asyncio.gather(*tasks)
    assert stage.served == ["slow", "third", "second", "first"]


async def test_whoever_is_put_off_is_told_when_and_leaves_the_rest_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "WAIT_S", 0.02)
    stage = Stage()
    slow, waits = await stage.comes("slow"), await stage.comes("waits")
    with pytest.raises(ServerBusy) as put_off:
        await waits
    assert put_off.value.retry_after_s == line.LEAST_S
    stage.leave.set()
    await slow
    await (await stage.comes("comes again"))
    assert stage.served == ["slow", "comes again"]


async def test_a_long_line_is_spread_over_the_time_in_which_it_could_be_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "WAIT_S", 0.02)
    monkeypatch.setattr(line, "LATEST", 1.0)
    shares = iter(number / 50 for number in range(50))
    stage = Stage(dice=lambda: next(shares))
    served = await stage.comes("slow")
    stage.now = 0.5
    stage.leave.set()
    await served
    stage.leave.clear()
    slow = await stage.comes("slow")
    waiting = [await stage.comes(str(number)) for number in range(50)]
    told = [
        problem.retry_after_s
        for problem in await asyncio.gather(*waiting, return_exceptions=True)
        if isinstance(problem, ServerBusy)
    ]
    assert len(told) == 50
    assert min(told) == line.LEAST_S
    assert 10 < max(told) <= 50
    stage.leave.set()
    await slow


async def test_whoever_goes_away_passes_his_place_on() -> None:
    stage = Stage()
    slow = await stage.comes("slow")
    stays, goes = await stage.comes("stays"), await stage.comes("goes")
    gone = await stage.comes("gone")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    stage.leave.set()
    await asyncio.sleep(0)
    goes.cancel()  # His turn has come, and he does not know it yet.
    await asyncio.gather(slow, goes, return_exceptions=True)
    await asyncio.wait_for(stays, 1)
    await asyncio.wait_for(await stage.comes("last"), 1)
    assert stage.served == ["slow", "stays", "last"]
