"""Which files the feed has, and for which time of the clock they are built.

The periods of a part are the same in all processes: so many seconds each, counted from 1970 on.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum


class FeedFile(StrEnum):
    """The files of the feed."""

    GBFS = "gbfs"
    SYSTEM_INFORMATION = "system_information"
    STATION_INFORMATION = "station_information"
    STATION_STATUS = "station_status"
    SYSTEM_REGIONS = "system_regions"
    SYSTEM_ALERTS = "system_alerts"


class Part(StrEnum):
    """What is built at one time."""

    STANDING = "standing"
    LIVE = "live"


TTL_S = {Part.STANDING: 300, Part.LIVE: 60}
"""How long a part's periods are, in seconds: in each it is built once."""

LIVE_FILES = frozenset({FeedFile.STATION_STATUS, FeedFile.SYSTEM_ALERTS})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def part_of(name: FeedFile) -> Part:
    """Say with what a file is built."""
    return Part.LIVE if name in LIVE_FILES else Part.STANDING


def files_of(part: Part) -> frozenset[FeedFile]:
    """Say which files are built with one another."""
    return frozenset(name for name in FeedFile if part_of(name) is part)


def period_of(part: Part, at: datetime) -> datetime:
    """Say when the period began in which an instant lies."""
    return at - (at - _EPOCH) % timedelta(seconds=TTL_S[part])


def holds(part: Part, from_at: datetime, at: datetime) -> bool:
    """Whether what was built for the period from `from_at` on is what is sent at an instant.

    For the period to come it was built by a process whose clock is a little ahead: that is newer,
    and taken. From further ahead it is of a clock that was wrong, and must not stay for that long.
    """
    ahead = from_at - period_of(part, at)
    return timedelta() <= ahead <= timedelta(seconds=TTL_S[part])


def left_s(part: Part, from_at: datetime, at: datetime) -> int:
    """Say for how many seconds more the next edition cannot be there.

    Whole ones, rounded down, 0 at last: kept for a second too long, a file would be older than the
    feed promises. No more than a period, though whose clock is ahead built it for the next.
    """
    left = from_at + timedelta(seconds=TTL_S[part]) - at
    return min(max(left // timedelta(seconds=1), 0), TTL_S[part])
