"""What stands at doors: a controller, thousands of them, and the judge of a real one."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from app.agent.contact import Contact, ExitContact, GpioContact, GpioExitContact, SimulatedDoor
from app.agent.fleet.faults import Level
from app.agent.fleet.posts import AdminLogin
from app.agent.fleet.run import Outcome, Plan, fast_loop, quiet, run_fleet, summary
from app.agent.loop import run_agent
from app.agent.modes import GpioLock, Lock, SimulatedLock
from app.agent.pace import Pace
from app.agent.reader import LineReader
from app.agent.relay import GpioRelay, Relay, SimulatedRelay
from app.agent.screen import Screen
from app.cli.shell import err, log_plainly, out, password_from, plain_refusals
from app.clock import monotonic, utc_now
from app.conformance import bench


def _address(url: str) -> str:
    """Take the address of a server; else whoever mistyped it would wait for an answer for ever."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter("write it with http:// or https://")
    return url


ServerOption = Annotated[str, typer.Option(help="Address of the server.", callback=_address)]


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
    log_plainly(logging.ERROR)
    say = err if as_json else out
    plan = bench.Plan(port=port, lan=lan, scenes=scene or [], wire=wire)
    with plain_refusals():
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
    exits: Annotated[
        list[str] | None,
        typer.Option("--exit", help="GPIO pin that tells of somebody leaving, as DOOR=PIN."),
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
    log_plainly()

    async def whole() -> None:
        opener, sensor = hardware(relay, state_dir, pin or ["17"], contact or [])
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
            exits=_exits(exits or []),
            reader=LineReader(paths, Pace()) if paths else None,
            lock=_lock(relay, state_dir, hold or []),
            screen=Screen(screen) if screen is not None else None,
            has_rtc=rtc,
            serial=serial,
            firmware="yizhan-agent",
            stop=stop,
        )

    with plain_refusals():
        asyncio.run(whole())


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
        login = AdminLogin(admin, password_from(password_stdin, confirm=False), totp)
    plan = Plan(server, agents, state_dir, login, faults, seed, seconds)

    async def whole() -> Outcome:
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        return await run_fleet(plan, stop=stop, out=out)

    with plain_refusals(), asyncio.Runner(loop_factory=fast_loop()) as runner:
        outcome = runner.run(whole())
        summary(outcome, out)
        if not outcome.is_lawful:
            raise typer.Exit(1)


def hardware(
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


def _exits(exits: list[str]) -> ExitContact | None:
    """Give what tells that somebody leaves, if there is such a thing."""
    pins = _pins(exits, "exit")
    return GpioExitContact(pins) if pins else None


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
