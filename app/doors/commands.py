"""Unlock commands: queue, see, claim, acknowledge, expire (law 3).

    pending -> claimed -> executed | refused | failed
    pending -> expired | refused
    claimed -> unknown, which a late acknowledgement may still settle

The poll only tells that a command exists. The controller claims it: one conditional update, under a
share lock on the door row, so that no claim commits after a lockdown committed. The answer carries
the milliseconds left, which the controller counts from the moment it sent the claim; so its relay
pulses at most once per command, and never later than 10 s after the scan request was read.

Order of locks everywhere: worker, presence, door, command, visit.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Now
from app.db.clock import Deadline, DeadlineClock
from app.db.types import Instant, new_id, table_of
from app.db.upsert import moved
from app.db.wakeups import LocalWakeups
from app.doors import contacts
from app.doors.rules import LIVE, UNLOCK_SECONDS, CommandState
from app.doors.rules.journal import opened_by
from app.doors.tables import AckEvidence, Command, CommandKind, Controller, Door, Scan, in_state
from app.errors import Conflict, Gone, NotFound, Problem
from app.places.rules import ChangeKind
from app.places.tables import ModeChange, Station
from app.visits import presence

INSERT = sa.insert(table_of(Command))
"""Built once: on the scan's path, building a statement costs more than sending it."""


class CommandNotFound(NotFound):
    """This controller has no such command."""


class ClaimedByAnother(Conflict):
    """Another boot of this controller, or another claim, has this command."""


class CommandExpired(Gone):
    """The command's time is over; do not pulse."""


class CommandSettled(Gone):
    """The command is settled already; do not pulse again."""


class CommandRefused(Gone):
    """The station is locked down or evacuated, or the controller is frozen; do not pulse."""


class AckConflict(Conflict):
    """Another result stands for this command; yours was kept as evidence."""


class NotClaimed(Conflict):
    """This boot never claimed the command; the result was kept as evidence."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whom a new command is for."""

    station_id: uuid.UUID
    door_id: uuid.UUID
    controller_id: uuid.UUID
    scan_id: uuid.UUID | None = None
    owner_key: bytes | None = None
    admin_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that was given: pulse within `ttl_ms` of the moment you sent it."""

    ttl_ms: int
    kind: CommandKind
    door: uuid.UUID
    pulse_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Which boot of a controller claims, and with which nonce: repeating it repeats the answer."""

    boot_id: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Ack:
    """What a controller says became of a command."""

    boot_id: str
    result: CommandState
    """executed, refused or failed."""
    pulse_after_claim_ms: int | None = None
    detail: str | None = None


def topic_of(controller_id: uuid.UUID) -> str:
    """Name the bell of one controller."""
    return f"controller:{controller_id}"


def scan_topic(scan_id: uuid.UUID) -> str:
    """Name the bell of one scan."""
    return f"scan:{scan_id}"


async def queue(
    tx: AsyncSession, wakeups: LocalWakeups, order: Order, *, deadline: Deadline, at: datetime
) -> uuid.UUID:
    """Add a pending command; the controller's bell rings at the commit."""
    command_id = new_id()
    await tx.execute(
        INSERT,
        {
            "id": command_id,
            "kind": CommandKind.UNLOCK,
            "station_id": order.station_id,
            "door_id": order.door_id,
            "controller_id": order.controller_id,
            "scan_id": order.scan_id,
            "owner_key": order.owner_key,
            "admin_id": order.admin_id,
            "state": CommandState.PENDING,
            "created_at": at,
            "expires_at": deadline.expires_at,
            "expires_mono": deadline.expires_mono,
            "changed_at": at,
        },
    )
    await wakeups.wake(tx, topic_of(order.controller_id))
    return command_id


async def claim(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    command_id: uuid.UUID,
    wanted: Claim,
    *,
    clock: DeadlineClock,
    wakeups: LocalWakeups,
    now: Now,
) -> Claimed | Problem:
    """Give the command to whoever claims it first, if its time is not over.

    1. Lock the door's row, shared: a lockdown waits for us, or we for it.
    2. Move pending to claimed in one conditional update, which looks again at lockdown, evacuation
       and clones, and at the deadline by the deadline clock.
    3. If nothing moved, say why: the same boot and nonce get the same grant again.

    A refusal is returned, not raised: a lockdown's refusal must be committed.
    """
    if not await _lock_door(tx, controller_id, command_id):
        return CommandNotFound()
    at = now()
    result = await tx.execute(
        sa.update(Command)
        .where(
            Command.id == command_id,
            in_state(CommandState.PENDING),
            clock.live(Command.expires_at, Command.expires_mono),
            ~_stopped(Command.station_id, Command.controller_id, at),
        )
        .values(
            state=CommandState.CLAIMED,
            claimed_at=at,
            boot_id=wanted.boot_id,
            nonce=wanted.nonce,
            changed_at=at,
        )
        .returning(*_grant_columns(clock))
    )
    if row := result.one_or_none():
        if row.scan_id is not None:
            await wakeups.wake(tx, scan_topic(row.scan_id))
        return _grant(row, clock)
    return await _why_not(tx, command_id, wanted, clock=clock, wakeups=wakeups, at=at)


