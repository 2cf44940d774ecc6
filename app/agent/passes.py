"""Passes at the reader of a door: asked of the server while it is heard, else judged here.

The judgement made here is a small policy of its own (`app/doors/rules/alone.py`), by the config,
the keys and the denials that the server gave last. What was opened alone is told by the journal,
and the server reviews it.
"""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from app.agent.journal import Journal
from app.agent.link import Estimate, Link, instant
from app.agent.pace import Pace, Patience
from app.agent.relay import Pulse, Relay
from app.agent.server import CredentialRefused, Server, ServerAway, body, number
from app.agent.state import Result, StateFolder
from app.doors import tokens
from app.doors.rules.alone import Alone, Hindrance, hindrance, reason_of
from app.doors.tokens import PassClaims, TokenKind, TokenRefusal, VerifyingKey
from app.places.rules import Because, Kind, Window

logger = logging.getLogger(__name__)

KEYS_FILE = "jwks.json"
DENIALS_FILE = "denials.json"

KEYS_EVERY_S = 3600.0
"""How often the keys are fetched, in seconds, with a quarter of jitter."""

UNKNOWN_KID_S = 300.0
"""At most one fetch more in this time for a `kid` nobody knows: anybody can make one up (5.4)."""

FIRST_PAUSE_S, MOST_PAUSE_S = 5.0, 60.0
"""Pauses after keys or denials that could not be fetched, in seconds; polls go on meanwhile."""

VERIFY_S = 4.0
"""How long somebody at the door waits for the server's word on his pass, in seconds."""

REFUSALS_KEPT = 30
"""Refused passes that are written down in one hour; more would only fill the journal."""


CarryOut = Callable[[str], Awaitable[Result | None]]
"""Takes a command to its result; None: it was not granted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody at the reader is told."""

    opened: bool
    reason: str
    """A reason as of a scan; `ok`."""
    why: str | None = None
    """More exactly, when we were alone, or when what the server allowed did not come about."""


