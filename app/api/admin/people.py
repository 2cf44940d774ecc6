"""HTTP for administrators of people: sign-in, administrators, workers."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, Field, SecretStr, StrictBool, StringConstraints
from sqlalchemy import select

from app.api.deps import Held, Now, Page, ReadTx, WriteTx, link_next
from app.api.guards import (
    AdminForbidden,
    AdminToken,
    NotSignedIn,
    OriginRefused,
    admin_cookie,
    admin_reads,
    admin_waits,
    admin_writes,
    policy,
)
from app.api.network import address_of, network_of
from app.api.problems import problem_response, problems
from app.api.shapes import In, Line, Note, Out
from app.api.worker.account import PhoneInvalid
from app.db import cursors
from app.db.cursors import CursorInvalid
from app.doors import denials
from app.errors import Problem
from app.people import admins, phones, workers
from app.people.admins import AdminNotFound, SignedInAdmin
from app.people.rules import Permission, Role
from app.people.tables import Admin, Occupation, Worker
from app.runtime import Runtime

router = APIRouter(tags=["admin: people"])

_guarded = (NotSignedIn, AdminForbidden, OriginRefused)
AdminReader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.EDIT_ADMINS))]
AdminEditor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_ADMINS))]
AdminHasher = Annotated[SignedInAdmin, Depends(admin_waits(Permission.EDIT_ADMINS))]
WorkerReader = Annotated[SignedInAdmin, Depends(admin_reads(Permission.READ_WORKERS))]
WorkerEditor = Annotated[SignedInAdmin, Depends(admin_writes(Permission.EDIT_WORKERS))]


def _encodable(password: SecretStr) -> SecretStr:
    try:
        password.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("this is not valid Unicode text") from None
    return password


Password = Annotated[SecretStr, Field(min_length=1, max_length=200), AfterValidator(_encodable)]


@policy("anybody: to sign in")
async def signing_in() -> None:
    """Anybody may try; the password decides."""


class LoginIn(In):
    username: Line
    password: Password
    totp: Annotated[str, StringConstraints(pattern="^[0-9]{6}$")] | None = None


class AdminOut(Out):
    id: uuid.UUID
    username: str
    role: Role
    unit_id: uuid.UUID | None
    station_id: uuid.UUID | None
    created_at: datetime
    retired_at: datetime | None


class LoginOut(Out):
    access_token: str
    token_type: str
    expires_in: int
    admin: AdminOut


@router.post(
    "/v1/admin/login",
    response_model=LoginOut,
    responses=problems(admins.LoginRefused, admins.TooManyLogins),
    dependencies=[Depends(signing_in)],
)
async def login(body: LoginIn, request: Request, response: Response, held: Held, at: Now) -> Any:
    """Sign in with name, password and second factor."""
    given = admins.Credentials(
        body.username,
        body.password.get_secret_value(),
        body.totp,
        network_of(address_of(request, held.settings.trusted_proxies)),
    )
    limit = held.settings.limit_admin_failures
    async with held.database.read() as tx:
        account = await admins.find_account(tx, given, failure_limit=limit, at=at)
    if isinstance(account, Problem):
        return problem_response(account)
    # The slow comparison holds no connection, least of all the one writer.
    checked = await admins.check_password(account, given.password)
    async with held.database.write() as tx:
        result = await admins.sign_in(
            tx,
            held.vault,
            given,
            checked,
            failure_limit=limit,
            requires_totp=held.settings.is_production,
            at=at,
        )
    if isinstance(result, Problem):
        return problem_response(result)
    lifetime = int(admins.SESSION_LIFETIME.total_seconds())
    response.set_cookie(
        admin_cookie(held),
        result.token,
        max_age=lifetime,
        path="/",
        secure=held.settings.secure_cookies,
        httponly=True,
        samesite="strict",
    )
    return LoginOut(
        access_token=result.token,
        token_type="bearer",
        expires_in=lifetime,
        admin=AdminOut.model_validate(result.admin),
    )


@router.post(
    "/v1/admin/logout",
    status_code=204,
    response_class=Response,
    responses=problems(NotSignedIn, OriginRefused),
)
async def logout(tx: WriteTx, held: Held, token: AdminToken, at: Now) -> Response:
    """End this session."""
    admin = await admins.find_admin(tx, token, at=at)
    if admin is None:
        raise NotSignedIn
    await admins.sign_out(tx, admin, token, at=at)
    response = Response(status_code=204)
    response.delete_cookie(admin_cookie(held), path="/", secure=held.settings.secure_cookies)
    return response


class AdminIn(In):
    username: Line
    password: Password
    role: Role
    unit: uuid.UUID | None = None
    station: uuid.UUID | None = None
    with_totp: StrictBool = False


class CreatedOut(AdminOut):
    totp_uri: str | None


class AdminPatch(In):
    """Only what is given changes; the defaults are never read."""

    password: Password | None = None
    role: Role = Role.AUDITOR
    unit: uuid.UUID | None = None
    station: uuid.UUID | None = None


@router.get(
    "/v1/admin/admins",
    response_model=list[AdminOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_admins(
    request: Request, response: Response, tx: ReadTx, admin: AdminReader, page: Page
) -> Any:
    """List the administrators."""
    found = await cursors.page(tx, select(Admin), by=[Admin.id], request=page)
    link_next(request, response, found)
    return found.rows


@router.post(
    "/v1/admin/admins",
    status_code=201,
    response_model=CreatedOut,
    responses=problems(
        *_guarded, admins.UsernameTaken, admins.ScopeInvalid, admins.PasswordTooShort
    ),
)
async def add_admin(body: AdminIn, admin: AdminHasher, held: Held, at: Now) -> Any:
    """Add an administrator; roles that need a second factor in production get one."""
    new = admins.NewAdmin(
        username=body.username,
        password_hash=await admins.hash_password(body.password.get_secret_value()),
        role=body.role,
        unit_id=body.unit,
        station_id=body.station,
    )
    required = held.settings.is_production and body.role in admins.NEEDS_TOTP
    async with held.database.write() as tx:
        created = await admins.create(
            tx,
            new,
            vault=held.vault,
            actor=admin.actor,
            at=at,
            with_totp=body.with_totp or required,
        )
    shape = AdminOut.model_validate(created.admin)
    return CreatedOut(**shape.model_dump(), totp_uri=created.totp_uri)


@router.get(
    "/v1/admin/admins/{admin_id}",
    response_model=AdminOut,
    responses=problems(*_guarded, AdminNotFound),
)
async def get_admin(admin_id: uuid.UUID, tx: ReadTx, admin: AdminReader) -> Any:
    """Give one administrator."""
    return await admins.get_admin(tx, admin_id)


@router.patch(
    "/v1/admin/admins/{admin_id}",
    response_model=AdminOut,
    responses=problems(
        *_guarded,
        AdminNotFound,
        admins.ScopeInvalid,
        admins.PasswordTooShort,
        admins.LastCityAdmin,
    ),
)
async def amend_admin(
    admin_id: uuid.UUID, body: AdminPatch, admin: AdminHasher, held: Held, at: Now
) -> Any:
    """Change an administrator's role, scope or password."""
    names = {"unit": "unit_id", "station": "station_id", "role": "role"}
    given = body.model_dump(exclude_unset=True, exclude={"password"})
    changes: dict[str, Any] = {names[name]: value for name, value in given.items()}
    if body.password is not None:
        changes["password_hash"] = await admins.hash_password(body.password.get_secret_value())
    async with held.database.write() as tx:
        row = await admins.get_admin(tx, admin_id)
        return await admins.amend(tx, row, changes=changes, actor=admin.actor, at=at)


