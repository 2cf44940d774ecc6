"""What-if: real scans through the real `scan()`, replayed, on both databases."""

import random
import uuid
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.db.types import new_id
from app.doors import commands
from app.doors.commands import Ack, Claim, Claimed
from app.doors.registry import poster_token
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.scans import Attempt, scan
from app.doors.tables import Command, Controller, Door, Scan
from app.doors.tokens import TokenKind
from app.people.admins import Roots
from app.people.tables import Worker
from app.places import stations
from app.places.rules import ChangeKind, DayClass, Tier, parse_hours
from app.places.tables import CalendarDay, ModeChange, OperatingModel, Station, Unit
from app.reports import queries
from app.reports.answers import Note, unheard
from app.reports.asked import Report
from app.reports.rollup import Terms, roll_up
from app.reports.rules import Bucket, By, Class, Period
from app.reports.rules.suppositions import OtherHours, Supposition
from app.reports.rules.tallies import Decided, MovedScan
from app.reports.scope import Scope
from app.reports.whatif import Wanted, WhatIf, portions, what_if
from app.runtime import Runtime
from app.visits import presence
from app.visits.tables import EndSource, Visit
from tests.conftest import Clock
from tests.support.worlds import (
    SomeWorker,
    a_controller,
    a_door,
    a_station,
    a_unit,
    a_worker,
)

pytestmark = pytest.mark.anyio

FIRST = date(2026, 11, 23)
DAY = Period(FIRST, FIRST + timedelta(days=1))


def hours(opens: str, closes: str) -> dict[str, Any]:
    rows = [{"weekday": day, "opens": opens, "closes": closes} for day in range(1, 8)]
    return {"regular": rows, "public_holiday": None, "makeup_workday": None}


