"""Administrators: accounts, sign-in, and the one predicate that says what each of them sees."""

import asyncio
import math
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import pyotp
import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, AuditEntry, Subject, record
from app.db.types import new_id
from app.errors import Conflict, Invalid, NotFound, Problem, TooMany, Unauthorized
from app.people import phones
from app.people.rules import Permission, Role, allows
from app.people.secrets import hash_of
from app.people.tables import Admin, AdminLoginFailure, AdminSession, Worker
from app.people.turns import take_turns
from app.places.rules import is_within, under_bounds
from app.places.stations import StationNotFound, StationRetired
from app.places.tables import Station, Unit
from app.vault import Vault

SESSION_LIFETIME = timedelta(hours=12)
SESSION_IDLE = timedelta(hours=1)
USED_PRECISION = timedelta(minutes=1)
"""How exactly the last use is written: once a minute is enough for an hour's idleness."""
FAILURE_WINDOW = timedelta(minutes=15)
MIN_PASSWORD = 12
NEEDS_TOTP = frozenset({Role.CITY_ADMIN, Role.UNIT_ADMIN})
"""Roles that sign in with a second factor in production (T37)."""

_hasher = PasswordHasher()


class AdminNotFound(NotFound):
    """There is no such administrator."""


class UsernameTaken(Conflict):
    """An administrator has this name already."""


class LastCityAdmin(Conflict):
    """This is the last city administrator; appoint another one first."""


class LoginRefused(Unauthorized):
    """Name, password or second factor is wrong."""


class TooManyLogins(TooMany):
    """Too many wrong passwords; please wait."""


class PasswordTooShort(Invalid):
    """A password needs at least 12 characters."""


class ScopeInvalid(Invalid):
    """This role needs another scope."""


@dataclass(frozen=True, slots=True)
class SignedInAdmin:
    """Who administers, and where."""

    admin_id: uuid.UUID
    role: Role
    unit_path: str | None
    """The branch; None with no station means the whole city."""
    station_id: uuid.UUID | None
    unit_id: uuid.UUID | None = None
    used_at: datetime | None = None
    """When his session was last noted as used."""

    @property
    def has_city(self) -> bool:
        """Whether he sees the whole city: a role that may, bound to no unit and no station."""
        bound = self.unit_path is not None or self.station_id is not None
        return not bound and self.role in (Role.CITY_ADMIN, Role.AUDITOR)

    @property
    def actor(self) -> Actor:
        """The administrator as the audit trail names him."""
        return Actor(self.admin_id)

    def may(self, permission: Permission) -> bool:
        """Whether his role does this at all."""
        return allows(self.role, permission)


def visible_units(admin: SignedInAdmin) -> sa.Select[uuid.UUID]:
    """Select the ids of the units in an administrator's branch."""
    return sa.select(Unit.id).where(_in_branch(admin, Unit.path))


def _in_branch(admin: SignedInAdmin, path: Any) -> sa.ColumnElement[bool]:
    """Say that a unit's path lies in an administrator's branch; nothing does by default."""
    if admin.has_city:
        return sa.true()
    if admin.unit_path is None or admin.station_id is not None:
        return sa.false()
    low, high = under_bounds(admin.unit_path)
    return sa.or_(path == admin.unit_path, sa.and_(path >= low, path < high))


def visible_stations(admin: SignedInAdmin) -> sa.Select[uuid.UUID]:
    """Select the ids of the stations an administrator sees: the one scope predicate."""
    query = sa.select(Station.id)
    if admin.station_id is not None:
        return query.where(Station.id == admin.station_id)
    if admin.has_city:
        return query
    return query.where(Station.unit_id.in_(visible_units(admin)))


@dataclass(frozen=True, slots=True)
class Roots:
    """Places whose branches together are what is asked about: sums of theirs are sums of all."""

    units: Sequence[uuid.UUID] = ()
    stations: Sequence[uuid.UUID] = ()
    is_city: bool = False
    """Whether they are all there are."""


async def visible_roots(
    tx: AsyncSession,
    admin: SignedInAdmin,
    *,
    unit: Unit | None = None,
    station: Station | None = None,
) -> Roots:
    """Give the roots of `visible_stations`, of which perhaps only a unit's or one station.

    Unit and station were found in scope before.
    """
    if station is not None:
        path = await tx.scalar(sa.select(Unit.path).where(Unit.id == station.unit_id))
        is_in = unit is None or is_within(path or "", unit.path)
        return Roots(stations=[station.id] if is_in else [])
    if unit is not None:
        return Roots(units=[unit.id])
    if admin.station_id is not None:
        return Roots(stations=[admin.station_id])
    if admin.has_city:
        roots = await tx.scalars(_roots_of(Unit.parent_id.is_(None)))
        return Roots(units=roots.all(), is_city=True)
    return Roots(units=(await tx.scalars(_roots_of(Unit.path == admin.unit_path))).all())


