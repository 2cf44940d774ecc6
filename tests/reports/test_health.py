"""What is read of a day: the modes, the silence, the repairs of that very station."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.db.cursors import PageRequest
from app.db.types import new_id
from app.doors import outages
from app.doors.desk import ControllerDesk
from app.doors.outages import Presence
from app.doors.tables import Controller, ListeningSpell
from app.people.admins import Roots
from app.places import facilities, held, spells, stations
from app.places.facilities import NewFacility
from app.places.rules import Kind
from app.places.tables import FacilityKind, FacilityStatus, Station, StationModes
from app.reports import queries, vectors
from app.reports.behind import behind
from app.reports.cells import Names, find
from app.reports.health import read_days
from app.reports.made import MADE
from app.reports.rollup import Terms, roll_up
from app.reports.rules import By, Grain, Period
from app.reports.rules.counters import REPAIR
from app.reports.rules.health import Hour, hours_of
from app.reports.scope import Scope
from app.reports.tables import Rollup
from app.runtime import Runtime
from app.visits.tables import EndSource, Visit
from tests.support.statements import statements_of
from tests.support.worlds import a_controller, a_station, always

pytestmark = pytest.mark.anyio

DAY = date(2026, 11, 24)
MIDNIGHT = datetime(2026, 11, 23, 16, tzinfo=UTC)
MINUTE = 60_000
RETENTION, SILENCE = timedelta(days=180), timedelta(seconds=75)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


TODAY = Period(DAY, DAY + timedelta(days=1))


async def asked(
    runtime: Runtime,
    report: Callable[[AsyncSession, Scope], Awaitable[Sequence[Any]]],
    station: Station,
    hours: float,
    period: Period = TODAY,
    by: By = By.ALL,
) -> Sequence[Any]:
    """Count so many hours after midnight what is due, and ask a report of a station."""
    await roll_up(runtime.database, Terms(at(hours), RETENTION, SILENCE))
    async with runtime.database.read() as tx:
        return await report(tx, scope_of(station, hours, period, by))


def scope_of(station: Station, hours: float, period: Period = TODAY, by: By = By.ALL) -> Scope:
    return Scope(
        stations=sa.select(Station.id),
        roots=Roots(stations=[station.id]),
        period=period,
        by=by,
        at=at(hours),
        retained_since=DAY - RETENTION,
    )


async def a_place(
    runtime: Runtime,
    *,
    silent: tuple[float, float] = (5, 6.5),
    deaf: tuple[float, float] = (5.5, 6),
    **changes: Any,
) -> Station:
    """Its controller is silent from 5:00 to 6:30, its oven out of order from 7:30 to 9:30.

    From 5:30 to 6:00 no server was there to hear.
    """
    process = ControllerDesk(
        runtime.database,
        runtime.wakeups,
        now=runtime.now,
        monotonic=lambda: 1000.0,
        silence_s=75,
    )
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-30), **changes)
        controller_id, _ = await a_controller(tx, station, at=at(-30))
        new = [NewFacility(FacilityKind.MICROWAVE, "", 2)]
        (oven,) = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-30))
        tx.add(ListeningSpell(from_at=at(-30), until_at=at(deaf[0])))
        tx.add(ListeningSpell(from_at=at(deaf[1]), until_at=at(25)))
    for minute in range(-30 * 60, 25 * 60 + 1):
        if not silent[0] * 60 < minute < silent[1] * 60:
            process.heard(controller_id, at(minute / 60))
    await process.write_heard(at=at(25))
    async with runtime.database.write() as tx:
        for status, hours in ((FacilityStatus.WORKING, 9.5), (FacilityStatus.OUT_OF_ORDER, 7.5)):
            await facilities.report_status(tx, oven.id, status, status_at=at(hours), at=at(24))
    await held.record_all(runtime.database, now=always(at(24)))
    return station


async def hours(runtime: Runtime, station: Station) -> list[Hour]:
    async with runtime.database.read() as tx:
        days = await read_days(tx, {station.id: [DAY]}, silence=SILENCE, at=at(25))
    return list(hours_of(days[station.id, DAY]))


async def test_a_day_is_read_as_it_was(runtime: Runtime) -> None:
    station = await a_place(runtime)
    found = await hours(runtime, station)
    assert [hour.promised_ms for hour in found] == [60 * MINUTE] * 24
    assert [hour.staffed_ms for hour in found] == [60 * MINUTE * (8 <= n < 18) for n in range(24)]
    assert [hour.online_ms // MINUTE for hour in found] == [60] * 5 + [0, 30] + [60] * 17
    assert [hour.usable_ms // MINUTE for hour in found] == [60] * 5 + [0, 30] + [60] * 17
    assert [hour.unknown_ms // MINUTE for hour in found] == [0] * 5 + [30] + [0] * 18
    assert (found[6].outages_ended, found[6].outage_ms) == (1, 60 * MINUTE)
    assert sum(hour.outages_ended for hour in found) == 1
    oven = [hour.facilities["microwave"] for hour in found]
    assert [one.standing_ms for one in oven] == [120 * MINUTE] * 24
    assert [one.out_ms // MINUTE for one in oven[7:10]] == [60, 120, 60]
    assert oven[9].repairs_ms == [120 * MINUTE]


@pytest.mark.parametrize(
    ("silent", "deaf", "of_the_day", "of_the_hour"),
    [
        # Silent for half an hour before the servers went and after they came back.
        ((5, 6.5), (5.5, 6), (24, 22.5, 0.5, 0.9574, 0.9375), (1, 0, 0.5, 0.0, 0.0)),
        # Silent just while no server was there: of that hour nobody knows anything.
        ((5, 6), (5, 6), (24, 23, 1, 1.0, 0.9583), (1, 0, 1, None, 0.0)),
    ],
)
async def test_while_no_server_was_there_to_hear_a_controller_was_neither_up_nor_down(
    runtime: Runtime,
    silent: tuple[float, float],
    deaf: tuple[float, float],
    of_the_day: tuple[float | None, ...],
    of_the_hour: tuple[float | None, ...],
) -> None:
    station = await a_place(runtime, silent=silent, deaf=deaf)
    (day,) = await asked(runtime, queries.promise, station, 25, by=By.STATION)
    hours = await asked(runtime, queries.promise, station, 25, by=By.HOUR)
    for row, wanted in ((day, of_the_day), (hours[5], of_the_hour)):
        assert (
            row.commissioned_hours,
            row.online_hours,
            row.unheard_hours,
            row.controller_uptime,
            row.reported_share,
        ) == wanted


async def test_a_day_counted_again_after_the_seats_became_more_has_those_that_it_had(
    runtime: Runtime,
) -> None:
    station = await a_place(runtime, capacity=5, staffed_hours=None)
    async with runtime.database.write() as tx:
        visit = Visit(
            id=new_id(),
            station_id=station.id,
            mode=Kind.SCAN,
            party_size=5,
            re_entry=False,
            started_at=at(9),
            stay_until=at(10),
            ended_at=at(10),
            end_source=EndSource.WORKER,
            local_day=DAY,
            local_hour=9,
            changed_at=at(10),
        )
        tx.add(visit)

    async def told(hours: float) -> Any:
        (row,) = await asked(runtime, queries.occupancy, station, hours)
        return row.seat_hours, row.person_hours, row.crowded_minutes

    async def touched(hours: float, **values: Any) -> None:
        async with runtime.database.write() as tx:
            await tx.execute(sa.update(Visit).values(changed_at=at(hours), **values))

    assert await told(25) == (5 * 22.5, 5, 60)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        more = {"capacity": 40}
        await stations.amend(tx, runtime.wakeups, row, changes=more, actor=COMMAND_LINE, at=at(26))
    await touched(27)
    assert await told(28) == (5 * 22.5, 5, 60)
    await touched(29, party_size=4)
    assert await told(30) == (5 * 22.5, 4, 0)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(StationModes).values(seats=None, changed_at=at(31)))
    # Where nobody recorded them there are those of today.
    assert await told(32) == (40 * 22.5, 4, 0)


async def test_the_median_of_repairs_is_of_all_that_ended_and_a_long_fault_is_told_apart(
    runtime: Runtime,
) -> None:
    """Four ovens: out of order for 30, 200 and 40 minutes, and one since 72 hours before."""
    working, broken = FacilityStatus.WORKING, FacilityStatus.OUT_OF_ORDER
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-100))
        new = [NewFacility(FacilityKind.MICROWAVE, "", 2)] * 4
        ovens = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-100))
        words = [
            (ovens[0], at(7), broken),
            (ovens[0], at(7.5), working),
            (ovens[1], at(8), broken),
            (ovens[1], at(8) + timedelta(minutes=200), FacilityStatus.DEGRADED),
            (ovens[2], at(-1), broken),
            (ovens[2], at(-1) + timedelta(minutes=40), working),
            (ovens[3], at(-72), broken),
        ]
        for oven, said_at, status in words:
            await facilities.report_status(tx, oven.id, status, status_at=said_at, at=said_at)
    await held.record_all(runtime.database, now=always(at(24)))

    async def told(period: Period, hours: float, by: By = By.ALL) -> Sequence[Any]:
        return [
            (row.repairs, row.repair_mean_min, row.repair_median_min, row.open_faults_over_72h)
            for row in await asked(runtime, queries.facilities, station, hours, period, by)
        ]

    both = Period(DAY - timedelta(days=1), DAY + timedelta(days=1))
    # Exactly 72 hours are not more.
    assert await told(both, 0) == [(1, 40.0, 40, 0)]
    assert await told(both, 24) == [(3, 90.0, 40, 1)]
    assert await told(both, 24, By.DAY) == [(1, 40.0, 40, None), (2, 115.0, 30, None)]
    async with runtime.database.write() as tx:
        first = sa.select(Rollup).where(Rollup.from_day == both.from_day)
        for row in await tx.scalars(first.where(Rollup.grain == Grain.DAY)):
            counts = vectors.unpacked(row.counts)
            row.counts = vectors.packed({key: n for key, n in counts.items() if key < REPAIR})
            row.histograms = row.percentiles = None
    # Where a part was counted before lengths were, nobody knows the median.
    assert await told(both, 24) == [(3, 90.0, None, 1)]
    assert await told(both, 24, By.DAY) == [(1, 40.0, None, None), (2, 115.0, 30, None)]


async def test_a_fault_is_one_though_nobody_knew_of_it_for_a_while(runtime: Runtime) -> None:
    """The first one's sensor does not know at every reboot; others were mended, or are new."""
    said: Sequence[dict[float, str]] = [
        {-200: "out_of_order", -150: "unknown", -149: "out_of_order", -2: "unknown"},
        {-200: "out_of_order", -70: "working", -60: "out_of_order"},
        {-200: "out_of_order", -80: "degraded", -71: "out_of_order", -9: "unknown"},
        {-200: "unknown", -71: "out_of_order"},
        {-200: "out_of_order", -150: "unknown", -149: "working", -73: "out_of_order"},
        {-200: "out_of_order"},
    ]
    last = ["out_of_order"] * 5 + ["unknown"]
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-300))
        new = [NewFacility(FacilityKind.MICROWAVE, "", 1)] * len(said)
        ovens = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-300))
        for oven, mine, word_now in zip(ovens, said, last, strict=True):
            for hours, word in (mine | {-1.0: word_now}).items():
                then, status = at(hours), FacilityStatus(word)
                await facilities.report_status(tx, oven.id, status, status_at=then, at=then)
        await spells.count(tx, ovens[0].id, 3, at=at(-60))
    await held.record_all(runtime.database, now=always(at(0)))
    for by in (one for one in By if one.is_place):
        (row,) = await asked(runtime, queries.facilities, station, 0, by=by)
        assert (row.units, row.open_faults_over_72h) == (len(said), 2), by
    async with runtime.database.read() as tx:
        cell = await find(tx, scope_of(station, 0, by=By.STATION), Names(station=station.code))
        made, page = MADE["facilities"]["open_faults_over_72h"], PageRequest(1)
        first = await behind(tx, cell, station, made, page, silence=SILENCE)
        page = PageRequest(1, first.next)
        second = await behind(tx, cell, station, made, page, silence=SILENCE)
    assert second.next is None
    found = [(row.facility_id, row.from_at, row.until_at) for row in (*first.rows, *second.rows)]
    # Each from its beginning: it has been out of order since then, as far as anybody says.
    assert found == [(ovens[0].id, at(-200), None), (ovens[4].id, at(-73), None)]


