"""R08: occupancy is entries minus exits of what was recorded, whatever order it arrives in.

Workers go in and out of stations, with and without a contact at the door, and the trial plays their
controllers: it claims at once, but tells of the pulse and of the door late, out of order, in
batches that overlap, several times and at the same time, while the server is killed and started
again. After each round three counts must agree for every station: what the server answers, a
recount of the open visits, and a model that takes the recorded facts in the order of their own
time. Answers between the rounds must lie within what may have happened by then.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from app.doors.rules import CommandState
from app.doors.rules.journal import EventType
from app.doors.tables import Command, JournalEntry, Scan
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.faults.agents import Box, House, Town, a_house, a_town, pause
from tests.faults.history import History, Operation, set_full, within_bounds
from tests.faults.promise import Round, Trial, Verdict

PLAIN, WITH_CONTACT = 3, 2
"""Stations without and with a contact at the door."""
WORKERS = 16

OPENING = timedelta(seconds=15)
"""How long after the pulse an opening belongs to it (law 5)."""

DOOR_OPEN_S = 0.3
CALL_S = 180.0
"""A call is repeated until it is answered, for so long, in seconds."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker said that he leaves a station."""

    worker: uuid.UUID
    station: uuid.UUID
    at: datetime


@dataclass(slots=True)
class Place:
    """A station, its door as it really is, and what its controller has not told yet."""

    box: Box
    has_contact: bool
    way: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Through a door with a contact they go one after another."""
    seq: int = 0
    untold: list[dict[str, Any]] = field(default_factory=list)
    """Events of the journal."""
    unacked: list[str] = field(default_factory=list)
    """Commands that pulsed."""

    @property
    def headers(self) -> dict[str, str]:
        """What the controller sends."""
        return {"Authorization": f"Bearer {self.box.credential}"}

    def moved(self, type: str) -> dict[str, Any]:
        """Write down that the door moved just now."""
        self.seq += 1
        event = {
            "event_id": f"{self.box.door}-{self.seq}",
            "seq": self.seq,
            "type": type,
            "door": str(self.box.door),
            "occurred_at": datetime.now(UTC).isoformat(),
            "mono_ms": time.monotonic_ns() // 1_000_000,
        }
        self.untold.append(event)
        return event


@dataclass(slots=True)
class Wandering:
    """The trial's state: places, what was told, who said that he leaves."""

    house: House[tuple[Town, Town]]
    client: httpx.AsyncClient
    history: History
    places: list[Place]
    leavings: list[Leaving] = field(default_factory=list)
    acked: list[Operation] = field(default_factory=list)
    told: list[Operation] = field(default_factory=list)
    kills: int = 0
    resent: int = 0

    async def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Repeat one request until the server answers it."""
        until = time.monotonic() + CALL_S
        while True:
            try:
                answer = await self.client.request(method, path, **request)
                if answer.status_code < 500:
                    return answer
            except httpx.HTTPError:
                pass
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path} was never answered")
            await asyncio.sleep(0.1)

    async def enter(self, worker: Any, place: Place, dice: random.Random) -> str | None:
        """Scan, claim at once, and go in; gives the scan."""
        async with place.way if place.has_contact else contextlib.nullcontext():
            key = str(uuid.UUID(int=dice.getrandbits(128)))
            scan = await self.call(
                "POST",
                "/v1/scans",
                json={"token": place.box.poster, "party_size": _party(worker)},
                headers={**worker.headers, "Idempotency-Key": key},
            )
            said = scan.json()
            if said.get("outcome") != "granted" or said["state"] != "pending":
                return None
            wanted = sa.select(Command.id).where(Command.scan_id == uuid.UUID(said["id"]))
            ((command,),) = await self.house.rows(wanted)
            claim = await self.call(
                "POST",
                f"/v1/controller/commands/{command}/claim",
                json={"boot_id": "boot", "nonce": str(command)},
                headers=place.headers,
            )
            if claim.status_code != 200:
                return None
            place.unacked.append(str(command))
            if place.has_contact:
                await pause(dice, 0.01, 0.1)
                place.moved("door_opened")
                await asyncio.sleep(DOOR_OPEN_S)
                place.moved("door_closed")
            found: str = said["id"]
            return found

    async def leave(self, worker: Any, scan: str) -> None:
        """Say goodbye, if the server knows that he is in."""
        seen = await self.call("GET", f"/v1/scans/{scan}", headers=worker.headers)
        visit = seen.json().get("visit_id")
        if visit is None:
            return
        rows = await self.house.rows(
            sa.select(Visit.station_id).where(Visit.id == uuid.UUID(visit))
        )
        tried = self.history.begin("leave", visit)
        left = await self.call("POST", f"/v1/visits/{visit}/leave", headers=worker.headers)
        self.history.end(tried, "ok" if left.status_code == 200 else "fail", left.status_code)
        if left.status_code == 200:
            self.leavings.append(Leaving(worker.id, rows[0].station_id, datetime.now(UTC)))

    async def wander(self, worker: Any, dice: random.Random, scans: dict[Any, str]) -> None:
        """Let one worker do a few things, one after another."""
        for _ in range(dice.randint(1, 3)):
            await pause(dice, 0.05, 1.0)
            if worker.id in scans and dice.random() < 0.45:
                await self.leave(worker, scans[worker.id])
            elif scan := await self.enter(worker, dice.choice(self.places), dice):
                scans[worker.id] = scan

    async def tell(self, place: Place, dice: random.Random, *, all_of_it: bool) -> None:
        """Let a controller tell of some of what happened, in any order and more than once."""
        acks = [one for one in place.unacked if all_of_it or dice.random() < 0.6]
        events = [one for one in place.untold if all_of_it or dice.random() < 0.6]
        place.unacked = [one for one in place.unacked if one not in acks]
        place.untold = [one for one in place.untold if one not in events]
        work = [self._ack(place, one, dice) for one in acks for _ in range(dice.randint(1, 2))]
        dice.shuffle(events)
        while events:
            batch = [events.pop() for _ in range(min(len(events), dice.randint(1, 4)))]
            work += [
                self._upload(place, dice.sample(batch, len(batch)), dice)
                for _ in range(dice.randint(1, 3))
            ]
        dice.shuffle(work)
        await asyncio.gather(*work)

    async def _ack(self, place: Place, command: str, dice: random.Random) -> None:
        await pause(dice, 0, 1)
        tried = self.history.begin("ack", command)
        answer = await self.call(
            "POST",
            f"/v1/controller/commands/{command}/ack",
            json={"boot_id": "boot", "result": "executed", "pulse_after_claim_ms": 0},
            headers=place.headers,
        )
        self.history.end(tried, "ok" if answer.status_code == 200 else "fail", answer.text)
        self.acked.append(tried)

    async def _upload(self, place: Place, events: list[Any], dice: random.Random) -> None:
        await pause(dice, 0, 1)
        tried = [self.history.begin("event", event["event_id"]) for event in events]
        mono_ms, now = time.monotonic_ns() // 1_000_000, datetime.now(UTC).isoformat()
        answer = await self.call(
            "POST",
            "/v1/controller/events",
            json={
                "boot_id": "boot",
                "epoch": 1,
                "events": events,
                "mono_ms": mono_ms,
                "sent_at": now,
                "sync": {"server_time": now, "mono_ms": mono_ms, "rtt_ms": 0},
            },
            headers=place.headers,
        )
        self.resent += len(events)
        for one in tried:
            self.history.end(one, "ok" if answer.status_code == 200 else "fail")
            self.told.append(one)

    async def power_cuts(self, dice: random.Random) -> None:
        """Kill the server and start it again, until cancelled; it runs when this is over."""
        while True:
            await pause(dice, 1.5, 5.0)
            assert self.house.server is not None
            self.house.server.kill()
            self.kills += 1
            starting = asyncio.create_task(self.house.start())
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting
                raise

    async def quiet(self) -> None:
        """Wait until every event that came in has had its effect."""
        due = sa.select(sa.func.count()).where(JournalEntry.applied_at.is_(None))
        until = time.monotonic() + CALL_S
        while (await self.house.rows(due))[0][0]:
            if time.monotonic() > until:
                raise TimeoutError("events never had their effect")
            await asyncio.sleep(0.2)

    async def read(self, station: uuid.UUID) -> Operation:
        """Ask the server how many are inside."""
        tried = self.history.begin(f"occupancy of {station}", str(station))
        answer = await self.call("GET", f"/v1/admin/stations/{station}/occupancy")
        self.history.end(tried, "ok", answer.json()["inside"])
        return tried

    async def watch(self, dice: random.Random, reads: list[Operation]) -> None:
        """Read while things happen, until cancelled."""
        while True:
            reads.append(await self.read(dice.choice(self.places).box.station))
            await pause(dice, 0, 0.2)


def _party(worker: Any) -> int:
    """He always brings the same friends: one to five heads."""
    heads: int = 1 + worker.id.int % 5
    return heads


@dataclass(frozen=True, slots=True)
class Moved:
    """The door's contact, as recorded."""

    at: datetime
    opened: bool


