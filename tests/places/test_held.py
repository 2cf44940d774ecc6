"""What held is written down before rules change, and never again after."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from app.audit import COMMAND_LINE
from app.db.types import new_id
from app.doors import attendance
from app.places import calendar, held, stations, transfer
from app.places.held import Held
from app.places.rules import Because, ChangeKind, Kind, Tier, mode_windows
from app.places.standing import station_rules
from app.places.stations import Wanted
from app.places.tables import ModeChange, Station, StationModes
from app.runtime import Runtime
from tests.support.statements import statements_of
from tests.support.worlds import DAY_AND_NIGHT, OFFICE_HOURS, a_controller, a_station, always

pytestmark = pytest.mark.anyio

DAY = date(2026, 11, 24)
MIDNIGHT = datetime(2026, 11, 23, 16, tzinfo=UTC)
"""When that day begins in Chongqing."""
HOUR = timedelta(hours=1)
EVENINGS: dict[str, Any] = {
    "regular": [{"weekday": day, "opens": "14:00", "closes": "22:00"} for day in range(1, 8)],
    "public_holiday": None,
    "makeup_workday": None,
}


def hour_of(ms: int) -> float:
    return (ms - round(MIDNIGHT.timestamp() * 1000)) / 3_600_000


async def a_day(runtime: Runtime, station: Station) -> list[tuple[float, float, str, str]]:
    """What is recorded of the day, in hours since its midnight."""
    async with runtime.database.read() as tx:
        found = await held.windows(tx, [station.id], from_day=DAY, to_day=DAY + timedelta(days=1))
    return [
        (hour_of(one.from_ms), hour_of(one.until_ms), one.kind.value, one.because.value)
        for one in (found[station.id].held if found else [])
    ]


async def new_station(runtime: Runtime, **changes: Any) -> Station:
    async with runtime.database.write() as tx:
        return await a_station(tx, at=MIDNIGHT, **changes)


async def amends(runtime: Runtime, station: Station, at: datetime, **changes: Any) -> None:
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        await stations.amend(tx, runtime.wakeups, row, changes=changes, actor=COMMAND_LINE, at=at)


async def test_hours_amended_at_noon_leave_the_morning_as_it_was(runtime: Runtime) -> None:
    station = await new_station(runtime)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 9 * HOUR))
    await amends(runtime, station, MIDNIGHT + 12 * HOUR, staffed_hours=EVENINGS)
    for hour in (13, 13, 24):
        await held.record_all(runtime.database, now=always(MIDNIGHT + hour * HOUR))
    assert await a_day(runtime, station) == [
        (0, 8, "scan", "weekly"),
        (8, 12, "free", "weekly"),
        (12, 14, "scan", "weekly"),
        (14, 22, "free", "weekly"),
        (22, 24, "scan", "weekly"),
    ]


async def test_hours_amended_by_a_file_leave_the_morning_as_it_was(runtime: Runtime) -> None:
    station = await new_station(runtime)
    async with runtime.database.write() as tx:
        content = await transfer.export_stations(tx, {})
        content = content.replace(b"1-7 08:00-18:00", b"1-7 14:00-22:00")
        done = await transfer.import_stations(
            tx,
            runtime.wakeups,
            content,
            within=None,
            dry_run=False,
            actor=COMMAND_LINE,
            at=MIDNIGHT + 12 * HOUR,
        )
    assert done.amended == 1
    await held.record_all(runtime.database, now=always(MIDNIGHT + 15 * HOUR))
    found = await a_day(runtime, station)
    assert [one[:3] for one in found] == [
        (0, 8, "scan"),
        (8, 12, "free"),
        (12, 14, "scan"),
        (14, 15, "free"),
    ]


async def test_staff_who_come_late_leave_their_absence_recorded(runtime: Runtime) -> None:
    station = await new_station(runtime, staff_absent_min=30)
    at = MIDNIGHT + 9 * HOUR
    async with runtime.database.write() as tx:
        await a_controller(tx, station, at=at)
    await attendance.watch(
        runtime.database,
        runtime.wakeups,
        runtime.calendar.current,
        silence=timedelta(seconds=75),
        now=lambda: at,
    )
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        assert await attendance.confirm(
            tx, runtime.wakeups, row, actor=COMMAND_LINE, at=MIDNIGHT + 10 * HOUR
        )
    await held.record_all(runtime.database, now=always(MIDNIGHT + 11 * HOUR))
    assert await a_day(runtime, station) == [
        (0, 8, "scan", "weekly"),
        (8, 9, "free", "weekly"),
        (9, 10, "scan", "staff_absent"),
        (10, 11, "free", "weekly"),
    ]


async def test_what_says_nothing_of_the_mode_records_nothing(runtime: Runtime) -> None:
    station = await new_station(runtime)
    await amends(runtime, station, MIDNIGHT + 12 * HOUR, name="大坪驿站", max_stay_min=30)
    assert await a_day(runtime, station) == []


async def seats(runtime: Runtime, station: Station) -> list[tuple[float, float, int]]:
    """How many seats are recorded from the day on, in hours since its midnight."""
    async with runtime.database.read() as tx:
        found = await held.windows(tx, [station.id], from_day=DAY, to_day=DAY + timedelta(days=2))
    return [(hour_of(since), hour_of(until), n) for since, until, n in found[station.id].seats]


async def test_seats_that_become_more_leave_those_that_there_were(runtime: Runtime) -> None:
    station = await new_station(runtime, capacity=10)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 9 * HOUR))
    await amends(runtime, station, MIDNIGHT + 12 * HOUR, capacity=30)
    await amends(runtime, station, MIDNIGHT + 13 * HOUR, max_stay_min=30)
    async with runtime.database.write() as tx:
        content = (await transfer.export_stations(tx, {})).replace(b",30,", b",20,", 1)
        await transfer.import_stations(
            tx, runtime.wakeups, content, within=None, dry_run=False, actor=COMMAND_LINE,
            at=MIDNIGHT + 15 * HOUR,
        )  # fmt: skip
    await held.record_all(runtime.database, now=always(MIDNIGHT + 30 * HOUR))
    assert await seats(runtime, station) == [(0, 12, 10), (12, 15, 30), (15, 24, 20), (24, 30, 20)]


async def test_of_a_record_from_before_seats_were_only_what_follows_is_known(
    runtime: Runtime,
) -> None:
    station = await new_station(runtime, capacity=10)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 9 * HOUR))
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(StationModes).values(seats=None))
    assert await seats(runtime, station) == []
    await held.record_all(runtime.database, now=always(MIDNIGHT + 12 * HOUR))
    assert await seats(runtime, station) == [(9, 12, 10)]


async def test_an_override_that_reaches_back_does_not_change_what_held(runtime: Runtime) -> None:
    station = await new_station(runtime)
    wanted = Wanted(ChangeKind.CLOSED, MIDNIGHT + 6 * HOUR, MIDNIGHT + 16 * HOUR, "")
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        change = await stations.add_change(
            tx, runtime.wakeups, row, Tier.OVERRIDE, wanted, actor=COMMAND_LINE,
            at=MIDNIGHT + 10 * HOUR,
        )  # fmt: skip
    async with runtime.database.write() as tx:
        change = await stations.get_change(tx, row, Tier.OVERRIDE, change.id)
        await stations.retire_change(
            tx, runtime.wakeups, row, change, actor=COMMAND_LINE, at=MIDNIGHT + 11 * HOUR
        )
    await held.record_all(runtime.database, now=always(MIDNIGHT + 12 * HOUR))
    assert await a_day(runtime, station) == [
        (0, 8, "scan", "weekly"),
        (8, 10, "free", "weekly"),
        (10, 11, "closed", "override"),
        (11, 12, "free", "weekly"),
    ]


async def promised(
    runtime: Runtime, station: Station, day: date = DAY
) -> list[tuple[float, float]]:
    """When it was promised to be open on a day, in hours since the midnight of the first."""
    async with runtime.database.read() as tx:
        row = await tx.get_one(StationModes, (station.id, day))
    zero = round(row.midnight_at.timestamp() * 1000)
    return [(hour_of(zero + since), hour_of(zero + until)) for since, until in row.promised or ()]


ANNOUNCED, ON_THE_DAY = MIDNIGHT - timedelta(minutes=1), MIDNIGHT + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("tier", "kind", "made_at", "expected"),
    [
        (Tier.EXCEPTION, ChangeKind.CLOSED, ANNOUNCED, [(8, 10), (16, 18)]),
        (Tier.EXCEPTION, ChangeKind.CLOSED, ON_THE_DAY, [(8, 18)]),
        (Tier.EXCEPTION, ChangeKind.STAFF_ONLY, ANNOUNCED, [(8, 10), (16, 18)]),
        (Tier.EXCEPTION, ChangeKind.LOCKDOWN, ANNOUNCED, [(8, 18)]),
        (Tier.OVERRIDE, ChangeKind.CLOSED, ANNOUNCED, [(8, 18)]),
        (Tier.OVERRIDE, ChangeKind.EVACUATION, ANNOUNCED, [(8, 18)]),
    ],
)
async def test_promised_is_what_was_published_before_the_day_began(
    runtime: Runtime,
    tier: Tier,
    kind: ChangeKind,
    made_at: datetime,
    expected: list[tuple[float, float]],
) -> None:
    """Recorded in pieces, as whoever changes a rule and the job do."""
    station = await new_station(runtime, access_hours=None)
    async with runtime.database.write() as tx:
        begins, ends = MIDNIGHT + 10 * HOUR, MIDNIGHT + 16 * HOUR
        tx.add(
            ModeChange(
                id=new_id(), station_id=station.id, tier=tier, kind=kind, from_at=begins,
                until_at=ends, note="", created_at=made_at, changed_at=made_at,
            )
        )  # fmt: skip
    for hour in (9, 12, 12.5, 20, 30):
        await held.record_all(runtime.database, now=always(MIDNIGHT + hour * HOUR))
    assert await promised(runtime, station) == expected
    assert [one[:2] for one in await a_day(runtime, station) if one[2] == "free"] == [
        (8, 10),
        (16, 18),
    ]


@pytest.mark.parametrize(
    ("amended_at", "expected", "expected_after"),
    [
        # What was to be open when the day began, and was taken away at 9, is a broken promise;
        # who looks at the hours of the day after sees them closed since the day before.
        (MIDNIGHT + 9 * HOUR, [(8, 10), (12, 18)], []),
        (ANNOUNCED, [(8, 10)], []),
    ],
)
async def test_a_closure_that_is_extended_on_the_day_takes_away_what_was_promised(
    runtime: Runtime,
    amended_at: datetime,
    expected: list[tuple[float, float]],
    expected_after: list[tuple[float, float]],
) -> None:
    station = await new_station(runtime, access_hours=None)
    begins = MIDNIGHT + 10 * HOUR
    for until, at in ((12, MIDNIGHT - 48 * HOUR), (48, amended_at), (30, MIDNIGHT + 30 * HOUR)):
        wanted = Wanted(ChangeKind.CLOSED, begins, MIDNIGHT + until * HOUR, "")
        await says(runtime, station, wanted, at=at)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 48 * HOUR))
    assert await promised(runtime, station) == expected
    assert await promised(runtime, station, DAY + timedelta(days=1)) == expected_after
    assert [one[:2] for one in await a_day(runtime, station) if one[2] == "free"] == [
        (8, 10),
        (32, 42),
    ]


@pytest.mark.parametrize(
    ("withdrawn_at", "expected"),
    [(MIDNIGHT + 20 * HOUR, [(8, 18), (19, 22)]), (ANNOUNCED, [(8, 18)])],
)
async def test_an_evening_that_was_announced_and_is_withdrawn_on_the_day_was_promised(
    runtime: Runtime, withdrawn_at: datetime, expected: list[tuple[float, float]]
) -> None:
    station = await new_station(runtime, access_hours=None)
    wanted = Wanted(ChangeKind.STAFFED, MIDNIGHT + 19 * HOUR, MIDNIGHT + 22 * HOUR, "")
    await says(runtime, station, wanted, at=MIDNIGHT - 48 * HOUR)
    await says(runtime, station, None, at=withdrawn_at)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 24 * HOUR))
    assert await promised(runtime, station) == expected


async def test_a_closure_that_is_withdrawn_on_the_day_promises_nothing(runtime: Runtime) -> None:
    """Nor does what is amended of its kind or its note alone promise or take away anything."""
    station = await new_station(runtime, access_hours=None)
    wanted = Wanted(ChangeKind.CLOSED, MIDNIGHT + 10 * HOUR, MIDNIGHT + 16 * HOUR, "")
    await says(runtime, station, wanted, at=MIDNIGHT - 48 * HOUR)
    other = Wanted(ChangeKind.STAFF_ONLY, wanted.from_at, wanted.until_at, "清洁")
    await says(runtime, station, other, at=MIDNIGHT + 9 * HOUR)
    await says(runtime, station, None, at=MIDNIGHT + 12 * HOUR)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 24 * HOUR))
    assert await promised(runtime, station) == [(8, 10), (16, 18)]


async def says(runtime: Runtime, station: Station, wanted: Wanted | None, *, at: datetime) -> None:
    """Make the station's only exception, amend it, or withdraw it."""
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        change = await tx.scalar(sa.select(ModeChange))
        terms: dict[str, Any] = {"actor": COMMAND_LINE, "at": at}
        if change is None:
            assert wanted is not None
            tier = Tier.EXCEPTION
            await stations.add_change(tx, runtime.wakeups, row, tier, wanted, **terms)
        elif wanted is not None:
            await stations.amend_change(tx, runtime.wakeups, row, change, wanted, **terms)
        else:
            await stations.retire_change(tx, runtime.wakeups, row, change, **terms)


