"""Stations in and out as CSV: every bad row is named, and any bad row imports nothing.

Columns: `code,name,unit,district,address,latitude,longitude,capacity,operating_model,timezone,
staffed_hours,access_hours,max_stay_min,confirm_tap,facilities,doors`.

- `unit`: names from the root, as `重庆市总工会/渝中区总工会`.
- hours: `1-5 08:00-12:00 14:00-18:30; 6-7 09:00-17:00; PH closed; MW 08:00-18:00`, where 1 is
  Monday, PH public holidays, MW make-up working days; empty: none.
- `facilities`: `microwave:2;water:1`. `doors`: `正门|display;侧门|contact`, with a backslash before
  `;`, `|` and backslash in a name. Both are read for new stations.

A code that exists is amended, any other is created. A leading apostrophe keeps a spreadsheet from
running a cell as a formula; it is written on the way out and taken off on the way in. This is done
here: the library for it also changes what is inside such a cell, which then does not come back.
"""

import csv
import io
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Action, Actor, Subject, record
from app.db.types import new_id
from app.db.wakeups import LocalWakeups
from app.errors import Invalid
from app.places import districts, held, spells
from app.places.facilities import facilities_of
from app.places.rules import CITY_ZONE, grid_cell, local_day
from app.places.stations import COLUMNS as DESCRIBED
from app.places.stations import RECORDED_COLUMNS, Description, StationInvalid, checked
from app.places.tables import (
    Facility,
    FacilityKind,
    FacilitySpell,
    FacilityStatus,
    OperatingModel,
    Station,
)
from app.places.units import by_full_name

