"""Reports over ten million visits: filling, counting, asking, handing on; beside plain SQL."""

import asyncio
import json
import multiprocessing
import os
import random
import secrets
import statistics
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil
import sqlalchemy as sa

from app import jobs
from app.clock import monotonic
from app.db import schema
from app.db.engine import Database, embedded_url
from app.db.types import new_id, table_of
from app.generate.history import generate
from app.generate.plan import Made, Phase, Plan
from app.main import build_runtime, opened
from app.people.rules import Role
from app.people.secrets import hash_of
from app.people.tables import Admin, AdminSession
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station, Unit
from app.reports.rollup import Terms, find, roll_up, settle_some
from app.reports.rules import Grain
from app.reports.tables import Rollup, RollupDue, RollupMark, RollupMember
from app.settings import Settings
from app.visits.tables import Visit
from benchmarks import clock
from benchmarks.ground import Ground, Group, console, serving, settled
from benchmarks.load import Connection, nearest_rank, request
from benchmarks.questions import RETENTION, Case, Places, cases, path_of
from benchmarks.record import Line
from benchmarks.world import DAY_AND_NIGHT

NOON = datetime(2026, 1, 16, 4, tzinfo=UTC)
"""When it is measured: noon in the city, the first day on which the year before is closed."""
STATIONS, DAYS = 5_523, 146
"""Within retention: whoever came is known to this day."""
BRIEF_DAYS = 15
"""As many visits a day as the large history has, and as many visits as the small one."""
FEW, MANY = 1.24, 12.4
"""Visits per station and day: one million and ten. The larger is what the union tells of 2024."""

SILENCE = timedelta(seconds=75)
ALONE = 40_000
"""Station days of the large history that one process counts, before another one helps."""
SIDE_BY_SIDE = 2
CHANGED = 1_000
"""Days of stations that late word changes."""

ASKED, ASKED_S = 60, 2.0
"""So often a report is asked for, or for so many seconds of each server, but a sixth of it at
least."""

CSV_DAYS = 182
"""A city's stations by day: a million rows."""


@dataclass(slots=True)
class Filled:
    """A database with its history, and what the filling came to."""

    name: str
    settings: Settings
    made: Made
    days: int = 0
    """Of stations: so many were counted."""
    counted_s: float = 0.0
    """All processes together took so long."""
    alone: tuple[int, int, float] | None = None
    """Station days, visits and seconds of the part that one process counted by itself."""


class Stages:
    """Tells how long each stage took."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def over(self, name: str) -> None:
        """Say that a stage is over."""
        now = time.monotonic()
        load, cores = os.getloadavg()[0], os.cpu_count()
        console.print(f"[{now - self._since:.0f} s] {name} (load {load:.1f} on {cores} cores)")
        self._since = now


async def measure(ground: Ground) -> Sequence[Line]:
    """Fill three databases; then ask each the same, in turn."""
    with clock.standing_at(NOON):
        return await _measured(ground)


async def _measured(ground: Ground) -> Sequence[Line]:
    stages = Stages()
    few = await _filled(ground, "1 M", _of_postgres(ground, "few"), FEW)
    embedded = await _filled(ground, "SQLite 1 M", _of_sqlite(ground), FEW)
    many = await _filled(ground, "10 M", _of_postgres(ground, "many"), MANY)
    settings = _of_postgres(ground, "brief")
    brief = await _filled(ground, f"1 M in {BRIEF_DAYS} days", settings, MANY, days=BRIEF_DAYS)
    stages.over("generated")
    with ProcessPoolExecutor(SIDE_BY_SIDE, multiprocessing.get_context("spawn")) as pool:
        await _count(pool, few)
        await _count(pool, brief)
        await _count_some(pool, embedded, ground.scaled(ALONE))
        await _copy(few, embedded)
        stages.over("the small histories counted")
        await _count(pool, many, alone=ground.scaled(ALONE))
        stages.over("the large history counted")
    for one in (few, brief, many):
        await _vacuumed(one)
    lines = [line for one in (few, many, embedded) for line in _filling(one)]
    lines += await _late_word(ground, few, brief, many)
    _told(lines)
    stages.over("late word")
    for one in (few, many, embedded):
        await _nightly(one)
    stages.over("the night's work done")
    since = clock.now()
    async with _asking(few) as a, _asking(many) as b, _asking(embedded) as c:
        servers = [a, b, c]
        waits = (settled(server.filled.settings, since=since) for server in servers)
        await asyncio.gather(*waits)
        stages.over("settled")
        for case in cases(b.places):
            lines.append(await _asked(ground, case, servers))
        stages.over("asked")
        for server in servers:
            lines += _told(await _beside(ground, server))
        stages.over("beside plain SQL and DuckDB")
        for server in servers:
            lines += _told([*await _handed_on(ground, server), await _supposed(server)])
        stages.over("handed on and supposed")
    return lines


def _told(lines: Sequence[Line]) -> Sequence[Line]:
    """Show lines as soon as they are measured: of an hour's run that fails late, much is known."""
    for line in lines:
        console.print(f"  {line.what}: {line.measured}", soft_wrap=True)
    return lines