def _roots_of(which: sa.ColumnElement[bool]) -> sa.Select[uuid.UUID]:
    return sa.select(Unit.id).where(which).order_by(Unit.path)


def visible_workers(admin: SignedInAdmin) -> sa.ColumnElement[bool]:
    """Say which workers an administrator sees: those his branch registered, or the city all."""
    if admin.has_city:
        return sa.true()
    return Worker.unit_id.in_(visible_units(admin))


def visible_entries(admin: SignedInAdmin) -> sa.ColumnElement[bool]:
    """Say which entries of the audit trail an administrator sees."""
    if admin.station_id is not None:
        return AuditEntry.station_id == admin.station_id
    return _in_branch(admin, AuditEntry.unit_path)


async def get_station(tx: AsyncSession, admin: SignedInAdmin, station_id: uuid.UUID) -> Station:
    """Give a station in scope; raises StationNotFound for any other."""
    station = await tx.scalar(
        sa.select(Station).where(Station.id == station_id, Station.id.in_(visible_stations(admin)))
    )
    if station is None:
        raise StationNotFound
    return station


async def get_station_in_use(
    tx: AsyncSession, admin: SignedInAdmin, station_id: uuid.UUID
) -> Station:
    """Give a station in scope that something may be added to; raises StationRetired besides."""
    station = await get_station(tx, admin, station_id)
    if station.retired_at is not None:
        raise StationRetired
    return station


async def find_admin(tx: AsyncSession, token: str, *, at: datetime) -> SignedInAdmin | None:
    """Say whose session this is; rights are read anew at every request."""
    row = (
        await tx.execute(
            sa.select(
                Admin.id,
                Admin.role,
                Admin.unit_id,
                Admin.station_id,
                Unit.path,
                AdminSession.used_at,
            )
            .join(AdminSession, AdminSession.admin_id == Admin.id)
            .outerjoin(Unit, Unit.id == Admin.unit_id)
            .where(
                AdminSession.token_hash == hash_of(token),
                AdminSession.ended_at.is_(None),
                AdminSession.expires_at > at,
                AdminSession.used_at > at - SESSION_IDLE,
                Admin.retired_at.is_(None),
            )
        )
    ).one_or_none()
    if row is None:
        return None
    return SignedInAdmin(row.id, row.role, row.path, row.station_id, row.unit_id, row.used_at)


def needs_note(admin: SignedInAdmin, *, at: datetime) -> bool:
    """Whether `note_use` would write."""
    return admin.used_at is None or admin.used_at < at - USED_PRECISION


async def note_use(tx: AsyncSession, token: str, *, at: datetime) -> None:
    """Keep a session from going idle; writes once a minute at most."""
    await tx.execute(
        sa.update(AdminSession)
        .where(
            AdminSession.token_hash == hash_of(token),
            AdminSession.used_at < at - USED_PRECISION,
        )
        .values(used_at=at)
    )


async def hash_password(password: str) -> str:
    """Hash a password with argon2id, in a thread; raises PasswordTooShort."""
    if len(password) < MIN_PASSWORD:
        raise PasswordTooShort
    return await asyncio.to_thread(_hasher.hash, password)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an administrator signs in with."""

    username: str
    password: str
    totp: str | None
    network: str


@dataclass(frozen=True, slots=True)
class Account:
    """What a password is compared with."""

    admin_id: uuid.UUID | None
    """None: nobody has this name."""
    password_hash: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What the password check found, before any transaction."""

    admin_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class NewAdminSession:
    """A session, told once."""

    token: str
    expires_at: datetime
    admin: Admin


async def find_account(
    tx: AsyncSession, given: Credentials, *, failure_limit: int, at: datetime
) -> Account | TooManyLogins:
    """Read what a password is compared with; over budget nothing is compared at all."""
    if wait_s := await _wait_s(tx, given, failure_limit, at=at):
        return TooManyLogins(retry_after_s=wait_s)
    row = (
        await tx.execute(
            sa.select(Admin.id, Admin.password_hash).where(
                Admin.username == given.username, Admin.retired_at.is_(None)
            )
        )
    ).one_or_none()
    return Account(row.id, row.password_hash) if row else Account(None, _nobodys_hash())


