"""The story of a bad night: fifty controllers on bad links, workers at the doors, nothing wrong."""

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from rich.console import Console

from app.agent.fleet.faults import Level
from app.agent.fleet.posts import AdminLogin
from app.agent.fleet.run import Outcome, Plan, run_fleet
from app.audit import COMMAND_LINE
from app.db.engine import Database
from app.doors.registry import NewDoor, add_doors, poster_token
from app.doors.rules import CommandState
from app.doors.tables import Command, Controller, JournalCursor, JournalEntry, QuarantinedEvent
from app.doors.tokens import TokenKind
from app.people import admins
from app.people.rules import Role
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import make_settings
from tests.support.server import free_port, prepared, serving
from tests.support.worlds import a_station, a_unit, a_worker

AGENTS = 50
SECONDS = 8.0
PASSWORD = "a long and good password"


@dataclass(frozen=True, slots=True)
class City:
    """Posters and workers."""

    posters: Sequence[str]
    workers: Sequence[dict[str, str]]


async def a_city(held: Runtime) -> City:
    at = held.now()
    password_hash = await admins.hash_password(PASSWORD)
    async with held.database.write() as tx:
        unit = await a_unit(tx, at=at)
        posters = []
        for number in range(AGENTS):
            place = {"code": f"F{number:04d}", "latitude": 29.55 + number * 1e-5}
            station = await a_station(tx, unit=unit, at=at, staffed_hours=None, **place)
            contact = NewDoor("正门", has_contact=number % 2 == 0)
            (door,) = await add_doors(tx, station.id, [contact], at=at)
            posters.append(poster_token(held.keys.signing(TokenKind.POSTER), door))
        await a_station(tx, unit=unit, at=at, code="F9999", access_hours=None)
        workers = [(await a_worker(tx, held, at=at)).headers for _ in range(120)]
        chief = admins.NewAdmin("chief", password_hash, Role.CITY_ADMIN)
        await admins.create(tx, chief, vault=held.vault, actor=COMMAND_LINE, at=at)
    return City(posters, workers)


async def crowd(url: str, city: City) -> int:
    """Let each worker scan once at some door; gives how many scans were granted."""
    dice, granted = random.Random(5), 0
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for worker in city.workers:
            answer = await http.post(
                "/v1/scans",
                json={"token": dice.choice(city.posters)},
                headers={**worker, "Idempotency-Key": secrets.token_hex(8)},
            )
            assert answer.status_code in (200, 201), answer.text
            granted += answer.json()["outcome"] == "granted"
            await asyncio.sleep(SECONDS / len(city.workers))
    return granted


async def a_night(url: str, folder: Path, city: City) -> tuple[Outcome, int]:
    stop = asyncio.Event()
    login = AdminLogin("chief", PASSWORD)
    # Enrolled first, and started again: the second start needs no administrator.
    first = Plan(url, AGENTS, folder, login, seconds=0.5)
    quiet = Console(quiet=True)
    await run_fleet(first, stop=stop, out=quiet)

    async def scans() -> int:
        try:
            return await crowd(url, city)
        finally:
            # The night is over when everybody was at a door, however slow the machine.
            stop.set()

    scanning = asyncio.create_task(scans())
    plan = Plan(url, AGENTS, folder, None, Level.ROUGH, seed=11)
    outcome = await run_fleet(plan, stop=stop, out=quiet)
    return outcome, await scanning


async def rows(database: Database, *columns: Any) -> Sequence[Any]:
    async with database.read() as tx:
        return (await tx.execute(sa.select(*columns))).all()


def test_a_bad_night_of_fifty_controllers(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings: Settings = make_settings(
        tmp_path, database_url, public_url=url, max_wait_s=3, limit_doors_hour=1_000
    )
    city = prepared(settings, a_city)
    folder = tmp_path / "fleet"
    with serving(settings, port):
        outcome, granted = asyncio.run(a_night(url, folder, city))

    async def afterwards() -> tuple[Sequence[Any], ...]:
        database = Database(settings.effective_database_url, pool_size=2)
        try:
            return (
                await rows(database, Command.id, Command.state, Command.expires_at),
                await rows(database, JournalEntry.controller_id, JournalEntry.epoch),
                await rows(
                    database,
                    JournalCursor.controller_id,
                    JournalCursor.epoch,
                    JournalCursor.acked_through,
                    JournalCursor.highest,
                ),
                await rows(database, QuarantinedEvent.reason),
                await rows(database, Controller.id, Controller.frozen_at),
            )
        finally:
            await database.dispose()

    commands, entries, cursors, quarantined, controllers = asyncio.run(afterwards())
    pulses = [json.loads(line) for line in (folder / "relay.jsonl").read_text().splitlines()]
    print(
        f"scans granted {granted}, commands {len(commands)}, pulses {len(pulses)}, "
        f"reboots {outcome.tally.reboots}, faults {dict(outcome.tally.faults)}, "
        f"events {len(entries)}"
    )
    # The night was bad, and yet doors opened.
    assert sum(outcome.tally.faults.values()) > 20
    assert len(pulses) > granted / 3 > 5
    assert outcome.is_lawful
    assert outcome.agents == len(controllers) == AGENTS
    assert not any(one.frozen_at for one in controllers)
    # Every pulse has a command, none has two, none is late.
    known = {str(one.id): one for one in commands}
    assert [
        name for name, times in Counter(p["command"] for p in pulses).items() if times > 1
    ] == []
    for pulse in pulses:
        command = known[pulse["command"]]
        assert datetime.fromisoformat(pulse["at"]) <= command.expires_at
    # What the relays did is what the server holds.
    assert (outcome.unsent_events, outcome.unsent_results) == (0, 0)
    executed = {name for name, one in known.items() if one.state is CommandState.EXECUTED}
    assert executed == {pulse["command"] for pulse in pulses}
    # The journal is whole: two starts of the fleet, two epochs of every controller.
    held = Counter((one.controller_id, one.epoch) for one in entries)
    assert len(cursors) == len(held) == 2 * AGENTS
    for cursor in cursors:
        number = held[cursor.controller_id, cursor.epoch]
        assert cursor.acked_through == cursor.highest == number
    assert quarantined == []
