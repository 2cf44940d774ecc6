"""What a controller is to do: the waiting poll, the claim, the ack."""

import asyncio
import random
import re
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, Field, StrictInt
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.controller.key import CredentialRefused, Lenient, Polling, key
from app.api.deps import Held, Now, WriteTx
from app.api.edge import hung_up
from app.api.problems import expected_failures, problem_response, problems
from app.api.shapes import VISIBLE, Key, Out
from app.doors import commands
from app.doors.commands import Ack, Claim
from app.doors.desk import KnownController, TooManyPolls
from app.doors.lookout import Outlook
from app.doors.rules import CommandState
from app.doors.rules.polls import next_poll_ms
from app.doors.tables import CommandKind
from app.errors import Problem
from app.runtime import Runtime

router = APIRouter(tags=["controller"])


POLLS = "/v1/controller/commands"

is_key = re.compile(VISIBLE).fullmatch
"""Whether a text is a key."""


class PlainPolls:
    """The way of a plain poll around the framework's machinery, to the same handler.

    To look for the route and to resolve its parameters costs more than all that a poll does, and
    what stands on the stack meanwhile is held for every controller that waits. A poll that is not
    plain passes by, to the documented route, and is told what is wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._failures = expected_failures()
        self._expected = tuple(self._failures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] == "http" and scope["path"] == POLLS and scope["method"] == "GET":
            asked = _plain(scope["query_string"])
            if asked is not None:
                response = await self._answer(Request(scope, receive), *asked)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer(
        self, request: Request, wait: int, boot_id: str | None, version: str | None
    ) -> Response:
        try:
            return await next_commands(request, await key(request), wait, boot_id, version)
        except self._expected as error:
            answers = next(of for kind, of in self._failures.items() if isinstance(error, kind))
            return await answers(request, error)


def _plain(query: bytes) -> tuple[int, str | None, str | None] | None:
    """Read a poll's query, if it is as an agent writes it."""
    asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    boot_id, version = asked.pop("boot_id", None), asked.pop("config_version", None)
    wait = asked.pop("wait", "25")
    if asked or not all(text is None or is_key(text) for text in (boot_id, version)):
        return None
    if not (len(wait) <= 2 and wait.isascii() and wait.isdecimal() and int(wait) <= 60):
        return None
    return int(wait), boot_id, version


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
        **problems(CredentialRefused, TooManyPolls),
        204: {"description": "Nothing to do within the wait; poll again."},
    },
)
async def next_commands(
    request: Request,
    controller: Polling,
    wait: Annotated[int, Query(ge=0, le=60)] = 25,
    boot_id: Annotated[Key | None, Query()] = None,
    config_version: Annotated[Key | None, Query()] = None,
) -> Response:
    """Wait for something to do: a command to claim, or a config to fetch."""
    held: Runtime = request.app.state.runtime
    wait_s = min(wait, held.settings.max_wait_s)
    seen = await _await_work(held, controller, wait_s, config_version, boot_id)
    # The end of a poll that nobody waits for any more is no sign of life.
    if not hung_up(request.receive):
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


def _one_line(value: Any) -> str | None:
    """Give what can be shown of a remark: of what became of a command it must not cost the rest."""
    if not isinstance(value, str):
        return None
    shown = "".join(letter if letter.isprintable() else " " for letter in value)
    return shown.strip()[:200].rstrip() or None


class AckIn(Lenient):
    boot_id: Key
    result: Literal[CommandState.EXECUTED, CommandState.REFUSED, CommandState.FAILED]
    pulse_after_claim_ms: Annotated[StrictInt, Field(ge=0, le=86_400_000)] | None = None
    detail: Annotated[str | None, BeforeValidator(_one_line)] = None
    """One line for a person; what is longer is cut."""


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
