"""A generated city, as arrays for the draws: what stays the same while the days pass."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.generate.plan import Plan
from app.generate.timetable import Ints, Timetable, midnight
from app.people.tables import Occupation
from app.places.rules import Calendar, StationRules
from app.places.tables import FacilityKind

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NEVER = 1 << 61
"""After everything, in microseconds."""

OCCUPATIONS = tuple(Occupation)
FACILITY_KINDS = tuple(FacilityKind)


@dataclass(frozen=True, slots=True)
class Stations:
    """What the draws know of each station; instants in microseconds of Unix time."""

    ids: NDArray[Any]
    rules: Ints
    popularity: Floats
    """Its share of the wishes, 1 on average."""
    capacity: Ints
    max_stay: Ints
    opened_at: Ints
    retired_at: Ints
    controllers: NDArray[Any]
    is_smart: Flags
    is_staffed: Flags
    first_door: Ints
    doors: Ints
    first_facility: Ints
    facilities: Ints
    first_worker: Ints
    workers: Ints
    by_night: Ints
    """The first so many of its workers are those who come in the night too."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The doors, station by station."""

    ids: NDArray[Any]
    has_contact: Flags
    has_display: Flags
    revoked_at: Ints
    """When the printed posters were replaced; for two weeks people still scan old ones."""


@dataclass(frozen=True, slots=True)
class Facilities:
    """The things to use, station by station."""

    ids: NDArray[Any]
    kinds: NDArray[Any]
    broken_at: Ints
    """For good, as far as the history goes."""
    faults: Ints
    """Two lines: from when until when each did not work before that, and was mended."""
    is_degraded: Flags
    """Whether it could be used all that time, if badly."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The people, by the station they use most."""

    ids: NDArray[Any]
    numbers: Ints
    occupations: NDArray[Any]
    consent_from: Ints
    consent_until: Ints
    blocked_at: Ints


@dataclass(frozen=True, slots=True)
class Outages:
    """When controllers were dead, in order of station and time."""

    keys: Ints
    """The station and the beginning, in one number."""
    ends: Ints
    has_power: Flags
    """The box works alone: only the way to us is broken."""

    def cover(self, stations: Ints, instants: Ints, origin: int) -> Flags:
        """Say which of these doors could not be opened from afar at these instants."""
        return self._during(stations, instants, origin)[1]

    def heard_again(self, stations: Ints, instants: Ints, origin: int) -> Ints:
        """Say when boxes that worked alone at these instants told of it; 0: they did not work."""
        at, covered = self._during(stations, instants, origin)
        if not covered.any():
            return np.zeros(len(stations), np.int64)
        found: Ints = np.where(covered & self.has_power[at], self.ends[at], 0)
        return found

    def _during(self, stations: Ints, instants: Ints, origin: int) -> tuple[Ints, Flags]:
        if len(self.keys) == 0:
            return np.zeros(len(stations), np.int64), np.zeros(len(stations), np.bool_)
        wanted = stations * NEVER_IN_PERIOD + instants - origin
        found = np.searchsorted(self.keys, wanted, side="right") - 1
        at = np.maximum(found, 0)
        here = self.keys[at] // NEVER_IN_PERIOD == stations
        return at, (found >= 0) & here & (instants < self.ends[at])


NEVER_IN_PERIOD = 1 << 50


@dataclass(frozen=True, slots=True)
class City:
    """Everything that stays the same while the days pass."""

    plan: Plan
    calendar: Calendar
    timetable: Timetable
    stations: Stations
    doors: Doors
    facilities: Facilities
    workers: Workers
    outages: Outages
    keeper: uuid.UUID
    """The account, closed, by which heads were counted."""
    rules: Sequence[StationRules]

    @property
    def origin(self) -> int:
        """When the history begins."""
        return midnight(self.plan.from_day)

    @property
    def horizon(self) -> int:
        """When it ends."""
        return midnight(self.plan.until)


def values(kinds: Sequence[Any]) -> tuple[str, ...]:
    return tuple(kind.value for kind in kinds)


def day_of(city: City, index: int) -> date:
    """Give a day of the history by its number."""
    return city.plan.from_day + timedelta(days=index)
