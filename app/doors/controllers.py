"""Controllers: enrol, authenticate, hear, and the config they work by.

A poll must cost no more than one read, so credentials are remembered (and forgotten on the bell
`credentials`), and when a controller was heard is kept in memory and written in bulk.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.rules import AlertKind
from app.audit import COMMAND_LINE, Action, Actor, Subject, record, who_did
from app.clock import Monotonic, Now
from app.db.engine import Database
from app.db.gathered import Gathered, padded
from app.db.types import new_id, table_of
from app.db.upsert import moved
from app.db.wakeups import LocalWakeups
from app.doors import clones, outages
from app.doors.clones import BootWatch
from app.doors.commands import topic_of
from app.doors.outages import Presence
from app.doors.rules.config import ServerTerms, config_version
from app.doors.tables import Controller, Door, Enrolment
from app.errors import NotFound, Unauthorized, Unavailable
from app.people.secrets import hash_of
from app.places.calendar import CalendarCache
from app.places.facilities import facilities_of
from app.places.rules import Calendar, Window, local_day, mode_windows
from app.places.standing import list_changes, station_rules
from app.places.tables import Facility, ModeChange, Station, Unit

TOPIC = "credentials"
"""Rings when a credential changed or a controller was retired."""

AT_ONCE = 4_096
"""Controllers of which one statement writes when they were heard."""

CODE_LIFETIME = timedelta(hours=24)
CREDENTIAL_OVERLAP = timedelta(hours=1)
CONFIG_HORIZON = timedelta(days=14)


class EnrolmentRefused(Unauthorized):
    """This enrolment code is not valid: wrong, used or older than 24 hours."""


class TooManyPolls(Unavailable):
    """This process holds as many waiting controllers as it may; come back in a while."""


class ControllerNotFound(NotFound):
    """There is no such controller."""


@dataclass(frozen=True, slots=True)
class KnownController:
    """Who is polling."""

    controller_id: uuid.UUID
    station_id: uuid.UUID
    until: datetime | None
    """When a replaced credential ends; None for the newest, and while the newest was not used."""


@dataclass(frozen=True, slots=True)
class _Credential:
    known: KnownController
    is_used: bool
    """Whether the device has shown that it holds it."""


class ControllerDesk:
    """What one process remembers of the controllers."""

    def __init__(
        self,
        database: Database,
        wakeups: LocalWakeups,
        *,
        now: Now,
        monotonic: Monotonic,
        silence_s: int,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._now = now
        self._monotonic = monotonic
        self._silence = timedelta(seconds=silence_s)
        self._started = monotonic()
        self._known: dict[bytes, KnownController] = {}
        # Close together: a claim may wait for it, at the start of a process.
        self._credentials = Gathered(self._read, apart_s=0.02)
        self._forgotten = 0
        self._heard: dict[uuid.UUID, datetime] = {}
        self._unwritten: dict[uuid.UUID, datetime] = {}
        self._returned: dict[uuid.UUID, list[Presence]] = {}
        """Whom this process had not heard for so long that there may be an outage to write."""
        self._polls: dict[uuid.UUID, object] = {}
        self.boots = BootWatch()

    def forget(self, _topic: str | None = None) -> None:
        """Forget every credential; each is read again at its next use."""
        self._known.clear()
        self._forgotten += 1

    async def find(self, credential: str, *, at: datetime) -> KnownController | None:
        """Say whose credential this is; opens and closes its own read when it must look."""
        digest = hash_of(credential)
        known = self._known.get(digest)
        if known is None:
            forgotten = self._forgotten
            found = await self._credentials.ask(digest)
            if found is not None and not found.is_used:
                async with self._database.write() as tx:
                    await _mark_used(tx, self._wakeups, found.known.controller_id, digest, at=at)
                forgotten = self._forgotten
                found = await self._credentials.ask(digest)  # Revoked while we wrote, perhaps.
            if found is None:
                return None
            known = found.known
            if forgotten == self._forgotten:
                self._known[digest] = known
        if known.until is not None and at >= known.until:
            return None
        self.heard(known.controller_id, at)
        return known

    async def _read(self, digests: Sequence[bytes]) -> Mapping[bytes, _Credential]:
        async with self._database.read() as tx:
            return await _credentials(tx, digests, at=self._now())

    def heard(self, controller_id: uuid.UUID, at: datetime) -> None:
        """Note that a request began or ended."""
        before = self._heard.get(controller_id)
        self._heard[controller_id] = at
        self._unwritten[controller_id] = at
        if before is None or at - before > self._silence:
            self._returned.setdefault(controller_id, []).append(Presence.begun(at))
        elif controller_id in self._returned:
            self._returned[controller_id][-1].heard(at)

    def is_heard(
        self, controller_id: uuid.UUID | None, seen_at: datetime | None, *, at: datetime
    ) -> bool:
        """Whether a command could reach the controller (law 6).

        For CONTROLLER_SILENCE_S after its start a process has not heard long enough to doubt.
        """
        if controller_id is None:
            return False
        if self._monotonic() - self._started < self._silence.total_seconds():
            return True
        last = max(filter(None, (seen_at, self._heard.get(controller_id))), default=None)
        return last is not None and at - last < self._silence

    @contextmanager
    def polling(self, controller_id: uuid.UUID, *, limit: int) -> Iterator[Callable[[], bool]]:
        """Count one open poll; the function given tells whether a newer one took its place.

        Raises TooManyPolls when this process holds as many as it may.
        """
        if len(self._polls) >= limit and controller_id not in self._polls:
            raise TooManyPolls
        mark = object()
        self._polls[controller_id] = mark
        try:
            yield lambda: self._polls.get(controller_id) is not mark
        finally:
            if self._polls.get(controller_id) is mark:
                del self._polls[controller_id]

    @property
    def open_polls(self) -> int:
        """How many controllers wait in this process now."""
        return len(self._polls)

    async def write_heard(self, *, at: datetime) -> int:
        """Write what was heard since the last time, the greater value kept; one UPDATE a second.

        Also that this process was there to hear, and the outages that are over.
        """
        noted, self._unwritten = self._unwritten, {}
        returned, self._returned = self._returned, {}
        by_second: dict[datetime, list[uuid.UUID]] = {}
        for controller_id, heard_at in noted.items():
            by_second.setdefault(heard_at.replace(microsecond=0), []).append(controller_id)
        try:
            async with self._database.write() as tx:
                if returned:
                    await outages.note_returns(tx, returned, silence=self._silence, at=at)
                for heard_at, ids in sorted(by_second.items()):
                    for start in range(0, len(ids), AT_ONCE):
                        await _write_seen(tx, ids[start : start + AT_ONCE], heard_at)
                await outages.listen(tx, at=at)
        except BaseException:
            self._unwritten = noted | self._unwritten
            # By the time this succeeds another process may have missed whom we hear.
            for controller_id, heard_at in noted.items():
                earlier = returned.get(controller_id, [Presence.begun(heard_at)])
                self._returned[controller_id] = earlier + self._returned.get(controller_id, [])
            raise
        return len(noted)


async def _credentials(
    tx: AsyncSession, digests: Sequence[bytes], *, at: datetime
) -> Mapping[bytes, _Credential]:
    """Find whose credentials these are; nothing of those that are wrong, revoked or over."""
    rows = await tx.execute(_credentials_query(), {"digests": padded(digests)})
    found: dict[bytes, _Credential] = {}
    for row in rows:
        newest = KnownController(row.id, row.station_id, None)
        found[row.credential_hash] = _Credential(newest, row.credential_used)
        if row.previous_hash is not None and (
            row.previous_until is None or row.previous_until > at
        ):
            replaced = KnownController(row.id, row.station_id, row.previous_until)
            found[row.previous_hash] = _Credential(replaced, is_used=True)
    return found


@lru_cache(maxsize=1)
def _credentials_query() -> Any:
    c = table_of(Controller).c  # A row of the mapper's own costs more than all the rest.
    digests = sa.bindparam("digests", type_=c.credential_hash.type, expanding=True)
    return sa.select(
        c.id,
        c.station_id,
        c.credential_hash,
        c.credential_used,
        c.previous_hash,
        c.previous_until,
    ).where(
        c.retired_at.is_(None), sa.or_(c.credential_hash.in_(digests), c.previous_hash.in_(digests))
    )


async def _write_seen(tx: AsyncSession, ids: Sequence[uuid.UUID], at: datetime) -> None:
    await tx.execute(
        sa.update(Controller)
        .where(
            Controller.id.in_(padded(ids)),
            sa.or_(Controller.seen_at.is_(None), Controller.seen_at < at),
        )
        .values(seen_at=at)
    )


async def _mark_used(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    digest: bytes,
    *,
    at: datetime,
) -> None:
    """Note the first use of the newest credential: now the one before has an hour left."""
    result = await tx.execute(
        sa.update(Controller)
        .where(
            Controller.id == controller_id,
            Controller.credential_hash == digest,
            Controller.credential_used.is_(False),
            Controller.retired_at.is_(None),
        )
        .values(credential_used=True, previous_until=at + CREDENTIAL_OVERLAP, changed_at=at)
    )
    if moved(result):
        await wakeups.wake(tx, TOPIC)


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """An enrolment code, told once."""

    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Introduction:
    """How a controller introduces itself."""

    code: str
    serial: str
    firmware: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a controller is told at its enrolment."""

    controller_id: uuid.UUID
    credential: str
    station: Station
    doors: Sequence[Door]


