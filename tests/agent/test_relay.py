"""Relays and contacts: the log of the simulated one, the pins of the real ones."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from app.agent.contact import GpioContact, GpioExitContact
from app.agent.relay import GpioRelay, Pulse, RelayUnusable, SimulatedRelay, UnknownDoor
from app.cli.field import hardware
from tests.agent.world import FakeServer, ListRelay, VirtualClock, an_agent, granted, told

pytestmark = pytest.mark.anyio


class Device:
    """A pin that writes down what it is told, in place of `gpiozero`'s."""

    def __init__(self, pin: int, *, active_high: bool, initial_value: bool) -> None:
        self.pin = pin
        self.says: list[str] = [f"high={active_high} initial={initial_value}"]
        self.is_released = asyncio.Event()
        made.append(self)

    def on(self) -> None:
        self.says.append("on")

    def off(self) -> None:
        self.says.append("off")
        self.is_released.set()

    def close(self) -> None:
        self.says.append("close")


made: list[Device] = []


@pytest.fixture
def gpiozero(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    module = ModuleType("gpiozero")
    module.DigitalOutputDevice = Device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gpiozero", module)
    made.clear()
    return made


class Button:
    """A reed contact on a pin, in place of `gpiozero`'s."""

    def __init__(self, pin: int, **_: object) -> None:
        self.is_pressed = pin == SHUT
        self.when_pressed: Callable[[], None] | None = None
        self.when_released: Callable[[], None] | None = None
        buttons[pin] = self


SHUT, OPEN = 5, 6
buttons: dict[int, Button] = {}


async def test_a_contact_on_a_pin_tells_how_its_door_stands_and_when_it_moves(
    gpiozero: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gpiozero"], "Button", Button, raising=False)
    contact = GpioContact({"d1": SHUT, "d2": OPEN})
    assert [contact.is_open(door) for door in ("d1", "d2", "d3")] == [False, True, None]
    moved: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    contact.watch(lambda door, is_open: moved.put_nowait((door, is_open)))
    for tells in (buttons[SHUT].when_released, buttons[OPEN].when_pressed):
        assert tells is not None
        await asyncio.to_thread(tells)
    assert [await moved.get(), await moved.get()] == [("d1", True), ("d2", False)]


async def test_an_exit_contact_on_a_pin_tells_of_somebody_leaving(
    gpiozero: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gpiozero"], "Button", Button, raising=False)
    exits = GpioExitContact({"d1": SHUT, "d2": OPEN})
    assert [exits.is_used(door) for door in ("d1", "d2", "d3")] == [True, False, None]
    used: asyncio.Queue[str] = asyncio.Queue()
    exits.watch(used.put_nowait)
    for tells in (buttons[OPEN].when_pressed, buttons[SHUT].when_released):
        assert tells is not None
        await asyncio.to_thread(tells)
    assert [await used.get(), await used.get()] == ["d2", "d1"]


async def test_a_simulated_pulse_is_a_line_with_the_monotonic_clock(tmp_path: Path) -> None:
    relay = SimulatedRelay(tmp_path / "door" / "relay.log")
    before = time.monotonic_ns()
    relay.pulse(Pulse("k1", "d1", 3_000))
    relay.pulse(Pulse("k2", "d1", 3_000))
    first, second = (json.loads(line) for line in relay.log.read_text().splitlines())
    assert before <= first["monotonic_ns"] <= second["monotonic_ns"] <= time.monotonic_ns()
    assert [(one["command"], one["door"], one["pulse_ms"]) for one in (first, second)] == [
        ("k1", "d1", 3_000),
        ("k2", "d1", 3_000),
    ]


async def test_a_pin_is_energised_at_once_and_released_by_itself(gpiozero: list[Device]) -> None:
    relay = GpioRelay({"d1": 17, "d2": 27})
    relay.pulse(Pulse("k1", "d2", 20))
    one, two = gpiozero
    assert (one.pin, one.says) == (17, ["high=True initial=False"])
    assert (two.pin, two.says) == (27, ["high=True initial=False", "on"])
    await asyncio.wait_for(two.is_released.wait(), 10)
    relay.pulse(Pulse("k2", "d2", 20))
    assert two.says[1:] == ["on", "off", "on"]


@pytest.mark.parametrize("lengths", [(60_000, 1), (1, 60_000)], ids=["longer", "shorter"])
async def test_of_two_pulses_of_one_door_the_longer_one_counts(
    gpiozero: list[Device], lengths: tuple[int, int]
) -> None:
    relay = GpioRelay({"d1": 17, "d2": 27})
    for number, pulse_ms in enumerate(lengths):
        relay.pulse(Pulse(f"k{number}", "d1", pulse_ms))
    relay.pulse(Pulse("k3", "d2", 5))
    one, two = gpiozero
    await asyncio.wait_for(two.is_released.wait(), 10)
    assert one.says[1:] == ["on", "on"]
    relay.close()
    assert one.says[3:] == ["off", "close"]
    assert two.says[1:] == ["on", "off", "close"]


async def test_a_pin_that_fails_is_not_left_energised(
    gpiozero: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Device) -> None:
        self.says.append("on")
        raise OSError("no such line")

    relay = GpioRelay(17)
    monkeypatch.setattr(Device, "on", fails)
    with pytest.raises(OSError, match="no such line"):
        relay.pulse(Pulse("k1", "d1", 20))
    assert gpiozero[0].says[1:] == ["on", "off"]


async def test_a_door_without_a_pin_is_an_error(gpiozero: list[Device]) -> None:
    with pytest.raises(UnknownDoor):
        GpioRelay({"d1": 17}).pulse(Pulse("k1", "d2", 20))


async def test_the_server_hears_of_a_pulse_while_the_relay_is_on_and_a_stop_releases_it(
    gpiozero: list[Device], tmp_path: Path
) -> None:
    clock = VirtualClock()
    server = FakeServer(
        clock,
        polls=[told("k1")],
        claims=[granted(pulse_ms=30_000)],
        acks=[httpx.ConnectError("cut")],
    )
    async with an_agent(server, tmp_path, relay=GpioRelay(17)):
        await server.reached(lambda: server.bodies("acks"))
        assert gpiozero[0].says[1:] == ["on"]
    assert gpiozero[0].says[1:] == ["on", "off", "close"]
    after = FakeServer(clock)
    async with an_agent(after, tmp_path, relay=ListRelay()):
        await after.reached(lambda: after.bodies("acks"))
    assert after.bodies("acks")[0]["result"] == "executed"


async def test_the_command_gives_each_of_several_doors_a_pin(
    gpiozero: list[Device], tmp_path: Path
) -> None:
    """With one pin for all, a scan at the back would open the front."""
    relay, _ = hardware("gpio", tmp_path, ["front=17", "back=27"], [])
    relay.pulse(Pulse("k1", "back", 1))
    assert [(one.pin, "on" in one.says) for one in gpiozero] == [(17, False), (27, True)]
    hardware("gpio", tmp_path, ["22"], [])
    assert gpiozero[-1].pin == 22


async def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(RelayUnusable, match=r"yizhan\[gpio\]"):
        GpioRelay(17)