async def _lock_door(tx: AsyncSession, controller_id: uuid.UUID, command_id: uuid.UUID) -> bool:
    found = await tx.execute(
        sa.select(Door.id)
        .join(Command, Command.door_id == Door.id)
        .where(Command.id == command_id, Command.controller_id == controller_id)
        .with_for_update(read=True, of=Door)
    )
    return found.one_or_none() is not None


def _stopped(station_id: Any, controller_id: Any, at: datetime) -> sa.ColumnElement[bool]:
    """A lockdown or an evacuation holds, or two devices speak for the controller.

    An emergency that had begun when it was written down has begun, whatever our clock says.
    """
    begun = sa.or_(ModeChange.from_at <= at, ModeChange.from_at <= ModeChange.created_at)
    emergency = sa.exists().where(
        ModeChange.station_id == station_id,
        ModeChange.kind.in_((ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)),
        ModeChange.retired_at.is_(None),
        begun,
        ModeChange.until_at > at,
    )
    frozen = sa.exists().where(Controller.id == controller_id, Controller.frozen_at.is_not(None))
    return sa.or_(emergency, frozen)


def _grant_columns(clock: DeadlineClock) -> tuple[Any, ...]:
    pulse_ms = sa.select(Door.pulse_ms).where(Door.id == Command.door_id).scalar_subquery()
    return (
        Command.kind,
        Command.door_id,
        Command.scan_id,
        Command.expires_at,
        Command.expires_mono,
        pulse_ms.label("pulse_ms"),
        sa.type_coerce(clock.now(), Instant()).label("clock_now"),
    )


def _grant(row: Any, clock: DeadlineClock) -> Claimed:
    left = clock.left_ms(Deadline(row.expires_at, row.expires_mono), row.clock_now)
    return Claimed(ttl_ms=left, kind=row.kind, door=row.door_id, pulse_ms=row.pulse_ms)


async def _why_not(
    tx: AsyncSession,
    command_id: uuid.UUID,
    wanted: Claim,
    *,
    clock: DeadlineClock,
    wakeups: LocalWakeups,
    at: datetime,
) -> Claimed | Problem:
    row = (
        await tx.execute(
            sa.select(
                *_grant_columns(clock),
                Command.state,
                Command.boot_id,
                Command.nonce,
                clock.live(Command.expires_at, Command.expires_mono).label("live"),
                _stopped(Command.station_id, Command.controller_id, at).label("stopped"),
            ).where(Command.id == command_id)
        )
    ).one()
    if row.state is CommandState.PENDING and row.live and row.stopped:
        await _refuse(tx, wakeups, Command.id == command_id, at=at)
        return CommandRefused()
    if row.state is CommandState.REFUSED and row.boot_id is None:
        return CommandRefused()
    if row.state in LIVE and not row.live:
        return CommandExpired()
    if row.state is CommandState.CLAIMED:
        if (row.boot_id, row.nonce) == (wanted.boot_id, wanted.nonce):
            return await _grant_again(tx, command_id, row, clock=clock, at=at)
        return ClaimedByAnother()
    if row.state in (CommandState.EXPIRED, CommandState.UNKNOWN):
        return CommandExpired()
    return CommandSettled()


async def _grant_again(
    tx: AsyncSession, command_id: uuid.UUID, row: Any, *, clock: DeadlineClock, at: datetime
) -> Claimed | Problem:
    """Give the same grant, and note when: the device counts its pulse from this claim."""
    result = await tx.execute(
        sa.update(Command)
        .where(Command.id == command_id, in_state(CommandState.CLAIMED))
        .values(granted_again_at=at, changed_at=at)
    )
    return _grant(row, clock) if moved(result) else CommandSettled()


