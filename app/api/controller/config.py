"""What a controller works by: its config, the passes that are denied, the codes of its screens."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import ConfigDict, Field

from app.api.controller.key import CredentialRefused, Polling
from app.api.deps import Held, Now, ReadTx, WriteTx, unchanged
from app.api.problems import problems
from app.api.shapes import Out
from app.doors import denials, screens
from app.doors.registry import DoorNotFound
from app.doors.tokens import TokenKind
from app.places.rules import Because, Kind
from app.places.tables import FacilityKind

router = APIRouter(tags=["controller"])


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
