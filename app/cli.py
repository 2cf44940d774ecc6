"""The command line: parse, open a transaction, call the operation.

Exit codes: 0 done; 1 refused, with the reason in one line; 2 unusable arguments; 75 another process
writes to the data folder; 78 unusable settings (sysexits.h: EX_TEMPFAIL, EX_CONFIG).
"""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app import jobs
from app.agent import AgentError
from app.agent.contact import Contact, GpioContact, SimulatedDoor
from app.agent.fleet.faults import Level
from app.agent.fleet.files import raise_file_limit
from app.agent.fleet.posts import AdminLogin
from app.agent.fleet.run import Outcome, Plan, fast_loop, quiet, run_fleet, summary
from app.agent.loop import run_agent
from app.agent.modes import GpioLock, Lock, SimulatedLock
from app.agent.pace import Pace
from app.agent.reader import LineReader
from app.agent.relay import GpioRelay, Relay, SimulatedRelay
from app.agent.screen import Screen
from app.audit import COMMAND_LINE
from app.clock import monotonic, utc_now
from app.conformance import bench
from app.db import schema
from app.db.engine import Database
from app.db.lock import DataDirLocked, WriterLock
from app.demo import show
from app.doors import keys, registry
from app.doors.tokens import TokenKind
from app.errors import Problem
from app.generate import plan as generation
from app.generate.history import generate as generate_history
from app.main import SERVER_OPTIONS, build_runtime, opened
from app.people import admins
from app.people.rules import Role
from app.places import calendar as calendar_days
from app.places import districts, transfer, units
from app.places.tables import Station, Unit
from app.reports.drawing import draw, plain
from app.reports.sheet import Terms, gather, month_of
from app.runtime import Runtime
from app.settings import Settings
from app.vault import WrongKek

EX_TEMPFAIL = 75
EX_CONFIG = 78

SHEETS_AT_ONCE = 20
"""Sheets that share a typeface; so many are drawn between two moves of the bar."""

T = TypeVar("T")

