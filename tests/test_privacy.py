"""A person's data: what export shows, what erasure and time take away, and what stays (law 15)."""

import json
import re
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app import privacy
from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import KEPT_CLOSED, AlertKind
from app.alerts.tables import Alert
from app.alerts.webhooks.tables import Delivery, Webhook
from app.db.types import Base, new_id
from app.doors import people_counts
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import (
    AckEvidence,
    Command,
    CommandKind,
    JournalEntry,
    OfflineEntry,
    Pass,
    PeopleCount,
    QuarantinedEvent,
    Scan,
)
from app.people import sign_in, workers
from app.people.rules import owner_key
from app.people.sign_in import Asked, Budgets
from app.people.tables import (
    AdminLoginFailure,
    AdminSession,
    Consent,
    LoginChallenge,
    LoginTurn,
    Occupation,
    Worker,
    WorkerSession,
)
from app.places.rules import Because, Kind
from app.places.tables import Facility, FacilityKind, FacilityStatus
from app.runtime import Runtime
from app.tables import every_table
from app.visits import presence
from app.visits.tables import FacilityUse, Visit
from app.visits.usage import User
from tests.conftest import Clock
from tests.support.worlds import Scene, SomeWorker, a_scene, a_worker, an_admin

pytestmark = pytest.mark.anyio

PHONE = "+8613812341234"


async def a_life(
    runtime: Runtime,
    scene: Scene,
    *,
    phone: str = PHONE,
    consented: bool = True,
    at: datetime | None = None,
) -> SomeWorker:
    """Give a worker a row in every table that can know him, at an instant."""
    at = at or runtime.now()
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=at, consented=consented)
        row = await tx.get_one(Worker, worker.id)
        index = workers.phones.blind_index(runtime.vault.key("phone-index"), phone)
        row.phone_index = index
        row.phone_sealed = workers.phones.seal(
            runtime.vault.key("phone"), phone, aad=f"worker|phone|{worker.id}"
        )
        budgets = Budgets(9, 99, 99, 99, None, 5, 10, listed_only=False)
        await sign_in.request_code(tx, runtime.vault, Asked(phone, "n", None), budgets, at=at)
        known = worker.id if consented else None
        visit_id, scan_id = new_id(), new_id()
        tx.add(
            Pass(
                id=new_id().hex,
                worker_id=worker.id,
                subject="s",
                door_id=scene.door.id,
                issued_at=at,
                expires_at=at,
            )
        )
        tx.add(
            Visit(
                id=visit_id,
                station_id=scene.station.id,
                worker_id=known,
                owner_key=worker.owner_key,
                occupation=Occupation.RIDER,
                mode=Kind.SCAN,
                party_size=1,
                re_entry=False,
                started_at=at,
                stay_until=at + timedelta(hours=1),
                local_day=date(2026, 11, 23),
                local_hour=23,
                changed_at=at,
            )
        )
        await tx.flush()
        entry_id = new_id()
        tx.add(
            JournalEntry(
                id=entry_id,
                controller_id=scene.controller_id,
                epoch=0,
                seq=int(entry_id) % 2**40,
                event_id=str(entry_id),
                boot_id="b",
                type=EventType.OFFLINE_ENTRY,
                door_id=scene.door.id,
                occurred_at=at,
                corrected_at=at,
                quality=Quality.SYNCED,
                late=True,
                received_at=at,
                content_hash=b"h",
                body={},
            )
        )
        await tx.flush()
        tx.add(
            OfflineEntry(
                entry_id=entry_id,
                station_id=scene.station.id,
                door_id=scene.door.id,
                worker_id=known,
                owner_key=worker.owner_key,
                opened=True,
                reason=Reason.OK,
                mode=Kind.SCAN,
                because=Because.WEEKLY,
                happened_at=at,
                visit_id=visit_id,
                local_day=date(2026, 11, 23),
                local_hour=23,
                reviewed_at=at,
                changed_at=at,
            )
        )
        tx.add(
            Scan(
                id=scan_id,
                worker_id=known,
                owner_key=worker.owner_key,
                demand_key=b"d" * 16,
                idempotency_key=str(scan_id),
                body_hash=b"h",
                station_id=scene.station.id,
                door_id=scene.door.id,
                outcome=Outcome.GRANTED,
                reason=Reason.OK,
                party_size=1,
                scanned_at=at,
                visit_id=visit_id,
                changed_at=at,
            )
        )
        facility = Facility(
            id=new_id(),
            station_id=scene.station.id,
            kind=FacilityKind.MICROWAVE,
            name="微波炉",
            quantity=1,
            status=FacilityStatus.WORKING,
            status_at=at,
            created_at=at,
            changed_at=at,
        )
        tx.add(facility)
        await tx.flush()
        tx.add(
            Command(
                id=new_id(),
                kind=CommandKind.UNLOCK,
                station_id=scene.station.id,
                door_id=scene.door.id,
                controller_id=scene.controller_id,
                scan_id=scan_id,
                owner_key=worker.owner_key,
                state=CommandState.EXECUTED,
                created_at=at,
                expires_at=at + timedelta(seconds=10),
                changed_at=at,
            )
        )
        tx.add(
            FacilityUse(
                id=new_id(),
                facility_id=facility.id,
                station_id=scene.station.id,
                visit_id=visit_id,
                actor=User(owner_key=worker.owner_key).actor,
                idempotency_key="k",
                body_hash=b"h",
                quantity=Decimal("1.5"),
                begun_at=at,
                local_day=date(2026, 11, 23),
                local_hour=23,
                changed_at=at,
            )
        )
    return worker


