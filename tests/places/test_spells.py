"""What a facility was like does not depend on the order in which the words on it came."""

import itertools
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.places import facilities, spells
from app.places.facilities import NewFacility
from app.places.tables import Facility, FacilityKind, FacilitySpell, FacilityStatus
from app.runtime import Runtime
from tests.conftest import NIGHT
from tests.support.worlds import a_station

pytestmark = pytest.mark.anyio

WORKING, DEGRADED, OUT, UNKNOWN = (
    FacilityStatus.WORKING,
    FacilityStatus.DEGRADED,
    FacilityStatus.OUT_OF_ORDER,
    FacilityStatus.UNKNOWN,
)


def at(minutes: float) -> datetime:
    return NIGHT + timedelta(minutes=minutes)


def minute(instant: datetime | None) -> float | None:
    return None if instant is None else (instant - NIGHT) / timedelta(minutes=1)


async def a_microwave(tx: AsyncSession) -> Facility:
    station = await a_station(tx, at=NIGHT)
    new = [NewFacility(FacilityKind.MICROWAVE, "", 2)]
    (made,) = await facilities.add(tx, station, new, actor=COMMAND_LINE, at=NIGHT)
    return made


async def amends(tx: AsyncSession, facility: Facility, minutes: float, **changes: Any) -> None:
    await facilities.amend(tx, facility, changes=changes, actor=COMMAND_LINE, at=at(minutes))


async def hears(
    tx: AsyncSession, facility: Facility, status: FacilityStatus, minutes: float, *, told: float
) -> bool:
    return await facilities.report_status(
        tx, facility.id, status, status_at=at(minutes), at=at(told)
    )


async def written(tx: AsyncSession, facility: Facility) -> list[tuple[Any, ...]]:
    rows = await tx.scalars(
        sa.select(FacilitySpell)
        .where(FacilitySpell.facility_id == facility.id)
        .order_by(FacilitySpell.from_at)
        .execution_options(populate_existing=True)
    )
    return [(minute(row.from_at), minute(row.until_at), row.status, row.quantity) for row in rows]


async def test_each_word_holds_until_the_next(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        oven = await a_microwave(tx)
        await amends(tx, oven, 10, status=OUT)
        await amends(tx, oven, 20, quantity=3)
        assert await hears(tx, oven, WORKING, 30, told=30)
        await facilities.retire(tx, oven, actor=COMMAND_LINE, at=at(40))
        assert await written(tx, oven) == [
            (0, 10, WORKING, 2),
            (10, 20, OUT, 2),
            (20, 30, OUT, 3),
            (30, 40, WORKING, 3),
        ]


async def test_a_late_word_counts_from_its_own_time(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        oven = await a_microwave(tx)
        await amends(tx, oven, 20, quantity=1)
        await amends(tx, oven, 30, status=DEGRADED)
        assert not await hears(tx, oven, OUT, 10, told=50)
        await tx.refresh(oven)
        assert (oven.status, oven.status_at) == (DEGRADED, at(30))
        assert await written(tx, oven) == [
            (0, 10, WORKING, 2),
            (10, 20, OUT, 2),
            (20, 30, OUT, 1),
            (30, None, DEGRADED, 1),
        ]


async def test_words_in_any_order_leave_the_same(runtime: Runtime) -> None:
    chance = random.Random(7)
    for _ in range(6):
        words = [(chance.choice(list(FacilityStatus)), chance.randint(-5, 60)) for _ in range(6)]
        told = list(itertools.permutations(words))
        results = set()
        for order in [words, words[::-1], *chance.sample(told, 3)]:
            async with runtime.database.write() as tx:
                oven = await a_microwave(tx)
                begun = [word for word in order if chance.random() < 0.5]
                for status, when in begun:
                    await hears(tx, oven, status, when, told=70)
                await amends(tx, oven, 25, quantity=5)
                await facilities.retire(tx, oven, actor=COMMAND_LINE, at=at(50))
                for status, when in order:
                    if (status, when) not in begun:
                        await hears(tx, oven, status, when, told=70)
                await tx.refresh(oven)
                last = (oven.status, oven.status_at)
                results.add((tuple(await written(tx, oven)), last))
        assert len(results) == 1, results


async def test_what_was_out_of_order_before_the_day_is_known_since_when(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        oven = await a_microwave(tx)
        other = await a_microwave(tx)
        for minutes in (10, 20, 30):
            await hears(tx, oven, OUT, minutes, told=minutes)
        await hears(tx, oven, WORKING, 40, told=40)
        await hears(tx, oven, OUT, 50, told=50)
        found = await of(tx, [oven, other], 25, 45)
    assert found[0] == [(20, OUT, 10, 30), (30, OUT, 10, 40), (40, WORKING, None, None)]
    assert found[1] == [(0, WORKING, None, None)]


async def test_a_fault_is_not_over_while_nobody_knows(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        oven = await a_microwave(tx)
        words = [(10, OUT), (20, WORKING), (30, UNKNOWN), (40, OUT), (50, UNKNOWN), (60, OUT)]
        words += [(70, UNKNOWN), (75, UNKNOWN), (80, DEGRADED), (90, UNKNOWN), (95, OUT)]
        for minutes, status in words:
            await hears(tx, oven, status, minutes, told=minutes)
        whole = [
            (0, WORKING, None, None),
            (10, OUT, 10, 20),
            (20, WORKING, None, None),
            (30, UNKNOWN, None, None),
            (40, OUT, 40, 50),
            (50, UNKNOWN, 40, 50),
            (60, OUT, 40, 70),
            (70, UNKNOWN, 40, 70),
            (75, UNKNOWN, 40, 70),
            (80, DEGRADED, None, None),
            (90, UNKNOWN, None, None),
            (95, OUT, 95, None),
        ]
        for since in range(100):
            (found,) = await of(tx, [oven], since, 100)
            assert found == [one for one in whole if one in found]
            assert found[0][0] <= since
            assert found[-1] == whole[-1]


async def of(
    tx: AsyncSession, things: Sequence[Facility], since: float, until: float
) -> list[list[tuple[Any, ...]]]:
    stations = [thing.station_id for thing in things]
    found = await spells.spells(tx, stations, from_at=at(since), until_at=at(until))
    return [
        [
            (minute(one.from_at), one.status, minute(one.out_from_at), minute(one.out_until_at))
            for one in found[thing.station_id]
        ]
        for thing in things
    ]


async def test_a_spell_that_ends_where_the_time_begins_is_given_too(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        oven = await a_microwave(tx)
        await hears(tx, oven, OUT, 10, told=10)
        await hears(tx, oven, WORKING, 20, told=20)
        ((first, *_),) = [await of(tx, [oven], 20, 30)]
    assert first == [(10, OUT, 10, 20), (20, WORKING, None, None)]