@router.post(
    "/v1/admin/admins/{admin_id}/retire",
    response_model=AdminOut,
    responses=problems(*_guarded, AdminNotFound, admins.LastCityAdmin),
)
async def retire_admin(admin_id: uuid.UUID, tx: WriteTx, admin: AdminEditor, at: Now) -> Any:
    """Close an administrator's account."""
    row = await admins.get_admin(tx, admin_id)
    return await admins.retire(tx, row, actor=admin.actor, at=at)


class WorkerOut(Out):
    id: uuid.UUID
    phone: str | None
    """Masked: 138****1234."""
    occupation: Occupation | None
    listed: bool
    unit_id: uuid.UUID | None
    blocked_at: datetime | None
    blocked_because: str | None
    created_at: datetime


def _shape(held: Runtime, worker: Worker) -> WorkerOut:
    phone = workers.phone_of(worker, held.vault)
    return WorkerOut(
        id=worker.id,
        phone=phones.mask(phone) if phone else None,
        occupation=worker.occupation,
        listed=worker.listed,
        unit_id=worker.unit_id,
        blocked_at=worker.blocked_at,
        blocked_because=worker.blocked_because,
        created_at=worker.created_at,
    )


@router.get(
    "/v1/admin/workers",
    response_model=list[WorkerOut],
    responses=problems(*_guarded, CursorInvalid),
)
async def list_workers(
    request: Request, response: Response, tx: ReadTx, admin: WorkerReader, held: Held, page: Page
) -> Any:
    """List the workers, without a word of where they were."""
    seen = select(Worker).where(Worker.erased_at.is_(None), admins.visible_workers(admin))
    found = await cursors.page(tx, seen, by=[Worker.id], request=page)
    link_next(request, response, found)
    return [_shape(held, worker) for worker in found.rows]