@dataclass
class Town:
    """Two districts of one station each, and workers who go to both."""

    runtime: Runtime
    clock: Clock
    random: random.Random
    stations: list[Station] = field(default_factory=list)
    posters: list[str] = field(default_factory=list)
    controllers: list[uuid.UUID] = field(default_factory=list)
    workers: list[SomeWorker] = field(default_factory=list)

    async def build(self, *, workers: int = 12, **station: Any) -> "Town":
        at = self.clock.now()
        async with self.runtime.database.write() as tx:
            root = await a_unit(tx, at=at)
            for number in range(2):
                unit = await a_unit(tx, parent=root, at=at, name=f"第{number}区")
                values = {
                    "capacity": 2,
                    "staffed_hours": hours("09:00", "12:00"),
                    "access_hours": hours("06:00", "22:00"),
                } | station
                # Less than 2 km apart: any pace is believed.
                made = await a_station(
                    tx, unit=unit, at=at, code=f"CQ{number}", latitude=29.5 + number / 100, **values
                )
                door = await a_door(tx, made, at=at)
                controller_id, _ = await a_controller(tx, made, at=at)
                self.stations.append(made)
                self.controllers.append(controller_id)
                key = self.runtime.keys.signing(TokenKind.POSTER)
                self.posters.append(poster_token(key, door))
            for number in range(workers):
                consented = self.consents(number)
                self.workers.append(await a_worker(tx, self.runtime, at=at, consented=consented))
        return self

    def consents(self, worker: int) -> bool:
        return worker % 3 > 0

    async def scans(
        self, worker: int, station: int, *, party: int = 1, then: str = "enters"
    ) -> Any:
        """Let a worker scan; the controller is heard and does as `then` says."""
        at = self.clock.now()
        if then != "offline":
            await self.heard(station)
        now = self.clock.monotonic()
        attempt = Attempt(self.posters[station], party, uuid.uuid4().hex, now, now)
        async with self.runtime.database.write() as tx:
            seen = await scan(tx, self.runtime.scans, self.workers[worker].token, attempt, at=at)
        assert seen is not None
        if seen.outcome is Outcome.GRANTED and not seen.replayed and then in ("enters", "fails"):
            self.clock.advance(1)
            await self.pulses(station, seen.id, then == "enters")
        elif seen.outcome is Outcome.GRANTED and not seen.replayed and then != "waits":
            await self.gives_up(seen.id, at)
        return seen

    async def gives_up(self, scan_id: uuid.UUID, at: datetime) -> None:
        """Let the command's time pass, on whichever clock decides."""
        self.clock.advance(31)
        over = at + timedelta(seconds=10)
        async with self.runtime.database.write() as tx:
            await tx.execute(
                sa.update(Command)
                .where(Command.scan_id == scan_id)
                .values(state=CommandState.EXPIRED, expires_at=over)
            )
            await tx.execute(
                sa.update(Scan)
                .where(Scan.id == scan_id)
                .values(expires_at=over, reserved_until=None)
            )

    async def pulses(self, station: int, scan_id: uuid.UUID, works: bool) -> None:
        runtime, controller = self.runtime, self.controllers[station]
        async with runtime.database.write() as tx:
            command = await tx.scalar(sa.select(Command.id).where(Command.scan_id == scan_id))
            assert command is not None
            claimed = await commands.claim(
                tx,
                controller,
                command,
                Claim("boot", "nonce"),
                clock=runtime.deadlines,
                wakeups=runtime.wakeups,
                now=runtime.now,
            )
            assert isinstance(claimed, Claimed)
            result = CommandState.EXECUTED if works else CommandState.FAILED
            ack = Ack("boot", result, 0)
            at = self.clock.now()
            await commands.acknowledge(tx, controller, command, ack, wakeups=runtime.wakeups, at=at)

    async def heard(self, station: int, at: datetime | None = None) -> None:
        async with self.runtime.database.write() as tx:
            controller = await tx.get_one(Controller, self.controllers[station])
            controller.seen_at = at or self.clock.now()

    async def leaves(self, worker: int) -> None:
        at = self.clock.now()
        async with self.runtime.database.write() as tx:
            visit = await presence.find_open(tx, self.workers[worker].owner_key, at=at)
            if visit is not None:
                await presence.leave(tx, visit.id, self.workers[worker].owner_key, at=at)

    def scope(self, period: Period = DAY, station: int | None = None, **cut: Any) -> Scope:
        chosen = self.stations if station is None else [self.stations[station]]
        return Scope(
            stations=sa.select(Station.id).where(Station.id.in_([one.id for one in chosen])),
            period=period,
            at=self.clock.now(),
            retained_since=period.from_day,
            **{"by": By.STATION, "roots": Roots()} | cut,
        )

    async def asks(
        self,
        supposed: Supposition,
        period: Period = DAY,
        note: Note = unheard,
        station: int | None = None,
        **cut: Any,
    ) -> WhatIf:
        scope = self.scope(period, station, **cut)
        calendar = await self.runtime.calendar.fresh(self.runtime.database)
        wanted = Wanted(scope, supposed, timedelta(seconds=75), "Asia/Shanghai")
        return await what_if(self.runtime.database, calendar.current, wanted, note)

    async def recorded(self) -> list[Scan]:
        async with self.runtime.database.read() as tx:
            return list(await tx.scalars(sa.select(Scan).order_by(Scan.scanned_at, Scan.id)))


def at_hour(hour: float, day: date = FIRST) -> datetime:
    midnight = datetime.fromisoformat(f"{day}T00:00:00+08:00")
    return midnight + timedelta(hours=hour)


def town_of(runtime: Runtime, clock: Clock, seed: int = 1) -> Town:
    # The night before: nothing is silent yet, and no job has run.
    clock.set(at_hour(-40))
    return Town(runtime, clock, random.Random(seed))


def moved(found: WhatIf) -> dict[tuple[str, str], int]:
    return {(one.before, one.after): one.scans for one in found.totals.moved}


async def a_random_day(town: Town) -> None:
    """Two days in which everything that a scan can come to happens."""
    choice = town.random
    for minutes in sorted(choice.sample(range(6 * 60, 47 * 60), 110)):
        town.clock.set(at_hour(minutes / 60) + timedelta(seconds=choice.randrange(20)))
        worker, station = choice.randrange(len(town.workers)), choice.randrange(2)
        if choice.random() < 0.2:
            await town.leaves(worker)
            continue
        if choice.random() < 0.05:
            async with town.runtime.database.write() as tx:
                someone = await tx.get_one(Worker, town.workers[worker].id)
                someone.blocked_at = None if someone.blocked_at else town.clock.now()
        if choice.random() < 0.05:
            await an_override(town, station, choice.choice(list(ChangeKind)), minutes=90)
        then = choice.choice(["enters"] * 6 + ["fails", "silent", "offline"])
        if not town.consents(worker) and then in ("fails", "silent"):
            # Whether somebody unknown is inside already, only the visit of his scan tells.
            then = "enters"
        await town.scans(worker, station, party=choice.choice([1, 1, 1, 2]), then=then)
        if choice.random() < 0.1:
            async with town.runtime.database.write() as tx:
                await presence.sweep(tx, at=town.clock.now())


