"""When controllers were silent, and whether anybody was there to hear them.

An outage is the time between two signs of life that lie further apart than a controller may be
silent. It is written when the controller is heard again; one that goes on is derived from
`seen_at`. Any sign of life within a recorded outage, told late by another process, splits it, so
the outages do not depend on which process writes first. What is told so late that others took it
for silence leaves empty outages where no other was written, so that those days are counted again.
While no server process was there to hear, nobody knows: those gaps lie between the rows of
`listening_spells`.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.db.upsert import moved, upsert
from app.doors.tables import Controller, ControllerOutage, ListeningSpell

LISTENS_EVERY = timedelta(seconds=5)
"""So often a process writes what it heard, and with it that it was there to hear."""

DEAF_AFTER = 3 * LISTENS_EVERY
"""Nothing written for so long: no process was there."""

_OUTAGES = table_of(ControllerOutage)
_LISTENING = table_of(ListeningSpell)


@dataclass(slots=True)
class Presence:
    """A time in which a process kept hearing a controller; whole seconds, as `seen_at`."""

    first: datetime
    last: datetime

    @classmethod
    def begun(cls, at: datetime) -> "Presence":
        """Begin with one sign of life."""
        return cls(_second(at), _second(at))

    def heard(self, at: datetime) -> None:
        """Take in the next one."""
        self.last = _second(at)


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)


async def note_returns(
    tx: AsyncSession,
    heard: Mapping[uuid.UUID, Sequence[Presence]],
    *,
    silence: timedelta,
    at: datetime,
) -> None:
    """Write the outages that ended when these controllers were heard; before `seen_at` is moved.

    The controllers stay locked until the transaction ends: of two processes that heard the same
    one again, the second sees what the first has written.
    """
    rows = await tx.execute(
        sa.select(Controller.id, Controller.station_id, Controller.seen_at)
        .where(Controller.id.in_(heard))
        .order_by(Controller.id)
        .with_for_update(key_share=True)
    )
    found: list[dict[str, Any]] = []
    late: dict[uuid.UUID, Sequence[Presence]] = {}
    for row in rows:
        seen_at = row.seen_at
        for presence in heard[row.id]:
            if seen_at is not None and presence.first < seen_at:
                late[row.id] = heard[row.id]
            there_since = seen_at
            if seen_at is not None and presence.first - seen_at > silence:
                found.append(_outage(row.id, row.station_id, seen_at, presence.first, at))
                there_since = presence.first
            if there_since is not None and presence.last - there_since > silence:
                # Told so late that meanwhile others took it to be silent, and counted it so.
                days = _daily(there_since, presence.last)
                found += [_outage(row.id, row.station_id, day, day, at) for day in days]
            seen_at = presence.last if seen_at is None else max(seen_at, presence.last)
    if late:
        found += await _split(tx, late, silence=silence, at=at)
    if found:
        # Of rows that begin at once the longest: one that is empty may lie where another begins.
        longest: dict[tuple[uuid.UUID, datetime], dict[str, Any]] = {}
        for one in sorted(found, key=lambda one: one["until_at"]):
            longest[one["controller_id"], one["from_at"]] = one
        insert = upsert(tx, _OUTAGES)
        until_at, now_until = _OUTAGES.c.until_at, insert.excluded.until_at
        longer = sa.case((now_until > until_at, now_until), else_=until_at)
        await tx.execute(
            insert.on_conflict_do_update(
                index_elements=["controller_id", "from_at"],
                set_={"until_at": longer, "changed_at": insert.excluded.changed_at},
            ),
            list(longest.values()),
        )


async def _split(
    tx: AsyncSession,
    late: Mapping[uuid.UUID, Sequence[Presence]],
    *,
    silence: timedelta,
    at: datetime,
) -> list[dict[str, Any]]:
    """Cut short the outages within which a controller was heard after all; gives what follows.

    Of one that is cut short, empty ones stay: within its old time on every day, for whoever looks
    for what changed.
    """
    since = min(presences[0].first for presences in late.values())
    rows = await tx.execute(
        sa.select(_OUTAGES).where(
            _OUTAGES.c.controller_id.in_(late),
            _OUTAGES.c.station_id.in_(
                sa.select(Controller.station_id).where(Controller.id.in_(late))
            ),
            _OUTAGES.c.until_at > since,
        )
    )
    left: list[dict[str, Any]] = []
    for row in rows.all():
        within = [
            presence
            for presence in late[row.controller_id]
            if presence.first < row.until_at and row.from_at < presence.last
        ]
        if not within:
            continue
        edges = [row.from_at, *(edge for one in within for edge in (one.first, one.last))]
        edges.append(row.until_at)
        pieces = list(zip(edges[::2], edges[1::2], strict=True))
        _, ends = pieces[0]
        await tx.execute(
            sa.update(_OUTAGES)
            .where(_OUTAGES.c.controller_id == row.controller_id, _OUTAGES.c.from_at == row.from_at)
            .values(until_at=ends if ends - row.from_at > silence else row.from_at, changed_at=at)
        )
        left += [
            _outage(row.controller_id, row.station_id, begins, ends, at)
            for begins, ends in pieces[1:]
            if ends - begins > silence
        ]
        left += [
            _outage(row.controller_id, row.station_id, day, day, at)
            for day in _daily(ends, row.until_at)
        ]
    return left


def _daily(since: datetime, until: datetime) -> Iterator[datetime]:
    """Give an instant of every local day that a time touches, its end among them."""
    while since < until:
        yield since
        since += timedelta(hours=23)  # A day on which clocks go forward is no longer.
    yield until


def _outage(
    controller_id: uuid.UUID,
    station_id: uuid.UUID,
    from_at: datetime,
    until_at: datetime,
    at: datetime,
) -> dict[str, Any]:
    return {
        "controller_id": controller_id,
        "from_at": from_at,
        "until_at": until_at,
        "station_id": station_id,
        "changed_at": at,
    }


async def listen(tx: AsyncSession, *, at: datetime) -> None:
    """Write down that a process is there to hear."""
    last = sa.select(sa.func.max(_LISTENING.c.from_at)).scalar_subquery()
    mine = _LISTENING.c.from_at == last, _LISTENING.c.until_at >= at - DEAF_AFTER
    until_at = _LISTENING.c.until_at
    later = sa.case((until_at < at, sa.literal(at, until_at.type)), else_=until_at)
    went_on = await tx.execute(sa.update(_LISTENING).where(*mine).values(until_at=later))
    if not moved(went_on):
        begins = upsert(tx, _LISTENING).values(from_at=at, until_at=at)
        await tx.execute(begins.on_conflict_do_nothing())


async def listening_since(tx: AsyncSession, *, at: datetime) -> datetime | None:
    """Say since when some process has been there to hear, without a pause; None: nobody is now.

    What was heard is written with it: before that, whoever was heard may not be known.
    """
    newest = sa.select(_LISTENING).order_by(_LISTENING.c.from_at.desc()).limit(1)
    spell = (await tx.execute(newest)).one_or_none()
    if spell is None or spell.until_at < at - DEAF_AFTER:
        return None
    since: datetime = spell.from_at
    return since


async def deaf_times(
    tx: AsyncSession, *, from_at: datetime, until_at: datetime
) -> Sequence[tuple[datetime, datetime]]:
    """Give the times within `[from_at, until_at)` in which nobody was there to hear, in order.

    Of the time before the first process wrote that it was there, nothing is known to be wrong.
    """
    rows = await tx.execute(
        sa.select(_LISTENING.c.from_at, _LISTENING.c.until_at).order_by(_LISTENING.c.from_at)
    )
    found: list[tuple[datetime, datetime]] = []
    heard_until: datetime | None = None
    for row in rows:
        # Processes that begin at once write a row each, moments apart: those were no deafness.
        if heard_until is not None and heard_until + DEAF_AFTER < row.from_at:
            found.append((heard_until, row.from_at))
        heard_until = row.until_at if heard_until is None else max(heard_until, row.until_at)
    if heard_until is not None and heard_until + DEAF_AFTER < until_at:
        found.append((heard_until, until_at))
    return [
        (max(begins, from_at), min(ends, until_at))
        for begins, ends in found
        if begins < until_at and from_at < ends
    ]


def has_told(*, silence: timedelta, at: datetime) -> sa.ColumnElement[bool]:
    """Say of controllers whether what they did not tell did not happen.

    One that is silent, or frozen, may tell of it later; and one that was silent until just now has
    not had the time to tell what it kept. It is by what processes wrote down, the same in all.
    """
    returned = sa.exists().where(
        ControllerOutage.controller_id == Controller.id,
        ControllerOutage.station_id == Controller.station_id,
        ControllerOutage.until_at > at - silence,
        # An empty one was none.
        ControllerOutage.from_at < ControllerOutage.until_at,
    )
    return sa.and_(
        Controller.retired_at.is_(None),
        Controller.frozen_at.is_(None),
        Controller.seen_at > at - silence,
        ~returned,
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """A controller's time at its station, and its silences that are over."""

    enrolled_at: datetime
    retired_at: datetime | None
    seen_at: datetime | None
    outages: Sequence[tuple[datetime, datetime]]