# --- filling ------------------------------------------------------------------------------------


def _of_postgres(ground: Ground, name: str) -> Settings:
    return ground.settings(name)


def _of_sqlite(ground: Ground) -> Settings:
    folder = ground.folder / "embedded"
    folder.mkdir()
    os.environ["YIZHAN_DATABASE_URL"] = embedded_url(folder / "bench.db")
    os.environ["YIZHAN_DATA_DIR"] = str(folder)
    return Settings()


async def _filled(
    ground: Ground, name: str, settings: Settings, visits: float, days: int = DAYS
) -> Filled:
    """Make a history up to today, with the modes that doors recorded."""
    plan = Plan(
        stations=ground.scaled(STATIONS),
        days=days,
        until=local_day(clock.now(), CITY_ZONE),
        visits_per_station_day=visits,
        retention_days=RETENTION.days,
    )
    held = build_runtime(settings, now=clock.now, monotonic=monotonic)
    await schema.migrate(held.database)
    made = await generate(held.database, plan, _shown(name))
    console.print(f"{name}: {made.visits:,} visits in {made.total_seconds:.0f} s")
    job = jobs.find("record-modes")
    assert job is not None
    async with opened(held):
        await jobs.run_once(held, job)
    return Filled(name, settings, made)


def _shown(name: str) -> Callable[[Phase, int, int], None]:
    """Say how far a history is, at every half of a phase."""

    def note(phase: Phase, done: int, total: int) -> None:
        if done * 2 // total != (done - 1) * 2 // total:
            console.print(f"  {name}: {phase.value} {done:,} of {total:,}")

    return note


async def _count(pool: Executor, one: Filled, *, alone: int = 0) -> None:
    """Count everything: so many days in one process, and then the rest in several."""
    url, loop = one.settings.database_url, asyncio.get_running_loop()
    seconds = await _count_some(pool, one, alone)
    # Looking at what was counted is no part of it.
    began = time.monotonic() - seconds
    passes = [loop.run_in_executor(pool, _finish, url) for _ in range(SIDE_BY_SIDE)]
    await asyncio.gather(*passes)
    one.counted_s = time.monotonic() - began
    console.print(f"{one.name}: counted {one.days:,} days in {one.counted_s:.0f} s")


async def _count_some(pool: Executor, one: Filled, most: int) -> float:
    """Find what is due, and count so many days of it in one process; gives the seconds of that."""
    url, loop = one.settings.database_url, asyncio.get_running_loop()
    one.days, counted, seconds = await loop.run_in_executor(pool, _begin, url, most)
    if most:
        one.alone = (counted, await _visits_counted(url), seconds)
    return seconds


