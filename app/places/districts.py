"""Districts: rows with validity and successors, since the map of a city changes."""

import csv
import io
import re
from collections.abc import Sequence
from datetime import date, datetime
from importlib import resources
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.upsert import upsert
from app.errors import Invalid
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import District

_ADCODE = re.compile(r"[0-9]{6}")


class DistrictInvalid(Invalid):
    """There is no such district today."""


class DistrictsInvalid(Invalid):
    """The districts file has errors; nothing was imported."""


def shipped() -> bytes:
    """Give the districts of Chongqing that come with this version."""
    return resources.files("app.data").joinpath("districts_chongqing.csv").read_bytes()


COLUMNS = ("adcode", "name", "kind", "valid_from", "valid_to", "successors", "note")


def parse(content: bytes) -> Sequence[dict[str, Any]]:
    """Read a districts file; raises DistrictsInvalid with an error for every bad row."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DistrictsInvalid(f"The first line must be: {','.join(COLUMNS)}")
        lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DistrictsInvalid(f"The file is not CSV in UTF-8: {error}") from error
    codes = {line["adcode"] for line in lines}
    rows: dict[str, dict[str, Any]] = {}
    errors = []
    for number, line in enumerate(lines, 2):
        try:
            row = _row(line, codes)
            if row["adcode"] in rows:
                raise ValueError(f"{row['adcode']} stands in the file already")
            rows[row["adcode"]] = row
        except ValueError as error:
            errors.append({"loc": ["row", number], "message": str(error)})
    if errors or not rows:
        first = f"row {errors[0]['loc'][1]}: {errors[0]['message']}" if errors else "no rows"
        raise DistrictsInvalid(f"Nothing was imported; {first}", errors=errors)
    return list(rows.values())


def _row(line: dict[str | None, Any], codes: set[str]) -> dict[str, Any]:
    if None in line or any(value is None for value in line.values()):
        raise ValueError(f"a row has {len(COLUMNS)} fields")
    if not _ADCODE.fullmatch(line["adcode"]):
        raise ValueError(f"{line['adcode']!r} is no code of six digits")
    if not line["name"]:
        raise ValueError("a district has a name")
    successors = line["successors"].split(";") if line["successors"] else []
    if missing := [code for code in successors if code not in codes]:
        raise ValueError(f"the successor {missing[0]} does not stand in the file")
    begins, ends = (
        date.fromisoformat(line[name]) if line[name] else None
        for name in ("valid_from", "valid_to")
    )
    if begins and ends and ends <= begins:
        raise ValueError("valid_to must come after valid_from")
    return {
        "adcode": line["adcode"],
        "name": line["name"],
        "kind": line["kind"],
        "valid_from": begins,
        "valid_to": ends,
        "successors": successors,
        "note": line["note"],
    }


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


async def load(tx: AsyncSession, content: bytes) -> int:
    """Write the districts of a CSV file; those that stand already are brought up to date.

    Raises DistrictsInvalid.
    """
    rows = parse(content)
    statement = upsert(tx, District)
    changed = {name: statement.excluded[name] for name in COLUMNS if name != "adcode"}
    await tx.execute(statement.on_conflict_do_update(index_elements=["adcode"], set_=changed), rows)
    return len(rows)


def is_current(district: District, day: date) -> bool:
    """Whether a district exists on a day; `valid_to` is the first day on which it does not."""
    begun = district.valid_from is None or district.valid_from <= day
    return begun and (district.valid_to is None or day < district.valid_to)


async def list_districts(tx: AsyncSession) -> Sequence[District]:
    """Give every district that is or was."""
    return (await tx.scalars(sa.select(District).order_by(District.adcode))).all()


async def require_current(tx: AsyncSession, adcode: str | None, *, at: datetime) -> None:
    """Raise DistrictInvalid, naming the successors, unless the district exists on that day."""
    if adcode is None:
        return
    district = await tx.get(District, adcode)
    if district is None:
        raise DistrictInvalid(f"There is no district {adcode}.")
    if not is_current(district, local_day(at, CITY_ZONE)):
        names = [
            f"{found.name} {found.adcode}"
            for code in district.successors
            if (found := await tx.get(District, code)) is not None
        ]
        raise DistrictInvalid(
            f"{district.name} {adcode} was abolished on {district.valid_to}; "
            f"its ground belongs to {', '.join(names)}."
        )
