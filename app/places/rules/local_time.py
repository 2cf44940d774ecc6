"""Wall clocks and instants: the local day of an instant, and the instant of a local minute."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

CITY_ZONE = "Asia/Shanghai"
"""Chongqing's days, and those of all China, begin by it."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""Instants outside are typing errors; and time arithmetic cannot overflow within."""

_AREA = re.compile(r"[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)+")
"""How the zones of places are named."""

_SECOND = timedelta(seconds=1)


@lru_cache(maxsize=1024)
def zone(timezone: str) -> ZoneInfo:
    """Parse an IANA zone once per process.

    Raises what `ZoneInfo` raises for a name that `is_timezone` refuses; stations are asked when
    they are written, so a decision never meets one.
    """
    return ZoneInfo(timezone)


def is_timezone(timezone: str) -> bool:
    """Say whether this is the name of an IANA zone, such as Asia/Shanghai or UTC."""
    if timezone != "UTC" and not _AREA.fullmatch(timezone):
        return False  # `posixrules` and `Factory` are files of the database, no zones of a place.
    try:
        zone(timezone)
    except (KeyError, ValueError, OSError):
        return False
    return True


def local_day(at: datetime, timezone: str) -> date:
    """Say which day the station's calendar shows at an instant."""
    return at.astimezone(zone(timezone)).date()


def local_hour(at: datetime, timezone: str) -> int:
    """Say which hour (0..23) the station's clock shows at an instant."""
    return at.astimezone(zone(timezone)).hour


def instant(place: ZoneInfo, day: date, minute: int) -> datetime:
    """Say at which instant (UTC) the clock first shows a minute of a day, or passes it.

    A time that the clock shows twice is its first showing; a time that the clock jumps over is
    the instant of the jump. So the answer never decreases as the minute grows, and windows that
    touch on paper touch in time, whatever daylight saving does. Minutes may exceed a day.
    """
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001
    first = wall.replace(tzinfo=place)
    before, after = first.utcoffset(), first.replace(fold=1).utcoffset()
    assert before is not None
    assert after is not None
    if before >= after:
        return (wall - before).replace(tzinfo=UTC)
    return _jump(place, wall, before, after)


def day_of(place: ZoneInfo, at: datetime) -> date:
    """Say to which day an instant belongs, days lying between first showings of midnight.

    This is the date on the wall, except where clocks go back over a midnight they have already
    shown (St. John's until 2011): the day that has begun is not left again.
    """
    day = at.astimezone(place).date()
    while instant(place, day + timedelta(days=1), 0) <= at:
        day += timedelta(days=1)
    return day


def _jump(place: ZoneInfo, wall: datetime, before: timedelta, after: timedelta) -> datetime:
    """Find the instant at which the clock jumps over a wall time, to the second."""
    # The wall time read with the later offset lies before the jump, with the earlier one not.
    low, high = (wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC)
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if middle.astimezone(place).replace(tzinfo=None) >= wall:
            high = middle
        else:
            low = middle
    return high
