"""How a controller comes in, and changes its credential."""

import uuid
from typing import Any

from fastapi import APIRouter, Depends

from app.api.controller.config import DoorOut, StationOut
from app.api.controller.key import CredentialRefused, Lenient, Polling
from app.api.deps import Held, Now, WriteTx
from app.api.guards import policy
from app.api.problems import problems
from app.api.shapes import Key, Line, Out
from app.doors import controllers

router = APIRouter(tags=["controller"])


class EnrolIn(Lenient):
    code: Key
    serial: Line
    firmware: Line
    nonce: Key


class EnrolledOut(Out):
    controller_id: uuid.UUID
    credential: str
    station: StationOut
    doors: list[DoorOut]


@policy("enrolment code")
async def enrolment_code() -> None:
    """The one-time code in the body is what lets a controller in."""


@router.post(
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
