"""Rollups: counted from raw rows, summed upwards, found by what changed, safe among many."""

import asyncio
import random
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import jobs, privacy
from app.audit import COMMAND_LINE
from app.db.settled import SLACK
from app.db.types import new_id
from app.doors.rules import Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import JournalEntry, OfflineEntry
from app.people.admins import Roots
from app.people.tables import Occupation
from app.places import units
from app.places.rules import Because, Calendar, Kind
from app.places.tables import Station, Unit
from app.reports import changes, crowds, queries, rollup, vectors, versions
from app.reports.made import MADE
from app.reports.progress import progress
from app.reports.rollup import Terms, roll_up
from app.reports.rules import By, Grain, Period, span_end, span_of
from app.reports.rules.counters import C
from app.reports.scope import Scope
from app.reports.tables import CITY, Rollup, RollupDue
from app.runtime import Runtime
from app.visits.tables import EndSource, Visit, VoidBecause
from tests.reports.histories import AT, Author
from tests.support.worlds import SomeWorker, a_controller, a_door, a_station, a_unit, a_worker

pytestmark = pytest.mark.anyio


def terms(at: datetime, retention_days: int = 180) -> Terms:
    retention = timedelta(days=retention_days)
    return Terms(at=at, retention=retention, silence=timedelta(seconds=75))


NOON = datetime(2026, 11, 18, 4, tzinfo=UTC)
"""12:00 on a Wednesday in Chongqing."""
DAY = date(2026, 11, 18)


def a_visit(
    station: Station, at: datetime, minutes: int = 30, *, written: datetime, **values: Any
) -> Visit:
    local = at + timedelta(hours=8)
    end = at + timedelta(minutes=minutes)
    row = {
        "id": new_id(),
        "station_id": station.id,
        "worker_id": None,
        "owner_key": None,
        "occupation": Occupation.RIDER,
        "mode": Kind.SCAN,
        "party_size": 1,
        "re_entry": False,
        "started_at": at,
        "stay_until": max(end, at + timedelta(hours=1)),
        "ended_at": end,
        "end_source": EndSource.WORKER,
        "local_day": local.date(),
        "local_hour": local.hour,
        "changed_at": written,
    }
    return Visit(**row | values)


Counted = Mapping[tuple[uuid.UUID, Grain, date], Rollup]


async def read(runtime: Runtime) -> Counted:
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(RollupDue)) == 0
        rows = (await tx.scalars(sa.select(Rollup))).all()
    return {(row.place_id, row.grain, row.from_day): row for row in rows}


def visits_of(row: Rollup) -> int:
    counts = vectors.unpacked(row.counts)
    return sum(counts.get(c, 0) for c in (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE))


def workers_of(row: Rollup) -> set[int]:
    assert row.crowd is not None
    return set(crowds.everybody(crowds.unpacked(row.crowd)))


async def roll(runtime: Runtime, at: datetime = NOON + timedelta(hours=2)) -> Counted:
    await roll_up(runtime.database, terms(at))
    return await read(runtime)


async def a_street(tx: AsyncSession) -> tuple[Unit, Unit, Station]:
    early = NOON - timedelta(days=400)
    city = await a_unit(tx, at=early)
    street = await a_unit(tx, parent=city, at=early, name="街道")
    return city, street, await a_station(tx, unit=street, at=early)


async def test_a_stay_that_was_cut_back_over_midnight_leaves_nothing_on_the_day_after(
    runtime: Runtime,
) -> None:
    """Of its length before nothing is left in its own row: the sum of its day remembers."""
    after = DAY + timedelta(days=1)

    async def inside(at: datetime) -> int:
        counted = await roll(runtime, at)
        return vectors.unpacked(counted[station.id, Grain.DAY, after].counts).get(C.PERSON_MS, 0)

    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        visit = a_visit(station, NOON, 26 * 60, written=NOON)
        tx.add(visit)
    at = NOON + timedelta(days=2)
    assert await inside(at) == 14 * 3_600_000
    async with runtime.database.write() as tx:
        row = await tx.get_one(Visit, visit.id)
        row.ended_at = row.stay_until = NOON + timedelta(hours=1)
        row.changed_at = at
    assert await inside(at + timedelta(hours=1)) == 0


