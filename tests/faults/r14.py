"""R14: after a sync that failed nothing is acknowledged; the process ends, and comes back whole."""

import asyncio
import contextlib
import subprocess

import httpx

from tests.faults.agents import a_house, a_town
from tests.faults.journals import Oracle, an_event, integrity, lost_or_doubled, sends
from tests.faults.promise import Round, Trial, Verdict
from tests.faults.storage import SYNCS, attached, strace

EX_IOERR = 74
ENDS_S = 20.0


async def run(round: Round) -> Verdict:
    """Let the k-th sync fail with EIO, for k = 1, 2, ..."""
    if not strace():
        missing = "strace is not installed" if round.full else ""
        return Verdict({"skipped_strace_missing": 1}, empty=missing)
    most = 20 if round.full else 4
    oracle = Oracle(round.folder / "oracle.jsonl")
    violations: list[str] = []
    failures = acked = 0
    empty = ""
    try:
        async with a_house(round, a_town(1)) as house:
            box, seq = house.built.boxes[0], 0
            for nth in range(1, most + 1):
                if house.server is None or not house.server.lives:
                    await house.start()
                assert house.server is not None
                inject = f"inject={SYNCS}:error=EIO:when={nth}+"
                log = house.round.folder / "eio.strace"
                options = ("-e", f"trace={SYNCS}", "-e", inject)
                with attached(house.server, *options, log=log):
                    async with httpx.AsyncClient(base_url=house.url, timeout=60) as http:
                        for _ in range(nth + 1):
                            events = [an_event(box, seq + n) for n in (1, 2)]
                            seq += 2
                            failed = "EIO" in log.read_text(errors="replace")
                            with contextlib.suppress(httpx.HTTPError):
                                for result in await sends(http, box, events):
                                    oracle.event(box, 1, result["seq"], result["event_id"])
                                    acked += 1
                                if failed:
                                    violations.append("acknowledged after a sync had failed")
                    failed = "EIO" in log.read_text(errors="replace")
                    failures += failed
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        await asyncio.to_thread(house.server.process.wait, ENDS_S if failed else 0)
                    if not failed:
                        empty = f"no sync failed at k={nth}"
                    elif house.server.lives:
                        violations.append("the process went on after a sync had failed")
                    elif house.server.process.returncode != EX_IOERR:
                        code = house.server.process.returncode
                        violations.append(f"the process ended with {code}, not {EX_IOERR}")
                house.server.kill()
            await house.start()
            violations += await lost_or_doubled(house, oracle)
            house.end()
            violations += integrity(house)
    finally:
        oracle.close()
    return Verdict({"failed_syncs": failures, "acked_events": acked}, violations[:10], empty)


TRIAL = Trial(
    promise="R14",
    says="After a sync that failed nothing is acknowledged; the process ends and recovers.",
    rests_on="An error of the disk at a commit ends the process at once: a second sync may"
    " report success without having written (`app/db/engine.py`).",
    run=run,
    databases=("sqlite",),
    bugs=("swallow_eio",),
)
