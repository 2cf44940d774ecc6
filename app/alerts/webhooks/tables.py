"""Rows of the webhooks: whom to tell, and what is to be told."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.alerts.webhooks.rules import DeliveryState, EventKind, OffBecause
from app.db.types import Base, Json, closed_enum, only_where


class Webhook(Base):
    """An address that hears the alerts of a unit's branch."""

    __tablename__ = "webhooks"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    unit_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("units.id"), index=True)
    name: Mapped[str]
    url: Mapped[str]
    kinds: Mapped[list[str] | None] = mapped_column(Json)
    severities: Mapped[list[str] | None] = mapped_column(Json)
    """Which alerts it wants; None: all."""
    secret_sealed: Mapped[bytes]
    """What its deliveries are signed with, under the key-encryption key."""
    previous_sealed: Mapped[bytes | None]
    previous_until: Mapped[datetime | None]
    """Until then the secret before signs, too."""
    failures: Mapped[int]
    """Tries that failed in a row, over all its deliveries."""
    failing_since: Mapped[datetime | None]
    off_at: Mapped[datetime | None]
    """Since when it is off: nothing is queued and nothing is sent."""
    off_because: Mapped[OffBecause | None] = mapped_column(closed_enum(OffBecause))
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class Delivery(Base):
    """One event for one webhook: written with the event, sent after its commit."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhooks.id"))
    event_id: Mapped[uuid.UUID]
    """What a receiver knows a repetition by: the same for every try and every webhook."""
    event: Mapped[EventKind] = mapped_column(closed_enum(EventKind))
    alert_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("alerts.id"), index=True)
    """None: a test."""
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    """What is told, as it stood when it happened."""
    state: Mapped[DeliveryState] = mapped_column(closed_enum(DeliveryState))
    attempts: Mapped[int]
    next_at: Mapped[datetime]
    """Not to be tried before."""
    claim: Mapped[uuid.UUID | None]
    """Who sends it now: drawn anew for each try."""
    claimed_until: Mapped[datetime | None]
    """Then another process may take it: whoever had it has died."""
    status: Mapped[int | None]
    """The last answer's; None: there was none."""
    duration_ms: Mapped[int | None]
    error: Mapped[str | None]
    """What was wrong at the last try."""
    created_at: Mapped[datetime] = mapped_column(index=True)
    tried_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    """When it was delivered or given up."""

    __table_args__ = (
        # An alert opens, is taken on and closes once; tests have no alert, and are not unique.
        sa.UniqueConstraint("webhook_id", "alert_id", "event"),
        sa.Index(
            "ix_webhook_deliveries_due_webhook_id_next_at",
            "webhook_id",
            "next_at",
            **only_where("state = 'due'"),
        ),
    )


IS_DUE = sa.text("webhook_deliveries.state = 'due'")
"""As it stands in the partial index: a parameter would keep a plan from using it."""
