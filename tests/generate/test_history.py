"""A generated history in the tables of both databases."""

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app import privacy
from app.db.engine import Database
from app.db.schema import NotEmpty
from app.doors.rules import Reason
from app.doors.tables import (
    Command,
    Controller,
    ControllerOutage,
    JournalEntry,
    OfflineEntry,
    Scan,
)
from app.generate import history
from app.generate.history import LOADED, generate
from app.generate.plan import Phase, Plan
from app.people.tables import Admin, Consent, Worker
from app.places.calendar import CalendarCache
from app.places.rules import Kind, local_day, local_hour, mode_at
from app.places.standing import station_rules
from app.places.tables import (
    Facility,
    FacilitySpell,
    FacilityStatus,
    ModeChange,
    Station,
    StationModes,
    Unit,
)
from app.tables import every_table
from app.visits import presence
from app.visits.tables import EndSource, FacilityUse, StationPresence, Visit, WalkInCount
from tests.db.test_bulk import changed, furniture

pytestmark = pytest.mark.anyio

PLAN = Plan(stations=30, days=20, until=date(2026, 11, 20), seed=3, retention_days=8)
MIDNIGHT = datetime(2026, 11, 19, 16, tzinfo=UTC)
"""The end of the history."""


async def count(database: Database, kind: Any, *where: Any) -> int:
    async with database.read() as tx:
        query = sa.select(sa.func.count()).select_from(kind).where(*where)
        return (await tx.scalar(query)) or 0


async def test_what_was_made_is_in_the_tables_and_the_schema_is_as_before(
    database: Database,
) -> None:
    before = await furniture(database)
    heard: list[Phase] = []
    made = await generate(database, PLAN, lambda phase, done, total: heard.append(phase))
    assert changed(before, await furniture(database)) == {}
    assert made.visits == await count(database, Visit) > 5000
    assert made.scans == await count(database, Scan) > made.visits
    assert made.refused == await count(database, Scan, Scan.outcome == "refused") > 0
    assert made.commands == await count(database, Command) > 0
    assert made.uses == await count(database, FacilityUse) > 0
    assert made.head_counts == await count(database, WalkInCount) > 0
    assert made.workers == await count(database, Worker)
    assert made.stations == await count(database, Station) == await count(database, StationPresence)
    assert await count(database, Unit) == 38
    assert await count(database, Consent) > 0
    assert await count(database, Controller) > 0
    assert await count(database, Facility) == await count(
        database, FacilitySpell, FacilitySpell.until_at.is_(None)
    )
    assert list(dict.fromkeys(heard)) == list(Phase)
    assert made.visits_per_second > 0


async def test_rows_read_back_as_the_product_would_have_written_them(database: Database) -> None:
    await generate(database, PLAN)
    async with database.read() as tx:
        cache = CalendarCache()
        await cache.load(tx)
        places = {row.id: row for row in await tx.scalars(sa.select(Station))}
        changes = list(await tx.scalars(sa.select(ModeChange)))
        scans = (await tx.scalars(sa.select(Scan).order_by(Scan.demand_key).limit(300))).all()
        uses = (await tx.scalars(sa.select(FacilityUse))).all()
        visits = {row.id: row for row in await tx.scalars(sa.select(Visit))}
    for scan in scans:
        if scan.station_id is None:
            assert scan.mode is None
            continue
        station = places[scan.station_id]
        own = [change for change in changes if change.station_id == station.id]
        mode = mode_at(station_rules(station, own), cache.current, scan.scanned_at)
        assert (scan.mode, scan.because, scan.mode_until, scan.calendar_known) == (
            mode.kind,
            mode.because,
            mode.until,
            mode.calendar_known,
        )
        assert scan.local_day == local_day(scan.scanned_at, station.timezone)
        assert scan.local_hour == local_hour(scan.scanned_at, station.timezone)
        assert scan.demand_key is not None
        assert len(scan.demand_key) == 16
    assert {type(use.quantity) for use in uses} == {Decimal, type(None)}
    assert any(Decimal("0.2") <= use.quantity < Decimal("1.5") for use in uses if use.quantity)
    for use in uses:
        assert use.visit_id is not None
        assert visits[use.visit_id].started_at <= use.begun_at < MIDNIGHT


async def test_boxes_that_were_cut_off_opened_by_passes_and_told_of_it_later(
    database: Database,
) -> None:
    made = await generate(database, PLAN)
    async with database.read() as tx:
        rows = (
            await tx.execute(
                sa.select(OfflineEntry, JournalEntry, Visit, ControllerOutage)
                .join(JournalEntry, JournalEntry.id == OfflineEntry.entry_id)
                .join(Visit, Visit.id == OfflineEntry.visit_id)
                .join(
                    ControllerOutage,
                    sa.and_(
                        ControllerOutage.controller_id == JournalEntry.controller_id,
                        ControllerOutage.from_at <= OfflineEntry.happened_at,
                        ControllerOutage.until_at > OfflineEntry.happened_at,
                    ),
                )
            )
        ).all()
        met = await tx.scalar(
            sa.select(sa.func.count())
            .select_from(OfflineEntry)
            .where(
                sa.exists().where(
                    Scan.demand_key == OfflineEntry.demand_key,
                    Scan.reason == Reason.CONTROLLER_OFFLINE,
                )
            )
        )
    assert len(rows) == made.alone == await count(database, OfflineEntry) > 20
    numbers: dict[Any, list[int]] = {}
    for entry, event, visit, outage in rows:
        numbers.setdefault(event.controller_id, []).append(event.seq)
        begun = entry.opened_at or entry.happened_at
        assert (visit.started_at, visit.mode, visit.station_id) == (
            begun, Kind.SCAN, entry.station_id,
        )  # fmt: skip
        assert entry.worker_id == visit.worker_id
        assert outage.until_at < event.received_at == event.applied_at == entry.changed_at
        assert visit.changed_at >= event.received_at
    assert all(sorted(mine) == list(range(1, len(mine) + 1)) for mine in numbers.values())
    assert met is not None
    assert met > 0.9 * made.alone


