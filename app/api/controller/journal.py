"""What happened at the doors: numbered events in batches."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks
from pydantic import (
    AwareDatetime,
    Field,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from app.api.controller.key import CredentialRefused, Lenient, Polling
from app.api.deps import Held, Now
from app.api.problems import problems
from app.api.shapes import Key, Out, Rfc3339
from app.doors import journal
from app.doors.journal import Batch, Status
from app.doors.line import ServerBusy
from app.doors.rules.journal import MAX_BATCH, MAX_SEQ, Sending, Sync, Why

router = APIRouter(tags=["controller"])


class SyncIn(Lenient):
    server_time: Rfc3339
    mono_ms: Annotated[StrictInt, Field(ge=0, le=MAX_SEQ)]
    rtt_ms: Annotated[StrictInt, Field(ge=0, le=600_000)]


def _usable(sync: Any, read: ValidatorFunctionWrapHandler) -> SyncIn | None:
    """Go without an instant that cannot be used: the batch has other clocks, and must come in."""
    try:
        found: SyncIn | None = read(sync)
    except ValidationError:
        return None
    return found


class EventsIn(Lenient):
    boot_id: Key
    epoch: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    events: Annotated[list[Any], Field(max_length=MAX_BATCH)]
    """Each `{event_id, seq, type, occurred_at, ...}`; one that cannot be used harms no other."""
    sent_at: AwareDatetime | None = None
    """The device's wall clock now, however far off: without a battery it begins in 1970."""
    mono_ms: Annotated[StrictInt, Field(ge=0, le=MAX_SEQ)] | None = None
    """The device's monotonic clock now."""
    sync: Annotated[SyncIn | None, WrapValidator(_usable)] = None
    """The last `server_time` heard in this boot, and the monotonic clock then."""


class EventResultOut(Out):
    event_id: str
    seq: int | None
    status: Status
    reason: Why | None


class EventsOut(Out):
    results: list[EventResultOut]
    acked_through: int


@router.post(
    "/v1/controller/events",
    response_model=EventsOut,
    responses=problems(CredentialRefused, ServerBusy),
)
async def events(
    body: EventsIn,
    held: Held,
    controller: Polling,
    at: Now,
    after: BackgroundTasks,
) -> Any:
    """Take in a batch of numbered events; every one answered is durable."""
    sync = body.sync
    sending = Sending(
        boot_id=body.boot_id,
        received_at=at,
        sent_at=body.sent_at,
        sent_mono_ms=body.mono_ms,
        sync=Sync(sync.server_time, sync.mono_ms, sync.rtt_ms) if sync else None,
    )
    batch = Batch(body.epoch, sending, body.events)
    async with held.uploads.place(), held.database.write() as tx:
        taken = await journal.take_in(tx, held.wakeups, controller.controller_id, batch, at=at)
    if taken is None:
        raise CredentialRefused
    if taken.due:
        after.add_task(held.effects.write, controller.controller_id)
    return taken
