"""What a replay counts: what scans came to, and what they would have come to."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import date, datetime

from app.doors.rules import Outcome, Reason

Answer = Outcome | Reason
"""What a scan came to: granted, walk_in, or the reason of its refusal."""

LET_IN = (Outcome.GRANTED, Outcome.WALK_IN)


@dataclass(frozen=True, slots=True)
class Decided:
    """What a scan came to, in the two words of its record."""

    outcome: Outcome
    reason: Reason


def decided(answer: Answer) -> Decided:
    """Say it in these words."""
    if isinstance(answer, Outcome):
        return Decided(answer, Reason.OK)
    return Decided(Outcome.REFUSED, answer)


@dataclass(frozen=True, slots=True)
class MovedScan:
    """A scan that came to one answer and would have come to another."""

    id: Hashable
    scanned_at: datetime
    before: Decided
    after: Decided


@dataclass(slots=True)
class Tally:
    """Counts of a place and a time."""

    answers: Counter[tuple[Answer, Answer]] = field(default_factory=Counter)
    """Scans by what they came to, and what they would have come to."""
    again: int = 0
    """Of the scans that are newly let in, those of somebody who would have been inside already."""
    unmet_before: int = 0
    unmet_after: int = 0

    def before(self, answer: Answer) -> int:
        """Count the scans that came to this."""
        return sum(n for (before, _), n in self.answers.items() if before is answer)

    def after(self, answer: Answer) -> int:
        """Count the scans that would have come to this."""
        return sum(n for (_, after), n in self.answers.items() if after is answer)

    @property
    def scans(self) -> int:
        """Count all."""
        return self.answers.total()

    @property
    def moved(self) -> int:
        """Count those that would have come to something else."""
        return sum(n for (before, after), n in self.answers.items() if before is not after)

    @property
    def newly_let_in(self) -> int:
        """Count the refused scans that would have opened, or found the door open."""
        return sum(
            n
            for (before, after), n in self.answers.items()
            if before not in LET_IN and after in LET_IN
        )

    @property
    def newly_turned_away(self) -> int:
        """Count the scans that were let in and would have been refused."""
        return sum(
            n
            for (before, after), n in self.answers.items()
            if before in LET_IN and after not in LET_IN
        )

    def add(self, other: "Tally") -> None:
        """Take another's counts in."""
        self.answers.update(other.answers)
        self.again += other.again
        self.unmet_before += other.unmet_before
        self.unmet_after += other.unmet_after


@dataclass(slots=True)
class Ledger:
    """What a replay found."""

    key: Callable[[Hashable, date, int], Hashable]
    """Says which row a scan counts in: by the station's place, local day, local hour."""
    rows: dict[Hashable, Tally] = field(default_factory=dict)
    hours: list[Tally] = field(default_factory=lambda: [Tally() for _ in range(24)])
    without_mode: int = 0
    """Scans that cannot be decided again, and are left out."""
    amended_since: int = 0
    """Scans at which today's hours give another mode than was recorded."""
    listed: int = 0
    """How many of the scans that moved are listed: the first."""
    moved_scans: list[MovedScan] = field(default_factory=list)

    def move(self, id: Hashable, at: datetime, before: Answer, after: Answer) -> None:
        """List a scan that moved, as long as there is room for it."""
        if len(self.moved_scans) < self.listed:
            self.moved_scans.append(MovedScan(id, at, decided(before), decided(after)))

    def tallies(self, key: Hashable, hour: int) -> tuple[Tally, Tally]:
        """Give where a scan counts: in its row, and in its hour of the day."""
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Tally()
        return row, self.hours[hour]