async def _copy(one: Filled, other: Filled) -> None:
    """Give a database the sums of another with the same history: the same plan, the same rows."""
    source = Database(one.settings.database_url, pool_size=1)
    target = Database(other.settings.database_url, pool_size=1)
    for kind in (RollupDue, RollupMember, Rollup, RollupMark):
        table = table_of(kind)
        async with target.write() as tx:
            await tx.execute(sa.delete(table))
        async with source.read() as tx:
            rows = await tx.stream(sa.select(table), execution_options={"yield_per": 5_000})
            async for some in rows.mappings().partitions():
                async with target.write() as writing:
                    await writing.execute(sa.insert(table), [dict(row) for row in some])
    await source.dispose()
    await target.dispose()


def _begin(url: str, most: int) -> tuple[int, int, float]:
    """Find what is due and count some of it; gives how many each, and the seconds of the second."""

    async def some() -> tuple[int, int, float]:
        database = Database(url, pool_size=2)
        try:
            terms = _terms()
            found, counted = await find(database, at=terms.at), 0
            began = time.monotonic()
            while counted < most and (number := await settle_some(database, terms)):
                counted += number
            return found, counted, time.monotonic() - began
        finally:
            await database.dispose()

    return asyncio.run(some())


def _finish(url: str) -> None:
    """Count what is left, as the job of a server does."""

    async def whole() -> None:
        database = Database(url, pool_size=2)
        try:
            await roll_up(database, _terms())
        finally:
            await database.dispose()

    asyncio.run(whole())


def _terms() -> Terms:
    return Terms(clock.now(), RETENTION, SILENCE)


async def _visits_counted(url: str) -> int:
    """Give how many visits the days have that are counted."""
    visit, rollup = table_of(Visit), table_of(Rollup)
    is_of = sa.and_(rollup.c.place_id == visit.c.station_id, rollup.c.from_day == visit.c.local_day)
    query = (
        sa.select(sa.func.count())
        .select_from(visit.join(rollup, is_of))
        .where(rollup.c.grain == Grain.DAY)
    )
    database = Database(url, pool_size=1)
    async with database.read() as tx:
        found = await tx.scalar(query)
    await database.dispose()
    return found or 0


async def _vacuumed(one: Filled) -> None:
    """Leave the tables as they are a while after so much was written."""
    database = Database(one.settings.database_url, pool_size=1)
    async with database.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in ("rollups", "rollup_dues"):
            await connection.exec_driver_sql(f"VACUUM ANALYZE {table}")
    await database.dispose()


async def _nightly(one: Filled) -> None:
    """Do what is done once a night, so that no report is asked for meanwhile."""
    held = build_runtime(one.settings, now=clock.now, monotonic=monotonic)
    async with opened(held):
        for name in ("record-modes", "roll-up", "usual-profiles", "retain"):
            job = jobs.find(name)
            assert job is not None
            await jobs.run_once(held, job)


def _filling(one: Filled) -> Sequence[Line]:
    visits, seconds = one.made.visits, one.made.total_seconds
    lines = [
        Line(
            f"{one.name}: loading the generator's history, {visits:,} visits and all with them",
            f"{visits / seconds:,.0f} visits/s ({seconds:.0f} s)",
            "at least 50,000 visits/s",
        )
    ]
    if one.alone is not None:
        days, some, alone_s = one.alone
        lines.append(
            Line(
                f"{one.name}: counting {days:,} station days, one process, without what is summed",
                f"{some / alone_s:,.0f} visits/s, {1000 * alone_s / days:.2f} ms a station day",
                "at least 2,000 visits/s",
            )
        )
    if one.counted_s:
        each_ms = 1000 * one.counted_s / one.days
        lines.append(
            Line(
                f"{one.name}: counting all {one.days:,} station days and what is summed, "
                f"{SIDE_BY_SIDE} processes side by side",
                f"{visits / one.counted_s:,.0f} visits/s, {each_ms:.2f} ms a station day "
                f"({one.counted_s / 60:.1f} min)",
            )
        )
    return lines


