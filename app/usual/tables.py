"""Rows of what is usual."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, Json, closed_enum
from app.usual.rules import UsualClass


class UsualProfile(Base):
    """What is usual at a station on days of a class, made anew every night."""

    __tablename__ = "usual_profiles"

    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), primary_key=True)
    day_class: Mapped[UsualClass] = mapped_column(closed_enum(UsualClass), primary_key=True)
    levels: Mapped[list[str | None]] = mapped_column(Json)
    """How full it usually is, by hour, of the days of eight weeks: the public may see this."""
    hidden_hours: Mapped[list[int]] = mapped_column(Json)
    """Hours behind which too few distinct workers stand, so that their levels are not kept."""
    days: Mapped[int]
    """So many days stand behind the levels."""
    medians: Mapped[list[float | None]] = mapped_column(Json)
    """Persons inside by quarter hour, of the last eight days: for administrators."""
    median_days: Mapped[list[int] | None] = mapped_column(Json)
    """So many days are known by quarter hour; None: it was made before this was counted."""
    known_hours: Mapped[int | None]
    """Bit by bit, of which hours of the day there are medians; None: it was made before this was
    kept."""
    free_coverage: Mapped[float | None]
    """The share of the last eight days' free time in hours in which somebody scanned; None: fewer
    than four had any, or it was made before this was counted."""
    made_at: Mapped[datetime]
