"""What is usual at a place: like days, their middle, what is to be expected, and how good that is.

Days are like one another when they are of one class: a make-up working day is a workday, whatever
its weekday. A figure that stands on fewer than four of them is not given (metrics 25, 49, 50).

What is now is said beside it, and only where it is known (law 16).
"""

import statistics
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from app.places.rules import Calendar, Kind, StationRules, Window, mode_windows
from app.reports.rules.arithmetic import nearest_rank
from app.reports.rules.counters import QUARTERS
from app.reports.rules.rates import COVERAGE
from app.reports.rules.slots import Class
from app.reports.rules.slots import class_of as kind_of
from app.visits.rules import Level, level

FEWEST = 4
"""So many values at least stand behind a figure."""
FEWEST_STATIONS = 0.5
"""Of so many of a unit's stations an hour must be known, that the unit's is."""
LIKE_DAYS = 8
"""So many days, the last of the class, stand behind a usual figure and a forecast."""
PROFILE_WEEKS = 8
"""What the public sees is put together from the days of so many weeks."""
LOOK_BACK = timedelta(days=366)
"""How far back a day of a rare class is looked for."""
K_PUBLIC = 10
"""So many distinct workers at least stand behind an hour that the public sees (metrics 50)."""
BACKTEST = 28
"""Over so many days a forecast is compared with what came."""
WEEK = timedelta(days=7)
HOURS_OF_DAY = 24

_QUARTER_MS = 900_000
_ONE_DAY = timedelta(days=1)
_MOMENT = timedelta(microseconds=1)


class UsualClass(StrEnum):
    """Days that are like one another."""

    WORKDAY = "workday"
    WEEKEND = "weekend"
    PUBLIC_HOLIDAY = "public_holiday"


def class_of(day: date, calendar: Calendar) -> UsualClass:
    """Say which days a day is like; by its weekday where the calendar says nothing."""
    found = kind_of(calendar, day)
    is_makeup = found is Class.MAKEUP_WORKDAY
    return UsualClass.WORKDAY if is_makeup else UsualClass(found.value)


def like_days(
    wanted: UsualClass, before: date, calendar: Calendar, *, count: int = LIKE_DAYS
) -> Sequence[date]:
    """Give the last days of a class before a day, the newest first."""
    found: list[date] = []
    day = before - _ONE_DAY
    while len(found) < count and day >= before - LOOK_BACK:
        if class_of(day, calendar) is wanted:
            found.append(day)
        day -= _ONE_DAY
    return found


def profile_days(wanted: UsualClass, before: date, calendar: Calendar) -> Sequence[date]:
    """Give the days of a class in the weeks of a public profile, the newest first."""
    since = before - PROFILE_WEEKS * WEEK
    days = (before - number * _ONE_DAY for number in range(1, (before - since).days + 1))
    return [day for day in days if class_of(day, calendar) is wanted]


@dataclass(frozen=True, slots=True)
class HourOf:
    """An hour of a station's or unit's day, as the rollup counted it."""

    quarters_ms: Sequence[int]
    """Person-time of its quarters."""
    commissioned_ms: int = 0
    online_ms: int = 0
    free_ms: int = 0
    """Of the hour, the time in free mode."""
    free_visits: int = 0
    """Visits that began in it."""
    recorded_ms: int = 0
    """Of the hour, the time of which it is recorded what held."""
    open_ms: int = 0
    """Of that, the time in which one could come in: through an open door, or by a scan."""

    @property
    def is_closed(self) -> bool:
        """Whether nobody could come in all the while: of a unit, to none of its stations."""
        return self.recorded_ms > 0 and self.open_ms == 0

    @property
    def is_known(self) -> bool:
        """Whether an empty hour means that nobody was there.

        Where controllers were not heard for more than half of their time, nobody could come in, or
        nobody knows of it: that is not a zero (law 16).
        """
        return 2 * (self.commissioned_ms - self.online_ms) <= self.commissioned_ms

    @property
    def is_mostly_free(self) -> bool:
        """Whether its door stood open for more than half of it, and let in who did not scan."""
        return 2 * self.free_ms > QUARTERS * _QUARTER_MS


Means = Sequence[float | None]
"""Means of persons inside, by quarter or hour of a day; None where it is not known."""


