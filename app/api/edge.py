"""The edge of the service: size limits, the instant a request was read, headers of every answer.

Plain ASGI, since the framework's middleware class leaks tasks when a client goes away.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.clock import Monotonic, Now
from app.errors import Problem

IMPORT_PATHS = ("/v1/admin/stations/import", "/v1/admin/calendar")
IMPORT_FACTOR = 100
"""Files may be so many times larger than other bodies."""

BATCH_PATHS = ("/v1/controller/events",)
BATCH_FACTOR = 4
"""A batch of 500 events, 256 KiB."""

CONTROLLER_PATHS = ("/v1/controller/",)
"""Answers that say what time it is: a controller has no clock that it could trust."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""What our own pages may load: nothing from anywhere else."""

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
        monotonic: Monotonic,
        now: Now,
        docs_paths: tuple[str, ...],
    ) -> None:
        self._app = app
        self._limit = limit
        self._monotonic = monotonic
        self._now = now
        self._docs_paths = docs_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        limit = self._limit * _factor(path)
        sends = _with_headers(send, bare=path.startswith(self._docs_paths))
        if path.startswith(CONTROLLER_PATHS):
            sends = self._with_time(sends)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await problem_response(BodyTooLarge())(scope, receive, sends)
            return
        await self._app(scope, self._measured(scope, receive, limit), sends)

    def _with_time(self, send: Send) -> Send:
        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                time = (b"server-time", self._now().isoformat().encode())
                message["headers"] = [*message["headers"], time]
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


def _factor(path: str) -> int:
    if path.startswith(IMPORT_PATHS):
        return IMPORT_FACTOR
    return BATCH_FACTOR if path.startswith(BATCH_PATHS) else 1


def _with_headers(send: Send, *, bare: bool) -> Send:
    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start" and not bare:
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *(header for header in _HEADERS if header[0] not in present),
            ]
        await send(message)

    return sends
