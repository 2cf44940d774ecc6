"""Random lives of workers, against a plain replay of them; on both databases (law 10)."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import Database
from app.people.tables import Occupation
from app.places.rules import Kind
from app.places.tables import Station
from app.runtime import Runtime
from app.visits import occupancy, presence
from app.visits.presence import Arrival, VisitNotFound
from app.visits.rules import Came, Fact, Left, counts_at, retrace
from app.visits.tables import EndSource, StationPresence, Visit, VoidBecause
from tests.conftest import NIGHT
from tests.support.worlds import SomeWorker, a_station, a_unit, a_worker

pytestmark = pytest.mark.anyio

STAY = timedelta(minutes=60)
STATIONS, WORKERS = 3, 3
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    # The database is shared by the examples; each leaves by rolling back.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def minutes(number: int) -> timedelta:
    return timedelta(minutes=number)


def arrival(
    station: Station, worker: SomeWorker, *, consented: bool = True, party_size: int = 1
) -> Arrival:
    return Arrival(
        station_id=station.id,
        timezone=station.timezone,
        owner_key=worker.owner_key,
        worker_id=worker.id if consented else None,
        occupation=Occupation.RIDER,
        mode=Kind.SCAN,
        party_size=party_size,
        max_stay=STAY,
    )


@dataclass(frozen=True)
class Act:
    """Something that happens `after` minutes after what happened before."""

    what: str
    worker: int
    station: int
    after: int


@dataclass
class Stage:
    """A transaction with a few stations and workers; every second worker did not consent."""

    tx: AsyncSession
    stations: Sequence[Station]
    workers: Sequence[SomeWorker]
    at: datetime = NIGHT

    async def arrives(self, act: Act, started_at: datetime) -> uuid.UUID:
        came = arrival(
            self.stations[act.station],
            self.workers[act.worker],
            consented=consents(act.worker),
            party_size=act.worker + 1,
        )
        return await presence.open_visit(self.tx, came, started_at=started_at, at=self.at)

    async def does(self, act: Act) -> None:
        owner_key = self.workers[act.worker].owner_key
        self.at += minutes(act.after)
        match act.what:
            case "arrive":
                await self.arrives(act, self.at)
            case "late":
                started_at = self.at - minutes(7 * act.after)
                visit_id = await self.arrives(act, started_at)
                (visit,) = [row for row in await self.rows() if row.id == visit_id]
                assert visit.station_id == self.stations[act.station].id
                assert visit.started_at <= started_at < (visit.ended_at or visit.stay_until)
            case "sweep":
                await presence.sweep(self.tx, at=self.at)
            case "renew":
                visit = await presence.find_open(self.tx, owner_key, at=self.at)
                if visit is not None:
                    await presence.renew(self.tx, visit, at=self.at, max_stay=STAY)
            case "leave":
                open_id = await self.tx.scalar(
                    sa.select(Visit.id).where(
                        Visit.owner_key == owner_key, Visit.ended_at.is_(None)
                    )
                )
                if open_id is not None:
                    await presence.leave(self.tx, open_id, owner_key, at=self.at)

    async def rows(self) -> Sequence[Visit]:
        await self.tx.flush()
        query = (
            sa.select(Visit).order_by(Visit.started_at).execution_options(populate_existing=True)
        )
        return (await self.tx.scalars(query)).all()

    async def occupancies(self) -> dict[tuple[int, datetime], int]:
        """Recount every station at every instant at which anything could change."""
        rows = await self.rows()
        found = {}
        for number, station in enumerate(self.stations):
            for at in instants(rows):
                found[number, at] = sum(
                    row.party_size
                    for row in rows
                    if row.station_id == station.id
                    and counts_at(
                        at,
                        started_at=row.started_at,
                        ended_at=row.ended_at,
                        stay_until=row.stay_until,
                    )
                )
        return found


def consents(worker: int) -> bool:
    return worker % 2 == 0


def instants(rows: Sequence[Visit]) -> list[datetime]:
    marks = {NIGHT}
    for row in rows:
        marks |= {row.started_at, row.stay_until, *([row.ended_at] if row.ended_at else [])}
    return sorted(marks | {mark + timedelta(seconds=1) for mark in marks})


async def a_stage(tx: AsyncSession, runtime: Runtime) -> Stage:
    unit = await a_unit(tx, at=NIGHT)
    stations = [await a_station(tx, at=NIGHT, unit=unit) for _ in range(STATIONS)]
    workers = [
        await a_worker(tx, runtime, at=NIGHT, consented=consents(number))
        for number in range(WORKERS)
    ]
    return Stage(tx, stations, workers)


def acts(*kinds: str) -> st.SearchStrategy[list[Act]]:
    act = st.builds(
        Act,
        what=st.sampled_from(kinds),
        worker=st.integers(0, WORKERS - 1),
        station=st.integers(0, STATIONS - 1),
        # Around what matters: ten minutes of re-entry, an hour of stay.
        after=st.sampled_from([0, 1, 9, 10, 11, 25, 59, 60, 61]),
    )
    return st.lists(act, max_size=14)


@dataclass
class Replayed:
    """A visit of the plain replay."""

    worker: int
    station: int
    start: datetime
    until: datetime
    end: datetime | None = None
    source: EndSource | None = None


def replay(happened: Sequence[Act]) -> list[Replayed]:
    """Say what visits there are, one act after another, without looking at the sweep at all."""
    at, visits = NIGHT, list[Replayed]()
    current: dict[int, Replayed] = {}
    for act in happened:
        at += minutes(act.after)
        mine = current.get(act.worker)
        if mine is not None and at >= mine.until:
            mine.end, mine.source = mine.until, EndSource.IMPUTED
            mine = None
            del current[act.worker]
        if act.what == "arrive":
            if mine is not None and mine.station == act.station:
                mine.until = max(mine.until, at + STAY)
                continue
            if mine is not None:
                mine.end, mine.source = at, EndSource.OTHER_STATION
            current[act.worker] = Replayed(act.worker, act.station, at, at + STAY)
            visits.append(current[act.worker])
        elif mine is not None and act.what == "leave":
            mine.end, mine.source = at, EndSource.WORKER
            del current[act.worker]
        elif mine is not None and act.what == "renew":
            mine.until = max(mine.until, at + STAY)
    for mine in current.values():
        mine.end, mine.source = mine.until, EndSource.IMPUTED
    return visits


@EXAMPLES
@given(happened=acts("arrive", "arrive", "arrive", "leave", "renew", "sweep"))
async def test_what_happens_in_order_is_what_a_plain_replay_says(
    runtime: Runtime, happened: list[Act]
) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        for act in happened:
            await stage.does(act)
        await presence.sweep(tx, at=stage.at + timedelta(days=1))
        numbers = {station.id: number for number, station in enumerate(stage.stations)}
        found = [
            (row.party_size - 1, numbers[row.station_id], row.started_at, row.ended_at,
             row.end_source)
            for row in await stage.rows()
        ]  # fmt: skip
        expected = [
            (each.worker, each.station, each.start, each.end, each.source)
            for each in replay(happened)
        ]
        assert sorted(found, key=str) == sorted(expected, key=str)


@EXAMPLES
@given(happened=acts("arrive", "arrive", "late", "late", "leave", "renew", "sweep"))
async def test_whatever_comes_late_nobody_is_counted_twice(
    runtime: Runtime, happened: list[Act]
) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        for act in happened:
            await stage.does(act)
            rows = await stage.rows()
            opened = [row.owner_key for row in rows if row.ended_at is None]
            assert len(opened) == len(set(opened))
            assert None not in opened
            for worker in stage.workers:
                mine = [row for row in rows if row.owner_key == worker.owner_key]
                for at in instants(rows):
                    counted = [
                        row
                        for row in mine
                        if row.started_at <= at < (row.ended_at or row.stay_until)
                    ]
                    assert len(counted) <= 1


@EXAMPLES
@given(happened=acts("arrive", "arrive", "late", "late", "leave", "renew", "sweep"))
async def test_whatever_comes_late_who_only_came_back_is_known(
    runtime: Runtime, happened: list[Act]
) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        for act in happened:
            # One worker who goes to and fro between two stations has most to come back to.
            await stage.does(replace(act, worker=0, station=act.station % 2))
            rows = await stage.rows()
            for row in rows:
                left = [
                    other.ended_at or other.stay_until
                    for other in rows
                    if other is not row and other.station_id == row.station_id
                ]
                came_back = any(end <= row.started_at < end + timedelta(minutes=10) for end in left)
                assert row.re_entry is came_back


@pytest.mark.parametrize("consented", [True, False])
async def test_word_of_an_earlier_visit_makes_the_later_one_a_return(
    runtime: Runtime, consented: bool
) -> None:
    """His first visit is told days later: the one recorded since counts with it (metrics 1)."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        came = arrival(stage.stations[0], stage.workers[0], consented=consented)
        back, told = NIGHT + STAY + minutes(9), NIGHT + timedelta(days=3)
        later = await presence.open_visit(tx, came, started_at=back)
        await presence.leave(
            tx, later, stage.workers[0].owner_key, worker_id=came.worker_id, at=back + minutes(5)
        )
        await presence.open_visit(tx, came, started_at=NIGHT, at=told)
        first, second = await stage.rows()
        assert (first.ended_at, first.re_entry) == (NIGHT + STAY, False)
        assert (second.id, second.re_entry) == (later, consented)
        # Reports count the days anew of what was changed.
        assert (second.changed_at == told) is consented