async def acknowledge(
    tx: AsyncSession,
    controller_id: uuid.UUID,
    command_id: uuid.UUID,
    ack: Ack,
    *,
    wakeups: LocalWakeups,
    at: datetime,
) -> Problem | None:
    """Take down what became of a command; the first result stands.

    1. Hold the controller, as the effect of an opening does: of the two, the later sees what the
       earlier wrote. Without that both may look before the other is committed, and nobody came in.
    2. Move claimed (or unknown: a late word) to the result, if this boot claimed it.
    3. If nothing moved: the same result again is fine; another is kept as evidence.
    4. An executed command opens the visit: at the pulse, or at a door with a contact when the
       contact proved that the door opened (law 5). The visit takes the kept place; until it
       begins, the place stays kept for as long as the door may still open. Any other result frees
       it (law 9).

    A conflict is returned, not raised: the evidence must be committed.
    """
    await tx.execute(
        sa.select(Controller.id)
        .where(Controller.id == controller_id)
        .with_for_update(key_share=True)
    )
    result = await tx.execute(
        sa.update(Command)
        .where(
            Command.id == command_id,
            Command.controller_id == controller_id,
            in_state(CommandState.CLAIMED, CommandState.UNKNOWN),
            Command.boot_id == ack.boot_id,
        )
        .values(
            state=ack.result,
            settled_at=at,
            pulse_after_claim_ms=ack.pulse_after_claim_ms,
            detail=ack.detail,
            changed_at=at,
        )
        .returning(
            Command.id,
            Command.scan_id,
            Command.door_id,
            Command.created_at,
            sa.func.coalesce(Command.granted_again_at, Command.claimed_at).label("granted_at"),
        )
    )
    row = result.one_or_none()
    if row is None:
        return await _not_moved(tx, controller_id, command_id, ack, at=at)
    if ack.result is CommandState.EXECUTED:
        # By the clocks that date scans and claims: `expires_at` may stand on the database's.
        latest = max(row.granted_at, row.created_at + timedelta(seconds=UNLOCK_SECONDS))
        pulsed = pulsed_at(row.granted_at, ack.pulse_after_claim_ms, min(at, latest))
        await _pulsed(tx, row, pulsed, at=at)
    elif row.scan_id is not None:
        await _free_places(tx, [row.scan_id], at=at)
    if row.scan_id is not None:
        await wakeups.wake(tx, scan_topic(row.scan_id))
    return None


async def _pulsed(tx: AsyncSession, row: Any, pulsed: datetime, *, at: datetime) -> None:
    """Write down that the relay pulsed, and what is known of the door by then."""
    has_contact = await tx.scalar(sa.select(Door.has_contact).where(Door.id == row.door_id))
    opened = None
    if has_contact:
        opened = opened_by(pulsed, await contacts.intervals(tx, row.door_id, around=pulsed))
    await tx.execute(
        sa.update(Command)
        .where(Command.id == row.id)
        .values(pulsed_at=pulsed, opened_at=opened, has_contact=bool(has_contact), changed_at=at)
    )
    started_at = opened if has_contact else pulsed
    if row.scan_id is not None and started_at is not None:
        await enter(tx, row.scan_id, started_at=started_at, at=at)


async def enter(
    tx: AsyncSession, scan_id: uuid.UUID, *, started_at: datetime, at: datetime
) -> None:
    """Open the visit of a granted scan, at the instant at which its door opened.

    From then on the visit takes the place that was kept for it.
    """
    visit_id = await _open_visit(tx, scan_id, started_at=started_at, at=at)
    await tx.execute(
        sa.update(Scan)
        .where(Scan.id == scan_id)
        .values(visit_id=visit_id, reserved_until=None, changed_at=at)
    )


async def _not_moved(
    tx: AsyncSession, controller_id: uuid.UUID, command_id: uuid.UUID, ack: Ack, *, at: datetime
) -> Problem | None:
    row = (
        await tx.execute(
            sa.select(Command.state, Command.boot_id).where(
                Command.id == command_id, Command.controller_id == controller_id
            )
        )
    ).one_or_none()
    if row is None:
        return CommandNotFound()
    if row.state is ack.result and row.boot_id == ack.boot_id:
        return None
    await _keep_evidence(tx, command_id, ack, at=at)
    return NotClaimed() if row.boot_id != ack.boot_id else AckConflict()


async def _keep_evidence(
    tx: AsyncSession, command_id: uuid.UUID, ack: Ack, *, at: datetime
) -> None:
    """Keep what a boot says against what stands, once however often; the controller is held."""
    said = {
        "pulse_after_claim_ms": ack.pulse_after_claim_ms,
        "detail": ack.detail,
        "received_at": at,
    }
    again = await tx.execute(
        sa.update(AckEvidence)
        .where(
            AckEvidence.command_id == command_id,
            AckEvidence.boot_id == ack.boot_id,
            AckEvidence.result == ack.result,
        )
        .values(said)
    )
    if not moved(again):
        key = {"command_id": command_id, "boot_id": ack.boot_id, "result": ack.result}
        await tx.execute(sa.insert(AckEvidence).values(id=new_id(), **key, **said))


