"""Rows of the visits: who is inside, head counts, and what is used."""

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, closed_enum, found_by_time, only_where
from app.people.tables import Occupation
from app.places.rules import Kind


class EndSource(StrEnum):
    """How we know that a visit ended."""

    WORKER = "worker"
    CONTACT = "contact"
    OTHER_STATION = "other_station"
    STAFF = "staff"
    IMPUTED = "imputed"


OBSERVED = (EndSource.WORKER, EndSource.CONTACT, EndSource.STAFF)
"""How a visit ended whose end somebody saw. Who came to another station had left before: how long
before, nobody knows."""


class VoidBecause(StrEnum):
    """Why a visit that was written down never was."""

    NOT_OPENED = "not_opened"
    """Late word of the door's contact: it did not open for him."""
    ANOTHER = "another"
    """What was known of it belongs to another visit of his."""


class StationPresence(Base):
    """The row that is locked while a place at a station is given away (law 9)."""

    __tablename__ = "station_presences"

    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), primary_key=True)


class Visit(Base):
    """A stay: an interval of one party at one station (law 10)."""

    __tablename__ = "visits"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    worker_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workers.id"))
    """Whose visit it was; None without consent, or past retention."""
    erased_number: Mapped[int | None] = mapped_column(sa.BigInteger)
    """A random number in place of a worker who was erased, the same on all his visits, so that
    counts of distinct workers stay true; None again past retention."""
    owner_key: Mapped[bytes | None]
    """Keyed hash of the worker while the visit is open, so that he can end it, and for a day after,
    so that late word of an entry finds that he left; then None."""
    occupation: Mapped[Occupation | None] = mapped_column(closed_enum(Occupation))
    mode: Mapped[Kind] = mapped_column(closed_enum(Kind))
    """The mode of the instant in which it began; reports never recompute it."""
    party_size: Mapped[int]
    re_entry: Mapped[bool]
    """He came back within ten minutes: reports count it with the visit before (metrics 1)."""
    started_at: Mapped[datetime]
    stay_until: Mapped[datetime]
    """When the stay counts as over unless the worker is heard of: his last event plus max_stay."""
    ended_at: Mapped[datetime | None]
    end_source: Mapped[EndSource | None] = mapped_column(closed_enum(EndSource))
    left_at: Mapped[datetime | None]
    """When he said that he leaves: a fact, whatever else ended the visit."""
    voided_at: Mapped[datetime | None]
    """When it turned out that this visit never was; it counts nowhere, and its end is its start."""
    void_because: Mapped[VoidBecause | None] = mapped_column(closed_enum(VoidBecause))
    local_day: Mapped[date]
    """The station's local day of `started_at`."""
    local_hour: Mapped[int]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index(
            "uq_visits_open_owner_key",
            "owner_key",
            unique=True,
            **only_where("ended_at IS NULL AND owner_key IS NOT NULL"),
        ),
        sa.Index("ix_visits_owner_key", "owner_key", **only_where("owner_key IS NOT NULL")),
        sa.Index(
            "ix_visits_open_station_id",
            "station_id",
            **only_where("ended_at IS NULL"),
        ),
        sa.Index(
            "ix_visits_open_stay_until",
            "stay_until",
            **only_where("ended_at IS NULL"),
        ),
        sa.Index("ix_visits_worker_id_started_at", "worker_id", "started_at"),
        sa.Index(
            "ix_visits_identified_started_at",
            "started_at",
            **only_where("worker_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_visits_erased_started_at",
            "started_at",
            **only_where("erased_number IS NOT NULL"),
        ),
        sa.Index("ix_visits_station_id_local_day", "station_id", "local_day"),
        found_by_time("ix_visits_changed_at", "changed_at"),
        sa.Index("ix_visits_station_id_started_at", "station_id", "started_at"),
        sa.CheckConstraint("party_size BETWEEN 1 AND 5", name="party_size"),
        sa.CheckConstraint("ended_at IS NULL OR ended_at >= started_at", name="interval"),
    )


class WalkInCount(Base):
    """Heads that staff counted, in whatever mode, beside the scanned visits."""

    __tablename__ = "walk_in_counts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    count: Mapped[int]
    from_at: Mapped[datetime]
    until_at: Mapped[datetime]
    local_day: Mapped[date]
    admin_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("admins.id"))
    created_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    """When it was taken back as wrong; it counts nowhere, and its time may be counted anew."""
    withdrawn_by: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("admins.id"))

    __table_args__ = (
        sa.Index("ix_walk_in_counts_station_id_local_day", "station_id", "local_day"),
        found_by_time("ix_walk_in_counts_created_at", "created_at"),
        sa.Index(
            "ix_walk_in_counts_withdrawn_at",
            "withdrawn_at",
            **only_where("withdrawn_at IS NOT NULL"),
        ),
    )


class FacilityUse(Base):
    """One use of a facility: a session with an end, or a quantity."""

    __tablename__ = "facility_uses"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    facility_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("facilities.id"))
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    visit_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("visits.id"), index=True)
    """The visit it belongs to; None when staff recorded it."""
    admin_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("admins.id"))
    actor: Mapped[str | None]
    """Whose idempotency key it is, as `worker:id` or `admin:id`; None after 24 h."""
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[bytes | None]
    quantity: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 3))
    begun_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    local_day: Mapped[date]
    local_hour: Mapped[int]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.UniqueConstraint("actor", "idempotency_key"),
        sa.Index("ix_facility_uses_station_id_local_day", "station_id", "local_day"),
        found_by_time("ix_facility_uses_changed_at", "changed_at"),
        sa.Index("ix_facility_uses_facility_id_begun_at", "facility_id", "begun_at"),
    )