async def issue_code(
    tx: AsyncSession, station: Station, *, actor: Actor, at: datetime
) -> IssuedCode:
    """Make a one-time enrolment code for a station: 128 random bits, good for 24 hours."""
    code = secrets.token_hex(16)
    enrolment_id = new_id()
    await tx.execute(
        sa.insert(Enrolment).values(
            id=enrolment_id,
            station_id=station.id,
            code_hash=hash_of(code),
            created_at=at,
            expires_at=at + CODE_LIFETIME,
        )
    )
    subject = await _subject(tx, "enrolment", enrolment_id, station)
    await record(tx, actor, Action.ENROLMENT_ISSUED, subject, at=at)
    return IssuedCode(code, at + CODE_LIFETIME)


async def enrol(
    tx: AsyncSession, wakeups: LocalWakeups, introduction: Introduction, *, at: datetime
) -> Enrolled:
    """Take a controller in; its predecessor at the station retires.

    1. Use the code up: one conditional update, so of two at once one wins.
    2. A code that is used up answers again only to the same serial and nonce, with a fresh
       credential, until that controller's credential was first used (the answer was lost).

    Raises EnrolmentRefused.
    """
    used = await tx.scalar(
        sa.update(Enrolment)
        .where(
            Enrolment.code_hash == hash_of(introduction.code),
            Enrolment.used_at.is_(None),
            Enrolment.expires_at > at,
        )
        .values(used_at=at, serial=introduction.serial, nonce=introduction.nonce)
        .returning(Enrolment)
    )
    if used is None:
        return await _enrol_again(tx, wakeups, introduction, at=at)
    await _retire_at(tx, wakeups, used.station_id, at=at)
    credential = secrets.token_urlsafe(32)
    controller_id = new_id()
    await tx.execute(
        sa.insert(Controller).values(
            id=controller_id,
            station_id=used.station_id,
            serial=introduction.serial,
            firmware=introduction.firmware,
            credential_hash=hash_of(credential),
            credential_at=at,
            credential_used=False,
            enrolled_at=at,
            seen_at=at,  # Other processes have not heard it yet, but it is there.
            changed_at=at,
        )
    )
    await tx.execute(
        sa.update(Enrolment).where(Enrolment.id == used.id).values(controller_id=controller_id)
    )
    await wakeups.wake(tx, TOPIC)
    return await _enrolled(tx, used, controller_id, credential, at=at)


