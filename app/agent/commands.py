"""A command at the door: claim it, pulse within its deadline, tell the server what happened.

Law 3: the poll only tells that a command exists. The claim's answer carries `ttl_ms`, which counts
on this machine's monotonic clock from the moment the claim was sent. The server read the claim
later than that, so a pulse within `ttl_ms` of the sending is within the command's deadline,
whatever clocks, stalls and retries do.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from app.agent.pace import Backoff, Pace
from app.agent.relay import Pulse, Relay
from app.agent.server import CredentialRefused, Server, ServerAway, body, number, problem
from app.agent.state import Result, Results

logger = logging.getLogger(__name__)

CLAIM_WINDOW_S = 10.0
"""No command lives longer than this, in seconds (law 3), so none longer after its telling."""

CLAIM_ATTEMPT_S = 3.0
"""One attempt waits this long, in seconds; the next repeats the nonce and gets the same grant."""

REMEMBERED = 10_000
"""How many commands of this boot are remembered; they are dead long before they are forgotten."""

LONGEST_PULSE_MS = 30_000
"""A longer pulse is a mistake: nobody's door stands open for a slip in a configuration."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The server's answer to a claim."""

    command: str
    kind: str
    door: str
    pulse_ms: int

    sent_at: float
    """When the claim was sent, on the monotonic clock; `ttl_s` counts from here."""

    ttl_s: float


class Commands:
    """The commands of one boot: each is claimed, and perhaps executed, at most once."""

    def __init__(
        self, server: Server, relay: Relay, results: Results, *, boot_id: str, pace: Pace
    ) -> None:
        self._server = server
        self._relay = relay
        self._results = results
        self._boot_id = boot_id
        self._pace = pace
        self._taken: dict[str, asyncio.Future[Result | None]] = {}
        self.in_hand = 0
        """Commands that were told and have no result yet."""

    def take(self, command: str) -> bool:
        """Say whether a told command is new in this boot; it never is again."""
        if command in self._taken:
            return False
        self._taken[command] = asyncio.get_running_loop().create_future()
        if len(self._taken) > REMEMBERED:
            del self._taken[next(iter(self._taken))]
        return True

    async def carry_out(self, command: str, *, told_at: float) -> Result | None:
        """Take one command from its telling to its result, on the disk for the ack.

        Gives the result; None when it was not granted, and nothing was done.
        """
        self.in_hand += 1
        result = None
        try:
            grant = await self._claim(command, until=told_at + CLAIM_WINDOW_S)
            if grant is not None:
                result = self._act(grant)
        finally:
            self.in_hand -= 1
            if (taken := self._taken.get(command)) is not None and not taken.done():
                taken.set_result(result)
        return result

    async def result_of(self, command: str) -> Result | None:
        """Wait for what becomes of a command that somebody else carries out in this boot."""
        taken = self._taken.get(command)
        return None if taken is None else await asyncio.shield(taken)

    async def _claim(self, command: str, *, until: float) -> Grant | None:
        """Claim with one nonce until the server answers or no deadline could still hold."""
        claim = {"boot_id": self._boot_id, "nonce": secrets.token_urlsafe(16)}
        backoff = Backoff(self._pace, first_s=0.2, most_s=1)
        while (left := until - (sent_at := self._pace.monotonic())) > 0:
            try:
                response = await self._server.call(
                    "POST",
                    _path(command, "claim"),
                    json=claim,
                    within_s=min(left, CLAIM_ATTEMPT_S),
                )
                if response.status_code == httpx.codes.OK:
                    return _grant(command, body(response), sent_at=sent_at)
                logger.info("claim refused command=%s code=%s", command, problem(response))
                return None
            except ServerAway as away:
                await self._pace.sleep(min(backoff.next(away.retry_after_s), left))
            except CredentialRefused:
                # The next poll meets the same refusal and deals with it.
                return None
        logger.warning("claim unanswered command=%s", command)
        return None

    def _act(self, grant: Grant) -> Result:
        """Pulse, or do not, and keep the result as soon as the relay is energised.

        Nothing is awaited between the look at the clock and the relay, nor between the relay and
        the disk.
        """
        if grant.kind != "unlock":
            return self._keep(grant, "refused", detail="kind_unknown")
        if not 0 < grant.pulse_ms <= LONGEST_PULSE_MS:
            return self._keep(grant, "refused", detail="pulse_length")
        waited_s = self._pace.monotonic() - grant.sent_at
        if waited_s >= grant.ttl_s:
            return self._keep(grant, "refused", detail="deadline_passed")
        after_ms = int(waited_s * 1000)
        try:
            self._relay.pulse(Pulse(grant.command, grant.door, grant.pulse_ms))
        except Exception as error:
            # A relay may fail in any way its hardware likes; the server hears of it.
            logger.exception("relay failed command=%s door=%s", grant.command, grant.door)
            return self._keep(grant, "failed", detail=_line(f"{type(error).__name__}: {error}"))
        return self._keep(grant, "executed", after_ms=after_ms)

    def _keep(
        self, grant: Grant, result: Any, *, after_ms: int | None = None, detail: str | None = None
    ) -> Result:
        kept = Result(grant.command, self._boot_id, result, after_ms, detail)
        self._results.add(kept)
        logger.info("command command=%s result=%s detail=%s", grant.command, result, detail)
        return kept


def _line(text: str) -> str:
    """Make one line of at most 200 printable characters of it, as the server's `detail` is."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())[:200].strip()


def _path(command: str, act: str) -> str:
    return f"/v1/controller/commands/{quote(command, safe='')}/{act}"


def _grant(command: str, answer: Mapping[str, Any], *, sent_at: float) -> Grant:
    """Read a grant; without a figure for its deadline it has none left, and at most it has 10 s.

    Whatever a server says whose clock went back: nobody stands at the door any longer than that.
    """
    return Grant(
        command=command,
        kind=str(answer.get("kind")),
        door=str(answer.get("door")),
        pulse_ms=int(number(answer.get("pulse_ms"))),
        sent_at=sent_at,
        ttl_s=min(number(answer.get("ttl_ms")) / 1000, CLAIM_WINDOW_S),
    )


async def deliver(results: Results, server: Server, *, pace: Pace, refused_pause_s: float) -> None:
    """Send results until each is answered, for as long as the agent lives.

    One that keeps failing never holds up the others, and a pause ends when there is news: a worker
    may be looking at a phone that waits for this ack.
    """
    backoff = Backoff(pace, first_s=1, most_s=30)
    while True:
        await results.waiting.wait()
        results.news.clear()
        pause_s = 0.0
        for result in results.unacked():
            try:
                await _acknowledge(result, server)
            except ServerAway as away:
                pause_s = max(pause_s, backoff.next(away.retry_after_s))
            except CredentialRefused:
                pause_s = refused_pause_s
                break
            else:
                results.settle(result)
                backoff.reset()
        if pause_s:
            await _first_of(pace.sleep(pause_s), results.news.wait())


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _acknowledge(result: Result, server: Server) -> None:
    """Send one ack. Every answer but a wish to hear it later is final.

    409 keeps it as evidence beside an earlier result; 404 is a command of an earlier enrolment.
    """
    ack: dict[str, Any] = {"boot_id": result.boot_id, "result": result.result}
    if result.pulse_after_claim_ms is not None:
        ack["pulse_after_claim_ms"] = result.pulse_after_claim_ms
    if result.detail is not None:
        ack["detail"] = result.detail
    response = await server.call("POST", _path(result.command, "ack"), json=ack)
    if not response.is_success:
        logger.warning("ack not taken command=%s code=%s", result.command, problem(response))