def pulsed_at(granted_at: datetime, after_claim_ms: int | None, latest: datetime) -> datetime:
    """Say when the relay pulsed: the device's word, held between the grant and the latest."""
    if after_claim_ms is None:
        return latest
    return min(granted_at + timedelta(milliseconds=max(0, after_claim_ms)), latest)


async def _open_visit(
    tx: AsyncSession, scan_id: uuid.UUID, *, started_at: datetime, at: datetime
) -> uuid.UUID:
    row = (
        await tx.execute(
            sa.select(Scan, Station.timezone, Station.max_stay_min)
            .join(Station, Station.id == Scan.station_id)
            .where(Scan.id == scan_id)
        )
    ).one()
    scan: Scan = row.Scan
    assert scan.mode is not None
    assert scan.station_id is not None
    arrival = presence.Arrival(
        station_id=scan.station_id,
        timezone=row.timezone,
        owner_key=scan.owner_key,
        worker_id=scan.worker_id,
        occupation=scan.occupation,
        mode=scan.mode,
        party_size=scan.party_size,
        max_stay=timedelta(minutes=row.max_stay_min),
    )
    return await presence.open_visit(tx, arrival, started_at=started_at, at=at)


async def lock_doors(tx: AsyncSession, station_id: uuid.UUID) -> None:
    """Take a station's doors for a lockdown: claims in flight end first, later ones see it."""
    await tx.execute(
        sa.select(Door.id).where(Door.station_id == station_id).order_by(Door.id).with_for_update()
    )


async def refuse_pending(
    tx: AsyncSession, wakeups: LocalWakeups, station_id: uuid.UUID, *, at: datetime
) -> int:
    """Refuse the station's pending commands; the caller holds its doors."""
    return await _refuse(tx, wakeups, Command.station_id == station_id, at=at)


async def _refuse(
    tx: AsyncSession, wakeups: LocalWakeups, which: sa.ColumnElement[bool], *, at: datetime
) -> int:
    result = await tx.execute(
        sa.update(Command)
        .where(which, in_state(CommandState.PENDING))
        .values(state=CommandState.REFUSED, settled_at=at, changed_at=at)
        .returning(Command.scan_id)
    )
    scan_ids = [scan_id for scan_id in result.scalars() if scan_id is not None]
    await _free_places(tx, scan_ids, at=at)
    for scan_id in scan_ids:
        await wakeups.wake(tx, scan_topic(scan_id))
    return len(scan_ids)


async def _free_places(tx: AsyncSession, scan_ids: Sequence[uuid.UUID], *, at: datetime) -> None:
    if scan_ids:
        await tx.execute(
            sa.update(Scan).where(Scan.id.in_(scan_ids)).values(reserved_until=None, changed_at=at)
        )


async def expire(
    tx: AsyncSession, *, clock: DeadlineClock, at: datetime, everything: bool = False
) -> int:
    """Write down what already reads as over: pending becomes expired, claimed becomes unknown.

    `everything` is for the start on SQLite, where another process's monotonic clock set the
    deadlines: whatever is live then belongs to an earlier process.
    """
    over = sa.true() if everything else ~clock.live(Command.expires_at, Command.expires_mono)
    changed = await _run_out(tx, over, at=at)
    await tx.execute(
        sa.update(Scan)
        .where(Scan.reserved_until.is_not(None), Scan.reserved_until <= clock.now())
        .values(reserved_until=None, changed_at=at)
    )
    return changed


async def expire_own(
    tx: AsyncSession, owner_key: bytes, *, clock: DeadlineClock, at: datetime
) -> None:
    """Write down that a worker's earlier commands are over, to make way for a new one."""
    over = ~clock.live(Command.expires_at, Command.expires_mono)
    await _run_out(tx, sa.and_(Command.owner_key == owner_key, over), at=at)


async def _run_out(tx: AsyncSession, which: sa.ColumnElement[bool], *, at: datetime) -> int:
    """End the time of commands; nothing opens by an expired one, so no place is kept for it.

    By one that was claimed the relay may have pulsed: its place is kept for its whole time.
    """
    expired = await tx.execute(
        sa.update(Command)
        .where(in_state(CommandState.PENDING), which)
        .values(state=CommandState.EXPIRED, settled_at=at, changed_at=at)
        .returning(Command.scan_id)
    )
    scan_ids = list(expired.scalars())
    await _free_places(tx, [scan_id for scan_id in scan_ids if scan_id is not None], at=at)
    unknown = await tx.execute(
        sa.update(Command)
        .where(in_state(CommandState.CLAIMED), which)
        .values(state=CommandState.UNKNOWN, changed_at=at)
    )
    return len(scan_ids) + moved(unknown)