app = typer.Typer(
    name="yizhan",
    help="工会驿站 Smart rest stations: scan to open, visits, occupancy, reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
admin_app = typer.Typer(help="Administrators' accounts.", no_args_is_help=True)
key_app = typer.Typer(help="Signing keys.", no_args_is_help=True)
import_app = typer.Typer(help="Bring files in.", no_args_is_help=True)
export_app = typer.Typer(help="Write files out.", no_args_is_help=True)
job_app = typer.Typer(help="Periodic work.", no_args_is_help=True)
for name, group in (
    ("admin", admin_app),
    ("key", key_app),
    ("import", import_app),
    ("export", export_app),
    ("job", job_app),
):
    app.add_typer(group, name=name)

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""A refusal may hold any text, brackets too, and a command to be copied: it is printed as it is."""


@contextmanager
def _plain_refusals() -> Iterator[None]:
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


def _log_plainly(level: int = logging.INFO) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It would log every request of the agents, with the address in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)


@asynccontextmanager
async def _runtime(*, writes: bool = True) -> AsyncIterator[Runtime]:
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


def _run(act: Callable[[Runtime], Awaitable[T]], *, writes: bool = True) -> T:
    async def whole() -> T:
        async with _runtime(writes=writes) as held:
            return await act(held)

    with _plain_refusals():
        return asyncio.run(whole())


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; SQLite has one.")] = 1,
) -> None:
    """Serve the API."""
    _log_plainly()
    with _plain_refusals():
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


@app.command()
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

    with _plain_refusals():
        asyncio.run(whole())
    out.print("the database has the newest schema")


def _folder_of(database: Database) -> Path:
    return Path(database.url.database or ".").parent


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    stations: Annotated[int, typer.Option(min=1, max=12, help="Sample stations.")] = 12,
    agents: Annotated[int, typer.Option(min=1, max=12, help="Simulated controllers.")] = 6,
    lan: Annotated[bool, typer.Option("--lan", help="Let phones in this network in.")] = False,
) -> None:
    """Run a living sample city: server, simulated controllers and workers."""
    _log_plainly(logging.WARNING)
    with _plain_refusals():
        plan = show.Plan(port=port, stations=stations, agents=agents, lan=lan)
        show.run(plan)


@app.command()
def generate(
    stations: Annotated[int, typer.Option(min=1, max=30_000, help="How many stations.")] = 5523,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days of history.")] = 365,
    visits_per_station_day: Annotated[
        float, typer.Option(min=0.01, max=1000, help="On average.")
    ] = 12.4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same history.")] = 1,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day without history; today if not said."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many people; else as the visits suggest.")
    ] = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Let old visits name workers, past retention.")
    ] = False,
) -> None:
    """Fill an empty database with months of a believable city's history."""

    async def act(held: Runtime) -> generation.Made:
        plan = generation.Plan(
            stations=stations,
            days=days,
            until=until.date() if until else _today(held),
            visits_per_station_day=visits_per_station_day,
            seed=seed,
            workers=workers,
            retention_days=None if keep_names else held.settings.retention_days,
        )
        with Progress(console=err) as progress:
            bars = {phase: progress.add_task(phase.value, total=None) for phase in generation.Phase}

            def show_progress(phase: generation.Phase, done: int, total: int) -> None:
                progress.update(bars[phase], completed=done, total=total)

            return await generate_history(held.database, plan, show_progress)

    made = _run(act)
    out.print(
        f"made {made.visits:,} visits and {made.scans:,} scans ({made.refused:,} refused), "
        f"{made.commands:,} commands, {made.uses:,} uses and {made.head_counts:,} head counts "
        f"at {made.stations:,} stations by {made.workers:,} workers",
        soft_wrap=True,
    )
    parts = ", ".join(f"{phase.value} {seconds:.1f}" for phase, seconds in made.seconds.items())
    out.print(
        f"in {made.total_seconds:.1f} s ({parts}): {made.visits_per_second:,.0f} visits a second",
        soft_wrap=True,
    )
    out.print(
        "next: yizhan admin create --username NAME --role city_admin, then yizhan serve",
        soft_wrap=True,
    )


def _today(held: Runtime) -> date:
    return held.now().astimezone(ZoneInfo(districts.ZONE)).date()


@app.command()
def conformance(
    listen: Annotated[
        bool, typer.Option("--listen", help="Play a server and wait for a device.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: a free one.")] = 8600,
    lan: Annotated[bool, typer.Option("--lan", help="Let devices in this network in.")] = False,
    scene: Annotated[
        list[str] | None, typer.Option(help="Only this scene, after the enrolment; repeatable.")
    ] = None,
    wire: Annotated[
        Path | None, typer.Option(help="File that gets a line at each pulse of the relay.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A report as JSON, at the end.")] = False,
) -> None:
    """Judge a real controller: stall, repeat, drop, and say what it did wrong."""
    if not listen:
        err.print("refused: say --listen; the device comes to us")
        raise typer.Exit(2)
    _log_plainly(logging.ERROR)
    say = err if as_json else out
    plan = bench.Plan(port=port, lan=lan, scenes=scene or [], wire=wire)
    with _plain_refusals():
        verdicts = asyncio.run(
            bench.run(
                plan,
                lambda line: say.print(line, markup=False, soft_wrap=True),
                monotonic=monotonic,
                now=utc_now,
            )
        )
    report = bench.report_of(verdicts)
    say.print(bench.BLIND, soft_wrap=True)
    say.print("{passed} passed, {failed} failed, {not_seen} not seen".format_map(report))
    if as_json:
        out.print(bench.printed(report), markup=False, soft_wrap=True)
    if report["failed"]:
        raise typer.Exit(1)


def _address(url: str) -> str:
    """Take the address of a server; else whoever mistyped it would wait for an answer for ever."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter("write it with http:// or https://")
    return url


ServerOption = Annotated[str, typer.Option(help="Address of the server.", callback=_address)]


@app.command()
def agent(
    server: ServerOption,
    code: Annotated[str | None, typer.Option(help="One-time enrolment code.")] = None,
    relay: Annotated[str, typer.Option(help="simulated, or gpio.")] = "simulated",
    state_dir: Annotated[Path, typer.Option(help="What must survive a restart.")] = Path(
        "agent-state"
    ),
    serial: Annotated[str, typer.Option(help="Serial number of this box.")] = "yizhan-agent",
    pin: Annotated[
        list[str] | None,
        typer.Option(help="GPIO pin of the relay (BCM), else 17; DOOR=PIN for each of several."),
    ] = None,
    contact: Annotated[
        list[str] | None, typer.Option(help="GPIO pin of a door's contact, as DOOR=PIN.")
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(help="Device or named pipe of a door's code reader, as DOOR=PATH."),
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(help="GPIO pin that is on while a door is free, as DOOR=PIN."),
    ] = None,
    screen: Annotated[
        int | None, typer.Option(help="Port of this box for the page of the doors' screens.")
    ] = None,
    rtc: Annotated[
        bool, typer.Option("--rtc", help="This box has a clock that runs on while it is off.")
    ] = False,
) -> None:
    """Be a station's controller: poll, claim, pulse, acknowledge, keep a journal."""
    _log_plainly()

    async def whole() -> None:
        opener, sensor = _hardware(relay, state_dir, pin or ["17"], contact or [])
        paths = {door: Path(path) for door, path in _pairs(reader, "reader", "DOOR=PATH")}
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await run_agent(
            server_url=server,
            state_dir=state_dir,
            code=code,
            relay=opener,
            contact=sensor,
            reader=LineReader(paths, Pace()) if paths else None,
            lock=_lock(relay, state_dir, hold or []),
            screen=Screen(screen) if screen is not None else None,
            has_rtc=rtc,
            serial=serial,
            firmware="yizhan-agent",
            stop=stop,
        )

    with _plain_refusals():
        asyncio.run(whole())


@app.command()
def fleet(
    server: ServerOption,
    agents: Annotated[int, typer.Option(min=1, max=50_000, help="How many controllers.")] = 100,
    state_dir: Annotated[Path, typer.Option(help="Credentials and the relay log.")] = Path(
        "fleet-state"
    ),
    admin: Annotated[
        str | None, typer.Option(help="Administrator who enrols those that are missing.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    totp: Annotated[str | None, typer.Option(help="The administrator's second factor.")] = None,
    faults: Annotated[Level, typer.Option(help="How bad the world is.")] = Level.NONE,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 1,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, help="Stop after so many seconds.")
    ] = None,
) -> None:
    """Be thousands of controllers in one process; exit code 1 if a law was broken."""
    quiet()
    login = None
    if admin is not None:
        login = AdminLogin(admin, _password(password_stdin, confirm=False), totp)
    plan = Plan(server, agents, state_dir, login, faults, seed, seconds)

    async def whole() -> Outcome:
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        return await run_fleet(plan, stop=stop, out=out)

    with _plain_refusals(), asyncio.Runner(loop_factory=fast_loop()) as runner:
        outcome = runner.run(whole())
        summary(outcome, out)
        if not outcome.is_lawful:
            raise typer.Exit(1)


def _password(from_stdin: bool, *, confirm: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm))