# --- late word ----------------------------------------------------------------------------------


async def _late_word(ground: Ground, few: Filled, brief: Filled, many: Filled) -> Sequence[Line]:
    """Change some of the last days of stations at random, and count them and all above again."""
    costs = {one.name: await _recounted(ground, one) for one in (few, brief, many)}
    all_costs = "; ".join(f"{name}: {cost:.1f} ms" for name, cost in costs.items())
    longer, denser = (costs[many.name] / costs[one.name] for one in (brief, few))
    return [
        Line(
            f"counting a changed station day of the last {BRIEF_DAYS} again, "
            "and all that is summed from it",
            f"{all_costs}; {longer:.2f} times with {DAYS} days of history instead of {BRIEF_DAYS}, "
            f"{denser:.2f} times with ten times the visits in each day",
            "does not grow with history",
        )
    ]


async def _recounted(ground: Ground, one: Filled) -> float:
    """Give what a changed day costs, in milliseconds."""
    wanted, visit = ground.scaled(CHANGED), table_of(Visit)
    database = Database(one.settings.database_url, pool_size=2)
    await roll_up(database, _terms())
    began = time.monotonic()
    await roll_up(database, _terms())
    empty_s = time.monotonic() - began
    since = local_day(clock.now(), CITY_ZONE) - timedelta(days=BRIEF_DAYS)
    of_day = sa.select(sa.func.count()).where(visit.c.local_day >= since)
    some = sa.select(visit.c.id, visit.c.station_id, visit.c.local_day).where(
        visit.c.local_day >= since, sa.func.random() < sa.bindparam("share")
    )
    async with database.write() as tx:
        share = 5 * wanted / max(1, await tx.scalar(of_day) or 0)
        rows = (await tx.execute(some, {"share": share})).all()
        days = {(row.station_id, row.local_day): row.id for row in rows}
        ids = random.Random(4).sample(sorted(days.values()), min(wanted, len(days)))
        change = sa.update(visit).where(visit.c.id == sa.bindparam("which"))
        await tx.execute(change.values(changed_at=clock.now()), [{"which": id} for id in ids])
    began = time.monotonic()
    found = await roll_up(database, _terms())
    seconds = time.monotonic() - began - empty_s
    await database.dispose()
    console.print(f"{one.name}: {found.found:,} days again in {seconds:.1f} s ({empty_s:.1f} idle)")
    return 1000 * seconds / max(1, found.found)


# --- asking -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is asked, one request after the other."""

    filled: Filled
    places: Places
    port: int
    process: psutil.Process
    connection: Connection
    headers: dict[str, str]

    async def get(self, path: str) -> tuple[Any, float]:
        """Ask once; gives the answer and the seconds."""
        answer = await self.connection.ask(request("GET", path, self.headers))
        if answer.status != 200:
            raise SystemExit(f"bench: {path} answered {answer.status}: {answer.body[:300]!r}")
        return answer.body, answer.seconds


@asynccontextmanager
async def _asking(filled: Filled) -> AsyncIterator[Asked]:
    token = secrets.token_urlsafe(32)
    database = Database(filled.settings.database_url, pool_size=1)
    places = await _prepared(database, token, filled)
    await database.dispose()
    with serving(filled.settings) as (port, process):
        async with Connection(port) as connection:
            headers = {"Authorization": f"Bearer {token}"}
            yield Asked(filled, places, port, process, connection, headers)