async def test_of_an_older_record_what_held_was_promised_but_what_nobody_foresaw(
    runtime: Runtime,
) -> None:
    station = await new_station(runtime, access_hours=None)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        for kind, begins in ((ChangeKind.CLOSED, 10), (ChangeKind.HELD_OPEN, 19)):
            wanted = Wanted(kind, MIDNIGHT + begins * HOUR, MIDNIGHT + (begins + 1) * HOUR, "")
            await stations.add_change(
                tx, runtime.wakeups, row, Tier.OVERRIDE, wanted, actor=COMMAND_LINE, at=MIDNIGHT
            )
    await held.record_all(runtime.database, now=always(MIDNIGHT + 12 * HOUR))
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(StationModes).values(promised=None))
    await held.record_all(runtime.database, now=always(MIDNIGHT + 24 * HOUR))
    assert await promised(runtime, station) == [(8, 10), (11, 18)]


async def test_holidays_that_come_in_at_noon_leave_the_morning_as_it_was(runtime: Runtime) -> None:
    hours = OFFICE_HOURS | {"public_holiday": []}
    station = await new_station(runtime, staffed_hours=hours, access_hours=None)
    content = f"{','.join(calendar.COLUMNS)}\n{DAY},public_holiday,x,y\n".encode()
    async with runtime.database.write() as tx:
        await calendar.import_days(
            tx, runtime.wakeups, content, actor=COMMAND_LINE, at=MIDNIGHT + 12 * HOUR
        )
    await held.record_all(runtime.database, now=always(MIDNIGHT + 13 * HOUR))
    found = await a_day(runtime, station)
    assert [one[:3] for one in found] == [(0, 8, "closed"), (8, 12, "free"), (12, 13, "closed")]


