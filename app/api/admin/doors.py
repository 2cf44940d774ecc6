"""HTTP for administrators of doors: doors, posters, remote opening, controllers, keys."""

import asyncio
import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, StrictBool, StrictInt
from sqlalchemy import select

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import AdminForbidden, NotSignedIn, admin_reads, admin_waits, admin_writes
from app.api.problems import problems
from app.api.shapes import In, Line, Out
from app.audit import Action, record
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.doors import completeness, controllers, keys, qr, registry, remote
from app.doors.controllers import ControllerNotFound
from app.doors.registry import DoorNotFound, Located, NewDoor
from app.doors.rules import Reason
from app.doors.tables import Controller, Door, KeyState, OfflineEntry, QuarantinedEvent
from app.doors.tokens import TokenKind
from app.people.admins import SignedInAdmin, get_station_in_use, visible_stations
from app.people.rules import Permission
from app.places import stations
from app.places.rules import Because, Kind
from app.places.stations import StationNotFound, StationRetired

router = APIRouter(tags=["admin: doors"])

Reader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_STATIONS))]
Editor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_DOORS))]
Printer = Annotated[SignedInAdmin, Depends(admin_waits(Permission.PRINT_POSTERS))]
Revoker = Annotated[SignedInAdmin, Depends(admin_writes(Permission.REVOKE_POSTERS))]
Unlocker = Annotated[SignedInAdmin, Depends(admin_writes(Permission.UNLOCK))]
ControllerReader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_CONTROLLERS))]
Enroller = Annotated[SignedInAdmin, Depends(admin_writes(Permission.ENROL_CONTROLLERS))]
KeyReader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.EDIT_KEYS))]
KeyEditor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_KEYS))]

_guarded = (NotSignedIn, AdminForbidden)


class DoorOut(Out):
    id: uuid.UUID
    station_id: uuid.UUID
    name: str
    has_display: bool
    has_contact: bool
    poster_fallback: bool
    codes_at: datetime | None
    """When codes for its screen were last fetched; none for five minutes: the screen is dead."""
    generation: int
    grace_until: datetime | None
    pulse_ms: int
    created_at: datetime
    retired_at: datetime | None


class DoorIn(In):
    station: uuid.UUID
    name: Line
    has_display: StrictBool = False
    has_contact: StrictBool = False
    poster_fallback: StrictBool = True
    """At a door with a screen: while the screen is dead, its poster opens too."""
    pulse_ms: Annotated[StrictInt, Field(ge=100, le=10_000)] = registry.DEFAULT_PULSE_MS


class DoorPatch(In):
    name: Line = ""
    has_display: StrictBool = False
    has_contact: StrictBool = False
    poster_fallback: StrictBool = True
    """At a door with a screen: while the screen is dead, its poster opens too."""
    pulse_ms: Annotated[StrictInt, Field(ge=100, le=10_000)] = registry.DEFAULT_PULSE_MS


@router.get(
    "/v1/admin/doors",
    response_model=list[DoorOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_doors(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    station: uuid.UUID | None = None,
) -> Any:
    """List the doors in your scope."""
    query = select(Door).where(Door.station_id.in_(visible_stations(admin)))
    if station is not None:
        query = query.where(Door.station_id == station)
    found = await cursors.page(tx, query, by=[Door.id], request=page)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/doors",
    status_code=201,
    response_model=DoorOut,
    responses=problems(*_guarded, StationNotFound, StationRetired),
)
async def add_door(body: DoorIn, tx: WriteTx, admin: Editor, held: Held, at: Now) -> Any:
    """Add a door to a station."""
    station = await get_station_in_use(tx, admin, body.station)
    new = NewDoor(
        body.name, body.has_display, body.has_contact, body.pulse_ms, body.poster_fallback
    )
    (door,) = await registry.add_doors(tx, station.id, [new], at=at)
    located = await registry.get_door(tx, door.id, within=visible_stations(admin))
    after = {"name": body.name}
    await record(tx, admin.actor, Action.DOOR_ADDED, located.subject, at=at, after=after)
    await stations.bump(tx, held.wakeups, station.id)
    return door


async def _door(tx: WriteTx, admin: SignedInAdmin, door_id: uuid.UUID) -> Located:
    return await registry.get_door(tx, door_id, within=visible_stations(admin))


@router.get(
    "/v1/admin/doors/{door_id}",
    response_model=DoorOut,
    responses=problems(*_guarded, DoorNotFound),
)
async def get_door(door_id: uuid.UUID, tx: ReadTx, admin: Reader) -> Any:
    """Give one door."""
    return (await _door(tx, admin, door_id)).door


@router.patch(
    "/v1/admin/doors/{door_id}",
    response_model=DoorOut,
    responses=problems(*_guarded, DoorNotFound),
)
async def amend_door(
    door_id: uuid.UUID, body: DoorPatch, tx: WriteTx, admin: Editor, held: Held, at: Now
) -> Any:
    """Change a door."""
    located = await _door(tx, admin, door_id)
    changes = body.model_dump(exclude_unset=True)
    return await registry.amend(
        tx, held.wakeups, located, changes=changes, actor=admin.actor, at=at
    )


@router.post(
    "/v1/admin/doors/{door_id}/retire",
    response_model=DoorOut,
    responses=problems(*_guarded, DoorNotFound),
)
async def retire_door(door_id: uuid.UUID, tx: WriteTx, admin: Editor, held: Held, at: Now) -> Any:
    """Take a door out of use."""
    located = await _door(tx, admin, door_id)
    return await registry.retire(tx, held.wakeups, located, actor=admin.actor, at=at)


PosterFormat = Literal["svg", "png", "pdf"]
_MEDIA = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}


