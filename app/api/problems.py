"""The one place that knows application/problem+json (RFC 9457)."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path
from typing_extensions import override

from app.errors import Conflict, Malformed, Problem, RequestInvalid, Unavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class DatabaseUnavailable(Unavailable):
    """The database does not answer just now; please try again."""


class AlreadyThere(Conflict):
    """Somebody else wrote the same at the same time; look again."""


class JsonMalformed(Malformed):
    """The body is not valid JSON."""


class InternalError(Problem):
    """Something went wrong on our side."""


def body(problem: Problem) -> dict[str, Any]:
    """Give the members of one problem."""
    return {
        "type": f"/problems/{problem.slug()}",
        "title": problem.title(),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code(),
        **problem.extensions,
    }


class ProblemResponse(JSONResponse):
    """A problem, even one that quotes half a surrogate pair, which UTF-8 cannot write."""

    media_type = MEDIA_TYPE

    @override
    def render(self, content: Any) -> bytes:
        """Write such halves as JSON escapes, as they came in."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def problem_response(problem: Problem) -> JSONResponse:
    """Answer with a problem; for handlers whose transaction must still commit."""
    headers = {}
    retry_after_s = getattr(problem, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, int(retry_after_s)))
    elif problem.status == Unavailable.status:
        headers["Retry-After"] = "1"
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return ProblemResponse(
        jsonable_encoder(body(problem)), status_code=problem.status, headers=headers
    )


_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "loc": {"type": "array", "items": {}},
                    "message": {"type": "string"},
                },
                "required": ["loc", "message"],
            },
        },
    },
}

_ALWAYS: tuple[type[Problem], ...] = (RequestInvalid, JsonMalformed, DatabaseUnavailable)


def problems(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Describe for OpenAPI which problems a route answers with, besides those that all can."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in (*kinds, *_ALWAYS):
        entry = described.setdefault(
            kind.status, {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        )
        line = f"`{kind.code()}`: {kind.title()}"
        if line not in entry["description"]:
            entry["description"] = f"{entry['description']}\n\n{line}".strip()
    return described


def catalogue() -> Iterator[type[Problem]]:
    """Give every concrete problem, in the order of their codes."""

    def below(kind: type[Problem]) -> Iterator[type[Problem]]:
        for child in kind.__subclasses__():
            if not child.__subclasses__() or child.__module__ != Problem.__module__:
                yield child
            yield from below(child)

    yield from sorted(
        {kind for kind in below(Problem) if kind.__module__ != Problem.__module__},
        key=lambda kind: kind.code(),
    )


def install(app: FastAPI) -> None:
    """Make every failure answer as a problem."""
    for kind, answer in expected_failures().items():
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, _unexpected)


Answers = Callable[[Request, Exception], Awaitable[JSONResponse]]


def expected_failures() -> Mapping[type[Exception], Answers]:
    """Give the failures that a working service meets, and how each is answered."""
    return {
        Problem: _problem,
        RequestValidationError: _validation,
        HTTPException: _http,
        DBAPIError: _database,
        PoolTimeoutError: _database,
        OSError: _database,
        asyncpg.PostgresError: _database,
        asyncpg.InterfaceError: _database,
    }


async def _problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return problem_response(JsonMalformed())
    errors = [
        {"loc": [_plain(part) for part in item["loc"]], "message": _sentence(item)}
        for item in found
    ]
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem_response(RequestInvalid(f"{where}: {first['message']}", errors=errors))


def _plain(part: Any) -> Any:
    return part if isinstance(part, int) else str(part)


def _sentence(item: Mapping[str, Any]) -> str:
    # Pydantic puts "Value error, " before what our own validators say.
    return str(item["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    known = {
        400: ("malformed", "The request cannot be understood."),
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This address does not know this method."),
        413: ("body_too_large", "The body is too large."),
    }
    code, title = known.get(error.status_code, ("http_error", str(error.detail)))
    return JSONResponse(
        {
            "type": f"/problems/{code.replace('_', '-')}",
            "title": title,
            "status": error.status_code,
            "detail": title,
            "code": code,
        },
        status_code=error.status_code,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def _methods(request: Request) -> list[str]:
    """Give every method of an address: the router itself knows only the first route's."""
    paths = request.app.openapi()["paths"]
    asked = request.url.path
    matching = [path for path in paths if path == asked or compile_path(path)[0].fullmatch(asked)]
    # An address that is written out is more than one that a pattern happens to fit.
    chosen = [asked] if asked in paths else matching
    return sorted({method.upper() for path in chosen for method in paths[path]})


async def _database(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, IntegrityError):
        # Two requests raced for the same unique value; the constraint kept the data right.
        log.warning("constraint error=%s", type(error.orig).__name__)
        return problem_response(AlreadyThere())
    if isinstance(error, DBAPIError) and str(getattr(error.orig, "sqlstate", "")).startswith("22"):
        # A value that no column holds, such as a NUL; whoever let it come this far should be told.
        log.warning("value error=%s", type(error.orig).__name__)
        return problem_response(RequestInvalid("The request holds a value that cannot be stored."))
    log.error("database error=%s", type(error).__name__, exc_info=error)
    return problem_response(DatabaseUnavailable())


async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error=%s", type(error).__name__, exc_info=error)
    return problem_response(InternalError())
