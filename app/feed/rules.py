"""Which files the feed has, and with which others each of them is built."""

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
"""For how many seconds a part is not built again."""

LIVE_FILES = frozenset({FeedFile.STATION_STATUS, FeedFile.SYSTEM_ALERTS})


def part_of(name: FeedFile) -> Part:
    """Say with what a file is built."""
    return Part.LIVE if name in LIVE_FILES else Part.STANDING
