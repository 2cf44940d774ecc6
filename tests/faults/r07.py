"""R07: losing the link, at whatever step of the protocol, and regaining it never pulses a relay.

Each case has a box of its own, and they run side by side: the link is cut at one step, a command is
given while it is down (but for the quiet cases), and it comes back after a second or after longer
than a command lives. What may pulse then is only what was claimed, once, within its 10 s; at a
quiet box nothing at all. What a controller does alone, with a pass, is another trial.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx
from typing_extensions import override

from tests.faults.agents import Box, House, Town, a_house, a_town
from tests.faults.history import History, at_most_once, only_granted, within_deadline
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.proxy import NOTHING, Fault, Proxy, Seen, proxying

Exchange = Literal["poll", "claim", "ack", "config", "events"]
Place = Literal["waiting", "before", "in request", "before answer", "in answer"]

REACHED_S = 120.0
"""How long a case may take to come to its step, in seconds, on a machine with little time."""
BACK_S = 160.0
"""How long the agent may take to come back (its pauses grow to 10 s, a lost poll takes 35 s)."""
SETTLE_S = 3.0

CUTS: dict[Place, Fault] = {
    "before": Fault(cut_request_at=0, link_down=True),
    "in request": Fault(cut_request_at=90, link_down=True),
    "before answer": Fault(cut_answer_at=0, link_down=True),
    "in answer": Fault(cut_answer_at=60, link_down=True),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Where the link is cut, for how long, and whether anybody wanted the door open."""

    exchange: Exchange
    place: Place
    outage_s: float
    quiet: bool = False

    @override
    def __str__(self) -> str:
        quiet = ", nobody there" if self.quiet else ""
        return f"{self.exchange}, {self.place}, for {self.outage_s:g} s{quiet}"

    @property
    def needs_command(self) -> bool:
        """Whether it takes a command to come to this step."""
        return self.exchange in ("claim", "ack") or (
            self.exchange == "poll" and self.place in ("before answer", "in answer")
        )


def cases(outages_s: Sequence[float]) -> list[Case]:
    """List every step, each with every outage."""
    found = []
    for outage_s in outages_s:
        found += [
            Case(exchange, place, outage_s)
            for exchange in ("poll", "claim", "ack", "config", "events")
            for place in CUTS
        ]
        found += [Case("poll", "waiting", outage_s), Case("poll", "waiting", outage_s, quiet=True)]
        found += [
            Case(exchange, place, outage_s, quiet=True)
            for exchange in ("config", "events")
            for place in CUTS
        ]
    return found


def _exchange(seen: Seen) -> Exchange | None:
    path = seen.path.partition("?")[0]
    ends: dict[str, Exchange] = {
        "/commands": "poll",
        "/claim": "claim",
        "/ack": "ack",
        "/config": "config",
        "/events": "events",
    }
    return next((exchange for end, exchange in ends.items() if path.endswith(end)), None)


@dataclass(slots=True)
class Link:
    """The plan of one case: lets everything pass until the step, and after it again."""

    case: Case
    armed: bool = True
    polls: int = 0
    polled: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, seen: Seen) -> Fault:
        """See `Plan`."""
        exchange = _exchange(seen)
        if self.armed and exchange == self.case.exchange and self.case.place in CUTS:
            self.armed = False
            self.polled.set()
            return CUTS[self.case.place]
        if exchange == "poll":
            self.polls += 1
            self.polled.set()
        return NOTHING


@dataclass(slots=True)
class Story:
    """One case, told from beginning to end."""

    case: Case
    name: str
    box: Box
    link: Link
    proxy: Proxy
    house: House[Town]
    admin: httpx.AsyncClient
    history: History
    reached: bool = True
    """Whether the case came to its step at all."""

    async def tell(self) -> list[str]:
        """Cut, wait, restore; says what went otherwise than planned."""
        try:
            async with asyncio.timeout(REACHED_S):
                await self.link.polled.wait()
                if self.case.needs_command:
                    await self._unlock("first")
                if self.case.place == "waiting":
                    # The server holds the poll by then; if not, it is cut before instead.
                    await asyncio.sleep(1)
                    self.proxy.down()
                await self.proxy.went_down.wait()
        except TimeoutError:
            self.reached = False
            return []
        if not self.case.quiet:
            await self._unlock("second")
        await asyncio.sleep(self.case.outage_s)
        self.link.polled.clear()
        self.proxy.up()
        try:
            async with asyncio.timeout(BACK_S):
                await self.link.polled.wait()
        except TimeoutError:
            return [f"the agent never came back: {self.case}"]
        await asyncio.sleep(SETTLE_S)
        return []

    async def _unlock(self, which: str) -> None:
        key = f"{self.name}-{which}"
        tried = self.history.begin("unlock", key)
        answer = await self.admin.post(
            f"/v1/admin/doors/{self.box.door}/unlock",
            json={"reason": str(self.case)},
            headers={"Idempotency-Key": key},
        )
        assert answer.status_code == 201, answer.text
        self.history.end(tried, "ok", answer.json()["id"])


async def run(round: Round) -> Verdict:
    """Run every case; those of one outage side by side."""
    dice = random.Random(round.seed)
    listed = cases((1.0, 12.0, 60.0, 180.0) if round.full else (1.0, 12.0))
    dice.shuffle(listed)
    history = History(round.folder / "history.jsonl")
    async with (
        contextlib.AsyncExitStack() as stack,
        a_house(round, a_town(len(listed))) as house,
        httpx.AsyncClient(
            base_url=house.url, headers=house.built.admin_headers, timeout=30
        ) as admin,
    ):
        boxes, stories = {}, []
        for nth, (case, box) in enumerate(zip(listed, house.built.boxes, strict=True)):
            link = Link(case)
            proxy = await stack.enter_async_context(proxying(house.port, link))
            name = f"case-{nth}"
            boxes[name] = (box, proxy.url)
            stories.append(Story(case, name, box, link, proxy, house, admin, history))
        began = time.monotonic()
        house.agents(boxes)
        told = await asyncio.gather(*(story.tell() for story in stories))
        took_s = time.monotonic() - began
        pulses, read_ns = house.pulses(), house.read_ns()
        read = {
            tried.answer: read_ns[tried.value]
            for tried in history.operations
            if tried.value in read_ns
        }
        violations = within_deadline(pulses, read)
        violations += only_granted(pulses, await house.granted()) + at_most_once(pulses)
        quiet = {story.name for story in stories if story.case.quiet}
        violations += [
            f"a relay pulsed where nobody was: {pulse.log}"
            for pulse in pulses
            if pulse.log in quiet
        ]
        violations += [sentence for sentences in told for sentence in sentences]
        unreached = sum(not story.reached for story in stories)
        tries = {
            "cuts": len(listed) - unreached,
            "commands": len(history.operations),
            "pulses": len(pulses),
            "unreached": unreached,
            "seconds": int(took_s),
        }
        empty = f"{unreached} cases never came to their step" if unreached else ""
        return Verdict(tries, violations, empty if pulses else "no relay ever pulsed")


TRIAL = Trial(
    promise="R07",
    says="Losing and regaining the link at any step never pulses a relay.",
    rests_on="A poll only says that a command exists, and nobody catches up with an unlock: it"
    " is claimed or it ends (`app/doors/lookout.py`, `app/agent/loop.py`). Outages last"
    " up to three minutes here; what is longer differs from them in nothing that a poll"
    " knows.",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("unlock_in_shadow", "opens_when_back"),
)
