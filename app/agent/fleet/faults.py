"""What goes wrong in a fleet, decided by dice alone: the same seed gives the same troubles."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad the world is."""

    NONE = "none"
    MILD = "mild"
    ROUGH = "rough"


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what happens; shares are of all requests."""

    refused: float = 0.0
    """The link is down: the request never leaves."""
    lost: float = 0.0
    """The connection breaks when the server has answered, and the answer is gone."""
    cut: float = 0.0
    """The connection is reset while the answer is awaited."""
    stalled: float = 0.0
    """The answer is held up on its way back."""
    repeated: float = 0.0
    """The same request arrives twice, at once."""
    stall_s: float = 0.0
    """The longest stall, in seconds; a cut comes within a quarter of it."""
    reboot_every_s: float | None = None
    """Mean time between two reboots of one controller, in seconds."""
    step_every_s: float | None = None
    """Mean time between two steps of one wall clock, in seconds."""
    step_s: float = 0.0
    """The widest step of a wall clock, in seconds."""
    drift: float = 0.0
    """How much faster or slower a controller's clocks run at most, as a share."""


LEVELS = {
    Level.NONE: Faults(),
    Level.MILD: Faults(
        refused=0.005,
        lost=0.002,
        cut=0.005,
        stalled=0.02,
        repeated=0.002,
        stall_s=2,
        reboot_every_s=6 * 3600,
        step_every_s=24 * 3600,
        step_s=2,
        drift=20e-6,
    ),
    Level.ROUGH: Faults(
        refused=0.05,
        lost=0.05,
        cut=0.05,
        stalled=0.1,
        repeated=0.05,
        stall_s=12,
        reboot_every_s=120,
        step_every_s=120,
        step_s=3600,
        drift=200e-6,
    ),
}
"""What the levels mean; a rough stall outlives a command's ten seconds."""


@dataclass(frozen=True, slots=True)
class Trip:
    """What happens to one request."""

    refused: bool = False
    lost: bool = False
    repeated: bool = False
    stall_s: float = 0.0
    cut_after_s: float | None = None


def trip(faults: Faults, dice: random.Random) -> Trip:
    """Throw the dice for one request; at most one thing happens to it."""
    thrown = dice.random()
    seconds = dice.uniform(0, faults.stall_s)
    for share, outcome in (
        (faults.refused, Trip(refused=True)),
        (faults.lost, Trip(lost=True)),
        (faults.cut, Trip(cut_after_s=seconds / 4)),
        (faults.stalled, Trip(stall_s=seconds)),
        (faults.repeated, Trip(repeated=True)),
    ):
        if thrown < share:
            return outcome
        thrown -= share
    return Trip()


def until_next(mean_s: float | None, dice: random.Random) -> float | None:
    """Say how long until something comes that comes every `mean_s` seconds; None: never."""
    return None if mean_s is None else dice.expovariate(1 / mean_s)


class Clocks:
    """One controller's clocks: both run too fast or too slow alike, and the wall clock steps."""

    def __init__(
        self,
        faults: Faults,
        dice: random.Random,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._faults = faults
        self._dice = dice
        self._monotonic = monotonic
        self._rate = 1 + dice.uniform(-faults.drift, faults.drift)
        self._since = monotonic()
        self._wall_at_start = wall()
        self._stepped_s = 0.0
        self._step_at = self._next_step()

    def monotonic(self) -> float:
        """Seconds that never step, at this clock's own rate."""
        return self._since + (self._monotonic() - self._since) * self._rate

    def wall(self) -> float:
        """Seconds since 1970, as far as this controller knows."""
        now = self.monotonic()
        if self._step_at is not None and now >= self._step_at:
            self._stepped_s += self._dice.uniform(-self._faults.step_s, self._faults.step_s)
            self._step_at = self._next_step()
        return self._wall_at_start + now - self._since + self._stepped_s

    def _next_step(self) -> float | None:
        wait = until_next(self._faults.step_every_s, self._dice)
        return None if wait is None else self.monotonic() + wait
