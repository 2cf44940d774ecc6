"""The tree of units stays a tree, also when two administrators change it at once."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE
from app.places import units
from app.places.tables import Station, Unit, UnitKind
from app.places.units import NewUnit, UnitInUse, UnitInvalid
from app.runtime import Runtime
from tests.support.worlds import a_station, a_unit

pytestmark = pytest.mark.anyio

Act = Callable[[AsyncSession, Unit, Unit], Awaitable[object]]


async def a_tree(runtime: Runtime) -> dict[str, uuid.UUID]:
    """A city with two districts, each with a street below."""
    at = runtime.now()
    async with runtime.database.write() as tx:
        city = await a_unit(tx, at=at)
        found = {"city": city.id}
        for name in ("north", "south"):
            district = await a_unit(tx, at=at, parent=city, name=name)
            street = await a_unit(tx, at=at, parent=district, name=f"{name} street")
            found |= {name: district.id, f"{name} street": street.id}
    return found


async def changes(runtime: Runtime, one: uuid.UUID, other: uuid.UUID, act: Act) -> bool:
    """Read two units, let everybody else read too, then act; tells whether it was done."""
    try:
        async with runtime.database.write() as tx:
            both = await units.get_unit(tx, one), await units.get_unit(tx, other)
            if not runtime.database.is_embedded:  # There, writers are one after the other.
                await asyncio.sleep(0.2)
            await act(tx, *both)
    except (UnitInvalid, UnitInUse):
        return False
    return True


async def assert_a_tree(runtime: Runtime) -> dict[str, str]:
    """Hold every path against the parents; gives the paths by name."""
    async with runtime.database.read() as tx:
        rows = {unit.id: unit for unit in await tx.scalars(sa.select(Unit))}
    for unit in rows.values():
        above = rows[unit.parent_id].path + "." if unit.parent_id else ""
        assert unit.path == f"{above}{unit.number}", unit.name
    return {unit.name: unit.path for unit in rows.values()}


async def moves(runtime: Runtime, unit: uuid.UUID, parent: uuid.UUID) -> bool:
    async def act(tx: AsyncSession, unit: Unit, parent: Unit) -> None:
        await units.move(tx, unit, parent, actor=COMMAND_LINE, at=runtime.now())

    return await changes(runtime, unit, parent, act)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("north", "south"), ("south", "north")),
        (("north", "south street"), ("south", "north street")),
    ],
)
async def test_two_branches_moved_at_once_never_hang_below_each_other(
    runtime: Runtime, first: tuple[str, str], second: tuple[str, str]
) -> None:
    tree = await a_tree(runtime)
    done = await asyncio.gather(
        *(moves(runtime, tree[unit], tree[parent]) for unit, parent in (first, second))
    )
    assert sorted(done) == [False, True]
    await assert_a_tree(runtime)


async def test_what_is_added_or_moved_into_a_moving_branch_goes_with_it(runtime: Runtime) -> None:
    tree = await a_tree(runtime)
    at = runtime.now()
    async with runtime.database.write() as tx:
        city = await tx.get_one(Unit, tree["city"])
        away = await a_unit(tx, at=at, parent=city, name="away")
        guest = await a_unit(tx, at=at, parent=city, name="guest")

    async def add(tx: AsyncSession, parent: Unit, _: Unit) -> None:
        new = NewUnit("new", UnitKind.STREET, parent.id)
        await units.add(tx, new, actor=COMMAND_LINE, at=at)

    street = tree["north street"]
    done = await asyncio.gather(
        moves(runtime, tree["north"], away.id),
        changes(runtime, street, street, add),
        moves(runtime, guest.id, street),
    )
    assert all(done)
    paths = await assert_a_tree(runtime)
    for name in ("north street", "new", "guest"):
        assert paths[name].startswith(paths["away"] + "."), name


async def test_many_units_added_at_once_get_paths_of_their_own(runtime: Runtime) -> None:
    tree = await a_tree(runtime)

    async def add(tx: AsyncSession, parent: Unit, other: Unit) -> None:
        new = NewUnit(f"new {uuid.uuid4()}", UnitKind.STREET, parent.id)
        await units.add(tx, new, actor=COMMAND_LINE, at=runtime.now())

    parents = [tree["north"], tree["south"]] * 2
    done = await asyncio.gather(*(changes(runtime, one, one, add) for one in parents))
    assert all(done)
    assert len(set((await assert_a_tree(runtime)).values())) == 9


@pytest.mark.parametrize("kind", [Unit, Station])
async def test_what_is_being_added_to_a_unit_keeps_it_in_use(
    runtime: Runtime, kind: type[Unit | Station]
) -> None:
    if runtime.database.is_embedded:
        return  # There, writers are one after the other.
    at = runtime.now()
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=at)
    async with AsyncSession(runtime.database.engine, expire_on_commit=False) as tx:
        own = await units.get_in_use(tx, unit.id, within=sa.select(Unit.id))

        async def retire() -> bool:
            async def act(tx: AsyncSession, one: Unit, _: Unit) -> None:
                await units.retire(tx, one, actor=COMMAND_LINE, at=at)

            return await changes(runtime, unit.id, unit.id, act)

        retiring = asyncio.create_task(retire())
        await asyncio.sleep(0.5)
        if kind is Unit:
            new = NewUnit("new", UnitKind.STREET, own.id)
            await units.add(tx, new, actor=COMMAND_LINE, at=at)
        else:
            await a_station(tx, unit=own, at=at)
        await tx.commit()
    assert await retiring is False
