"""Random small histories of a city, written into the tables as rows."""

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import new_id
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.tables import Command, CommandKind, Controller, Scan
from app.people.tables import Occupation
from app.places.rules import Because, Kind
from app.places.tables import Facility, FacilityKind, Station
from app.runtime import Runtime
from app.visits.tables import EndSource, FacilityUse, Visit, VoidBecause, WalkInCount
from tests.support.worlds import (
    SomeWorker,
    a_controller,
    a_door,
    a_facility,
    a_station,
    a_unit,
    a_worker,
    an_admin,
)

FIRST = datetime(2026, 11, 20, tzinfo=ZoneInfo("Asia/Shanghai"))
"""The first day of the period, at midnight in Chongqing."""
AT = (FIRST + timedelta(days=2, hours=13, minutes=7)).astimezone(UTC)
"""Now: in the third day of the period, which has four."""
MINUTES = int((AT - FIRST) / timedelta(minutes=1))


@dataclass
class History:
    """What is in the tables."""

    stations: list[Station] = field(default_factory=list)
    foreign: list[Station] = field(default_factory=list)
    """Stations that no report may speak of; as much happens there."""
    visits: list[Visit] = field(default_factory=list)
    heads: list[WalkInCount] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    facilities: list[Facility] = field(default_factory=list)
    uses: list[FacilityUse] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)


