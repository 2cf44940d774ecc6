"""How long a search for usable stations near a point takes, among as many as the country has."""

import random
import tempfile
import time
from collections.abc import Sequence

import sqlalchemy as sa

from app.clock import utc_now
from app.db import schema
from app.db.engine import Database
from app.places import nearby
from app.places.rules import Calendar
from app.places.tables import Station
from benchmarks import world
from benchmarks.ground import Ground, Group, console
from benchmarks.load import nearest_rank
from benchmarks.record import Line

COUNTRY = 186_100
NEAR_QUERIES = 400


async def measure(ground: Ground) -> Sequence[Line]:
    """Search around random points, on both databases."""
    lines, stations = [], ground.scaled(COUNTRY)
    ground.server.create_database("country")
    with tempfile.TemporaryDirectory() as folder:
        embedded = f"sqlite+aiosqlite:///{folder}/country.db"
        for name, url in (("PostgreSQL", ground.server.url("country")), ("SQLite", embedded)):
            console.print(f"{stations:,} stations on {name} ...")
            database = Database(url, pool_size=2)
            await schema.migrate(database)
            points = await _country(database, stations)
            for radius_m in (1_000, 5_000):
                seconds = await _searches(database, points, radius_m)
                p50, p99 = (nearest_rank(seconds, share) * 1000 for share in (0.5, 0.99))
                lines.append(
                    Line(
                        f"usable stations within {radius_m // 1000} km of a point, "
                        f"{stations:,} stations, {name}",
                        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                        "p99 under 10 ms",
                    )
                )
            await database.dispose()
    return lines


async def _country(database: Database, stations: int) -> list[tuple[float, float]]:
    """Add stations in clusters, as cities are; gives some of their points."""
    rng, at = random.Random(2), utc_now()
    cities = [(rng.uniform(20, 45), rng.uniform(80, 130)) for _ in range(337)]
    points = []
    for number in range(stations):
        latitude, longitude = cities[number % len(cities)]
        points.append((rng.gauss(latitude, 0.15), rng.gauss(longitude, 0.15)))
    async with database.write() as tx:
        unit_id = await world.a_unit(tx, at)
    for start in range(0, stations, 5_000):
        async with database.write() as tx:
            rows = [
                world.station(unit_id, number, at, point=points[number])
                for number in range(start, min(start + 5_000, stations))
            ]
            await tx.execute(sa.insert(Station), rows)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")
    return rng.sample(points, min(NEAR_QUERIES, stations))


async def _searches(
    database: Database, points: Sequence[tuple[float, float]], radius_m: int
) -> list[float]:
    calendar, at = Calendar({}, frozenset()), utc_now()
    seconds = []
    for latitude, longitude in points:
        async with database.read() as tx:
            began = time.perf_counter()
            await nearby.usable_near(
                tx,
                calendar,
                latitude=latitude,
                longitude=longitude,
                radius_m=radius_m,
                at=at,
                limit=3,
            )
            seconds.append(time.perf_counter() - began)
    return sorted(seconds[20:])


GROUP = Group(
    title="Stations near a point",
    about="""
The query alone, in this process: no HTTP. Stations stand in clusters, as cities do.
""",
    measure=measure,
)