async def test_a_late_word_changes_the_length_of_a_repair_on_the_day_on_which_it_ended(
    runtime: Runtime,
) -> None:
    """Out of order since 10:00, working two days later; then late: since the day before at 8:00."""
    working, broken = FacilityStatus.WORKING, FacilityStatus.OUT_OF_ORDER
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-100))
        new = [NewFacility(FacilityKind.MICROWAVE, "", 1)]
        (oven,) = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-100))
        for said_at, status in ((at(-38), broken), (at(12), working)):
            await facilities.report_status(tx, oven.id, status, status_at=said_at, at=said_at)
    await held.record_all(runtime.database, now=always(at(24)))

    async def told(hours: float) -> Any:
        (row,) = await asked(runtime, queries.facilities, station, hours)
        return row.units, row.repairs, row.repair_hours

    assert await told(25) == (1, 1, 50.0)
    async with runtime.database.write() as tx:
        await facilities.report_status(tx, oven.id, broken, status_at=at(-64), at=at(26))
    assert await told(27) == (1, 1, 76.0)
    async with runtime.database.write() as tx:
        unknown = FacilityStatus.UNKNOWN
        await facilities.report_status(tx, oven.id, unknown, status_at=at(-1), at=at(27))
    # Who does not know any more, the day before, says nothing of a repair.
    assert await told(28) == (1, 1, 63.0)
    async with runtime.database.write() as tx:
        (await tx.get_one(Station, station.id)).retired_at = at(29)
    # Of a station that is closed nothing stands there now.
    assert await told(30) == (0, 1, 63.0)


