"""Rows of the reports: what was counted, for every place and span of time, and what is due."""

import uuid
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, Json, closed_enum, only_where
from app.reports.rules import Grain

CITY = uuid.UUID(int=0)
"""The place above every root unit: sums of all, also where there are several roots."""


class Rollup(Base):
    """What was counted in a span: at a station, at a unit and all below it, or in the city."""

    __tablename__ = "rollups"

    place_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """A station's or a unit's, or CITY."""
    grain: Mapped[Grain] = mapped_column(closed_enum(Grain), primary_key=True)
    from_day: Mapped[date] = mapped_column(primary_key=True)
    counts: Mapped[bytes]
    """A sparse vector of counters (`rules/counters.py`, `vectors.py`)."""
    histograms: Mapped[bytes | None]
    """The same, of histograms; None in a row of before migration 0026: they are in its counts."""
    percentiles: Mapped[bytes | None]
    """What comes of the histograms (`spreads.py`): percentiles do not add, so each row has its own.
    None as above: then they are found when somebody asks."""
    hours: Mapped[bytes]
    """Counters and histograms by hour of the day."""
    peak: Mapped[float]
    """Greatest mean of persons inside over a quarter hour of any of its days."""
    peak_at: Mapped[datetime | None]
    most_inside: Mapped[int | None]
    """Greatest number inside at any instant; None for a unit: instants do not add."""
    uniques: Mapped[int | None]
    """Distinct workers, exact; stays when the set goes; None: it went before it was counted."""
    crowd: Mapped[bytes | None]
    """The set of them (`crowds.py`); None once retention took it."""
    occupations: Mapped[bytes | None]
    """How many of them by occupation (`crowds.sizes`); None where it is not kept: of days."""
    base: Mapped[bytes | None]
    """Who of the set is known of parts that have lost theirs; None: of none."""
    reaches_at: Mapped[datetime | None]
    """A station's day: until when the longest of its stays lasts, into which day ever."""
    rolled_at: Mapped[datetime]

    __table_args__ = (
        sa.Index("ix_rollups_grain_from_day", "grain", "from_day", "place_id"),
        sa.Index(
            "ix_rollups_crowded_grain_from_day",
            "grain",
            "from_day",
            **only_where("crowd IS NOT NULL"),
        ),
    )


class RollupDue(Base):
    """A span of a place that must be counted anew."""

    __tablename__ = "rollup_dues"

    place_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    grain: Mapped[Grain] = mapped_column(closed_enum(Grain), primary_key=True)
    from_day: Mapped[date] = mapped_column(primary_key=True)
    depth: Mapped[int]
    """In which order: a station's days, then units from the lowest up, then spans of days."""
    token: Mapped[uuid.UUID]
    """Made anew whenever it is due again, so that who counted before that does not settle it."""

    __table_args__ = (sa.Index("ix_rollup_dues_depth", "depth", "from_day"),)


class RollupMark(Base):
    """How far a kind of search for changes has come."""

    __tablename__ = "rollup_marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class RollupMember(Base):
    """Under which units a station is counted, so that a move is noticed."""

    __tablename__ = "rollup_members"

    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), primary_key=True)
    unit_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("units.id"))
    unit_path: Mapped[str]
    """A path is another when anything above is hung up elsewhere; it says no more who was above."""
    above: Mapped[list[str] | None] = mapped_column(Json)
    """The units, from its own up to the root; None: as the path says."""


class Renumbering(Base):
    """A number that an erased worker had in sets, and the one that stands there from now on."""

    __tablename__ = "renumberings"

    old_number: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    new_number: Mapped[int] = mapped_column(sa.BigInteger)