async def _enrol_again(
    tx: AsyncSession, wakeups: LocalWakeups, introduction: Introduction, *, at: datetime
) -> Enrolled:
    rows = await tx.execute(
        sa.select(Controller, Enrolment)
        .join(Enrolment, Enrolment.controller_id == Controller.id)
        .where(
            Enrolment.code_hash == hash_of(introduction.code),
            Enrolment.expires_at > at,
            Enrolment.serial == introduction.serial,
            Enrolment.nonce == introduction.nonce,
            Controller.credential_used.is_(False),
            Controller.previous_hash.is_(None),
            Controller.retired_at.is_(None),
        )
        .with_for_update(of=Controller)
    )
    found = rows.one_or_none()
    if found is None:
        raise EnrolmentRefused
    controller, used = found
    credential = secrets.token_urlsafe(32)
    controller.credential_hash = hash_of(credential)
    controller.credential_at = at
    controller.changed_at = at
    await wakeups.wake(tx, TOPIC)
    return await _enrolled(tx, used, controller.id, credential, at=at)


async def _enrolled(
    tx: AsyncSession,
    used: Enrolment,
    controller_id: uuid.UUID,
    credential: str,
    *,
    at: datetime,
) -> Enrolled:
    """Note who let the controller in, and tell it what is there."""
    station = await tx.get_one(Station, used.station_id)
    subject = await _subject(tx, "enrolment", used.id, station)
    maker = await who_did(tx, Action.ENROLMENT_ISSUED, subject, at=used.created_at)
    after = {"controller": str(controller_id), "serial": used.serial}
    await record(tx, maker or COMMAND_LINE, Action.ENROLMENT_USED, subject, at=at, after=after)
    return Enrolled(controller_id, credential, station, await _doors(tx, [station.id]))