async def test_a_retired_station_is_recorded_until_then(runtime: Runtime) -> None:
    station = await new_station(runtime)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        at = MIDNIGHT + 3 * HOUR
        await stations.retire(tx, runtime.wakeups, row, actor=COMMAND_LINE, at=at)
    await held.record_all(runtime.database, now=always(MIDNIGHT + 30 * HOUR))
    assert await a_day(runtime, station) == [(0, 3, "scan", "weekly")]


@pytest.mark.parametrize("zones", [("Asia/Shanghai", "Asia/Urumqi"), ("Asia/Urumqi", "Asia/Tokyo")])
@pytest.mark.parametrize("hour", [0.5, 12, 23.5])
async def test_a_station_that_changes_its_zone_has_no_gap_and_no_time_twice(
    runtime: Runtime, zones: tuple[str, str], hour: float
) -> None:
    station = await new_station(runtime, timezone=zones[0])
    await amends(runtime, station, MIDNIGHT + hour * HOUR, timezone=zones[1])
    for later in (24, 25, 60):
        await held.record_all(runtime.database, now=always(MIDNIGHT + later * HOUR))
    async with runtime.database.read() as tx:
        found = await held.windows(tx, [station.id], from_day=DAY, to_day=DAY + timedelta(days=2))
    spans = [(hour_of(one.from_ms), hour_of(one.until_ms)) for one in found[station.id].held]
    assert spans[0][0] == 0
    assert spans[-1][1] == 60
    assert all(before[1] == after[0] for before, after in pairwise(spans))