async def test_faults_end_and_things_work_again(database: Database) -> None:
    await generate(database, PLAN)
    async with database.read() as tx:
        spells = (
            await tx.scalars(
                sa.select(FacilitySpell).order_by(FacilitySpell.facility_id, FacilitySpell.from_at)
            )
        ).all()
        things = {row.id: row for row in await tx.scalars(sa.select(Facility))}
    mended = 0
    for id, group in itertools.groupby(spells, key=lambda spell: spell.facility_id):
        own = list(group)
        assert [spell.until_at for spell in own] == [*(each.from_at for each in own[1:]), None]
        assert (own[0].from_at, own[-1].status) == (things[id].created_at, things[id].status)
        assert things[id].status_at == own[-1].from_at
        mended += sum(spell.status is not FacilityStatus.WORKING for spell in own[:-1])
    assert mended > 0


async def test_the_seats_of_every_day_are_recorded(database: Database) -> None:
    await generate(database, PLAN)
    async with database.read() as tx:
        query = sa.select(Station.capacity, StationModes.seats).join(
            StationModes, StationModes.station_id == Station.id
        )
        rows = (await tx.execute(query)).all()
    assert len({row.capacity for row in rows}) > 5
    for row in rows:
        assert row.seats == [[0, 86_400_000, row.capacity]]


async def test_keys_of_live_rows_and_names_past_retention_are_gone(database: Database) -> None:
    await generate(database, PLAN)
    for kind in (Visit, Scan, Command):
        assert await count(database, kind, kind.owner_key.is_not(None)) == 0
    past = MIDNIGHT - timedelta(days=8)
    assert await count(database, Visit, Visit.worker_id.is_not(None)) > 500
    assert await count(database, Visit, Visit.worker_id.is_not(None), Visit.started_at < past) == 0
    assert await count(database, Scan, Scan.worker_id.is_not(None), Scan.scanned_at < past) == 0
    assert await privacy.retain(database, at=MIDNIGHT, retention_days=8) == 0


async def test_no_station_is_older_than_its_history(database: Database) -> None:
    await generate(database, PLAN)
    begins = MIDNIGHT - timedelta(days=PLAN.days)
    assert await count(database, Station, Station.created_at < begins) == 0
    assert await count(database, Station, Station.created_at == begins) > 0


async def test_who_is_still_inside_at_the_end_is_swept_in_time(database: Database) -> None:
    await generate(database, PLAN)
    inside = await count(database, Visit, Visit.ended_at.is_(None))
    assert inside > 0
    async with database.write() as tx:
        assert await presence.sweep(tx, at=MIDNIGHT + timedelta(days=1)) == inside
    assert await count(database, Visit, Visit.ended_at.is_(None)) == 0
    wrong = sa.and_(Visit.end_source == EndSource.IMPUTED, Visit.ended_at != Visit.stay_until)
    assert await count(database, Visit, wrong) == 0


async def test_nobody_can_sign_in_by_what_was_generated(database: Database) -> None:
    await generate(database, PLAN)
    assert await count(database, Admin) == await count(
        database, Admin, Admin.retired_at <= MIDNIGHT
    )
    assert await count(database, Worker, Worker.phone_index.is_not(None)) == 0


async def test_a_database_with_anything_in_it_is_left_alone(database: Database) -> None:
    small = Plan(stations=2, days=2, until=date(2026, 11, 20))
    await generate(database, small)
    visits = await count(database, Visit)
    with pytest.raises(NotEmpty, match="workers"):
        await generate(database, small)
    assert await count(database, Visit) == visits


async def test_a_crash_leaves_the_database_empty_and_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await furniture(database)
    draw_day = history.draw_day

    def drawn(city: Any, rhythm: Any, index: int, whereabouts: Any) -> Any:
        if index == 5:
            raise MemoryError
        return draw_day(city, rhythm, index, whereabouts)

    monkeypatch.setattr(history, "draw_day", drawn)
    with pytest.raises(MemoryError):
        await generate(database, PLAN)
    assert changed(before, await furniture(database)) == {}
    for table in (*LOADED, Unit.__table__, Station.__table__):
        assert await count(database, table) == 0
    monkeypatch.undo()
    assert (await generate(database, PLAN)).visits > 5000


def test_every_great_table_is_a_table() -> None:
    assert {table.name for table in LOADED} <= every_table().tables.keys()
