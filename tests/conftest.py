"""Settings, both databases, the application, a client and a clock; nothing of the domain."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.db import schema
from app.db.engine import Database, embedded_url
from app.main import create_app
from app.runtime import Runtime
from app.settings import Settings
from tests.support.postgres import PostgresServer, running_postgres

NIGHT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
"""23:40 on a Monday in Chongqing."""


class Clock:
    """A clock that moves when a test says so; its monotonic side moves with it."""

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._mono = 1000.0

    def now(self) -> datetime:
        """The instant a test set."""
        return self._at

    def monotonic(self) -> float:
        """Seconds, moving as `advance` says."""
        return self._mono

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._at += timedelta(seconds=seconds)
        self._mono += seconds

    def set(self, at: datetime) -> None:
        """Go to an instant; the monotonic clock never goes back."""
        self._mono += max(0.0, (at - self._at).total_seconds())
        self._at = at


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock(NIGHT)


def migrate(url: str) -> None:
    """Bring an empty database to the newest schema, as `yizhan migrate` does."""

    async def upgrade() -> None:
        database = Database(url, pool_size=2)
        await schema.migrate(database)
        await database.dispose()

    asyncio.run(upgrade())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "yizhan.sqlite3"
    migrate(embedded_url(path))
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    # To drop a database every file of it is synced, which on a disk takes most of the suite's time.
    with running_postgres(in_memory=True) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    postgres.create_database("template_yizhan")
    migrate(postgres.url("template_yizhan"))
    return "template_yizhan"


_database_count = 0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "yizhan.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield embedded_url(path)
        return
    global _database_count
    _database_count += 1
    name = f"test_{_database_count}"
    server: PostgresServer = request.getfixturevalue("postgres")
    server.create_database(name, template=request.getfixturevalue("postgres_template"))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return make_settings(tmp_path, database_url)


def make_settings(data_dir: Path, database_url: str, **changes: Any) -> Settings:
    """Settings as a test needs them, whatever the environment says."""
    values: dict[str, Any] = {
        "data_dir": data_dir / "var",
        "database_url": database_url,
        "public_url": "http://testserver",
        "max_wait_s": 2,
        "database_pool_size": 5,
    }
    return Settings(**(values | changes))


@pytest.fixture
async def app(settings: Settings, clock: Clock) -> AsyncIterator[FastAPI]:
    application = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
def runtime(app: FastAPI) -> Runtime:
    held: Runtime = app.state.runtime
    return held


@pytest.fixture
def database(runtime: Runtime) -> Database:
    return runtime.database


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client
