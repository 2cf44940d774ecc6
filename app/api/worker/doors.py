"""HTTP for workers at doors: scan, and watch what becomes of it.

These handlers open their transactions themselves: a scan's alternatives are read after its commit,
and a waiting request must not hold a connection.
"""

import asyncio
import uuid
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import Field, StrictInt

from app.api.deps import Held, Lang, Now
from app.api.guards import (
    MAX_TOKEN,
    NotSignedIn,
    OriginRefused,
    WaitingWorker,
    WorkerToken,
    ticket_cookie,
)
from app.api.problems import problems
from app.api.shapes import In, Out
from app.api.words import Language, sentence
from app.doors import commands, passes, qr, scans, views
from app.doors.registry import DoorNotFound
from app.doors.rules import Outcome, Reason, ScanState
from app.doors.scans import Attempt
from app.doors.views import ScanView
from app.errors import Malformed
from app.places import nearby
from app.places.rules import Because, Kind
from app.runtime import Runtime

ALTERNATIVES = 3
ALTERNATIVES_RADIUS_M = 5_000.0

router = APIRouter(tags=["worker"])


class IdempotencyKeyMissing(Malformed):
    """This request needs an Idempotency-Key header: 1 to 128 visible ASCII characters."""


async def idempotency_key(
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description="1 to 128 visible ASCII characters"),
    ] = None,
) -> str:
    """Give the request's idempotency key; raises IdempotencyKeyMissing."""
    if key is None or not 1 <= len(key) <= 128 or not key.isascii() or not key.isprintable():
        raise IdempotencyKeyMissing
    return key


IdempotencyKey = Annotated[str, Depends(idempotency_key)]


class ScanIn(In):
    token: str
    """The text of the code. Whatever is wrong with it is a refusal, not an error."""
    party_size: Annotated[StrictInt, Field(ge=1, le=5)] = 1


class StationNamedOut(Out):
    code: str
    name: str


class DoorNamedOut(Out):
    id: uuid.UUID
    name: str
    has_contact: bool
    takes_passes: bool
    """Whether a pass opens it while its controller has no link to us."""


class ModeOut(Out):
    kind: Kind
    because: Because
    until: datetime | None
    calendar_known: bool


class AlternativeOut(Out):
    code: str
    name: str
    address: str
    distance_m: int
    walking_minutes: int
    mode: ModeOut


class ScanOut(Out):
    id: uuid.UUID
    outcome: Outcome
    reason: Reason
    message: str
    station: StationNamedOut | None
    door: DoorNamedOut | None
    mode: ModeOut | None
    state: ScanState
    final: bool
    """Whether nothing more will come; at a door with a contact, its word is waited for."""
    expires_at: datetime | None
    visit_id: uuid.UUID | None
    replayed: bool
    alternatives: list[AlternativeOut]


def _said(view: ScanView, lang: Language) -> str:
    until = None
    if view.mode is not None and view.mode.until is not None and view.timezone is not None:
        until = view.mode.until.astimezone(ZoneInfo(view.timezone))
    return sentence(view.reason, lang, walk_in=view.outcome is Outcome.WALK_IN, until=until)


def _shape(view: ScanView, lang: Language, near: list[AlternativeOut]) -> ScanOut:
    return ScanOut(
        id=view.id,
        outcome=view.outcome,
        reason=view.reason,
        message=_said(view, lang),
        station=StationNamedOut.model_validate(view.station) if view.station else None,
        door=DoorNamedOut.model_validate(view.door) if view.door else None,
        mode=ModeOut.model_validate(view.mode) if view.mode else None,
        state=view.state,
        final=view.final,
        expires_at=view.expires_at,
        visit_id=view.visit_id,
        replayed=view.replayed,
        alternatives=near,
    )


