"""Districts: rows with validity and successors, since the map of a city changes."""

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime
from importlib import resources

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.upsert import upsert
from app.errors import Invalid
from app.places.tables import District


class DistrictInvalid(Invalid):
    """There is no such district today."""


def shipped() -> bytes:
    """Give the districts of Chongqing that come with this version."""
    return resources.files("app.data").joinpath("districts_chongqing.csv").read_bytes()


async def load(tx: AsyncSession, content: bytes) -> int:
    """Write the districts of a CSV file; those that stand already are brought up to date."""
    rows = [
        {
            "adcode": row["adcode"],
            "name": row["name"],
            "kind": row["kind"],
            "valid_from": date.fromisoformat(row["valid_from"]) if row["valid_from"] else None,
            "valid_to": date.fromisoformat(row["valid_to"]) if row["valid_to"] else None,
            "successors": row["successors"].split(";") if row["successors"] else [],
            "note": row["note"],
        }
        for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
    ]
    statement = upsert(tx, District)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["adcode"],
            set_={
                name: statement.excluded[name]
                for name in ("name", "kind", "valid_from", "valid_to", "successors", "note")
            },
        ),
        rows,
    )
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
    if not is_current(district, at.date()):
        names = [
            f"{found.name} {found.adcode}"
            for code in district.successors
            if (found := await tx.get(District, code)) is not None
        ]
        raise DistrictInvalid(
            f"{district.name} {adcode} was abolished on {district.valid_to}; "
            f"its ground belongs to {', '.join(names)}."
        )