@router.get(
    "/v1/admin/doors/{door_id}/poster.{form}",
    response_class=Response,
    responses={
        **problems(*_guarded, DoorNotFound, remote.DoorOutOfUse),
        200: {
            "description": "The door's code, to print.",
            "content": {media: {} for media in _MEDIA.values()},
        },
    },
)
async def door_poster(
    door_id: uuid.UUID, form: PosterFormat, admin: Printer, held: Held, at: Now
) -> Response:
    """Give the door's code as a picture, or as an A4 sheet to print."""
    ring = await held.keys.fresh(held.database)
    async with held.database.write() as tx:
        located = await _door(tx, admin, door_id)
        if located.door.retired_at is not None or located.station.retired_at is not None:
            raise remote.DoorOutOfUse
        after = {"format": form, "generation": located.door.generation}
        await record(tx, admin.actor, Action.POSTER_PRINTED, located.subject, at=at, after=after)
    # Drawing takes a while: not while the transaction of a door could wait for ours.
    token = registry.poster_token(ring.signing(TokenKind.POSTER), located.door)
    url = qr.door_url(held.settings.public_url, token)
    content = await asyncio.to_thread(_draw, form, url, located, held.settings.public_url)
    name = f"{located.station.code}.{form}"
    headers = {"Content-Disposition": f'inline; filename="{_ascii(name)}"'}
    return Response(content, media_type=_MEDIA[form], headers=headers)


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


def _draw(form: PosterFormat, url: str, located: Located, public_url: str) -> bytes:
    match form:
        case "svg":
            return qr.svg(url).encode()
        case "png":
            return qr.png(url, scale=12)
        case "pdf":
            from app.doors import poster  # Here: drawing takes 40 MB, from the first sheet on.

            return poster.poster_pdf(
                url=url,
                station_name=located.station.name,
                station_code=located.station.code,
                door_name=located.door.name,
                domain=urlsplit(public_url).netloc,
            )


class RevokeIn(In):
    grace_s: Annotated[StrictInt, Field(ge=0, le=int(registry.MAX_GRACE.total_seconds()))] = 0
    """For how long the generation before still opens; 0 for a lost or stolen sheet."""


@router.post(
    "/v1/admin/doors/{door_id}/revoke-posters",
    response_model=DoorOut,
    responses=problems(*_guarded, DoorNotFound),
)
async def revoke_posters(
    door_id: uuid.UUID, tx: WriteTx, admin: Revoker, at: Now, body: RevokeIn | None = None
) -> Any:
    """Make the printed codes of a door void; print a new one afterwards."""
    located = await _door(tx, admin, door_id)
    grace = timedelta(seconds=body.grace_s if body else 0)
    return await registry.revoke_posters(tx, located, grace=grace, actor=admin.actor, at=at)


class UnlockIn(In):
    reason: Line


class CommandOut(Out):
    id: uuid.UUID
    state: str
    expires_at: datetime


