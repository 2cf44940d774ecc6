"""Promise, uptime and repair by hour agree with a count of every minute, over random spells."""

import random
from itertools import pairwise

import pytest

from app.places.rules import Because, Kind
from app.reports.rules.health import (
    Counts,
    Day,
    Device,
    Heard,
    Hour,
    Standing,
    Thing,
    hours_of,
    of_a_day,
    pieces,
    plain,
    reporting,
    shifted,
)

MINUTE = 60_000
LENGTH = 24 * 12
"""Hours of twelve minutes, so that a day is short."""
STATUSES = ("working", "degraded", "out_of_order", "unknown")


def cuts(chance: random.Random, low: int, high: int, most: int) -> list[int]:
    there = range(low, high)
    return sorted(chance.sample(there, min(len(there), chance.randint(0, most))))


def spans(chance: random.Random, low: int, high: int, most: int) -> list[tuple[int, int]]:
    edges = cuts(chance, low, high, 2 * most)
    return list(zip(edges[::2], edges[1::2], strict=False))


def in_ms(minutes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(since * MINUTE, until * MINUTE) for since, until in minutes]


class Story:
    """A random day in whole minutes, from before it to after it."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.now = chance.choice([LENGTH + 100, chance.randint(1, LENGTH)])
        self.life = (chance.choice([-200, chance.randint(-50, LENGTH)]), self._end(chance))
        self.silence = chance.randint(1, 20)
        edges = [-100, *cuts(chance, -99, LENGTH + 50, 10), chance.randint(LENGTH, LENGTH + 60)]
        edges = sorted(set(edges))
        self.held = [(a, b, chance.choice(list(Kind))) for a, b in pairwise(edges)]
        self.deaf = spans(chance, -80, self.now, 3)
        self.devices = self._devices(chance)
        self.things = [
            thing
            for number in range(chance.randint(0, 3))
            for thing in self._things(chance, number)
        ]
        self.promised = spans(chance, -90, LENGTH + 40, 6)
        self.counted = spans(chance, -20, LENGTH, 3)

    def _end(self, chance: random.Random) -> int | None:
        return chance.choice([None, chance.randint(1, LENGTH)])

    def _devices(self, chance: random.Random) -> list[Device]:
        """Controllers one after the other, heard at some minutes."""
        begins = [-150, *cuts(chance, -50, self.now, 2)] if chance.random() < 0.9 else []
        found = []
        for number, begun in enumerate(begins):
            last = number == len(begins) - 1
            retired = None if last and chance.random() < 0.7 else (
                self.now if last else begins[number + 1]
            )  # fmt: skip
            heard = [begun, *cuts(chance, begun + 1, (retired or self.now) + 1, 12)]
            heard = [at for at in sorted(set(heard)) if at <= self.now]
            gaps = [(a, b) for a, b in pairwise(heard) if b - a > self.silence]
            found.append(Device(begun, retired, heard[-1], gaps))
        return found

    def _things(self, chance: random.Random, number: int) -> list[Thing]:
        edges: list[int | None] = [-90, *cuts(chance, -80, self.now, 6)]
        edges.append(None if chance.random() < 0.6 else self.now)
        kind, found = chance.choice(["water", "microwave"]), list[Thing]()
        fault: tuple[int, int | None] | None = None
        for a, b in pairwise(edges):
            assert a is not None
            status = chance.choice(STATUSES)
            if status == "out_of_order":
                fault = (fault[0] if fault else a, b)
            elif status != "unknown":
                fault = None
            quantity = chance.randint(1, 3)
            found.append(Thing(number, kind, quantity, status, a, b, *(fault or ())))
        return found

    def day(self) -> Day:
        """The story as the arithmetic takes it."""

        def ms(minute: int | None) -> int | None:
            return None if minute is None else minute * MINUTE

        return Day(
            edges=[hour * 12 * MINUTE for hour in range(25)],
            now_ms=self.now * MINUTE,
            life=(self.life[0] * MINUTE, ms(self.life[1])),
            silence_ms=self.silence * MINUTE,
            held=[(a * MINUTE, b * MINUTE, kind, Because.WEEKLY) for a, b, kind in self.held],
            promised=in_ms(self.promised),
            counted=in_ms(self.counted),
            devices=[
                Device(one.enrolled_ms * MINUTE, ms(one.retired_ms), ms(one.seen_ms),
                       in_ms(list(one.outages)))
                for one in self.devices
            ],
            deaf=in_ms(self.deaf),
            things=[
                one._replace(from_ms=one.from_ms * MINUTE, until_ms=ms(one.until_ms),
                             out_from_ms=ms(one.out_from_ms), out_until_ms=ms(one.out_until_ms))
                for one in self.things
            ],
        )  # fmt: skip

    def ends(self) -> int:
        return self.now if self.life[1] is None else min(self.now, self.life[1])

    def lives(self, minute: int) -> bool:
        """Whether a minute counts: of the day, of the station's life, past."""
        return max(0, self.life[0]) <= minute < min(LENGTH, self.ends())

    def count(self) -> list[Hour]:
        """Look at every minute by itself."""
        hours = [Hour() for _ in range(24)]
        for minute in range(LENGTH):
            if self.lives(minute):
                self._look(minute, hours[minute // 12])
        for device in self.devices:
            for a, b in device.outages:
                known = sum(self.of_silence(device, at) == "silent" for at in range(a, b))
                if self.lives(b) and known:
                    hours[b // 12].outages_ended += 1
                    hours[b // 12].outage_ms += known * MINUTE
        for thing in self.things:
            if thing.status in ("working", "degraded") and self.lives(thing.from_ms):
                lasted = self._was_out(thing)
                if lasted:
                    hour = hours[thing.from_ms // 12]
                    standing = hour.facilities.setdefault(thing.kind, Standing())
                    standing.repairs_ms.append(lasted * MINUTE)
        return hours

    def _was_out(self, thing: Thing) -> int:
        """Walk back to the word before that it works: from the first to the last out of order."""
        out, at = list[int](), thing.from_ms - 1
        while (status := self._status(thing.facility, at)) in ("out_of_order", "unknown"):
            if status == "out_of_order":
                out.append(at)
            at -= 1
        return out[0] - out[-1] + 1 if out else 0

    def _status(self, facility: object, minute: int) -> str | None:
        for one in self.things:
            ends = self.now if one.until_ms is None else one.until_ms
            if one.facility == facility and one.from_ms <= minute < ends:
                return one.status
        return None

    def _look(self, minute: int, hour: Hour) -> None:
        kinds = [kind for a, b, kind in self.held if a <= minute < b]
        there = [
            device
            for device in self.devices
            if device.enrolled_ms <= minute < (device.retired_ms or self.now)
        ]
        state = self.of_silence(there[0], minute) if there else None
        is_open = kinds in ([Kind.FREE], [Kind.SCAN])
        promised = any(a <= minute < b for a, b in self.promised)
        by_staff = kinds == [Kind.FREE] and any(a <= minute < b for a, b in self.counted)
        seen = state == "online" or by_staff
        could_not = kinds == [Kind.SCAN] and state is None
        nobody_knows = not seen and state != "silent" and not could_not
        hour.recorded_ms += MINUTE * len(kinds)
        hour.open_ms += MINUTE * is_open
        hour.promised_ms += MINUTE * promised
        hour.staffed_ms += MINUTE * (kinds == [Kind.FREE])
        hour.usable_ms += MINUTE * (promised and is_open and seen)
        hour.unknown_ms += MINUTE * (promised and is_open and nobody_knows)
        hour.commissioned_ms += MINUTE * (state is not None)
        hour.online_ms += MINUTE * (state == "online")
        hour.deaf_ms += MINUTE * (state == "unknown")
        for thing in self.things if is_open else ():
            if thing.from_ms <= minute < (self.now if thing.until_ms is None else thing.until_ms):
                standing = hour.facilities.setdefault(thing.kind, Standing())
                length = MINUTE * thing.quantity
                standing.standing_ms += length
                standing.out_ms += length * (thing.status == "out_of_order")
                standing.unknown_ms += length * (thing.status == "unknown")
                standing.degraded_ms += length * (thing.status == "degraded")

    def reports(self, minute: int) -> bool:
        """Say whether it was open and its controller heard: R and A of metrics 16."""
        if not self.lives(minute):
            return False
        kinds = [kind for a, b, kind in self.held if a <= minute < b]
        there = [
            device
            for device in self.devices
            if device.enrolled_ms <= minute < (device.retired_ms or self.now)
        ]
        is_heard = bool(there) and self.of_silence(there[0], minute) == "online"
        return kinds in ([Kind.FREE], [Kind.SCAN]) and is_heard

    def of_silence(self, device: Device, minute: int) -> str:
        """Say whether a controller was online, silent, or nobody knows."""
        until = min(self.now, self.now if device.retired_ms is None else device.retired_ms)
        seen = device.seen_ms
        assert seen is not None
        for a, b in [*device.outages, *([(seen, until)] if until - seen > self.silence else [])]:
            if not a <= minute < b:
                continue
            if self.is_deaf(minute):
                return "unknown"
            begins = ends = minute
            while begins > a and not self.is_deaf(begins - 1):
                begins -= 1
            while ends < b and not self.is_deaf(ends):
                ends += 1
            if ends - begins > self.silence:
                return "silent"
            return "online" if begins == a or ends == b else "unknown"
        return "online"

    def is_deaf(self, minute: int) -> bool:
        return any(a <= minute < b for a, b in self.deaf)


@pytest.mark.parametrize("block", range(10))
def test_every_hour_is_what_its_minutes_say(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        story = Story(seed)
        assert list(hours_of(story.day())) == story.count(), f"seed {seed}"


@pytest.mark.parametrize("block", range(4))
def test_a_station_reports_while_it_is_open_and_heard(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        story = Story(seed)
        told = {at // MINUTE for a, b in reporting(story.day()) for at in range(a, b, MINUTE)}
        assert told == {at for at in range(LENGTH) if story.reports(at)}, f"seed {seed}"


def test_a_random_day_is_not_an_empty_one() -> None:
    hours = [hour for seed in range(200) for hour in Story(seed).count()]
    for name in Hour.__slots__:
        assert any(getattr(hour, name) for hour in hours), name
    standing = [one for hour in hours for one in hour.facilities.values()]
    for name in Standing.__slots__:
        assert any(getattr(one, name) for one in standing), name


def quiet(seed: int) -> Day:
    """A random story of which, mostly, nothing happens on the day itself."""
    chance, day = random.Random(seed), Story(seed).day()
    before = [thing._replace(until_ms=None) for thing in day.things if thing.from_ms < 0]
    around = [(-3 * LENGTH * MINUTE, chance.randint(-LENGTH, 0) * MINUTE)]
    return day._replace(
        now_ms=chance.choice([day.now_ms, 9 * LENGTH * MINUTE]),
        life=(-LENGTH * MINUTE, chance.choice([None, 2 * LENGTH * MINUTE])),
        devices=[
            Device(-LENGTH * MINUTE, None, 9 * LENGTH * MINUTE, around)
            for _ in range(chance.randint(0, 2))
        ],
        things=chance.choice([before, day.things]),
    )


def test_a_day_is_told_by_the_day_that_it_is_like() -> None:
    plain_days = 0
    for seed in range(600):
        day = quiet(seed) if seed % 3 else Story(seed).day()
        like = plain(of_a_day(day, day.edges))
        if like is not None:
            plain_days += 1
            hash(like)
            assert list(hours_of(like)) == list(hours_of(day)), f"seed {seed}"
            assert shifted(reporting(like), day.edges[0]) == reporting(day), f"seed {seed}"
    assert 100 < plain_days < 500


@pytest.mark.parametrize("block", range(4))
def test_what_lies_before_and_after_a_day_changes_nothing_of_it(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        day = Story(seed).day()
        assert list(hours_of(of_a_day(day, day.edges))) == list(hours_of(day)), f"seed {seed}"


HOUR = 3_600_000
NIGHT, STAFFED, EVENING = (0, 8 * HOUR), (8 * HOUR, 18 * HOUR), (18 * HOUR, 24 * HOUR)
HEARD = Device(-HOUR, None, 30 * HOUR)


def a_day(**changes: object) -> Day:
    held = [
        (*NIGHT, Kind.SCAN, Because.WEEKLY),
        (*STAFFED, Kind.FREE, Because.WEEKLY),
        (*EVENING, Kind.SCAN, Because.WEEKLY),
    ]
    edges = [number * HOUR for number in range(25)]
    day = Day(edges, 30 * HOUR, (-HOUR, None), 75_000, held, promised=[(0, 24 * HOUR)])
    return day._replace(**changes)  # type: ignore[arg-type]


def kept(day: Day) -> tuple[float, float, float]:
    """Hours promised, usable, and unknown."""
    hours = hours_of(day)
    names = ("promised_ms", "usable_ms", "unknown_ms")
    promised, usable, unknown = (sum(getattr(hour, name) for hour in hours) for name in names)
    return promised / HOUR, usable / HOUR, unknown / HOUR


def told_of(day: Day) -> list[tuple[int, int, Heard, Counts]]:
    """What became of the promised time, piece by piece."""
    return [(one.from_ms, one.until_ms, one.heard, one.counts) for one in pieces(day)]


def test_without_a_controller_nobody_knows_of_free_hours_and_no_scan_opens() -> None:
    day = a_day()
    assert kept(day) == (24, 0, 10)
    assert told_of(day) == [
        (*NIGHT, Heard.NO_CONTROLLER, Counts.UNUSABLE),
        (*STAFFED, Heard.NOBODY, Counts.UNKNOWN),
        (*EVENING, Heard.NO_CONTROLLER, Counts.UNUSABLE),
    ]


def test_staff_who_count_heads_are_there() -> None:
    day = a_day(counted=[(7 * HOUR, 9 * HOUR)])
    assert kept(day) == (24, 1, 9)
    assert told_of(day)[1:3] == [
        (8 * HOUR, 9 * HOUR, Heard.STAFF, Counts.USABLE),
        (9 * HOUR, 18 * HOUR, Heard.NOBODY, Counts.UNKNOWN),
    ]


def test_to_retire_a_dead_controller_lifts_the_rate_by_no_night() -> None:
    """Dead at six: left there until ten, or retired at once and replaced at ten."""
    later = Device(10 * HOUR, None, 30 * HOUR)
    left = Device(-HOUR, 10 * HOUR, 6 * HOUR)
    day = a_day(devices=[left, later])
    assert kept(day) == (24, 20, 0)
    assert (6 * HOUR, 8 * HOUR, Heard.SILENT, Counts.UNUSABLE) in told_of(day)
    day = a_day(devices=[left._replace(retired_ms=6 * HOUR), later])
    # Of the free hours from eight to ten nobody knows; from six to eight nobody could come in.
    assert kept(day) == (24, 20, 2)
    assert (6 * HOUR, 8 * HOUR, Heard.NO_CONTROLLER, Counts.UNUSABLE) in told_of(day)


def test_while_no_server_hears_a_controller_nobody_knows_and_without_one_nothing_opens() -> None:
    """A box that no server hears may let people in by their passes alone."""
    away, silent = [(4 * HOUR, 6 * HOUR)], Device(-HOUR, None, 30 * HOUR, [(4 * HOUR, 6 * HOUR)])
    assert kept(a_day(devices=[silent], deaf=away)) == (24, 22, 2)
    assert kept(a_day(deaf=away)) == (24, 0, 10)


def test_with_a_controller_that_is_heard_it_was_kept() -> None:
    assert kept(a_day(devices=[HEARD])) == (24, 24, 0)


@pytest.mark.parametrize("kind", [Kind.CLOSED, Kind.STAFF_ONLY, Kind.EVACUATION])
@pytest.mark.parametrize("because", [Because.OVERRIDE, Because.EMERGENCY, Because.EXCEPTION])
def test_whoever_locks_the_door_breaks_the_promise(kind: Kind, because: Because) -> None:
    shut = [
        (*NIGHT, Kind.SCAN, Because.WEEKLY),
        (8 * HOUR, 12 * HOUR, Kind.FREE, Because.WEEKLY),
        (12 * HOUR, 18 * HOUR, kind, because),
        (*EVENING, Kind.SCAN, Because.WEEKLY),
    ]
    assert kept(a_day(devices=[HEARD], held=shut)) == (24, 18, 0)
    assert kept(a_day(held=shut)) == (24, 0, 4)


def test_what_was_not_promised_breaks_nothing() -> None:
    shut = [(*NIGHT, Kind.CLOSED, Because.EXCEPTION), (*STAFFED, Kind.FREE, Because.OVERRIDE)]
    assert kept(a_day(devices=[HEARD], held=shut, promised=[])) == (0, 0, 0)


def test_a_silent_controller_breaks_the_promise_in_any_mode() -> None:
    silent = Device(-HOUR, None, 30 * HOUR, [(6 * HOUR, 10 * HOUR)])
    assert kept(a_day(devices=[silent])) == (24, 20, 0)
    assert kept(a_day(devices=[silent], counted=[(9 * HOUR, 10 * HOUR)])) == (24, 21, 0)


def test_a_restart_of_the_server_makes_no_outage() -> None:
    """Polled 25 s before, back 40 s later, polled again 30 s after that."""
    device = Device(-1, None, 108_000_000, [(3_600_000, 3_695_000)])
    away = [(3_625_000, 3_665_000)]
    hours = hours_of(a_day(devices=[device], deaf=away))
    assert hours[1].outages_ended == 0
    assert hours[1].unknown_ms == 40_000
    assert hours[1].usable_ms == 3_560_000
    (there,) = [hours_of(a_day(devices=[device]))[1]]
    assert (there.outages_ended, there.outage_ms) == (1, 95_000)


@pytest.mark.parametrize(
    ("words", "repairs"),
    [
        ([(1, "out_of_order"), (3, "working")], [2]),
        ([(1, "out_of_order"), (3, "degraded")], [2]),
        ([(1, "out_of_order"), (3, "unknown")], []),
        ([(1, "out_of_order"), (3, "unknown"), (4, "working")], [2]),
        ([(1, "out_of_order"), (3, "unknown"), (4, "out_of_order"), (5, "working")], [4]),
        ([(1, "unknown"), (4, "working")], []),
    ],
)
def test_a_fault_is_repaired_when_somebody_says_that_it_works(
    words: list[tuple[int, str]], repairs: list[int]
) -> None:
    """What was unknown in between is time in which nobody knew, and no repair."""
    things, fault = list[Thing](), None
    for (since, status), after in zip(words, [*words[1:], (None, "")], strict=True):
        until = None if after[0] is None else after[0] * HOUR
        if status == "out_of_order":
            fault = (fault[0] if fault else since * HOUR, until)
        elif status != "unknown":
            fault = None
        things.append(Thing(1, "microwave", 1, status, since * HOUR, until, *(fault or ())))
    hours = hours_of(a_day(things=things))
    found = [ms for hour in hours for one in hour.facilities.values() for ms in one.repairs_ms]
    assert found == [length * HOUR for length in repairs]
