"""A scan: repeat? gather the facts, decide, record, queue the unlock.

A granted scan costs four statements besides BEGIN and COMMIT: the session with the worker and the
door with its station and presence row (worker and presence locked, in this order), the worker's
recent scans with the heads inside, and two inserts. Both locks are taken before the facts are read,
so the facts hold until the commit: the worker's lock makes a repeated key and a double tap wait for
the first, the presence row's lock gives a place away once.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Monotonic
from app.db.clock import Deadline, DeadlineClock
from app.db.types import new_id, table_of
from app.db.wakeups import LocalWakeups
from app.doors import commands, demands
from app.doors.desk import ControllerDesk
from app.doors.facts import DoorClaims, DoorFacts, Recent, Site, arrival, recent_of, token_reason
from app.doors.keys import KeyRing
from app.doors.rules import (
    RESERVATION_GRACE,
    UNLOCK_SECONDS,
    Facts,
    Granted,
    Outcome,
    Place,
    Reason,
    Refused,
    ScanState,
    WalkIn,
    decide,
    poster_suffices,
)
from app.doors.tables import Scan, ScanAlias
from app.doors.tokens import DisplayClaims, PosterClaims
from app.doors.views import DoorNamed, Named, ScanView, view
from app.errors import Invalid
from app.people.sign_in import SignedInWorker
from app.places.calendar import CalendarCache
from app.places.rules import Mode, local_day, local_hour, mode_now
from app.vault import Vault
from app.visits import presence

INSERT = sa.insert(table_of(Scan))
"""Built once: on the scan's path, building a statement costs more than sending it."""


