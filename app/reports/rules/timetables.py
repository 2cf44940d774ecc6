"""The modes of stations day by day, written out once for all that have the same hours."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from app.places.rules import Calendar, Change, Mode, StationRules, mode_at, mode_windows
from app.places.rules.local_time import instant, zone


class Timetables:
    """The modes of every day, made once for all stations of the same hours."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._shared: dict[StationRules, Timetable] = {}

    def of(self, rules: StationRules) -> "Timetable":
        """Give a station's timetable."""
        plain = replace(rules, changes=())
        shared = self._shared.get(plain)
        if shared is None:
            shared = self._shared[plain] = Timetable(plain, self._calendar)
        return Timetable(rules, self._calendar, shared) if rules.changes else shared


class Timetable:
    """The modes of one station, day by day, written out by the mode function."""

    def __init__(
        self, rules: StationRules, calendar: Calendar, shared: "Timetable | None" = None
    ) -> None:
        self._rules, self._calendar, self._shared = rules, calendar, shared
        self._days: dict[date, tuple[list[datetime], list[Mode]]] = {}

    def at(self, at: datetime, day: date) -> Mode:
        """Say what holds at an instant of a local day."""
        begins, modes = self.day(day)
        found = bisect_right(begins, at) - 1
        mode = modes[found] if found >= 0 else None
        if mode is None or mode.until is None or at >= mode.until:
            # Where clocks go back over midnight, a day on the wall has an hour outside its own.
            return mode_at(self._rules, self._calendar, at)
        return mode

    def day(self, day: date) -> tuple[list[datetime], list[Mode]]:
        """Give when each mode of a day begins, and the modes."""
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = self._made(day)
        return found

    def _made(self, day: date) -> tuple[list[datetime], list[Mode]]:
        place = zone(self._rules.timezone)
        t0, t1 = instant(place, day, 0), instant(place, day + timedelta(days=1), 0)
        touched = any(change.from_at < t1 and t0 < change.until_at for change in self._changes)
        if self._shared is not None and not touched:
            return self._shared.day(day)
        windows = mode_windows(self._rules, self._calendar, t0, t1)
        modes = [Mode(each.kind, each.because, each.until_at, True) for each in windows]
        return [each.from_at for each in windows], modes

    @property
    def _changes(self) -> Sequence[Change]:
        return self._rules.changes
