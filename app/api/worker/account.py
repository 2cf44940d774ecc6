"""HTTP for workers as people: sign in, own data, export, erasure."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response
from pydantic import AfterValidator, StringConstraints
from sqlalchemy import and_, or_, select

from app import privacy
from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import (
    NotSignedIn,
    OriginRefused,
    ReadingWorker,
    WorkerToken,
    WritingWorker,
    policy,
    worker_cookie,
)
from app.api.network import address_of, network_of
from app.api.problems import problem_response, problems
from app.api.shapes import In, Line, Out
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.doors import registry, tokens
from app.errors import Invalid, Problem
from app.people import phones, sign_in, workers
from app.people.sign_in import Budgets
from app.people.tables import Occupation, Worker
from app.places.tables import Station
from app.runtime import Runtime
from app.settings import Registration
from app.visits.tables import EndSource, Visit

router = APIRouter(tags=["worker"])


class PhoneInvalid(Invalid):
    """This is not a telephone number."""


@policy("anybody: to sign in")
async def signing_in() -> None:
    """Anybody may try to sign in; budgets and codes decide."""


ANYBODY = [Depends(signing_in)]


def budgets(held: Runtime) -> Budgets:
    """Read the limits of sign-in from the settings."""
    settings = held.settings
    return Budgets(
        phone_minute=settings.limit_otp_phone_minute,
        phone_hour=settings.limit_otp_phone_hour,
        phone_day=settings.limit_otp_phone_day,
        door_hour=settings.limit_otp_door_hour,
        network_hour=settings.limit_otp_network_hour if settings.is_production else None,
        tries=settings.limit_otp_tries,
        failures_day=settings.limit_otp_failures_day,
        listed_only=settings.registration is Registration.LISTED,
    )


class OtpIn(In):
    phone: Annotated[str, StringConstraints(min_length=3, max_length=32)]
    token: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """The door code he stands before, so that the door's budget counts."""


class OtpOut(Out):
    challenge_id: str
    expires_in: int


@router.post(
    "/v1/auth/otp",
    status_code=202,
    response_model=OtpOut,
    responses=problems(PhoneInvalid),
    dependencies=ANYBODY,
)
async def request_code(
    body: OtpIn, request: Request, tx: WriteTx, held: Held, at: Now, after: BackgroundTasks
) -> Any:
    """Ask for a one-time code by SMS; the answer tells nothing about the number."""
    try:
        phone = phones.normalise(body.phone)
    except ValueError as error:
        raise PhoneInvalid(str(error)) from error
    network = network_of(address_of(request, held.settings.trusted_proxies))
    asked = sign_in.Asked(phone, network, await _door_of(tx, held, body.token))
    challenge_id = await sign_in.request_code(tx, held.vault, asked, budgets(held), at=at)
    after.add_task(send_due, held)
    return OtpOut(challenge_id=challenge_id, expires_in=int(sign_in.CODE_LIFETIME.total_seconds()))


async def send_due(held: Runtime) -> None:
    """Send what waits in the rows; runs after the commit."""
    domain = urlsplit(held.settings.public_url).netloc
    await sign_in.send_due(held.database, held.sms, vault=held.vault, domain=domain, now=held.now)


async def _door_of(tx: WriteTx, held: Runtime, token: str | None) -> uuid.UUID | None:
    if token is None:
        return None
    claims = held.keys.door_code(token)
    if isinstance(claims, tokens.TokenRefusal):
        return None
    located = await registry.find_by_number(tx, claims.d)
    return located.door.id if located else None


def _known_version(version: str) -> str:
    if version not in workers.CONSENT_VERSIONS:
        raise ValueError("there is no consent text of this version")
    return version


class ConsentIn(In):
    version: Annotated[Line, AfterValidator(_known_version)]


class VerifyIn(In):
    challenge_id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
    code: Annotated[str, StringConstraints(pattern="^[0-9]{6}$")]
    occupation: Occupation | None = None
    consent: ConsentIn | None = None


class ConsentOut(Out):
    version: str
    given_at: datetime


class WorkerOut(Out):
    id: uuid.UUID
    phone: str | None
    """Masked: 138****1234."""
    occupation: Occupation | None
    consent: ConsentOut | None
    created_at: datetime


class SessionOut(Out):
    access_token: str
    token_type: str
    expires_in: int
    worker: WorkerOut


async def _shape(tx: ReadTx, held: Runtime, worker: Worker) -> WorkerOut:
    phone = workers.phone_of(worker, held.vault)
    consent = await workers.consent_of(tx, worker)
    return WorkerOut(
        id=worker.id,
        phone=phones.mask(phone) if phone else None,
        occupation=worker.occupation,
        consent=ConsentOut.model_validate(consent) if consent else None,
        created_at=worker.created_at,
    )


