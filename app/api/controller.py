"""HTTP for controllers: poll, claim, acknowledge, config.

Unknown fields are kept out of the way, not refused, so that newer firmware is never locked out.
The guard opens and closes its own read: one that borrowed the handler's transaction would hold a
pooled connection for every waiting controller.
"""

import asyncio
import random
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictInt
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from app.api.deps import Held, Now, ReadTx, WriteTx, unchanged
from app.api.edge import told_now
from app.api.problems import expected_failures, problem_response, problems
from app.api.shapes import Key, Line, Out, Rfc3339
from app.doors import (
    commands,
    controllers,
    denials,
    effects,
    journal,
    passes,
    screens,
)
from app.doors.commands import Ack, Claim, Outlook
from app.doors.controllers import KnownController
from app.doors.journal import Batch, Status
from app.doors.line import ServerBusy
from app.doors.registry import DoorNotFound
from app.doors.rules import CommandState, Reason
from app.doors.rules.journal import MAX_BATCH, MAX_SEQ, Sending, Sync, Why
from app.doors.rules.polls import next_poll_ms
from app.doors.scans import Attempt
from app.doors.tables import CommandKind
from app.doors.tokens import TokenKind
from app.errors import Problem, Unauthorized
from app.places.rules import Because, Kind
from app.places.tables import FacilityKind
from app.runtime import Runtime


class CredentialRefused(Unauthorized):
    """This controller's credential is missing, wrong or revoked."""


class ControllerKey(HTTPBearer):
    """Says which controller calls; one dependency without any of its own, as each costs."""

    policy = "controller"
    """Read by the policy test."""

    @override
    async def __call__(self, request: Request) -> KnownController:  # type: ignore[override]
        """Find the controller by its credential, and note that its request began."""
        held: Runtime = request.app.state.runtime
        credentials = await super().__call__(request)
        if credentials is None or len(credentials.credentials) > 200:
            raise CredentialRefused
        found = await held.controllers.find(credentials.credentials, at=held.now())
        if found is None:
            raise CredentialRefused
        return found


_key = ControllerKey(auto_error=False, scheme_name="controller")

Polling = Annotated[KnownController, Depends(_key)]


POLLS = "/v1/controller/commands"


class PlainPolls:
    """The way of a plain poll around the framework's machinery, to the same handler.

    To look for the route and to resolve its parameters costs more than all that a poll does, and
    what stands on the stack meanwhile is held for every controller that waits. A poll that is not
    plain passes by, to the documented route, and is told what is wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._polls = ExceptionMiddleware(_answered, handlers=expected_failures())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] == "http" and scope["path"] == POLLS and scope["method"] == "GET":
            asked = _plain(scope["query_string"])
            if asked is not None:
                scope["poll"] = asked
                await self._polls(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _answered(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    response = await next_commands(request, await _key(request), *scope["poll"])
    await response(scope, receive, send)


def _plain(query: bytes) -> tuple[int, str | None, str | None] | None:
    """Read a poll's query, if it is as an agent writes it."""
    asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    boot_id, version = asked.pop("boot_id", None), asked.pop("config_version", None)
    wait = asked.pop("wait", "25")
    if asked or any(text is not None and len(text) > 128 for text in (boot_id, version)):
        return None
    if not (len(wait) <= 2 and wait.isascii() and wait.isdecimal() and int(wait) <= 60):
        return None
    return int(wait), boot_id, version


router = APIRouter(tags=["controller"])
"""Routes behind a credential."""

enrolment_router = APIRouter(tags=["controller"])
"""The one route that comes before the credential."""


class Lenient(BaseModel):
    """A body from firmware: what we do not know we leave alone."""

    model_config = ConfigDict(extra="allow", frozen=True)


class EnrolIn(Lenient):
    code: Key
    serial: Line
    firmware: Line
    nonce: Key


class StationOut(Out):
    code: str
    name: str
    timezone: str


class DoorOut(Out):
    id: uuid.UUID
    name: str
    has_display: bool
    has_contact: bool
    pulse_ms: int


class FacilityOut(Out):
    id: uuid.UUID
    """What events of a facility name."""
    kind: FacilityKind
    name: str


class EnrolledOut(Out):
    controller_id: uuid.UUID
    credential: str
    station: StationOut
    doors: list[DoorOut]


async def enrolment_code() -> None:
    """The one-time code in the body is what lets a controller in."""


