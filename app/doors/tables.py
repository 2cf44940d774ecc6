"""Rows of the doors: keys, doors, controllers, scans and commands."""

import uuid
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, Json, closed_enum, found_by_time, only_where, table_of
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tokens import TokenKind
from app.people.tables import Occupation
from app.places.rules import Because, Kind


class KeyState(StrEnum):
    """Where a signing key is in its life (promises 5.3)."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


class CommandKind(StrEnum):
    """What a controller is told to do."""

    UNLOCK = "unlock"


class SigningKey(Base):
    """An Ed25519 key of one token kind."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[TokenKind] = mapped_column(closed_enum(TokenKind))
    state: Mapped[KeyState] = mapped_column(closed_enum(KeyState))
    public_key: Mapped[bytes]
    private_wrapped: Mapped[bytes | None]
    """The private key under the key-encryption key; None once retired."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index(
            "uq_signing_keys_active_kind",
            "kind",
            unique=True,
            **only_where("state = 'active'"),
        ),
    )


class Door(Base):
    """An entrance of a station."""

    __tablename__ = "doors"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(unique=True)
    """Short and random: the `d` of a poster."""
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), index=True)
    name: Mapped[str]
    has_display: Mapped[bool]
    has_contact: Mapped[bool]
    generation: Mapped[int]
    """The generation of posters that opens; older ones are revoked."""
    grace_until: Mapped[datetime | None]
    """Until when the generation before still opens, so that printers can work."""
    pulse_ms: Mapped[int]
    """How long the relay is held."""
    poster_fallback: Mapped[bool] = mapped_column(default=True)
    """At a door with a screen: while the screen is dead, its poster opens too."""
    codes_at: Mapped[datetime | None]
    """When codes for the door's screen were last fetched."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class Controller(Base):
    """The box at a station that polls us and drives the relays of its doors."""

    __tablename__ = "controllers"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    serial: Mapped[str]
    firmware: Mapped[str]
    credential_hash: Mapped[bytes] = mapped_column(unique=True)
    credential_at: Mapped[datetime]
    credential_used: Mapped[bool]
    """Whether the newest credential was ever used; until then enrolment may be repeated."""
    previous_hash: Mapped[bytes | None] = mapped_column(unique=True)
    previous_until: Mapped[datetime | None]
    """When the credential before ends; None until the newest was used."""
    enrolled_at: Mapped[datetime]
    seen_at: Mapped[datetime | None]
    """When it last began or ended a request; written in bulk every few seconds."""
    frozen_at: Mapped[datetime | None]
    """Since when it is given nothing more, because two devices speak with its credential."""
    boots: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Which boots spoke last, and which came back after another; None: nobody has yet."""
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]

    __table_args__ = (
        sa.Index(
            "uq_controllers_live_station_id",
            "station_id",
            unique=True,
            **only_where("retired_at IS NULL"),
        ),
        sa.Index(
            "ix_controllers_retired_station_id",
            "station_id",
            **only_where("retired_at IS NOT NULL"),
        ),
    )


class ControllerOutage(Base):
    """A time in which a controller was silent longer than it may be, and then was heard again."""

    __tablename__ = "controller_outages"

    controller_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("controllers.id"), primary_key=True
    )
    from_at: Mapped[datetime] = mapped_column(primary_key=True)
    """When it was last heard."""
    until_at: Mapped[datetime]
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index("ix_controller_outages_station_id_until_at", "station_id", "until_at"),
        found_by_time("ix_controller_outages_changed_at", "changed_at"),
    )


class ListeningSpell(Base):
    """A time in which some server process was there to hear controllers."""

    __tablename__ = "listening_spells"

    from_at: Mapped[datetime] = mapped_column(primary_key=True)
    until_at: Mapped[datetime]


class Enrolment(Base):
    """A one-time code with which a controller introduces itself."""

    __tablename__ = "enrolments"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    code_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    controller_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("controllers.id"))
    serial: Mapped[str | None]
    nonce: Mapped[str | None]


class Scan(Base):
    """One attempt of a worker at a door, with its decision, granted or refused."""

    __tablename__ = "scans"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    worker_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workers.id"))
    """Whose scan it was; None without consent, or past retention."""
    owner_key: Mapped[bytes | None]
    """Keyed hash of the worker, for repeats and limits; None after 24 h."""
    demand_key: Mapped[bytes | None]
    """Keyed hash of worker, station and half hour: counts unmet demand, tells nobody who."""
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[bytes | None]
    station_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("stations.id"))
    door_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("doors.id"))
    outcome: Mapped[Outcome] = mapped_column(closed_enum(Outcome))
    reason: Mapped[Reason] = mapped_column(closed_enum(Reason))
    occupation: Mapped[Occupation | None] = mapped_column(closed_enum(Occupation))
    mode: Mapped[Kind | None] = mapped_column(closed_enum(Kind))
    because: Mapped[Because | None] = mapped_column(closed_enum(Because))
    mode_until: Mapped[datetime | None]
    calendar_known: Mapped[bool | None]
    party_size: Mapped[int]
    code_jti: Mapped[str | None]
    """The display code he showed; one worker opens once by it."""
    scanned_at: Mapped[datetime]
    decide_ms: Mapped[int | None]
    """From the arrival of the request to the decision; None before that was recorded."""
    expires_at: Mapped[datetime | None]
    """The command's deadline, as it was promised to the worker."""
    reserved_until: Mapped[datetime | None]
    """The place that is kept for him, until then; None once it is taken or given up."""
    visit_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("visits.id"), index=True)
    local_day: Mapped[date | None]
    local_hour: Mapped[int | None]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.UniqueConstraint("owner_key", "idempotency_key"),
        sa.Index("ix_scans_owner_key_scanned_at", "owner_key", "scanned_at"),
        sa.Index("ix_scans_worker_id_scanned_at", "worker_id", "scanned_at"),
        sa.Index("ix_scans_station_id_local_day", "station_id", "local_day"),
        found_by_time("ix_scans_changed_at", "changed_at"),
        sa.Index(
            "ix_scans_identified_scanned_at",
            "scanned_at",
            **only_where("worker_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_scans_nowhere_scanned_at",
            "scanned_at",
            "reason",
            **only_where("station_id IS NULL"),
        ),
        sa.Index(
            "ix_scans_reserved_station_id",
            "station_id",
            **only_where("reserved_until IS NOT NULL"),
        ),
    )