@pytest.mark.parametrize("then", ["pulses in vain", "is not claimed"])
async def test_a_place_was_kept_for_as_long_as_something_could_open(
    runtime: Runtime, clock: Clock, then: str
) -> None:
    """Law 9, as it was recorded: with the places that there were, nobody is answered otherwise."""
    town = await town_of(runtime, clock).build(capacity=1)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Door).values(has_contact=True))
    clock.set(at_hour(20))
    at = clock.now()
    first = await town.scans(1, 0, then="waits")
    assert first.outcome is Outcome.GRANTED
    if then == "pulses in vain":
        clock.advance(1)
        await town.pulses(0, first.id, True)
    clock.set(at + timedelta(seconds=11))
    async with runtime.database.write() as tx:
        # On the clock of the record: on PostgreSQL the database's stands elsewhere.
        await tx.execute(sa.update(Scan).values(expires_at=at + timedelta(seconds=10)))
        if then == "is not claimed":
            await tx.execute(sa.update(Command).values(expires_at=at - timedelta(days=3_650)))
        await commands.expire(tx, clock=runtime.deadlines, at=clock.now())
    clock.advance(1)
    second = await town.scans(2, 0, then="waits")
    assert second.reason is (Reason.STATION_FULL if then == "pulses in vain" else Reason.OK)
    clock.set(at_hour(24))
    assert moved(await town.asks(Supposition(capacity=1))) == {}


async def test_the_places_of_a_night_are_those_that_it_had(runtime: Runtime, clock: Clock) -> None:
    town = await town_of(runtime, clock).build(capacity=1)
    for minute, worker in enumerate((1, 2)):
        clock.set(at_hour(22.5) + timedelta(minutes=minute))
        refused = await town.scans(worker, 0)
        assert refused.reason is Reason.STATION_CLOSED
    clock.set(at_hour(23))
    async with runtime.database.write() as tx:
        station = await stations.get_station(tx, town.stations[0].id)
        more = {"capacity": 5}
        await stations.amend(
            tx, runtime.wakeups, station, changes=more, actor=COMMAND_LINE, at=clock.now()
        )
    clock.set(at_hour(24))
    later = Supposition(access=OtherHours(parse_hours(hours("06:00", "23:30"))))
    assert moved(await town.asks(later)) == {
        ("station_closed", "granted"): 1,
        ("station_closed", "station_full"): 1,
    }


async def an_override(
    town: Town, station: int, kind: ChangeKind, *, minutes: int, **values: Any
) -> None:
    at = town.clock.now()
    row = {
        "id": new_id(),
        "station_id": town.stations[station].id,
        "tier": Tier.OVERRIDE,
        "kind": kind,
        "from_at": at,
        "until_at": at + timedelta(minutes=minutes),
        "note": "",
        "created_at": at,
        "changed_at": at,
    } | values
    async with town.runtime.database.write() as tx:
        tx.add(ModeChange(**row))


async def test_who_came_to_another_station_says_nothing_of_the_usual_stay_at_the_first(
    runtime: Runtime, clock: Clock
) -> None:
    """He had left before, nobody knows when; who says that he leaves is a stay."""
    town = await town_of(runtime, clock).build()
    for hour, station in ((14, 0), (14.5, 1)):
        clock.set(at_hour(hour))
        await town.scans(1, station)
    clock.set(at_hour(14.75))
    await town.leaves(1)
    clock.set(at_hour(20))
    async with runtime.database.read() as tx:
        ends = list(await tx.scalars(sa.select(Visit.end_source).order_by(Visit.started_at)))
    assert ends == [EndSource.OTHER_STATION, EndSource.WORKER]
    stays = (await town.asks(Supposition(capacity=3))).stays
    assert (stays.by_median, stays.by_longest) == (1, 1)