@router.post(
    "/v1/admin/doors/{door_id}/unlock",
    status_code=201,
    response_model=CommandOut,
    responses=problems(
        *_guarded,
        DoorNotFound,
        remote.ControllerFrozen,
        remote.ControllerSilent,
        remote.DoorOutOfUse,
        remote.EmergencyHolds,
    ),
)
async def unlock(
    door_id: uuid.UUID,
    body: UnlockIn,
    request: Request,
    tx: WriteTx,
    admin: Unlocker,
    held: Held,
    at: Now,
) -> Any:
    """Open a door from afar: one pulse, under the same rules as any command."""
    located = await _door(tx, admin, door_id)
    return await remote.unlock(
        tx,
        held.scans,
        located,
        remote.Request(admin.actor, body.reason, read_at=request.scope["read_at"]),
        at=at,
    )


class ControllerOut(Out):
    id: uuid.UUID
    station_id: uuid.UUID
    serial: str
    firmware: str
    enrolled_at: datetime
    seen_at: datetime | None
    frozen_at: datetime | None
    retired_at: datetime | None


@router.get(
    "/v1/admin/controllers",
    response_model=list[ControllerOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_controllers(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: ControllerReader,
    page: Page,
    station: uuid.UUID | None = None,
) -> Any:
    """List the controllers in your scope."""
    query = select(Controller).where(Controller.station_id.in_(visible_stations(admin)))
    if station is not None:
        query = query.where(Controller.station_id == station)
    found = await cursors.page(tx, query, by=[Controller.id], request=page)
    link_next(request, response, found)
    return found.rows


class EnrolmentIn(In):
    station: uuid.UUID


class EnrolmentOut(Out):
    code: str
    expires_at: datetime


@router.post(
    "/v1/admin/controllers/enrolment",
    status_code=201,
    response_model=EnrolmentOut,
    responses=problems(*_guarded, StationNotFound, StationRetired),
)
async def issue_enrolment(body: EnrolmentIn, tx: WriteTx, admin: Enroller, at: Now) -> Any:
    """Make a one-time code with which a station's controller introduces itself."""
    station = await get_station_in_use(tx, admin, body.station)
    return await controllers.issue_code(tx, station, actor=admin.actor, at=at)


@router.get(
    "/v1/admin/controllers/{controller_id:uuid}",
    response_model=ControllerOut,
    responses=problems(*_guarded, ControllerNotFound),
)
async def get_controller(controller_id: uuid.UUID, tx: ReadTx, admin: ControllerReader) -> Any:
    """Give one controller."""
    return await controllers.get(tx, controller_id, within=visible_stations(admin))


class ControllerPatch(In):
    serial: Line = ""


@router.patch(
    "/v1/admin/controllers/{controller_id:uuid}",
    response_model=ControllerOut,
    responses=problems(*_guarded, ControllerNotFound),
)
async def amend_controller(
    controller_id: uuid.UUID, body: ControllerPatch, tx: WriteTx, admin: Enroller, at: Now
) -> Any:
    """Correct a controller's serial number."""
    found = await controllers.get(tx, controller_id, within=visible_stations(admin))
    changes = body.model_dump(exclude_unset=True)
    return await controllers.amend(tx, found, changes=changes, actor=admin.actor, at=at)


@router.post(
    "/v1/admin/controllers/{controller_id:uuid}/retire",
    response_model=ControllerOut,
    responses=problems(*_guarded, ControllerNotFound),
)
async def retire_controller(
    controller_id: uuid.UUID, tx: WriteTx, admin: Enroller, held: Held, at: Now
) -> Any:
    """Revoke a controller: lost, stolen or replaced."""
    found = await controllers.get(tx, controller_id, within=visible_stations(admin))
    return await controllers.retire(tx, held.wakeups, found, actor=admin.actor, at=at)


@router.post(
    "/v1/admin/controllers/{controller_id:uuid}/thaw",
    response_model=ControllerOut,
    responses=problems(*_guarded, ControllerNotFound),
)
async def thaw_controller(
    controller_id: uuid.UUID, tx: WriteTx, admin: Enroller, held: Held, at: Now
) -> Any:
    """Let a frozen controller work again, once you know which device is yours."""
    found = await controllers.get(tx, controller_id, within=visible_stations(admin))
    await controllers.thaw(tx, held.wakeups, found, actor=admin.actor, at=at)
    return found


class RangeOut(Out):
    first: int
    last: int


class JournalOut(Out):
    epoch: int
    acked_through: int
    highest: int
    gaps: list[RangeOut]
    """Numbers nobody told us of."""
    lost: list[RangeOut]
    """Numbers the device reported lost, and that we do not hold."""
    quarantined: int


@router.get(
    "/v1/admin/controllers/{controller_id:uuid}/journal",
    response_model=list[JournalOut],
    responses=problems(*_guarded, ControllerNotFound),
)
async def controller_journal(controller_id: uuid.UUID, tx: ReadTx, admin: ControllerReader) -> Any:
    """Say how complete a controller's journal is, epoch by epoch."""
    await controllers.get(tx, controller_id, within=visible_stations(admin))
    return await completeness.states(tx, controller_id)


class QuarantinedOut(Out):
    id: uuid.UUID
    epoch: int
    seq: int | None
    event_id: str
    boot_id: str
    reason: str
    received_at: datetime
    body: Any


@router.get(
    "/v1/admin/controllers/{controller_id:uuid}/quarantine",
    response_model=list[QuarantinedOut],
    responses=problems(*_guarded, ControllerNotFound, CursorInvalid),
)
async def controller_quarantine(
    controller_id: uuid.UUID,
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: ControllerReader,
    page: Page,
) -> Any:
    """List the events of a controller that could not be taken in, as they came, newest first."""
    await controllers.get(tx, controller_id, within=visible_stations(admin))
    query = select(QuarantinedEvent).where(QuarantinedEvent.controller_id == controller_id)
    found = await cursors.page(tx, query, by=[QuarantinedEvent.id], request=page, newest_first=True)
    link_next(request, response, found)
    return found.rows


class OfflineEntryOut(Out):
    id: uuid.UUID = Field(validation_alias="entry_id")
    station_id: uuid.UUID
    door_id: uuid.UUID
    opened: bool
    reason: Reason
    would_have_been_refused: Reason | None
    mode: Kind
    because: Because
    happened_at: datetime
    opened_at: datetime | None
    reviewed_at: datetime


@router.get(
    "/v1/admin/offline-entries",
    response_model=list[OfflineEntryOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_offline_entries(
    request: Request,
    response: Response,
    tx: ReadTx,
    admin: Reader,
    page: Page,
    station: uuid.UUID | None = None,
    flagged: bool | None = None,
) -> Any:
    """List what controllers did while they were alone, newest first; it names no worker.

    `flagged=true`: only what we would have refused.
    """
    query = select(OfflineEntry).where(OfflineEntry.station_id.in_(visible_stations(admin)))
    if station is not None:
        query = query.where(OfflineEntry.station_id == station)
    if flagged is not None:
        refused = OfflineEntry.would_have_been_refused.is_not(None)
        query = query.where(refused if flagged else ~refused)
    by = [OfflineEntry.happened_at, OfflineEntry.entry_id]
    found = await cursors.page(tx, query, by=by, request=page, newest_first=True)
    link_next(request, response, found)
    return found.rows


Kid = Annotated[str, Path(pattern="^[a-z0-9]{1,8}$")]


class KeyOut(Out):
    kid: str
    kind: TokenKind
    state: KeyState
    created_at: datetime
    changed_at: datetime


@router.get("/v1/admin/keys", response_model=list[KeyOut], responses=problems(*_guarded))
async def list_keys(tx: ReadTx, admin: KeyReader) -> Any:
    """List the signing keys."""
    return await keys.list_keys(tx)


class RotateIn(In):
    kind: TokenKind
    emergency: StrictBool = False


@router.post(
    "/v1/admin/keys/rotate",
    response_model=KeyOut,
    responses=problems(*_guarded, keys.KeyTooYoung),
)
async def rotate_key(body: RotateIn, tx: WriteTx, admin: KeyEditor, held: Held, at: Now) -> Any:
    """Publish a new key, or let a published one sign."""
    return await keys.rotate(
        tx,
        held.vault,
        held.wakeups,
        body.kind,
        actor=admin.actor,
        at=at,
        emergency=body.emergency,
    )


class RetireKeyIn(In):
    emergency: StrictBool = False
    """The key leaked: whatever was signed with it is void."""


@router.post(
    "/v1/admin/keys/{kid}/retire",
    response_model=KeyOut,
    responses=problems(*_guarded, keys.KeyNotFound, keys.KeyInUse),
)
async def retire_key(
    kid: Kid,
    tx: WriteTx,
    admin: KeyEditor,
    held: Held,
    at: Now,
    body: RetireKeyIn | None = None,
) -> Any:
    """Destroy a key that no good token can carry any more; in an emergency, at once."""
    emergency = body is not None and body.emergency
    return await keys.retire(tx, held.wakeups, kid, actor=admin.actor, at=at, emergency=emergency)