async def export_of(runtime: Runtime, worker: SomeWorker) -> dict[str, Any]:
    async with runtime.database.read() as tx:
        return await privacy.export(tx, runtime.vault, worker.id, worker.owner_key)


def pointing_at_workers() -> set[str]:
    return {
        table.name
        for table in every_table().sorted_tables
        for column in table.columns
        if any(key.column.table.name == "workers" for key in column.foreign_keys)
    }


@pytest.mark.parametrize("consented", [True, False])
async def test_export_has_every_row_of_the_worker_and_nobody_elses(
    runtime: Runtime, consented: bool
) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene, consented=consented)
    other = await a_life(runtime, scene, phone="+8613912341234")
    found = await export_of(runtime, mine)
    assert pointing_at_workers() <= set(found)
    expected = {
        "workers": 1,
        "consents": int(consented),
        "worker_sessions": 1,
        "visits": 1,
        "scans": 1,
        "facility_uses": 1,
        "login_challenges": 1,
        "passes": 1,
        "offline_entries": 1,
    }
    assert {name: len(rows) for name, rows in found.items()} == expected
    text = json.dumps(found)
    assert found["workers"][0]["phone"] == PHONE
    for foreign in (other.id, other.owner_key.hex(), "13912341234"):
        assert str(foreign) not in text
    assert mine.owner_key.hex() not in text
    assert "hash" not in text
    async with runtime.database.read() as tx:
        own = {str(row) for row in await tx.scalars(sa.select(Visit.id))}
    assert found["visits"][0]["id"] in own


async def test_erasure_leaves_nothing_that_points_at_the_person(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene)
    other = await a_life(runtime, scene, phone="+8613912341234")
    before = await export_of(runtime, other)
    async with runtime.database.write() as tx:
        await privacy.erase(tx, mine.id, mine.owner_key, at=runtime.now())
    async with runtime.database.read() as tx:
        for table in every_table().sorted_tables:
            rows = (await tx.execute(sa.select(table))).mappings().all()
            for row in rows:
                if table.name == "workers" and row["id"] == mine.id:
                    assert (row["phone_sealed"], row["phone_index"], row["occupation"]) == (
                        None,
                        None,
                        None,
                    )
                    continue
                for value in row.values():
                    assert value != mine.id, table.name
                    assert value != mine.owner_key, table.name
                    assert mine.owner_key.hex() not in str(value), table.name
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Visit)) == 2
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Scan)) == 2
        (proof,) = (await tx.scalars(sa.select(Consent).where(Consent.worker_id.is_(None)))).all()
        assert proof.withdrawn_at == runtime.now()
    assert await export_of(runtime, other) == before


async def test_nobody_can_be_erased_twice(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene)
    async with runtime.database.write() as tx:
        await privacy.erase(tx, mine.id, mine.owner_key, at=runtime.now())
    async with runtime.database.write() as tx:
        with pytest.raises(workers.WorkerNotFound):
            await privacy.erase(tx, mine.id, mine.owner_key, at=runtime.now())


async def retained(runtime: Runtime) -> int:
    return await privacy.retain(runtime.database, at=runtime.now(), retention_days=180)


async def one(runtime: Runtime, kind: Any) -> Any:
    async with runtime.database.read() as tx:
        return (await tx.scalars(sa.select(kind))).one()


async def test_within_a_day_nothing_is_taken_and_after_it_the_keys_are(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene)
    clock.advance(timedelta(hours=24).total_seconds())
    assert await retained(runtime) == 0
    clock.advance(1)
    await retained(runtime)
    scan, use, command = [await one(runtime, kind) for kind in (Scan, FacilityUse, Command)]
    assert (scan.owner_key, scan.idempotency_key, scan.body_hash) == (None, None, None)
    assert (use.actor, use.idempotency_key, use.body_hash) == (None, None, None)
    assert command.owner_key is None
    assert scan.worker_id == mine.id
    assert scan.demand_key is not None
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(LoginChallenge.id)) is None
        assert await tx.scalar(sa.select(LoginTurn.subject)) is None
    assert await retained(runtime) == 0, "running it again finds nothing"


