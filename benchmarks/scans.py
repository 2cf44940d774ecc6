"""How many scans one process grants in a second, beside a handler that only inserts the rows."""

import statistics
from collections.abc import Sequence

from benchmarks.ground import CONNECTIONS, Ground, Group, console, prepare, serving
from benchmarks.load import Round, burst, nearest_rank, request
from benchmarks.record import Line
from benchmarks.world import World

STATIONS = 1_000
ROUNDS = 5
SCANS = 1_500
"""Scans in one round; each by another worker, so that no limit and no double tap is met."""


async def measure(ground: Ground) -> Sequence[Line]:
    """Measure real and bare scans in turn, A B A B; the ratio is of neighbours."""
    scans, settings = ground.scaled(SCANS), ground.settings()
    console.print("filling the database ...")
    made = await prepare(settings, stations=ground.scaled(STATIONS), workers=(ROUNDS + 1) * scans)
    real: list[Round] = []
    bare: list[Round] = []
    with serving(settings) as (port, _process):
        for number in range(ROUNDS + 1):
            console.print(f"scans, real and bare: round {number} of {ROUNDS}")
            first = number * scans
            real.append(
                await burst(port, real_requests(made, first, scans), connections=CONNECTIONS)
            )
            bare.append(
                await burst(port, bare_requests(made, first, scans), connections=CONNECTIONS)
            )
    for found in (*real, *bare):
        if set(found.statuses) != {201}:
            raise SystemExit(f"bench: not every scan was granted: {found.statuses}")
    real, bare = real[1:], bare[1:]  # The first pair warms up.
    ratios = [a.per_second / b.per_second for a, b in zip(real, bare, strict=True)]
    return [
        Line(
            "scans per second, real / bare handler: ratio",
            f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})",
            "at least 0.7",
        ),
        _burst_line("scans per second, real endpoint", real),
        _burst_line("scans per second, bare handler", bare),
    ]


def real_requests(made: World, start: int, count: int) -> list[bytes]:
    """Write real scans: each worker once."""
    return [
        request(
            "POST",
            "/v1/scans",
            {"Authorization": f"Bearer {made.tokens[number]}", "Idempotency-Key": f"k{number}"},
            {"token": made.posts[number % len(made.posts)].poster},
        )
        for number in range(start, start + count)
    ]


def bare_requests(made: World, start: int, count: int) -> list[bytes]:
    """Write the bare handler's requests for the same doors and workers."""
    found = []
    for number in range(start, start + count):
        post = made.posts[number % len(made.posts)]
        body = {
            "station": post.station,
            "door": post.door,
            "controller": post.controller,
            "worker": made.workers[number],
        }
        found.append(request("POST", "/bench/scans", {}, body))
    return found


def _burst_line(what: str, rounds: Sequence[Round]) -> Line:
    median = statistics.median(found.per_second for found in rounds)
    seconds = sorted(second for found in rounds for second in found.seconds)
    p50, p99 = (nearest_rank(seconds, share) * 1000 for share in (0.5, 0.99))
    return Line(what, f"{median:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


GROUP = Group(
    title="Scans",
    about="""
The bare handler uses the same framework, session class, pool and driver, inserts the rows of a
granted scan and commits (`benchmarks/server.py`). The two take turns in one server process.
""",
    measure=measure,
)
