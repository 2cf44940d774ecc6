"""Serving: the API, the schema it needs, a sample city."""

import asyncio
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from app.agent.fleet.files import raise_file_limit
from app.cli.shell import err, log_plainly, out, plain_refusals
from app.clock import monotonic, utc_now
from app.db import schema
from app.db.engine import Database
from app.db.lock import WriterLock
from app.demo import show
from app.main import SERVER_OPTIONS, build_runtime
from app.settings import Settings


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; SQLite has one.")] = 1,
) -> None:
    """Serve the API."""
    log_plainly()
    with plain_refusals():
        settings = Settings()
        asyncio.run(_check_startable(settings))
        if workers > 1 and not settings.database_url.startswith("postgresql"):
            err.print("refused: on SQLite exactly one process serves; use --workers 1")
            raise typer.Exit(2)
    # Every waiting controller is an open file; systems begin with 1,024.
    limit = raise_file_limit()
    if limit < settings.limit_polls:
        logging.getLogger(__name__).warning(
            "open files limit=%d below LIMIT_POLLS=%d", limit, settings.limit_polls
        )
    uvicorn.run(
        "app.main:from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        **SERVER_OPTIONS,
    )


async def _check_startable(settings: Settings) -> None:
    held = build_runtime(settings, now=utc_now, monotonic=monotonic)
    try:
        with WriterLock(settings.data_dir) if held.database.is_embedded else nullcontext():
            await schema.require_current(held.database)
    finally:
        await held.database.dispose()


def migrate() -> None:
    """Bring the database to the newest schema."""

    async def whole() -> None:
        settings = Settings()
        database = Database(settings.effective_database_url)
        if database.is_embedded:
            Path(database.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        try:
            with WriterLock(_folder_of(database)) if database.is_embedded else nullcontext():
                await schema.migrate(database)
        finally:
            await database.dispose()

    with plain_refusals():
        asyncio.run(whole())
    out.print("the database has the newest schema")


def _folder_of(database: Database) -> Path:
    return Path(database.url.database or ".").parent


def demo(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    stations: Annotated[int, typer.Option(min=1, max=12, help="Sample stations.")] = 12,
    agents: Annotated[int, typer.Option(min=1, max=12, help="Simulated controllers.")] = 6,
    lan: Annotated[bool, typer.Option("--lan", help="Let phones in this network in.")] = False,
) -> None:
    """Run a living sample city: server, simulated controllers and workers."""
    log_plainly(logging.WARNING)
    with plain_refusals():
        plan = show.Plan(port=port, stations=stations, agents=agents, lan=lan)
        show.run(plan)
