"""Rows of the people: workers and administrators, their consent, challenges and sessions."""

import uuid
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, closed_enum
from app.people.rules import Role


class Occupation(StrEnum):
    """What a worker does."""

    RIDER = "rider"
    COURIER = "courier"
    DRIVER = "driver"
    SANITATION = "sanitation"
    CONSTRUCTION = "construction"
    SECURITY = "security"
    TRAFFIC = "traffic"
    VENDOR = "vendor"
    OTHER = "other"


class SmsState(StrEnum):
    """What became of a login code's message."""

    DUE = "due"
    SENT = "sent"
    FAILED = "failed"
    WITHHELD = "withheld"
    """Over budget, or not a number we serve: answered alike, never sent."""


class Worker(Base):
    """A person served by the stations."""

    __tablename__ = "workers"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(sa.BigInteger, unique=True)
    """Random, of few bits: for compact sets of workers (`workers.free_number`)."""
    phone_sealed: Mapped[bytes | None]
    """The number under AES-GCM; None once erased."""
    phone_index: Mapped[bytes | None] = mapped_column(unique=True)
    """HMAC of the number: finds it without revealing it."""
    occupation: Mapped[Occupation | None] = mapped_column(closed_enum(Occupation))
    listed: Mapped[bool]
    """Registered by an administrator, so that it may sign in when REGISTRATION=listed."""
    unit_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    """The branch whose administrator registered him and sees him; None: only the city's do.

    No foreign key: units are never deleted, and a table that others point at cannot be made anew.
    """
    consent_id: Mapped[uuid.UUID | None]
    """The consent in force; None: visits are stored without the worker.

    No foreign key: consents point here already, and two tables cannot each be made first.
    """
    blocked_at: Mapped[datetime | None]
    blocked_because: Mapped[str | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]


class Consent(Base):
    """A worker's consent to identified visits (PIPL 28-29), given and perhaps withdrawn."""

    __tablename__ = "consents"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    worker_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workers.id"), index=True)
    """Whose it is; None once he was erased: then it proves only that there was a consent."""
    version: Mapped[str]
    """Which wording was shown."""
    channel: Mapped[str]
    """Where it was given, such as `phone_page`."""
    given_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]


class BlockedNumber(Base):
    """A number that was blocked when its worker was erased: by its keyed hash, for a while."""

    __tablename__ = "blocked_numbers"

    phone_index: Mapped[bytes] = mapped_column(primary_key=True)
    because: Mapped[str | None]
    until_at: Mapped[datetime]


class LoginChallenge(Base):
    """A one-time code that was asked for; also the outbox of its message."""

    __tablename__ = "login_challenges"

    id: Mapped[str] = mapped_column(primary_key=True)
    """128 random bits in hexadecimal, known only to who asked."""
    phone_index: Mapped[bytes]
    phone_sealed: Mapped[bytes | None]
    """None once its worker was erased."""
    code_sealed: Mapped[bytes | None]
    """The code until its message is sent, then None."""
    code_mac: Mapped[bytes]
    """HMAC of challenge and code under the pepper."""
    door_id: Mapped[uuid.UUID | None]
    network: Mapped[str]
    """The asker's /24 or /48."""
    sms_state: Mapped[SmsState] = mapped_column(closed_enum(SmsState))
    sms_taken_at: Mapped[datetime | None]
    """When a process last took the message to send it."""
    failures: Mapped[int]
    """Wrong codes."""
    failed_at: Mapped[datetime | None]
    """When the last wrong code came."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (
        sa.Index("ix_login_challenges_phone_index_created_at", "phone_index", "created_at"),
        sa.Index("ix_login_challenges_door_id_created_at", "door_id", "created_at"),
        sa.Index("ix_login_challenges_network_created_at", "network", "created_at"),
        sa.Index("ix_login_challenges_created_at", "created_at"),
    )


class LoginTurn(Base):
    """The row that is locked while a budget is counted, so that nobody overtakes a limit."""

    __tablename__ = "login_turns"

    subject: Mapped[str] = mapped_column(primary_key=True)
    """What is counted: a number's blind index, a door, a network, an administrator's name."""
    taken_at: Mapped[datetime]


class WorkerSession(Base):
    """A worker's sign-in; the token itself is nowhere in the database."""

    __tablename__ = "worker_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    """SHA-256 of 256 random bits."""
    worker_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workers.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Admin(Base):
    """An operator's account: a role within one unit's branch or at one station."""

    __tablename__ = "admins"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    """argon2id."""
    role: Mapped[Role] = mapped_column(closed_enum(Role))
    unit_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("units.id"))
    """The branch; None with `station_id` None means the whole city."""
    station_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("stations.id"))
    totp_sealed: Mapped[bytes | None]
    totp_last_step: Mapped[int | None]
    """The last time step that was used: a code works once."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class AdminSession(Base):
    """An administrator's sign-in."""

    __tablename__ = "admin_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    admin_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("admins.id"), index=True)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class AdminLoginFailure(Base):
    """A wrong password, counted per name and network."""

    __tablename__ = "admin_login_failures"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    username: Mapped[str]
    network: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (sa.Index("ix_admin_login_failures_username_at", "username", "at"),)
