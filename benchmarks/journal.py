"""How many journal events one process takes in, beside a bare bulk insert of the same rows."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app.db.engine import Database
from app.doors.tables import JournalEntry
from app.settings import Settings
from benchmarks.ground import Ground, Group, console, prepare, serving
from benchmarks.load import Round, burst, request
from benchmarks.record import Line
from benchmarks.world import Post

BATCH = 500
SENDERS = 8
"""Controllers that upload at the same time, each one batch after another."""

ROUNDS = 5
BATCHES = 40
"""In one round."""

EFFECT_BATCHES = 4


async def measure(ground: Ground) -> Sequence[Line]:
    """Measure real and bare batches in turn, A B A B; then events that have effects."""
    settings, batches = ground.settings(), ground.scaled(BATCHES)
    console.print("filling the database ...")
    made = await prepare(settings, stations=3 * SENDERS, workers=1)
    posts, bare_posts, others = (made.posts[n * SENDERS : (n + 1) * SENDERS] for n in range(3))
    real: list[Round] = []
    bare: list[Round] = []
    with serving(settings) as (port, _process):
        for number in range(ROUNDS + 1):
            console.print(f"batches of {BATCH}, real and bare: round {number} of {ROUNDS}")
            first = number * batches
            requests = [_real(posts, first + more, "note") for more in range(batches)]
            real.append(await burst(port, requests, connections=SENDERS))
            requests = [_bare(bare_posts, first + more) for more in range(batches)]
            bare.append(await burst(port, requests, connections=SENDERS))
        for found in (*real, *bare):
            if set(found.statuses) != {200}:
                raise SystemExit(f"bench: not every batch was taken in: {found.statuses}")
        await _require(settings, 2 * (ROUNDS + 1) * batches * BATCH)
        console.print("events that have effects ...")
        effects = await _with_effects(settings, port, others, ground.scaled(EFFECT_BATCHES))
    real, bare = real[1:], bare[1:]  # The first pair warms up.
    ratios = [a.per_second / b.per_second for a, b in zip(real, bare, strict=True)]
    return [
        Line(
            "journal events per second, real / bare bulk insert: ratio",
            f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})",
            "at least 0.5",
        ),
        Line("journal events per second, real endpoint", _rate(real)),
        Line("journal events per second, bare bulk insert", _rate(bare)),
        Line("door contacts per second, until their effects are written too", f"{effects:.0f}/s"),
    ]


def _rate(rounds: Sequence[Round]) -> str:
    per_second = statistics.median(found.per_second for found in rounds)
    slowest = max(second for found in rounds for second in found.seconds)
    return f"{per_second * BATCH:,.0f}/s (slowest batch {slowest * 1000:.0f} ms)"


def _events(post: Post, batch: int, kind: str) -> list[dict[str, object]]:
    at = datetime.now(UTC) - timedelta(seconds=BATCH)
    return [
        {
            "event_id": str(uuid.uuid4()),
            "seq": batch * BATCH + number + 1,
            "type": kind if kind == "note" or number % 2 == 0 else "door_closed",
            "occurred_at": (at + timedelta(seconds=number)).isoformat(),
            "mono_ms": 1_000 * (batch * BATCH + number),
            **({"what": "following"} if kind == "note" else {"door": post.door}),
        }
        for number in range(BATCH)
    ]


def _real(posts: Sequence[Post], number: int, kind: str) -> bytes:
    post, batch = posts[number % len(posts)], number // len(posts)
    body = {"boot_id": "b", "epoch": 1, "events": _events(post, batch, kind)}
    headers = {"Authorization": f"Bearer {post.credential}"}
    return request("POST", "/v1/controller/events", headers, body)


def _bare(posts: Sequence[Post], number: int) -> bytes:
    post, batch = posts[number % len(posts)], number // len(posts)
    body = {"controller": post.controller, "events": _events(post, batch, "note")}
    return request("POST", "/bench/events", {}, body)


async def _require(settings: Settings, events: int) -> None:
    """Raise unless so many events are in the journal: nothing was a duplicate or quarantined."""
    database = Database(settings.database_url, pool_size=2)
    async with database.read() as tx:
        found = await tx.scalar(sa.select(sa.func.count()).select_from(JournalEntry))
    await database.dispose()
    if found != events:
        raise SystemExit(f"bench: the journal holds {found} events instead of {events}")


async def _with_effects(
    settings: Settings, port: int, posts: Sequence[Post], batches: int
) -> float:
    """Upload door contacts; gives how many a second until no effect is due."""
    requests = [_real(posts, number, "door_opened") for number in range(batches)]
    database = Database(settings.database_url, pool_size=2)
    due = sa.select(sa.func.count()).where(JournalEntry.applied_at.is_(None))
    began = time.monotonic()
    await burst(port, requests, connections=SENDERS)
    while True:
        async with database.read() as tx:
            left = await tx.scalar(due)
        if not left:
            break
        await asyncio.sleep(0.1)
    await database.dispose()
    return batches * BATCH / (time.monotonic() - began)


GROUP = Group(
    title="Journal",
    about=f"""
Batches of {BATCH} events from {SENDERS} controllers at once through `POST /v1/controller/events`,
in turn with a bare handler of the same server process that inserts the same rows with one statement
and one transaction per batch, by the same driver (`benchmarks/server.py`); no event is repeated. A
second figure is of events with effects, which are written after the answer.
""",
    measure=measure,
)
