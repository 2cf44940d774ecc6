"""A controller that fell silent and was heard again leaves an outage, whoever heard it."""

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from app.db.engine import Database
from app.doors import outages
from app.doors.desk import ControllerDesk
from app.doors.tables import Controller, ControllerOutage, ListeningSpell
from app.places.rules import local_day
from app.runtime import Runtime
from tests.conftest import NIGHT
from tests.support.worlds import Scene, a_scene

pytestmark = pytest.mark.anyio


def at(seconds: float) -> datetime:
    return NIGHT + timedelta(seconds=seconds)


def a_process(runtime: Runtime) -> ControllerDesk:
    """What one process remembers; it has just begun."""
    return ControllerDesk(
        runtime.database,
        runtime.wakeups,
        now=runtime.now,
        monotonic=lambda: 1000.0,
        silence_s=75,
    )


async def written(database: Database, controller_id: uuid.UUID) -> list[tuple[float, float]]:
    async with database.read() as tx:
        rows = await tx.execute(
            sa.select(ControllerOutage.from_at, ControllerOutage.until_at)
            .where(
                ControllerOutage.controller_id == controller_id,
                ControllerOutage.from_at < ControllerOutage.until_at,
            )
            .order_by(ControllerOutage.from_at)
        )
        second = timedelta(seconds=1)
        return [((row.from_at - NIGHT) / second, (row.until_at - NIGHT) / second) for row in rows]


async def seen(database: Database, scene: Scene) -> datetime | None:
    async with database.read() as tx:
        return await tx.scalar(
            sa.select(Controller.seen_at).where(Controller.id == scene.controller_id)
        )


async def test_silence_beyond_the_limit_is_an_outage_and_the_limit_is_none(
    runtime: Runtime,
) -> None:
    scene, process = await a_scene(runtime), a_process(runtime)
    for seconds in (0, 75, 151, 160, 300):
        process.heard(scene.controller_id, at(seconds))
        await process.write_heard(at=at(seconds))
    assert await written(runtime.database, scene.controller_id) == [(75, 151), (160, 300)]
    assert await seen(runtime.database, scene) == at(300)


async def test_it_ends_when_it_is_heard_first_not_when_that_is_written(runtime: Runtime) -> None:
    scene, process = await a_scene(runtime), a_process(runtime)
    for seconds in (100, 102, 104):
        process.heard(scene.controller_id, at(seconds))
    await process.write_heard(at=at(105))
    assert await written(runtime.database, scene.controller_id) == [(0, 100)]
    assert await seen(runtime.database, scene) == at(104)


@pytest.mark.parametrize("first", [0, 1])
async def test_it_does_not_matter_which_process_writes_first(runtime: Runtime, first: int) -> None:
    scene = await a_scene(runtime)
    early, late = a_process(runtime), a_process(runtime)
    early.heard(scene.controller_id, at(200))
    late.heard(scene.controller_id, at(500))
    order = [early, late] if first == 0 else [late, early]
    for process in order:
        await process.write_heard(at=at(501))
    assert await written(runtime.database, scene.controller_id) == [(0, 200), (200, 500)]
    assert await seen(runtime.database, scene) == at(500)


