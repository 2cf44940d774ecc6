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

    def pulse(self, pulse: Pulse) -> None:
        """Energise the relay; it releases itself after `pulse_ms`.

        It is energised when this returns, and nothing can wait before that: the deadline was
        checked just before the call. An exception means that the door did not open.
        """
        ...

    def close(self) -> None:
        """Release every door; called when the agent ends, however it ends."""
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

    def pulse(self, pulse: Pulse) -> None:
        """Write the pulse down; a simulated door needs no holding."""
        append_line(self.log, self.line(pulse))
        logger.info("relay pulse door=%s command=%s", pulse.door, pulse.command)

    def line(self, pulse: Pulse) -> dict[str, Any]:
        """Give what is written down."""
        return {
            "monotonic_ns": time.monotonic_ns(),
            "at": datetime.now(UTC).isoformat(),
            "command": pulse.command,
            "door": pulse.door,
            "pulse_ms": pulse.pulse_ms,
        }

    def close(self) -> None:
        """See `Relay`; nothing is held."""


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
        self._releases: dict[Any, asyncio.TimerHandle] = {}
        """What will release each pin that is energised now."""

    def pulse(self, pulse: Pulse) -> None:
        """Energise the door's pin for `pulse_ms`; a second pulse meanwhile may prolong the first.

        A timer of the loop's releases it, which ends with no task of anybody's.
        """
        device = self._outputs.get(pulse.door, self._only)
        if device is None:
            raise UnknownDoor(f"no pin is named for door {pulse.door}")
        loop, earlier = asyncio.get_running_loop(), self._releases.get(device)
        at = loop.time() + pulse.pulse_ms / 1000
        if earlier is not None and earlier.when() >= at:
            device.on()
            return
        try:
            device.on()
        except BaseException:
            if earlier is None:
                device.off()
            raise
        self._releases[device] = loop.call_at(at, self._release, device)
        if earlier is not None:
            earlier.cancel()

    def _release(self, device: Any) -> None:
        del self._releases[device]
        device.off()

    def close(self) -> None:
        """Release every pin, and let go of it."""
        while self._releases:
            device, release = self._releases.popitem()
            release.cancel()
            device.off()
        for device in (self._only, *self._outputs.values()):
            if device is not None:
                device.close()
