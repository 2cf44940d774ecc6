"""A scan: repeat? gather the facts, decide, record, queue the unlock.

A granted scan costs four statements besides BEGIN and COMMIT: the session with the worker and the
door with its station and presence row (worker and presence locked, in this order), the worker's
recent scans with the heads inside, and two inserts. Both locks are taken before the facts are read,
so the facts hold until the commit: the worker's lock makes a repeated key and a double tap wait for
the first, the presence row's lock gives a place away once.
"""

import hashlib
import hmac
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Monotonic
from app.db.clock import Deadline, DeadlineClock
from app.db.types import Instant, new_id, table_of
from app.db.wakeups import LocalWakeups
from app.doors import commands, tokens
from app.doors.controllers import ControllerDesk
from app.doors.keys import KeyRing
from app.doors.rules import (
    LIVE,
    REPEAT_AFTER_EXECUTION,
    RESERVATION_GRACE,
    UNLOCK_SECONDS,
    CommandState,
    Facts,
    Granted,
    Outcome,
    Place,
    Reason,
    Refused,
    ScanState,
    WalkIn,
    decide,
    state_now,
)
from app.doors.tables import Command, Controller, Door, Scan, in_state
from app.errors import Invalid, NotFound
from app.people import sign_in
from app.people.secrets import hash_of
from app.people.sign_in import SignedInWorker
from app.people.tables import Worker
from app.places.calendar import CalendarCache
from app.places.rules import (
    Because,
    Kind,
    Mode,
    StationRules,
    local_day,
    local_hour,
    mode_at,
)
from app.places.stations import station_rules
from app.places.tables import ModeChange, Station
from app.vault import Vault
from app.visits import presence
from app.visits.tables import StationPresence, Visit

HALF_HOUR_S = 1800
"""The slot in which refused scans of one worker at one station are one demand (law 8)."""


INSERT = sa.insert(table_of(Scan))
"""Built once: on the scan's path, building a statement costs more than sending it."""


class KeyReused(Invalid):
    """This Idempotency-Key was used for another request."""


