"""The door's contact: what tells that a door stands open. Simulated, or a pin of a Raspberry Pi.

Beside it an exit contact may tell that somebody leaves: a switch in the handle or the panic bar, a
button, a motion sensor inside. It only tells: from inside a door opens mechanically (law 12).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from app.agent.pace import Pace
from app.agent.relay import Pulse, Relay, RelayUnusable

HELD_AFTER_S = 120.0
"""A door that stands open for longer, while it is not free, is reported as held, in seconds."""

Moved = Callable[[str, bool], None]
"""Called with a door's id, and whether it is open now."""


class Contact(Protocol):
    """What knows whether doors are open."""

    def watch(self, moved: Moved) -> None:
        """Call `moved` from the event loop whenever a door opens or closes."""
        ...

    def is_open(self, door: str) -> bool | None:
        """Say whether a door stands open now; None: nothing tells."""
        ...


Used = Callable[[str], None]
"""Called with a door's id when somebody asks to leave by it."""


class ExitContact(Protocol):
    """What knows whether somebody leaves by a door."""

    def watch(self, used: Used) -> None:
        """Call `used` from the event loop whenever somebody begins or ceases to use one."""
        ...

    def is_used(self, door: str) -> bool | None:
        """Say whether somebody uses it now; None: this door has none."""
        ...


class SimulatedDoor:
    """A relay with a door behind it that somebody opens after every pulse, and lets fall shut."""

    def __init__(self, relay: Relay, pace: Pace) -> None:
        self._relay = relay
        self._pace = pace
        self._moved: Moved | None = None
        self._open: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, moved: Moved | None) -> None:
        """See `Contact`; None: nobody sees it any more, and people go through all the same."""
        self._moved = moved

    def is_open(self, door: str) -> bool:
        """See `Contact`; it knows any door, and one that nobody goes through is shut."""
        return door in self._open

    @property
    def is_passed(self) -> bool:
        """Whether somebody is on his way through."""
        return bool(self._tasks)

    def pulse(self, pulse: Pulse) -> None:
        """Pulse, and let somebody through."""
        self._relay.pulse(pulse)
        task = asyncio.create_task(self._pass_through(pulse.door))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """See `Relay`; whoever is on his way through goes on."""
        self._relay.close()

    async def _pass_through(self, door: str) -> None:
        await self._pace.sleep(self._pace.dice.uniform(0.5, 2.0))
        self._open.add(door)
        if self._moved:
            self._moved(door, True)
        await self._pace.sleep(self._pace.dice.uniform(1.0, 4.0))
        self._open.discard(door)
        if self._moved:
            self._moved(door, False)


class GpioContact:
    """Reed contacts on pins of a Raspberry Pi, closed (to ground) while the door is shut."""

    def __init__(self, pins: Mapping[str, int]) -> None:
        self._buttons = _buttons(pins)

    def watch(self, moved: Moved) -> None:
        """See `Contact`; the pins report from threads of their own."""
        loop = asyncio.get_running_loop()
        for door, button in self._buttons.items():
            button.when_released = lambda door=door: loop.call_soon_threadsafe(moved, door, True)
            button.when_pressed = lambda door=door: loop.call_soon_threadsafe(moved, door, False)

    def is_open(self, door: str) -> bool | None:
        """See `Contact`."""
        button = self._buttons.get(door)
        return None if button is None else not button.is_pressed


class GpioExitContact:
    """Exit contacts on pins of a Raspberry Pi, closed (to ground) while they are used."""

    def __init__(self, pins: Mapping[str, int]) -> None:
        self._buttons = _buttons(pins)

    def watch(self, used: Used) -> None:
        """See `ExitContact`; the pins report from threads of their own."""
        loop = asyncio.get_running_loop()
        for door, button in self._buttons.items():
            button.when_pressed = lambda door=door: loop.call_soon_threadsafe(used, door)
            button.when_released = lambda door=door: loop.call_soon_threadsafe(used, door)

    def is_used(self, door: str) -> bool | None:
        """See `ExitContact`."""
        button = self._buttons.get(door)
        return None if button is None else button.is_pressed


def _buttons(pins: Mapping[str, int]) -> dict[str, Any]:
    """Make the inputs of these pins, by door."""
    try:
        import gpiozero
    except ImportError as error:
        raise RelayUnusable(
            "the GPIO contact needs the package gpiozero: pip install 'yizhan[gpio]'"
        ) from error
    return {
        door: gpiozero.Button(pin, pull_up=True, bounce_time=0.05) for door, pin in pins.items()
    }
