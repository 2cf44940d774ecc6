"""Who wants to go where on one day, and when: drawn, before anything is decided."""

from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.generate.city import City, Flags, Floats, day_of
from app.generate.timetable import DAY, KINDS, MINUTE, US, Ints, day_class, midnight
from app.places.rules import Kind

CURVES = {
    "weekday": (
        .35, .45, .50, .30, .15, .20, .50, .80, 1.0, .90, 1.0, 1.5,
        1.8, 1.4, 1.5, 1.6, 1.2, 1.3, 1.4, 1.2, .90, .80, .70, .50,
    ),
    "weekend": (
        .45, .55, .60, .35, .15, .15, .30, .55, .80, .95, 1.1, 1.6,
        1.9, 1.5, 1.4, 1.5, 1.3, 1.4, 1.5, 1.3, 1.1, .95, .80, .60,
    ),
    "public_holiday": (
        .50, .55, .55, .30, .12, .12, .25, .45, .65, .80, 1.0, 1.4,
        1.6, 1.3, 1.2, 1.2, 1.1, 1.3, 1.4, 1.2, 1.1, 1.0, .85, .65,
    ),
}  # fmt: skip
"""How many want in at each hour: riders rest at three in the afternoon and come again at two."""

BUSY = {"weekday": 1.0, "weekend": 0.85, "public_holiday": 0.6}
"""How much happens on a day of each class."""

HEAT = 1.45
"""How much more on a day of a heat wave."""

TEMPTING = {
    Kind.FREE: 1.0,
    Kind.SCAN: 0.7,
    Kind.STAFF_ONLY: 0.05,
    Kind.CLOSED: 0.05,
    Kind.EVACUATION: 0.02,
}
"""How many of those who would come try a door in each mode."""

OPEN = (KINDS.index(Kind.FREE), KINDS.index(Kind.SCAN))

PARTIES = (0.82, 0.12, 0.04, 0.014, 0.006)
NEIGHBOURS = (0, 0, 0, 0, 0, 0, 0, -1, 1, -2, 2, 3)
"""Whose regulars come: mostly a station's own, else those of one nearby."""

RETURNING = 0.03
"""Who comes back within ten minutes after leaving: for the forgotten phone, for another bottle."""

RETRYING = 0.02
"""Whose first tap came to nothing, so that they tap again."""

TAPS = 12
"""How often somebody impatient taps at a dead door."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Attempts at doors: what people do, whatever is answered. Instants in microseconds."""

    station: Ints
    door: Ints
    worker: Ints
    at: Ints
    party: Ints
    dwell: Ints
    leaves: Flags
    """Says that he leaves; else nobody knows when he did."""
    tap: Ints
    """How many taps of his came just before at this door."""
    luckless: Flags
    """Whatever is granted comes to nothing."""

    def taken(self, which: NDArray[Any]) -> Self:
        """Give some of them, by number or by flag."""
        return type(self)(*(getattr(self, each.name)[which] for each in fields(self)))

    def with_more(self, *others: Self) -> Self:
        """Give these and others."""
        every = (self, *others)
        return type(self)(
            *(np.concatenate([getattr(one, each.name) for one in every]) for each in fields(self))
        )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.at)


class Rhythm:
    """How many come on each day and at each minute, so that the plan's number of visits comes."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._heat = _heat_waves(city)
        self._scale = 1.0
        expected, station_days = 0.0, 0
        for index in range(city.plan.days):
            alive = self.alive(index)
            _, opened = self._minutes(index)
            share = opened[city.stations.rules] * city.stations.popularity
            expected += self.busy(index) * float(share[alive].sum())
            station_days += int(alive.sum())
        if expected > 0:
            self._scale = city.plan.visits_per_station_day * station_days / expected

    def alive(self, index: int) -> Flags:
        """Say which stations are in use on a day."""
        begins = midnight(day_of(self._city, index))
        stations = self._city.stations
        found: Flags = (stations.opened_at <= begins) & (begins + DAY <= stations.retired_at)
        return found

    def busy(self, index: int) -> float:
        """Say how much happens on a day."""
        day = day_of(self._city, index)
        factor = BUSY[day_class(self._city.calendar, day)]
        return factor * (HEAT if day in self._heat else 1.0)

    def is_hot(self, index: int) -> bool:
        """Whether a day belongs to a heat wave."""
        return day_of(self._city, index) in self._heat

    def wishes(self, index: int) -> tuple[Floats, Floats]:
        """Give how many attempts are expected at each station, and each rules' minutes summed."""
        weights, _ = self._minutes(index)
        sums = np.cumsum(weights, axis=1)
        stations = self._city.stations
        expected = sums[:, -1][stations.rules] * stations.popularity * self.busy(index)
        return np.where(self.alive(index), expected * self._scale, 0.0), sums

    def _minutes(self, index: int) -> tuple[Floats, Floats]:
        """Give the weight of each minute for each of the rules, and the open minutes' total."""
        day = day_of(self._city, index)
        hours = np.array(CURVES[day_class(self._city.calendar, day)])
        curve = np.interp(np.arange(1440), np.arange(-30, 1500, 60), [hours[-1], *hours, hours[0]])
        kinds = self._city.timetable.minutes(day)
        weights = np.array([TEMPTING[kind] for kind in KINDS])[kinds] * (curve / curve.sum())
        return weights, np.where(np.isin(kinds, OPEN), weights, 0).sum(axis=1)