@dataclass
class Author:
    """Writes a history from one seed."""

    tx: AsyncSession
    held: Runtime
    random: random.Random
    story: History = field(default_factory=History)
    workers: list[SomeWorker] = field(default_factory=list)

    async def write(self) -> History:
        """Two districts of ours and one of others, then whatever happens."""
        tx, story = self.tx, self.story
        early = (FIRST - timedelta(days=30)).astimezone(UTC)
        root = await a_unit(tx, at=early)
        near, far, foreign = [
            await a_unit(tx, parent=root, at=early, name=name) for name in ("甲", "乙", "丙")
        ]
        lives = [
            (near, early, None, "Asia/Shanghai"),
            (near, self._instant(), None, "Asia/Shanghai"),
            (near, early, self._instant(), "Asia/Shanghai"),
            (far, early, None, "Asia/Urumqi"),
            (far, AT - timedelta(minutes=1), None, "Asia/Urumqi"),
            (foreign, early, None, "Asia/Shanghai"),
        ]
        for number, (unit, created_at, retired_at, timezone) in enumerate(lives):
            station = await a_station(
                tx,
                unit=unit,
                at=created_at,
                retired_at=retired_at,
                timezone=timezone,
                code=f"CQ{number:04d}",
                capacity=self.random.choice([0, 1, 8, 20]),
            )
            (story.foreign if unit is foreign else story.stations).append(station)
        self.workers = [await a_worker(tx, self.held, at=early) for _ in range(4)]
        for station in (*story.stations, *story.foreign):
            await self._things(station, early)
        await tx.flush()
        # Rows know no relationships, so what refers to a scan is added after it.
        tx.add_all(story.commands)
        await tx.flush()
        return story

    async def _things(self, station: Station, early: datetime) -> None:
        door = await a_door(self.tx, station, at=early)
        controller_id, _ = await a_controller(self.tx, station, at=early)
        controller = await self.tx.get_one(Controller, controller_id)
        controller.seen_at = self.random.choice([None, AT, AT - timedelta(seconds=75)])
        self.story.controllers.append(controller)
        for kind in self.random.sample(list(FacilityKind), 2):
            changes = {"retired_at": AT} if self.random.random() < 0.3 else {}
            facility = await a_facility(
                self.tx, station, at=early, kind=kind, quantity=self.random.randint(1, 3), **changes
            )
            self.story.facilities.append(facility)
            for _ in range(self.random.randint(0, 5)):
                self._use(station, facility)
        for _ in range(self.random.randint(0, 14)):
            self._visit(station)
        for _ in range(self.random.randint(0, 25)):
            self._scan(station, door.id, controller_id)
        admin = await an_admin(self.tx, at=early)
        for _ in range(self.random.randint(0, 3)):
            self._heads(station, admin.id)

    def _instant(self) -> datetime:
        """Some minute between a day before the period and now."""
        return (FIRST + timedelta(minutes=self.random.randint(-1440, MINUTES - 1))).astimezone(UTC)

    def _where(self, station: Station, at: datetime) -> dict[str, Any]:
        local = at.astimezone(ZoneInfo(station.timezone))
        return {
            "station_id": station.id,
            "local_day": local.date(),
            "local_hour": local.hour,
            "changed_at": at,
        }

    def _add(self, kept: list[Any], row: Any) -> None:
        self.tx.add(row)
        kept.append(row)

    def _visit(self, station: Station) -> None:
        at = self._instant()
        stay_until = at + timedelta(minutes=self.random.choice([1, 60, 60, 95, 1500]))
        ended_at = at + timedelta(minutes=self.random.choice([0, 4, 15, 59, 200]))
        source = self.random.choice([None, None, *EndSource])
        if source is EndSource.IMPUTED:
            ended_at = stay_until
        over = source is not None and ended_at <= AT
        if self.random.random() < 0.1:
            # It never was; it stays in the table, and no report speaks of it.
            self._never_was(station, at, stay_until)
        worker = self.random.choice([None, *self.workers])
        self._add(
            self.story.visits,
            Visit(
                id=new_id(),
                **self._where(station, at),
                worker_id=worker.id if worker else None,
                owner_key=None if over else self.random.randbytes(16),
                occupation=Occupation.RIDER,
                mode=self.random.choice(list(Kind)),
                party_size=self.random.randint(1, 5),
                re_entry=self.random.random() < 0.2,
                started_at=at,
                stay_until=stay_until,
                ended_at=ended_at if over else None,
                end_source=source if over else None,
            ),
        )

    def _never_was(self, station: Station, at: datetime, stay_until: datetime) -> None:
        self.tx.add(
            Visit(
                id=new_id(),
                **self._where(station, at),
                owner_key=self.random.randbytes(16),
                mode=Kind.SCAN,
                party_size=5,
                re_entry=False,
                started_at=at,
                stay_until=stay_until,
                ended_at=at,
                voided_at=at,
                void_because=VoidBecause.NOT_OPENED,
            )
        )

    def _scan(self, station: Station, door_id: uuid.UUID, controller_id: uuid.UUID) -> None:
        # Few half hours, so that refusals and grants of one worker meet.
        at = self._instant().replace(minute=self.random.choice([1, 29, 30, 59]))
        if at >= AT:
            at -= timedelta(hours=1)
        outcome = self.random.choice([*Outcome, Outcome.REFUSED])
        refused = [reason for reason in Reason if reason is not Reason.OK]
        worker = self.random.choice(self.workers[:2])
        slot = int(at.timestamp()) // 1800
        demand = hashlib.sha256(f"{worker.id}{station.id}{slot}".encode()).digest()[:16]
        scan = Scan(
            id=new_id(),
            **self._where(station, at),
            worker_id=worker.id,
            demand_key=demand,
            door_id=door_id,
            outcome=outcome,
            reason=self.random.choice(refused) if outcome is Outcome.REFUSED else Reason.OK,
            mode=Kind.SCAN,
            because=Because.WEEKLY,
            calendar_known=True,
            party_size=1,
            scanned_at=at,
        )
        self._add(self.story.scans, scan)
        if outcome is Outcome.GRANTED:
            self._command(station, scan, door_id, controller_id)

    def _command(
        self, station: Station, scan: Scan, door_id: uuid.UUID, controller_id: uuid.UUID
    ) -> None:
        state = self.random.choice(list(CommandState))
        waited = timedelta(milliseconds=self.random.randint(5, 9000))
        claimed = state not in (CommandState.PENDING, CommandState.EXPIRED)
        self.story.commands.append(
            Command(
                id=new_id(),
                kind=CommandKind.UNLOCK,
                station_id=station.id,
                door_id=door_id,
                controller_id=controller_id,
                scan_id=scan.id,
                owner_key=self.random.randbytes(16),
                state=state,
                created_at=scan.scanned_at,
                expires_at=scan.scanned_at + timedelta(seconds=10),
                claimed_at=scan.scanned_at + waited if claimed else None,
                changed_at=scan.scanned_at,
            )
        )

    def _use(self, station: Station, facility: Facility) -> None:
        at = self._instant()
        amount = self.random.choice([None, Decimal("0.125"), Decimal(3)])
        length = timedelta(minutes=self.random.randint(1, 90))
        ended_at = at if amount else self.random.choice([None, at + length])
        self._add(
            self.story.uses,
            FacilityUse(
                id=new_id(),
                **self._where(station, at),
                facility_id=facility.id,
                quantity=amount,
                begun_at=at,
                ended_at=ended_at,
            ),
        )

    def _heads(self, station: Station, admin_id: uuid.UUID) -> None:
        at = self._instant()
        self._add(
            self.story.heads,
            WalkInCount(
                id=new_id(),
                station_id=station.id,
                count=self.random.randint(0, 30),
                from_at=at,
                until_at=at + timedelta(hours=1),
                local_day=at.astimezone(ZoneInfo(station.timezone)).date(),
                admin_id=admin_id,
                created_at=at,
            ),
        )
