"""What every command does alike: speak, refuse with the exit code that fits, open the database."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from app.agent import AgentError
from app.clock import monotonic, utc_now
from app.db import schema
from app.db.lock import DataDirLocked, WriterLock
from app.errors import Problem
from app.main import build_runtime, opened
from app.runtime import Runtime
from app.settings import Settings
from app.vault import WrongKek

EX_TEMPFAIL = 75
EX_CONFIG = 78

T = TypeVar("T")

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""A refusal may hold any text, brackets too, and a command to be copied: it is printed as it is."""


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Say in one line what went wrong, with the exit code that fits."""
    try:
        yield
    except ValidationError as error:
        for item in error.errors():
            where = "_".join(str(part) for part in item["loc"]).upper()
            setting = f"YIZHAN_{where}: " if where else ""
            err.print(f"settings: {setting}{item['msg'].removeprefix('Value error, ')}")
        raise typer.Exit(EX_CONFIG) from None
    except DataDirLocked as error:
        err.print(f"busy: {error}")
        raise typer.Exit(EX_TEMPFAIL) from None
    except WrongKek as error:
        err.print(f"settings: {error}")
        raise typer.Exit(EX_CONFIG) from None
    except (schema.SchemaNotCurrent, schema.NotEmpty) as error:
        err.print(f"refused: {error}")
        raise typer.Exit(1) from None
    except Problem as problem:
        err.print(f"refused: {problem.detail}")
        for item in problem.extensions.get("errors", ()):
            err.print(f"  {'.'.join(map(str, item['loc']))}: {item['message']}")
        raise typer.Exit(1) from None
    except (OSError, AgentError) as error:
        err.print(f"refused: {error}")
        raise typer.Exit(1) from None


def log_plainly(level: int = logging.INFO) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It would log every request of the agents, with the address in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)


@asynccontextmanager
async def runtime(*, writes: bool = True) -> AsyncIterator[Runtime]:
    """Open the database as a server would; beside a running one on SQLite only to read."""
    settings = Settings()
    held = build_runtime(settings, now=utc_now, monotonic=monotonic)
    locks = writes and held.database.is_embedded
    with WriterLock(settings.data_dir) if locks else nullcontext():
        if writes:
            async with opened(held):
                yield held
            return
        try:
            await schema.require_current(held.database)
            yield held
        finally:
            await held.database.dispose()


def run(act: Callable[[Runtime], Awaitable[T]], *, writes: bool = True) -> T:
    async def whole() -> T:
        async with runtime(writes=writes) as held:
            return await act(held)

    with plain_refusals():
        return asyncio.run(whole())


def password_from(stdin: bool, *, confirm: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm))