def _hardware(
    name: str, state_dir: Path, relays: list[str], contacts: list[str]
) -> tuple[Relay, Contact | None]:
    """Give what opens the door, and what tells whether it stands open."""
    if name == "simulated":
        state_dir.mkdir(parents=True, exist_ok=True)
        door = SimulatedDoor(SimulatedRelay(state_dir / "relay.jsonl"), Pace())
        return door, door
    if name == "gpio":
        pins = _pins(contacts, "contact")
        only = relays[0] if len(relays) == 1 else ""
        opener = GpioRelay(int(only) if only.isdigit() else _pins(relays, "pin"))
        return opener, GpioContact(pins) if pins else None
    err.print(f"refused: no relay is called {name}; there are simulated, gpio")
    raise typer.Exit(2)


def _lock(name: str, state_dir: Path, holds: list[str]) -> Lock | None:
    """Give what stands open while the doors are free, if there is such a thing."""
    if name == "simulated":
        return SimulatedLock(state_dir / "lock.jsonl")
    pins = _pins(holds, "hold")
    return GpioLock(pins) if pins else None


def _pins(texts: list[str], what: str) -> dict[str, int]:
    pairs = _pairs(texts, what, "DOOR=PIN")
    for door, number in pairs:
        if not number.isdigit():
            err.print(f"refused: {door}={number} is no {what}; write DOOR=PIN")
            raise typer.Exit(2)
    return {door: int(number) for door, number in pairs}