@pytest.mark.parametrize("consented", [True, False])
async def test_a_day_after_a_visit_ended_nothing_leads_from_a_key_to_it(
    runtime: Runtime, clock: Clock, consented: bool
) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene, consented=consented)
    async with runtime.database.write() as tx:
        visit = await tx.scalar(sa.select(Visit))
        assert visit is not None
        await presence.leave(tx, visit.id, mine.owner_key, at=clock.now())
    clock.advance(timedelta(hours=24).total_seconds())
    await retained(runtime)
    assert (await one(runtime, Visit)).owner_key == mine.owner_key
    clock.advance(1)
    await retained(runtime)
    visit = await one(runtime, Visit)
    assert (visit.owner_key, visit.worker_id) == (None, mine.id if consented else None)


async def test_a_live_command_keeps_its_owner(runtime: Runtime, clock: Clock) -> None:
    scene = await a_scene(runtime)
    await a_life(runtime, scene)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Command).values(state=CommandState.CLAIMED))
    clock.advance(timedelta(days=2).total_seconds())
    await retained(runtime)
    assert (await one(runtime, Command)).owner_key is not None


async def test_after_the_retention_time_a_visit_and_a_scan_lose_their_worker(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene)
    clock.advance(timedelta(days=180).total_seconds())
    await retained(runtime)
    assert (await one(runtime, Visit)).worker_id == mine.id
    clock.advance(1)
    await retained(runtime)
    visit, scan = await one(runtime, Visit), await one(runtime, Scan)
    assert (visit.worker_id, scan.worker_id) == (None, None)
    alone = await one(runtime, OfflineEntry)
    assert (alone.worker_id, alone.owner_key, alone.visit_id) == (None, None, visit.id)
    assert scan.demand_key is not None  # A random mark: what was wanted still counts.
    assert (visit.occupation, visit.party_size) == (Occupation.RIDER, 1)


async def test_what_the_field_told_ends_after_400_days_but_for_what_a_count_stands_on(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await a_life(runtime, scene)
    began = clock.now()

    def told(seq: int, **more: Any) -> JournalEntry:
        values: dict[str, Any] = {
            "id": new_id(),
            "controller_id": scene.controller_id,
            "epoch": 1,
            "seq": seq,
            "event_id": f"e{seq}",
            "boot_id": "b",
            "type": EventType.PEOPLE_IN,
            "occurred_at": clock.now(),
            "corrected_at": clock.now(),
            "quality": Quality.SYNCED,
            "late": False,
            "received_at": clock.now(),
            "content_hash": b"h",
            "body": {},
            "applied_at": clock.now(),
        }
        return JournalEntry(**values | more)

    async def counts(seq: int, **more: Any) -> None:
        async with runtime.database.write() as tx:
            entry = told(seq)
            tx.add(entry)
            await tx.flush()
            station_id, at = scene.station.id, clock.now()
            values = {"entry_id": entry.id, "station_id": station_id, "counted_at": at, "delta": 1}
            tx.add(PeopleCount(**values | more))

    async def inside() -> int:
        async with runtime.database.read() as tx:
            at = clock.now()
            found = await people_counts.between(tx, scene.station.id, since=at, until=at)
        assert found.series is not None
        return found.series.inside

    async with runtime.database.write() as tx:
        await tx.execute(sa.update(JournalEntry).values(applied_at=began))
        tx.add(told(1, type=EventType.NOTE))
        tx.add(told(2, type=EventType.NOTE, applied_at=None))
        kept = {"controller_id": scene.controller_id, "epoch": 1, "seq": 3, "event_id": "e3"}
        tx.add(
            QuarantinedEvent(
                id=new_id(),
                **kept,
                boot_id="b",
                reason="bad_time",
                received_at=began,
                content_hash=b"h",
                body={},
            )
        )
        command_id = await tx.scalar(sa.select(Command.id))
        tx.add(
            AckEvidence(
                id=new_id(),
                command_id=command_id,
                boot_id="b",
                result=CommandState.FAILED,
                received_at=began,
            )
        )
    await counts(4)
    clock.advance(60)
    await counts(5, delta=0, reset_to=3)
    clock.advance(60)
    await counts(6)
    clock.advance(60)

    async def left() -> tuple[set[int], int, int, int]:
        async with runtime.database.read() as tx:
            seqs = await tx.scalars(sa.select(JournalEntry.seq).where(JournalEntry.epoch == 1))
            each = [
                await tx.scalar(sa.select(sa.func.count()).select_from(kind)) or 0
                for kind in (PeopleCount, QuarantinedEvent, AckEvidence)
            ]
            alone = await tx.scalar(sa.select(JournalEntry.id).where(JournalEntry.epoch == 0))
        assert alone is not None, "what was opened alone is an entry still"
        return (set(seqs), *each)

    clock.set(began + privacy.RAW_FOR)
    await retained(runtime)
    assert await left() == ({1, 2, 4, 5, 6}, 3, 1, 1)
    assert await inside() == 4
    clock.advance(300)
    await retained(runtime)
    assert await left() == ({2, 5, 6}, 2, 0, 0)
    assert await inside() == 4


async def test_alerts_that_have_been_over_for_400_days_go_with_what_was_told_of_them(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        tx.add(
            Webhook(
                id=new_id(),
                unit_id=scene.station.unit_id,
                name="值班室",
                url="https://duty.example.org/",
                secret_sealed=b"",
                failures=0,
                created_at=clock.now(),
                changed_at=clock.now(),
            )
        )
        await tx.flush()
        for subject in ("over", "over, told of late", "still open"):
            evidence = Evidence(AlertKind.TAMPER, subject, scene.station.id, clock.now())
            await book.note(tx, evidence, at=clock.now())
            if subject != "still open":
                await book.settle(tx, AlertKind.TAMPER, subject, at=clock.now())
    began = clock.now()

    async def left() -> list[str]:
        await retained(runtime)
        async with runtime.database.read() as tx:
            return sorted(await tx.scalars(sa.select(Alert.subject)))

    clock.set(began + KEPT_CLOSED)
    async with runtime.database.write() as tx:
        late = sa.select(Alert.id).where(Alert.subject == "over, told of late").scalar_subquery()
        await tx.execute(
            sa.update(Delivery).where(Delivery.alert_id == late).values(created_at=clock.now())
        )
    assert await left() == ["over", "over, told of late", "still open"]
    clock.advance(1)
    assert await left() == ["over, told of late", "still open"]
    clock.advance(privacy.DELIVERIES_FOR.total_seconds())
    assert await left() == ["still open"]
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Delivery)) == 0


