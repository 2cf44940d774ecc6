"""What is measured against: stations with doors and controllers, and many signed-in workers."""

import json
import secrets
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import new_id
from app.doors.registry import NewDoor, add_doors, poster_token
from app.doors.tables import Controller
from app.doors.tokens import TokenKind
from app.people.secrets import hash_of
from app.people.tables import Occupation, Worker, WorkerSession
from app.places.rules import grid_cell
from app.places.tables import OperatingModel, Station, Unit, UnitKind
from app.runtime import Runtime
from app.visits.presence import prepare

DAY_AND_NIGHT = {
    "regular": [{"weekday": day, "opens": "00:00", "closes": "24:00"} for day in range(1, 8)],
    "public_holiday": None,
    "makeup_workday": None,
}
CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Post:
    """A station's door and who keeps it."""

    station: str
    door: str
    controller: str
    credential: str
    poster: str


@dataclass(frozen=True, slots=True)
class World:
    """Everything the load needs to know."""

    posts: list[Post]
    tokens: list[str]
    workers: list[str]

    def save(self, path: Path) -> None:
        """Write it down, for the process that makes the load."""
        path.write_text(json.dumps(asdict(self)))


def station(unit_id: uuid.UUID, number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """Describe one station, within two kilometres of the others."""
    latitude, longitude = 29.55 + number % 100 * 1e-4, 106.55 + number // 100 * 1e-4
    latitude, longitude = more.pop("point", (latitude, longitude))
    return {
        "id": new_id(),
        "code": f"B{number:07d}",
        "name": f"站 {number}",
        "unit_id": unit_id,
        "district": None,
        "address": "测试路 1 号",
        "latitude": latitude,
        "longitude": longitude,
        "cell": grid_cell(latitude, longitude),
        "capacity": 10_000,
        "operating_model": OperatingModel.UNION_BUILT,
        "timezone": "Asia/Shanghai",
        "staffed_hours": None,
        "access_hours": DAY_AND_NIGHT,
        "max_stay_min": 60,
        "confirm_tap": False,
        "config_version": 1,
        "created_at": at,
        "changed_at": at,
    }


async def a_unit(tx: AsyncSession, at: datetime) -> uuid.UUID:
    """Add the one unit all stations hang on."""
    unit = Unit(
        id=new_id(),
        name="市总工会",
        kind=UnitKind.CITY,
        parent_id=None,
        number=1,
        path="1",
        created_at=at,
        changed_at=at,
    )
    tx.add(unit)
    await tx.flush()
    return unit.id


async def build(held: Runtime, *, stations: int, workers: int) -> World:
    """Fill a database for the load."""
    at = held.now()
    async with held.database.write() as tx:
        unit_id = await a_unit(tx, at)
        rows = [station(unit_id, number, at) for number in range(stations)]
        await tx.execute(sa.insert(Station), rows)
        await prepare(tx, [row["id"] for row in rows])
        posts = [await _post(tx, held, row["id"], at) for row in rows]
    ids, tokens = [new_id() for _ in range(workers)], []
    for start in range(0, workers, CHUNK):
        async with held.database.write() as tx:
            tokens += await _workers(tx, ids[start : start + CHUNK], at)
    return World(posts, tokens, [str(worker_id) for worker_id in ids])


async def _post(tx: AsyncSession, held: Runtime, station_id: uuid.UUID, at: datetime) -> Post:
    (door,) = await add_doors(tx, station_id, [NewDoor("正门")], at=at)
    credential, controller_id = secrets.token_urlsafe(32), new_id()
    await tx.execute(
        sa.insert(Controller).values(
            id=controller_id,
            station_id=station_id,
            serial="bench",
            firmware="bench",
            credential_hash=hash_of(credential),
            credential_at=at,
            credential_used=True,
            enrolled_at=at,
            seen_at=at,
            changed_at=at,
        )
    )
    poster = poster_token(held.keys.signing(TokenKind.POSTER), door)
    return Post(str(station_id), str(door.id), str(controller_id), credential, poster)


async def _workers(tx: AsyncSession, ids: list[uuid.UUID], at: datetime) -> list[str]:
    tokens = [secrets.token_urlsafe(32) for _ in ids]
    await tx.execute(
        sa.insert(Worker),
        [
            {
                "id": worker_id,
                "number": secrets.randbits(32),
                "phone_index": secrets.token_bytes(32),
                "occupation": Occupation.RIDER,
                "listed": False,
                "consent_id": new_id(),
                "created_at": at,
                "changed_at": at,
            }
            for worker_id in ids
        ],
    )
    await tx.execute(
        sa.insert(WorkerSession),
        [
            {
                "token_hash": hash_of(token),
                "worker_id": worker_id,
                "created_at": at,
                "expires_at": at + timedelta(days=1),
            }
            for worker_id, token in zip(ids, tokens, strict=True)
        ],
    )
    return tokens
