"""Random small histories of a city, written into the tables as rows, and written on later."""

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from app import privacy
from app.audit import COMMAND_LINE
from app.db.types import new_id
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import (
    Command,
    CommandKind,
    Controller,
    Door,
    JournalEntry,
    OfflineEntry,
    Scan,
)
from app.people.tables import Occupation
from app.places import units
from app.places.rules import Because, DayClass, Kind
from app.places.tables import (
    Facility,
    FacilityKind,
    OperatingModel,
    Station,
    Unit,
)
from app.runtime import Runtime
from app.visits.tables import EndSource, FacilityUse, Visit, VoidBecause, WalkInCount
from tests.reports.lives import Lives
from tests.support.worlds import (
    SomeWorker,
    a_door,
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
JUMPED, JUMP = "Australia/Sydney", datetime(2026, 10, 3, 16, tzinfo=UTC)
"""Some weeks before, the clocks of a zone went from 2 to 3 in the morning."""


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
    doors: list[Door] = field(default_factory=list)
    alone: list[OfflineEntry] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    """The units of ours: two districts, and a street below the first."""
    above: list[Unit] = field(default_factory=list)
    """The root, and an area below it, where the first district hangs by turns."""
    lives: Lives = field(init=False)
    """How the stations stood."""


@dataclass
class Author:
    """Writes a history from one seed."""

    tx: AsyncSession
    held: Runtime
    random: random.Random
    story: History = field(default_factory=History)
    workers: list[SomeWorker] = field(default_factory=list)
    back: timedelta = timedelta(days=1)
    """How long before the period things may have happened."""
    written: datetime | None = None
    """When rows are written; None: as things happen."""
    days: dict[date, DayClass] = field(default_factory=dict)
    """Days that are not what their weekday says."""
    _refer: list[Any] = field(default_factory=list)
    """Rows that refer to others: they know no relationships, so they are added after these."""

    async def write(self) -> History:
        """Two districts of ours and one of others, then whatever happens."""
        tx, story = self.tx, self.story
        early = (FIRST - timedelta(days=30) - self.back).astimezone(UTC)
        root = await a_unit(tx, at=early)
        near, far, foreign = [
            await a_unit(tx, parent=root, at=early, name=name) for name in ("甲", "乙", "丙")
        ]
        street = await a_unit(tx, parent=near, at=early, name="甲街")
        story.units = [near, far, street]
        story.above = [root, await a_unit(tx, parent=root, at=early, name="片区")]
        lives = story.lives = Lives(tx, self.held, self.random, self._instant, self.days)
        await lives.begin(early, AT)
        places = [
            (near, early, None, "Asia/Shanghai"),
            (near, self._instant(), None, "Asia/Shanghai"),
            (near, early, self._instant(), "Asia/Shanghai"),
            (far, early, None, "Asia/Urumqi"),
            (far, AT - timedelta(minutes=1), None, "Asia/Urumqi"),
            (foreign, early, None, "Asia/Shanghai"),
            (street, early, None, "Asia/Shanghai"),
            (far, early, None, JUMPED),
        ]
        for number, (unit, created_at, retired_at, timezone) in enumerate(places):
            station = await a_station(
                tx,
                unit=unit,
                at=created_at,
                timezone=timezone,
                code=f"CQ{number:04d}",
                capacity=self.random.choice([0, 1, 2, 8, 20]),
                operating_model=self.random.choice(list(OperatingModel)[:2]),
                **(lives.hours() if number % 2 else {}),
            )
            # Of one, nobody recorded for long what held.
            late = self.back / 3 if number == 6 else timedelta()
            await lives.live(
                station,
                first=created_at + late + timedelta(minutes=1),
                seats=self._seats(timezone),
                retired_at=retired_at,
                at=AT,
            )
            (story.foreign if unit is foreign else story.stations).append(station)
        self.workers = [await a_worker(tx, self.held, at=early) for _ in range(4)]
        for station in (*story.stations, *story.foreign):
            recorded = story.lives.of[station.id].recorded
            await self._things(station, early if recorded is None else recorded[0])
        await lives.record_all(AT, (*story.stations, *story.foreign))
        await tx.flush()
        tx.add_all(self._refer)
        await tx.flush()
        return story

    def _seats(self, timezone: str) -> list[datetime]:
        """When there are other seats: some minutes before anybody comes, and between."""
        found = [self._instant(), self._instant(), AT - timedelta(minutes=100)]
        if timezone == JUMPED and self.back > FIRST - JUMP:
            found.append(JUMP - timedelta(minutes=20))
        return found

    async def _things(self, station: Station, early: datetime) -> None:
        lives, born = self.story.lives, max(early, station.created_at)
        door = await a_door(self.tx, station, at=early)
        door.has_contact = self.random.random() < 0.5
        self.story.doors.append(door)
        # One after the other: the next one at once, or after a time without any.
        enrolled_at, turns = (
            born,
            sorted(self._instant() for _ in range(self.random.choice([0, 1, 3]))),
        )
        for turn in [each for each in turns if each > born]:
            self.story.controllers.append(await lives.box(station, enrolled_at, turn, AT))
            enrolled_at = turn + timedelta(minutes=self.random.choice([0, 0, 500]))
        is_gone = station.retired_at is None and self.random.random() < 0.15
        ends = AT - timedelta(minutes=20) if is_gone else None
        if ends is not None and ends <= enrolled_at:
            ends = None
        if enrolled_at < AT or not turns:
            controller = await lives.box(station, enrolled_at, ends, AT)
            self.story.controllers.append(controller)
        controller_id = self.story.controllers[-1].id
        kinds = self.random.sample(list(FacilityKind), 2)
        for kind in (*kinds, kinds[0]):
            # Most have always been there; some come within the period.
            at = born if self.random.random() < 0.7 else max(born, self._instant())
            facility = await lives.thing(station, kind, at, AT)
            self.story.facilities.append(facility)
            for _ in range(self.random.randint(0, 5)):
                self._use(station, facility)
        await self._happen(station, door.id, controller_id, 14)

    async def _happen(
        self, station: Station, door_id: uuid.UUID, controller_id: uuid.UUID, most: int
    ) -> None:
        for _ in range(self.random.randint(0, most)):
            self._visit(station)
        for _ in range(self.random.randint(0, 2 * most)):
            self._scan(station, door_id, controller_id)
        await self.tx.flush()
        for _ in range(self.random.randint(0, most // 4)):
            self._alone(station, door_id, controller_id)
        admin = await an_admin(self.tx, at=FIRST.astimezone(UTC))
        for _ in range(self.random.randint(0, 3)):
            self._heads(station, admin.id)

    async def go_on(self, *, written: datetime) -> None:
        """Write late and out of order, correct what was written, repeat, and move stations."""
        before, self.written = self.written or AT, written
        story, ours = self.story, self.story.units
        for station in (*story.stations, *story.foreign):
            if self.random.random() < 0.5:
                continue
            door = next(door for door in story.doors if door.station_id == station.id)
            boxes = [box for box in story.controllers if box.station_id == station.id]
            box = self.random.choice(boxes)
            self._refer.clear()
            await self._happen(station, door.id, box.id, 4)
            await self.tx.flush()
            self.tx.add_all(self._refer)
            for facility in story.facilities:
                if facility.station_id == station.id and self.random.random() < 0.5:
                    self._use(station, facility)
        await self.tx.flush()
        self._correct(written)
        await story.lives.go_on(before, written, (*story.stations, *story.foreign))
        moved, to = self.random.choice(story.stations), self.random.choice(ours)
        moved.unit_id, moved.changed_at = to.id, written
        await self.tx.flush()
        await self._hang_elsewhere(written)
        if self.random.random() < 0.4:
            gone = self.workers.pop(self.random.randrange(len(self.workers)))
            await privacy.erase(self.tx, gone.id, gone.owner_key, at=written)

    async def _hang_elsewhere(self, written: datetime) -> None:
        """Hang a district with a street below it from the root below an area, or back."""
        (root, area), (near, _, street) = self.story.above, self.story.units
        to = area if near.parent_id == root.id else root
        await units.move(self.tx, near, to, actor=COMMAND_LINE, at=written)
        await self.tx.refresh(street)

    def _correct(self, written: datetime) -> None:
        """Change some rows, and only touch others, as a journal does that comes twice."""
        story = self.story
        for visit in self.random.sample(story.visits, min(6, len(story.visits))):
            visit.changed_at = written
            match self.random.randrange(6):
                case 4:
                    # Word of the door's contact came late: the visit that was counted never was.
                    visit.ended_at, visit.end_source = visit.started_at, None
                    visit.voided_at, visit.void_because = written, VoidBecause.NOT_OPENED
                    visit.owner_key = None
                case 0:
                    visit.party_size = self.random.randint(1, 5)
                case 1:
                    visit.re_entry = not visit.re_entry
                case 2:
                    length = timedelta(minutes=self.random.choice([0, 3, 40, 1700]))
                    ended = visit.started_at + length
                    if ended <= written:
                        visit.ended_at, visit.end_source = ended, EndSource.WORKER
                        visit.owner_key = None
                case 5:
                    self._begin_later(visit, timedelta(minutes=self.random.randint(1, 180)))
                case _:
                    pass
        for command in self.random.sample(story.commands, min(5, len(story.commands))):
            command.changed_at = written
            if command.state in (CommandState.PENDING, CommandState.CLAIMED):
                command.state = CommandState.EXECUTED
                command.claimed_at = command.created_at + timedelta(milliseconds=70)
                command.pulsed_at = command.created_at + timedelta(milliseconds=400)
        for use in self.random.sample(story.uses, min(3, len(story.uses))):
            use.changed_at = written
            if use.quantity is None and use.ended_at is None:
                use.ended_at = use.begun_at + timedelta(minutes=20)
        for entry in self.random.sample(story.alone, min(3, len(story.alone))):
            entry.changed_at = written
            entry.would_have_been_refused = self.random.choice([None, Reason.STATION_FULL])
        for heads in self.random.sample(story.heads, min(3, len(story.heads))):
            heads.withdrawn_at = heads.withdrawn_at or written
            heads.withdrawn_by = heads.admin_id

    def _begin_later(self, visit: Visit, length: timedelta) -> None:
        """Move a beginning, perhaps over midnight: word of when the door opened came late."""
        story = self.story
        zone = next(
            station.timezone
            for station in (*story.stations, *story.foreign)
            if station.id == visit.station_id
        )
        at = min(visit.started_at + length, visit.ended_at or visit.stay_until, AT)
        local = at.astimezone(ZoneInfo(zone))
        visit.started_at, visit.local_day, visit.local_hour = at, local.date(), local.hour

    def _instant(self, station: Station | None = None) -> datetime:
        """Some minute until now, mostly of the period or of the day before it.

        Half of those of a station whose clock jumped are of the hours around that; of one that is
        retired, nothing happens after that.
        """
        jumped = station is not None and station.timezone == JUMPED and self.back > FIRST - JUMP
        if jumped and self.random.random() < 0.5:
            return JUMP + timedelta(minutes=self.random.randint(-120, 120))
        before = 1440 if self.random.random() < 0.7 else int(self.back / timedelta(minutes=1))
        since = self.random.randint(-before, MINUTES - 1)
        at = (FIRST + timedelta(minutes=since)).astimezone(UTC)
        if station is not None and station.retired_at is not None and at >= station.retired_at:
            return self._instant(station)
        return at

    def _where(self, station: Station, at: datetime) -> dict[str, Any]:
        local = at.astimezone(ZoneInfo(station.timezone))
        return {
            "station_id": station.id,
            "local_day": local.date(),
            "local_hour": local.hour,
            "changed_at": self.written or at,
        }

    def _add(self, kept: list[Any], row: Any) -> None:
        self.tx.add(row)
        kept.append(row)

    def _visit(self, station: Station) -> None:
        at = self._instant(station)
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
                occupation=self.random.choice([None, *Occupation]),
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
        at = self._instant(station).replace(minute=self.random.choice([1, 29, 30, 59]))
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
            # Some are from before that was recorded.
            decide_ms=self.random.choice([None, 0, self.random.randint(1, 12_000)]),
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
        pulsed = scan.scanned_at + waited + timedelta(milliseconds=self.random.randint(1, 900))
        has_opened = state is CommandState.EXECUTED and self.random.random() < 0.5
        self._add_later(
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
                pulsed_at=pulsed if state is CommandState.EXECUTED else None,
                # Also at a door that has no contact by the register.
                opened_at=pulsed + waited / 3 if has_opened else None,
                has_contact=self.random.choice([None, True, False]),
                changed_at=self.written or scan.scanned_at,
            )
        )

    def _add_later(self, command: Command) -> None:
        self.story.commands.append(command)
        self._refer.append(command)

    def _use(self, station: Station, facility: Facility) -> None:
        at = self._instant(station)
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
        at = self._instant(station)
        length = timedelta(minutes=self.random.choice([1, 60, 600, 1440]))
        self._add(
            self.story.heads,
            WalkInCount(
                id=new_id(),
                station_id=station.id,
                count=self.random.randint(0, 30),
                from_at=at,
                until_at=min(at + length, AT),
                local_day=at.astimezone(ZoneInfo(station.timezone)).date(),
                admin_id=admin_id,
                created_at=self.written or at,
            ),
        )

    def _alone(self, station: Station, door_id: uuid.UUID, controller_id: uuid.UUID) -> None:
        at, opened = self._instant(station), self.random.random() < 0.7
        visits = [visit for visit in self.story.visits if visit.station_id == station.id]
        scans = [scan for scan in self.story.scans if scan.station_id == station.id]
        named = {row.visit_id for row in self.story.alone}
        visit = self.random.choice(visits) if visits and opened else None
        # Half of the others open for somebody who has scanned there in that half hour.
        scan = self.random.choice(scans) if scans and self.random.random() < 0.5 else None
        opened_at: datetime | None = None
        if visit is not None and visit.id not in named and self.random.random() < 0.7:
            scan = None
            # What makes a visit one of a controller that was alone is written with the visit.
            visit.changed_at = self.written or visit.changed_at
            # It opened for him first, or again within his visit; a contact may have told of it.
            later = self.random.choice([timedelta(), timedelta(), timedelta(minutes=5)])
            opened_at = self.random.choice([None, visit.started_at + later])
            at = visit.started_at + (later if opened_at is None else later - timedelta(seconds=3))
        else:
            visit, at = None, scan.scanned_at if scan else at
        entry = JournalEntry(
            id=new_id(),
            controller_id=controller_id,
            epoch=1,
            seq=self.random.getrandbits(40),
            event_id=str(new_id()),
            boot_id="boot-1",
            type=EventType.OFFLINE_ENTRY,
            door_id=door_id,
            occurred_at=at,
            corrected_at=at,
            error_ms=0,
            quality=Quality.SYNCED,
            late=True,
            received_at=self.written or at,
            content_hash=b"",
            body={},
            applied_at=self.written or at,
        )
        self.tx.add(entry)
        row = OfflineEntry(
            entry_id=entry.id,
            **self._where(station, at),
            door_id=door_id,
            demand_key=scan.demand_key if scan and opened else None,
            opened=opened,
            reason=Reason.OK if opened else Reason.TOKEN_EXPIRED,
            would_have_been_refused=self.random.choice([None, Reason.STATION_CLOSED]),
            mode=Kind.SCAN,
            because=Because.WEEKLY,
            happened_at=at,
            opened_at=opened_at,
            visit_id=visit.id if visit else None,
            reviewed_at=self.written or at,
        )
        self._refer.append(row)
        self.story.alone.append(row)