async def test_word_that_he_went_elsewhere_makes_a_return_a_visit_of_its_own(
    runtime: Runtime,
) -> None:
    """He seemed to stay until shortly before he came back; he had gone elsewhere long before."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        (here, there, _), worker = stage.stations, stage.workers[0]
        told = NIGHT + timedelta(days=3)
        visit_id = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT)
        await presence.leave(tx, visit_id, worker.owner_key, at=NIGHT + minutes(50))
        back = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT + minutes(55))
        assert {row.id: row.re_entry for row in await stage.rows()}[back]
        await presence.open_visit(
            tx, arrival(there, worker), started_at=NIGHT + minutes(20), at=told
        )
        (row,) = [row for row in await stage.rows() if row.id == back]
        assert (row.re_entry, row.changed_at) == (False, told)


@EXAMPLES
@given(
    happened=acts("arrive", "arrive", "late", "leave", "renew"),
    later=st.lists(st.sampled_from([0, 1, 59, 60, 500]), min_size=1, max_size=3),
)
async def test_a_sweep_changes_no_occupancy_at_any_instant(
    runtime: Runtime, happened: list[Act], later: list[int]
) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        for act in happened:
            await stage.does(act)
        before = await stage.occupancies()
        assert all(persons >= 0 for persons in before.values())
        swept_to = stage.at
        for after in later:
            at = stage.at + minutes(after)
            swept_to = max(swept_to, at)  # A sweep for an earlier instant undoes nothing.
            counted = await presence.sweep(tx, at=at)
            assert await presence.sweep(tx, at=at) == 0
            assert counted >= 0
            assert await stage.occupancies() == before
            for row in await stage.rows():
                assert (row.ended_at is None) == (row.stay_until > swept_to) or (
                    row.end_source is not EndSource.IMPUTED
                )


@EXAMPLES
@given(happened=acts("arrive", "arrive", "leave", "renew", "sweep"))
async def test_who_is_inside_now_is_a_recount(runtime: Runtime, happened: list[Act]) -> None:
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        for act in happened:
            await stage.does(act)
            ids = [station.id for station in stage.stations]
            found = await occupancy.inside_by_station(tx, ids, at=stage.at)
            rows = [
                row
                for row in await stage.rows()
                if row.started_at <= stage.at < (row.ended_at or row.stay_until)
            ]
            owner_key = stage.workers[act.worker].owner_key
            for station_id in ids:
                here = [row for row in rows if row.station_id == station_id]
                assert found[station_id] == sum(row.party_size for row in here)
                others = presence.inside(station_id, stage.at, excluding=owner_key)
                assert await tx.scalar(sa.select(others)) == sum(
                    row.party_size for row in here if row.owner_key != owner_key
                )


async def a_night(database: Database, runtime: Runtime) -> tuple[Station, Station, SomeWorker]:
    async with database.write() as tx:
        stage = await a_stage(tx, runtime)
    return stage.stations[0], stage.stations[1], stage.workers[0]


@pytest.mark.parametrize("consented", [True, False])
async def test_two_arrivals_at_once_leave_one_open_visit(
    database: Database, runtime: Runtime, consented: bool
) -> None:
    here, there, worker = await a_night(database, runtime)

    async def second() -> uuid.UUID:
        async with database.write() as tx:
            return await presence.open_visit(
                tx, arrival(there, worker, consented=consented), started_at=NIGHT + minutes(1)
            )

    async with database.write() as tx:
        first_id = await presence.open_visit(
            tx, arrival(here, worker, consented=consented), started_at=NIGHT
        )
        waiting = asyncio.create_task(second())
        # The other one is at the index of open visits, or waits for the only writer.
        await asyncio.sleep(0.2)
        assert not waiting.done()
    second_id = await waiting
    async with database.read() as tx:
        first, other = [await tx.get_one(Visit, each) for each in (first_id, second_id)]
    assert (first.ended_at, first.end_source) == (NIGHT + minutes(1), EndSource.OTHER_STATION)
    assert (other.ended_at, other.owner_key) == (None, worker.owner_key)


async def test_leaving_ends_the_visit_once(database: Database, runtime: Runtime) -> None:
    here, _, worker = await a_night(database, runtime)
    async with database.write() as tx:
        visit_id = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT)
    for after in (20, 30):
        async with database.write() as tx:
            at = NIGHT + minutes(after)
            left = await presence.leave(tx, visit_id, worker.owner_key, worker_id=worker.id, at=at)
        assert (left.ended_at, left.end_source) == (NIGHT + minutes(20), EndSource.WORKER)
        assert left.left_at == NIGHT + minutes(20)


async def test_leaving_after_the_cut_off_is_an_imputed_end(
    database: Database, runtime: Runtime
) -> None:
    here, _, worker = await a_night(database, runtime)
    async with database.write() as tx:
        visit_id = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT)
        left = await presence.leave(tx, visit_id, worker.owner_key, at=NIGHT + minutes(60))
    assert (left.ended_at, left.end_source) == (NIGHT + minutes(60), EndSource.IMPUTED)


@pytest.mark.parametrize("consented", [True, False])
async def test_nobody_ends_the_visit_of_another(
    database: Database, runtime: Runtime, consented: bool
) -> None:
    here, _, worker = await a_night(database, runtime)
    async with database.write() as tx:
        stranger = await a_worker(tx, runtime, at=NIGHT)
        visit_id = await presence.open_visit(
            tx, arrival(here, worker, consented=consented), started_at=NIGHT
        )
    for worker_id in (stranger.id, None):
        with pytest.raises(VisitNotFound):
            async with database.write() as tx:
                await presence.leave(
                    tx, visit_id, stranger.owner_key, worker_id=worker_id, at=NIGHT + minutes(1)
                )
    async with database.read() as tx:
        assert (await tx.get_one(Visit, visit_id)).ended_at is None


async def test_an_ended_visit_is_not_renewed(database: Database, runtime: Runtime) -> None:
    here, _, worker = await a_night(database, runtime)
    async with database.write() as tx:
        visit_id = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT)
        visit = await presence.find_open(tx, worker.owner_key, at=NIGHT)
        assert visit is not None
    async with database.write() as tx:
        await presence.leave(tx, visit_id, worker.owner_key, at=NIGHT + minutes(5))
    async with database.write() as tx:
        await presence.renew(tx, visit, at=NIGHT + minutes(6), max_stay=STAY)
    async with database.read() as tx:
        assert (await tx.get_one(Visit, visit_id)).stay_until == NIGHT + STAY


async def test_late_evidence_is_written_as_changed_when_it_came(
    database: Database, runtime: Runtime
) -> None:
    here, _, worker = await a_night(database, runtime)
    came = NIGHT + timedelta(hours=5)
    async with database.write() as tx:
        visit_id = await presence.open_visit(tx, arrival(here, worker), started_at=NIGHT, at=came)
    async with database.read() as tx:
        visit = await tx.get_one(Visit, visit_id)
    assert (visit.started_at, visit.changed_at) == (NIGHT, came)
    # 23:40 in Chongqing is the day and hour of the visit, whatever UTC says.
    assert (visit.local_day.isoformat(), visit.local_hour) == ("2026-11-23", 23)


async def test_preparing_twice_makes_one_row(database: Database, runtime: Runtime) -> None:
    here, there, _ = await a_night(database, runtime)
    async with database.write() as tx:
        await tx.execute(sa.delete(StationPresence))
        await presence.prepare(tx, [here.id])
        await presence.prepare(tx, [here.id, there.id])
        await presence.prepare(tx, [])
    async with database.read() as tx:
        found = (await tx.scalars(sa.select(StationPresence.station_id))).all()
    assert set(found) == {here.id, there.id}
    assert len(found) == 2


@pytest.mark.parametrize("consented", [True, False])
async def test_word_of_a_visit_elsewhere_that_comes_after_his_return_leaves_him_where_he_is(
    runtime: Runtime, consented: bool
) -> None:
    """He went from one station to another and back; the other controller told of it last."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        (first, second, _), worker = stage.stations, stage.workers[0]
        came, went = (arrival(place, worker, consented=consented) for place in (first, second))
        told = NIGHT + minutes(45)
        visit_id = await presence.open_visit(tx, came, started_at=NIGHT)
        assert visit_id == await presence.open_visit(tx, came, started_at=NIGHT + minutes(40))
        await presence.open_visit(tx, went, started_at=NIGHT + minutes(20), at=told)
        inside = await occupancy.inside_by_station(tx, [first.id, second.id], at=told)
        assert inside == {first.id: 1, second.id: 0}
        found = [(row.station_id, row.started_at, row.ended_at) for row in await stage.rows()]
        assert found == [
            (first.id, NIGHT, NIGHT + minutes(20)),
            (second.id, NIGHT + minutes(20), NIGHT + minutes(40)),
            (first.id, NIGHT + minutes(40), None),
        ]
        left = await presence.leave(tx, visit_id, worker.owner_key, at=told)
        assert left.ended_at == told


