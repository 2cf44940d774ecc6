"""R02: what is acknowledged was synced: no good answer leaves over writes that were not.

A kill does not show this, since the kernel keeps what a process wrote. So the server's system calls
are watched: between a write to the write-ahead log and a good answer there must be a finished sync.
"""

import random

import httpx

from tests.faults.agents import a_house, a_town
from tests.faults.journals import an_event, integrity, sends
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.storage import SENDS, attached, early_answers, strace


async def run(round: Round) -> Verdict:
    """Watch the system calls of a server that takes batches and scans."""
    if not strace():
        missing = "strace is not installed" if round.full else ""
        return Verdict({"skipped_strace_missing": 1}, empty=missing)
    dice = random.Random(round.seed)
    number = 300 if round.full else 60
    log = round.folder / "order.strace"
    async with a_house(round, a_town(1, workers=50)) as house:
        box = house.built.boxes[0]
        assert house.server is not None
        watched = f"trace=pwrite64,fdatasync,fsync,{SENDS}"
        with attached(house.server, "-y", "-s", "16", "-e", watched, log=log):
            async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
                for seq in range(1, number + 1):
                    await sends(http, box, [an_event(box, seq)])
                    worker = dice.choice(house.built.workers)
                    headers = {**worker.headers, "Idempotency-Key": f"{dice.getrandbits(64):x}"}
                    await http.post("/v1/scans", json={"token": box.poster}, headers=headers)
        answers, early = early_answers(log)
        house.end()
        violations = early[:5] + integrity(house)
        empty = f"only {answers} answers were seen" if answers < number else ""
        return Verdict({"answers": answers, "early": len(early)}, violations, empty)


TRIAL = Trial(
    promise="R02",
    says="No good answer leaves over writes that were not synced.",
    rests_on="SQLite runs with `synchronous=FULL`, PostgreSQL with `fsync` and"
    " `synchronous_commit`, or the server does not start (`app/db/engine.py`).",
    run=run,
    databases=("sqlite",),
    bugs=("sync_normal",),
)
