"""Who may pass: one guard per audience, on the handler's own transaction.

Every guard carries `policy`, the sentence of who may pass; a test walks all routes and fails for a
route without one. A waiting route's guard opens and closes its own read, so that a long poll holds
no connection.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import BackgroundTasks, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.deps import Held, Now, ReadTx, WriteTx
from app.errors import Forbidden, Unauthorized
from app.people import admins, sign_in
from app.people.admins import SignedInAdmin
from app.people.rules import Permission
from app.people.sign_in import SignedInWorker
from app.runtime import Runtime

MAX_TOKEN = 200
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class NotSignedIn(Unauthorized):
    """Please sign in."""


class AdminForbidden(Forbidden):
    """Your role does not allow this."""


class OriginRefused(Forbidden):
    """This request comes from another site."""


_worker_bearer = HTTPBearer(auto_error=False, scheme_name="worker")
_admin_bearer = HTTPBearer(auto_error=False, scheme_name="admin")
_Bearer = HTTPAuthorizationCredentials | None


def policy(sentence: str) -> Callable[[Any], Any]:
    """Mark a guard with who may pass."""

    def mark(guard: Any) -> Any:
        guard.policy = sentence
        return guard

    return mark


def worker_cookie(held: Runtime) -> str:
    """Name the page's cookie."""
    return "__Host-yizhan" if held.settings.secure_cookies else "yizhan_session"


def ticket_cookie(held: Runtime) -> str:
    """Name the cookie of a browser that exchanged the code on a screen."""
    return "__Host-yizhan-ticket" if held.settings.secure_cookies else "yizhan_ticket"


def admin_cookie(held: Runtime) -> str:
    """Name the administrator's cookie."""
    return "__Host-yizhan-admin" if held.settings.secure_cookies else "yizhan_admin"


def _token(request: Request, held: Runtime, bearer: _Bearer, cookie: str) -> str:
    if bearer is not None:
        token = bearer.credentials
    else:
        token = request.cookies.get(cookie, "")
        if token and request.method not in SAFE_METHODS:
            _require_own_origin(request, held)
    if not token or len(token) > MAX_TOKEN or not token.isascii():
        raise NotSignedIn
    return token


def _require_own_origin(request: Request, held: Runtime) -> None:
    """Refuse what another site's page sends with our cookie."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    public = urlsplit(held.settings.public_url)
    own = {f"{public.scheme}://{public.netloc}"}
    if host := request.headers.get("host"):
        # The page may be open under another of our names, such as the LAN address.
        own |= {f"http://{host}", f"https://{host}"}
    if origin.lower() not in {each.lower() for each in own}:
        raise OriginRefused


@policy("signed-in worker")
async def worker_token(
    request: Request, held: Held, bearer: Annotated[_Bearer, Depends(_worker_bearer)]
) -> str:
    """Give the worker's session token, from the header or the page's cookie."""
    return _token(request, held, bearer, worker_cookie(held))


WorkerToken = Annotated[str, Depends(worker_token)]


async def _worker(tx: AsyncSession, held: Runtime, token: str, at: datetime) -> SignedInWorker:
    found = await sign_in.find_worker(tx, token, secret=held.vault.key("owner"), at=at)
    if found is None:
        raise NotSignedIn
    return found


async def reading_worker(tx: ReadTx, held: Held, token: WorkerToken, at: Now) -> SignedInWorker:
    """Give the worker, in the handler's read."""
    return await _worker(tx, held, token, at)


async def writing_worker(tx: WriteTx, held: Held, token: WorkerToken, at: Now) -> SignedInWorker:
    """Give the worker, in the handler's write."""
    return await _worker(tx, held, token, at)


async def waiting_worker(held: Held, token: WorkerToken, at: Now) -> SignedInWorker:
    """Give the worker to a handler that will wait; this read ends first."""
    async with held.database.read() as tx:
        return await _worker(tx, held, token, at)


ReadingWorker = Annotated[SignedInWorker, Depends(reading_worker)]
WritingWorker = Annotated[SignedInWorker, Depends(writing_worker)]
WaitingWorker = Annotated[SignedInWorker, Depends(waiting_worker)]


@policy("signed-in administrator")
async def admin_token(
    request: Request, held: Held, bearer: Annotated[_Bearer, Depends(_admin_bearer)]
) -> str:
    """Give the administrator's session token, from the header or the cookie."""
    return _token(request, held, bearer, admin_cookie(held))


AdminToken = Annotated[str, Depends(admin_token)]


async def _admin(
    tx: AsyncSession, held: Runtime, token: str, permission: Permission, at: datetime
) -> SignedInAdmin:
    found = await admins.find_admin(tx, token, at=at)
    if found is None:
        raise NotSignedIn
    if not found.may(permission):
        raise AdminForbidden
    return found


@policy("signed-in worker, or administrator who may edit_facilities")
async def writing_worker_or_staff(
    request: Request,
    tx: WriteTx,
    held: Held,
    bearer: Annotated[_Bearer, Depends(_worker_bearer)],
    at: Now,
) -> SignedInWorker | SignedInAdmin:
    """Give whoever calls: a worker, or staff who record a use for somebody."""
    if bearer is not None or worker_cookie(held) in request.cookies:
        token = _token(request, held, bearer, worker_cookie(held))
        found = await sign_in.find_worker(tx, token, secret=held.vault.key("owner"), at=at)
        if found is not None:
            return found
    token = _token(request, held, bearer, admin_cookie(held))
    return await _admin(tx, held, token, Permission.EDIT_FACILITIES, at)


WritingWorkerOrStaff = Annotated[SignedInWorker | SignedInAdmin, Depends(writing_worker_or_staff)]

Guard = Callable[..., Coroutine[Any, Any, SignedInAdmin]]


def admin_reads(permission: Permission) -> Guard:
    """Guard a route that reads: in the handler's read; keeps the session from going idle."""

    @policy(f"administrator who may {permission.value}")
    async def guard(
        tx: ReadTx, held: Held, token: AdminToken, at: Now, after: BackgroundTasks
    ) -> SignedInAdmin:
        found = await _admin(tx, held, token, permission, at)
        if admins.needs_note(found, at=at):
            # Afterwards: a second connection beside the handler's could wait for itself.
            after.add_task(_note_use, held, token, at)
        return found

    typed: Guard = guard
    return typed


async def _note_use(held: Runtime, token: str, at: datetime) -> None:
    async with held.database.write() as tx:
        await admins.note_use(tx, token, at=at)


def admin_waits(permission: Permission) -> Guard:
    """Guard a route that first does slow work outside any transaction; this write ends first."""

    @policy(f"administrator who may {permission.value}")
    async def guard(held: Held, token: AdminToken, at: Now) -> SignedInAdmin:
        async with held.database.write() as tx:
            found = await _admin(tx, held, token, permission, at)
            await admins.note_use(tx, token, at=at)
        return found

    typed: Guard = guard
    return typed


def admin_writes(permission: Permission) -> Guard:
    """Guard a route that writes: in the handler's write."""

    @policy(f"administrator who may {permission.value}")
    async def guard(tx: WriteTx, held: Held, token: AdminToken, at: Now) -> SignedInAdmin:
        found = await _admin(tx, held, token, permission, at)
        await admins.note_use(tx, token, at=at)
        return found

    typed: Guard = guard
    return typed