async def test_a_late_word_that_it_worked_shortens_the_fault_that_began_after_it(
    runtime: Runtime,
) -> None:
    """Broken, counted anew, broken again, mended; then late: between it had worked, if badly."""
    working, broken = FacilityStatus.WORKING, FacilityStatus.OUT_OF_ORDER
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-100))
        new = [NewFacility(FacilityKind.MICROWAVE, "", 1)]
        (oven,) = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-100))
        for said_at, status in ((at(-64), broken), (at(-38), broken), (at(12), working)):
            await facilities.report_status(tx, oven.id, status, status_at=said_at, at=said_at)
        await spells.count(tx, oven.id, 2, at=at(-50))
    await held.record_all(runtime.database, now=always(at(24)))

    async def repair_hours(hours: float) -> float | None:
        (row,) = await asked(runtime, queries.facilities, station, hours)
        return row.repair_hours

    assert await repair_hours(25) == 76
    async with runtime.database.write() as tx:
        degraded = FacilityStatus.DEGRADED
        await facilities.report_status(tx, oven.id, degraded, status_at=at(-60), at=at(26))
    assert await repair_hours(27) == 50


async def test_who_is_told_late_to_have_been_heard_all_along_was_not_silent(
    runtime: Runtime,
) -> None:
    """A process could not write for hours, while another listened; no outage was ever recorded."""
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-30))
        controller_id, _ = await a_controller(tx, station, at=at(-30))
        tx.add(ListeningSpell(from_at=at(-30), until_at=at(27)))
        heard = Presence(at(-30), at(20))
        await outages.note_returns(tx, {controller_id: [heard]}, silence=SILENCE, at=at(20))
        (await tx.get_one(Controller, controller_id)).seen_at = at(20)
    await held.record_all(runtime.database, now=always(at(24.1)))

    async def told(hours: float) -> Any:
        (row,) = await asked(runtime, queries.promise, station, hours)
        return row.online_hours, row.outages

    assert await told(24.2) == (20, 0)
    async with runtime.database.write() as tx:
        late = Presence(at(20) + timedelta(seconds=5), at(25))
        await outages.note_returns(tx, {controller_id: [late]}, silence=SILENCE, at=at(25))
        (await tx.get_one(Controller, controller_id)).seen_at = at(25)
    assert await told(25.1) == (24, 0)