COLUMNS = (
    "code",
    "name",
    "unit",
    "district",
    "address",
    "latitude",
    "longitude",
    "capacity",
    "operating_model",
    "timezone",
    "staffed_hours",
    "access_hours",
    "max_stay_min",
    "confirm_tap",
    "facilities",
    "doors",
)
NOT_IN_FILES = {"offline_hours", "staff_absent_min"}
"""What a file says nothing of stays as it is."""
STATION_COLUMNS = tuple(name for name in DESCRIBED if name not in NOT_IN_FILES)
MAX_ROWS = 20_000
CHUNK = 500

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_TIMES = re.compile(r"([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})")
_DAYS = re.compile(r"([1-7])(?:-([1-7]))?")
_DOOR = re.compile(r"(?:\\[\\;|]|[^;])+")
_DOOR_NAME = re.compile(r"(?:\\[\\;|]|[^|])*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_RISKY = ("=", "+", "-", "@", "\t", "\r", "|", "%", "＝", "＋", "－", "＠")


class ImportRefused(Invalid):
    """The file has errors; nothing was imported."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of one row; the header is row 1."""

    row: int
    code: str
    status: str
    """created, amended, unchanged."""
    errors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DoorRow:
    """A door as a file names it."""

    name: str
    has_display: bool
    has_contact: bool


@dataclass(frozen=True, slots=True)
class NewStation:
    """A station that was created, with the doors its row names."""

    station_id: uuid.UUID
    doors: Sequence[DoorRow]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or would do."""

    dry_run: bool
    rows: Sequence[RowResult]
    new: Sequence[NewStation] = field(default=())

    def count(self, status: str) -> int:
        """Count the rows with one result."""
        return sum(1 for row in self.rows if row.status == status)

    @property
    def created(self) -> int:
        """How many stations are new."""
        return self.count("created")

    @property
    def amended(self) -> int:
        """How many stations changed."""
        return self.count("amended")

    @property
    def unchanged(self) -> int:
        """How many rows said what stands there already."""
        return self.count("unchanged")

    def summary(self) -> str:
        """Say it in a sentence."""
        done = "would be " if self.dry_run else ""
        return (
            f"{len(self.rows)} rows: {self.created} {done}created, {self.amended} {done}amended, "
            f"{self.unchanged} unchanged"
        )


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    description: Description
    facilities: Sequence[tuple[FacilityKind, int]]
    doors: Sequence[DoorRow]


async def import_stations(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    content: bytes,
    *,
    within: sa.Select[uuid.UUID] | None,
    dry_run: bool,
    actor: Actor,
    at: datetime,
) -> Imported:
    """Read a file and bring its stations in; `within` are the units the caller may write to.

    The caller makes doors and presence rows for `new`. Raises ImportRefused with `errors`, a
    `{loc: ["row", N], message}` for every bad row.
    """
    names = {name: unit.id for name, unit in (await by_full_name(tx)).items()}
    allowed = set(names.values())
    if within is not None:
        allowed &= set((await tx.scalars(within)).all())
    current = {
        row.adcode
        for row in await districts.list_districts(tx)
        if districts.is_current(row, local_day(at, CITY_ZONE))
    }
    stored = {row.code: row for row in await tx.scalars(sa.select(Station))}
    kept = {row.district for row in stored.values() if row.district is not None}
    rows, errors = _parse(content, names, allowed, current | kept)
    for row in rows:
        district = row.description.district
        before = stored.get(row.description.code)
        if before is not None and before.unit_id not in allowed:
            errors.append(_error(row.number, f"{before.code} belongs to a unit outside your scope"))
        elif before is not None and before.retired_at is not None:
            errors.append(_error(row.number, f"{before.code} is retired"))
        # A station keeps the district it was registered in when that is abolished.
        elif district not in (None, before and before.district) and district not in current:
            errors.append(_error(row.number, f"district: {district} is no district of today"))
    if errors:
        errors.sort(key=lambda error: error["loc"][1])
        raise ImportRefused(
            f"{len(errors)} errors; the first: row {errors[0]['loc'][1]}: {errors[0]['message']}",
            errors=errors,
        )
    results = [RowResult(row.number, row.description.code, _status(row, stored)) for row in rows]
    if dry_run:
        return Imported(True, results)
    new = await _write(tx, wakeups, rows, stored, at=at)
    done = Imported(False, results, new)
    subject = Subject("stations", "import")
    after = {"created": done.created, "amended": done.amended, "unchanged": done.unchanged}
    await record(tx, actor, Action.STATIONS_IMPORTED, subject, at=at, after=after)
    return done


def _error(row: int, message: str) -> dict[str, Any]:
    return {"loc": ["row", row], "message": message}


def _status(row: _Row, stored: Mapping[str, Station]) -> str:
    before = stored.get(row.description.code)
    if before is None:
        return "created"
    same = all(getattr(before, name) == getattr(row.description, name) for name in STATION_COLUMNS)
    return "unchanged" if same else "amended"


async def _write(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    rows: Sequence[_Row],
    stored: Mapping[str, Station],
    *,
    at: datetime,
) -> Sequence[NewStation]:
    amended = [
        stored[row.description.code].id
        for row in rows
        if row.description.code in stored
        and any(
            getattr(stored[row.description.code], name) != getattr(row.description, name)
            for name in RECORDED_COLUMNS
        )
    ]
    await held.record(tx, amended, at=at)
    made: list[NewStation] = []
    inserts: list[dict[str, Any]] = []
    things: list[dict[str, Any]] = []
    for row in rows:
        values = {name: getattr(row.description, name) for name in STATION_COLUMNS}
        values["cell"] = grid_cell(row.description.latitude, row.description.longitude)
        before = stored.get(row.description.code)
        if before is None:
            station_id = new_id()
            inserts.append(
                values | {"id": station_id, "config_version": 1, "created_at": at, "changed_at": at}
            )
            things += [_facility(station_id, kind, count, at) for kind, count in row.facilities]
            made.append(NewStation(station_id, row.doors))
        elif _status(row, stored) == "amended":
            for name, value in values.items():
                setattr(before, name, value)
            before.changed_at = at
            before.config_version += 1
            await wakeups.wake(tx, f"station:{before.id}")
    for chunk in _chunks(inserts):
        await tx.execute(sa.insert(Station), chunk)
    for chunk in _chunks(things):
        await tx.execute(sa.insert(Facility), chunk)
        await tx.execute(sa.insert(FacilitySpell), [spells.first_of(thing) for thing in chunk])
    await tx.flush()
    return made


def _facility(
    station_id: uuid.UUID, kind: FacilityKind, count: int, at: datetime
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "station_id": station_id,
        "kind": kind,
        "name": "",
        "quantity": count,
        "status": FacilityStatus.WORKING,
        "status_at": at,
        "created_at": at,
        "changed_at": at,
    }


def _chunks(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def text_of(content: bytes) -> str:
    """Read UTF-8, or GB18030, which Excel in China writes."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" in text:
            raise ImportRefused("The file is not text.")
        return text
    raise ImportRefused("The file is neither UTF-8 nor GB18030 text.")


def _parse(
    content: bytes,
    names: Mapping[str, uuid.UUID],
    allowed: set[uuid.UUID],
    current: set[str],
) -> tuple[list[_Row], list[dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text_of(content), newline=""), strict=True)
    try:
        header = tuple(name.strip() for name in reader.fieldnames or ())
        if header != COLUMNS:
            raise ImportRefused(f"The first line must be: {','.join(COLUMNS)}")
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise ImportRefused(f"The file is not CSV: {error}") from error
    if not lines:
        raise ImportRefused("The file names no station.")
    if len(lines) > MAX_ROWS:
        raise ImportRefused(f"A file has at most {MAX_ROWS} rows; this one has {len(lines)}.")
    rows: list[_Row] = []
    errors: list[dict[str, Any]] = []
    first_seen: dict[str, int] = {}
    for number, line in lines:
        row, found = _read(number, line, names, allowed, current)
        errors += [_error(number, message) for message in found]
        if row is None:
            continue
        code = row.description.code
        if code in first_seen:
            errors.append(_error(number, f"{code} stands in row {first_seen[code]} already"))
        first_seen.setdefault(code, number)
        rows.append(row)
    return rows, errors


def _read(
    number: int,
    line: Mapping[str | None, Any],
    names: Mapping[str, uuid.UUID],
    allowed: set[uuid.UUID],
    current: set[str],
) -> tuple[_Row | None, list[str]]:
    """Read one row; every field's error is told, not only the first."""
    if None in line or any(value is None for value in line.values()):
        return None, [f"a row has {len(COLUMNS)} fields"]
    cells = {str(name).strip(): unescaped(str(value).strip()) for name, value in line.items()}
    errors: list[str] = []

    def take(name: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(cells[name])
        except ValueError as error:
            errors.append(f"{name}: {error}")
            return None

    values = {
        "code": take("code", _code),
        "name": take("name", line_of),
        "unit_id": take("unit", lambda text: _unit(text, names, allowed)),
        "district": take("district", lambda text: _district(text, current)),
        "address": take("address", line_of),
        "latitude": take("latitude", lambda text: _degrees(text, 90)),
        "longitude": take("longitude", lambda text: _degrees(text, 180)),
        "capacity": take("capacity", lambda text: _whole(text, 1, 10_000)),
        "operating_model": take("operating_model", lambda text: one_of(OperatingModel, text)),
        "timezone": cells["timezone"] or CITY_ZONE,
        "staffed_hours": take("staffed_hours", read_hours),
        "access_hours": take("access_hours", read_hours),
        "max_stay_min": take("max_stay_min", lambda text: _whole(text or "60", 5, 1440)),
        "confirm_tap": take("confirm_tap", _yes_no),
    }
    things = take("facilities", _facilities)
    doors = take("doors", _doors)
    if errors:
        return None, errors
    try:
        description = checked(Description(**values))
    except StationInvalid as refusal:
        found = refusal.extensions.get("errors", [])
        return None, [f"{item['loc'][0]}: {item['message']}" for item in found]
    return _Row(number, description, things, doors), []


def unescaped(text: str) -> str:
    """Give a cell as it was before a spreadsheet was kept from running it."""
    return text[1:] if text[:1] == "'" and text.lstrip("'").startswith(_RISKY) else text


def _escaped(text: str) -> str:
    """Keep a spreadsheet from running a cell; `unescaped` gives the same text back."""
    harmless = _NUMBER.fullmatch(text) or not text.lstrip("'").startswith(_RISKY)
    return text if harmless else "'" + text


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError(f"{text!r} is no code: letters, digits, - and _, at most 32")
    return text


def line_of(text: str) -> str:
    """Read a name or an address; raises ValueError."""
    # As over HTTP: control characters are refused, the wide spaces of Chinese texts are not.
    if not 1 <= len(text) <= 200 or _CONTROL.search(text):
        raise ValueError("one line of 1 to 200 characters is needed")
    return text


def _unit(text: str, names: Mapping[str, uuid.UUID], allowed: set[uuid.UUID]) -> uuid.UUID:
    found = names.get(text)
    if found is None or found not in allowed:
        raise ValueError(f"{text!r} is no unit of yours; write its names from the root, with /")
    return found


def _district(text: str, current: set[str]) -> str | None:
    if text and text not in current:
        raise ValueError(f"{text} is no district of today")
    return text or None


def _degrees(text: str, limit: float) -> float:
    value = float(text) if not set(text) - set("0123456789+-.eE") else math.nan
    if not math.isfinite(value) or abs(value) > limit:
        raise ValueError(f"{text} does not lie between -{limit} and {limit}")
    return value


def _whole(text: str, low: int, high: int) -> int:
    value = int(text) if text.isascii() and text.lstrip("-").isdigit() else None
    if value is None or not low <= value <= high:
        raise ValueError(f"{text!r} is no whole number from {low} to {high}")
    return value


def one_of(kind: type[StrEnum], text: str) -> Any:
    """Read a word of a closed list; raises ValueError."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(kind)}") from None


def _yes_no(text: str) -> bool:
    known = {
        "": False,
        "no": False,
        "false": False,
        "0": False,
        "yes": True,
        "true": True,
        "1": True,
    }
    if text.lower() not in known:
        raise ValueError(f"{text!r} is neither yes nor no")
    return known[text.lower()]


def _facilities(text: str) -> list[tuple[FacilityKind, int]]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        kind, _, count = part.partition(":")
        found.append((one_of(FacilityKind, kind.strip()), _whole(count.strip() or "1", 1, 10_000)))
    return found


def _doors(text: str) -> list[DoorRow]:
    found = []
    for part in filter(None, (part.strip() for part in _DOOR.findall(text))):
        name = _DOOR_NAME.findall(part)[0]
        extras = [extra.strip() for extra in part[len(name) + 1 :].split("|")]
        for extra in extras:
            if extra not in ("", "contact", "display"):
                raise ValueError(f"{extra!r} is not known of a door; contact and display are")
        plain = line_of(re.sub(r"\\([\\;|])", r"\1", name.strip()))
        found.append(DoorRow(plain, "display" in extras, "contact" in extras))
    return found


def _door(door: DoorRow) -> str:
    """Write one door so that `_doors` reads the same."""
    name = re.sub(r"([\\;|])", r"\\\1", door.name)
    return name + "|display" * door.has_display + "|contact" * door.has_contact


def read_hours(text: str) -> dict[str, Any] | None:
    """Read the compact form of hours; raises ValueError naming the part that is wrong."""
    if not text:
        return None
    hours: dict[str, Any] = {"regular": [], "public_holiday": None, "makeup_workday": None}
    special = {"PH": "public_holiday", "MW": "makeup_workday"}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        days, *times = part.split()
        windows = [] if times == ["closed"] else [_times(item) for item in times]
        if not times:
            raise ValueError(f"{part!r} names no times")
        if days.upper() in special:
            if hours[special[days.upper()]] is not None:
                raise ValueError(f"{days} stands there twice")
            hours[special[days.upper()]] = windows
            continue
        for day in _days(days):
            hours["regular"] += [{"weekday": day, **window} for window in windows]
    return hours


def _days(text: str) -> range:
    match = _DAYS.fullmatch(text)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise ValueError(f"{text!r} is no weekday such as 1, no range such as 1-5, no PH or MW")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _times(text: str) -> dict[str, str]:
    match = _TIMES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no window such as 08:00-18:00")
    return {"opens": match[1], "closes": match[2]}


def write_hours(hours: Mapping[str, Any] | None) -> str:
    """Write hours in the compact form, equal days together."""
    if hours is None:
        return ""
    by_day = {
        day: " ".join(
            f"{row['opens']}-{row['closes']}" for row in hours["regular"] if row["weekday"] == day
        )
        for day in range(1, 8)
    }
    parts: list[str] = []
    day = 1
    while day <= 7:
        last = day
        while last < 7 and by_day[last + 1] == by_day[day]:
            last += 1
        name = str(day) if last == day else f"{day}-{last}"
        parts.append(f"{name} {by_day[day] or 'closed'}")
        day = last + 1
    for short, name in (("PH", "public_holiday"), ("MW", "makeup_workday")):
        rows = hours.get(name)
        if rows is not None:
            times = " ".join(f"{row['opens']}-{row['closes']}" for row in rows)
            parts.append(f"{short} {times or 'closed'}")
    return "; ".join(parts)


async def export_stations(
    tx: AsyncSession,
    doors: Mapping[uuid.UUID, Sequence[DoorRow]],
    *,
    within: sa.Select[uuid.UUID] | None = None,
) -> bytes:
    """Write the stations in use, as CSV in UTF-8 with a mark, importable again."""
    query = sa.select(Station).where(Station.retired_at.is_(None)).order_by(Station.code)
    if within is not None:
        query = query.where(Station.id.in_(within))
    rows = (await tx.scalars(query)).all()
    names = {unit.id: name for name, unit in (await by_full_name(tx)).items()}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        things = await facilities_of(tx, [row.id for row in chunk])
        for row in chunk:
            unit = names.get(row.unit_id, "")
            cells = _cells(row, unit, things[row.id], doors.get(row.id, ()))
            writer.writerow([_escaped(cell) for cell in cells])
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _cells(
    row: Station, unit: str, things: Sequence[Facility], doors: Sequence[DoorRow]
) -> list[str]:
    return [
        row.code,
        row.name,
        unit,
        row.district or "",
        row.address,
        repr(row.latitude),
        repr(row.longitude),
        str(row.capacity),
        row.operating_model.value,
        row.timezone,
        write_hours(row.staffed_hours),
        write_hours(row.access_hours),
        str(row.max_stay_min),
        "yes" if row.confirm_tap else "no",
        ";".join(f"{thing.kind.value}:{thing.quantity}" for thing in things),
        ";".join(_door(door) for door in doors),
    ]