async def test_every_visit_is_counted_once_on_every_level(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        story = await Author(tx, runtime, random.Random(1)).write()
        roots = set(await tx.scalars(sa.select(Unit.id).where(Unit.parent_id.is_(None))))
    counted = await roll(runtime, AT)
    firsts = sum(1 for visit in story.visits if not visit.re_entry)
    places = {station.id for station in (*story.stations, *story.foreign)}
    for grain in Grain:
        of_stations = [row for key, row in counted.items() if key[0] in places and key[1] is grain]
        assert sum(map(visits_of, of_stations)) == firsts
        of_roots = [row for key, row in counted.items() if key[0] in roots and key[1] is grain]
        assert sum(map(visits_of, of_roots)) == firsts
    for row in counted.values():
        assert row.uniques == len(workers_of(row))


async def test_a_stay_over_midnight_is_inside_on_both_days_and_begins_on_one(
    runtime: Runtime,
) -> None:
    evening = datetime(2026, 11, 16, 15, 30, tzinfo=UTC)  # 23:30
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, evening, 60, written=evening))
    counted = await roll(runtime)
    first, second = (counted[station.id, Grain.DAY, date(2026, 11, day)] for day in (16, 17))
    assert (visits_of(first), visits_of(second)) == (1, 0)
    for row in (first, second):
        assert vectors.unpacked(row.counts)[C.PERSON_MS] == 1_800_000
        assert row.peak == 1.0
    assert second.peak_at == datetime(2026, 11, 16, 16, tzinfo=UTC)


async def test_a_stay_that_turns_out_shorter_leaves_the_day_it_never_reached(
    runtime: Runtime,
) -> None:
    evening = datetime(2026, 11, 16, 15, 30, tzinfo=UTC)  # 23:30
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        visit = a_visit(station, evening, 60, written=evening, ended_at=None, end_source=None)
        tx.add(visit)
    before = await roll(runtime, evening + timedelta(hours=2))
    assert C.PERSON_MS in vectors.unpacked(before[station.id, Grain.DAY, date(2026, 11, 17)].counts)
    async with runtime.database.write() as tx:
        found = await tx.get_one(Visit, visit.id)
        found.ended_at = evening + timedelta(minutes=10)
        found.end_source = EndSource.OTHER_STATION
        found.changed_at = NOON
    after = await roll(runtime)
    assert C.PERSON_MS not in vectors.unpacked(
        after[station.id, Grain.DAY, date(2026, 11, 17)].counts
    )


