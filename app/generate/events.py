"""What happens on a day, as arrays: what became of each wish, who uses what, who is where."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.doors.rules import CommandState, Outcome, Reason
from app.generate.city import City, Flags
from app.generate.crowd import Wishes
from app.generate.timetable import DAY, KINDS, MINUTE, Ints, Modes
from app.places.rules import Kind
from app.visits.tables import EndSource

OUTCOMES, WHYS, STATES, ENDS = tuple(Outcome), tuple(Reason), tuple(CommandState), tuple(EndSource)

FREE = KINDS.index(Kind.FREE)
OK = WHYS.index(Reason.OK)
HOUR = 60 * MINUTE


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where everybody was last, by number of worker, and who is still inside; microseconds."""

    station: Ints
    since: Ints
    until: Ints
    named: Flags
    """Whether the visit's row names the worker."""
    inside_station: Ints
    inside_until: Ints
    inside_party: Ints
    told: Ints
    """How many events the box of each station has told so far."""

    @classmethod
    def nowhere(cls, city: City) -> "Whereabouts":
        """Begin with nobody inside."""
        people, nobody = len(city.workers.ids), np.zeros(0, np.int64)
        long_ago = np.full(people, city.origin - DAY)
        return cls(
            np.full(people, -1, np.int64),
            long_ago,
            long_ago.copy(),
            np.zeros(people, np.bool_),
            nobody,
            nobody,
            nobody,
            np.zeros(len(city.stations.ids), np.int64),
        )


@dataclass(slots=True)
class Events:
    """What became of each wish; instants in microseconds, 0 where there is none."""

    wishes: Wishes
    modes: Modes
    reason: NDArray[Any]
    outcome: NDArray[Any]
    state: NDArray[Any]
    claimed: Ints
    pulsed: Ints
    opened: Ints
    settled: Ints
    pulse_ms: Ints
    start: Ints
    """When the visit began."""
    enters: Flags
    until: Ints
    stay_until: Ints
    end_source: NDArray[Any]
    stranger: Flags
    """It was another worker, of whom nothing else is known."""
    re_entry: Flags
    named: Flags
    alone_until: Ints
    """A box that worked alone opened by a pass, and told of it then; 0: none did."""

    @property
    def by_pass(self) -> Flags:
        """Which scans were refused, and then opened by a pass after all."""
        return self.alone_until > 0

    def keep(self, which: Flags) -> None:
        """Forget the others."""
        self.wishes = self.wishes.taken(which)
        self.modes = self.modes.taken(which)
        for name in self.__slots__:
            if name not in ("wishes", "modes"):
                setattr(self, name, getattr(self, name)[which])


@dataclass(frozen=True, slots=True)
class Uses:
    """What visitors use: a row for each use."""

    event: Ints
    """Whose it is, as a number of the day's events."""
    facility: Ints
    begun: Ints
    ended: Ints
    is_over: Flags
    quantity: Ints
    counted: Flags
