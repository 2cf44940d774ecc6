"""The server under measurement: the product, and beside it the bare handlers it is compared with.

The bare handlers use the same framework, session class, pool and driver, insert the same rows and
commit: what remains of the difference is what the product does. When a bell's topic was committed
is noted, so that the way from commit to poll answer can be measured from outside.
"""

import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.api.deps import Held
from app.clock import monotonic
from app.db import wakeups
from app.db.types import new_id, table_of
from app.doors import commands, scans
from app.doors.rules import CommandState, Outcome, Reason
from app.doors.rules.journal import EventType, Quality
from app.doors.tables import CommandKind, JournalEntry
from app.main import create_app
from app.people.tables import Occupation
from app.places.rules import Because, Kind
from app.settings import Settings
from benchmarks import clock

router = APIRouter(prefix="/bench")

COMMITTED: dict[str, float] = {}
"""Topic -> monotonic instant of its last commit; the clock is the machine's, for every process."""


INSERT_EVENTS = sa.insert(table_of(JournalEntry))


class BareScan(BaseModel):
    """What a real scan names in its token, given outright."""

    station: uuid.UUID
    door: uuid.UUID
    controller: uuid.UUID
    worker: uuid.UUID


@router.post("/scans", status_code=201)
async def bare_scan(body: BareScan, held: Held) -> dict[str, Any]:
    """Insert the rows of a granted scan and commit."""
    at = datetime.now(UTC)
    scan_id, owner = new_id(), secrets.token_bytes(16)
    async with held.database.write() as tx:
        await tx.execute(
            scans.INSERT,
            {
                "id": scan_id,
                "worker_id": body.worker,
                "owner_key": owner,
                "demand_key": owner,
                "idempotency_key": secrets.token_hex(16),
                "body_hash": secrets.token_bytes(32),
                "station_id": body.station,
                "door_id": body.door,
                "outcome": Outcome.GRANTED,
                "reason": Reason.OK,
                "occupation": Occupation.RIDER,
                "mode": Kind.SCAN,
                "because": Because.WEEKLY,
                "mode_until": None,
                "calendar_known": True,
                "party_size": 1,
                "scanned_at": at,
                "expires_at": at + timedelta(seconds=10),
                "reserved_until": at + timedelta(seconds=30),
                "visit_id": None,
                "local_day": at.date(),
                "local_hour": at.hour,
                "changed_at": at,
            },
        )
        await tx.execute(
            commands.INSERT,
            {
                "id": new_id(),
                "kind": CommandKind.UNLOCK,
                "station_id": body.station,
                "door_id": body.door,
                "controller_id": body.controller,
                "scan_id": scan_id,
                "owner_key": owner,
                "admin_id": None,
                "state": CommandState.PENDING,
                "created_at": at,
                "expires_at": at + timedelta(seconds=10),
                "expires_mono": None,
                "changed_at": at,
            },
        )
    return {"id": str(scan_id)}


class BareEvents(BaseModel):
    """A batch of events whose controller is given outright."""

    controller: uuid.UUID
    events: list[Any]


@router.post("/events")
async def bare_events(body: BareEvents, held: Held) -> dict[str, int]:
    """Insert the rows of a batch and commit."""
    at = datetime.now(UTC)
    rows = [
        {
            "id": new_id(),
            "controller_id": body.controller,
            "epoch": 1,
            "seq": event["seq"],
            "event_id": event["event_id"],
            "boot_id": "b",
            "type": EventType.NOTE,
            "door_id": None,
            "occurred_at": at,
            "corrected_at": at,
            "error_ms": None,
            "quality": Quality.SYNCED,
            "late": False,
            "received_at": at,
            "content_hash": bytes(32),
            "body": event,
            "applied_at": at,
            "effect": None,
        }
        for event in body.events
    ]
    async with held.database.write() as tx:
        await tx.execute(INSERT_EVENTS, rows)
    return {"rows": len(rows)}


@router.get("/committed")
async def committed(topic: str) -> dict[str, float]:
    """Give when a topic was last committed."""
    return {topic: COMMITTED[topic]}


@router.get("/polls")
async def polls(held: Held) -> dict[str, int]:
    """Give how many controllers wait, and how many this process has heard at all."""
    return {"open": held.controllers.open_polls, "heard": len(held.controllers._heard)}


def _note(session: Session) -> None:
    now = time.monotonic()
    if noted := session.info.get(wakeups.NOTED):
        for topic in noted.topics:
            COMMITTED[topic] = now


def build() -> FastAPI:
    """Build the application for uvicorn."""
    # Before the product's own listener, which rings the bells and forgets the topics.
    event.listen(Session, "after_commit", _note, insert=True)
    app = create_app(Settings(), now=clock.now, monotonic=monotonic)
    app.include_router(router)
    return app
