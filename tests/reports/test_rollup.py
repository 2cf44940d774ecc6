"""Rollups: counted from raw rows, summed upwards, found by what changed."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.reports import crowds, vectors
from app.reports.rollup import roll_up
from app.reports.rules.counters import C
from app.reports.tables import Grain, Rollup, RollupDue
from app.runtime import Runtime
from tests.reports.histories import AT, Author

pytestmark = pytest.mark.anyio

RETENTION = timedelta(days=180)


async def test_every_visit_is_counted_once_on_every_level(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        story = await Author(tx, runtime, random.Random(1)).write()
    await roll_up(runtime.database, at=AT, retention=RETENTION)
    visits = await _visits(runtime)
    everything = [*story.visits]
    firsts = sum(1 for visit in everything if not visit.re_entry)
    stations = {station.id for station in (*story.stations, *story.foreign)}
    days = {(v.station_id, v.local_day) for v in everything}
    assert {key[0] for key in visits if key[1] is Grain.DAY} >= stations
    assert days <= {(key[0], key[2]) for key in visits if key[1] is Grain.DAY}
    for grain in Grain:
        counted = sum(n for key, n in visits.items() if key[0] in stations and key[1] is grain)
        assert counted == firsts
    roots = await _roots(runtime)
    for grain in Grain:
        assert sum(n for key, n in visits.items() if key[0] in roots and key[1] is grain) == firsts


async def _visits(runtime: Runtime) -> dict[tuple[object, Grain, object], int]:
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(RollupDue)) == 0
        rows = (await tx.scalars(sa.select(Rollup))).all()
    found = {}
    for row in rows:
        counts = vectors.unpacked(row.counts)
        n = sum(counts.get(c, 0) for c in (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE))
        found[row.place_id, row.grain, row.from_day] = n
        assert row.crowd is not None
        assert row.uniques == len(crowds.everybody(crowds.unpacked(row.crowd)))
    return found


async def _roots(runtime: Runtime) -> set[object]:
    from app.places.tables import Unit

    async with runtime.database.read() as tx:
        return set(await tx.scalars(sa.select(Unit.id).where(Unit.parent_id.is_(None))))