async def _prepared(database: Database, token: str, filled: Filled) -> Places:
    """Sign an administrator of the city in; choose the largest district and one of its stations."""
    at = clock.now()
    admin = Admin(
        id=new_id(),
        username="bench",
        password_hash="",
        role=Role.CITY_ADMIN,
        unit_id=None,
        station_id=None,
        totp_sealed=None,
        created_at=at,
        changed_at=at,
    )
    session = AdminSession(
        token_hash=hash_of(token),
        admin_id=admin.id,
        created_at=at,
        used_at=at,
        expires_at=at + timedelta(days=1),
    )
    async with database.write() as tx:
        tx.add(admin)
        await tx.flush()
        tx.add(session)
        largest = (
            sa.select(Station.unit_id)
            .join(Unit, Unit.id == Station.unit_id)
            .group_by(Station.unit_id)
            .order_by(sa.func.count().desc())
            .limit(1)
        )
        unit = await tx.scalar(largest)
        first = sa.select(Station.id).where(Station.unit_id == unit).order_by(Station.code)
        station = await tx.scalar(first.limit(1))
    assert unit is not None
    assert station is not None
    return Places(unit, station, local_day(at, CITY_ZONE))


async def _asked(ground: Ground, case: Case, servers: Sequence[Asked]) -> Line:
    """Ask all in turn, so that their ratio is of neighbours."""
    most = max(ground.scaled(ASKED), 3)
    seconds: list[list[float]] = [[] for _ in servers]
    paths = [case.path.format(unit=one.places.unit, station=one.places.station) for one in servers]
    size = 0
    for one, path in zip(servers, paths, strict=True):
        body, _ = await one.get(path)
        size = len(body)
    spent = 0.0
    while (asked := len(seconds[0])) < most and (
        spent < ASKED_S * len(servers) or asked < most // 6
    ):
        for kept, one, path in zip(seconds, servers, paths, strict=True):
            _, took = await one.get(path)
            kept.append(took)
            spent += took
    parts = [f"{one.filled.name}: {_ms(kept)}" for one, kept in zip(servers, seconds, strict=True)]
    ratio = statistics.median(seconds[1]) / statistics.median(seconds[0])
    parts[1] += f", {ratio:.2f} times"
    line = Line(
        f"{case.name} ({size / 1024:,.0f} KiB)",
        "; ".join(parts),
        "p99 under 100 ms, at most 1.3 times",
    )
    _told([line])
    return line


