"""Rows of the alerts."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.alerts.rules import AlertKind
from app.db.types import Base, Json, closed_enum, only_where


class Alert(Base):
    """One thing somebody should look at, from its first evidence until it is over."""

    __tablename__ = "alerts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(closed_enum(AlertKind))
    subject: Mapped[str]
    """What it is about, such as `door:<id>`: one open alert per kind and subject."""
    station_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("stations.id"))
    """None: the whole city's."""
    opened_at: Mapped[datetime]
    """When the first evidence happened, as well as that is known."""
    last_at: Mapped[datetime]
    count: Mapped[int]
    """How often evidence came."""
    detail: Mapped[dict[str, Any]] = mapped_column(Json)
    """What the newest evidence said."""
    late: Mapped[bool]
    """The first evidence was told late, by a journal."""
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("admins.id"))
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("admins.id"))
    """None: it closed by itself."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (
        sa.Index(
            "uq_alerts_open_kind_subject",
            "kind",
            "subject",
            unique=True,
            **only_where("closed_at IS NULL"),
        ),
        sa.Index("ix_alerts_station_id_opened_at", "station_id", "opened_at"),
        sa.Index("ix_alerts_kind_last_at", "kind", "last_at"),
    )
