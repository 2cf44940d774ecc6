"""The demonstration: one command that makes, serves and peoples the sample city."""

import asyncio
import json
import logging
import os
import random
import secrets
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import sqlalchemy as sa

from app.agent.contact import SimulatedDoor
from app.agent.loop import run_agent
from app.agent.pace import Pace
from app.agent.relay import Pulse, SimulatedRelay
from app.agent.screen import Screen
from app.audit import COMMAND_LINE
from app.clock import monotonic, utc_now
from app.conformance.bench import lan_address
from app.db import schema
from app.db.lock import WriterLock
from app.demo import city
from app.demo.crowd import Crowd, is_simulated, messages_in
from app.doors import controllers, qr, registry
from app.doors.tables import Door
from app.doors.tokens import TokenKind
from app.main import build_runtime, opened, serve_until_stopped
from app.people import admins, phones
from app.people.rules import Role
from app.people.tables import Admin
from app.places.tables import Station
from app.runtime import Runtime
from app.settings import Settings

ADMIN = "admin"


class PortTaken(OSError):
    """Something listens on this port already."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to show."""

    port: int
    stations: int
    agents: int
    lan: bool


@dataclass(frozen=True, slots=True)
class _Post:
    """A simulated controller's place."""

    station: Station
    doors: Mapping[str, str]
    """Door ids and their names, for what is printed."""
    code: str | None
    """Its enrolment code, the first time."""
    screen: int | None
    """Port of the page that shows its doors' codes; None without a screen."""


def say(text: str = "") -> None:
    """Print a line at once, whole, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class PrintingRelay:
    """A simulated relay whose pulses are seen in the terminal."""

    def __init__(self, log: Path, station: str, doors: Mapping[str, str]) -> None:
        self._relay = SimulatedRelay(log)
        self._station = station
        self._doors = doors

    def pulse(self, pulse: Pulse) -> None:
        """Pulse, and say so."""
        self._relay.pulse(pulse)
        say(f"relay pulse  {self._station} {self._doors.get(str(pulse.door), '')}: 门开了 open")

    def close(self) -> None:
        """See `app.agent.relay.Relay`."""
        self._relay.close()


def run(plan: Plan) -> None:
    """Show the city until Ctrl-C; raises PortTaken, DataDirLocked."""
    host = "0.0.0.0" if plan.lan else "127.0.0.1"
    _require_free(host, plan.port)
    address = lan_address() if plan.lan else "127.0.0.1"
    settings = Settings(public_url=f"http://{address}:{plan.port}")
    # At a stop the doors lose their server first; that is nothing to tell anybody.
    logging.getLogger("app.agent").setLevel(logging.ERROR)
    with suppress(KeyboardInterrupt):  # The server raises it again once it has stopped.
        asyncio.run(_run(plan, settings, host))


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"port {port} is taken; choose another: make run PORT=8123") from error


def _free_after(port: int) -> int | None:
    """Find a free port on this machine for the page of a screen; None: it does without."""
    for candidate in range(port + 1, min(port + 20, 65_536)):
        with suppress(PortTaken):
            _require_free("127.0.0.1", candidate)
            return candidate
    return None


async def _run(plan: Plan, settings: Settings, host: str) -> None:
    posts, login, page = await _prepare(plan, settings)
    loopback = f"http://127.0.0.1:{plan.port}"
    async with AsyncExitStack() as stack:
        stop = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits))
        server = asyncio.create_task(serve_until_stopped(settings, host, plan.port, stop))
        if not await _is_up(loopback, http, server):
            await server
            return
        tasks = [_agent(post, settings, loopback, http, stop) for post in posts]
        crowd = Crowd(loopback, http, settings, random.Random())
        tasks += [crowd.live(await crowd.doors_of([post.station for post in posts]))]
        tasks += [_print_messages(settings.data_dir / "outbox.jsonl")]
        running = [asyncio.create_task(task) for task in tasks]
        _welcome(page, login, plan, posts)
        try:
            await server
        finally:
            stop.set()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            say("stopped")


async def _prepare(plan: Plan, settings: Settings) -> tuple[list[_Post], str, str]:
    """Migrate, fill, and make what the show needs; gives posts, login and the page's address."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    held = build_runtime(settings, now=utc_now, monotonic=monotonic)
    with WriterLock(settings.data_dir):
        await schema.migrate(held.database)
        async with opened(held):
            await city.fill(held, count=plan.stations)
            login = await _admin(held)
            async with held.database.read() as tx:
                doors = await city.doors_with_access(tx)
            posts = [
                await _post(held, station, doors, plan)
                for station in _first_stations(doors, plan.agents)
            ]
            key = held.keys.signing(TokenKind.POSTER)
            token = registry.poster_token(key, doors[0][1])
            return posts, login, qr.door_url(settings.public_url, token)