@router.post(
    "/v1/auth/otp/verify",
    response_model=SessionOut,
    responses=problems(sign_in.CodeWrong, sign_in.TooManyWrongCodes),
    dependencies=ANYBODY,
)
async def verify_code(body: VerifyIn, response: Response, tx: WriteTx, held: Held, at: Now) -> Any:
    """Trade the code for a session; a new number registers itself."""
    consent = workers.Given(body.consent.version, "phone_page") if body.consent else None
    proof = sign_in.Proof(body.challenge_id, body.code, body.occupation, consent)
    lifetime = timedelta(days=held.settings.session_days)
    result = await sign_in.verify(
        tx, held.vault, proof, budgets(held), session_lifetime=lifetime, at=at
    )
    if isinstance(result, Problem):
        return problem_response(result)
    max_age = int(lifetime.total_seconds())
    response.set_cookie(
        worker_cookie(held),
        result.token,
        max_age=max_age,
        path="/",
        secure=held.settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )
    return SessionOut(
        access_token=result.token,
        token_type="bearer",
        expires_in=max_age,
        worker=await _shape(tx, held, result.worker),
    )


@router.post(
    "/v1/auth/logout",
    status_code=204,
    response_class=Response,
    responses=problems(NotSignedIn, OriginRefused),
)
async def sign_out(
    tx: WriteTx, held: Held, worker: WritingWorker, token: WorkerToken, at: Now
) -> Response:
    """End this session."""
    await sign_in.sign_out(tx, token, at=at)
    return _without_cookie(held)


def _without_cookie(held: Runtime) -> Response:
    response = Response(status_code=204)
    response.delete_cookie(
        worker_cookie(held), path="/", secure=held.settings.secure_cookies, httponly=True
    )
    return response


@router.get("/v1/me", response_model=WorkerOut, responses=problems(NotSignedIn))
async def me(tx: ReadTx, held: Held, worker: ReadingWorker) -> Any:
    """Give your own data."""
    return await _shape(tx, held, await workers.get_worker(tx, worker.worker_id))


class MeIn(In):
    occupation: Occupation | None = None
    consent: ConsentIn | None = None


@router.patch("/v1/me", response_model=WorkerOut, responses=problems(NotSignedIn, OriginRefused))
async def amend_me(body: MeIn, tx: WriteTx, held: Held, worker: WritingWorker, at: Now) -> Any:
    """Change your occupation; give consent, or withdraw it with `null`."""
    row = await workers.get_worker(tx, worker.worker_id)
    if "occupation" in body.model_fields_set:
        row.occupation = body.occupation
        row.changed_at = at
    if "consent" in body.model_fields_set:
        if body.consent is None:
            await workers.withdraw_consent(tx, row, at=at)
        else:
            given = workers.Given(body.consent.version, "own_data")
            await workers.give_consent(tx, row, given, at=at)
    return await _shape(tx, held, row)


@router.delete(
    "/v1/me",
    status_code=204,
    response_class=Response,
    responses=problems(NotSignedIn, OriginRefused),
)
async def erase_me(tx: WriteTx, held: Held, worker: WritingWorker, at: Now) -> Response:
    """Erase everything that says who you are."""
    await privacy.erase(tx, worker.worker_id, worker.owner_key, at=at)
    return _without_cookie(held)


class StationNamedOut(Out):
    code: str
    name: str


class OwnVisitOut(Out):
    id: uuid.UUID
    station: StationNamedOut
    started_at: datetime
    ended_at: datetime | None
    end_source: EndSource | None
    party_size: int


@router.get(
    "/v1/me/visits",
    response_model=list[OwnVisitOut],
    responses=problems(NotSignedIn, CursorInvalid),
)
async def my_visits(
    request: Request, response: Response, tx: ReadTx, worker: ReadingWorker, page: Page
) -> Any:
    """List your own visits, newest first."""
    # Without consent only the visit he is in is known to be his, and only while he is in it.
    inside = and_(Visit.owner_key == worker.owner_key, Visit.ended_at.is_(None))
    own = or_(Visit.worker_id == worker.worker_id, inside)
    found = await cursors.page(
        tx,
        select(Visit).where(own, Visit.voided_at.is_(None)),
        by=[Visit.id],
        request=page,
        newest_first=True,
    )
    link_next(request, response, found)
    ids = {visit.station_id for visit in found.rows}
    named = {row.id: row for row in await tx.scalars(select(Station).where(Station.id.in_(ids)))}
    return [
        OwnVisitOut(
            id=visit.id,
            station=StationNamedOut.model_validate(named[visit.station_id]),
            started_at=visit.started_at,
            ended_at=visit.ended_at,
            end_source=visit.end_source,
            party_size=visit.party_size,
        )
        for visit in found.rows
    ]


@router.get(
    "/v1/me/export",
    response_class=Response,
    responses={
        **problems(NotSignedIn),
        200: {
            "description": "Everything we hold about you.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    },
)
async def export_me(tx: ReadTx, held: Held, worker: ReadingWorker) -> Response:
    """Give every row that is about you."""
    found = await privacy.export(tx, held.vault, worker.worker_id, worker.owner_key)
    return Response(
        json.dumps(found, ensure_ascii=False, indent=1),
        media_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="yizhan-me.json"'},
    )