class ScanNotFound(NotFound):
    """You have no such scan."""


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How often a worker may scan and open."""

    scans_per_minute: int
    doors_per_hour: int


@dataclass(frozen=True, slots=True)
class ScanDesk:
    """What a scan needs beside its transaction."""

    wakeups: LocalWakeups
    keys: KeyRing
    calendar: CalendarCache
    clock: DeadlineClock
    monotonic: Monotonic
    controllers: ControllerDesk
    limits: ScanLimits
    vault: Vault


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker sent."""

    token: str
    party_size: int
    key: str
    """The Idempotency-Key."""
    read_at: float
    """The monotonic instant at which the request had been read: the 10 s begin here."""

    def body_hash(self) -> bytes:
        """Tell two bodies under one key apart."""
        return hashlib.sha256(f"{self.party_size}\n{self.token}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Named:
    """A station as a scan shows it."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class DoorNamed:
    """A door as a scan shows it."""

    id: uuid.UUID
    name: str


@dataclass(frozen=True, slots=True)
class ScanView:
    """A scan as its worker sees it."""

    id: uuid.UUID
    outcome: Outcome
    reason: Reason
    station: Named | None
    door: DoorNamed | None
    mode: Mode | None
    timezone: str | None
    state: ScanState
    expires_at: datetime | None
    visit_id: uuid.UUID | None
    replayed: bool
    near: tuple[float, float] | None
    """Where to look for other stations, latitude and longitude."""
    station_id: uuid.UUID | None
    left_s: float
    """Seconds until the command's deadline passes; 0 when there is none or it has."""


async def scan(
    tx: AsyncSession, desk: ScanDesk, session: str, attempt: Attempt, *, at: datetime
) -> ScanView | None:
    """Decide one attempt of whoever has this session token; None when nobody does.

    1. Check the code's signature: pure, no SQL.
    2. Take the worker's row and the door's station's presence row; read what the worker did lately.
    3. The same key: the stored answer. The same door within moments: the same scan (law 4).
    4. Decide, once, by the ordered checks.
    5. Record the scan, granted or not; queue the unlock, or open the visit of a walk-in.

    Raises KeyReused when the key came with another body.
    """
    claims = desk.keys.poster(attempt.token)
    worker, door = await _arrival(tx, desk.vault.key("owner"), session, claims, at=at)
    if worker is None:
        return None
    recent = await _recent(tx, desk.clock, worker.owner_key, attempt.key, door, at=at)
    if recent.replay_id is not None:
        return await _stored(tx, desk.clock, recent, attempt)
    if recent.repeat_id is not None:
        return await view(tx, desk.clock, recent.repeat_id, worker.owner_key, replayed=True)
    if recent.stale:
        await _expire_own(tx, desk.clock, worker.owner_key, at=at)
    facts = _facts(desk, worker, attempt, _token_reason(claims, door, at), door, recent, at)
    decision = decide(facts)
    return await _Recording(tx, desk, worker, attempt, door, facts, recent, at).of(decision)


@dataclass(frozen=True, slots=True)
class _Site:
    """What a decision needs of a station."""

    id: uuid.UUID
    code: str
    name: str
    timezone: str
    latitude: float
    longitude: float
    capacity: int
    max_stay_min: int


@dataclass(frozen=True, slots=True)
class _DoorFacts:
    door_id: uuid.UUID
    door_name: str
    generation: int
    grace_until: datetime | None
    retired: bool
    station: _Site
    controller_id: uuid.UUID | None
    seen_at: datetime | None
    rules: StationRules


async def _arrival(
    tx: AsyncSession,
    secret: bytes,
    session: str,
    claims: tokens.PosterClaims | tokens.TokenRefusal,
    *,
    at: datetime,
) -> tuple[SignedInWorker | None, _DoorFacts | None]:
    """Lock and give who stands where; the worker alone when there is no such door."""
    if isinstance(claims, tokens.PosterClaims):
        asked = {"token_hash": hash_of(session), "number": claims.d, "at": at}
        rows = (await tx.execute(_arrival_query(), asked)).all()
        if rows:
            return sign_in.signed_in(rows[0], secret=secret), _door_facts(rows)
    return await sign_in.find_worker(tx, session, secret=secret, at=at, lock=True), None


def _door_facts(rows: Sequence[Any]) -> _DoorFacts:
    first = rows[0]
    return _DoorFacts(
        door_id=first.door_id,
        door_name=first.door_name,
        generation=first.generation,
        grace_until=first.grace_until,
        retired=first.door_retired_at is not None or first.retired_at is not None,
        station=_Site(
            first.id,
            first.code,
            first.name,
            first.timezone,
            first.latitude,
            first.longitude,
            first.capacity,
            first.max_stay_min,
        ),
        controller_id=first.controller_id,
        seen_at=first.seen_at,
        rules=station_rules(first, [row for row in rows if row.kind is not None]),
    )


@lru_cache(maxsize=1)
def _arrival_query() -> Any:
    door, site, presence_row = table_of(Door), table_of(Station), table_of(StationPresence)
    controller, change = table_of(Controller), table_of(ModeChange)
    return (
        sign_in.session_query()
        .add_columns(
            door.c.id.label("door_id"),
            door.c.name.label("door_name"),
            door.c.generation,
            door.c.grace_until,
            door.c.retired_at.label("door_retired_at"),
            site.c.id,
            site.c.code,
            site.c.name,
            site.c.timezone,
            site.c.latitude,
            site.c.longitude,
            site.c.capacity,
            site.c.max_stay_min,
            site.c.retired_at,
            site.c.staffed_hours,
            site.c.access_hours,
            controller.c.id.label("controller_id"),
            controller.c.seen_at,
            change.c.kind,
            change.c.tier,
            change.c.from_at,
            change.c.until_at,
            change.c.created_at,
        )
        .join(door, door.c.number == sa.bindparam("number"))
        .join(site, site.c.id == door.c.station_id)
        .join(presence_row, presence_row.c.station_id == site.c.id)
        .outerjoin(
            controller,
            sa.and_(controller.c.station_id == site.c.id, controller.c.retired_at.is_(None)),
        )
        .outerjoin(
            change,
            sa.and_(
                change.c.station_id == site.c.id,
                change.c.retired_at.is_(None),
                change.c.until_at > sa.bindparam("at", type_=Instant()),
            ),
        )
        .with_for_update(key_share=True, of=[table_of(Worker), presence_row])
    )


@dataclass(frozen=True, slots=True)
class _Recent:
    replay_id: uuid.UUID | None
    repeat_id: uuid.UUID | None
    stale: bool
    scans_last_minute: int
    doors_last_hour: int
    last_opened: Place | None
    own_visit_station: uuid.UUID | None
    inside: int
    reserved: int
    clock_now: datetime
    owner_key: bytes


async def _recent(
    tx: AsyncSession,
    clock: DeadlineClock,
    owner_key: bytes,
    key: str,
    door: _DoorFacts | None,
    *,
    at: datetime,
) -> _Recent:
    row = (
        await tx.execute(
            _recent_query(clock),
            {
                "owner": owner_key,
                "key": key,
                "door": door.door_id if door else None,
                "station": door.station.id if door else None,
                "at": at,
                "minute_ago": at - timedelta(minutes=1),
                "hour_ago": at - timedelta(hours=1),
                "just_executed": at - REPEAT_AFTER_EXECUTION,
            },
        )
    ).one()
    opened = row.opened_at and Place(row.opened_latitude, row.opened_longitude, row.opened_at)
    return _Recent(
        replay_id=row.replay_id,
        repeat_id=row.repeat_id,
        stale=row.stale,
        scans_last_minute=row.scans_last_minute,
        doors_last_hour=row.doors_last_hour,
        last_opened=opened,
        own_visit_station=row.own_visit_station,
        inside=row.inside,
        reserved=row.reserved,
        clock_now=row.clock_now,
        owner_key=owner_key,
    )


@lru_cache(maxsize=4)
def _recent_query(clock: DeadlineClock) -> sa.Select[*tuple[Any, ...]]:
    """Build the one statement that reads what the worker did lately and who is inside."""
    owner = sa.bindparam("owner", type_=sa.LargeBinary())
    door = sa.bindparam("door", type_=sa.Uuid())
    station = sa.bindparam("station", type_=sa.Uuid())
    at = sa.bindparam("at", type_=Instant())
    hour_ago = sa.bindparam("hour_ago", type_=Instant())
    minute_ago = sa.bindparam("minute_ago", type_=Instant())
    just_executed = sa.bindparam("just_executed", type_=Instant())
    scan, command, visit = table_of(Scan).c, table_of(Command).c, table_of(Visit).c
    station_row = table_of(Station)
    live = clock.live(command.expires_at, command.expires_mono)
    opened = (
        sa.select(scan.scanned_at, station_row.c.latitude, station_row.c.longitude)
        .join(station_row, station_row.c.id == scan.station_id)
        .where(scan.owner_key == owner, scan.outcome == Outcome.GRANTED, scan.station_id != station)
        .order_by(scan.scanned_at.desc())
        .limit(1)
        .subquery("opened")
    )
    counted_until = sa.func.coalesce(visit.ended_at, visit.stay_until)
    return (
        sa.select(
            sa.select(scan.id)
            .where(scan.owner_key == owner, scan.idempotency_key == sa.bindparam("key"))
            .scalar_subquery()
            .label("replay_id"),
            sa.select(scan.id)
            .join(table_of(Command), command.scan_id == scan.id)
            .where(
                scan.owner_key == owner,
                scan.scanned_at > hour_ago,
                scan.door_id == door,
                sa.or_(
                    sa.and_(in_state(*LIVE), live),
                    sa.and_(
                        in_state(CommandState.EXECUTED),
                        command.settled_at > just_executed,
                    ),
                ),
            )
            .order_by(scan.scanned_at.desc())
            .limit(1)
            .scalar_subquery()
            .label("repeat_id"),
            sa.exists().where(command.owner_key == owner, in_state(*LIVE), ~live).label("stale"),
            sa.select(sa.func.count())
            .where(
                scan.owner_key == owner,
                scan.scanned_at > minute_ago,
                scan.reason != Reason.RATE_LIMITED,
            )
            .scalar_subquery()
            .label("scans_last_minute"),
            sa.select(sa.func.count(scan.door_id.distinct()))
            .where(
                scan.owner_key == owner,
                scan.scanned_at > hour_ago,
                scan.outcome == Outcome.GRANTED,
                scan.door_id != door,
            )
            .scalar_subquery()
            .label("doors_last_hour"),
            opened.c.scanned_at.label("opened_at"),
            opened.c.latitude.label("opened_latitude"),
            opened.c.longitude.label("opened_longitude"),
            sa.select(visit.station_id)
            .where(
                visit.owner_key == owner,
                visit.ended_at.is_(None),
                visit.started_at <= at,
                counted_until > at,
            )
            .scalar_subquery()
            .label("own_visit_station"),
            presence.inside(station, at, excluding=owner).label("inside"),
            sa.select(sa.func.coalesce(sa.func.sum(scan.party_size), 0))
            .where(
                scan.station_id == station,
                scan.reserved_until > clock.now(),
                scan.owner_key.is_distinct_from(owner),
            )
            .scalar_subquery()
            .label("reserved"),
            clock.now().label("clock_now"),
        )
        .select_from(sa.select(sa.literal(1).label("one")).subquery("once"))
        .outerjoin(opened, sa.true())
    )


def _token_reason(
    claims: tokens.PosterClaims | tokens.TokenRefusal, door: _DoorFacts | None, at: datetime
) -> Reason:
    if isinstance(claims, tokens.TokenRefusal):
        return Reason(claims.value)
    if door is None:
        return Reason.TOKEN_INVALID
    in_grace = (
        claims.g == door.generation - 1 and door.grace_until is not None and at < door.grace_until
    )
    if claims.g == door.generation or in_grace:
        return Reason.OK
    return Reason.TOKEN_REVOKED


def _facts(
    desk: ScanDesk,
    worker: SignedInWorker,
    attempt: Attempt,
    token: Reason,
    door: _DoorFacts | None,
    recent: _Recent,
    at: datetime,
) -> Facts:
    facts = Facts(
        token=token,
        worker_blocked=worker.blocked,
        scans_last_minute=recent.scans_last_minute,
        scan_limit=desk.limits.scans_per_minute,
        doors_last_hour=recent.doors_last_hour,
        door_limit=desk.limits.doors_per_hour,
        party_size=attempt.party_size,
    )
    if door is None:
        return facts
    station = door.station
    return replace(
        facts,
        door_retired=door.retired,
        mode=mode_at(door.rules, desk.calendar.current, at),
        here=Place(station.latitude, station.longitude, at),
        last_opened=recent.last_opened,
        controller_heard=desk.controllers.is_heard(door.controller_id, door.seen_at, at=at),
        inside=recent.inside,
        reserved=recent.reserved,
        capacity=station.capacity,
        counted_already=recent.own_visit_station == station.id,
    )


@dataclass(frozen=True, slots=True)
class _Recording:
    """Writes down what was decided."""

    tx: AsyncSession
    desk: ScanDesk
    worker: SignedInWorker
    attempt: Attempt
    door: _DoorFacts | None
    facts: Facts
    recent: _Recent
    at: datetime

    async def of(self, decision: Granted | WalkIn | Refused) -> ScanView:
        match decision:
            case Refused(reason):
                return await self._write(Outcome.REFUSED, reason)
            case WalkIn():
                return await self._write(Outcome.WALK_IN, Reason.OK, visit_id=await self._walk_in())
            case Granted():
                deadline = self.desk.clock.deadline(
                    self.recent.clock_now, since=self.attempt.read_at, seconds=UNLOCK_SECONDS
                )
                seen = await self._write(Outcome.GRANTED, Reason.OK, deadline=deadline)
                await self._queue(seen.id, deadline)
                return seen

    async def _walk_in(self) -> uuid.UUID:
        station, mode = self._station(), self._mode()
        arrival = presence.Arrival(
            station_id=station.id,
            timezone=station.timezone,
            owner_key=self.worker.owner_key,
            worker_id=self.worker.worker_id if self.worker.consented else None,
            occupation=self.worker.occupation,
            mode=mode.kind,
            party_size=self.attempt.party_size,
            max_stay=timedelta(minutes=station.max_stay_min),
        )
        return await presence.open_visit(self.tx, arrival, started_at=self.at)

    async def _queue(self, scan_id: uuid.UUID, deadline: Deadline) -> None:
        assert self.door is not None
        assert self.door.controller_id is not None
        order = commands.Order(
            station_id=self.door.station.id,
            door_id=self.door.door_id,
            controller_id=self.door.controller_id,
            scan_id=scan_id,
            owner_key=self.worker.owner_key,
        )
        await commands.queue(self.tx, self.desk.wakeups, order, deadline=deadline, at=self.at)

    async def _write(
        self,
        outcome: Outcome,
        reason: Reason,
        *,
        deadline: Deadline | None = None,
        visit_id: uuid.UUID | None = None,
    ) -> ScanView:
        worker, attempt, door, at = self.worker, self.attempt, self.door, self.at
        mode = self.facts.mode
        station = door.station if door else None
        keeps_place = deadline is not None and not self.facts.counted_already
        scan_id = new_id()
        await self.tx.execute(
            INSERT,
            {
                "id": scan_id,
                "worker_id": worker.worker_id if worker.consented else None,
                "owner_key": worker.owner_key,
                "demand_key": _demand_key(self.desk.vault.key("owner"), worker, station, at),
                "idempotency_key": attempt.key,
                "body_hash": attempt.body_hash(),
                "station_id": station.id if station else None,
                "door_id": door.door_id if door else None,
                "outcome": outcome,
                "reason": reason,
                "occupation": worker.occupation,
                "mode": mode.kind if mode else None,
                "because": mode.because if mode else None,
                "mode_until": mode.until if mode else None,
                "calendar_known": mode.calendar_known if mode else None,
                "party_size": attempt.party_size,
                "scanned_at": at,
                "expires_at": deadline.expires_at if deadline else None,
                "reserved_until": (
                    deadline.expires_at + RESERVATION_GRACE if deadline and keeps_place else None
                ),
                "visit_id": visit_id,
                "local_day": local_day(at, station.timezone) if station else None,
                "local_hour": local_hour(at, station.timezone) if station else None,
                "changed_at": at,
            },
        )
        return ScanView(
            id=scan_id,
            outcome=outcome,
            reason=reason,
            station=Named(station.code, station.name) if station else None,
            door=DoorNamed(door.door_id, door.door_name) if door else None,
            mode=mode,
            timezone=station.timezone if station else None,
            state=ScanState.PENDING if outcome is Outcome.GRANTED else ScanState.NONE,
            expires_at=deadline.expires_at if deadline else None,
            visit_id=visit_id,
            replayed=False,
            near=(station.latitude, station.longitude) if station else None,
            station_id=station.id if station else None,
            left_s=UNLOCK_SECONDS if deadline else 0.0,
        )

    def _station(self) -> _Site:
        assert self.door is not None
        return self.door.station

    def _mode(self) -> Mode:
        assert self.facts.mode is not None
        return self.facts.mode


def _demand_key(
    secret: bytes, worker: SignedInWorker, station: _Site | None, at: datetime
) -> bytes | None:
    """Mark who wanted in where in which half hour, without saying who (law 8)."""
    if station is None:
        return None
    slot = int(at.timestamp()) // HALF_HOUR_S
    text = worker.worker_id.bytes + station.id.bytes + slot.to_bytes(8, "big")
    return hmac.digest(secret, b"demand:" + text, "sha256")[:16]


async def _stored(
    tx: AsyncSession, clock: DeadlineClock, recent: _Recent, attempt: Attempt
) -> ScanView:
    assert recent.replay_id is not None
    body_hash = await tx.scalar(sa.select(Scan.body_hash).where(Scan.id == recent.replay_id))
    if body_hash != attempt.body_hash():
        raise KeyReused
    return await view(tx, clock, recent.replay_id, recent.owner_key, replayed=True)


async def _expire_own(
    tx: AsyncSession, clock: DeadlineClock, owner_key: bytes, *, at: datetime
) -> None:
    """Write down that the worker's earlier commands are over, to make way for a new one."""
    for state, becomes in (
        (CommandState.PENDING, CommandState.EXPIRED),
        (CommandState.CLAIMED, CommandState.UNKNOWN),
    ):
        await tx.execute(
            sa.update(Command)
            .where(
                Command.owner_key == owner_key,
                in_state(state),
                ~clock.live(Command.expires_at, Command.expires_mono),
            )
            .values(state=becomes, changed_at=at)
        )


async def view(
    tx: AsyncSession,
    clock: DeadlineClock,
    scan_id: uuid.UUID,
    owner_key: bytes,
    *,
    replayed: bool = False,
) -> ScanView:
    """Read one scan of this worker as of now; raises ScanNotFound."""
    row = (
        await tx.execute(_view_query(clock), {"scan": scan_id, "owner": owner_key})
    ).one_or_none()
    if row is None:
        raise ScanNotFound
    found: Scan = row.Scan
    state = ScanState.NONE
    if row.state is not None:
        state = ScanState(state_now(row.state, live=bool(row.live)).value)
    mode = None
    if found.mode is not None and found.because is not None:
        mode = Mode(
            Kind(found.mode), Because(found.because), found.mode_until, bool(found.calendar_known)
        )
    return ScanView(
        id=found.id,
        outcome=found.outcome,
        reason=found.reason,
        station=Named(row.code, row.station_name) if row.code is not None else None,
        door=DoorNamed(found.door_id, row.door_name) if found.door_id is not None else None,
        mode=mode,
        timezone=row.timezone,
        state=state,
        expires_at=found.expires_at,
        visit_id=found.visit_id,
        replayed=replayed,
        near=(row.latitude, row.longitude) if row.latitude is not None else None,
        station_id=found.station_id,
        left_s=max(0.0, (found.expires_at - row.clock_now).total_seconds())
        if found.expires_at
        else 0.0,
    )


@lru_cache(maxsize=4)
def _view_query(clock: DeadlineClock) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(
            Scan,
            Station.code,
            Station.name.label("station_name"),
            Station.timezone,
            Station.latitude,
            Station.longitude,
            Door.name.label("door_name"),
            Command.state,
            clock.live(Command.expires_at, Command.expires_mono).label("live"),
            clock.now().label("clock_now"),
        )
        .outerjoin(Station, Station.id == Scan.station_id)
        .outerjoin(Door, Door.id == Scan.door_id)
        .outerjoin(Command, Command.scan_id == Scan.id)
        .where(
            Scan.id == sa.bindparam("scan", type_=sa.Uuid()),
            Scan.owner_key == sa.bindparam("owner", type_=sa.LargeBinary()),
        )
    )


async def count_reserved(tx: AsyncSession, station_id: uuid.UUID, *, clock: DeadlineClock) -> int:
    """Count the persons for whom a place is kept now."""
    found = await tx.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(Scan.party_size), 0)).where(
            Scan.station_id == station_id, Scan.reserved_until > clock.now()
        )
    )
    return int(found or 0)