@pytest.mark.parametrize("consented", [True, False])
async def test_word_of_an_entry_that_comes_after_he_left_leaves_him_outside(
    runtime: Runtime, consented: bool
) -> None:
    """He went in twice and left; the controller told of the first entry last."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        station, worker = stage.stations[0], stage.workers[0]
        came = arrival(station, worker, consented=consented)
        visit_id = await presence.open_visit(tx, came, started_at=NIGHT + minutes(20))
        await presence.leave(tx, visit_id, worker.owner_key, at=NIGHT + minutes(30))
        told = NIGHT + minutes(40)
        await presence.open_visit(tx, came, started_at=NIGHT + minutes(1), at=told)
        assert await occupancy.inside_by_station(tx, [station.id], at=told) == {station.id: 0}


def entry(came: Arrival, at: datetime, visit_id: uuid.UUID) -> presence.Entry:
    return presence.Entry(came, at, visit_id)


@pytest.mark.parametrize("consented", [True, False])
async def test_a_visit_that_never_was_gives_back_what_it_ended(
    runtime: Runtime, consented: bool
) -> None:
    """He is in; a door elsewhere seems to open for him, and did not; he is where he was."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        (first, second, _), worker = stage.stations, stage.workers[0]
        came, went = (arrival(place, worker, consented=consented) for place in (first, second))
        told = NIGHT + minutes(30)
        here = await presence.open_visit(tx, came, started_at=NIGHT)
        there = await presence.open_visit(tx, went, started_at=NIGHT + minutes(20))
        inside = await occupancy.inside_by_station(tx, [first.id, second.id], at=told)
        assert inside == {first.id: 0, second.id: 1}
        rows = await presence.written(
            tx, worker.owner_key, came.worker_id, since=NIGHT + minutes(20), also=there
        )
        left = [entry(came, NIGHT, here)]
        found = await presence.rewrite(
            tx, rows, left, since=NIGHT + minutes(20), without=there, at=told
        )
        assert found == [here]
        inside = await occupancy.inside_by_station(tx, [first.id, second.id], at=told)
        assert inside == {first.id: 1, second.id: 0}
        never = await tx.get_one(Visit, there, populate_existing=True)
        assert (never.voided_at, never.void_because) == (told, VoidBecause.NOT_OPENED)
        ended = await presence.leave(tx, here, worker.owner_key, at=told)
        assert (ended.ended_at, ended.end_source) == (told, EndSource.WORKER)