async def check_password(account: Account, password: str) -> Checked:
    """Compare in a thread, outside any transaction; an unknown name takes as long as a known."""
    right = await asyncio.to_thread(_matches, account.password_hash, password)
    return Checked(account.admin_id if right else None)


async def _wait_s(tx: AsyncSession, given: Credentials, failure_limit: int, *, at: datetime) -> int:
    """Give how long this name must wait on this network: until the oldest failure is past."""
    failures = (
        await tx.scalars(
            sa.select(AdminLoginFailure.at)
            .where(
                AdminLoginFailure.username == given.username,
                AdminLoginFailure.network == given.network,
                AdminLoginFailure.at > at - FAILURE_WINDOW,
            )
            .order_by(AdminLoginFailure.at.desc())
            .limit(failure_limit)
        )
    ).all()
    if len(failures) < failure_limit:
        return 0
    return max(1, math.ceil((failures[-1] + FAILURE_WINDOW - at).total_seconds()))


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    """Give what a password is compared with where there is no account: that takes as long."""
    return _hasher.hash(secrets.token_urlsafe(16))


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


async def sign_in(
    tx: AsyncSession,
    vault: Vault,
    given: Credentials,
    checked: Checked,
    *,
    failure_limit: int,
    requires_totp: bool,
    at: datetime,
) -> NewAdminSession | Problem:
    """Open a session after the password was checked.

    A refusal is returned, not raised: the failure must be committed.
    """
    await take_turns(tx, [f"admin:{given.username}|{given.network}"], at=at)
    if wait_s := await _wait_s(tx, given, failure_limit, at=at):
        return TooManyLogins(retry_after_s=wait_s)
    admin = None
    if checked.admin_id is not None:
        # Locked, so that one time step of the second factor cannot serve two logins.
        admin = await tx.scalar(
            sa.select(Admin)
            .where(Admin.id == checked.admin_id, Admin.retired_at.is_(None))
            .with_for_update()
        )
    if admin is None or not _second_factor(admin, vault, given, requires_totp, at):
        tx.add(
            AdminLoginFailure(id=new_id(), username=given.username, network=given.network, at=at)
        )
        return LoginRefused()
    token = secrets.token_urlsafe(32)
    tx.add(
        AdminSession(
            token_hash=hash_of(token),
            admin_id=admin.id,
            created_at=at,
            used_at=at,
            expires_at=at + SESSION_LIFETIME,
        )
    )
    subject = Subject("admin", admin.id)
    await record(tx, Actor(admin.id), Action.ADMIN_SIGNED_IN, subject, at=at)
    return NewAdminSession(token, at + SESSION_LIFETIME, admin)


def _second_factor(
    admin: Admin, vault: Vault, given: Credentials, required: bool, at: datetime
) -> bool:
    """Check the time-based code (RFC 6238): one step before or after counts, each step once."""
    if admin.totp_sealed is None:
        return not (required and admin.role in NEEDS_TOTP)
    if given.totp is None:
        return False
    secret = phones.unseal(vault.key("totp"), admin.totp_sealed, aad=f"totp|{admin.id}")
    totp = pyotp.TOTP(secret)
    step = int(at.timestamp()) // totp.interval
    for candidate in (step, step - 1, step + 1):
        fresh = admin.totp_last_step is None or candidate > admin.totp_last_step
        if fresh and secrets.compare_digest(totp.generate_otp(candidate), given.totp):
            admin.totp_last_step = candidate
            return True
    return False


async def sign_out(tx: AsyncSession, admin: SignedInAdmin, token: str, *, at: datetime) -> None:
    """End a session."""
    await tx.execute(
        sa.update(AdminSession)
        .where(AdminSession.token_hash == hash_of(token), AdminSession.ended_at.is_(None))
        .values(ended_at=at)
    )
    subject = Subject("admin", admin.admin_id)
    await record(tx, admin.actor, Action.ADMIN_SIGNED_OUT, subject, at=at)


@dataclass(frozen=True, slots=True)
class NewAdmin:
    """An account to make."""

    username: str
    password_hash: str
    role: Role
    unit_id: uuid.UUID | None = None
    station_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """An account that was made; its second factor is told once."""

    admin: Admin
    totp_uri: str | None


