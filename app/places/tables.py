"""Rows of the places: units, districts, stations, mode changes, the calendar, facilities."""

import uuid
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, Json, closed_enum, found_by_time
from app.places.rules import ChangeKind, DayClass, Tier


class UnitKind(StrEnum):
    """What a node of the union organisation is."""

    CITY = "city"
    DISTRICT = "district"
    STREET = "street"
    INDUSTRY = "industry"


class OperatingModel(StrEnum):
    """Who keeps a station going."""

    UNION_BUILT = "union_built"
    COMMERCE_SUPPORTED = "commerce_supported"
    ENTERPRISE_PARTNERED = "enterprise_partnered"
    IDLE_PREMISES = "idle_premises"


class FacilityKind(StrEnum):
    """What there is to use."""

    WATER = "water"
    MICROWAVE = "microwave"
    CHARGER = "charger"
    BATTERY_SWAP = "battery_swap"
    AIR_CONDITIONER = "air_conditioner"
    FIRST_AID = "first_aid"
    AED = "aed"
    BOOKS = "books"
    LEGAL_AID = "legal_aid"
    TOILET = "toilet"
    LOCKER = "locker"
    LAUNDRY = "laundry"
    HAIRCUT = "haircut"
    COFFEE = "coffee"
    MEALS = "meals"
    NURSING_ROOM = "nursing_room"
    REST = "rest"


class FacilityStatus(StrEnum):
    """Whether a facility can be used."""

    WORKING = "working"
    DEGRADED = "degraded"
    OUT_OF_ORDER = "out_of_order"
    UNKNOWN = "unknown"


class Unit(Base):
    """A node of the union organisation tree."""

    __tablename__ = "units"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[UnitKind] = mapped_column(closed_enum(UnitKind))
    parent_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("units.id"), index=True)
    number: Mapped[int]
    """The last step of its path; no other unit ever had it."""
    path: Mapped[str] = mapped_column(unique=True)
    """Numbers from the root, such as `1.7.3`; carries the scope of administrators."""
    staff_absent_min: Mapped[int | None]
    """As a station's; None: as the unit above says, and off at the root."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class District(Base):
    """An administrative district, with validity and successors."""

    __tablename__ = "districts"

    adcode: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    valid_from: Mapped[date | None]
    valid_to: Mapped[date | None]
    """The first day on which it no longer exists."""
    successors: Mapped[list[str]] = mapped_column(Json)
    """Codes of the districts that took over its ground."""
    note: Mapped[str]


class Station(Base):
    """A place with doors."""

    __tablename__ = "stations"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    unit_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("units.id"), index=True)
    district: Mapped[str | None] = mapped_column(sa.ForeignKey("districts.adcode"))
    address: Mapped[str]
    latitude: Mapped[float]
    """Degrees, WGS-84."""
    longitude: Mapped[float]
    """Degrees, WGS-84."""
    cell: Mapped[int]
    """The grid cell of the coordinates; nearby search reads ranges of it."""
    capacity: Mapped[int]
    operating_model: Mapped[OperatingModel] = mapped_column(closed_enum(OperatingModel))
    timezone: Mapped[str]
    staffed_hours: Mapped[dict[str, Any] | None] = mapped_column(Json)
    access_hours: Mapped[dict[str, Any] | None] = mapped_column(Json)
    max_stay_min: Mapped[int]
    confirm_tap: Mapped[bool]
    offline_hours: Mapped[int | None]
    """For so long without the server its controller opens by passes; None: never."""
    staff_absent_min: Mapped[int | None]
    """So many minutes into staffed hours without a sign of staff, the station turns to scanning.

    0: never; None: as its unit says.
    """
    staff_seen_at: Mapped[datetime | None]
    """When something last showed that staff came, as far as anybody had to ask."""
    denial_version: Mapped[int] = mapped_column(default=0)
    """Raised by whatever is said of passes that no longer open here."""
    config_version: Mapped[int]
    """Raised by whatever the station's controller must know."""
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]

    __table_args__ = (
        # Not partial: SQLite reads several ranges by an index only if none of it is left out.
        sa.Index("ix_stations_cell", "cell"),
    )


