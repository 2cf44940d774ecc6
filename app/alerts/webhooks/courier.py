"""The courier: one POST to one address on the open internet, and nothing else (promises T31).

Whoever may add a webhook chooses where this machine connects to. So the host must be one that the
operator listed; its name is looked up once, every address that comes back must be public, and the
connection goes to that very address, with the certificate checked against the name. No redirect is
followed, no proxy of the environment used, and little of the answer is read.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from app.alerts.webhooks.rules import (
    ERROR_LENGTH,
    TIMEOUT,
    Target,
    first_words,
    is_public,
    target_of,
)
from app.clock import Monotonic

if TYPE_CHECKING:
    # Loaded where something is sent: it takes 5 MiB of every server.
    import httpx

CONNECT_S = 2.0
"""For one address, so that a second one still gets its turn."""
MAX_ADDRESSES = 3
ENOUGH = 4 * ERROR_LENGTH
"""Bytes of a bad answer that are kept; it comes in parts of 64 KiB at most, and mostly one."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Looks a name up: the addresses, best first; raises OSError."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try."""

    status: int | None
    """None: there was no answer."""
    error: str | None
    """None: it was delivered."""
    duration_ms: int


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int | None
    error: str | None


@lru_cache(maxsize=1)
def _resolvers() -> ThreadPoolExecutor:
    """Threads of their own: a name server that hangs must not hold up whoever else needs one."""
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="webhook-name")


async def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().run_in_executor(
        _resolvers(), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@lru_cache(maxsize=1)
def public_trust() -> ssl.SSLContext:
    """Trust the public authorities, whatever the environment says."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True)
class Courier:
    """Carries a body to an address."""

    hosts: Collection[str]
    """Who may be told: `name`, or `name:port` where that is not 443. Empty: nobody."""
    monotonic: Monotonic
    resolve: Resolve = look_up
    permits: Callable[[str], bool] = is_public
    """Whether an address may be connected to; a test lets its own receiver through."""
    trust: Callable[[], ssl.SSLContext] = public_trust
    timeout_s: float = field(default=TIMEOUT.total_seconds())

    def may_tell(self, url: str) -> bool:
        """Whether this is an address of a listed host."""
        target = target_of(url)
        return target is not None and target.authority in self.hosts

    async def post(self, url: str, *, headers: dict[str, str], body: bytes) -> Outcome:
        """Post a body; any answer but 2xx, and no answer within five seconds, is a failure."""
        begun = self.monotonic()
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._post(url, headers, body)
        except TimeoutError:
            answer = _Answer(None, "no answer in time")
        return Outcome(answer.status, answer.error, int((self.monotonic() - begun) * 1000))

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> _Answer:
        target = target_of(url)
        if target is None or target.authority not in self.hosts:
            return _Answer(None, "this host is not listed in WEBHOOK_HOSTS")
        try:
            addresses = await self.resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            return _Answer(None, first_words(f"the name was not found: {error}"))
        if not addresses:
            return _Answer(None, "the name has no address")
        if not all(self.permits(address) for address in addresses):
            return _Answer(None, "the name leads to an address that is not public")
        import httpx

        answer = _Answer(None, None)
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._post_to(address, target, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing was sent yet: the next address may answer.
                answer = _Answer(None, _words(error))
            except (httpx.HTTPError, OSError) as error:
                return _Answer(None, _words(error))
        return answer

    async def _post_to(
        self, address: str, target: Target, headers: dict[str, str], body: bytes
    ) -> _Answer:
        """Post to an address that was checked; httpx never sees the name as something to find."""
        import httpx

        transport = httpx.AsyncHTTPTransport(verify=self.trust(), trust_env=False)
        limits = httpx.Timeout(self.timeout_s, connect=CONNECT_S)
        async with httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, timeout=limits
        ) as client:
            at = f"[{address}]" if ":" in address else address
            request = client.build_request(
                "POST",
                f"https://{at}:{target.port}{target.path}",
                headers={
                    **headers,
                    "Host": target.authority,
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    "User-Agent": "yizhan-webhooks/1",
                },
                content=body,
                extensions={"sni_hostname": target.host},
            )
            answer = await client.send(request, stream=True)
            try:
                if answer.is_success:
                    return _Answer(answer.status_code, None)  # Its body says nothing to us.
                words = first_words(f"answered {answer.status_code}: {await _beginning(answer)}")
                return _Answer(answer.status_code, words)
            finally:
                await answer.aclose()


async def _beginning(answer: "httpx.Response") -> str:
    """Read the first words of an answer, packed or not; what follows is never asked for."""
    read = b""
    async for part in answer.aiter_raw():
        read += part
        if len(read) >= ENOUGH:
            break
    return read[:ENOUGH].decode("utf-8", "replace")


def _words(error: Exception) -> str:
    return first_words(f"{type(error).__name__}: {error}")