async def test_recording_in_any_steps_gives_what_the_mode_function_says(runtime: Runtime) -> None:
    chance = random.Random(4)
    station = await new_station(
        runtime, staffed_hours=EVENINGS, access_hours=DAY_AND_NIGHT, timezone="Europe/Berlin"
    )
    at = MIDNIGHT
    while at < MIDNIGHT + timedelta(days=5):
        at += timedelta(seconds=chance.randint(1, 100_000))
        await held.record_all(runtime.database, now=always(at))
    async with runtime.database.read() as tx:
        rows = (await tx.scalars(sa.select(StationModes).order_by(StationModes.local_day))).all()
        found = await held.windows(
            tx, [station.id], from_day=rows[0].local_day, to_day=rows[-1].local_day
        )
    rules = station_rules(station, ())
    said = mode_windows(rules, runtime.calendar.current, MIDNIGHT, at)
    opens = [one for one in said if one.kind in (Kind.FREE, Kind.SCAN)]
    assert sum(until - since for since, until in found[station.id].promised) == sum(
        ms(one.until_at) - ms(one.from_at) for one in opens
    )
    assert merged(found[station.id].held) == [
        (ms(one.from_at), ms(one.until_at), one.kind, one.because) for one in said
    ]


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def merged(found: Sequence[Held]) -> list[tuple[int, int, Kind, Because]]:
    out: list[tuple[int, int, Kind, Because]] = []
    for one in found:
        if out and out[-1][1] == one.from_ms and out[-1][2:] == one[2:]:
            out[-1] = (out[-1][0], one.until_ms, one.kind, one.because)
        else:
            out.append(tuple(one))
    return out