class Passes:
    """The reader's side of one controller."""

    def __init__(
        self, state: StateFolder, link: Link, journal: Journal, relay: Relay, pace: Pace
    ) -> None:
        self._state = state
        self._link = link
        self._journal = journal
        self._relay = relay
        self._pace = pace
        self._keys_kept: dict[str, Any] = {}
        self._keys: dict[str, VerifyingKey] = {}
        self._denials: dict[str, Any] = {}
        self._config: Mapping[str, Any] = {}
        self._windows: list[Window] = []
        self._keys_due = 0.0
        self._keys_fetched: float | None = None
        """When this boot fetched them, on the monotonic clock; `_date_keys` makes a time of it."""
        self._keys_patience = Patience(pace, first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S)
        self._denials_patience = Patience(pace, first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S)
        self._unknown_due = 0.0
        self._refusals: list[float] = []
        self._used_unkept: set[str] = set()
        """Passes that were shown while the disk refused to remember them; a handful."""

    def recall(self) -> None:
        """Take over what an earlier boot kept."""
        self._keys_kept = self._state.read(KEYS_FILE)
        self._keys = _read_keys(self._keys_kept.get("keys"))
        self._denials = self._state.read(DENIALS_FILE)

    def follow(self, config: Mapping[str, Any]) -> None:
        """Take over a config that the server gave, or that an earlier boot kept."""
        self._config = config
        self._windows = windows_of(config)

    def forget(self) -> None:
        """The server revoked us: nothing opens alone any more."""
        self._keys, self._keys_kept = {}, {}
        self.follow({})
        self._state.write_if_possible(KEYS_FILE, {})

    def mode(self) -> Kind | None:
        """Say what holds at the station now; None when we cannot know."""
        estimate = self._link.now()
        return self._kind(estimate) if estimate else None

    async def refresh(self, server: Server) -> None:
        """Fetch what judging alone needs, when it is due; raises CredentialRefused.

        What cannot be fetched is tried again later: nobody's door waits for it.
        """
        if self._judges_alone():
            self._date_keys()
            await self._refresh_keys(server)
        # Another config may have come meanwhile.
        if self._judges_alone():
            await self._refresh_denials(server)

    def _judges_alone(self) -> bool:
        return self._policy().get("kind") == "passes"

    async def _refresh_keys(self, server: Server) -> None:
        if self._pace.monotonic() < self._keys_due or not self._keys_patience.is_over:
            return
        try:
            await self._fetch_keys(server)
        except ServerAway as away:
            logger.warning("keys not fetched why=%s", away)
            self._keys_patience.failed(away.retry_after_s)
        else:
            self._keys_patience.succeeded()

    async def _refresh_denials(self, server: Server) -> None:
        wanted = int(number(self._policy().get("denial_version")))
        if wanted == self._denials.get("version", 0) or not self._denials_patience.is_over:
            return
        try:
            while await self._fetch_denials(server):
                if wanted == self._denials.get("version", 0):
                    break
        except ServerAway as away:
            logger.warning("denials not fetched why=%s", away)
            self._denials_patience.failed(away.retry_after_s)
        else:
            self._denials_patience.succeeded()

    async def shown(self, door: str, token: str, server: Server, carry_out: CarryOut) -> Answer:
        """Judge what the reader at a door saw; `carry_out` takes a command to its result.

        While the server is heard, its word counts, and no word opens nothing: what it may have
        decided must not be decided again here.
        """
        if self._link.alone:
            answer = await self._alone(door, token)
        else:
            answer = await self._asked(door, token, server, carry_out)
        logger.info("pass door=%s opened=%s reason=%s", door, answer.opened, answer.reason)
        return answer

    async def _asked(self, door: str, token: str, server: Server, carry_out: CarryOut) -> Answer:
        self._remember(token)
        try:
            response = await server.call(
                "POST",
                "/v1/controller/verify",
                json={"door": door, "token": token},
                within_s=VERIFY_S,
            )
            said = body(response)
        except (ServerAway, CredentialRefused) as error:
            return Answer(False, "controller_offline", type(error).__name__)
        if not response.is_success:
            return Answer(False, "controller_offline", str(said.get("code")))
        command = said.get("command")
        if said.get("valid") is not True or not isinstance(command, str):
            # Without a command the door is free: it stands open to anybody.
            return Answer(said.get("valid") is True, str(said.get("reason")))
        result = await carry_out(command)
        if result is None:
            return Answer(False, "controller_offline", "not_granted")
        if result.result != "executed":
            return Answer(False, "controller_offline", result.detail)
        return Answer(True, str(said.get("reason")))

    def _remember(self, token: str) -> None:
        """Use a good pass up here too: the link may break before the server's answer is there."""
        estimate, station = self._link.now(), self._station()
        if estimate is None or station is None:
            return
        claims = self._claims(token, estimate, station)
        if not isinstance(claims, PassClaims):
            return
        try:
            self._journal.use(claims.jti, claims.expires_at)
        except sqlite3.Error as error:
            # The server's word opens the door all the same, and knows what was used.
            logger.error("pass not remembered on the disk why=%s", error)
            self._used_unkept.add(claims.jti)

    async def _alone(self, door: str, token: str) -> Answer:
        """Judge by ourselves.

        1. Whether anything opens here now: the policy, our clock, our keys, the mode.
        2. Whether this is a pass of ours, in its time, whose worker nobody denied.
        3. Use it up and note the act, in one write on the disk; pulse; record.
        """
        estimate, station = self._link.now(), self._station()
        found = hindrance(self._standing(estimate))
        if found is not None or estimate is None or station is None:
            return self._refused(door, found or Hindrance.CLOCK_UNKNOWN, None)
        pulse_ms = self._pulse_ms(door)
        claims = self._claims(token, estimate, station)
        if isinstance(claims, TokenRefusal):
            return self._refused(door, Hindrance(claims.value), None)
        if pulse_ms is None:
            return self._refused(door, Hindrance.TOKEN_INVALID, claims)
        if self._is_denied(claims, estimate):
            return self._refused(door, Hindrance.DENIED, claims)
        if self._before_boot(claims):
            return self._refused(door, Hindrance.BEFORE_BOOT, claims)
        if self._kind(estimate) is Kind.FREE:
            # The door stands open to anybody; nothing to pulse, nothing used up.
            return Answer(True, "ok", "free")
        return await self._open(door, pulse_ms, claims, estimate)

    async def _open(
        self, door: str, pulse_ms: int, claims: PassClaims, estimate: Estimate
    ) -> Answer:
        told = {
            "door": door,
            "result": "opened",
            "reason": "ok",
            "clock_error_ms": int(estimate.error / timedelta(milliseconds=1)),
            "config_version": str(self._config.get("version", "")),
        }
        if claims.jti in self._used_unkept:
            return self._refused(door, Hindrance.USED, claims)
        try:
            is_new = self._journal.begin(claims.jti, claims.expires_at, "offline_entry", **told)
        except sqlite3.Error as error:
            # Nobody would know after a power cut that this pass opened.
            logger.error("pass not begun on the disk door=%s why=%s", door, error)
            return Answer(False, "controller_offline", "journal")
        if not is_new:
            return self._refused(door, Hindrance.USED, claims)
        try:
            self._relay.pulse(Pulse(f"pass:{claims.jti}", door, pulse_ms))
        except Exception as error:
            # A relay may fail in any way its hardware likes; the pass is gone, the door is shut.
            logger.exception("relay failed door=%s", door)
            failed = {"result": "refused", "reason": "controller_offline"}
            self._journal.finish(claims.jti, **failed, why=f"relay: {type(error).__name__}"[:100])
            return Answer(False, "controller_offline", "relay")
        self._journal.finish(claims.jti)
        return Answer(True, "ok")

    def _refused(self, door: str, why: Hindrance, claims: PassClaims | None) -> Answer:
        reason = reason_of(why)
        now = self._pace.monotonic()
        self._refusals = [at for at in self._refusals if now - at < 3600]
        if len(self._refusals) < REFUSALS_KEPT and self._pulse_ms(door) is not None:
            self._refusals.append(now)
            told = {"door": door, "result": "refused", "reason": reason.value, "why": why.value}
            self._journal.record("offline_entry", **told, **({"jti": claims.jti} if claims else {}))
        return Answer(False, reason.value, why.value)

    def _standing(self, estimate: Estimate | None) -> Alone:
        policy = self._policy()
        hours = int(number(policy.get("hours"))) if policy.get("kind") == "passes" else 0
        at = estimate.at if estimate else datetime(1970, 1, 1, tzinfo=UTC)
        return Alone(
            hours=hours or None,
            heard_ago=self._link.heard_ago(),
            error=estimate.error if estimate else None,
            keys_age=self._keys_age(at) if self._keys else None,
            windows=self._windows,
            at=at,
        )

    def _claims(self, token: str, estimate: Estimate, station: str) -> PassClaims | TokenRefusal:
        """Check a pass at every instant that it may be now."""
        found: PassClaims | TokenRefusal = TokenRefusal.TOKEN_INVALID
        for at in (estimate.at, estimate.at - estimate.error, estimate.at + estimate.error):
            found = tokens.verify_pass(self._keys, token, at, audience=station)
            if isinstance(found, PassClaims):
                return found
        if tokens.kid_of(token) not in self._keys:
            self._unknown_kid()
        # Said as of the likeliest instant.
        return tokens.verify_pass(self._keys, token, estimate.at, audience=station)

    def _unknown_kid(self) -> None:
        now = self._pace.monotonic()
        if now >= self._unknown_due:
            self._unknown_due = now + UNKNOWN_KID_S
            self._keys_due = now

    def _is_denied(self, claims: PassClaims, estimate: Estimate) -> bool:
        held = self._denials.get("until")
        until = instant(held.get(claims.worker)) if isinstance(held, dict) else None
        return until is not None and until > estimate.at

    def _before_boot(self, claims: PassClaims) -> bool:
        """Whether a pass may have been shown to an earlier boot, whose memory is gone (T03)."""
        if self._journal.remembers:
            return False
        boot = self._link.boot_at()
        return boot is None or claims.issued_at <= boot.at + boot.error

    def _policy(self) -> Mapping[str, Any]:
        policy = self._config.get("offline_policy")
        return policy if isinstance(policy, dict) else {}

    def _station(self) -> str | None:
        station = self._config.get("station")
        return str(station["code"]) if isinstance(station, dict) and "code" in station else None

    def _pulse_ms(self, door: str) -> int | None:
        doors = self._config.get("doors")
        for one in doors if isinstance(doors, list) else []:
            if isinstance(one, dict) and one.get("id") == door:
                return int(number(one.get("pulse_ms"))) or None
        return None

    def _kind(self, estimate: Estimate) -> Kind | None:
        return kind_at(self._windows, estimate.at)

    def _keys_age(self, at: datetime) -> timedelta | None:
        fetched = instant(self._keys_kept.get("fetched_at"))
        return at - fetched if fetched is not None else None

    async def _fetch_keys(self, server: Server) -> None:
        etag = self._keys_kept.get("etag")
        headers = {"If-None-Match": str(etag)} if etag else None
        response = await server.call("GET", "/.well-known/jwks.json", headers=headers)
        kept = self._keys_kept.get("keys")
        if response.status_code != httpx.codes.NOT_MODIFIED:
            if response.status_code != httpx.codes.OK:
                raise ServerAway(f"keys answered {response.status_code}")
            kept, etag = body(response).get("keys"), response.headers.get("ETag")
        now = self._pace.monotonic()
        self._keys_due = now + KEYS_EVERY_S * self._pace.dice.uniform(0.75, 1.25)
        self._keys_fetched = now
        self._keys_kept = {"etag": etag, "keys": kept}
        self._keys = _read_keys(kept)
        self._date_keys()

    def _date_keys(self) -> None:
        """Write fetched keys down, as soon as anybody knows what time that was.

        This answer says nothing of the time, and a box without a battery knows none before its
        first poll.
        """
        estimate, fetched = self._link.now(), self._keys_fetched
        if estimate is None or fetched is None or "fetched_at" in self._keys_kept:
            return
        at = estimate.at - timedelta(seconds=self._pace.monotonic() - fetched)
        self._keys_kept["fetched_at"] = at.isoformat()
        self._state.write_if_possible(KEYS_FILE, self._keys_kept)

    async def _fetch_denials(self, server: Server) -> bool:
        """Fetch what is new; says whether there is more."""
        response = await server.call(
            "GET",
            "/v1/controller/denials",
            params={"since": str(self._denials.get("version", 0))},
        )
        if response.status_code != httpx.codes.OK:
            raise ServerAway(f"denials answered {response.status_code}")
        said = body(response)
        estimate = self._link.now()
        news, whole = _news(said.get("denials"))
        until = _read_denials(self._denials.get("until")) | news
        if estimate is not None:
            now = estimate.at - estimate.error
            until = {who: at for who, at in until.items() if at > now}
        # What could not be read is asked for again: by the version it would count as known.
        version = int(number(said.get("version"))) if whole else self._denials.get("version", 0)
        self._denials = {
            "version": version,
            "until": {who: at.isoformat() for who, at in until.items()},
        }
        self._state.write_if_possible(DENIALS_FILE, self._denials)
        return whole and said.get("more") is True