async def create(
    tx: AsyncSession,
    new: NewAdmin,
    *,
    vault: Vault,
    actor: Actor,
    at: datetime,
    with_totp: bool = False,
) -> Created:
    """Make an account; raises UsernameTaken, ScopeInvalid."""
    await _check_scope(tx, new.role, new.unit_id, new.station_id)
    taken = await tx.scalar(sa.select(Admin.id).where(Admin.username == new.username))
    if taken is not None:
        raise UsernameTaken
    admin_id = new_id()
    uri, sealed = None, None
    if with_totp:
        secret = pyotp.random_base32()
        sealed = phones.seal(vault.key("totp"), secret, aad=f"totp|{admin_id}")
        uri = pyotp.TOTP(secret).provisioning_uri(name=new.username, issuer_name="yizhan")
    admin = Admin(
        id=admin_id,
        username=new.username,
        password_hash=new.password_hash,
        role=new.role,
        unit_id=new.unit_id,
        station_id=new.station_id,
        totp_sealed=sealed,
        created_at=at,
        changed_at=at,
    )
    tx.add(admin)
    await tx.flush()
    after = {"username": new.username, "role": new.role.value}
    await record(tx, actor, Action.ADMIN_ADDED, Subject("admin", admin_id), at=at, after=after)
    return Created(admin, uri)


async def _check_scope(
    tx: AsyncSession, role: Role, unit_id: uuid.UUID | None, station_id: uuid.UUID | None
) -> None:
    if role is Role.CITY_ADMIN and (unit_id or station_id):
        raise ScopeInvalid(
            "A city administrator has the whole city; give neither unit nor station."
        )
    if role is Role.UNIT_ADMIN and (unit_id is None or station_id is not None):
        raise ScopeInvalid("A unit administrator needs a unit.")
    if role is Role.STATION_KEEPER and (unit_id is None) == (station_id is None):
        raise ScopeInvalid("A station keeper needs either a unit or a station.")
    if role is Role.AUDITOR and unit_id and station_id:
        raise ScopeInvalid("An auditor has one unit, one station, or the whole city.")
    if unit_id is not None and await tx.get(Unit, unit_id) is None:
        raise ScopeInvalid("There is no such unit.")
    if station_id is not None and await tx.get(Station, station_id) is None:
        raise ScopeInvalid("There is no such station.")


async def get_admin(tx: AsyncSession, admin_id: uuid.UUID) -> Admin:
    """Give an account; raises AdminNotFound."""
    admin = await tx.get(Admin, admin_id)
    if admin is None:
        raise AdminNotFound
    return admin


async def _keep_one_city_admin(tx: AsyncSession, leaving: Admin) -> None:
    """Raise LastCityAdmin if nobody but `leaving` could appoint others; holds all who could."""
    found = await tx.scalars(
        sa.select(Admin.id)
        .where(Admin.role == Role.CITY_ADMIN, Admin.retired_at.is_(None))
        .order_by(Admin.id)
        .with_for_update()
    )
    if set(found) == {leaving.id}:
        raise LastCityAdmin


async def amend(
    tx: AsyncSession, admin: Admin, *, changes: Mapping[str, Any], actor: Actor, at: datetime
) -> Admin:
    """Change role, scope or password; a new password ends every session; raises LastCityAdmin."""
    role = changes.get("role", admin.role)
    unit_id = changes.get("unit_id", admin.unit_id)
    station_id = changes.get("station_id", admin.station_id)
    await _check_scope(tx, role, unit_id, station_id)
    if role is not Role.CITY_ADMIN:
        await _keep_one_city_admin(tx, admin)
    admin.role, admin.unit_id, admin.station_id = role, unit_id, station_id
    if "password_hash" in changes:
        admin.password_hash = changes["password_hash"]
        await _end_sessions(tx, admin.id, at=at)
    admin.changed_at = at
    after = {name: str(value) for name, value in changes.items() if name != "password_hash"}
    if "password_hash" in changes:
        after["password"] = "changed"
    subject = Subject("admin", admin.id)
    await record(tx, actor, Action.ADMIN_AMENDED, subject, at=at, after=after)
    return admin


async def retire(tx: AsyncSession, admin: Admin, *, actor: Actor, at: datetime) -> Admin:
    """Close an account; its sessions end; raises LastCityAdmin."""
    if admin.retired_at is None:
        await _keep_one_city_admin(tx, admin)
        admin.retired_at = at
        admin.changed_at = at
        await _end_sessions(tx, admin.id, at=at)
        await record(tx, actor, Action.ADMIN_RETIRED, Subject("admin", admin.id), at=at)
    return admin


async def _end_sessions(tx: AsyncSession, admin_id: uuid.UUID, *, at: datetime) -> None:
    await tx.execute(
        sa.update(AdminSession)
        .where(AdminSession.admin_id == admin_id, AdminSession.ended_at.is_(None))
        .values(ended_at=at)
    )
