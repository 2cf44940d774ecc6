"""The one place that reads the time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
"""Gives the present instant, in UTC."""

Monotonic = Callable[[], float]
"""Gives seconds on a clock that never steps, with an arbitrary zero."""


def utc_now() -> datetime:
    """Say what time it is, in UTC."""
    return datetime.now(UTC)


monotonic: Monotonic = time.monotonic
"""Seconds on this process's monotonic clock."""
