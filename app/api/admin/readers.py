"""Who may read reports."""

from typing import Annotated

from fastapi import Depends

from app.api.guards import admin_waits
from app.people.admins import SignedInAdmin
from app.people.rules import Permission

Reader = Annotated[SignedInAdmin, Depends(admin_waits(Permission.READ_REPORTS))]