async def test_a_change_and_the_job_at_once_write_no_time_twice(runtime: Runtime) -> None:
    station = await new_station(runtime)
    for hour in range(1, 12):
        at = MIDNIGHT + hour * HOUR
        hours = EVENINGS if hour % 2 else DAY_AND_NIGHT
        await asyncio.gather(
            held.record_all(runtime.database, now=always(at)),
            amends(runtime, station, at, staffed_hours=hours),
            held.record_all(runtime.database, now=always(at)),
        )
    assert [one[:3] for one in await a_day(runtime, station)] == [
        (0, 2, "scan"),
        *((hour, hour + 1, "scan" if hour % 2 else "free") for hour in range(2, 11)),
    ]


async def test_the_job_waits_for_whoever_is_changing_the_rules(runtime: Runtime) -> None:
    station = await new_station(runtime)
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        hours = {"staffed_hours": EVENINGS}
        await stations.amend(
            tx, runtime.wakeups, row, changes=hours, actor=COMMAND_LINE, at=MIDNIGHT + 12 * HOUR
        )
        job = asyncio.create_task(
            held.record_all(runtime.database, now=always(MIDNIGHT + 15 * HOUR))
        )
        await asyncio.sleep(0.3)
    await job
    found = await a_day(runtime, station)
    assert [one[:2] for one in found if one[2] == "free"] == [(8, 12), (14, 15)]


async def test_stations_are_recorded_by_few_statements(runtime: Runtime) -> None:
    for _ in range(5):
        await new_station(runtime)
    with statements_of(runtime.database) as statements:
        await held.record_all(runtime.database, now=always(MIDNIGHT + HOUR))
    few = len(statements)
    for _ in range(20):
        await new_station(runtime)
    with statements_of(runtime.database) as statements:
        await held.record_all(runtime.database, now=always(MIDNIGHT + 2 * HOUR))
    assert len(statements) <= few


async def test_each_station_is_recorded_by_the_clock_of_its_own_write(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a country's stations the last is written minutes after the first.

    Whoever looks for what is new by the instant of the change must not have looked past it.
    """
    monkeypatch.setattr(held, "AT_ONCE", 1)
    async with runtime.database.write() as tx:
        for _ in range(2):
            await a_station(tx, at=MIDNIGHT)
    readings = iter([MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR])
    await held.record_all(runtime.database, now=lambda: next(readings))
    async with runtime.database.read() as tx:
        rows = (
            await tx.execute(sa.select(StationModes).order_by(StationModes.changed_at))
        ).scalars()
        told = [(row.changed_at, row.recorded_until) for row in rows]
    assert told == [(MIDNIGHT + n * HOUR, MIDNIGHT + n * HOUR) for n in (1, 2)]


async def test_a_closure_that_two_withdraw_at_once_is_withdrawn_once(runtime: Runtime) -> None:
    """Of a station without a door there is nothing else that they would wait for."""
    station = await new_station(runtime)
    wanted = Wanted(Kind.CLOSED, MIDNIGHT + 30 * HOUR, MIDNIGHT + 40 * HOUR, "")
    async with runtime.database.write() as tx:
        row = await stations.get_station(tx, station.id)
        made = await stations.add_change(
            tx, runtime.wakeups, row, Tier.EXCEPTION, wanted, actor=COMMAND_LINE, at=MIDNIGHT
        )

    async def withdraw(at: datetime, *, waits: float = 0) -> None:
        async with runtime.database.write() as tx:
            row = await stations.get_station(tx, station.id)
            change = await stations.get_change(tx, row, Tier.EXCEPTION, made.id)
            await stations.retire_change(
                tx, runtime.wakeups, row, change, actor=COMMAND_LINE, at=at
            )
            await asyncio.sleep(waits)

    first = asyncio.create_task(withdraw(MIDNIGHT + HOUR, waits=0.5))
    await asyncio.sleep(0.2)
    await withdraw(MIDNIGHT + 2 * HOUR)
    await first
    async with runtime.database.read() as tx:
        change = await tx.get_one(ModeChange, made.id)
    assert change.retired_at == MIDNIGHT + HOUR
