"""The calendar of holidays and make-up working days: data, never a library's opinion.

A year without data falls back to the plain weekday rule, and every mode says so
(`calendar_known`). The file is `date,day_class,name,state_council_notice`; importing it replaces
the years it speaks of.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.engine import Database
from app.db.wakeups import LocalWakeups
from app.errors import Invalid
from app.places import held
from app.places.rules import Calendar, DayClass
from app.places.standing import read_calendar
from app.places.tables import CalendarDay, Station

TOPIC = "calendar"
"""Rings when the calendar changed."""

COLUMNS = ("date", "day_class", "name", "state_council_notice")
_FAR_EAST = timedelta(hours=14)
"""No clock is further ahead of UTC."""

PUBLISHED_BY = (11, 1)
"""From this month and day on, next year's notice should be in: the State Council publishes it in
late October or November."""


class CalendarInvalid(Invalid):
    """The calendar file has errors; nothing was imported."""


@dataclass(frozen=True, slots=True)
class NamedDay:
    """A day that is not what its weekday says."""

    day: date
    day_class: DayClass
    name: str
    source: str


class CalendarCache:
    """The calendar in this process's memory; reloaded when the bell `calendar` rings."""

    def __init__(self) -> None:
        self._current = Calendar({}, frozenset())
        self._stale = True

    def forget(self, _topic: str | None = None) -> None:
        """Read the rows again before the next use."""
        self._stale = True

    @property
    def current(self) -> Calendar:
        """The calendar as last read."""
        return self._current

    async def load(self, tx: AsyncSession) -> None:
        """Read every day."""
        self._stale = False  # Before the read: a bell that rings meanwhile asks for another.
        try:
            self._current = await read_calendar(tx)
        except BaseException:
            self._stale = True
            raise

    async def fresh(self, database: Database) -> "CalendarCache":
        """Reload if a bell rang since the last use; without SQL otherwise."""
        if self._stale:
            async with database.read() as tx:
                await self.load(tx)
        return self


def parse(content: bytes) -> Sequence[NamedDay]:
    """Read a calendar file; raises CalendarInvalid with an error for every bad row."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalendarInvalid("The file is not UTF-8 text.") from error
    if "\x00" in text:
        raise CalendarInvalid("The file is not text.")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise CalendarInvalid(f"The first line must be: {','.join(COLUMNS)}")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise CalendarInvalid(f"The file is not CSV: {error}") from error
    days: dict[date, NamedDay] = {}
    errors = []
    for number, row in rows:
        try:
            day = _read(row)
            if day.day in days:
                raise ValueError(f"{day.day} stands there twice")
            days[day.day] = day
        except (ValueError, TypeError) as error:
            errors.append({"loc": ["row", number], "message": str(error)})
    if errors:
        raise CalendarInvalid(errors=errors)
    if not days:
        raise CalendarInvalid("The file names no day.")
    return list(days.values())


def _read(row: dict[str, str]) -> NamedDay:
    day = date.fromisoformat(row["date"])
    if not 2000 <= day.year < 2100:
        raise ValueError(f"{day} does not lie between 2000 and 2100")
    try:
        day_class = DayClass(row["day_class"])
    except ValueError:
        names = ", ".join(DayClass)
        raise ValueError(f"day_class {row['day_class']!r} is none of {names}") from None
    name, source = (row["name"] or "")[:100], (row["state_council_notice"] or "")[:500]
    return NamedDay(day, day_class, name, source)


async def import_days(
    tx: AsyncSession, wakeups: LocalWakeups, content: bytes, *, actor: Actor, at: datetime
) -> int:
    """Replace the years a file speaks of; gives the number of days. Raises CalendarInvalid."""
    days = parse(content)
    years = sorted({day.day.year for day in days})
    if years[0] <= (at + _FAR_EAST).year:
        # What has held was decided by the days that are about to go.
        await held.record(tx, (await tx.scalars(sa.select(Station.id))).all(), at=at)
    for year in years:
        await tx.execute(
            sa.delete(CalendarDay).where(
                CalendarDay.day >= date(year, 1, 1), CalendarDay.day <= date(year, 12, 31)
            )
        )
    await tx.execute(
        sa.insert(CalendarDay),
        [
            {"day": day.day, "day_class": day.day_class, "name": day.name, "source": day.source}
            for day in days
        ],
    )
    # Every controller's windows may have changed.
    await tx.execute(sa.update(Station).values(config_version=Station.config_version + 1))
    subject = Subject("calendar", "-".join(map(str, years)))
    await record(tx, actor, Action.CALENDAR_CHANGED, subject, at=at, after={"days": len(days)})
    await wakeups.wake(tx, TOPIC)
    return len(days)


async def list_days(tx: AsyncSession, *, year: int | None = None) -> Sequence[CalendarDay]:
    """Give the days, of one year or of all."""
    query = sa.select(CalendarDay).order_by(CalendarDay.day)
    if year is not None:
        query = query.where(
            CalendarDay.day >= date(year, 1, 1), CalendarDay.day <= date(year, 12, 31)
        )
    return (await tx.scalars(query)).all()


def missing_next_year(calendar: Calendar, today: date) -> bool:
    """Whether next year's holidays should be known by now and are not."""
    due = (today.month, today.day) >= PUBLISHED_BY
    return due and today.year + 1 not in calendar.years