async def test_a_sign_of_life_told_late_may_leave_no_outage(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    early, late = a_process(runtime), a_process(runtime)
    early.heard(scene.controller_id, at(50))
    late.heard(scene.controller_id, at(100))
    await late.write_heard(at=at(101))
    assert await written(runtime.database, scene.controller_id) == [(0, 100)]
    await early.write_heard(at=at(102))
    assert await written(runtime.database, scene.controller_id) == []


async def test_an_outage_that_is_cut_short_is_a_change_of_every_day_it_was_on(
    runtime: Runtime,
) -> None:
    scene, day = await a_scene(runtime), 86_400
    early, late = a_process(runtime), a_process(runtime)
    for seconds in range(50, 3 * day, 60):
        early.heard(scene.controller_id, at(seconds))
    late.heard(scene.controller_id, at(3 * day))
    await late.write_heard(at=at(3 * day + 1))
    assert await written(runtime.database, scene.controller_id) == [(0, 3 * day)]
    await early.write_heard(at=at(3 * day + 2))
    assert await written(runtime.database, scene.controller_id) == []
    async with runtime.database.read() as tx:
        changed = await tx.scalars(
            sa.select(ControllerOutage.from_at).where(
                ControllerOutage.changed_at == at(3 * day + 2)
            )
        )
        days = {local_day(one, "Asia/Shanghai") for one in changed}
    assert days == {local_day(at(number * day), "Asia/Shanghai") for number in range(4)}


async def test_two_processes_that_hear_it_again_at_once_write_one_outage(runtime: Runtime) -> None:
    scenes = [await a_scene(runtime) for _ in range(5)]
    for round_number in range(1, 6):
        back = round_number * 200
        processes = [a_process(runtime) for _ in range(3)]
        for number, process in enumerate(processes):
            for scene in scenes if number % 2 else scenes[::-1]:
                process.heard(scene.controller_id, at(back + number))
        await asyncio.gather(*(process.write_heard(at=at(back + 3)) for process in processes))
    expected = [(max(0, back - 200 + 2 * (back > 200)), back) for back in range(200, 1001, 200)]
    for scene in scenes:
        assert await written(runtime.database, scene.controller_id) == expected


@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
async def test_a_process_that_waits_for_a_controller_holds_none_that_comes_after_it(
    runtime: Runtime, returned: bool
) -> None:
    """Else two that heard the same wait in a circle, whether or not one of them had returned."""
    scenes = [await a_scene(runtime) for _ in range(2)]
    first, last = sorted(scene.controller_id for scene in scenes)
    process = a_process(runtime)
    process.heard(first, at(0))
    if not returned:
        process.heard(last, at(0))
    await process.write_heard(at=at(1))
    process.heard(first, at(2))  # Now its row lies behind the other one's.
    await process.write_heard(at=at(3))
    process.heard(last, at(10))
    process.heard(first, at(11))
    held = sa.select(Controller.id).with_for_update(key_share=True, skip_locked=True)
    async with runtime.database.write() as tx:
        await tx.execute(held.where(Controller.id == first))
        writing = asyncio.create_task(process.write_heard(at=at(12)))
        await asyncio.wait([writing], timeout=0.3)
        assert not writing.done()
        assert await tx.scalar(held.where(Controller.id == last)) == last
    await writing
    async with runtime.database.read() as tx:
        rows = await tx.execute(sa.select(Controller.id, Controller.seen_at))
        assert {row.id: row.seen_at for row in rows} == {first: at(11), last: at(10)}


async def test_what_could_not_be_written_is_written_later(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, process = await a_scene(runtime), a_process(runtime)
    process.heard(scene.controller_id, at(10))
    await process.write_heard(at=at(11))

    async def fails(*_args: object, **_more: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(outages, "listen", fails)
        for seconds in (20, 200, 210):
            process.heard(scene.controller_id, at(seconds))
            with pytest.raises(OSError, match="no room"):
                await process.write_heard(at=at(seconds + 1))
    await process.write_heard(at=at(215))
    assert await written(runtime.database, scene.controller_id) == [(20, 200)]
    assert await seen(runtime.database, scene) == at(210)


async def deaf(database: Database, since: float, until: float) -> list[tuple[float, float]]:
    async with database.read() as tx:
        found = await outages.deaf_times(tx, from_at=at(since), until_at=at(until))
    second = timedelta(seconds=1)
    return [((begins - NIGHT) / second, (ends - NIGHT) / second) for begins, ends in found]


async def test_while_no_process_was_there_nobody_knows(runtime: Runtime) -> None:
    process = a_process(runtime)
    assert await deaf(runtime.database, 0, 1000) == []
    for seconds in (100, 105, 110, 125, 300, 305):
        await process.write_heard(at=at(seconds))
    assert await deaf(runtime.database, 0, 310) == [(125, 300)]
    assert await deaf(runtime.database, 150, 200) == [(150, 200)]
    assert await deaf(runtime.database, 0, 400) == [(125, 300), (305, 400)]


async def test_processes_that_began_at_once_leave_no_gap_between_them(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        tx.add_all(ListeningSpell(from_at=at(n), until_at=at(n)) for n in (0, 1, 3))
    await a_process(runtime).write_heard(at=at(12))
    assert await deaf(runtime.database, 0, 20) == []


async def test_several_processes_are_there_as_one(runtime: Runtime) -> None:
    await asyncio.gather(*(a_process(runtime).write_heard(at=at(number)) for number in range(4)))
    for seconds in (10, 12, 11, 20):
        await a_process(runtime).write_heard(at=at(seconds))
    assert await deaf(runtime.database, 0, 25) == []
