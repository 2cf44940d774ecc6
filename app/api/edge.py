"""The edge of the service: size limits, when a request came and was read, headers of every answer.

Plain ASGI, since the framework's middleware class leaks tasks when a client goes away.

What controllers can wait for stands in line (`doors/line.py`) for half of the database's
connections: when thousands come at once, doors go first. Whoever gave up is not served any more.
"""

from collections.abc import Coroutine
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.clock import Monotonic, Now
from app.doors.line import Line, ServerBusy
from app.errors import Problem

IMPORT_PATHS = ("/v1/admin/stations/import", "/v1/admin/calendar")
IMPORT_FACTOR = 100
"""Files may be so many times larger than other bodies."""

BATCH_PATHS = ("/v1/controller/events",)
BATCH_FACTOR = 4
"""A batch of 500 events, 256 KiB."""

CONTROLLER_PATHS = ("/v1/controller/",)
"""Answers that say what time it is: a controller has no clock that it could trust."""

PAPERWORK = tuple(f"/v1/controller/{name}" for name in ("config", "credential", "denials", "enrol"))
"""What controllers can wait for; uploads of journals have a line of their own."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""What our own pages may load: nothing from anywhere else."""

_OF_BODIES = frozenset({b"content-length", b"transfer-encoding"})
"""A request without these has no body (RFC 9112, 6.3)."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
)


class BodyTooLarge(Problem):
    """The body is too large."""

    status = 413


class Edge:
    """Wraps the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        paperwork: Line,
        monotonic: Monotonic,
        now: Now,
        docs_paths: tuple[str, ...],
    ) -> None:
        self._app = app
        self._paperwork = paperwork
        self._limit = limit
        self._monotonic = monotonic
        self._now = now
        self._docs_paths = docs_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["arrived_at"] = scope["read_at"] = self._monotonic()
        path: str = scope["path"]
        limit = self._limit * _factor(path)
        sends = self._with_headers(send, path)
        bodied = {name: text for name, text in scope["headers"] if name in _OF_BODIES}
        length = bodied.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await problem_response(BodyTooLarge())(scope, receive, sends)
            return
        if not path.startswith(PAPERWORK):
            reads = self._measured(scope, receive, limit) if bodied else receive
            await self._app(scope, reads, sends)
            return
        try:
            async with self._paperwork.place():
                told = told_now(receive)
                if told is not None and told["type"] == "http.disconnect":
                    return
                again = receive if told is None else _beginning_with(told, receive)
                await self._app(scope, self._measured(scope, again, limit), sends)
        except ServerBusy as busy:
            await problem_response(busy)(scope, receive, sends)

    def _with_headers(self, send: Send, path: str) -> Send:
        own = () if path.startswith(self._docs_paths) else _HEADERS
        tells_time = path.startswith(CONTROLLER_PATHS)

        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                present = {name.lower() for name, _ in headers}
                message["headers"] = more = [*headers, *(h for h in own if h[0] not in present)]
                if tells_time:
                    more.append((b"server-time", self._now().isoformat().encode()))
            await send(message)

        return sends

    def _measured(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        received = 0
        scope["read_at"] = self._monotonic()

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise BodyTooLarge
                scope["read_at"] = self._monotonic()
            return message

        return measured


def told_now(receive: Receive) -> Message | None:
    """Give what a connection has to tell at this instant; None when we would have to wait.

    One step of `receive`, without the cancellation by which the framework looks: for every poll of
    a city that would be felt.
    """
    step = cast(Coroutine[Any, Any, Message], receive())
    try:
        step.send(None)
    except StopIteration as told:
        return cast(Message, told.value)
    step.close()
    return None


def hung_up(receive: Receive) -> bool:
    """Say whether the caller is gone."""
    for _ in range(2):  # The first look takes the request's empty body.
        told = told_now(receive)
        if told is None or told["type"] == "http.disconnect":
            return told is not None
    return False


def _beginning_with(first: Message, receive: Receive) -> Receive:
    told = [first]

    async def receives() -> Message:
        return told.pop() if told else await receive()

    return receives


def _factor(path: str) -> int:
    if path.startswith(IMPORT_PATHS):
        return IMPORT_FACTOR
    return BATCH_FACTOR if path.startswith(BATCH_PATHS) else 1