def entry_at(pulsed_at: datetime, moves: Sequence[Moved]) -> datetime | None:
    """Say when a pulse let somebody in, by everything that is known of the door (law 5)."""
    before = [move for move in moves if move.at <= pulsed_at]
    if before and before[-1].opened:
        return pulsed_at
    later = [move.at for move in moves if move.opened and move.at > pulsed_at]
    return later[0] if later and later[0] <= pulsed_at + OPENING else None


Fact = tuple[datetime, uuid.UUID, uuid.UUID, bool]
"""When, which worker, at which station; whether he came in."""


async def facts_of(wandering: Wandering) -> list[Fact]:
    """Give what was recorded, in the order of its own time."""
    house = wandering.house
    moves: dict[uuid.UUID | None, list[Moved]] = {}
    journal = sa.select(JournalEntry.door_id, JournalEntry.type, JournalEntry.corrected_at)
    for row in await house.rows(journal.order_by(JournalEntry.corrected_at, JournalEntry.seq)):
        opened = row.type is EventType.DOOR_OPENED
        moves.setdefault(row.door_id, []).append(Moved(row.corrected_at, opened))
    contacts = {place.box.door for place in wandering.places if place.has_contact}
    facts: list[Fact] = []
    pulses = await house.rows(
        sa.select(Scan.worker_id, Scan.station_id, Command.door_id, Command.pulsed_at)
        .join(Command, Command.scan_id == Scan.id)
        .where(Command.state == CommandState.EXECUTED)
    )
    for row in pulses:
        at = row.pulsed_at
        if row.door_id in contacts:
            at = entry_at(row.pulsed_at, moves.get(row.door_id, []))
        if at is not None:
            facts.append((at, row.worker_id, row.station_id, True))
    facts += [(one.at, one.worker, one.station, False) for one in wandering.leavings]
    return sorted(facts, key=lambda fact: fact[0])


