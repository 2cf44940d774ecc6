"""How the agent feels time: its clocks, its pauses, their jitter."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


def _elapsed() -> Callable[[], float]:
    """Choose a clock that never steps, and that runs on while the machine sleeps, if there is one.

    A deadline counted on a clock that stands still during suspend would let a relay fire late.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.monotonic
    return lambda: time.clock_gettime(boottime)


@dataclass(frozen=True, slots=True)
class Pace:
    """The clocks, the sleep and the dice of one agent; tests bring their own."""

    monotonic: Callable[[], float] = field(default_factory=_elapsed)
    """Seconds that never step, with an arbitrary zero; every deadline is counted on it."""

    wall: Callable[[], float] = time.time
    """Seconds since 1970, as far as this machine knows; never used for a deadline."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for so many seconds."""

    dice: random.Random = field(default_factory=random.Random)
    """Where jitter comes from."""


class Backoff:
    """Growing pauses between failures, each drawn anew from the whole range (full jitter).

    Thousands of controllers lose the same server in the same second; full jitter spreads their
    return (promise R11).
    """

    def __init__(self, pace: Pace, *, first_s: float, most_s: float) -> None:
        self._pace = pace
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0

    def next(self, retry_after_s: float = 0.0) -> float:
        """Say how long to pause after one more failure, in seconds.

        A server that named a time is not asked sooner, and not by everybody at once.
        """
        # The exponent is bounded so that a long night offline cannot overflow a float.
        widest = min(self._most_s, self._first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return retry_after_s + self._pace.dice.uniform(0, widest)

    def reset(self) -> None:
        """Begin small again, after a success."""
        self.failures = 0


class Patience:
    """When something that failed may be tried again, while what matters more goes on meanwhile."""

    def __init__(self, pace: Pace, *, first_s: float, most_s: float) -> None:
        self._pace = pace
        self._backoff = Backoff(pace, first_s=first_s, most_s=most_s)
        self._not_before = float("-inf")

    @property
    def is_over(self) -> bool:
        """Whether it may be tried now."""
        return self._pace.monotonic() >= self._not_before

    def failed(self, retry_after_s: float = 0.0) -> None:
        """Wait for longer than the last time, and not less than the server asked for."""
        self._not_before = self._pace.monotonic() + self._backoff.next(retry_after_s)

    def succeeded(self) -> None:
        """Begin small again, at once."""
        self._not_before = float("-inf")
        self._backoff.reset()