async def test_a_long_replay_says_after_each_portion_how_many_stations_it_had(
    runtime: Runtime, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = await town_of(runtime, clock).build()
    for at_once, notes in ((1, [1, 1]), (2, [2]), (100, [2])):
        monkeypatch.setattr("app.reports.whatif.STATIONS", at_once)
        heard: list[int] = []
        await town.asks(Supposition(), note=heard.append)
        async with runtime.database.read() as tx:
            told = await portions(tx, town.scope())
        assert (heard, told) == (notes, len(notes))


async def test_of_one_station_and_a_month_the_scans_that_moved_are_told_by_time(
    runtime: Runtime, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = await town_of(runtime, clock).build(capacity=1)
    came = ((21.5, 0, 0), (22.25, 1, 0), (22.3, 2, 1), (22.6, 2, 0), (23.75, 4, 0))
    scans = []
    for hour, worker, station in came:
        clock.set(at_hour(hour))
        scans.append(await town.scans(worker, station))
    clock.set(at_hour(24))
    later = Supposition(access=OtherHours(parse_hours(hours("06:00", "23:30"))), capacity=1)
    closed = Decided(Outcome.REFUSED, Reason.STATION_CLOSED)
    full = Decided(Outcome.REFUSED, Reason.STATION_FULL)
    found = await town.asks(later, station=0)
    assert found.moved_scans == [
        MovedScan(scans[1].id, at_hour(22.25), closed, full),
        MovedScan(scans[3].id, at_hour(22.6), closed, Decided(Outcome.GRANTED, Reason.OK)),
    ]
    assert (found.scans, found.scans_moved) == (4, 2)
    monkeypatch.setattr("app.reports.whatif.LISTED", 1)
    first = await town.asks(later, station=0)
    assert (first.moved_scans, first.scans_moved) == (found.moved_scans[:1], 2)
    # Of many stations, or of many days, it would be the trail of somebody.
    both = await town.asks(later)
    assert (both.moved_scans, both.scans_moved) == (None, 3)
    for days, is_told in ((31, True), (32, False)):
        month = Period(FIRST, FIRST + timedelta(days=days))
        told = (await town.asks(later, period=month, station=0)).moved_scans
        assert (told is not None) is is_told


TWO_DAYS = Period(FIRST, FIRST + timedelta(days=2))


@pytest.mark.parametrize("seed", range(3))
async def test_under_the_rules_that_held_every_scan_comes_to_what_it_came_to(
    runtime: Runtime, clock: Clock, seed: int
) -> None:
    town = await town_of(runtime, clock, seed).build()
    await a_random_day(town)
    clock.set(at_hour(48))
    counted = len(await town.recorded())
    outcomes = {row.outcome for row in await town.recorded()}
    reasons = {row.reason for row in await town.recorded()}
    assert outcomes == set(Outcome)
    assert {Reason.STATION_FULL, Reason.STATION_CLOSED, Reason.CONTROLLER_OFFLINE} <= reasons
    same = OtherHours(parse_hours(hours("06:00", "22:00")))
    for supposed in (
        Supposition(),
        # The same said in so many words: now modes and places are computed, not remembered.
        Supposition(access=same),
        Supposition(access=same, capacity=2, max_stay=timedelta(minutes=60)),
    ):
        found = await town.asks(supposed, period=TWO_DAYS)
        assert moved(found) == {}
        assert found.scans == counted
        assert found.amended_since in (None, 0)
        assert (found.totals.newly_let_in, found.totals.newly_turned_away) == (0, 0)
        assert found.totals.unmet_demand_before == found.totals.unmet_demand_after


CUTS = [
    *((by, bucket) for by in By if by.is_place for bucket in (None, *Bucket)),
    *((by, None) for by in By if not by.is_place),
    *((by, Bucket.HOUR) for by in By if not by.is_place and by is not By.HOUR),
]


async def test_who_scans_at_a_retired_station_is_in_its_row_as_in_the_totals(
    runtime: Runtime, clock: Clock
) -> None:
    """Retired at noon, and on the day after its poster still hangs there."""
    town = await town_of(runtime, clock).build()
    clock.set(at_hour(12))
    async with runtime.database.write() as tx:
        station = await stations.get_station(tx, town.stations[0].id)
        await stations.retire(tx, runtime.wakeups, station, actor=COMMAND_LINE, at=clock.now())
    for worker in range(4):
        clock.set(at_hour(32 + worker))
        assert (await town.scans(worker, 0)).reason is Reason.DOOR_RETIRED
    clock.set(at_hour(48))
    async with runtime.database.read() as tx:
        root = await tx.scalar(sa.select(Unit.id).where(Unit.parent_id.is_(None)))
    assert root is not None
    cut = {"bucket": Bucket.DAY, "roots": Roots(units=[root])}
    terms = Terms(clock.now(), timedelta(days=180), timedelta(seconds=75))
    for is_rolled_up in (False, True):
        if is_rolled_up:
            await roll_up(runtime.database, terms)
        found = await town.asks(Supposition(), period=TWO_DAYS, **cut)
        refused = {
            (row.station, row.day): row.figures and row.figures.recorded.refused
            for row in found.rows
        }
        next_day = FIRST + timedelta(days=1)
        assert refused == {
            ("CQ0", FIRST): 0,
            ("CQ0", next_day): 4,
            ("CQ1", FIRST): 0,
            ("CQ1", next_day): 0,
        }
        assert found.totals.recorded.refused == 4
    hourly = await town.asks(Supposition(), period=TWO_DAYS, **cut | {"bucket": Bucket.HOUR})
    told = [row.figures and row.figures.recorded.refused for row in hourly.rows[24:48]]
    assert told == [None] * 8 + [1] * 4 + [None] * 12


async def test_its_rows_are_those_of_the_reports_and_the_recorded_is_what_these_count(
    runtime: Runtime, clock: Clock
) -> None:
    """One place and time after the other, in every cut: the same names, the same days in each."""
    town = town_of(runtime, clock)
    holiday = {"day_class": DayClass.PUBLIC_HOLIDAY, "name": "假日", "source": "test"}
    async with runtime.database.write() as tx:
        tx.add(CalendarDay(day=FIRST + timedelta(days=1), **holiday))
    runtime.calendar.forget()
    await town.build()
    await a_random_day(town)
    clock.set(at_hour(48))
    async with runtime.database.write() as tx:
        first = sa.update(Station).where(Station.id == town.stations[0].id)
        await tx.execute(first.values(operating_model=OperatingModel.COMMERCE_SUPPORTED))
        root = await tx.scalar(sa.select(Unit.id).where(Unit.parent_id.is_(None)))
    assert root is not None
    await roll_up(runtime.database, Terms(clock.now(), timedelta(days=180), timedelta(seconds=75)))
    calendar = (await runtime.calendar.fresh(runtime.database)).current
    classes = set()
    for by, bucket in CUTS:
        cut = {"by": by, "bucket": bucket, "roots": Roots(units=[root])}
        found = await town.asks(Supposition(), period=TWO_DAYS, **cut)
        scope = replace(town.scope(TWO_DAYS, **cut), calendar=calendar)
        async with runtime.database.read() as tx:
            counted = await queries.rows(tx, scope, queries.REPORTS[Report.ACCESS])
        told = []
        for row in found.rows:
            assert row.figures is not None
            recorded = row.figures.recorded
            told.append(
                (
                    *(row.station, row.unit, row.name, row.operating_model),
                    *(row.day, row.hour, row.weekday, row.day_class, row.known_share),
                    *(recorded.granted, recorded.walk_in, recorded.refused),
                    row.figures.unmet_demand_before,
                )
            )
            classes.add(row.day_class)
        names = (
            *("station", "unit", "name", "operating_model"),
            *("day", "hour", "weekday", "day_class", "known_share"),
            *("granted", "walk_in", "refused", "unmet_demand"),
        )
        assert told == [tuple(getattr(row, name) for name in names) for row in counted], (
            by,
            bucket,
        )
        assert sum(each[-2] for each in told) > 0
    assert classes == {None, Class.WORKDAY, Class.PUBLIC_HOLIDAY}