async def heard(
    tx: AsyncSession, station_ids: Sequence[uuid.UUID], *, from_at: datetime, until_at: datetime
) -> Mapping[uuid.UUID, Sequence[Heard]]:
    """Give the controllers that were at stations within `[from_at, until_at)`, and their outages.

    Those that ended at `from_at` or touch the time, in order.
    """
    rows = await tx.execute(
        sa.select(_OUTAGES)
        .where(
            _OUTAGES.c.station_id.in_(station_ids),
            _OUTAGES.c.until_at >= from_at,
            _OUTAGES.c.from_at < until_at,
            _OUTAGES.c.from_at < _OUTAGES.c.until_at,
        )
        .order_by(_OUTAGES.c.from_at)
    )
    outages: dict[uuid.UUID, list[tuple[datetime, datetime]]] = {}
    for row in rows:
        outages.setdefault(row.controller_id, []).append((row.from_at, row.until_at))
    controllers = await tx.execute(
        sa.select(
            Controller.id,
            Controller.station_id,
            Controller.enrolled_at,
            Controller.retired_at,
            Controller.seen_at,
        )
        .where(
            Controller.station_id.in_(station_ids),
            Controller.enrolled_at < until_at,
            sa.or_(Controller.retired_at.is_(None), Controller.retired_at > from_at),
        )
        .order_by(Controller.enrolled_at)
    )
    found: dict[uuid.UUID, list[Heard]] = {}
    for row in controllers:
        one = Heard(row.enrolled_at, row.retired_at, row.seen_at, outages.get(row.id, ()))
        found.setdefault(row.station_id, []).append(one)
    return found