def quarter_means(
    hours: Sequence[HourOf], *, is_scanned: bool = True, has_closed: bool = False
) -> Means:
    """Give the mean of persons inside of each quarter hour of a day.

    `is_scanned` says whether enough of those scan on such days who come in through an open door:
    else an hour that was mostly free is not known. Hours in which nobody could come in are left out
    but where `has_closed`: a station that was closed for a fortnight, or on Sundays, is no measure
    for itself when it is open. Of a unit's sum the stations that are closed are a part.
    """

    def is_told(hour: HourOf) -> bool:
        is_counted = hour.is_known and (is_scanned or not hour.is_mostly_free)
        return is_counted and (has_closed or not hour.is_closed)

    return [
        ms / _QUARTER_MS if told else None
        for hour, told in zip(hours, map(is_told, hours), strict=True)
        for ms in hour.quarters_ms
    ]


def hour_means(quarters: Means) -> Means:
    """Give the means of a day by hour."""
    found: list[float | None] = []
    for start in range(0, len(quarters), QUARTERS):
        known = [value for value in quarters[start : start + QUARTERS] if value is not None]
        found.append(sum(known) / QUARTERS if len(known) == QUARTERS else None)
    return found


def known_at(days: Sequence[Means | None], number: int) -> list[float]:
    """Give what is known of one quarter or hour over some days; None: a day without a row."""
    values = [day[number] for day in days if day is not None]
    return [value for value in values if value is not None]


def middle(values: Sequence[float]) -> float | None:
    """Give the median; None with fewer than four values."""
    return round(statistics.median(values), 4) if len(values) >= FEWEST else None


def medians(days: Sequence[Means | None], bins: int) -> Means:
    """Give the median of every quarter or hour of some days."""
    return [middle(known_at(days, number)) for number in range(bins)]


def hours_with_all(quarters: Means) -> Sequence[bool]:
    """Say of which hours of a day all quarters are known."""
    return [
        None not in quarters[start : start + QUARTERS]
        for start in range(0, len(quarters), QUARTERS)
    ]


def known_days(days: Sequence[Means | None], bins: int) -> Sequence[int]:
    """Count the days behind the median of every quarter or hour."""
    return [len(known_at(days, number)) for number in range(bins)]


def usual_levels(days: Sequence[Means | None], capacity: int) -> Sequence[Level | None]:
    """Say how full a station usually is, by hour: the level of the mean, never the mean itself."""
    found: list[Level | None] = []
    for hour in range(HOURS_OF_DAY):
        values = known_at(days, hour)
        is_enough = len(values) >= FEWEST
        found.append(level(statistics.fmean(values), capacity) if is_enough else None)
    return found


def workers_by_hour(
    came: Iterable[tuple[date, int, Hashable]], days: Mapping[date, Means]
) -> Mapping[int, int]:
    """Count the distinct workers of each hour over the days on which it is known.

    `came` says on which day and in which hour which worker came; `days` has means by hour. Who came
    on other days stands behind no level: ten who came while nothing was known of the hour do not
    hide the one who comes since.
    """
    found: dict[int, set[Hashable]] = {}
    for day, hour, worker in came:
        if day in days and days[day][hour] is not None:
            found.setdefault(hour, set()).add(worker)
    return {hour: len(workers) for hour, workers in found.items()}


def hidden_hours(levels: Sequence[Level | None], workers: Mapping[int, int]) -> Sequence[int]:
    """Give the hours with a level that the public may not see: too few distinct workers came.

    An hour in which nobody ever came is hidden like one with few, so that neither can be told from
    the other (metrics 50).
    """
    return [
        hour
        for hour, found in enumerate(levels)
        if found is not None and workers.get(hour, 0) < K_PUBLIC
    ]


def free_coverage(days: Sequence[Sequence[HourOf] | None]) -> float | None:
    """Give the share of the free time of some days that lies in hours in which somebody scanned.

    None with fewer than four days that had any. It is `free_mode_coverage` without the heads that
    staff counted: they say that somebody came, and put nobody inside.
    """
    free = [[hour for hour in day if hour.free_ms] for day in days if day is not None]
    if sum(map(bool, free)) < FEWEST:
        return None
    hours = [hour for day in free for hour in day]
    covered = sum(hour.free_ms for hour in hours if hour.free_visits)
    return round(covered / sum(hour.free_ms for hour in hours), 4)


