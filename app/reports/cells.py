"""One cell of a report: its row, found by the fields that name it, and read as the report reads it.

The frame is the report's own, of just the place and the piece of time that the row is about: so
what is said of a cell is what the report says.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid
from app.places.tables import FacilityKind, OperatingModel, Station
from app.reports.frame import Frame, Part, frame
from app.reports.grouped import read_tree
from app.reports.rules import By, Class, Period, Slot
from app.reports.rules.counters import QUARTERS
from app.reports.rules.day import quarter_edges
from app.reports.scope import Scope


class RowUnknown(Invalid):
    """These names are of no row of the report, or of more than one."""


@dataclass(frozen=True, slots=True)
class Names:
    """What names a row, as the fields of the row say it; None where they say nothing."""

    station: str | None = None
    unit: uuid.UUID | None = None
    operating_model: OperatingModel | None = None
    day: date | None = None
    hour: int | None = None
    weekday: int | None = None
    day_class: Class | None = None
    kind: FacilityKind | None = None
    """None: of all kinds."""

    def echo(self) -> dict[str, str]:
        """Say what was said."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Cell:
    """The figures of a row."""

    part: Part
    """Of one place and one slot; by hour, all hours of it."""
    stations: sa.Select[uuid.UUID]
    """All of its place, also those of which nothing is told in its time."""
    hour: int | None = None
    kind: FacilityKind | None = None

    @property
    def scope(self) -> Scope:
        """The scope of its report, narrowed to its place."""
        return self.part.frame.scope

    @property
    def row(self) -> int:
        """Which row of the part it is."""
        return self.hour or 0

    @property
    def slot(self) -> Slot:
        """Its days."""
        return self.part.frame.slots.bases[0]

    @property
    def station_id(self) -> uuid.UUID | None:
        """The station that its row is about, if the report has a row for each."""
        return self.part.places[0].id if self.scope.by is By.STATION else None

    def times(self, timezone: str) -> list[tuple[datetime, datetime]]:
        """Give its time at a place, as intervals `[begins, ends)` in order."""
        if self.hour is None:
            return [Period(*days).instants(timezone) for days in self.slot.ranges]
        low, high = self.hour * QUARTERS, (self.hour + 1) * QUARTERS
        edges = [quarter_edges(timezone, day) for day in self.slot.days]
        return [(_instant(each[low]), _instant(each[high])) for each in edges]


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def find(tx: AsyncSession, scope: Scope, names: Names) -> Cell:
    """Find a row of a report by its names; raises RowUnknown, PeriodInvalid."""
    if scope.by is By.BRANCH and len(scope.roots.units) > 1:
        # The stations of one row do not say which other roots there are.
        whole = await frame(tx, replace(scope, bucket=None))
        scope = replace(scope, told_roots=whole.scope.told_roots)
    stations = await _narrowed(tx, scope, names)
    made = await frame(tx, replace(scope, stations=stations))
    asked = {"day": names.day, "weekday": names.weekday, "day_class": names.day_class}
    said = {name: value for name, value in asked.items() if value is not None}
    bases = [
        base
        for base in made.slots.bases
        if all(getattr(base, name) == value for name, value in said.items())
    ]
    if len(made.places) != 1 or len(bases) != 1 or made.slots.by_hour is (names.hour is None):
        raise RowUnknown(f"name one row of the report, by {', '.join(_needed(made))}")
    slots = replace(made.slots, bases=bases)
    return Cell(Part(replace(made, slots=slots), 0, 1), stations, names.hour, names.kind)


def _needed(made: Frame) -> Sequence[str]:
    """Say by what a row of these is named."""
    places = {
        By.STATION: "of_station",
        By.UNIT: "of_unit",
        By.BRANCH: "of_unit",
        By.OPERATING_MODEL: "of_operating_model",
    }
    found = [places[made.scope.by]] if made.scope.by in places else []
    times = ("day", "weekday", "day_class")
    bases = made.slots.bases
    found += [f"of_{n}" for n in times if any(getattr(base, n) is not None for base in bases)]
    if made.slots.by_hour:
        found.append("of_hour")
    return found or ["nothing: it has one row"]


async def _narrowed(tx: AsyncSession, scope: Scope, names: Names) -> sa.Select[uuid.UUID]:
    """Keep the stations of the row's place: reports by place group no others with them."""
    by, model = scope.by, names.operating_model
    units = (await read_tree(tx, scope)).of_row(names.unit)
    said = (
        ("station", names.station, by is By.STATION, Station.code == names.station),
        ("unit", names.unit, by.is_unit, Station.unit_id.in_(units)),
        ("operating_model", model, by is By.OPERATING_MODEL, Station.operating_model == model),
    )
    stations = scope.stations
    for name, value, has_such, is_its in said:
        if value is None:
            continue
        if not has_such:
            raise RowUnknown(f"rows by {by.value} are not named by of_{name}")
        stations = stations.where(is_its)
    return stations
