"""Clones: one credential that speaks from two devices (threat T18).

Both histories are kept; the controller is frozen, so that no door of the station opens by a command
until somebody has looked, and an alert says so.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.db.engine import Database
from app.db.gathered import padded
from app.db.wakeups import LocalWakeups
from app.doors.tables import Controller

log = logging.getLogger(__name__)

RETURNS = 2
"""So often must each of two boots speak again after another took over.

A packet of a dead boot that comes late makes that boot return once, and the living one after it.
"""
WITHIN = timedelta(minutes=10)
REMEMBERED = 8
"""Boots of one controller."""
AT_ONCE = 200
"""Controllers whose boots are written in one transaction."""


def last_of(boots: Mapping[str, Any] | None) -> str | None:
    """Say which boot spoke last; None when nobody has since somebody looked."""
    return boots["heard"][-1] if boots else None


def spoken(
    boots: Mapping[str, Any] | None, boot_id: str, *, at: datetime
) -> tuple[dict[str, Any], bool]:
    """Give the boots after another one spoke, and whether two of them have been taking turns."""
    heard = list(boots["heard"]) if boots else []
    returned = list(boots["returned"]) if boots else []
    returned = [one for one in returned if at - datetime.fromisoformat(one[1]) < WITHIN]
    if boot_id in heard:
        heard.remove(boot_id)
        returned.append([boot_id, at.isoformat()])
    often = Counter(boot for boot, _ in returned)
    take_turns = sum(times >= RETURNS for times in often.values()) >= 2
    return {"heard": [*heard, boot_id][-REMEMBERED:], "returned": returned}, take_turns


class BootWatch:
    """Which boots this process heard since it last wrote them down.

    They are judged in the controllers' rows, where every process sees them: two that take turns may
    speak to different ones. In bulk, because after a power cut a whole city boots.
    """

    def __init__(self) -> None:
        self._spoken: dict[uuid.UUID, list[str]] = {}

    def hear(self, controller_id: uuid.UUID, boot_id: str, *, last: str | None) -> None:
        """Note that a boot spoke, unless it was the last that did, here or in the row."""
        spoken = self._spoken.get(controller_id, [])
        if boot_id != (spoken[-1] if spoken else last):
            self._spoken[controller_id] = [*spoken, boot_id]

    async def write(self, database: Database, wakeups: LocalWakeups, *, at: datetime) -> None:
        """Write down what was heard; what is held by somebody else now waits for the next time.

        So does what the database refuses; it is looked for by halves, as it must keep back nobody
        else's.
        """
        left, self._spoken = self._spoken, {}
        ids = sorted(left)
        parts = [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
        try:
            while parts:
                part = parts.pop()
                try:
                    async with database.write() as tx:
                        written = await note(tx, wakeups, {id: left[id] for id in part}, at=at)
                except DBAPIError as error:
                    if error.connection_invalidated or isinstance(error, OperationalError):
                        raise  # The database's trouble: whoever came next would meet it too.
                    half = len(part) // 2
                    if half:
                        parts += [part[half:], part[:half]]
                    else:
                        log.exception("boots not written controller=%s", *part)
                    continue
                for controller_id in written:
                    del left[controller_id]
        finally:
            for controller_id, before in left.items():
                self._spoken[controller_id] = before + self._spoken.get(controller_id, [])


async def note(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    heard: Mapping[uuid.UUID, Sequence[str]],
    *,
    at: datetime,
) -> Sequence[uuid.UUID]:
    """Write which boots spoke, in order, and freeze controllers whose boots take turns.

    Gives whose are written. Rows that are held are left out: who waited for one while holding
    others could wait for ever.
    """
    rows = (
        await tx.execute(
            sa.select(Controller.id, Controller.boots, Controller.frozen_at)
            .where(Controller.id.in_(padded(list(heard))))
            .with_for_update(key_share=True, skip_locked=True)
        )
    ).all()
    changed: list[dict[str, Any]] = []
    clones: list[uuid.UUID] = []
    for row in rows:
        boots, take_turns = row.boots, False
        for boot_id in heard[row.id]:
            if row.frozen_at is None and not take_turns and boot_id != last_of(boots):
                boots, take_turns = spoken(boots, boot_id, at=at)
        if boots != row.boots:
            changed.append({"id": row.id, "boots": boots})
        if take_turns:
            clones.append(row.id)
    if changed:
        await tx.execute(sa.update(Controller), changed)
    for controller_id in clones:
        await found(tx, wakeups, controller_id, detail={"by": "boots"}, at=at)
    return [row.id for row in rows]


async def found(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    *,
    detail: Mapping[str, Any],
    at: datetime,
) -> None:
    """Freeze the controller and open the alert."""
    station_id = await tx.scalar(
        sa.update(Controller)
        .where(Controller.id == controller_id)
        .values(frozen_at=sa.func.coalesce(Controller.frozen_at, at), changed_at=at)
        .returning(Controller.station_id)
    )
    evidence = Evidence(AlertKind.CLONE, f"controller:{controller_id}", station_id, at, detail)
    await book.note(tx, evidence, at=at)
    await wakeups.wake(tx, f"controller:{controller_id}")


async def thaw(tx: AsyncSession, controller: Controller, *, at: datetime) -> None:
    """Let a frozen controller work again: somebody has looked."""
    controller.frozen_at, controller.boots = None, None
    controller.changed_at = at
    await book.settle(tx, AlertKind.CLONE, f"controller:{controller.id}", at=at)
