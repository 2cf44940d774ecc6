"""When a visit counts, ends and how full a station is. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum

RE_ENTRY = timedelta(minutes=10)
"""Coming back within this time after leaving is a new row that counts with the first visit."""


class Level(StrEnum):
    """How full a station is, as the public sees it: never a head count (law 15)."""

    EMPTY = "空闲"
    FEW = "较少"
    MANY = "较多"
    FULL = "已满"


def level(inside: int, capacity: int) -> Level | None:
    """Say how full a station is; None where no places are counted (metrics 25).

    Nobody and one person look alike: one person alone at 02:00 is nobody's business.
    """
    if capacity <= 0:
        return None
    share = inside / capacity
    if inside <= 1 or share < 0.25:
        return Level.EMPTY
    if share >= 0.9:
        return Level.FULL
    return Level.FEW if share < 0.6 else Level.MANY


def counts_at(
    at: datetime, *, started_at: datetime, ended_at: datetime | None, stay_until: datetime
) -> bool:
    """Say whether a visit counts at an instant (law 10)."""
    return started_at <= at < (ended_at or stay_until)


def renewed(stay_until: datetime, at: datetime, max_stay: timedelta) -> datetime:
    """Say until when a stay counts after the worker was heard of; never sooner than before."""
    return max(stay_until, at + max_stay)
