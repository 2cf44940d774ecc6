"""Bulk loads: values as they were meant, and every index and key back where it was."""

import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from app.db.bulk import Column, bulk_load, tidy
from app.db.engine import Database
from app.db.schema import NotEmpty
from app.db.types import new_id, table_of
from app.people.tables import Consent, Occupation, Worker
from app.visits.tables import FacilityUse

pytestmark = pytest.mark.anyio

WORKERS, CONSENTS = table_of(Worker), table_of(Consent)
CASTS = re.compile(r"::[a-z ]+(\[\])?|[()]")
BORN = datetime(2026, 11, 23, 15, 40, 0, 123456, tzinfo=UTC)
MICROS = 1_795_448_400_123_456


async def furniture(database: Database) -> dict[str, Any]:
    """Read what stands around the rows of every table: indexes, keys, constraints."""

    def read(connection: sa.Connection) -> dict[str, Any]:
        inspector, found = sa.inspect(connection), {}
        for name in inspector.get_table_names():
            found[name] = (
                inspector.get_pk_constraint(name),
                by_name(inspector.get_foreign_keys(name)),
                by_name(inspector.get_unique_constraints(name)),
                by_name(inspector.get_check_constraints(name)),
                by_name(inspector.get_indexes(name)),
            )
        return found

    def by_name(rows: Any) -> Any:
        return sorted(str({name: plain(row[name]) for name in sorted(row)}) for row in rows)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):  # With the condition of a partial index, as an expression.
            # PostgreSQL writes its casts one way or another; they mean the same.
            return {name: CASTS.sub("", str(each)) for name, each in value.items()}
        return value

    async with database.reading_engine.connect() as connection:
        return await connection.run_sync(read)


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Give what stands otherwise than before."""
    assert before.keys() == after.keys()
    return {
        name: [one for one in zip(before[name], after[name], strict=True) if one[0] != one[1]]
        for name in before
        if before[name] != after[name]
    }


def nothing(step: str, done: int, total: int) -> None:
    """Hear nothing."""


def raw(*ids: uuid.UUID) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(each.bytes for each in ids), "V16")


def workers(*ids: uuid.UUID) -> dict[str, Column]:
    count = len(ids)
    return {
        "id": Column(raw(*ids)),
        "number": Column(np.arange(count) + 2**31 + 7),
        "occupation": Column(
            np.arange(count) % 2, np.arange(count) == 2, ("rider", "construction")
        ),
        "listed": Column(np.arange(count) == 1),
        "blocked_because": Column(np.zeros(count, int), np.arange(count) != 1, ("重复",)),
        "created_at": Column(np.full(count, MICROS)),
        "changed_at": Column(np.full(count, MICROS)),
    }


async def test_values_come_back_as_they_were_meant(database: Database) -> None:
    ids = [new_id() for _ in range(4)]
    async with bulk_load(database, [WORKERS, CONSENTS], nothing) as load:
        assert await load.add(WORKERS, workers(*ids)) == 4
    await tidy(database, [WORKERS, CONSENTS])
    async with database.read() as tx:
        rows = (await tx.scalars(sa.select(Worker).order_by(Worker.number))).all()
    assert [row.id for row in rows] == ids
    assert [row.number for row in rows] == [2**31 + 7 + index for index in range(4)]
    rider, builder = Occupation.RIDER, Occupation.CONSTRUCTION
    assert [row.occupation for row in rows] == [rider, builder, None, builder]
    assert [row.listed for row in rows] == [False, True, False, False]
    assert [row.blocked_because for row in rows] == [None, "重复", None, None]
    assert {row.created_at for row in rows} == {BORN}
    assert {row.phone_index for row in rows} == {None}
    assert rows[0].erased_at is None


@pytest.mark.parametrize("thousandths", [0, 1, 250, 999, 1000, 1001, 9_999_999])
async def test_numbers_with_three_places_are_exact(database: Database, thousandths: int) -> None:
    uses = table_of(FacilityUse)
    kept = sa.table("kept", sa.column("n"))
    async with database.write() as tx:
        await tx.execute(sa.text("CREATE TABLE kept (n NUMERIC(12, 3))"))
    table = sa.Table("kept", sa.MetaData(), sa.Column("n", uses.c.quantity.type))
    async with bulk_load(database, [table], nothing) as load:
        await load.add(table, {"n": Column(np.array([thousandths]))})
    async with database.read() as tx:
        found = await tx.scalar(sa.select(sa.cast(kept.c.n, uses.c.quantity.type)))
    assert found == Decimal(thousandths) / 1000


async def test_days_are_days(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(sa.text("CREATE TABLE kept (d DATE)"))
    table = sa.Table("kept", sa.MetaData(), sa.Column("d", sa.Date()))
    days = [date(1999, 12, 31), date(2000, 1, 1), date(2026, 2, 28)]
    async with bulk_load(database, [table], nothing) as load:
        numbers = [(day - date(1970, 1, 1)).days for day in days]
        await load.add(table, {"d": Column(np.array(numbers))})
    async with database.read() as tx:
        assert (await tx.scalars(sa.select(table.c.d).order_by(table.c.d))).all() == days


async def test_every_index_and_key_is_back_and_holds(database: Database) -> None:
    before = await furniture(database)
    worker = new_id()
    async with bulk_load(database, [WORKERS, CONSENTS], nothing) as load:
        await load.add(WORKERS, workers(worker))
    assert changed(before, await furniture(database)) == {}
    with pytest.raises(sa.exc.IntegrityError):
        async with database.write() as tx:
            await tx.execute(
                sa.insert(Consent).values(
                    id=new_id(), worker_id=new_id(), version="1", channel="x", given_at=BORN
                )
            )


async def test_a_row_that_points_nowhere_fails_the_whole_load(database: Database) -> None:
    before, worker = await furniture(database), new_id()
    consent = {
        "id": Column(raw(new_id())),
        "worker_id": Column(raw(new_id())),
        "version": Column(np.zeros(1, int), words=("1",)),
        "channel": Column(np.zeros(1, int), words=("x",)),
        "given_at": Column(np.array([MICROS])),
    }

    async def load_both() -> None:
        async with bulk_load(database, [WORKERS, CONSENTS], nothing) as load:
            await load.add(WORKERS, workers(worker))
            await load.add(CONSENTS, consent)

    with pytest.raises(Exception, match=r"points at no row|foreign key"):
        await load_both()
    assert changed(before, await furniture(database)) == {}
    async with database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Worker)) == 0


async def test_a_table_with_rows_is_not_filled(database: Database) -> None:
    async with bulk_load(database, [WORKERS], nothing) as load:
        await load.add(WORKERS, workers(new_id()))
    with pytest.raises(NotEmpty):
        async with bulk_load(database, [WORKERS], nothing):
            pytest.fail("the load began")
    async with database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Worker)) == 1


async def test_a_column_that_must_have_a_value_and_has_none_is_refused(database: Database) -> None:
    rows = workers(new_id())
    del rows["created_at"]

    async def load_these(rows: dict[str, Column]) -> None:
        async with bulk_load(database, [WORKERS], nothing) as load:
            await load.add(WORKERS, rows)

    with pytest.raises(Exception, match="created_at"):
        await load_these(rows)
    with pytest.raises(ValueError, match="has no column colour"):
        await load_these({"colour": Column(np.zeros(1))})
