"""Which clock a deadline uses: one clock only (law 3).

On PostgreSQL, where several machines share the work, it is the database's clock. On SQLite, where
one process does everything, it is the wall clock and the process's monotonic clock, and either of
them ends the time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from typing_extensions import override

from app.clock import Monotonic, Now
from app.db.engine import Database
from app.db.types import Instant


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a command's time."""

    expires_at: datetime
    """The instant on the deadline clock's wall side."""

    expires_mono: float | None
    """Seconds on the process's monotonic clock; None where the database's clock decides."""


class DeadlineClock(Protocol):
    """Makes deadlines and tells whether they have passed."""

    @override
    def __hash__(self) -> int:
        """Statements are built once per clock."""

    def now(self) -> sa.ColumnElement[datetime]:
        """Give the SQL expression of the present instant, to be selected by a statement."""

    def deadline(self, seen: datetime, *, since: float, seconds: float) -> Deadline:
        """End `seconds` after the monotonic instant `since`, by the clock that showed `seen`.

        `seen` was read from `now()` by an earlier statement. The time since `since` is measured
        after that answer came back, so the deadline can only be early, never late.
        """

    def live(self, expires_at: Any, expires_mono: Any) -> sa.ColumnElement[bool]:
        """Give the SQL condition that a deadline has not passed."""

    def left_ms(self, deadline: Deadline, now: datetime) -> int:
        """Give the milliseconds left, rounded down; `now` was read in the same statement."""


class DatabaseClock:
    """PostgreSQL's clock, the same for every process and machine.

    It may go back, by a correction or when a standby takes over. So a deadline that lies further
    ahead than any is ever set has passed: a step of any size gives no command more than its time
    once more.
    """

    def __init__(self, monotonic: Monotonic, *, longest_s: float) -> None:
        self._monotonic = monotonic
        self._longest = timedelta(seconds=longest_s)

    def now(self) -> sa.ColumnElement[datetime]:
        """The moment in which the statement is carried out, not the start of its transaction."""
        return sa.func.clock_timestamp(type_=Instant())

    def deadline(self, seen: datetime, *, since: float, seconds: float) -> Deadline:
        """See DeadlineClock."""
        elapsed = self._monotonic() - since
        return Deadline(seen + timedelta(seconds=seconds - elapsed), None)

    def live(self, expires_at: Any, expires_mono: Any) -> sa.ColumnElement[bool]:
        """See DeadlineClock."""
        longest = sa.literal(self._longest, sa.Interval())
        return sa.and_(expires_at > self.now(), expires_at <= self.now() + longest)

    def left_ms(self, deadline: Deadline, now: datetime) -> int:
        """See DeadlineClock."""
        left = min(deadline.expires_at - now, self._longest)
        return max(0, int(left / timedelta(milliseconds=1)))


class ProcessClock:
    """This process's wall and monotonic clock; whichever passes first ends the time."""

    def __init__(self, now: Now, monotonic: Monotonic) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> sa.ColumnElement[datetime]:
        """The wall clock at the time the statement is sent."""
        return sa.bindparam(None, callable_=self._now, type_=Instant())

    def deadline(self, seen: datetime, *, since: float, seconds: float) -> Deadline:
        """See DeadlineClock."""
        elapsed = self._monotonic() - since
        return Deadline(seen + timedelta(seconds=seconds - elapsed), since + seconds)

    def live(self, expires_at: Any, expires_mono: Any) -> sa.ColumnElement[bool]:
        """See DeadlineClock."""
        mono = sa.bindparam(None, callable_=self._monotonic, type_=sa.Float())
        return sa.and_(expires_at > self.now(), expires_mono > mono)

    def left_ms(self, deadline: Deadline, now: datetime) -> int:
        """See DeadlineClock."""
        left = (deadline.expires_at - now) / timedelta(milliseconds=1)
        if deadline.expires_mono is not None:
            left = min(left, (deadline.expires_mono - self._monotonic()) * 1000)
        return max(0, int(left))


def deadline_clock(
    database: Database, now: Now, monotonic: Monotonic, *, longest_s: float
) -> DeadlineClock:
    """Give the clock that this database's deadlines use, none of them further ahead."""
    if database.is_embedded:
        return ProcessClock(now, monotonic)
    return DatabaseClock(monotonic, longest_s=longest_s)
