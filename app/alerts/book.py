"""The book of alerts: note evidence, settle what is over, acknowledge, close.

Whoever opens, takes on or closes an alert here also queues it for the webhooks that want to hear.
"""

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts.rules import BEHAVIOUR, AlertKind
from app.alerts.tables import Alert
from app.alerts.webhooks.outbox import AT_ONCE, announce
from app.alerts.webhooks.rules import EventKind
from app.audit import Action, Actor, Subject, record
from app.db.types import new_id, table_of
from app.db.upsert import upsert
from app.errors import NotFound
from app.places.tables import Station, Unit

STILL_OPEN = sa.text("closed_at IS NULL")
"""Where kind and subject are unique."""

_ALERTS = table_of(Alert)


class AlertNotFound(NotFound):
    """There is no such alert."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that somebody should look at."""

    kind: AlertKind
    subject: str
    station_id: uuid.UUID | None
    happened_at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    late: bool = False


async def note(tx: AsyncSession, evidence: Evidence, *, at: datetime) -> uuid.UUID:
    """Open an alert, or add to the one that is open; gives its id."""
    (found,) = await note_all(tx, [evidence], at=at)
    return found


async def note_all(
    tx: AsyncSession, evidence: Sequence[Evidence], *, at: datetime
) -> Sequence[uuid.UUID]:
    """Do so for many at once, each of another subject; gives the ids, in no order.

    A whole city may fall silent in one minute.
    """
    if not evidence:
        return []
    insert = upsert(tx, _ALERTS)
    new, old = insert.excluded, _ALERTS.c
    rows = await tx.execute(
        insert.on_conflict_do_update(
            index_elements=["kind", "subject"],
            index_where=STILL_OPEN,
            set_={
                "count": old.count + 1,
                "last_at": sa.case((new.last_at > old.last_at, new.last_at), else_=old.last_at),
                "detail": new.detail,
                "changed_at": new.changed_at,
            },
        ).returning(old.id, old.count),
        [_row(one, at) for one in evidence],
    )
    found = rows.all()
    opened = [id for id, count in found if count == 1]
    await announce(tx, EventKind.OPENED, opened, at=at)
    return [row.id for row in found]


def _row(evidence: Evidence, at: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "kind": evidence.kind,
        "subject": evidence.subject,
        "station_id": evidence.station_id,
        "opened_at": evidence.happened_at,
        "last_at": evidence.happened_at,
        "count": 1,
        "detail": dict(evidence.detail),
        "late": evidence.late,
        "created_at": at,
        "changed_at": at,
    }


async def settle(
    tx: AsyncSession,
    kind: AlertKind,
    subject: str,
    *,
    at: datetime,
    over_at: datetime | None = None,
) -> bool:
    """Close the open alert of this kind and subject: its cause is over; tells whether one was.

    What was over at an earlier instant, and is told late, closes nothing that began since.
    """
    which = [Alert.kind == kind, Alert.subject == subject]
    if over_at is not None:
        which.append(Alert.last_at <= over_at)
    return await _close_all(tx, [which], at=at) > 0


async def settle_all(
    tx: AsyncSession, kind: AlertKind, subjects: Collection[str], *, at: datetime
) -> int:
    """Close the open alerts of a kind that are of these subjects; gives how many."""
    which = [[Alert.kind == kind, Alert.subject.in_(part)] for part in _parts(subjects)]
    return await _close_all(tx, which, at=at)


def _parts(subjects: Collection[str]) -> Iterator[Sequence[str]]:
    each = sorted(subjects)
    for first in range(0, len(each), AT_ONCE):
        yield each[first : first + AT_ONCE]


async def _close_all(
    tx: AsyncSession, each: Iterable[Sequence[sa.ColumnElement[bool]]], *, at: datetime
) -> int:
    """Close those of the open alerts, a statement for each part, and tell it; gives how many."""
    closed: list[uuid.UUID] = []
    for which in each:
        result = await tx.scalars(
            sa.update(Alert)
            .where(Alert.closed_at.is_(None), *which)
            .values(closed_at=at, changed_at=at)
            .returning(Alert.id)
        )
        closed += result
    await announce(tx, EventKind.CLOSED, closed, at=at)
    return len(closed)


async def open_ones(tx: AsyncSession, kind: AlertKind) -> Mapping[str, datetime]:
    """Give the subjects of a kind's open alerts, with when the newest evidence happened."""
    rows = await tx.execute(
        sa.select(Alert.subject, Alert.last_at).where(Alert.kind == kind, Alert.closed_at.is_(None))
    )
    return {row.subject: row.last_at for row in rows}