async def rotate_credential(
    tx: AsyncSession, wakeups: LocalWakeups, controller_id: uuid.UUID, *, at: datetime
) -> str:
    """Give a new credential; the one in use overlaps until an hour after the new one's first use.

    Were the hour counted from here, a controller whose answer was lost on a link that stays down
    would be locked out of its station. Asking again replaces the credential that never arrived.
    """
    credential = secrets.token_urlsafe(32)
    arrived = Controller.credential_used
    await tx.execute(
        sa.update(Controller)
        .where(Controller.id == controller_id)
        .values(
            previous_hash=sa.case(
                (arrived, Controller.credential_hash), else_=Controller.previous_hash
            ),
            previous_until=None,
            credential_hash=hash_of(credential),
            credential_used=False,
            credential_at=at,
            changed_at=at,
        )
    )
    await wakeups.wake(tx, TOPIC)
    return credential


async def retire(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller: Controller,
    *,
    actor: Actor,
    at: datetime,
) -> Controller:
    """Revoke a controller: its credential ends, its open poll is cut; again changes nothing."""
    if controller.retired_at is not None:
        return controller
    station = await tx.get_one(Station, controller.station_id)
    controller.retired_at = at
    controller.changed_at = at
    await _gone(tx, wakeups, [controller.id], at=at)
    subject = await _subject(tx, "controller", controller.id, station)
    await record(tx, actor, Action.CONTROLLER_RETIRED, subject, at=at)
    return controller


async def thaw(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller: Controller,
    *,
    actor: Actor,
    at: datetime,
) -> None:
    """Let a frozen controller work again."""
    if controller.frozen_at is None:
        return
    station = await tx.get_one(Station, controller.station_id)
    await clones.thaw(tx, controller, at=at)
    subject = await _subject(tx, "controller", controller.id, station)
    await record(tx, actor, Action.CONTROLLER_THAWED, subject, at=at)
    await wakeups.wake(tx, topic_of(controller.id))


async def get(
    tx: AsyncSession, controller_id: uuid.UUID, *, within: sa.Select[uuid.UUID]
) -> Controller:
    """Find a controller at one of the stations `within`; raises ControllerNotFound."""
    found = await tx.scalar(
        sa.select(Controller).where(
            Controller.id == controller_id, Controller.station_id.in_(within)
        )
    )
    if found is None:
        raise ControllerNotFound
    return found


async def amend(
    tx: AsyncSession,
    controller: Controller,
    *,
    changes: Mapping[str, Any],
    actor: Actor,
    at: datetime,
) -> Controller:
    """Correct what is written down about a controller."""
    station = await tx.get_one(Station, controller.station_id)
    before = {name: getattr(controller, name) for name in changes}
    for name, value in changes.items():
        setattr(controller, name, value)
    controller.changed_at = at
    subject = await _subject(tx, "controller", controller.id, station)
    await record(
        tx,
        actor,
        Action.CONTROLLER_AMENDED,
        subject,
        at=at,
        before=before,
        after=dict(changes),
    )
    return controller