def _first_stations(doors: Sequence[tuple[Station, Door]], count: int) -> Sequence[Station]:
    found = {station.id: station for station, _ in doors}
    return list(found.values())[:count]


async def _post(
    held: Runtime, station: Station, doors: Sequence[tuple[Station, Door]], plan: Plan
) -> _Post:
    own = [door for place, door in doors if place.id == station.id]
    named = {str(door.id): door.name for door in own}
    screen = _free_after(plan.port) if any(door.has_display for door in own) else None
    folder = held.settings.data_dir / "agents" / station.code
    if (folder / "identity.json").exists():
        return _Post(station, named, None, screen)
    async with held.database.write() as tx:
        place = await tx.get_one(Station, station.id)
        issued = await controllers.issue_code(tx, place, actor=COMMAND_LINE, at=held.now())
    return _Post(station, named, issued.code, screen)


async def _admin(held: Runtime) -> str:
    """Make the administrator once; his password is kept where only this user reads it."""
    path = held.settings.data_dir / "demo.json"
    async with held.database.read() as tx:
        known = await tx.scalar(sa.select(Admin.id).where(Admin.username == ADMIN))
    if known is not None and path.exists():
        return str(json.loads(path.read_text())["password"])
    password = secrets.token_urlsafe(12)
    password_hash = await admins.hash_password(password)
    async with held.database.write() as tx:
        if known is None:
            new = admins.NewAdmin(ADMIN, password_hash, Role.CITY_ADMIN)
            await admins.create(tx, new, vault=held.vault, actor=COMMAND_LINE, at=held.now())
        else:
            row = await admins.get_admin(tx, known)
            changes = {"password_hash": password_hash}
            await admins.amend(tx, row, changes=changes, actor=COMMAND_LINE, at=held.now())
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"password": password}, file)
    return password


async def _is_up(address: str, http: httpx.AsyncClient, server: "asyncio.Task[None]") -> bool:
    while not server.done():
        with suppress(httpx.HTTPError):
            if (await http.get(f"{address}/healthz", timeout=1)).is_success:
                return True
        await asyncio.sleep(0.05)
    return False


async def _agent(
    post: _Post, settings: Settings, address: str, http: httpx.AsyncClient, stop: asyncio.Event
) -> None:
    folder = settings.data_dir / "agents" / post.station.code
    folder.mkdir(parents=True, exist_ok=True)
    relay = PrintingRelay(folder / "relay.jsonl", post.station.name, post.doors)
    door = SimulatedDoor(relay, Pace())
    try:
        await run_agent(
            server_url=address,
            state_dir=folder,
            code=post.code,
            relay=door,
            contact=door,
            screen=Screen(post.screen) if post.screen else None,
            serial=f"demo-{uuid.uuid5(uuid.NAMESPACE_URL, post.station.code).hex[:8]}",
            firmware="yizhan-agent",
            stop=stop,
            http=http,
        )
    except Exception as error:
        logging.getLogger(__name__).warning("agent ended station=%s: %s", post.station.code, error)


async def _print_messages(outbox: Path) -> None:
    """Show every SMS to a person as it goes out; those to simulated workers are left out."""
    shown = len(await asyncio.to_thread(messages_in, outbox))
    while True:
        await asyncio.sleep(0.2)
        for message in (await asyncio.to_thread(messages_in, outbox))[shown:]:
            shown += 1
            if not is_simulated(message["phone"]):
                say(f"SMS to {phones.mask(message['phone'])}: {message['text']}")


def _welcome(page: str, password: str, plan: Plan, posts: Sequence[_Post]) -> None:
    token = page.rpartition("/")[2]
    say()
    say("工会驿站 is running. Scan this door with a phone, or open its address:")
    say()
    say(qr.terminal(page))
    say(f"phone page  {page}")
    say(f"reports     {page.removesuffix('/s/' + token)}/admin/reports")
    say(f"api docs    {page.removesuffix('/s/' + token)}/docs")
    say(f"admin login {ADMIN} / {password}")
    for post in posts:
        if post.screen is not None:
            say(f"door screen http://127.0.0.1:{post.screen}/  ({post.station.name})")
    say()
    if not plan.lan:
        say("Only this machine can open it; for a real phone in your network: make run LAN=1")
    say("Codes by SMS and relay pulses appear below. Ctrl-C stops.")
    say()