async def _alternatives(held: Runtime, view: ScanView, at: datetime) -> list[AlternativeOut]:
    """Look, after the commit, where else the worker can go now."""
    if view.outcome is not Outcome.REFUSED or view.near is None:
        return []
    latitude, longitude = view.near
    async with held.database.read() as tx:
        found = await nearby.usable_near(
            tx,
            held.calendar.current,
            latitude=latitude,
            longitude=longitude,
            radius_m=ALTERNATIVES_RADIUS_M,
            at=at,
            limit=ALTERNATIVES,
            excluding=view.station_id,
        )
    return [AlternativeOut.model_validate(station) for station in found]


@router.post(
    "/v1/scans",
    status_code=201,
    response_model=ScanOut,
    responses={
        **problems(NotSignedIn, OriginRefused, IdempotencyKeyMissing, scans.KeyReused),
        200: {"model": ScanOut, "description": "A repeat: the scan that stands."},
    },
)
async def scan(
    body: ScanIn,
    request: Request,
    response: Response,
    token: WorkerToken,
    key: IdempotencyKey,
    held: Held,
    lang: Lang,
) -> Any:
    """Scan the code at a door."""
    at = held.now()
    await held.keys.fresh(held.database)
    await held.calendar.fresh(held.database)
    ticket = request.cookies.get(ticket_cookie(held), "")[:MAX_TOKEN]
    arrived_at, read_at = request.scope["arrived_at"], request.scope["read_at"]
    attempt = Attempt(body.token, body.party_size, key, arrived_at, read_at, ticket)
    async with held.database.write() as tx:
        view = await scans.scan(tx, held.scans, token, attempt, at=at)
    if view is None:
        raise NotSignedIn
    if view.replayed:
        response.status_code = 200
    return _shape(view, lang, await _alternatives(held, view, at))


class PassIn(In):
    door: uuid.UUID


class PassOut(Out):
    token: str
    expires_at: datetime
    svg: str
    """The token as a QR code, for a reader."""


@router.post(
    "/v1/me/pass",
    status_code=201,
    response_model=PassOut,
    responses=problems(
        NotSignedIn, OriginRefused, DoorNotFound, passes.PassRefused, passes.TooManyPasses
    ),
)
async def issue_pass(body: PassIn, worker: WaitingWorker, held: Held, at: Now) -> Any:
    """Give a pass to show to the reader at a door: good for a minute, once."""
    await held.keys.fresh(held.database)
    async with held.database.write() as tx:
        issued = await passes.issue(tx, held.scans, worker, body.door, at=at)
    return PassOut(token=issued.token, expires_at=issued.expires_at, svg=qr.svg(issued.token))


@router.get(
    "/v1/scans/{scan_id}",
    response_model=ScanOut,
    responses=problems(NotSignedIn, views.ScanNotFound),
)
async def scan_state(
    scan_id: uuid.UUID,
    worker: WaitingWorker,
    held: Held,
    at: Now,
    lang: Lang,
    wait: Annotated[int | None, Query(ge=1, le=20)] = None,
    seen: ScanState | None = None,
) -> Any:
    """Give a scan; with `wait`, answer as soon as its state differs from `seen`."""
    wait_s = min(wait or 0, held.settings.max_wait_s)
    view = await _await_change(held, scan_id, worker.owner_key, wait_s, seen)
    return _shape(view, lang, await _alternatives(held, view, at))


async def _await_change(
    held: Runtime, scan_id: uuid.UUID, owner_key: bytes, wait_s: int, seen: ScanState | None
) -> ScanView:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    with held.wakeups.listen(commands.scan_topic(scan_id)) as bell:
        while True:
            async with held.database.read() as tx:
                view = await views.view(tx, held.deadlines, scan_id, owner_key)
            left = until - loop.time()
            over = left <= 0 or held.stopping.is_set()
            if over or view.final or view.state is not seen:
                return view
            # Nobody rings when the deadline passes; look again just after it.
            await bell.wait(min(left, view.left_s + 0.05))
