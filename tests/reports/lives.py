"""How the stations of a random history live: told to the product, and kept as it was for a recount.

Hours, seats, exceptions and emergencies come and go by the product's own operations, in the order
of time, as it records what held before each. Words of controllers and facilities come late and in
any order.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.doors import outages
from app.doors.outages import Presence
from app.doors.tables import Controller, ListeningSpell
from app.places import facilities, held, stations
from app.places.rules import (
    Calendar,
    Change,
    ChangeKind,
    DayClass,
    StationRules,
    Tier,
    parse_hours,
)
from app.places.stations import Wanted
from app.places.tables import CalendarDay, Facility, FacilityKind, FacilityStatus, Station
from app.runtime import Runtime
from tests.reports.standing import Box, Life, Thing, Time, Version
from tests.support.worlds import DAY_AND_NIGHT, OFFICE_HOURS, a_controller, a_facility

SILENCE = timedelta(seconds=75)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def _hours(*rows: tuple[str, str], weekdays: Sequence[int] = range(1, 8), **days: Any) -> Any:
    regular = [
        {"weekday": day, "opens": opens, "closes": closes}
        for day in weekdays
        for opens, closes in rows
    ]
    return {"regular": regular, "public_holiday": None, "makeup_workday": None} | days


STAFFED: Sequence[Any] = (
    OFFICE_HOURS,
    _hours(("09:00", "12:30"), ("14:00", "17:00"), weekdays=range(1, 6), public_holiday=[]),
    _hours(("18:00", "02:00"), makeup_workday=[{"opens": "07:00", "closes": "19:00"}]),
    DAY_AND_NIGHT,
    None,
)
ACCESS: Sequence[Any] = (
    DAY_AND_NIGHT,
    DAY_AND_NIGHT,
    _hours(("06:00", "23:30")),
    _hours(("20:00", "08:00"), public_holiday=[{"opens": "10:00", "closes": "16:00"}]),
    None,
)
LENGTHS: Sequence[timedelta] = [
    timedelta(seconds=seconds) for seconds in (30, 75, 76, 150, 1_200, 9_000, 30 * 3600)
]
"""Of silences, and of times without a server."""


@dataclass
class Lives:
    """Lets stations live, and knows how."""

    tx: AsyncSession
    held: Runtime
    random: random.Random
    instant: Callable[[], datetime]
    """Some minute at which something may happen."""
    days: dict[date, DayClass]
    of: dict[uuid.UUID, Life] = field(default_factory=dict)
    listened: list[Time] = field(default_factory=list)
    """When some process was there to hear."""
    _late: list[tuple[Controller, Box, Time]] = field(default_factory=list)
    """What a process heard and could not tell yet."""
    _boxes: list[tuple[Controller, Box]] = field(default_factory=list)
    _things: list[tuple[Facility, Thing]] = field(default_factory=list)

    @property
    def calendar(self) -> Calendar:
        return Calendar(self.days, frozenset(day.year for day in self.days))

    async def begin(self, early: datetime, at: datetime) -> None:
        """Know the calendar, and when servers were there."""
        for day, kind in self.days.items():
            self.tx.add(CalendarDay(day=day, day_class=kind, name="节", source="test"))
        since = early
        for begins in sorted(self.instant() for _ in range(4)):
            ends = begins + self.random.choice([*LENGTHS, timedelta(seconds=15)])
            if since < begins and ends < at:
                self.listened.append((since, begins))
                since = ends
        self.listened.append((since, at))
        # A process that begins a moment later writes a row of its own.
        self.listened.append((since + 2 * SECOND, since + 2 * MINUTE))
        self.tx.add_all(
            ListeningSpell(from_at=begins, until_at=ends) for begins, ends in self.listened
        )
        await self.tx.flush()

    def hours(self) -> dict[str, Any]:
        """Choose hours, staffed and by scan."""
        return {
            "staffed_hours": self.random.choice(STAFFED),
            "access_hours": self.random.choice(ACCESS),
        }

    async def live(
        self,
        station: Station,
        *,
        first: datetime,
        seats: Sequence[datetime],
        retired_at: datetime | None,
        at: datetime,
    ) -> None:
        """Let the rules of a station come and go, first recorded at `first`, until now."""
        life = self.of[station.id] = Life()
        self._version(station, station.created_at, ())
        await self._record(station, first)
        whens = [(when, "seats") for when in seats]
        whens += [
            (self.instant(), self.random.choice(["hours", "change", "change", "undo", "record"]))
            for _ in range(12)
        ]
        until = at if retired_at is None else retired_at
        for when, what in sorted(whens):
            if first < when < until:
                await self._amend(station, what, when)
        if retired_at is not None and retired_at > station.created_at:
            await stations.retire(
                self.tx, self.held.wakeups, station, actor=COMMAND_LINE, at=retired_at
            )
            self._recorded(station, retired_at)
        assert life.versions

    async def _record(self, station: Station, at: datetime) -> None:
        await self.tx.flush()
        await held.record(self.tx, [station.id], at=at)
        self._recorded(station, at)

    def _recorded(self, station: Station, at: datetime) -> None:
        life = self.of[station.id]
        until = at if station.retired_at is None else min(at, station.retired_at)
        begins = max(station.created_at, at - timedelta(days=1))
        if begins < until:
            since, last = life.recorded or (begins, until)
            life.recorded = since, max(last, until)

    async def record_all(self, at: datetime, places: Sequence[Station]) -> None:
        """Record what held, as a job does every minute."""
        for station in places:
            await self._record(station, at)

    def _version(self, station: Station, at: datetime, changes: Sequence[Any]) -> None:
        rules = StationRules(
            station.timezone,
            None if station.staffed_hours is None else parse_hours(station.staffed_hours),
            None if station.access_hours is None else parse_hours(station.access_hours),
            tuple(
                Change(one.kind, one.tier, one.from_at, one.until_at, one.created_at)
                for one in changes
                if one.retired_at is None
            ),
        )
        life = self.of[station.id]
        life.versions.append(Version(at, rules, station.capacity))

    async def _amend(self, station: Station, what: str, at: datetime) -> None:
        tx, wakeups, chance = self.tx, self.held.wakeups, self.random
        table = stations.ModeChange
        query = sa.select(table).where(table.station_id == station.id).order_by(table.created_at)
        changes = list(await tx.scalars(query))
        live = [one for one in changes if one.retired_at is None]
        terms: dict[str, Any] = {"actor": COMMAND_LINE, "at": at}
        if what == "seats":
            seats = {"capacity": chance.choice([0, 1, 2, 8, 20])}
            await stations.amend(tx, wakeups, station, changes=seats, **terms)
        elif what == "hours":
            await stations.amend(tx, wakeups, station, changes=self.hours(), **terms)
        elif what == "record" or (what == "undo" and not live):
            await self._record(station, at)
        elif what == "undo":
            one = chance.choice(live)
            if chance.random() < 0.5:
                await stations.retire_change(tx, wakeups, station, one, **terms)
            else:
                # Mostly shorter than it was, and now and then by more than a day longer.
                longer = 90 if at.minute % 3 else 2_000
                until_at = max(at, one.from_at) + MINUTE * longer
                wanted = Wanted(one.kind, one.from_at, until_at, "")
                await stations.amend_change(tx, wakeups, station, one, wanted, **terms)
        else:
            tier = chance.choice(list(Tier))
            kind = chance.choice(list(ChangeKind))
            if tier is Tier.EXCEPTION and kind in stations.EMERGENCIES:
                kind = ChangeKind.STAFFED
            if tier is Tier.STAFF_ABSENT:
                kind = ChangeKind.ACCESS
            # From before it was written down, at once, or days ahead.
            from_at = at + MINUTE * chance.choice([-600, 0, 0, 45, 1_500, 3_000])
            until_at = at + MINUTE * chance.choice([20, 200, 4_000])
            wanted = Wanted(kind, from_at, max(until_at, from_at + 77 * MINUTE), "")
            changes.append(await stations.add_change(tx, wakeups, station, tier, wanted, **terms))
        self._version(station, at, changes)
        before, now = self.of[station.id].versions[-2:]
        if what in ("change", "undo") or replace(before, since=at) != now:
            self._recorded(station, at)

    async def box(
        self, station: Station, enrolled_at: datetime, retired_at: datetime | None, at: datetime
    ) -> Controller:
        """Enrol a controller, and let it be heard and silent until it is retired or now."""
        controller_id, _ = await a_controller(self.tx, station, at=enrolled_at)
        controller = await self.tx.get_one(Controller, controller_id)
        controller.retired_at = retired_at
        await self.tx.flush()
        box = Box(enrolled_at, retired_at)
        self.of[station.id].boxes.append(box)
        self._boxes.append((controller, box))
        ends = at if retired_at is None else min(retired_at, at)
        self._hear(controller, box, enrolled_at, ends)
        await self._tell(at, everything=False)
        return controller

    def _hear(self, controller: Controller, box: Box, since: datetime, until: datetime) -> None:
        """Choose when a controller is heard within a time; never while no server is there."""
        chance = self.random
        gaps: list[Time] = []
        for begins in [self.instant() for _ in range(chance.randint(0, 5))]:
            begins += SECOND * chance.randint(-40, 40)
            gaps.append((begins, begins + chance.choice(LENGTHS)))
        if chance.random() < 0.3:
            gaps.append((until - chance.choice(LENGTHS), until))
        ordered = sorted(self.listened)
        for (_, begins), (ends, _) in pairwise(ordered):
            if begins < ends:
                before, after = (SECOND * chance.choice([0, 0, 60, 75, 76, 2_000]) for _ in "ab")
                gaps.append((begins - before, ends + after))
        pieces: list[Time] = []
        for begins, ends in [*sorted(gaps), (until, until)]:
            if since < begins:
                pieces.append((since, min(begins, until)))
            since = max(since, min(ends, until))
        if pieces and chance.random() < 0.5:
            # Another process goes on hearing it in the midst of it.
            first, last = pieces.pop(chance.randrange(len(pieces)))
            middle = first + (last - first) // 2 // SECOND * SECOND
            pieces += [(first, middle), (max(first, middle - 9 * SECOND), last)]
        box.heard += pieces
        self._late += [(controller, box, piece) for piece in sorted(pieces)]

    async def _tell(self, at: datetime, *, everything: bool) -> None:
        """Write down what processes heard: one after the other, and of some only later."""
        told: list[list[tuple[Controller, Time]]] = [[], []]
        late = []
        for controller, box, piece in self._late:
            process = self.random.choice([0, 0, 1, None])
            if process is None and not everything:
                late.append((controller, box, piece))
            else:
                told[process or 0].append((controller, piece))
        self._late = late
        for heard in told:
            by_id: dict[uuid.UUID, list[Presence]] = {}
            for controller, piece in heard:
                by_id.setdefault(controller.id, []).append(Presence(*piece))
            if not by_id:
                continue
            await self.tx.flush()
            await outages.note_returns(self.tx, by_id, silence=SILENCE, at=at)
            for id, presences in by_id.items():
                seen_at = max(one.last for one in presences)
                rows = sa.update(Controller).where(
                    Controller.id == id,
                    sa.or_(Controller.seen_at.is_(None), Controller.seen_at < seen_at),
                )
                await self.tx.execute(
                    rows.values(seen_at=seen_at), execution_options={"synchronize_session": False}
                )
        for controller, _ in self._boxes:
            await self.tx.refresh(controller)

    async def thing(
        self, station: Station, kind: FacilityKind, created_at: datetime, at: datetime
    ) -> Facility:
        """Put a facility up, and let it fail and be mended, told late and in any order."""
        chance, number = self.random, self.random.randint(1, 3)
        row = await a_facility(self.tx, station, at=created_at, kind=kind, quantity=number)
        thing = Thing(kind, created_at, counts=[(created_at, number)])
        self.of[station.id].things.append(thing)
        self._things.append((row, thing))
        retired_at = self.instant() if chance.random() < 0.3 else None
        whens: list[tuple[datetime, str, datetime]] = []
        for _ in range(chance.randint(0, 8)):
            said_at = max(self.instant(), created_at) + SECOND * chance.choice([0, 7])
            whens.append((min(said_at + MINUTE * chance.choice([0, 90, 6_000]), at), "", said_at))
        for _ in range(chance.randint(0, 2)):
            when = max(self.instant(), created_at + MINUTE)
            if retired_at is None or when < retired_at:
                whens.append((when, "count", when))
        if retired_at is not None and retired_at > created_at:
            whens.append((retired_at, "retire", retired_at))
        for told_at, what, when in sorted(whens):
            if what == "count":
                number = chance.randint(1, 4)
                terms: dict[str, Any] = {"actor": COMMAND_LINE, "at": when}
                await facilities.amend(self.tx, row, changes={"quantity": number}, **terms)
                thing.counts.append((when, number))
            elif what == "retire":
                await facilities.retire(self.tx, row, actor=COMMAND_LINE, at=when)
                thing.retired_at = when
            else:
                await self._say(row, thing, when, told_at)
        return row

    async def _say(self, row: Facility, thing: Thing, said_at: datetime, told_at: datetime) -> None:
        status = self.random.choice(
            [*FacilityStatus, FacilityStatus.OUT_OF_ORDER, FacilityStatus.WORKING]
        )
        await self.tx.flush()
        await facilities.report_status(self.tx, row.id, status, status_at=said_at, at=told_at)
        await self.tx.refresh(row)
        if thing.retired_at is None or said_at < thing.retired_at:
            thing.words.append((said_at, status))

    async def go_on(self, since: datetime, at: datetime, places: Sequence[Station]) -> None:
        """Live on until now: rules change, and of what was before there is late word."""
        chance = self.random
        last = max(self.listened, key=lambda one: one[1])
        if chance.random() < 0.5:
            row = await self.tx.get_one(ListeningSpell, last[0])
            self.listened[self.listened.index(last)] = last[0], at
            row.until_at = at
        else:
            begins = since + timedelta(minutes=4)
            self.listened.append((begins, at))
            self.tx.add(ListeningSpell(from_at=begins, until_at=at))
        for controller, box in self._boxes:
            if controller.retired_at is None and chance.random() < 0.7:
                heard_from = max(since, max(self.listened)[0])
                piece = heard_from + SECOND * chance.choice([0, 60, 100]), at
                box.heard.append(piece)
                self._late.append((controller, box, piece))
        await self._tell(at, everything=True)
        for row, thing in self._things:
            if chance.random() < 0.4:
                said_at = max(self.instant(), thing.created_at) + SECOND * chance.choice([0, 7])
                await self._say(row, thing, said_at, at)
        for station in chance.sample(list(places), 4):
            if station.retired_at is None:
                await self._amend(station, chance.choice(["hours", "change", "undo", "seats"]), at)
        # The job may lie some minutes behind.
        await self.record_all(at - MINUTE * chance.choice([0, 3]), places)