class Unknown(StrEnum):
    """Why nobody can say how full a station is now; closed, and stable in the API."""

    CLOSED = "closed"
    """Nobody may come in: a level would tell of room."""
    NO_CONTROLLER = "no_controller"
    """A scan would open the door, and there is no controller to open it or to tell of it."""
    CONTROLLER_SILENT = "controller_silent"
    """Who came in since it was last heard, nobody knows; also just after it came back."""
    HARDLY_COUNTED = "hardly_counted"
    """The door stands open, or did lately, and too few of those who come scan."""
    NOT_COUNTED_YET = "not_counted_yet"
    """The door stands open, or did lately, and how many of those who come scan is not made out."""


def unscanned_because(coverage: float | None) -> Unknown | None:
    """Say why nobody knows who came in through an open door; None: enough of them scan.

    `coverage` is how far free time is counted on such days; None: nobody knows.
    """
    if coverage is None:
        return Unknown.NOT_COUNTED_YET
    return Unknown.HARDLY_COUNTED if coverage < COVERAGE else None


def held_lately(
    recorded: Sequence[Window],
    rules: StationRules,
    calendar: Calendar,
    at: datetime,
    *,
    stay: timedelta,
) -> Sequence[Kind]:
    """Give what held while those came who may be inside still, in order; the last holds now.

    What is recorded, whatever was changed or withdrawn since; else by the rules, which nobody has
    changed since the record ends. Nobody is counted for longer than the station's longest stay
    after he came, so nobody who came uncounted is looked for any longer either.
    """
    since = at - stay
    lately = [one for one in recorded if one.until_at > since and one.from_at <= at]
    begins, ends = (lately[0].from_at, lately[-1].until_at) if lately else (since, since)
    windows = mode_windows(rules, calendar, since, at + _MOMENT)
    before = [one for one in windows if one.from_at < begins]
    after = [one for one in windows if one.until_at > ends]
    return [one.kind for one in (*before, *lately, *after)]


def unknown_because(
    held: Sequence[Kind], *, has_told: bool | None, coverage: float | None
) -> Unknown | None:
    """Say why nobody knows how full a station is now; None: it is known.

    It is known where whoever came had to be counted. `held` is what held lately, `has_told` whether
    the controller has told of all who came (None: there is none), `coverage` how far free time is
    counted (None: nobody knows). It does not depend on how many are inside: whether there is a
    level tells nothing of them.
    """
    if held[-1] in (Kind.CLOSED, Kind.STAFF_ONLY, Kind.EVACUATION):
        return Unknown.CLOSED
    if held[-1] is Kind.SCAN and has_told is None:
        return Unknown.NO_CONTROLLER
    # Who came in by a scan lately may be inside still, whatever holds now.
    if Kind.SCAN in held and has_told is False:
        return Unknown.CONTROLLER_SILENT
    return unscanned_because(coverage) if Kind.FREE in held else None


def live_level(inside: int, capacity: int, unknown: Unknown | None) -> Level | None:
    """Say how full a station is now, as anybody may see it; None where nobody knows."""
    return level(inside, capacity) if unknown is None else None


def busy_vs_capacity(inside: int, capacity: int) -> float | None:
    """Compare who is inside with the places; None where no places are counted."""
    return round(inside / capacity, 4) if capacity > 0 else None


def busy_vs_usual(inside: int, usual: float | None) -> float | None:
    """Compare who is inside with what is usual, of which less than one counts as one."""
    return None if usual is None else round(inside / max(1.0, usual), 4)


@dataclass(frozen=True, slots=True)
class Expected:
    """How many persons are to be expected, and between what numbers most such days lay."""

    persons: float
    low: float
    """The 20th percentile."""
    high: float
    """The 80th."""


def expected(values: Sequence[float]) -> Expected | None:
    """Say what is to be expected after what was; None with fewer than four values."""
    persons = middle(values)
    if persons is None:
        return None
    ordered = sorted(values)
    low, high = (round(nearest_rank(ordered, percent), 4) for percent in (20, 80))
    # Of an even number of values the middle lies between two, and the band around it.
    return Expected(persons, min(low, persons), max(high, persons))


class Unexpected(StrEnum):
    """Why nobody can say what is to be expected; closed, and stable in the API."""

    CLOSED = "closed"
    """Of a station: nobody may come in then, as its hours and what replaces them say now."""
    FEW_DAYS = "few_days"
    """Fewer than four like days are known on which it was open then."""
    HARDLY_COUNTED = "hardly_counted"
    """The door stands open then, and on such days too few of those who come scan."""
    NOT_COUNTED_YET = "not_counted_yet"
    """The door stands open then, and how many of those who come scan is not made out."""
    FEW_STATIONS = "few_stations"
    """Of a unit: of less than half of its stations it is known what is usual then."""


