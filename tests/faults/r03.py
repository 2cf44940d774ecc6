"""R03: the same events repeated, split, shuffled and in parallel have the effect of once.

Some of them can never be taken in: those go into quarantine, once, and keep no other out (T26).
"""

import asyncio
import random
from typing import Any

import httpx
import sqlalchemy as sa

from app.doors.tables import JournalEntry, QuarantinedEvent
from tests.faults.agents import House, Town, a_house, a_town
from tests.faults.journals import an_event, integrity, sends
from tests.faults.promise import Round, Trial, Verdict

EVENTS = 40
POISON = 3
"""So many of them nobody can use."""


UNUSABLE: tuple[dict[str, Any], ...] = (
    {"type": "no_such_type"},
    {"occurred_at": "yesterday"},
    {"mono_ms": -1},
    {"type": "door_opened", "door": "nobody's"},
)


async def run(round: Round) -> Verdict:
    """Send one journal per box in every manner, across kills; the model is a dict."""
    dice = random.Random(round.seed)
    cases = 40 if round.full else 6
    sent = kills = 0
    violations: list[str] = []
    async with a_house(round, a_town(cases)) as house:
        for box in house.built.boxes:
            model = {seq: an_event(box, seq) for seq in range(1, EVENTS + 1)}
            poison = set(dice.sample(sorted(model), POISON))
            for seq in poison:
                model[seq] |= dice.choice(UNUSABLE)
            parts = _parts(list(model.values()), dice)
            sent += sum(len(part) for part in parts)
            for start in range(0, len(parts), 4):
                # A batch that meets a dead server is sent again, as an agent does.
                together = [_held(house, box, part) for part in parts[start : start + 4]]
                tasks = [asyncio.create_task(one) for one in together]
                if dice.random() < 0.1:
                    await asyncio.sleep(dice.uniform(0, 0.05))
                    assert house.server is not None
                    house.server.kill()
                    kills += 1
                    await house.start()
                said = await asyncio.gather(*tasks)
                violations += [sentence for sentence in said if sentence]
            violations += await _compared(house, box, model, poison)
        house.end()
        violations += integrity(house)
    tries = {
        "journals": cases,
        "events": cases * EVENTS,
        "unusable": cases * POISON,
        "sent": sent,
        "kills": kills,
    }
    return Verdict(tries, violations[:10])


def _parts(events: list[dict[str, Any]], dice: random.Random) -> list[list[dict[str, Any]]]:
    parts = []
    for _ in range(dice.randint(2, 5)):
        left = dice.sample(events, len(events))
        while left:
            size = dice.randint(1, 15)
            parts.append(left[:size])
            left = left[size:]
    dice.shuffle(parts)
    return parts


async def _held(house: House[Town], box: Any, events: list[dict[str, Any]]) -> str:
    """Send until it is answered; says what is wrong with the answer."""
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        for _ in range(500):
            try:
                await sends(http, box, events)
                return ""
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                    return f"a whole batch was answered {error.response.status_code}"
                await asyncio.sleep(0.02)
    raise RuntimeError("the server did not come back")


async def _compared(
    house: House[Town], box: Any, model: dict[int, Any], poison: set[int]
) -> list[str]:
    mine = JournalEntry.controller_id == box.controller
    rows = await house.rows(sa.select(JournalEntry.seq, JournalEntry.event_id).where(mine))
    held = sorted((row.seq, row.event_id) for row in rows)
    wanted = sorted((seq, event["event_id"]) for seq, event in model.items() if seq not in poison)
    found = [] if held == wanted else [f"{box.controller}: {len(held)} rows for {len(wanted)}"]
    bad = await house.rows(
        sa.select(QuarantinedEvent.seq).where(QuarantinedEvent.controller_id == box.controller)
    )
    if sorted(row.seq for row in bad) != sorted(poison):
        found.append(f"{box.controller}: {len(bad)} events in quarantine for {len(poison)}")
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        answer = await http.post(
            "/v1/controller/events",
            json={"boot_id": "b", "epoch": 1, "events": []},
            headers={"Authorization": f"Bearer {box.credential}"},
        )
    through = answer.json()["acked_through"]
    if through != len(model):
        found.append(f"{box.controller}: acked_through {through} of {len(model)}")
    return found


TRIAL = Trial(
    promise="R03",
    says="A journal repeated, split, shuffled and in parallel has the effect of once.",
    rests_on="Each event goes in once by (controller, epoch, number); what cannot be used goes"
    " into quarantine, and the cursor moves over both (`app/doors/journal.py`).",
    run=run,
    databases=("sqlite", "postgresql"),
    bugs=("no_unique_seq", "poison_blocks"),
)