class WorkerIn(In):
    phone: Annotated[str, StringConstraints(min_length=3, max_length=32)]
    occupation: Occupation | None = None


@router.post(
    "/v1/admin/workers",
    status_code=201,
    response_model=WorkerOut,
    responses=problems(*_guarded, PhoneInvalid, workers.PhoneNotMobile, workers.PhoneKnown),
)
async def list_number(body: WorkerIn, tx: WriteTx, admin: WorkerEditor, held: Held, at: Now) -> Any:
    """Register a number, so that it may sign in when registration is restricted."""
    try:
        phone = phones.normalise(body.phone)
    except ValueError as error:
        raise PhoneInvalid(str(error)) from error
    new = workers.NewListing(phone, body.occupation, admin.unit_id)
    worker = await workers.list_number(tx, held.vault, new, actor=admin.actor, at=at)
    return _shape(held, worker)


@router.get(
    "/v1/admin/workers/{worker_id}",
    response_model=WorkerOut,
    responses=problems(*_guarded, workers.WorkerNotFound),
)
async def get_worker(worker_id: uuid.UUID, tx: ReadTx, admin: WorkerReader, held: Held) -> Any:
    """Give one worker."""
    return _shape(held, await _get(tx, admin, worker_id))


async def _get(tx: ReadTx, admin: SignedInAdmin, worker_id: uuid.UUID) -> Worker:
    return await workers.get_in_scope(tx, worker_id, within=admins.visible_workers(admin))


class WorkerPatch(In):
    occupation: Occupation | None = None
    blocked: StrictBool = False
    blocked_because: Note | None = None


@router.patch(
    "/v1/admin/workers/{worker_id}",
    response_model=WorkerOut,
    responses=problems(*_guarded, workers.WorkerNotFound),
)
async def amend_worker(
    worker_id: uuid.UUID, body: WorkerPatch, tx: WriteTx, admin: WorkerEditor, held: Held, at: Now
) -> Any:
    """Change a worker's occupation, block or unblock him."""
    worker = await _get(tx, admin, worker_id)
    changes = body.model_dump(exclude_unset=True)
    await workers.amend(tx, worker, changes=changes, actor=admin.actor, at=at)
    await denials.follow(tx, held.wakeups, worker, at=at)
    return _shape(held, worker)


@router.post(
    "/v1/admin/workers/{worker_id}/retire",
    response_model=WorkerOut,
    responses=problems(*_guarded, workers.WorkerNotFound),
)
async def retire_worker(
    worker_id: uuid.UUID, tx: WriteTx, admin: WorkerEditor, held: Held, at: Now
) -> Any:
    """Block a worker for good; only he himself can erase his data."""
    worker = await _get(tx, admin, worker_id)
    await workers.retire(tx, worker, actor=admin.actor, at=at)
    await denials.follow(tx, held.wakeups, worker, at=at)
    return _shape(held, worker)