class KeyReused(Invalid):
    """This Idempotency-Key was used for another request."""


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
    arrived_at: float
    """The monotonic instant at which the request came in, before any wait of ours."""
    read_at: float
    """The monotonic instant at which the request had been read: the 10 s begin here."""
    ticket: str | None = None
    """What this browser got for the code on a screen, if it got any."""

    def body_hash(self) -> bytes:
        """Tell two bodies under one key apart."""
        return hashlib.sha256(f"{self.party_size}\n{self.token}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown at the door, once its own check is made."""

    reason: Reason
    """What is wrong with it; OK when nothing is."""
    claims: DoorClaims | None = None
    """What it says; None for a pass, and for what is no code."""

    @property
    def is_poster(self) -> bool:
        """Whether it was printed."""
        return isinstance(self.claims, PosterClaims)

    @property
    def code_jti(self) -> str | None:
        """Which code of a screen it was; None when it was none."""
        return self.claims.jti if isinstance(self.claims, DisplayClaims) else None


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
    claims = desk.keys.door_code(attempt.token)
    worker, door = await arrival(tx, desk.vault.key("owner"), session, claims, at=at)
    if worker is None:
        return None
    token = await token_reason(tx, claims, worker, door, attempt.ticket, at=at)
    shown = Shown(token, claims if isinstance(claims, DoorClaims) else None)
    return await settle(tx, desk, worker, door, attempt, shown, at=at)


async def settle(
    tx: AsyncSession,
    desk: ScanDesk,
    worker: SignedInWorker,
    door: DoorFacts | None,
    attempt: Attempt,
    shown: Shown,
    *,
    at: datetime,
) -> ScanView:
    """Take steps 3 to 5 of a scan; the caller holds the worker's row and the presence row."""
    recent = await recent_of(tx, desk.clock, worker.owner_key, attempt.key, door, at=at)
    if recent.replay_id is not None:
        return await _stored(tx, desk.clock, recent, attempt)
    if recent.repeat_id is not None:
        await _remember_tap(tx, worker.owner_key, attempt, recent.repeat_id, at=at)
        return await view(tx, desk.clock, recent.repeat_id, worker.owner_key, replayed=True)
    if recent.stale:
        await commands.expire_own(tx, worker.owner_key, clock=desk.clock, at=at)
    facts = _facts(desk, worker, attempt, shown, door, recent, at)
    decision = decide(facts)
    decide_ms = int((desk.monotonic() - attempt.arrived_at) * 1_000)
    jti = shown.code_jti
    recording = _Recording(tx, desk, worker, attempt, door, facts, recent, at, jti, decide_ms)
    return await recording.of(decision)


def _facts(
    desk: ScanDesk,
    worker: SignedInWorker,
    attempt: Attempt,
    shown: Shown,
    door: DoorFacts | None,
    recent: Recent,
    at: datetime,
) -> Facts:
    facts = Facts(
        token=shown.reason,
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
        door_retired=door.retired_at is not None,
        needs_display=shown.is_poster
        and not poster_suffices(
            has_display=door.has_display,
            poster_fallback=door.poster_fallback,
            codes_at=door.codes_at,
            at=at,
        ),
        mode=mode_now(door.rules, desk.calendar.current, at),
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
    door: DoorFacts | None
    facts: Facts
    recent: Recent
    at: datetime
    code_jti: str | None
    decide_ms: int

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
        demand_key = self.recent.demand_key
        if station is not None and demand_key is None:
            demand_key = await self._demand_key(station, outcome)
        keeps_place = deadline is not None and not self.facts.counted_already
        scan_id = new_id()
        await self.tx.execute(
            INSERT,
            {
                "id": scan_id,
                "worker_id": worker.worker_id if worker.consented else None,
                "owner_key": worker.owner_key,
                "demand_key": demand_key,
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
                "code_jti": self.code_jti,
                "scanned_at": at,
                "decide_ms": self.decide_ms,
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
            door=DoorNamed(
                door.door_id, door.door_name, door.has_contact, door.station.takes_passes
            )
            if door
            else None,
            mode=mode,
            timezone=station.timezone if station else None,
            state=ScanState.PENDING if outcome is Outcome.GRANTED else ScanState.NONE,
            expires_at=deadline.expires_at if deadline else None,
            visit_id=visit_id,
            replayed=False,
            near=(station.latitude, station.longitude) if station else None,
            station_id=station.id if station else None,
            left_s=UNLOCK_SECONDS if deadline else 0.0,
            final=deadline is None,
        )

    async def _demand_key(self, station: Site, outcome: Outcome) -> bytes:
        """Mark what he wants here, in his first scan of a half hour."""
        met = None
        # Any other scan meets his demand itself, and elsewhere no controller works alone.
        if outcome is Outcome.REFUSED and station.takes_passes:
            owner_key = self.worker.owner_key
            met = await demands.met_before(
                self.tx, owner_key, station.id, station.timezone, at=self.at
            )
        return met or demands.new()

    def _station(self) -> Site:
        assert self.door is not None
        return self.door.station

    def _mode(self) -> Mode:
        assert self.facts.mode is not None
        return self.facts.mode


async def _remember_tap(
    tx: AsyncSession, owner_key: bytes, attempt: Attempt, scan_id: uuid.UUID, *, at: datetime
) -> None:
    """Keep what a second tap was answered, so that its repetition never opens the door again."""
    await tx.execute(
        sa.insert(ScanAlias).values(
            owner_key=owner_key,
            key=attempt.key,
            body_hash=attempt.body_hash(),
            scan_id=scan_id,
            created_at=at,
        )
    )


async def _stored(
    tx: AsyncSession, clock: DeadlineClock, recent: Recent, attempt: Attempt
) -> ScanView:
    assert recent.replay_id is not None
    scan, alias = table_of(Scan).c, table_of(ScanAlias).c
    body_hash = await tx.scalar(
        sa.select(scan.body_hash)
        .where(scan.id == recent.replay_id, scan.idempotency_key == attempt.key)
        .union_all(
            sa.select(alias.body_hash).where(
                alias.owner_key == recent.owner_key, alias.key == attempt.key
            )
        )
    )
    if body_hash != attempt.body_hash():
        raise KeyReused
    return await view(tx, clock, recent.replay_id, recent.owner_key, replayed=True)


async def reserved_by_station(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, clock: DeadlineClock
) -> Mapping[uuid.UUID, int]:
    """Count the persons for whom a place is kept now, by station: one statement for all."""
    rows = await tx.execute(
        sa.select(Scan.station_id, sa.func.sum(Scan.party_size).label("persons"))
        .where(Scan.station_id.in_(station_ids), Scan.reserved_until > clock.now())
        .group_by(Scan.station_id)
    )
    kept = {row.station_id: int(row.persons) for row in rows}
    return {station_id: kept.get(station_id, 0) for station_id in station_ids}