enrolment_code.policy = "enrolment code"  # type: ignore[attr-defined]  # As above.


@enrolment_router.post(
    "/v1/controller/enrol",
    status_code=201,
    response_model=EnrolledOut,
    responses=problems(controllers.EnrolmentRefused),
    dependencies=[Depends(enrolment_code)],
)
async def enrol(body: EnrolIn, tx: WriteTx, held: Held, at: Now) -> Any:
    """Introduce a controller with its one-time code."""
    introduction = controllers.Introduction(body.code, body.serial, body.firmware, body.nonce)
    return await controllers.enrol(tx, held.wakeups, introduction, at=at)


class CredentialOut(Out):
    credential: str


@router.post(
    "/v1/controller/credential",
    response_model=CredentialOut,
    responses=problems(CredentialRefused),
)
async def rotate_credential(tx: WriteTx, held: Held, controller: Polling, at: Now) -> Any:
    """Change the credential; the old one works for another hour."""
    credential = await controllers.rotate_credential(
        tx, held.wakeups, controller.controller_id, at=at
    )
    return CredentialOut(credential=credential)


class WindowOut(Out):
    model_config = ConfigDict(from_attributes=True, frozen=True, populate_by_name=True)

    from_at: datetime = Field(serialization_alias="from")
    until_at: datetime = Field(serialization_alias="until")
    kind: Kind
    because: Because


class LimitsOut(Out):
    max_wait_s: int
    silence_s: int


class OfflinePolicyOut(Out):
    kind: Literal["never", "passes"]
    """`never`: without the server this station's controller opens nothing by itself."""
    hours: int | None
    """For so long after the server was last heard."""
    denial_version: int
    """Ask for denials when this is not what you hold."""


class ConfigOut(Out):
    version: str
    station: StationOut
    doors: list[DoorOut]
    facilities: list[FacilityOut]
    windows: list[WindowOut]
    limits: LimitsOut
    offline_policy: OfflinePolicyOut
    jwks_url: str


