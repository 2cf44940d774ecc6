"""What is neither worker nor station: the pages, the keys, health, metrics, the problem list."""

import gzip
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import StringConstraints
from sqlalchemy import text

from app import jobs
from app.api.deps import Held, Now, ReadTx, WriteTx, unchanged
from app.api.guards import ticket_cookie
from app.api.problems import catalogue, problems
from app.api.shapes import In, Out
from app.db.engine import NotDurable
from app.doors import registry, screens, tokens
from app.errors import NotFound, Unavailable
from app.places.rules import Because, Kind, mode_at
from app.places.standing import list_changes, station_rules


async def public() -> None:
    """Anybody may call this."""


public.policy = "public"  # type: ignore[attr-defined]  # Read by the policy test.

router = APIRouter(tags=["public"], dependencies=[Depends(public)])

PAGE_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class PageNotFound(NotFound):
    """There is no such page."""


class NotReady(Unavailable):
    """The service cannot do its work just now."""


class DoorCodeUnknown(NotFound):
    """This code names no door in use."""


@dataclass(frozen=True, slots=True)
class _Asset:
    """A file of the page, plain and compressed; the page must stay small over a slow link."""

    plain: bytes
    zipped: bytes
    etag: str


@lru_cache(maxsize=32)
def _asset(name: str) -> _Asset:
    plain = resources.files("app.pages").joinpath(name).read_bytes()
    etag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
    return _Asset(plain, gzip.compress(plain, mtime=0), etag)


def _sent(name: str, media_type: str, request: Request) -> Response:
    asset = _asset(name)
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.zipped, media_type=media_type, headers=headers)
    return Response(asset.plain, media_type=media_type, headers=headers)


@router.get("/s/{token:path}", response_class=HTMLResponse, include_in_schema=False)
async def page(token: Annotated[str, Path()], request: Request) -> Response:
    """Give the phone page; it reads the code from its own address."""
    return _sent("scan.html", "text/html; charset=utf-8", request)


@router.get("/admin/reports", response_class=HTMLResponse, include_in_schema=False)
async def reports_page(request: Request) -> Response:
    """Give the administrator's page of reports; what it asks for is in its own address."""
    return _sent("reports.html", "text/html; charset=utf-8", request)


@router.get("/pages/{name}", include_in_schema=False)
async def page_asset(name: Annotated[str, Path()], request: Request) -> Response:
    """Give a file of a page."""
    kind = next((kind for end, kind in PAGE_TYPES.items() if name.endswith(end)), None)
    known = {entry.name for entry in resources.files("app.pages").iterdir()}
    if kind is None or name not in known:
        raise PageNotFound
    return _sent(name, kind, request)


class KeySetOut(Out):
    keys: list[dict[str, Any]]


@router.get(
    "/.well-known/jwks.json",
    response_model=KeySetOut,
    responses={**problems(), 304: {"description": "Nothing changed."}},
)
async def jwks(held: Held, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Give the public keys of every token kind."""
    keys = (await held.keys.fresh(held.database)).jwks
    content = json.dumps(keys, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "public, max-age=3600, stale-if-error=604800",
    }
    if unchanged(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


class ModeOut(Out):
    kind: Kind
    because: Because
    until: datetime | None
    calendar_known: bool


class DoorStationOut(Out):
    code: str
    name: str


class DoorNameOut(Out):
    name: str


class DoorByCodeOut(Out):
    station: DoorStationOut
    door: DoorNameOut
    confirm_tap: bool
    mode: ModeOut


@router.get(
    "/v1/doors/{token}",
    response_model=DoorByCodeOut,
    responses=problems(DoorCodeUnknown),
)
async def door_by_code(
    token: Annotated[str, Path(max_length=2048)], tx: ReadTx, held: Held, at: Now
) -> Any:
    """Say which door a code is for, before anybody signs in."""
    keys = await held.keys.fresh(held.database)
    claims = keys.door_code(token)
    if isinstance(claims, tokens.TokenRefusal):
        raise DoorCodeUnknown
    located = await registry.find_by_number(tx, claims.d)
    if located is None:
        raise DoorCodeUnknown
    station = located.station
    changes = await list_changes(tx, [station.id], at=at)
    calendar = (await held.calendar.fresh(held.database)).current
    mode = mode_at(station_rules(station, changes.get(station.id, ())), calendar, at)
    return {
        "station": {"code": station.code, "name": station.name},
        "door": {"name": located.door.name},
        "confirm_tap": station.confirm_tap,
        "mode": mode,
    }


class TicketIn(In):
    token: Annotated[str, StringConstraints(max_length=2048)]


class TicketOut(Out):
    expires_at: datetime


@router.post(
    "/v1/doors/ticket",
    status_code=201,
    response_model=TicketOut,
    responses=problems(screens.CodeRefused, screens.TooManyTickets),
)
async def door_ticket(body: TicketIn, response: Response, tx: WriteTx, held: Held, at: Now) -> Any:
    """Exchange the code on a screen for five minutes in which this browser may use it."""
    keys = await held.keys.fresh(held.database)
    ticket = await screens.exchange(tx, keys.verifying, body.token, at=at)
    response.set_cookie(
        ticket_cookie(held),
        ticket.secret,
        max_age=int(screens.TICKET_LIFETIME.total_seconds()),
        path="/",
        secure=held.settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )
    return TicketOut(expires_at=ticket.expires_at)


class HealthOut(Out):
    status: str


@router.get("/healthz", response_model=HealthOut)
async def healthz() -> Any:
    """Say that this process answers."""
    return HealthOut(status="ok")


class ReadyOut(Out):
    status: str
    database: str
    jobs: dict[str, Any]


@router.get("/readyz", response_model=ReadyOut, responses=problems(NotReady))
async def readyz(held: Held) -> Any:
    """Say that the database answers and syncs what it acknowledges, and when jobs last ran."""
    try:
        await held.database.check_durable()
        async with held.database.read() as tx:
            await tx.execute(text("SELECT 1"))
            runs = await jobs.last_runs(tx)
    except NotDurable as error:
        raise NotReady(str(error)) from error
    kind = "embedded" if held.database.is_embedded else "server"
    return ReadyOut(status="ready", database=kind, jobs=runs)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(held: Held) -> Response:
    """Give figures of this process in Prometheus text."""
    registry_ = CollectorRegistry()
    polls = Gauge("yizhan_open_polls", "Controllers waiting in this process", registry=registry_)
    polls.set(held.controllers.open_polls)
    up = Gauge("yizhan_up_seconds", "Seconds since this process began", registry=registry_)
    up.set(held.monotonic() - held.started_at)
    async with held.database.read() as tx:
        runs = await jobs.last_runs(tx)
    ran = Gauge(
        "yizhan_job_succeeded_timestamp_seconds",
        "When a job last went well",
        ["job"],
        registry=registry_,
    )
    for name, at in runs.items():
        ran.labels(name).set(at.timestamp())
    return Response(generate_latest(registry_), media_type=CONTENT_TYPE_LATEST)


class ProblemOut(Out):
    type: str
    code: str
    status: int
    title: str


@router.get("/problems", response_model=list[ProblemOut])
async def problem_list() -> Any:
    """List every problem this service answers with."""
    return [
        ProblemOut(
            type=f"/problems/{kind.slug()}",
            code=kind.code(),
            status=kind.status,
            title=kind.title(),
        )
        for kind in catalogue()
    ]
