"""R04: an unlock command pulses a relay at most once, whoever claims it, whatever the network does.

Each station has one real agent in a process of its own, which is killed at random, and three more
claimers with the same credential, each with a boot and a relay of its own. All of them reach the
server through a proxy that repeats, delays, cuts and resets; the server is killed now and then. The
commands are remote openings, so that no limit of a worker holds them back.

Then, on SQLite, one more agent is killed at each of the system calls by which it writes down what
it does (see `dying`); nothing that it had written down may be lost either.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from dataclasses import dataclass, field

import httpx

from app.agent.commands import Commands, deliver
from app.agent.link import Link
from app.agent.pace import Pace
from app.agent.relay import SimulatedRelay
from app.agent.server import CredentialRefused, Server
from app.agent.state import Results, StateFolder
from tests.faults.agents import Box, House, Town, a_house, a_town, pause
from tests.faults.dying import Dying, slow_posts
from tests.faults.history import History, at_most_once, only_granted
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.proxy import NOTHING, Cut, Fault, Proxy, Seen, proxying
from tests.faults.storage import strace

STATIONS = 4
CLAIMERS = 3
"""Besides the real agent, at each station."""

LIFE_S = 10.0
"""How long a command lives."""


def rough(dice: random.Random) -> Fault:
    """What a bad network does to one claim, ack or upload."""
    cuts: tuple[Cut, ...] = ("close", "reset", "half_close")
    match dice.randrange(8):
        case 0:
            return Fault(copies=dice.randint(1, 3), copy_after_s=dice.choice((0.0, 0.05, 1.0)))
        case 1:
            return Fault(hold_request_s=dice.uniform(0.1, 4))
        case 2:
            return Fault(hold_answer_s=dice.uniform(0.1, 4))
        case 3:
            return Fault(cut_request_at=dice.randrange(0, 300), cut=dice.choice(cuts))
        case 4 | 5:
            return Fault(cut_answer_at=dice.choice((0, 0, dice.randrange(400))), cut="reset")
        case _:
            return NOTHING


def plan_of(dice: random.Random) -> "_Plan":
    """Make a proxy's plan; its dice are its own, so that it does not hang on others' order."""
    return _Plan(dice)


@dataclass(slots=True)
class _Plan:
    dice: random.Random

    def __call__(self, seen: Seen) -> Fault:
        if seen.method == "GET":
            # A late poll of a dead boot is a clone's doing, and freezes the controller: see R07.
            quick = Fault(hold_request_s=self.dice.uniform(0, 0.3), copies=self.dice.randrange(2))
            return quick if self.dice.random() < 0.3 else NOTHING
        return rough(self.dice)


@dataclass(slots=True)
class Claimer:
    """Another box with the same credential: it claims what it hears of, and pulses its relay."""

    house: House[Town]
    name: str
    box: Box
    url: str
    dice: random.Random
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, told: "asyncio.Queue[str]") -> None:
        """Claim the commands of the queue until cancelled."""
        folder = self.house.round.folder / self.name
        state = StateFolder(folder)
        pace = Pace(dice=self.dice)
        async with httpx.AsyncClient() as http:
            server = Server(self.url, http, Link(state, pace), firmware="faults")
            server.credential = self.box.credential
            results = Results(state)
            commands = Commands(
                server,
                SimulatedRelay(folder / "relay.jsonl"),
                results,
                boot_id=str(uuid.UUID(int=self.dice.getrandbits(128))),
                pace=pace,
            )
            acks = asyncio.create_task(deliver(results, server, pace=pace, refused_pause_s=1))
            try:
                while True:
                    task = asyncio.create_task(self._claim(commands, await told.get(), pace))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            finally:
                acks.cancel()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(acks, *self._tasks, return_exceptions=True)

    async def _claim(self, commands: Commands, command: str, pace: Pace) -> None:
        # Some of them come together, some after the first is long done.
        await asyncio.sleep(self.dice.choice((0.0, 0.0, self.dice.uniform(0, 1), 3.0)))
        with contextlib.suppress(CredentialRefused):
            await commands.carry_out(command, told_at=pace.monotonic())


async def power_cuts(
    house: House[Town], name: str, box: Box, proxy: Proxy, dice: random.Random
) -> int:
    """Run the real agent of a box and kill it at random until cancelled; counts the kills."""
    kills = 0
    child = house.agents({name: (box, proxy.url)})
    try:
        while True:
            await pause(dice, 2.0, 7.0)
            child.kill()
            kills += 1
            child = house.agents({name: (box, proxy.url)})
    except asyncio.CancelledError:
        child.stop()
        return kills


async def server_cuts(house: House[Town], dice: random.Random) -> int:
    """Kill the server and start it again until cancelled; it runs when this is over."""
    kills = 0
    try:
        while True:
            await pause(dice, 8.0, 16.0)
            assert house.server is not None
            house.server.kill()
            kills += 1
            starting = asyncio.create_task(house.start())
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting
                raise
    except asyncio.CancelledError:
        return kills


async def at_every_call(
    house: House[Town], admin: httpx.AsyncClient
) -> tuple[dict[str, int], list[str]]:
    """Kill one more agent at each of its writes; counts the kills, says what that cost."""
    if house.round.database != "sqlite" or not strace():
        return {}, []
    async with proxying(house.port, slow_posts) as proxy:
        dying = Dying(house, house.built.boxes[STATIONS], proxy.url, admin)
        lost = await dying.at_every_call(full=house.round.full)
    return {"kills_at_calls_of_an_agent": dying.kills}, lost


async def run(round: Round) -> Verdict:
    """Give many commands to several claimers each, through a bad network."""
    # The claimers run in this process, and would tell of every cut.
    logging.getLogger("app.agent").setLevel(logging.CRITICAL)
    dice = random.Random(round.seed)
    number, per_second = (2000, 10.0) if round.full else (150, 7.0)
    history = History(round.folder / "history.jsonl")
    async with (
        contextlib.AsyncExitStack() as stack,
        a_house(round, a_town(STATIONS + 1)) as house,
        httpx.AsyncClient(base_url=house.url, headers=house.built.admin_headers) as admin,
    ):
        cuts, claims, queues, proxies = [], [], [], []
        for place, box in enumerate(house.built.boxes[:STATIONS]):
            proxy = await stack.enter_async_context(
                proxying(house.port, plan_of(random.Random(dice.random())))
            )
            proxies.append(proxy)
            own = random.Random(dice.random())
            cuts.append(asyncio.create_task(power_cuts(house, f"agent-{place}", box, proxy, own)))
            queues.append([asyncio.Queue[str]() for _ in range(CLAIMERS)])
            for nth, queue in enumerate(queues[-1]):
                own = random.Random(dice.random())
                claimer = Claimer(house, f"claimer-{place}-{nth}", box, proxy.url, own)
                claims.append(asyncio.create_task(claimer.run(queue)))
        server_kills = asyncio.create_task(server_cuts(house, random.Random(dice.random())))
        given = 0
        # While the server is down nothing is given; a bound, for it may never come back.
        for _ in range(3 * number):
            if given == number:
                break
            place = dice.randrange(STATIONS)
            door = house.built.boxes[place].door
            tried = history.begin("unlock", str(door))
            try:
                answer = await admin.post(f"/v1/admin/doors/{door}/unlock", json={"reason": "R04"})
            except httpx.HTTPError as error:
                history.end(tried, "info", str(error))
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == 201:
                given += 1
                history.end(tried, "ok", answer.json()["id"])
                for queue in queues[place]:
                    queue.put_nowait(tried.answer)
            else:
                history.end(tried, "fail", answer.text)
            await asyncio.sleep(dice.expovariate(per_second))
        await asyncio.sleep(LIFE_S + 2)
        for task in (*cuts, *claims, server_kills):
            task.cancel()
        killed = await server_kills
        kills = sum(await asyncio.gather(*cuts))
        await asyncio.gather(*claims, return_exceptions=True)
        at_calls, lost = await at_every_call(house, admin)
        pulses, frozen = house.pulses(), await house.frozen()
        violations = lost + at_most_once(pulses) + only_granted(pulses, await house.granted())
        tries = {
            "commands": given,
            "pulses": len(pulses),
            "claimers": STATIONS * (CLAIMERS + 1),
            "agents_killed": kills,
            "servers_killed": killed,
            "faults": sum(proxy.faults for proxy in proxies),
            "frozen": frozen,
            **at_calls,
        }
        return Verdict(tries, violations, "" if pulses else "no relay ever pulsed")


TRIAL = Trial(
    promise="R04",
    says="An unlock command fires at most once, through duplicates, cuts and power cuts.",
    rests_on="One conditional update from pending to claimed, a second grant only to the same"
    " boot and nonce (`app/doors/commands.py`); within a boot an agent takes a command"
    " once (`app/agent/commands.py`).",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("claim_without_state_check", "forgets_what_it_pulsed"),
)