class Command(Base):
    """One relay pulse that was decided (law 3)."""

    __tablename__ = "commands"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[CommandKind] = mapped_column(closed_enum(CommandKind))
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    door_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("doors.id"), index=True)
    controller_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("controllers.id"))
    scan_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("scans.id"), unique=True)
    owner_key: Mapped[bytes | None]
    """Whose it is while it lives: one live command per worker and door."""
    admin_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("admins.id"))
    """Who opened from afar."""
    state: Mapped[CommandState] = mapped_column(closed_enum(CommandState))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    """On the deadline clock; see app/db/clock.py."""
    expires_mono: Mapped[float | None]
    claimed_at: Mapped[datetime | None]
    granted_again_at: Mapped[datetime | None]
    """When its claim was last repeated and granted again; None: the first answer arrived."""
    boot_id: Mapped[str | None]
    nonce: Mapped[str | None]
    settled_at: Mapped[datetime | None]
    pulsed_at: Mapped[datetime | None]
    """When the relay pulsed, on the server's clock; executed commands only."""
    opened_at: Mapped[datetime | None]
    """When the contact proved that the door opened; None at a door without a contact."""
    has_contact: Mapped[bool | None]
    """Whether the door had a contact when its relay pulsed; None: it did not, or that was not
    recorded yet."""
    pulse_after_claim_ms: Mapped[int | None]
    detail: Mapped[str | None]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index(
            "uq_commands_live_owner_key_door_id",
            "owner_key",
            "door_id",
            unique=True,
            **only_where("state IN ('pending', 'claimed')"),
        ),
        sa.Index(
            "ix_commands_pending_controller_id",
            "controller_id",
            **only_where("state = 'pending'"),
        ),
        sa.Index(
            "ix_commands_live_expires_at",
            "expires_at",
            **only_where("state IN ('pending', 'claimed')"),
        ),
        sa.Index("ix_commands_controller_id_created_at", "controller_id", "created_at"),
        sa.Index("ix_commands_station_id_created_at", "station_id", "created_at"),
        found_by_time("ix_commands_changed_at", "changed_at"),
        sa.Index(
            "ix_commands_pulsed_door_id_pulsed_at",
            "door_id",
            "pulsed_at",
            **only_where("pulsed_at IS NOT NULL"),
        ),
    )


