"""Every table of every room, for migrations and for whoever must miss none."""

import sqlalchemy as sa

from app import audit, jobs, vault
from app.alerts import tables as alerts
from app.alerts.webhooks import tables as webhooks
from app.db import leases
from app.db.types import Base
from app.doors import tables as doors
from app.feed import tables as feed
from app.people import tables as people
from app.places import tables as places
from app.reports import tables as reports
from app.usual import tables as usual
from app.visits import tables as visits

_ROOMS = (
    audit,
    vault,
    leases,
    jobs,
    places,
    people,
    alerts,
    webhooks,
    visits,
    doors,
    reports,
    usual,
    feed,
)


def every_table() -> sa.MetaData:
    """Give the metadata with all tables registered."""
    assert _ROOMS
    return Base.metadata
