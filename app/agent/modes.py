"""Modes with memory: while a door is free its lock is held open, whatever the link does.

A mode is state, an unlock never is (law 3): this looks only at the config's windows, at the
server's time as well as we know it, and never at a command.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from app.agent.pace import Pace
from app.agent.relay import RelayUnusable
from app.agent.state import append_line
from app.places.rules import Kind

logger = logging.getLogger(__name__)

LOOKS_EVERY_S = 1.0
"""How far behind a mode's beginning the lock may be, in seconds."""


class Lock(Protocol):
    """What can stand open for longer than a pulse."""

    def hold(self, is_open: bool) -> None:
        """Hold every door's lock open, or let it fall shut; called when this changes."""
        ...


async def hold(lock: Lock, mode: Callable[[], Kind | None], pace: Pace) -> None:
    """Follow the mode for as long as the agent lives; shut when nobody knows it, and at the end."""
    held: bool | None = None
    try:
        while True:
            wanted = mode() is Kind.FREE
            if wanted is not held:
                lock.hold(wanted)
                logger.info("lock held=%s", wanted)
                held = wanted
            await pace.sleep(LOOKS_EVERY_S)
    finally:
        if held:
            lock.hold(False)


class SimulatedLock:
    """A lock that only writes down how it stands, one JSON line per change."""

    def __init__(self, log: Any) -> None:
        self.log = log

    def hold(self, is_open: bool) -> None:
        """See `Lock`."""
        append_line(self.log, {"held_open": is_open})


class GpioLock:
    """Pins of a Raspberry Pi that are energised while the doors are free."""

    def __init__(self, pins: Mapping[str, int]) -> None:
        try:
            import gpiozero
        except ImportError as error:
            raise RelayUnusable(
                "holding a lock needs the package gpiozero: pip install 'yizhan[gpio]'"
            ) from error
        self._outputs = [
            gpiozero.DigitalOutputDevice(pin, initial_value=False) for pin in pins.values()
        ]

    def hold(self, is_open: bool) -> None:
        """See `Lock`."""
        for output in self._outputs:
            output.value = is_open