def _heat_waves(city: City) -> frozenset[date]:
    """Draw the heat waves of every summer of the period: two to four, of three to eight days."""
    days: set[date] = set()
    for year in range(city.plan.from_day.year, city.plan.until.year + 1):
        rng = np.random.default_rng([city.plan.seed, 1, year])
        for _ in range(int(rng.integers(2, 5))):
            first = date(year, 7, 1) + timedelta(days=int(rng.integers(0, 60)))
            days |= {first + timedelta(days=day) for day in range(int(rng.integers(3, 9)))}
    return frozenset(days)


def draw(city: City, rhythm: Rhythm, index: int, rng: np.random.Generator) -> Wishes:
    """Draw the attempts of a day, in no order."""
    expected, sums = rhythm.wishes(index)
    stations = city.stations
    station = np.repeat(np.arange(len(expected)), rng.poisson(expected))
    count = len(station)
    rules = stations.rules[station]
    # One sorted array for the minutes of all rules: each begins where the one before ends.
    ends = np.cumsum(sums[:, -1])
    flat = (sums + (ends - sums[:, -1])[:, None]).reshape(-1)
    wanted = (ends - sums[:, -1])[rules] + rng.random(count) * sums[rules, -1] * (1 - 1e-12)
    minute = np.searchsorted(flat, wanted, side="right") - rules * 1440
    at = midnight(day_of(city, index)) + minute * MINUTE + rng.integers(0, MINUTE, count)
    night = (minute < 300) | (minute >= 1320)
    long = 35 if rhythm.is_hot(index) else 22
    dwell = rng.lognormal(np.log(np.where(night, long * 1.6, long)), 0.6) * MINUTE
    stay = np.minimum(dwell, stations.max_stay[station] * 0.97).astype(np.int64)
    first = Wishes(
        station=station,
        door=_doors(city, station, rng),
        worker=_workers(city, station, night, rng),
        at=at,
        party=1 + np.searchsorted(np.cumsum(PARTIES)[:-1], rng.random(count)),
        dwell=np.maximum(stay, MINUTE),
        leaves=rng.random(count) < 0.72,
        tap=np.zeros(count, np.int64),
        luckless=rng.random(count) < 0.004,
    )
    whole = first.with_more(_returning(first, rng), _retrying(first, rng))
    whole = whole.with_more(_impatient(city, whole, rng))
    begins = midnight(day_of(city, index))
    # Who scans in the last minute of all would come in after the end of the history.
    over = min(begins + DAY, city.horizon - MINUTE)
    return whole.taken((whole.at >= begins) & (whole.at < over))


def _doors(city: City, station: Ints, rng: np.random.Generator) -> Ints:
    """Most take the first door."""
    another = (rng.random(len(station)) * 1.4).astype(np.int64)
    return city.stations.first_door[station] + another % city.stations.doors[station]


def _workers(city: City, station: Ints, night: Flags, rng: np.random.Generator) -> Ints:
    """Choose who comes: regulars mostly, of here or nearby; at night those who work then."""
    stations = city.stations
    step = np.array(NEIGHBOURS)[rng.integers(0, len(NEIGHBOURS), len(station))]
    home = (station + step) % len(stations.ids)
    many = np.where(night, stations.by_night[home], stations.workers[home])
    # A place without people of its own gets somebody from anywhere.
    chosen = stations.first_worker[home] + (rng.random(len(station)) ** 1.6 * many).astype(np.int64)
    anybody = rng.integers(0, len(city.workers.ids), len(station))
    return np.where(many > 0, chosen, anybody)


def _returning(first: Wishes, rng: np.random.Generator) -> Wishes:
    which = np.flatnonzero(rng.random(len(first)) < RETURNING)
    first.leaves[which] = True
    again = first.taken(which)
    gone = rng.integers(MINUTE, 9 * MINUTE, len(which))
    return _changed(
        again,
        at=again.at + again.dwell + gone,
        dwell=np.maximum(again.dwell // 3, MINUTE),
        leaves=rng.random(len(which)) < 0.72,
    )


def _retrying(first: Wishes, rng: np.random.Generator) -> Wishes:
    which = np.flatnonzero(rng.random(len(first)) < RETRYING)
    before = first.taken(which)
    waited = rng.integers(14 * US, 50 * US, len(which))
    return _changed(before, at=before.at - waited, luckless=np.ones(len(which), np.bool_))


def _impatient(city: City, whole: Wishes, rng: np.random.Generator) -> Wishes:
    dead = city.outages.cover(whole.station, whole.at, city.origin)
    which = np.flatnonzero(dead & (rng.random(len(whole)) < 0.05))
    taps = np.tile(np.arange(1, TAPS), len(which))
    again = whole.taken(np.repeat(which, TAPS - 1))
    return _changed(again, at=again.at + taps * 4 * US, tap=taps)


def _changed(wishes: Wishes, **values: NDArray[Any]) -> Wishes:
    return Wishes(
        **{each.name: values.get(each.name, getattr(wishes, each.name)) for each in fields(wishes)}
    )
