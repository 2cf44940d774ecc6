"""How much history to make, and what was made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum

WORKERS_PER_VISIT = 6
"""Unless told otherwise, so many workers share the visits of one day."""


class Phase(StrEnum):
    """A step of the work."""

    PLACES = "places"
    HISTORY = "history"
    INDEXES = "indexes"
    KEYS = "keys"
    TIDYING = "tidying"


Progress = Callable[[Phase, int, int], None]
"""Hears how much of a step is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make; the same plan makes the same history."""

    stations: int
    days: int
    until: date
    """The first day that has no history any more."""
    visits_per_station_day: float = 12.4
    """On average over stations and days in use (the union's figure of 2024)."""
    seed: int = 1
    workers: int | None = None
    """How many people; None: as many as the visits suggest."""
    smart_share: float = 740 / 5523
    """Which share of the stations opens by scans."""
    retention_days: int | None = 180
    """Visits and scans before that name nobody, as retention leaves them; None: all keep theirs."""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        if self.stations < 1 or self.days < 1 or self.visits_per_station_day <= 0:
            raise ValueError("a plan has stations, days and visits")
        if not 2000 <= self.from_day.year <= self.until.year < 2100:
            raise ValueError("history lies between 2000 and 2100")

    @property
    def from_day(self) -> date:
        """The first day with history."""
        return self.until - timedelta(days=self.days)

    @property
    def people(self) -> int:
        """How many workers there are."""
        if self.workers is not None:
            return self.workers
        return max(50, int(self.stations * self.visits_per_station_day * WORKERS_PER_VISIT))


@dataclass(slots=True)
class Made:
    """What was made, and how long it took."""

    stations: int = 0
    workers: int = 0
    visits: int = 0
    scans: int = 0
    refused: int = 0
    commands: int = 0
    uses: int = 0
    head_counts: int = 0
    alone: int = 0
    """Passes by which boxes opened that worked alone."""
    seconds: dict[Phase, float] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        """How long all of it took."""
        return sum(self.seconds.values())

    @property
    def visits_per_second(self) -> float:
        """Visits, with all that belongs to them, over the time of everything."""
        return self.visits / self.total_seconds if self.total_seconds else 0.0
