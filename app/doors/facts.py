"""What a scan is decided from: who stands at which door, and what he did lately.

Two statements. The first takes the worker's row and the station's presence row, in this order; what
the second reads then holds until the commit.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.clock import DeadlineClock
from app.db.types import Instant, table_of
from app.doors import screens, tokens
from app.doors.rules import (
    LIVE,
    REPEAT_AFTER_EXECUTION,
    CommandState,
    Place,
    Reason,
    half_hour_of,
)
from app.doors.tables import Command, Controller, Door, Pass, Scan, ScanAlias, in_state
from app.people import sign_in
from app.people.secrets import hash_of
from app.people.sign_in import SignedInWorker
from app.people.tables import Worker
from app.places.rules import (
    StationRules,
)
from app.places.standing import station_rules
from app.places.tables import ModeChange, Station
from app.visits import presence
from app.visits.tables import StationPresence, Visit

DoorClaims = tokens.PosterClaims | tokens.DisplayClaims
"""What a code says that names a door: on paper, or on a screen."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a decision needs of a station."""

    id: uuid.UUID
    code: str
    name: str
    timezone: str
    latitude: float
    longitude: float
    capacity: int
    max_stay_min: int
    takes_passes: bool
    """Whether its controller opens by passes while it is alone, so has a reader."""


@dataclass(frozen=True, slots=True)
class DoorFacts:
    door_id: uuid.UUID
    door_name: str
    has_contact: bool
    has_display: bool
    poster_fallback: bool
    codes_at: datetime | None
    generation: int
    grace_until: datetime | None
    retired_at: datetime | None
    """Since when the door, or its station, is out of use."""
    station: Site
    controller_id: uuid.UUID | None
    seen_at: datetime | None
    rules: StationRules


async def arrival(
    tx: AsyncSession,
    secret: bytes,
    session: str,
    claims: DoorClaims | tokens.TokenRefusal,
    *,
    at: datetime,
) -> tuple[SignedInWorker | None, DoorFacts | None]:
    """Lock and give who stands where; the worker alone when there is no such door."""
    if not isinstance(claims, tokens.TokenRefusal):
        asked = {"token_hash": hash_of(session), "number": claims.d, "at": at}
        rows = (await tx.execute(_arrival_query(), asked)).all()
        if rows:
            return sign_in.signed_in(rows[0], secret=secret), _door_facts(rows)
    return await sign_in.find_worker(tx, session, secret=secret, at=at, lock=True), None


async def arrival_by_pass(
    tx: AsyncSession, secret: bytes, jti: str, door_id: uuid.UUID, *, at: datetime
) -> tuple[SignedInWorker, DoorFacts] | None:
    """Lock and give whose pass is shown at which door; None when it was given for another."""
    asked = {"jti": jti, "door": door_id, "at": at}
    rows = (await tx.execute(_pass_query(), asked)).all()
    if not rows:
        return None
    return sign_in.signed_in(rows[0], secret=secret), _door_facts(rows)


async def door_of_pass(
    tx: AsyncSession, secret: bytes, jti: str, door_id: uuid.UUID, *, at: datetime
) -> tuple[SignedInWorker, DoorFacts] | None:
    """Lock and give whose pass a controller took at which door of its station; None: nobody's.

    A pass is signed for a station, so a controller that is alone takes it at any of its doors.
    """
    asked = {"jti": jti, "door": door_id, "at": at}
    rows = (await tx.execute(_pass_query(at_its_door=False), asked)).all()
    if not rows:
        return None
    return sign_in.signed_in(rows[0], secret=secret), _door_facts(rows)


async def site_of(tx: AsyncSession, door_id: uuid.UUID, *, at: datetime) -> DoorFacts:
    """Lock and give what holds at a door, whoever stands there."""
    rows = (await tx.execute(_site_query(), {"door": door_id, "at": at})).all()
    return _door_facts(rows)