async def closed_ones(
    tx: AsyncSession, kind: AlertKind, *, since: datetime
) -> Mapping[str, datetime]:
    """Give the subjects of a kind's closed alerts, with when the newest evidence happened.

    Of those with evidence since then. Who looks for the same again and again opens nothing anew
    from what somebody has seen and closed.
    """
    newest = sa.func.max(Alert.last_at, type_=Alert.last_at.type)
    rows = await tx.execute(
        sa.select(Alert.subject, newest.label("last_at"))
        .where(Alert.kind == kind, Alert.closed_at.is_not(None), Alert.last_at >= since)
        .group_by(Alert.subject)
    )
    return {row.subject: row.last_at for row in rows}


async def told(
    tx: AsyncSession, kind: AlertKind, subjects: Collection[str], *, since: datetime
) -> Mapping[str, datetime]:
    """Give the newest evidence of these subjects' alerts of a kind, open or closed, since then."""
    newest = sa.func.max(Alert.last_at, type_=Alert.last_at.type).label("last_at")
    found: dict[str, datetime] = {}
    for part in _parts(subjects):
        rows = await tx.execute(
            sa.select(Alert.subject, newest)
            .where(Alert.kind == kind, Alert.last_at >= since, Alert.subject.in_(part))
            .group_by(Alert.subject)
        )
        found |= {row.subject: row.last_at for row in rows}
    return found


async def untold(
    tx: AsyncSession, found: Sequence[Evidence], opened: Mapping[str, datetime]
) -> Sequence[Evidence]:
    """Leave out what the open alert says already, and what one said that somebody closed.

    All are of one kind, and `opened` are its open alerts.
    """
    new = [each for each in found if not _says(opened, each)]
    if not new:
        return new
    since = min(each.happened_at for each in new)
    closed = await closed_ones(tx, new[0].kind, since=since)
    return [each for each in new if not _says(closed, each)]


def _says(told: Mapping[str, datetime], each: Evidence) -> bool:
    return each.subject in told and each.happened_at <= told[each.subject]


async def close_quiet(tx: AsyncSession, *, at: datetime) -> int:
    """Close the alerts that have been quiet for as long as their kind asks; tells how many."""
    closed = 0
    for kind, behaviour in BEHAVIOUR.items():
        if behaviour.closes_after is None:
            continue
        quiet = Alert.last_at <= at - behaviour.closes_after
        closed += await _close_all(tx, [[Alert.kind == kind, quiet]], at=at)
    return closed


async def get(tx: AsyncSession, alert_id: uuid.UUID, *, within: sa.ColumnElement[bool]) -> Alert:
    """Give one alert of those `within`; raises AlertNotFound."""
    found = await tx.scalar(sa.select(Alert).where(Alert.id == alert_id, within))
    if found is None:
        raise AlertNotFound
    return found


async def acknowledge(tx: AsyncSession, alert: Alert, *, actor: Actor, at: datetime) -> Alert:
    """Say that somebody looks after it; again changes nothing."""
    if alert.acknowledged_at is None:
        alert.acknowledged_at, alert.acknowledged_by = at, actor.admin_id
        alert.changed_at = at
        subject = await _subject(tx, alert)
        await record(tx, actor, Action.ALERT_ACKNOWLEDGED, subject, at=at)
        await announce(tx, EventKind.ACKNOWLEDGED, [alert.id], at=at)
    return alert


async def close(tx: AsyncSession, alert: Alert, *, actor: Actor, at: datetime) -> Alert:
    """Say that it is over; new evidence opens a new one. Again changes nothing."""
    if alert.closed_at is None:
        alert.closed_at, alert.closed_by = at, actor.admin_id
        alert.changed_at = at
        subject = await _subject(tx, alert)
        await record(tx, actor, Action.ALERT_CLOSED, subject, at=at)
        await announce(tx, EventKind.CLOSED, [alert.id], at=at)
    return alert


async def _subject(tx: AsyncSession, alert: Alert) -> Subject:
    path = None
    if alert.station_id is not None:
        path = await tx.scalar(
            sa.select(Unit.path)
            .join(Station, Station.unit_id == Unit.id)
            .where(Station.id == alert.station_id)
        )
    return Subject("alert", alert.id, unit_path=path, station_id=alert.station_id)