def _ms(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (1000 * nearest_rank(ordered, share) for share in (0.5, 0.99))
    return f"{p50:.1f} / {p99:.1f} ms"


# --- beside plain SQL ---------------------------------------------------------------------------

COUNTED = """
    count(*) FILTER (WHERE NOT re_entry) AS visits,
    coalesce(sum(party_size) FILTER (WHERE NOT re_entry), 0) AS persons,
    count(*) FILTER (WHERE re_entry) AS returns,
    count(DISTINCT number) FILTER (WHERE NOT re_entry) AS unique_workers,
    count(*) FILTER (WHERE end_source IN ('worker', 'contact', 'staff')) AS stays
"""
FIGURES = ("visits", "persons", "returns", "unique_workers", "stays")

RAW = """
SELECT s.code, v.local_day, v.re_entry, v.party_size, v.end_source,
       coalesce(w.number, v.erased_number) AS number
FROM visits v JOIN stations s ON s.id = v.station_id LEFT JOIN workers w ON w.id = v.worker_id
WHERE v.voided_at IS NULL
"""


async def _beside(ground: Ground, one: Asked) -> Sequence[Line]:
    """Ask for a month by station: our report, SQL over raw rows, DuckDB over the exported table."""
    first, end = one.places.month
    body, _ = await one.get(path_of("visits", (first, end), by="station"))
    # Of a station that was not there then, nothing can be known; to plain SQL it is nothing.
    ours = {
        row["station"]: tuple(row[name] or 0 for name in FIGURES)
        for row in json.loads(body)["rows"]
    }
    within = f"local_day >= '{first}' AND local_day < '{end}'"
    plain = f"SELECT code, {COUNTED} FROM ({RAW} AND v.{within}) AS raw GROUP BY code"
    name, database = one.filled.name, Database(one.filled.settings.database_url, pool_size=1)
    async with database.read() as tx:
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            rows = (await tx.execute(sa.text(plain))).all()
            seconds.append(time.monotonic() - began)
        _require_equal(ours, rows, "plain SQL")
    lines = [
        Line(
            f"{name}: visits by station over a month by plain SQL over the raw rows",
            f"{1000 * statistics.median(seconds):,.0f} ms; its figures are those of the report",
        )
    ]
    if not database.is_embedded:
        lines.append(await _by_duckdb(ground, name, database, ours, within))
    await database.dispose()
    return lines


async def _by_duckdb(
    ground: Ground, name: str, database: Database, ours: Mapping[str, Any], within: str
) -> Line:
    path = ground.folder / "visits.csv"
    began = time.monotonic()
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.copy_from_query(RAW, output=str(path), format="csv", header=True)
    exported_s = time.monotonic() - began
    loaded_s, seconds, rows = await asyncio.to_thread(_in_duckdb, path, within)
    size = path.stat().st_size
    path.unlink()
    _require_equal(ours, rows, "DuckDB")
    return Line(
        f"{name}: the same by DuckDB over the exported table",
        f"{1000 * seconds:,.0f} ms, after {exported_s:.0f} s to export {size / 2**20:,.0f} MiB and "
        f"{loaded_s:.0f} s to load them; its figures are those of the report",
    )


def _in_duckdb(path: Path, within: str) -> tuple[float, float, Sequence[Any]]:
    with duckdb.connect() as duck:
        began = time.monotonic()
        duck.execute(f"CREATE TABLE raw AS SELECT * FROM read_csv('{path}')")
        loaded_s, seconds = time.monotonic() - began, []
        for _ in range(3):
            began = time.monotonic()
            query = f"SELECT code, {COUNTED} FROM raw WHERE {within} GROUP BY code"
            rows = duck.execute(query).fetchall()
            seconds.append(time.monotonic() - began)
        return loaded_s, statistics.median(seconds), rows


def _require_equal(ours: Mapping[str, Any], rows: Sequence[Any], who: str) -> None:
    """Raise unless somebody else comes to the report's figures."""
    theirs = {code: tuple(int(value) for value in values) for code, *values in rows}
    nothing = (0,) * len(FIGURES)
    wrong = [code for code in ours.keys() | theirs.keys()
             if ours.get(code, nothing) != theirs.get(code, nothing)]  # fmt: skip
    if wrong:
        code = wrong[0]
        raise SystemExit(f"bench: {who} says otherwise of {len(wrong)} stations, such as {code}: "
                         f"{theirs.get(code)} instead of {ours.get(code)}")  # fmt: skip


# --- handing on, supposing ----------------------------------------------------------------------


async def _handed_on(ground: Ground, one: Asked) -> Sequence[Line]:
    """Stream a small file and a large one, and make a workbook; say what the server needs."""
    idle = one.process.memory_info().rss
    end = one.places.until
    small = await _file(one, (end - timedelta(days=4), end))
    large = await _file(one, (end - timedelta(days=CSV_DAYS), end))
    path = ground.folder / "report.xlsx"
    book = await _file(one, one.places.month, into=path)
    book.rows = await asyncio.to_thread(_rows_in, path) - 1  # The titles.
    path.unlink()
    return [
        Line(
            f"{one.filled.name}: CSV of {large.rows:,} rows (a city's stations by day), streamed",
            f"{large.rows / large.seconds:,.0f} rows/s ({large.seconds:.0f} s, "
            f"{large.bytes / 2**20:.0f} MiB); the process takes at most {large.mib:.0f} MiB, "
            f"{small.mib:.0f} MiB for {small.rows:,} rows, {idle / 2**20:.0f} MiB before",
            "constant memory",
        ),
        Line(
            f"{one.filled.name}: XLSX of {book.rows:,} rows (a city's stations by day, a month), "
            "the whole file",
            f"{book.rows / book.seconds:,.0f} rows/s ({book.seconds:.0f} s, "
            f"{book.bytes / 2**20:.0f} MiB); the process takes at most {book.mib:.0f} MiB",
        ),
    ]


@dataclass(slots=True)
class Sent:
    """A file that was sent."""

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    mib: float = 0.0
    """The most memory of the server meanwhile."""


async def _file(one: Asked, period: tuple[date, date], *, into: Path | None = None) -> Sent:
    """Fetch a file: a CSV, or a workbook, which is kept."""
    sent, began = Sent(), time.monotonic()
    what = "csv" if into is None else "xlsx"
    path = path_of("visits", period, by="station", bucket="day", format=what)
    watcher = asyncio.create_task(_memory(one.process, sent))
    address = f"http://127.0.0.1:{one.port}{path}"
    async with (
        httpx.AsyncClient(timeout=600, trust_env=False) as client,
        client.stream("GET", address, headers=one.headers) as answer,
    ):
        if answer.status_code != 200:
            raise SystemExit(f"bench: {path} answered {answer.status_code}")
        with (into or Path(os.devnull)).open("wb") as kept:
            async for piece in answer.aiter_raw():
                sent.rows += piece.count(b"\n")
                sent.bytes += len(piece)
                kept.write(piece)
    sent.rows -= 1  # The titles.
    sent.seconds = time.monotonic() - began
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher
    return sent


def _rows_in(path: Path) -> int:
    """Count the rows of a workbook's first sheet."""
    with zipfile.ZipFile(path) as book, book.open("xl/worksheets/sheet1.xml") as sheet:
        found, kept = 0, b""
        while piece := sheet.read(2**20):
            text = kept + piece
            found, kept = found + text.count(b"<row "), text[-len(b"<row ") + 1 :]
        return found


async def _memory(process: psutil.Process, sent: Sent) -> None:
    while True:
        sent.mib = max(sent.mib, process.memory_info().rss / 2**20)
        await asyncio.sleep(0.05)


async def _supposed(one: Asked) -> Line:
    """Replay a month under other hours."""
    first, end = one.places.month
    body = {
        "from": first.isoformat(),
        "to": end.isoformat(),
        "change": {"access_hours": DAY_AND_NIGHT},
    }
    path = "/v1/admin/reports/what-if"
    # By now the server has hung up on the connection that waited for the files.
    async with Connection(one.port) as connection:
        answer = await connection.ask(request("POST", path, one.headers, body))
    if answer.status != 200:
        raise SystemExit(f"bench: {path} answered {answer.status}: {answer.body[:300]!r}")
    scans = json.loads(answer.body)["scans"]
    return Line(
        f"{one.filled.name}: what-if over a month of the city, open by day and by night",
        f"{scans / answer.seconds:,.0f} scans/s ({scans:,} scans in {answer.seconds:.1f} s)",
    )


GROUP = Group(
    title="Reports",
    about=f"""
{DAYS} days of {STATIONS:,} stations by the product's own generator, at {FEW} and {MANY} visits per
station and day (1 M, 10 M), counted by the product's own roll-up, with the clock at noon of
{NOON:%Y-%m-%d}: so a year is the closed one before, of which the history has
{DAYS - (NOON.day - 1)} days, and a month its last; of the last 180 days, and of the {CSV_DAYS} of
the CSV, those before the history have rows without data. A third history has the large one's
density and the small one's visits. SQLite counts a part and is given the rest, for the same plan
makes the same rows. Then real HTTP, one request after the other, in turn at the databases, each
behind a server process of its own: p50 / p99 of up to {ASKED} questions, and how many times the
small history's median the large one's is. DuckDB is asked beside PostgreSQL alone.
""",
    measure=measure,
    postgres={
        "max_connections": "100",
        "shared_buffers": "1GB",
        "max_wal_size": "8GB",
        "maintenance_work_mem": "256MB",
    },
)
