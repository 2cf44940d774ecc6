"""What a controller's config is called, so that whatever changes in it is told at the next poll."""

import hashlib
import uuid
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import cached_property

from app.places.rules import local_day


@dataclass(frozen=True)
class ServerTerms:
    """What the server's own settings say in the config of every controller."""

    max_wait_s: int
    silence_s: int
    jwks_url: str

    @cached_property
    def mark(self) -> str:
        """Tell them apart from other terms, in eight letters; computed once, for every poll."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:8]


def config_version(
    station_id: uuid.UUID, version: int, timezone: str, terms: ServerTerms, at: datetime
) -> str:
    """Name a config: the station's version, its windows' first local day, the terms, the station.

    Every station's own version begins at 1: a box that is moved from one to another must not be
    told that nothing changed. Ids begin with the time, so the end of one tells stations apart.

    While processes with other settings take each other's place, a controller that polls now one,
    now the other fetches the config each time: each holds it to its own terms.
    """
    station = station_id.int & 0xFFFF_FFFF
    return f"{version}-{local_day(at, timezone):%Y%m%d}-{terms.mark}-{station:08x}"