class Past:
    """What was inside a place on some days, as far as it is known."""

    def __init__(
        self,
        hours: Mapping[date, Sequence[HourOf]],
        shares: Mapping[UsualClass, Sequence[float]] | None = None,
    ) -> None:
        """Take the hours of its days; `shares` is, of a unit, of how many of its stations an hour
        is known on days of a class. Of a unit no day tells that: one of them may scan for all."""
        self.shares = shares
        self._hours = hours
        has_closed = shares is not None
        self._all, self._apart = (
            {
                day: hour_means(quarter_means(some, is_scanned=is_scanned, has_closed=has_closed))
                for day, some in hours.items()
            }
            for is_scanned in (True, False)
        )

    def means(self, like: Sequence[date]) -> Mapping[date, Means]:
        """Give the means of the days by hour, as far as what is counted on like days is enough."""
        return self._apart if self._unscanned(like) else self._all

    def share(self, day_class: UsualClass, hour: int) -> float | None:
        """Say of how many of a unit's stations an hour is known; None of a station."""
        return None if self.shares is None else self.shares[day_class][hour]

    def is_of_enough(self, day_class: UsualClass, hour: int) -> bool:
        """Say whether an hour is known of half of a unit's stations; of a station it is."""
        share = self.share(day_class, hour)
        return share is None or share >= FEWEST_STATIONS

    def why_not(self, day_class: UsualClass, hour: int, like: Sequence[date]) -> Unexpected:
        """Say why nothing is to be expected in an hour of which there is no value."""
        if not self.is_of_enough(day_class, hour):
            return Unexpected.FEW_STATIONS
        unscanned, some = self._unscanned(like), (self._hours.get(day) for day in like)
        if unscanned and any(day is not None and day[hour].is_mostly_free for day in some):
            return Unexpected(unscanned.value)
        return Unexpected.FEW_DAYS

    def _unscanned(self, like: Sequence[date]) -> Unknown | None:
        if self.shares is not None:
            return None
        return unscanned_because(free_coverage([self._hours.get(day) for day in like]))


@dataclass(frozen=True, slots=True)
class Skill:
    """How far forecasts were off, beside taking the value of a week before."""

    hours: int
    """How many hours were compared: those of which all three values are known."""
    mae: float | None
    """Mean distance of the forecast from what came, in persons."""
    mae_last_week: float | None
    """The same of last week's value."""
    skill: float | None
    """1 - mae / mae_last_week; None when last week was never off, or nothing was compared."""


def backtest(past: Past, calendar: Calendar, today: date) -> Skill:
    """Forecast each of the last days from what was known before it, and compare known hours."""
    off, off_last_week = [], []
    for number in range(1, BACKTEST + 1):
        day = today - number * _ONE_DAY
        day_class = class_of(day, calendar)
        like = like_days(day_class, day, calendar)
        series = past.means(like)
        came, last_week = series.get(day), series.get(day - WEEK)
        if came is None or last_week is None:
            continue
        before = [series.get(one) for one in like]
        for hour in range(HOURS_OF_DAY):
            if not past.is_of_enough(day_class, hour):
                continue
            actual, naive = came[hour], last_week[hour]
            guess = middle(known_at(before, hour))
            if actual is not None and naive is not None and guess is not None:
                off.append(abs(guess - actual))
                off_last_week.append(abs(naive - actual))
    if not off:
        return Skill(0, None, None, None)
    mae, naive_mae = statistics.fmean(off), statistics.fmean(off_last_week)
    skill = round(1 - mae / naive_mae, 4) if naive_mae > 0 else None
    return Skill(len(off), round(mae, 4), round(naive_mae, 4), skill)


def forecast_days(calendar: Calendar, today: date, ahead: Collection[date]) -> set[date]:
    """Give the days whose rows a forecast of some days ahead and its backtest need."""
    return set(_needed(calendar, today, ahead))


def _needed(calendar: Calendar, today: date, ahead: Collection[date]) -> Iterator[date]:
    for day in ahead:
        yield from like_days(class_of(day, calendar), today, calendar)
    for number in range(1, BACKTEST + 1):
        day = today - number * _ONE_DAY
        yield from (day, day - WEEK)
        yield from like_days(class_of(day, calendar), day, calendar)