class ScanAlias(Base):
    """Another Idempotency-Key that was answered with a scan: a second tap at the same door."""

    __tablename__ = "scan_aliases"

    owner_key: Mapped[bytes] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[bytes]
    scan_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("scans.id"))
    created_at: Mapped[datetime] = mapped_column(index=True)


def in_state(*states: CommandState) -> sa.ColumnElement[bool]:
    """Whether a command is in one of these states, which stand in the SQL as they are.

    The indexes of live commands are partial, and a plan that a connection keeps for every value of
    a parameter cannot use them.
    """
    return table_of(Command).c.state.in_(
        [sa.literal_column(f"'{state.value}'") for state in states]
    )


class AckEvidence(Base):
    """An acknowledgement that came after another one stood, or after the time was over."""

    __tablename__ = "ack_evidence"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    command_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("commands.id"), index=True)
    boot_id: Mapped[str]
    result: Mapped[CommandState] = mapped_column(closed_enum(CommandState))
    pulse_after_claim_ms: Mapped[int | None]
    detail: Mapped[str | None]
    received_at: Mapped[datetime]


class Pass(Base):
    """A pass that a worker was given: for one door, for a minute, once."""

    __tablename__ = "passes"

    id: Mapped[str] = mapped_column(primary_key=True)
    """The token's `jti`."""
    worker_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workers.id"), index=True)
    subject: Mapped[str]
    """What stands for the worker at this station; says nothing elsewhere."""
    door_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("doors.id"))
    issued_at: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime]


class PassDenial(Base):
    """A word for one station's controller: no pass of this subject opens, until then."""

    __tablename__ = "pass_denials"

    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    """The station's `denial_version` that brought it; a controller asks for what is newer."""
    until_at: Mapped[datetime]
    """When it ends by itself; in the past: it was lifted."""

    __table_args__ = (sa.Index("ix_pass_denials_station_id_version", "station_id", "version"),)


class DoorTicket(Base):
    """What a browser got for a code it saw on a screen: five minutes to sign in and scan."""

    __tablename__ = "door_tickets"

    secret_hash: Mapped[bytes] = mapped_column(primary_key=True)
    """SHA-256 of what the browser's cookie holds."""
    jti: Mapped[str] = mapped_column(index=True)
    """The code."""
    issued_at: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime]


class JournalEntry(Base):
    """One event of a controller, taken in once."""

    __tablename__ = "journal_entries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    controller_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("controllers.id"))
    epoch: Mapped[int]
    """Raised when the device lost its journal; numbers run per epoch."""
    seq: Mapped[int] = mapped_column(sa.BigInteger())
    event_id: Mapped[str]
    boot_id: Mapped[str]
    type: Mapped[EventType] = mapped_column(closed_enum(EventType))
    door_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("doors.id"))
    occurred_at: Mapped[datetime]
    """As the device says."""
    corrected_at: Mapped[datetime]
    """On the server's clock."""
    error_ms: Mapped[int | None] = mapped_column(sa.BigInteger())
    """It happened within so many milliseconds of `corrected_at`; None: unknown."""
    quality: Mapped[Quality] = mapped_column(closed_enum(Quality))
    late: Mapped[bool]
    received_at: Mapped[datetime]
    content_hash: Mapped[bytes]
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    applied_at: Mapped[datetime | None]
    """When its effects were written; None: they are due."""
    effect: Mapped[str | None]
    """What became of it, such as `opened` or `unmatched`."""

    __table_args__ = (
        sa.UniqueConstraint("controller_id", "epoch", "seq"),
        sa.UniqueConstraint("controller_id", "event_id"),
        sa.Index(
            "ix_journal_entries_due_controller_id_corrected_at",
            "controller_id",
            "corrected_at",
            **only_where("applied_at IS NULL"),
        ),
        sa.Index("ix_journal_entries_door_id_corrected_at", "door_id", "corrected_at"),
        found_by_time("ix_journal_entries_received_at", "received_at"),
    )