class ModeChange(Base):
    """What replaces a station's mode within `[from_at, until_at)`, by its tier."""

    __tablename__ = "mode_changes"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    tier: Mapped[Tier] = mapped_column(closed_enum(Tier))
    kind: Mapped[ChangeKind] = mapped_column(closed_enum(ChangeKind))
    from_at: Mapped[datetime]
    until_at: Mapped[datetime]
    note: Mapped[str]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]

    __table_args__ = (sa.Index("ix_mode_changes_station_id_until_at", "station_id", "until_at"),)


class PastChange(Base):
    """What a dated exception said until it was amended or withdrawn.

    What was promised of a day is what was published when it began, whatever was made of it later.
    """

    __tablename__ = "past_mode_changes"

    change_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("mode_changes.id"), primary_key=True)
    written_at: Mapped[datetime] = mapped_column(primary_key=True)
    replaced_at: Mapped[datetime]
    kind: Mapped[ChangeKind] = mapped_column(closed_enum(ChangeKind))
    from_at: Mapped[datetime]
    until_at: Mapped[datetime]


class StationModes(Base):
    """Which modes held at a station on a local day, as far as they are recorded (law 1).

    And how many seats it had.
    """

    __tablename__ = "station_modes"

    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), primary_key=True)
    local_day: Mapped[date] = mapped_column(primary_key=True)
    midnight_at: Mapped[datetime]
    """When this day began there; the windows count from it."""
    windows: Mapped[list[Any]] = mapped_column(Json)
    """`[from_ms, until_ms, kind, because]`, half-open, in order and without gaps."""
    promised: Mapped[list[Any] | None] = mapped_column(Json)
    """When it was promised to be open, whatever then held: `[from_ms, until_ms]`; None: it was
    recorded before that was."""
    seats: Mapped[list[Any] | None] = mapped_column(Json)
    """How many seats there were: `[from_ms, until_ms, seats]`, in order; of time that is missing,
    and where it is None, nobody recorded it."""
    recorded_until: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (found_by_time("ix_station_modes_changed_at", "changed_at"),)


class CalendarDay(Base):
    """A day that is not what its weekday says."""

    __tablename__ = "calendar_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    day_class: Mapped[DayClass] = mapped_column(closed_enum(DayClass))
    name: Mapped[str]
    source: Mapped[str]
    """The State Council notice that says so."""


class Facility(Base):
    """A thing to use at a station."""

    __tablename__ = "facilities"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"), index=True)
    kind: Mapped[FacilityKind] = mapped_column(closed_enum(FacilityKind))
    name: Mapped[str]
    quantity: Mapped[int]
    """How many of them stand there."""
    status: Mapped[FacilityStatus] = mapped_column(closed_enum(FacilityStatus))
    status_at: Mapped[datetime]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class FacilitySpell(Base):
    """A time in which so many of a facility stood at a station, in one status."""

    __tablename__ = "facility_spells"

    facility_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("facilities.id"), primary_key=True)
    from_at: Mapped[datetime] = mapped_column(primary_key=True)
    until_at: Mapped[datetime | None]
    """None: it lasts."""
    station_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("stations.id"))
    kind: Mapped[FacilityKind] = mapped_column(closed_enum(FacilityKind))
    quantity: Mapped[int]
    status: Mapped[FacilityStatus] = mapped_column(closed_enum(FacilityStatus))
    said: Mapped[bool]
    """Whether somebody said this status then; False: it went on, and only the quantity changed."""
    changed_at: Mapped[datetime]
    """When anything but its end was last written: of what follows its end, another spell tells."""

    __table_args__ = (
        sa.Index("ix_facility_spells_station_id_until_at", "station_id", "until_at"),
        found_by_time("ix_facility_spells_changed_at", "changed_at"),
    )
