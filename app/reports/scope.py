"""What is asked of reports, once it is known who asks: of which stations, which days, cut how."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import sqlalchemy as sa

from app.errors import Invalid
from app.people.admins import Roots
from app.places.rules import Calendar
from app.reports.rules import Bucket, By, Period


class PeriodInvalid(Invalid):
    """The period is not acceptable."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which stations, which days, as of when, cut how."""

    stations: sa.Select[uuid.UUID]
    """The one predicate of what may be spoken of."""
    roots: Roots
    """The places whose branches are the same stations."""
    period: Period
    by: By
    at: datetime
    retained_since: date
    """Before this day visits have lost their workers."""
    bucket: Bucket | None = None
    told_roots: Sequence[uuid.UUID] | None = None
    """By branch, the roots of the rows: those of which anything is told in the period. None: nobody
    has made them out yet."""
    calendar: Calendar = field(default_factory=lambda: Calendar({}, frozenset()))

    @property
    def is_whole(self) -> bool:
        """Whether every row is of the whole period."""
        return self.by.is_place and self.bucket is None
