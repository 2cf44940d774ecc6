"""Units in from CSV, by the names that a file of stations calls them by; any bad row imports none.

Columns: `unit,kind`. `unit`: names from the root, as `重庆市总工会/渝中区总工会`; a unit stands in
the file or in the database before what is below it. `kind`: city, district, street, industry. A
unit that stands already gets the kind of its row.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import Actor
from app.places import units
from app.places.tables import UnitKind
from app.places.transfer import ImportRefused, line_of, one_of, text_of, unescaped
from app.places.units import NewUnit, UnitInvalid, by_full_name

COLUMNS = ("unit", "kind")


@dataclass(frozen=True, slots=True)
class ImportedUnits:
    """How many units were made, changed, and stood there already."""

    created: int
    amended: int
    unchanged: int


async def import_units(
    tx: AsyncSession, content: bytes, *, actor: Actor, at: datetime
) -> ImportedUnits:
    """Read a file and make its units; raises ImportRefused with an error for every bad row."""
    known = await by_full_name(tx)
    done = {"created": 0, "amended": 0, "unchanged": 0}
    errors = []
    first_seen: dict[str, int] = {}
    for number, line in _rows(content):
        try:
            name, kind = _read(line)
            if name in first_seen:
                raise ValueError(f"unit: {name!r} stands in row {first_seen[name]} already")
            first_seen[name] = number
            before = known.get(name)
            if before is None:
                above, _, own = name.rpartition("/")
                if above and above not in known:
                    raise ValueError(f"unit: {above!r} stands neither above nor in the database")
                new = NewUnit(line_of(own), kind, known[above].id if above else None)
                known[name] = await units.add(tx, new, actor=actor, at=at)
                done["created"] += 1
            else:
                done["unchanged" if before.kind is kind else "amended"] += 1
                await units.amend(tx, before, changes={"kind": kind}, actor=actor, at=at)
        except (ValueError, UnitInvalid) as error:
            errors.append({"loc": ["row", number], "message": str(error)})
    if errors:
        first = f"row {errors[0]['loc'][1]}: {errors[0]['message']}"
        raise ImportRefused(f"{len(errors)} errors; the first: {first}", errors=errors)
    return ImportedUnits(**done)


def _rows(content: bytes) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text_of(content), newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except csv.Error as error:
        raise ImportRefused(f"The file is not CSV: {error}") from error
    if not lines or tuple(lines[0][1]) != COLUMNS:
        raise ImportRefused(f"The first line must be: {','.join(COLUMNS)}")
    if not lines[1:]:
        raise ImportRefused("The file names no unit.")
    yield from lines[1:]


def _read(line: list[str]) -> tuple[str, UnitKind]:
    if len(line) != len(COLUMNS):
        raise ValueError(f"a row has {len(COLUMNS)} fields")
    name, kind = map(unescaped, line)
    return name, one_of(UnitKind, kind)