def modelled(wandering: Wandering, facts: Sequence[Fact]) -> Counter[uuid.UUID]:
    """Count who is inside by the recorded facts."""
    inside: dict[uuid.UUID, uuid.UUID] = {}
    for _, worker, station, enters in facts:
        if enters:
            inside[worker] = station
        elif inside.get(worker) == station:
            del inside[worker]
    towns = wandering.house.built
    heads = {worker.id: _party(worker) for town in towns for worker in town.workers}
    count: Counter[uuid.UUID] = Counter()
    for worker, station in inside.items():
        count[station] += heads[worker]
    return count


async def story_of(wandering: Wandering, worker: uuid.UUID, facts: Sequence[Fact]) -> str:
    """Tell what is known of one worker: facts, and the visits that were made of them."""
    lines = [
        f"{at:%H:%M:%S.%f} {'in' if enters else 'out'} {station}"
        for at, who, station, enters in facts
        if who == worker
    ]
    visits = await wandering.house.rows(
        sa.select(Visit.station_id, Visit.started_at, Visit.ended_at, Visit.voided_at)
        .where(Visit.worker_id == worker)
        .order_by(Visit.started_at)
    )
    lines += [f"visit {row}" for row in visits]
    commands = await wandering.house.rows(
        sa.select(
            Command.id,
            Command.station_id,
            Command.state,
            Command.created_at,
            Command.claimed_at,
            Command.pulsed_at,
            Command.opened_at,
        )
        .join(Scan, Command.scan_id == Scan.id)
        .where(Scan.worker_id == worker)
        .order_by(Command.created_at)
    )
    lines += [f"command {row}" for row in commands]
    return "\n    ".join(lines[-60:])


async def recounted(wandering: Wandering) -> dict[uuid.UUID, int]:
    """Count the heads of the open visits, straight from the rows."""
    rows = await wandering.house.rows(
        sa.select(Visit.station_id, sa.func.sum(Visit.party_size).label("heads"))
        .where(Visit.ended_at.is_(None))
        .group_by(Visit.station_id)
    )
    return {row.station_id: int(row.heads) for row in rows}


async def compared(wandering: Wandering, when: str) -> tuple[Counter[uuid.UUID], list[str]]:
    """Hold the three counts against each other."""
    facts = await facts_of(wandering)
    model, rows = modelled(wandering, facts), await recounted(wandering)
    found = []
    for place in wandering.places:
        station = place.box.station
        says = (await wandering.read(station)).answer
        counts = (says, rows.get(station, 0), model[station])
        if len(set(counts)) > 1 or says < 0:
            found.append(
                f"{when}, at {station}: the server says {counts[0]}, the rows {counts[1]}, "
                f"the recorded facts {counts[2]}"
            )
    if found:  # Who reads this wants to know of whom it is.
        for town in wandering.house.built:
            for worker in town.workers:
                print(f"worker {worker.id}: {await story_of(wandering, worker.id, facts)}")
    return model, found