@router.get(
    "/v1/controller/config",
    response_model=ConfigOut,
    responses={**problems(CredentialRefused), 304: {"description": "Nothing changed."}},
)
async def config(
    response: Response,
    held: Held,
    controller: Polling,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """Give what the controller works by, with the modes of the next 14 days."""
    found = await held.configs.ask(controller.station_id)
    if found is None:
        raise CredentialRefused
    etag = f'"{found.version}"'
    if unchanged(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return ConfigOut(
        version=found.version,
        station=StationOut.model_validate(found.station),
        doors=[DoorOut.model_validate(door) for door in found.doors],
        facilities=[FacilityOut.model_validate(one) for one in found.facilities],
        windows=[WindowOut.model_validate(window) for window in found.windows],
        limits=LimitsOut.model_validate(found.terms),
        offline_policy=OfflinePolicyOut(
            kind="passes" if found.station.offline_hours else "never",
            hours=found.station.offline_hours,
            denial_version=found.station.denial_version,
        ),
        jwks_url=found.terms.jwks_url,
    )


class DenialOut(Out):
    subject: str
    until: datetime
    """In the past: what was said of this subject is lifted."""


class DenialsOut(Out):
    version: int
    denials: list[DenialOut]
    more: bool
    """Ask again at once, since this version."""


@router.get(
    "/v1/controller/denials",
    response_model=DenialsOut,
    responses=problems(CredentialRefused),
)
async def denied_passes(
    tx: ReadTx,
    controller: Polling,
    at: Now,
    since: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Any:
    """Say whose passes open nothing any more: what is new since a version."""
    return await denials.news(tx, controller.station_id, since=since, at=at)


class CodeOut(Out):
    token: str
    url: str
    """What the screen shows as a QR code."""
    shown_from: datetime
    shown_until: datetime


class CodesOut(Out):
    codes: list[CodeOut]
    server_time: datetime


@router.get(
    "/v1/controller/doors/{door_id}/codes",
    response_model=CodesOut,
    responses=problems(CredentialRefused, DoorNotFound, screens.DoorHasNoScreen),
)
async def screen_codes(
    door_id: uuid.UUID, tx: WriteTx, held: Held, controller: Polling, at: Now
) -> Any:
    """Give the codes for a door's screen, for at most 15 minutes ahead; ask every two minutes."""
    keys = await held.keys.fresh(held.database)
    found = await screens.codes(
        tx,
        keys.signing(TokenKind.DISPLAY),
        controller.station_id,
        door_id,
        public_url=held.settings.public_url,
        at=at,
    )
    return {"codes": found, "server_time": at}


class CommandOut(Out):
    id: uuid.UUID
    kind: CommandKind
    door: uuid.UUID


class CommandsOut(Out):
    commands: list[CommandOut]
    config_version: str
    next_poll_ms: int
    server_time: datetime


@router.get(
    POLLS,
    response_model=CommandsOut,
    responses={
        **problems(CredentialRefused, controllers.TooManyPolls),
        204: {"description": "Nothing to do within the wait; poll again."},
    },
)
async def next_commands(
    request: Request,
    controller: Polling,
    wait: Annotated[int, Query(ge=0, le=60)] = 25,
    boot_id: Annotated[str | None, Query(max_length=128)] = None,
    config_version: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """Wait for something to do: a command to claim, or a config to fetch."""
    held: Runtime = request.app.state.runtime
    wait_s = min(wait, held.settings.max_wait_s)
    seen = await _await_work(held, controller, wait_s, config_version, boot_id)
    # The end of a poll that nobody waits for any more is no sign of life.
    if not _hung_up(request.receive):
        held.controllers.heard(controller.controller_id, held.now())
    if isinstance(seen, Problem):
        return problem_response(seen)
    pause = next_poll_ms(
        held.settings.poll_pause_ms, stopping=held.stopping.is_set(), share=random.random()
    )
    changed = config_version not in (None, seen.config_version)
    if not (seen.commands or changed):
        headers = {
            "Next-Poll-Ms": str(pause),
            "Config-Version": seen.config_version,
        }
        return Response(status_code=204, headers=headers)
    return JSONResponse(
        {
            "commands": []
            if changed
            else [
                {"id": str(item.id), "kind": item.kind.value, "door": str(item.door)}
                for item in seen.commands
            ],
            "config_version": seen.config_version,
            "next_poll_ms": pause,
            "server_time": held.now().isoformat(),
        }
    )


def _hung_up(receive: Receive) -> bool:
    """Say whether the caller is gone."""
    for _ in range(2):  # The first look takes the request's empty body.
        told = told_now(receive)
        if told is None or told["type"] == "http.disconnect":
            return told is not None
    return False


async def _await_work(
    held: Runtime,
    controller: KnownController,
    wait_s: int,
    config_version: str | None,
    boot_id: str | None,
) -> Outlook | Problem:
    """Look, wait for the bell, look again; nothing to do when a newer poll takes its place.

    A wait that ends without a ring ends without a look: what a lost bell told of, the next poll
    sees.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    topics = (
        commands.topic_of(controller.controller_id),
        f"station:{controller.station_id}",
    )
    limit = held.settings.limit_polls
    rung = False
    # The older poll hears the bell, sees that it is superseded, and ends.
    with held.controllers.polling(controller.controller_id, limit=limit) as superseded:
        held.wakeups.ring(topics[0])
        with held.wakeups.listen(*topics) as bell:
            while True:
                seen = await held.lookout.ask(controller.controller_id, at_once=rung)
                if seen is None:
                    return CredentialRefused()
                if boot_id is not None:
                    id = controller.controller_id
                    held.controllers.boots.hear(id, boot_id, last=seen.last_boot)
                    boot_id = None  # It spoke once, however often we look.
                left = until - loop.time()
                changed = config_version not in (None, seen.config_version)
                # A poll that comes while the process stops must not wait either.
                if seen.commands or changed or left <= 0 or held.stopping.is_set():
                    return seen
                rung = await bell.wait(left)
                if not rung or superseded():
                    return Outlook(seen.config_version, [])


class ClaimIn(Lenient):
    boot_id: Key
    nonce: Key


class ClaimedOut(Out):
    ttl_ms: int
    kind: CommandKind
    door: uuid.UUID
    pulse_ms: int


CommandId = Annotated[uuid.UUID, Path(description="As the poll named it.")]


@router.post(
    "/v1/controller/commands/{command_id}/claim",
    response_model=ClaimedOut,
    responses=problems(
        CredentialRefused,
        commands.CommandNotFound,
        commands.ClaimedByAnother,
        commands.CommandExpired,
        commands.CommandSettled,
        commands.CommandRefused,
    ),
)
async def claim(
    command_id: CommandId, body: ClaimIn, tx: WriteTx, held: Held, controller: Polling
) -> Any:
    """Take a command: pulse only within `ttl_ms` of the moment this request was sent."""
    result = await commands.claim(
        tx,
        controller.controller_id,
        command_id,
        Claim(body.boot_id, body.nonce),
        clock=held.deadlines,
        wakeups=held.wakeups,
        now=held.now,
    )
    return problem_response(result) if isinstance(result, Problem) else result


class AckIn(Lenient):
    boot_id: Key
    result: Literal[CommandState.EXECUTED, CommandState.REFUSED, CommandState.FAILED]
    pulse_after_claim_ms: Annotated[StrictInt, Field(ge=0, le=86_400_000)] | None = None
    detail: Line | None = None


class AckOut(Out):
    id: uuid.UUID
    result: CommandState


@router.post(
    "/v1/controller/commands/{command_id}/ack",
    response_model=AckOut,
    responses=problems(
        CredentialRefused, commands.CommandNotFound, commands.AckConflict, commands.NotClaimed
    ),
)
async def acknowledge(
    command_id: CommandId, body: AckIn, tx: WriteTx, held: Held, controller: Polling, at: Now
) -> Any:
    """Say what became of a command."""
    ack = Ack(body.boot_id, body.result, body.pulse_after_claim_ms, body.detail)
    problem = await commands.acknowledge(
        tx, controller.controller_id, command_id, ack, wakeups=held.wakeups, at=at
    )
    return problem_response(problem) if problem else AckOut(id=command_id, result=body.result)


class SyncIn(Lenient):
    server_time: Rfc3339
    mono_ms: Annotated[StrictInt, Field(ge=0, le=MAX_SEQ)]
    rtt_ms: Annotated[StrictInt, Field(ge=0, le=600_000)]


class EventsIn(Lenient):
    boot_id: Key
    epoch: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    events: Annotated[list[Any], Field(max_length=MAX_BATCH)]
    """Each `{event_id, seq, type, occurred_at, ...}`; one that cannot be used harms no other."""
    sent_at: AwareDatetime | None = None
    """The device's wall clock now, however far off: without a battery it begins in 1970."""
    mono_ms: Annotated[StrictInt, Field(ge=0, le=MAX_SEQ)] | None = None
    """The device's monotonic clock now."""
    sync: SyncIn | None = None
    """The last `server_time` heard in this boot, and the monotonic clock then."""


class EventResultOut(Out):
    event_id: str
    seq: int | None
    status: Status
    reason: Why | None


class EventsOut(Out):
    results: list[EventResultOut]
    acked_through: int


@router.post(
    "/v1/controller/events",
    response_model=EventsOut,
    responses=problems(CredentialRefused, ServerBusy),
)
async def events(
    body: EventsIn,
    held: Held,
    controller: Polling,
    at: Now,
    after: BackgroundTasks,
) -> Any:
    """Take in a batch of numbered events; every one answered is durable."""
    sync = body.sync
    sending = Sending(
        boot_id=body.boot_id,
        received_at=at,
        sent_at=body.sent_at,
        sent_mono_ms=body.mono_ms,
        sync=Sync(sync.server_time, sync.mono_ms, sync.rtt_ms) if sync else None,
    )
    batch = Batch(body.epoch, sending, body.events)
    async with held.uploads.place(), held.database.write() as tx:
        taken = await journal.take_in(tx, held.wakeups, controller.controller_id, batch, at=at)
    if taken is None:
        raise CredentialRefused
    if taken.due:
        after.add_task(
            effects.apply_soon,
            held.database,
            held.scans,
            now=held.now,
            controller_id=controller.controller_id,
        )
    return taken


class VerifyIn(Lenient):
    door: uuid.UUID
    token: Annotated[str, Field(max_length=20_000)]


class VerifiedOut(Out):
    valid: bool
    reason: Reason
    command: uuid.UUID | None


@router.post(
    "/v1/controller/verify",
    response_model=VerifiedOut,
    responses=problems(CredentialRefused, DoorNotFound),
)
async def verify(body: VerifyIn, request: Request, held: Held, controller: Polling, at: Now) -> Any:
    """Check a pass that the reader at a door saw; a good one is a command to claim."""
    await held.keys.fresh(held.database)
    await held.calendar.fresh(held.database)
    scope = request.scope
    attempt = Attempt(body.token, 1, "", scope["arrived_at"], scope["read_at"])
    async with held.database.write() as tx:
        return await passes.verify(tx, held.scans, controller.station_id, body.door, attempt, at=at)