async def test_days_after_a_silence_are_counted_anew_when_they_are_told_late(
    runtime: Runtime,
) -> None:
    """It was silent for two hours, and heard for two days by a process that could not write."""
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at(-30))
        controller_id, _ = await a_controller(tx, station, at=at(-30))
        tx.add(ListeningSpell(from_at=at(-30), until_at=at(52)))
        heard = Presence(at(-30), at(10))
        await outages.note_returns(tx, {controller_id: [heard]}, silence=SILENCE, at=at(10))
        (await tx.get_one(Controller, controller_id)).seen_at = at(10)
    await held.record_all(runtime.database, now=always(at(48.1)))

    async def online_hours(hours: float) -> float | None:
        next_day = Period(TODAY.to_day, TODAY.to_day + timedelta(days=1))
        (row,) = await asked(runtime, queries.promise, station, hours, next_day)
        return row.online_hours

    assert await online_hours(48.2) == 0
    async with runtime.database.write() as tx:
        late = Presence(at(12), at(49))
        await outages.note_returns(tx, {controller_id: [late]}, silence=SILENCE, at=at(49))
        (await tx.get_one(Controller, controller_id)).seen_at = at(49)
    assert await online_hours(49.1) == 24


async def test_stations_are_read_by_a_fixed_number_of_statements(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        places = [await a_station(tx, at=at(-30)) for _ in range(3)]
        for station in places:
            await a_controller(tx, station, at=at(-30))
            new = [NewFacility(FacilityKind.MICROWAVE, "", 2)]
            await facilities.add(tx, station, new, actor=COMMAND_LINE, at=at(-30))
    await held.record_all(runtime.database, now=always(at(24)))
    counts = []
    for some in (places[:1], places):
        async with runtime.database.read() as tx:
            with statements_of(runtime.database) as statements:
                await read_days(tx, {one.id: [DAY] for one in some}, silence=SILENCE, at=at(25))
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 7