async def test_what_came_on_top_of_an_entry_that_never_was_stays(runtime: Runtime) -> None:
    """Of two entries of one visit the first never was: the visit begins at the second."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        station, worker = stage.stations[0], stage.workers[0]
        came = arrival(station, worker)
        visit_id = await presence.open_visit(tx, came, started_at=NIGHT)
        again = await presence.open_visit(tx, came, started_at=NIGHT + minutes(10))
        assert again == visit_id
        told = NIGHT + minutes(30)
        rows = await presence.written(tx, worker.owner_key, worker.id, since=NIGHT, also=visit_id)
        left = [entry(came, NIGHT + minutes(10), visit_id)]
        await presence.rewrite(tx, rows, left, since=NIGHT, without=visit_id, at=told)
        (visit,) = await stage.rows()
        assert (visit.id, visit.started_at) == (visit_id, NIGHT + minutes(10))
        assert (visit.stay_until, visit.ended_at) == (NIGHT + minutes(70), None)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_who_came_back_to_a_visit_that_never_was_has_come_for_the_first_time(
    runtime: Runtime, elsewhere: bool
) -> None:
    """He leaves and comes back, and was elsewhere in between; the first visit never was."""
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        stage = await a_stage(tx, runtime)
        (station, other, _), worker = stage.stations, stage.workers[0]
        came, told = arrival(station, worker), NIGHT + minutes(60)
        earlier = await presence.open_visit(tx, came, started_at=NIGHT - minutes(7))
        await presence.leave(tx, earlier, worker.owner_key, at=NIGHT - minutes(1))
        never = await presence.open_visit(tx, came, started_at=NIGHT)
        await presence.leave(tx, never, worker.owner_key, at=NIGHT + minutes(3))
        if elsewhere:
            went = await presence.open_visit(
                tx, arrival(other, worker), started_at=NIGHT + minutes(4)
            )
            await presence.leave(tx, went, worker.owner_key, at=NIGHT + minutes(5))
        back = await presence.open_visit(tx, came, started_at=NIGHT + minutes(10))
        again = await presence.open_visit(tx, came, started_at=NIGHT + minutes(30))
        assert back == again
        flags = {row.id: row.re_entry for row in await stage.rows()}
        assert (flags[earlier], flags[never], flags[back]) == (False, True, True)
        rows = await presence.written(tx, worker.owner_key, worker.id, since=NIGHT, also=never)
        left = [
            entry(came, NIGHT - minutes(7), earlier),
            entry(came, NIGHT + minutes(10), back),
            entry(came, NIGHT + minutes(30), back),
        ]
        await presence.rewrite(tx, rows, left, since=NIGHT, without=never, at=told)
        found = {row.id: row for row in await stage.rows()}
        # He had left for eleven minutes when he came.
        assert not found[back].re_entry
        assert found[back].changed_at == told
        assert found[earlier].changed_at < told


@EXAMPLES
@given(
    happened=acts("arrive", "arrive", "arrive", "leave"),
    dice=st.randoms(use_true_random=False),
)
async def test_facts_in_any_order_tell_the_same_visits(
    happened: list[Act], dice: random.Random
) -> None:
    stations = [uuid.UUID(int=number + 1) for number in range(STATIONS)]
    for worker in range(WORKERS):
        at, facts = NIGHT, list[Fact]()
        for act in happened:
            at += minutes(act.after + 1)
            if act.worker == worker and act.what == "arrive":
                facts.append(Came(at, stations[act.station], STAY))
            elif act.worker == worker:
                facts.append(Left(at, stations[act.station]))
        told = dice.sample(facts, len(facts))
        assert retrace(told) == retrace(facts)
        # Nobody is at two places.
        found = retrace(told)
        for before, after in itertools.pairwise(found):
            assert before.ended_at is not None
            assert before.ended_at <= after.started_at