def _pairs(texts: list[str] | None, what: str, shape: str) -> list[tuple[str, str]]:
    """Read options of the shape DOOR=something."""
    found = []
    for text in texts or []:
        door, _, value = text.partition("=")
        if not door or not value:
            err.print(f"refused: {text!r} is no {what}; write {shape}")
            raise typer.Exit(2)
        found.append((door, value))
    return found


@admin_app.command("create")
def create_admin(
    username: Annotated[str, typer.Option(help="Name to sign in with.")],
    role: Annotated[Role, typer.Option(help="What the account may do.")],
    unit: Annotated[str | None, typer.Option(help="Name or path of the branch.")] = None,
    totp: Annotated[bool, typer.Option("--totp", help="With a second factor.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Create an administrator."""
    password = _password(password_stdin, confirm=True)

    async def act(held: Runtime) -> str | None:
        password_hash = await admins.hash_password(password)
        async with held.database.write() as tx:
            unit_id = await _unit_id(tx, unit)
            created = await admins.create(
                tx,
                admins.NewAdmin(
                    username=username, password_hash=password_hash, role=role, unit_id=unit_id
                ),
                vault=held.vault,
                actor=COMMAND_LINE,
                at=held.now(),
                with_totp=totp or (held.settings.is_production and role in admins.NEEDS_TOTP),
            )
            return created.totp_uri

    uri = _run(act)
    out.print(f"created {role.value} {username}")
    if uri:
        out.print(f"second factor: {uri}", soft_wrap=True)


async def _unit_id(tx: Any, unit: str | None) -> Any:
    if unit is None:
        return None
    found = (
        await tx.scalars(
            sa.select(Unit.id).where(
                sa.or_(Unit.name == unit, Unit.path == unit), Unit.retired_at.is_(None)
            )
        )
    ).all()
    if len(found) != 1:
        raise OSError(f"{len(found)} units are called {unit}; name one by its path, such as 1.7")
    return found[0]


@key_app.command("list")
def list_keys() -> None:
    """List the signing keys."""

    async def act(held: Runtime) -> Any:
        async with held.database.read() as tx:
            return await keys.list_keys(tx)

    table = Table("kid", "kind", "state", "created", "changed")
    for key in _run(act, writes=False):
        table.add_row(
            key.kid,
            key.kind.value,
            key.state.value,
            key.created_at.isoformat(timespec="seconds"),
            key.changed_at.isoformat(timespec="seconds"),
        )
    out.print(table)


@key_app.command("rotate")
def rotate_key(
    kind: Annotated[TokenKind, typer.Option(help="Which kind of token.")],
    emergency: Annotated[
        bool, typer.Option("--emergency", help="The key leaked: no wait, the old one dies.")
    ] = False,
) -> None:
    """Publish a new key, or let a published one sign."""

    async def act(held: Runtime) -> tuple[str, str]:
        async with held.database.write() as tx:
            key = await keys.rotate(
                tx,
                held.vault,
                held.wakeups,
                kind,
                actor=COMMAND_LINE,
                at=held.now(),
                emergency=emergency,
            )
            await tx.refresh(key)
            return key.kid, key.state.value

    kid, state = _run(act)
    out.print(f"key {kid} of kind {kind.value} is {state}")


@key_app.command("retire")
def retire_key(
    kid: Annotated[str, typer.Argument(help="The key, as `key list` names it.")],
    emergency: Annotated[bool, typer.Option("--emergency", help="It leaked: at once.")] = False,
) -> None:
    """Destroy a key that no good token can carry any more."""

    async def act(held: Runtime) -> None:
        async with held.database.write() as tx:
            await keys.retire(
                tx,
                held.wakeups,
                kid,
                actor=COMMAND_LINE,
                at=held.now(),
                emergency=emergency,
            )

    _run(act)
    out.print(f"key {kid} is retired")


@import_app.command("stations")
def import_stations(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, change nothing.")] = False,
) -> None:
    """Import stations from a CSV file; any bad row imports nothing."""

    async def act(held: Runtime) -> Any:
        async with held.database.write() as tx:
            done = await transfer.import_stations(
                tx,
                held.wakeups,
                file.read_bytes(),
                within=None,
                dry_run=dry_run,
                actor=COMMAND_LINE,
                at=held.now(),
            )
            await registry.furnish(tx, done.new, at=held.now())
            return done

    out.print(_run(act).summary())


@import_app.command("calendar")
def import_calendar(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")],
) -> None:
    """Import holidays and make-up working days; the years in the file are replaced."""

    async def act(held: Runtime) -> Any:
        async with held.database.write() as tx:
            return await calendar_days.import_days(
                tx, held.wakeups, file.read_bytes(), actor=COMMAND_LINE, at=held.now()
            )

    out.print(f"imported {_run(act)} days")


@import_app.command("districts")
def import_districts(
    file: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="CSV file; without one, Chongqing's."),
    ] = None,
) -> None:
    """Import districts, with their validity and successors; those that stand are updated."""
    content = file.read_bytes() if file else districts.shipped()

    async def act(held: Runtime) -> int:
        async with held.database.write() as tx:
            return await districts.load(tx, content)

    out.print(f"imported {_run(act)} districts")


@export_app.command("stations")
def export_stations(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the CSV.")],
) -> None:
    """Write every station to a CSV file that can be imported again."""

    async def act(held: Runtime) -> bytes:
        async with held.database.read() as tx:
            return await transfer.export_stations(tx, await registry.describe_doors(tx))

    content = _run(act, writes=False)
    file.write_bytes(content)
    out.print(f"wrote {file}")


@export_app.command("sheets")
def export_sheets(
    month: Annotated[str, typer.Option(help="Such as 2026-10.")],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to write the PDFs.")],
    unit: Annotated[str | None, typer.Option(help="Name or path of a branch; else all.")] = None,
) -> None:
    """Write the monthly sheet of every station in use, one PDF page each."""
    folder.mkdir(parents=True, exist_ok=True)

    async def act(held: Runtime) -> int:
        period = month_of(month)
        retention = timedelta(days=held.settings.retention_days)
        days = await held.calendar.fresh(held.database)
        async with held.database.read() as tx:
            query = sa.select(Station).where(Station.retired_at.is_(None)).order_by(Station.code)
            if unit is not None:
                branch = await tx.get_one(Unit, await _unit_id(tx, unit))
                below = sa.select(Unit.id).where(units.under(branch.path))
                query = query.where(Station.unit_id.in_(below))
            found = (await tx.scalars(query)).all()
        with Progress(console=err) as progress:
            bar = progress.add_task("sheets", total=len(found))
            for start in range(0, len(found), SHEETS_AT_ONCE):
                sheets = []
                for station in found[start : start + SHEETS_AT_ONCE]:
                    local = held.now().astimezone(ZoneInfo(station.timezone))
                    async with held.database.read() as tx:
                        terms = Terms(local, days.current, retention)
                        sheets.append(await gather(tx, station, period, terms))
                pages = await asyncio.to_thread(draw, [plain(sheet) for sheet in sheets])
                for sheet, pdf in zip(sheets, pages, strict=True):
                    (folder / f"{sheet.code}-{month}.pdf").write_bytes(pdf)
                progress.advance(bar, len(sheets))
        return len(found)

    number = _run(act, writes=False)
    out.print(f"wrote {number} sheets to {folder}")


@job_app.command("run")
def run_job(
    name: Annotated[str, typer.Argument(help=", ".join(job.name for job in jobs.JOBS))],
) -> None:
    """Run a job once, now."""
    job = jobs.find(name)
    if job is None:
        err.print(
            f"refused: no job is called {name}; there are "
            + ", ".join(job.name for job in jobs.JOBS)
        )
        raise typer.Exit(2)

    async def act(held: Runtime) -> None:
        await jobs.run_once(held, job)

    _run(act)
    out.print(f"{name}: done")
