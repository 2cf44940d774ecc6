"""The clock of a benchmark: the machine's, or so many seconds from it.

A history that a report is about has to lie in a closed year, whenever it is measured. The server
under measurement and the group that fills its database read the same distance from the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from app.clock import utc_now

APART = "YIZHAN_BENCH_CLOCK_APART_S"

_apart = [timedelta(seconds=float(os.environ.get(APART, "0")))]
"""Read once: a server asks for the time at every step of a poll."""


def now() -> datetime:
    """Give the instant at which the benchmark stands."""
    return utc_now() + _apart[0]


@contextmanager
def standing_at(instant: datetime) -> Iterator[None]:
    """Let the clock, here and in processes begun meanwhile, go on from this instant."""
    _apart[0] = instant - utc_now()
    os.environ[APART] = str(_apart[0].total_seconds())
    try:
        yield
    finally:
        _apart[0] = timedelta()
        del os.environ[APART]
