"""The migrations make what the tables say; down and up again, on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from app.audit import Action, AuditEntry
from app.db import schema
from app.db.engine import Database, embedded_url
from app.db.schema import SchemaNotCurrent
from app.db.types import new_id
from app.places.tables import FacilitySpell, FacilityStatus
from app.reports import spreads, vectors
from app.reports.rules import Grain
from app.reports.rules.counters import DWELL, REPAIR, C
from app.reports.tables import CITY, Rollup, RollupDue
from app.tables import every_table
from app.visits.tables import WalkInCount
from tests.support.postgres import PostgresServer
from tests.support.worlds import a_facility, a_station, a_unit, an_admin

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        database = Database(embedded_url(tmp_path / "empty.db"))
        yield database
        await database.dispose()
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.create_database("migrations")
    database = Database(server.url("migrations"))
    yield database
    await database.dispose()
    server.drop_database("migrations")


async def differences(database: Database) -> list[Any]:
    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        return list(compare_metadata(context, every_table()))

    async with database.engine.connect() as connection:
        return await connection.run_sync(compare)


async def test_up_from_nothing_is_what_the_tables_say(empty: Database) -> None:
    await schema.migrate(empty)
    await schema.require_current(empty)
    assert await differences(empty) == []


async def test_down_and_up_again(empty: Database) -> None:
    await schema.migrate(empty)
    await schema.migrate(empty, "base")
    with pytest.raises(SchemaNotCurrent, match="run: yizhan migrate"):
        await schema.require_current(empty)
    await schema.migrate(empty)
    assert await differences(empty) == []


def test_file_names_are_numbered() -> None:
    for revision in ScriptDirectory.from_config(schema.config()).walk_revisions():
        assert Path(revision.path).name.startswith(f"{revision.revision}_")


async def test_the_audit_trail_cannot_be_changed(empty: Database) -> None:
    await schema.migrate(empty)
    async with empty.write() as tx:
        await tx.execute(
            sa.insert(AuditEntry).values(
                id=new_id(),
                at=datetime(2026, 11, 23, tzinfo=UTC),
                action=Action.KEY_ROTATED,
                subject="key:k",
            )
        )
    for statement in ("UPDATE audit_entries SET subject = 'x'", "DELETE FROM audit_entries"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with empty.write() as tx:
                await tx.execute(sa.text(statement))


async def goes_back(database: Database, revision: str) -> None:
    def downgrade(connection: sa.Connection) -> None:
        alembic = schema.config()
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, revision)

    async with database.engine.begin() as connection:
        await connection.run_sync(downgrade)


async def test_facilities_from_before_spells_get_what_is_known_of_them(empty: Database) -> None:
    await schema.migrate(empty)
    day = datetime(2026, 11, 23, tzinfo=UTC)
    hours = [day + timedelta(hours=number) for number in range(4)]
    async with empty.write() as tx:
        station = await a_station(tx, at=hours[0])
        for created_at, status_at, retired_at, status in (
            (hours[0], hours[0], None, FacilityStatus.WORKING),
            (hours[0], hours[1], None, FacilityStatus.OUT_OF_ORDER),
            (hours[0], hours[2], hours[3], FacilityStatus.DEGRADED),
        ):
            known = {"status_at": status_at, "retired_at": retired_at, "status": status}
            await a_facility(tx, station, at=created_at, **known)
    before = ScriptDirectory.from_config(schema.config()).get_revision("0011")
    assert before is not None
    assert isinstance(before.down_revision, str)
    await goes_back(empty, before.down_revision)
    await schema.migrate(empty)
    async with empty.read() as tx:
        rows = await tx.execute(
            sa.select(FacilitySpell.from_at, FacilitySpell.until_at, FacilitySpell.status).order_by(
                FacilitySpell.facility_id, FacilitySpell.from_at
            )
        )
        assert [tuple(row) for row in rows] == [
            (hours[0], None, FacilityStatus.WORKING),
            (hours[0], hours[1], FacilityStatus.UNKNOWN),
            (hours[1], None, FacilityStatus.OUT_OF_ORDER),
            (hours[0], hours[2], FacilityStatus.UNKNOWN),
            (hours[2], hours[3], FacilityStatus.DEGRADED),
        ]


@pytest.mark.parametrize("before", ["0013", "0015"])
async def test_days_whose_workers_are_known_are_counted_again(empty: Database, before: str) -> None:
    await schema.migrate(empty)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    async with empty.write() as tx:
        station = await a_station(tx, at=at)
        for grain, day, crowd in (
            (Grain.DAY, 22, b""),
            (Grain.DAY, 21, None),
            (Grain.MONTH, 1, b""),
        ):
            for place in (station.id, station.unit_id):
                tx.add(
                    Rollup(
                        place_id=place, grain=grain, from_day=date(2026, 11, day), counts=b"",
                        hours=b"", peak=0.0, crowd=crowd, rolled_at=at,
                    )
                )  # fmt: skip
    await goes_back(empty, before)
    await schema.migrate(empty)
    async with empty.read() as tx:
        (due,) = (await tx.scalars(sa.select(RollupDue))).all()
    assert (due.place_id, due.grain, due.depth) == (station.id, Grain.DAY, 0)
    assert due.from_day == date(2026, 11, 22)


async def test_a_year_that_has_lost_a_part_keeps_all_whom_it_knew(empty: Database) -> None:
    await schema.migrate(empty)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    lost, whole = new_id(), new_id()
    async with empty.write() as tx:
        for place, grain, day, crowd in (
            (lost, Grain.YEAR, date(2026, 1, 1), b"some"),
            (lost, Grain.QUARTER, date(2026, 4, 1), None),
            (lost, Grain.QUARTER, date(2026, 7, 1), b"others"),
            (whole, Grain.YEAR, date(2026, 1, 1), b"all"),
            (whole, Grain.QUARTER, date(2025, 10, 1), None),
            (whole, Grain.QUARTER, date(2026, 1, 1), b"all"),
        ):
            tx.add(
                Rollup(
                    place_id=place, grain=grain, from_day=day, counts=b"",
                    hours=b"", peak=0.0, crowd=crowd, rolled_at=at,
                )
            )  # fmt: skip
    await goes_back(empty, "0018")
    await schema.migrate(empty)
    async with empty.read() as tx:
        rows = await tx.execute(sa.select(Rollup.place_id, Rollup.grain, Rollup.base))
        found = {(row.place_id, row.grain): row.base for row in rows if row.base is not None}
    assert found == {(lost, Grain.YEAR): b"some"}


async def test_histograms_that_stood_apart_are_among_the_counters_again(empty: Database) -> None:
    await schema.migrate(empty)
    place, at = new_id(), datetime(2026, 11, 23, tzinfo=UTC)
    whole = vectors.packed({C.VISITS_SCAN: 3, DWELL + 7: 3, REPAIR + 1: 1})
    async with empty.write() as tx:
        for day, row in ((1, spreads.written([whole])[0]), (2, {"counts": whole})):
            span = {"place_id": place, "grain": Grain.DAY, "from_day": date(2026, 11, day)}
            tx.add(Rollup(**span, **row, hours=b"", peak=0.0, rolled_at=at))
    await goes_back(empty, "0025")
    await schema.migrate(empty)
    async with empty.read() as tx:
        rows = (await tx.scalars(sa.select(Rollup))).all()
    assert [(row.counts, row.histograms, row.percentiles) for row in rows] == [
        (whole, None, None)
    ] * 2


async def test_what_was_withdrawn_does_not_stand_again_in_an_older_schema(empty: Database) -> None:
    """An older version counts whatever stands, and the count that took its place as well."""
    await schema.migrate(empty)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    async with empty.write() as tx:
        station, admin = await a_station(tx, at=at), await an_admin(tx, at=at)
        for count, withdrawn_at in ((300, at), (30, None)):
            tx.add(
                WalkInCount(
                    id=new_id(), station_id=station.id, count=count, from_at=at,
                    until_at=at + timedelta(hours=1), local_day=at.date(), admin_id=admin.id,
                    created_at=at, withdrawn_at=withdrawn_at,
                    withdrawn_by=withdrawn_at and admin.id,
                )
            )  # fmt: skip
    await goes_back(empty, "0026")
    await schema.migrate(empty)
    async with empty.read() as tx:
        rows = (await tx.scalars(sa.select(WalkInCount))).all()
    assert [(row.count, row.withdrawn_at, row.withdrawn_by) for row in rows] == [(30, None, None)]


@pytest.mark.parametrize("roots", [1, 2])
async def test_the_city_has_its_sums_or_they_are_due(empty: Database, roots: int) -> None:
    await schema.migrate(empty)
    at, day = datetime(2026, 11, 23, tzinfo=UTC), date(2026, 11, 22)
    async with empty.write() as tx:
        units = [await a_unit(tx, at=at, name=f"总工会 {number}") for number in range(roots)]
        for unit in units:
            whole = spreads.written([vectors.packed({C.VISITS_SCAN: 3})])[0]
            span = {"place_id": unit.id, "grain": Grain.DAY, "from_day": day}
            tx.add(Rollup(**span, **whole, hours=b"", peak=0.5, uniques=2, rolled_at=at))
    await goes_back(empty, "0028")
    await schema.migrate(empty)
    async with empty.read() as tx:
        rows = (await tx.scalars(sa.select(Rollup).where(Rollup.place_id == CITY))).all()
        dues = (await tx.scalars(sa.select(RollupDue))).all()
    if roots == 1:
        assert [(row.from_day, row.uniques, row.peak) for row in rows] == [(day, 2, 0.5)]
        assert [vectors.unpacked(row.counts) for row in rows] == [{C.VISITS_SCAN: 3}]
        assert not dues
    else:
        assert not rows
        assert [(due.place_id, due.grain, due.from_day) for due in dues] == [(CITY, Grain.DAY, day)]