class QuarantinedEvent(Base):
    """An event that could not be taken in; kept as it came, for somebody to look at."""

    __tablename__ = "quarantined_events"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    controller_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("controllers.id"))
    epoch: Mapped[int]
    seq: Mapped[int | None] = mapped_column(sa.BigInteger())
    """None: it carried no usable number."""
    event_id: Mapped[str]
    boot_id: Mapped[str]
    reason: Mapped[str]
    received_at: Mapped[datetime]
    content_hash: Mapped[bytes]
    body: Mapped[Any] = mapped_column(Json)

    __table_args__ = (
        sa.UniqueConstraint("controller_id", "epoch", "content_hash"),
        sa.Index("ix_quarantined_events_controller_id_epoch_seq", "controller_id", "epoch", "seq"),
    )


class JournalCursor(Base):
    """How far a controller's journal of one epoch is held without a gap."""

    __tablename__ = "journal_cursors"

    controller_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("controllers.id"), primary_key=True
    )
    epoch: Mapped[int] = mapped_column(primary_key=True)
    acked_through: Mapped[int] = mapped_column(sa.BigInteger())
    highest: Mapped[int] = mapped_column(sa.BigInteger())
    gap_at: Mapped[datetime | None]
    """Since when we know that the number after `acked_through` is missing; None: it is not."""
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index("ix_journal_cursors_gap_at", "gap_at", **only_where("gap_at IS NOT NULL")),
    )


class JournalLoss(Base):
    """Numbers that the device itself reported lost: its memory overflowed."""

    __tablename__ = "journal_losses"

    controller_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("controllers.id"), primary_key=True
    )
    epoch: Mapped[int] = mapped_column(primary_key=True)
    first_seq: Mapped[int] = mapped_column(sa.BigInteger(), primary_key=True)
    last_seq: Mapped[int] = mapped_column(sa.BigInteger())
    received_at: Mapped[datetime]


class PeopleCount(Base):
    """One word of a people counter: so many in or out, or a reset."""

    __tablename__ = "people_counts"

    entry_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("journal_entries.id"), primary_key=True
    )
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    counted_at: Mapped[datetime]
    delta: Mapped[int]
    """Persons in; negative: out."""
    reset_to: Mapped[int | None]

    __table_args__ = (
        sa.Index("ix_people_counts_station_id_counted_at", "station_id", "counted_at"),
        found_by_time("ix_people_counts_counted_at", "counted_at"),
    )


class OfflineEntry(Base):
    """What a controller did with a pass while it worked alone, and what we would have said."""

    __tablename__ = "offline_entries"

    entry_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("journal_entries.id"), primary_key=True
    )
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    door_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("doors.id"))
    worker_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workers.id"), index=True)
    """Whose pass it was; None without consent, or when nobody knows."""
    owner_key: Mapped[bytes | None]
    """Keyed hash of the worker, until his visit is written; None after 24 h."""
    jti: Mapped[str | None]
    demand_key: Mapped[bytes | None]
    """The mark of his scans at this station in this half hour; None: not opened, or nobody knows
    whose it was."""
    opened: Mapped[bool]
    """Whether the relay pulsed."""
    reason: Mapped[Reason] = mapped_column(closed_enum(Reason))
    """What the controller said; OK when it opened."""
    would_have_been_refused: Mapped[Reason | None] = mapped_column(closed_enum(Reason))
    """What the server would have refused it for, had it been asked; None: nothing that is known.

    Of a pass that is no longer kept it is not known whether it was good: then it has no worker."""
    occupation: Mapped[Occupation | None] = mapped_column(closed_enum(Occupation))
    mode: Mapped[Kind] = mapped_column(closed_enum(Kind))
    because: Mapped[Because] = mapped_column(closed_enum(Because))
    happened_at: Mapped[datetime]
    """On the server's clock; its error stands at the journal's entry."""
    opened_at: Mapped[datetime | None]
    """When the contact proved that the door opened; None at a door without a contact."""
    visit_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("visits.id"), index=True)
    local_day: Mapped[date]
    local_hour: Mapped[int]
    reviewed_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index("ix_offline_entries_station_id_local_day", "station_id", "local_day"),
        found_by_time("ix_offline_entries_changed_at", "changed_at"),
        sa.Index("ix_offline_entries_door_id_happened_at", "door_id", "happened_at"),
        sa.Index("ix_offline_entries_jti", "jti"),
        sa.Index(
            "ix_offline_entries_identified_happened_at",
            "happened_at",
            **only_where("worker_id IS NOT NULL"),
        ),
    )