def _possible(wandering: Wandering, model: Counter[uuid.UUID]) -> dict[str, list[Operation]]:
    """Say what a round may change: whoever is inside may go, everybody may come anywhere."""
    heads = sum(_party(worker) for town in wandering.house.built for worker in town.workers)
    now = time.monotonic_ns()
    return {
        str(place.box.station): [
            Operation("before", model[place.box.station], 0, "ok", now),
            Operation("may leave", -model[place.box.station], now),
            Operation("may come", heads - model[place.box.station], now),
        ]
        for place in wandering.places
    }


async def run(round: Round) -> Verdict:
    """Let people wander for some rounds, and count after each."""
    dice = random.Random(round.seed)
    rounds = 40 if round.full else 3

    async def build(held: Runtime) -> tuple[Town, Town]:
        first = await a_town(PLAIN, workers=WORKERS)(held)
        return first, await a_town(WITH_CONTACT, has_contact=True)(held)

    async with a_house(round, build) as house:
        first, second = house.built
        places = [Place(box, False) for box in first.boxes]
        places += [Place(box, True) for box in second.boxes]
        violations: list[str] = []
        scans: dict[Any, str] = {}
        reads: list[Operation] = []
        async with httpx.AsyncClient(
            base_url=house.url, headers=first.admin_headers, timeout=10
        ) as client:
            history = History(round.folder / "history.jsonl")
            wandering = Wandering(house, client, history, places)
            model: Counter[uuid.UUID] = Counter()
            for nth in range(rounds):
                possible, seen = _possible(wandering, model), list[Operation]()
                cuts = asyncio.create_task(wandering.power_cuts(random.Random(dice.random())))
                watch = asyncio.create_task(wandering.watch(random.Random(dice.random()), seen))
                await asyncio.gather(
                    *(
                        wandering.wander(worker, random.Random(dice.random()), scans)
                        for worker in first.workers
                    ),
                    *(_telling(wandering, place, dice.random()) for place in places),
                )
                if nth == rounds - 1:
                    for place in places:
                        await wandering.tell(place, dice, all_of_it=True)
                for task in (cuts, watch):
                    task.cancel()
                await asyncio.gather(cuts, watch, return_exceptions=True)
                await wandering.quiet()
                model, found = await compared(wandering, f"after round {nth + 1}")
                violations += found
                for place in places:
                    station = str(place.box.station)
                    here = [read for read in seen if read.value == station]
                    violations += within_bounds(possible[station], here)
                reads += seen
            journal = await house.rows(sa.select(JournalEntry.event_id))
            violations += set_full(
                _once(wandering.told), [row.event_id for row in journal], what="event"
            )
            executed = sa.select(Command.id).where(Command.state == CommandState.EXECUTED)
            violations += set_full(
                _once(wandering.acked),
                [str(row.id) for row in await house.rows(executed)],
                what="pulse",
            )
            tries = {
                "entries": len({one.value for one in wandering.acked}),
                "exits": len(wandering.leavings),
                "events_sent": wandering.resent,
                "events": len(journal),
                "reads": len(reads),
                "kills": wandering.kills,
            }
            moved = wandering.acked and wandering.leavings
            return Verdict(tries, violations, "" if moved else "nobody came or nobody went")


def _once(tried: Sequence[Operation]) -> list[Operation]:
    """Give one operation for each value: acknowledged, if any of the repetitions was."""
    found: dict[Any, Operation] = {}
    for one in tried:
        if one.value not in found or one.end == "ok":
            found[one.value] = one
    return list(found.values())


async def _telling(wandering: Wandering, place: Place, seed: float) -> None:
    dice = random.Random(seed)
    for _ in range(3):
        await pause(dice, 0.3, 1.5)
        await wandering.tell(place, dice, all_of_it=False)


TRIAL = Trial(
    promise="R08",
    says="Occupancy is entries minus exits of recorded events, in whatever order they arrive.",
    rests_on="Visits are intervals in the order of the facts' own time, and occupancy counts"
    " them (`app/visits/presence.py`, `app/visits/occupancy.py`); a contact's word is"
    " applied in that order (`app/doors/effects.py`).",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("clamp_occupancy", "visit_begins_when_told"),
)