def _read_denials(kept: object) -> dict[str, datetime]:
    """Read the denials that we wrote down ourselves."""
    read = {who: instant(at) for who, at in kept.items()} if isinstance(kept, dict) else {}
    return {who: at for who, at in read.items() if at is not None}


def _news(denials: object) -> tuple[dict[str, datetime], bool]:
    """Read the denials of an answer, and say whether that is all of them."""
    if not isinstance(denials, list):
        return {}, False
    found, whole = {}, True
    for one in denials:
        subject = one.get("subject") if isinstance(one, dict) else None
        until = instant(one.get("until")) if isinstance(one, dict) else None
        if isinstance(subject, str) and until is not None:
            found[subject] = until
        else:
            whole = False
    if not whole:
        logger.warning("denials cannot be read, of %d some", len(denials))
    return found, whole


def windows_of(config: Mapping[str, Any]) -> list[Window]:
    """Read the mode windows of a config; one that cannot be read is left out.

    A newer server may know more modes; in one that we do not know nothing opens.
    """
    found, unreadable = [], []
    windows = config.get("windows")
    for one in windows if isinstance(windows, list) else []:
        try:
            from_at, until_at = instant(one["from"]), instant(one["until"])
            if from_at is None or until_at is None:
                raise ValueError("no time")
            found.append(Window(from_at, until_at, Kind(one["kind"]), Because(one["because"])))
        except (KeyError, TypeError, ValueError):
            unreadable.append(one)
    if unreadable:
        logger.warning("windows cannot be read number=%d one=%s", len(unreadable), unreadable[0])
    return found


def kind_at(windows: list[Window], at: datetime) -> Kind | None:
    """Say which mode holds at an instant; None when the config does not say."""
    return next((one.kind for one in windows if one.from_at <= at < one.until_at), None)


def _read_keys(jwks: object) -> dict[str, VerifyingKey]:
    """Read the keys of passes; whatever else stands in the set is not for us."""
    found = {}
    for one in jwks if isinstance(jwks, list) else []:
        key = tokens.read_jwk(one)
        if key is not None and key.kind is TokenKind.PASS:
            found[key.kid] = key
    return found
