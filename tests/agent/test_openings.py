"""Forced doors: which openings nothing explains, and which nobody can know of."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.contact import Moved, Used
from tests.agent.world import FakeServer, ListRelay, VirtualClock, an_agent, granted, told

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


class ADoor(ListRelay):
    """A relay and a contact whose door moves when a test says so."""

    def watch(self, moved: Moved) -> None:
        self.moves = moved

    def is_open(self, _door: str) -> bool | None:
        return None


class AnExit:
    """An exit contact at some doors, used when a test says so."""

    def __init__(self, *doors: str) -> None:
        self.used = dict.fromkeys(doors, False)

    def watch(self, used: Used) -> None:
        self.is_left_by = used

    def is_used(self, door: str) -> bool | None:
        return self.used.get(door)


def a_server(clock: VirtualClock, kind: str | None = "scan", **answers: Any) -> FakeServer:
    """A server of a station with two doors with contacts, in one mode for a day; None: unknown."""
    now, day = clock.true_time(), timedelta(days=1)
    window = {"from": (now - day).isoformat(), "until": (now + day).isoformat()}
    config = {
        "version": "1",
        "doors": [{"id": door, "has_contact": True} for door in ("d1", "d2")],
        "windows": [window | {"kind": kind, "because": "weekly"}] if kind else [],
    }
    answer = httpx.Response(200, json=config, headers={"ETag": '"1"'})
    return FakeServer(clock, configs=[answer], tells_time=True, **answers)


def types(server: FakeServer) -> list[str]:
    """Give what was told of doors, in order."""
    told_of = (event for batch in server.bodies("events") for event in batch["events"])
    return [event["type"] for event in told_of if event["type"].startswith("door")]


async def an_opening(
    server: FakeServer,
    folder: Path,
    exits: AnExit | None,
    before: Callable[[AnExit], object] = lambda _: None,
    after: Callable[[AnExit], object] = lambda _: None,
    *,
    pulses: int = 0,
    age_s: float = 60,
) -> list[str]:
    """Open and shut a door, so long after an agent's start or pulse; give what it tells."""
    door, clock = ADoor(), server.clock
    async with an_agent(server, folder, relay=door, contact=door, exits=exits):
        await server.reached(lambda: len(server.requests("polls")) == 1 + pulses)
        await server.reached(lambda: len(server.bodies("acks")) == pulses)
        clock.advance(age_s)
        if exits is not None:
            before(exits)
        door.moves("d1", True)
        if exits is not None:
            after(exits)
        for _ in range(10):
            await clock.sleep(0.5)
        door.moves("d1", False)
        await server.reached(lambda: "door_closed" in types(server))
    return types(server)


FORCED = ["door_opened", "door_forced", "door_closed"]
EXPLAINED = ["door_opened", "door_closed"]


@pytest.mark.parametrize("kind", ["scan", "closed", "staff_only", None])
async def test_a_door_that_opens_by_nothing_we_know_of_is_forced(
    clock: VirtualClock, tmp_path: Path, kind: str | None
) -> None:
    assert await an_opening(a_server(clock, kind), tmp_path, AnExit("d1")) == FORCED


async def test_a_door_without_an_exit_contact_is_never_forced(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Nobody can know: a person may be leaving."""
    assert await an_opening(a_server(clock), tmp_path / "none", None) == EXPLAINED
    assert await an_opening(a_server(clock), tmp_path / "other", AnExit("d2")) == EXPLAINED


async def test_while_the_station_is_free_no_door_is_forced(
    clock: VirtualClock, tmp_path: Path
) -> None:
    assert await an_opening(a_server(clock, "free"), tmp_path, AnExit("d1")) == EXPLAINED


def leaves(exits: AnExit) -> None:
    exits.is_left_by("d1")


def leans(exits: AnExit) -> None:
    exits.used["d1"] = True


async def test_who_leaves_forces_nothing(clock: VirtualClock, tmp_path: Path) -> None:
    def left_a_while_ago(exits: AnExit) -> None:
        leaves(exits)
        clock.advance(14)

    def left_too_long_ago(exits: AnExit) -> None:
        leaves(exits)
        clock.advance(16)

    def left_by_another_door(exits: AnExit) -> None:
        exits.is_left_by("d2")

    async def told_after(before: Callable[[AnExit], object]) -> list[str]:
        return await an_opening(
            a_server(clock), tmp_path / before.__name__, AnExit("d1", "d2"), before
        )

    assert await told_after(leaves) == EXPLAINED
    assert await told_after(leans) == EXPLAINED
    assert await told_after(left_a_while_ago) == EXPLAINED
    assert await told_after(left_too_long_ago) == FORCED
    assert await told_after(left_by_another_door) == FORCED


async def test_an_exit_contact_may_speak_just_after_its_door(
    clock: VirtualClock, tmp_path: Path
) -> None:
    assert await an_opening(a_server(clock), tmp_path, AnExit("d1"), after=leaves) == EXPLAINED


@pytest.mark.parametrize(
    ("pulse_ms", "age_s", "expected"),
    [(3_000, 5, EXPLAINED), (3_000, 20, FORCED), (30_000, 20, EXPLAINED), (30_000, 35, FORCED)],
)
async def test_a_pulse_explains_an_opening_for_15_s_and_for_as_long_as_it_lasts(
    clock: VirtualClock, tmp_path: Path, pulse_ms: int, age_s: float, expected: list[str]
) -> None:
    def later(_request: httpx.Request) -> httpx.Response:
        clock.advance(60)
        return told("k1")

    server = a_server(clock, polls=[later], claims=[granted(pulse_ms=pulse_ms)])
    found = await an_opening(server, tmp_path, AnExit("d1"), pulses=1, age_s=age_s)
    assert found == expected


@pytest.mark.parametrize(("age_s", "expected"), [(5, EXPLAINED), (20, FORCED)])
async def test_a_pulse_of_the_boot_before_may_explain_an_opening(
    clock: VirtualClock, tmp_path: Path, age_s: float, expected: list[str]
) -> None:
    assert await an_opening(a_server(clock), tmp_path, AnExit("d1"), age_s=age_s) == expected
