"""The credential that controllers show, and what their bodies have in common.

The guard opens and closes its own read: one that borrowed the handler's transaction would hold a
pooled connection for every waiting controller.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from app.doors.desk import KnownController
from app.errors import Unauthorized
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


key = ControllerKey(auto_error=False, scheme_name="controller")

Polling = Annotated[KnownController, Depends(key)]


class Lenient(BaseModel):
    """A body from firmware: what we do not know we leave alone."""

    model_config = ConfigDict(extra="allow", frozen=True)
