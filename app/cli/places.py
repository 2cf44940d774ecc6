"""Places as a command names them: a branch by its name or path, a station by its code."""

import uuid

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.people.admins import SignedInAdmin
from app.people.rules import Role
from app.places.stations import StationNotFound
from app.places.tables import Station, Unit
from app.places.units import UnitNotFound

ANYWHERE = SignedInAdmin(uuid.UUID(int=0), Role.CITY_ADMIN, unit_path=None, station_id=None)
"""Whoever can run a command has the machine, and sees the whole city; the id is written nowhere."""


async def unit_of(tx: AsyncSession, name: str) -> Unit:
    """Give the one unit in use of this name or path; raises UnitNotFound."""
    called = sa.or_(Unit.name == name, Unit.path == name)
    found = (await tx.scalars(sa.select(Unit).where(called, Unit.retired_at.is_(None)))).all()
    if len(found) != 1:
        raise UnitNotFound(
            f"{len(found)} units are called {name}; name one by its path, such as 1.7"
        )
    return found[0]


async def unit_id_of(tx: AsyncSession, name: str | None) -> uuid.UUID | None:
    """Give its id; None when none was named."""
    return None if name is None else (await unit_of(tx, name)).id


async def station_of(tx: AsyncSession, code: str) -> Station:
    """Give the station of a code; raises StationNotFound."""
    found = await tx.scalar(sa.select(Station).where(Station.code == code))
    if found is None:
        raise StationNotFound(f"no station has the code {code}")
    return found
