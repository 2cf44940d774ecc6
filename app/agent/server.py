"""The server as the agent sees it: there, away, or refusing the credential."""

import asyncio
import logging
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from app.agent.link import Link

logger = logging.getLogger(__name__)

CALL_S = 10.0
"""How long an ordinary call may take, in seconds, from sending to the last byte."""

LONGEST_RETRY_AFTER_S = 120.0
"""No header keeps a door offline for longer than this, in seconds."""

LATER = (408, 425, 429)
"""Statuses below 500 that are worth another try."""


class ServerAway(Exception):
    """The server gave no usable answer; another try may."""

    def __init__(self, why: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class CredentialRefused(Exception):
    """The server does not know the credential (any more)."""


class Http(Protocol):
    """What sends a request: an `httpx.AsyncClient`, or a fleet's own wire."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        params: Any = None,
        headers: Any = None,
        timeout: Any = None,
    ) -> httpx.Response:
        """Give the answer; raises `httpx.RequestError` or `OSError` when there is none."""
        ...


class Server:
    """One server over HTTP, with the credential of this controller once there is one."""

    def __init__(self, url: str, http: Http, link: Link, *, firmware: str) -> None:
        self.credential: str | None = None
        self._link = link
        self._url = url.rstrip("/")
        self._http = http
        self._firmware = firmware
        self._away = False
        parts = urlsplit(self._url)
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            logger.warning("credential travels unencrypted url=%s", self._url)

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        within_s: float = CALL_S,
    ) -> httpx.Response:
        """Send one request and give the answer, whatever it says, within `within_s` seconds.

        Raises `ServerAway` when there is none that could be meant for us, `CredentialRefused` on a
        401 to our credential.
        """
        sent = {"User-Agent": f"yizhan-agent/{self._firmware}", **(headers or {})}
        if self.credential:
            sent["Authorization"] = f"Bearer {self.credential}"
        sent_at = self._link.sent()
        try:
            # httpx limits each read, and an answer may trickle: the whole has its own limit.
            async with asyncio.timeout(within_s):
                response = await self._http.request(
                    method,
                    self._url + path,
                    json=json,
                    params=params,
                    headers=sent,
                    timeout=httpx.Timeout(CALL_S, read=within_s),
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            if within_s < CALL_S:
                # The caller was in a hurry; that says little about the server.
                raise ServerAway("no answer in time") from error
            raise self._lost("no answer in time") from error
        except (httpx.RequestError, OSError) as error:
            raise self._lost(f"{type(error).__name__} {error}".strip()) from error
        status = response.status_code
        if status >= 500 or (300 <= status < 400 and status != 304):
            raise self._lost(f"status {status}", retry_after_s=_retry_after_s(response))
        if status in LATER:
            raise ServerAway(f"status {status}", retry_after_s=_retry_after_s(response))
        self._link.heard(response, sent_at)
        if status == 401 and self.credential:
            raise CredentialRefused
        if self._away:
            self._away = False
            logger.info("server is back url=%s", self._url)
        return response

    def _lost(self, why: str, *, retry_after_s: float = 0.0) -> ServerAway:
        """Log once that the server went away, not at every try."""
        if not self._away:
            self._away = True
            logger.warning("server is away url=%s why=%s", self._url, why)
        return ServerAway(why, retry_after_s=retry_after_s)


def body(response: httpx.Response) -> dict[str, Any]:
    """Read a JSON object; whoever answers something else (a captive portal) is not our server."""
    try:
        read = response.json()
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise ServerAway("the answer is not a JSON object")
    return read


def problem(response: httpx.Response) -> str:
    """Give the machine-readable code of an error, or its status where there is none."""
    try:
        return str(body(response)["code"])
    except (ServerAway, KeyError):
        return f"status {response.status_code}"


def detail(response: httpx.Response) -> str:
    """Give what an error says to a person, or its code where it says nothing."""
    try:
        said = body(response).get("detail")
    except ServerAway:
        said = None
    return said if isinstance(said, str) and said.isprintable() else problem(response)


def number(value: object) -> float:
    """Read a figure the server sent; what is none, or is negative, counts as 0."""
    try:
        read = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return read if 0.0 <= read < float("inf") else 0.0


def _retry_after_s(response: httpx.Response) -> float:
    """Read `Retry-After`, seconds or a date; a date counts from the server's own `Date`."""
    header = response.headers.get("Retry-After", "")
    seconds = number(header)
    if not seconds and "Date" in response.headers:
        try:
            until, now = (parsedate_to_datetime(h) for h in (header, response.headers["Date"]))
            seconds = max(0.0, (until - now).total_seconds())
        except (ValueError, TypeError, OverflowError):
            seconds = 0.0
    return min(seconds, LONGEST_RETRY_AFTER_S)
