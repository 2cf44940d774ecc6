"""create_app: the one place where things are wired. A function, because tests build it anew."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from importlib import metadata
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import jobs
from app.alerts.webhooks.courier import Courier
from app.api import feed, problems, public, site
from app.api.admin import alerts as admin_alerts
from app.api.admin import audit as admin_audit
from app.api.admin import doors as admin_doors
from app.api.admin import files as admin_files
from app.api.admin import forecasts as admin_forecasts
from app.api.admin import people as admin_people
from app.api.admin import places as admin_places
from app.api.admin import reports as admin_reports
from app.api.admin import source as admin_source
from app.api.admin import stations as admin_stations
from app.api.admin import visits as admin_visits
from app.api.admin import webhooks as admin_webhooks
from app.api.admin import whatif as admin_whatif
from app.api.controller import config, enrolment, journal, polls, readers
from app.api.edge import Edge
from app.api.worker import account, doors, visits
from app.clock import Monotonic, Now, monotonic, utc_now
from app.db.clock import deadline_clock
from app.db.engine import Database, log_versions
from app.db.lock import WriterLock
from app.db.schema import require_current
from app.db.wakeups import wakeups_for
from app.doors import commands, keys
from app.doors.config import config_desk
from app.doors.desk import CREDENTIALS, ControllerDesk
from app.doors.effects import AT_A_TIME, Effects
from app.doors.keys import KeyRing
from app.doors.line import EMBEDDED_UPLOADS, UPLOADS, Line
from app.doors.lookout import lookout
from app.doors.rules import UNLOCK_SECONDS
from app.doors.rules.config import ServerTerms
from app.doors.scans import ScanDesk, ScanLimits
from app.feed.files import Feed
from app.people.sms import sender_for
from app.places import calendar
from app.places.calendar import CalendarCache
from app.runtime import Runtime
from app.settings import Settings
from app.vault import Vault, development_kek

log = logging.getLogger(__name__)

ROUTERS = (
    # The busiest first: an address is looked for in this order.
    polls.router,
    journal.router,
    readers.router,
    doors.router,
    site.router,
    public.router,
    feed.router,
    account.router,
    visits.router,
    config.router,
    enrolment.router,
    admin_people.router,
    admin_places.router,
    admin_stations.router,
    admin_doors.router,
    admin_visits.router,
    admin_whatif.router,
    admin_reports.router,
    admin_files.router,
    admin_source.router,
    admin_forecasts.router,
    admin_alerts.router,
    admin_webhooks.router,
    admin_audit.router,
)


def create_app(
    settings: Settings,
    *,
    now: Now = utc_now,
    monotonic: Monotonic = monotonic,
    run_jobs: bool = True,
) -> FastAPI:
    """Build the service; its lifespan opens the database and refuses a stale schema."""
    app = FastAPI(
        title="工会驿站 Smart rest stations",
        version=metadata.version("yizhan"),
        summary="Scan to open, visits, occupancy, reports.",
        lifespan=_lifespan(settings, now, monotonic, run_jobs),
        docs_url="/docs" if settings.serves_docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.serves_docs else None,
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(polls.PlainPolls)
    app.add_middleware(
        Edge,
        limit=settings.limit_body_bytes,
        paperwork=Line(max(1, settings.database_pool_size // 2), monotonic=monotonic),
        monotonic=monotonic,
        now=now,
        docs_paths=("/docs",),
    )
    return app


def kek_of(settings: Settings) -> bytes:
    """Give the key-encryption key: the setting's, or development's own."""
    if settings.secret_kek.get_secret_value():
        return settings.kek()
    return development_kek(settings.data_dir)


def build_runtime(settings: Settings, *, now: Now, monotonic: Monotonic) -> Runtime:
    """Make what a process holds; nothing is opened yet."""
    database = Database(settings.effective_database_url, pool_size=settings.database_pool_size)
    wakeups = wakeups_for(database)
    vault = Vault(kek_of(settings))
    ring, days = KeyRing(vault), CalendarCache()
    desk = ControllerDesk(
        database, wakeups, now=now, monotonic=monotonic, silence_s=settings.controller_silence_s
    )
    deadlines = deadline_clock(database, now, monotonic, longest_s=UNLOCK_SECONDS)
    terms = ServerTerms(
        max_wait_s=settings.max_wait_s,
        silence_s=settings.controller_silence_s,
        jwks_url=f"{settings.public_url}/.well-known/jwks.json",
    )
    wakeups.watch(keys.TOPIC, ring.forget)
    wakeups.watch(calendar.TOPIC, days.forget)
    wakeups.watch(CREDENTIALS, desk.forget)
    scans = ScanDesk(
        wakeups=wakeups,
        keys=ring,
        calendar=days,
        clock=deadlines,
        monotonic=monotonic,
        controllers=desk,
        limits=ScanLimits(settings.limit_scan_minute, settings.limit_doors_hour),
        vault=vault,
    )
    return Runtime(
        settings=settings,
        database=database,
        wakeups=wakeups,
        vault=vault,
        now=now,
        monotonic=monotonic,
        deadlines=deadlines,
        calendar=days,
        keys=ring,
        controllers=desk,
        lookout=lookout(database, deadlines, now, terms),
        configs=config_desk(database, days, now, terms),
        scans=scans,
        uploads=Line(EMBEDDED_UPLOADS if database.is_embedded else UPLOADS, monotonic=monotonic),
        effects=Effects(database, scans, line=Line(AT_A_TIME, monotonic=monotonic), now=now),
        press=asyncio.Semaphore(1),
        rehearsal=asyncio.Semaphore(1),
        sms=sender_for(settings, now),
        feed=Feed(database, days, desk, now, settings.public_url),
        courier=Courier(frozenset(settings.webhook_hosts), monotonic),
        started_at=monotonic(),
        stopping=asyncio.Event(),
    )


@asynccontextmanager
async def opened(held: Runtime) -> AsyncIterator[Runtime]:
    """Open the database for this process: schema, durability, keys; close it at the end."""
    try:
        await require_current(held.database)
        if held.settings.is_production:
            await held.database.check_durable()
        async with held.database.write() as tx:
            await held.vault.load(tx, at=held.now())
            await keys.ensure(tx, held.vault, at=held.now())
        async with held.database.read() as tx:
            await held.keys.load(tx)
            await held.calendar.load(tx)
        yield held
    finally:
        await held.database.dispose()


def _lifespan(
    settings: Settings, now: Now, monotonic: Monotonic, run_jobs: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        held = build_runtime(settings, now=now, monotonic=monotonic)
        log_versions(held.database)
        with _one_writer(held):
            async with opened(held):
                if held.database.is_embedded:
                    async with held.database.write() as tx:
                        await commands.expire(
                            tx, clock=held.deadlines, at=held.now(), everything=True
                        )
                app.state.runtime = held
                background = [asyncio.create_task(held.wakeups.run())]
                if run_jobs:
                    background.append(asyncio.create_task(jobs.run_all(held)))
                    _keep_what_is_there()
                try:
                    with _told_of_signals(held):
                        yield
                finally:
                    await _ended(background)
                    await held.controllers.write_heard(at=held.now())

    return lifespan


def _keep_what_is_there() -> None:
    """Spare the collector what lives as long as the process, and look through the rest less often.

    With thousands of waiting polls a full collection stops every door for half a second; nearly
    all that a request leaves behind is freed without one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def _one_writer(held: Runtime) -> AbstractContextManager[object]:
    """Hold the data folder's lock where the database is embedded."""
    if held.database.is_embedded:
        return WriterLock(held.settings.data_dir)
    return nullcontext()


@contextmanager
def _told_of_signals(held: Runtime) -> Iterator[None]:
    """End the waiting requests when the process is asked to stop, so that a stop is quick.

    The server's own handlers stand already; ours comes before them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop() -> None:
        held.stopping.set()
        held.wakeups.ring_all()

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        then = before[signal.Signals(number)]
        if callable(then):
            then(number, frame)

    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


SERVER_OPTIONS: dict[str, Any] = {
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "timeout_graceful_shutdown": 5,
    "timeout_keep_alive": 75,
    "log_config": None,
}
"""How uvicorn serves us: addresses in an access log would hold codes and queries."""


async def serve_until_stopped(
    settings: Settings, host: str, port: int, stopped: asyncio.Event
) -> None:
    """Serve in this process until a signal comes; sets `stopped` then."""
    config = uvicorn.Config(create_app(settings), host=host, port=port, **SERVER_OPTIONS)
    try:
        await uvicorn.Server(config).serve()
    finally:
        stopped.set()


def from_environment() -> FastAPI:
    """Build the service from the environment's settings, for uvicorn."""
    return create_app(Settings())
