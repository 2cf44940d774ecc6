"""The relay: simulated (an append-only log) or a pin of a Raspberry Pi."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from app.agent import AgentError
from app.agent.state import append_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulse:
    """One momentary unlock."""

    command: str

    door: str
    """The id of the door."""

    pulse_ms: int
    """How long the relay stays energised, in milliseconds."""


class Relay(Protocol):
    """What opens a door for a moment."""

    async def pulse(self, pulse: Pulse) -> None:
        """Energise the relay at once, release it after `pulse_ms`.

        Nothing may be awaited before the relay is energised: the deadline was checked just before
        the call. Any exception before that moment means that the door did not open.
        """
        ...


class RelayUnusable(AgentError):
    """The relay that was asked for cannot be used here."""


class UnknownDoor(Exception):
    """No pin is named for this door."""


class SimulatedRelay:
    """A relay that only writes down its pulses, one JSON line each, on the disk at once.

    `monotonic_ns` is the system's monotonic clock, so that a test on the same machine can compare
    it with the instant of the scan.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)

    async def pulse(self, pulse: Pulse) -> None:
        """Write the pulse down; a simulated door needs no holding."""
        line = {
            "monotonic_ns": time.monotonic_ns(),
            "at": datetime.now(UTC).isoformat(),
            "command": pulse.command,
            "door": pulse.door,
            "pulse_ms": pulse.pulse_ms,
        }
        append_line(self.log, line)
        logger.info("relay pulse door=%s command=%s", pulse.door, pulse.command)


class GpioRelay:
    """A relay on pins of a Raspberry Pi, through `gpiozero` (the optional extra `gpio`).

    `pins` gives the BCM number of each door's pin; a single number serves whatever door this
    controller has. Released is the state at start, at exit and after an error.
    """

    def __init__(self, pins: Mapping[str, int] | int, *, active_high: bool = True) -> None:
        try:
            import gpiozero
        except ImportError as error:
            raise RelayUnusable(
                "the GPIO relay needs the package gpiozero: pip install 'yizhan[gpio]'"
            ) from error

        def output(pin: int) -> Any:
            return gpiozero.DigitalOutputDevice(pin, active_high=active_high, initial_value=False)

        try:
            self._only = output(pins) if isinstance(pins, int) else None
            self._outputs = (
                {} if isinstance(pins, int) else {door: output(pin) for door, pin in pins.items()}
            )
        except Exception as error:
            # gpiozero and the pin libraries below it each bring errors of their own.
            raise RelayUnusable(f"the GPIO pins cannot be used: {error}") from error
        self._holding: dict[Any, int] = {}

    async def pulse(self, pulse: Pulse) -> None:
        """Energise the door's pin for `pulse_ms`; a second pulse meanwhile prolongs the first."""
        device = self._outputs.get(pulse.door, self._only)
        if device is None:
            raise UnknownDoor(f"no pin is named for door {pulse.door}")
        self._holding[device] = self._holding.get(device, 0) + 1
        try:
            device.on()
            await asyncio.sleep(pulse.pulse_ms / 1000)
        finally:
            self._holding[device] -= 1
            if not self._holding[device]:
                device.off()

    def close(self) -> None:
        """Release every pin."""
        for device in (self._only, *self._outputs.values()):
            if device is not None:
                device.close()
