"""Leaving, and using facilities: by workers inside, and by staff of the station."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.people.rules import Role
from app.people.tables import Occupation
from app.places.rules import Kind
from app.places.tables import Facility, FacilityStatus, Station
from app.runtime import Runtime
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.tables import FacilityUse, Visit
from tests.conftest import Clock
from tests.support.worlds import (
    SomeAdmin,
    SomeWorker,
    a_facility,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Room:
    """A station with a microwave, and a worker inside."""

    station: Station
    microwave: Facility
    worker: SomeWorker
    visit_id: uuid.UUID


async def a_room(held: Runtime, *, consented: bool = True) -> Room:
    at = held.now()
    async with held.database.write() as tx:
        station = await a_station(tx, at=at)
        microwave = await a_facility(tx, station, at=at)
        worker = await a_worker(tx, held, at=at, consented=consented)
        visit_id = await enters(tx, held, station, worker, consented=consented)
    return Room(station, microwave, worker, visit_id)


async def enters(
    tx: Any, held: Runtime, station: Station, worker: SomeWorker, *, consented: bool = True
) -> uuid.UUID:
    arrival = Arrival(
        station_id=station.id,
        timezone=station.timezone,
        owner_key=worker.owner_key,
        worker_id=worker.id if consented else None,
        occupation=Occupation.RIDER,
        mode=Kind.SCAN,
        party_size=1,
        max_stay=timedelta(minutes=station.max_stay_min),
    )
    return await presence.open_visit(tx, arrival, started_at=held.now())


async def uses(
    client: httpx.AsyncClient,
    facility: Facility,
    who: SomeWorker | SomeAdmin,
    key: str | None = "key-1",
    body: Any = None,
) -> httpx.Response:
    headers = who.headers | ({"Idempotency-Key": key} if key is not None else {})
    return await client.post(f"/v1/facilities/{facility.id}/uses", json=body, headers=headers)


async def ends(
    client: httpx.AsyncClient, use: httpx.Response, who: SomeWorker | SomeAdmin
) -> httpx.Response:
    return await client.post(f"/v1/facility-uses/{use.json()['id']}/end", headers=who.headers)


async def visit_of(held: Runtime, room: Room) -> Visit:
    async with held.database.read() as tx:
        return await tx.get_one(Visit, room.visit_id)


async def count_uses(held: Runtime) -> int:
    async with held.database.read() as tx:
        return await tx.scalar(sa.select(sa.func.count()).select_from(FacilityUse)) or 0


@pytest.mark.parametrize("consented", [True, False])
async def test_leaving_is_said_by_the_worker(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, consented: bool
) -> None:
    room = await a_room(runtime, consented=consented)
    clock.advance(600)
    left = await client.post(f"/v1/visits/{room.visit_id}/leave", headers=room.worker.headers)
    assert left.status_code == 200, left.text
    assert left.json()["end_source"] == "worker"
    visit = await visit_of(runtime, room)
    assert visit.ended_at == clock.now()
    assert visit.left_at == visit.ended_at
    assert (visit.worker_id == room.worker.id) is consented


async def test_nobody_leaves_for_another(client: httpx.AsyncClient, runtime: Runtime) -> None:
    for consented in (True, False):
        room = await a_room(runtime, consented=consented)
        async with runtime.database.write() as tx:
            stranger = await a_worker(tx, runtime, at=runtime.now())
        answer = await client.post(f"/v1/visits/{room.visit_id}/leave", headers=stranger.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "visit_not_found")
        assert (await visit_of(runtime, room)).ended_at is None
    without = await client.post(f"/v1/visits/{room.visit_id}/leave")
    assert without.status_code == 401


async def test_a_use_has_a_beginning_and_an_end_and_keeps_the_visit_counted(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    room = await a_room(runtime)
    clock.advance(30 * 60)
    begun = await uses(client, room.microwave, room.worker)
    assert begun.status_code == 201, begun.text
    assert begun.json()["ended_at"] is None
    assert (await visit_of(runtime, room)).stay_until == clock.now() + timedelta(minutes=60)
    clock.advance(120)
    ended = await ends(client, begun, room.worker)
    assert ended.status_code == 200, ended.text
    assert (await visit_of(runtime, room)).stay_until == clock.now() + timedelta(minutes=60)
    clock.advance(60)
    again = await ends(client, begun, room.worker)
    assert (again.status_code, again.json()) == (200, ended.json())


async def test_a_quantity_is_over_at_once(client: httpx.AsyncClient, runtime: Runtime) -> None:
    room = await a_room(runtime)
    use = await uses(client, room.microwave, room.worker, body={"quantity": 0.125})
    assert use.status_code == 201, use.text
    assert use.json()["quantity"] == 0.125
    assert use.json()["ended_at"] == use.json()["begun_at"]


async def test_the_same_key_is_one_use(client: httpx.AsyncClient, runtime: Runtime) -> None:
    room = await a_room(runtime)
    first = await uses(client, room.microwave, room.worker, body={"quantity": 2})
    again = await uses(client, room.microwave, room.worker, body={"quantity": 2})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = await uses(client, room.microwave, room.worker, body={"quantity": 3})
    assert (other.status_code, other.json()["code"]) == (422, "use_key_reused")
    without = await uses(client, room.microwave, room.worker, key=None)
    assert without.status_code == 400
    assert await count_uses(runtime) == 1


async def test_the_same_key_at_the_same_time_is_one_use(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    room = await a_room(runtime)
    answers = await asyncio.gather(*(uses(client, room.microwave, room.worker) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_key_is_its_owners_own(client: httpx.AsyncClient, runtime: Runtime) -> None:
    room = await a_room(runtime)
    async with runtime.database.write() as tx:
        other = await a_worker(tx, runtime, at=runtime.now())
        await enters(tx, runtime, room.station, other)
    answers = [await uses(client, room.microwave, who) for who in (room.worker, other)]
    assert [answer.status_code for answer in answers] == [201, 201]


@pytest.mark.parametrize(
    "quantity", [0, -1, 100_000.001, 0.0001, "many", "NaN", 1e400, True, [], {"a": 1}]
)
async def test_a_bad_quantity_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, quantity: Any
) -> None:
    room = await a_room(runtime)
    headers = room.worker.headers | {"Idempotency-Key": "k", "Content-Type": "application/json"}
    text = "1e400" if quantity == 1e400 else httpx.Request("POST", "http://x", json=quantity).read()
    answer = await client.post(
        f"/v1/facilities/{room.microwave.id}/uses",
        content='{"quantity": %s}' % (text if isinstance(text, str) else text.decode()),
        headers=headers,
    )
    assert answer.status_code == 422, answer.text
    assert await count_uses(runtime) == 0


async def test_only_who_is_inside_uses_it(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    room = await a_room(runtime)
    async with runtime.database.write() as tx:
        outside = await a_worker(tx, runtime, at=runtime.now())
        elsewhere = await a_worker(tx, runtime, at=runtime.now())
        await enters(tx, runtime, await a_station(tx, at=runtime.now()), elsewhere)
    for who in (outside, elsewhere):
        answer = await uses(client, room.microwave, who)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_inside")
    clock.advance(60 * 60)  # No sweep has run, and yet his visit is over.
    late = await uses(client, room.microwave, room.worker)
    assert (late.status_code, late.json()["code"]) == (409, "not_inside")
    assert await count_uses(runtime) == 0


@pytest.mark.parametrize(
    "changes", [{"status": FacilityStatus.OUT_OF_ORDER}, {"retired_at": "now"}]
)
async def test_what_is_out_of_order_or_gone_is_not_used(
    client: httpx.AsyncClient, runtime: Runtime, changes: dict[str, Any]
) -> None:
    room = await a_room(runtime)
    values = {name: runtime.now() if it == "now" else it for name, it in changes.items()}
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Facility).values(**values))
    answer = await uses(client, room.microwave, room.worker)
    assert answer.status_code in (404, 409)
    assert "out" in answer.json()["code"] or "not_found" in answer.json()["code"]
    assert await count_uses(runtime) == 0


async def test_a_degraded_one_is_used(client: httpx.AsyncClient, runtime: Runtime) -> None:
    room = await a_room(runtime)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Facility).values(status=FacilityStatus.DEGRADED))
    assert (await uses(client, room.microwave, room.worker)).status_code == 201


async def test_nobody_ends_the_use_of_another(client: httpx.AsyncClient, runtime: Runtime) -> None:
    room = await a_room(runtime)
    begun = await uses(client, room.microwave, room.worker)
    async with runtime.database.write() as tx:
        other = await a_worker(tx, runtime, at=runtime.now())
        await enters(tx, runtime, room.station, other)
    answer = await ends(client, begun, other)
    assert (answer.status_code, answer.json()["code"]) == (404, "use_not_found")
    assert (await ends(client, begun, room.worker)).status_code == 200


async def test_after_leaving_a_use_still_ends_and_opens_no_visit(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    room = await a_room(runtime)
    begun = await uses(client, room.microwave, room.worker)
    await client.post(f"/v1/visits/{room.visit_id}/leave", headers=room.worker.headers)
    left = await visit_of(runtime, room)
    clock.advance(60)
    ended = await ends(client, begun, room.worker)
    assert ended.status_code == 200, ended.text
    now = await visit_of(runtime, room)
    assert (now.ended_at, now.stay_until) == (left.ended_at, left.stay_until)


async def test_staff_record_uses_within_their_scope(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    room = await a_room(runtime)
    at = runtime.now()
    async with runtime.database.write() as tx:
        keeper = await an_admin(tx, at=at, role=Role.STATION_KEEPER, station=room.station)
        unit = await a_unit(tx, at=at, name="别的工会")
        foreign = await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=unit)
        auditor = await an_admin(tx, at=at, role=Role.AUDITOR)
    begun = await uses(client, room.microwave, keeper)
    assert begun.status_code == 201, begun.text
    assert (await uses(client, room.microwave, keeper)).status_code == 200
    assert (await uses(client, room.microwave, foreign)).status_code == 404
    assert (await uses(client, room.microwave, auditor)).status_code == 403
    assert (await ends(client, begun, foreign)).status_code == 404
    assert (await ends(client, begun, auditor)).status_code == 403
    # A worker's use may be ended by staff too: he forgot.
    his = await uses(client, room.microwave, room.worker)
    for use in (begun, his):
        assert (await ends(client, use, keeper)).status_code == 200
    async with runtime.database.read() as tx:
        rows = (await tx.scalars(sa.select(FacilityUse).order_by(FacilityUse.id))).all()
    assert [(row.admin_id, row.visit_id) for row in rows] == [
        (keeper.id, None),
        (None, room.visit_id),
    ]