@pytest.mark.parametrize(
    ("minutes", "proved", "kind"),
    [
        (0, None, C.VISITS_OFFLINE),
        (5, None, C.VISITS_SCAN),
        (0, 5, C.VISITS_SCAN),
        # The pulse came first, the contact told when the door opened.
        (-1, 0, C.VISITS_OFFLINE),
    ],
)
async def test_a_visit_is_offline_when_a_controller_that_was_alone_opened_for_it_first(
    runtime: Runtime, minutes: int, proved: int | None, kind: C
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        door = await a_door(tx, station, at=NOON)
        box, _ = await a_controller(tx, station, at=NOON)
        visit = a_visit(station, NOON, written=NOON)
        happened_at = NOON + timedelta(minutes=minutes)
        opened_at = None if proved is None else NOON + timedelta(minutes=proved)
        entry = an_entry(box, door.id, happened_at)
        tx.add_all([visit, entry])
        await tx.flush()
        tx.add(
            OfflineEntry(
                entry_id=entry.id,
                station_id=station.id,
                door_id=door.id,
                opened=True,
                reason=Reason.OK,
                mode=Kind.SCAN,
                because=Because.WEEKLY,
                happened_at=happened_at,
                opened_at=opened_at,
                visit_id=visit.id,
                local_day=DAY,
                local_hour=12,
                reviewed_at=NOON,
                changed_at=NOON,
            )
        )
    counts = vectors.unpacked((await roll(runtime))[station.id, Grain.DAY, DAY].counts)
    found = {key for key in (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE) if counts.get(key)}
    assert found == {kind}
    async with runtime.database.read() as tx:
        for name in ("scan", "offline"):
            where = MADE["visits"][f"visits_{name}"].where
            assert where is not None
            rows = await tx.scalar(sa.select(sa.func.count()).select_from(Visit).where(where))
            assert (rows == 1) is (kind is C[f"VISITS_{name.upper()}"])


def an_entry(controller_id: uuid.UUID, door_id: uuid.UUID, at: datetime) -> JournalEntry:
    return JournalEntry(
        id=new_id(),
        controller_id=controller_id,
        epoch=1,
        seq=1,
        event_id="event-1",
        boot_id="boot-1",
        type=EventType.OFFLINE_ENTRY,
        door_id=door_id,
        occurred_at=at,
        corrected_at=at,
        error_ms=0,
        quality=Quality.SYNCED,
        late=True,
        received_at=at,
        content_hash=b"",
        body={},
        applied_at=at,
    )


async def test_a_beginning_that_late_word_moves_over_midnight_leaves_no_visit_behind(
    runtime: Runtime,
) -> None:
    evening = datetime(2026, 11, 16, 15, 50, tzinfo=UTC)  # 23:50
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        visit = a_visit(station, evening, 60, written=evening)
        tx.add(visit)
    await roll(runtime, NOON)
    async with runtime.database.write() as tx:
        found = await tx.get_one(Visit, visit.id)
        found.started_at += timedelta(minutes=20)
        found.local_day, found.local_hour = date(2026, 11, 17), 0
        found.changed_at = NOON + timedelta(hours=3)
    counted = await roll(runtime, NOON + timedelta(hours=4))
    days = [counted[station.id, Grain.DAY, date(2026, 11, day)] for day in (16, 17)]
    assert [visits_of(row) for row in days] == [0, 1]


async def test_what_a_slow_writer_commits_after_a_search_is_found_by_the_next(
    runtime: Runtime,
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
    await roll(runtime, NOON)
    if runtime.database.is_embedded:
        # One writer, who may have read the clock long before his turn came.
        async with runtime.database.write() as tx:
            tx.add(a_visit(station, NOON, written=NOON - timedelta(seconds=30)))
    else:
        async with runtime.database.write() as slow:
            slow.add(a_visit(station, NOON, written=NOON + timedelta(seconds=1)))
            await slow.flush()
            # He works on while the clock and the watermark would pass him by.
            async with runtime.database.read() as tx:
                await tx.execute(sa.text("SELECT pg_sleep(0.2)"))
                found = await changes.look(tx, at=NOON + SLACK + timedelta(seconds=1.1))
            async with runtime.database.write() as tx:
                await changes.note(tx, found)
    counted = await roll(runtime, NOON + timedelta(minutes=5))
    assert visits_of(counted[station.id, Grain.DAY, DAY]) == 1


async def test_a_pass_that_was_cut_off_is_finished_by_the_next(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))

    async def cut(*_: Any) -> None:
        raise ConnectionError

    real, cuts = rollup._write, 0
    for _ in range(12):
        monkeypatch.setattr(rollup, "_write", cut)
        with pytest.raises(ConnectionError):
            await roll_up(runtime.database, terms(NOON))
        cuts += 1
        monkeypatch.setattr(rollup, "_write", real)
        if await rollup.settle_some(runtime.database, terms(NOON)) == 0:
            break
    assert cuts > 3
    counted = await roll(runtime)
    for grain in Grain:
        assert visits_of(counted[city.id, grain, span_of(grain, DAY)]) == 1


async def test_no_time_is_known_before_all_that_was_found_is_counted(runtime: Runtime) -> None:
    """The job was out for three days, and is cut off again in its first pass."""
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
    await roll(runtime, NOON)
    back = NOON + timedelta(days=3)
    async with runtime.database.write() as tx:
        tx.add(a_visit(station, NOON + timedelta(days=1), written=NOON + timedelta(days=1)))
    for _ in range(2):
        await rollup.find(runtime.database, at=back)
        await rollup.settle_some(runtime.database, terms(back))
        async with runtime.database.read() as tx:
            found = await progress(tx)
        assert (found.counted_at, found.recounting) == (NOON, True)
        back += timedelta(days=1)
    counted = await roll(runtime, back)
    async with runtime.database.read() as tx:
        found = await progress(tx)
    assert (found.counted_at, found.recounting) == (back, False)
    days = {key[2] for key in counted if key[0] == station.id and key[1] is Grain.DAY}
    assert days == {DAY + timedelta(days=number) for number in range(-1, 5)}


async def test_days_over_are_found_also_after_a_first_pass_that_was_cut_off(
    runtime: Runtime,
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
    for number in (0, 2):
        await rollup.find(runtime.database, at=NOON + timedelta(days=number))
    counted = await roll(runtime, NOON + timedelta(days=5))
    days = {key[2] for key in counted if key[0] == station.id and key[1] is Grain.DAY}
    assert days == {DAY + timedelta(days=number) for number in range(-1, 5)}


async def test_passes_at_once_come_to_what_one_comes_to(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        await Author(tx, runtime, random.Random(2)).write()
    await asyncio.gather(*(roll_up(runtime.database, terms(AT)) for _ in range(3)))
    many = {key: (row.counts, row.hours) for key, row in (await roll(runtime, AT)).items()}
    async with runtime.database.write() as tx:
        for table in (Rollup, RollupDue, changes.RollupMark):
            await tx.execute(sa.delete(table))
    one = {key: (row.counts, row.hours) for key, row in (await roll(runtime, AT)).items()}
    assert many == one


async def test_a_pass_goes_on_when_another_settles_the_day_that_it_has_just_chosen(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    real, chosen = rollup._bounds, [(rollup.STATION_DAYS, date(2025, 1, 1), DAY)]

    async def bounds(tx: AsyncSession) -> Any:
        return chosen.pop() if chosen else await real(tx)

    monkeypatch.setattr(rollup, "_bounds", bounds)
    counted = await roll(runtime)
    assert visits_of(counted[station.id, Grain.DAY, DAY]) == 1


async def test_what_was_counted_from_older_rows_never_replaces_newer(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    async with runtime.database.read() as tx:
        found = await changes.look(tx, at=NOON)
    async with runtime.database.write() as tx:
        await changes.note(tx, found)
    real, counted_once = rollup._station_days, asyncio.Event()

    async def slowly(*given: Any, **named: Any) -> Any:
        rows = await real(*given, **named)
        if not counted_once.is_set():
            counted_once.set()
            # While this pass still holds what it read, a visit comes and another pass counts it.
            async with runtime.database.write() as tx:
                tx.add(a_visit(station, NOON, 20, written=NOON + timedelta(seconds=1)))
            await roll_up(runtime.database, terms(NOON + timedelta(seconds=2)))
        return rows

    monkeypatch.setattr(rollup, "_station_days", slowly)
    while await rollup.settle_some(runtime.database, terms(NOON)):
        pass
    counted = await read(runtime)
    assert visits_of(counted[station.id, Grain.DAY, DAY]) == 2
    assert visits_of(counted[city.id, Grain.YEAR, date(2026, 1, 1)]) == 2


async def test_a_station_that_is_hung_up_elsewhere_takes_its_past_along(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        city, street, station = await a_street(tx)
        other = await a_unit(tx, parent=city, at=NOON - timedelta(days=400), name="另一街道")
        tx.add(a_visit(station, NOON - timedelta(days=40), written=NOON - timedelta(days=40)))
    day = DAY - timedelta(days=40)
    counted = await roll(runtime)
    assert visits_of(counted[street.id, Grain.DAY, day]) == 1
    async with runtime.database.write() as tx:
        found = await tx.get_one(Station, station.id)
        found.unit_id = other.id
    counted = await roll(runtime)
    for grain in Grain:
        first = span_of(grain, day)
        assert visits_of(counted[street.id, grain, first]) == 0
        assert visits_of(counted[other.id, grain, first]) == 1
        assert visits_of(counted[city.id, grain, first]) == 1


async def test_units_do_not_keep_a_number_of_workers_that_other_stations_made_up(
    runtime: Runtime,
) -> None:
    then = NOON - timedelta(days=250)
    day, late = (then + timedelta(hours=8)).date(), DAY - timedelta(days=2)
    async with runtime.database.write() as tx:
        city, street, station = await a_street(tx)
        early = NOON - timedelta(days=400)
        other = await a_unit(tx, parent=city, at=early, name="另一街道")
        others = [await a_station(tx, unit=unit, at=early) for unit in (street, other)]
        for place, number in ((station, 3), (others[0], 2), (others[1], 1)):
            for _ in range(number):
                worker = await a_worker(tx, runtime, at=then)
                for at in (then, NOON - timedelta(days=2)):
                    tx.add(a_visit(place, at, written=at, worker_id=worker.id))
    await roll(runtime, then + timedelta(days=5))
    await privacy.retain(runtime.database, at=NOON, retention_days=180)
    counted = await roll(runtime)
    assert counted[street.id, Grain.MONTH, span_of(Grain.MONTH, day)].uniques == 5
    async with runtime.database.write() as tx:
        (await tx.get_one(Station, station.id)).unit_id = other.id
    counted = await roll(runtime, NOON + timedelta(hours=4))
    for grain in Grain:
        rows = [counted[unit.id, grain, span_of(grain, day)] for unit in (street, other, city)]
        numbers = (2, 4, 6) if grain is not Grain.YEAR else (4, 8, 12)
        assert tuple(visits_of(row) for row in rows) == numbers
        # Of its workers nobody can say any more which were of which station.
        assert [row.uniques for row in rows] == [None, None, 6], grain
    for unit, number in ((street, 2), (other, 4), (city, 6)):
        for grain in (Grain.DAY, Grain.MONTH):
            assert counted[unit.id, grain, span_of(grain, late)].uniques == number


async def test_a_district_that_is_hung_up_elsewhere_keeps_its_number_of_workers(
    runtime: Runtime,
) -> None:
    """Its paths and those of all below it are others then; its stations are the same."""
    then, early = NOON - timedelta(days=250), NOON - timedelta(days=400)
    day = (then + timedelta(hours=8)).date()
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=early)
        area = await a_unit(tx, parent=city, at=early, name="新区")
        district = await a_unit(tx, parent=city, at=early, name="一区")
        street = await a_unit(tx, parent=district, at=early, name="一街道")
        station = await a_station(tx, unit=street, at=early)
        for _ in range(3):
            worker = await a_worker(tx, runtime, at=then)
            tx.add(a_visit(station, then, written=then, worker_id=worker.id))
    await roll(runtime, then + timedelta(days=5))
    await privacy.retain(runtime.database, at=NOON, retention_days=180)
    await roll(runtime)
    async with runtime.database.write() as tx:
        moved, below = [await tx.get_one(Unit, unit.id) for unit in (district, area)]
        await units.move(tx, moved, below, actor=COMMAND_LINE, at=NOON)
    counted = await roll(runtime, NOON + timedelta(hours=4))
    for grain in Grain:
        rows = [counted[unit.id, grain, span_of(grain, day)] for unit in (street, district, city)]
        assert [(visits_of(row), row.uniques) for row in rows] == [(3, 3)] * 3, grain
        new = counted[area.id, grain, span_of(grain, day)]
        assert (visits_of(new), new.uniques) == (3, None), grain


async def test_a_station_that_leaves_a_district_as_that_is_hung_up_elsewhere_leaves_nothing(
    runtime: Runtime,
) -> None:
    async with runtime.database.write() as tx:
        early = NOON - timedelta(days=400)
        city = await a_unit(tx, at=early)
        area = await a_unit(tx, parent=city, at=early, name="新区")
        district = await a_unit(tx, parent=city, at=early, name="一区")
        street = await a_unit(tx, parent=district, at=early, name="一街道")
        station = await a_station(tx, unit=street, at=early)
        tx.add(a_visit(station, NOON - timedelta(days=40), written=NOON - timedelta(days=40)))
    day = DAY - timedelta(days=40)
    assert visits_of((await roll(runtime))[district.id, Grain.DAY, day]) == 1
    async with runtime.database.write() as tx:
        moved, below = [await tx.get_one(Unit, unit.id) for unit in (district, area)]
        await units.move(tx, moved, below, actor=COMMAND_LINE, at=NOON)
        (await tx.get_one(Station, station.id)).unit_id = city.id
    counted = await roll(runtime, NOON + timedelta(hours=4))
    for grain in Grain:
        first = span_of(grain, day)
        assert visits_of(counted[city.id, grain, first]) == 1
        for unit in (street, district):
            assert visits_of(counted[unit.id, grain, first]) == 0, (unit.name, grain)


async def test_every_station_has_a_row_of_every_day_that_passed(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
    await roll(runtime, NOON)
    counted = await roll(runtime, NOON + timedelta(days=3))
    days = {key[2] for key in counted if key[0] == station.id and key[1] is Grain.DAY}
    assert days == {DAY + timedelta(days=number) for number in (-1, 0, 1, 2)}


async def test_an_erased_worker_stays_one_of_many_under_a_number_that_leads_nowhere(
    runtime: Runtime,
) -> None:
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        early = NOON - timedelta(days=300)
        one, other = [await a_worker(tx, runtime, at=early) for _ in range(2)]
        for worker, days in ((one, 1), (one, 2), (other, 1), (one, 250)):
            at = NOON - timedelta(days=days)
            tx.add(a_visit(station, at, written=at, worker_id=worker.id))
    # The oldest visit was counted while it had its worker; retention takes him from it later.
    await roll(runtime, NOON - timedelta(days=240))
    async with runtime.database.write() as tx:
        worker = await tx.get_one(privacy.Worker, one.id)
        old = worker.number
    await privacy.retain(runtime.database, at=NOON, retention_days=180)
    counted = await roll(runtime)
    year = (city.id, Grain.YEAR, date(2026, 1, 1))
    assert workers_of(counted[year]) >= {old}
    assert counted[year].uniques == 2

    async with runtime.database.write() as tx:
        await privacy.erase(tx, one.id, b"nobody", at=NOON + timedelta(hours=3))
    counted = await roll(runtime, NOON + timedelta(hours=4))
    for key, row in counted.items():
        if row.crowd is not None:
            assert old not in workers_of(row), key
    assert counted[year].uniques == 2
    assert counted[station.id, Grain.DAY, DAY - timedelta(days=1)].uniques == 2
    assert counted[station.id, Grain.MONTH, date(2026, 11, 1)].uniques == 2


async def test_sets_go_with_the_visits_they_came_from_and_exact_numbers_stay(
    runtime: Runtime,
) -> None:
    then = NOON - timedelta(days=250)
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        workers = [await a_worker(tx, runtime, at=then) for _ in range(3)]
        for number, worker in enumerate(workers):
            at = then + timedelta(days=number)
            tx.add(a_visit(station, at, written=at, worker_id=worker.id))
    await roll(runtime, then + timedelta(days=5))
    await privacy.retain(runtime.database, at=NOON, retention_days=180)
    counted = await roll(runtime)
    day = (then + timedelta(hours=8)).date()
    for place in (station.id, city.id):
        for grain in (Grain.DAY, Grain.MONTH, Grain.QUARTER):
            row = counted[place, grain, span_of(grain, day)]
            assert row.crowd is None
            assert row.uniques == (1 if grain is Grain.DAY else 3)
    # A journal that comes after that counts, and forgets nobody.
    async with runtime.database.write() as tx:
        tx.add(a_visit(station, then, written=NOON + timedelta(hours=3)))
    counted = await roll(runtime, NOON + timedelta(hours=4))
    row = counted[city.id, Grain.MONTH, span_of(Grain.MONTH, day)]
    assert (visits_of(row), row.uniques, row.crowd) == (4, 3, None)
    # The year is closed: its set goes, its number stays.
    later = datetime(2027, 1, 20, tzinfo=UTC)
    counted = await roll(runtime, later)
    row = counted[city.id, Grain.YEAR, date(2026, 1, 1)]
    assert (row.crowd, row.uniques) == (None, 3)


async def test_the_city_keeps_its_own_number_of_workers_when_it_has_several_roots(
    runtime: Runtime,
) -> None:
    """A worker who went to stations of two unions is one worker of the city, for good."""
    then = NOON - timedelta(days=250)
    async with runtime.database.write() as tx:
        first, _, one = await a_street(tx)
        second, _, other = await a_street(tx)
        both, mine, yours = [await a_worker(tx, runtime, at=then) for _ in range(3)]
        for number, (station, worker) in enumerate(
            [(one, both), (other, both), (one, mine), (other, yours)]
        ):
            at = then + timedelta(hours=number)
            tx.add(a_visit(station, at, written=at, worker_id=worker.id))
    await roll(runtime, then + timedelta(days=5))
    await privacy.retain(runtime.database, at=NOON, retention_days=180)
    counted = await roll(runtime)
    month = span_of(Grain.MONTH, (then + timedelta(hours=8)).date())
    for place, workers, visits in ((first.id, 2, 2), (second.id, 2, 2), (CITY, 3, 4)):
        row = counted[place, Grain.MONTH, month]
        assert (row.uniques, row.crowd, visits_of(row)) == (workers, None, visits)
    calendar = Calendar({}, frozenset())
    async with runtime.database.read() as tx:
        of_all = Scope(
            stations=sa.select(Station.id),
            roots=Roots(units=[first.id, second.id], is_city=True),
            period=Period(month, span_end(Grain.MONTH, month)),
            by=By.MONTH,
            at=NOON + timedelta(hours=2),
            retained_since=rollup.retained_since(NOON, timedelta(days=180)),
            calendar=calendar,
        )
        (told,) = await queries.visits(tx, of_all)
        assert (told.visits, told.unique_workers, told.beyond_retention) == (4, 3, False)


async def test_a_root_that_is_hung_up_below_another_changes_nothing_of_the_city(
    runtime: Runtime,
) -> None:
    async with runtime.database.write() as tx:
        first, _, one = await a_street(tx)
        second, _, other = await a_street(tx)
        for station in (one, other):
            tx.add(a_visit(station, NOON, written=NOON))
    before = await roll(runtime)
    async with runtime.database.write() as tx:
        # Moving a whole tree is no work of the product: a root stays one. This is a hand's.
        await tx.execute(sa.update(Unit).where(Unit.id == second.id).values(parent_id=first.id))
        for unit in (
            await tx.scalars(sa.select(Unit).where(Unit.path.startswith(second.path)))
        ).all():
            unit.path = f"{first.path}.9{unit.path[len(second.path) :]}"
    counted = await roll(runtime, NOON + timedelta(hours=3))
    assert visits_of(before[first.id, Grain.DAY, DAY]) == 1
    for place in (first.id, CITY):
        assert visits_of(counted[place, Grain.DAY, DAY]) == 2


FIRST = datetime(2027, 1, 1, 4, tzinfo=UTC)
"""Noon of the first day of a year in Chongqing."""


async def one_new_worker_a_day(
    runtime: Runtime, days: int, *, retention_days: int
) -> tuple[Unit, Station, list[SomeWorker]]:
    """Let a worker who never came before come on each day, count it at night and forget."""
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        workers = [await a_worker(tx, runtime, at=NOON) for _ in range(days)]
    for number, worker in enumerate(workers):
        at, night = (FIRST + timedelta(days=number, hours=hours) for hours in (0, 13))
        async with runtime.database.write() as tx:
            tx.add(a_visit(station, at, written=at, worker_id=worker.id))
        await roll_up(runtime.database, terms(night, retention_days))
        await privacy.retain(runtime.database, at=night, retention_days=retention_days)
    return city, station, workers


async def test_however_short_visits_keep_their_workers_those_of_a_quarter_are_all_counted(
    runtime: Runtime,
) -> None:
    city, station, _ = await one_new_worker_a_day(runtime, 90, retention_days=30)
    months = [(Grain.MONTH, month, days) for month, days in ((1, 31), (2, 28), (3, 31))]
    spans = [*months, (Grain.QUARTER, 1, 90), (Grain.YEAR, 1, 90)]
    last = FIRST + timedelta(days=90)
    closed = (last + timedelta(days=15), {Grain.YEAR})
    for at, living in ((last, {Grain.MONTH, Grain.QUARTER, Grain.YEAR}), closed):
        await roll_up(runtime.database, terms(at, 30))
        counted = await read(runtime)
        for place in (city, station):
            assert counted[place.id, Grain.DAY, date(2027, 2, 1)].crowd is None
            for grain, month, days in spans:
                row = counted[place.id, grain, date(2027, month, 1)]
                assert row.uniques == days, (grain, month)
                # They say for no longer than they must that somebody came in that time.
                is_over = grain is Grain.MONTH and month < 3
                assert (row.crowd is not None) == (grain in living and not is_over)


@pytest.mark.parametrize("retention_days", [10, 180])
async def test_a_visit_that_never_was_leaves_no_worker_in_spans_that_outlived_a_part(
    runtime: Runtime, retention_days: int
) -> None:
    """Late word takes a worker's only visit; who came in a part that is gone stays for good."""
    at = datetime(2026, 10, 20, 4, tzinfo=UTC)
    gone = at - timedelta(days=retention_days + 9)
    lately = at - timedelta(days=9)
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        stays, goes = [await a_worker(tx, runtime, at=NOON) for _ in range(2)]
        tx.add(a_visit(station, gone, written=gone, worker_id=stays.id))
        never = a_visit(station, lately, written=lately, worker_id=goes.id)
        tx.add_all([never, a_visit(station, lately, written=lately, worker_id=stays.id)])
        number = (await tx.get_one(privacy.Worker, stays.id)).number
    await roll_up(runtime.database, terms(gone + timedelta(days=1), retention_days))
    spans = [(city.id, Grain.MONTH, date(2026, 10, 1)), (city.id, Grain.YEAR, date(2026, 1, 1))]
    await roll_up(runtime.database, terms(at, retention_days))
    counted = await read(runtime)
    assert counted[city.id, Grain.DAY, gone.date()].crowd is None
    assert [counted[span].uniques for span in spans] == [2, 2]
    async with runtime.database.write() as tx:
        visit = await tx.get_one(Visit, never.id)
        visit.voided_at = visit.changed_at = at + timedelta(hours=1)
        visit.void_because, visit.ended_at = VoidBecause.NOT_OPENED, visit.started_at
    await roll_up(runtime.database, terms(at + timedelta(hours=2), retention_days))
    counted = await read(runtime)
    assert [counted[span].uniques for span in spans] == [1, 1]
    assert [workers_of(counted[span]) for span in spans] == [{number}] * 2


async def test_a_day_counted_again_as_it_loses_its_workers_still_hands_them_on(
    runtime: Runtime,
) -> None:
    day, late = (datetime(2026, 10, number, 4, tzinfo=UTC) for number in (5, 16))
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        worker = await a_worker(tx, runtime, at=NOON)
        number = (await tx.get_one(privacy.Worker, worker.id)).number
        tx.add(a_visit(station, day, written=day, worker_id=worker.id))
    await roll_up(runtime.database, terms(day + timedelta(days=1), 10))
    async with runtime.database.write() as tx:
        tx.add(a_visit(station, day, written=late))
    for hours in (1, 2):
        await roll_up(runtime.database, terms(late + timedelta(hours=hours), 10))
        counted = await read(runtime)
        assert counted[city.id, Grain.DAY, day.date()].crowd is None
        month = counted[city.id, Grain.MONTH, date(2026, 10, 1)]
        assert (visits_of(month), workers_of(month), month.uniques) == (2, {number}, 1)
        async with runtime.database.write() as tx:
            tx.add(a_visit(station, late, written=late + timedelta(hours=hours), re_entry=True))


async def test_a_month_that_outlived_its_days_names_no_erased_worker(runtime: Runtime) -> None:
    city, _, workers = await one_new_worker_a_day(runtime, 20, retention_days=10)
    async with runtime.database.write() as tx:
        olds = [(await tx.get_one(privacy.Worker, workers[n].id)).number for n in (0, 18)]
        at = FIRST + timedelta(days=19, hours=14)
        for n in (0, 18):
            await privacy.erase(tx, workers[n].id, b"nobody", at=at)
    for hours in (1, 2):
        await roll_up(runtime.database, terms(at + timedelta(hours=hours), 10))
        counted = await read(runtime)
        for grain in (Grain.MONTH, Grain.QUARTER, Grain.YEAR):
            row = counted[city.id, grain, date(2027, 1, 1)]
            assert not workers_of(row) & set(olds)
            assert row.uniques == 20
        # Whatever makes them due again brings nobody back.
        async with runtime.database.write() as tx:
            changed = sa.update(Visit).where(Visit.worker_id == workers[17].id)
            await tx.execute(changed.values(changed_at=at + timedelta(hours=hours)))


async def test_what_does_not_change_is_not_counted_again(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        await Author(tx, runtime, random.Random(3)).write()
    await roll(runtime, AT)
    await roll(runtime, AT + timedelta(minutes=2))
    open_days = (await roll_up(runtime.database, terms(AT + timedelta(minutes=4)))).found
    async with runtime.database.read() as tx:
        open_visits = await tx.scalar(
            sa.select(sa.func.count()).select_from(Visit).where(Visit.ended_at.is_(None))
        )
    assert open_days <= 8 * (open_visits or 0)


async def test_a_version_that_counts_by_other_rules_counts_every_day_anew(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    at = NOON + timedelta(days=3)
    before = await roll(runtime, at)
    at += timedelta(minutes=2)
    left = await roll(runtime, at)
    assert all(left[key].rolled_at != at for key in before)
    monkeypatch.setattr(changes, "CHANGED", "changed by rules of another version")
    at += timedelta(minutes=2)
    anew = await roll(runtime, at)
    assert all(anew[key].rolled_at == at for key in before if key[2] == DAY)


OLD, NEW = changes.RULES, changes.RULES + 1


def count_by(rules: int, patch: pytest.MonkeyPatch) -> None:
    """Be a process of the version that counts by such rules."""
    patch.setattr(changes, "RULES", rules)
    patch.setattr(changes, "CHANGED", changes.changed(rules))


async def rolled_at(runtime: Runtime, station: Station) -> datetime:
    async with runtime.database.read() as tx:
        row = await tx.get_one(Rollup, (station.id, Grain.DAY, DAY))
    return row.rolled_at


async def test_an_older_version_leaves_the_counting_to_the_newer_one(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    newer, older = NOON + timedelta(hours=1), NOON + timedelta(hours=2)
    await roll(runtime, NOON)
    count_by(NEW, monkeypatch)
    await roll(runtime, newer)
    async with runtime.database.write() as tx:
        tx.add(a_visit(station, NOON, 20, written=older))
    count_by(OLD, monkeypatch)
    assert await roll_up(runtime.database, terms(older)) == rollup.Pass(0, 0)
    assert await rolled_at(runtime, station) == newer
    count_by(NEW, monkeypatch)
    counted = await roll(runtime, older + timedelta(minutes=1))
    assert visits_of(counted[station.id, Grain.DAY, DAY]) == 2


async def test_an_older_version_in_the_midst_of_a_pass_writes_nothing_any_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it counts a day, the newer one comes, and has found nothing yet."""
    async with runtime.database.write() as tx:
        city, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    real, late = rollup._station_days, NOON + timedelta(minutes=1)

    async def slowly(*given: Any, **named: Any) -> Any:
        rows = await real(*given, **named)
        count_by(NEW, monkeypatch)
        async with runtime.database.write() as tx:
            assert await versions.announce(tx, at=late)
        count_by(OLD, monkeypatch)
        return rows

    monkeypatch.setattr(rollup, "_station_days", slowly)
    done = await roll_up(runtime.database, terms(NOON))
    assert (done.found > 0, done.settled) == (True, 0)
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Rollup)) == 0
        assert (await progress(tx)).counted_at is None
    monkeypatch.setattr(rollup, "_station_days", real)
    count_by(NEW, monkeypatch)
    counted = await roll(runtime, late)
    assert visits_of(counted[city.id, Grain.YEAR, date(2026, 1, 1)]) == 1


async def test_a_long_pass_says_that_it_goes_on(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a country takes longer than a silent version is waited for."""
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    hours = iter(range(0, 100_000, 3))
    monkeypatch.setattr(rollup, "monotonic", lambda: next(hours) * 3_600.0)
    await roll(runtime, NOON)
    count_by(OLD - 1, monkeypatch)
    beside = NOON + versions.HEARD_FOR + timedelta(hours=1)
    assert await roll_up(runtime.database, terms(beside)) == rollup.Pass(0, 0)


async def test_where_the_newer_version_was_taken_back_the_older_one_counts_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, also what it had counted before; and so does the newer one when it returns."""
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        tx.add(a_visit(station, NOON, written=NOON))
    await roll(runtime, NOON + timedelta(minutes=2))
    count_by(NEW, monkeypatch)
    await roll(runtime, NOON + timedelta(minutes=4))
    count_by(OLD, monkeypatch)
    alone = NOON + timedelta(minutes=4) + versions.HEARD_FOR
    await roll(runtime, alone)
    assert await rolled_at(runtime, station) == alone
    count_by(NEW, monkeypatch)
    returned = alone + timedelta(days=3)
    await roll(runtime, returned)
    assert await rolled_at(runtime, station) == returned


def test_versions_take_turns_only_among_their_own() -> None:
    """One that leaves the counting to a newer one must hold no lease that that needs."""
    assert str(changes.RULES) in jobs.find("roll-up").turn
    assert jobs.find("retain").turn == "retain"


async def test_a_search_that_was_killed_while_it_wrote_down_what_it_found_is_made_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two of its short writes: the watermark moves with the last alone."""
    async with runtime.database.write() as tx:
        _, _, station = await a_street(tx)
        days = [NOON - timedelta(days=number) for number in range(4)]
        tx.add_all(a_visit(station, day, written=day) for day in days)
    real, left = changes.put_found, [2]

    async def killed(*given: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError
        return await real(*given)

    monkeypatch.setattr(rollup, "NOTED_AT_ONCE", 1)
    monkeypatch.setattr(rollup, "put_found", killed)
    with pytest.raises(ConnectionError):
        await roll_up(runtime.database, terms(NOON))
    monkeypatch.setattr(rollup, "put_found", real)
    # Some of it may have been counted meanwhile, by whoever came first.
    while await rollup.settle_some(runtime.database, terms(NOON)):
        pass
    async with runtime.database.read() as tx:
        assert (await progress(tx)).counted_at is None
    counted = await roll(runtime)
    assert visits_of(counted[station.id, Grain.MONTH, date(2026, 11, 1)]) == 4