async def test_ended_sessions_and_old_failures_go(runtime: Runtime, clock: Clock) -> None:
    async with runtime.database.write() as tx:
        ended = await a_worker(tx, runtime, at=clock.now())
        await a_worker(tx, runtime, at=clock.now())
        await an_admin(tx, at=clock.now())
        await sign_in.sign_out(tx, ended.token, at=clock.now())
        tx.add(AdminLoginFailure(id=new_id(), username="x", network="n", at=clock.now()))
    clock.advance(timedelta(days=30, seconds=1).total_seconds())
    await retained(runtime)
    async with runtime.database.read() as tx:
        counts = [
            await tx.scalar(sa.select(sa.func.count()).select_from(kind))
            for kind in (WorkerSession, AdminLoginFailure, AdminSession)
        ]
    assert counts == [1, 0, 1]
    clock.advance(timedelta(days=30).total_seconds())
    await retained(runtime)
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(WorkerSession)) == 0
        assert await tx.scalar(sa.select(sa.func.count()).select_from(AdminSession)) == 0


async def test_retention_works_in_batches_until_nothing_is_left(
    runtime: Runtime, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "BATCH", 2)
    async with runtime.database.write() as tx:
        for _ in range(5):
            tx.add(AdminLoginFailure(id=new_id(), username="x", network="n", at=clock.now()))
    clock.advance(timedelta(days=2).total_seconds())
    assert await retained(runtime) == 5


async def test_a_dump_of_the_database_shows_no_number(runtime: Runtime) -> None:
    scene = await a_scene(runtime)
    mine = await a_life(runtime, scene)
    national = PHONE.removeprefix("+86").encode()
    async with runtime.database.read() as tx:
        for table in every_table().sorted_tables:
            for row in (await tx.execute(sa.select(table))).all():
                for value in row:
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    assert national not in raw, table.name
                    if not isinstance(value, bytes | uuid.UUID | int | datetime | float):
                        number = rb"(?<![\da-f])1[3-9]\d{9}(?![\da-f])"
                        assert not re.search(number, raw), table.name
    assert owner_key(runtime.vault.key("owner"), mine.id) == mine.owner_key


def test_every_table_that_points_at_a_worker_is_found() -> None:
    assert Base.metadata is every_table()
    assert pointing_at_workers() == {
        "consents",
        "offline_entries",
        "passes",
        "scans",
        "visits",
        "worker_sessions",
    }