def _door_facts(rows: Sequence[Any]) -> DoorFacts:
    first = rows[0]
    return DoorFacts(
        door_id=first.door_id,
        door_name=first.door_name,
        has_contact=first.has_contact,
        has_display=first.has_display,
        poster_fallback=first.poster_fallback,
        codes_at=first.codes_at,
        generation=first.generation,
        grace_until=first.grace_until,
        retired_at=min(filter(None, (first.door_retired_at, first.retired_at)), default=None),
        station=Site(
            first.id,
            first.code,
            first.name,
            first.timezone,
            first.latitude,
            first.longitude,
            first.capacity,
            first.max_stay_min,
            first.offline_hours is not None,
        ),
        controller_id=first.controller_id,
        seen_at=first.seen_at,
        rules=station_rules(first, [row for row in rows if row.kind is not None]),
    )


@lru_cache(maxsize=1)
def _arrival_query() -> Any:
    """The session's worker, at the door that a poster names."""
    number = table_of(Door).c.number == sa.bindparam("number")
    return _at_door(sign_in.session_query(), number)


@lru_cache(maxsize=2)
def _pass_query(*, at_its_door: bool = True) -> Any:
    """The pass's worker, at the door it was given for or at another of that station."""
    worker, given = table_of(Worker), table_of(Pass)
    whose = (
        sa.select(
            worker.c.id.label("worker_id"),
            worker.c.occupation,
            worker.c.consent_id,
            worker.c.blocked_at,
        )
        .join_from(worker, given, given.c.worker_id == worker.c.id)
        .where(given.c.id == sa.bindparam("jti"), worker.c.erased_at.is_(None))
    )
    door, its_door = table_of(Door).c, table_of(Door).alias("its_door")
    its_station = (
        sa.select(its_door.c.station_id).where(its_door.c.id == given.c.door_id).scalar_subquery()
    )
    allowed = door.id == given.c.door_id if at_its_door else door.station_id == its_station
    return _at_door(whose, sa.and_(allowed, door.id == sa.bindparam("door", type_=sa.Uuid())))


@lru_cache(maxsize=1)
def _site_query() -> Any:
    """A door by itself."""
    nobody = sa.select(sa.literal(1).label("one")).subquery("nobody")
    this = table_of(Door).c.id == sa.bindparam("door", type_=sa.Uuid())
    return _at_door(sa.select(nobody.c.one).select_from(nobody), this, locks_worker=False)