async def _retire_at(
    tx: AsyncSession, wakeups: LocalWakeups, station_id: uuid.UUID, *, at: datetime
) -> None:
    result = await tx.execute(
        sa.update(Controller)
        .where(Controller.station_id == station_id, Controller.retired_at.is_(None))
        .values(retired_at=at, changed_at=at)
        .returning(Controller.id)
    )
    await _gone(tx, wakeups, list(result.scalars()), at=at)


async def _gone(
    tx: AsyncSession, wakeups: LocalWakeups, ids: Sequence[uuid.UUID], *, at: datetime
) -> None:
    """Cut the open polls of controllers that were retired; what was wrong with them is over."""
    for controller_id in ids:
        await wakeups.wake(tx, topic_of(controller_id))
        for kind in (AlertKind.CONTROLLER_SILENT, AlertKind.CLONE, AlertKind.CLOCK_SKEW):
            await book.settle(tx, kind, f"controller:{controller_id}", at=at)
    await wakeups.wake(tx, TOPIC)


async def _subject(tx: AsyncSession, kind: str, id: uuid.UUID, station: Station) -> Subject:
    path = await tx.scalar(sa.select(Unit.path).where(Unit.id == station.unit_id))
    return Subject(kind, id, unit_path=path, station_id=station.id)


async def _doors(tx: AsyncSession, station_ids: Sequence[uuid.UUID]) -> Sequence[Door]:
    found = await tx.scalars(
        sa.select(Door)
        .where(Door.station_id.in_(station_ids), Door.retired_at.is_(None))
        .order_by(Door.id)
    )
    return found.all()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a controller needs to know until the version changes."""

    version: str
    station: Station
    doors: Sequence[Door]
    facilities: Sequence[Facility]
    windows: Sequence[Window]
    """Resolved modes, contiguous and half-open, from the last local midnight for 14 days."""
    terms: ServerTerms


def config_desk(
    database: Database, calendar: CalendarCache, now: Now, terms: ServerTerms
) -> Gathered[uuid.UUID, Config]:
    """Make what reads the configs of many stations: after a power cut all ask at once."""

    async def read(stations: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Config]:
        days = (await calendar.fresh(database)).current
        async with database.read() as tx:
            return await configs(tx, stations, days, terms=terms, at=now())

    return Gathered(read, apart_s=0.01)  # Few are in line at a time.


async def configs(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    calendar: Calendar,
    *,
    terms: ServerTerms,
    at: datetime,
) -> Mapping[uuid.UUID, Config]:
    """Give what the controllers of some stations work by.

    The stations are read first: a version that is too old for what it names is asked for again, one
    that is too new would stay.
    """
    keys = padded(station_ids)
    stations = await tx.scalars(sa.select(Station).where(Station.id.in_(keys)))
    found = stations.all()
    changes = await list_changes(tx, keys, at=at, horizon=CONFIG_HORIZON)
    facilities = await facilities_of(tx, keys)
    doors: dict[uuid.UUID, list[Door]] = {}
    for door in await _doors(tx, keys):
        doors.setdefault(door.station_id, []).append(door)
    return {
        station.id: _config(
            station,
            changes.get(station.id, ()),
            doors.get(station.id, ()),
            facilities[station.id],
            calendar,
            terms=terms,
            at=at,
        )
        for station in found
    }


def _config(
    station: Station,
    changes: Sequence[ModeChange],
    doors: Sequence[Door],
    facilities: Sequence[Facility],
    calendar: Calendar,
    *,
    terms: ServerTerms,
    at: datetime,
) -> Config:
    # From midnight, so that one version has one content all day.
    start = datetime.combine(
        local_day(at, station.timezone), time.min, ZoneInfo(station.timezone)
    ).astimezone(UTC)
    return Config(
        version=config_version(station.config_version, station.timezone, terms, at),
        station=station,
        doors=doors,
        facilities=facilities,
        windows=mode_windows(
            station_rules(station, changes), calendar, start, start + CONFIG_HORIZON
        ),
        terms=terms,
    )


async def count_offline(tx: AsyncSession, *, silent_since: datetime) -> int:
    """Count the enrolled controllers that were not heard since then."""
    found: Any = await tx.scalar(
        sa.select(sa.func.count()).where(
            Controller.retired_at.is_(None),
            sa.or_(Controller.seen_at.is_(None), Controller.seen_at < silent_since),
        )
    )
    return int(found)