def _at_door(whose: Any, this_door: sa.ColumnElement[bool], *, locks_worker: bool = True) -> Any:
    door, site, presence_row = table_of(Door), table_of(Station), table_of(StationPresence)
    controller, change = table_of(Controller), table_of(ModeChange)
    return (
        whose.add_columns(
            door.c.id.label("door_id"),
            door.c.name.label("door_name"),
            door.c.has_contact,
            door.c.has_display,
            door.c.poster_fallback,
            door.c.codes_at,
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
            site.c.offline_hours,
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
        .join(door, this_door)
        .join(site, site.c.id == door.c.station_id)
        .join(presence_row, presence_row.c.station_id == site.c.id)
        .outerjoin(
            controller,
            sa.and_(
                controller.c.station_id == site.c.id,
                controller.c.retired_at.is_(None),
                controller.c.frozen_at.is_(None),
            ),
        )
        .outerjoin(
            change,
            sa.and_(
                change.c.station_id == site.c.id,
                change.c.retired_at.is_(None),
                change.c.until_at > sa.bindparam("at", type_=Instant()),
            ),
        )
        .with_for_update(
            key_share=True, of=[table_of(Worker), presence_row] if locks_worker else [presence_row]
        )
    )


@dataclass(frozen=True, slots=True)
class Recent:
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
    demand_key: bytes | None
    """What marks his scans at this station within this half hour; None: this is the first."""


async def recent_of(
    tx: AsyncSession,
    clock: DeadlineClock,
    owner_key: bytes,
    key: str,
    door: DoorFacts | None,
    *,
    at: datetime,
) -> Recent:
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
                "half_hour": half_hour_of(at),
                "just_executed": at - REPEAT_AFTER_EXECUTION,
            },
        )
    ).one()
    opened = row.opened_at and Place(row.opened_latitude, row.opened_longitude, row.opened_at)
    return Recent(
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
        demand_key=row.demand_key,
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
    alias = table_of(ScanAlias).c
    station_row = table_of(Station)
    live = clock.live(command.expires_at, command.expires_mono)
    # A door that never opened for him says nothing of where he was.
    may_have_opened = sa.or_(
        in_state(CommandState.CLAIMED, CommandState.EXECUTED, CommandState.UNKNOWN),
        sa.and_(in_state(CommandState.PENDING), live),
    )
    opened = (
        sa.select(scan.scanned_at, station_row.c.latitude, station_row.c.longitude)
        .join(station_row, station_row.c.id == scan.station_id)
        .join(table_of(Command), command.scan_id == scan.id)
        .where(scan.owner_key == owner, scan.station_id != station, may_have_opened)
        .order_by(scan.scanned_at.desc())
        .limit(1)
        .subquery("opened")
    )
    counted_until = sa.func.coalesce(visit.ended_at, visit.stay_until)
    return (
        sa.select(
            sa.func.coalesce(
                sa.select(scan.id)
                .where(scan.owner_key == owner, scan.idempotency_key == sa.bindparam("key"))
                .scalar_subquery(),
                sa.select(alias.scan_id)
                .where(alias.owner_key == owner, alias.key == sa.bindparam("key"))
                .scalar_subquery(),
            ).label("replay_id"),
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
                        command.pulsed_at > just_executed,
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
            .join(table_of(Command), command.scan_id == scan.id)
            .where(
                scan.owner_key == owner,
                scan.scanned_at > hour_ago,
                scan.door_id != door,
                may_have_opened,
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
            sa.select(scan.demand_key)
            .where(
                scan.owner_key == owner,
                scan.station_id == station,
                scan.scanned_at >= sa.bindparam("half_hour", type_=Instant()),
            )
            .limit(1)
            .scalar_subquery()
            .label("demand_key"),
            clock.now().label("clock_now"),
        )
        .select_from(sa.select(sa.literal(1).label("one")).subquery("once"))
        .outerjoin(opened, sa.true())
    )


async def token_reason(
    tx: AsyncSession,
    claims: DoorClaims | tokens.TokenRefusal,
    worker: SignedInWorker,
    door: DoorFacts | None,
    ticket: str | None,
    *,
    at: datetime,
) -> Reason:
    """Say what is wrong with a code at this door, for this worker; OK when nothing is."""
    if isinstance(claims, tokens.TokenRefusal):
        return Reason(claims.value)
    if door is None:
        return Reason.TOKEN_INVALID
    if isinstance(claims, tokens.PosterClaims):
        return _poster_reason(claims, door, at)
    found = tokens.timely(claims, at)
    if found is tokens.TokenRefusal.TOKEN_EXPIRED:
        found = claims if await screens.holds_ticket(tx, claims, ticket, at=at) else found
    if isinstance(found, tokens.TokenRefusal):
        return Reason(found.value)
    return Reason.TOKEN_EXPIRED if await _opened_by(tx, claims, worker) else Reason.OK


async def _opened_by(
    tx: AsyncSession, claims: tokens.DisplayClaims, worker: SignedInWorker
) -> bool:
    """Whether a code on the screen opened the door for him: only that uses it up."""
    found = await tx.scalar(
        sa.select(Command.id)
        .join(Scan, Scan.id == Command.scan_id)
        .where(
            Scan.owner_key == worker.owner_key,
            Scan.code_jti == claims.jti,
            Scan.scanned_at > claims.issued_at - timedelta(minutes=1),
            in_state(CommandState.EXECUTED),
        )
    )
    return found is not None


def _poster_reason(claims: tokens.PosterClaims, door: DoorFacts, at: datetime) -> Reason:
    in_grace = (
        claims.g == door.generation - 1 and door.grace_until is not None and at < door.grace_until
    )
    if claims.g == door.generation or in_grace:
        return Reason.OK
    return Reason.TOKEN_REVOKED
